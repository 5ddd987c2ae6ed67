"""What does fan-out cost: one event for many subscriptions, and many events for a few?

Statements, seconds and memory, at a size and at a tenth of it. The reference is the small one, and
what is compared is the cost of one delivery. Good: it does not grow with the size.
"""

from __future__ import annotations

from typing import Any

from tests.benchmarks import rows
from tests.benchmarks.child import call
from tests.benchmarks.database import analyze, empty, own_database
from tests.benchmarks.harness import Figure, Options, alone, compared, worker_core

MEASURES = {"seconds": "µs for a delivery", "cpu": "worker CPU µs", "server": "database CPU µs"}


def measure(options: Options) -> list[Figure]:
    size = 1000 if options.quick else 10_000
    figures = []
    with own_database() as vendor:
        for case, small, large in (
            ("1 event x {} subscriptions", (1, size // 10), (1, size)),
            ("{} events x 10 subscriptions", (size // 10, 10), (size, 10)),
        ):
            found: list[tuple[Any, Any]] = [
                (_fan_out(*small), _fan_out(*large)) for _ in range(options.rounds)
            ]
            what = case.format(f"{size:,}")
            for key, name in MEASURES.items():
                if key == "server" and vendor != "postgresql":
                    continue
                fews, manys = ([each[place][key] * 1e6 for each in found] for place in (0, 1))
                limit = 1.3 if key == "seconds" else None
                figures.append(compared(what, name, manys, fews, at_most=limit))
            statements = [each[1]["statements"] for each in found]
            figures.append(alone(what, "statements for a delivery", statements))
            grown = [each[1]["grown"] for each in found]
            figures.append(alone(what, "MiB that the worker grew by", grown, at_most=64))
    return figures


def _fan_out(events: int, subscriptions: int) -> dict[str, float]:
    """A new outbox, fanned out in a process of its own: what one delivery cost, and the memory."""
    empty()
    rows.subscriptions(subscriptions, "http://127.0.0.1:9/in", together=True)
    rows.events(events, 1)
    analyze()
    found = call("tests.benchmarks.worker:fan_out_all", core=worker_core())
    made = events * subscriptions
    each = {key: (found[key] or 0.0) / made for key in ("seconds", "cpu", "server", "statements")}
    return each | {"grown": found["after"] - found["before"]}
