"""A user's browser, as far as OAuth 2 needs one: it follows links, and fills in forms."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import requests

#: Where the application would listen; nobody goes there, the address alone carries the code.
REDIRECT_URI = "https://client.example/callback"


class Form(HTMLParser):
    """The fields of a page's form, with their values."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        if tag == "input" and given.get("name") and given.get("type") != "submit":
            self.fields[str(given["name"])] = given.get("value") or ""


class Browser:
    """One user's session at the project."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.session = requests.Session()

    def open(self, path: str, **parameters: str) -> requests.Response:
        page = self.session.get(urljoin(self.origin, path), params=parameters or None, timeout=30)
        assert page.status_code == 200, f"{page.status_code} {page.url}"
        return page

    def submit(self, page: requests.Response, **filled: str) -> requests.Response:
        """Fill in the form of a page and send it; the answer, without following it."""
        return self.session.post(
            page.url,
            data={**Form(page.text).fields, **filled},
            headers={"Referer": page.url},
            allow_redirects=False,
            timeout=30,
        )

    def log_in(self, username: str, password: str) -> None:
        page = self.open("/accounts/login/")
        assert self.submit(page, username=username, password=password).status_code == 302

    def authorize(self, client_id: str, scope: str) -> dict[str, Any]:
        """Grant an application access, and return what it gets for the code: its tokens.

        Authorization code with PKCE (RFC 7636), as for an application that can keep no secret.
        """
        verifier = secrets.token_urlsafe(48)
        digest = hashlib.sha256(verifier.encode()).digest()
        state = secrets.token_urlsafe(8)
        page = self.open(
            "/o/authorize/",
            response_type="code",
            client_id=client_id,
            redirect_uri=REDIRECT_URI,
            scope=scope,
            state=state,
            code_challenge=base64.urlsafe_b64encode(digest).decode().rstrip("="),
            code_challenge_method="S256",
        )
        answer = self.submit(page, allow="Authorize")
        assert answer.status_code == 302, answer.text
        location = answer.headers["Location"]
        assert location.startswith(REDIRECT_URI), location
        told = parse_qs(urlsplit(location).query)
        assert told["state"] == [state]
        return token(
            self.origin,
            grant_type="authorization_code",
            client_id=client_id,
            code=told["code"][0],
            redirect_uri=REDIRECT_URI,
            code_verifier=verifier,
        )

    def revoke_the_only_token(self) -> None:
        """As a user does it who wants an application to have no more access."""
        listed = self.open("/o/authorized_tokens/").text
        links = set(re.findall(r'href="(/o/authorized_tokens/\d+/delete/)"', listed))
        assert len(links) == 1, listed
        assert self.submit(self.open(links.pop())).status_code == 302

    def delete_application(self, pk: str) -> None:
        """As its developer does it."""
        answer = self.submit(self.open(f"/o/applications/{pk}/delete/"))
        assert answer.status_code == 302, answer.text


def token(origin: str, **asked: str) -> dict[str, Any]:
    """Ask the token endpoint; what it answers."""
    answer = requests.post(f"{origin}/o/token/", data=asked, timeout=30)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found
