"""The lanes that one worker holds: claimed, kept, refilled, and given back in turn.

No POST is made here and no result written; it is the part of the drain's loop that deals with
leases and reads what is due.
"""

from __future__ import annotations

import copy
import logging
import time
from collections import deque
from collections.abc import Collection, Iterable
from typing import Any
from uuid import UUID

from webhooks.clock import Clock
from webhooks.conf import settings
from webhooks.engine import leases
from webhooks.engine.following import settle_behind
from webhooks.engine.lanes import HeldLane
from webhooks.engine.retiming import begun_digest, retime_some
from webhooks.engine.transactions import atomically
from webhooks.engine.wake import POLL
from webhooks.entitlement import suspend_lost
from webhooks.models import Delivery, Event, Lane
from webhooks.models.delivery import DueDelivery, State
from webhooks.models.subscription import Status

logger = logging.getLogger("webhooks")

#: Lanes held at once. Many may hang; those behind them must not wait for that.
HELD = 1024
#: A lane goes back after so many deliveries or seconds when others are ready.
TURN_DELIVERIES, TURN_SECONDS = 500, 5.0
#: A refill reads about so many bytes of payloads, and at most so many deliveries.
REFILL_BYTES, REFILL_MAX = 8 * 1024 * 1024, 512
#: Deliveries asked of each lane at least: one that has fewer is known to have no more.
SURE = 2
#: When lanes have so many bytes buffered, slow ones get no more.
BUFFER_BYTES = 32 * 1024 * 1024
#: Lanes with open deliveries are read on, so many in each POLL.
AGAIN = 128
#: Pending deliveries that are not to be sent: so many are ended in one round, of so many lanes.
END_BATCH, END_LANES = 1000, 20


class Holdings:
    """Leased lanes by id, and those among them that have something to send."""

    def __init__(self, using: str, token: UUID, clock: Clock, slots: int) -> None:
        """slots: POSTs that the worker has in flight at most."""
        self.using = using
        self.token = token
        self.clock = clock
        self.slots = slots
        self.lanes: dict[str, HeldLane] = {}
        self.ready: deque[HeldLane] = deque()
        #: Those that have, or had, other work than a next POST: few, and asked in each round.
        self.apart: dict[str, HeldLane] = {}
        self._payload_bytes = 1024.0
        self._renew_at = time.monotonic() + settings.LEASE_SECONDS / 3
        self._again_at = self._few_at = 0.0
        #: Nothing was claimed, for there was enough to begin.
        self.has_plenty = False

    def __bool__(self) -> bool:
        return bool(self.lanes)

    def eager(self) -> int:
        """Lanes that may begin something and are not slow: those never wait for a share."""
        now = time.monotonic()
        return sum(not lane.is_slow(now) and lane.may_begin() > 0 for lane in self.ready)

    def someone_is_ready(self) -> bool:
        """Whether there is work that nobody has taken."""
        lanes = Lane.objects.using(self.using).ready(self.clock.now())
        return lanes.exists() or Event.objects.using(self.using).some_wait()

    def claim(self, *, fast_only: bool, sure: bool = False) -> tuple[int, bool]:
        """Take ready lanes while there are slots to fill; how many, and whether more may be had.

        sure: there were more a moment ago.
        """
        room = min(2 * self.slots, HELD - len(self.lanes))
        now, eager = time.monotonic(), self.eager()
        self.has_plenty = eager >= self.slots
        if room <= 0 or self.has_plenty:
            return 0, False
        if room < min(self.slots, HELD // 8) and eager:
            # A claim of a few costs as much as one of many: not in every round.
            if now < self._few_at:
                return 0, False
            self._few_at = now + POLL
        # A look without a transaction: most of them find nothing.
        if not sure and not Lane.objects.using(self.using).ready(self.clock.now()).exists():
            return 0, False
        claimed = leases.claim(
            self.using, self.token, limit=room, now=self.clock.now(), fast_only=fast_only
        )
        for lane in claimed:
            # Our own lease may have run out unnoticed (a process that was stopped).
            if lane.id in self.lanes:
                lane.inherit(self.lanes[lane.id])
            self.lanes[lane.id] = lane
            self.apart.pop(lane.id, None)
        self._set_apart(claimed)
        self._suspend_lost(claimed)
        return len(claimed), len(claimed) == room

    def runs_dry(self) -> bool:
        """Whether what was plenty has gone, so that the next claim need not wait for its time."""
        return self.has_plenty and len(self.ready) < self.slots // 2

    def _set_apart(self, lanes: Iterable[HeldLane]) -> None:
        self.apart.update((lane.id, lane) for lane in lanes if lane.has_other_work)

    def look_again(self) -> None:
        """Let lanes that were read to their end be read on: something may have come since.

        AGAIN of them in a POLL: thousands of lanes with one delivery each would be read once more
        for nothing, and for each of the others' claims.
        """
        now = time.monotonic()
        if now < self._again_at:
            return
        waiting = [lane for lane in self.lanes.values() if lane.open]
        for lane in waiting:
            lane.read_out = False
        self._again_at = now + POLL * max(1.0, len(waiting) / AGAIN)

    def hear(self) -> float:
        """Renew the leases in time, and take over what people changed, or that a lane was lost.

        Returns the moment up to which all changes are known, in monotonic seconds.
        """
        now = time.monotonic()
        if now >= self._renew_at:
            leases.renew(self.using, self.token, list(self.lanes.values()))
            self._renew_at = now + settings.LEASE_SECONDS / 3
        looked = time.monotonic()
        controls = Lane.objects.using(self.using).controls(self.token)
        self.lose(self.lanes.keys() - controls.keys())
        changed = [
            lane
            for lane in self.lanes.values()
            if controls.get(lane.id, lane.control) != lane.control
        ]
        if changed:
            leases.reload(self.using, self.token, changed, self.clock.now())
            self._set_apart(changed)
            self._suspend_lost(changed)
        return looked

    def _suspend_lost(self, lanes: Collection[HeldLane]) -> None:
        """Suspend those whose owner is entitled to nothing any more; they begin nothing anyway."""
        for lane in lanes:
            if not lane.entitled and lane.subscription.status == Status.SUBSCRIBED:
                # A copy: it is changed before it is written, and that may fail.
                suspend_lost(copy.copy(lane.subscription))

    def lose(self, ids: Collection[str]) -> None:
        """Somebody else holds these lanes, or they are gone. What is in flight ends, unfenced."""
        for pk in ids:
            lane = self.lanes[pk]
            if not lane.leaving:
                logger.warning("%s was taken over before its lease was renewed.", pk)
            lane.leave()

    def give_turns(self) -> None:
        """Let lanes go that had their turn, for others are ready."""
        now = time.monotonic()
        for lane in self.lanes.values():
            if lane.taken >= TURN_DELIVERIES or now - lane.claimed_at > TURN_SECONDS:
                lane.leave()

    def let_slow_ones_go(self) -> None:
        now = time.monotonic()
        for lane in self.lanes.values():
            if lane.is_slow(now):
                lane.leave()

    def let_all_go(self) -> None:
        for lane in self.lanes.values():
            lane.leave()

    def waits_for_slow_ones(self) -> bool:
        """Whether POSTs of slow lanes are in flight."""
        now = time.monotonic()
        return any(lane.in_flight and lane.is_slow(now) for lane in self.lanes.values())

    def refill(self) -> None:
        """Read what is due in the lanes that run low, all of them in one statement."""
        low = max(2, self.slots // 4)
        # First: one that is read anew is added once more.
        self.ready = deque(lane for lane in self.ready if lane.can_start)
        self._discard_some()
        self._retime_some()
        hungry = [
            lane
            for lane in self.lanes.values()
            if not lane.read_out and lane.wants_more(low)  # nearly all of many are read out
        ]
        if not hungry:
            return
        if sum(lane.buffered_bytes for lane in self.lanes.values()) > BUFFER_BYTES:
            now = time.monotonic()
            hungry = [lane for lane in hungry if not lane.is_slow(now)]
        if hungry and self.eager() < 2 * self.slots:
            room = max(16, min(REFILL_MAX, int(REFILL_BYTES / self._payload_bytes)))
            self._read(hungry[: room // SURE], room)

    def _read(self, hungry: list[HeldLane], room: int) -> None:
        now = time.monotonic()
        limit = max(SURE, room // len(hungry))
        # A slow lane's buffer is memory that nobody uses for a while.
        slow = min(limit, max(2, self.slots // 4))
        limits = {lane.id: slow if lane.is_slow(now) else limit for lane in hungry}
        found = Delivery.objects.using(self.using).due(
            [lane.position(limits[lane.id]) for lane in hungry], self.clock.now()
        )
        by_lane: dict[str, list[DueDelivery]] = {lane.id: [] for lane in hungry}
        for delivery in found:
            by_lane[delivery.subscription_id].append(delivery)
        for lane in hungry:
            was_ready = lane.can_start
            lane.fill(by_lane[lane.id], limits[lane.id])
            if lane.can_start and not was_ready:
                self.ready.append(lane)
        self._set_apart(hungry)
        if found:
            mean = sum(len(delivery.data) for delivery in found) / len(found)
            self._payload_bytes = max(256.0, 0.5 * self._payload_bytes + 0.5 * mean)
        # Last: the database may refuse it, and then they are cancelled another time.
        for lane in hungry:
            self.cancel_forbidden(lane)

    def done_after(self, written: set[str]) -> list[HeldLane]:
        """The lanes that can go back once these deliveries are written."""
        done = [lane for lane in self.lanes.values() if lane.is_done_after(written)]
        ended = [lane for lane in done if lane.ends]
        if not ended:
            return done
        # Once they are written: a failed one would be pending again.
        stay = set(ended) - set(self._cancel_some(lane for lane in ended if not lane.open))
        return [lane for lane in done if lane not in stay]

    def ends_more(self) -> bool:
        """Whether the next round has deliveries to end that are not to be sent."""
        now = time.monotonic()
        return any(
            lane.end_from <= now and not lane.open and (lane.discards or lane.retimes or lane.ends)
            for lane in self.apart.values()
        )

    def _in_turn(self, lanes: Iterable[HeldLane]) -> list[HeldLane]:
        """Those of the lanes that may end something in this round, the longest waiting first."""
        now = time.monotonic()
        waiting = (lane for lane in lanes if lane.end_from <= now)
        return sorted(waiting, key=lambda lane: lane.end_from)[:END_LANES]

    def _cancel_some(self, lanes: Iterable[HeldLane]) -> list[HeldLane]:
        """End what is pending in lanes that go back unsubscribed; those that have no more."""
        empty = []
        room = END_BATCH
        for lane in self._in_turn(lanes):
            pending = Delivery.objects.using(self.using).pending().filter(subscription_id=lane.id)
            ended = self._end_some(lane.id, pending, State.CANCELLED, "unsubscribed", room)
            lane.end_from = time.monotonic()
            if ended == room:
                break  # the rest in the next rounds: others do not wait for it
            lane.end_from += POLL  # should somebody have locked it, so that it cannot go back
            empty.append(lane)
            room -= ended
        return empty

    def _discard_some(self) -> None:
        """End some of what owners wanted discarded; a lane goes on after its last."""
        room = END_BATCH
        # Once what is open is written: it may be acknowledged, or be pending again.
        discarding = (each for each in self.apart.values() if each.discards and not each.open)
        for lane in self._in_turn(discarding):
            until: Any = lane.row.discard_before  # as it discards, it has one
            pending = Delivery.objects.using(self.using).pending().filter(subscription_id=lane.id)
            pending = pending.unwanted(until)
            ended = self._end_some(lane.id, pending, State.DISCARDED, "resumed", room)
            lane.end_from = time.monotonic()
            if ended == room:
                break
            room -= ended
            if atomically(
                self.using,
                lambda pk=lane.id, until=until: Lane.objects.using(self.using).discarded(pk, until),  # type: ignore[misc]
            ):
                lane.row.discard_before = None
            else:
                lane.end_from += POLL  # somebody has locked it

    def _retime_some(self) -> None:
        """Move some of what waits to another window; a lane goes on after its last."""
        room = END_BATCH
        # Once what is open is written: it may be pending again.
        moving = (each for each in self.apart.values() if each.retimes and not each.open)
        for lane in self._in_turn(moving):
            if lane.discards:
                continue  # first that
            if lane.plan is None:
                lane.plan = begun_digest(self.using, lane)
            if lane.plan is not None:  # the composer goes on with it
                lane.end_from = time.monotonic() + POLL
                continue
            moved = retime_some(self.using, self.token, lane, room)
            lane.end_from = time.monotonic()
            if moved < room:
                lane.row.retime_before = None
                lane.read_anew()
            else:
                lane.end_from += 0.0 if moved else POLL
            room -= moved
            if room <= 0:
                break

    def cancel_forbidden(self, lane: HeldLane) -> None:
        """End deliveries of types that the owner's scopes do not cover any more."""
        if lane.forbidden:
            Delivery.objects.using(self.using).filter(pk__any=lane.forbidden).settle(
                State.CANCELLED, now=self.clock.now(), reason="scope_lost"
            )
            lane.forbidden = []

    def _end_some(
        self, subscription_id: str, pending: Any, state: State, reason: str, room: int
    ) -> int:
        """End up to ``room`` pending deliveries of a lane; how many were found."""
        behind = settle_behind(self.using, subscription_id, room)
        ids = list(pending.order_by("pk").values_list("pk", flat=True)[: room - behind])
        if ids:
            # Under the same conditions still: one may have been asked for again meanwhile.
            pending.filter(pk__any=ids).settle(state, now=self.clock.now(), reason=reason)
        return behind + len(ids)

    def freed(self, lanes: Collection[HeldLane]) -> None:
        for lane in lanes:
            del self.lanes[lane.id]
            self.apart.pop(lane.id, None)
