"""What ended, or waits, is due now: for one that a person asks for, a replay, dead letters."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime

from webhooks.engine.following import ROUND
from webhooks.models import Delivery, Lane, Message
from webhooks.models.delivery import State
from webhooks.models.subscription import Content


def revive(
    using: str,
    lane: Lane,
    ids: Collection[str],
    *,
    trigger: str,
    now: datetime,
    together: bool = False,
) -> None:
    """Make deliveries of a locked lane due now, whether they ended or are pending.

    together: whatever travelled in a batch with one of them comes along, under the same id; of a
    large digest of counts, in rounds that the lane's holder makes. Else each leaves its batch, to
    be gathered anew; what is pending in one stays: it comes by itself.
    """
    deliveries = Delivery.objects.using(using)
    batches = Message.objects.using(using).batches(
        set(deliveries.filter(pk__any=ids).values_list("message_id", flat=True)) - {None}
    )
    members = deliveries.filter(message__in=[message.pk for message in batches])
    if together:
        ids = {*ids, *_companions(using, batches, ids)}
    # Locked in the order of their ids first, as everybody does: an acknowledgement needs no lane.
    locked = deliveries.filter(pk__any=sorted(ids)).order_by("pk").select_for_update()
    states = dict(locked.values_list("pk", "state"))
    if not together:
        kept = set(members.pending().filter(pk__any=sorted(ids)).values_list("pk", flat=True))
        ids = states.keys() - kept
        members.filter(pk__any=sorted(ids)).update(message=None)
    concerned = deliveries.filter(pk__any=sorted(ids))
    # The pending ones first: those that are revived are pending after it.
    if State.PENDING in states.values():
        concerned.hasten(
            trigger=trigger,
            now=now,
            clock_ms=lane.clock_at(now),
            discard_before=lane.discard_before,
        )
    if set(states.values()) != {State.PENDING}:
        concerned.revive(trigger=trigger, now=now, clock_ms=lane.clock_at(now))
    Lane.objects.using(using).expect([lane], now)


def _companions(using: str, batches: Iterable[Message], ids: Collection[str]) -> list[str]:
    """What is to be made due with these deliveries, for their batches are sent again.

    Of a digest of counts that is large, the head, which the others follow. One that was given up
    is not sent again: what belonged to it then comes alone.
    """
    deliveries = Delivery.objects.using(using)
    found: list[str] = []
    for message in batches:
        members = deliveries.filter(message=message)
        if message.content == Content.COUNTS and message.superseded_at is not None:
            members.filter(pk__any=sorted(ids)).update(message=None)
        elif message.content == Content.COUNTS and message.head is None:
            continue  # it is being gathered, and comes with all that is pending in it
        elif message.content == Content.COUNTS and message.count > ROUND:
            if not members.filter(pk=message.head).exists():
                message.head = members.filter(pk__any=sorted(ids)).earliest("pk").pk
            message.following = State.PENDING
            message.save(using=using, update_fields=["head", "following"])
            found.append(message.head)
        else:
            found += members.values_list("pk", flat=True)
    return found
