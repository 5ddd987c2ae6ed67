"""How long from ``emit()`` to the first byte at the receiver, one event at a time?

*idle*: the last event was so long ago that no drain is running; the event must wake one through the
broker. *lingering*: a drain has just served another event and still looks. A real qcluster of two
workers delivers; django-q2's ``poll`` is its default of 0.2 s.

    python -m tests.benchmarks.latency [--broker orm|redis] [--events 40] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.database import own_database
from tests.benchmarks.processes import running
from tests.benchmarks.receiver import Receiver
from tests.benchmarks.report import percentile, show, show_json

ROOT = Path(__file__).resolve().parents[2]
#: Milliseconds that the median of the idle system must stay under.
TARGETS = {"orm": 400, "redis": 100}
#: A drain lingers for a second; after this nobody is left.
GAPS = {"idle": (2.2, 3.0), "lingering": (0.05, 0.6)}
PATIENCE = 30.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--broker", choices=sorted(TARGETS), help="only this one")
    parser.add_argument("--events", type=int, default=40, help="for each row of the table")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.alone:
        show_json(measure(asked.broker, min(asked.events, 1000)))
        return
    # django-q2 reads its broker when it is imported, so each broker has a process of its own.
    found = [
        row
        for broker in ([asked.broker] if asked.broker else sorted(TARGETS))
        for row in _alone(broker, asked.events)
    ]
    show("From emit() to the first byte at the receiver, ms", found)
    if asked.json:
        show_json(found)
    sys.exit(any(row["target"] is not None and row["p50"] >= row["target"] for row in found))


def _alone(broker: str, events: int) -> list[dict[str, Any]]:
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.latency"]
    done = subprocess.run(
        [*command, "--alone", "--broker", broker, "--events", str(events)],
        env=os.environ | {"WEBHOOKS_TEST_BROKER": broker},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    rows: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return rows


def measure(broker: str, events: int) -> list[dict[str, Any]]:
    with own_database() as vendor, Receiver() as receiver:
        from webhooks.models import Subscription

        Subscription.objects.subscribe(
            requester="app:benchmark", callback_url=receiver.url, event_types=["order.*"]
        )
        _empty_the_queue()
        with running("qcluster"):
            for _ in range(3):
                _one(receiver)  # the cluster's start is not what is measured
            rows = []
            for system, (shortest, longest) in GAPS.items():
                waits, calls = [], []
                for _ in range(events):
                    time.sleep(random.uniform(shortest, longest))
                    wait, call = _one(receiver)
                    waits.append(wait)
                    calls.append(call)
                rows.append(
                    {
                        "broker": broker,
                        "database": vendor,
                        "system": system,
                        "events": events,
                        "call p50": percentile(calls, 0.5),
                        "p50": percentile(waits, 0.5),
                        "p95": percentile(waits, 0.95),
                        "max": max(waits),
                        "target": TARGETS[broker] if system == "idle" else None,
                    }
                )
        _empty_the_queue()
    return rows


def _one(receiver: Receiver) -> tuple[float, float]:
    """Emit an event: milliseconds until its first byte arrived, and that the call itself took."""
    from webhooks import emit

    began = time.monotonic()
    event = emit("order.paid", {"order": 1, "total": "12.50"}, requester="app:benchmark")
    returned = time.monotonic()
    while time.monotonic() < began + PATIENCE:
        time.sleep(0.05)  # seldom enough to take no CPU from those that are measured
        arrived = receiver.arrivals().get(event.pk)
        if arrived is not None:
            return (arrived - began) * 1000, (returned - began) * 1000
    raise TimeoutError(f"{event.pk} did not arrive within {PATIENCE} s")


def _empty_the_queue() -> None:
    from django_q.brokers import get_broker

    get_broker().purge_queue()


if __name__ == "__main__":
    main()
