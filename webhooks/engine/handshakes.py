"""Handshakes: an endpoint proves that it wants what it will be sent, before anything else is sent.

``x-hook-secret`` (REST Hooks): a signed ping carries a random ``X-Hook-Secret``, and a 2xx that
echoes it confirms. ``cloudevents`` (CloudEvents HTTP webhook binding, section 4): an ``OPTIONS``
request asks for consent, which the answer gives by ``WebHook-Allowed-Origin``, never by its status
alone.

A subscription that is pending has a lane on hold, which nobody claims, so the lane's pacing tells
of its handshake: ``paused_until`` is when the next try may begin, or when another worker may take
over from one that was killed; ``failures`` counts the tries. What follows a failed one is decided
as for deliveries.
"""

from __future__ import annotations

import hmac
import logging
import random
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

from django.core.exceptions import ImproperlyConfigured
from django.db.models import F, Q

from webhooks.access import Entitlements
from webhooks.clock import Clock, db_now
from webhooks.conf import settings
from webhooks.engine.lanes import secrets_of
from webhooks.engine.outcome import Outcome, Verdict, judge
from webhooks.engine.retries import Decision, decide
from webhooks.engine.transactions import DATABASE_ERRORS, atomically
from webhooks.engine.wake import POLL
from webhooks.entitlement import suspend_lost
from webhooks.exceptions import SecretUnreadable
from webhooks.headers import combined, headers_of
from webhooks.lifecycle import change_status
from webhooks.models import DeliveryAttempt, Lane, SigningSecret, Subscription
from webhooks.models.delivery import State
from webhooks.models.fields import new_message_id
from webhooks.models.lane import LaneQuerySet
from webhooks.models.subscription import Handshake, Status, is_schedule
from webhooks.probing import ping_request, record, signing_keys
from webhooks.transports.base import INVALID_REQUEST, Request, Response, Transport

logger = logging.getLogger("webhooks")

#: The error code of an answer that came, and confirmed nothing.
REFUSED: Final = "handshake_refused"
#: The kinds that a worker proves.
PROVEN: Final = (Handshake.HOOK_SECRET, Handshake.CLOUDEVENTS)
#: Requests for each minute that CloudEvents endpoints are asked for, where no rate was set.
USUAL_RATE: Final = 120
#: The most that ``rate_limit`` takes in every database.
MAX_RATE: Final = 2**31 - 1
#: A try belongs to its worker for so many seconds more than its request may take.
CLAIM_MARGIN: Final = 10.0
#: Nothing begins when so many seconds have passed since the subscription was looked at.
STALE: Final = 0.9
#: Rows that are looked at to choose from.
PAGE: Final = 1000
#: After the database refused to write, so many seconds pass before the next try.
WRITE_AGAIN: Final = 1.0


@dataclass(frozen=True, slots=True)
class Try:
    """One request of a handshake, and what its answer is judged by.

    expected: what the endpoint is to give back: the secret, or our origin. claimed_until: the
    claim, as it stands in the lane's row. started_at, due_at: database time.
    """

    holder: UUID
    subscription_id: str
    requester: str
    handshake: str
    callback_url: str = field(repr=False)
    expected: str = field(repr=False)
    rate_limit: int | None
    retry_schedule: tuple[float, ...]
    failing_since: datetime | None
    message_id: str
    number: int
    due_at: datetime
    started_at: datetime
    claimed_until: datetime


@dataclass(frozen=True, slots=True)
class Judged:
    """A judged answer, not yet written.

    rate: requests for each minute that a CloudEvents endpoint grants; None: no limit.
    """

    begun: Try
    response: Response
    outcome: Outcome
    detail: str
    rate: int | None
    decision: Decision
    answered_at: datetime


class Handshakes:
    """The handshakes of one worker: a few at a time, through its transport, beside its lanes."""

    def __init__(self, using: str, token: UUID, clock: Clock, transport: Transport) -> None:
        self._using = using
        self._token = token
        self._clock = clock
        self._transport = transport
        self._rng = random.Random()  # noqa: S311
        #: Requests at once, and those of one requester: whoever never answers holds up itself.
        self._most = max(1, transport.concurrency // 8)
        self._for_one = max(1, self._most // 2)
        self._flying: dict[str, Try] = {}
        self._unwritten: list[Judged] = []
        self._next_look = self._write_again_at = 0.0

    @property
    def in_flight(self) -> int:
        """Requests that wait for their answer."""
        return len(self._flying)

    @property
    def is_busy(self) -> bool:
        """Whether anything is begun, or answered and not written."""
        return bool(self._flying or self._unwritten)

    def look(self, free: int) -> bool:
        """Begin what is due, in at most ``free`` slots; False when there is nothing to wait for."""
        self.settle()
        now = time.monotonic()
        if now < self._next_look:
            return self.is_busy
        room = min(free, self._most - len(self._flying) - len(self._unwritten))
        if room <= 0:
            return True  # nobody knows
        chosen = self._choose(room)
        if chosen:
            self._begin(chosen)
        else:
            self._next_look = now + POLL
        return bool(chosen) or self.is_busy

    def end(self, begun: Try, response: Response) -> None:
        """Judge an answer and write what follows from it."""
        self._flying.pop(begun.subscription_id, None)
        now = self._clock.now()
        outcome = judge(response, now)
        detail, rate = "", None
        if outcome.verdict is Verdict.DELIVERED:
            detail, rate = _judge_headers(begun, response)
            if detail:
                outcome = Outcome(Verdict.FAILED, REFUSED)
        decision = decide(
            outcome,
            attempts=begun.number,
            first_due_at=begun.failing_since or begun.due_at,
            now=now,
            schedule=begun.retry_schedule,
            max_age=settings.MAX_AGE,
            rng=self._rng,
        )
        self._unwritten.append(Judged(begun, response, outcome, detail, rate, decision, now))
        self.settle()

    def settle(self) -> None:
        """Write answers. What the database does not take, or what is locked, is tried again.

        Until the claim ends: after that the next try begins, here or elsewhere.
        """
        if not self._unwritten or time.monotonic() < self._write_again_at:
            return
        left = []
        for judged in self._unwritten:
            try:
                written = atomically(self._using, lambda each=judged: self._write(each))  # type: ignore[misc]
            except DATABASE_ERRORS:
                logger.exception(
                    "The handshake of %s could not be written; trying again.",
                    judged.begun.subscription_id,
                )
                written = False
            if not written and self._clock.now() < judged.begun.claimed_until:
                left.append(judged)
        self._unwritten = left
        self._write_again_at = time.monotonic() + WRITE_AGAIN if left else 0.0

    def are_due(self) -> bool:
        """Whether a try may begin now, here or elsewhere."""
        return waiting(self._using, self._clock.now()).exists()

    def next_at(self) -> datetime | None:
        """When the next try may begin, in database time; None: there is none to come."""
        times = waiting(self._using).values_list("paused_until", flat=True)
        first = list(times.order_by(F("paused_until").asc(nulls_first=True))[:1])
        return first[0] or self._clock.now() if first else None

    # Beginning

    def _choose(self, room: int) -> list[str]:
        """Up to ``room`` subscriptions whose next try is due, of as many requesters as may be."""
        due = waiting(self._using, self._clock.now())
        rows = due.order_by("pk").values_list("pk", "subscription__requester")[:PAGE]
        by_requester: dict[str, list[str]] = defaultdict(list)
        for pk, requester in rows:
            if pk not in self._flying:
                by_requester[requester].append(pk)
        busy = Counter(begun.requester for begun in self._flying.values())
        chosen: list[str] = []
        # In no order: a requester whose endpoints all hang would stay in front of the others.
        line = self._rng.sample(list(by_requester), len(by_requester))
        while line and len(chosen) < room:
            requester = line.pop(0)
            own = by_requester[requester]
            if busy[requester] < self._for_one:
                chosen.append(own.pop(self._rng.randrange(len(own))))
                busy[requester] += 1
                if own:
                    line.append(requester)
        return chosen

    def _begin(self, ids: Collection[str]) -> None:
        """Claim tries and send their requests."""
        claimed, now, looked = atomically(self._using, lambda: self._claim(ids))
        subscriptions = [lane.subscription for lane, _ in claimed]
        entitlements = Entitlements(subscriptions)
        found = secrets_of(self._using, [each.pk for each in subscriptions], now)
        for lane, due_at in claimed:
            subscription = lane.subscription
            if entitlements.granted(subscription) is None:
                suspend_lost(subscription)
            elif time.monotonic() - looked < STALE:
                self._start(lane, found.get(lane.pk, ()), due_at, now)

    def _claim(self, ids: Collection[str]) -> tuple[list[tuple[Lane, datetime]], datetime, float]:
        """Lock and claim those that are still due: their lanes, each with when it was due."""
        lanes = Lane.objects.using(self._using)
        locked = {lane.pk: lane for lane in lanes.lock_free(ids)}
        # In a new statement, under the locks: nobody changes a status without one.
        subscriptions = Subscription.objects.using(self._using).filter(
            pk__any=list(locked), status=Status.PENDING, handshake__in=PROVEN
        )
        looked = time.monotonic()
        now = db_now(self._using)
        claimed = []
        for subscription in subscriptions:
            lane = locked[subscription.pk]
            if lane.paused_until is not None and lane.paused_until > now:
                continue
            due_at = lane.paused_until or now
            lane.subscription = subscription
            lane.paused_until = now + timedelta(seconds=settings.TIMEOUT + CLAIM_MARGIN)
            lane.pause_reason = "handshake"
            lane.save(using=self._using, update_fields=["paused_until", "pause_reason"])
            claimed.append((lane, due_at))
        return claimed, now, looked

    def _start(
        self, lane: Lane, live: Sequence[SigningSecret], due_at: datetime, now: datetime
    ) -> None:
        """Send the request of one claimed try."""
        assert lane.paused_until is not None
        subscription = lane.subscription
        own: Any = subscription.retry_schedule
        is_echo = subscription.handshake == Handshake.HOOK_SECRET
        begun = Try(
            holder=self._token,
            subscription_id=subscription.pk,
            requester=subscription.requester,
            handshake=subscription.handshake,
            callback_url=subscription.callback_url,
            expected=secrets.token_hex(32) if is_echo else our_origin(),
            rate_limit=subscription.rate_limit,
            retry_schedule=tuple(own if is_schedule(own) else settings.RETRY_SCHEDULE),
            failing_since=lane.failing_since,
            message_id=new_message_id(),
            number=lane.failures + 1,
            due_at=due_at,
            started_at=now,
            claimed_until=lane.paused_until,
        )
        try:
            if is_echo:
                request = _echo_request(begun, subscription, live)
            else:
                request = _consent_request(begun, subscription)
        except (SecretUnreadable, ImproperlyConfigured) as error:
            # Nothing is ever sent unsigned. The claim runs out, and then it is tried again.
            logger.error("%s cannot be signed for, and waits: %s", subscription.pk, error)
            return
        except Exception:
            logger.exception("The handshake of %s cannot be sent", subscription.pk)
            detail = "The request could not be built from this subscription."
            self.end(begun, Response(error_code=INVALID_REQUEST, error_detail=detail))
            return
        self._flying[subscription.pk] = begun
        self._transport.start(begun, request)

    # Writing

    def _write(self, judged: Judged) -> bool:
        """Record an answer and what follows; False while somebody has the lane locked."""
        begun = judged.begun
        lanes = Lane.objects.using(self._using)
        locked = lanes.lock_free([begun.subscription_id])
        if not locked and lanes.filter(pk=begun.subscription_id).exists():
            return False
        triggers = DeliveryAttempt.Trigger
        record(
            self._using,
            judged.response,
            judged.outcome,
            subscription_id=begun.subscription_id,
            message_id=begun.message_id,
            trigger=triggers.FIRST if begun.number == 1 else triggers.RETRY,
            due_at=begun.due_at,
            started_at=begun.started_at,
            number=begun.number,
            detail=judged.detail,
        )
        # What a person changed meanwhile stands: the answer proves what was asked, and no more.
        subscription = (
            Subscription.objects.using(self._using)
            .filter(pk=begun.subscription_id, status=Status.PENDING)
            .filter(handshake=begun.handshake, callback_url=begun.callback_url)
            .first()
        )
        if not locked or subscription is None:
            return True
        if judged.outcome.verdict is Verdict.DELIVERED:
            self._confirm(subscription, judged.rate)
        elif locked[0].paused_until == begun.claimed_until:
            self._fail(subscription, locked[0], judged)
        return True

    def _confirm(self, subscription: Subscription, rate: int | None) -> None:
        if rate is not None and (subscription.rate_limit is None or rate < subscription.rate_limit):
            # Not update(): it looks the URL's host up, and all deliveries would wait for that.
            subscription.rate_limit = rate
            subscription.save(using=self._using, update_fields=["rate_limit", "updated_at"])
        change_status(subscription, Status.SUBSCRIBED, reason="handshake")

    def _fail(self, subscription: Subscription, lane: Lane, judged: Judged) -> None:
        lane.failures = judged.begun.number
        lane.last_failure_at = judged.answered_at
        lane.failing_since = lane.failing_since or judged.answered_at
        lane.paused_until = judged.decision.due_at
        lane.pause_reason = "handshake" if lane.paused_until else ""
        columns = ["failures", "last_failure_at", "failing_since", "paused_until", "pause_reason"]
        lane.save(using=self._using, update_fields=columns)
        if judged.decision.state is not State.PENDING:
            change_status(subscription, Status.UNSUBSCRIBED, reason="handshake_failed")


def waiting(using: str, by: datetime | None = None) -> LaneQuerySet:
    """Lanes of subscriptions that wait for their proof; with ``by``, whose next try is due then."""
    lanes = Lane.objects.using(using).filter(
        subscription__status=Status.PENDING, subscription__handshake__in=PROVEN
    )
    if by is None:
        return lanes
    return lanes.filter(Q(paused_until__isnull=True) | Q(paused_until__lte=by))


def our_origin() -> str:
    """Who asks, in ``WebHook-Request-Origin``: the host name of ``BASE_URL``."""
    return urlsplit(settings.BASE_URL).hostname or "localhost"


def _echo_request(begun: Try, subscription: Subscription, live: Sequence[SigningSecret]) -> Request:
    """A signed ping with the secret that is to be echoed."""
    request = ping_request(subscription, signing_keys(live), begun.message_id, begun.started_at)
    return Request(
        lane=request.lane,
        url=request.url,
        headers=combined(request.headers, {"X-Hook-Secret": begun.expected}),
        body=request.body,
        timeout=request.timeout,
    )


def _consent_request(begun: Try, subscription: Subscription) -> Request:
    """The OPTIONS request of CloudEvents. Nothing in it is signed, for it has no body."""
    asked = {
        "WebHook-Request-Origin": begun.expected,
        "WebHook-Request-Rate": str(begun.rate_limit or USUAL_RATE),
    }
    return Request(
        lane=subscription.pk,
        url=subscription.callback_url,
        headers=combined(headers_of(subscription), asked),
        body=b"",
        timeout=float(settings.TIMEOUT),
        method="OPTIONS",
    )


def _judge_headers(begun: Try, response: Response) -> tuple[str, int | None]:
    """Why a 2xx confirms nothing, "" where it does; and the rate that it grants."""
    if begun.handshake == Handshake.HOOK_SECRET:
        echo = response.headers.get("x-hook-secret", "")
        if hmac.compare_digest(echo.encode("utf-8", "replace"), begun.expected.encode()):
            return "", None
        return "The answer does not repeat the X-Hook-Secret of this request.", None
    origin = response.headers.get("webhook-allowed-origin", "").strip().lower()
    if origin not in ("*", begun.expected.lower()):
        return "The answer does not name our origin, nor *, in WebHook-Allowed-Origin.", None
    return "", _granted_rate(response.headers.get("webhook-allowed-rate", ""))


def _granted_rate(text: str) -> int | None:
    """Requests for each minute that ``WebHook-Allowed-Rate`` grants; None: no limit, or garbage."""
    text = text.strip()
    if not (text.isascii() and text.isdigit()):
        return None
    return min(int(text), MAX_RATE) or None
