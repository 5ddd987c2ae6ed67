"""A lane in the memory of the worker that holds it, and what it takes to make a POST of it.

The lane's row says who holds it (:mod:`webhooks.models.lane`); here is what only the holder needs:
what is buffered, in flight and not yet written, how fast the endpoint answers, and the keys.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from django.core.exceptions import ImproperlyConfigured

from webhooks.access import ALL, Entitlements, sees_type
from webhooks.conf import settings
from webhooks.engine.transactions import atomically
from webhooks.exceptions import InvalidSecret, SecretUnreadable
from webhooks.formats import EventRecord, get_format
from webhooks.formats.signing import decode_secret
from webhooks.headers import combined, headers_of
from webhooks.models import DeliveryAttempt, Lane, SigningSecret, Subscription
from webhooks.models.delivery import DueDelivery, LanePosition
from webhooks.models.lane import PACING
from webhooks.models.subscription import Status, is_schedule
from webhooks.transports.base import Request

logger = logging.getLogger("webhooks")

#: A lane is slow while nine of ten answers do not come within a second.
SLOW_MS = 1000.0
#: The speed of a lane is known after so many answers, and follows the last ones.
KNOWN, REMEMBERED = 5, 20
#: What a lane is taken for before its first answer: KNOWN quick ones make it a fast lane.
UNKNOWN_MS = 2500.0
#: How long a lane rests whose secrets cannot be read.
SECRET_PAUSE = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Job:
    """One POST: who sends it, what, which try it is, when it was due and began (database time).

    requester, host: whose share it takes, whatever becomes of the subscription meanwhile.
    url: where it went.
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
        self.after: tuple[datetime, str] | None = None
        self.read_out = False
        self.leaving = False
        self.paced = False
        #: Deliveries of types that the owner may not receive any more; they are cancelled.
        self.forbidden: list[str] = []
        self.taken = 0
        #: When what is not to be sent may next be ended, in monotonic seconds.
        self.end_from = 0.0
        self.in_flight = 0
        self._starts: dict[str, float] = {}
        #: In flight, or answered and not yet written.
        self.open: set[str] = set()
        self._latencies: deque[float] = deque(maxlen=REMEMBERED)
        self.take(row.subscription, secrets, row.control, now, scopes)

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
        self.host = urlsplit_host(subscription.callback_url)
        self.entitled = scopes is not None
        self._scopes = scopes
        self._visible: dict[str, bool] = {}
        self.active = subscription.status == Status.SUBSCRIBED and self.entitled
        rate = subscription.rate_limit or None  # 0 was written past ``clean``
        # A second's worth at a time, and then a rest: the row carries that to the next holder.
        self.allowance = math.inf if rate is None else max(1, rate // 60)
        self._rest_after = None if rate is None else timedelta(seconds=60 / rate * self.allowance)
        self.cap = 1 if subscription.ordered else subscription.max_in_flight or math.inf
        self.keys: list[tuple[bytes, datetime | None]] = []
        self.custom_headers: dict[str, str] = {}
        own: Any = subscription.retry_schedule
        # None, or what was written past ``clean``: the service's.
        self.retry_schedule: Sequence[float] = own if is_schedule(own) else settings.RETRY_SCHEDULE
        try:
            self.keys = [(decode_secret(s.value.reveal()), s.expires_at) for s in secrets]
            if not self.keys:
                raise InvalidSecret("there is none")
            self.custom_headers = headers_of(subscription)
        except (SecretUnreadable, InvalidSecret, ImproperlyConfigured) as error:
            # Nothing is ever sent unsigned, or without its headers. The deliveries wait,
            # unharmed, and somebody is told.
            logger.error("%s cannot be signed for, and waits: %s", subscription.pk, error)
            self.rest_unsigned(now)
        if not self.active:
            self.leave()

    # What is known of the endpoint

    def is_slow(self, now: float) -> bool:
        """Whether it is slow, or not known to be fast. now: monotonic seconds."""
        if self._starts and now - next(iter(self._starts.values())) > SLOW_MS / 1000:
            return True
        # The 90th percentile of the last answers, which the row carries from holder to holder.
        known = self.row.latency_ms
        return known is None or known > SLOW_MS

    # Beginning and ending POSTs

    @property
    def can_start(self) -> bool:
        return bool(self.buffer)  # what leaves or rests has none

    def begin(self, started_at: datetime, holder: UUID) -> Job:
        """Take the next delivery out of the buffer."""
        delivery = self.buffer.popleft()
        self.buffered_bytes -= len(delivery.data)
        self.in_flight += 1
        self.taken += 1
        self.allowance -= 1
        self.open.add(delivery.id)
        self._starts[delivery.id] = time.monotonic()
        number = delivery.attempts + 1
        triggers = DeliveryAttempt.Trigger
        usual = triggers.FIRST if number == 1 else triggers.RETRY
        due_at = max(delivery.due_at, self.row.paused_until or delivery.due_at)
        # Who asked for it asked for the next attempt; those that follow are retries of it.
        asked = delivery.trigger if delivery.attempts == delivery.retries_from else ""
        trigger = asked or usual.value
        job = Job(
            holder=holder,
            lane_id=self.id,
            requester=self.requester,
            host=self.host,
            url=self.subscription.callback_url,
            delivery=delivery,
            number=number,
            trigger=trigger,
            due_at=due_at,
            started_at=started_at,
        )
        if self._rest_after is not None and self.allowance <= 0:
            self.rest(started_at + self._rest_after, "rate_limit")
        return job

    def live_keys(self, at: datetime) -> list[bytes]:
        """The keys that sign at ``at`` (database time), newest first."""
        return [key for key, end in self.keys if end is None or end > at]

    def inherit(self, former: HeldLane) -> None:
        """Take over what is under way from when this worker held the lane before.

        Nothing else: its lease had run out, and somebody may have delivered what it had buffered.
        """
        self.open = former.open
        self.in_flight = former.in_flight
        self._starts = former._starts
        former.leave()

    def request(self, job: Job) -> Request:
        """The signed POST of a job. Raises what the format raises for what it cannot render."""
        event = EventRecord(
            id=job.delivery.event_id,
            type=job.delivery.event_type,
            occurred_at=job.delivery.occurred_at,
            data=job.delivery.data,
            subject=job.delivery.subject,
            requester=job.delivery.requester,
        )
        format_ = get_format(job.delivery.format or self.subscription.format)
        body = format_.body(event)
        keys = self.live_keys(job.started_at)
        return Request(
            lane=self.id,
            url=job.url,
            headers=combined(
                self.custom_headers,
                format_.headers(
                    job.delivery.webhook_id, int(job.started_at.timestamp()), body, keys
                ),
            ),
            body=body,
            timeout=float(settings.TIMEOUT),
        )

    def ended(self, job: Job, elapsed_ms: float) -> None:
        """A POST has its answer; it stays open until that is written."""
        self.in_flight -= 1
        self._starts.pop(job.delivery.id, None)
        self._latencies.append(elapsed_ms)
        if len(self._latencies) >= KNOWN:
            ranked = sorted(self._latencies)
            self.row.latency_ms = round(ranked[math.ceil(0.9 * len(ranked)) - 1])
        else:
            # A lane with few events is let go after each: what is known must grow from holder to
            # holder, or it would count as slow for ever.
            known = UNKNOWN_MS if self.row.latency_ms is None else self.row.latency_ms
            self.row.latency_ms = round(known + (elapsed_ms - known) / KNOWN)

    def succeeded(self, at: datetime) -> None:
        self.row.last_success_at = at
        if self.row.failures:
            self.row.failures = 0
            self.row.failing_since = None
            self.paced = True

    def failed(self, at: datetime) -> None:
        self.row.failures += 1
        self.row.last_failure_at = at
        self.row.failing_since = self.row.failing_since or at
        self.paced = True

    def rest(self, until: datetime, reason: str) -> None:
        """Begin nothing before ``until`` (database time), whoever holds the lane by then."""
        if self.row.paused_until is None or until > self.row.paused_until:
            self.row.paused_until = until
            self.row.pause_reason = reason
        self.paced = True
        self.leave()

    def rest_unsigned(self, now: datetime) -> None:
        """There is no key to sign with: wait for one."""
        self.rest(now + SECRET_PAUSE, "secret_unreadable")

    def leave(self) -> None:
        """Begin nothing more; the lane goes back when what is open is written."""
        self.leaving = True
        self.buffer.clear()
        self.buffered_bytes = 0

    # Reading what is due

    @property
    def discards(self) -> bool:
        """Whether a backlog is to be discarded before anything is sent."""
        return self.row.discard_before is not None and self.active

    @property
    def ends(self) -> bool:
        """Whether what is pending is to be cancelled before the lane goes back."""
        return self.subscription.status == Status.UNSUBSCRIBED

    def wants_more(self, low: int) -> bool:
        if self.leaving or self.read_out or self.discards:
            return False
        return len(self.buffer) < low

    def position(self, limit: int) -> LanePosition:
        return LanePosition(self.id, limit, self.after)

    def read_anew(self) -> None:
        """What was read may not be sent any more: forget it, and read from the beginning."""
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
        for each in deliveries:
            if each.id in self.open:
                continue  # it may be acknowledged already; that is written soon
            if self._may_be_sent(each.event_type):
                self.buffer.append(each)
            else:
                self.forbidden.append(each.id)
        self.buffered_bytes = sum(len(each.data) for each in self.buffer)

    def changes_what_is_due(self, row: Lane, scopes: frozenset[str] | None) -> bool:
        """Whether other deliveries are to be sent by the row, or by what its owner may see now."""
        return row.discard_before != self.row.discard_before or scopes != self._scopes

    def _may_be_sent(self, event_type: str) -> bool:
        if event_type not in self._visible:
            self._visible[event_type] = sees_type(self._scopes, event_type)
        return self._visible[event_type]

    def is_done_after(self, written: set[str]) -> bool:
        """Whether it can go back once these are written: nothing open, and nothing to begin."""
        return not self.buffer and (self.leaving or self.read_out) and self.open <= written


def urlsplit_host(url: str) -> str:
    """The host of a URL for counting shares; "" where there is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def claim(
    using: str, token: UUID, *, limit: int, now: datetime, fast_only: bool = False
) -> list[HeldLane]:
    """Lease ready lanes and load what their POSTs need. now: database time."""
    began = time.monotonic()  # before the database looks at its clock: never too long
    lease = timedelta(seconds=settings.LEASE_SECONDS)
    faster_than = SLOW_MS if fast_only else None
    rows = atomically(
        using,
        lambda: Lane.objects.using(using).claim(
            token, lease=lease, limit=limit, faster_than=faster_than
        ),
    )
    secrets = secrets_of(using, [row.pk for row in rows], now)
    entitlements = Entitlements([row.subscription for row in rows])
    return [
        HeldLane(
            row,
            secrets.get(row.pk, ()),
            lease_end=began + settings.LEASE_SECONDS,
            now=now,
            scopes=entitlements.granted(row.subscription),
        )
        for row in rows
    ]


def renew(using: str, token: UUID, held: Sequence[HeldLane]) -> None:
    """Extend the leases of these lanes; one that was lost shows when its control is read."""
    lease = timedelta(seconds=settings.LEASE_SECONDS)
    ids = [lane.id for lane in held]

    def extend() -> tuple[float, set[str]]:
        began = time.monotonic()  # before the database looks at its clock: never too long
        return began, Lane.objects.using(using).renew(token, ids, lease=lease)

    began, renewed = atomically(using, extend)
    for lane in held:
        if lane.id in renewed:
            lane.lease_end = began + settings.LEASE_SECONDS


def reload(using: str, token: UUID, held: Sequence[HeldLane], now: datetime) -> None:
    """Take over what people changed about these lanes."""
    by_id = {lane.id: lane for lane in held}
    rows = Lane.objects.using(using).filter(pk__any=list(by_id), token=token)
    # The rows first: a change that comes between the two statements is then heard of once more.
    changed = list(rows.select_related("subscription"))
    secrets = secrets_of(using, list(by_id), now)
    entitlements = Entitlements([row.subscription for row in changed])
    for row in changed:
        lane = by_id[row.pk]
        scopes = entitlements.granted(row.subscription)
        if lane.changes_what_is_due(row, scopes):
            lane.read_anew()
        # A new URL or a resume begins without the old pause, and perhaps without the backlog.
        for column in (*PACING, "discard_before"):
            setattr(lane.row, column, getattr(row, column))
        lane.take(row.subscription, secrets.get(row.pk, ()), row.control, now, scopes)


def secrets_of(using: str, ids: Sequence[str], now: datetime) -> dict[str, list[SigningSecret]]:
    """The live signing secrets of these subscriptions, newest first."""
    found: dict[str, list[SigningSecret]] = {}
    live = SigningSecret.objects.using(using).live(now)
    for secret in live.filter(subscription_id__in=ids) if ids else ():
        found.setdefault(secret.subscription_id, []).append(secret)
    return found
