"""What a batch is made of: drafts that are to be frozen, and the parcel that is sent.

Nothing is written here. The same message and the same members make the same bytes, today and at any
later try; where they do not, ``body_digest`` says so.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from webhooks.formats import BatchRecord, EventRecord, Window, get_format
from webhooks.formats.base import DIGEST_TYPE, MAX_BODY_BYTES, MAX_EVENTS, Format
from webhooks.models import Delivery, DeliveryAttempt, Message, Subscription
from webhooks.models.delivery import DueDelivery, State
from webhooks.models.parcel import Member, Parcel
from webhooks.models.subscription import Content, Payload
from webhooks.shapes import event_link

logger = logging.getLogger("webhooks")

#: The type of the event that stands for a digest in which nothing else may be (engine/markers.py).
MARKER: Final = DIGEST_TYPE

#: The columns of a DueDelivery, in the order of its fields.
COLUMNS: Final = (
    *("pk", "subscription_id", "attempts", "due_at", "first_due_at", "trigger", "event_id"),
    *("event__type", "event__subject", "event__requester", "event__occurred_at"),
    *("event__created_at", "event__data", "retries_from", "message_id"),
    "clock_stopped_ms",
)


@dataclass(frozen=True, slots=True)
class Draft:
    """A message that is to be frozen, with its members in the order of their ids."""

    message: Message
    deliveries: Sequence[DueDelivery]
    body: bytes


def page_size(subscription: Subscription) -> int:
    """Events in one batch or page at most."""
    return min(subscription.batch_size, MAX_EVENTS) if subscription.batch_size > 1 else MAX_EVENTS


def new_message(subscription: Subscription, now: datetime, *, batch: bool = True) -> Message:
    """Events as the subscription wants them now, not yet written. batch: in a batch's envelope."""
    return Message(
        subscription_id=subscription.pk,
        batch=batch,
        format=subscription.format,
        payload=subscription.payload,
        created_at=now,
    )


def draft(
    message: Message,
    deliveries: Sequence[DueDelivery],
    page: tuple[Window, int, int, dict[str, int]] | None = None,
) -> Draft:
    """Render a message that is to be frozen with these members.

    page: its window, number, how many there are, and the window's counts. A body that cannot be
    rendered is b"", with a digest of "": the tries fail, and show it.
    """
    ordered = sorted(deliveries, key=lambda each: each.id)
    if page is not None:
        message.take_window(*page)
    message.count = sum(each.event_type != MARKER for each in ordered)
    body = rendered(message, ordered) or b""
    message.body_digest = digest(body)
    return Draft(message, ordered, body)


def digest(body: bytes) -> str:
    """What tells one body from another; "" for none."""
    return hashlib.sha256(body).hexdigest() if body else ""


def rendered(message: Message, deliveries: Sequence[DueDelivery]) -> bytes | None:
    """The body of a message with these members, by their ids; None where its format fails."""
    try:
        if not message.batch:
            alone = record(deliveries[0], thin=is_thin(message))
            return get_format(message.format).body(alone)
        return get_format(message.format).batch_body(
            BatchRecord(
                id=message.pk,
                created_at=message.created_at,
                events=_records(message, deliveries),
                window=message.window,
                page=message.page,
                pages=message.pages,
                counts=message.counted if message.window else None,
            )
        )
    except Exception:
        # A defect of one format, or a setting that is missing, harms nobody else's deliveries.
        logger.exception("%s cannot be rendered as %r", message.pk, message.format)
        return None


def record(delivery: DueDelivery, *, thin: bool) -> EventRecord:
    """An event as the formats take it."""
    return EventRecord(
        id=delivery.event_id,
        type=delivery.event_type,
        occurred_at=delivery.occurred_at,
        data=delivery.data,
        subject=delivery.subject,
        requester=delivery.requester,
        link=event_link(delivery.event_id) if thin else "",
    )


def head_of(message: Message, deliveries: Sequence[DueDelivery], body: bytes) -> DueDelivery:
    """The delivery that stands for a frozen message, in the queue of its lane.

    deliveries: its members by their ids; of a digest of counts, the first one will do.
    """
    types = Counter(each.event_type for each in deliveries if each.event_type != MARKER)
    counts = message.content == Content.COUNTS
    parcel = Parcel(
        message_id=message.pk,
        batch=message.batch,
        format=message.format,
        body=body,
        size=message.count if counts else len(deliveries),
        members=[
            Member(each.id, each.event_id, each.event_type, each.recorded_at) for each in deliveries
        ],
        types=message.counted if counts else types,
        scheduled=message.window is not None,
    )
    return replace(
        deliveries[0],
        # Numbers of tries never repeat, also where one was in another message before.
        attempts=max(each.attempts for each in deliveries),
        message_id=message.pk,
        data="",
        parcel=parcel,
    )


def members_of(delivery: DueDelivery) -> Sequence[Member]:
    """What was sent with a delivery, itself first; of a digest of counts, itself alone."""
    if delivery.parcel is not None:
        return delivery.parcel.members
    return (Member(delivery.id, delivery.event_id, delivery.event_type, delivery.recorded_at),)


def waits(delivery: DueDelivery, until: datetime) -> dict[str, list[float]]:
    """Milliseconds that the events of a batch have waited, by type.

    One for each of them; one for all where all were due at the same time: what was asked for again,
    and a digest, which is as late as it comes after its window's end.
    """
    parcel = delivery.parcel
    assert parcel is not None
    if parcel.scheduled or delivery.trigger:
        wait = (until - delivery.first_due_at).total_seconds() * 1000
        return {type_: [wait] for type_ in parcel.types}
    found: dict[str, list[float]] = {type_: [] for type_ in parcel.types}
    for member in parcel.members:
        if member.event_type in found:
            waited = (until - member.recorded_at).total_seconds() * 1000
            found[member.event_type].append(waited)
    return found


def first_trigger(delivery: DueDelivery) -> str:
    """What a first try is called."""
    triggers = DeliveryAttempt.Trigger
    scheduled = delivery.parcel is not None and delivery.parcel.scheduled
    return (triggers.DIGEST if scheduled else triggers.FIRST).value


def read(using: str, **conditions: object) -> list[DueDelivery]:
    """Pending deliveries with all that a body needs of their events, in the order of their ids."""
    return due_of(using, state=State.PENDING, **conditions)


def due_of(using: str, **conditions: object) -> list[DueDelivery]:
    """:func:`read`, of deliveries whatever became of them."""
    found = Delivery.objects.using(using).filter(**conditions).order_by("pk")
    return [DueDelivery(*row) for row in found.values_list(*COLUMNS)]


class Packer:
    """Fills batches one after the other, within the limits of events and bytes."""

    def __init__(self, format_: Format, limit: int, *, thin: bool) -> None:
        """limit: events in one batch at most."""
        self._format = format_
        self._limit = limit
        self._thin = thin
        self._growth = 0.0 if thin else format_.growth
        self._frames: dict[tuple[str, str], int] = {}
        self._count = self._bytes = 0

    def takes(self, size: int) -> bool:
        """Whether one more, of so many bytes, goes into the present batch; else it opens a new one.

        An event that is too large for any goes alone.
        """
        fits = self._count < self._limit and self._bytes + size <= ROOM
        if not fits and self._count:
            self._count, self._bytes = 1, size
            return False
        self._count += 1
        self._bytes += size
        return True

    @property
    def is_full(self) -> bool:
        return self._count >= self._limit or self._bytes > ROOM

    def close(self) -> None:
        """Nothing more goes into the present batch."""
        self._count = self._bytes = 0

    def size(self, type_: str, subject: str, octets: int) -> int:
        """Bytes that an event takes in a batch, at most. octets: of its data."""
        frame = self._frames.get((type_, subject))
        if frame is None:
            frame = self._frame(type_, subject)
        return frame + int(self._growth * octets)

    def _frame(self, type_: str, subject: str) -> int:
        """Bytes of an event without its data; MAX_BODY_BYTES where it cannot be rendered: it goes
        alone, and fails by itself."""
        if len(self._frames) > 10_000:
            self._frames.clear()
        place = "evt_" + "0" * 32
        link = event_link(place) if self._thin else ""
        blank = EventRecord(place, type_, _LONG_AGO, "", subject, link=link)
        try:
            size = self._format.size(blank)
        except Exception:
            logger.exception("Events of type %s cannot be rendered", type_)
            size = MAX_BODY_BYTES
        self._frames[type_, subject] = size
        return size


def octets(text: str) -> int:
    """Bytes of a text."""
    return len(text) if text.isascii() else len(text.encode())


#: Its time takes as many bytes as any.
_LONG_AGO: Final = datetime(2001, 1, 1, tzinfo=UTC)
#: Bytes for the events of a batch: the envelope takes the rest, counts of each type among it.
ROOM: Final = MAX_BODY_BYTES - 16 * 1024


def is_thin(message: Message | Subscription) -> bool:
    return message.payload == Payload.THIN


def _records(message: Message, deliveries: Sequence[DueDelivery]) -> list[EventRecord]:
    if message.content == Content.COUNTS:
        return []
    thin = is_thin(message)
    return [record(each, thin=thin) for each in deliveries if each.event_type != MARKER]
