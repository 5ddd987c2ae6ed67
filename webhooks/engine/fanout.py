"""Fan-out: an event becomes one delivery for each subscription that it concerns.

One process at a time does it for a database, in transactions of a few thousand deliveries; a crash
frees the lock at once, and repeating a transaction changes nothing. Here an event gets its ``seq``:
ids are made before commits, so only a number that is given under this lock orders events as they
became visible.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from webhooks.access import Entitlements
from webhooks.clock import db_now
from webhooks.engine.addressing import refusal
from webhooks.engine.transactions import atomically
from webhooks.engine.windows import Scheduled, window_for
from webhooks.models import Delivery, Duty, Event, Lane, Subscription
from webhooks.models.delivery import State
from webhooks.models.fields import new_delivery_id
from webhooks.models.subscription import SCHEDULE, OnSuspend, Status, Trigger

#: At most so many events, and about so many deliveries, in one transaction: a worker that has
#: nothing else to do may take more at a time than one whose POSTs would have to wait.
BUSY, IDLE = 500, 2000
#: Subscriptions that one step of fanning out again looks at.
LOOKED_AT = 1000


@dataclass(frozen=True, slots=True)
class FannedOut:
    """What one transaction did. ``more``: there may be more to do at once."""

    events: int = 0
    deliveries: int = 0
    more: bool = False


@dataclass(frozen=True, slots=True)
class FannedOutAgain:
    """What one step did. deliveries: that it made. busy: subscriptions whose lanes somebody had
    locked. after: the last one that it looked at; "": it looked at all there are."""

    deliveries: int
    busy: int
    after: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """What fan-out knows of a subscription."""

    id: str
    requester: str
    event_types: list[str]
    status: str
    on_suspend: str
    application_id: Any
    user_id: Any
    scopes: str
    grant_revoked_at: datetime | None
    trigger: str
    time_zone: str
    hour: int
    day: int


def fan_out(using: str, *, room: int = IDLE) -> FannedOut:
    """Fan out the next events; does nothing while another process is at it.

    room: about how many deliveries to make in this transaction.
    """
    if not Event.objects.using(using).some_wait():
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
    addressed: list[_Addressed] = []
    count = 0
    for event in events:
        if count >= room:
            break
        addressed.append(_address(event, candidates, room - count, now))
        count += len(addressed[-1].rows)
    more = count >= room or len(addressed) == room
    locked, gone, busy = _lock_lanes(using, {row[2] for each in addressed for row in each.rows})
    ready = _without_busy(addressed, busy)
    _write(using, duty, ready, locked, gone, now, candidates.scheduled)
    return FannedOut(len(ready), sum(len(each.rows) for each in ready), more=more and bool(ready))


@dataclass(frozen=True, slots=True)
class _Addressed:
    """An event's next deliveries. after: the last subscription that they reach; "": all of them."""

    event: Event
    rows: list[tuple[Any, ...]]
    after: str


def _address(event: Event, candidates: _Candidates, room: int, now: datetime) -> _Addressed:
    """The event's deliveries, page by page, as long as the transaction has room."""
    rows: list[tuple[Any, ...]] = []
    after = event.fan_out_after
    while True:
        page, last = candidates.page(event.requester, after)
        rows.extend(
            _row(event, each, now)
            for each in page
            if not refusal(event, each, candidates.granted(each))
        )
        if last:
            return _Addressed(event, rows, "")
        after = page[-1].id
        if len(rows) >= room:
            return _Addressed(event, rows, after)


def _without_busy(addressed: list[_Addressed], busy: set[str]) -> list[_Addressed]:
    """Put off the events that concern a lane which somebody else has locked.

    And, to keep each lane's order, what comes after them in any lane that they concern.
    """
    if not busy:
        return addressed
    ready = []
    for each in addressed:
        lanes = {row[2] for row in each.rows}
        if lanes & busy:
            busy |= lanes
        else:
            ready.append(each)
    return ready


def _row(event: Event, candidate: Candidate, now: datetime, trigger: str = "") -> tuple[Any, ...]:
    """A row in the order of ``delivery.FANNED_OUT``, but for the lane's clock at the end."""
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
        trigger,
        now,
        now if discarded else None,
    )


def _lock_lanes(using: str, ids: set[str]) -> tuple[list[Lane], set[str], set[str]]:
    """Lock the lanes; which are locked, which are gone, and which others have locked."""
    lanes = Lane.objects.using(using)
    locked = lanes.lock_free(ids)
    missing = ids - {lane.pk for lane in locked}
    if not missing:
        return locked, set(), set()
    busy = set(lanes.filter(pk__any=missing).values_list("pk", flat=True))
    missing -= busy
    # Only now: an INSERT would wait for whoever changes the row that it collides with.
    lanes.make(missing)
    locked += lanes.lock_free(missing)
    return locked, missing - {lane.pk for lane in locked}, busy


def _write(
    using: str,
    duty: Duty,
    ready: Sequence[_Addressed],
    locked: Sequence[Lane],
    gone: set[str],
    now: datetime,
    scheduled: Mapping[str, Candidate],
) -> None:
    # ``gone``: subscriptions that were deleted since they were read.
    rows = [row for each in ready for row in each.rows if row[2] not in gone]
    _give(using, rows, locked, now, scheduled)
    for each in ready:
        event = each.event
        if event.seq is None:
            duty.counter += 1
            event.seq = duty.counter
        event.fan_out_after = each.after
        event.fanned_out_at = None if each.after else now
    Event.objects.using(using).mark_dispatched([each.event for each in ready])
    duty.ran_at = now
    duty.save(using=using, update_fields=["counter", "ran_at"])


def _give(
    using: str,
    rows: Sequence[tuple[Any, ...]],
    locked: Sequence[Lane],
    now: datetime,
    scheduled: Mapping[str, Candidate],
) -> None:
    """Add deliveries to locked lanes, and tell them."""
    clocks = {lane.pk: lane.clock_at(now) for lane in locked}
    rows = [(*row, clocks[row[2]]) for row in rows]
    due = _due_at_window_ends(using, locked, scheduled)
    if due:
        rows = [
            (*row[:5], due[row[2]], due[row[2]], *row[7:]) if row[2] in due else row for row in rows
        ]
    Delivery.objects.using(using).add(rows)
    waiting = {row[2] for row in rows if row[3] == State.PENDING}
    lanes = Lane.objects.using(using)
    lanes.expect([lane for lane in locked if lane.pk in waiting - due.keys()], now)
    for lane in locked if due else ():
        if lane.pk in waiting & due.keys():
            lanes.expect([lane], due[lane.pk])


def _due_at_window_ends(
    using: str, locked: Sequence[Lane], scheduled: Mapping[str, Candidate]
) -> dict[str, datetime]:
    """When the new deliveries of the scheduled ones among these lanes are due.

    The clock is read here, under the lanes' locks: who freezes a window has locked its lane after
    the window's end, and so sees all that is in it. A lane that nobody ever changed is as it was
    read; of the others the settings are read again.
    """
    owners: dict[str, Scheduled] = {
        lane.pk: scheduled[lane.pk] for lane in locked if not lane.control and lane.pk in scheduled
    }
    if changed := [lane.pk for lane in locked if lane.control]:
        rows = Subscription.objects.using(using).exclude(trigger=Trigger.REALTIME)
        owners |= {row.pk: row for row in rows.filter(pk__any=changed).only(*SCHEDULE)}
    if not owners:
        return {}
    now = db_now(using)
    ends: dict[tuple[object, ...], datetime] = {}
    due = {}
    for pk, owner in owners.items():
        key = (owner.trigger, owner.time_zone, owner.hour, owner.day)
        if key not in ends:
            ends[key] = window_for(owner, now).end
        due[pk] = ends[key]
    return due


def fan_out_again(using: str, event: Event, *, trigger: str, after: str = "") -> FannedOutAgain:
    """Give an event, which was fanned out before, to those that it is for now and that have no
    delivery of it: of the next ``LOOKED_AT`` subscriptions, in one transaction.

    trigger: what the first try is called. after: the last subscription that was looked at. It does
    not take part in fan-out itself: a lane that somebody has locked is left, for nobody waits.
    """
    return atomically(using, lambda: _fan_out_again(using, event, trigger, after))


def lacking(using: str, event: Event, after: str = "") -> tuple[int, str]:
    """How many :func:`fan_out_again` would give the event to, and the last one it would look at;
    "": there are no more."""
    found, last, _scheduled = _lacking(using, event, after)
    return len(found), last


def _fan_out_again(using: str, event: Event, trigger: str, after: str) -> FannedOutAgain:
    found, last, scheduled = _lacking(using, event, after)
    locked, _gone, busy = _lock_lanes(using, {each.id for each in found})
    now = db_now(using)  # under the locks: behind what was added to the lanes before
    free = {lane.pk for lane in locked}
    rows = [_row(event, each, now, trigger) for each in found if each.id in free]
    _give(using, rows, locked, now, scheduled)
    return FannedOutAgain(len(rows), len(busy), last)


def _lacking(
    using: str, event: Event, after: str
) -> tuple[list[Candidate], str, Mapping[str, Candidate]]:
    candidates = _Candidates(using, [event], page=LOOKED_AT)
    page, is_last = candidates.page(event.requester, after)
    wanted = [each for each in page if not refusal(event, each, candidates.granted(each))]
    if not wanted:
        return [], "" if is_last else page[-1].id, {}
    there = Delivery.objects.using(using).filter(
        event=event.pk, subscription_id__gte=wanted[0].id, subscription_id__lte=wanted[-1].id
    )
    have = set(there.values_list("subscription_id", flat=True))
    found = [each for each in wanted if each.id not in have]
    return found, "" if is_last else page[-1].id, candidates.scheduled


class _Candidates:
    """The subscriptions that a batch of events may concern, read in pages, each page once."""

    def __init__(self, using: str, events: Sequence[Event], *, page: int) -> None:
        self._using = using
        self._page = page
        #: Those among them whose events come in digests.
        self.scheduled: dict[str, Candidate] = {}
        self._granted: dict[str, frozenset[str] | None] = {}
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

    def granted(self, candidate: Candidate) -> frozenset[str] | None:
        """What its owner is entitled to; None: nothing."""
        return self._granted[candidate.id]

    def _ask_for(self, found: Sequence[Candidate]) -> None:
        entitlements = Entitlements(found)
        self.scheduled |= {each.id: each for each in found if each.trigger != Trigger.REALTIME}
        self._granted |= {each.id: entitlements.granted(each) for each in found}

    def _read_together(self, requesters: set[str]) -> None:
        """All candidates of these requesters in one statement, unless they are too many."""
        subscriptions = Subscription.objects.using(self._using).receiving()
        found = _read(subscriptions.filter(requester__in=requesters), self._page + 1)
        if len(found) > self._page:
            return
        self._ask_for(found)
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
        self._ask_for(found)
        return found[: self._page], len(found) <= self._page


def _read(subscriptions: Any, limit: int) -> list[Candidate]:
    columns = (
        *("pk", "requester", "event_types", "status", "on_suspend"),
        *("application_id", "user_id", "scopes", "grant_revoked_at"),
        *SCHEDULE,
    )
    return [Candidate(*row) for row in subscriptions.order_by("pk").values_list(*columns)[:limit]]
