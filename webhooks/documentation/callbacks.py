"""The deliveries as OpenAPI describes them: the ``webhooks`` section, made from the catalogue."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from webhooks.catalog import EventType
from webhooks.documentation import parcels
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
    """One path item for each event type; then batches and digests, which may hold any of them."""
    answers = _answers()
    told = list(types)
    found = {event_type.name: {"post": _operation(event_type, answers)} for event_type in told}
    if told:
        found |= {
            "batch": {"post": _several("batch", "Several events", parcels.batch(told), answers)},
            "digest": {"post": _several("digest", "A digest", parcels.digest(told), answers)},
        }
    return found


def schemas(types: Iterable[EventType]) -> dict[str, Any]:
    """The messages' schemas, by their names among the components."""
    told = list(types)
    messages = {
        event_type.name: message_schema(event_type, at=f"#/components/schemas/{event_type.name}")
        for event_type in told
    }
    return messages | parcels.schemas(told) if told else messages


def _operation(event_type: EventType, answers: dict[str, Any]) -> dict[str, Any]:
    standard = {
        "schema": {"$ref": f"#/components/schemas/{event_type.name}"},
        "example": documented_message(event_type),
    }
    operation = _post(
        f"on.{event_type.name}",
        event_type.title or event_type.name,
        {"application/json": standard, **parcels.single(event_type)},
        answers,
        signed_example(event_type).headers,
    )
    if event_type.description:
        operation["description"] = event_type.description
    return operation


def _several(
    name: str, summary: str, content: dict[str, Any], answers: dict[str, Any]
) -> dict[str, Any]:
    return _post(f"on.{name}", summary, content, answers, {"webhook-id": parcels.MESSAGE_ID})


def _post(
    operation_id: str,
    summary: str,
    content: dict[str, Any],
    answers: dict[str, Any],
    sent: Mapping[str, str],
) -> dict[str, Any]:
    """sent: headers of the example, as far as all that is shown has them."""
    parameters = []
    for name, (description, schema) in _HEADERS.items():
        header = {"name": name, "in": "header", "required": True, "description": description}
        parameters.append(header | {"schema": schema})
        if name in sent:
            parameters[-1]["example"] = sent[name]
    return {
        "operationId": operation_id,
        "tags": ["deliveries"],
        "summary": summary,
        "parameters": parameters,
        "requestBody": {"required": True, "content": content},
        "responses": answers,
        # The signature is the proof; the API's tokens have no part in it.
        "security": [],
    }


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
