"""Flushing: when results are written, together or apart, and what becomes of refused ones.

What is written, and how, is the :mod:`recorder`'s. A result stays in memory until a transaction
that holds it was committed, whatever the database did meanwhile.
"""

from __future__ import annotations

import logging
import time
from uuid import UUID

from django.db import DatabaseError, InterfaceError, OperationalError

from webhooks.conf import settings
from webhooks.engine.holdings import Holdings
from webhooks.engine.lanes import HeldLane
from webhooks.engine.outcome import Verdict
from webhooks.engine.recorder import Recorder, Result
from webhooks.engine.transactions import DATABASE_ERRORS
from webhooks.engine.wake import POLL
from webhooks.exceptions import IllegalStatusChange
from webhooks.lifecycle import change_status
from webhooks.models import Subscription
from webhooks.models.subscription import Status

logger = logging.getLogger("webhooks")

#: Results are written when there are FLUSH_MAX of them, or after so many seconds.
FLUSH_SECONDS = 0.2
#: Lanes that are done without a result go back so many seconds later at most.
LET_GO = 0.02
#: After the database refused to write, so many seconds pass before the next try.
WRITE_AGAIN = 1.0


class Flusher:
    """The results of one drain on their way into the database."""

    def __init__(self, using: str, token: UUID, holdings: Holdings) -> None:
        self._using = using
        self._holdings = holdings
        self._recorder = Recorder(using, token)
        self._results: list[Result] = []
        #: Results that the database refuses; they are tried again, apart from the others.
        self._refused: list[Result] = []
        self._next_flush = time.monotonic()
        #: Results are left that wait for lanes which somebody has locked.
        self._waits_for_locks = False
        self._let_go_at = 0.0
        self._write_again_at = 0.0
        self._refused_again_at = 0.0

    @property
    def unwritten(self) -> int:
        """Results that are lost, and their POSTs sent again, if this process dies now."""
        return len(self._results) + len(self._refused)

    @property
    def is_stopped(self) -> bool:
        """Whether the database has just refused to write: nothing more begins for a while."""
        return time.monotonic() < self._write_again_at

    @property
    def is_stuck(self) -> bool:
        """Whether there is something that the database does not take."""
        return bool(self._refused) or self.is_stopped

    def add(self, result: Result) -> None:
        flush_at = time.monotonic() + FLUSH_SECONDS
        self._next_flush = min(self._next_flush, flush_at) if self._results else flush_at
        self._results.append(result)

    def patience(self, in_flight: int) -> float:
        """How long its drain may wait for answers, in seconds."""
        if not self._results:
            return float("inf")
        # Nothing in flight: nothing more will come, so write now.
        later = in_flight or self._waits_for_locks
        return self._next_flush - time.monotonic() if later else 0.0

    def flush(self, *, idle: bool, final: bool = False) -> None:
        """Write results when there are enough, when the oldest waits too long, or when nothing else
        is up; and let go of the lanes that are done then.

        idle: nothing is in flight, and nothing began in this round. A quick receiver has answered
        all that began before this is called: written then, each round would be a transaction.
        """
        now = time.monotonic()
        if now < self._write_again_at:
            return
        if self._refused and now >= self._refused_again_at:
            self._results = self._refused + self._results
            self._refused = []
        enough = len(self._results) >= settings.FLUSH_MAX
        idle = idle and not self._waits_for_locks
        is_due = enough or now >= self._next_flush or idle or final
        batch = self._results if is_due else []
        if not (batch or idle) and now < self._let_go_at:
            return
        self._let_go_at = now + LET_GO
        done = self._holdings.done_after({result.job.delivery.id for result in batch})
        if batch or done:
            self._write(batch, done)

    def close(self) -> None:
        """Say what could not be written."""
        if self.unwritten:
            logger.error(
                "%d results could not be written; their deliveries are sent again when the leases "
                "end.",
                self.unwritten,
            )

    def _write(self, batch: list[Result], done: list[HeldLane]) -> None:
        """Write and let go. What the database does not take is kept, and written again later."""
        try:
            self._write_together(batch, done)
        except (OperationalError, InterfaceError):
            self._write_again_at = time.monotonic() + WRITE_AGAIN
            logger.exception("%d results could not be written; trying again.", len(batch))
        except DatabaseError:
            logger.exception("%d results were refused; writing lane by lane.", len(batch))
            self._write_apart(batch, done)

    def _write_apart(self, batch: list[Result], done: list[HeldLane]) -> None:
        """Find the lanes whose rows the database refuses, and let all others go on.

        Those begin nothing more: what cannot be recorded is sent once for each lease at most. Their
        results are tried again after a while.
        """
        self._refused_again_at = time.monotonic() + WRITE_AGAIN
        for pk in {result.job.lane_id for result in batch}:
            lane = self._holdings.lanes[pk]
            own = [result for result in batch if result.job.lane_id == pk]
            try:
                self._write_together(own, [lane] if lane in done else [])
            except DATABASE_ERRORS:
                lane.leave()
                self._refused += own
                self._results = [result for result in self._results if result not in own]

    def _write_together(self, batch: list[Result], done: list[HeldLane]) -> None:
        paced = [lane for lane in self._holdings.lanes.values() if lane.paced]
        written = self._recorder.write(batch, paced, done)
        ids = set(map(id, written.results))
        self._results = [result for result in self._results if id(result) not in ids]
        if batch:
            self._waits_for_locks = any(result.job.lane_id in written.busy for result in batch)
            if self._waits_for_locks:
                self._next_flush = time.monotonic() + POLL
        for result in written.results:
            self._holdings.lanes[result.job.lane_id].open.discard(result.job.delivery.id)
        self._holdings.freed([lane for lane in done if lane.id not in written.busy])
        self._holdings.lose(written.lost & self._holdings.lanes.keys())
        gone = [each.job for each in written.results if each.outcome.verdict is Verdict.GONE]
        for pk, url in {(job.lane_id, job.url) for job in gone}:
            self._unsubscribe(pk, url)

    def _unsubscribe(self, subscription_id: str, url: str) -> None:
        """The endpoint answered ``410 Gone``; url: which one."""
        found = Subscription.objects.using(self._using).filter(pk=subscription_id, callback_url=url)
        subscription = found.first()
        if subscription is None:
            return
        try:
            change_status(subscription, Status.UNSUBSCRIBED, reason="gone")
        except (IllegalStatusChange, Subscription.DoesNotExist):
            logger.info("%s answered 410 Gone, but had ended already.", subscription_id)
