"""How much one endpoint is sent: the window, the ramp, the client's rate, and the clock of ages."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest

from tests.engine.lane_factory import NOW
from tests.simulator.world import Row
from webhooks.engine.outcome import Outcome, judge
from webhooks.engine.pacing import KNOWN, RAMP_BEGIN, RAMP_END, REMEMBERED, SECOND, Pacing, Speed
from webhooks.transports.base import Response

RNG = random.Random(1)


@dataclass(frozen=True)
class Post:
    started_at: datetime
    in_flight: int = 1
    probe: bool = False


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def outcome(status: int | None, retry_after: str = "") -> Outcome:
    error = "" if status else "timeout"
    return judge(Response(status, error, retry_after=retry_after), NOW)


def paced(row: Row, *, rate: int | None = None, cap: float = math.inf, at: float = 0) -> Pacing:
    """A holder of the lane; ``at``: seconds after NOW."""
    pacing = Pacing(row, after(at))
    pacing.limit(rate, cap, 128, after(at))
    return pacing


def begin_all(pacing: Pacing, at: float) -> int:
    """Begin what may begin, one after the other; how many that were."""
    begun = 0
    while begun < 10_000 and pacing.room(begun):
        pacing.begin(after(at))
        begun += 1
    return begun


# The window


@pytest.mark.parametrize("status", [None, 429, 503])
def test_a_sign_of_overload_halves_what_was_in_flight(status: int | None) -> None:
    row = Row()
    pacing = paced(row)
    pacing.failed(Post(after(0), in_flight=40), outcome(status), after(1), RNG)
    assert row.window == 20
    assert pacing.changed


def test_another_failure_leaves_the_window_alone() -> None:
    row = Row()
    paced(row).failed(Post(after(0), in_flight=40), outcome(500), after(1), RNG)
    assert row.window is None


def test_what_began_before_the_last_halving_halves_nothing() -> None:
    row = Row()
    pacing = paced(row)
    for at in (1, 1.1, 1.2):
        pacing.failed(Post(after(0), in_flight=40), outcome(503), after(at), RNG)
    assert row.window == 20
    pacing.failed(Post(after(2), in_flight=20), outcome(503), after(3), RNG)
    assert row.window == 10


def test_a_window_is_never_less_than_one_and_a_cap_stays_a_cap() -> None:
    row = Row(window=1)
    pacing = paced(row)
    pacing.failed(Post(after(0), in_flight=1), outcome(503), after(1), RNG)
    assert row.window == 1
    assert paced(Row(window=30), cap=4).room(1) == 3
    assert paced(Row(window=3), cap=8).room(1) == 2


def test_each_success_widens_it_by_a_part_until_nothing_is_limited() -> None:
    row = Row(window=4)
    pacing = paced(row, cap=6)
    widths = []
    for _ in range(20):
        pacing.succeeded(Post(after(0)), after(1))
        widths.append(row.window)
    assert widths[:6] == [4, 4, 4, 4, 5, 5]  # about one for each round of four
    assert widths[-1] is None  # the client's cap is reached
    assert sorted(widths, key=lambda width: width or 99) == widths


# The ramp


def test_a_ramp_doubles_each_second_without_a_failure_and_ends() -> None:
    row = Row(ramp=RAMP_BEGIN)
    begun, at = [], 0.0
    while row.ramp is not None:
        pacing = paced(row, at=at)
        if row.ramp is None:
            break
        begun.append(begin_all(pacing, at))
        assert pacing.is_spent
        assert row.paused_until == after(at) + SECOND
        for _ in range(begun[-1]):
            pacing.succeeded(Post(after(at)), after(at + 0.1))
        at += 1
    assert begun == [4, 8, 16, 32, 64, 128, 256]
    assert begun[-1] == RAMP_END


def test_a_failure_halves_the_ramp_and_no_second_is_skipped() -> None:
    row = Row(ramp=32)
    pacing = paced(row)
    begin_all(pacing, 0)
    for _ in range(4):  # of one second: one halving
        pacing.failed(Post(after(0), in_flight=9), outcome(500), after(0.3), RNG)
    assert row.ramp == 16
    assert row.paused_until == after(1.3)
    again = paced(row, at=1.3)
    assert row.ramp == 16  # not doubled: that second had a failure
    again.succeeded(Post(after(1.3)), after(1.4))
    begin_all(again, 1.3)
    paced(row, at=2.3)
    assert row.ramp == 32


def test_a_lane_that_goes_back_early_rests_for_what_it_began() -> None:
    row = Row(ramp=8)
    pacing = paced(row)
    pacing.begin(after(0))
    pacing.begin(after(0))
    assert row.paused_until == after(0.25)
    assert not pacing.changed  # its release writes it


def test_a_holder_that_comes_too_early_begins_at_the_same_ramp() -> None:
    row = Row(ramp=8, paused_until=after(1), pause_reason="ramp")
    paced(row, at=0.5)
    assert (row.ramp, row.paused_until) == (8, after(1))


def test_a_refusal_with_429_begins_a_ramp_at_half_of_what_was_accepted() -> None:
    row = Row()
    pacing = paced(row)
    for _ in range(50):
        pacing.succeeded(Post(after(0), in_flight=60), after(0.1))
    for _ in range(10):
        pacing.failed(Post(after(0), in_flight=60), outcome(429), after(0.2), RNG)
    assert row.ramp == 25
    assert row.paused_until == after(1.2)
    assert pacing.is_spent


# The rate


def test_the_clients_rate_is_an_upper_bound_of_the_ramp() -> None:
    assert begin_all(paced(Row(ramp=64), rate=600), 0) == 10
    assert begin_all(paced(Row(ramp=4), rate=600), 0) == 4


def test_a_rate_below_one_a_second_sends_one_by_one() -> None:
    row = Row()
    assert begin_all(paced(row, rate=6), 0) == 1
    assert (row.paused_until, row.pause_reason) == (after(10), "rate_limit")


def test_a_rate_holds_for_lanes_that_go_back_after_each_event() -> None:
    """Otherwise each new holder would have a second's worth again."""
    row = Row()
    at, begun = 0.0, 0
    while at < 10:
        pacing = paced(row, rate=600, at=at)
        pacing.begin(after(at))
        begun += 1
        assert row.paused_until is not None
        at = (row.paused_until - NOW).total_seconds()
    assert begun == pytest.approx(100, abs=1)


# The clock


def test_the_clock_stands_still_for_what_a_rest_adds() -> None:
    row = Row()
    pacing = paced(row)
    pacing.rest(after(10), "parked", after(0))
    assert row.clock_stopped_ms == 10_000
    pacing.rest(after(15), "parked", after(2))  # 10 s of it are counted
    assert row.clock_stopped_ms == 15_000
    pacing.rest(after(12), "rate_limit", after(3))  # it rests for longer already
    assert (row.clock_stopped_ms, row.pause_reason) == (15_000, "parked")


@pytest.mark.parametrize("reason", ["retry_after", "ordered", "ramp", "secret_unreadable"])
def test_other_rests_do_not_stop_the_clock(reason: str) -> None:
    row = Row()
    pacing = paced(row)
    pacing.rest(after(10), reason, after(0))
    assert row.clock_stopped_ms == 0
    pacing.rest(after(15), "rate_limit", after(2))
    assert row.clock_stopped_ms == 13_000


def test_a_lane_is_known_by_the_90th_percentile_of_its_last_20_answers() -> None:
    rng = random.Random(7)
    row = Row()
    speed = Speed(row)
    latencies = [float(rng.choice((3, 40, 41, 900, rng.randrange(5000)))) for _ in range(200)]
    for count, latency in enumerate(latencies, 1):
        speed.ended("dlv_0", latency)
        if count >= KNOWN:
            last = sorted(latencies[:count][-REMEMBERED:])
            assert row.latency_ms == last[math.ceil(0.9 * len(last)) - 1]
