"""Who may begin the next POST: the shares of a worker's slots.

Nobody can take the whole worker. A slow lane, or one whose speed is not known yet, takes at most an
eighth of the slots, all slow lanes together a half; one requester and one remote host a quarter
each while others are ready; and a fast lane leaves an eighth free, so that the moment it begins to
hang does not stop the rest.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable

from webhooks.engine.lanes import HeldLane, Job


class Shares:
    """Counts the slots in use, and says which lane may take one more."""

    def __init__(self, slots: int) -> None:
        """slots: POSTs that the worker has in flight at most."""
        self.slots = slots
        self.slow_lane = max(1, slots // 8)
        self.slow_together = max(1, slots // 2)
        self.fast_lane = max(1, slots - slots // 8)
        self.party = max(1, slots // 4)
        self._requesters: Counter[str] = Counter()
        self._hosts: Counter[str] = Counter()

    def began(self, job: Job) -> None:
        self._requesters[job.requester] += 1
        self._hosts[job.host] += 1

    def ended(self, job: Job) -> None:
        for counter, key in ((self._requesters, job.requester), (self._hosts, job.host)):
            counter[key] -= 1
            if not counter[key]:
                del counter[key]

    def choose(
        self,
        ready: deque[HeldLane],
        held: Iterable[HeldLane],
        free: int,
        *,
        now: float,
        slow_too: bool = True,
    ) -> list[HeldLane]:
        """The lanes that begin a POST now, in turn; a lane may stand there more than once.

        ready: lanes with something to send; it is reordered, so that the next call goes on where
        this one stopped. free: slots that may be filled. now: monotonic seconds.
        slow_too: whether slow lanes may begin anything.
        """
        turn = _Turn(self, held, now, slow_too)
        chosen: list[HeldLane] = []
        # The limits for one requester and one host hold only while others are ready: what the
        # first pass leaves free, the second one gives away.
        for strict in (True, False):
            line = deque(ready)
            while line and len(chosen) < free:
                lane = line.popleft()
                # Limits only fill up within a pass, so a lane that is refused once is out of it.
                if turn.allows(lane, strict):
                    turn.took(lane)
                    chosen.append(lane)
                    line.append(lane)
        # Whoever was served goes to the end; whoever was refused, or not reached, keeps its place.
        served = dict.fromkeys(reversed(chosen))
        rest = [lane for lane in ready if lane not in served]
        ready.clear()
        ready.extend([*rest, *reversed(served)])
        return chosen


class _Turn:
    """One call of ``choose``: what is in use, plus what was chosen so far."""

    def __init__(
        self, shares: Shares, held: Iterable[HeldLane], now: float, slow_too: bool
    ) -> None:
        self.shares = shares
        self.now = now
        self.slow_too = slow_too
        self.slow_in_use = sum(lane.in_flight for lane in held if lane.is_slow(now))
        self.taken: Counter[str] = Counter()
        self.requesters: Counter[str] = Counter()
        self.hosts: Counter[str] = Counter()

    def allows(self, lane: HeldLane, strict: bool) -> bool:
        shares = self.shares
        taken = self.taken[lane.id]
        in_use = lane.in_flight + taken
        if taken >= min(len(lane.buffer), lane.allowance) or in_use >= lane.cap:
            return False
        if lane.is_slow(self.now):
            if not self.slow_too or in_use >= shares.slow_lane:
                return False
            if self.slow_in_use >= shares.slow_together:
                return False
        elif in_use >= shares.fast_lane:
            return False
        if not strict:
            return True
        requester = shares._requesters[lane.requester] + self.requesters[lane.requester]
        host = shares._hosts[lane.host] + self.hosts[lane.host]
        return requester < shares.party and host < shares.party

    def took(self, lane: HeldLane) -> None:
        self.taken[lane.id] += 1
        self.requesters[lane.requester] += 1
        self.hosts[lane.host] += 1
        if lane.is_slow(self.now):
            self.slow_in_use += 1
