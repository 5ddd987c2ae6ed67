"""For subscribers written in Python: verify a message, and hand it to whoever wants it, once.

``verify``, ``receive`` and ``Handlers`` need nothing of Django: they do in any framework, or in
none. ``webhook_view`` and ``Dispatcher`` are for Django, and loaded when they are asked for.

    event = verify(request.body, request.headers, secret)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webhooks.exceptions import InvalidSignature
from webhooks.receiving.dispatching import (
    Dispatched,
    Handlers,
    Message,
    Seen,
    echo_hook_secret,
    receive,
)
from webhooks.receiving.verifying import verify

__all__ = [
    "CacheSeen",
    "Dispatched",
    "Dispatcher",
    "Handlers",
    "InvalidSignature",
    "Message",
    "Seen",
    "echo_hook_secret",
    "receive",
    "verify",
    "webhook_view",
]

if TYPE_CHECKING:
    from webhooks.receiving.django import CacheSeen, Dispatcher, webhook_view


def __getattr__(name: str) -> Any:
    if name in {"CacheSeen", "Dispatcher", "webhook_view"}:
        import importlib

        return getattr(importlib.import_module("webhooks.receiving.django"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
