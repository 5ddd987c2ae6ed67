"""Results become rows: attempts, states, lanes and statistics, in one transaction."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection

from tests.world import Receiver, emit_orders, fan_out_all, states, subscribe
from webhooks import signals
from webhooks.clock import Clock, db_now
from webhooks.engine import leases
from webhooks.engine.recorder import Recorder, Result, conclude
from webhooks.models import Delivery, DeliveryAttempt, DeliveryStats, Lane, Subscription
from webhooks.models.lane import LaneQuerySet
from webhooks.models.stats import ACK_COLUMNS, LATENCY_COLUMNS, WHOLE_SERVICE
from webhooks.transports.base import Response

pytestmark = pytest.mark.django_db(transaction=True)

OK = Response(status_code=200, excerpt="ok", elapsed_ms=12)
BAD = Response(status_code=500, excerpt="no", elapsed_ms=12)


class Holder:
    """A worker with one lane, whose answers the test makes up."""

    def __init__(self) -> None:
        self.token = uuid.uuid4()
        self.clock = Clock("default")
        self.recorder = Recorder("default", self.token)
        [self.lane] = leases.claim("default", self.token, limit=1, now=self.clock.now())
        self.read()

    def read(self) -> None:
        found = Delivery.objects.due([self.lane.position(500)], db_now("default"))
        self.lane.fill(found, 500)

    def post(self, *answers: Response) -> list[Result]:
        """Send the next deliveries, and get these answers."""
        jobs = [self.lane.begin(self.clock.now(), self.token) for _ in answers]
        return [
            conclude(self.lane, job, answer, self.clock, random.Random(1))
            for job, answer in zip(jobs, answers, strict=True)
        ]

    def write(self, results: list[Result], release: bool = False) -> set[str]:
        lost = self.recorder.write(results, [self.lane], [self.lane] if release else []).lost
        self.lane.open -= {result.job.delivery.id for result in results}
        return lost


@pytest.fixture
def lane(receiver: Receiver) -> Subscription:
    return subscribe(receiver)


def held(events: int) -> Holder:
    emit_orders(events)
    fan_out_all()
    return Holder()


def lose(holder: Holder) -> Holder:
    """The lease runs out, and another worker takes the lane."""
    past = db_now("default") - timedelta(seconds=1)
    Lane.objects.update(lease_until=past, claim_at=past)
    return Holder()


@contextmanager
def told(*names: str) -> Iterator[list[tuple[str, str]]]:
    """What the host's receivers hear: (signal, delivery id)."""
    heard: list[tuple[str, str]] = []
    receivers = {}
    for name in names:

        def receiver(*, name: str = name, delivery_id: str, **kwargs: Any) -> None:
            heard.append((name, delivery_id))

        receivers[name] = receiver
        getattr(signals, name).connect(receiver)
    yield heard
    for name, receiver in receivers.items():
        getattr(signals, name).disconnect(receiver)


def test_hundreds_of_results_cost_a_handful_of_statements(
    lane: Subscription, django_assert_max_num_queries: Any
) -> None:
    holder = held(400)
    results = holder.post(*[OK] * 300, *[BAD] * 100)
    with django_assert_max_num_queries(12):  # COPY is not counted among them
        holder.write(results, release=True)
    assert states() == {"delivered": 300, "pending": 100}
    assert DeliveryAttempt.objects.count() == 400
    assert Delivery.objects.filter(state="pending", attempts=1).count() == 100


def test_an_attempt_tells_all_about_its_post(lane: Subscription) -> None:
    holder = held(1)
    answer = Response(
        status_code=503, retry_after="3", excerpt="later", truncated=True, elapsed_ms=41.6
    )
    [result] = holder.post(answer)
    holder.write([result], release=True)
    attempt, delivery = DeliveryAttempt.objects.get(), Delivery.objects.get()
    assert attempt.pk.startswith("att_")
    assert (attempt.subscription_id, attempt.message_id) == (lane.pk, delivery.event_id)
    assert (attempt.number, attempt.trigger, attempt.event_count) == (1, "first", 1)
    assert (attempt.status_code, attempt.error_code) == (503, "server_error")
    assert (attempt.excerpt, attempt.truncated, attempt.elapsed_ms) == ("later", True, 42)
    assert attempt.due_at <= attempt.started_at <= db_now("default")
    assert list(DeliveryAttempt.objects.of(delivery)) == [attempt]


def test_a_failure_moves_the_next_try_and_the_lane_with_it(lane: Subscription) -> None:
    holder = held(1)
    [result] = holder.post(BAD)
    holder.write([result], release=True)
    delivery, row = Delivery.objects.get(), Lane.objects.get()
    assert (delivery.state, delivery.attempts) == ("pending", 1)
    assert delivery.due_at == result.decision.due_at == row.claim_at
    assert delivery.first_due_at < delivery.due_at
    assert (row.failures, row.token) == (1, None)
    assert row.failing_since is not None


def test_an_acknowledgement_counts_although_the_lease_was_lost(lane: Subscription) -> None:
    late = held(1)
    results = late.post(OK)
    other = lose(late)
    late.write(results, release=True)
    assert states() == {"delivered": 1}
    assert DeliveryAttempt.objects.count() == 1
    assert Lane.objects.get().token == other.token  # the lane is left to its holder
    other.write([], release=True)


def test_a_failure_changes_nothing_when_the_lease_was_lost(lane: Subscription) -> None:
    late = held(2)
    results = late.post(BAD, Response(status_code=410))
    other = lose(late)
    before = list(Delivery.objects.order_by("pk").values())
    row = Lane.objects.values().get()
    with told("delivery_failed", "delivery_dead") as heard:
        assert late.write(results, release=True) == {lane.pk}
    assert list(Delivery.objects.order_by("pk").values()) == before
    assert Lane.objects.values().get() == row
    assert DeliveryAttempt.objects.count() == 2  # but the POSTs are on record
    assert heard == []  # what was not applied did not happen
    other.write([], release=True)


def test_the_first_end_of_a_delivery_stands(lane: Subscription) -> None:
    late = held(2)
    results = late.post(OK, OK)
    other = lose(late)
    other.write(other.post(OK, Response(status_code=410)), release=True)
    settled = list(Delivery.objects.order_by("pk").values())
    assert [each["state"] for each in settled] == ["delivered", "cancelled"]
    late.write(results, release=True)
    assert list(Delivery.objects.order_by("pk").values()) == settled
    assert DeliveryAttempt.objects.count() == 4


def test_a_late_failure_never_takes_a_delivery_back(lane: Subscription) -> None:
    late = held(1)
    results = late.post(BAD)
    other = lose(late)
    other.write(other.post(OK), release=True)
    late.write(results, release=True)
    assert states() == {"delivered": 1}


def test_results_that_could_not_be_written_are_written_once_later(
    lane: Subscription, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = held(3)
    results = holder.post(OK, BAD, OK)

    def fail(*args: Any, **options: Any) -> None:
        raise RuntimeError("as if the process had been interrupted")

    with monkeypatch.context() as patch:
        patch.setattr(LaneQuerySet, "let_go", fail)  # the last step: all else is undone
        with pytest.raises(RuntimeError):
            holder.write(results, release=True)
    assert states() == {"pending": 3}
    assert not DeliveryAttempt.objects.exists()
    assert not DeliveryStats.objects.exists()
    holder.write(results, release=True)
    assert states() == {"delivered": 2, "pending": 1}
    assert DeliveryAttempt.objects.count() == 3


@pytest.mark.parametrize(
    "excerpt",
    [
        "nul \0 in the middle",
        "lone surrogate \ud800",
        "replacement \ufffd",
        "\x01\x02\x1b[31m\r\n\t\\N \\. '\"%s {}",
        "𝄞 emoji 🎉 \u202e",
        "x" * 4096,
        "",
    ],
)
def test_whatever_a_receiver_says_can_be_stored(lane: Subscription, excerpt: str) -> None:
    holder = held(1)
    answer = Response(status_code=500, excerpt=excerpt, error_detail=excerpt, elapsed_ms=1)
    holder.write(holder.post(answer), release=True)
    stored = DeliveryAttempt.objects.get()
    kept = excerpt.replace("\0", "").replace("\ud800", "")
    assert stored.excerpt.replace("?", "").replace("\ufffd", "") == kept.replace("\ufffd", "")
    assert len(stored.error_detail) <= 200


def test_a_success_clears_the_lanes_failures(lane: Subscription) -> None:
    holder = held(3)
    holder.write(holder.post(BAD, BAD))
    assert Lane.objects.get().failures == 2
    holder.write(holder.post(OK), release=True)
    row = Lane.objects.get()
    assert (row.failures, row.failing_since) == (0, None)
    assert row.last_failure_at is not None
    assert row.last_success_at is not None


def test_retry_after_pauses_the_lane_for_whoever_holds_it_next(lane: Subscription) -> None:
    holder = held(5)
    results = holder.post(Response(status_code=429, retry_after="60"))
    assert not holder.lane.can_start  # nothing more is begun here
    holder.write(results, release=True)
    row = Lane.objects.get()
    assert row.paused_until is not None
    wait = row.paused_until - db_now("default")
    assert timedelta(seconds=58) < wait <= timedelta(seconds=60)
    assert (row.claim_at, row.pause_reason) == (row.paused_until, "retry_after")


def test_the_statistics_equal_the_attempts(lane: Subscription) -> None:
    holder = held(12)
    holder.write(holder.post(OK, OK, BAD, Response(error_code="timeout", elapsed_ms=9999)))
    holder.write(holder.post(*[OK] * 3, Response(status_code=410), *[BAD] * 4), release=True)
    for whose in (lane.pk, WHOLE_SERVICE):
        rows = list(DeliveryStats.objects.filter(subscription_id=whose))
        by_code = {row.code: row.attempts for row in rows}
        assert by_code == {"": 5, "server_error": 5, "timeout": 1, "gone": 1}
        assert sum(row.attempts for row in rows) == DeliveryAttempt.objects.count()
        assert sum(row.delivered for row in rows) == states()["delivered"] == 5
        assert sum(row.first_try for row in rows) == 5
        for row in rows:
            assert sum(getattr(row, name) for name in LATENCY_COLUMNS) == row.attempts
            assert sum(getattr(row, name) for name in ACK_COLUMNS) == row.delivered
    slow = DeliveryStats.objects.get(subscription_id=WHOLE_SERVICE, code="timeout")
    assert slow.latency_10 == 1  # 5 to 10 s


def test_statistics_add_up_over_flushes(lane: Subscription) -> None:
    holder = held(20)
    for _ in range(10):
        holder.write(holder.post(OK, OK))
    holder.write([], release=True)
    rows = DeliveryStats.objects.filter(subscription_id=lane.pk)
    assert sum(row.attempts for row in rows) == 20
    assert rows.count() <= 2  # one, or two where a bucket ended meanwhile


def test_the_host_is_told_what_was_written(lane: Subscription) -> None:
    holder = held(3)
    results = holder.post(OK, BAD, Response(status_code=410))
    ids = [result.job.delivery.id for result in results]
    with told("delivery_succeeded", "delivery_failed", "delivery_dead") as heard:
        holder.write(results, release=True)
    assert heard == [
        ("delivery_succeeded", ids[0]),
        ("delivery_failed", ids[1]),
        ("delivery_dead", ids[2]),
    ]


def test_a_receiver_of_signals_that_raises_stops_nothing(lane: Subscription) -> None:
    def explode(**kwargs: Any) -> None:
        raise ValueError("in the host's code")

    signals.delivery_succeeded.connect(explode)
    try:
        holder = held(1)
        holder.write(holder.post(OK), release=True)
    finally:
        signals.delivery_succeeded.disconnect(explode)
    assert states() == {"delivered": 1}


@pytest.mark.postgres
def test_what_copy_raises_is_an_error_of_djangos(lane: Subscription) -> None:
    """Else nobody would catch it: neither the retry of a deadlock nor the drain."""
    from django.db import DatabaseError

    holder = held(1)
    results = holder.post(OK)
    with connection.cursor() as cursor:
        cursor.execute(
            "ALTER TABLE webhooks_deliveryattempt ADD CONSTRAINT refuse CHECK (status_code <> 200)"
        )
    try:
        with pytest.raises(DatabaseError):
            holder.write(results, release=True)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE webhooks_deliveryattempt DROP CONSTRAINT refuse")
    holder.write(results, release=True)
    assert DeliveryAttempt.objects.count() == 1
