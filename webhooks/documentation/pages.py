"""The event catalogue as a subscriber reads it: one entry for each type.

The HTML page, the Markdown document and the JSON are made from the same entries. Only types that
need no scope are listed: the pages are public.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from webhooks import catalog
from webhooks.conf import settings
from webhooks.documentation.references import found
from webhooks.documentation.schemas import message_schema, schema_of
from webhooks.documentation.signed import SignedExample, signed_example, snippets

#: Titles of the snippets, and the language of their fences.
LANGUAGES: Final = {
    "python": ("Python", "python"),
    "node": ("Node.js", "js"),
    "curl": ("curl: send it to yourself", "sh"),
}
#: A schema that refers to itself is told to this depth.
_DEEP: Final = 6


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a schema's table. path: e.g. ``device.token``, ``lines[].sku``."""

    path: str
    kind: str
    required: bool
    description: str


@dataclass(frozen=True, slots=True)
class Snippet:
    """Code that verifies, or sends, the example."""

    title: str
    language: str
    code: str


@dataclass(frozen=True, slots=True)
class Entry:
    """All that is told of one event type. schema: as JSON text, "" for none."""

    name: str
    title: str
    description: str
    schema: str
    rows: tuple[Row, ...]
    example: SignedExample
    snippets: tuple[Snippet, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """What holds for every delivery, from the settings. Times in seconds."""

    timeout: int
    tries: int
    waits: tuple[str, ...]
    source_ips: tuple[str, ...]


def public_types() -> list[catalog.EventType]:
    """The types that anybody may know of, by name."""
    return catalog.visible(frozenset())


def entries() -> list[Entry]:
    """What is told of each public type, by name."""
    return [_entry(event_type) for event_type in public_types()]


def facts() -> Facts:
    """What holds for every delivery."""
    schedule = settings.RETRY_SCHEDULE
    return Facts(
        timeout=settings.TIMEOUT,
        tries=len(schedule) + 1,
        waits=tuple(_span(seconds) for seconds in schedule),
        source_ips=tuple(settings.SOURCE_IPS),
    )


def as_data() -> dict[str, Any]:
    """The catalogue as JSON values."""
    told = facts()
    return {
        "types": [
            {
                "name": event_type.name,
                "title": event_type.title,
                "description": event_type.description,
                "schema": schema_of(event_type),
                "message_schema": message_schema(event_type),
                "example": json.loads(entry.example.body),
                "headers": dict(entry.example.headers),
                "body": entry.example.text,
                "secret": entry.example.secret,
                "snippets": {snippet.title: snippet.code for snippet in entry.snippets},
            }
            for event_type in public_types()
            for entry in [_entry(event_type)]
        ],
        "timeout_s": told.timeout,
        "tries": told.tries,
        "source_ips": list(told.source_ips),
    }


def _entry(event_type: catalog.EventType) -> Entry:
    schema = schema_of(event_type)
    example = signed_example(event_type)
    code = snippets(example)
    return Entry(
        name=event_type.name,
        title=event_type.title or event_type.name,
        description=event_type.description,
        schema="" if schema is None else json.dumps(schema, indent=2, ensure_ascii=False),
        rows=tuple(_rows(schema, schema)) if schema else (),
        example=example,
        snippets=tuple(
            Snippet(title, language, code[name]) for name, (title, language) in LANGUAGES.items()
        ),
    )


def _rows(schema: Any, root: Any, prefix: str = "", depth: int = 0) -> Iterator[Row]:
    """The properties of an object schema, those of what it holds after each."""
    schema = _resolved(schema, root)
    required = schema.get("required", ())
    for name, part in schema.get("properties", {}).items():
        path = f"{prefix}{name}"
        part = _resolved(part, root)
        yield Row(path, _kind(part, root), name in required, _told(part))
        if depth >= _DEEP:
            continue
        items = _resolved(part.get("items", {}), root)
        if part.get("properties"):
            yield from _rows(part, root, f"{path}.", depth + 1)
        elif items.get("properties"):
            yield from _rows(items, root, f"{path}[].", depth + 1)


def _resolved(schema: Any, root: Any) -> dict[str, Any]:
    """The schema with what it refers to within its document."""
    for _step in range(20):
        if not isinstance(schema, Mapping):
            return {}
        reference = schema.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#"):
            return dict(schema)
        rest = {name: value for name, value in schema.items() if name != "$ref"}
        schema = {**found(reference, root), **rest}
    return {}


def _kind(schema: Mapping[str, Any], root: Any) -> str:
    """The type in words: ``string (date-time) or null``, ``array of integer``."""
    for name in ("anyOf", "oneOf"):
        if name in schema:
            kinds = [_kind(_resolved(each, root), root) for each in schema[name]]
            return " or ".join(dict.fromkeys(kinds))
    kinds = schema.get("type", "anything")
    words = []
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        if kind == "array" and schema.get("items"):
            kind = f"array of {_kind(_resolved(schema['items'], root), root)}"
        elif kind == "string" and "format" in schema:
            kind = f"string ({schema['format']})"
        words.append(str(kind))
    return " or ".join(words)


def _told(schema: Mapping[str, Any]) -> str:
    """The description, and the values when they are few and known."""
    parts = [str(schema["description"])] if schema.get("description") else []
    if "const" in schema:
        parts.append(f"Always {json.dumps(schema['const'], ensure_ascii=False)}.")
    elif isinstance(schema.get("enum"), list):
        values = ", ".join(json.dumps(value, ensure_ascii=False) for value in schema["enum"])
        parts.append(f"One of {values}.")
    return " ".join(parts)


def _span(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds // length:g} {unit}"
    return f"{seconds:g} s"
