"""A worker takes a slot, shows that it lives, and leaves when it should."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from datetime import timedelta
from typing import Any

import pytest

from tests.world import (
    Answer,
    Receiver,
    deliver,
    emit_orders,
    in_background,
    start,
    states,
    subscribe,
    until,
)
from webhooks.clock import db_now
from webhooks.engine.worker import Stop, stopping_on, transport, work
from webhooks.models import Delivery, DeliveryAttempt, Duty, Lane, Worker
from webhooks.tasks import drain

pytestmark = pytest.mark.django_db(transaction=True)


def take(slots: int | None = None) -> Worker | None:
    return Worker.objects.take_slot(uuid.uuid4(), slots)


def occupy(slot: int, *, seconds_ago: float = 0, host: str = "elsewhere", pid: int = 1) -> Worker:
    heard = db_now("default") - timedelta(seconds=seconds_ago)
    return Worker.objects.create(
        slot=slot, token=uuid.uuid4(), host=host, pid=pid, started_at=heard, heartbeat_at=heard
    )


@pytest.mark.parametrize(
    ("path", "given", "expected"),
    [
        ("webhooks.transports.requests.RequestsTransport", None, 32),
        ("webhooks.transports.curl.CurlTransport", None, 128),
        ("webhooks.transports.curl.CurlTransport", 7, 7),
    ],
)
def test_a_worker_has_as_many_in_flight_as_is_set_or_as_its_transport_is_made_for(
    settings: Any, path: str, given: int | None, expected: int
) -> None:
    if "curl" in path:
        pytest.importorskip("pycurl")
    settings.WEBHOOKS = settings.WEBHOOKS | {"TRANSPORT": path, "CONCURRENCY": given}
    assert transport().concurrency == expected


def test_workers_take_slots_until_none_is_free() -> None:
    taken = [take(3) for _ in range(4)]
    assert [worker.slot for worker in taken if worker] == [0, 1, 2]
    assert taken[3] is None


def test_a_slot_that_was_freed_is_taken_again() -> None:
    take(3)
    second = take(3)
    assert second is not None
    take(3)
    second.delete()
    again = take(3)
    assert again is not None
    assert again.slot == 1


def test_workers_that_an_operator_starts_have_no_limit() -> None:
    assert [worker.slot for _ in range(6) if (worker := take(None))] == list(range(6))


def test_a_worker_that_fell_silent_loses_its_slot() -> None:
    silent, alive = occupy(0, seconds_ago=31), occupy(1, seconds_ago=20)
    worker = take(2)
    assert worker is not None
    assert worker.slot == 0
    assert not Worker.objects.filter(pk=silent.pk).exists()
    assert Worker.objects.filter(pk=alive.pk).exists()
    assert take(2) is None


def test_a_dead_process_of_this_machine_loses_its_slot_at_once() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    here = socket.gethostname()[:255]
    occupy(0, host=here, pid=gone.pid)
    occupy(1, host=here, pid=os.getppid())
    occupy(2, host="elsewhere", pid=gone.pid)
    worker = take(3)
    assert worker is not None
    assert worker.slot == 0
    assert take(3) is None


def test_a_drain_without_a_free_slot_returns_at_once(receiver: Receiver, settings: Any) -> None:
    settings.WEBHOOKS = {**settings.WEBHOOKS, "WORKERS": 2}
    occupy(0)
    occupy(1)
    subscribe(receiver)
    emit_orders(1)
    began = time.monotonic()
    drain()
    assert time.monotonic() - began < 0.5
    assert receiver.posts == []


def test_an_idle_drain_lingers_for_a_second_and_frees_its_slot() -> None:
    began = time.monotonic()
    drain()
    assert 1.0 <= time.monotonic() - began < 2.0
    assert not Worker.objects.exists()


def test_a_worker_at_work_shows_that_it_lives(receiver: Receiver) -> None:
    receiver.answer = Answer(after=2.5)
    subscribe(receiver)
    emit_orders(2)
    with in_background(deliver):
        receiver.wait_for(2)
        first = Worker.objects.get()
        until(lambda: Worker.objects.get().in_flight == 2, 3, "the count of POSTs in flight")
        later = Worker.objects.get()
    assert later.heartbeat_at > first.heartbeat_at
    assert (later.lanes, later.pid, later.host) == (1, os.getpid(), socket.gethostname()[:255])


def test_until_idle_leaves_what_is_due_later(receiver: Receiver) -> None:
    receiver.answer = Answer(status=500)
    subscribe(receiver)
    emit_orders(3)
    began = time.monotonic()
    deliver()
    assert time.monotonic() - began < 2
    assert states() == {"pending": 3}
    lane = Lane.objects.get()
    assert lane.token is None
    assert lane.claim_at == Delivery.objects.order_by("due_at")[0].due_at


def test_until_idle_on_an_empty_database_returns_at_once() -> None:
    began = time.monotonic()
    deliver()
    assert time.monotonic() - began < 1


def test_told_to_stop_it_ends_what_it_began_and_nothing_more(receiver: Receiver) -> None:
    receiver.answer = Answer(after=0.5)
    subscribe(receiver)
    emit_orders(50)
    told = False

    def run() -> None:
        Duty.objects.ensure()
        work(seconds=None, slots=None, should_stop=lambda: told)

    with in_background(run):
        receiver.wait_for(4)
        told = True
    open_posts = len(receiver.posts)
    assert DeliveryAttempt.objects.count() == open_posts == states()["delivered"]
    assert states()["pending"] == 50 - open_posts
    assert Lane.objects.get().token is None  # the lane is free for the next one
    assert not Worker.objects.exists()


def test_a_signal_stops_and_the_handler_that_stood_before_comes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stopping_on(signal.SIGTERM) as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGTERM)
        until(stop, 2, "the signal")
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_worker_of_a_cluster_stops_when_its_parent_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stop, own_master = Stop(with_parent=True), Stop(with_parent=False)
    assert not stop()
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert stop()
    assert not own_master()


def test_the_command_delivers_until_idle_and_exits(receiver: Receiver) -> None:
    subscribe(receiver)
    emit_orders(20)
    process = start("webhooks_worker", "--until-idle")
    assert process.wait(30) == 0
    assert states() == {"delivered": 20}
    assert not Worker.objects.exists()


def test_the_command_stops_on_sigterm_with_exit_code_0(receiver: Receiver) -> None:
    subscribe(receiver)
    process = start("webhooks_worker")
    try:
        until(Worker.objects.exists, 30, "the worker's start")
        [event] = emit_orders(1)
        receiver.wait_for(1)
        assert receiver.posts[0].id == event.pk
        until(lambda: states()["delivered"] == 1, 5, "the record")
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
    assert not Worker.objects.exists()
