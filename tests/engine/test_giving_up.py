"""An endpoint that fails for days: the clock of ages, the suspension, the end of its backlog."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import jsonschema
import pytest
from django.db import transaction

from tests.world import (
    Answer,
    Receiver,
    deliver,
    emit_orders,
    fan_out_all,
    in_background,
    states,
    subscribe,
)
from webhooks import catalog, health, lifecycle, redelivery, signals
from webhooks.clock import db_now
from webhooks.engine import giving_up, pacing, replays
from webhooks.engine.housekeeping import sweep
from webhooks.models import Delivery, DeliveryAttempt, Event, Lane, Subscription
from webhooks.models.lane import COUNTED_AHEAD

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
FAILING, SUSPENDED = "webhooks.subscription.failing", "webhooks.subscription.suspended"

on_database = pytest.mark.django_db(transaction=True)


def hours(lane: Lane, after: timedelta) -> float:
    """For how many hours a lane has stood still by then."""
    return lane.clock_at(NOW + after) / 3_600_000


def configure(settings: Any, **keys: Any) -> None:
    settings.WEBHOOKS = {**settings.WEBHOOKS, **keys}


def fail_for(subscription: Subscription, span: timedelta, failures: int = 20) -> None:
    """As if the endpoint had failed for so long."""
    now = db_now("default")
    Lane.objects.filter(pk=subscription.pk).update(
        failures=failures, failing_since=now - span, last_failure_at=now
    )


def suspended_for(subscription: Subscription, span: timedelta) -> None:
    """As if it had been suspended for so long."""
    since = db_now("default") - span
    Subscription.objects.filter(pk=subscription.pk).update(status_since=since)
    Lane.objects.filter(pk=subscription.pk).update(clock_stopped_since=since)


def status_of(subscription: Subscription) -> tuple[str, str]:
    stored = Subscription.objects.get(pk=subscription.pk)
    return stored.status, stored.status_reason


# The clock


def test_the_clock_stands_still_while_a_lane_is_on_hold() -> None:
    lane = Lane()
    lane.hold(True, NOW)
    lane.hold(True, NOW + HOUR)  # again: nothing new
    assert hours(lane, 3 * HOUR) == 3
    lane.hold(False, NOW + 3 * HOUR)
    assert hours(lane, 9 * HOUR) == 3
    lane.hold(False, NOW + 9 * HOUR)
    lane.hold(True, NOW + 10 * HOUR)
    assert hours(lane, 12 * HOUR) == 5


@pytest.mark.parametrize("reason", sorted(COUNTED_AHEAD))
def test_a_rest_that_was_counted_ahead_counts_as_it_passes(reason: str) -> None:
    lane = Lane(clock_stopped_ms=2 * 3_600_000, paused_until=NOW + HOUR, pause_reason=reason)
    assert [hours(lane, at * HOUR) for at in (0, 0.5, 1, 2)] == [1, 1.5, 2, 2]


@pytest.mark.parametrize("reason", ["retry_after", "ordered", ""])
def test_any_other_rest_counts_for_nothing(reason: str) -> None:
    lane = Lane(clock_stopped_ms=3_600_000, paused_until=NOW + HOUR, pause_reason=reason)
    assert hours(lane, 0 * HOUR) == hours(lane, HOUR) == 1


def test_who_counts_ahead_and_who_reads_it_mean_the_same_rests() -> None:
    assert COUNTED_AHEAD == pacing.STOPS_CLOCK


def test_a_rest_on_hold_is_not_counted_twice() -> None:
    lane = Lane(clock_stopped_ms=3_600_000, paused_until=NOW + HOUR, pause_reason="parked")
    lane.hold(True, NOW)
    assert [hours(lane, at * HOUR) for at in (0, 0.5, 1, 2)] == [0, 0.5, 1, 2]
    lane.hold(False, NOW + 2 * HOUR)
    assert hours(lane, 5 * HOUR) == 2


@pytest.mark.parametrize("held", [False, True])
def test_a_rest_that_ends_early_is_counted_up_to_then(held: bool) -> None:
    lane = Lane(clock_stopped_ms=3_600_000, paused_until=NOW + HOUR, pause_reason="parked")
    if held:
        lane.hold(True, NOW)
    lane.begin_anew(NOW + HOUR / 2)
    assert hours(lane, HOUR / 2) == 0.5
    assert hours(lane, 2 * HOUR) == (2 if held else 0.5)


@on_database
def test_a_suspension_makes_no_delivery_older(receiver: Receiver, settings: Any) -> None:
    configure(settings, MAX_AGE=600, RETRY_SCHEDULE=(60, 60, 60))
    receiver.answer = Answer(status=500)
    subscription = subscribe(receiver)
    emit_orders(1)
    deliver()
    lifecycle.suspend(subscription)
    suspended_for(subscription, HOUR)
    an_hour_ago = db_now("default") - HOUR
    Delivery.objects.update(first_due_at=an_hour_ago, due_at=an_hour_ago)
    lifecycle.resume(subscription)
    deliver()
    assert states() == {"pending": 1}
    # Without that it would be too old.
    now = db_now("default")
    Lane.objects.update(clock_stopped_ms=0, claim_at=now, paused_until=None)
    Delivery.objects.update(due_at=now)
    deliver()
    assert states() == {"expired": 1}
    assert Delivery.objects.get().attempts == 3


@on_database
def test_a_pending_subscription_stands_still_from_its_beginning(receiver: Receiver) -> None:
    subscription = subscribe(receiver, status="pending")
    assert Lane.objects.get().clock_stopped_since is not None
    lifecycle.change_status(subscription, "subscribed", reason="handshake")
    assert Lane.objects.get().clock_stopped_since is None


@on_database
def test_a_lane_that_is_made_late_stands_still_too(receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    Lane.objects.all().delete()
    Subscription.objects.update(status="suspended")
    emit_orders(1)
    fan_out_all()
    assert Lane.objects.get(pk=subscription.pk).clock_stopped_since is not None


@on_database
def test_a_delivery_remembers_how_long_its_lane_had_stood_still(receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    emit_orders(1)
    deliver()
    assert Delivery.objects.get().clock_stopped_ms == 0
    lifecycle.suspend(subscription)
    suspended_for(subscription, HOUR)
    emit_orders(1)
    fan_out_all()
    [old, new] = Delivery.objects.order_by("event_id")
    assert new.clock_stopped_ms == pytest.approx(3_600_000, abs=30_000)
    # What is asked for again begins anew.
    redelivery.redeliver(old)
    old.refresh_from_db()
    assert old.clock_stopped_ms >= new.clock_stopped_ms
    # And so does what a replay makes of an event that there was no delivery of.
    Delivery.objects.all().delete()
    now = db_now("default")
    asked = redelivery.ReplayRequest(now - HOUR, now + HOUR, states=["missing"])
    redelivery.replay(subscription, asked)
    replays.advance("default")
    clocks = Delivery.objects.values_list("clock_stopped_ms", flat=True)
    assert [clock >= 3_600_000 for clock in clocks] == [True, True]


@on_database
def test_what_is_wanted_of_a_discarded_backlog_begins_anew(receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    lifecycle.suspend(subscription)
    emit_orders(2)
    fan_out_all()
    suspended_for(subscription, HOUR)
    lifecycle.resume(subscription, backlog="discard")
    wanted = Delivery.objects.first()
    assert wanted is not None
    redelivery.redeliver(wanted)
    wanted.refresh_from_db()
    assert wanted.clock_stopped_ms >= 3_600_000
    assert Delivery.objects.exclude(pk=wanted.pk).get().clock_stopped_ms < 1000
    deliver()
    assert states() == {"delivered": 1, "discarded": 1}


# The suspension


@contextmanager
def heard() -> Iterator[list[tuple[str, str]]]:
    """What the host's receivers hear: status changes, and what owners are told."""
    found: list[tuple[str, str]] = []

    def moved(status: str, reason: str, **kwargs: Any) -> None:
        found.append((status, reason))

    def told(previous: str, state: str, **kwargs: Any) -> None:
        found.append((previous, state))

    signals.subscription_status_changed.connect(moved)
    signals.subscription_health_changed.connect(told)
    yield found
    signals.subscription_status_changed.disconnect(moved)
    signals.subscription_health_changed.disconnect(told)


@on_database
@pytest.mark.parametrize(
    ("failures", "span", "suspended"),
    [
        (20, timedelta(days=5, minutes=1), True),
        (19, timedelta(days=30), False),
        (1000, timedelta(days=5) - timedelta(minutes=1), False),
    ],
)
def test_five_days_and_twenty_failures_suspend(
    receiver: Receiver, failures: int, span: timedelta, suspended: bool
) -> None:
    subscription = subscribe(receiver)
    fail_for(subscription, span, failures)
    sweep("default")
    assert status_of(subscription) == (
        ("suspended", "failing") if suspended else ("subscribed", "")
    )
    lane = Lane.objects.get()
    assert lane.held is suspended
    assert (lane.probe_at is not None) is suspended
    assert Subscription.objects.get().status_actor == ""  # the service itself


@on_database
@pytest.mark.parametrize(
    ("code", "status"), [("proxy_error", "subscribed"), ("timeout", "suspended")]
)
def test_nobody_is_suspended_because_our_proxy_is_down(
    receiver: Receiver, code: str, status: str
) -> None:
    receiver.answer = Answer(status=500)
    subscription = subscribe(receiver)
    emit_orders(1)
    deliver()
    DeliveryAttempt.objects.update(error_code=code)
    fail_for(subscription, 6 * DAY)
    sweep("default")
    assert status_of(subscription)[0] == status


@on_database
def test_a_success_since_then_is_one(receiver: Receiver, settings: Any) -> None:
    receiver.answer = Answer(status=500)
    subscription = subscribe(receiver, retry_schedule=[1])
    emit_orders(1)
    deliver()
    fail_for(subscription, 6 * DAY, 40)
    receiver.answer = Answer()
    emit_orders(1)
    deliver()
    sweep("default")
    assert status_of(subscription)[0] == "subscribed"


@on_database
def test_owners_and_the_host_are_told_each_thing_once_and_in_order(
    receiver: Receiver, receivers: Any
) -> None:
    watcher = receivers()
    subscribe(watcher, event_types=["webhooks.*"])
    subscription = subscribe(receiver)
    fail_for(subscription, 6 * DAY)
    told = [("", "failing"), ("suspended", "failing"), ("failing", "suspended")]
    with heard() as found:
        sweep("default")
        assert found == told  # all of it at once
        sweep("default")
    assert found == told
    events = list(Event.objects.order_by("pk").values_list("type", flat=True))
    assert events == [FAILING, SUSPENDED]
    deliver()
    # Both were under way together, and may come in any order.
    [data] = [post.json["data"] for post in watcher.posts if post.json["type"] == SUSPENDED]
    jsonschema.validate(data, catalog.get(SUSPENDED).schema)
    stored = Subscription.objects.get(pk=subscription.pk)
    expires_at = health.as_text(stored.status_since + 30 * DAY)
    assert (data["reason"]["code"], data["backlog_expires_at"]) == ("failing", expires_at)
    assert health.of_subscription(stored).as_dict()["backlog_expires_at"] == expires_at


@on_database
def test_nobody_is_suspended_without_a_warning(receiver: Receiver, monkeypatch: Any) -> None:
    subscription = subscribe(receiver)
    fail_for(subscription, 6 * DAY)
    monkeypatch.setattr("webhooks.notices.tell_owners", lambda using: None)
    sweep("default")
    assert status_of(subscription)[0] == "subscribed"


@on_database
@pytest.mark.parametrize("status", ["suspended", "unsubscribed", "pending"])
def test_one_that_is_not_sent_to_is_left_as_it_is(receiver: Receiver, status: str) -> None:
    pending = status == "pending"
    subscription = subscribe(receiver, **({"status": status} if pending else {}))
    if not pending:
        lifecycle.change_status(subscription, status, reason="client")
    before = status_of(subscription)
    fail_for(subscription, 6 * DAY)
    Lane.objects.update(told="failing")
    assert giving_up.suspend_failing("default") == 0
    assert status_of(subscription) == before


@on_database
def test_the_host_may_set_another_limit_or_none(receiver: Receiver, settings: Any) -> None:
    subscription = subscribe(receiver)
    fail_for(subscription, 60 * DAY, 7)
    configure(settings, AUTO_SUSPEND_SECONDS=None, AUTO_SUSPEND_FAILURES=7)
    sweep("default")
    assert status_of(subscription)[0] == "subscribed"
    configure(settings, AUTO_SUSPEND_SECONDS=59 * 86_400)
    sweep("default")
    assert status_of(subscription)[0] == "suspended"


@on_database
def test_a_sweep_suspends_so_many_and_the_next_one_the_others(
    receiver: Receiver, monkeypatch: Any
) -> None:
    monkeypatch.setattr(giving_up, "SUSPENDED", 2)
    for days in (6, 8, 7):
        fail_for(subscribe(receiver, event_types=[f"order.{'paid'}"]), days * DAY)
    sweep("default")
    assert Subscription.objects.filter(status="suspended").count() == 2
    assert Lane.objects.get(held=False).failing_since is not None
    assert Lane.objects.get(held=False).failing_since > db_now("default") - 6.5 * DAY
    sweep("default")
    assert Subscription.objects.filter(status="suspended").count() == 3


@on_database
def test_who_recovers_between_the_look_and_the_lock_stays(receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    fail_for(subscription, 6 * DAY)
    Lane.objects.update(told="failing")
    before = db_now("default") - 5 * DAY
    assert list(giving_up._failing("default", before))
    Lane.objects.update(failures=0, failing_since=None)
    with transaction.atomic():
        assert not giving_up._suspend("default", subscription.pk, before)
    assert status_of(subscription)[0] == "subscribed"


@on_database
@pytest.mark.postgres
def test_the_sweep_waits_for_nobody_who_has_the_lane(receiver: Receiver) -> None:
    busy, other = subscribe(receiver), subscribe(receiver, "app:b")
    for each in (busy, other):
        fail_for(each, 6 * DAY)
    Lane.objects.update(told="failing")
    with transaction.atomic():
        Lane.objects.lock([busy.pk])
        Lane.objects.filter(pk=busy.pk).update(failures=0, failing_since=None)  # a success
        with in_background(giving_up.suspend_failing, "default") as swept:
            pass
        assert swept.result() == 1
    assert giving_up.suspend_failing("default") == 0
    assert (status_of(busy)[0], status_of(other)[0]) == ("subscribed", "suspended")


# The end of the backlog


def with_backlog(receiver: Receiver, count: int, span: timedelta, **options: Any) -> Subscription:
    """A subscription that has been suspended for so long, with so many pending deliveries."""
    subscription = subscribe(receiver, **options)
    lifecycle.suspend(subscription)
    emit_orders(count, subscription.requester)
    fan_out_all()
    suspended_for(subscription, span)
    return subscription


@on_database
def test_a_backlog_expires_after_a_month(receiver: Receiver) -> None:
    with_backlog(receiver, 2, 30 * DAY + HOUR)
    kept = with_backlog(receiver, 3, 30 * DAY - HOUR, requester="app:b")
    subscribe(receiver, "app:c")
    emit_orders(1, "app:c")
    fan_out_all()
    sweep("default")
    assert states() == {"expired": 2, "pending": 4}
    expired = Delivery.objects.filter(state="expired")
    assert set(expired.values_list("reason", flat=True)) == {"suspended_too_long"}
    assert not expired.filter(subscription=kept).exists()
    deliver()
    assert states() == {"expired": 2, "pending": 3, "delivered": 1}


@on_database
def test_it_expires_in_small_batches_and_a_bounded_part_in_each_sweep(
    receiver: Receiver, monkeypatch: Any, settings: Any
) -> None:
    configure(settings, SUSPENDED_MAX_AGE=3600)
    monkeypatch.setattr(giving_up, "BATCH", 2)
    monkeypatch.setattr(giving_up, "EXPIRED", 7)
    ended: list[int] = []
    one_batch = giving_up._expire

    def count(*arguments: Any) -> int:
        ended.append(one_batch(*arguments))
        return ended[-1]

    monkeypatch.setattr(giving_up, "_expire", count)
    with_backlog(receiver, 5, 2 * HOUR)
    with_backlog(receiver, 4, 2 * HOUR, requester="app:b")
    assert giving_up.expire_backlogs("default") == 7
    assert ended == [2, 2, 1, 2]
    assert giving_up.expire_backlogs("default") == 2
    assert giving_up.expire_backlogs("default") == 0
    assert states() == {"expired": 9}


@on_database
def test_who_is_resumed_between_the_look_and_the_lock_keeps_it(receiver: Receiver) -> None:
    subscription = with_backlog(receiver, 2, 31 * DAY)
    before = db_now("default") - 30 * DAY
    lifecycle.resume(subscription)
    with transaction.atomic():
        assert giving_up._expire("default", subscription.pk, before, 10) == 0
    deliver()
    assert states() == {"delivered": 2}


@on_database
@pytest.mark.postgres
def test_a_resume_that_is_not_committed_yet_is_not_run_over(receiver: Receiver) -> None:
    subscription = with_backlog(receiver, 2, 31 * DAY)
    with transaction.atomic():
        lifecycle.resume(subscription)
        with in_background(giving_up.expire_backlogs, "default") as swept:
            pass
        assert swept.result() == 0
    assert giving_up.expire_backlogs("default") == 0
    assert states() == {"pending": 2}


# Going on


@on_database
@pytest.mark.parametrize(
    ("count", "backlog", "ramp"),
    [(3, "deliver", pacing.RAMP_BEGIN), (0, "deliver", None), (3, "discard", None)],
)
def test_a_backlog_goes_out_at_a_rising_rate(
    receiver: Receiver, count: int, backlog: str, ramp: int | None
) -> None:
    subscription = with_backlog(receiver, count, HOUR)
    lifecycle.resume(subscription, backlog=backlog)
    assert Lane.objects.get().ramp == ramp


@on_database
def test_what_was_discarded_while_suspended_stays_so_and_the_rest_goes_on(
    receiver: Receiver,
) -> None:
    subscription = subscribe(receiver, on_suspend="discard")
    fail_for(subscription, 6 * DAY)
    sweep("default")
    emit_orders(2)
    fan_out_all()
    assert states() == {"discarded": 2}
    lifecycle.resume(Subscription.objects.get(pk=subscription.pk))
    emit_orders(1)
    deliver()
    assert states() == {"discarded": 2, "delivered": 1}
