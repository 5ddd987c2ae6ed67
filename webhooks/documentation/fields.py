"""JSON Schema (2020-12) of what Django REST framework serializers give.

It describes ``serializer(instance).data`` as it is once emission has written it as JSON. It says
only what the fields themselves ensure: a column may hold what a validator would refuse today. What
a class of the host's own makes of a value is unknown, hence ``{}``: anything.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from django.core.exceptions import FieldDoesNotExist
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.utils.encoding import force_str
from rest_framework import ISO_8601, fields, relations, serializers
from rest_framework.settings import api_settings

Schema = dict[str, Any]

_TIME: Final = r"^\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?$"
_DURATION: Final = r"^(-?\d+ )?\d{2}:\d{2}:\d{2}(\.\d{6})?$"
_ISO_DURATION: Final = r"^-?P\d+DT\d{2}H\d{2}M\d{2}(\.\d{6})?S$"


def schema_of_serializer(serializer: Any) -> Schema:
    """The schema of what a serializer (class or instance, ``many`` too) gives."""
    if isinstance(serializer, type):
        serializer = serializer()
    return _of(serializer)


def _of(field: Any) -> Schema:
    """The schema of one field, with its help text and null where it may be null."""
    schema = dict(_bare(field))
    if text := force_str(field.help_text or ""):
        schema["description"] = text
    return _or_null(schema) if _may_be_null(field) else schema


def _bare(field: Any) -> Schema:
    if not _is_stock(field):
        # Its own to_representation: an object, if it is a serializer, and no more can be told.
        return {"type": "object"} if isinstance(field, serializers.Serializer) else {}
    for known, convert in _CONVERTERS:
        if isinstance(field, known):
            return convert(field)
    return {}


def _is_stock(field: Any) -> bool:
    """Whether the value's form is decided by REST framework's code."""
    return str(type(field).to_representation.__module__).startswith("rest_framework.")


def _or_null(schema: Schema) -> Schema:
    """The same schema, with null beside it."""
    if not schema or "type" not in schema:
        return schema  # anything, null included
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if "null" in kinds:
        return schema
    nullable = {**schema, "type": [*kinds, "null"]}
    if "enum" in schema:
        nullable["enum"] = [*schema["enum"], None]
    return nullable


def _may_be_null(field: Any) -> bool:
    if getattr(field, "allow_null", False):
        return True
    # A field that cannot be edited loses allow_null on its way into a ModelSerializer.
    column = _columns(field)[-1:]
    return bool(column and column[0].concrete and column[0].null)


def _may_be_left_out(field: Any) -> bool:
    """Whether the key is missing where an object on the way to the value is.

    REST framework skips a field that it does not require, and that has no default, when its source
    raises AttributeError: an empty relation that is followed, a one-to-one that nobody points to.
    """
    if field.required or field.allow_null or field.default is not fields.empty:
        return False
    source = getattr(field, "source_attrs", [])
    way = _columns(field)
    if any(column.one_to_one and not column.concrete for column in way):
        return True
    known = len(way) == len(source)
    return len(source) > 1 and (not known or any(column.null for column in way[:-1]))


def _columns(field: Any) -> list[Any]:
    """The model fields on the way to a serializer field's value, as far as they are some."""
    model = getattr(getattr(field.parent, "Meta", None), "model", None)
    way: list[Any] = []
    for name in getattr(field, "source_attrs", []):
        if model is None:
            break
        try:
            way.append(model._meta.get_field(name))
        except FieldDoesNotExist:
            break
        model = way[-1].related_model if way[-1].is_relation else None
    return way


# One function for each kind of field


def _string(field: Any) -> Schema:
    return {"type": "string"}


def _formatted(name: str) -> Callable[[Any], Schema]:
    def convert(field: Any) -> Schema:
        # An empty text is no e-mail address.
        return {"type": "string"} if field.allow_blank else {"type": "string", "format": name}

    return convert


def _boolean(field: Any) -> Schema:
    return {"type": "boolean"}


def _integer(field: Any) -> Schema:
    return {"type": "integer"}


def _number(field: Any) -> Schema:
    return {"type": "number"}


def _decimal(field: Any) -> Schema:
    # Also without COERCE_DECIMAL_TO_STRING: emission writes a Decimal as text, to the last digit.
    return {"type": "string", "format": "decimal"}


def _uuid(field: Any) -> Schema:
    forms: dict[str, Schema] = {
        "hex_verbose": {"type": "string", "format": "uuid"},
        "hex": {"type": "string", "pattern": "^[0-9a-f]{32}$", "examples": ["0f" * 16]},
        "int": {"type": "integer"},
        "urn": {"type": "string", "format": "uri"},
    }
    return forms[field.uuid_format]


def _ip(field: Any) -> Schema:
    protocol = field.protocol.lower()
    known = protocol in ("ipv4", "ipv6") and not field.allow_blank
    return {"type": "string", "format": protocol} if known else {"type": "string"}


def _date(field: Any) -> Schema:
    form = getattr(field, "format", api_settings.DATE_FORMAT)
    return {"type": "string", "format": "date"} if _is_iso(form) else {"type": "string"}


def _datetime(field: Any) -> Schema:
    form = getattr(field, "format", api_settings.DATETIME_FORMAT)
    zone = field.timezone if hasattr(field, "timezone") else field.default_timezone()
    # Without a zone it is no time of RFC 3339.
    known = _is_iso(form) and zone is not None
    return {"type": "string", "format": "date-time"} if known else {"type": "string"}


def _time(field: Any) -> Schema:
    form = getattr(field, "format", api_settings.TIME_FORMAT)
    if not _is_iso(form):
        return {"type": "string"}
    # Not the format "time", which asks for an offset from UTC.
    return {"type": "string", "pattern": _TIME, "examples": ["08:30:00"]}


def _duration(field: Any) -> Schema:
    form = getattr(field, "format", getattr(api_settings, "DURATION_FORMAT", "django"))
    # None leaves the value to emission, which writes ISO 8601.
    if form is None or str(form).lower() == ISO_8601:
        return {"type": "string", "pattern": _ISO_DURATION, "examples": ["P0DT01H30M00S"]}
    return {"type": "string", "pattern": _DURATION, "examples": ["01:30:00"]}


def _is_iso(form: str | None) -> bool:
    """Whether a value is written as ISO 8601; None leaves it to emission, which does so."""
    return form is None or form.lower() == ISO_8601


def _choice(field: Any) -> Schema:
    values = list(field.choices)
    if field.allow_blank and "" not in values:
        values.append("")
    return _enum(values)


def _multiple_choice(field: Any) -> Schema:
    return {"type": "array", "items": _enum(list(field.choices)), "uniqueItems": True}


def _enum(values: list[Any]) -> Schema:
    plain = json.loads(json.dumps(values, cls=DjangoJSONEncoder))
    schema: Schema = {"enum": plain}
    names = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
    kinds = list(dict.fromkeys(names.get(type(value)) for value in plain))
    if kinds and None not in kinds:
        schema = {"type": kinds[0] if len(kinds) == 1 else kinds, **schema}
    return schema


def _list(field: Any) -> Schema:
    return {"type": "array", "items": _of(field.child)}


def _dict(field: Any) -> Schema:
    return {"type": "object", "additionalProperties": _of(field.child)}


def _json(field: Any) -> Schema:
    return {"type": "string"} if field.binary else {}


def _file(field: Any) -> Schema:
    # The URL may be one without a host, and is null where there is no file.
    return {"type": ["string", "null"]}


def _primary_key(field: Any) -> Schema:
    if field.pk_field is not None:
        return _of(field.pk_field)
    holder = field.parent if isinstance(field.parent, relations.ManyRelatedField) else field
    model = None
    if getattr(field, "queryset", None) is not None:
        model = field.queryset.model
    else:
        way = _columns(holder)
        model = way[-1].related_model if way else None
    return {"type": ["integer", "string"]} if model is None else _key_of(model)


def _key_of(model: Any) -> Schema:
    key = model._meta.pk
    while key.remote_field is not None:
        key = key.target_field
    if isinstance(key, models.IntegerField):
        return {"type": "integer"}
    if type(key) is models.UUIDField:
        return {"type": "string", "format": "uuid"}
    return {"type": "string"}


def _related_many(field: Any) -> Schema:
    return {"type": "array", "items": _of(field.child_relation)}


def _object(serializer: Any) -> Schema:
    properties: dict[str, Schema] = {}
    required = []
    for field in serializer._readable_fields:
        properties[field.field_name] = _of(field)
        if not _may_be_left_out(field):
            required.append(field.field_name)
    schema: Schema = {"type": "object", "properties": properties}
    if required:
        schema["required"] = required
    return schema


#: The first that fits counts, so a class stands before what it inherits from.
_CONVERTERS: Final[tuple[tuple[Any, Callable[[Any], Schema]], ...]] = (
    (serializers.ListSerializer, _list),
    (serializers.Serializer, _object),
    (fields.BooleanField, _boolean),
    (fields.IntegerField, _integer),
    (fields.FloatField, _number),
    (fields.DecimalField, _decimal),
    (fields.EmailField, _formatted("email")),
    (fields.URLField, _formatted("uri")),
    (fields.IPAddressField, _ip),
    (fields.CharField, _string),
    (fields.UUIDField, _uuid),
    (fields.DateTimeField, _datetime),
    (fields.DateField, _date),
    (fields.TimeField, _time),
    (fields.DurationField, _duration),
    (fields.MultipleChoiceField, _multiple_choice),
    (fields.ChoiceField, _choice),
    (fields.FileField, _file),
    (fields.ListField, _list),
    (fields.DictField, _dict),
    (fields.JSONField, _json),
    (relations.ManyRelatedField, _related_many),
    (relations.PrimaryKeyRelatedField, _primary_key),
    (relations.StringRelatedField, _string),
    (relations.HyperlinkedRelatedField, _string),
)
