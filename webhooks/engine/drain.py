"""The drain: one worker's loop from the outbox to stored attempts.

It holds lanes and keeps POSTs in flight, refilling as answers arrive, so that a slow endpoint never
makes a batch wait. Whatever it has in memory may be lost at any moment: the rows say what is still
to be done, and leases give the lanes to somebody else.

Who may begin is decided in :mod:`pacing`, what an answer means in :mod:`outcome`, what follows in
:mod:`retries`, and how it is written in :mod:`recorder`.
"""

from __future__ import annotations

import logging
import random
import time
import uuid
from collections import deque
from collections.abc import Callable
from datetime import timedelta

from django.db import DatabaseError, InterfaceError, OperationalError, connections

from webhooks.clock import Clock
from webhooks.conf import settings
from webhooks.engine import lanes as leases
from webhooks.engine.fanout import BUSY, IDLE, fan_out
from webhooks.engine.lanes import HeldLane, Job
from webhooks.engine.outcome import Verdict
from webhooks.engine.pacing import Shares
from webhooks.engine.recorder import Recorder, Result, conclude
from webhooks.engine.wake import LINGER, POLL, wake
from webhooks.exceptions import IllegalStatusChange
from webhooks.lifecycle import change_status
from webhooks.models import Delivery, Duty, Event, Lane, Subscription, Worker
from webhooks.models.delivery import State
from webhooks.models.subscription import Status
from webhooks.transports.base import INVALID_REQUEST, Response, Transport

logger = logging.getLogger("webhooks")

#: Results are written when there are FLUSH_MAX of them, or after so many seconds.
FLUSH_SECONDS = 0.2
#: Lanes held at once. Many may hang; those behind them must not wait for that.
HELD = 1024
#: A lane goes back after so many deliveries or seconds when others are ready.
TURN_DELIVERIES, TURN_SECONDS = 500, 5.0
#: So often a holder looks for changes that people made, and shows that it lives.
CONTROL_SECONDS = 0.7
#: A POST begins only when its lane's lease lasts so much longer than the POST can.
LEASE_MARGIN = 5.0
#: A refill reads about so many bytes of payloads, and at most so many deliveries.
REFILL_BYTES, REFILL_MAX = 8 * 1024 * 1024, 512
#: An idle worker stays when a lane becomes due within so many seconds: the next sweep may be up to
#: 90 s away (a minute, and the scheduler's tick of 30 s).
HORIZON = 120.0
#: Pending deliveries of an unsubscribed lane are cancelled in batches of this size.
CANCEL_BATCH = 1000


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
        self.recorder = Recorder(using, self.token)
        self.shares = Shares(transport.concurrency)
        self.rng = random.Random()  # noqa: S311
        self.held: dict[str, HeldLane] = {}
        self.ready: deque[HeldLane] = deque()
        self.results: list[Result] = []
        self.in_flight = 0
        self.payload_bytes = 1024.0
        self.looked_in_vain = False
        self.in_grace = False
        self.sitting = False
        now = time.monotonic()
        self.soft_end = now + seconds if seconds is not None else float("inf")
        self.idle_since = now
        self.next_look = now
        self.next_control = now
        self.next_flush = now
        self.write_again_at = 0.0
        self.renew_at = now + settings.LEASE_SECONDS / 3

    def run(self) -> bool:
        """Work until the slice ends, all is idle, or somebody says stop; True: there is more."""
        while not self.is_over():
            try:
                self.look()
                self.keep()
                self.refill()
                self.begin()
                self.gather()
                self.flush()
            except (OperationalError, InterfaceError):
                self.recover()
        sitting = self.sitting
        self.finish()
        return sitting or self.someone_is_ready()

    # Rounds of the loop

    def is_over(self) -> bool:
        now = time.monotonic()
        if self.should_stop():
            return True
        if now >= self.soft_end:
            # Slow endpoints may hold this worker for a TIMEOUT yet; fast lanes are served
            # meanwhile, and the slow ones by whoever hears this.
            if not self.in_grace:
                self.in_grace = True
                wake(force=True)
                for lane in self.held.values():
                    if lane.is_slow(now):
                        lane.leave()
            return now >= self.soft_end + settings.TIMEOUT - 1 or not self.in_flight
        if self.held or self.results:
            self.idle_since = now
            return False
        if self.until_idle:
            return self.looked_in_vain
        if now - self.idle_since < LINGER or self.soft_end == float("inf"):
            return False
        return not self.sit()

    def look(self) -> None:
        """Look for new events and ready lanes: at once while there are some, else every POLL."""
        now = time.monotonic()
        if now < self.next_look or self.write_again_at > now:
            return
        found = fan_out(self.using, room=BUSY if self.in_flight or self.ready else IDLE)
        room = min(2 * self.shares.slots, HELD - len(self.held))
        claimed: list[HeldLane] = []
        if len(self.ready) < self.shares.slots and room > 0:
            claimed = leases.claim(
                self.using,
                self.token,
                limit=room,
                now=self.clock.now(),
                fast_only=self.in_grace,
            )
            self.held.update((lane.id, lane) for lane in claimed)
        for lane in self.held.values():
            if lane.open:
                lane.read_out = False  # look again for what came since
        if found.more or (claimed and len(claimed) == room):
            return
        self.next_look = now + POLL
        self.looked_in_vain = not (found.events or claimed or self.someone_is_ready())

    def recover(self) -> None:
        """The database is away or restarting: what is in memory is kept until it answers."""
        logger.exception("The database does not answer; trying again.")
        connections[self.using].close_if_unusable_or_obsolete()
        time.sleep(0.5)

    def keep(self) -> None:
        """Hear of changes, show life, renew leases, and give turns to others."""
        now = time.monotonic()
        if now < self.next_control:
            return
        self.next_control = now + CONTROL_SECONDS
        self.clock.sync()
        Worker.objects.using(self.using).filter(pk=self.worker.pk).update(
            heartbeat_at=self.clock.now(), in_flight=self.in_flight, lanes=len(self.held)
        )
        if not self.held:
            return
        if now >= self.renew_at:
            leases.renew(self.using, self.token, list(self.held.values()))
            self.renew_at = now + settings.LEASE_SECONDS / 3
        controls = Lane.objects.using(self.using).controls(self.token)
        changed = []
        for lane in list(self.held.values()):
            if lane.id not in controls:
                self.lose(lane)
            elif controls[lane.id] != lane.control:
                changed.append(lane)
        if changed:
            leases.reload(self.using, self.token, changed, self.clock.now())
        if self.someone_is_ready():
            self.give_turns(now)

    def refill(self) -> None:
        """Read what is due in the lanes that run low, all of them in one statement."""
        low = max(2, self.shares.slots // 4)
        hungry = [lane for lane in self.held.values() if lane.wants_more(low)]
        if not hungry or len(self.ready) >= 2 * self.shares.slots:
            return
        room = max(16, min(REFILL_MAX, int(REFILL_BYTES / self.payload_bytes)))
        hungry = hungry[:room]
        limit = max(1, room // len(hungry))
        found = Delivery.objects.using(self.using).due(
            [lane.position(limit) for lane in hungry], self.clock.now()
        )
        by_lane: dict[str, list[leases.DueDelivery]] = {lane.id: [] for lane in hungry}
        for delivery in found:
            by_lane[delivery.subscription_id].append(delivery)
        for lane in hungry:
            lane.fill(by_lane[lane.id], limit)
        if found:
            mean = sum(len(delivery.data) for delivery in found) / len(found)
            self.payload_bytes = max(256.0, 0.5 * self.payload_bytes + 0.5 * mean)
        self.ready = deque(lane for lane in self.held.values() if lane.can_start)

    def begin(self) -> None:
        """Begin POSTs: as many as slots, shares and unwritten results allow."""
        now = time.monotonic()
        slots = self.transport.concurrency
        free = min(
            slots - self.in_flight,
            slots + settings.FLUSH_MAX - self.in_flight - len(self.results),
        )
        self.ready = deque(lane for lane in self.ready if lane.can_start)
        if free <= 0 or not self.ready or self.write_again_at > now:
            return
        if now >= self.next_control + 0.3:
            return  # changes must be heard of first: nothing begins a second after a commit
        started_at = self.clock.now()
        safe = now + settings.TIMEOUT + LEASE_MARGIN
        for lane in self.shares.choose(
            self.ready, self.held.values(), free, now=now, slow_too=not self.in_grace
        ):
            if lane.lease_end < safe:
                lane.leave()
            if not lane.buffer:
                continue
            job = lane.begin(started_at)
            self.in_flight += 1
            self.shares.began(lane)
            try:
                self.transport.start(job, lane.request(job))
            except Exception:
                # What cannot even be rendered fails like any other try, and harms nobody else.
                logger.exception("%s of %s cannot be sent", job.delivery.id, lane.id)
                detail = "The request could not be built from this subscription and event."
                self.end(job, Response(error_code=INVALID_REQUEST, error_detail=detail))

    def gather(self) -> None:
        """Wait for answers, but no longer than there is something else to do."""
        now = time.monotonic()
        wait = self.next_look - now
        if self.results:
            # Nothing in flight: nothing more will come, so write now.
            wait = min(wait, self.next_flush - now) if self.in_flight else 0.0
        if self.write_again_at > now:
            wait = POLL
        for tag, response in self.transport.finished(max(0.0, wait)):
            assert isinstance(tag, Job)
            self.end(tag, response)

    def end(self, job: Job, response: Response) -> None:
        """Take an answer in."""
        self.in_flight -= 1
        lane = self.held[job.lane_id]
        self.shares.ended(lane)
        if not self.results:
            self.next_flush = time.monotonic() + FLUSH_SECONDS
        self.results.append(conclude(lane, job, response, self.clock, self.rng))

    def flush(self, *, final: bool = False) -> None:
        """Write results when there are enough, when the oldest waits too long, or when nothing else
        is up; and let go of the lanes that are done then."""
        now = time.monotonic()
        if now < self.write_again_at:
            return
        enough = len(self.results) >= settings.FLUSH_MAX
        batch = (
            self.results if enough or now >= self.next_flush or not self.in_flight or final else []
        )
        written = {result.job.delivery.id for result in batch}
        done = [lane for lane in self.held.values() if lane.is_done_after(written)]
        if batch or done:
            self.cancel_unsubscribed(done)
            self.write(batch, done)

    # What the rounds are made of

    def write(self, batch: list[Result], done: list[HeldLane]) -> None:
        """Write and let go. What the database does not take is kept, and written again later."""
        try:
            lost = self.recorder.write(batch, list(self.held.values()), done)
        except DatabaseError:
            # No POST begins meanwhile, so that what cannot be recorded is sent once for each lease
            # at most.
            self.write_again_at = time.monotonic() + 1.0
            logger.exception("%d results could not be written; trying again.", len(batch))
            return
        if batch:
            self.results = []
        for result in batch:
            self.held[result.job.lane_id].open.discard(result.job.delivery.id)
        for lane in done:
            del self.held[lane.id]
        for pk in lost & set(self.held):
            self.lose(self.held[pk])
        for pk in {
            result.job.lane_id for result in batch if result.outcome.verdict is Verdict.GONE
        }:
            self.unsubscribe(pk)

    def lose(self, lane: HeldLane) -> None:
        """Somebody else holds the lane now, or it is gone. What is in flight ends, unfenced."""
        if not lane.leaving:
            logger.warning("%s was taken over before its lease was renewed.", lane.id)
        lane.leave()

    def give_turns(self, now: float) -> None:
        for lane in self.held.values():
            if lane.taken >= TURN_DELIVERIES or now - lane.claimed_at > TURN_SECONDS:
                lane.leave()
        if len(self.ready) >= self.shares.slots:
            alive = Worker.objects.using(self.using).alive(self.clock.now()).count()
            if alive < settings.WORKERS:
                wake()

    def unsubscribe(self, subscription_id: str) -> None:
        subscription = Subscription.objects.using(self.using).filter(pk=subscription_id).first()
        if subscription is None:
            return
        try:
            change_status(subscription, Status.UNSUBSCRIBED, reason="gone")
        except IllegalStatusChange:
            logger.info("%s answered 410 Gone, but had ended already.", subscription_id)

    def cancel_unsubscribed(self, lanes: list[HeldLane]) -> None:
        """End what is pending in lanes that go back unsubscribed, a batch at a time."""
        for lane in lanes:
            if lane.subscription.status != Status.UNSUBSCRIBED:
                continue
            deliveries = Delivery.objects.using(self.using)
            pending = deliveries.pending().filter(subscription_id=lane.id).order_by("pk")
            while ids := list(pending.values_list("pk", flat=True)[:CANCEL_BATCH]):
                deliveries.filter(pk__any=ids).settle(
                    State.CANCELLED, now=self.clock.now(), reason="unsubscribed"
                )

    def someone_is_ready(self) -> bool:
        """Whether there is work that nobody has taken."""
        lanes = Lane.objects.using(self.using).ready(self.clock.now())
        return lanes.exists() or Event.objects.using(self.using).undispatched().exists()

    def sit(self) -> bool:
        """Whether this idle worker stays, because it is the one that waits for retries."""
        next_claim = Lane.objects.using(self.using).next_claim_at()
        soon = self.clock.now() + timedelta(seconds=HORIZON)
        if next_claim is None or next_claim > soon:
            self.sitting = False
            return False
        self.sitting = Duty.objects.using(self.using).assume(
            Duty.Name.SITTER, self.token, seconds=10 * POLL + 1
        )
        self.idle_since = time.monotonic() - LINGER + 5 * POLL  # ask again then
        return self.sitting

    def finish(self) -> None:
        """End what is in flight, write it, and give every lane back."""
        for lane in self.held.values():
            lane.leave()
        deadline = time.monotonic() + settings.TIMEOUT + LEASE_MARGIN
        while (self.in_flight or self.held or self.results) and time.monotonic() < deadline:
            try:
                for tag, response in self.transport.finished(0.1 if self.in_flight else 0.0):
                    assert isinstance(tag, Job)
                    self.end(tag, response)
                self.flush(final=not self.in_flight)
            except (OperationalError, InterfaceError):
                self.recover()
            if self.write_again_at > time.monotonic():
                time.sleep(0.1)
        if self.results:
            logger.error(
                "%d results could not be written; their deliveries are sent again when the leases "
                "end.",
                len(self.results),
            )
        if self.sitting:
            Duty.objects.using(self.using).relieve(Duty.Name.SITTER, self.token)
