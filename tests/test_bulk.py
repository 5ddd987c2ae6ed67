"""Statements that write many rows: each value comes to its row, whatever the others are."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.world import emit_orders, fan_out_all
from webhooks.clock import db_now
from webhooks.lifecycle import subscribe
from webhooks.models import Delivery, DeliveryStats, Event, Lane, Subscription
from webhooks.models.bulk import add_rows, insert_rows, update_rows
from webhooks.models.delivery import LanePosition
from webhooks.models.event import RECORDED
from webhooks.models.fields import new_event_id
from webhooks.models.stats import COUNTERS, KEYS, WHOLE_SERVICE

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def subscriptions(count: int) -> list[Subscription]:
    return [
        subscribe(
            requester=f"app:{i}", callback_url="http://127.0.0.1:9/in", event_types=["order.*"]
        )[0]
        for i in range(count)
    ]


@pytest.mark.parametrize("texts", [["same"] * 3, ["a", "b\"{},\\'", ""], ["NULL", "null", "ü\n\t"]])
@pytest.mark.parametrize("keys", [[None] * 3, [None, "x", None]])
@pytest.mark.parametrize(
    "times", [[NOON] * 3, [NOON, NOON + timedelta(microseconds=1), datetime(1, 1, 1, tzinfo=UTC)]]
)
def test_rows_are_inserted_as_they_were_given(
    texts: list[str], keys: list[str | None], times: list[datetime]
) -> None:
    rows = [
        (new_event_id(), "order.paid", "app:1", text, "{}", at, NOON, key, "")
        for text, key, at in zip(texts, keys, times, strict=True)
    ]
    insert_rows("default", Event, RECORDED, rows)
    stored = {row[0]: row for row in Event.objects.values_list(*RECORDED)}
    assert stored == {row[0]: row for row in rows}


@pytest.mark.parametrize("numbers", [[7, 7], [1, 2], [None, 3], [None, None]])
@pytest.mark.parametrize("times", [[NOON, NOON], [None, NOON], [NOON, NOON + timedelta(days=1)]])
def test_rows_are_updated_each_with_its_own(
    numbers: list[int | None], times: list[datetime | None]
) -> None:
    pks = sorted(each.pk for each in subscriptions(2))
    columns = ("latency_ms", "last_success_at", "pause_reason")
    rows: list[tuple[Any, ...]] = [
        (pk, number, at, "ordered") for pk, number, at in zip(pks, numbers, times, strict=True)
    ]
    update_rows("default", Lane, columns, rows)
    assert list(Lane.objects.order_by("pk").values_list("pk", *columns)) == rows


def test_a_token_is_written_and_taken_away() -> None:
    pks = sorted(each.pk for each in subscriptions(2))
    now, token = db_now("default"), uuid.uuid4()
    columns = ("token", "lease_until", "claim_at")
    held = (token, now, now)
    for rows in (
        [(pks[0], *held), (pks[1], None, None, now)],
        [(pks[0], None, None, None), (pks[1], *held)],
    ):
        update_rows("default", Lane, columns, rows)
        assert list(Lane.objects.order_by("pk").values_list("pk", *columns)) == rows


def test_counters_are_added_and_those_that_nobody_counted_stay() -> None:
    def add(*given: dict[str, int]) -> None:
        rows = [
            (WHOLE_SERVICE, f"order.{place}", 300, NOON, "", *(counted.get(n, 0) for n in COUNTERS))
            for place, counted in enumerate(given)
        ]
        add_rows("default", DeliveryStats, KEYS, COUNTERS, rows)

    add({"attempts": 2, "dead": 1, "latency_3": 2}, {"attempts": 1})
    add({"attempts": 1, "ack_2": 1}, {"attempts": 5, "delivered": 5})
    add({})
    names = ("attempts", "delivered", "dead", "latency_3", "ack_2", "ack_13")
    assert list(DeliveryStats.objects.order_by("type").values_list(*names)) == [
        (3, 0, 1, 2, 1, 0),
        (6, 5, 0, 0, 0, 0),
    ]


@pytest.mark.parametrize(
    "occurred_at",
    [NOON + timedelta(microseconds=123_457), datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC)],
)
def test_a_due_delivery_has_its_times_to_the_microsecond(occurred_at: datetime) -> None:
    [subscription] = subscriptions(1)
    emit_orders(1, "app:0")
    fan_out_all()
    Event.objects.update(occurred_at=occurred_at)
    [due] = Delivery.objects.due([LanePosition(subscription.pk, 5)], db_now("default"))
    stored = Delivery.objects.select_related("event").get()
    assert due.occurred_at == occurred_at
    assert (due.id, due.event_id, due.due_at, due.first_due_at, due.recorded_at) == (
        *(stored.pk, stored.event_id, stored.due_at, stored.first_due_at),
        stored.event.created_at,
    )
    # What was read is not read again: a position that is a microsecond off would begin there.
    position = LanePosition(subscription.pk, 5, (due.due_at, due.id))
    assert Delivery.objects.due([position], db_now("default")) == []
