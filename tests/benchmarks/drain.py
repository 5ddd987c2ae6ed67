"""How many deliveries a second does one worker make on one core, and what does each cost?

A backlog is emitted and fanned out, then one worker delivers, signs and records all of it and
leaves. The reference is a bare ``requests.Session.post`` loop on the same core, against the same
receiver, with a body of the same size, in the same round. ``no transport`` is the engine alone: its
POSTs are answered at once, and nothing is sent.

Good, with curl and 100 lanes: five times the bare loop, and at most 0.2 ms of CPU a delivery in the
worker and the database together. 10,000 lanes have one delivery each
(500, and as many lanes, with ``--quick``).
"""

from __future__ import annotations

from typing import Any

from tests.benchmarks import rows
from tests.benchmarks.child import call
from tests.benchmarks.database import empty, own_database
from tests.benchmarks.harness import (
    Figure,
    Options,
    alone,
    compared,
    left_out,
    worker_core,
)
from tests.benchmarks.receiver import fastest
from tests.benchmarks.sending import NULL, TRANSPORTS, environ, missing

LANES = (1, 100, 10_000)


def measure(options: Options) -> list[Figure]:
    figures = []
    with own_database() as vendor, fastest() as receiver:
        for transport in (*TRANSPORTS, "no transport"):
            if transport in TRANSPORTS and (why := missing(transport)):
                figures.append(left_out(transport, why))
                continue
            for lanes in LANES:
                count = _count(lanes, options)
                case = f"{transport}, {min(lanes, count):,} lanes"
                found = [
                    (bare(receiver.url, count), deliver(options, transport, receiver.url, lanes))
                    for _ in range(options.rounds)
                ]
                whole = transport == "curl" and lanes == 100 and vendor == "postgresql"
                figures += _figures(case, found, whole, vendor)
    note = f"receiver: {receiver.kind}; reference: a requests.Session.post loop on the same core"
    return [*figures, Figure("all", "of them", note=note)]


def _count(lanes: int, options: Options) -> int:
    if lanes >= 10_000:
        return 500 if options.quick else lanes
    return 1000 if options.quick else 20_000


def bare(url: str, count: int) -> dict[str, float]:
    """The loop, a shorter one: each of its POSTs costs the same."""
    few = min(count, 3000)
    found = call("tests.benchmarks.senders:session", core=worker_core(), url=url, count=few)
    return {name: value / few for name, value in found.items()}


def deliver(
    options: Options, transport: str, url: str, lanes: int, count: int = 0, **settings: Any
) -> dict[str, float]:
    """A new backlog, and a worker that delivers it; what each delivery cost it.

    count: 0 means as many as this benchmark takes. settings: keys of WEBHOOKS.
    """
    from webhooks.models import Delivery

    count = count or _count(lanes, options)
    lanes = min(lanes, count)
    empty()
    rows.subscriptions(lanes, url)
    rows.events(count, lanes)
    if transport in TRANSPORTS:
        given = environ(options, transport=transport, **settings)
    else:
        settings = {"TRANSPORT": NULL, "CONCURRENCY": 128} | settings
        given = environ(options, **settings)
    found = call("tests.benchmarks.worker:until_idle", core=worker_core(), environ=given)
    delivered = Delivery.objects.filter(state="delivered").count()
    if delivered != count:
        raise RuntimeError(f"{delivered} of {count} are delivered")
    per = {
        name: (found[name] or 0.0) / count for name in ("seconds", "cpu", "server", "statements")
    }
    fan_out = found["fan_out"]
    return per | {
        "fan_out": (fan_out["cpu"] + (fan_out["server"] or 0.0)) / count,
        "memory": found["after"],
    }


def _figures(
    case: str, found: list[tuple[dict[str, float], dict[str, float]]], whole: bool, vendor: str
) -> list[Figure]:
    references = [each[0] for each in found]
    own = [each[1] for each in found]
    figures = [
        compared(
            case,
            "deliveries/s",
            [1 / each["seconds"] for each in own],
            [1 / each["seconds"] for each in references],
            at_least=5 if whole else None,
        ),
        compared(
            case,
            "worker CPU ms each",
            [each["cpu"] * 1000 for each in own],
            [each["cpu"] * 1000 for each in references],
        ),
    ]
    if vendor == "postgresql":
        both = [(each["cpu"] + each["server"]) * 1000 for each in own]
        figures += [
            alone(case, "database CPU ms each", [each["server"] * 1000 for each in own]),
            alone(case, "both CPU ms each", both, at_most=0.2 if whole else None),
        ]
    return [
        *figures,
        alone(case, "fan-out CPU ms each", [each["fan_out"] * 1000 for each in own]),
        alone(case, "statements each", [each["statements"] for each in own]),
    ]
