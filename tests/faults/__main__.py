"""The long run: faults at random over a stream of events, for as long as one likes.

    python -m tests.faults --minutes 30 --database postgres

Exit status 0 only if every promise held. PostgreSQL: with ``--own-server`` a cluster of its own,
which crashes too. A Redis of its own is the broker where there is a redis-server.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import signal
import sys
from contextlib import ExitStack
from typing import Any

from tests.faults.servers import Missing, Postgres, Redis

#: Seconds between two faults of a kind, about.
EVERY = {"kill": 8, "die": 10, "term": 12, "stop": 60, "flush": 5, "broker": 25, "crash": 30}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--database", choices=("postgres", "sqlite", "mariadb"), default="sqlite")
    parser.add_argument("--own-server", action="store_true", help="PostgreSQL of its own, crashing")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--rate", type=float, default=15.0, help="events a second")
    parser.add_argument("--lease", type=int, default=19, help="seconds")
    parser.add_argument(
        "--every",
        action="append",
        metavar="FAULT=SECONDS",
        help=f"only these faults, so often; of {', '.join(EVERY)}",
    )
    asked = parser.parse_args()
    if asked.own_server and asked.database != "postgres":
        parser.error("--own-server is PostgreSQL's")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    every = {kind: float(seconds) for kind, seconds in EVERY.items()}
    if asked.every:
        every = {kind: float(seconds) for kind, seconds in (e.split("=") for e in asked.every)}
    with ExitStack() as stack:
        postgres = _own(stack, Postgres) if asked.own_server else None
        redis = None
        try:
            redis = _own(stack, Redis)
        except Missing as missing:
            every.pop("broker", None)
            print(f"The broker is the database: {missing}.", file=sys.stderr)
        if postgres is None:
            every.pop("crash", None)
        summary = run(asked, every, postgres, redis)
    print(json.dumps(summary, indent=1))
    sys.exit(bool(summary["wrong"]))


def _own(stack: ExitStack, kind: type[Any]) -> Any:
    server = kind()
    stack.callback(server.close)
    return server


def run(
    asked: argparse.Namespace,
    every: dict[str, float],
    postgres: Postgres | None,
    redis: Redis | None,
) -> dict[str, Any]:
    """A storm on a new database, which is dropped at the end."""
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "WEBHOOKS_TEST_DB": asked.database,
        "WEBHOOKS_TEST_DB_NAME": "postgres" if postgres else f"webhooks_faults_{os.getpid()}",
    }
    for server in (postgres, redis):
        os.environ |= server.environ if server is not None else {}
    import django

    django.setup()
    # A broker that is away is what happens here all the time.
    for name in ("django-q", "webhooks"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    from django.db import connection, connections

    from tests.faults.storm import Storm

    made = connection.creation.create_test_db(verbosity=0, autoclobber=True)
    try:
        storm = Storm(
            seconds=60 * asked.minutes,
            faults=every,
            seed=asked.seed,
            workers=asked.workers,
            rate=asked.rate,
            lease=asked.lease,
            redis=redis,
            postgres=postgres,
        )
        storm.run()
        return {"database": asked.database, "seed": asked.seed, **storm.summary}
    finally:
        connections.close_all()
        connection.creation.destroy_test_db(made, verbosity=0)


if __name__ == "__main__":
    main()
