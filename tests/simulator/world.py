"""Lanes, endpoints and one worker under a virtual clock.

What decides is the engine's own: :class:`Shares`, :class:`Pacing`, :class:`Speed`, ``judge`` and
``decide``. What is imitated is what surrounds them: rows, claims, buffers, and time.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from webhooks.conf import DEFAULTS
from webhooks.engine.outcome import Verdict, judge
from webhooks.engine.pacing import Pacing, Speed
from webhooks.engine.retries import decide
from webhooks.engine.shares import Shares
from webhooks.models.delivery import State
from webhooks.transports.base import TIMEOUT, Response

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
#: Answers are taken in so often, and the worker looks for ready lanes so often, in seconds.
TICK, POLL = 0.01, 0.15
#: A lane goes back after so many deliveries or seconds when others are ready.
TURN_DELIVERIES, TURN_SECONDS = 500, 5.0

#: (status, seconds) of an answer; None as a status: no answer within the time for a POST.
Answer = tuple[int | None, float]
#: When a POST comes, in seconds: how is it answered?
Endpoint = Callable[[float], Answer]


def at(seconds: float) -> datetime:
    return BEGINNING + timedelta(seconds=seconds)


def steady(latency: float = 0.05) -> Endpoint:
    return lambda now: (200, latency)


def hanging() -> Endpoint:
    return lambda now: (None, float(DEFAULTS["TIMEOUT"]))


def broken(start: float, end: float, latency: float = 0.05) -> Endpoint:
    """It answers 500 from ``start`` to ``end``."""
    return lambda now: (500 if start <= now < end else 200, latency)


def limited(rate: int, latency: float = 0.02) -> Endpoint:
    """It takes ``rate`` POSTs in each second of its clock, and answers 429 to the others."""
    taken: Counter[int] = Counter()

    def answer(now: float) -> Answer:
        taken[int(now)] += 1
        return (200 if taken[int(now)] <= rate else 429, latency)

    return answer


@dataclass
class Row:
    """The columns that pacing reads and writes."""

    paused_until: datetime | None = None
    pause_reason: str = ""
    failures: int = 0
    latency_ms: int | None = 50
    last_success_at: datetime | None = None
    last_failure_at: datetime | None = None
    failing_since: datetime | None = None
    parked_since: datetime | None = None
    probes: int = 0
    recent: int = 0
    recent_failed: int = 0
    recent_since: datetime | None = None
    window: int | None = None
    ramp: int | None = None
    clock_stopped_ms: int = 0


@dataclass(order=True)
class Item:
    """A delivery, in the order in which it is due."""

    due: float
    number: int
    first_due: float = field(compare=False)
    attempts: int = field(compare=False, default=0)
    clock_stopped_ms: int = field(compare=False, default=0)


@dataclass(frozen=True)
class Start:
    """One POST: when and of which lane, what became of it, and for how long it had been due."""

    at: float
    lane: str
    status: int | None
    probe: bool
    waited: float
    answered: float
    started_at: datetime
    in_flight: int


class Lane:
    """A lane and, while it is held, what its holder knows."""

    def __init__(
        self, name: str, endpoint: Endpoint, *, host: str = "", requester: str = ""
    ) -> None:
        self.id = name
        self.host = host or name
        self.requester = requester or name
        self.endpoint = endpoint
        self.row = Row()
        self.pending: list[Item] = []
        self.claim_at: float | None = None
        self.held = False
        self.leaving = False
        self.in_flight = 0
        self.buffer: deque[Item] = deque()
        self.taken = 0
        self.held_since = 0.0
        self.pacing: Pacing
        self.speed: Speed

    def may_begin(self) -> int:
        return min(len(self.buffer), self.pacing.room(self.in_flight))

    def is_slow(self, now: float) -> bool:
        return self.speed.is_slow(now)

    def leave(self) -> None:
        self.leaving = True
        for item in self.buffer:
            heapq.heappush(self.pending, item)
        self.buffer.clear()


class World:
    """One worker and its lanes."""

    def __init__(self, *, slots: int = 128, seed: int = 1) -> None:
        self.now = 0.0
        self.slots = slots
        self.rng = random.Random(seed)
        self.shares = Shares(slots)
        self.lanes: dict[str, Lane] = {}
        self.held: dict[str, Lane] = {}
        self.ready: deque[Lane] = deque()
        self.in_flight = 0
        self.starts: list[Start] = []
        self.ended: Counter[State] = Counter()
        self.emitted = 0
        #: What is pending, over time: (seconds, deliveries).
        self.backlog: list[tuple[float, int]] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._claims: list[tuple[float, int, Lane]] = []
        self._numbers = itertools.count()
        self._next_poll = 0.0

    def add(self, lane: Lane) -> Lane:
        self.lanes[lane.id] = lane
        return lane

    # What happens

    def emit(self, lane: Lane, count: int = 1) -> None:
        for _ in range(count):
            stopped = lane.row.clock_stopped_ms
            self._expect(lane, Item(self.now, next(self._numbers), self.now, 0, stopped))
        self.emitted += count

    def every(self, lane: Lane, interval: float, until: float) -> None:
        """Events for a lane at random moments, one in ``interval`` seconds on the average."""

        def next_one() -> None:
            if self.now < until:
                self.emit(lane)
                self.later(self.rng.expovariate(1 / interval), next_one)

        self.later(self.rng.uniform(0, interval), next_one)

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), action))

    def run(self, until: float) -> None:
        """Let time pass. Where nothing is to be done, it passes at once."""
        while self.now < until:
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()
            if self.now >= self._next_poll:
                self._poll()
            self._begin()
            self._go_on(until)

    def is_pending(self) -> int:
        return self.emitted - sum(self.ended.values())

    # The worker

    def _go_on(self, until: float) -> None:
        moments = [until]
        if self._events:
            moments.append(self._events[0][0])
        if self.held:
            moments.append(self._next_poll)
        if self._claims:
            moments.append(max(self._claims[0][0], self._next_poll))
        self.now = max(self.now + TICK, min(moments))

    def _poll(self) -> None:
        """Write what was answered: give lanes back, and take those that are ready."""
        self._next_poll = self.now + POLL
        for lane in list(self.held.values()):
            self._read(lane)
            turn = lane.taken >= TURN_DELIVERIES or self.now - lane.held_since > TURN_SECONDS
            if turn and self._claims and self._claims[0][0] <= self.now:
                lane.leave()
            if not lane.in_flight and (lane.leaving or not lane.buffer):
                self._let_go(lane)
        while self._claims and self._claims[0][0] <= self.now and len(self.held) < 1024:
            moment, _number, lane = heapq.heappop(self._claims)
            if not lane.held and lane.claim_at == moment:
                self._claim(lane)
        self.ready = deque(lane for lane in self.ready if lane.buffer)
        if not self.backlog or self.now - self.backlog[-1][0] >= 1.0:
            self.backlog.append((self.now, self.is_pending()))

    def _claim(self, lane: Lane) -> None:
        lane.held, lane.leaving, lane.taken, lane.held_since = True, False, 0, self.now
        lane.pacing = Pacing(lane.row, at(self.now))
        lane.pacing.limit(None, float("inf"), self.slots, at(self.now))
        lane.speed = Speed(lane.row)
        self.held[lane.id] = lane
        self._read(lane)

    def _read(self, lane: Lane) -> None:
        had = bool(lane.buffer)
        while not lane.leaving and lane.pending and lane.pending[0].due <= self.now:
            if len(lane.buffer) >= self.slots:
                break
            lane.buffer.append(heapq.heappop(lane.pending))
        if lane.buffer and not had and lane not in self.ready:
            self.ready.append(lane)

    def _let_go(self, lane: Lane) -> None:
        lane.held = False
        del self.held[lane.id]
        lane.claim_at = None
        self._time(lane)

    def _expect(self, lane: Lane, item: Item) -> None:
        heapq.heappush(lane.pending, item)
        if not lane.held:
            self._time(lane)

    def _time(self, lane: Lane) -> None:
        """When a lane that nobody holds may be claimed."""
        if not lane.pending:
            return
        moment = lane.pending[0].due
        if lane.row.paused_until is not None:
            moment = max(moment, (lane.row.paused_until - BEGINNING).total_seconds())
        if lane.claim_at is None or moment < lane.claim_at:
            lane.claim_at = moment
            heapq.heappush(self._claims, (moment, next(self._numbers), lane))

    def _begin(self) -> None:
        free = self.slots - self.in_flight
        if free <= 0 or not self.ready:
            return
        for lane in self.shares.choose(self.ready, self.held.values(), free, now=self.now):
            if lane.buffer:
                self._post(lane)

    def _post(self, lane: Lane) -> None:
        probe = lane.pacing.begin(at(self.now))
        item = lane.buffer.popleft()
        lane.in_flight += 1
        lane.taken += 1
        self.in_flight += 1
        self.shares.began(lane)
        lane.speed.began(str(item.number), self.now)
        status, took = lane.endpoint(self.now)
        waited = self.now - item.due
        start = Start(
            self.now, lane.id, status, probe, waited, self.now + took, at(self.now), lane.in_flight
        )
        self.starts.append(start)
        if lane.pacing.is_spent:
            lane.leave()
        self.later(took, lambda: self._answered(lane, item, start))

    def _answered(self, lane: Lane, item: Item, start: Start) -> None:
        now = at(self.now)
        took = (self.now - start.at) * 1000
        lane.in_flight -= 1
        self.in_flight -= 1
        self.shares.ended(lane)
        lane.speed.ended(str(item.number), took)
        error = "" if start.status else TIMEOUT
        outcome = judge(Response(start.status, error, elapsed_ms=took), now)
        stood_still = lane.row.clock_stopped_ms - item.clock_stopped_ms
        decision = decide(
            outcome,
            attempts=item.attempts + 1,
            age=self.now - item.first_due - stood_still / 1000,
            now=now,
            schedule=DEFAULTS["RETRY_SCHEDULE"],
            max_age=DEFAULTS["MAX_AGE"],
            rng=self.rng,
        )
        if outcome.verdict is Verdict.DELIVERED:
            lane.pacing.succeeded(start, now)
        else:
            lane.pacing.failed(start, outcome, now, self.rng)
            if lane.pacing.is_spent:
                lane.leave()
        if start.probe and outcome.verdict is not Verdict.DELIVERED:
            heapq.heappush(lane.pending, item)
        elif decision.due_at is None:
            self.ended[decision.state] += 1
        else:
            item.attempts += 1
            item.due = (decision.due_at - BEGINNING).total_seconds()
            heapq.heappush(lane.pending, item)
