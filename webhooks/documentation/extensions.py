"""How drf-spectacular is to describe the API's own fields and bodies: import it with the extra.

These register themselves, for our classes alone; a schema of the host's project never meets them.
"""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.extensions import (
    OpenApiSerializerExtension,
    OpenApiSerializerFieldExtension,
)
from drf_spectacular.plumbing import ResolvedComponent

from webhooks.api.serializers.strict import QuerySerializer
from webhooks.api.serializers.subscriptions import (
    ALIASES,
    ChangedSubscription,
    PatchedSubscription,
)
from webhooks.bounds import MAX_NUMBER
from webhooks.engine.windows import DAILY, HOURLY, MONTHLY
from webhooks.shapes import available_formats, links_are_known

_MOMENT: Final[dict[str, Any]] = {"type": "string", "format": "date-time"}
#: From 1970 to the end of 9998: what every database and time zone can compute with.
_SECONDS: Final[dict[str, Any]] = {"type": "number", "minimum": 0, "maximum": 253_370_764_799}
_YEARS: Final = "^(19[7-9][0-9]|[2-8][0-9]{3}|9[0-8][0-9]{2}|99[0-8][0-9]|999[0-8])-"
_QUAD: Final = "[A-Za-z0-9+/]{4}"
#: A key of 24 to 64 bytes in canonical base64, see :func:`webhooks.formats.signing.decode_secret`.
_SECRET: Final = (
    f"^whsec_(({_QUAD}){{8,20}}([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{{2}}[AEIMQUYcgkosw048]=)?"
    f"|({_QUAD}){{21}}([A-Za-z0-9+/][AQgw]==)?)$"
)

#: What goes with a digest alone. A PATCH may leave the trigger out where it is one already.
_DIGEST: Final[dict[str, Any]] = {
    "properties": {"trigger": {"enum": [HOURLY, DAILY, MONTHLY]}},
    "required": ["trigger"],
}
_OF_DIGESTS: Final[list[dict[str, Any]]] = [
    {
        "if": {"properties": {name: {"const": value}}, "required": [name]},
        "then": _DIGEST,
    }
    for name, value in (("content", "counts"), ("empty_digests", True))
]


class IdField(OpenApiSerializerFieldExtension):  # type: ignore[misc, no-untyped-call]
    """A prefix and 32 hex digits."""

    target_class = "webhooks.api.serializers.fields.Id"

    def map_serializer_field(self, auto_schema: Any, direction: str) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^{self.target.prefix}_[0-9a-f]{{32}}$"}


class MomentField(OpenApiSerializerFieldExtension):  # type: ignore[misc, no-untyped-call]
    """Shown in one form, taken in two."""

    target_class = "webhooks.api.serializers.fields.Moment"

    def map_serializer_field(self, auto_schema: Any, direction: str) -> dict[str, Any]:
        if direction == "response":
            return dict(_MOMENT)
        number = {"type": "string", "pattern": r"^[0-9]{1,11}(\.[0-9]+)?$"}
        forms = [{**_MOMENT, "pattern": _YEARS}, number]
        if not isinstance(self.target.parent, QuerySerializer):  # a query has texts alone
            forms.append(_SECONDS)
        return {"anyOf": forms}


class HeadersField(OpenApiSerializerFieldExtension):  # type: ignore[misc, no-untyped-call]
    """Names and texts."""

    target_class = "webhooks.api.serializers.subscriptions.Headers"

    def map_serializer_field(self, auto_schema: Any, direction: str) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "object", "additionalProperties": {"type": "string"}}
        return schema if direction == "response" else {**schema, "maxProperties": 20}


class MetadataField(OpenApiSerializerFieldExtension):  # type: ignore[misc, no-untyped-call]
    """Any JSON object whose numbers every database gives back as they were."""

    target_class = "webhooks.api.serializers.subscriptions.Metadata"

    def map_serializer_field(self, auto_schema: Any, direction: str) -> dict[str, Any]:
        value = ResolvedComponent(  # type: ignore[no-untyped-call]
            name="MetadataValue",
            type=ResolvedComponent.SCHEMA,
            object="MetadataValue",
        )
        value.schema = {
            "type": ["null", "boolean", "string", "number", "array", "object"],
            "exclusiveMinimum": -MAX_NUMBER,
            "exclusiveMaximum": MAX_NUMBER,
            "items": value.ref,
            "additionalProperties": value.ref,
        }
        auto_schema.registry.register_on_missing(value)
        return {"type": "object", "additionalProperties": value.ref}


class StrictBody(OpenApiSerializerExtension):  # type: ignore[misc, no-untyped-call]
    """A body or a query: nothing else is taken."""

    target_class = "webhooks.api.serializers.strict.StrictSerializer"
    match_subclasses = True
    priority = -1

    def map_serializer(self, auto_schema: Any, direction: str) -> dict[str, Any]:
        schema: dict[str, Any] = auto_schema._map_serializer(
            self.target, direction, bypass_extensions=True
        )
        if direction == "request":
            schema["additionalProperties"] = False
            if "secret" in schema.get("properties", {}):
                schema["properties"]["secret"]["pattern"] = _SECRET
        return schema


class ReplayBody(StrictBody):  # type: ignore[no-untyped-call]
    """What is to be replayed."""

    target_class = "webhooks.api.serializers.deliveries.ReplayBody"
    match_subclasses = False
    priority = 0

    def map_serializer(self, auto_schema: Any, direction: str) -> dict[str, Any]:
        schema = super().map_serializer(auto_schema, direction)
        schema["if"] = {
            "properties": {"only_missing": {"const": True}},
            "required": ["only_missing"],
        }
        schema["then"] = {"properties": {"states": {"const": ["missing"]}}}
        return schema


class OptionsBody(StrictBody):  # type: ignore[no-untyped-call]
    """The options of a subscription: with other names for some."""

    target_class = "webhooks.api.serializers.subscriptions.Options"
    match_subclasses = True
    priority = 0

    def map_serializer(self, auto_schema: Any, direction: str) -> dict[str, Any]:
        schema = super().map_serializer(auto_schema, direction)
        options = schema["properties"]
        options["format"]["enum"] = available_formats()
        if not links_are_known():
            options["payload"]["enum"] = ["full"]
        if isinstance(self.target, ChangedSubscription):
            options["handshake"]["description"] = "Chosen when one subscribes: it stays as it is."
        listed = options["event_types"]
        one = {**listed["items"], "description": "The same as a list of this one."}
        options["event_types"] = {"anyOf": [listed, one]}
        for alias, name in ALIASES.items():
            options[alias] = {**options[name], "description": f"Another name of {name}."}
        self._one_name_each(schema)
        return schema

    def _one_name_each(self, schema: dict[str, Any]) -> None:
        """Under which of its names an option comes is free; under one."""
        names: dict[str, list[str]] = {}
        for alias, name in ALIASES.items():
            names.setdefault(name, [name]).append(alias)
        rules = []
        for name, spelt in names.items():
            alternatives: list[dict[str, Any]] = [{"required": [each]} for each in spelt]
            if isinstance(self.target, PatchedSubscription):
                alternatives.append({"not": {"anyOf": [{"required": [each]} for each in spelt]}})
            rules.append({"oneOf": alternatives})
            schema["required"] = [each for each in schema.get("required", []) if each != name]
        if not schema["required"]:
            del schema["required"]
        schema["allOf"] = [*rules, *_OF_DIGESTS]
