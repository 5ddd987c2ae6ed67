"""Which pages there are: those that the admin's registry names, and those that links lead to.

Nothing is listed by hand. A page that nobody links to is a finding, and so is a link that leads to
nothing.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urldefrag, urlencode, urljoin, urlsplit

import requests

#: Whose pages are looked at; those of other apps are not ours.
APPS = ("webhooks", "campaigns")
#: Further pages of ours, that the admin does not link to.
FURTHER = ("/webhooks/docs/",)
#: Of one route so many pages are fetched in search of links; the fullest is looked at.
INSTANCES = 2


class Links(HTMLParser):
    """The addresses that a page leads to: of its links, and of its forms that only ask, as a
    browser would fill them in with every box ticked."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self._actions: list[str] = []
        self._fields: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        if tag == "a" and given.get("href"):
            self.found.append(given["href"])
        elif tag == "form":
            asks = given.get("method", "get").lower() == "get"
            self._actions, self._fields = ([given.get("action", "")] if asks else []), []
        elif tag == "input" and given.get("name"):
            self._fields.append((given["name"], given.get("value", "")))
        elif tag == "button" and self._actions and "formaction" in given:
            self._actions.append(given["formaction"])

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self.found += [f"{each}?{urlencode(self._fields)}" for each in self._actions]
            self._actions = []


@dataclass
class Found:
    """What a crawl has found: of each route the path of its fullest page; what was not a page."""

    pages: dict[str, str] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)
    broken: list[str] = field(default_factory=list)


def is_ours(path: str) -> bool:
    return path == "/admin/" or path.startswith(
        (*(f"/admin/{app}/" for app in APPS), "/webhooks/docs/")
    )


class Routes:
    """The routes that the registry names: ``/admin/webhooks/event/*/change/``."""

    def __init__(self, known: Iterable[str]) -> None:
        # Those with the fewest wildcards first: ``add`` is no id.
        self.known = sorted(known, key=lambda route: route.count("*"))
        self._patterns = [(re.compile(route.replace("*", "[^/]+")), route) for route in self.known]

    def of(self, path: str) -> str:
        """The route of a path; one that is not in the registry is its own."""
        return next((route for each, route in self._patterns if each.fullmatch(path)), path)

    @staticmethod
    def filled(route: str, pages: dict[str, str]) -> str:
        """The address of a route that no link leads to, with the ids of a page like it."""
        alike = [each for each in pages if "*" in route and each.startswith(_head(route))]
        most = max(alike, key=lambda each: each.count("*"), default="")
        known = urlsplit(pages.get(most, route)).path.split("/")
        parts = enumerate(route.split("/"))
        return "/".join(known[i] if part == "*" else part for i, part in parts)


def _head(route: str) -> str:
    """A route up to its first id."""
    return route[: route.find("*") + 1]


def crawl(
    origin: str, session: requests.Session, routes: Routes, begin: Iterable[str] = ()
) -> Found:
    """Follow the links from the admin's index, as somebody who is logged in.

    begin: pages from which all links are followed besides, however many of their route there are.
    """
    found = Found()
    sizes: dict[str, int] = {}
    known: Counter[str] = Counter()
    seen: set[str] = set()
    first = ["/admin/", *FURTHER, *begin]
    todo = deque(first)
    while todo:
        address = todo.popleft()
        route = routes.of(urlsplit(address).path)
        if address in seen or (known[route] >= INSTANCES and address not in first):
            continue
        seen.add(address)
        known[route] += 1
        answer = session.get(urljoin(origin, address), timeout=30)
        if not answer.ok:
            found.broken.append(f"{answer.status_code} {address}")
        elif routes.of(urlsplit(answer.url).path) != route:
            continue  # it was there a moment ago: a worker that has left
        elif not answer.headers.get("Content-Type", "").startswith("text/html"):
            found.others.add(route)
        else:
            if len(answer.content) > sizes.get(route, 0):
                sizes[route] = len(answer.content)
                found.pages[route] = address
            for href in Links(answer.text).found:
                to = urldefrag(urljoin(answer.url, href)).url
                if to.startswith(origin) and is_ours(urlsplit(to).path):
                    todo.append(to.removeprefix(origin))
    return found
