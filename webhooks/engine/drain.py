"""The drain: one worker's loop from the outbox to stored attempts.

It holds lanes and keeps POSTs in flight, refilling as answers arrive, so that a slow endpoint never
makes a batch wait. Whatever it has in memory may be lost at any moment: the rows say what is still
to be done, and leases give the lanes to somebody else.

Lanes are taken and given back in :mod:`holdings`; who may begin is decided in :mod:`shares` and
:mod:`pacing`, what an answer means in :mod:`outcome`, what follows in :mod:`retries`; when it is
written in :mod:`flushing`, and how in :mod:`recorder`.
"""

from __future__ import annotations

import logging
import random
import time
import uuid
from collections.abc import Callable
from datetime import timedelta

from django.db import connections

from webhooks.clock import Clock
from webhooks.conf import settings
from webhooks.engine import replays
from webhooks.engine.batches import Composer
from webhooks.engine.fanout import BUSY, IDLE, FannedOut, fan_out
from webhooks.engine.flushing import Flusher
from webhooks.engine.handshakes import Handshakes
from webhooks.engine.holdings import Holdings
from webhooks.engine.lanes import Job
from webhooks.engine.outcome import concerns_lane
from webhooks.engine.probes import Probes
from webhooks.engine.recorder import conclude
from webhooks.engine.shares import Shares
from webhooks.engine.transactions import DATABASE_ERRORS
from webhooks.engine.trials import SELDOM, Trials, Try
from webhooks.engine.wake import LINGER, POLL, wake
from webhooks.models import Duty, Lane, Worker
from webhooks.transports.base import INVALID_REQUEST, Response, Transport

logger = logging.getLogger("webhooks")

#: So often a holder looks for changes that people made, and shows that it lives.
CONTROL_SECONDS = 0.7
#: A POST begins only when its lane's lease lasts so much longer than the POST can, in seconds.
LEASE_MARGIN = 5.0
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
        self.flusher = Flusher(using, self.token, self.holdings)
        self.rng = random.Random()  # noqa: S311
        self.in_flight = 0
        #: Whether anything began in this round; whether changes were heard of after its answers.
        self.began = self.heard = False
        self.looked_in_vain = False
        self.in_grace = False
        self.handed_on = False
        self.recruited = False
        self.sitting = False
        now = time.monotonic()
        self.soft_end = now + seconds if seconds is not None else float("inf")
        self.idle_since = now
        self.next_look = self.next_whole_look = now
        #: The last claim left some.
        self.more_lanes = False
        self.next_control = now
        self.next_replay = now
        self.replaying = False

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
            lambda: self.flusher.flush(idle=not self.in_flight and not self.began),
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
        if self.holdings or self.flusher.unwritten or self.trials.is_busy:
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
        if self.flusher.is_stopped or (now < self.next_look and not self.holdings.runs_dry()):
            return
        busy = self.in_flight or self.holdings.ready
        # While lanes are claimed in one look after the other, events wait for their turn.
        whole = now >= self.next_whole_look or not self.more_lanes
        found = FannedOut()
        if whole:
            found = fan_out(self.using, room=BUSY if busy else IDLE)
            self.next_whole_look = now if found.more else now + POLL
        # Between two batches of a replay the others go on, where there are any.
        replaying = False
        if not busy or now >= self.next_replay:
            self.replaying = replaying = replays.advance(self.using)
            self.next_replay = time.monotonic() + (POLL if replaying else SELDOM)
        if self.replaying:
            self.idle_since = now  # a suspended lane's replay makes nothing that could be claimed
        claimed, more = self.holdings.claim(fast_only=self.in_grace, sure=self.more_lanes)
        self.more_lanes = more or self.holdings.has_plenty
        self.holdings.look_again()
        free = self.transport.concurrency - self.in_flight - self.trials.in_flight
        # Endpoints that nobody knows may be slow: they begin nothing in the grace.
        proving = not self.in_grace and self.trials.look(free)
        if whole and not (found.more or more or replaying):
            self.next_look = now + POLL
            self.looked_in_vain = not (found.events or claimed or proving or self.replaying)
        else:
            self.looked_in_vain = False

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
        self.began = False
        now = time.monotonic()
        slots = self.transport.concurrency
        free = min(
            slots - self.in_flight - self.trials.in_flight,
            slots + settings.FLUSH_MAX - self.in_flight - self.flusher.unwritten,
        )
        if free <= 0 or not self.holdings.ready or self.flusher.is_stopped:
            return
        if now >= self.next_control + 0.3:
            return  # changes must be heard of first: nothing begins a second after a commit
        started_at = self.clock.now()
        timeout = float(settings.TIMEOUT)
        safe = now + timeout + LEASE_MARGIN
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
            self.began = True
            self.in_flight += 1
            self.shares.began(job)
            try:
                self.transport.start(job, lane.request(job, timeout))
            except Exception:
                # What cannot even be rendered fails like any other try, and harms nobody else.
                logger.exception("%s of %s cannot be sent", job.delivery.id, lane.id)
                detail = "The request could not be built from this subscription and event."
                self.end(job, Response(error_code=INVALID_REQUEST, error_detail=detail))

    def patience(self) -> float:
        """How long to wait for answers, in seconds: until there is something else to do."""
        if self.flusher.is_stopped:
            return POLL
        if self.holdings.ends_more() or self.composer.has_more():
            return 0.0
        until_look = self.next_look - time.monotonic()
        return max(0.0, min(until_look, self.flusher.patience(self.in_flight)))

    def take_in(self, wait: float) -> None:
        """Take in the answers that came, and wait up to ``wait`` seconds for the first."""
        self.heard = False
        for tag, response in self.transport.finished(wait):
            # The transport is the process's: it may still hold what an earlier drain gave up.
            if isinstance(tag, Job) and tag.holder == self.token:
                self.end(tag, response)
            elif isinstance(tag, Try) and tag.holder == self.token:
                self.trials.end(tag, response)

    def end(self, job: Job, response: Response) -> None:
        """Judge an answer, and keep the result for the next flush."""
        self.in_flight -= 1
        if not self.heard and concerns_lane(response, self.clock.now()):
            self.hear_at_once()
        lane = self.holdings.lanes[job.lane_id]
        self.shares.ended(job)
        self.flusher.add(conclude(lane, job, response, self.clock, self.rng))

    def hear_at_once(self) -> None:
        """Hear of changes now: what was answered may be another endpoint's than the present one.

        Once for all answers that came together.
        """
        self.heard = True
        try:
            self.holdings.hear()
        except DATABASE_ERRORS:
            logger.exception("Changes could not be heard of; going by what is known.")

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
        try:
            self.end_what_is_open()
        finally:
            self.flusher.close()
        if self.sitting:
            Duty.objects.using(self.using).relieve(Duty.Name.SITTER, self.token)

    def end_what_is_open(self) -> None:
        self.holdings.let_all_go()
        deadline = time.monotonic() + settings.TIMEOUT + LEASE_MARGIN
        while time.monotonic() < deadline and (
            self.in_flight or self.holdings or self.trials.is_busy
        ):
            wait = 0.1 if self.in_flight or self.trials.is_busy else 0.0
            self.take_steps(
                lambda wait=wait: self.take_in(wait),  # type: ignore[misc]
                lambda: self.flusher.flush(idle=not self.in_flight, final=not self.in_flight),
                self.trials.settle,
            )
            if self.flusher.is_stuck:
                time.sleep(0.1)
            elif self.holdings and not self.in_flight:
                time.sleep(0.02)  # somebody has a lane locked
