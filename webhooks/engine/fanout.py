"""Fan-out: an event becomes one delivery for each subscription that it concerns.

One process at a time does it for a database, in transactions of a few thousand deliveries; a crash
frees the lock at once, and repeating a transaction changes nothing. Here an event gets its ``seq``:
ids are made before commits, so only a number that is given under this lock orders events as they
became visible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from webhooks.clock import db_now
from webhooks.engine.transactions import atomically
from webhooks.models import Delivery, Duty, Event, Lane, Subscription
from webhooks.models.bulk import insert_rows
from webhooks.models.delivery import State
from webhooks.models.fields import new_delivery_id
from webhooks.models.subscription import OnSuspend, Status, matches

#: At most so many events, and about so many deliveries, in one transaction: a worker that has
#: nothing else to do may take more at a time than one whose POSTs would have to wait.
BUSY, IDLE = 500, 2000


@dataclass(frozen=True, slots=True)
class FannedOut:
    """What one transaction did. ``more``: there may be more to do at once."""

    events: int = 0
    deliveries: int = 0
    more: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """What fan-out knows of a subscription."""

    id: str
    requester: str
    event_types: list[str]
    status: str
    on_suspend: str


def fan_out(using: str, *, room: int = IDLE) -> FannedOut:
    """Fan out the next events; does nothing while another process is at it.

    room: about how many deliveries to make in this transaction.
    """
    if not Event.objects.using(using).undispatched().exists():
        return FannedOut()
    return atomically(using, lambda: _fan_out(using, room))


def _fan_out(using: str, room: int) -> FannedOut:
    duty = Duty.objects.using(using).lock(Duty.Name.FANOUT)
    if duty is None:
        return FannedOut()
    events = Event.objects.using(using).next_to_fan_out(room)
    if not events:
        return FannedOut()
    now = db_now(using)
    candidates = _Candidates(using, events, page=room)
    rows: list[tuple[Any, ...]] = []
    done: list[Event] = []
    for event in events:
        if len(rows) >= room:
            break
        if event.seq is None:
            duty.counter += 1
            event.seq = duty.counter
        _address(event, candidates, rows, room, now)
        done.append(event)
    _write(using, done, rows, now)
    duty.ran_at = now
    duty.save(using=using, update_fields=["counter", "ran_at"])
    return FannedOut(len(done), len(rows), more=len(done) == room or len(rows) >= room)


def _address(
    event: Event,
    candidates: _Candidates,
    rows: list[tuple[Any, ...]],
    room: int,
    now: datetime,
) -> None:
    """Add the event's deliveries, page by page, as long as the transaction has room."""
    after = event.fan_out_after
    while True:
        page, last = candidates.page(event.requester, after)
        rows.extend(
            _row(event, each, now) for each in page if matches(each.event_types, event.type)
        )
        if last:
            event.fanned_out_at = now
            event.fan_out_after = ""
            return
        after = page[-1].id
        if len(rows) >= room:
            event.fan_out_after = after  # the next transaction goes on here
            return


def _row(event: Event, candidate: Candidate, now: datetime) -> tuple[Any, ...]:
    """A row in the order of ``delivery.FANNED_OUT``."""
    discarded = candidate.status == Status.SUSPENDED and candidate.on_suspend == OnSuspend.DISCARD
    return (
        new_delivery_id(),
        event.pk,
        candidate.id,
        State.DISCARDED.value if discarded else State.PENDING.value,
        "suspended" if discarded else "",
        now,
        now,
        0,
        "",
        now,
        now if discarded else None,
    )


def _write(
    using: str, events: Sequence[Event], rows: Sequence[tuple[Any, ...]], now: datetime
) -> None:
    ids = {row[2] for row in rows}
    lanes = Lane.objects.using(using)
    locked = lanes.lock(ids)
    if len(locked) < len(ids):
        _make_lanes(using, ids - {lane.pk for lane in locked})
        locked = lanes.lock(ids)
    if len(locked) < len(ids):
        # Subscriptions that were deleted since they were read.
        there = {lane.pk for lane in locked}
        rows = [row for row in rows if row[2] in there]
    Delivery.objects.using(using).add(rows)
    waiting = {row[2] for row in rows if row[3] == State.PENDING}
    lanes.expect([lane for lane in locked if lane.pk in waiting], now)
    Event.objects.using(using).mark_dispatched(events)


def _make_lanes(using: str, ids: set[str]) -> None:
    """Lanes for subscriptions that were written past ``subscribe()``, e.g. by a fixture."""
    held = Subscription.objects.using(using).filter(pk__any=ids)
    insert_rows(
        using,
        Lane,
        ["subscription", "held", "control", "failures", "pause_reason"],
        [
            (pk, status in (Status.PENDING, Status.SUSPENDED), 0, 0, "")
            for pk, status in held.values_list("pk", "status")
        ],
        ignore_conflicts=True,
    )


class _Candidates:
    """The subscriptions that a batch of events may concern, read in pages, each page once."""

    def __init__(self, using: str, events: Sequence[Event], *, page: int) -> None:
        self._using = using
        self._page = page
        self._known: dict[str, list[Candidate]] = {}
        self._first_pages: dict[str, tuple[list[Candidate], bool]] = {}
        requesters = {event.requester for event in events} - {""}
        if requesters:
            self._read_together(requesters)

    def page(self, requester: str, after: str) -> tuple[list[Candidate], bool]:
        """Candidates beyond ``after`` in the order of their ids, and whether they are the last."""
        if requester in self._known:
            return [each for each in self._known[requester] if each.id > after], True
        if after:
            return self._read(requester, after)
        if requester not in self._first_pages:
            self._first_pages[requester] = self._read(requester, after)
        return self._first_pages[requester]

    def _read_together(self, requesters: set[str]) -> None:
        """All candidates of these requesters in one statement, unless they are too many."""
        subscriptions = Subscription.objects.using(self._using).receiving()
        found = _read(subscriptions.filter(requester__in=requesters), self._page + 1)
        if len(found) > self._page:
            return
        self._known = {requester: [] for requester in requesters}
        for candidate in found:
            # MariaDB may find "app:Shop" for "app:shop", if somebody changed the collation back.
            if candidate.requester in self._known:
                self._known[candidate.requester].append(candidate)

    def _read(self, requester: str, after: str) -> tuple[list[Candidate], bool]:
        subscriptions = Subscription.objects.using(self._using).receiving()
        if requester:
            subscriptions = subscriptions.filter(requester=requester)
        if after:
            subscriptions = subscriptions.filter(pk__gt=after)
        found = _read(subscriptions, self._page + 1)
        return found[: self._page], len(found) <= self._page


def _read(subscriptions: Any, limit: int) -> list[Candidate]:
    columns = ("pk", "requester", "event_types", "status", "on_suspend")
    return [Candidate(*row) for row in subscriptions.order_by("pk").values_list(*columns)[:limit]]
