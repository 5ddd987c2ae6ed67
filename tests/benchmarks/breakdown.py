"""Where does the engine spend its CPU? A table of its steps, in µs for each delivery.

The worker runs with a transport that sends nothing. Each step is measured without the steps inside
it: CPU of this process, and of the PostgreSQL process that serves it (from its scheduler's clock in
/proc). What measuring itself costs is measured first, and taken off; ``all of it`` is measured in a
run without it.

    python -m tests.benchmarks.breakdown [--lanes 1 100] [--deliveries 20000] [--concurrency 128]
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any
from unittest.mock import patch

from tests.benchmarks import rows
from tests.benchmarks.child import call
from tests.benchmarks.database import analyze, empty, own_database, setup
from tests.benchmarks.harness import served_by, show, worker_core

#: What a step is called, and the functions that make it. Inner steps are not counted in outer ones.
STEPS = {
    "fan-out, when there is nothing": "webhooks.engine.drain:fan_out",
    "replays, when there are none": "webhooks.engine.replays:advance",
    "claim lanes": "webhooks.engine.holdings:Holdings.claim",
    "handshakes, probes: look": "webhooks.engine.trials:Trials.look",
    "control and heartbeat": "webhooks.engine.drain:Drain.keep",
    "refill: choose lanes": "webhooks.engine.holdings:Holdings.refill",
    "refill: into buffers": "webhooks.engine.lanes:HeldLane.fill",
    "refill: read what is due": "webhooks.models.due:QueueReader.due",
    "refill: rows to objects": "webhooks.models.due:_due_delivery",
    "begin: the loop": "webhooks.engine.drain:Drain.begin",
    "begin: shares": "webhooks.engine.shares:Shares.choose",
    "begin: the job": "webhooks.engine.lanes:HeldLane.begin",
    "begin: the request": "webhooks.engine.lanes:HeldLane.request",
    "begin: the body": "webhooks.formats.standard:StandardFormat.body",
    "begin: headers, signature": "webhooks.formats.standard:StandardFormat.headers",
    "end: take in": "webhooks.engine.drain:Drain.take_in",
    "end: an answer": "webhooks.engine.drain:Drain.end",
    "end: conclude": "webhooks.engine.drain:conclude",
    "flush: what is due": "webhooks.engine.flushing:Flusher.flush",
    "flush: lanes that are done": "webhooks.engine.holdings:Holdings.done_after",
    "flush: before and after": "webhooks.engine.flushing:Flusher._write_together",
    "flush: transaction, commit": "webhooks.engine.recorder:atomically",
    "flush: lock lanes, the rest": "webhooks.engine.recorder:Recorder._write",
    "flush: attempt rows": "webhooks.engine.recorder:_attempt",
    "flush: attempts, COPY": "webhooks.models.attempt:AttemptQuerySet.append",
    "flush: settle, group": "webhooks.engine.recorder:Recorder._settle",
    "flush: settle, UPDATE": "webhooks.models.delivery:DeliveryQuerySet.settle",
    "flush: tally": "webhooks.engine.recorder:_tally",
    "flush: statistics, upsert": "webhooks.models.stats:StatsQuerySet.add",
    "flush: let go": "webhooks.models.lane:LaneQuerySet.let_go",
    "flush: pace": "webhooks.models.lane:LaneQuerySet.pace",
    "flush: tell the host": "webhooks.engine.recorder:_tell",
}
REST = "all else"
#: Empty steps, to learn what measuring costs.
TRIES = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--lanes", type=int, nargs="+", default=[1, 100])
    parser.add_argument("--deliveries", type=int, default=20_000)
    parser.add_argument("--concurrency", type=int, default=128)
    asked = parser.parse_args()
    count = min(asked.deliveries, 100_000)
    os.environ["WEBHOOKS_TEST_DB"] = "postgres"
    os.environ["WEBHOOKS_TEST_SETTINGS"] = json.dumps(
        {
            "TRANSPORT": "tests.benchmarks.null.NullTransport",
            "CONCURRENCY": asked.concurrency,
            "WAKER": None,
        }
    )
    with own_database():
        for lanes in asked.lanes:
            plain = _run("tests.benchmarks.worker:until_idle", lanes, count)
            steps = _run("tests.benchmarks.breakdown:by_steps", lanes, count)
            _print(lanes, count, plain, steps)


def _run(function: str, lanes: int, count: int) -> Any:
    empty()
    rows.subscriptions(lanes, "http://127.0.0.1:9/in")
    rows.events(count, lanes)
    return call(function, core=worker_core())


def _print(lanes: int, count: int, plain: Any, steps: dict[str, list[float]]) -> None:
    each = 1e6 / count
    table = [
        {
            "step": name,
            "worker µs": own * each,
            "server µs": server * each,
            "calls each": calls / count,
        }
        for name, (own, server, calls) in sorted(steps.items(), key=lambda item: -sum(item[1][:2]))
        if (own + server) * each >= 0.05
    ]
    whole = {"worker µs": plain["cpu"] * each, "server µs": (plain["server"] or 0) * each}
    table.append({"step": "all of it", **whole, "calls each": plain["statements"] / count})
    print(f"\n{lanes} lanes, {count:,} deliveries; the last line's calls are statements")
    show(table)


class Steps:
    """A clock that runs for the innermost step only."""

    def __init__(self, server: int | None) -> None:
        self.server = server
        self.found: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0])
        #: How many steps lay within each.
        self.inner: Counter[str] = Counter()
        self._open = [REST]
        self._last = (time.process_time(), self._served())

    def _served(self) -> float:
        return served_by(self.server) if self.server else 0.0

    def _close(self, served: float) -> None:
        own, before = self._last
        step = self.found[self._open[-1]]
        step[0] += time.process_time() - own
        step[1] += served - before

    @contextmanager
    def step(self, name: str, asks: bool) -> Iterator[None]:
        """asks: it speaks to the database; others spare reading the server's clock."""
        self._close(self._served() if asks else self._last[1])
        self.inner[self._open[-1]] += 1
        self._open.append(name)
        self._last = (time.process_time(), self._served() if asks else self._last[1])
        try:
            yield
        finally:
            self._close(self._served() if asks else self._last[1])
            self._open.pop()
            self.found[name][2] += 1
            self._last = (time.process_time(), self._served() if asks else self._last[1])

    def without_measuring(self) -> dict[str, list[float]]:
        """What was found, less what an empty step costs itself and the one around it."""
        empty = Steps(None)
        nothing = empty.wrap("inside", lambda: None, asks=False)
        with empty.step("around", asks=False):
            for _ in range(TRIES):
                nothing()
        inside, around = (empty.found[name][0] / TRIES for name in ("inside", "around"))
        return {
            name: [max(0.0, own - calls * inside - self.inner[name] * around), served, calls]
            for name, (own, served, calls) in self.found.items()
        }

    def wrap(self, name: str, plain: Callable[..., Any], *, asks: bool) -> Callable[..., Any]:
        @wraps(plain)
        def measured(*arguments: Any, **named: Any) -> Any:
            with self.step(name, asks):
                return plain(*arguments, **named)

        return measured


def by_steps() -> dict[str, list[float]]:
    """In a process of its own: seconds here, seconds in the database, and calls of each step."""
    setup()
    from django.db import connection

    from tests.benchmarks.worker import fan_out_all, server_process
    from webhooks.engine.worker import transport, work

    transport()
    fan_out_all()
    analyze()
    server = server_process(connection)
    steps = Steps(server)
    for name, place in STEPS.items():
        _wrap(steps, name, place)
    work(seconds=None, slots=None, until_idle=True, should_stop=lambda: False)
    return steps.without_measuring()


#: Steps that are pure Python, many for each statement.
SILENT = ("end:", "begin:", "flush: attempt rows", "flush: tally", "refill: rows", "refill: into")


def _wrap(steps: Steps, name: str, place: str) -> None:
    module, _, path = place.partition(":")
    owner: Any = importlib.import_module(module)
    *outer, last = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    asks = not name.startswith(SILENT)
    patch.object(owner, last, steps.wrap(name, getattr(owner, last), asks=asks)).start()


if __name__ == "__main__":
    main()
