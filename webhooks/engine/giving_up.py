"""Where the service gives up: on endpoints that have failed for days, and on backlogs that nobody
has wanted for a month. The sweep runs both, a bounded part at a time.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Final

from django.db.models import Exists, OuterRef, QuerySet

from webhooks.clock import db_now
from webhooks.conf import settings
from webhooks.engine.following import settle_behind
from webhooks.engine.transactions import atomically
from webhooks.lifecycle import change_status
from webhooks.models import Delivery, Lane, Subscription
from webhooks.models.delivery import State
from webhooks.models.lane import LaneQuerySet
from webhooks.models.subscription import FOR_FAILING, Status
from webhooks.transports.base import OURS

logger = logging.getLogger("webhooks")

#: Subscriptions that one sweep suspends.
SUSPENDED: Final = 100
#: Deliveries that expire in one transaction, and in one sweep, and of how many subscriptions.
BATCH, EXPIRED, BACKLOGS = 1000, 20_000, 100

#: Why a delivery of a suspended subscription expired.
TOO_LONG: Final = "suspended_too_long"


def suspend_failing(using: str) -> int:
    """Suspend subscriptions without a success for ``AUTO_SUSPEND_SECONDS``; how many there were."""
    if settings.AUTO_SUSPEND_SECONDS is None:
        return 0
    before = db_now(using) - timedelta(seconds=settings.AUTO_SUSPEND_SECONDS)
    found = _failing(using, before).values_list("pk", flat=True)
    suspended = 0
    for pk in list(found[:SUSPENDED]):
        if atomically(using, lambda pk=pk: _suspend(using, pk, before)):  # type: ignore[misc]
            suspended += 1
            logger.warning("%s is suspended: its endpoint has failed for days.", pk)
    return suspended


def _failing(using: str, before: datetime) -> LaneQuerySet:
    lanes = Lane.objects.using(using)
    return lanes.failing_for_long(before, settings.AUTO_SUSPEND_FAILURES)


def _suspend(using: str, pk: str, before: datetime) -> bool:
    """Suspend one of them, unless it has recovered or moved since it was named."""
    if not Lane.objects.using(using).lock_free([pk]):
        return False
    # Only now, in a new statement, is it certain.
    lane = _failing(using, before).filter(pk=pk).select_related("subscription").first()
    if lane is None:
        return False
    if Lane.objects.using(using).last_errors([pk]).get(pk) in OURS:
        return False  # nobody is suspended because our proxy is down
    return change_status(lane.subscription, Status.SUSPENDED, reason=FOR_FAILING)


def expire_backlogs(using: str) -> int:
    """End what is pending for subscriptions that have been suspended for ``SUSPENDED_MAX_AGE``; how
    many deliveries there were."""
    before = db_now(using) - timedelta(seconds=settings.SUSPENDED_MAX_AGE)
    pending = Delivery.objects.using(using).pending().filter(subscription_id=OuterRef("pk"))
    overdue = _overdue(using, before).filter(Exists(pending)).order_by("pk")
    expired = 0
    for pk in list(overdue.values_list("pk", flat=True)[:BACKLOGS]):
        while room := min(BATCH, EXPIRED - expired):
            found = atomically(using, lambda pk=pk, room=room: _expire(using, pk, before, room))  # type: ignore[misc]
            expired += found
            if found < room:
                break
    if expired:
        logger.warning("%d deliveries of suspended subscriptions have expired.", expired)
    return expired


def _overdue(using: str, before: datetime) -> QuerySet[Subscription]:
    subscriptions: QuerySet[Subscription] = Subscription.objects.using(using).all()
    return subscriptions.filter(status=Status.SUSPENDED, status_since__lte=before)


def _expire(using: str, pk: str, before: datetime, room: int) -> int:
    """End up to ``room`` pending deliveries, unless the subscription was resumed."""
    if not Lane.objects.using(using).lock_free([pk]):
        return 0
    if not _overdue(using, before).filter(pk=pk).exists():
        return 0
    behind = settle_behind(using, pk, room)
    room -= behind
    pending = Delivery.objects.using(using).pending().filter(subscription_id=pk)
    ids = sorted(pending.order_by("due_at", "pk").values_list("pk", flat=True)[:room])
    # Locked in the order of their ids first, as everybody does.
    list(pending.filter(pk__any=ids).order_by("pk").select_for_update().values_list("pk"))
    pending.filter(pk__any=ids).settle(State.EXPIRED, now=db_now(using), reason=TOO_LONG)
    return behind + len(ids)
