"""What an event type's data look like, and the message that carries them.

Schemas are JSON Schema 2020-12. The delivered example is composed by the format that composes the
deliveries, so that the two cannot differ.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from django.core.serializers.json import DjangoJSONEncoder

from webhooks.catalog import EventType
from webhooks.documentation.fields import schema_of_serializer
from webhooks.documentation.references import relocated
from webhooks.documentation.values import value_of
from webhooks.formats import EventRecord, get_format

__all__ = [
    "EXAMPLE_ID",
    "EXAMPLE_TIME",
    "documented_body",
    "documented_message",
    "documented_record",
    "example_of",
    "message_schema",
    "schema_of",
]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
EVENT_ID: Final = "^evt_[0-9a-f]{32}$"
#: Always UTC, always with six digits: see :func:`webhooks.formats.base.utc_text`.
MOMENT: Final = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z$"
#: When the examples happened, and the id that an event of that moment could have.
EXAMPLE_TIME: Final = datetime(2026, 1, 15, 8, 30, 0, 123456, tzinfo=UTC)
EXAMPLE_ID: Final = "evt_019bc0c69bbb7c5e9a6d4f0e8b21c735"


def schema_of(event_type: EventType) -> dict[str, Any] | None:
    """The schema of the type's data: the registered one, or made from its serializer; None: none.

    The result is the caller's own: a change of it changes nobody else's.
    """
    if event_type.schema is not None:
        copied: dict[str, Any] = json.loads(json.dumps(event_type.schema, cls=DjangoJSONEncoder))
        return copied
    if event_type.serializer is not None:
        return schema_of_serializer(event_type.serializer)
    return None


def message_schema(event_type: EventType, at: str = "#") -> dict[str, Any]:
    """The schema of the standard body that carries one event of the type.

    at: JSON pointer of the place in a larger document where it will stand, so that references
    within the data's schema go on leading there.
    """
    data = schema_of(event_type) or {"type": "object"}
    schema: dict[str, Any] = {
        "type": "object",
        "title": event_type.title or event_type.name,
        "properties": {
            "id": {
                "type": "string",
                "pattern": EVENT_ID,
                "description": "The event. It is the webhook-id header, too.",
            },
            "type": {"type": "string", "const": event_type.name},
            "timestamp": {
                "type": "string",
                "format": "date-time",
                "pattern": MOMENT,
                "description": "When it happened, in UTC.",
            },
            "data": relocated(data, f"{at}/properties/data"),
        },
        "required": ["id", "type", "timestamp", "data"],
    }
    if event_type.description:
        schema["description"] = event_type.description
    return {"$schema": DIALECT, **schema} if at == "#" else schema


def example_of(event_type: EventType) -> Any:
    """An example of the type's data: the registered one, or the same value made from its schema."""
    if event_type.example is not None:
        return json.loads(_frozen(event_type, event_type.example))
    schema = schema_of(event_type)
    return {} if schema is None else value_of(schema)


def documented_record(event_type: EventType) -> EventRecord:
    """The type's example as the formats take it."""
    example = event_type.example if event_type.example is not None else example_of(event_type)
    return EventRecord(
        id=EXAMPLE_ID,
        type=event_type.name,
        occurred_at=EXAMPLE_TIME,
        data=_frozen(event_type, example),
    )


def documented_body(event_type: EventType) -> bytes:
    """The bytes that would be delivered for the type's example."""
    return get_format("standard").body(documented_record(event_type))


def documented_message(event_type: EventType) -> dict[str, Any]:
    """The type's example as a receiver finds it in the body."""
    message: dict[str, Any] = json.loads(documented_body(event_type))
    return message


def _frozen(event_type: EventType, data: Any) -> str:
    """The JSON text that emission would store for it."""
    if event_type.serializer is not None and not isinstance(data, Mapping):
        data = event_type.serializer(data).data
    return json.dumps(
        data, cls=DjangoJSONEncoder, ensure_ascii=False, allow_nan=False, separators=(",", ":")
    )
