"""References within a JSON Schema: where they lead, and how they survive a move.

Only what lies in the document itself is followed; nothing is ever fetched.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

#: Keywords whose value is a value, not a schema; and those whose keys are names, not keywords.
_VALUES: Final = frozenset({"const", "enum", "default", "example", "examples"})
_NAMED: Final = frozenset(
    {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}
)


def found(reference: str, root: Any) -> Mapping[str, Any]:
    """What ``#/a/b`` leads to in the document ``root``; empty where that is no schema."""
    if not reference.startswith("#"):
        return {}
    place = root
    for step in reference[1:].split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        place = place.get(name) if isinstance(place, Mapping) else None
    return place if isinstance(place, Mapping) else {}


def relocated(schema: Mapping[str, Any], pointer: str) -> dict[str, Any]:
    """A schema as it must be to stand at ``pointer`` of a larger document.

    Its references to itself (``#/$defs/...``) are led there. A schema that has an ``$id`` is a
    resource of its own and stays as it is.
    """
    if "$id" in schema:
        return dict(schema)
    moved = {name: value for name, value in schema.items() if name != "$schema"}
    result: dict[str, Any] = _moved(moved, pointer)
    return result


def _moved(part: Any, pointer: str) -> Any:
    if isinstance(part, list):
        return [_moved(each, pointer) for each in part]
    if not isinstance(part, dict):
        return part
    result = {}
    for name, value in part.items():
        if name in _VALUES:
            result[name] = value
        elif name in _NAMED and isinstance(value, dict):
            result[name] = {key: _moved(each, pointer) for key, each in value.items()}
        elif name == "$ref" and isinstance(value, str) and value.startswith("#"):
            result[name] = pointer + value[1:]
        else:
            result[name] = _moved(value, pointer)
    return result
