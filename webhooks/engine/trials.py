"""Trials: single requests of endpoints that are sent nothing else.

A new endpoint is asked for its proof (:mod:`handshakes`), one that was suspended for failing is
tried once a day (:mod:`probes`). Their lanes are on hold, which nobody claims, so a column of the
lane tells of the next trial: when it may begin, or, once it has begun, when another worker may take
over from one that was killed.
"""

from __future__ import annotations

import logging
import random
import time
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.core.exceptions import ImproperlyConfigured
from django.db.models import F

from webhooks.access import Entitlements
from webhooks.clock import Clock, db_now
from webhooks.conf import settings
from webhooks.engine.leases import secrets_of
from webhooks.engine.outcome import Outcome, Verdict, judge
from webhooks.engine.transactions import DATABASE_ERRORS, atomically
from webhooks.engine.wake import POLL
from webhooks.entitlement import suspend_lost
from webhooks.exceptions import SecretUnreadable
from webhooks.models import Lane, SigningSecret, Subscription
from webhooks.models.fields import new_message_id
from webhooks.models.lane import LaneQuerySet
from webhooks.probing import record
from webhooks.transports.base import INVALID_REQUEST, Request, Response, Transport

logger = logging.getLogger("webhooks")

#: A try belongs to its worker for so many seconds more than its request may take.
CLAIM_MARGIN: Final = 10.0
#: Nothing begins when so many seconds have passed since the subscription was looked at.
STALE: Final = 0.9
#: While deliveries are under way, so many seconds pass between two looks that find nothing.
SELDOM: Final = 0.5
#: Rows that are looked at to choose from.
PAGE: Final = 1000
#: After the database refused to write, so many seconds pass before the next try.
WRITE_AGAIN: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """One request, and what its answer is judged by.

    claimed_until: the claim, as it stands in the lane's row. started_at, due_at: database time.
    """

    kind: Kind
    holder: UUID
    subscription_id: str
    requester: str
    callback_url: str = field(repr=False)
    message_id: str
    number: int
    trigger: str
    due_at: datetime
    started_at: datetime
    claimed_until: datetime


@dataclass(frozen=True, slots=True)
class Judged:
    """A judged answer, not yet written. detail: a sentence in place of the transport's."""

    begun: Try
    response: Response
    outcome: Outcome
    detail: str
    answered_at: datetime


@dataclass(frozen=True, slots=True)
class Claimed:
    """A try that may begin. lane: with its subscription. until: when the claim ends."""

    kind: Kind
    lane: Lane
    holder: UUID
    due_at: datetime
    now: datetime
    until: datetime

    @property
    def facts(self) -> dict[str, Any]:
        """What every try takes from its claim."""
        subscription = self.lane.subscription
        return {
            "kind": self.kind,
            "holder": self.holder,
            "subscription_id": subscription.pk,
            "requester": subscription.requester,
            "callback_url": subscription.callback_url,
            "message_id": new_message_id(),
            "due_at": self.due_at,
            "started_at": self.now,
            "claimed_until": self.until,
        }


class Kind(ABC):
    """One kind of trial: whom it concerns, what is asked, and what follows from the answer."""

    #: The lane's column that tells of the next try; empty in a lane that waits: at once.
    column: str
    #: Whether one that nothing can be signed for waits, untried, until that is mended.
    waits_for_keys: bool

    @abstractmethod
    def waiting(self, using: str, by: datetime | None = None) -> LaneQuerySet:
        """Lanes that it concerns; with ``by``, whose next try is due then."""

    @abstractmethod
    def concerns(self, subscription: Subscription, begun: Try) -> bool:
        """Whether the answer to a try still tells something of a subscription."""

    @abstractmethod
    def begin(self, claimed: Claimed) -> Try:
        """What is asked now."""

    @abstractmethod
    def request(
        self, begun: Try, subscription: Subscription, live: Sequence[SigningSecret]
    ) -> Request:
        """Raises SecretUnreadable, and what a format raises for what it cannot render."""

    def judge(self, begun: Try, response: Response, outcome: Outcome) -> tuple[Outcome, str]:
        """What the answer means here, and a sentence about it."""
        return outcome, ""

    @abstractmethod
    def passed(self, subscription: Subscription, lane: Lane, judged: Judged) -> None:
        """A success. In the transaction that records it, under the lane's lock."""

    @abstractmethod
    def failed(self, subscription: Subscription, lane: Lane, judged: Judged) -> None:
        """No success, and nobody else has begun another try. Else as :meth:`passed`."""


class Trials:
    """The trials of one worker: a few at a time, through its transport, beside its lanes."""

    def __init__(
        self, using: str, token: UUID, clock: Clock, transport: Transport, kinds: Sequence[Kind]
    ) -> None:
        self._using = using
        self._token = token
        self._clock = clock
        self._transport = transport
        self._kinds = kinds
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
            idle = free == self._transport.concurrency
            self._next_look = now + (POLL if idle else SELDOM)
        return bool(chosen) or self.is_busy

    def end(self, begun: Try, response: Response) -> None:
        """Judge an answer and write what follows from it."""
        self._flying.pop(begun.subscription_id, None)
        now = self._clock.now()
        outcome, detail = begun.kind.judge(begun, response, judge(response, now))
        self._unwritten.append(Judged(begun, response, outcome, detail, now))
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
                    "The answer of %s could not be written; trying again.",
                    judged.begun.subscription_id,
                )
                written = False
            if not written and self._clock.now() < judged.begun.claimed_until:
                left.append(judged)
        self._unwritten = left
        self._write_again_at = time.monotonic() + WRITE_AGAIN if left else 0.0

    def are_due(self) -> bool:
        """Whether a try may begin now, here or elsewhere."""
        now = self._clock.now()
        return any(kind.waiting(self._using, now).exists() for kind in self._kinds)

    def next_at(self) -> datetime | None:
        """When the next try may begin, in database time; None: there is none to come."""
        moments = []
        for kind in self._kinds:
            waiting = kind.waiting(self._using).order_by(F(kind.column).asc(nulls_first=True))
            first = waiting.values_list(kind.column, flat=True)[:1]
            moments += [moment or self._clock.now() for moment in first]
        return min(moments, default=None)

    # Beginning

    def _choose(self, room: int) -> list[str]:
        """Up to ``room`` subscriptions whose next try is due, of as many requesters as may be."""
        by_requester: dict[str, list[str]] = defaultdict(list)
        now = self._clock.now()
        for kind in self._kinds:
            due = kind.waiting(self._using, now).order_by("pk")
            for pk, requester in due.values_list("pk", "subscription__requester")[:PAGE]:
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
        tries, looked = atomically(self._using, lambda: self._claim(ids))
        subscriptions = [claimed.lane.subscription for claimed in tries]
        entitlements = Entitlements(subscriptions)
        now = self._clock.now()
        found = secrets_of(self._using, [each.pk for each in subscriptions], now)
        for claimed in tries:
            subscription = claimed.lane.subscription
            if entitlements.granted(subscription) is None:
                suspend_lost(subscription)
            elif time.monotonic() - looked < STALE:
                self._start(claimed, found.get(subscription.pk, ()))

    def _claim(self, ids: Collection[str]) -> tuple[list[Claimed], float]:
        """Lock and claim those that are still due, and when they were looked at."""
        lanes = Lane.objects.using(self._using)
        locked = [lane.pk for lane in lanes.lock_free(ids)]
        looked = time.monotonic()
        now = db_now(self._using)
        until = now + timedelta(seconds=settings.TIMEOUT + CLAIM_MARGIN)
        tries = []
        for kind in self._kinds:
            # In a new statement, under the locks: nobody changes a status without one.
            due = kind.waiting(self._using, now).filter(pk__any=locked)
            for lane in due.select_related("subscription"):
                due_at = getattr(lane, kind.column) or now
                setattr(lane, kind.column, until)
                lane.save(using=self._using, update_fields=[kind.column])
                tries.append(Claimed(kind, lane, self._token, due_at, now, until))
        return tries, looked

    def _start(self, claimed: Claimed, live: Sequence[SigningSecret]) -> None:
        """Send the request of one claimed try."""
        kind, subscription = claimed.kind, claimed.lane.subscription
        begun = kind.begin(claimed)
        try:
            request = kind.request(begun, subscription, live)
        except (SecretUnreadable, ImproperlyConfigured) as error:
            # Nothing is ever sent unsigned.
            logger.error("%s cannot be signed for, and waits: %s", subscription.pk, error)
            if not kind.waits_for_keys:
                detail = "Nothing can be signed for this subscription: rotate its secret."
                self.end(begun, Response(error_code=INVALID_REQUEST, error_detail=detail))
            return  # else the claim runs out, and then it is tried again
        except Exception:
            logger.exception("The request to %s cannot be sent", subscription.pk)
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
        record(
            self._using,
            judged.response,
            judged.outcome,
            subscription_id=begun.subscription_id,
            message_id=begun.message_id,
            trigger=begun.trigger,
            due_at=begun.due_at,
            started_at=begun.started_at,
            number=begun.number,
            detail=judged.detail,
        )
        # What a person changed meanwhile stands: the answer tells of what was asked, and no more.
        stored = Subscription.objects.using(self._using).filter(pk=begun.subscription_id)
        subscription = stored.filter(callback_url=begun.callback_url).first()
        if not locked or subscription is None or not begun.kind.concerns(subscription, begun):
            return True
        [lane] = locked
        if judged.outcome.verdict is Verdict.DELIVERED:
            begun.kind.passed(subscription, lane, judged)
        elif getattr(lane, begun.kind.column) == begun.claimed_until:
            begun.kind.failed(subscription, lane, judged)
        return True
