"""A lane in the memory of the worker that holds it, and what it takes to make a POST of it.

The lane's row says who holds it (:mod:`webhooks.models.lane`); here is what only the holder needs:
what is buffered, in flight and not yet written, how fast the endpoint answers, and the keys.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from django.core.exceptions import ImproperlyConfigured
from django.views.decorators.debug import sensitive_variables

from webhooks.access import ALL, sees_type
from webhooks.conf import settings
from webhooks.engine.outcome import Outcome
from webhooks.engine.pacing import Pacing, Speed
from webhooks.engine.parcels import first_trigger
from webhooks.engine.posts import post_of
from webhooks.exceptions import InvalidSecret, SecretUnreadable
from webhooks.formats.signing import decode_secret
from webhooks.headers import headers_of, signed_url
from webhooks.models import DeliveryAttempt, Lane, SigningSecret, Subscription
from webhooks.models.delivery import DueDelivery, LanePosition
from webhooks.models.subscription import Status
from webhooks.shapes import host_of
from webhooks.transports.base import Request

if TYPE_CHECKING:
    from webhooks.engine.digests import Figures, Plan
    from webhooks.engine.following import Following

logger = logging.getLogger("webhooks")

#: How long a lane rests whose secrets cannot be read.
SECRET_PAUSE = timedelta(seconds=60)


@dataclass(slots=True, eq=False)  # one for each POST: a frozen one takes three times as long
class Job:
    """One POST: who sends it, what, which try it is, when it was due and began (database time).

    requester, host: whose share it takes, whatever becomes of the subscription meanwhile.
    url: where it went. in_flight: POSTs of its lane by then, itself included. probe: whether it
    tries a parked lane; one that fails does not count among the delivery's attempts.
    """

    holder: UUID
    lane_id: str
    requester: str
    host: str
    url: str
    delivery: DueDelivery
    number: int
    trigger: str
    due_at: datetime
    started_at: datetime
    in_flight: int = 1
    probe: bool = False


class HeldLane:
    """A leased lane. Everything here is lost with the process, and may be."""

    def __init__(
        self,
        row: Lane,
        secrets: Sequence[SigningSecret],
        *,
        lease_end: float,
        now: datetime,
        scopes: frozenset[str] | None = ALL,
    ) -> None:
        """row: with its subscription. lease_end: monotonic seconds. now: database time.

        scopes: what its owner is entitled to; None: nothing.
        """
        self.id: str = row.pk
        self.row = row
        self.lease_end = lease_end
        self.claimed_at = time.monotonic()
        self.buffer: deque[DueDelivery] = deque()
        self.buffered_bytes = 0
        #: Frozen messages that were met and are not in the buffer; the window being planned.
        self.frozen: list[str] = []
        #: Tried before, in another format or payload: they go out under new ids.
        self.reshaped: list[DueDelivery] = []
        self.plan: Plan | Figures | Following | None = None
        #: The message that each delivery stands for which is in flight, or not yet written.
        self.sent_for: dict[str, str] = {}
        #: When it was last given batches, and when it may be next, in monotonic seconds.
        self.composed_at = self.compose_from = 0.0
        self.mean_bytes = 1024.0
        self.after: tuple[datetime, str] | None = None
        self.read_out = False
        self.leaving = False
        #: When its last rest ended, or will.
        self.rested_until = row.paused_until
        self.pacing = Pacing(row, now)
        self.speed = Speed(row)
        #: Deliveries of types that the owner may not receive any more; they are cancelled.
        self.forbidden: list[str] = []
        self.taken = 0
        #: When what is not to be sent may next be ended, in monotonic seconds.
        self.end_from = 0.0
        self.in_flight = 0
        #: In flight, or answered and not yet written.
        self.open: set[str] = set()
        self.take(row.subscription, secrets, row.control, now, scopes)

    @sensitive_variables()
    def take(
        self,
        subscription: Subscription,
        secrets: Sequence[SigningSecret],
        control: int,
        now: datetime,
        scopes: frozenset[str] | None = ALL,
    ) -> None:
        """Take over what a person may have changed. Never raises: a bad secret rests the lane."""
        self.control = control
        self.subscription = subscription
        self.requester = subscription.requester
        self.host = host_of(subscription.callback_url)
        self.batching = subscription.batches
        self.signed_url = subscription.callback_url
        self.entitled = scopes is not None
        self._scopes = scopes
        self._visible: dict[str, bool] = {}
        self.active = subscription.status == Status.SUBSCRIBED and self.entitled
        # 0 was written past ``clean``.
        rate, most = subscription.rate_limit or None, subscription.max_in_flight or math.inf
        cap = 1 if subscription.ordered else most
        self.pacing.limit(rate, cap, settings.concurrency, now)
        self.keys: list[tuple[bytes, datetime | None]] = []
        self.custom_headers: dict[str, str] = {}
        self.retry_schedule = subscription.waits
        try:
            self.keys = [(decode_secret(s.value.reveal()), s.expires_at) for s in secrets]
            if not self.keys:
                raise InvalidSecret("there is none")
            self.custom_headers = headers_of(subscription)
            self.signed_url = signed_url(subscription)
        except (SecretUnreadable, InvalidSecret, ImproperlyConfigured) as error:
            # Nothing is ever sent unsigned, or without its headers. The deliveries wait,
            # unharmed, and somebody is told.
            logger.error("%s cannot be signed for, and waits: %s", subscription.pk, error)
            self.keys = []  # none without the headers either
            self.rest_unsigned(now)
        #: The keys alone, where none of them ends.
        lasting = all(end is None for _key, end in self.keys)
        self._lasting = [key for key, _end in self.keys] if lasting else None
        rests = self.row.paused_until is not None and self.row.paused_until > now
        if not self.active or rests:
            self.leave()

    # What is known of the endpoint

    def is_slow(self, now: float) -> bool:
        """Whether it is slow, or not known to be fast. now: monotonic seconds."""
        return self.speed.is_slow(now)

    # Beginning and ending POSTs

    @property
    def can_start(self) -> bool:
        return bool(self.buffer)  # what leaves or rests has none

    def may_begin(self) -> int:
        """How many POSTs may begin now, by what is buffered and by the lane's pacing."""
        return min(len(self.buffer), self.pacing.room(self.in_flight))

    @property
    def paced(self) -> bool:
        """Whether its pacing is to be written with the next flush."""
        return self.pacing.changed

    @paced.setter
    def paced(self, value: bool) -> None:
        self.pacing.changed = value

    def begin(self, started_at: datetime, holder: UUID) -> Job:
        """Take the next delivery out of the buffer."""
        probe = self.pacing.begin(started_at)
        delivery = self._next(probe)
        self.buffer.remove(delivery)
        self.buffered_bytes -= len(delivery.data)
        self.in_flight += 1
        self.taken += 1
        self.open.add(delivery.id)
        self.speed.began(delivery.id, time.monotonic())
        number = delivery.attempts + 1
        triggers = DeliveryAttempt.Trigger
        usual = first_trigger(delivery) if number == 1 else triggers.RETRY.value
        trigger = _asked(delivery) or (triggers.PROBE.value if probe else usual)
        if delivery.parcel is not None:
            self.sent_for[delivery.id] = delivery.parcel.message_id
        job = Job(
            holder=holder,
            lane_id=self.id,
            requester=self.requester,
            host=self.host,
            url=self.subscription.callback_url,
            delivery=delivery,
            number=number,
            trigger=trigger,
            due_at=max(delivery.due_at, self.rested_until or delivery.due_at),
            started_at=started_at,
            in_flight=self.in_flight,
            probe=probe,
        )
        if self.pacing.is_spent:
            self.leave()
        return job

    def _next(self, probe: bool) -> DueDelivery:
        """What is due first; as a probe, what a person asked for goes before it."""
        if probe and not self.subscription.ordered:
            return next(filter(_asked, self.buffer), self.buffer[0])
        return self.buffer[0]

    def live_keys(self, at: datetime) -> list[bytes]:
        """The keys that sign at ``at`` (database time), newest first."""
        if self._lasting is not None:
            return self._lasting
        return [key for key, end in self.keys if end is None or end > at]

    def inherit(self, former: HeldLane) -> None:
        """Take over what is under way from when this worker held the lane before.

        Nothing else: its lease had run out, and somebody may have delivered what it had buffered.
        """
        self.open = former.open
        self.sent_for = former.sent_for
        self.in_flight = former.in_flight
        self.speed.inherit(former.speed)
        former.leave()

    def request(self, job: Job, timeout: float) -> Request:
        """The signed POST of a job. Raises what the format raises for what it cannot render.

        timeout: seconds for all of it.
        """
        return post_of(
            job.delivery,
            self.subscription,
            url=job.url,
            at=job.started_at,
            keys=self.live_keys(job.started_at),
            custom_headers=self.custom_headers,
            signed_url=self.signed_url,
            timeout=timeout,
        )

    def ended(self, job: Job, elapsed_ms: float) -> None:
        """A POST has its answer; it stays open until that is written."""
        self.in_flight -= 1
        self.speed.ended(job.delivery.id, elapsed_ms)

    def succeeded(self, job: Job, at: datetime) -> None:
        self.pacing.succeeded(job, at)

    def failed(self, job: Job, outcome: Outcome, at: datetime, rng: random.Random) -> None:
        self.pacing.failed(job, outcome, at, rng)
        if self.pacing.is_spent:
            self.leave()

    def rest(self, until: datetime, reason: str, now: datetime) -> None:
        """Begin nothing before ``until`` (database time), whoever holds the lane by then."""
        self.pacing.rest(until, reason, now)
        self.leave()

    def age(self, delivery: DueDelivery, now: datetime) -> float:
        """Seconds for which a delivery has been due, but for those while its lane stood still."""
        stood_still = self.row.clock_at(now) - delivery.clock_stopped_ms
        return (now - delivery.first_due_at).total_seconds() - max(0, stood_still) / 1000

    def rest_unsigned(self, now: datetime) -> None:
        """There is no key to sign with: wait for one."""
        self.rest(now + SECRET_PAUSE, "secret_unreadable", now)

    def leave(self) -> None:
        """Begin nothing more; the lane goes back when what is open is written."""
        self.leaving = True
        self._forget_batches()
        self.buffer.clear()
        self.buffered_bytes = 0

    # Reading what is due

    @property
    def discards(self) -> bool:
        """Whether a backlog is to be discarded before anything is sent."""
        return self.row.discard_before is not None and self.active

    @property
    def retimes(self) -> bool:
        """Whether what waits is to be moved to another window before anything is sent."""
        return self.row.retime_before is not None and self.active

    @property
    def ends(self) -> bool:
        """Whether what is pending is to be cancelled before the lane goes back."""
        return self.subscription.status == Status.UNSUBSCRIBED

    @property
    def has_other_work(self) -> bool:
        """Whether there is more to do than its next POST: to end, to move, or to put together."""
        ends = self.discards or self.retimes or self.ends
        return ends or self.batching or bool(self.frozen or self.reshaped or self.plan)

    def wants_more(self, low: int) -> bool:
        if self.leaving or self.read_out or self.batching or self.discards or self.retimes:
            return False
        return len(self.buffer) < low

    def position(self, limit: int) -> LanePosition:
        return LanePosition(self.id, limit, self.after)

    def read_anew(self) -> None:
        """What was read may not be sent any more: forget it, and read from the beginning."""
        self._forget_batches()
        self.buffer.clear()
        self.buffered_bytes = 0
        self.forbidden = []
        self.after = None
        self.read_out = False

    def fill(self, deliveries: Sequence[DueDelivery], limit: int) -> None:
        """Take what was read from its position on."""
        self.read_out = len(deliveries) < limit
        if deliveries:
            self.after = (deliveries[-1].due_at, deliveries[-1].id)
        reshaped = self.subscription.reshaped_at
        for each in deliveries:
            if each.id in self.open:
                continue  # it may be acknowledged already; that is written soon
            if each.message_id is not None:
                self.meet(each, self.known_messages())
                continue
            if not self.may_be_sent(each.event_type):
                self.forbidden.append(each.id)
            elif reshaped is not None and each.attempts and each.recorded_at <= reshaped:
                self.reshaped.append(each)
            else:
                self.buffer.append(each)
        self.buffered_bytes = sum(len(each.data) for each in self.buffer)

    def changes_what_is_due(self, row: Lane, scopes: frozenset[str] | None) -> bool:
        """Whether other deliveries are to be sent by the row, or by what its owner may see now."""
        return (
            row.discard_before != self.row.discard_before
            or row.retime_before != self.row.retime_before
            or row.subscription.batches != self.batching
            or row.subscription.reshaped_at != self.subscription.reshaped_at
            or scopes != self._scopes
        )

    # Batches, which the composer makes (engine/batches.py)

    def known_messages(self) -> set[str | None]:
        """The frozen messages that need not be met again."""
        self.sent_for = {key: sent for key, sent in self.sent_for.items() if key in self.open}
        return {*self.sent_for.values(), *self.frozen, *(each.message_id for each in self.buffer)}

    def meet(self, delivery: DueDelivery, known: set[str | None]) -> None:
        """Note the frozen message of a delivery that was read, unless it is among the known."""
        if delivery.message_id is not None and delivery.message_id not in known:
            known.add(delivery.message_id)
            self.frozen.append(delivery.message_id)

    def waiting_bytes(self) -> int:
        """Bytes of the batches in the buffer."""
        return sum(len(each.parcel.body) for each in self.buffer if each.parcel is not None)

    def _forget_batches(self) -> None:
        self.frozen = []
        self.reshaped = []
        self.plan = None

    def may_be_sent(self, event_type: str) -> bool:
        if event_type not in self._visible:
            self._visible[event_type] = sees_type(self._scopes, event_type)
        return self._visible[event_type]

    def is_done_after(self, written: set[str]) -> bool:
        """Whether it can go back once these are written: nothing open, and nothing to begin."""
        if self.buffer or self.frozen or self.reshaped:
            return False
        return (self.leaving or self.read_out) and self.open <= written


def _asked(delivery: DueDelivery) -> str:
    """The trigger, where a person asked for the next attempt; those that follow are its retries."""
    return delivery.trigger if delivery.attempts == delivery.retries_from else ""
