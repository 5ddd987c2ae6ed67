"""The limits that shares and pacing keep, in virtual time: ratios and seconds of no real clock."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.simulator import scenarios
from tests.simulator.plot import svg
from tests.simulator.world import hanging, steady
from webhooks.engine.pacing import RAMP_BEGIN


@pytest.mark.parametrize(
    "trouble",
    [
        lambda: scenarios.beside(hanging()),
        lambda: scenarios.beside(hanging(), 200),
        lambda: scenarios.beside(hanging(), 200, host="down.example", known=True),
        lambda: scenarios.beside(lambda now: (500, 0.05), 100, host="down.example", known=True),
        lambda: scenarios.beside(steady(), events=10_000, known=True),
    ],
    ids=["one hangs", "200 hang", "a host hangs", "a host fails", "a flood"],
)
def test_nobody_elses_trouble_shows(trouble: Callable[[], float]) -> None:
    assert trouble() < 2 * scenarios.beside()


def test_equal_backlogs_get_equal_shares() -> None:
    assert scenarios.equal_backlogs() > 0.95


def test_an_outage_of_all_loses_nothing_and_starts_no_storm() -> None:
    outage = scenarios.outage_of_all(200, hours=3, every=60, outage=1800)
    assert outage.backlog > 200 * 25
    assert outage.dead == 0
    # A probe in two minutes for each lane, and they are spread.
    assert outage.probes < 200 * 10
    assert outage.peak < 200 * 0.05
    # The lane with the most: it begins small, and doubles.
    assert outage.first_minute[0] <= RAMP_BEGIN
    for before, now in zip(outage.first_minute, outage.first_minute[1:7], strict=False):
        assert now <= 2 * max(before, 1)
    assert max(outage.starts[second] for second in range(60)) < 200
    # Each lane learns of it with its next probe, and needs a few seconds then.
    assert outage.emptied is not None
    assert outage.emptied < 3600


@pytest.mark.parametrize("backlog", [100, 1000, 10_000])
def test_a_ramp_is_no_faster_for_a_larger_backlog(backlog: int) -> None:
    starts, _seconds = scenarios.recovery_of_one(backlog)
    assert starts[:4] == [4, 8, 16, 32]
    assert sum(starts[:7]) <= 508


def test_a_receiver_that_refuses_what_is_too_much_gets_what_it_takes() -> None:
    found = scenarios.a_receiver_with_a_limit(rate=50, events=3000)
    assert found.accepted > 0.6 * 50
    assert found.refused < 0.15
    assert (found.probes, found.dead) == (0, 0)


def test_a_plot_is_a_picture_of_its_points() -> None:
    drawn = svg(("a < b", "seconds", [("one", [(0.0, 0.0), (1.0, 5.0)])]))
    assert "a &lt; b" in drawn
    assert drawn.count("<polyline") == 1
    assert drawn.startswith("<svg")
