"""What else a POST may hold than one event in the default format: batches, digests, other formats.

Each example is made of the event types that are told of, by the format that makes the deliveries;
none is written by hand. Formats that this service cannot send are not shown.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final
from urllib.parse import parse_qsl

from webhooks.catalog import EventType
from webhooks.documentation.schemas import EVENT_ID, EXAMPLE_TIME, MOMENT, documented_record
from webhooks.engine.windows import DAILY, HOURLY, MONTHLY, window_of
from webhooks.formats import BatchRecord, EventRecord, get_format
from webhooks.formats.base import BATCH_TYPE, DIGEST_TYPE, MAX_EVENTS
from webhooks.shapes import available_formats, event_link, links_are_known

#: The ``webhook-id`` of the examples.
MESSAGE_ID: Final = "msg_019bc0c69bbb7c5e9a6d4f0e8b21c736"
_WINDOW: Final = window_of(EXAMPLE_TIME, DAILY, "UTC")
_AT: Final = "#/components/schemas/"
_MOMENT: Final = {"type": "string", "format": "date-time", "pattern": MOMENT}
_MESSAGE: Final = {
    "type": "string",
    "pattern": "^msg_[0-9a-f]{32}$",
    "description": "The message. It is the webhook-id header, too.",
}
_DIGEST: Final[dict[str, Any]] = {
    "window": {
        "type": "object",
        "description": "The time that it covers: from `from` on, before `to`.",
        "properties": {
            "from": _MOMENT,
            "to": _MOMENT,
            "trigger": {"type": "string", "enum": [HOURLY, DAILY, MONTHLY]},
        },
        "required": ["from", "to", "trigger"],
    },
    "page": {"type": "integer", "minimum": 1},
    "pages": {"type": "integer", "minimum": 1},
    "counts": {
        "type": "object",
        "description": "Events of each type in the whole window.",
        "additionalProperties": {"type": "integer", "minimum": 1},
    },
}
_SUMMARIES: Final = {
    "full": "With the events' data",
    "thin": "`payload: thin`: URLs in place of data",
    "counts": "`content: counts`: figures alone",
    "empty": "`empty_digests`: nothing happened",
}


def single(event_type: EventType) -> dict[str, Any]:
    """One event of a type in the formats beside the default one, by media type."""
    record = documented_record(event_type)
    content: dict[str, Any] = {}
    if "cloudevents" in available_formats():
        schema = {
            "allOf": [
                {"$ref": f"{_AT}CloudEvent"},
                {
                    "properties": {
                        "type": {"const": event_type.name},
                        "data": {"$ref": f"{_AT}{event_type.name}/properties/data"},
                    }
                },
            ]
        }
        body = get_format("cloudevents").body(record)
        content[_media_type("cloudevents")] = {"schema": schema, "example": json.loads(body)}
    content[_media_type("mandrill")] = {
        "schema": {"$ref": f"{_AT}MandrillForm"},
        "example": _form(get_format("mandrill").body(record)),
    }
    return content


def batch(types: Sequence[EventType]) -> dict[str, Any]:
    """A batch of events in each format, by media type."""
    return _contents("EventBatch", {"full": _batch(types), **_thin(_batch(types))})


def digest(types: Sequence[EventType]) -> dict[str, Any]:
    """A digest's page in each format, by media type."""
    full = replace(
        _batch(types),
        created_at=_WINDOW.end + timedelta(seconds=2),
        window=_WINDOW,
        counts=Counter(each.name for each in types[:2]),
    )
    records = {
        "full": full,
        **_thin(full),
        "counts": replace(full, events=()),
        "empty": replace(full, events=(), counts={}),
    }
    return _contents("EventDigest", records)


def schemas(types: Iterable[EventType]) -> dict[str, Any]:
    """What the formats make, by their names among the components."""
    told: list[dict[str, Any]] = [{"$ref": f"{_AT}{each.name}"} for each in types]
    events = {
        "type": "array",
        "maxItems": MAX_EVENTS,
        "items": {"anyOf": [*told, {"$ref": f"{_AT}ThinEvent"}]},
    }
    envelope = {"id": _MESSAGE, "type": {"const": BATCH_TYPE}, "timestamp": _MOMENT}
    return {
        "ThinEvent": _object(
            "An event with `payload: thin`: fetch it with a token of your own.",
            id={"type": "string", "pattern": EVENT_ID},
            type={"type": "string"},
            timestamp=_MOMENT,
            data={"type": "string", "format": "uri"},
        ),
        "EventBatch": _object("Events that were due together.", **envelope, events=events),
        "EventDigest": _object(
            "A page of a digest; with `content: counts`, without its events.",
            **envelope,
            **_DIGEST,
            events=events,
        ),
        "CloudEvent": _cloud_event(),
        "CloudEventBatch": {
            "type": "array",
            "maxItems": MAX_EVENTS,
            "items": {"$ref": f"{_AT}CloudEvent"},
        },
        "MandrillEvent": _object(
            f"A digest without events is one of type `{DIGEST_TYPE}`.",
            event={"type": "string"},
            _id={"type": "string", "pattern": "^(evt|msg)_[0-9a-f]{32}$"},
            ts={"type": "integer", "description": "When it happened, in unix seconds."},
            data={},
        ),
        "MandrillForm": _object(
            "Signed with `X-Mandrill-Signature` as well; the key is the secret's text.",
            mandrill_events={
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": {
                    "type": "array",
                    "maxItems": MAX_EVENTS,
                    "items": {"$ref": f"{_AT}MandrillEvent"},
                },
            },
        ),
    }


def _object(description: str, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        "required": list(properties),
    }


def _cloud_event() -> dict[str, Any]:
    schema = _object(
        f"CloudEvents 1.0. A digest without events is one of type `{DIGEST_TYPE}`.",
        specversion={"const": "1.0"},
        id={"type": "string", "pattern": "^(evt|msg)_[0-9a-f]{32}$"},
        source={"type": "string", "format": "uri-reference"},
        type={"type": "string"},
        time=_MOMENT,
        datacontenttype={"const": "application/json"},
    )
    schema["properties"]["subject"] = {"type": "string"}
    schema["properties"]["data"] = {}
    schema["properties"]["dataref"] = {
        "type": "string",
        "format": "uri",
        "description": "With `payload: thin`, in place of `data`.",
    }
    return schema | {"oneOf": [{"required": ["data"]}, {"required": ["dataref"]}]}


def _batch(types: Sequence[EventType]) -> BatchRecord:
    """A batch of the first two types' examples."""
    events = [
        replace(documented_record(each), id=f"{documented_record(each).id[:-1]}{place}")
        for place, each in enumerate(types[:2])
    ]
    return BatchRecord(MESSAGE_ID, EXAMPLE_TIME + timedelta(seconds=2), events)


def _thin(full: BatchRecord) -> dict[str, BatchRecord]:
    """The same with a thin payload, where this service can send one."""
    if not links_are_known():
        return {}
    return {"thin": replace(full, events=[_linked(each) for each in full.events])}


def _linked(event: EventRecord) -> EventRecord:
    return replace(event, link=event_link(event.id))


def _contents(schema: str, records: dict[str, BatchRecord]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    schemas = {"standard": schema, "cloudevents": "CloudEventBatch", "mandrill": "MandrillForm"}
    for name, component in schemas.items():
        if name not in available_formats():
            continue
        examples = {}
        for kind, record in records.items():
            body = get_format(name).batch_body(record)
            value = _form(body) if name == "mandrill" else json.loads(body)
            examples[kind] = {"summary": _SUMMARIES[kind], "value": value}
        content[_media_type(name, batch=True)] = {
            "schema": {"$ref": f"{_AT}{component}"},
            "examples": examples,
        }
    return content


def _media_type(name: str, *, batch: bool = False) -> str:
    """A format's content type, without its parameters."""
    return get_format(name).content_type(batch=batch).partition(";")[0]


def _form(body: bytes) -> dict[str, str]:
    """The fields of a form."""
    return dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=True))
