"""Emission: an event becomes a row in the caller's transaction.

Everything that can be wrong with an event is found before any SQL, so that the caller's atomic
block stays usable; then there is one INSERT, and after the commit one wake-up call. What comes
later can neither fail nor delay the caller.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, cast

from asgiref.sync import sync_to_async
from django.core.exceptions import ImproperlyConfigured
from django.core.serializers.json import DjangoJSONEncoder
from django.db import DatabaseError, InterfaceError, transaction
from django.utils import timezone

from webhooks import catalog
from webhooks.conf import settings
from webhooks.engine.wake import wake
from webhooks.exceptions import (
    IdempotencyConflict,
    InvalidEvent,
    InvalidPayload,
    UnknownEventType,
    WrongDatabase,
)
from webhooks.models import Event
from webhooks.signals import event_recorded, webhook_event

__all__ = [
    "IdempotencyConflict",
    "InvalidEvent",
    "InvalidPayload",
    "UnknownEventType",
    "WrongDatabase",
    "aemit",
    "emit",
    "emit_many",
    "record",
]

_encoder = DjangoJSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
#: Control characters, everything that Python or a log viewer takes for a line break, surrogates.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
#: Levels of nesting that a payload may have. Many subscribers' parsers stop at 64, and the formats
#: put some levels around it; ours could not read back what was written at the edge of recursion.
MAX_DEPTH: Final = 50
#: Years that every database, time zone and subscriber can compute with.
_YEARS: Final = range(1970, 9999)
_NESTED: Final = (dict, list, tuple)


def emit(
    type: str,
    data: Any,
    *,
    requester: str = "",
    subject: str = "",
    idempotency_key: str | None = None,
    occurred_at: datetime | None = None,
    using: str | None = None,
) -> Event:
    """Record an event in the present transaction, for delivery after it commits.

    type: a registered event type. data: a JSON object (what ``DjangoJSONEncoder`` can serialise,
    with texts as names, at most 50 levels deep), or what the type's serializer takes.
    requester: whose subscriptions get it; required where the type's audience is ``requester``, else
    empty for everyone's. subject: what it is about, e.g. ``campaign:7``. idempotency_key: a
    repeated one (for this requester and type) returns the first event. occurred_at: aware, from
    1970 to 9998; default now. using: must be the outbox's database.

    Raises UnknownEventType, InvalidEvent, InvalidPayload, WrongDatabase before any SQL, and
    IdempotencyConflict where a repeated key comes with other data.
    """
    answers = webhook_event.send(
        sender=emit,
        type=type,
        data=data,
        requester=requester,
        subject=subject,
        idempotency_key=idempotency_key,
        occurred_at=occurred_at,
        using=using,
    )
    for _receiver, answer in answers:
        if isinstance(answer, Event):
            return answer
    raise ImproperlyConfigured("Nobody records events: add 'webhooks' to INSTALLED_APPS.")


async def aemit(type: str, data: Any, **options: Any) -> Event:
    """:func:`emit` for asynchronous code; the same arguments, result and errors."""
    return await sync_to_async(emit, thread_sensitive=True)(type, data, **options)


def emit_many(
    type: str, events: Iterable[Mapping[str, Any]], *, using: str | None = None
) -> list[Event]:
    """Record many events of one type with one statement.

    events: mappings with ``data`` and, as wanted, ``requester``, ``subject``, ``idempotency_key``,
    ``occurred_at``. All are checked before the first is written; either all are recorded or none.
    Returns the events in order. Raises as :func:`emit` does.
    """
    database = _database(using)
    built = []
    for place, options in enumerate(events):
        try:
            built.append(_build(type, **options))
        except TypeError as error:
            raise InvalidEvent(
                f"Event {place} of emit_many: {error}. Each is a mapping with 'data' and, as "
                "wanted, requester, subject, idempotency_key, occurred_at."
            ) from error
    if not built:
        return []
    keyed = [event for event in built if event.idempotency_key is not None]
    plain = [event for event in built if event.idempotency_key is None]
    # A conflict of keys is found when others are written already; the savepoint takes them back,
    # and leaves the caller's block usable.
    with transaction.atomic(using=database, savepoint=bool(keyed)):
        Event.objects.using(database).record(plain)
        first_of = {id(event): _insert_once(event, database) for event in keyed}
        _announce([event for event in built if first_of.get(id(event), event) is event], database)
    return [first_of.get(id(event), event) for event in built]


def record(
    type: str,
    data: Any,
    requester: str = "",
    subject: str = "",
    idempotency_key: str | None = None,
    occurred_at: datetime | None = None,
    using: str | None = None,
) -> Event:
    """What the recorder does with ``webhook_event``; see :func:`emit`."""
    database = _database(using)
    event = _build(
        type,
        data,
        requester=requester,
        subject=subject,
        idempotency_key=idempotency_key,
        occurred_at=occurred_at,
    )
    if idempotency_key is not None:
        first = _insert_once(event, database)
        if first is not event:
            return first
    else:
        event.save(using=database, force_insert=True)
    _announce([event], database)
    return event


def _database(using: str | None) -> str:
    database = settings.database
    if using is not None and using != database:
        raise WrongDatabase(
            f"The event would be written to {using!r}, but the outbox is in {database!r}: they "
            "could not commit together. Emit in a transaction of the outbox's database, or move "
            "the outbox with WEBHOOKS['DATABASE']."
        )
    return database


def _build(
    type: str,
    data: Any,
    *,
    requester: str = "",
    subject: str = "",
    idempotency_key: str | None = None,
    occurred_at: datetime | None = None,
) -> Event:
    """Check everything; no SQL."""
    entry = catalog.get(type)
    requester = "" if requester is None else requester
    if not requester and entry.audience == "requester":
        raise InvalidEvent(
            f"{type!r} is addressed to one requester: pass requester='app:<client id>' or "
            "'user:<pk>', or register the type with audience='everyone'."
        )
    _check_text("requester", requester)
    _check_text("subject", subject)
    if idempotency_key is not None:
        _check_text("idempotency_key", idempotency_key)
        if not idempotency_key:
            raise InvalidEvent("idempotency_key is empty: pass None to have no key.")
    now = timezone.now()
    return Event(
        type=type,
        requester=requester,
        subject=subject,
        data=_freeze(entry, data),
        idempotency_key=idempotency_key,
        occurred_at=now if occurred_at is None else _moment(occurred_at),
        created_at=now,
    )


def _check_text(name: str, value: str) -> None:
    if not isinstance(value, str) or len(value) > 255 or _CONTROL.search(value):
        raise InvalidEvent(f"{name} must be text of at most 255 characters, none of them control.")


def _moment(value: datetime) -> datetime:
    if not isinstance(value, datetime) or timezone.is_naive(value):
        raise InvalidEvent("occurred_at must be an aware datetime, e.g. timezone.now().")
    try:
        moment = value.astimezone(UTC)
    except (ValueError, OverflowError):  # the first and last hours of the calendar
        moment = None
    if moment is None or moment.year not in _YEARS:
        raise InvalidEvent("occurred_at must lie between the years 1970 and 9998, in UTC.")
    return moment


def _freeze(entry: catalog.EventType, data: Any) -> str:
    """The JSON text that every subscriber will get. Raises InvalidPayload."""
    try:
        if entry.serializer is not None and not isinstance(data, Mapping):
            data = entry.serializer(data).data
        if isinstance(data, Mapping) and not isinstance(data, dict):
            data = dict(data)
        # UnicodeEncodeError, of a lone surrogate, is raised by the second.
        text = _encoder.encode(data)
        size = len(text.encode())
    except (DatabaseError, InterfaceError):
        raise  # the caller's transaction is at stake, and it must hear of that
    except Exception as error:
        # Besides what JSON has no form for: whatever a serializer, a lazy text or a mapping of the
        # host's raises.
        raise InvalidPayload(
            f"The data of {entry.name!r} cannot be written as JSON: {type(error).__name__}, "
            f"{error}. Pass plain JSON values, finite numbers and well-formed text."
        ) from error
    if not isinstance(data, dict):
        raise InvalidPayload(
            f"The data of {entry.name!r} must be a JSON object (a dict), "
            f"not {data.__class__.__name__}."
        )
    limit = settings.MAX_PAYLOAD_BYTES
    if size > limit:
        raise InvalidPayload(
            f"The data of {entry.name!r} are {size:,} bytes, more than the limit of {limit:,}. "
            "Send less, e.g. ids and a link, or raise WEBHOOKS['MAX_PAYLOAD_BYTES']."
        )
    _check_shape(entry, data)
    return text


def _check_shape(entry: catalog.EventType, data: dict[Any, Any]) -> None:
    """Refuse names that JSON would have to rewrite, and what is nested too deep.

    ``{1: …, "1": …}`` would become an object with the same name twice. The data have been encoded,
    so they hold no circle.
    """
    level: list[Any] = [data]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                if not all(isinstance(name, str) for name in each):
                    raise InvalidPayload(
                        f"The data of {entry.name!r} have a name that is no text. JSON has no "
                        "others: write {'7': …} for {7: …}."
                    )
                below += [value for value in each.values() if isinstance(value, _NESTED)]
            else:
                below += [value for value in each if isinstance(value, _NESTED)]
        if not below:
            return
        level = below
    raise InvalidPayload(
        f"The data of {entry.name!r} are nested more than {MAX_DEPTH} levels deep, which many "
        "receivers cannot read. Send a flatter object."
    )


def _insert_once(event: Event, database: str) -> Event:
    """Insert unless its key was used; the event that stands under the key."""
    # ON CONFLICT DO NOTHING waits for a concurrent insert of the same key to commit or roll back,
    # and leaves the caller's transaction usable, as an IntegrityError would not.
    Event.objects.using(database).bulk_create([event], ignore_conflicts=True)
    first = Event.objects.using(database).get(
        requester=event.requester, type=event.type, idempotency_key=event.idempotency_key
    )
    if first.pk == event.pk:
        event._state.adding = False
        event._state.db = database
        return event
    if first.data != event.data:
        raise IdempotencyConflict(
            f"The idempotency key {event.idempotency_key!r} was used for {first.pk}, with other "
            "data. Use a new key for a new event."
        )
    return first


def _announce(events: list[Event], database: str) -> None:
    """After the commit: wake a worker, tell the host's receivers. A rollback undoes both."""
    transaction.on_commit(wake, using=database, robust=True)
    if event_recorded.has_listeners(Event):

        def tell() -> None:
            for event in events:
                event_recorded.send_robust(sender=cast(Any, Event), event=event)

        transaction.on_commit(tell, using=database, robust=True)
