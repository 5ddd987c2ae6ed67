"""The webhooks' API, as the demo's subscribers use it: over HTTP, with a token of their own.

Nothing here knows the database: what the demo does here, a stranger's program does the same way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import requests

#: Seconds for one request.
TIMEOUT = 30


class Refused(Exception):
    """The API did not do what it was asked for."""


class Api:
    """A client of the API, by OAuth 2's client credentials."""

    def __init__(self, origin: str, client_id: str, client_secret: str) -> None:
        """origin: of the web server, e.g. ``http://127.0.0.1:8000``. Gets a token at once.

        Raises Refused, and OSError when nobody answers.
        """
        self.origin = origin
        self._session = requests.Session()
        # Without the environment's proxies and ~/.netrc: the server is on this machine.
        self._session.trust_env = False
        token = self._ask(
            "POST",
            f"{origin}/o/token/",
            auth=(client_id, client_secret),
            data={"grant_type": "client_credentials"},
        )
        self._session.headers["Authorization"] = f"Bearer {token['access_token']}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._session.close()

    def subscribe(self, **asked: Any) -> dict[str, Any]:
        """The new subscription with its secret, which is told this once."""
        return self._ask("POST", self._url("subscriptions/"), json=asked)

    def subscriptions(self, **filters: str) -> Iterator[dict[str, Any]]:
        """The client's own, page by page."""
        page = self._ask("GET", self._url("subscriptions/"), params=filters)
        yield from page["results"]
        while page["next"]:
            page = self._ask("GET", page["next"])
            yield from page["results"]

    def rotate_secret(self, subscription: str) -> str:
        """A new secret. The one before it signs as well for a day."""
        answer = self._ask("POST", self._url(f"subscriptions/{subscription}/rotate-secret/"))
        return str(answer["secret"])

    def unsubscribe(self, subscription: str) -> None:
        self._ask("DELETE", self._url(f"subscriptions/{subscription}/"))

    def _url(self, path: str) -> str:
        return f"{self.origin}/webhooks/{path}"

    def _ask(self, method: str, url: str, **options: Any) -> Any:
        answer = self._session.request(method, url, timeout=TIMEOUT, **options)
        if not answer.ok:
            raise Refused(f"{method} {url} was answered with {answer.status_code}: {answer.text}")
        return answer.json() if answer.content else None
