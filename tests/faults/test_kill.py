"""Workers that are killed, stopped, or not there at all."""

from __future__ import annotations

import io
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import call_command
from django_q.models import OrmQ

from tests.world import Answer, Receiver, emit_orders, states, subscribe, until
from webhooks.models import DeliveryAttempt, Lane, Worker
from webhooks.tasks import sweep

pytestmark = pytest.mark.django_db(transaction=True)

TIMEOUT = 2
#: With the shortest leases that go with this TIMEOUT.
BRISK = {"TIMEOUT": TIMEOUT, "LEASE_SECONDS": 2 * TIMEOUT + 15, "CONCURRENCY": 8}
EVENTS = 60

Start = Callable[..., Any]


@pytest.fixture
def waker(settings: Any) -> None:
    """Wake-ups go to the ORM broker, as in production."""
    settings.WEBHOOKS = {
        **settings.WEBHOOKS,
        **BRISK,
        "WAKER": "webhooks.engine.wake.enqueue_drain",
    }


def all_delivered(count: int) -> Callable[[], bool]:
    return lambda: states() == {"delivered": count}


def install_schedules() -> None:
    call_command("webhooks_schedules", stdout=io.StringIO())


@pytest.mark.parametrize("command", ["webhooks_worker", "qcluster"])
def test_a_worker_killed_in_mid_post_loses_nothing(
    receiver: Receiver, start: Start, command: str, waker: None
) -> None:
    subscribe(receiver)
    subscribe(receiver, "app:b", max_in_flight=2)
    Lane.objects.update(latency_ms=20)
    receiver.answer = lambda post: Answer(after=0.0 if len(receiver.posts) <= 20 else 1.5)
    install_schedules()
    emitted = [e.pk for name in ("app:a", "app:b") for e in emit_orders(EVENTS // 2, name)]
    start(command, settings=BRISK)
    receiver.wait_for(20 + 6, timeout=30)  # six or more are held by the receiver now
    [worker] = Worker.objects.all()
    os.kill(worker.pid, signal.SIGKILL)
    killed = time.monotonic()
    time.sleep(0.3)
    open_posts = len(receiver.posts) - DeliveryAttempt.objects.count()
    assert open_posts >= 6
    assert states()["pending"] >= open_posts
    receiver.answer = Answer()
    if command == "webhooks_worker":
        start(command, settings=BRISK)
    # The cluster's master makes a new process by itself. The task that ran is gone: it is the
    # scheduled sweep that calls for the rest.
    until(lambda: states() == {"delivered": EVENTS}, 60, "the delivery of every event")
    assert time.monotonic() - killed < 55
    assert set(receiver.ids) == set(emitted)
    assert receiver.duplicates <= open_posts
    for webhook_id in emitted:
        assert len(receiver.bodies_of(webhook_id)) == 1
    numbers = DeliveryAttempt.objects.values_list("number", flat=True)
    assert set(numbers) == {1}  # what was never answered was no attempt


def test_what_was_committed_while_everything_was_down_is_delivered_after_it_returns(
    receiver: Receiver, start: Start, waker: None
) -> None:
    """The wake-up is lost with the broker; the next sweep finds the event."""
    subscribe(receiver)
    emitted = [event.pk for event in emit_orders(5)]
    OrmQ.objects.all().delete()
    start("qcluster", settings=BRISK)
    time.sleep(2)
    assert receiver.posts == []
    sweep()
    until(all_delivered(5), 20, "the delivery")
    assert receiver.ids == Counter(emitted)


def test_a_worker_that_starts_finds_what_was_committed_before(
    receiver: Receiver, start: Start
) -> None:
    subscribe(receiver)
    emitted = [event.pk for event in emit_orders(5)]
    start("webhooks_worker", settings=BRISK)
    until(all_delivered(5), 20, "the delivery")
    assert receiver.ids == Counter(emitted)


def test_a_wake_up_alone_brings_an_event_to_its_receiver(
    receiver: Receiver, start: Start, waker: None
) -> None:
    """Without any schedule: emit, broker, cluster, POST."""
    subscribe(receiver)
    start("qcluster", settings=BRISK)
    time.sleep(2)
    emitted = [event.pk for event in emit_orders(1)]
    receiver.wait_for(1, timeout=20)
    assert receiver.ids == Counter(emitted)


def test_sigterm_under_load_loses_and_repeats_nothing(receiver: Receiver, start: Start) -> None:
    receiver.answer = Answer(after=0.3)
    for i in range(6):
        subscribe(receiver, f"app:{i}")
    Lane.objects.update(latency_ms=300)
    emitted = [event.pk for i in range(6) for event in emit_orders(20, f"app:{i}")]
    seen = 0
    for _ in range(2):
        worker = start("webhooks_worker", settings=BRISK)
        receiver.wait_for(seen + 20, timeout=30)
        worker.terminate()
        told = time.monotonic()
        assert worker.wait(TIMEOUT + 10) == 0
        assert time.monotonic() - told < TIMEOUT + 5
        # Every POST that began has ended and is on record; every lane is free.
        assert DeliveryAttempt.objects.count() == len(receiver.posts)
        assert not Lane.objects.filter(token__isnull=False).exists()
        assert not Worker.objects.exists()
        seen = len(receiver.posts)
    assert seen < len(emitted)
    receiver.answer = Answer()
    start("webhooks_worker", settings=BRISK)
    until(all_delivered(len(emitted)), 30, "the rest of the delivery")
    assert receiver.ids == Counter(emitted)


def test_sigterm_with_an_endpoint_that_hangs_still_ends_in_time(
    receiver: Receiver, start: Start
) -> None:
    receiver.answer = Answer(after=60)
    subscribe(receiver)
    emit_orders(3)
    worker = start("webhooks_worker", settings=BRISK)
    receiver.wait_for(1, timeout=30)
    worker.terminate()
    told = time.monotonic()
    assert worker.wait(TIMEOUT + 10) == 0
    assert time.monotonic() - told < TIMEOUT + 5
    assert DeliveryAttempt.objects.filter(error_code="timeout").count() == len(receiver.posts)


def test_a_cluster_that_is_told_to_stop_loses_nothing(
    receiver: Receiver, start: Start, waker: None
) -> None:
    receiver.answer = Answer(after=0.2)
    subscribe(receiver)
    Lane.objects.update(latency_ms=200)
    emitted = [event.pk for event in emit_orders(150)]
    cluster = start("qcluster", settings={**BRISK, "DRAIN_SECONDS": 3})
    receiver.wait_for(30, timeout=30)
    cluster.terminate()
    # (prefetched slices + 1) x (DRAIN_SECONDS + TIMEOUT)
    cluster.wait((2 + 1) * (3 + TIMEOUT) + 10)
    assert DeliveryAttempt.objects.count() == len(receiver.posts)
    receiver.answer = Answer()
    start("webhooks_worker", settings=BRISK)
    until(all_delivered(len(emitted)), 40, "the rest of the delivery")
    assert receiver.ids == Counter(emitted)


def test_a_whole_group_that_is_told_to_stop_loses_and_repeats_nothing(
    receiver: Receiver, start: Start, waker: None
) -> None:
    """As systemd and containers do: every process of the cluster gets the signal."""
    receiver.answer = Answer(after=0.2)
    subscribe(receiver)
    Lane.objects.update(latency_ms=200)
    emitted = [event.pk for event in emit_orders(100)]
    cluster = start("qcluster", settings=BRISK)
    receiver.wait_for(20, timeout=30)
    os.killpg(cluster.pid, signal.SIGTERM)
    # (The master itself may not end: multiprocessing's events do not survive a killed waiter.)
    until(lambda: not Worker.objects.exists(), 10, "the end of the drain")
    assert DeliveryAttempt.objects.count() == len(receiver.posts) < len(emitted)
    assert not Lane.objects.filter(token__isnull=False).exists()
    os.killpg(cluster.pid, signal.SIGKILL)
    receiver.answer = Answer()
    start("webhooks_worker", settings=BRISK)
    until(all_delivered(len(emitted)), 40, "the rest of the delivery")
    assert receiver.ids == Counter(emitted)
