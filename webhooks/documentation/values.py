"""A value that fits a JSON Schema: the same one each time, for types that bring no example.

It knows the usual keywords. A schema that asks for more (a pattern, say) brings ``examples`` or a
``default`` of its own, or its event type an example.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from webhooks.documentation.references import found

_FORMATS: Final[Mapping[str, str]] = {
    "date-time": "2026-01-15T08:30:00Z",
    "date": "2026-01-15",
    "time": "08:30:00Z",
    "duration": "PT1H30M",
    "email": "ada@example.com",
    "idn-email": "ada@example.com",
    "hostname": "example.com",
    "idn-hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/1",
    "iri": "https://example.com/1",
    "uri-reference": "/1",
    "iri-reference": "/1",
    "uuid": "019bc0c6-9bbb-7c5e-9a6d-4f0e8b21c735",
    "decimal": "12.50",
    "json-pointer": "/a",
    "regex": "^a$",
}
#: Deeper than this, only what is required is filled in: schemas may refer to themselves.
_DEEP: Final = 6


def value_of(schema: Any, root: Any = None, depth: int = 0) -> Any:
    """A value that the schema accepts. root: the document that its references lead into."""
    root = schema if root is None else root
    if not isinstance(schema, Mapping):
        return "text"  # true: anything
    schema = _merged(schema, root)
    if "const" in schema:
        return schema["const"]
    for given in (schema.get("examples"), schema.get("enum")):
        if isinstance(given, list) and given:
            return given[0]
    for name in ("example", "default"):
        if name in schema:
            return schema[name]
    kind = _kind(schema)
    if kind == "object":
        return _object(schema, root, depth)
    if kind == "array":
        return _array(schema, root, depth)
    if kind in ("integer", "number"):
        return _number(schema, whole=kind == "integer")
    return {"boolean": True, "null": None}.get(kind, _text(schema))


def _merged(schema: Mapping[str, Any], root: Any) -> Mapping[str, Any]:
    """The schema with what it refers to, all of ``allOf``, and the first alternative."""
    merged = dict(schema)
    for _step in range(20):  # a reference may lead to a reference; to itself, for ever
        reference = merged.pop("$ref", None)
        parts = list(merged.pop("allOf", []))
        for name in ("anyOf", "oneOf"):
            alternatives = merged.pop(name, [])
            parts += next(
                ([each] for each in alternatives if each.get("type") != "null"), alternatives[:1]
            )
        if isinstance(reference, str):
            parts.append(found(reference, root))
        if not parts:
            break
        for part in parts:
            for name, value in part.items():
                if name == "properties":
                    merged[name] = {**value, **merged.get(name, {})}
                elif name == "required":
                    merged[name] = [*merged.get(name, []), *value]
                else:
                    merged.setdefault(name, value)
    return merged


def _kind(schema: Mapping[str, Any]) -> str:
    kinds = schema.get("type")
    if isinstance(kinds, list):
        kinds = next((kind for kind in kinds if kind != "null"), "null")
    if isinstance(kinds, str):
        return kinds
    if "properties" in schema or "required" in schema:
        return "object"
    if "items" in schema or "prefixItems" in schema:
        return "array"
    return "string"


def _object(schema: Mapping[str, Any], root: Any, depth: int) -> dict[str, Any]:
    properties = schema.get("properties", {})
    required = schema.get("required", [])
    names = [name for name in properties if depth < _DEEP or name in required]
    names += [name for name in required if name not in properties]
    rest = schema.get("additionalProperties", {})
    filled = {name: value_of(properties.get(name, rest), root, depth + 1) for name in names}
    if not names and isinstance(rest, Mapping) and rest:
        filled["key"] = value_of(rest, root, depth + 1)
    return filled


def _array(schema: Mapping[str, Any], root: Any, depth: int) -> list[Any]:
    first = [value_of(each, root, depth + 1) for each in schema.get("prefixItems", [])]
    items = schema.get("items", {})
    at_least = schema.get("minItems", 0)
    if depth < _DEEP:
        at_least = max(at_least, min(1, schema.get("maxItems", 1)))
    while len(first) < at_least and items is not False:
        first.append(value_of(items, root, depth + 1))
    return first


def _number(schema: Mapping[str, Any], *, whole: bool) -> float:
    step = schema.get("multipleOf", 1 if whole else 0.5)
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    value = step if high is None or high > step else math.floor(high / step) * step
    if low is not None and value < low:
        value = math.ceil(low / step) * step
    if value == schema.get("exclusiveMinimum"):
        value += step
    if value == schema.get("exclusiveMaximum"):
        value -= step
    return int(value) if whole else value


def _text(schema: Mapping[str, Any]) -> str:
    text = _FORMATS.get(schema.get("format", ""))
    if text is not None:
        return text
    text = "text".ljust(schema.get("minLength", 0), ".")
    return text[: schema.get("maxLength", len(text))]
