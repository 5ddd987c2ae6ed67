"""Who may begin the next POST: the shares of a worker's slots.

Nobody can take the whole worker. A slow lane, or one whose speed is not known yet, takes at most an
eighth of the slots, all slow lanes together a half; one requester and one remote host a quarter
each while others are ready; and a fast lane, a requester and a host always leave an eighth free, so
that the moment they begin to hang does not stop the rest.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import Protocol, TypeVar


class Party(Protocol):
    """Whose share a POST takes: a lane, or the POST itself."""

    @property
    def requester(self) -> str: ...
    @property
    def host(self) -> str: ...


class Contender(Party, Protocol):
    """A lane, as far as shares go by it."""

    @property
    def id(self) -> str: ...
    @property
    def in_flight(self) -> int: ...

    def may_begin(self) -> int:
        """POSTs that it may begin now, by what waits and by its own pacing."""

    def is_slow(self, now: float) -> bool:
        """Whether it is slow, or not known to be fast. now: monotonic seconds."""


Lane = TypeVar("Lane", bound=Contender)


class Shares:
    """Counts the slots in use, and says which lane may take one more."""

    def __init__(self, slots: int) -> None:
        """slots: POSTs that the worker has in flight at most."""
        self.slots = slots
        self.slow_lane = max(1, slots // 8)
        self.slow_together = max(1, slots // 2)
        #: What one lane, requester or host takes at most, whatever nobody else wants.
        self.most = max(1, slots - slots // 8)
        self.party = max(1, slots // 4)
        self._requesters: Counter[str] = Counter()
        self._hosts: Counter[str] = Counter()

    def began(self, job: Party) -> None:
        self._requesters[job.requester] += 1
        self._hosts[job.host] += 1

    def ended(self, job: Party) -> None:
        for counter, key in ((self._requesters, job.requester), (self._hosts, job.host)):
            counter[key] -= 1
            if not counter[key]:
                del counter[key]

    def choose(
        self,
        ready: deque[Lane],
        held: Iterable[Lane],
        free: int,
        *,
        now: float,
        slow_too: bool = True,
    ) -> list[Lane]:
        """The lanes that begin a POST now, in turn; a lane may stand there more than once.

        ready: lanes with something to send; it is reordered, so that the next call goes on where
        this one stopped. free: slots that may be filled. now: monotonic seconds.
        slow_too: whether slow lanes may begin anything.
        """
        turn = _Turn(self, held, now, slow_too)
        chosen: list[Lane] = []
        # The limits for one requester and one host hold only while others are ready: what the
        # first pass leaves free, the second one gives away.
        for strict in (True, False):
            line = deque(ready)
            slow_may = True
            while line and len(chosen) < free:
                if slow_may and not turn.slow_may_begin:
                    # Hundreds of lanes that nobody knows yet are not asked one by one, in vain.
                    slow_may = False
                    line = deque(lane for lane in line if not turn.is_slow(lane))
                    continue
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
        self, shares: Shares, held: Iterable[Contender], now: float, slow_too: bool
    ) -> None:
        self.shares = shares
        self.now = now
        self.slow_too = slow_too
        self.slow_in_use = sum(
            lane.in_flight for lane in held if lane.in_flight and lane.is_slow(now)
        )
        self.slow: dict[str, bool] = {}
        self.room: dict[str, int] = {}
        # No Counters: what they do for a missing key is Python, and this runs for each POST.
        self.taken: dict[str, int] = {}
        self.requesters: dict[str, int] = {}
        self.hosts: dict[str, int] = {}

    @property
    def slow_may_begin(self) -> bool:
        """Whether there is room for one more POST of a slow lane."""
        return self.slow_too and self.slow_in_use < self.shares.slow_together

    def is_slow(self, lane: Contender) -> bool:
        slow = self.slow.get(lane.id)
        if slow is None:
            slow = self.slow[lane.id] = lane.is_slow(self.now)
        return slow

    def allows(self, lane: Contender, strict: bool) -> bool:
        shares = self.shares
        # First what is cheap to ask and refuses hundreds of lanes: their host is the same.
        limit = shares.party if strict else shares.most
        if shares._hosts.get(lane.host, 0) + self.hosts.get(lane.host, 0) >= limit:
            return False
        requester = shares._requesters.get(lane.requester, 0)
        if requester + self.requesters.get(lane.requester, 0) >= limit:
            return False
        taken = self.taken.get(lane.id, 0)
        room = self.room.get(lane.id)
        if room is None:
            room = self.room[lane.id] = lane.may_begin()
        if taken >= room:
            return False
        in_use = lane.in_flight + taken
        if self.is_slow(lane):
            if in_use >= shares.slow_lane or not self.slow_may_begin:
                return False
        elif in_use >= shares.most:
            return False
        return True

    def took(self, lane: Contender) -> None:
        for counts, key in (
            (self.taken, lane.id),
            (self.requesters, lane.requester),
            (self.hosts, lane.host),
        ):
            counts[key] = counts.get(key, 0) + 1
        if self.is_slow(lane):
            self.slow_in_use += 1
