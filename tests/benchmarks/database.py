"""A database of the benchmark's own, made by Django as for tests, and dropped at the end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def own_database() -> Iterator[str]:
    """Set Django up on a new, migrated database; yields its vendor. Import models after this."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.benchmarks.settings"
    os.environ["WEBHOOKS_TEST_DB_NAME"] = f"webhooks_benchmark_{os.getpid()}"
    # Told to stop, it still drops the database and stops what it started.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    import django

    django.setup()
    from django.db import connection, connections

    made = connection.creation.create_test_db(verbosity=0, autoclobber=True)
    # What the processes that are started from here work on.
    os.environ["WEBHOOKS_TEST_DB_NAME"] = made
    try:
        yield connection.vendor
    finally:
        connections.close_all()
        connection.creation.destroy_test_db(made, verbosity=0)
