"""A database of the benchmark's own, made by Django as for tests, and dropped at the end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

#: Set while there is a database of the benchmarks' own.
OWN = "WEBHOOKS_BENCHMARK_DATABASE"


def setup() -> None:
    """Set Django up, on the database that WEBHOOKS_TEST_DB_NAME names."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.benchmarks.settings"
    import django

    django.setup()


@contextmanager
def own_database() -> Iterator[str]:
    """Set Django up on a new, migrated database; yields its vendor. Import models after this.

    Inside another one that is the same database, emptied: migrating takes seconds.
    """
    if os.environ.get(OWN):
        setup()
        from django.db import connection

        empty()
        yield connection.vendor
        return
    os.environ["WEBHOOKS_TEST_DB_NAME"] = f"webhooks_benchmark_{os.getpid()}"
    # Told to stop, it still drops the database and stops what it started.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    setup()
    from django.db import connection, connections

    made = connection.creation.create_test_db(verbosity=0, autoclobber=True)
    # What the processes that are started from here work on.
    os.environ["WEBHOOKS_TEST_DB_NAME"] = os.environ[OWN] = made
    try:
        yield connection.vendor
    finally:
        del os.environ[OWN]
        connections.close_all()
        connection.creation.destroy_test_db(made, verbosity=0)


def empty() -> None:
    """Remove all rows of ours, so that each round begins with the same database."""
    from django.db import connection

    from webhooks.models import DeliveryAttempt, DeliveryStats, Event, Subscription

    if connection.vendor == "postgresql":
        tables = ", ".join(
            model._meta.db_table for model in (Event, Subscription, DeliveryAttempt, DeliveryStats)
        )
        with connection.cursor() as cursor:
            cursor.execute(f"TRUNCATE {tables} CASCADE")
        return
    for model in (DeliveryAttempt, DeliveryStats, Event, Subscription):
        model.objects.all().delete()


def analyze() -> None:
    """Let the database count its rows, as autovacuum would have in one that is older."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
