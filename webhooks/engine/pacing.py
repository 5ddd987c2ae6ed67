"""The pacing of one lane: how much its endpoint is sent, judged by its answers.

* **Breaker**: after failures in a row, or where most attempts fail, the lane is *parked*: it rests,
  and then one probe at a time goes out, until one succeeds. Nothing is given up meanwhile.
* **Ramp**: after that, and after an endpoint said that it gets too much, so many POSTs a second
  begin, twice as many after each second without a failure.
* **Window**: so many may be in flight, half as many after a timeout, 429 or 503.
* **Rate**: what the client asked for.

It is decided in the memory of the lane's holder and kept in the lane's row from holder to holder.
No queries, no sockets, no clock: the time is always passed in, so that a simulator may drive it.
What is known of an endpoint's speed, which the shares of a worker go by, is in :class:`Speed`.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left, insort
from collections import deque
from datetime import datetime, timedelta
from typing import Protocol

from webhooks.engine.outcome import RATE_LIMITED, Outcome

#: The breaker opens after so many failures in a row,
FAILURES_IN_A_ROW = 5
#: or when such a share of the recent attempts failed, if there were enough of them.
FAILED_SHARE, ENOUGH_RECENT = 0.7, 10
#: After so long, what was counted counts half.
RECENT = timedelta(minutes=5)
#: Seconds before the first probe; each that fails doubles them, up to the longest wait.
FIRST_PROBE, LONGEST_WAIT = 30.0, 3600.0
#: Each wait is made up to so much shorter or longer: what broke together is not probed together.
JITTER = 0.2
#: POSTs a second at the beginning of a ramp, and at its end.
RAMP_BEGIN, RAMP_END = 4, 256
SECOND = timedelta(seconds=1)

PARKED, RAMP, RATE = "parked", "ramp", "rate_limit"
#: While a lane rests for one of these reasons, its deliveries do not grow older.
STOPS_CLOCK = frozenset({PARKED, RATE})

#: A lane is slow while nine of ten answers do not come within a second.
SLOW_MS = 1000.0
#: The speed of a lane is known after so many answers, and follows the last ones.
KNOWN, REMEMBERED = 5, 20
#: What a lane is taken for before its first answer: KNOWN quick ones make it a fast lane.
UNKNOWN_MS = 2500.0


class PacedRow(Protocol):
    """The columns of a lane's row that are read and written here."""

    paused_until: datetime | None
    pause_reason: str
    failures: int
    latency_ms: int | None
    last_success_at: datetime | None
    last_failure_at: datetime | None
    failing_since: datetime | None
    parked_since: datetime | None
    probes: int
    recent: int
    recent_failed: int
    recent_since: datetime | None
    window: int | None
    ramp: int | None
    clock_stopped_ms: int


class Post(Protocol):
    """What is remembered of a POST until its answer comes.

    in_flight: how many its lane had in flight as it began, itself included.
    """

    @property
    def started_at(self) -> datetime: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def probe(self) -> bool: ...


class Pacing:
    """The pacing of one lane, while one holder has it.

    changed: the row is to be written with the next flush; what is only counted waits for the
    lane's release.
    """

    #: POSTs that may still begin in this holding.
    _left: float

    def __init__(self, row: PacedRow, now: datetime) -> None:
        """row: as it was claimed; it is changed in place. now: database time."""
        self.row = row
        self.changed = False
        #: POSTs that began before the last cut of each kind say nothing new.
        self._cuts: dict[str, datetime] = {}
        self._accepted = [0, 0]
        self._second = now
        self._end_rest(now)
        self.limit(None, math.inf, 0, now)

    def limit(self, rate: int | None, cap: float, slots: int, now: datetime) -> None:
        """Take over the client's limits and the worker's.

        rate: POSTs a minute; None: any. cap: in flight. slots: that the worker has.
        """
        self._rate = rate
        self._cap = cap
        self._slots = slots
        self._window = float(self.row.window or 0)
        self._open(now)

    @property
    def is_parked(self) -> bool:
        return self.row.parked_since is not None

    @property
    def is_spent(self) -> bool:
        """Whether the lane is to go back: what it may begin now has begun."""
        return self._left <= 0

    def room(self, in_flight: int) -> int:
        """How many POSTs may begin now, with so many in flight.

        A parked lane has a probe out, or none; each holder sends one, and lets the lane go.
        """
        if self.is_parked:
            return 1 if not in_flight and self._left > 0 else 0
        most = self._cap if self.row.window is None else min(self._cap, self.row.window)
        return max(0, int(min(self._left, most - in_flight, 1_000_000)))

    def begin(self, now: datetime) -> bool:
        """Count a POST that begins; whether it is a probe."""
        if self.is_parked:
            self._left = 0
            return True
        self._left -= 1
        self._begun += 1
        if self._per_second is not None:
            # What has begun is rested for, also when the lane goes back before all of it has.
            spent = timedelta(seconds=self._begun / self._per_second)
            self._rest(self._opened_at + spent, self._reason, now)
        return False

    def rest(self, until: datetime, reason: str, now: datetime) -> None:
        """Begin nothing before ``until``, whoever holds the lane by then; a longer rest stays."""
        self._rest(until, reason, now)
        self.changed = True

    def _rest(self, until: datetime, reason: str, now: datetime) -> None:
        row = self.row
        if row.paused_until is not None and until < row.paused_until:
            return
        if reason in STOPS_CLOCK:
            since = now
            if row.paused_until is not None and row.pause_reason in STOPS_CLOCK:
                since = max(now, row.paused_until)  # up to then it has been counted
            row.clock_stopped_ms += max(0, _milliseconds(until - since))
        row.paused_until = until
        row.pause_reason = reason

    def succeeded(self, post: Post, now: datetime) -> None:
        """An answer that is a success."""
        row = self.row
        row.last_success_at = now
        if self.is_parked and not post.probe:
            return  # it began before the breaker opened: the probe decides
        self._accept(now)
        if self.is_parked:
            row.parked_since = None
            row.probes = row.recent = row.recent_failed = 0
            row.recent_since = None
            row.ramp = RAMP_BEGIN
            self.changed = True
        self._count(now)
        if row.failures:
            row.failures = 0
            row.failing_since = None
            self.changed = True
        self._widen()

    def failed(self, post: Post, outcome: Outcome, now: datetime, rng: random.Random) -> None:
        """An answer, or none, that is no success."""
        row = self.row
        row.last_failure_at = now
        self.changed = True
        if outcome.overloaded and self._is_news("window", post, now):
            self._narrow(post)
        refused = outcome.code == RATE_LIMITED
        if refused and not self._is_news("refused", post, now):
            return  # all that began before the first refusal was heard counts as one failure
        row.failures += 1
        row.failing_since = row.failing_since or now
        if self.is_parked:
            if post.probe:
                row.probes += 1
                self._park(outcome, now, rng)
            return
        self._count(now, failed=1)
        if row.failures >= FAILURES_IN_A_ROW or self._fails_mostly():
            row.parked_since = now
            row.probes = 0
            row.ramp = None
            self._park(outcome, now, rng)
        elif (row.ramp is not None or refused) and self._is_news("ramp", post, now):
            self._slow_down(now)

    # The breaker

    def _park(self, outcome: Outcome, now: datetime, rng: random.Random) -> None:
        wait = min(FIRST_PROBE * 2.0 ** min(self.row.probes, 16), LONGEST_WAIT)
        wait *= rng.uniform(1 - JITTER, 1 + JITTER)
        until = now + timedelta(seconds=max(wait, outcome.retry_after or 0.0))
        self._left = 0
        self.rest(max(until, self.row.paused_until or until), PARKED, now)

    def _count(self, now: datetime, failed: int = 0) -> None:
        """Count an attempt among the recent ones."""
        row = self.row
        if row.recent_since is None or now - row.recent_since > 2 * RECENT:
            row.recent, row.recent_failed, row.recent_since = 0, 0, now
        elif now - row.recent_since > RECENT:
            row.recent //= 2
            row.recent_failed //= 2
            row.recent_since = now
        row.recent += 1
        row.recent_failed += failed

    def _fails_mostly(self) -> bool:
        row = self.row
        return row.recent >= ENOUGH_RECENT and row.recent_failed >= FAILED_SHARE * row.recent

    # The window

    def _narrow(self, post: Post) -> None:
        """Half of what was in flight as this POST began was not too much, perhaps."""
        self._window = float(max(1, post.in_flight // 2))
        if self.row.window is not None:
            self._window = min(self._window, float(max(1, self.row.window // 2)))
        self.row.window = int(self._window)

    def _widen(self) -> None:
        if self.row.window is None:
            return
        self._window += 1 / self._window
        wide = self._window >= min(self._cap, self._slots or math.inf)
        window = None if wide else int(self._window)
        if window != self.row.window:
            self.row.window = window
            self.changed = True

    # The ramp, and the client's rate

    def _open(self, now: datetime) -> None:
        """A new share of the rate: a second's worth, or one POST where that takes longer."""
        rates = []
        if self._rate is not None:
            rates.append((self._rate / 60, RATE))
        if self.row.ramp is not None:
            rates.append((float(self.row.ramp), RAMP))
        rate, self._reason = min(rates, default=(math.inf, ""))
        self._left = rate if math.isinf(rate) else max(1, int(rate))
        self._per_second = None if math.isinf(rate) else rate
        self._begun = 0
        self._opened_at = now

    def _end_rest(self, now: datetime) -> None:
        """A rest is over: twice as many POSTs a second, unless one failed since it began."""
        row = self.row
        if row.ramp is None or row.paused_until is None or row.pause_reason not in (RAMP, RATE):
            return
        if row.paused_until > now:
            return
        began = row.paused_until - SECOND
        row.paused_until, row.pause_reason = None, ""
        if row.last_failure_at is None or row.last_failure_at < began:
            row.ramp = row.ramp * 2 if row.ramp * 2 <= RAMP_END else None
            self.changed = True

    def _slow_down(self, now: datetime) -> None:
        """Half the ramp, or one that begins at half of what was accepted within a second."""
        row = self.row
        if row.ramp is None:
            row.ramp = max(RAMP_BEGIN, self._accepted_lately(now) // 2)
        else:
            row.ramp = max(1, row.ramp // 2)
        self._left = 0
        self.rest(now + SECOND, RAMP, now)

    def _accept(self, now: datetime) -> None:
        if now - self._second >= SECOND:
            self._accepted = [0, self._accepted[0] if now - self._second < 2 * SECOND else 0]
            self._second = now
        self._accepted[0] += 1

    def _accepted_lately(self, now: datetime) -> int:
        """Successes in a second, the last or the one before it."""
        return 0 if now - self._second >= 2 * SECOND else max(self._accepted)

    def _is_news(self, kind: str, post: Post, now: datetime) -> bool:
        """Whether a POST began after the last cut of this kind, which is then made anew."""
        cut = self._cuts.get(kind)
        if cut is not None and post.started_at <= cut:
            return False
        self._cuts[kind] = now
        return True


class Speed:
    """How fast an endpoint answers. Moments are monotonic seconds."""

    def __init__(self, row: PacedRow) -> None:
        self._row = row
        self._starts: dict[str, float] = {}
        self._latencies: deque[float] = deque()
        #: The same in the order of their size.
        self._ranked: list[float] = []

    def began(self, key: str, now: float) -> None:
        self._starts[key] = now

    def ended(self, key: str, elapsed_ms: float) -> None:
        row = self._row
        self._starts.pop(key, None)
        ranked = self._ranked
        if len(ranked) == REMEMBERED:
            del ranked[bisect_left(ranked, self._latencies.popleft())]
        self._latencies.append(elapsed_ms)
        insort(ranked, elapsed_ms)
        if len(ranked) >= KNOWN:
            row.latency_ms = round(ranked[(9 * len(ranked) + 9) // 10 - 1])
        else:
            # A lane with few events is let go after each: what is known must grow from holder to
            # holder, or it would count as slow for ever.
            known = UNKNOWN_MS if row.latency_ms is None else row.latency_ms
            row.latency_ms = round(known + (elapsed_ms - known) / KNOWN)

    def is_slow(self, now: float) -> bool:
        """Whether it is slow, or not known to be fast."""
        if self._starts and now - next(iter(self._starts.values())) > SLOW_MS / 1000:
            return True
        # The 90th percentile of the last answers, which the row carries from holder to holder.
        known = self._row.latency_ms
        return known is None or known > SLOW_MS

    def inherit(self, former: Speed) -> None:
        """Take over what is in flight from an earlier holding of the same lane."""
        self._starts = former._starts


def _milliseconds(span: timedelta) -> int:
    return round(span.total_seconds() * 1000)
