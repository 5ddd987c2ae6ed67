"""Acknowledgements are written by a second thread, while the drain goes on: none is lost by it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from django.db import DatabaseError, OperationalError

from tests.world import Receiver, deliver, emit_orders, states, subscribe
from webhooks import signals
from webhooks.engine import flushing, recorder
from webhooks.engine.flushing import Flusher
from webhooks.engine.recorder import Recorder
from webhooks.engine.transactions import atomically
from webhooks.engine.writer import Writer
from webhooks.models import Delivery, DeliveryAttempt, Lane

pytestmark = pytest.mark.django_db(transaction=True)

ORDERS = 400


@pytest.fixture
def backlog(receiver: Receiver, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.WEBHOOKS = {**settings.WEBHOOKS, "CONCURRENCY": 8, "FLUSH_MAX": 40}
    monkeypatch.setattr(flushing, "MANY", 10)
    subscribe(receiver)
    Lane.objects.update(latency_ms=20)
    emit_orders(ORDERS)


@pytest.fixture
def aside(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many acknowledgements the second thread was given each time."""
    given: list[int] = []
    plain = Writer.begin

    def begin(writer: Writer, acknowledged: Sequence[Any]) -> None:
        given.append(len(acknowledged))
        plain(writer, acknowledged)

    monkeypatch.setattr(Writer, "begin", begin)
    return given


def all_arrived_once(receiver: Receiver) -> None:
    assert states() == {"delivered": ORDERS}
    assert len(receiver.ids) == ORDERS
    assert receiver.duplicates == 0
    assert DeliveryAttempt.objects.count() == ORDERS
    assert not Lane.objects.exclude(token=None).exists()


def fail_aside(monkeypatch: pytest.MonkeyPatch, error: Exception, times: int) -> list[str]:
    """Let the second thread's transactions fail ``times`` times, after they were written."""
    failed: list[str] = []
    plain = Recorder._write

    def write(recorder: Recorder, *arguments: Any) -> Any:
        written = plain(recorder, *arguments)
        if threading.current_thread().name == "webhooks-writer" and len(failed) < times:
            failed.append(threading.current_thread().name)
            raise error
        return written

    monkeypatch.setattr(Recorder, "_write", write)
    return failed


@pytest.mark.postgres
@pytest.mark.usefixtures("backlog")
def test_many_acknowledgements_are_written_beside_the_drain(
    receiver: Receiver, aside: list[int]
) -> None:
    deliver()
    assert len(aside) > 3
    assert min(aside) >= 10
    all_arrived_once(receiver)
    assert not [each for each in threading.enumerate() if each.name == "webhooks-writer"]


@pytest.mark.postgres
@pytest.mark.usefixtures("backlog", "aside")
def test_the_host_is_told_in_the_drains_own_thread(receiver: Receiver) -> None:
    heard: list[tuple[str, threading.Thread]] = []

    def hear(sender: Any, delivery_id: str, **said: Any) -> None:
        heard.append((delivery_id, threading.current_thread()))

    signals.delivery_succeeded.connect(hear)
    try:
        deliver()
    finally:
        signals.delivery_succeeded.disconnect(hear)
    assert {thread for _, thread in heard} == {threading.current_thread()}
    assert sorted(each for each, _ in heard) == sorted(
        Delivery.objects.values_list("pk", flat=True)
    )


@pytest.mark.postgres
@pytest.mark.usefixtures("backlog")
@pytest.mark.parametrize(
    "error", [OperationalError("the server is gone"), DatabaseError("it does not like a row")]
)
def test_what_the_second_thread_could_not_write_is_written_by_the_drain(
    receiver: Receiver,
    aside: list[int],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    # An OperationalError is tried again at once, for a while.
    monkeypatch.setattr(recorder, "atomically", partial(atomically, patience=0.0))
    failed = fail_aside(monkeypatch, error, times=3)
    deliver()
    assert len(failed) == 3
    assert aside
    all_arrived_once(receiver)


@pytest.mark.postgres
@pytest.mark.usefixtures("backlog")
def test_a_defect_in_the_second_thread_ends_the_drain_and_loses_nothing(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_aside(monkeypatch, RuntimeError("a defect"), times=1)
    with pytest.raises(RuntimeError, match="a defect"):
        deliver()
    assert DeliveryAttempt.objects.count() == len(receiver.posts)
    deliver()
    all_arrived_once(receiver)


@pytest.mark.postgres
@pytest.mark.usefixtures("backlog")
def test_what_the_second_thread_holds_counts_as_unwritten(
    receiver: Receiver, aside: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 0
    plain = Flusher.flush

    def watch(flusher: Flusher, **named: Any) -> None:
        nonlocal most
        lanes = flusher._holdings.lanes.values()
        open_ = sum(len(lane.open) for lane in lanes)
        in_flight = sum(lane.in_flight for lane in lanes)
        assert open_ == in_flight + flusher.unwritten
        most = max(most, open_)
        plain(flusher, **named)

    monkeypatch.setattr(Flusher, "flush", watch)
    deliver()
    assert aside
    assert 8 < most <= 8 + 40


@pytest.mark.usefixtures("backlog")
def test_sqlite_has_one_writer(receiver: Receiver, aside: list[int]) -> None:
    from django.db import connection

    if connection.vendor != "sqlite":
        pytest.skip("there a second thread writes")
    deliver()
    assert aside == []
    all_arrived_once(receiver)
