"""The composer: what is due in lanes that send batches becomes frozen messages in their buffers.

It is a step in the round of the drain. What was frozen before (by a holder that died, for a retry)
comes first, then digests, then what is to be gathered. A lane is given no more than it may begin
soon, and a round reads a bounded number of rows, so that nobody waits for somebody else's backlog.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from webhooks.engine.digests import Figures, Plan, first_pending, give_up
from webhooks.engine.following import Following, note_behind
from webhooks.engine.freezing import MembersChanged, freeze, render_again, replace
from webhooks.engine.holdings import Holdings
from webhooks.engine.lanes import HeldLane
from webhooks.engine.parcels import (
    Draft,
    Packer,
    draft,
    head_of,
    is_thin,
    new_message,
    octets,
    page_size,
    read,
)
from webhooks.engine.wake import POLL
from webhooks.engine.windows import window_that_ends
from webhooks.formats import get_format
from webhooks.models import Delivery, Message
from webhooks.models.delivery import DueDelivery, LanePosition, State
from webhooks.models.subscription import Content

#: Messages that wait in a lane's buffer; it is given more when it has fewer.
WAITING: Final = 4
#: Rows and bytes of payloads that one round reads, of all lanes together.
ROWS, BYTES = 4000, 4 * 1024 * 1024
#: Bytes of bodies that wait in all lanes together; slow lanes get no more then.
BODIES: Final = 32 * 1024 * 1024
#: Why a lane rests whose batch is not full.
BATCH: Final = "batch"
#: Behind every delivery that is due at the same time.
LAST: Final = "dlv_" + "f" * 32


class Composer:
    """Fills the buffers of a worker's lanes with batches."""

    def __init__(self, holdings: Holdings) -> None:
        self._holdings = holdings
        self._using = holdings.using
        #: Where the last reading of each lane began: it is gone back to where nothing was frozen.
        self._begun_at: dict[str, tuple[datetime, str] | None] = {}

    def compose(self) -> None:
        """One round."""
        lanes = self._hungry()
        if not lanes:
            return
        drafts: list[tuple[HeldLane, Draft]] = []
        gathering: list[HeldLane] = []
        rows = ROWS
        for lane in lanes:
            lane.composed_at = time.monotonic()
            if lane.reshaped:
                drafts += self._renamed(lane)
            elif lane.plan is not None:
                rows -= self._go_on(lane, drafts)
            elif lane.frozen:
                rows -= max(1, self._load(lane))
            else:
                gathering.append(lane)
                rows -= self._limit(lane)
            if rows <= 0:
                break
        drafts += self._gather(gathering)
        self._freeze(drafts)
        for lane in lanes:
            self._cancel_forbidden(lane)

    def has_more(self) -> bool:
        """Whether the next round has something to do at once."""
        return bool(self._hungry())

    def _hungry(self) -> list[HeldLane]:
        """Lanes that may be given something, the longest waiting first."""
        now = time.monotonic()
        found = [
            lane
            for lane in self._holdings.apart.values()
            if (lane.batching or lane.frozen or lane.reshaped or lane.plan)
            and not lane.leaving
            and not lane.discards
            # Before anything is moved, what was begun is finished.
            and (lane.plan or not lane.retimes)
            and lane.compose_from <= now
            and self._wants(lane)
        ]
        if not found:
            return found
        if sum(lane.waiting_bytes() for lane in self._holdings.apart.values()) > BODIES:
            found = [lane for lane in found if not lane.is_slow(now) or not lane.buffer]
        return sorted(found, key=lambda lane: lane.composed_at)

    def _room(self, lane: HeldLane) -> int:
        """Messages that the lane may be given now."""
        return min(WAITING, lane.pacing.room(lane.in_flight)) - len(lane.buffer)

    def _wants(self, lane: HeldLane) -> bool:
        if lane.reshaped:
            return True
        more = lane.frozen or lane.plan is not None or (lane.batching and not lane.read_out)
        return bool(more) and self._room(lane) > 0

    def _limit(self, lane: HeldLane) -> int:
        """Deliveries to read for a lane: what fills its room, as far as bytes allow."""
        wanted = page_size(lane.subscription) * self._room(lane)
        return max(16, min(wanted, ROWS, int(BYTES / lane.mean_bytes)))

    def _renamed(self, lane: HeldLane) -> list[tuple[HeldLane, Draft]]:
        """Messages for what was tried in another shape: one id, one body."""
        reshaped, lane.reshaped = lane.reshaped, []
        self._begun_at[lane.id] = None
        now = self._holdings.clock.now()
        return [
            (lane, draft(new_message(lane.subscription, now, batch=False), [each]))
            for each in reshaped
        ]

    # What was frozen before

    def _load(self, lane: HeldLane) -> int:
        """Make frozen messages ready to be sent again; how many rows were read."""
        rows = 0
        while lane.frozen and self._room(lane) > 0 and rows < ROWS:
            message_id = lane.frozen.pop(0)
            message = Message.objects.using(self._using).filter(pk=message_id).first()
            if message is None:
                continue
            if message.content == Content.COUNTS:
                self._load_figures(lane, message)
                return rows + 1
            members = read(self._using, message=message)
            rows += max(1, len(members))
            if any(each.id in lane.open for each in members):
                continue  # under way in another message, and perhaps acknowledged: read it later
            if members and not self._ready(lane, message, members):
                lane.frozen.insert(0, message_id)
                lane.compose_from = time.monotonic() + POLL
                break
        return rows

    def _load_figures(self, lane: HeldLane, message: Message) -> None:
        """Make a digest of counts ready, or plan what is to be done before that."""
        window = message.window
        assert window is not None
        if not message.is_gathered:
            lane.plan = Figures(lane, window)
            return
        if message.following:
            lane.plan = Following(lane, message.pk)
            return
        # However many they are, one of them stands for all.
        head = read(self._using, pk=message.head, message=message)
        if not head and (head := first_pending(self._using, message)):
            message.head = head[0].id  # what stood for them has ended, or was removed
            message.save(using=self._using, update_fields=["head"])
        if not head or head[0].id in lane.open:
            return
        if head[0].due_at > self._holdings.clock.now():
            # It was met by one that is due, which is behind then.
            note_behind(self._using, message.pk, State.PENDING, instead_of=("",))
            lane.plan = Following(lane, message.pk)
            return
        told = all(map(lane.may_be_sent, message.counted))
        body = render_again(self._using, message, head) if told else None
        if body is not None:
            lane.after = max(lane.after or (head[0].due_at, LAST), (head[0].due_at, LAST))
            self._put(lane, head_of(message, head, body))
        elif give_up(self._using, self._holdings.token, lane, message):
            lane.plan = Figures(lane, window)
        else:
            lane.frozen.insert(0, message.pk)
            lane.compose_from = time.monotonic() + POLL

    def _ready(self, lane: HeldLane, message: Message, members: list[DueDelivery]) -> bool:
        """Put a frozen message into the buffer; False where it must wait for a lock."""
        barred = [each.id for each in members if not lane.may_be_sent(each.event_type)]
        told = all(map(lane.may_be_sent, message.counted))
        body = None if barred or not told else render_again(self._using, message, members)
        if body is None:
            members = [each for each in members if each.id not in barred]
            made = replace(self._using, self._holdings.token, lane, message, members, barred)
            if made is None:
                return False
            lane.forbidden += barred
            if not members:
                return True
            message, body = made, render_again(self._using, made, members) or b""
        self._put(lane, head_of(message, members, body))
        return True

    # Digests

    def _go_on(self, lane: HeldLane, drafts: list[tuple[HeldLane, Draft]]) -> int:
        """The next round of a lane's digest; how many rows were read."""
        plan, token = lane.plan, self._holdings.token
        assert plan is not None
        if isinstance(plan, Following):
            if not plan.step(self._using, token):
                lane.compose_from = time.monotonic() + POLL
            elif plan.is_done:
                lane.plan = None
                if plan.due_at is not None and plan.due_at <= self._holdings.clock.now():
                    lane.frozen.insert(0, plan.message_id)
            return ROWS
        if isinstance(plan, Figures):
            if not plan.step(self._using, token):
                lane.compose_from = time.monotonic() + POLL
            elif plan.is_done:
                if plan.head is not None:
                    self._put(lane, plan.head)
                self._planned(lane, plan)
            return ROWS
        if not plan.is_planned:
            if not plan.step(self._using, token):
                lane.compose_from = time.monotonic() + POLL
        elif not plan.is_done and (page := plan.next_page(self._using)) is not None:
            drafts.append((lane, page))
            return len(page.deliveries)
        if plan.is_done:
            self._planned(lane, plan)
        return ROWS // 2

    def _planned(self, lane: HeldLane, plan: Plan | Figures) -> None:
        lane.plan = None
        # Behind all that is in it: what was tried before is due later than its window's end.
        due_at = plan.head.due_at if isinstance(plan, Figures) and plan.head else plan.window.end
        lane.after = max(lane.after or (due_at, LAST), (plan.window.end, LAST), (due_at, LAST))

    # What is to be gathered

    def _gather(self, lanes: Sequence[HeldLane]) -> list[tuple[HeldLane, Draft]]:
        """Read what is due in these lanes, and make drafts of it."""
        if not lanes:
            return []
        limits = {lane.id: self._limit(lane) for lane in lanes}
        now = self._holdings.clock.now()
        found = Delivery.objects.using(self._using).due(
            [LanePosition(lane.id, limits[lane.id], lane.after) for lane in lanes], now
        )
        by_lane: dict[str, list[DueDelivery]] = {lane.id: [] for lane in lanes}
        for delivery in found:
            by_lane[delivery.subscription_id].append(delivery)
        drafts: list[tuple[HeldLane, Draft]] = []
        for lane in lanes:
            rows = by_lane[lane.id]
            if rows:
                mean = sum(len(each.data) for each in rows) / len(rows)
                lane.mean_bytes = max(256.0, 0.5 * lane.mean_bytes + 0.5 * mean)
            self._begun_at[lane.id] = lane.after
            gathering = Gathering(lane, now, all_read=len(rows) < limits[lane.id])
            drafts += [(lane, each) for each in gathering.drafts(rows, self._room(lane))]
        return drafts

    def _freeze(self, drafts: list[tuple[HeldLane, Draft]]) -> None:
        try:
            written = freeze(self._using, self._holdings.token, drafts)
        except MembersChanged:
            written = set()  # the next round reads what there is now
        for lane, each in drafts:
            if lane.id not in written:
                if lane.plan is None:
                    lane.after, lane.read_out = self._begun_at[lane.id], False
                lane.compose_from = time.monotonic() + POLL
                continue
            if isinstance(lane.plan, Plan):
                lane.plan.frozen()
                if lane.plan.is_done:
                    self._planned(lane, lane.plan)
            self._put(lane, head_of(each.message, each.deliveries, each.body))

    def _put(self, lane: HeldLane, head: DueDelivery) -> None:
        was_ready = lane.can_start
        lane.buffer.append(head)
        lane.buffered_bytes += len(head.data)
        if not was_ready:
            self._holdings.ready.append(lane)

    def _cancel_forbidden(self, lane: HeldLane) -> None:
        self._holdings.cancel_forbidden(lane)


class Gathering:
    """What was read of one lane, on its way into batches."""

    def __init__(self, lane: HeldLane, now: datetime, *, all_read: bool) -> None:
        """all_read: nothing more is due than what was read."""
        self.lane = lane
        self._now = now
        self._all_read = all_read
        self._met = lane.known_messages()
        subscription = lane.subscription
        self._packer = Packer(
            get_format(subscription.format), page_size(subscription), thin=is_thin(subscription)
        )
        self._groups: list[list[DueDelivery]] = []
        self._key: object = None
        #: Behind what was looked at, and before the batch that is not full yet.
        self._position = self._before_last = lane.after

    def drafts(self, rows: Sequence[DueDelivery], room: int) -> list[Draft]:
        """Up to ``room`` batches of these rows; what was not taken is read again another time."""
        lane = self.lane
        more = self._sort(rows, room)
        linger = 0.0
        if self._groups and not more and not self._packer.is_full:
            linger = self._linger(self._groups[-1])
            if linger or not (self._all_read or lane.plan):
                self._groups.pop()
                self._position = self._before_last
        lane.after = self._position
        lane.read_out = self._all_read and not (more or linger or lane.plan or lane.frozen)
        if linger:
            self._wait(linger)
        return [draft(new_message(lane.subscription, self._now), each) for each in self._groups]

    def _sort(self, rows: Sequence[DueDelivery], room: int) -> bool:
        """Put rows into batches, in their order; whether one was left for want of room."""
        for row in rows:
            if not self._is_apart(row):
                if self.lane.frozen:
                    return True  # those are older, and go first
                if self._opens_digest(row):
                    return False
                if not self._take(row, room):
                    return True
            self._position = (row.due_at, row.id)
        return False

    def _take(self, row: DueDelivery, room: int) -> bool:
        """Add a row to the last batch, or begin one; False where there is no room for it."""
        key = (row.attempts, row.retries_from, row.trigger)
        if key != self._key:
            self._packer.close()
        size = self._packer.size(row.event_type, row.subject, octets(row.data))
        together = self._packer.takes(size) and key == self._key
        if not together or not self._groups:
            if len(self._groups) == room:
                return False
            self._before_last = self._position
            self._groups.append([])
        self._key = key
        self._groups[-1].append(row)
        return True

    def _is_apart(self, row: DueDelivery) -> bool:
        """Whether a row is not to be gathered: it is in a message, in flight, or barred."""
        lane = self.lane
        if row.id in lane.open:
            pass
        elif row.message_id is not None:
            lane.meet(row, self._met)
        elif not lane.may_be_sent(row.event_type):
            lane.forbidden.append(row.id)
        else:
            return False
        return True

    def _opens_digest(self, row: DueDelivery) -> bool:
        """Whether a row is the first of a window; the lane's plan is made then."""
        lane = self.lane
        window = window_that_ends(lane.subscription, row.due_at)
        if window is None:
            return False
        counts = lane.subscription.content == Content.COUNTS
        lane.plan = Figures(lane, window) if counts else Plan(lane, window)
        return True

    def _linger(self, group: list[DueDelivery]) -> float:
        """Seconds for which a batch that is not full may still wait for more events."""
        subscription = self.lane.subscription
        first = min(group, key=lambda each: each.due_at)
        if subscription.is_scheduled or first.attempts or first.trigger:
            return 0.0
        waited = (self._now - first.due_at).total_seconds()
        return max(0.0, subscription.batch_seconds - waited)

    def _wait(self, seconds: float) -> None:
        """Look again later; where nothing else is up, the lane goes back until then.

        Not for all of the time at once: the batch may be full before.
        """
        lane = self.lane
        lane.compose_from = time.monotonic() + min(seconds, POLL)
        if not (self._groups or lane.buffer or lane.open or lane.frozen):
            most = max(1.0, lane.subscription.batch_seconds / 10)
            lane.rest(self._now + timedelta(seconds=min(seconds, most)), BATCH, self._now)
