"""Empty digests: for a subscription that wants them, a delivery of an event in which nothing is.

The marker is an ordinary delivery, due when the window ends; so the digest of a window in which
nothing happened has an id, tries and a history like any other. Its event is in no catalogue, in no
feed and in no body. Planting is idempotent: a tick that comes late, or twice, changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Final

from django.db.models import Exists, OuterRef, QuerySet

from webhooks.clock import db_now
from webhooks.engine.parcels import MARKER
from webhooks.engine.transactions import atomically
from webhooks.engine.windows import window_for
from webhooks.models import Delivery, Event, Lane, Subscription
from webhooks.models.delivery import State
from webhooks.models.fields import new_delivery_id
from webhooks.models.subscription import Status, Trigger

#: Markers that one transaction plants.
BATCH: Final = 200


def plant_missing(using: str) -> int:
    """Plant the markers that are missing; how many there were."""
    planted = 0
    after = ""
    while True:
        wanting = _wanting(using).filter(pk__gt=after) if after else _wanting(using)
        ids = list(wanting.order_by("pk").values_list("pk", flat=True)[:BATCH])
        if not ids:
            return planted
        planted += atomically(using, lambda ids=ids: plant(using, ids, wait=False))  # type: ignore[misc]
        after = ids[-1]


def plant(using: str, ids: Collection[str], *, wait: bool = True) -> int:
    """Plant the markers of those of these subscriptions that want one and have none; how many.

    In a transaction. wait: for lanes that others have locked; else those are left out.
    """
    wanting = _wanting(using).filter(pk__any=sorted(ids))
    if not wanting.exists():
        return 0
    lanes = Lane.objects.using(using)
    locked = {lane.pk: lane for lane in (lanes.lock(ids) if wait else lanes.lock_free(ids))}
    # Read under the locks, and so is the clock: as fan-out does it.
    found = list(wanting.filter(pk__any=sorted(locked)))
    now = db_now(using)
    for subscription in found:
        lane = locked[subscription.pk]
        due_at = window_for(subscription, now).end
        event = _event(subscription, now)
        event.save(using=using, force_insert=True)
        Delivery.objects.using(using).add([_row(event, lane, now, due_at)])
        # As it is stored: the caller may hold it changed, and unwritten.
        lanes.expect(lanes.filter(pk=lane.pk), due_at)
    return len(found)


def _wanting(using: str) -> QuerySet[Subscription]:
    """Subscriptions whose present window has no marker."""
    markers = (
        Delivery.objects.using(using)
        .pending()
        .filter(subscription_id=OuterRef("pk"), event__type=MARKER, message=None)
    )
    subscriptions: QuerySet[Subscription] = Subscription.objects.using(using).filter(
        ~Exists(markers), empty_digests=True, status=Status.SUBSCRIBED
    )
    return subscriptions.exclude(trigger=Trigger.REALTIME)


def _event(subscription: Subscription, now: datetime) -> Event:
    # Fanned out from the start, and without a place in the feed.
    return Event(
        type=MARKER,
        requester=subscription.requester,
        data="{}",
        occurred_at=now,
        created_at=now,
        fanned_out_at=now,
    )


def _row(event: Event, lane: Lane, now: datetime, due_at: datetime) -> tuple[object, ...]:
    """A row in the order of ``delivery.FANNED_OUT``."""
    return (
        *(new_delivery_id(), event.pk, lane.pk, State.PENDING.value, "", due_at, due_at),
        *(0, "", now, None, lane.clock_at(now)),
    )
