"""What happens to the lanes, and the figures that follow from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from tests.simulator.world import Endpoint, Lane, Start, World, broken, limited, steady
from webhooks.models.delivery import State

HOUR = 3600.0


@dataclass(frozen=True)
class Outage:
    """backlog: deliveries pending when the endpoints recovered. probes, peak, mean: a second, over
    all lanes, from a minute after the outage began. first_minute: starts of the lane with the most,
    by the second since its breaker closed. starts: of all lanes, by the second since the recovery.
    emptied: seconds from the recovery to an empty backlog; None: never."""

    backlog: int
    probes: int
    peak: int
    mean: float
    first_minute: list[int]
    starts: Counter[int]
    emptied: float | None
    dead: int
    world: World


def outage_of_all(lanes: int, *, hours: float, every: float, outage: float = HOUR) -> Outage:
    """All endpoints fail for an hour. every: seconds between two events of a lane."""
    began, ended = 600.0, 600.0 + outage
    world = World()
    for i in range(lanes):
        world.every(world.add(Lane(f"lane-{i}", broken(began, ended))), every, hours * HOUR)
    world.run(ended)
    backlog = world.is_pending()
    emptied: float | None = None
    while world.now < hours * HOUR:
        world.run(world.now + 5)
        # What a running service always has: the events of the last second.
        if world.is_pending() <= 2 + lanes / every:
            emptied = world.now - ended
            break
    probes = [s for s in world.starts if s.probe and began + 60 <= s.at < ended]
    by_second = Counter(int(start.at) for start in probes)
    return Outage(
        backlog,
        len(probes),
        max(by_second.values(), default=0),
        len(probes) / (outage - 60),
        _after_the_probe(world.starts, ended),
        Counter(int(start.at - ended) for start in world.starts if start.at >= ended),
        emptied,
        world.ended[State.DEAD] + world.ended[State.EXPIRED],
        world,
    )


def _after_the_probe(starts: Iterable[Start], recovery: float) -> list[int]:
    """Starts a second in the minute after the probe that closed the breaker: the lane with the
    most of them."""
    closed: dict[str, float] = {}
    counts: dict[str, list[int]] = {}
    for start in starts:
        if start.at < recovery:
            continue
        if start.probe and start.status == 200:
            closed.setdefault(start.lane, start.answered)
        elif start.lane in closed and start.at < closed[start.lane] + 60:
            counts.setdefault(start.lane, [0] * 60)[int(start.at - closed[start.lane])] += 1
    return max(counts.values(), key=sum, default=[0] * 60)


def recovery_of_one(backlog: int) -> tuple[list[int], float]:
    """One lane recovers with a backlog: starts in each second of the minute that follows its
    probe, and the seconds until the backlog is gone."""
    world = World()
    lane = world.add(Lane("one", broken(0, 20)))
    world.emit(lane, backlog)
    while world.is_pending():
        world.run(world.now + 1)
    probe = next(s for s in world.starts if s.probe and s.status == 200)
    return _after_the_probe(world.starts, 20.0), world.now - probe.answered


def beside(
    endpoint: Endpoint | None = None,
    lanes: int = 1,
    *,
    events: int = 100,
    host: str = "",
    known: bool = False,
) -> float:
    """The p95, in seconds from due to answered, of 40 lanes that have nothing to do with a trouble.

    endpoint, lanes, host: the trouble's, with ``events`` for each lane in the tenth second; None:
    there is none. known: its lanes were known to be fast until then.
    """
    world = World()
    quick = [world.add(Lane(f"quick-{i}", steady())) for i in range(40)]
    for lane in quick:
        world.every(lane, 2.0, 190.0)
    world.run(10)
    for i in range(lanes if endpoint else 0):
        assert endpoint is not None
        trouble = world.add(Lane(f"trouble-{i}", endpoint, host=host))
        trouble.row.latency_ms = 50 if known else None
        world.emit(trouble, events)
    world.run(200)
    names = {lane.id for lane in quick}
    took = [s.waited + s.answered - s.at for s in world.starts if s.lane in names and s.at >= 10]
    return sorted(took)[int(0.95 * len(took))]


def equal_backlogs(lanes: int = 50, each: int = 400) -> float:
    """Jain's index of what lanes got by the time half of all is delivered: 1 is equal shares.

    Their backlogs are equal and their endpoints are not: they answer within 20 to 200 ms.
    """
    world = World()
    for i in range(lanes):
        lane = world.add(Lane(f"lane-{i}", steady(0.02 + 0.18 * i / lanes)))
        lane.row.latency_ms = 200
        world.emit(lane, each)
    while sum(world.ended.values()) < lanes * each / 2:
        world.run(world.now + 0.1)
    got = list(Counter(start.lane for start in world.starts).values())
    return sum(got) ** 2 / (lanes * sum(share * share for share in got))


@dataclass(frozen=True)
class Limited:
    """accepted: a second, over the time it took; refused: the share of all POSTs; parked: probes
    that were needed; dead: given up."""

    accepted: float
    refused: float
    probes: int
    dead: int
    seconds: float


def a_receiver_with_a_limit(rate: int = 50, events: int = 10_000) -> Limited:
    """It takes so many a second, and answers 429 to the others."""
    world = World()
    lane = world.add(Lane("limited", limited(rate)))
    world.emit(lane, events)
    # Refused ones wait for their schedule; what counts is the time until nearly all are through.
    while world.ended[State.DELIVERED] < 0.95 * events and world.now < 4 * HOUR:
        world.run(world.now + 1)
    refused = sum(start.status == 429 for start in world.starts)
    return Limited(
        world.ended[State.DELIVERED] / world.now,
        refused / len(world.starts),
        sum(start.probe for start in world.starts),
        world.ended[State.DEAD],
        world.now,
    )
