"""Who got an event, who did not, and why: read for pages, a bounded part at a time.

Whom an event is for is said by :mod:`webhooks.engine.addressing`, as in fan-out; here is only added
what time did: who subscribed later, who was suspended by then, whose subscription has changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from django.db.models import Count, Q, QuerySet
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from webhooks.access import Entitlements
from webhooks.conf import settings
from webhooks.engine import addressing
from webhooks.engine.addressing import refusal
from webhooks.engine.parcels import MARKER
from webhooks.models import Delivery, DeliveryAttempt, Event, Subscription
from webhooks.models.delivery import State

#: Deliveries, and subscriptions that were not sent it, on one page.
LISTED: Final = 25
#: Subscriptions that are looked at for one page of those that were not sent it.
LOOKED_AT: Final = 500
#: Attempts that are shown of one delivery, and read for one page of them.
ATTEMPTS, ATTEMPTS_READ = 5, 500
#: Deliveries are counted up to here.
MOST_COUNTED: Final = 10_000

NOT_FANNED_OUT: Final = "not_fanned_out"
PAUSED: Final = "paused"
SUBSCRIBED_LATER: Final = "subscribed_later"
CHANGED_SINCE: Final = "changed_since"

#: Why a subscription was not sent an event, in words.
REASONS: Final[dict[str, Promise]] = {
    addressing.OTHER_REQUESTER: _("The event is addressed to another requester."),
    addressing.NOT_SUBSCRIBED: _("It is not subscribed: it has ended, or its handshake is open."),
    addressing.OTHER_TYPES: _("Its event types do not cover this one."),
    addressing.NOT_ENTITLED: _("Its owner is not entitled to anything any more."),
    addressing.NO_SCOPE: _("Its owner has not the scope that this event type needs."),
    NOT_FANNED_OUT: _("The event is not fanned out yet: it will get a delivery."),
    PAUSED: _("It was paused, and discards what happens meanwhile."),
    SUBSCRIBED_LATER: _("It subscribed after the event had been fanned out."),
    CHANGED_SINCE: _("It was changed since then, or its delivery has been removed."),
}


@dataclass(frozen=True, slots=True)
class Received:
    """A delivery and the last attempts at it, oldest first. earlier: attempts before those."""

    delivery: Delivery
    attempts: Sequence[DeliveryAttempt]
    earlier: int


@dataclass(frozen=True, slots=True)
class Missed:
    """A subscription that was not sent an event. would_get_it: if it were fanned out again now."""

    subscription: Subscription
    code: str
    would_get_it: bool

    @property
    def reason(self) -> str:
        return str(REASONS[self.code])


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a list. after: the last subscription in it, to go on there; "": it is the end."""

    rows: Sequence[Any] = field(default_factory=list)
    after: str = ""


def states(event: Event) -> Counter[str]:
    """How many deliveries of an event are in each state, of ``MOST_COUNTED`` at most."""
    rows = Delivery.objects.using(settings.database).filter(event=event.pk).order_by()
    each = {state.value: Count("pk", filter=Q(state=state)) for state in State}
    return Counter(rows[:MOST_COUNTED].aggregate(**each))


def deliveries(event: Event, after: str = "") -> Part:
    """The deliveries of an event in the order of their subscriptions, as :class:`Received`.

    Two statements; they are read through the index of (event, subscription).
    """
    using = settings.database
    rows = Delivery.objects.using(using).filter(event=event.pk)
    if after:
        rows = rows.filter(subscription_id__gt=after)
    # The event is the caller's, and its payload is not for everybody.
    known = rows.select_related("subscription")
    known = known.defer("subscription__headers", "subscription__basic_auth")
    found = list(known.order_by("subscription_id")[: LISTED + 1])
    page = found[:LISTED]
    attempts = _attempts(using, event, page)
    return Part(
        [_received(each, attempts) for each in page],
        page[-1].subscription_id if len(found) > LISTED else "",
    )


def _attempts(
    using: str, event: Event, page: Sequence[Delivery]
) -> dict[tuple[str, str], list[DeliveryAttempt]]:
    """The newest attempts at these deliveries, by subscription and webhook-id."""
    found: dict[tuple[str, str], list[DeliveryAttempt]] = {}
    if not page:
        return found
    newest = (
        DeliveryAttempt.objects.using(using)
        .filter(
            message_id__in={event.pk, *(each.webhook_id for each in page)},
            subscription_id__in=[each.subscription_id for each in page],
        )
        .defer("excerpt")
        .order_by("-pk")
    )
    for attempt in newest[:ATTEMPTS_READ]:
        found.setdefault((attempt.subscription_id, attempt.message_id), []).append(attempt)
    return found


def _received(
    delivery: Delivery, attempts: dict[tuple[str, str], list[DeliveryAttempt]]
) -> Received:
    own: list[DeliveryAttempt] = []
    for webhook_id in {delivery.event_id, delivery.webhook_id}:
        own += attempts.get((delivery.subscription_id, webhook_id), [])
    own.sort(key=lambda each: each.pk)
    shown = own[-ATTEMPTS:]
    return Received(delivery, shown, max(0, max(delivery.attempts, len(own)) - len(shown)))


def missed(event: Event, after: str = "") -> Part:
    """Who was not sent an event, the newest subscriptions first, as :class:`Missed`.

    Of those that it could concern: its requester's, or everybody's. Of ``LOOKED_AT`` subscriptions
    a time, so that a page costs the same whatever there is.
    """
    if event.type == MARKER:
        return Part()  # it stands for an empty digest of one of them
    rows = _known()
    if event.requester:
        rows = rows.filter(requester=event.requester)
    if after:
        rows = rows.filter(pk__lt=after)
    found = list(rows.order_by("-pk")[: LOOKED_AT + 1])
    judged = _judged(event, found[:LOOKED_AT])
    if len(judged) > LISTED:
        return Part(judged[:LISTED], judged[LISTED - 1].subscription.pk)
    return Part(judged, found[LOOKED_AT - 1].pk if len(found) > LOOKED_AT else "")


def why_not(event: Event, subscription: Subscription) -> Missed | None:
    """Why one subscription was not sent an event; None: it was."""
    return next(iter(_judged(event, [subscription])), None)


def of_anybody(pk: str) -> Subscription | None:
    """A subscription by its exact id, without its secrets."""
    return _known().filter(pk=pk).first()


def _known() -> QuerySet[Subscription]:
    known: QuerySet[Subscription] = Subscription.objects.using(settings.database).all()
    return known.defer("headers", "basic_auth")


def _judged(event: Event, found: Sequence[Subscription]) -> list[Missed]:
    """Those among them that were not sent the event, in their order."""
    if not found:
        return []
    ids = [each.pk for each in found]
    there = Delivery.objects.using(settings.database).filter(
        event=event.pk, subscription_id__gte=min(ids), subscription_id__lte=max(ids)
    )
    ended = {pk: each for pk, *each in there.values_list("subscription_id", "state", "reason")}
    paused = {pk for pk, each in ended.items() if each == [State.DISCARDED, "suspended"]}
    left = [each for each in found if each.pk in paused or each.pk not in ended]
    entitlements = Entitlements(left)
    judged = []
    for each in left:
        now = refusal(event, each, entitlements.granted(each))
        code = PAUSED if each.pk in paused else _code(event, each, now)
        would = not now and code not in (PAUSED, NOT_FANNED_OUT)
        judged.append(Missed(each, code, would))
    return judged


def _code(event: Event, subscription: Subscription, now: str) -> str:
    """The reason. now: the one for which it would not be given the event today."""
    if now == addressing.OTHER_REQUESTER:
        return now
    if event.fanned_out_at is not None and subscription.created_at > event.fanned_out_at:
        return SUBSCRIBED_LATER
    if now:
        return now
    return NOT_FANNED_OUT if event.fanned_out_at is None else CHANGED_SINCE
