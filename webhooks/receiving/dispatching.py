"""What a subscriber does with a verified message: find its handlers, and call them once.

Nothing of Django is needed, and nothing is verified here. A message comes at least once, so a
store of seen ids says what is a repeat; an id counts as handled only when its handlers have ended,
so that neither an error nor a crash loses a message: its next copy is taken.
"""

from __future__ import annotations

import abc
import enum
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeVar

from webhooks.exceptions import InvalidSignature
from webhooks.receiving.verifying import DEFAULT_TOLERANCE, header, verify

#: The ``type`` of a message that carries several events.
BATCH: Final = "batch"
PATTERN: Final = re.compile(r"\*|[^*\s]+(?:\.\*)?")
HOOK_SECRET: Final = re.compile(r"[\x21-\x7e]{1,1024}")

Handler = Callable[["Message"], object]
AnyHandler = TypeVar("AnyHandler", bound=Handler)


@dataclass(frozen=True, slots=True)
class Message:
    """One message, or one event out of a batch.

    id: the ``webhook-id``, the same on every attempt; of an event out of a batch, the event's own.
    type: e.g. ``push.clicked``; ``batch`` where there are several events; "" where none is told.
    timestamp: when it happened, as the body says; None where it says nothing that is a moment.
    data: the payload. body: the bytes that were signed; b"" for an event out of a batch.
    raw: the whole JSON object.
    """

    id: str
    type: str
    timestamp: datetime | None
    data: Any = field(repr=False)
    body: bytes = field(repr=False)
    raw: dict[str, Any] = field(repr=False)

    @classmethod
    def of(cls, message_id: str, raw: Any, body: bytes = b"") -> Message:
        """The message behind a verified JSON value; what is no object has no type and no data."""
        known = raw if isinstance(raw, dict) else {}
        event_type = known.get("type")
        return cls(
            id=message_id,
            type=event_type if isinstance(event_type, str) else "",
            timestamp=_moment(known.get("timestamp", known.get("time"))),
            data=known.get("data"),
            body=body,
            raw=known,
        )

    @property
    def events(self) -> Iterator[Message]:
        """The single events of a batch, in order; of any other message, itself."""
        if self.type != BATCH:
            yield self
            return
        events = self.raw.get("events")
        for event in events if isinstance(events, list) else ():
            if isinstance(event, dict):
                yield Message.of(str(event.get("id", "")), event)


def receive(
    body: bytes | str,
    headers: Mapping[str, Any],
    secret: str | Sequence[str],
    tolerance: int | None = DEFAULT_TOLERANCE,
) -> Message:
    """:func:`verify`, with the answer as a :class:`Message`. Takes and raises the same."""
    raw = verify(body, headers, secret, tolerance)
    as_bytes = body.encode() if isinstance(body, str) else bytes(body)
    return Message.of(header(headers, "webhook-id"), raw, as_bytes)


class Seen(abc.ABC):
    """The ids of messages that were handled, or are being handled. Safe for several threads.

    A store that is one with the work (a row written in the handler's own transaction) needs only
    the first two: what is rolled back was never remembered.
    """

    @abc.abstractmethod
    def remember(self, message_id: str) -> bool:
        """True the first time: the message is the caller's to handle, and nobody else's."""

    @abc.abstractmethod
    def forget(self, message_id: str) -> None:
        """A handler failed: the next copy of the message is the first again."""

    def confirm(self, message_id: str) -> None:  # noqa: B027 - for stores that tell the two apart
        """All handlers have ended: what was remembered may be kept for long."""

    def is_handled(self, message_id: str) -> bool:
        """Whether a message that was remembered before is done, rather than under way."""
        return True


class Dispatched(enum.Enum):
    """What became of a message."""

    HANDLED = "handled"
    #: It was handled before: acknowledge it.
    REPEATED = "repeated"
    #: Another copy is being handled, and may fail yet: do not acknowledge it.
    UNDER_WAY = "under_way"
    #: No handler wants it: acknowledge it.
    UNWANTED = "unwanted"


class Handlers:
    """Functions by patterns of event types, and who calls them."""

    def __init__(self, run: Callable[[Handler, Message], object] | None = None) -> None:
        """run: hands a message to a handler, e.g. by way of a task queue; None: calls it now."""
        self._run = run
        self._handlers: list[tuple[tuple[str, ...], Handler]] = []

    def on(self, *patterns: str) -> Callable[[AnyHandler], AnyHandler]:
        """Register a function for event types: ``push.clicked``, ``push.*``, ``*`` or ``batch``.

        The function takes a Message. Patterns are matched against single events, those in a batch
        too; ``batch`` alone stands for the batch as a whole. Raises ValueError for what is no
        pattern, TypeError for an asynchronous function without ``run``.
        """
        if not patterns:
            raise ValueError('Name the event types: @on("push.clicked", "push.*").')
        for pattern in patterns:
            if not isinstance(pattern, str) or not PATTERN.fullmatch(pattern):
                raise ValueError(
                    f'{pattern!r} is no pattern. Write "push.clicked", "push.*" or "*".'
                )

        def register(handler: AnyHandler) -> AnyHandler:
            if self._run is None and inspect.iscoroutinefunction(handler):
                raise TypeError(
                    f"{handler.__name__} is asynchronous, and nobody would await it. Write a plain "
                    "function, or give run= that awaits."
                )
            self._handlers.append((patterns, handler))
            return handler

        return register

    def calls(self, message: Message) -> list[tuple[Handler, Message]]:
        """Who is to be called with what: by event, and for each in the order of registration."""
        found = []
        if message.type == BATCH:
            found += [(handler, message) for names, handler in self._handlers if BATCH in names]
        found += [
            (handler, event)
            for event in message.events
            for names, handler in self._handlers
            if any(matches(name, event.type) for name in names)
        ]
        return found

    def dispatch(self, message: Message, seen: Seen | None = None) -> Dispatched:
        """Call the handlers of a verified message, unless it was handled before.

        seen: where its id is remembered; None: every copy is handled. What a handler raises is
        raised, after the id was forgotten: answer with an error, and the sender tries again.
        """
        calls = self.calls(message)
        if not calls:
            return Dispatched.UNWANTED
        if seen is None:
            self.handle(calls)
            return Dispatched.HANDLED
        if not seen.remember(message.id):
            handled = seen.is_handled(message.id)
            return Dispatched.REPEATED if handled else Dispatched.UNDER_WAY
        try:
            self.handle(calls)
        except BaseException:
            seen.forget(message.id)
            raise
        seen.confirm(message.id)
        return Dispatched.HANDLED

    def handle(self, calls: Sequence[tuple[Handler, Message]]) -> None:
        """Call them all; the first error ends it."""
        for handler, message in calls:
            if self._run is None:
                handler(message)
            else:
                self._run(handler, message)


def matches(pattern: str, event_type: str) -> bool:
    """``*`` covers every type, ``push.*`` those that begin with ``push.``, others themselves."""
    if pattern == "*" or pattern == event_type:
        return True
    return pattern.endswith(".*") and event_type.startswith(pattern[:-1])


def echo_hook_secret(headers: Mapping[str, Any]) -> dict[str, str]:
    """The header to answer a REST Hooks handshake with; none where there is no handshake.

    headers: of a verified POST. Put what comes back into the 2xx: it says that the endpoint agrees.
    """
    try:
        value = header(headers, "x-hook-secret")
    except InvalidSignature:  # there is none, or there are several
        return {}
    return {"X-Hook-Secret": value} if HOOK_SECRET.fullmatch(value) else {}


def _moment(text: Any) -> datetime | None:
    """An RFC 3339 text as an aware datetime; None for anything else."""
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo is not None else None
