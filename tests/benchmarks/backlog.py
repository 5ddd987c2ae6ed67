"""Does a backlog of a million in one lane slow that lane's front, or the others?

A worker delivers for some seconds from one lane with the backlog, and from twenty with 200 each.
The reference is the same with a backlog that is fifty times smaller, in the same run. Good: rates,
claims and refills are the same, the other lanes are done as soon, and memory does not grow.
"""

from __future__ import annotations

from typing import Any

from tests.benchmarks import rows
from tests.benchmarks.child import call
from tests.benchmarks.database import analyze, empty, own_database
from tests.benchmarks.harness import Figure, Options, compared, worker_core
from tests.benchmarks.receiver import fastest
from tests.benchmarks.sending import environ

OTHERS, OF_EACH = 20, 200
SMALLER = 50


def measure(options: Options) -> list[Figure]:
    size, seconds = (50_000, 2.0) if options.quick else (1_000_000, 15.0)
    with own_database(), fastest() as receiver:
        small = _deliver(options, receiver.url, size // SMALLER, seconds)
        large = _deliver(options, receiver.url, size, seconds)
    case = f"{size:,} in one lane, beside {size // SMALLER:,}"
    limits: dict[str, dict[str, float]] = {
        "deliveries/s of both": {"at_least": 0.8},
        "deliveries/s of the others": {"at_least": 0.8},
        "ms of a claim": {"at_most": 2.0},
        "ms of a refill": {"at_most": 2.0},
        "MiB of the worker": {"at_most": 1.1},
    }
    return [
        compared(case, name, [large[name]], [small[name]], **limit)
        for name, limit in limits.items()
    ]


def _deliver(options: Options, url: str, size: int, seconds: float) -> dict[str, float]:
    from django.db.models import Max, Min

    from webhooks.models import Delivery

    empty()
    lane = rows.subscriptions(1, url)[0]
    rows.backlog(lane, size)
    rows.subscriptions(OTHERS, url, first=1)
    rows.events(OTHERS * OF_EACH, OTHERS, first=1)
    call("tests.benchmarks.worker:fan_out_all")
    analyze()
    found: dict[str, Any] = call(
        "tests.benchmarks.worker:for_seconds",
        core=worker_core(),
        environ=environ(options),
        seconds=seconds,
    )
    ended = Delivery.objects.filter(state="delivered")
    began = ended.aggregate(at=Min("settled_at"))["at"]

    def rate(deliveries: Any) -> float:
        # Up to the last one: the smaller backlog may be done before the time is over.
        took = (deliveries.aggregate(at=Max("settled_at"))["at"] - began).total_seconds()
        return float(deliveries.count() / max(took, 0.1))

    return {
        "deliveries/s of both": rate(ended),
        "deliveries/s of the others": rate(ended.exclude(subscription=lane)),
        "ms of a claim": _mean(found["claims"]) * 1000,
        "ms of a refill": _mean(found["refills"]) * 1000,
        "MiB of the worker": found["after"],
    }


def _mean(values: list[float]) -> float:
    return sum(values) / max(1, len(values))
