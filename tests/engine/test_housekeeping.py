"""What runs by the clock: sweep, prune, compaction."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.world import Receiver, deliver, emit_orders, fan_out_all, states, subscribe
from webhooks.clock import db_now
from webhooks.engine import housekeeping
from webhooks.lifecycle import change_status
from webhooks.models import (
    Delivery,
    DeliveryAttempt,
    DeliveryStats,
    Duty,
    Event,
    Lane,
    Subscription,
    Worker,
)
from webhooks.models.fields import first_id_of
from webhooks.models.stats import COUNTERS, DAY, FRESH, HOUR, Tally
from webhooks.models.subscription import Status
from webhooks.tasks import prune, sweep

pytestmark = pytest.mark.django_db(transaction=True)

woken: list[str] = []


def note_wake_up() -> None:
    woken.append("drain")


@pytest.fixture
def wake_ups(settings: Any) -> list[str]:
    """The wake-ups from here on."""
    woken.clear()
    settings.WEBHOOKS = {**settings.WEBHOOKS, "WAKER": f"{__name__}.note_wake_up"}
    return woken


def test_the_sweep_wakes_a_worker_for_an_event_that_nobody_saw(
    receiver: Receiver, wake_ups: list[str]
) -> None:
    subscribe(receiver)
    emit_orders(1)
    wake_ups.clear()
    sweep()
    assert wake_ups == ["drain"]
    assert Duty.objects.get(name="sweep").counter == 0


def test_the_sweep_wakes_a_worker_for_a_lane_that_is_due_soon(
    receiver: Receiver, wake_ups: list[str]
) -> None:
    subscribe(receiver)
    emit_orders(1)
    fan_out_all()
    wake_ups.clear()
    sweep()
    assert wake_ups == ["drain"]
    later = db_now("default") + timedelta(minutes=10)
    Delivery.objects.update(due_at=later)
    Lane.objects.update(claim_at=later)
    wake_ups.clear()
    sweep()
    assert wake_ups == []


def test_an_idle_service_is_left_asleep(receiver: Receiver, wake_ups: list[str]) -> None:
    subscribe(receiver)
    sweep()
    assert wake_ups == []
    assert Duty.objects.get(name="sweep").ran_at is not None


def test_the_sweep_buries_workers_that_fell_silent_and_no_others() -> None:
    now = db_now("default")
    for slot, silent in enumerate((5, 60)):
        Worker.objects.create(
            slot=slot,
            token=uuid.uuid4(),
            host="elsewhere",
            pid=1,
            started_at=now,
            heartbeat_at=now - timedelta(seconds=silent),
        )
    sweep()
    assert list(Worker.objects.values_list("slot", flat=True)) == [0]


def age(model: Any, days: float) -> None:
    """Make all rows of a table so old: their ids tell when they were made."""
    old = first_id_of(db_now("default") - timedelta(days=days), model._meta.pk.prefix)
    for place, row in enumerate(model.objects.all()):
        made_then = f"{old[:-8]}{place:08x}"
        model.objects.filter(pk=row.pk).update(id=made_then)


def test_pruning_removes_what_is_over_and_nothing_unfinished(receiver: Receiver) -> None:
    subscribe(receiver)
    suspended = subscribe(receiver, "app:b")
    change_status(suspended, Status.SUSPENDED, reason="client")
    emit_orders(3)
    emit_orders(2, "app:b")
    deliver()
    assert states() == {"delivered": 3, "pending": 2}
    # Everything is 40 days old but one event, which is new.
    old = db_now("default") - timedelta(days=40)
    age(DeliveryAttempt, 40)
    age(Delivery, 40)
    Delivery.objects.filter(state="delivered").update(settled_at=old)
    Event.objects.update(fanned_out_at=old)
    unfinished = set(Delivery.objects.filter(state="pending").values_list("event_id", flat=True))
    re_id_events(old)
    [new] = emit_orders(1)
    prune()
    assert states() == {"pending": 2}
    assert DeliveryAttempt.objects.count() == 0
    assert Event.objects.filter(pk=new.pk).exists()
    assert Event.objects.exclude(pk=new.pk).count() == len(unfinished) == 2
    assert Duty.objects.get(name="prune").counter == 3 + 3 + 3


def re_id_events(old: datetime) -> None:
    """Move every event to an old id, with its deliveries."""
    for place, event in enumerate(Event.objects.order_by("pk")):
        before = event.pk
        event.pk = f"{first_id_of(old, 'evt')[:-8]}{place:08x}"
        event.save(force_insert=True)
        Delivery.objects.filter(event_id=before).update(event_id=event.pk)
        Event.objects.filter(pk=before).delete()


def test_pruning_keeps_what_is_young(receiver: Receiver) -> None:
    subscribe(receiver)
    emit_orders(3)
    deliver()
    prune()
    assert (Event.objects.count(), Delivery.objects.count()) == (3, 3)
    assert DeliveryAttempt.objects.count() == 3


def test_an_event_that_nobody_dispatched_is_never_pruned(receiver: Receiver) -> None:
    emit_orders(1)
    age(Event, 400)
    prune()
    assert Event.objects.count() == 1


def test_pruning_works_in_batches(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "BATCH", 4)
    subscribe(receiver)
    emit_orders(30)
    deliver()
    age(DeliveryAttempt, 40)
    prune()
    assert DeliveryAttempt.objects.count() == 0


def sums(subscription_id: str) -> dict[tuple[str, str], list[int]]:
    """All counters by event type and code, over all widths."""
    found: dict[tuple[str, str], list[int]] = {}
    for row in DeliveryStats.objects.filter(subscription_id=subscription_id):
        sums_ = found.setdefault((row.type, row.code), [0] * len(COUNTERS))
        for i, name in enumerate(COUNTERS):
            sums_[i] += getattr(row, name)
    return found


@pytest.mark.parametrize("batch", [1000, 7])
def test_compaction_keeps_every_sum(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(housekeeping, "BATCH", batch)
    subscription = subscribe(receiver)
    now = db_now("default")
    tally = Tally()
    for hours in (0, 1, 20, 47, 49, 50, 60, 100, 24 * 31, 24 * 31 + 1, 24 * 40, 24 * 400):
        for minutes in (0, 5, 10, 15):
            for code in ("", "timeout"):
                tally.count(
                    subscription_id=subscription.pk,
                    event_type="order.paid",
                    at=now - timedelta(hours=hours, minutes=minutes),
                    code=code,
                    elapsed_ms=hours * 10,
                    first_try=not code,
                    dead=bool(code),
                    ack_ms=None if code else hours * 1000.0,
                )
    DeliveryStats.objects.add(tally)
    before, rows = sums(subscription.pk), DeliveryStats.objects.count()
    prune()
    assert sums(subscription.pk) == before
    assert DeliveryStats.objects.count() < rows
    stats = DeliveryStats.objects.filter(subscription_id=subscription.pk)
    hour = timedelta(hours=1)
    assert not stats.filter(width=FRESH, bucket__lt=now - 50 * hour).exists()
    assert not stats.filter(width=HOUR, bucket__lt=now - 24 * 32 * hour).exists()
    assert not stats.exclude(width=FRESH).filter(bucket__gt=now - 47 * hour).exists()
    assert stats.filter(width=DAY, bucket__lt=now - 24 * 39 * hour).exists()
    for row in stats:
        assert row.bucket.timestamp() % row.width == 0
    # Once more changes nothing.
    after = list(DeliveryStats.objects.order_by("pk").values())
    prune()
    assert list(DeliveryStats.objects.order_by("pk").values()) == after


def test_statistics_outlive_their_subscription(receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    emit_orders(1)
    deliver()
    Subscription.objects.all().delete()
    prune()
    assert DeliveryStats.objects.filter(subscription_id=subscription.pk).exists()
