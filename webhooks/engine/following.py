"""Members of a digest of counts follow the one that stands for them, its *head*.

There may be a hundred thousand of them. So what becomes of such a digest, an answer or that it was
asked for again, is written for its head alone, and with it, in the same transaction, that the
others are behind (``Message.following``). The lane's holder brings them in line, a bounded part in
each round, and sends nothing of that digest before: whoever dies between two rounds has lost
nothing, and what was acknowledged is not sent again.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID

from webhooks.clock import db_now
from webhooks.engine.freezing import ours
from webhooks.engine.transactions import atomically
from webhooks.models import Delivery, Message
from webhooks.models.delivery import FOLLOWED, DueDelivery, State
from webhooks.models.parcel import Parcel

if TYPE_CHECKING:
    from webhooks.engine.lanes import HeldLane

#: Members that one statement changes. Measured on PostgreSQL: 24 ms, the slowest 93.
ROUND: Final = 1000


def settle(
    using: str, head: DueDelivery, state: State, *, now: datetime, reason: str, attempts: int
) -> None:
    """End the members of a message that was answered. In a transaction.

    head: with its parcel. Where there are too many for one statement, the first end stands here
    too: what the others are to become is changed by nobody but who asks for them again.
    """
    members = Delivery.objects.using(using).filter(message=head.message_id)
    if _is_large(head.parcel):
        members = members.filter(pk=head.id)
        note_behind(using, head.webhook_id, state, instead_of=("", State.PENDING))
    members.settle(state, now=now, reason=reason, attempts=attempts)


def reschedule(using: str, head: DueDelivery, due_at: datetime, attempts: int) -> None:
    """Put the members of a message off that failed. In a transaction, under the lane's lock."""
    members = Delivery.objects.using(using).filter(message=head.message_id)
    if _is_large(head.parcel):
        members = members.filter(pk=head.id)
        # Unless it was acknowledged meanwhile, which needs no lock of a lane.
        note_behind(using, head.webhook_id, State.PENDING, instead_of=("",))
    members.reschedule_together(due_at, attempts)


def note_behind(using: str, message_id: str, state: State, *, instead_of: Collection[str]) -> None:
    """Note that this has become of a message's head, and others are to follow."""
    messages = Message.objects.using(using).filter(pk=message_id, following__in=instead_of)
    messages.update(following=state)


def settle_behind(using: str, subscription_id: str, limit: int) -> int:
    """End up to ``limit`` deliveries of a lane whose digest has its answer; how many there were.

    Before anything else may end them: what was delivered must not be called discarded.
    """
    behind = Message.objects.using(using).behind(subscription_id).exclude(following=State.PENDING)
    found = 0
    for message in behind:
        found += atomically(using, lambda: _settle_some(using, message, limit - found))  # noqa: B023
        if found >= limit:
            break
    return found


def _settle_some(using: str, message: Message, limit: int) -> int:
    ended = len(_bring_in_line(using, message, _head(using, message), "", limit))
    if ended < limit:
        _in_line(using, message)
    return ended


class Following:
    """The members of one message of a lane, on their way to where its head is."""

    def __init__(self, lane: HeldLane, message_id: str) -> None:
        self.lane = lane
        self.message_id = message_id
        self.is_done = False
        #: When the message is to be sent, once this is done; None: it is not.
        self.due_at: datetime | None = None
        self._after = ""
        self._towards: object = None

    def step(self, using: str, token: UUID) -> bool:
        """Bring the next of them in line; False where somebody has the lane locked."""
        return atomically(using, lambda: self._step(using, token))

    def _step(self, using: str, token: UUID) -> bool:
        if self.lane.id not in ours(using, token, [self.lane]):
            return False
        message = Message.objects.using(using).filter(pk=self.message_id).first()
        if message is None or not message.following:
            self.is_done = True  # met again when it is due
            return True
        head = _head(using, message)
        towards = (message.following, head and [getattr(head, name) for name in FOLLOWED])
        if towards != self._towards:  # asked for again, or acknowledged after all
            self._towards, self._after = towards, ""
        ids = _bring_in_line(using, message, head, self._after, ROUND)
        self.is_done = len(ids) < ROUND
        self.due_at = head.due_at if head is not None and head.state == State.PENDING else None
        if self.is_done:
            _in_line(using, message)
        else:
            self._after = ids[-1]
        return True


def _head(using: str, message: Message) -> Delivery | None:
    """None where it was removed, or given to another message."""
    return Delivery.objects.using(using).filter(pk=message.head, message=message).first()


def _bring_in_line(
    using: str, message: Message, head: Delivery | None, after: str, limit: int
) -> list[str]:
    """Make up to ``limit`` members behind ``after`` what the head is; their ids, in order."""
    deliveries = Delivery.objects.using(using)
    members = deliveries.filter(message=message)
    if message.following != State.PENDING:
        behind = members.pending()
    elif head is None or head.state != State.PENDING:
        return []  # who loads the message finds another head
    elif head.was_asked_for:
        behind = members.exclude(
            state=State.PENDING,
            due_at=head.due_at,
            attempts=head.attempts,
            retries_from=head.retries_from,
            trigger=head.trigger,
        )
    else:
        behind = members.pending().exclude(due_at=head.due_at, attempts=head.attempts)
    if after:
        behind = behind.filter(pk__gt=after)
    # Locked in the order of their ids first, as everybody does.
    locked = behind.order_by("pk").select_for_update()
    ids = list(locked.values_list("pk", flat=True)[:limit])
    found = deliveries.filter(pk__any=ids)
    if head is not None and head.state == message.following:
        found.follow(head)
    else:
        found.settle(State(message.following), now=db_now(using))
    return ids


def _in_line(using: str, message: Message) -> None:
    """Note that nobody is behind, unless something else has become of the head meanwhile."""
    messages = Message.objects.using(using).filter(pk=message.pk, following=message.following)
    messages.update(following="")


def _is_large(parcel: Parcel | None) -> bool:
    """Whether a message has more members than one statement may change."""
    assert parcel is not None
    return parcel.size > max(ROUND, len(parcel.members))
