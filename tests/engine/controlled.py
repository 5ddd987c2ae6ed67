"""Time and a transport that a test controls: nothing sleeps, nothing leaves the process."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any
from unittest.mock import patch

from webhooks import clock as clock_module
from webhooks.engine.drain import Drain
from webhooks.models import Lane, Worker
from webhooks.transports.base import Request, Response, Transport


class Clock:
    """The database's time, as the test says it is."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def pass_(self, span: timedelta) -> None:
        self.now += span


@contextmanager
def controlled_clock(now: datetime) -> Iterator[Clock]:
    """Let every module of ours read this clock in place of the database's.

    It moves by microseconds as it is read, so that no two readings are the same.
    """
    clock = Clock(now)
    real = clock_module.db_now

    def read(using: str) -> datetime:
        clock.now += timedelta(microseconds=1)
        return clock.now

    def carried(self: Any) -> datetime:
        return read("")

    found = [m for n, m in list(sys.modules.items()) if n.startswith(("webhooks", "tests"))]
    patches = [patch.object(m, "db_now", read) for m in found if getattr(m, "db_now", None) is real]
    patches.append(patch.object(clock_module.Clock, "now", carried))
    for each in patches:
        each.start()
    try:
        yield clock
    finally:
        for each in patches:
            each.stop()


class Died(BaseException):
    """Stands for SIGKILL."""


class RecordingTransport(Transport):
    """Keeps what it is given and answers at once; dies where it is told to.

    fates: for each POST to come: an int is the status of its answer, ``before`` and ``after`` kill
    the process before it is sent, or after it and before the answer is recorded.
    """

    sent: list[Request] = []
    fates: list[Any] = []

    def __init__(self, *, concurrency: int) -> None:
        super().__init__(concurrency=concurrency)
        self._answers: list[tuple[Hashable, Response]] = []

    def start(self, tag: Hashable, request: Request) -> None:
        fate = self.fates.pop(0) if self.fates else 200
        if fate == "before":
            raise Died
        self.sent.append(request)
        if fate == "after":
            raise Died
        self._answers.append((tag, Response(status_code=fate, excerpt="", elapsed_ms=1.0)))

    def finished(self, timeout: float) -> list[tuple[Hashable, Response]]:
        if not self._answers:
            time.sleep(min(timeout, 0.001))
        answers, self._answers = self._answers, []
        return answers

    def close(self) -> None:
        self._answers.clear()


@contextmanager
def recording(settings: Any, **keys: Any) -> Iterator[type[RecordingTransport]]:
    path = f"{__name__}.RecordingTransport"
    settings.WEBHOOKS = {**settings.WEBHOOKS, "TRANSPORT": path, **keys}
    RecordingTransport.sent, RecordingTransport.fates = [], []
    yield RecordingTransport
    RecordingTransport.sent, RecordingTransport.fates = [], []


def deliver_or_die() -> bool:
    """As ``world.deliver``; where it is killed on the way, its leases are left. Did it live?"""
    from tests.world import deliver

    finish = Drain.finish

    def finish_alive(self: Drain) -> None:
        if not isinstance(sys.exception(), Died):
            finish(self)

    with patch.object(Drain, "finish", finish_alive):
        try:
            deliver()
        except Died:
            Worker.objects.all().delete()
            return False
    return True


def end_leases(now: datetime) -> None:
    """As if the leases of who died had run out."""
    past = now - timedelta(microseconds=1)
    Lane.objects.filter(token__isnull=False).update(token=None, lease_until=None, claim_at=past)


def bodies(sent: list[Request]) -> list[Any]:
    return [json.loads(request.body) for request in sent]
