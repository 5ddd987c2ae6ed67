"""Endpoints that hang cost only themselves."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.world import Answer, Receiver, emit_orders, subscribe, until
from webhooks import emit
from webhooks.models import Worker

pytestmark = pytest.mark.django_db(transaction=True)

TIMEOUT = 3
SETTINGS = {"TIMEOUT": TIMEOUT, "LEASE_SECONDS": 2 * TIMEOUT + 15, "CONCURRENCY": 16}
#: What a busy machine may add to a percentile of some hundred milliseconds, in seconds.
NOISE = 0.15


def p95(receiver: Receiver, count: int) -> float:
    """Seconds from record to receipt of so many events, emitted one after the other."""
    emitted = {}
    for _ in range(count):
        event = emit("order.paid", {"order": 1}, requester="app:quick")
        emitted[event.pk] = event.created_at.timestamp()
        time.sleep(0.05)
    until(lambda: emitted.keys() <= receiver.ids.keys(), 30, "the receipt of all")
    latencies = sorted(post.at - emitted[post.id] for post in receiver.posts if post.id in emitted)
    return latencies[int(0.95 * len(latencies))]


def measure(quick: Receiver, hanging: Receiver, subscriptions: int, events: int) -> None:
    """The p95 beside endpoints that hang stays within twice the one without them."""
    for _ in range(10):  # so that the lane is known to be fast
        p95(quick, 1)
    before = p95(quick, 30)
    for i in range(subscriptions):
        subscribe(hanging, f"app:hanging-{i}")
        emit_orders(events, f"app:hanging-{i}")
    hanging.wait_for(4)
    beside = p95(quick, 50)
    assert hanging.posts
    assert beside < 2 * max(before, NOISE), f"{before * 1000:.0f} ms became {beside * 1000:.0f} ms"


@pytest.mark.parametrize(
    ("subscriptions", "events"), [(1, 200), (200, 3)], ids=["one", "two hundred of them"]
)
def test_endpoints_that_hang_delay_nobody_else_with_webhooks_worker(
    receivers: Callable[..., Receiver], start: Callable[..., Any], subscriptions: int, events: int
) -> None:
    quick, hanging = receivers(), receivers(Answer(after=60))
    subscribe(quick, "app:quick")
    start("webhooks_worker", settings=SETTINGS)
    until(Worker.objects.exists, 30, "the worker's start")
    measure(quick, hanging, subscriptions, events)


def test_an_endpoint_that_hangs_delays_nobody_else_with_slices_of_drain(
    receivers: Callable[..., Receiver], start: Callable[..., Any], settings: Any
) -> None:
    """In a cluster of two workers, one serves while the other waits for what hangs."""
    settings.WEBHOOKS = {**settings.WEBHOOKS, "WAKER": "webhooks.engine.wake.enqueue_drain"}
    quick, hanging = receivers(), receivers(Answer(after=60))
    subscribe(quick, "app:quick")
    start("qcluster", settings={**SETTINGS, "DRAIN_SECONDS": 2})
    emit_orders(1, "app:quick")
    quick.wait_for(1, timeout=30)
    measure(quick, hanging, subscriptions=1, events=200)


def test_a_flood_for_one_subscriber_delays_nobody_else(
    receivers: Callable[..., Receiver], start: Callable[..., Any]
) -> None:
    quick, flooded = receivers(), receivers(Answer(after=0.05))
    subscribe(quick, "app:quick")
    subscribe(flooded, "app:flooded")
    start("webhooks_worker", settings=SETTINGS)
    until(Worker.objects.exists, 30, "the worker's start")
    for _ in range(10):
        p95(quick, 1)
    before = p95(quick, 30)
    for _ in range(10):
        emit_orders(1000, "app:flooded")
    flooded.wait_for(100)
    beside = p95(quick, 50)
    assert len(flooded.posts) < 10_000  # it was still at it
    assert beside < 2 * max(before, NOISE), f"{before * 1000:.0f} ms became {beside * 1000:.0f} ms"
