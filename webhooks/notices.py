"""Notices: owners hear when a subscription fails, recovers or is suspended, and what was given up.

As operational events, to those subscriptions of the same requester that ask for them; by a signal
to the host; and by mail, where a subscription has a contact address. All but the dead deliveries
are found by the sweep, from what the lanes say: nothing here stands in a POST's way, and nothing
that goes wrong here can stop the deliveries.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast

from django.core import mail
from django.db import transaction
from django.template.loader import render_to_string
from django.utils import translation

from webhooks import health
from webhooks.clock import db_now
from webhooks.conf import settings
from webhooks.emission import InvalidEvent, emit_many
from webhooks.engine.transactions import atomically
from webhooks.health import Reason
from webhooks.models import Lane, Subscription
from webhooks.models.lane import FAILING, SUSPENDED
from webhooks.models.subscription import BY_PROBE, OPERATIONAL, OnSuspend, Status, matches
from webhooks.shapes import host_of
from webhooks.signals import subscription_health_changed
from webhooks.webhook_events import DELIVERY_DEAD
from webhooks.webhook_events import FAILING as FAILING_EVENT
from webhooks.webhook_events import RECOVERED as RECOVERED_EVENT
from webhooks.webhook_events import SUSPENDED as SUSPENDED_EVENT

logger = logging.getLogger("webhooks")

#: Lanes for each transaction.
PAGE: Final = 500
#: Mails for each sweep; the owners of the others are told by the next one.
MAILS: Final = 100
#: A mail server that hangs is given up after so many seconds for each step of its protocol, and
#: after so many in all: the sweep is a task with a limit.
MAIL_TIMEOUT, MAIL_PATIENCE = 10, 15.0

#: What the host's receivers hear instead of a ``told`` that became empty.
RECOVERED: Final = "recovered"

_EVENTS: Final = {
    FAILING: FAILING_EVENT,
    RECOVERED: RECOVERED_EVENT,
    SUSPENDED: SUSPENDED_EVENT,
}


@dataclass(frozen=True, slots=True)
class Change:
    """What an owner is told. state: "" where there is nothing to say: somebody resumed it.

    previous: what the owner was told before.
    """

    subscription: Subscription
    previous: str
    state: str
    since: datetime
    reason: Reason | None
    last_success_at: datetime | None

    @property
    def wants_mail(self) -> bool:
        return self.state in (FAILING, SUSPENDED) and bool(self.subscription.contact_email)


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A delivery whose last try failed. requester: the owner of the subscription."""

    delivery_id: str
    subscription_id: str
    requester: str
    event_id: str
    event_type: str
    state: str
    attempts: int
    error_code: str
    status_code: int | None
    ended_at: datetime


def tell_owners(using: str) -> None:
    """Tell owners what has changed since they were last told; never raises.

    ``Lane.told`` is written in the transaction that records the events, so nobody is told twice.
    Signals and mails follow the commit: a process that dies between takes them with it.
    """
    mails = _Mails()
    after = ""
    try:
        while True:
            lanes = Lane.objects.using(using).untold(failing_after=health.FAILING_AFTER)
            if after:
                lanes = lanes.filter(pk__gt=after)
            found = list(lanes[:PAGE])
            if found:
                _tell_page(using, found, mails)
            if len(found) < PAGE:
                return
            after = found[-1].pk
    except Exception:
        logger.exception("Owners could not be told of their subscriptions; the next sweep will.")


def record_given_up(using: str, deliveries: Sequence[GivenUp]) -> None:
    """Record ``webhooks.delivery.dead`` for the owners that ask for it; call in a transaction.

    One statement when nobody asks. What cannot be recorded is logged: the deliveries have ended,
    and their rows say so. Of operational events nothing is told, or one dead endpoint that asks
    for them would make them for ever. Raises a database error where the transaction is lost anyway.
    """
    deliveries = [each for each in deliveries if not each.event_type.startswith(OPERATIONAL)]
    if not deliveries:
        return
    asked = _asked(using, {each.requester for each in deliveries}, [DELIVERY_DEAD])
    wanted = [each for each in deliveries if (each.requester, DELIVERY_DEAD) in asked]
    _record(using, DELIVERY_DEAD, [_given_up(each) for each in wanted])


# Telling


def _tell_page(using: str, found: Sequence[Lane], mails: _Mails) -> None:
    requesters = {lane.subscription.requester for lane in found}
    asked = _asked(using, requesters, list(_EVENTS.values()))
    ids = [lane.pk for lane in found]
    for change in atomically(using, lambda: _write(using, ids, asked, mails.room)):
        heard = subscription_health_changed.send_robust(
            sender=Subscription,
            subscription=change.subscription,
            previous=change.previous,
            state=change.state,
            reason=change.reason,
        )
        if change.wants_mail:
            mails.send(change, told_by_host=any(answer is True for _receiver, answer in heard))


def _write(
    using: str, ids: Collection[str], asked: set[tuple[str, str]], mails: int
) -> list[Change]:
    """Write what owners are told, and record the events; what there is to say.

    mails: how many there may be; who would get one beyond that is left for the next sweep.
    """
    lanes = Lane.objects.using(using)
    locked = [lane.pk for lane in lanes.lock_free(ids)]
    # Read again, under the locks: it may have changed since.
    untold = lanes.untold(failing_after=health.FAILING_AFTER).filter(pk__any=locked)
    changes = []
    for change in _changes(using, list(untold)):
        if change.wants_mail:
            if not mails:
                continue
            mails -= 1
        changes.append(change)
    told: dict[str, list[str]] = defaultdict(list)
    events: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for change in changes:
        subscription = change.subscription
        told["" if change.state == RECOVERED else change.state].append(subscription.pk)
        event_type = _EVENTS.get(change.state)
        if event_type is not None and (subscription.requester, event_type) in asked:
            events[event_type].append(_event(change))
    for state, pks in told.items():
        lanes.filter(pk__any=pks).update(told=state)
    for event_type, rows in events.items():
        _record(using, event_type, rows)
    return [change for change in changes if change.state]


def _changes(using: str, untold: Sequence[Lane]) -> list[Change]:
    """What the owners of these lanes are to be told; ``state`` of each is what is so."""
    states = {lane.pk: cast(str, cast(Any, lane).state) for lane in untold}
    failing = [lane.pk for lane in untold if states[lane.pk] == FAILING]
    codes = Lane.objects.using(using).last_errors(failing) if failing else {}
    now = db_now(using)
    changes = []
    for lane in untold:
        subscription, state, reason = lane.subscription, states[lane.pk], None
        since = now
        # Told as the API tells it, whatever LANGUAGE_CODE is.
        with translation.override("en"):
            if state == FAILING:
                since = lane.failing_since or now
                reason = health.failing(lane.failures, lane.failing_since, codes.get(lane.pk, ""))
            elif state == SUSPENDED:
                since = subscription.status_since
                reason = health.suspended(subscription)
            elif _has_recovered(lane):
                state = RECOVERED
                since = lane.last_success_at or now
        changes.append(Change(subscription, lane.told, state, since, reason, lane.last_success_at))
    return changes


def _has_recovered(lane: Lane) -> bool:
    """Whether a lane that is well was ill, and not resumed by somebody who knows of it."""
    subscription = lane.subscription
    if subscription.status != Status.SUBSCRIBED:
        return False
    probed = lane.told == SUSPENDED and subscription.status_reason == BY_PROBE
    return lane.told == FAILING or probed


def _asked(using: str, requesters: Collection[str], types: Sequence[str]) -> set[tuple[str, str]]:
    """Which of these requesters have a subscription that asks for which of these types."""
    asking = Subscription.objects.using(using).asking_for_operational(requesters)
    return {
        (requester, event_type)
        for requester, patterns in asking
        for event_type in types
        if matches(patterns, event_type)
    }


# Events


def _event(change: Change) -> dict[str, Any]:
    """The event of a change, as ``emit_many`` takes it."""
    subscription = change.subscription
    data: dict[str, Any] = {
        "subscription_id": subscription.pk,
        "host": host_of(subscription.callback_url),
        "since": health.as_text(change.since),
    }
    if change.reason is not None:
        data["reason"] = {"code": change.reason.code, "message": change.reason.message}
    data["last_success_at"] = health.as_text(change.last_success_at)
    if change.state == SUSPENDED:
        data["backlog_expires_at"] = health.as_text(health.backlog_expires_at(subscription))
    return {
        "data": data,
        "requester": subscription.requester,
        "subject": f"subscription:{subscription.pk}",
    }


def _given_up(delivery: GivenUp) -> dict[str, Any]:
    return {
        "data": {
            "delivery_id": delivery.delivery_id,
            "subscription_id": delivery.subscription_id,
            "event_id": delivery.event_id,
            "event_type": delivery.event_type,
            "state": delivery.state,
            "attempts": delivery.attempts,
            "error_code": delivery.error_code,
            "status_code": delivery.status_code,
            "ended_at": health.as_text(delivery.ended_at),
        },
        "requester": delivery.requester,
        "subject": f"delivery:{delivery.delivery_id}",
    }


def _record(using: str, event_type: str, events: list[dict[str, Any]]) -> None:
    """Record events in one statement. What cannot be recorded is logged, and stops nothing else."""
    if not events:
        return
    try:
        # A savepoint: the caller's transaction has more to write.
        with transaction.atomic(using=using):
            emit_many(event_type, events, using=using)
    except InvalidEvent:
        # Refused before any SQL, for one of them: a requester's name that was written past us.
        if len(events) > 1:
            for event in events:
                _record(using, event_type, [event])
        else:
            logger.exception("%s of %s cannot be recorded.", event_type, events[0]["subject"])
    except Exception:
        if transaction.get_rollback(using):
            raise  # not even the savepoint could be restored: the whole transaction is run again
        logger.exception("%d events %s could not be recorded.", len(events), event_type)


# Mails


class _Mails:
    """The mails of one sweep: so many of them, and so much patience with the server."""

    def __init__(self) -> None:
        self.room = MAILS
        self._patience = MAIL_PATIENCE

    def send(self, change: Change, *, told_by_host: bool) -> None:
        """Write to an owner, unless the host has done so. Never raises."""
        self.room -= 1
        if told_by_host:
            return
        if self._patience <= 0:
            logger.error("No mail about %s: the mail server is slow.", change.subscription.pk)
            return
        began = time.monotonic()
        try:
            _connection().send_messages([_mail(change)])
        except Exception:
            logger.exception("The mail about %s could not be sent.", change.subscription.pk)
        self._patience -= time.monotonic() - began


def _connection() -> Any:
    """The host's default way to send mail, with an end to its patience."""
    mailers: Any = getattr(mail, "mailers", None)  # since Django 6.1, in place of get_connection()
    connection: Any = mail.get_connection() if mailers is None else mailers.default
    if hasattr(connection, "timeout"):
        connection.timeout = min(connection.timeout or MAIL_TIMEOUT, MAIL_TIMEOUT)
    return connection


def _mail(change: Change) -> mail.EmailMessage:
    subscription = change.subscription
    assert change.reason is not None
    context = {
        "subscription_id": subscription.pk,
        # The host alone: paths and queries are where people put their tokens.
        "host": host_of(subscription.callback_url),
        "since": health.shown(change.since),
        "last_success": change.last_success_at and health.shown(change.last_success_at),
        "reason": change.reason,
        "discards": subscription.on_suspend == OnSuspend.DISCARD,
        "expires": (at := health.backlog_expires_at(subscription)) and health.shown(at),
        "retention_days": settings.RETENTION_DAYS,
    }
    subject = render_to_string(f"webhooks/mail/{change.state}_subject.txt", context)
    body = render_to_string(f"webhooks/mail/{change.state}.txt", context)
    # A subject is one line, whatever a host's own template makes of it.
    return mail.EmailMessage(" ".join(subject.split()), body, to=[subscription.contact_email])
