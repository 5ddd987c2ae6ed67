"""A second thread for the database: it writes acknowledgements while the drain goes on.

On one core a drain waits for its database for a quarter of the time. What needs no lane's lock, no
decision and no order can be written meanwhile: acknowledgements are that, and nearly all results
are acknowledgements. Everything else is written by the drain's own thread.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connections

from webhooks.engine.recorder import Recorder, Result, Written

logger = logging.getLogger("webhooks")

#: Seconds that ``close`` waits for the thread, which has nothing to do by then.
CLOSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Taken:
    """What the thread gives back: the results it was given, and what became of them."""

    results: Sequence[Result]
    outcome: Written | Exception


class Writer:
    """One thread with a connection of its own, and one batch of acknowledgements at a time.

    results: what it was given and has not given back; they count as unwritten until then.
    """

    def __init__(self, using: str, recorder: Recorder) -> None:
        self.results: Sequence[Result] = ()
        self._using = using
        self._recorder = recorder
        self._inbox: queue.SimpleQueue[Sequence[Result] | None] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[Taken] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def is_free(self) -> bool:
        """Whether it may be given something. SQLite has one writer; and a transaction around the
        drain (a TestCase's) holds rows that no other connection sees."""
        connection: Any = connections[self._using]
        return not self.results and connection.vendor != "sqlite" and not connection.in_atomic_block

    def begin(self, acknowledged: Sequence[Result]) -> None:
        """Write these in one transaction, and return at once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="webhooks-writer", daemon=True)
            self._thread.start()
        self.results = acknowledged
        self._inbox.put(acknowledged)

    def take_back(self, wait: float = 0.0) -> Taken | None:
        """What it is done with, waiting up to ``wait`` seconds; None: nothing, or not yet."""
        if not self.results:
            return None
        try:
            taken = self._outbox.get(timeout=wait) if wait else self._outbox.get_nowait()
        except queue.Empty:
            return None
        self.results = ()
        return taken

    def close(self) -> None:
        """End the thread and its connection."""
        if self._thread is not None:
            self._inbox.put(None)
            self._thread.join(CLOSE_SECONDS)
            self._thread = None

    def _work(self) -> None:
        try:
            while (results := self._inbox.get()) is not None:
                try:
                    outcome: Written | Exception = self._recorder.record(results, (), ())
                except Exception as error:  # noqa: BLE001 - whoever takes them back decides
                    outcome = error
                self._outbox.put(Taken(results, outcome))
        finally:
            connections.close_all()  # this thread's alone
