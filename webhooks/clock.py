"""What time it is, as the database sees it.

Leases and due times are compared by many processes on many machines, so they all come from one
clock: the database's. SQLite has none of its own; its machine's is the same for all.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from django.db import connections
from django.utils import timezone


def db_now(using: str) -> datetime:
    """The database's present time, aware, in UTC. Not frozen at the start of a transaction."""
    connection = connections[using]
    if connection.vendor == "sqlite":
        return timezone.now()
    # MariaDB's NOW() is in the session's zone, and without (6) it is cut to whole seconds.
    sql = "UTC_TIMESTAMP(6)" if connection.vendor == "mysql" else "clock_timestamp()"
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {sql}")
        value: datetime = cursor.fetchone()[0]
    if value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    return value.astimezone(UTC)


class Clock:
    """The database's time without a statement for each look: read once, then carried forward.

    The machine's monotonic clock carries it, so it never jumps when the system's time is set.
    """

    def __init__(self, using: str) -> None:
        self._using = using
        self.sync()

    def sync(self) -> None:
        """Read the database's clock again."""
        self._read = db_now(self._using)
        # Read after it: so it may lag by the time of the answer, but nothing is ever begun early,
        # and no later reading lies before this one.
        self._monotonic = time.monotonic()

    def now(self) -> datetime:
        return self._read + timedelta(seconds=time.monotonic() - self._monotonic)
