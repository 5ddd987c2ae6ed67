"""Another window for what waits: the trigger, the time zone, the hour or the day was changed.

``Lane.retime_before`` says up to when; the lane's holder moves what was made by then and is in no
message yet, a bounded part in each round, before it sends anything else of that lane. All of it
goes to the window of the moment of the change, so a worker that dies half-way moves nothing twice.

A digest of which a part was frozen is finished first, as it was begun: its pages say how many there
are, and what is in them.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from webhooks.engine.digests import Figures, Plan
from webhooks.engine.freezing import ours
from webhooks.engine.lanes import HeldLane
from webhooks.engine.transactions import atomically
from webhooks.engine.windows import window_for
from webhooks.models import Delivery, Lane, Message
from webhooks.models.subscription import Content


def begun_digest(using: str, lane: HeldLane) -> Plan | Figures | None:
    """A digest of a lane that was frozen in part only, to be gone on with, if there is one."""
    latest = Message.objects.using(using).digests(lane.id).order_by("-window_to", "-pk").first()
    if latest is None or latest.window is None or latest.is_gathered:
        return None
    left = Delivery.objects.using(using).pending()
    if not left.filter(subscription_id=lane.id, due_at=latest.window_to, message=None).exists():
        return None
    plan = Figures if latest.content == Content.COUNTS else Plan
    return plan(lane, latest.window)


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
