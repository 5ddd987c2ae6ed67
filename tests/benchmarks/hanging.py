"""What does a healthy endpoint feel of endpoints that hang, and of one that is flooded?

One worker serves a lane whose events come one by one; the time from ``emit()`` to the first byte is
taken. Then other lanes get events: one that never answers, two hundred that never answer, or a
flood of 10,000 for a fast one. The reference is the p95 before that, in the same worker. Good: the
p95 at most doubles.
"""

from __future__ import annotations

import random
import time

from tests.benchmarks import rows
from tests.benchmarks.child import started
from tests.benchmarks.database import empty, own_database
from tests.benchmarks.harness import Figure, Options, compared, percentile, worker_core
from tests.benchmarks.receiver import Receiver
from tests.benchmarks.sending import environ

#: Events of each trouble: (case, path, lanes, events).
TROUBLES = (
    ("1 hanging lane", "/hang", 1, 5),
    ("200 hanging lanes", "/hang", 200, 1000),
    ("a flood of {:,}", "/in", 1, 10_000),
)
PATIENCE = 30.0


def measure(options: Options) -> list[Figure]:
    figures = []
    events = 15 if options.quick else 100
    rounds = 1 if options.quick else 3
    with own_database(), Receiver() as receiver:
        for case, path, lanes, size in TROUBLES:
            size = size // 10 if options.quick and size > 1000 else size
            found = [_p95s(options, receiver, path, lanes, size, events) for _ in range(rounds)]
            befores, besides = ([each[place] for each in found] for place in (0, 1))
            figures.append(compared(case.format(size), "p95 ms", besides, befores, at_most=2.0))
    return figures


def _p95s(
    options: Options, receiver: Receiver, path: str, lanes: int, size: int, events: int
) -> tuple[float, float]:
    """p95 in ms before and beside the trouble."""
    empty()
    receiver.forget()
    rows.subscriptions(1, receiver.url)
    rows.subscriptions(lanes, receiver.root + path, first=1)
    worker = "tests.benchmarks.worker:until_told"
    # What hangs would keep it for a while; nobody waits for that.
    with started(worker, core=worker_core(), environ=environ(options), grace=0.5):
        _latencies(receiver, 5)  # its start, and the lane's speed becoming known
        before = _latencies(receiver, events)
        rows.events(size, lanes, first=1)
        beside = _latencies(receiver, events)
    return percentile(before, 0.95), percentile(beside, 0.95)


def _latencies(receiver: Receiver, count: int) -> list[float]:
    """Milliseconds from each ``emit()`` to its first byte."""
    begun = {}
    for _ in range(count):
        now = time.monotonic()
        begun[rows.events(1, 1, data={"order": 1})[0].pk] = now
        time.sleep(random.uniform(0.02, 0.1))
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        arrivals = receiver.arrivals()
        if begun.keys() <= arrivals.keys():
            return [(arrivals[pk] - at) * 1000 for pk, at in begun.items()]
        time.sleep(0.2)
    raise TimeoutError(f"some of {count} events did not arrive within {PATIENCE} s")
