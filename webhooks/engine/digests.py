"""Digests: the pending deliveries of one window, in numbered pages.

A window is planned in rounds, from figures alone, so that a million events stop nobody else, and
then frozen page by page, each shortly before its POST. A holder that takes over half-way finds the
pages that were frozen, and goes on behind the highest.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from django.db.models import Func, IntegerField

from webhooks.clock import db_now
from webhooks.engine.freezing import MembersChanged, ours, take, visible_counts
from webhooks.engine.parcels import (
    MARKER,
    Draft,
    Packer,
    digest,
    draft,
    head_of,
    is_thin,
    new_message,
    page_size,
    read,
    rendered,
)
from webhooks.engine.transactions import atomically
from webhooks.formats import Window, get_format
from webhooks.models import Delivery, Message
from webhooks.models.delivery import DueDelivery
from webhooks.models.subscription import Content

if TYPE_CHECKING:
    from webhooks.engine.lanes import HeldLane

#: Deliveries that are planned in one round, and that are gathered for a digest of counts: those
#: are written, one by one.
ROUND, GATHERED = 2500, 1000
#: Before every delivery.
_FIRST: Final = "dlv_" + "0" * 32


class Octets(Func):
    """The bytes of a text, without reading it."""

    function = "OCTET_LENGTH"
    output_field = IntegerField()

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return self.as_sql(
            compiler,
            connection,
            function="LENGTH",
            template="%(function)s(CAST(%(expressions)s AS BLOB))",
            **context,
        )


class Plan:
    """One window of a lane, on its way into pages. Everything here can be worked out again."""

    def __init__(self, lane: HeldLane, window: Window) -> None:
        self.lane = lane
        self.window = window
        self.counts: Counter[str] = Counter()
        self.is_planned = False
        self._after = ""
        #: First and last delivery of each page that is planned and not frozen.
        self._pages: list[tuple[str, str]] = []
        self._begun = False
        #: Pages there are already, from another holder.
        self._number = self._total = 0

    @property
    def is_done(self) -> bool:
        return self.is_planned and not self._pages

    def step(self, using: str, token: UUID) -> bool:
        """Plan the next round; False where somebody has the lane locked."""
        if not self._begun and not self._begin(using, token):
            return False
        rows = list(
            Delivery.objects.using(using)
            .pending()
            .filter(**self._own, pk__gt=self._after or _FIRST)
            .order_by("pk")
            .values_list("pk", "event__type", "event__subject", Octets("event__data"))[:ROUND]
        )
        for pk, type_, subject, octets in rows:
            self._after = pk
            if not self.lane.may_be_sent(type_):
                self.lane.forbidden.append(pk)
                continue
            if type_ != MARKER:
                self.counts[type_] += 1
            size = self._packer.size(type_, subject, octets)
            if self._packer.takes(size) and self._pages:
                self._pages[-1] = (self._pages[-1][0], pk)
            else:
                self._pages.append((pk, pk))
        if len(rows) < ROUND:
            self._end()
        return True

    def next_page(self, using: str) -> Draft | None:
        """The next page, to be frozen now; None where all that was in it has ended meanwhile."""
        first, last = self._pages[0]
        found = read(using, **self._own, pk__gte=first, pk__lte=last)
        deliveries = [each for each in found if self.lane.may_be_sent(each.event_type)]
        if not deliveries:
            self._pages.pop(0)
            return None
        message = new_message(self.lane.subscription, db_now(using))
        place = (self.window, self._number + 1, self._total, dict(self.counts))
        return draft(message, deliveries, place)

    def frozen(self) -> None:
        """The page that was given last has been frozen."""
        self._pages.pop(0)
        self._number += 1

    def _begin(self, using: str, token: UUID) -> bool:
        # From here on nothing is added to the window: fan-out reads the clock under the lane's
        # lock, and what it added before is committed.
        free = atomically(using, lambda: bool(ours(using, token, [self.lane])))
        if not free:
            return False
        subscription = self.lane.subscription
        pages = Message.objects.using(using).of_window(self.lane.id, self.window.end)
        for message in pages.filter(content=Content.EVENTS).order_by("page"):
            self._number, self._total = message.page, message.pages
            self._counted = visible_counts(self.lane, message)
        self._packer = Packer(
            get_format(subscription.format), page_size(subscription), thin=is_thin(subscription)
        )
        self._begun = True
        return True

    def _end(self) -> None:
        self.is_planned = True
        if self._number:
            # What the pages say that were frozen before, as far as it may still be told.
            self.counts = Counter(self._counted)
        self._total = max(self._total, self._number + len(self._pages))

    @property
    def _own(self) -> dict[str, Any]:
        """What is in the window and in no page."""
        return {"subscription_id": self.lane.id, "due_at": self.window.end, "message": None}


class Figures:
    """One window of a lane whose owner wants figures alone: one message for all that is in it.

    Its members are gathered in rounds, each in a short transaction, and counted; then it is sealed
    with its counts. One that is not sealed has no ``head``, and is sent by nobody.

    Where a sealed one may not be sent any more, or cannot be made again, another one is gathered
    from what is pending in it: see :func:`give_up`.
    """

    def __init__(self, lane: HeldLane, window: Window) -> None:
        self.lane = lane
        self.window = window
        self.message: Message | None = None
        self.counts: Counter[str] = Counter()
        self.head: DueDelivery | None = None
        self.is_done = False
        #: Where its members are: conditions, each with an index that has them in their order.
        self._sources: list[dict[str, Any]] = []
        self._after = _FIRST

    def step(self, using: str, token: UUID) -> bool:
        """Gather the next round, or seal it; False where somebody has the lane locked."""
        try:
            gathered = atomically(using, lambda: self._gather(using, token))
        except MembersChanged:
            return False  # the next round reads what there is now
        if gathered is None:
            return False
        # Only now: a transaction may be run again.
        self.message = gathered.message
        self.counts = gathered.counts
        self._sources = gathered.sources
        self._after = gathered.last
        self.lane.forbidden += gathered.forbidden
        self.head = gathered.head
        self.is_done = not gathered.sources
        return True

    def _gather(self, using: str, token: UUID) -> _Gathered | None:
        if self.lane.id not in ours(using, token, [self.lane]):
            return None
        message, sources = self.message, self._sources
        if message is None:
            message, sources = self._open(using)
        pending = Delivery.objects.using(using).pending()
        own = pending.filter(**sources[0], pk__gt=self._after).order_by("pk")
        rows = list(own.values_list("pk", "event__type", "message_id")[:GATHERED])
        sent = [row for row in rows if self.lane.may_be_sent(row[1])]
        barred = [row[0] for row in rows if not self.lane.may_be_sent(row[1])]
        if barred:  # and taken by an earlier holder, while it was still allowed
            pending.filter(pk__any=barred).update(message=None)
        others = [pk for pk, _type, its in sent if its != message.pk]
        if others:
            take(using, message, others, former=sources[0].get("message"))
        types = (type_ for _pk, type_, _its in sent if type_ != MARKER)
        is_read = len(rows) < GATHERED
        gathered = _Gathered(
            message=message,
            counts=self.counts + Counter(types),
            sources=sources[1:] if is_read else sources,
            last=_FIRST if is_read else rows[-1][0],
            forbidden=barred,
        )
        if not gathered.sources:
            gathered.head = self._seal(using, gathered)
        return gathered

    def _open(self, using: str) -> tuple[Message, list[dict[str, Any]]]:
        """The message that another holder began, or a new one; and where its members are."""
        messages = Message.objects.using(using)
        former = messages.replaced(self.lane.id, self.window).values_list("pk", flat=True)
        found = messages.of_window(self.lane.id, self.window.end)
        message = found.filter(content=Content.COUNTS, head=None).first()
        taken = [] if message is None else [message.pk]
        if message is None:
            message = new_message(self.lane.subscription, db_now(using))
            message.content = Content.COUNTS
            message.take_window(self.window, 1, 1, {})
            message.save(using=using, force_insert=True)
        fresh = {"subscription_id": self.lane.id, "due_at": self.window.end, "message": None}
        return message, [*({"message": pk} for pk in (*taken, *former)), fresh]

    def _seal(self, using: str, gathered: _Gathered) -> DueDelivery | None:
        """Write the counts: from here on it may be sent, and is always the same."""
        message = gathered.message
        # Not the first that was gathered: that one may have ended since.
        head = first_pending(using, message)
        if not head:
            if message.members.using(using).exists():
                Message.objects.using(using).filter(pk=message.pk).update(
                    superseded_at=db_now(using)
                )
            else:
                message.delete(using=using)
            return None
        message.take_window(self.window, 1, 1, gathered.counts)
        message.count = sum(gathered.counts.values())
        message.head = head[0].id
        body = rendered(message, head) or b""
        message.body_digest = digest(body)
        message.save(using=using)
        return head_of(message, head, body)


def first_pending(using: str, message: Message) -> list[DueDelivery]:
    """The pending member of a digest of counts that is due first, if there is one."""
    pending = Delivery.objects.using(using).pending()
    found = pending.filter(subscription_id=message.subscription_id, message=message)
    first = found.order_by("due_at", "pk").values_list("pk", flat=True).first()
    return read(using, pk=first) if first else []


def give_up(using: str, token: UUID, lane: HeldLane, message: Message) -> bool:
    """End a digest of counts that is not to be sent as it is; False where the lane is locked.

    It is never sent again. What is pending in it stays there, however much it is, until
    :class:`Figures` has gathered it into another one of the same window.
    """

    def work() -> bool:
        if lane.id not in ours(using, token, [lane]):
            return False
        rows = Message.objects.using(using).filter(pk=message.pk)
        rows.update(superseded_at=db_now(using), following="")
        return True

    return atomically(using, work)


@dataclass(slots=True)
class _Gathered:
    """What one round of figures found."""

    message: Message
    counts: Counter[str]
    sources: list[dict[str, Any]]
    last: str
    forbidden: list[str]
    head: DueDelivery | None = None
