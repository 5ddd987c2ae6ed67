"""What does emitting cost the host project?

``emit()`` beside ``Model.objects.create()`` of an equal row, in turns: each call a transaction of
its own, and all calls in one transaction. Then ``emit_many``; and how many tasks 10,000 ``emit()``
calls put on the broker while nobody takes any off.

    python -m tests.benchmarks.emit [--events 2000] [--json]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

from tests.benchmarks.database import own_database
from tests.benchmarks.report import percentile, show, show_json

DATA = {"order": 1, "total": "12.50", "lines": [{"sku": "A-1", "pieces": 2}, {"sku": "B-7"}]}
BURST = 10_000
MAX_TASKS = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--events", type=int, default=2000, help="for each of the first rows")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    count = min(asked.events, 50_000)
    with own_database() as vendor:
        rows = measure(vendor, count)
    show("Emitting", rows)
    if asked.json:
        show_json(rows)
    sys.exit(any((row["tasks"] or 0) > MAX_TASKS for row in rows))


def measure(vendor: str, count: int) -> list[dict[str, Any]]:
    from django.db import transaction
    from django_q.brokers import get_broker

    from webhooks import emit, emit_many
    from webhooks.models import Event

    def emitted() -> None:
        emit("order.paid", DATA, requester="app:benchmark", subject="order:1")

    # The same columns with the same values, so that all that differs is what emit() does.
    emitted()
    first = Event.objects.get()
    skipped = {"id", "seq", "fanned_out_at", "fan_out_after"}
    columns = [field.attname for field in Event._meta.fields if field.name not in skipped]
    row = {column: getattr(first, column) for column in columns}

    def created() -> None:
        Event.objects.create(**row)

    broker = get_broker()
    rows = []
    for how, times in (("own transaction", _own), ("one transaction", _shared)):
        emits, creates = times(transaction, emitted, created, count)
        rows.append(_row(vendor, f"emit(), {how}", emits))
        rows.append(_row(vendor, f"objects.create(), {how}", creates))
    began = time.perf_counter()
    emit_many("order.paid", [{"data": DATA, "requester": "app:benchmark"} for _ in range(BURST)])
    mean = (time.perf_counter() - began) / BURST
    rows.append(
        {**_row(vendor, "emit_many()", [mean]), "events": BURST, "p50 µs": None, "p95 µs": None}
    )
    broker.purge_queue()
    burst = [_time(emitted) for _ in range(BURST)]
    tasks = broker.queue_size()
    what = f"emit(), in a row; at most {MAX_TASKS} tasks"
    rows.append({**_row(vendor, what, burst), "tasks": tasks})
    broker.purge_queue()
    return rows


def _own(
    transaction: Any, one: Callable[[], None], other: Callable[[], None], count: int
) -> tuple[list[float], list[float]]:
    """Both in turns, so that what the machine does besides hits both alike."""
    pairs = [(_time(one), _time(other)) for _ in range(count)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _shared(
    transaction: Any, one: Callable[[], None], other: Callable[[], None], count: int
) -> tuple[list[float], list[float]]:
    with transaction.atomic():
        return _own(transaction, one, other, count)


def _time(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _row(vendor: str, what: str, seconds: list[float]) -> dict[str, Any]:
    return {
        "database": vendor,
        "what": what,
        "events": len(seconds),
        "p50 µs": percentile(seconds, 0.5) * 1e6,
        "p95 µs": percentile(seconds, 0.95) * 1e6,
        "mean µs": sum(seconds) / len(seconds) * 1e6,
        "tasks": None,
    }


if __name__ == "__main__":
    main()
