"""The deliveries as OpenAPI describes them: the ``webhooks`` section, made from the catalogue."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from webhooks.catalog import EventType
from webhooks.documentation.pages import facts
from webhooks.documentation.schemas import documented_message, message_schema
from webhooks.documentation.signed import signed_example

_HEADERS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "webhook-id": (
        "The same on every attempt, and in the body. Remember it: a message may come twice.",
        {"type": "string"},
    ),
    "webhook-timestamp": (
        "Unix seconds of this attempt. Refuse what is more than five minutes off.",
        {"type": "string", "pattern": "^[0-9]+$"},
    ),
    "webhook-signature": (
        "One signature for each live secret, newest first, separated by spaces: `v1,` and the "
        "base64 of HMAC-SHA256 over `{webhook-id}.{webhook-timestamp}.{raw body}`.",
        {"type": "string", "pattern": "^v1,[A-Za-z0-9+/=]+( v1,[A-Za-z0-9+/=]+)*$"},
    ),
}


def section(types: Iterable[EventType]) -> dict[str, Any]:
    """One path item for each event type."""
    answers = _answers()
    return {event_type.name: {"post": _operation(event_type, answers)} for event_type in types}


def schemas(types: Iterable[EventType]) -> dict[str, Any]:
    """The messages' schemas, by their names among the components."""
    return {
        event_type.name: message_schema(event_type, at=f"#/components/schemas/{event_type.name}")
        for event_type in types
    }


def _operation(event_type: EventType, answers: dict[str, Any]) -> dict[str, Any]:
    sent = signed_example(event_type).headers
    operation: dict[str, Any] = {
        "operationId": f"on.{event_type.name}",
        "tags": ["deliveries"],
        "summary": event_type.title or event_type.name,
        "parameters": [
            {
                "name": name,
                "in": "header",
                "required": True,
                "description": description,
                "schema": schema,
                "example": sent[name],
            }
            for name, (description, schema) in _HEADERS.items()
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"$ref": f"#/components/schemas/{event_type.name}"},
                    "example": documented_message(event_type),
                }
            },
        },
        "responses": answers,
        # The signature is the proof; the API's tokens have no part in it.
        "security": [],
    }
    if event_type.description:
        operation["description"] = event_type.description
    return operation


def _answers() -> dict[str, Any]:
    told = facts()
    later = {
        "Retry-After": {
            "description": "Seconds, or an HTTP date: when to go on.",
            "schema": {"type": "string"},
        }
    }
    return {
        "2XX": {"description": f"Received. Answer within {told.timeout} seconds."},
        "410": {"description": "Unsubscribes: nothing more is sent, what waits is cancelled."},
        "429": {"description": "Too fast: sent again later, and slower.", "headers": later},
        "503": {"description": "Not now: sent again later.", "headers": later},
        "default": {
            "description": "Anything else is a failure, redirects too: they are not followed. "
            f"A delivery is tried {told.tries} times in all."
        },
    }
