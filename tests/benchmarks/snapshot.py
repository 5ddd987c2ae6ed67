"""What does a transaction that is held open all the while do to the drain, as a dump does?

Another connection holds a REPEATABLE READ snapshot from before the deliveries end, so nothing that
they leave behind can be cleaned up. The reference is the same drain without it, in the same round.
Good: it takes at most one and a half times as long.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.benchmarks import rows
from tests.benchmarks.child import call
from tests.benchmarks.database import empty, own_database
from tests.benchmarks.harness import Figure, Options, compared, left_out, worker_core
from tests.benchmarks.receiver import fastest
from tests.benchmarks.sending import environ


def measure(options: Options) -> list[Figure]:
    if options.database != "postgres":
        return [left_out("held snapshot", "SQLite keeps no old rows, and locks otherwise")]
    count = 2000 if options.quick else 50_000
    figures = []
    with own_database(), fastest() as receiver:
        for lanes in (1, 100):
            without, beside = [], []
            for _ in range(options.rounds):
                without.append(_drain(options, receiver.url, lanes, count))
                beside.append(_drain(options, receiver.url, lanes, count, hold=True))
            case = f"{count:,} deliveries, {lanes} lanes"
            seconds = ([each["seconds"] for each in own] for own in (beside, without))
            figures.append(compared(case, "seconds", *seconds, at_most=1.5))
            served = ([each["server"] or 0.0 for each in own] for own in (beside, without))
            figures.append(compared(case, "database CPU s", *served))
    return figures


def _drain(
    options: Options, url: str, lanes: int, count: int, *, hold: bool = False
) -> dict[str, float]:
    empty()
    rows.subscriptions(lanes, url)
    rows.events(count, lanes)
    call("tests.benchmarks.worker:fan_out_all")
    with _snapshot(hold):
        found: dict[str, float] = call(
            "tests.benchmarks.worker:until_idle", core=worker_core(), environ=environ(options)
        )
    return found


@contextmanager
def _snapshot(hold: bool) -> Iterator[None]:
    if not hold:
        yield
        return
    from django.db import connection, transaction

    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("SELECT count(*) FROM webhooks_delivery")
        yield
