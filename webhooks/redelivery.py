"""Sending again: one delivery, an event to all its receivers, or what was recorded within a time.

Asking is quick and changes rows alone; workers send, and make the deliveries of a replay, batch by
batch (:mod:`webhooks.engine.replays`).
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from webhooks import access, catalog
from webhooks.clock import db_now
from webhooks.conf import settings
from webhooks.engine import fanout
from webhooks.engine.parcels import MARKER, draft, due_of, new_message
from webhooks.engine.replays import select
from webhooks.engine.reviving import revive
from webhooks.engine.transactions import atomically
from webhooks.engine.wake import wake
from webhooks.exceptions import CatalogError, NotDeliverable
from webhooks.models import (
    Delivery,
    DeliveryAttempt,
    Event,
    Lane,
    Message,
    Replay,
    Subscription,
)
from webhooks.models.replay import NOT_RECEIVED, REPLAYABLE, Selection
from webhooks.models.subscription import Status

logger = logging.getLogger("webhooks")

#: What a replay sends again unless one says otherwise: all that did not reach the receiver.
DEFAULT_STATES: Final = NOT_RECEIVED

#: Deliveries of one event that are sent again in one go: each takes its lane's lock for itself.
RESENT: Final = 250

#: Years that every database and time zone can compute with.
_YEARS: Final = range(1970, 9999)


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """What is to be sent again: events recorded from ``start`` on and before ``end`` (aware).

    types: event types or patterns; none: all that the subscription has. states: what became of
    their deliveries: any of ``delivered``, ``dead``, ``expired``, ``cancelled``, ``discarded``; and
    ``missing`` for events that the subscription has no delivery of, e.g. those of before it began.
    What is pending comes by itself. Raises ValidationError, by field.
    """

    start: datetime
    end: datetime
    types: list[str] = field(default_factory=list)
    states: list[str] = field(default_factory=lambda: list(DEFAULT_STATES))

    def __post_init__(self) -> None:
        errors: dict[str, str] = {}
        for name, moment in (("start", self.start), ("end", self.end)):
            if not isinstance(moment, datetime) or timezone.is_naive(moment):
                errors[name] = _("Give a time with its time zone.")
            elif moment.year not in _YEARS:
                errors[name] = _("Give a time from 1970 to 9998.")
        if not errors and self.start >= self.end:
            errors["end"] = _("It must be later than the start.")
        if not isinstance(self.types, list):
            errors["types"] = _("Give a list of event types.")
        elif self.types:
            try:
                catalog.check_patterns(self.types)
            except CatalogError as error:
                errors["types"] = str(error)
        if not isinstance(self.states, list) or not self.states:
            errors["states"] = _("Give a list of at least one of: %s.") % ", ".join(REPLAYABLE)
        elif unknown := [state for state in self.states if state not in REPLAYABLE]:
            errors["states"] = _("%(state)r is none of: %(known)s.") % {
                "state": str(unknown[0])[:64],
                "known": ", ".join(REPLAYABLE),
            }
        if errors:
            raise ValidationError(errors)


def redeliver(delivery: Delivery, *, actor: str = "", new_id: bool = False) -> Delivery:
    """Send one delivery again, whatever became of it; returns it as it is stored now.

    It is due at once, with a new schedule of retries and a new age limit; the number of its
    attempts goes on. One that is pending is made due at once. Where the subscription is suspended
    it waits, and where its lane rests (``Retry-After``, a rate limit) it waits for that; a lane
    that is parked is probed at once.

    What travelled in a batch with it is sent again together with it, for that is one message.

    actor: who asks, for the log. new_id: by default it keeps the ``webhook-id`` under which it was
    sent last, for it is the same message, and a receiver that has it may drop it; with ``new_id``
    it goes out alone, under an id of its own (``msg_…``); in the header alone, since the body stays
    as it was, with the event's id, unless the subscription gets batches: then it is a batch of one.

    Raises NotDeliverable where the subscription has ended, or the delivery was removed.
    """
    using = settings.database

    def work() -> None:
        try:
            lane = Lane.objects.using(using).lock_one(delivery.subscription_id)
            subscription = Subscription.objects.using(using).get(pk=delivery.subscription_id)
        except Subscription.DoesNotExist:
            lane = None
        stored = Delivery.objects.using(using).filter(pk=delivery.pk).select_related("event")
        found = stored.first()
        if lane is None or found is None:
            raise NotDeliverable(
                _(
                    "%(id)s was removed, with its event or its subscription, and cannot be sent "
                    "again. Finished rows are kept for %(days)s days."
                )
                % {"id": delivery.pk, "days": settings.RETENTION_DAYS}
            )
        if subscription.status == Status.UNSUBSCRIBED:
            raise NotDeliverable(
                _(
                    "%(id)s is unsubscribed: nothing is sent to it any more. Subscribe anew, and "
                    "replay what is wanted there."
                )
                % {"id": subscription.pk}
            )
        now = db_now(using)  # under the lock: behind what was added to the lane before
        if lane.probe_now(now):
            lane.save(using=using, update_fields=["clock_stopped_ms", "paused_until"])
        if new_id:
            # First: with an id of its own, it leaves the batch that it was in.
            message = _message_of(found, subscription, now)
            message.save(using=using, force_insert=True)
            stored.update(message=message)
        revive(
            using,
            lane,
            [found.pk],
            trigger=DeliveryAttempt.Trigger.MANUAL.value,
            now=now,
            together=True,
        )
        transaction.on_commit(wake, using=using, robust=True)

    atomically(using, work)
    logger.info("%s is sent again%s.", delivery.pk, f", asked for by {actor!r}" if actor else "")
    delivery.refresh_from_db(using=using)
    return delivery


@dataclass(frozen=True, slots=True)
class Resent:
    """deliveries: that are sent again. refused: those of subscriptions that have ended. after: the
    last subscription that was looked at, to go on there; "": there are no more."""

    deliveries: int
    refused: int
    after: str


def redeliver_event(
    event: Event,
    *,
    states: Collection[str],
    after: str = "",
    new_id: bool = False,
    actor: str = "",
) -> Resent:
    """Send an event again to those whose delivery of it is in one of these states.

    Up to ``RESENT`` of them, in the order of the subscriptions; each as :func:`redeliver` does it.
    after: the ``after`` of the answer before.
    """
    rows = Delivery.objects.using(settings.database).filter(event=event.pk, state__in=list(states))
    if after:
        rows = rows.filter(subscription_id__gt=after)
    found = list(rows.order_by("subscription_id")[: RESENT + 1])
    refused = 0
    for delivery in found[:RESENT]:
        try:
            redeliver(delivery, actor=actor, new_id=new_id)
        except NotDeliverable:
            refused += 1
    sent = len(found[:RESENT]) - refused
    last = found[RESENT - 1].subscription_id if len(found) > RESENT else ""
    return Resent(sent, refused, last)


def fan_out_again(event: Event, *, after: str = "", actor: str = "") -> fanout.FannedOutAgain:
    """Give an event to subscriptions that it is for now and that have no delivery of it.

    Those of before stay as they are. One step looks at a bounded number of subscriptions: go on
    with the ``after`` of its answer. actor: who asks, for the log. Raises NotDeliverable for an
    event that was not fanned out yet, was removed, or is none of the host's.
    """
    using = settings.database
    made = fanout.fan_out_again(
        using, _fanned_out(event), trigger=DeliveryAttempt.Trigger.REPLAY.value, after=after
    )
    if made.deliveries:
        transaction.on_commit(wake, using=using, robust=True)
    by = f", asked for by {actor!r}" if actor else ""
    logger.info("%s is fanned out again to %d%s.", event.pk, made.deliveries, by)
    return made


def count_lacking(event: Event, *, after: str = "") -> tuple[int, bool]:
    """How many the next step of :func:`fan_out_again` would give the event to, and whether there
    are more subscriptions to look at behind those. Raises NotDeliverable as it does."""
    found, last = fanout.lacking(settings.database, _fanned_out(event), after)
    return found, bool(last)


def _fanned_out(event: Event) -> Event:
    stored = Event.objects.using(settings.database).defer("data").filter(pk=event.pk).first()
    if stored is None:
        raise NotDeliverable(_("%(id)s was removed.") % {"id": event.pk})
    if stored.type == MARKER:
        raise NotDeliverable(
            _("It stands for an empty digest of one subscription, and is for nobody else.")
        )
    if stored.fanned_out_at is None:
        raise NotDeliverable(
            _("It is not fanned out yet: its first fan-out reaches all current subscribers.")
        )
    return stored


def count(subscription: Subscription, request: ReplayRequest) -> int:
    """How many deliveries a replay would send, were it asked for now.

    0 for a subscription that has ended or is entitled to nothing. Raises ValidationError for types
    that its owner does not see.
    """
    using = settings.database
    selection = _select(subscription, request, db_now(using))
    return 0 if selection is None else selection.events(using).count()


def replay(subscription: Subscription, request: ReplayRequest, *, actor: str = "") -> Replay:
    """Ask for a replay; workers do it from now on, and its row tells how far they are.

    actor: who asks, e.g. ``app:<client id>``. Only what had happened by now is part of it. Raises
    NotDeliverable for a subscription that has ended or is entitled to nothing, and
    ValidationError as :func:`count` does.
    """
    using = settings.database
    now = db_now(using)
    selection = _select(subscription, request, now)
    if selection is None:
        raise NotDeliverable(
            _(
                "%(id)s is unsubscribed, or its owner is not entitled to it any more: nothing is "
                "sent to it. Subscribe anew."
            )
            % {"id": subscription.pk}
        )
    made = Replay(
        subscription_id=subscription.pk,
        from_at=request.start,
        to_at=request.end,
        types=request.types,
        states=request.states,
        actor=actor,
        total=selection.events(using).count(),
        created_at=now,
    )
    made.save(using=using, force_insert=True)
    transaction.on_commit(wake, using=using, robust=True)
    return made


def cancel(replay: Replay) -> bool:
    """End a replay that is running; False when it has ended. What it has made is still sent."""
    using = settings.database
    rows = Replay.objects.using(using).filter(pk=replay.pk)
    ended = atomically(using, lambda: rows.end(Replay.State.CANCELLED, db_now(using)))
    replay.refresh_from_db(using=using)
    return bool(ended)


def _select(subscription: Subscription, request: ReplayRequest, now: datetime) -> Selection | None:
    stored = Subscription.objects.using(settings.database).filter(pk=subscription.pk).first()
    if stored is None:
        return None
    selection = select(
        stored,
        start=request.start,
        end=request.end,
        types=request.types,
        states=request.states,
        asked_at=now,
    )
    if selection is not None and request.types:
        try:
            catalog.check_patterns(request.types, access.granted(stored))
        except CatalogError as error:
            raise ValidationError({"types": str(error)}) from None
    return selection


def _message_of(delivery: Delivery, subscription: Subscription, now: datetime) -> Message:
    """A message of this delivery alone. Its format is the one of now, whatever is chosen later."""
    alone = due_of(settings.database, pk=delivery.pk)
    return draft(new_message(subscription, now, batch=subscription.batches), alone).message
