"""One worker process as it is measured: seconds, CPU here and in the database, statements, memory.

The functions are called through :mod:`child`, each in a process of its own.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

from tests.benchmarks.database import analyze, setup
from tests.benchmarks.harness import Meter, memory, other_cores, pin, served_by


def until_idle() -> dict[str, Any]:
    """Fan out what waits, then deliver all that is due; what each of the two cost."""
    setup()
    from webhooks.engine.worker import transport, work

    transport()  # its imports are no part of what is measured
    fanned_out = fan_out_all()
    analyze()
    with measured() as found:
        work(seconds=None, slots=None, until_idle=True, should_stop=lambda: False)
    return found | {"fan_out": fanned_out}


def from_then_on(begin: float) -> dict[str, Any]:
    """From a moment on (``time.time()``), deliver all that is due, beside other workers."""
    setup()
    from webhooks.engine.worker import transport, work

    transport()
    with measured(pinned=False) as found:
        time.sleep(max(0.0, begin - time.time()))
        work(seconds=None, slots=None, until_idle=True, should_stop=lambda: False)
        found["ended"] = time.time()
    return found


def fan_out_all() -> dict[str, Any]:
    """Fan out until the outbox is empty."""
    setup()
    from webhooks.engine.fanout import fan_out
    from webhooks.models import Duty

    Duty.objects.ensure()
    with measured() as found:
        while fan_out("default").more:
            pass
    return found


def for_seconds(seconds: float) -> dict[str, Any]:
    """Deliver for so long and give everything back; what is due meanwhile need not end.

    claims, refills: seconds of each time that the worker asked for lanes, and for what is due.
    """
    setup()
    from webhooks.engine.worker import transport, work
    from webhooks.models.delivery import DeliveryQuerySet
    from webhooks.models.lane import LaneQuerySet

    transport()
    end = time.monotonic() + seconds
    with (
        _timed(LaneQuerySet, "claim") as claims,
        _timed(DeliveryQuerySet, "due") as refills,
        measured() as found,
    ):
        work(seconds=None, slots=None, should_stop=lambda: time.monotonic() >= end)
    return found | {"claims": claims, "refills": refills}


def until_told() -> dict[str, Any]:
    """Deliver until SIGTERM, as ``webhooks_worker`` does."""
    setup()
    from webhooks.engine.worker import stopping_on, work

    with stopping_on(signal.SIGTERM) as stop, measured() as found:
        work(seconds=None, slots=None, should_stop=stop)
    return found


@contextmanager
def measured(*, pinned: bool = True) -> Iterator[dict[str, Any]]:
    """Fill a dict with what the context cost, when it ends.

    seconds; cpu: seconds of this process; server: seconds of the PostgreSQL processes that serve it
    (None elsewhere); statements: how many it sent, but for COPY, BEGIN and COMMIT, which Django
    does not show; before, after: MiB of memory.

    pinned: the servers run where this process does not.
    """
    from django.db import connection

    connection.ensure_connection()
    found: dict[str, Any] = {"before": memory()}
    with Served(pinned) as served, Meter() as meter:
        served.watch(connection)
        yield found
    found |= {"seconds": meter.seconds, "cpu": meter.cpu, "after": memory()}
    found |= {"server": served.seconds, "statements": served.statements}


class Served:
    """What all connections of this process cost their PostgreSQL processes, while it lasts.

    seconds: None where there is no such process on this machine.
    """

    def __init__(self, pinned: bool) -> None:
        self.statements = 0
        self._pinned = pinned
        self.seconds: float | None = None
        #: Connections by identity, their server's pid, and its seconds as the watch began.
        self._open: dict[int, tuple[Any, int, float]] = {}

    def __enter__(self) -> Self:
        from django.db.backends.base.base import BaseDatabaseWrapper
        from django.db.backends.signals import connection_created

        connection_created.connect(self._created)
        plain = BaseDatabaseWrapper.close

        def close(connection: Any) -> None:
            self._ended(connection)
            plain(connection)

        self._patch = patch.object(BaseDatabaseWrapper, "close", close)
        self._patch.start()
        return self

    def __exit__(self, *exception: object) -> None:
        from django.db.backends.signals import connection_created

        connection_created.disconnect(self._created)
        self._patch.stop()
        for connection, _pid, _since in list(self._open.values()):
            self._ended(connection)
            connection.execute_wrappers.remove(self._count)

    def watch(self, connection: Any) -> None:
        connection.execute_wrappers.append(self._count)
        if pid := server_process(connection):
            if self._pinned:
                pin(pid, other_cores())
            self._open[id(connection)] = (connection, pid, served_by(pid))
            self.seconds = self.seconds or 0.0

    def _created(self, connection: Any, **named: Any) -> None:
        self.watch(connection)

    def _ended(self, connection: Any) -> None:
        _, pid, since = self._open.pop(id(connection), (None, 0, 0.0))
        if pid:
            self.seconds = (self.seconds or 0.0) + served_by(pid) - since

    def _count(self, execute: Callable[..., Any], *arguments: Any) -> Any:
        self.statements += 1
        return execute(*arguments)


@contextmanager
def _timed(owner: type, name: str) -> Iterator[list[float]]:
    """The seconds of each call of a method."""
    plain = getattr(owner, name)
    seconds: list[float] = []

    def timed(*arguments: Any, **named: Any) -> Any:
        began = time.perf_counter()
        try:
            return plain(*arguments, **named)
        finally:
            seconds.append(time.perf_counter() - began)

    with patch.object(owner, name, timed):
        yield seconds


def server_process(connection: Any) -> int | None:
    """The pid of the PostgreSQL process that serves us; None where it is not on this machine."""
    if connection.vendor != "postgresql":
        return None
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        pid: int = cursor.fetchone()[0]
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return None
    return pid if command.startswith(b"postgres:") and pid != os.getpid() else None
