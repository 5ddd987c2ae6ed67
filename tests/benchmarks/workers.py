"""What does a second worker bring, and what does it cost?

One worker, then two, deliver the same backlog over the same cores, which they share with the
database and the receiver. The reference is the one worker, in the same round. Good, on two cores:
1.4 times as many deliveries a second, at 1.15 times the CPU each at most. With three workers on two
cores there is nothing more to be had; on a machine with more cores, or several machines, ask for
more by ``WORKERS``.
"""

from __future__ import annotations

import json
import subprocess
import time
from contextlib import ExitStack
from typing import Any

from tests.benchmarks import rows
from tests.benchmarks.child import call, started
from tests.benchmarks.database import analyze, empty, own_database
from tests.benchmarks.harness import Figure, Options, compared, left_out
from tests.benchmarks.receiver import fastest
from tests.benchmarks.sending import environ, missing

LANES = 100
#: How many workers are compared with one.
WORKERS = (2, 3)
#: Seconds that they have to start, before they begin together.
HEAD_START = 3.0


def measure(options: Options) -> list[Figure]:
    figures = []
    count = 2000 if options.quick else 40_000
    with own_database() as vendor, fastest() as receiver:
        if vendor == "sqlite":
            return [left_out("all", "SQLite has one writer: a second worker waits for the first")]
        transport = "requests" if missing("curl") else "curl"
        for workers in WORKERS:
            found = [
                (deliver(options, transport, receiver.url, count, many=many))
                for _ in range(options.rounds)
                for many in (1, workers)
            ]
            alone, together = found[::2], found[1::2]
            case = f"{transport}, {workers} workers beside one"
            wanted = workers == 2
            figures += [
                compared(
                    case,
                    "deliveries/s",
                    [each["rate"] for each in together],
                    [each["rate"] for each in alone],
                    at_least=1.4 if wanted else None,
                ),
                compared(
                    case,
                    "worker CPU ms each",
                    [each["cpu"] * 1000 for each in together],
                    [each["cpu"] * 1000 for each in alone],
                    at_most=1.15 if wanted else None,
                ),
                compared(
                    case,
                    "database CPU ms each",
                    [each["server"] * 1000 for each in together],
                    [each["server"] * 1000 for each in alone],
                ),
            ]
    return figures


def deliver(
    options: Options, transport: str, url: str, count: int, *, many: int
) -> dict[str, float]:
    """So many workers deliver a new backlog: the rate of all, and CPU seconds for each delivery."""
    from webhooks.models import Delivery

    empty()
    rows.subscriptions(LANES, url)
    rows.events(count, LANES)
    call("tests.benchmarks.worker:fan_out_all")
    analyze()
    given = environ(options, transport=transport, WORKERS=many)
    begin = time.time() + HEAD_START
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                started("tests.benchmarks.worker:from_then_on", environ=given, begin=begin)
            )
            for _ in range(many)
        ]
        found = [_told(process) for process in processes]
    delivered = Delivery.objects.filter(state="delivered").count()
    if delivered != count:
        raise RuntimeError(f"{delivered} of {count} are delivered")
    last = max(each["ended"] for each in found)
    return {
        "rate": count / (last - begin),
        "cpu": sum(each["cpu"] for each in found) / count,
        "server": sum(each["server"] or 0.0 for each in found) / count,
    }


def _told(process: subprocess.Popen[str]) -> Any:
    told, _ = process.communicate(timeout=300)
    return json.loads(told.splitlines()[-1])
