"""The transports there are, and one POST from start to response, for their tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from webhooks.transports.base import Request, Response, Transport

TRANSPORTS = (
    "webhooks.transports.requests.RequestsTransport",
    "webhooks.transports.curl.CurlTransport",
)
LOOPBACK = {"ALLOW_HTTP": True, "ALLOWED_NETWORKS": ["127.0.0.0/8"], "ALLOWED_PORTS": "any"}
HEADERS = {"Content-Type": "application/json", "webhook-id": "evt_1", "X-Mine": "caf\xe9"}
BODY = b'{"id":"evt_1"}'


def transport_named(path: str, ca_file: str | None = None) -> type[Transport]:
    """The class of this dotted path, made to trust ``ca_file``; skips where it is not installed."""
    try:
        found: type[Transport] = import_string(path)
    except (ImportError, ImproperlyConfigured) as error:
        pytest.skip(f"{path} cannot be imported: {error}")
    return type(found.__name__, (found,), {"ca_file": ca_file})


def request(url: str, *, lane: str = "sub_a", timeout: float = 5, **kwargs: Any) -> Request:
    return Request(
        lane=lane,
        url=url,
        headers=kwargs.get("headers", HEADERS),
        body=kwargs.get("body", BODY),
        timeout=timeout,
    )


def post(transport: Transport, url: str, **kwargs: Any) -> Response:
    """One POST, from start to its response."""
    transport.start("tag", request(url, **kwargs))
    [(tag, response)] = gather(transport, 1)
    assert tag == "tag"
    return response


def gather(transport: Transport, count: int) -> list[tuple[Any, Response]]:
    results: list[tuple[Any, Response]] = []
    until = time.monotonic() + 20
    while len(results) < count:
        assert time.monotonic() < until, f"only {len(results)} of {count} POSTs ended"
        results += transport.finished(1)
    return results


def drive(transport: Transport, condition: Callable[[], object], seconds: float = 5) -> None:
    """Let a transport work until a condition holds; some do so only when they are asked."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        assert transport.finished(0.005) == []


def wait_until(condition: Callable[[], object], seconds: float = 5) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)
