"""What people change, and ask for, while POSTs are out and deliveries are buffered."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, connections, transaction
from django.utils import timezone

from tests.world import (
    Answer,
    Received,
    Receiver,
    deliver,
    emit_orders,
    fan_out_all,
    in_background,
    states,
    subscribe,
    until,
)
from webhooks import lifecycle, signals
from webhooks.clock import db_now
from webhooks.engine import holdings as holdings_module
from webhooks.engine import lanes as lanes_module
from webhooks.engine.transactions import atomically
from webhooks.engine.worker import work
from webhooks.models import Delivery, Duty, Event, Lane, Replay, Subscription
from webhooks.redelivery import ReplayRequest, redeliver, replay

pytestmark = pytest.mark.django_db(transaction=True)


@contextmanager
def a_worker(seen: Any = None) -> Iterator[None]:
    """A worker in a thread. seen: called with each of its statements."""
    stop = threading.Event()

    def go() -> None:
        with connections["default"].execute_wrapper(seen) if seen else nullcontext():
            work(seconds=None, slots=None, until_idle=False, should_stop=stop.is_set)

    Duty.objects.ensure()
    with in_background(go):
        try:
            yield
        finally:
            stop.set()


def fast(subscription: Subscription) -> None:
    """Its endpoint is known to be fast: much of what is due is read at once."""
    Lane.objects.filter(pk=subscription.pk).update(latency_ms=20)


def failing_at_first(status: int = 500, after: float = 1.0) -> Callable[[Received], Answer]:
    """The first POST fails after a while, all others succeed at once."""
    came: list[str] = []

    def answer(post: Received) -> Answer:
        came.append(post.id)
        return Answer(status=status, after=after) if len(came) == 1 else Answer()

    return answer


def test_what_is_discarded_by_a_quick_suspension_is_not_sent_from_the_buffer(
    receivers: Callable[..., Receiver],
) -> None:
    receiver = receivers(Answer(after=0.1))
    subscription = subscribe(receiver, max_in_flight=2)
    fast(subscription)
    emit_orders(200)
    with a_worker():
        receiver.wait_for(10)
        lifecycle.suspend(subscription)
        lifecycle.resume(subscription, backlog="discard")
        until(lambda: not Lane.objects.filter(discard_before__isnull=False).exists())
        last = emit_orders(1)[0]
        until(lambda: last.pk in receiver.ids)
    discarded = set(Delivery.objects.filter(state="discarded").values_list("event_id", flat=True))
    assert len(discarded) > 100
    assert not discarded & receiver.ids.keys()


def test_a_retry_in_the_buffer_never_has_another_body_under_its_old_id(
    receivers: Callable[..., Receiver],
) -> None:
    receiver = receivers(Answer(status=500))
    subscription = subscribe(receiver, max_in_flight=1, retry_schedule=[1, 1, 1])
    fast(subscription)
    retried = emit_orders(4)
    deliver()
    assert len(receiver.posts) == 4
    now = db_now("default")
    Delivery.objects.update(due_at=now)
    Lane.objects.update(claim_at=now, paused_until=None, failures=0)
    receiver.answer = Answer(after=1.5)
    with a_worker():
        receiver.wait_for(5)  # the others wait in the buffer behind this one
        lifecycle.update(subscription, format="mandrill")
        until(lambda: states() == {"delivered": 4})
    for event in retried:
        assert len(receiver.bodies_of(event.pk)) == 1
    assert len(receiver.ids) > 4  # what came in the new shape came under ids of its own


def test_a_scope_that_is_lost_stops_what_is_buffered(
    receivers: Callable[..., Receiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = receivers(Answer(after=0.1))
    subscription = subscribe(receiver, max_in_flight=2, scopes="all")
    fast(subscription)
    emit_orders(200)
    monkeypatch.setattr("webhooks.access.Entitlements.granted", lambda self, s: {s.scopes})
    monkeypatch.setattr(lanes_module, "sees_type", lambda scopes, name: "all" in scopes)
    with a_worker():
        receiver.wait_for(10)
        lifecycle.update(subscription, scopes="none")
        until(lambda: not Delivery.objects.pending().exists())
    assert states()["cancelled"] > 100
    assert states()["delivered"] == len(receiver.posts)


def test_an_error_while_forbidden_deliveries_are_cancelled_does_not_hold_up_the_lane(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscription = subscribe(receiver, event_types=["*"])
    fast(subscription)
    first = emit_orders(120)[0]
    fan_out_all()
    Event.objects.filter(pk=first.pk).update(type="order.gone")
    monkeypatch.setattr(lanes_module, "sees_type", lambda scopes, name: name != "order.gone")
    failed = []

    def fail_once(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if not failed and "scope_lost" in str(params):
            failed.append(sql)
            raise OperationalError("connection lost")
        return execute(sql, params, many, context)

    with a_worker(fail_once):
        until(lambda: states() == {"delivered": 119, "cancelled": 1})
    assert failed


@pytest.mark.parametrize("status", [410, 503])
@pytest.mark.parametrize("heard", [True, False])
def test_an_answer_of_the_old_url_says_nothing_of_the_new_one(
    receivers: Callable[..., Receiver], status: int, heard: bool
) -> None:
    answer = Answer(status=status, headers={"Retry-After": "86400"}, after=2.0 if heard else 0.5)
    old, new = receivers(answer), receivers()
    subscription = subscribe(old, retry_schedule=[1])
    emit_orders(1)
    with a_worker():
        old.wait_for(1)
        lifecycle.update(subscription, callback_url=new.url)
        new.wait_for(1)
        until(lambda: states() == {"delivered": 1})
    subscription.refresh_from_db()
    assert subscription.status == "subscribed"
    lane = Lane.objects.get()
    assert (lane.paused_until, lane.failures) == (None, 0)


@pytest.mark.parametrize("schedule", [[], [3600]])
@pytest.mark.parametrize("new_id", [False, True])
def test_an_attempt_that_was_out_does_not_end_what_was_asked_for_meanwhile(
    receivers: Callable[..., Receiver], new_id: bool, schedule: list[int]
) -> None:
    told: list[Any] = []

    def hear(**said: Any) -> None:
        told.append(said)

    receiver = receivers(failing_at_first())
    subscribe(receiver, retry_schedule=schedule)
    emit_orders(1)
    signals.delivery_dead.connect(hear)
    try:
        with in_background(deliver):
            receiver.wait_for(1)
            redeliver(Delivery.objects.get(), new_id=new_id)
        deliver()
    finally:
        signals.delivery_dead.disconnect(hear)
    assert states() == {"delivered": 1}
    assert len(receiver.posts) == 2
    assert (len(receiver.ids) == 2) is new_id
    assert told == []


def test_a_suspension_that_cannot_be_written_leaves_the_holder_what_is_stored(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscription = subscribe(receiver)
    emit_orders(1)
    fan_out_all()
    entitled = [None]
    monkeypatch.setattr(
        "webhooks.access.Entitlements.granted",
        lambda self, s: entitled.pop() if entitled else lanes_module.ALL,
    )

    def fail(lost: Subscription) -> None:
        lost.status = "suspended"
        raise OperationalError("connection lost")

    monkeypatch.setattr(holdings_module, "suspend_lost", fail)
    deliver()
    assert states() == {"delivered": 1}
    assert not Lane.objects.get(pk=subscription.pk).held


def test_a_rate_of_nothing_written_past_the_model_is_no_rate(receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    Subscription.objects.filter(pk=subscription.pk).update(rate_limit=0)
    emit_orders(3)
    deliver()
    assert states() == {"delivered": 3}


def test_one_round_ends_one_batch_whatever_is_discarded_or_cancelled(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holdings_module, "END_BATCH", 4)
    monkeypatch.setattr(holdings_module, "END_LANES", 3)
    subscriptions = [subscribe(receiver) for _ in range(8)]
    for subscription in subscriptions:
        lifecycle.suspend(subscription)
    emit_orders(5)
    fan_out_all()
    for subscription in subscriptions[:4]:
        lifecycle.resume(subscription, backlog="discard")
    for subscription in subscriptions[4:]:
        lifecycle.change_status(subscription, "unsubscribed", reason="client")
    ended: list[int] = []
    original = holdings_module.Holdings._end_some

    def count(self: Any, *arguments: Any) -> int:
        ended[-1] += (number := original(self, *arguments))
        return number

    def begin(name: str) -> None:
        work = getattr(holdings_module.Holdings, name)

        def counted(self: Any, *arguments: Any) -> Any:
            ended.append(0)
            return work(self, *arguments)

        monkeypatch.setattr(holdings_module.Holdings, name, counted)

    monkeypatch.setattr(holdings_module.Holdings, "_end_some", count)
    begin("_discard_some")
    begin("_cancel_some")
    deliver()
    assert states() == {"discarded": 20, "cancelled": 20}
    assert max(ended) == 4
    assert receiver.posts == []


@pytest.mark.postgres
def test_a_worker_does_not_wait_for_a_locked_lane_to_note_that_its_backlog_is_discarded(
    receiver: Receiver,
) -> None:
    subscription = subscribe(receiver)
    until_then = timezone.now()
    Lane.objects.update(discard_before=until_then)

    def note() -> bool:
        lanes = Lane.objects
        return atomically("default", lambda: lanes.discarded(subscription.pk, until_then))

    with transaction.atomic():
        Lane.objects.lock([subscription.pk])
        with in_background(note) as noted:
            assert noted.result(10) is False
    assert Lane.objects.get().discard_before == until_then
    assert note()
    assert Lane.objects.get().discard_before is None


def test_one_that_is_asked_for_again_is_not_discarded(receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    lifecycle.suspend(subscription)
    emit_orders(2)
    fan_out_all()
    lifecycle.resume(subscription, backlog="discard")
    asked = redeliver(Delivery.objects.order_by("pk")[0])
    deliver()
    assert states() == {"discarded": 1, "delivered": 1}
    assert set(receiver.ids) == {asked.event_id}


@pytest.mark.postgres
def test_a_failure_that_waits_for_a_locked_lane_does_not_ask_without_end(
    receivers: Callable[..., Receiver],
) -> None:
    receiver = receivers(Answer(status=500, after=0.5))
    subscription = subscribe(receiver)
    emit_orders(1)
    statements = [0]

    def count(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        statements[0] += 1
        return execute(sql, params, many, context)

    with a_worker(count):
        receiver.wait_for(1)
        with transaction.atomic():
            lifecycle.update(subscription, description="slowly")
            time.sleep(1)
            before = statements[0]
            time.sleep(1)
            assert statements[0] - before < 300


def test_everything_in_the_hosts_business_is_no_operational_event_in_a_replay_either(
    receiver: Receiver,
) -> None:
    subscription = subscribe(receiver, event_types=["*"])
    own = emit_orders(1)[0]
    Event.objects.filter(pk=emit_orders(1)[0].pk).update(type="webhooks.delivery.dead")
    deliver()
    Delivery.objects.all().delete()
    receiver.posts.clear()
    now = timezone.now()
    asked = ReplayRequest(start=now - timedelta(hours=1), end=now + timedelta(hours=1))
    assert replay(subscription, asked).total == 1
    deliver()
    assert Replay.objects.get().state == "finished"
    assert set(receiver.ids) == {own.pk}


def test_a_replay_takes_its_time_while_others_are_served(
    receivers: Callable[..., Receiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = receivers(Answer(after=0.02))
    subscription = subscribe(busy, max_in_flight=1)
    fast(subscription)
    emit_orders(50)
    moments: list[float] = []

    def advance(using: str) -> bool:
        moments.append(time.monotonic())
        return len(busy.posts) < 50

    monkeypatch.setattr("webhooks.engine.replays.advance", advance)
    monkeypatch.setattr("webhooks.engine.drain.POLL", 0.3)
    deliver()
    between = [later - former for former, later in itertools.pairwise(moments)]
    assert len(busy.posts) == 50
    assert sum(gap >= 0.3 for gap in between) >= 2
