"""How many deliveries a second does one worker process make, and what does each cost?

A backlog of single deliveries is emitted first; then one ``webhooks_worker --until-idle`` fans it
out, delivers it, records it and leaves; time and CPU count from when it takes its slot. Beside it,
in the same run and to the same receiver process, a bare ``requests.Session.post`` loop sends a body
of the same size, one after another: before and after, and the mean of both is compared.

    python -m tests.benchmarks.throughput [--deliveries 5000] [--lanes 1 100] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from tests.benchmarks.database import own_database
from tests.benchmarks.processes import ServerCpu, timed
from tests.benchmarks.receiver import Receiver
from tests.benchmarks.report import show, show_json

ROOT = Path(__file__).resolve().parents[2]
#: About 400 bytes as a body, as a push event has.
DATA = {
    "campaign": 7,
    "push": "0b8f4a0e-6d0f-4d55-9d2c-1f0a3f6f2b9e",
    "device": {"platform": "android", "locale": "de-AT", "token": "t" * 120},
    "link": "https://shop.example/offers/spring?utm_campaign=7",
}
MAX_DELIVERIES = 100_000
TIMEOUT = 300.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--deliveries", type=int, default=5000, help="for each row of the table")
    parser.add_argument("--lanes", type=int, nargs="+", default=[1, 100])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--bare", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.bare:
        show_json(bare(asked.bare[0], int(asked.bare[1])))
        return
    count = min(asked.deliveries, MAX_DELIVERIES)
    with own_database() as vendor, Receiver() as receiver:
        rows = [measure(receiver, vendor, lanes, count) for lanes in asked.lanes]
    show("Deliveries of one worker process; CPU ms for each; beside a bare requests loop", rows)
    if asked.json:
        show_json(rows)


def measure(receiver: Receiver, vendor: str, lanes: int, count: int) -> dict[str, Any]:
    from django.db import connection

    from webhooks.models import Delivery, Event, Subscription, Worker

    Event.objects.all().delete()
    Subscription.objects.all().delete()
    for lane in range(lanes):
        Subscription.objects.subscribe(
            requester=f"app:{lane}", callback_url=receiver.url, event_types=["order.*"]
        )
    _emit(lanes, count)
    if vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")  # as autovacuum would have, in a database that is older
    before = _bare_in_its_own_process(receiver, count)
    receiver.forget()
    with ServerCpu(os.environ["WEBHOOKS_TEST_DB_NAME"]) as server:
        seconds, worker = timed(
            *("webhooks_worker", "--until-idle"), since=Worker.objects.exists, timeout=TIMEOUT
        )
    posts = receiver.forget()
    delivered = Delivery.objects.filter(state="delivered").count()
    if (posts, delivered) != (count, count):
        raise RuntimeError(f"{count} were due: {posts} POSTs came, {delivered} are delivered")
    after = _bare_in_its_own_process(receiver, count)
    Delivery.objects.all().delete()
    served = server.seconds if vendor == "postgresql" else None
    bare_seconds = (before["seconds"] + after["seconds"]) / 2
    bare_cpu = (before["cpu"] + after["cpu"]) / 2
    return {
        "database": vendor,
        "lanes": lanes,
        "deliveries": count,
        "per s": count / seconds,
        "worker ms": worker / count * 1000,
        "server ms": None if served is None else served / count * 1000,
        "bare per s": count / bare_seconds,
        "bare ms": bare_cpu / count * 1000,
        "speed ratio": bare_seconds / seconds,
        "CPU ratio": (worker + (served or 0.0)) / bare_cpu,
    }


def _emit(lanes: int, count: int) -> None:
    from django.conf import settings
    from django.test import override_settings

    from webhooks import emit_many

    with override_settings(WEBHOOKS=settings.WEBHOOKS | {"WAKER": None}):
        emit_many(
            "order.paid",
            ({"data": DATA, "requester": f"app:{place % lanes}"} for place in range(count)),
        )


def _bare_in_its_own_process(receiver: Receiver, count: int) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.throughput", "--bare"]
    done = subprocess.run(
        [*command, receiver.url, str(count)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=TIMEOUT,
    )
    told: dict[str, float] = json.loads(done.stdout)
    return told


def bare(url: str, count: int) -> dict[str, float]:
    """The loop that everything is compared with: seconds and CPU seconds of ``count`` POSTs."""
    import requests

    body = json.dumps(
        {"id": "evt_" + uuid.uuid4().hex, "type": "order.paid", "timestamp": "", "data": DATA}
    ).encode()
    headers = {"content-type": "application/json", "webhook-id": "bare"}
    with requests.Session() as session:
        session.post(url, data=body, headers=headers, timeout=15)
        began, used = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
        for _ in range(count):
            session.post(url, data=body, headers=headers, timeout=15).raise_for_status()
        seconds, now = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": seconds,
        "cpu": now.ru_utime - used.ru_utime + now.ru_stime - used.ru_stime,
    }


if __name__ == "__main__":
    main()
