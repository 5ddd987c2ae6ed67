"""What one subscription, or one careless caller, cannot do to the others."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections, transaction

from tests.world import (
    Answer,
    Receiver,
    deliver,
    emit_orders,
    fan_out_all,
    states,
    subscribe,
    until,
)
from webhooks import emit
from webhooks.clock import Clock, db_now
from webhooks.engine.drain import Drain
from webhooks.engine.holdings import Holdings
from webhooks.engine.housekeeping import repair
from webhooks.engine.worker import transport, work
from webhooks.lifecycle import change_status, rotate_secret, update
from webhooks.models import Delivery, Lane, Subscription, Worker
from webhooks.models.delivery import LanePosition
from webhooks.tasks import drain

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.postgres
def test_a_slow_transaction_that_changed_one_subscription_stops_nobody_else(
    receiver: Receiver, receivers: Any
) -> None:
    other = receivers()
    held_up = subscribe(receiver, "app:a")
    subscribe(other, "app:b")
    locked, done = threading.Event(), threading.Event()

    def slow_request() -> None:
        try:
            with transaction.atomic():
                update(held_up, description="changed")
                locked.set()
                done.wait(20)
        finally:
            connections.close_all()

    request = threading.Thread(target=slow_request)
    request.start()
    assert locked.wait(10)
    stop = threading.Event()

    def worker() -> None:
        try:
            work(seconds=None, slots=None, should_stop=stop.is_set)
        finally:
            connections.close_all()

    working = threading.Thread(target=worker)
    working.start()
    try:
        emit_orders(1, "app:a")
        emit_orders(5, "app:b")
        other.wait_for(5, timeout=5)
        assert receiver.posts == []
        done.set()
        receiver.wait_for(1, timeout=10)
    finally:
        done.set()
        stop.set()
        working.join(20)
        request.join(20)
    assert states() == {"delivered": 6}


def test_a_lane_that_was_lost_and_claimed_again_is_read_anew(receiver: Receiver) -> None:
    subscribe(receiver)
    emit_orders(20)
    fan_out_all()
    stopped = Holdings("default", uuid.uuid4(), Clock("default"), 16)
    stopped.claim(fast_only=False)
    stopped.refill()
    assert sum(len(lane.buffer) for lane in stopped.lanes.values()) > 0
    past = db_now("default") - timedelta(seconds=1)
    Lane.objects.update(lease_until=past, claim_at=past)
    deliver()
    assert len(receiver.posts) == 20
    emit_orders(1)
    fan_out_all()
    stopped.claim(fast_only=False)
    stopped.refill()
    buffered = [each.id for lane in stopped.lanes.values() for each in lane.buffer]
    assert buffered == list(Delivery.objects.pending().values_list("pk", flat=True))
    Lane.objects.update(token=None, lease_until=None, claim_at=past)


def test_a_second_drain_in_one_process_leaves_at_once(receiver: Receiver) -> None:
    receiver.answer = Answer(after=0.5)
    subscribe(receiver)
    emit_orders(4)

    def first() -> None:
        try:
            deliver()
        finally:
            connections.close_all()

    thread = threading.Thread(target=first)
    thread.start()
    receiver.wait_for(1)
    began = time.monotonic()
    deliver()
    assert time.monotonic() - began < 0.4
    thread.join(20)
    assert states() == {"delivered": 4}
    assert receiver.duplicates == 0


def test_a_drain_in_a_transaction_sends_nothing(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    subscribe(receiver)
    with caplog.at_level(logging.ERROR, "webhooks"), transaction.atomic():
        emit("order.paid", {"order": 1}, requester="app:a")
        drain()
        transaction.set_rollback(True)
    assert receiver.posts == []
    assert "A drain in a transaction would send what may be rolled back" in caplog.text


def test_who_unsubscribes_in_mid_post_leaves_nothing_pending(receiver: Receiver) -> None:
    receiver.answer = Answer(status=500, after=0.3)
    subscription = subscribe(receiver, retry_schedule=[3600])
    emit_orders(3)
    thread = threading.Thread(target=lambda: (deliver(), connections.close_all()))
    thread.start()
    receiver.wait_for(1)
    change_status(subscription, "unsubscribed", reason="client")
    thread.join(20)
    deliver()
    assert set(states()) == {"cancelled"}


def test_a_status_that_was_written_past_the_life_cycle_makes_no_busy_loop(
    receiver: Receiver,
) -> None:
    for i in range(3):
        subscribe(receiver, f"app:{i}")
        emit_orders(1, f"app:{i}")
    fan_out_all()
    Subscription.objects.update(status="suspended")
    deliver()
    assert receiver.posts == []
    assert not Lane.objects.filter(claim_at__isnull=False).exists()
    Subscription.objects.update(status="subscribed")
    assert repair("default") == 3
    deliver()
    assert states() == {"delivered": 3}


def test_a_subscription_that_was_written_past_subscribe_can_be_given_a_secret(
    receiver: Receiver,
) -> None:
    subscription = Subscription.objects.create(
        requester="app:a", callback_url=receiver.url, event_types=["*"], status="subscribed"
    )
    rotate_secret(subscription)
    emit_orders(1)
    deliver()
    assert states() == {"delivered": 1}


def test_a_new_url_does_not_wait_for_the_old_one(receiver: Receiver, receivers: Any) -> None:
    mended = receivers()
    receiver.answer = Answer(status=503, headers={"Retry-After": "3600"})
    subscription = subscribe(receiver)
    emit_orders(1)
    deliver()
    assert Lane.objects.get().pause_reason == "retry_after"
    emit_orders(1)
    update(subscription, callback_url=mended.url)
    deliver()
    assert len(mended.posts) == 1


def test_six_hundred_lanes_are_read_at_once(receiver: Receiver) -> None:
    for i in range(20):
        subscribe(receiver, f"app:{i}")
    emit_orders(1, "app:0")
    fan_out_all()
    ids = list(Subscription.objects.values_list("pk", flat=True))
    positions = [LanePosition(pk, 2) for pk in ids * 30]
    due = Delivery.objects.due(positions, db_now("default"))
    assert {each.subscription_id for each in due} == {
        Subscription.objects.get(requester="app:0").pk
    }


def test_a_worker_that_was_taken_for_dead_shows_itself_again() -> None:
    token = uuid.uuid4()
    worker = Worker.objects.take_slot(token, None)
    assert worker is not None
    living = Drain("default", transport(), worker=worker, seconds=None)
    Worker.objects.all().delete()
    living.keep()
    until(lambda: Worker.objects.filter(token=token).exists(), 1, "the row")
