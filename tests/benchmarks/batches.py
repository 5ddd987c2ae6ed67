"""How many events a second does one worker drain in batches of 500, and what does each cost?

A million push events (50,000 with ``--quick``) are due for one subscriber. The reference is the
same lane with single deliveries, in the same round; it is given a fifth of a million, for it would
take as long as all else together. Good, on PostgreSQL: 20,000 events a second.
"""

from __future__ import annotations

from typing import Any

from tests.benchmarks import rows
from tests.benchmarks.child import call
from tests.benchmarks.database import analyze, empty, own_database
from tests.benchmarks.harness import Figure, Options, alone, compared, worker_core
from tests.benchmarks.receiver import fastest
from tests.benchmarks.sending import environ

BATCH = 500


def measure(options: Options) -> list[Figure]:
    batched, single = (50_000, 10_000) if options.quick else (1_000_000, 200_000)
    found: list[tuple[dict[str, float], dict[str, float]]] = []
    with own_database() as vendor, fastest() as receiver:
        for _ in range(1 if options.quick else 3):
            found.append(
                (
                    _deliver(options, receiver.url, single, 1),
                    _deliver(options, receiver.url, batched, BATCH),
                )
            )
        note = f"reference: single deliveries; receiver: {receiver.kind}"
    case = f"{batched:,} events of one lane, {BATCH} in a POST"
    own, references = [each[1] for each in found], [each[0] for each in found]
    fast = [each["events/s"] for each in own]
    figures = [
        compared(case, name, [each[name] for each in own], [each[name] for each in references])
        for name in ("worker CPU µs each", "database CPU µs each", "rows written each")
    ]
    return [
        compared(case, "events/s", fast, [each["events/s"] for each in references], note=note),
        alone(case, "events/s", fast, at_least=20_000 if vendor == "postgresql" else None),
        *figures,
    ]


def _deliver(options: Options, url: str, count: int, batch_size: int) -> dict[str, float]:
    """A new backlog in one lane, and a worker that delivers it; what each event cost it."""
    from webhooks.models import Delivery, DeliveryAttempt, Lane, Message, Subscription

    empty()
    lane = rows.subscriptions(1, url)[0]
    Subscription.objects.filter(pk=lane.pk).update(batch_size=batch_size)
    rows.backlog(lane, count - 1)
    Lane.objects.update(latency_ms=20)
    analyze()
    found: dict[str, Any] = call(
        "tests.benchmarks.worker:until_idle", core=worker_core(), environ=environ(options)
    )
    delivered = Delivery.objects.filter(state="delivered").count()
    if delivered != count:
        raise RuntimeError(f"{delivered} of {count} are delivered")
    # Each delivery is written as it ends, and where it is frozen as well.
    written = count * (2 if batch_size > 1 else 1)
    written += DeliveryAttempt.objects.count() + Message.objects.count()
    return {
        "events/s": count / found["seconds"],
        "worker CPU µs each": found["cpu"] / count * 1e6,
        "database CPU µs each": (found["server"] or 0.0) / count * 1e6,
        "rows written each": written / count,
    }
