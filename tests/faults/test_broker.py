"""The broker loses everything, or is away: that costs time, and never an event."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import transaction
from django_q.conf import Conf

from tests.faults.servers import Missing, Redis, stopped
from tests.world import Receiver, subscribe, until
from webhooks import emit
from webhooks.engine import wake as waking
from webhooks.models import Event, Worker
from webhooks.tasks import sweep

pytestmark = pytest.mark.django_db(transaction=True)

SETTINGS = {"TIMEOUT": 2, "LEASE_SECONDS": 19, "DRAIN_SECONDS": 2}


@pytest.fixture
def redis(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Iterator[Redis]:
    """A Redis of this test's own, as the broker of this process."""
    try:
        server = Redis()
    except Missing as missing:
        pytest.fail(str(missing)) if os.environ.get("CI") else pytest.skip(str(missing))
    monkeypatch.setattr(Conf, "ORM", None)
    monkeypatch.setattr(Conf, "REDIS", {"host": "127.0.0.1", "port": server.port})
    settings.WEBHOOKS = {**settings.WEBHOOKS, "WAKER": "webhooks.engine.wake.enqueue_drain"}
    waking._broker.cache_clear()
    yield server
    waking._broker.cache_clear()
    server.close()


def emit_timed() -> tuple[Event, float]:
    began = time.monotonic()
    with transaction.atomic():
        event = emit("order.paid", {"order": 1}, requester="app:a")
    return event, time.monotonic() - began


def quietly(receiver: Receiver, emitted: list[str]) -> None:
    """Everything has come once, and the worker has gone."""
    receiver.wait_for(len(emitted), timeout=30)
    until(lambda: not Worker.objects.exists(), 20, "the end of the drain")
    assert receiver.ids == Counter(emitted)


def test_whatever_becomes_of_redis_every_event_arrives_once(
    receiver: Receiver, start: Callable[..., Any], redis: Redis
) -> None:
    subscribe(receiver)
    # Flushed before anybody took the wake-up: the sweep calls again.
    emitted = [emit_timed()[0].pk]
    with contextlib.closing(redis.client()) as client:
        assert client.dbsize() == 1
    redis.flush()
    cluster = start("qcluster", settings=SETTINGS, **redis.environ)
    time.sleep(2)
    assert receiver.posts == []
    sweep()
    quietly(receiver, emitted)

    # Down while events are emitted: they commit, and nobody waits.
    redis.stop()
    took = []
    for _ in range(5):
        event, seconds = emit_timed()
        emitted.append(event.pk)
        took.append(seconds)
    assert max(took) < 1.0, took
    assert Event.objects.count() == len(emitted)
    sweep()  # in vain
    time.sleep(0.5)
    assert receiver.ids.keys() == set(emitted[:1])

    # It comes back empty; cluster and host find it again.
    redis.start()
    waking.quiet.reset()
    sweep()
    quietly(receiver, emitted)
    waking.quiet.reset()
    emitted.append(emit_timed()[0].pk)
    quietly(receiver, emitted)
    assert cluster.poll() is None


def test_a_redis_that_hangs_slows_no_event_by_a_second(redis: Redis) -> None:
    emit_timed()
    waking.quiet.reset()
    assert redis.pid is not None
    with stopped(redis.pid):  # it accepts connections, and says nothing
        took = [emit_timed()[1] for _ in range(10)]
    assert max(took) < 1.0, took
    assert sum(took) < 1.5, "half a second once, not for each event"
    assert Event.objects.count() == 11
