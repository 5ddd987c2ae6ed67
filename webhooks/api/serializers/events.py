"""Events and event types, as far as a client may see them."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from webhooks.api.serializers.fields import Id, Integer, JsonObject, Moment, Text
from webhooks.api.serializers.strict import PageQuery, QuerySerializer
from webhooks.catalog import EventType
from webhooks.documentation.schemas import schema_of
from webhooks.models import Event
from webhooks.models.delivery import State


class EventTypeSerializer(serializers.Serializer[Any]):
    """An entry of the catalogue."""

    name = Text()
    title = Text()
    description = Text()
    audience = serializers.ChoiceField(
        choices=["requester", "everyone"],
        help_text="requester: each event is addressed to one; everyone: it goes to all.",
    )
    scope = Text(allow_null=True, help_text="The OAuth 2 scope that a subscriber needs for it.")
    schema = serializers.SerializerMethodField(help_text="JSON Schema of the data.")
    example = serializers.SerializerMethodField(help_text="An example of the data.")

    def get_schema(self, entry: EventType) -> dict[str, Any] | None:
        return schema_of(entry)

    def get_example(self, entry: EventType) -> Any:
        return entry.example


class SampleSerializer(serializers.Serializer[Any]):
    """An event in the shape in which it is delivered."""

    id = Id("evt")
    type = Text()
    timestamp = Moment()
    data = JsonObject()  # type: ignore[assignment]  # a field; the property stays

    def to_representation(self, instance: Any) -> Any:
        return instance  # it is what the format made


class EventTypeQuery(PageQuery):
    """The parameters of the list of event types."""


class SamplesQuery(QuerySerializer):
    """The parameters of samples: none."""


class EventSerializer(serializers.Serializer[Any]):
    """An event, without its data."""

    id = Id("evt", help_text="Also the webhook-id of a delivery of this event alone.")
    type = Text()
    subject = Text(help_text="What it is about, e.g. campaign:7; may be empty.")
    timestamp = Moment(source="occurred_at", help_text="When it happened, as it is delivered.")
    recorded_at = Moment(source="created_at")
    seq = Integer(allow_null=True, help_text="Its place in the feed; null: not fanned out yet.")


class EventDelivery(serializers.Serializer[Any]):
    """What became of an event, for one of the client's subscriptions."""

    id = Id("dlv")
    subscription = Id("sub", source="subscription_id")
    state = serializers.ChoiceField(choices=State.choices)


class EventDetail(EventSerializer):
    """An event as it is delivered, and what became of it."""

    data = serializers.SerializerMethodField()  # type: ignore[assignment]
    deliveries = serializers.SerializerMethodField(help_text="To your own subscriptions.")

    def get_data(self, event: Event) -> dict[str, Any]:
        data: dict[str, Any] = event.payload
        return data

    def get_deliveries(self, event: Event) -> list[dict[str, Any]]:
        rows = self.context["deliveries"]
        return [dict(each) for each in EventDelivery(rows, many=True).data]


class TimedQuery(PageQuery):
    """A list that can be cut by time."""

    after = Moment(required=False, help_text="Made at this time or later.")
    before = Moment(required=False, help_text="Made earlier than this.")


class EventQuery(TimedQuery):
    """Filters of the feed."""

    type = Text(required=False, max_length=128)
    subject = Text(required=False, max_length=255)
    since = Id(
        "evt",
        required=False,
        help_text="Everything that was fanned out after this event, oldest first.",
    )
