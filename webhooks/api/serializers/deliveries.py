"""Deliveries, attempts and replays: what was sent, what came back, and what is asked for again."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from webhooks import remedies
from webhooks.api.serializers.events import TimedQuery
from webhooks.api.serializers.fields import Choice, Flag, Id, Integer, Moment, Text
from webhooks.api.serializers.strict import PageQuery, StrictSerializer
from webhooks.models import Delivery, DeliveryAttempt, Replay
from webhooks.models.delivery import State
from webhooks.models.replay import REPLAYABLE
from webhooks.transports.base import BLOCKED_ADDRESS


class DeliverySerializer(serializers.Serializer[Any]):
    """One event for one subscription."""

    id = Id("dlv")
    subscription = Id("sub", source="subscription_id")
    event = Id("evt", source="event_id")
    event_type = Text(source="event.type")
    subject = Text(source="event.subject")
    webhook_id = Text(help_text="The header webhook-id of all its attempts.")
    state = Choice(choices=State.choices)
    reason = Text(help_text="Why it ended as it did.")
    remedy = serializers.SerializerMethodField(help_text="What to do about the reason.")
    attempts = Integer(help_text="How many there were.")
    due_at = Moment(allow_null=True, help_text="The next try; null once it has ended.")
    first_due_at = Moment()
    created_at = Moment()
    settled_at = Moment(allow_null=True, help_text="When it ended.")

    def get_remedy(self, delivery: Delivery) -> str:
        return remedies.remedy(delivery.reason).fix

    def to_representation(self, delivery: Delivery) -> dict[str, Any]:
        shown = super().to_representation(delivery)
        # The column keeps the last try's time.
        return shown if delivery.state == State.PENDING else {**shown, "due_at": None}


class DeliveryQuery(TimedQuery):
    """Filters of the list of deliveries."""

    subscription = Id("sub", required=False)
    state = Choice(choices=State.choices, required=False)
    status = Choice(choices=State.choices, required=False, help_text="The same as state.")
    type = Text(required=False, max_length=128)
    subject = Text(required=False, max_length=255)
    event = Id("evt", required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        alias = attrs.pop("status", None)
        if alias is not None and attrs.setdefault("state", alias) != alias:
            raise serializers.ValidationError({"status": ["It differs from state. Send one."]})
        return attrs


class AttemptSerializer(serializers.Serializer[Any]):
    """One POST and its answer."""

    id = Id("att")
    number = Integer()
    trigger = Choice(choices=DeliveryAttempt.Trigger.choices)
    started_at = Moment()
    elapsed_ms = Integer()
    status_code = Integer(allow_null=True, help_text="null: no answer came.")
    error_code = Text(help_text="Empty: success.")
    remedy = serializers.SerializerMethodField(help_text="What to do about the error.")
    excerpt = serializers.SerializerMethodField(help_text="The start of your own answer.")
    truncated = Flag(help_text="There was more of it.")

    def get_remedy(self, attempt: DeliveryAttempt) -> str:
        return remedies.remedy(attempt.error_code).fix

    def get_excerpt(self, attempt: DeliveryAttempt) -> str:
        # What stands at a blocked address is none of the client's business.
        return "" if attempt.error_code == BLOCKED_ADDRESS else attempt.excerpt


class PingSerializer(AttemptSerializer):
    """How a ping went."""

    delivered = serializers.SerializerMethodField()
    webhook_id = Text(source="message_id")

    def get_delivered(self, attempt: DeliveryAttempt) -> bool:
        return not attempt.error_code


class RedeliverBody(StrictSerializer):
    """How a delivery is sent again."""

    new_id = Flag(
        required=False,
        default=False,
        help_text="Send it under a new webhook-id, for a receiver that drops repeats.",
    )


class ReplayBody(StrictSerializer):
    """Which events of the past are to be delivered again."""

    types = serializers.ListField(
        child=Text(max_length=128),
        required=False,
        max_length=100,
        help_text="Event types or patterns; none: all that the subscription covers.",
    )
    states = serializers.ListField(
        child=Choice(choices=REPLAYABLE),
        required=False,
        min_length=1,
        help_text="Without it: all that did not reach you.",
    )
    only_missing = Flag(
        required=False, default=False, help_text='The same as states = ["missing"].'
    )
    dry_run = Flag(required=False, default=False, help_text="Count them, and do nothing.")

    def get_fields(self) -> Any:
        # “from” is a word of the language, and so no attribute.
        return {
            "from": Moment(help_text="Events that were recorded at this time or later."),
            "to": Moment(required=False, help_text="And earlier than this; without it: now."),
            **super().get_fields(),
        }

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs["only_missing"] and attrs.get("states", ["missing"]) != ["missing"]:
            raise serializers.ValidationError(
                {"only_missing": ['It stands for states = ["missing"]. Send one of the two.']}
            )
        return attrs


class ReplaySerializer(serializers.Serializer[Any]):
    """A replay, and how far it has come."""

    id = Id("rpl")
    subscription = Id("sub", source="subscription_id")
    state = Choice(choices=Replay.State.choices)
    types = serializers.ListField(child=Text())
    states = serializers.ListField(child=Text())
    total = Integer()
    done = Integer()
    created_at = Moment()
    finished_at = Moment(allow_null=True)

    def get_fields(self) -> Any:
        return {
            **super().get_fields(),
            "from": Moment(source="from_at"),
            "to": Moment(source="to_at"),
        }


class ReplayCount(serializers.Serializer[Any]):
    """The answer to a dry run."""

    count = Integer()


class ReplayQuery(PageQuery):
    """The parameters of the list of replays."""
