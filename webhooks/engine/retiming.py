"""Another window for what waits: the trigger, the time zone, the hour or the day was changed.

``Lane.retime_before`` says up to when; the lane's holder moves what was made by then and is in no
message yet, a bounded part in each round, before it sends anything else of that lane. All of it
goes to the window of the moment of the change, so a worker that dies half-way moves nothing twice.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from webhooks.engine.freezing import ours
from webhooks.engine.lanes import HeldLane
from webhooks.engine.transactions import atomically
from webhooks.engine.windows import window_for
from webhooks.models import Delivery, Lane


def retime_some(using: str, token: UUID, lane: HeldLane, room: int) -> int:
    """Move up to ``room`` deliveries of a lane; how many were found. Fewer: it is done.

    Where somebody has the lane locked, none is moved, and it is as if there were more.
    """
    until = lane.row.retime_before
    assert until is not None
    subscription = lane.subscription
    due_at = window_for(subscription, until).end if subscription.is_scheduled else until
    return atomically(using, lambda: _retime(using, token, lane, until, due_at, room))


def _retime(
    using: str, token: UUID, lane: HeldLane, until: datetime, due_at: datetime, room: int
) -> int:
    if lane.id not in ours(using, token, [lane]):
        return room
    waiting = (
        Delivery.objects.using(using)
        .pending()
        .filter(subscription_id=lane.id, message=None, created_at__lte=until)
    )
    found = list(waiting.exclude(due_at=due_at).order_by("pk").values_list("pk", "attempts")[:room])
    rows = Delivery.objects.using(using).pending()
    # One that was tried keeps its age.
    tried = [pk for pk, attempts in found if attempts]
    fresh = [pk for pk, attempts in found if not attempts]
    rows.filter(pk__any=tried).update(due_at=due_at)
    rows.filter(pk__any=fresh).update(due_at=due_at, first_due_at=due_at)
    if len(found) < room:
        lanes = Lane.objects.using(using).filter(pk=lane.id, retime_before=until)
        lanes.update(retime_before=None)
    return len(found)
