"""When a lane is parked, what is sent meanwhile, and how it recovers."""

from __future__ import annotations

import random
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from tests.engine.lane_factory import due, held_lane
from tests.engine.test_pacing import Post, after, outcome, paced
from tests.simulator.world import Row
from tests.world import (
    Answer,
    Receiver,
    deliver,
    emit_orders,
    end_rests,
    fan_out_all,
    states,
    subscribe,
)
from webhooks import lifecycle, redelivery
from webhooks.clock import db_now
from webhooks.engine.lanes import HeldLane
from webhooks.engine.pacing import FAILURES_IN_A_ROW, LONGEST_WAIT, RAMP_BEGIN
from webhooks.models import Delivery, DeliveryAttempt, Lane

OK, BAD = outcome(200), outcome(500)


def rng() -> random.Random:
    return random.Random(3)


def broken(row: Row) -> Row:
    """Parked, by failures in a row."""
    pacing = paced(row)
    for i in range(FAILURES_IN_A_ROW):
        assert row.parked_since is None
        pacing.failed(Post(after(i)), BAD, after(i), rng())
    return row


def waited(row: Row, at: float) -> float:
    assert row.paused_until is not None
    return (row.paused_until - after(at)).total_seconds()


def test_it_opens_after_five_failures_in_a_row() -> None:
    row = broken(Row())
    assert (row.parked_since, row.pause_reason, row.probes) == (after(4), "parked", 0)
    assert 24 <= waited(row, 4) <= 36


def test_a_success_in_between_keeps_it_closed() -> None:
    row = Row()
    pacing = paced(row)
    for _ in range(2):
        for _ in range(FAILURES_IN_A_ROW - 1):
            pacing.failed(Post(after(0)), BAD, after(0), rng())
        for _ in range(FAILURES_IN_A_ROW - 1):
            pacing.succeeded(Post(after(0)), after(0))
    assert row.parked_since is None  # and half of them are less than 70 %


@pytest.mark.parametrize(("failures", "parked"), [(2, False), (3, True)])
def test_it_opens_when_most_of_enough_recent_attempts_fail(failures: int, parked: bool) -> None:
    row = Row()
    pacing = paced(row)
    for i in range(12):
        if i % (failures + 1) == 0:
            pacing.succeeded(Post(after(i)), after(i))
        else:
            pacing.failed(Post(after(i)), BAD, after(i), rng())
    assert (row.parked_since is not None) is parked
    if parked:
        assert row.recent == 10  # as soon as there were enough of them


def test_what_is_long_ago_counts_half_and_then_nothing() -> None:
    row = Row(recent=8, recent_failed=8, recent_since=after(-301))
    paced(row).failed(Post(after(0)), BAD, after(0), rng())
    assert (row.recent, row.recent_failed) == (5, 5)
    row = Row(recent=8, recent_failed=8, recent_since=after(-601))
    paced(row).failed(Post(after(0)), BAD, after(0), rng())
    assert (row.recent, row.recent_failed) == (1, 1)


def test_refusals_of_what_was_in_flight_together_count_once() -> None:
    row = Row()
    pacing = paced(row)
    for _ in range(60):
        pacing.failed(Post(after(0), in_flight=60), outcome(429), after(1), rng())
    assert (row.parked_since, row.failures) == (None, 1)
    for i in range(2, 6):  # but an endpoint that refuses everything is parked
        pacing.failed(Post(after(i)), outcome(429), after(i + 0.5), rng())
    assert row.parked_since is not None


def test_probes_wait_twice_as_long_each_time_up_to_an_hour() -> None:
    row = broken(Row())
    waits, at = [], waited(row, 0)
    for _ in range(10):
        pacing = paced(row, at=at)
        assert pacing.room(0) == 1
        assert pacing.begin(after(at))
        assert pacing.room(0) == 0
        pacing.failed(Post(after(at), probe=True), BAD, after(at), rng())
        waits.append(waited(row, at))
        at += waits[-1]
    for i, wait in enumerate(waits):
        assert 0.8 <= wait / min(60 * 2**i, LONGEST_WAIT) <= 1.2
    assert row.probes == 10
    assert row.clock_stopped_ms == pytest.approx((at - 4) * 1000, abs=20)


def test_parked_lanes_are_not_probed_together() -> None:
    waits = []
    shared = random.Random(5)
    for _ in range(200):
        row = Row(failures=4)
        paced(row).failed(Post(after(0)), BAD, after(0), shared)
        waits.append(waited(row, 0))
    assert max(waits) - min(waits) > 10
    assert max(Counter(int(wait) for wait in waits).values()) < 50


def test_retry_after_lengthens_the_wait_for_a_probe() -> None:
    row = broken(Row())
    paced(row, at=60).failed(Post(after(60), probe=True), outcome(503, "600"), after(60), rng())
    assert waited(row, 60) == 600
    assert row.clock_stopped_ms >= 600_000
    row = Row(failures=4, paused_until=after(900), pause_reason="retry_after")
    paced(row).failed(Post(after(0)), BAD, after(0), rng())
    assert row.paused_until == after(900)  # what it asked for before stands


def test_only_the_probe_decides() -> None:
    row = broken(Row())
    pacing = paced(row, at=5)
    pacing.succeeded(Post(after(0)), after(5))  # began before the breaker opened
    assert row.parked_since is not None
    pacing.failed(Post(after(0)), BAD, after(6), rng())
    assert row.probes == 0
    pacing.succeeded(Post(after(60), probe=True), after(61))
    assert (row.parked_since, row.failures, row.ramp) == (None, 0, RAMP_BEGIN)
    assert (row.recent, row.recent_failed) == (1, 0)


def test_failures_in_the_ramp_park_it_again() -> None:
    row = broken(Row())
    paced(row, at=60).succeeded(Post(after(60), probe=True), after(60))
    pacing = paced(row, at=60)
    for _ in range(FAILURES_IN_A_ROW):
        pacing.failed(Post(after(60)), BAD, after(61), rng())
    assert (row.parked_since, row.ramp, row.probes) == (after(61), None, 0)


def parked_lane(**options: Any) -> HeldLane:
    lane = held_lane(waiting=0, **options)
    lane.row.parked_since = after(-60)
    return lane


def test_a_probe_is_the_delivery_that_is_due_first_and_the_only_one() -> None:
    lane = parked_lane()
    rows = [due(lane.id, attempts=i) for i in range(3)]
    lane.fill(rows, 3)
    assert lane.may_begin() == 1
    job = lane.begin(after(0), lane.id)  # type: ignore[arg-type]
    assert (job.delivery, job.probe, job.trigger, job.number) == (rows[0], True, "probe", 1)
    assert (lane.leaving, lane.may_begin()) == (True, 0)


@pytest.mark.parametrize("ordered", [False, True])
def test_what_a_person_asked_for_goes_as_the_probe_unless_order_forbids(ordered: bool) -> None:
    lane = parked_lane(ordered=ordered)
    rows = [due(lane.id), due(lane.id, attempts=3, retries_from=3, trigger="manual")]
    lane.fill(rows, 2)
    job = lane.begin(after(0), lane.id)  # type: ignore[arg-type]
    assert job.probe
    assert (job.delivery, job.trigger) == ((rows[0], "probe") if ordered else (rows[1], "manual"))


# On the database, over real HTTP


pytest_db = pytest.mark.django_db(transaction=True)


@pytest_db
def test_a_failed_probe_leaves_its_delivery_as_it_was(receiver: Receiver) -> None:
    receiver.answer = Answer(status=500)
    subscribe(receiver, max_in_flight=1, retry_schedule=[3600])
    emit_orders(8)
    deliver()
    lane = Lane.objects.get()
    assert lane.parked_since is not None
    assert lane.claim_at == lane.paused_until
    assert len(receiver.posts) == FAILURES_IN_A_ROW
    oldest = Delivery.objects.filter(attempts=0).order_by("due_at", "pk").values()[0]
    for probes in (1, 2):
        end_rests()
        deliver()
        assert Delivery.objects.filter(attempts=0).order_by("due_at", "pk").values()[0] == oldest
        assert Lane.objects.get().probes == probes
        attempt = DeliveryAttempt.objects.order_by("-pk")[0]
        assert (attempt.trigger, attempt.number) == ("probe", 1)
        assert attempt.message_id == oldest["event_id"]
    assert len(receiver.posts) == FAILURES_IN_A_ROW + 2


@pytest_db
def test_a_probe_that_succeeds_lets_the_backlog_follow_at_a_ramped_rate(
    receiver: Receiver,
) -> None:
    receiver.answer = Answer(status=500)
    subscribe(receiver, max_in_flight=1, retry_schedule=[3600])
    emit_orders(30)
    deliver()
    receiver.answer = Answer()
    seen = len(receiver.posts)
    steps = []
    for _ in range(5):
        end_rests()
        Lane.objects.update(last_failure_at=db_now("default") - timedelta(seconds=30))
        deliver()
        steps.append(len(receiver.posts) - seen)
        seen = len(receiver.posts)
    # The probe and the first second; then twice as many in each, to the end.
    assert steps == [1 + RAMP_BEGIN, 8, 12, 0, 0]
    lane = Lane.objects.get()
    assert (lane.parked_since, lane.probes, lane.failures) == (None, 0, 0)
    assert states() == {"delivered": 25, "pending": 5}  # those that failed wait for their retry


@pytest_db
def test_nothing_dies_or_expires_while_it_is_parked(receiver: Receiver, settings: Any) -> None:
    settings.WEBHOOKS = {**settings.WEBHOOKS, "MAX_AGE": 600, "RETRY_SCHEDULE": (60, 60)}
    receiver.answer = Answer(status=500)
    subscribe(receiver, max_in_flight=1)
    emit_orders(6)
    deliver()
    a_day_ago = db_now("default") - timedelta(days=1)
    Delivery.objects.update(first_due_at=a_day_ago, due_at=a_day_ago)
    for _ in range(3):
        end_rests()
        deliver()
    assert states() == {"pending": 6}
    assert Delivery.objects.filter(attempts__gt=1).count() == 0
    # The clock stood still for that long: they are not too old afterwards, either.
    Lane.objects.update(clock_stopped_ms=86_400_000)
    probed = len(receiver.posts) + 1
    receiver.answer = lambda post: Answer(status=200 if len(receiver.posts) == probed else 500)
    end_rests()
    deliver()
    assert states() == {"delivered": 1, "pending": 5}
    assert Delivery.objects.filter(attempts=2, state="pending").exists()
    # Without that they would be.
    Lane.objects.update(clock_stopped_ms=0)
    end_rests()
    deliver()
    assert states()["expired"] > 0


@pytest_db
def test_410_to_a_probe_unsubscribes(receiver: Receiver) -> None:
    receiver.answer = Answer(status=500)
    subscription = subscribe(receiver, max_in_flight=1)
    emit_orders(8)
    deliver()
    receiver.answer = Answer(status=410)
    end_rests()
    deliver()
    subscription.refresh_from_db()
    assert subscription.status == "unsubscribed"
    assert states() == {"cancelled": 8}


@pytest_db
def test_a_new_url_is_not_parked(receiver: Receiver, receivers: Any) -> None:
    receiver.answer = Answer(status=500)
    subscription = subscribe(receiver, max_in_flight=1)
    emit_orders(8)
    deliver()
    other = receivers()
    lifecycle.update(subscription, callback_url=other.url)
    deliver()
    assert len(other.posts) == 3  # those that were never tried; the others wait for their time
    assert Lane.objects.get().parked_since is None


@pytest_db
def test_a_redelivery_while_it_is_parked_goes_as_the_probe(receiver: Receiver) -> None:
    subscribe(receiver, max_in_flight=1)
    [event] = emit_orders(1)
    deliver()
    receiver.answer = Answer(status=500)
    emit_orders(8)
    deliver()
    redelivery.redeliver(Delivery.objects.get(event=event))
    end_rests()
    deliver()
    attempt = DeliveryAttempt.objects.order_by("-pk")[0]
    assert (attempt.trigger, attempt.message_id) == ("manual", event.pk)
    again = Delivery.objects.get(event=event)
    assert (again.state, again.trigger, again.attempts) == ("pending", "manual", 1)


@pytest_db
def test_an_ordered_lane_is_probed_with_its_head(receiver: Receiver, settings: Any) -> None:
    settings.WEBHOOKS = {**settings.WEBHOOKS, "RETRY_SCHEDULE": (0.1, 0.1, 0.1, 0.1, 3600)}
    receiver.answer = Answer(status=500)
    subscribe(receiver, ordered=True)
    events = emit_orders(3)
    fan_out_all()
    while Lane.objects.get().parked_since is None:
        end_rests()
        deliver()
    lane = Lane.objects.get()
    assert lane.paused_until is not None
    assert lane.paused_until - db_now("default") < timedelta(seconds=40)  # and not an hour
    receiver.answer = Answer()
    end_rests()
    deliver()
    assert [post.id for post in receiver.posts[-3:]] == [event.pk for event in events]
    assert states() == {"delivered": 3}
