"""How long from ``emit()`` to the first byte at the receiver, one event at a time?

*idle*: the last event was so long ago that no drain is running; the event must wake one through the
broker. *lingering*: a drain has just served another event and still looks. A real qcluster of two
workers delivers; django-q2's ``poll`` is its default of 0.2 s. Good, at the median of the idle
system: 400 ms on the ORM broker, 100 ms on Redis.
"""

from __future__ import annotations

import os
import random
import socket
import time
from typing import Any

from tests.benchmarks.child import call
from tests.benchmarks.database import own_database
from tests.benchmarks.harness import Figure, Options, alone, left_out, percentile
from tests.benchmarks.processes import running
from tests.benchmarks.receiver import Receiver

#: Milliseconds that the median of the idle system is to stay under.
TARGETS = {"orm": 400, "redis": 100}
#: A drain lingers for a second; after this nobody is left.
GAPS = {"idle": (2.2, 3.0), "lingering": (0.05, 0.6)}
PATIENCE = 30.0


def measure(options: Options) -> list[Figure]:
    figures = []
    for broker, target in TARGETS.items():
        if broker == "redis" and not redis_listens():
            figures.append(left_out("redis broker", "no Redis listens"))
            continue
        # django-q2 reads its broker when it is imported, so each broker has a process of its own.
        found: dict[str, list[float]] = call(
            "tests.benchmarks.latency:waits",
            timeout=900,
            environ={"WEBHOOKS_TEST_BROKER": broker},
            count=2 if options.quick else 40,
        )
        for system, ms in found.items():
            case = f"{broker} broker, {system}"
            limit = target if system == "idle" else None
            figures.append(alone(case, "p50 ms", ms, at_most=limit))
            figures.append(alone(case, "p95 ms", [percentile(ms, 0.95)]))
    return figures


def redis_listens() -> bool:
    where = os.environ.get("REDIS_HOST", "127.0.0.1"), int(os.environ.get("REDIS_PORT", "6379"))
    try:
        socket.create_connection(where, timeout=1).close()
    except OSError:
        return False
    return True


def waits(count: int) -> dict[str, list[float]]:
    """In a process of its own: milliseconds of each event, for each state of the system."""
    with own_database(), Receiver() as receiver:
        from webhooks.models import Subscription

        Subscription.objects.subscribe(
            requester="app:benchmark", callback_url=receiver.url, event_types=["order.*"]
        )
        _empty_the_queue()
        with running("qcluster"):
            for _ in range(2):
                _one(receiver)  # the cluster's start is not what is measured
            found: dict[str, list[float]] = {}
            for system, (shortest, longest) in GAPS.items():
                found[system] = []
                for _ in range(count):
                    time.sleep(random.uniform(shortest, longest))
                    found[system].append(_one(receiver))
        _empty_the_queue()
    return found


def _one(receiver: Receiver) -> float:
    """Emit an event: milliseconds until its first byte arrived."""
    from webhooks import emit

    began = time.monotonic()
    event: Any = emit("order.paid", {"order": 1, "total": "12.50"}, requester="app:benchmark")
    while time.monotonic() < began + PATIENCE:
        time.sleep(0.05)  # seldom enough to take no CPU from those that are measured
        arrived = receiver.arrivals().get(event.pk)
        if arrived is not None:
            return (arrived - began) * 1000
    raise TimeoutError(f"{event.pk} did not arrive within {PATIENCE} s")


def _empty_the_queue() -> None:
    from django_q.brokers import get_broker

    get_broker().purge_queue()
