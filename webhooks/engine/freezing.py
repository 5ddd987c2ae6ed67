"""Freezing: a batch is written down, with its members, before it is sent for the first time.

Everything here happens under the lane's lock, and only while the lane is ours and nobody has
changed it unheard: so no delivery gets into two messages, nor into one that its owner has just
chosen another window for.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from webhooks.clock import db_now
from webhooks.engine.parcels import Draft, digest, draft, new_message, rendered
from webhooks.engine.transactions import atomically
from webhooks.models import Delivery, Lane, Message
from webhooks.models.delivery import DueDelivery

if TYPE_CHECKING:
    from webhooks.engine.lanes import HeldLane


class MembersChanged(Exception):
    """A delivery that was to be frozen has ended, or was removed, since it was read."""


def ours(using: str, token: UUID, lanes: Collection[HeldLane]) -> set[str]:
    """Lock those of the lanes that are still ours, free, and as we know them. In a transaction."""
    known = {lane.id: lane.control for lane in lanes}
    locked = Lane.objects.using(using).held_by(token, known)
    return {row.pk for row in locked if row.control == known[row.pk]}


def freeze(using: str, token: UUID, drafts: Sequence[tuple[HeldLane, Draft]]) -> set[str]:
    """Write drafts and their members, all in one transaction; the lanes whose drafts were written.

    A lane that somebody has locked, or changed, is left for another round. Raises MembersChanged,
    and then nothing was written.
    """
    return atomically(using, lambda: _freeze(using, token, drafts)) if drafts else set()


def _freeze(using: str, token: UUID, drafts: Sequence[tuple[HeldLane, Draft]]) -> set[str]:
    mine = ours(using, token, [lane for lane, _draft in drafts])
    written = [each for lane, each in drafts if lane.id in mine]
    Message.objects.using(using).bulk_create([each.message for each in written])
    for each in written:
        take(using, each.message, [delivery.id for delivery in each.deliveries])
    return mine


def take(using: str, message: Message, ids: Sequence[str], former: str | None = None) -> None:
    """Make pending deliveries that are in no message members of this one.

    former: the message that they are in, which was given up; None: in none. Under the lane's lock.
    Raises MembersChanged unless all of them are.
    """
    free = Delivery.objects.using(using).pending().filter(pk__any=ids, message=former)
    if free.update(message=message) != len(ids):
        raise MembersChanged(f"{message.pk} lost members before it was frozen")


def replace(
    using: str,
    token: UUID,
    lane: HeldLane,
    old: Message,
    members: Sequence[DueDelivery],
    leaving: Sequence[str] = (),
) -> Message | None:
    """End a message whose bytes cannot be made again; its members go out under a new id.

    members: those that are still to be sent. leaving: pending members that may not be; they are
    given back. The new message, in the subscription's present format, keeps window and page, and
    the counts of what may still be told. Not for a digest of counts (``digests.give_up``). None:
    not now.
    """
    return atomically(using, lambda: _replace(using, token, lane, old, members, leaving))


def _replace(
    using: str,
    token: UUID,
    lane: HeldLane,
    old: Message,
    members: Sequence[DueDelivery],
    leaving: Sequence[str],
) -> Message | None:
    if lane.id not in ours(using, token, [lane]):
        return None
    now = db_now(using)
    pending = Delivery.objects.using(using).pending().filter(message=old)
    pending.filter(pk__any=leaving).update(message=None)
    made = draft(_successor(lane, old, now), members)
    pending.update(message=None)
    Message.objects.using(using).filter(pk=old.pk).update(superseded_at=now)
    if members:
        made.message.save(using=using, force_insert=True)
        take(using, made.message, [each.id for each in members])
    return made.message


def render_again(using: str, message: Message, members: Sequence[DueDelivery]) -> bytes | None:
    """The bytes of a frozen message; None where they are not what they were.

    b"" where its format fails: the try will, too. One that could never be rendered before has not
    been sent either, so its first bytes are its bytes.
    """
    body = rendered(message, members)
    if not message.body_digest:
        if body:
            message.body_digest = digest(body)
            rows = Message.objects.using(using).filter(pk=message.pk, body_digest="")
            rows.update(body_digest=message.body_digest)
        return body or b""
    return body if body is not None and digest(body) == message.body_digest else None


def visible_counts(lane: HeldLane, message: Message) -> dict[str, int]:
    """The counts of a digest, but for types that its owner may not see any more."""
    return {name: n for name, n in message.counted.items() if lane.may_be_sent(name)}


def _successor(lane: HeldLane, old: Message, now: datetime) -> Message:
    made = new_message(lane.subscription, now, batch=old.batch)
    if old.window is not None:
        made.take_window(old.window, old.page, old.pages, visible_counts(lane, old))
    return made
