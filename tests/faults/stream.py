"""A stream of events, emitted as hosts do: with and without transactions, some rolled back."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Sequence

from django.db import connection, connections, transaction

from webhooks import emit
from webhooks.engine.transactions import DATABASE_ERRORS


class Rollback(Exception):
    """Thrown to take back what was written."""


class Stream(threading.Thread):
    """committed, taken_back: the ids of events whose commit was answered, or that were rolled back.

    Where the database broke in between, nobody knows but the database: what it holds must arrive.
    slowest: seconds that a group of events took at most, their commit included.
    """

    def __init__(self, requesters: Sequence[str], *, rate: float, seed: float) -> None:
        """rate: events a second."""
        super().__init__()
        self.committed: set[str] = set()
        self.taken_back: set[str] = set()
        self.slowest = 0.0
        self._requesters = requesters
        self._rate = rate
        self._rng = random.Random(seed)
        self._over = threading.Event()

    def end(self) -> None:
        self._over.set()
        if self.is_alive():
            self.join(90)

    def run(self) -> None:
        ways = (self.plain, self.atomic, self.savepoint, self.rollback)
        while not self._over.is_set():
            began = time.monotonic()
            count = self._rng.randint(1, 6)
            [way] = self._rng.choices(ways, (4, 4, 1, 1))
            written: list[str] = []
            kept: list[str] = []
            try:
                way(count, written, kept)
            except Rollback:
                self.taken_back |= set(written)
            except DATABASE_ERRORS:
                connection.close()
                self._over.wait(0.2)
            else:
                self.taken_back |= set(written) - set(kept)
                self.slowest = max(self.slowest, time.monotonic() - began)
            self.committed |= set(kept)
            self._over.wait(max(0.0, began + count / self._rate - time.monotonic()))
        connections.close_all()

    def emit(self, count: int, written: list[str]) -> None:
        for _ in range(count):
            note = "x" * self._rng.choice((0, 10, 2000))
            data = {"order": self._rng.randint(1, 10**6), "note": note}
            event = emit("order.paid", data, requester=self._rng.choice(self._requesters))
            written.append(event.pk)

    # Each notes in ``written`` what it wrote, and in ``kept`` what was committed.

    def plain(self, count: int, written: list[str], kept: list[str]) -> None:
        for _ in range(count):
            self.emit(1, written)
            kept.append(written[-1])

    def atomic(self, count: int, written: list[str], kept: list[str]) -> None:
        with transaction.atomic():
            self.emit(count, written)
        kept += written

    def savepoint(self, count: int, written: list[str], kept: list[str]) -> None:
        with transaction.atomic():
            self.emit(count, written)
            with contextlib.suppress(Rollback), transaction.atomic():
                self.emit(1, written)
                raise Rollback
        kept += written[:count]

    def rollback(self, count: int, written: list[str], kept: list[str]) -> None:
        with transaction.atomic():
            self.emit(count, written)
            raise Rollback
