"""Who may begin the next POST: the shares of slots."""

from __future__ import annotations

import time
import uuid
from collections import Counter, deque

import pytest

from tests.engine.lane_factory import FAST, NOW, SLOW, UNKNOWN, due, held_lane
from webhooks.engine.lanes import HeldLane, Job
from webhooks.engine.shares import Shares

SLOTS = 32
ME = uuid.uuid4()


class Slots:
    """A worker's slots: lanes begin and end POSTs, as the drain makes them."""

    def __init__(self, *lanes: HeldLane, slots: int = SLOTS) -> None:
        self.shares = Shares(slots)
        self.slots = slots
        self.lanes = list(lanes)
        self.ready = deque(lanes)
        self.jobs: list[tuple[HeldLane, Job]] = []

    def add(self, lane: HeldLane) -> None:
        self.lanes.append(lane)
        self.ready.append(lane)

    def fill(self, free: int | None = None, *, slow_too: bool = True) -> list[HeldLane]:
        """Begin what may begin; the lanes that did, in turn."""
        chosen = self.shares.choose(
            self.ready,
            self.lanes,
            self.slots - len(self.jobs) if free is None else free,
            now=time.monotonic(),
            slow_too=slow_too,
        )
        for lane in chosen:
            self.shares.began(lane)
            self.jobs.append((lane, lane.begin(NOW, ME)))
        return chosen

    def end(self, lane: HeldLane, elapsed_ms: float = FAST) -> None:
        """The oldest POST of the lane has its answer."""
        place = next(i for i, (owner, _job) in enumerate(self.jobs) if owner is lane)
        _owner, job = self.jobs.pop(place)
        self.shares.ended(lane)
        lane.ended(job, elapsed_ms)

    def taken(self) -> list[int]:
        """The slots that each lane has."""
        counted = Counter(id(lane) for lane, _job in self.jobs)
        return [counted[id(lane)] for lane in self.lanes]


@pytest.mark.parametrize("latency", [UNKNOWN, SLOW])
def test_a_slow_lane_or_an_unknown_one_takes_an_eighth(latency: int | None) -> None:
    worker = Slots(held_lane(latency))
    worker.fill()
    assert worker.taken() == [SLOTS // 8]


def test_all_slow_lanes_together_take_a_half() -> None:
    worker = Slots(*(held_lane(SLOW) for _ in range(20)))
    worker.fill()
    assert sum(worker.taken()) == SLOTS // 2
    assert max(worker.taken()) == 1  # and they share it


def test_many_slow_lanes_are_not_all_asked_once_their_half_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = Slots(*(held_lane(UNKNOWN, waiting=1) for _ in range(300)), held_lane(FAST))
    asked: list[str] = []
    plain = HeldLane.may_begin

    def may_begin(lane: HeldLane) -> int:
        asked.append(lane.id)
        return plain(lane)

    monkeypatch.setattr(HeldLane, "may_begin", may_begin)
    worker.fill()
    assert sum(worker.taken()) == SLOTS
    assert worker.taken()[-1] == SLOTS // 2  # whoever stands behind them all is reached
    assert len(asked) <= SLOTS


def test_slow_lanes_leave_the_other_half_to_a_fast_one() -> None:
    worker = Slots(*(held_lane(SLOW) for _ in range(20)))
    worker.fill()
    fast = held_lane(FAST)
    worker.add(fast)
    worker.fill()
    assert worker.taken()[-1] == SLOTS // 2


def test_a_fast_lane_may_fill_what_is_free_but_an_eighth() -> None:
    worker = Slots(held_lane(FAST))
    worker.fill()
    assert worker.taken() == [SLOTS - SLOTS // 8]


def test_a_fast_lane_that_begins_to_hang_is_slow_after_a_second() -> None:
    lane = held_lane(FAST)
    worker = Slots(lane)
    worker.fill(4)
    assert not lane.is_slow(time.monotonic())
    assert lane.is_slow(time.monotonic() + 1.1)
    # It hangs: nothing more is begun for it, whatever is free.
    for started in lane.speed._starts:
        lane.speed._starts[started] -= 1.1
    assert worker.fill() == []


def test_a_lane_is_known_after_five_answers_and_follows_the_last_ones() -> None:
    lane = held_lane(UNKNOWN)
    worker = Slots(lane)
    for answers in range(5):
        assert lane.is_slow(time.monotonic()), answers
        worker.fill(1)
        worker.end(lane, 40)
    assert not lane.is_slow(time.monotonic())
    assert lane.row.latency_ms == 40
    for _ in range(3):  # three of the last twenty or fewer are more than a tenth
        worker.fill(1)
        worker.end(lane, 2000)
    assert lane.is_slow(time.monotonic())


def test_a_lane_with_one_event_at_a_time_is_known_after_five_holders() -> None:
    latency: int | None = UNKNOWN
    for holders in range(5):
        lane = held_lane(latency, waiting=1)
        assert lane.is_slow(time.monotonic()), holders
        worker = Slots(lane)
        worker.fill()
        worker.end(lane, 40)
        latency = lane.row.latency_ms
    assert not held_lane(latency).is_slow(time.monotonic())


def test_one_slow_answer_does_not_make_a_lane_with_few_events_slow_but_several_do() -> None:
    latency: int | None = 40
    found = []
    for _ in range(4):
        lane = held_lane(latency, waiting=1)
        worker = Slots(lane)
        worker.fill()
        worker.end(lane, 3000)
        latency = lane.row.latency_ms
        found.append(held_lane(latency).is_slow(time.monotonic()))
    assert found == [False, True, True, True]


def test_one_requester_takes_a_quarter_while_others_want_the_rest() -> None:
    greedy = [held_lane(FAST, requester="app:greedy") for _ in range(12)]
    others = [held_lane(FAST) for _ in range(3)]
    worker = Slots(*greedy, *others)
    worker.fill()
    assert sum(worker.taken()[:12]) == SLOTS // 4
    assert worker.taken()[12:] == [SLOTS // 4] * 3


def test_one_host_takes_a_quarter_while_others_want_the_rest() -> None:
    crowd = [held_lane(FAST, host="crowded.example") for _ in range(12)]
    others = [held_lane(FAST) for _ in range(3)]
    worker = Slots(*crowd, *others)
    worker.fill()
    assert sum(worker.taken()[:12]) == SLOTS // 4
    assert worker.taken()[12:] == [SLOTS // 4] * 3


def test_what_no_other_requester_wants_is_given_away() -> None:
    greedy = [held_lane(FAST, requester="app:greedy") for _ in range(12)]
    worker = Slots(*greedy, held_lane(FAST, waiting=2))
    worker.fill()
    assert worker.taken()[-1] == 2
    assert sum(worker.taken()[:-1]) == SLOTS - SLOTS // 8


@pytest.mark.parametrize("party", [{"host": "crowded.example"}, {"requester": "app:greedy"}])
def test_many_fast_lanes_of_one_party_leave_an_eighth_free(party: dict[str, str]) -> None:
    """They may all begin to hang at the same moment."""
    worker = Slots(*(held_lane(FAST, **party) for _ in range(40)))
    worker.fill()
    assert sum(worker.taken()) == SLOTS - SLOTS // 8
    newcomer = held_lane(FAST)
    worker.add(newcomer)
    assert worker.fill() == [newcomer] * (SLOTS // 8)


def test_who_has_more_than_a_quarter_waits_for_a_newcomer() -> None:
    greedy = held_lane(FAST, requester="app:greedy")
    worker = Slots(greedy)
    worker.fill()
    newcomer = held_lane(FAST)
    worker.add(newcomer)
    worker.fill()
    assert worker.taken() == [28, 4]
    for _ in range(4):
        worker.end(greedy)
        assert worker.fill() == [newcomer]
    assert worker.taken() == [24, SLOTS // 4]


def test_lanes_take_turns_when_one_slot_at_a_time_is_free() -> None:
    worker = Slots(*(held_lane(FAST) for _ in range(5)))
    turns = [worker.fill(1)[0] for _ in range(20)]
    assert Counter(map(id, turns)) == {id(lane): 4 for lane in worker.lanes}


def test_lanes_that_may_not_begin_do_not_upset_the_turns_of_others() -> None:
    hanging = [held_lane(SLOW) for _ in range(16)]
    worker = Slots(*hanging, slots=128)
    while worker.fill(128):
        pass  # every slow lane has its share in flight, and more to send
    blocked = sum(worker.taken())
    first, second = held_lane(FAST), held_lane(FAST)
    worker.add(first)
    worker.add(second)
    turns = []
    for _ in range(40):
        [lane] = worker.fill(1)
        turns.append(lane)
        worker.end(lane)
    assert sum(worker.taken()) == blocked
    assert turns.count(first) == turns.count(second) == 20


def test_a_lane_that_waited_for_its_share_comes_first_when_there_is_room() -> None:
    hanging = [held_lane(SLOW, waiting=10) for _ in range(17)]
    worker = Slots(*hanging)
    worker.fill()
    [waiting] = [lane for lane in hanging if not lane.in_flight]
    worker.end(next(lane for lane in hanging if lane.in_flight), SLOW)
    assert worker.fill() == [waiting]


def test_a_cap_holds_and_an_ordered_lane_has_one_in_flight() -> None:
    worker = Slots(held_lane(FAST, max_in_flight=3), held_lane(FAST, ordered=True))
    worker.fill()
    assert worker.taken() == [3, 1]


def test_no_more_begin_than_are_waiting() -> None:
    worker = Slots(held_lane(FAST, waiting=3), held_lane(FAST, waiting=1))
    worker.fill()
    assert worker.taken() == [3, 1]


def test_after_its_slice_a_worker_begins_nothing_slow() -> None:
    worker = Slots(held_lane(SLOW), held_lane(UNKNOWN), held_lane(FAST))
    worker.fill(slow_too=False)
    assert worker.taken()[:2] == [0, 0]
    assert worker.taken()[2] > 0


@pytest.mark.parametrize("slots", [1, 2, 3, 7, 8, 9])
def test_few_slots_still_serve_slow_and_fast_lanes(slots: int) -> None:
    for latency in (SLOW, FAST):
        worker = Slots(held_lane(latency), slots=slots)
        assert len(worker.fill()) >= 1
        assert sum(worker.taken()) <= slots


def test_deliveries_leave_a_lane_in_the_order_in_which_they_are_due() -> None:
    lane = held_lane(FAST, waiting=0)
    rows = [due(lane.id) for _ in range(10)]
    lane.fill(rows, 10)
    assert [lane.begin(NOW, ME).delivery for _ in range(10)] == rows
