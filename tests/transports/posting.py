"""One POST from start to response, for the tests of the transport."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from webhooks.transports.base import Request, Response
from webhooks.transports.requests import RequestsTransport

LOOPBACK = {"ALLOW_HTTP": True, "ALLOWED_NETWORKS": ["127.0.0.0/8"], "ALLOWED_PORTS": "any"}
HEADERS = {"Content-Type": "application/json", "webhook-id": "evt_1", "X-Mine": "caf\xe9"}
BODY = b'{"id":"evt_1"}'


def request(url: str, *, lane: str = "sub_a", timeout: float = 5, **kwargs: Any) -> Request:
    return Request(
        lane=lane,
        url=url,
        headers=kwargs.get("headers", HEADERS),
        body=kwargs.get("body", BODY),
        timeout=timeout,
    )


def post(transport: RequestsTransport, url: str, **kwargs: Any) -> Response:
    """One POST, from start to its response."""
    transport.start("tag", request(url, **kwargs))
    [(tag, response)] = gather(transport, 1)
    assert tag == "tag"
    return response


def gather(transport: RequestsTransport, count: int) -> list[tuple[Any, Response]]:
    results: list[tuple[Any, Response]] = []
    until = time.monotonic() + 20
    while len(results) < count:
        assert time.monotonic() < until, f"only {len(results)} of {count} POSTs ended"
        results += transport.finished(1)
    return results


def wait_until(condition: Callable[[], object], seconds: float = 5) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)
