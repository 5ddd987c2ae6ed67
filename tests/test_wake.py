"""Waking a worker: few tasks for many events, and never a burden for who emits."""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection, transaction
from django_q.brokers.orm import ORM
from django_q.conf import Conf
from django_q.models import OrmQ
from django_q.signing import SignedPackage
from django_q.tasks import async_task

from webhooks import emit, emit_many
from webhooks.conf import settings as ours
from webhooks.engine import wake as waking
from webhooks.models import Event

WHOM = "app:shop"


def say(n: int = 1) -> None:
    for _ in range(n):
        emit("order.paid", {}, requester=WHOM)


@pytest.fixture(autouse=True)
def _brokers_of_this_test() -> Iterator[None]:
    waking._broker.cache_clear()
    yield
    waking._broker.cache_clear()


@pytest.fixture
def waker(settings: Any) -> Callable[..., None]:
    """Wakes for real, or with the callable of this path."""

    def use(path: str | None = "webhooks.engine.wake.enqueue_drain", **keys: Any) -> None:
        settings.WEBHOOKS = {**settings.WEBHOOKS, "WAKER": path, **keys}

    return use


@pytest.fixture
def orm_broker(waker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Conf, "ORM", "default")
    waker()


@pytest.fixture
def redis_broker(waker: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a Redis broker at this address."""

    def use(host: str, port: int, db: int = 9, **keys: Any) -> None:
        monkeypatch.setattr(Conf, "ORM", None)
        monkeypatch.setattr(Conf, "REDIS", {"host": host, "port": port, "db": db})
        waker(**keys)

    return use


calls: list[float] = []
answers: list[Exception] = []


def note() -> None:
    """A waker: notes the call, and fails while ``answers`` has errors."""
    calls.append(time.monotonic())
    if answers:
        raise answers.pop(0)


@pytest.fixture
def noting(waker: Any) -> Iterator[list[float]]:
    waker(f"{__name__}.note")
    calls.clear()
    answers.clear()
    yield calls
    answers.clear()


# Coalescing


@pytest.mark.django_db(transaction=True)
def test_ten_thousand_events_are_at_most_fifty_tasks(orm_broker: None) -> None:
    began = time.monotonic()
    with transaction.atomic():
        say(2000)
    for _ in range(200):
        with transaction.atomic():
            say(30)
    say(2000)  # each in a transaction of its own: the worst case
    took = time.monotonic() - began
    assert Event.objects.count() == 10_000
    assert 1 <= OrmQ.objects.count() <= 50, f"in {took:.1f} s"


@pytest.mark.django_db(transaction=True)
def test_many_at_once_are_one_task(orm_broker: None) -> None:
    emit_many("order.paid", [{"data": {}, "requester": WHOM}] * 1000)
    assert OrmQ.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_worker_is_called_again_when_the_quiet_is_over(noting: list[float]) -> None:
    say(20)
    assert len(noting) == 1
    time.sleep(waking.QUIET[0] + 0.05)
    say(20)
    assert len(noting) == 2


def test_the_quiet_grows_and_stays_shorter_than_a_drain_lingers() -> None:
    assert sorted(waking.QUIET) == list(waking.QUIET)
    assert waking.QUIET[0] == 0.25
    assert waking.QUIET[-1] < waking.LINGER


def test_the_quiet_grows_while_calls_follow_one_another(
    noting: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for _ in range(2000):  # 20 s of steady events
        waking.wake()
        now[0] += 0.01
    gaps = [b - a for a, b in itertools.pairwise(noting)]
    assert gaps[0] == pytest.approx(0.25, abs=0.02)
    assert gaps[1] == pytest.approx(0.5, abs=0.02)
    assert gaps[-1] == pytest.approx(0.9, abs=0.02)
    assert len(noting) <= 25
    now[0] += 60
    waking.wake()
    now[0] += 0.26
    waking.wake()
    assert noting[-1] - noting[-2] == pytest.approx(0.26)  # after a rest it is short again


def test_it_keeps_quiet_only_after_a_call_that_succeeded(noting: list[float]) -> None:
    answers.extend([RuntimeError("no"), RuntimeError("no")])
    waking.wake()
    waking.wake()
    assert len(noting) == 2  # each failed at once, so the next one tries again
    waking.wake()
    waking.wake()
    waking.wake()
    assert len(noting) == 3


def test_a_drain_that_hands_on_is_never_suppressed(noting: list[float]) -> None:
    waking.wake()
    waking.wake(force=True)
    waking.wake(force=True)
    assert len(noting) == 3


def test_threads_that_emit_at_once_call_few_times(noting: list[float]) -> None:
    barrier = threading.Barrier(16)

    def go() -> None:
        barrier.wait()
        for _ in range(50):
            waking.wake()

    threads = [threading.Thread(target=go) for _ in range(16)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert 1 <= len(noting) <= 16


@pytest.mark.django_db(transaction=True)
def test_without_a_waker_nobody_is_called(waker: Any) -> None:
    waker(None)
    say(3)
    assert not OrmQ.objects.exists()


# The task


def task_of(row: OrmQ) -> dict[str, Any]:
    return SignedPackage.loads(row.payload)


@pytest.mark.django_db(transaction=True)
def test_the_task_carries_no_data_and_the_options_that_keep_it_harmless(orm_broker: None) -> None:
    say()
    [row] = OrmQ.objects.all()
    task = task_of(row)
    assert task["func"] == "webhooks.tasks.drain"
    assert (task["args"], task["kwargs"]) == ((), {})
    assert task["ack_failure"] is True  # else it is handed out again for ever
    assert task["save"] is False
    assert task["timeout"] == waking.task_timeout()
    assert task["timeout"] > ours.DRAIN_SECONDS + ours.TIMEOUT


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["drain", "sweep", "prune"])
def test_our_tasks_have_these_options_whoever_enqueues_them(orm_broker: None, name: str) -> None:
    async_task(f"webhooks.tasks.{name}")
    task = task_of(OrmQ.objects.get())
    assert (task["ack_failure"], task["save"]) == (True, False)
    assert task["timeout"] == waking.task_timeout()


@pytest.mark.django_db
def test_the_tasks_of_the_host_keep_theirs(
    orm_broker: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Conf, "ACK_FAILURES", False)
    async_task("math.floor", 1.5)
    task = task_of(OrmQ.objects.get())
    assert not {"ack_failure", "save", "timeout"} & set(task)


@pytest.mark.django_db(transaction=True)
def test_the_task_goes_to_the_queue_of_the_configured_cluster(orm_broker: None, waker: Any) -> None:
    waker(CLUSTER="webhooks")
    say()
    waking.quiet.reset()
    waker(CLUSTER=None)
    say()
    assert set(OrmQ.objects.values_list("key", flat=True)) == {"webhooks", Conf.CLUSTER_NAME}


# The caller's connection


@pytest.fixture
def short_lived(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The connection of a request that is to be closed at its end: CONN_MAX_AGE = 0."""
    monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", 0)
    connection.close()
    connection.ensure_connection()
    return connection.connection


def test_the_callers_connection_is_not_closed_under_it(orm_broker: None, short_lived: Any) -> None:
    waking._broker(os.getpid(), None)
    connection.ensure_connection()
    before = connection.connection
    say()
    with transaction.atomic():
        waking.quiet.reset()
        say()
    assert OrmQ.objects.count() == 2
    assert connection.connection is before

    ORM.get_connection()  # what django-q2 does before each task
    assert connection.connection is None


def test_not_even_by_the_first_call_of_a_process(orm_broker: None, short_lived: Any) -> None:
    say()
    assert OrmQ.objects.count() == 1
    assert connection.connection is short_lived


@pytest.mark.django_db(transaction=True)
def test_a_task_of_a_transaction_that_is_rolled_back_is_not_enqueued(orm_broker: None) -> None:
    with transaction.atomic():
        say()
        transaction.set_rollback(True)
    assert not OrmQ.objects.exists()


# A broker that is down


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.django_db(transaction=True)
def test_a_broker_that_is_down_costs_the_caller_next_to_nothing(
    redis_broker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    redis_broker("127.0.0.1", closed_port())
    took = []
    for _ in range(3):
        began = time.monotonic()
        say()
        took.append(time.monotonic() - began)
    assert sorted(took)[1] < 0.5
    assert Event.objects.count() == 3
    assert "No worker could be woken" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_a_broker_that_hangs_costs_half_a_second_once(
    redis_broker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # it accepts, and never answers
        redis_broker("127.0.0.1", server.getsockname()[1])
        began = time.monotonic()
        say()
        first = time.monotonic() - began
        say(20)
        rest = time.monotonic() - began - first
    assert 0.3 < first < 1.0
    assert rest < 0.5, "it is left alone for a while, and not asked for each event"
    assert Event.objects.count() == 21
    assert caplog.text.count("No worker could be woken") == 1


@pytest.mark.django_db(transaction=True)
def test_a_broker_that_comes_back_is_called_again(
    redis_broker: Any, orm_broker: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis_broker("127.0.0.1", closed_port())
    say()
    monkeypatch.setattr(Conf, "ORM", "default")
    waking._broker.cache_clear()
    say()
    assert OrmQ.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_tasks_do_not_pile_up_in_a_queue_that_the_host_shares(orm_broker: None) -> None:
    for _ in range(waking.ENOUGH_SHARED + 20):
        waking.wake(force=True)
    assert OrmQ.objects.count() == waking.ENOUGH_SHARED
    OrmQ.objects.all().delete()
    waking.wake(force=True)
    assert OrmQ.objects.count() == 1


# Real Redis


@pytest.mark.redis
@pytest.mark.django_db(transaction=True)
def test_on_redis_a_burst_is_one_task_over_one_connection(redis_broker: Any) -> None:
    cluster = f"webhooks-test-{os.getpid()}"
    redis_broker(
        os.environ.get("REDIS_HOST", "127.0.0.1"),
        int(os.environ.get("REDIS_PORT", "6379")),
        int(os.environ.get("REDIS_DB", "9")),
        CLUSTER=cluster,
    )
    broker = waking._broker(os.getpid(), cluster)
    try:
        broker.purge_queue()
        say(50)
        assert broker.queue_size() == 1
        for _ in range(5):
            waking.wake(force=True)
        assert broker.queue_size() == 1  # whoever begins that one looks for all of them
        assert waking._broker(os.getpid(), cluster) is broker
        assert len(broker.connection.connection_pool._available_connections) == 1
        [(_receipt, package)] = broker.dequeue()
        task = SignedPackage.loads(package)
        assert (task["func"], task["ack_failure"], task["save"]) == (
            *("webhooks.tasks.drain", True),
            False,
        )
    finally:
        broker.delete_queue()


@pytest.mark.redis
@pytest.mark.django_db(transaction=True)
def test_on_redis_a_lost_connection_is_made_anew(redis_broker: Any) -> None:
    cluster = f"webhooks-test-{os.getpid()}"
    redis_broker(
        os.environ.get("REDIS_HOST", "127.0.0.1"),
        int(os.environ.get("REDIS_PORT", "6379")),
        int(os.environ.get("REDIS_DB", "9")),
        CLUSTER=cluster,
    )
    broker = waking._broker(os.getpid(), cluster)
    try:
        broker.purge_queue()
        say()
        broker.dequeue()
        [pooled] = broker.connection.connection_pool._available_connections
        pooled._sock.shutdown(socket.SHUT_RDWR)  # as a server does that was restarted
        waking.wake(force=True)
        waking.wake(force=True)
        assert broker.queue_size() == 1
    finally:
        broker.delete_queue()
