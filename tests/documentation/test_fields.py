"""Schemas of serializers, held against what the serializers really give."""

from __future__ import annotations

import json
import uuid
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from rest_framework import serializers

from tests.documentation.validation import check
from webhooks.documentation.fields import schema_of_serializer

#: Always the same one, for it stands in the names of tests.
SOME_UUID = uuid.UUID("756fa7ba-3117-4d32-9b28-b8398a2225d3")

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone(timedelta(hours=2)))


def as_delivered(data: Any) -> Any:
    """What the emission makes of a serializer's data."""
    return json.loads(json.dumps(data, cls=DjangoJSONEncoder, allow_nan=False))


def given(field: Any, value: Any) -> tuple[Any, Any]:
    """The schema of a field, and what it delivers for a value."""
    made = type("Made", (serializers.Serializer,), {"field": field})
    data = as_delivered(made(SimpleNamespace(field=value)).data)
    return schema_of_serializer(made)["properties"]["field"], data["field"]


CASES = [
    (serializers.BooleanField(), True, {"type": "boolean"}),
    (serializers.IntegerField(), 7, {"type": "integer"}),
    (serializers.FloatField(), 1.5, {"type": "number"}),
    (
        serializers.DecimalField(10, 2),
        Decimal("1.50"),
        {"type": "string", "format": "decimal"},
    ),
    (
        serializers.DecimalField(10, 2, coerce_to_string=False),
        Decimal("1.50"),
        {"type": "string", "format": "decimal"},
    ),
    (serializers.CharField(), "é", {"type": "string"}),
    (serializers.CharField(allow_null=True), None, {"type": ["string", "null"]}),
    (serializers.EmailField(), "a@example.com", {"type": "string", "format": "email"}),
    (serializers.EmailField(allow_blank=True), "", {"type": "string"}),
    (serializers.URLField(), "https://example.com/", {"type": "string", "format": "uri"}),
    (serializers.UUIDField(), SOME_UUID, {"type": "string", "format": "uuid"}),
    (serializers.UUIDField(format="int"), SOME_UUID, {"type": "integer"}),
    (serializers.UUIDField(format="urn"), SOME_UUID, {"type": "string", "format": "uri"}),
    (serializers.SlugField(), "a-b", {"type": "string"}),
    (
        serializers.IPAddressField(protocol="IPv4"),
        "192.0.2.1",
        {"type": "string", "format": "ipv4"},
    ),
    (serializers.IPAddressField(), "::1", {"type": "string"}),
    (serializers.ChoiceField(["a", "b"]), "a", {"type": "string", "enum": ["a", "b"]}),
    (
        serializers.ChoiceField([1, 2], allow_null=True),
        None,
        {"type": ["integer", "null"], "enum": [1, 2, None]},
    ),
    (
        serializers.ChoiceField(["a"], allow_blank=True),
        "",
        {"type": "string", "enum": ["a", ""]},
    ),
    (serializers.DateField(), date(2026, 1, 2), {"type": "string", "format": "date"}),
    (serializers.DateField(format="%d.%m.%y"), date(2026, 1, 2), {"type": "string"}),
    (serializers.DateTimeField(), NOW, {"type": "string", "format": "date-time"}),
    (serializers.DateTimeField(format=None), NOW, {"type": "string", "format": "date-time"}),
    (
        serializers.DateTimeField(default_timezone=None),
        NOW.replace(tzinfo=None),
        {"type": "string"},
    ),
    (serializers.ListField(child=serializers.IntegerField()), [1], {"type": "array"}),
    (
        serializers.DictField(child=serializers.FloatField(allow_null=True)),
        {"a": None, "b": 1.0},
        {"type": "object", "additionalProperties": {"type": ["number", "null"]}},
    ),
    (serializers.JSONField(), {"a": [1]}, {}),
    (serializers.ReadOnlyField(), {"a": 1}, {}),
    (serializers.StringRelatedField(), date(2026, 1, 2), {"type": "string"}),
]


@pytest.mark.parametrize(("field", "value", "expected"), CASES, ids=lambda each: str(each)[:40])
def test_a_field_gives_what_its_schema_says(field: Any, value: Any, expected: Any) -> None:
    schema, delivered = given(field, value)
    assert expected.items() <= schema.items()
    check(schema, delivered)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (serializers.UUIDField(format="hex"), SOME_UUID),
        (serializers.TimeField(), time(1, 2, 3)),
        (serializers.TimeField(), time(1, 2, 3, 45)),
        (serializers.TimeField(format=None), time(1, 2, 3, 45678)),
        (serializers.DurationField(), timedelta(hours=1)),
        (serializers.DurationField(), timedelta(days=-3, microseconds=1)),
        (serializers.DurationField(format=None), timedelta(days=-3, microseconds=1)),
        (serializers.DurationField(format="iso-8601"), timedelta(days=400)),
    ],
    ids=str,
)
def test_a_patterned_field_matches_and_brings_an_example(field: Any, value: Any) -> None:
    schema, delivered = given(field, value)
    check(schema, delivered)
    check(schema, schema["examples"][0])
    with pytest.raises(jsonschema.ValidationError):
        check(schema, f"{delivered} no")


def test_several_choices_are_an_array_of_them() -> None:
    field = serializers.MultipleChoiceField(choices=["a", "b"])
    schema, delivered = given(field, ["b", "a", "a"])
    check(schema, sorted(delivered))
    with pytest.raises(jsonschema.ValidationError):
        check(schema, ["c"])


class Owner(models.Model):
    name = models.CharField(max_length=20)

    class Meta:
        app_label = "tests_documentation"

    def __str__(self) -> str:
        return self.name


class Parcel(models.Model):
    key = models.UUIDField(primary_key=True, default=uuid.uuid4)
    owner = models.ForeignKey(Owner, models.CASCADE, null=True)
    sender = models.ForeignKey(Owner, models.CASCADE, related_name="+")
    friends = models.ManyToManyField(Owner, related_name="+")
    state = models.CharField(max_length=3, choices=[("new", "New"), ("old", "Old")], default="new")
    note = models.TextField(null=True, editable=False)  # noqa: DJ001
    weight = models.DecimalField(max_digits=6, decimal_places=2, null=True, help_text="In kg.")
    meta = models.JSONField(default=dict)
    made_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        app_label = "tests_documentation"

    def __str__(self) -> str:
        return str(self.pk)


class OwnerSerializer(serializers.ModelSerializer):
    class Meta:
        model = Owner
        fields = ["id", "name"]


class ParcelSerializer(serializers.ModelSerializer):
    owner = OwnerSerializer(read_only=True)
    sender_name = serializers.CharField(source="sender.name", read_only=True)
    owner_name = serializers.CharField(source="owner.name", read_only=True)
    password = serializers.CharField(write_only=True)
    twice = serializers.SerializerMethodField()

    class Meta:
        model = Parcel
        fields = [
            *("key", "owner", "sender", "state", "note", "weight", "meta", "made_at", "password"),
            *("sender_name", "owner_name", "twice"),
        ]

    def get_twice(self, parcel: Parcel) -> float:
        return 2.0


def parcel(**values: Any) -> Parcel:
    return Parcel(sender=Owner(pk=1, name="Ada"), made_at=NOW, **values)


@pytest.mark.parametrize(
    "made",
    [
        parcel(),
        parcel(owner=Owner(pk=2, name="Bo"), note="x", weight=Decimal("1.5"), meta={"a": 1}),
    ],
    ids=["empty", "full"],
)
def test_a_model_serializer_gives_what_its_schema_says(made: Parcel) -> None:
    schema = schema_of_serializer(ParcelSerializer)
    check(schema, as_delivered(ParcelSerializer(made).data))


def test_a_model_serializers_schema_tells_null_keys_help_and_what_is_left_out() -> None:
    schema = schema_of_serializer(ParcelSerializer)
    parts = schema["properties"]
    assert parts["key"] == {"type": "string", "format": "uuid"}
    assert parts["owner"]["type"] == ["object", "null"]
    assert parts["owner"]["properties"]["id"] == {"type": "integer"}
    assert parts["sender"] == {"type": "integer"}
    assert parts["state"] == {"type": "string", "enum": ["new", "old"]}
    assert parts["note"] == {"type": ["string", "null"]}
    assert parts["weight"] == {
        "type": ["string", "null"],
        "format": "decimal",
        "description": "In kg.",
    }
    assert parts["twice"] == {}
    assert "password" not in parts
    # A parcel without an owner has no owner_name at all.
    assert set(parts) - set(schema["required"]) == {"owner_name"}
    assert "owner_name" not in ParcelSerializer(parcel()).data


def test_many_of_a_nested_serializer_are_an_array() -> None:
    class Box(serializers.Serializer):
        owners = OwnerSerializer(many=True)
        keys = serializers.PrimaryKeyRelatedField(many=True, read_only=True, source="owners")

    owners = [Owner(pk=1, name="Ada"), Owner(pk=2, name="Bo")]
    schema = schema_of_serializer(Box)
    check(schema, as_delivered(Box(SimpleNamespace(owners=owners)).data))
    assert schema["properties"]["owners"]["items"]["required"] == ["id", "name"]
    assert schema["properties"]["keys"]["type"] == "array"


def test_the_many_keys_of_a_model_field_have_the_type_of_its_key() -> None:
    class FriendsSerializer(serializers.ModelSerializer):
        class Meta:
            model = Parcel
            fields = ["friends"]

    assert schema_of_serializer(FriendsSerializer)["properties"]["friends"] == {
        "type": "array",
        "items": {"type": "integer"},
    }


def test_of_what_a_class_of_the_hosts_own_gives_nothing_is_claimed() -> None:
    class Money(serializers.DecimalField):
        def to_representation(self, value: Any) -> Any:
            return {"amount": str(value), "currency": "EUR"}

    class Shaped(serializers.Serializer):
        a = serializers.CharField()

        def to_representation(self, instance: Any) -> Any:
            return {"quite": "another"}

    class Bill(serializers.Serializer):
        total = Money(10, 2)
        shaped = Shaped(source="*")

    schema = schema_of_serializer(Bill)
    check(schema, as_delivered(Bill(SimpleNamespace(total=Decimal(1), a="x")).data))
    assert schema["properties"] == {"total": {}, "shaped": {"type": "object"}}
