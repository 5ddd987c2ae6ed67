"""What a format is: how events become a body, and which headers go with it.

A format knows no models, sends nothing and keeps no state. From the same ``EventRecord`` it makes
the same bytes, today and in any later attempt: one ``webhook-id``, one body.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class EventRecord:
    """One event, as the formats see it.

    id: the event's public id, ``evt_`` and 32 hex digits.
    type: the registered name, e.g. ``push.clicked``.
    occurred_at: an aware datetime.
    data: the frozen JSON text of the payload, as it was serialised when the event was emitted.
    subject: what the event is about, e.g. ``campaign:7``; "" for none.
    requester: whom the event is addressed to; "" for everyone.
    """

    id: str
    type: str
    occurred_at: datetime
    data: str
    subject: str = ""
    requester: str = ""


class Format(abc.ABC):
    """A dialect that subscribers may choose. Subclasses fill in the blanks."""

    #: The value of a subscription's ``format``.
    name: ClassVar[str]
    #: The ``Content-Type`` of its bodies.
    content_type: ClassVar[str]

    @abc.abstractmethod
    def body(self, event: EventRecord) -> bytes:
        """The body for one event; the same bytes each time. Raises ValueError for a naive time."""

    @abc.abstractmethod
    def headers(
        self, message_id: str, timestamp: int, body: bytes, keys: Sequence[bytes]
    ) -> dict[str, str]:
        """The headers of one attempt, signature and ``Content-Type`` included.

        message_id: the same on every attempt. timestamp: unix seconds of this attempt.
        keys: the decoded live secrets, newest first.
        Raises InvalidSecret when there is no key: nothing is sent unsigned.
        """


def utc_text(moment: datetime) -> str:
    """An aware datetime as RFC 3339 UTC: ``YYYY-MM-DDTHH:MM:SS.ffffffZ``.

    Always with six digits, so that the texts sort as the times do. Raises ValueError for a naive
    datetime, whose instant nobody knows.
    """
    if moment.utcoffset() is None:
        raise ValueError("An event's time must be aware. Use django.utils.timezone.now().")
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
