"""What does emitting cost the host project?

``emit()`` beside ``Model.objects.create()`` of an equal row, in turns: each call a transaction of
its own, and all calls in one transaction. Then ``emit_many()`` beside ``emit()``; and how many
tasks a burst of ``emit()`` calls puts on the broker while nobody takes any off. Good: ``emit()``
costs at most twice that row, and a burst of 10,000 no more than 50 tasks.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.benchmarks.database import own_database
from tests.benchmarks.harness import Figure, Options, alone, compared

DATA = {"order": 1, "total": "12.50", "lines": [{"sku": "A-1", "pieces": 2}, {"sku": "B-7"}]}
MAX_TASKS = 50


def measure(options: Options) -> list[Figure]:
    count, burst = (300, 1000) if options.quick else (2000, 10_000)
    with own_database():
        from django.db import transaction
        from django_q.brokers import get_broker

        from webhooks import emit, emit_many

        def emitted() -> None:
            emit("order.paid", DATA, requester="app:benchmark", subject="order:1")

        created = _creator(emitted)
        figures = [_compared("own transaction", emitted, created, count)]
        with transaction.atomic():
            figures.append(_compared("one transaction", emitted, created, count))
        began = time.perf_counter()
        emit_many("order.paid", [{"data": DATA, "requester": "app:benchmark"}] * burst)
        many = (time.perf_counter() - began) / burst
        broker = get_broker()
        broker.purge_queue()
        ones = [_time(emitted) for _ in range(burst)]
        tasks = broker.queue_size()
        broker.purge_queue()
    case = f"emit_many() of {burst:,}, beside emit()"
    mean = sum(ones) / burst
    figures.append(compared(case, "µs each", [many * 1e6], [mean * 1e6], at_most=0.5))
    case = f"emit() {burst:,} times in a row"
    figures.append(alone(case, "tasks on the broker", [tasks], at_most=MAX_TASKS))
    return figures


def _creator(emitted: Callable[[], None]) -> Callable[[], None]:
    """Writes the same columns with the same values, so that what differs is what emit() does."""
    from webhooks.models import Event

    emitted()
    first = Event.objects.get()
    skipped = {"id", "seq", "fanned_out_at", "fan_out_after"}
    columns = [field.attname for field in Event._meta.fields if field.name not in skipped]
    row = {column: getattr(first, column) for column in columns}
    return lambda: Event.objects.create(**row) and None


def _compared(
    how: str, emitted: Callable[[], None], created: Callable[[], None], count: int
) -> Figure:
    """In turns, call by call: what the machine does besides hits both alike."""
    pairs = [(_time(emitted) * 1e6, _time(created) * 1e6) for _ in range(count)]
    emits, creates = zip(*pairs, strict=True)
    case = f"emit(), {how}, beside objects.create()"
    return compared(case, "µs each", emits, creates, at_most=2.0)


def _time(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
