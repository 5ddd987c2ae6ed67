"""What is documented of an event type is what is delivered."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import jsonschema
import pytest
from rest_framework import serializers

from tests.documentation.validation import check
from tests.world import Receiver, deliver, subscribe
from webhooks import catalog, emit
from webhooks.documentation.schemas import (
    EXAMPLE_ID,
    EXAMPLE_TIME,
    documented_body,
    documented_message,
    example_of,
    message_schema,
    schema_of,
)
from webhooks.receiving import verify


class AddressSerializer(serializers.Serializer):
    street = serializers.CharField(help_text="With the number.")
    zip = serializers.CharField(allow_null=True)


class OrderSerializer(serializers.Serializer):
    number = serializers.IntegerField()
    total = serializers.DecimalField(10, 2)
    paid_at = serializers.DateTimeField()
    tags = serializers.ListField(child=serializers.CharField())
    address = AddressSerializer()


TREE = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "minLength": 6, "const": "#/$defs/node"},
                "const": {"$ref": "#/$defs/count"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            },
            "required": ["name", "const"],
        },
        "count": {"type": "integer", "minimum": 3},
    },
}


class TestEveryRegisteredType:
    def test_its_example_fits_its_schema(self, every_type: list[catalog.EventType]) -> None:
        with_schema = [each for each in every_type if schema_of(each) is not None]
        assert with_schema
        for each in with_schema:
            check(schema_of(each), example_of(each))

    def test_an_example_that_does_not_fit_is_found(self, register: Any) -> None:
        wrong = register(
            "order.lost", schema={"type": "object", "required": ["order"]}, example={"other": 1}
        )
        with pytest.raises(jsonschema.ValidationError, match="'order' is a required property"):
            check(schema_of(wrong), example_of(wrong))

    @pytest.mark.django_db(transaction=True)
    def test_what_is_delivered_of_its_example_fits_the_documented_message(
        self, every_type: list[catalog.EventType], receiver: Receiver
    ) -> None:
        subscribe(receiver, event_types=[each.name for each in every_type])
        for each in every_type:
            requester = "app:a" if each.audience == "requester" else ""
            emit(each.name, example_of(each), requester=requester)
        deliver()
        posts = {post.json["type"]: post for post in receiver.posts}
        assert sorted(posts) == [each.name for each in every_type]
        for each in every_type:
            check(message_schema(each), posts[each.name].json)
            assert posts[each.name].json["data"] == documented_message(each)["data"]

    @pytest.mark.django_db(transaction=True)
    def test_the_documented_body_is_byte_for_byte_what_is_delivered(
        self, every_type: list[catalog.EventType], receiver: Receiver
    ) -> None:
        subscribe(receiver, event_types=[each.name for each in every_type])
        expected = set()
        for each in every_type:
            event = emit(
                each.name,
                each.example if each.example is not None else example_of(each),
                requester="app:a" if each.audience == "requester" else "",
                occurred_at=EXAMPLE_TIME,
            )
            expected.add(documented_body(each).replace(EXAMPLE_ID.encode(), event.pk.encode()))
        deliver()
        assert {post.body for post in receiver.posts} == expected


class TestSchemaOf:
    def test_the_registered_schema_is_given_as_it_is_and_cannot_be_changed_through_it(
        self, register: Any
    ) -> None:
        schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
        made = register("order.found", schema=schema)
        given = schema_of(made)
        assert given == schema
        assert given is not None
        given["properties"].clear()
        assert schema_of(made) == {"type": "object", "properties": {"a": {"type": "integer"}}}

    def test_one_is_made_from_the_serializer(self, register: Any) -> None:
        made = register("order.found", serializer=OrderSerializer)
        schema = schema_of(made)
        assert schema is not None
        assert schema["required"] == ["number", "total", "paid_at", "tags", "address"]
        check(schema, example_of(made))

    def test_a_type_with_neither_has_none(self) -> None:
        assert schema_of(catalog.get("order.paid")) is None


class TestMessageSchema:
    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("type", "order.other"),
            ("id", "7"),
            ("timestamp", "yesterday"),
            ("data", []),
        ],
    )
    def test_it_refuses_another_message(self, field: str, value: Any) -> None:
        order = catalog.get("order.paid")
        message = documented_message(order)
        check(message_schema(order), message)
        with pytest.raises(jsonschema.ValidationError):
            check(message_schema(order), {**message, field: value})
        del message[field]
        with pytest.raises(jsonschema.ValidationError):
            check(message_schema(order), message)

    def test_references_within_the_datas_schema_lead_where_it_stands_now(
        self, register: Any
    ) -> None:
        made = register("tree.grown", schema=TREE)
        leaf = {"name": "#/$defs/node", "const": 3}
        message = documented_message(made)
        good = {**message, "data": {**leaf, "children": [leaf]}}
        check(message_schema(made), good)
        with pytest.raises(jsonschema.ValidationError, match="less than the minimum"):
            check(
                message_schema(made),
                {**message, "data": {**leaf, "children": [{**leaf, "const": 2}]}},
            )

    def test_a_schema_that_names_itself_keeps_its_references(self, register: Any) -> None:
        made = register("tree.grown", schema={**TREE, "$id": "https://example.com/tree"})
        message = documented_message(made)
        check(message_schema(made), message)
        with pytest.raises(jsonschema.ValidationError):
            check(message_schema(made), {**message, "data": {"name": "#/$defs/node", "const": 2}})


class TestExampleOf:
    def test_without_one_it_is_made_from_the_schema_and_always_the_same(
        self, register: Any
    ) -> None:
        made = register("order.found", serializer=OrderSerializer)
        assert example_of(made) == {
            "number": 1,
            "total": "12.50",
            "paid_at": "2026-01-15T08:30:00Z",
            "tags": ["text"],
            "address": {"street": "text", "zip": "text"},
        }
        assert example_of(made) == example_of(made)

    def test_a_schema_that_refers_to_itself_comes_to_an_end(self, register: Any) -> None:
        made = register("tree.grown", schema=TREE)
        check(schema_of(made), example_of(made))
        assert len(json.dumps(example_of(made))) < 2000

    def test_an_object_is_serialised_as_emission_does(self, register: Any) -> None:
        @dataclasses.dataclass(frozen=True)
        class Address:
            street: str
            zip: str | None

        made = register("order.moved", serializer=AddressSerializer, example=Address("A 1", None))
        assert documented_message(made)["data"] == {"street": "A 1", "zip": None}

    @pytest.mark.parametrize(
        "schema",
        [
            {"type": "integer", "minimum": 7},
            {"type": "integer", "exclusiveMinimum": 7, "multipleOf": 5},
            {"type": "integer", "maximum": -3},
            {"type": "number", "exclusiveMaximum": 0.5},
            {"type": "number", "minimum": 2.25},
            {"type": "string", "minLength": 9},
            {"type": "string", "maxLength": 2},
            {"type": "string", "format": "uuid"},
            {"type": ["null", "boolean"]},
            {"type": "array", "items": {"type": "null"}, "minItems": 3},
            {"type": "array", "items": {"type": "string"}, "maxItems": 0},
            {"prefixItems": [{"type": "integer"}, {"const": "x"}], "items": False},
            {"anyOf": [{"type": "null"}, {"type": "object", "required": ["a"]}]},
            {
                "allOf": [
                    {"type": "object", "properties": {"a": {"type": "integer"}}},
                    {"required": ["a"], "properties": {"b": {"enum": ["x"]}}},
                ]
            },
            {"oneOf": [{"type": "integer"}, {"type": "string"}]},
            {"type": "object", "additionalProperties": {"type": "integer"}, "required": ["k"]},
            {"type": "string", "pattern": "^x+$", "examples": ["xx"]},
            {"type": "string", "pattern": "^x+$", "default": "xx"},
            {"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"const": 5}}},
            True,
        ],
        ids=json.dumps,
    )
    def test_the_made_value_fits(self, schema: Any) -> None:
        from webhooks.documentation.values import value_of

        check(schema, value_of(schema))


def test_the_documented_message_verifies_as_a_delivery_does() -> None:
    from webhooks.documentation.signed import SECRET, signed_example

    example = signed_example(catalog.get("order.paid"))
    assert verify(example.body, example.headers, SECRET, tolerance=None) == documented_message(
        catalog.get("order.paid")
    )
    assert example.headers["webhook-id"] == documented_message(catalog.get("order.paid"))["id"]
