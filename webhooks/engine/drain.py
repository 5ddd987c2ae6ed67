"""The drain: one worker's loop from the outbox to stored attempts.

It holds lanes and keeps POSTs in flight, refilling as answers arrive, so that a slow endpoint never
makes a batch wait. Whatever it has in memory may be lost at any moment: the rows say what is still
to be done, and leases give the lanes to somebody else.

Lanes are taken and given back in :mod:`holdings`; who may begin is decided in :mod:`shares` and
:mod:`pacing`, what an answer means in :mod:`outcome`, what follows in :mod:`retries`, and how it is
written in :mod:`recorder`.
"""

from __future__ import annotations

import logging
import random
import time
import uuid
from collections.abc import Callable
from datetime import timedelta

from django.db import DatabaseError, InterfaceError, OperationalError, connections

from webhooks.clock import Clock
from webhooks.conf import settings
from webhooks.engine import replays
from webhooks.engine.batches import Composer
from webhooks.engine.fanout import BUSY, IDLE, fan_out
from webhooks.engine.handshakes import Handshakes
from webhooks.engine.holdings import Holdings
from webhooks.engine.lanes import HeldLane, Job
from webhooks.engine.outcome import Verdict
from webhooks.engine.probes import Probes
from webhooks.engine.recorder import Recorder, Result, conclude
from webhooks.engine.shares import Shares
from webhooks.engine.transactions import DATABASE_ERRORS
from webhooks.engine.trials import SELDOM, Trials, Try
from webhooks.engine.wake import LINGER, POLL, wake
from webhooks.exceptions import IllegalStatusChange
from webhooks.lifecycle import change_status
from webhooks.models import Duty, Lane, Subscription, Worker
from webhooks.models.subscription import Status
from webhooks.transports.base import INVALID_REQUEST, Response, Transport

logger = logging.getLogger("webhooks")

#: Results are written when there are FLUSH_MAX of them, or after so many seconds.
FLUSH_SECONDS = 0.2
#: So often a holder looks for changes that people made, and shows that it lives.
CONTROL_SECONDS = 0.7
#: A POST begins only when its lane's lease lasts so much longer than the POST can, in seconds.
LEASE_MARGIN = 5.0
#: After the database refused to write, so many seconds pass before the next try.
WRITE_AGAIN = 1.0
#: After a step that the database refused, in seconds: it may be away.
RECOVERY = 0.5
#: An idle worker stays when a lane becomes due within so many seconds: the next sweep may be up to
#: 90 s away (a minute, and the scheduler's tick of 30 s).
HORIZON = 120.0
#: What a worker asks endpoints beside its deliveries.
KINDS = (Handshakes(), Probes())


class Drain:
    """One worker at work. Everything that touches the database happens in the calling thread."""

    def __init__(
        self,
        using: str,
        transport: Transport,
        *,
        worker: Worker,
        seconds: float | None,
        until_idle: bool = False,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """seconds: the length of the slice; None: until stopped. until_idle: leave when nothing is
        due, without lingering. should_stop: asked in every round; True: end what is begun, and go.
        """
        self.using = using
        self.transport = transport
        self.worker = worker
        self.token: uuid.UUID = worker.token
        self.until_idle = until_idle
        self.should_stop = should_stop
        self.clock = Clock(using)
        self.holdings = Holdings(using, self.token, self.clock, transport.concurrency)
        self.composer = Composer(self.holdings)
        self.shares = Shares(transport.concurrency)
        self.trials = Trials(using, self.token, self.clock, transport, KINDS)
        self.recorder = Recorder(using, self.token)
        self.rng = random.Random()  # noqa: S311
        self.results: list[Result] = []
        #: Results that the database refuses; they are tried again, apart from the others.
        self.refused: list[Result] = []
        self.in_flight = 0
        self.looked_in_vain = False
        self.in_grace = False
        self.handed_on = False
        self.recruited = False
        self.sitting = False
        now = time.monotonic()
        self.soft_end = now + seconds if seconds is not None else float("inf")
        self.idle_since = now
        self.next_look = now
        self.next_control = now
        self.next_flush = now
        self.next_replay = now
        self.replaying = False
        #: Results are left that wait for lanes which somebody has locked.
        self.waits_for_locks = False
        self.write_again_at = 0.0
        self.refused_again_at = 0.0

    def run(self) -> bool:
        """Work until the slice ends, all is idle, or somebody says stop; True: there is more."""
        try:
            while not self.is_over():
                self.round()
            sitting = self.sitting
        finally:
            self.finish()  # whatever went wrong: what was answered is written
        return sitting or self.something_is_ready()

    def something_is_ready(self) -> bool:
        """Whether there is work that nobody has taken."""
        return self.holdings.someone_is_ready() or self.trials.are_due()

    def round(self) -> None:
        self.take_steps(
            self.keep,
            self.look,
            self.holdings.refill,
            self.composer.compose,
            self.begin,
            lambda: self.take_in(self.patience()),
            self.flush,
        )

    def take_steps(self, *steps: Callable[[], object]) -> None:
        """Do one after the other, also when the database refuses one of them: what was answered
        must be written, and life be shown, although a look for more fails each time."""
        failed = False
        for step in steps:
            try:
                step()
            except DATABASE_ERRORS:
                logger.exception("The database did not do as it was asked; trying again.")
                connections[self.using].close_if_unusable_or_obsolete()
                failed = True
        if failed:
            time.sleep(RECOVERY)

    # The steps of a round

    def is_over(self) -> bool:
        now = time.monotonic()
        if self.should_stop():
            return True
        if now >= self.soft_end:
            return self.is_over_after_grace(now)
        if self.holdings or self.results or self.trials.is_busy:
            self.idle_since = now
            return False
        if self.until_idle:
            return self.looked_in_vain and not self.holdings.someone_is_ready()
        if now - self.idle_since < LINGER or self.soft_end == float("inf"):
            return False
        return not self.sit()

    def is_over_after_grace(self, now: float) -> bool:
        """Slow endpoints may hold this worker for a TIMEOUT after its slice. Fast lanes are served
        meanwhile; the slow ones, by whoever hears this."""
        if not self.in_grace:
            self.in_grace = True
            self.handed_on = self.waits_for_slow_ones()
            if self.handed_on:
                wake(force=True)
            self.holdings.let_slow_ones_go()
        in_time = now < self.soft_end + settings.TIMEOUT - 1
        return not (in_time and self.waits_for_slow_ones())

    def waits_for_slow_ones(self) -> bool:
        return self.holdings.waits_for_slow_ones() or self.trials.in_flight > 0

    def look(self) -> None:
        """Look for new events and ready lanes: at once while there are some, else every POLL."""
        now = time.monotonic()
        if now < self.next_look or now < self.write_again_at:
            return
        busy = self.in_flight or self.holdings.ready
        found = fan_out(self.using, room=BUSY if busy else IDLE)
        # Between two batches of a replay the others go on, where there are any.
        replaying = False
        if not busy or now >= self.next_replay:
            self.replaying = replaying = replays.advance(self.using)
            self.next_replay = time.monotonic() + (POLL if replaying else SELDOM)
        if self.replaying:
            self.idle_since = now  # a suspended lane's replay makes nothing that could be claimed
        claimed, more = self.holdings.claim(fast_only=self.in_grace)
        self.holdings.look_again()
        free = self.transport.concurrency - self.in_flight - self.trials.in_flight
        # Endpoints that nobody knows may be slow: they begin nothing in the grace.
        proving = not self.in_grace and self.trials.look(free)
        if not (found.more or more or replaying):
            self.next_look = now + POLL
            self.looked_in_vain = not (found.events or claimed or proving or self.replaying)

    def keep(self) -> None:
        """Show life, hear of changes, and give turns to others."""
        now = time.monotonic()
        if now < self.next_control:
            return
        self.clock.sync()
        workers = Worker.objects.using(self.using)
        shown = workers.filter(token=self.token).update(
            heartbeat_at=self.clock.now(),
            in_flight=self.in_flight + self.trials.in_flight,
            lanes=len(self.holdings.lanes),
        )
        if not shown:  # taken for dead while it was stopped; it lives
            workers.take_slot(self.token, None)
        if not self.holdings:
            self.next_control = now + CONTROL_SECONDS
            return
        self.next_control = self.holdings.hear() + CONTROL_SECONDS
        if self.holdings.someone_is_ready():
            self.holdings.give_turns()
            if self.holdings.eager() >= self.transport.concurrency and not self.recruited:
                self.recruit()

    def begin(self) -> None:
        """Begin POSTs: as many as slots, shares and unwritten results allow."""
        now = time.monotonic()
        slots = self.transport.concurrency
        unwritten = len(self.results) + len(self.refused)
        free = min(
            slots - self.in_flight - self.trials.in_flight,
            slots + settings.FLUSH_MAX - self.in_flight - unwritten,
        )
        if free <= 0 or not self.holdings.ready or now < self.write_again_at:
            return
        if now >= self.next_control + 0.3:
            return  # changes must be heard of first: nothing begins a second after a commit
        started_at = self.clock.now()
        safe = now + settings.TIMEOUT + LEASE_MARGIN
        for lane in self.shares.choose(
            self.holdings.ready,
            self.holdings.lanes.values(),
            free,
            now=now,
            slow_too=not self.in_grace,
        ):
            if lane.lease_end < safe:
                lane.leave()
            elif not lane.live_keys(started_at):
                lane.rest_unsigned(started_at)
            if not lane.buffer:
                continue
            if time.monotonic() > now + LEASE_MARGIN / 2:
                return  # this process was stopped for a while: look at everything again
            job = lane.begin(started_at, self.token)
            self.in_flight += 1
            self.shares.began(job)
            try:
                self.transport.start(job, lane.request(job))
            except Exception:
                # What cannot even be rendered fails like any other try, and harms nobody else.
                logger.exception("%s of %s cannot be sent", job.delivery.id, lane.id)
                detail = "The request could not be built from this subscription and event."
                self.end(job, Response(error_code=INVALID_REQUEST, error_detail=detail))

    def patience(self) -> float:
        """How long to wait for answers, in seconds: until there is something else to do."""
        now = time.monotonic()
        wait = self.next_look - now
        if self.results:
            # Nothing in flight: nothing more will come, so write now.
            later = self.in_flight or self.waits_for_locks
            wait = min(wait, self.next_flush - now) if later else 0.0
        if self.holdings.ends_more() or self.composer.has_more():
            wait = 0.0
        if now < self.write_again_at:
            wait = POLL
        return max(0.0, wait)

    def take_in(self, wait: float) -> None:
        """Take in the answers that came, and wait up to ``wait`` seconds for the first."""
        for tag, response in self.transport.finished(wait):
            # The transport is the process's: it may still hold what an earlier drain gave up.
            if isinstance(tag, Job) and tag.holder == self.token:
                self.end(tag, response)
            elif isinstance(tag, Try) and tag.holder == self.token:
                self.trials.end(tag, response)

    def end(self, job: Job, response: Response) -> None:
        """Judge an answer, and keep the result for the next flush."""
        self.in_flight -= 1
        if response.status_code == 410 or response.retry_after:
            self.hear_at_once()  # it may end or rest the whole lane
        lane = self.holdings.lanes[job.lane_id]
        self.shares.ended(job)
        flush_at = time.monotonic() + FLUSH_SECONDS
        self.next_flush = min(self.next_flush, flush_at) if self.results else flush_at
        self.results.append(conclude(lane, job, response, self.clock, self.rng))

    def hear_at_once(self) -> None:
        """Hear of changes now: what was answered may be another endpoint's than the present one."""
        try:
            self.holdings.hear()
        except DATABASE_ERRORS:
            logger.exception("Changes could not be heard of; going by what is known.")

    def flush(self, *, final: bool = False) -> None:
        """Write results when there are enough, when the oldest waits too long, or when nothing else
        is up; and let go of the lanes that are done then."""
        now = time.monotonic()
        if now < self.write_again_at:
            return
        if self.refused and now >= self.refused_again_at:
            self.results = self.refused + self.results
            self.refused = []
        enough = len(self.results) >= settings.FLUSH_MAX
        is_due = enough or now >= self.next_flush or not self.in_flight or final
        batch = self.results if is_due else []
        done = self.holdings.done_after({result.job.delivery.id for result in batch})
        if batch or done:
            self.write(batch, done)

    # Writing

    def write(self, batch: list[Result], done: list[HeldLane]) -> None:
        """Write and let go. What the database does not take is kept, and written again later."""
        try:
            self.write_together(batch, done)
        except (OperationalError, InterfaceError):
            self.write_again_at = time.monotonic() + WRITE_AGAIN
            logger.exception("%d results could not be written; trying again.", len(batch))
        except DatabaseError:
            logger.exception("%d results were refused; writing lane by lane.", len(batch))
            self.write_apart(batch, done)

    def write_apart(self, batch: list[Result], done: list[HeldLane]) -> None:
        """Find the lanes whose rows the database refuses, and let all others go on.

        Those begin nothing more: what cannot be recorded is sent once for each lease at most. Their
        results are tried again after a while.
        """
        self.refused_again_at = time.monotonic() + WRITE_AGAIN
        for pk in {result.job.lane_id for result in batch}:
            lane = self.holdings.lanes[pk]
            own = [result for result in batch if result.job.lane_id == pk]
            try:
                self.write_together(own, [lane] if lane in done else [])
            except DATABASE_ERRORS:
                lane.leave()
                self.refused += own
                self.results = [result for result in self.results if result not in own]

    def write_together(self, batch: list[Result], done: list[HeldLane]) -> None:
        paced = [lane for lane in self.holdings.lanes.values() if lane.paced]
        written = self.recorder.write(batch, paced, done)
        ids = set(map(id, written.results))
        self.results = [result for result in self.results if id(result) not in ids]
        if batch:
            self.waits_for_locks = any(result.job.lane_id in written.busy for result in batch)
            if self.waits_for_locks:
                self.next_flush = time.monotonic() + POLL
        for result in written.results:
            self.holdings.lanes[result.job.lane_id].open.discard(result.job.delivery.id)
        self.holdings.freed([lane for lane in done if lane.id not in written.busy])
        self.holdings.lose(written.lost & self.holdings.lanes.keys())
        gone = [each.job for each in written.results if each.outcome.verdict is Verdict.GONE]
        for pk, url in {(job.lane_id, job.url) for job in gone}:
            self.unsubscribe(pk, url)

    def unsubscribe(self, subscription_id: str, url: str) -> None:
        """The endpoint answered ``410 Gone``; url: which one."""
        found = Subscription.objects.using(self.using).filter(pk=subscription_id, callback_url=url)
        subscription = found.first()
        if subscription is None:
            return
        try:
            change_status(subscription, Status.UNSUBSCRIBED, reason="gone")
        except (IllegalStatusChange, Subscription.DoesNotExist):
            logger.info("%s answered 410 Gone, but had ended already.", subscription_id)

    # Coming and going

    def recruit(self) -> None:
        """Call another worker, once in a slice: there is more than this one can take."""
        self.recruited = True
        alive = Worker.objects.using(self.using).alive(self.clock.now()).count()
        if alive < settings.WORKERS:
            wake()

    def sit(self) -> bool:
        """Whether this idle worker stays, because it is the one that waits for retries."""
        moments = (Lane.objects.using(self.using).next_claim_at(), self.trials.next_at())
        soon = self.clock.now() + timedelta(seconds=HORIZON)
        if not any(moment is not None and moment <= soon for moment in moments):
            self.sitting = False
            return False
        self.sitting = Duty.objects.using(self.using).assume(
            Duty.Name.SITTER, self.token, seconds=10 * POLL + 1
        )
        self.idle_since = time.monotonic() - LINGER + 5 * POLL  # ask again then
        return self.sitting

    def finish(self) -> None:
        """End what is in flight, write it, and give every lane back."""
        self.holdings.let_all_go()
        deadline = time.monotonic() + settings.TIMEOUT + LEASE_MARGIN
        while time.monotonic() < deadline and (
            self.in_flight or self.holdings or self.trials.is_busy
        ):
            wait = 0.1 if self.in_flight or self.trials.is_busy else 0.0
            self.take_steps(
                lambda wait=wait: self.take_in(wait),  # type: ignore[misc]
                lambda: self.flush(final=not self.in_flight),
                self.trials.settle,
            )
            if self.refused or time.monotonic() < self.write_again_at:
                time.sleep(0.1)
        if self.results or self.refused:
            logger.error(
                "%d results could not be written; their deliveries are sent again when the leases "
                "end.",
                len(self.results) + len(self.refused),
            )
        if self.sitting:
            Duty.objects.using(self.using).relieve(Duty.Name.SITTER, self.token)
