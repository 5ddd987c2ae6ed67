"""What a format is: how events become a body, and which headers go with it.

A format knows no models, sends nothing and keeps no state. From the same records it makes the same
bytes, today and in any later attempt: one ``webhook-id``, one body.
"""

from __future__ import annotations

import abc
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

from webhooks.formats.signing import sign_with_keys

#: A batch or a digest's page holds at most so many events, and its body so many bytes.
MAX_EVENTS: Final = 1000
MAX_BODY_BYTES: Final = 768 * 1024
#: The type of a batch, in the envelope of the default format.
BATCH_TYPE: Final = "batch"
#: The type of the one item that stands for a digest of figures, where a batch has no envelope.
DIGEST_TYPE: Final = "webhooks.digest"
#: Made once: ``json.dumps`` with options makes an encoder for each call.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(slots=True)  # one for each POST: a frozen one takes three times as long
class EventRecord:
    """One event, as the formats see it.

    id: the event's public id, ``evt_`` and 32 hex digits.
    type: the registered name, e.g. ``push.clicked``.
    occurred_at: an aware datetime.
    data: the frozen JSON text of the payload, as it was serialised when the event was emitted.
    subject: what the event is about, e.g. ``campaign:7``; "" for none.
    requester: whom the event is addressed to; "" for everyone.
    link: for a thin payload, the absolute URL under which the event can be fetched, which then
        goes out in place of the data; "" for a full one.
    """

    id: str
    type: str
    occurred_at: datetime
    data: str
    subject: str = ""
    requester: str = ""
    link: str = ""


@dataclass(frozen=True, slots=True)
class Window:
    """The time that a digest covers: from ``begin`` on, before ``end``; both aware.

    trigger: ``hourly``, ``daily`` or ``monthly``.
    """

    begin: datetime
    end: datetime
    trigger: str

    def as_json(self) -> dict[str, str]:
        return {
            "from": utc_text(self.begin),
            "to": utc_text(self.end),
            "trigger": self.trigger,
        }


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """Several events that travel in one POST, as the formats see them.

    id: the message's public id, ``msg_`` and 32 hex digits; it is the ``webhook-id``.
    created_at: when it was put together; aware.
    events: in lane order; none where figures alone were asked for.
    window, page, pages, counts: of a digest alone. counts: events of each type in the whole window.
    """

    id: str
    created_at: datetime
    events: Sequence[EventRecord]
    window: Window | None = None
    page: int = 1
    pages: int = 1
    counts: Mapping[str, int] | None = None

    def digest(self) -> dict[str, Any]:
        """What a digest tells beside its events; empty for a batch that is none."""
        if self.window is None:
            return {}
        return {
            "window": self.window.as_json(),
            "page": self.page,
            "pages": self.pages,
            "counts": dict(sorted((self.counts or {}).items())),
        }


class Format(abc.ABC):
    """A dialect that subscribers may choose. A host adds its own by a subclass, named in the
    setting ``FORMATS``.

    Everything that a body holds comes from the records, never from the clock or from chance: an
    attempt that is made a day later carries the same bytes.
    """

    #: The value of a subscription's ``format``.
    name: ClassVar[str]
    #: Bytes in a batch's body, at most, for each byte of an event's data: pages are planned by it.
    growth: ClassVar[float] = 1.0

    @abc.abstractmethod
    def body(self, event: EventRecord) -> bytes:
        """The body for one event; the same bytes each time. Raises ValueError for a naive time."""

    @abc.abstractmethod
    def batch_body(self, batch: BatchRecord) -> bytes:
        """The body for several events. Raises ValueError for a naive time."""

    @abc.abstractmethod
    def content_type(self, *, batch: bool) -> str:
        """The ``Content-Type`` of its bodies."""

    def size(self, event: EventRecord) -> int:
        """Bytes that an event takes in a batch, at most: pages are made by it."""
        return len(self.body(event)) + 1

    def headers(
        self,
        message_id: str,
        timestamp: int,
        body: bytes,
        keys: Sequence[bytes],
        *,
        url: str = "",
        batch: bool = False,
    ) -> dict[str, str]:
        """The headers of one attempt, ``Content-Type`` and a Standard Webhooks signature included.

        message_id: the same on every attempt. timestamp: unix seconds of this attempt.
        keys: the decoded live secrets, newest first. url: where it is sent to, with
        ``user:password@`` before the host where the subscription has basic authentication; a
        format may sign it. batch: whether ``batch_body`` made the body.

        Raises InvalidSecret when there is no key: nothing is sent unsigned.
        """
        return {
            "Content-Type": self.content_type(batch=batch),
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign_with_keys(keys, message_id, timestamp, body),
        }


def utc_text(moment: datetime) -> str:
    """An aware datetime as RFC 3339 UTC: ``YYYY-MM-DDTHH:MM:SS.ffffffZ``.

    Always with six digits, so that the texts sort as the times do. Raises ValueError for a naive
    datetime, whose instant nobody knows.
    """
    if moment.tzinfo is not UTC:  # most are, and are asked nothing
        moment = _aware(moment).astimezone(UTC)
    return moment.isoformat("T", "microseconds").removesuffix("+00:00") + "Z"


def unix_seconds(moment: datetime) -> int:
    """Whole seconds since 1970. Raises ValueError for a naive datetime."""
    return int(_aware(moment).timestamp())


def _aware(moment: datetime) -> datetime:
    if moment.utcoffset() is None:
        raise ValueError("An event's time must be aware. Use django.utils.timezone.now().")
    return moment


def json_text(value: Any) -> str:
    """Compact JSON, for the parts of a body that are not frozen text already."""
    return _encode(value)


def data_text(event: EventRecord) -> str:
    """The JSON of ``data``: the frozen text, or for a thin payload the event's URL.

    Bodies are composed around that text: parsing and dumping it again could change its bytes
    (number forms, key order), and costs more than all the rest.
    """
    return json_text(event.link) if event.link else event.data
