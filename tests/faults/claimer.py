"""A process that does nothing but claim, renew and let go of lanes; run by test_leases.

    python -m tests.faults.claimer FILE SECONDS THREADS

Every lease is written to FILE as a line of JSON: [lane, from, until, holder], in seconds of the
database's clock. ``from`` is read after the claim has committed and ``until`` before the release
begins, so two leases that overlap here have overlapped in truth.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
import uuid
from datetime import timedelta
from typing import Any

import django

django.setup()

from django.db import connections  # noqa: E402

from webhooks.clock import db_now  # noqa: E402
from webhooks.engine.transactions import atomically  # noqa: E402
from webhooks.models import Lane  # noqa: E402

LEASE = timedelta(seconds=0.15)


def hammer(end: float, leases: list[tuple[str, float, float, str]]) -> None:
    lanes = Lane.objects.using("default")
    while time.monotonic() < end:
        token = uuid.uuid4()
        rows = atomically("default", lambda t=token: lanes.claim(t, lease=LEASE, limit=2))
        began = db_now("default").timestamp()
        until = {row.pk: row.lease_until.timestamp() for row in rows}
        fate = random.random()
        if rows and fate < 0.3:
            time.sleep(random.uniform(0, 0.1))
            renewed_until = db_now("default") + LEASE
            mine = atomically(
                "default", lambda t=token, ids=list(until): lanes.renew(t, ids, lease=LEASE)
            )
            # A lease that was renewed lasts at least LEASE from before the renewal.
            until |= {pk: renewed_until.timestamp() for pk in mine}
        if fate < 0.8:
            time.sleep(random.uniform(0, 0.01))
            now = db_now("default").timestamp()
            until = {pk: min(end_, now) for pk, end_ in until.items()}
            atomically("default", lambda t=token, ids=list(until): release(t, ids))
        # Otherwise it dies, and the lease runs out.
        leases += [(pk, began, end_, token.hex) for pk, end_ in until.items() if end_ > began]
    connections.close_all()


def release(token: uuid.UUID, ids: list[str]) -> None:
    lanes = Lane.objects.using("default")
    lanes.let_go(lanes.held_by(token, ids))


def main(path: str, seconds: str, threads: str) -> None:
    end = time.monotonic() + float(seconds)
    leases: list[Any] = []
    workers = [threading.Thread(target=hammer, args=(end, leases)) for _ in range(int(threads))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    with open(path, "w") as file:
        file.writelines(json.dumps(lease) + "\n" for lease in leases)


if __name__ == "__main__":
    main(*sys.argv[1:])
