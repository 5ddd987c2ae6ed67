"""Run the scenarios, print their figures, and draw the outage."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from tests.simulator import scenarios
from tests.simulator.plot import svg
from tests.simulator.world import hanging, steady


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.simulator", description=__doc__)
    parser.add_argument("--lanes", type=int, default=2000, help="in the outage of all endpoints")
    parser.add_argument("--hours", type=float, default=3.0, help="virtual time of the outage's run")
    parser.add_argument("--every", type=float, default=60.0, help="seconds between a lane's events")
    parser.add_argument("--plot", type=Path, help="write an SVG there")
    options = parser.parse_args()
    began = time.monotonic()

    def row(name: str, value: str) -> None:
        print(f"| {name} | {value} |", flush=True)

    print("| figure | value |\n| --- | --- |")
    baseline = scenarios.beside()
    row("p95 of 40 lanes, nothing else going on", f"{baseline * 1000:.0f} ms")
    for name, found in (
        ("one lane hangs", scenarios.beside(hanging())),
        ("200 lanes hang", scenarios.beside(hanging(), 200)),
        (
            "200 lanes of one host, known as fast, hang at once",
            scenarios.beside(hanging(), 200, host="down.example", known=True),
        ),
        (
            "100 lanes of one host answer 500",
            scenarios.beside(lambda now: (500, 0.05), 100, host="down.example", known=True),
        ),
        ("10,000 events for one lane", scenarios.beside(steady(), events=10_000, known=True)),
    ):
        row(f"... while {name}", f"{found * 1000:.0f} ms, {found / baseline:.2f} of the baseline")
    row("Jain's index, 50 equal backlogs, 20 to 200 ms", f"{scenarios.equal_backlogs():.4f}")
    for backlog in (100, 1000, 10_000):
        starts, took = scenarios.recovery_of_one(backlog)
        first = ", ".join(map(str, starts[:10]))
        row(f"a lane recovers, backlog {backlog:,}", f"{took:.1f} s; starts a second: {first}, …")
    takes = scenarios.a_receiver_with_a_limit()
    row(
        "an endpoint takes 50/s, 429 above; 10,000 events",
        f"{takes.accepted:.1f}/s accepted, {takes.refused:.1%} of the POSTs refused, "
        f"{takes.probes} probes, {takes.dead} given up",
    )
    outage = scenarios.outage_of_all(options.lanes, hours=options.hours, every=options.every)
    name = f"{options.lanes:,} lanes, all down for an hour"
    row(f"{name}: probes", f"{outage.probes:,}")
    row(
        f"{name}: probes a second",
        f"mean {outage.mean:.2f}, peak {outage.peak}, {outage.peak / outage.mean:.1f} of the mean",
    )
    row(f"{name}: given up", f"{outage.dead}")
    row(f"{name}: backlog at the recovery", f"{outage.backlog:,}")
    minute = [outage.starts[second] for second in range(60)]
    row(
        f"{name}: starts a second, first minute", f"mean {sum(minute) / 60:.0f}, peak {max(minute)}"
    )
    row(f"{name}: starts a second, at most", f"{max(outage.starts.values())}")
    emptied = "never" if outage.emptied is None else f"{outage.emptied / 60:.0f} min"
    row(f"{name}: empty after the recovery", emptied)
    print(f"\n{time.monotonic() - began:.0f} s of real time")
    if options.plot is not None:
        options.plot.write_text(_drawn(outage))


def _drawn(outage: scenarios.Outage) -> str:
    world = outage.world
    probes: dict[int, int] = {}
    starts: dict[int, int] = {}
    for start in world.starts:
        minute = int(start.at // 60)
        counted = probes if start.probe else starts
        counted[minute] = counted.get(minute, 0) + 1
    end = int(world.now // 60)
    return svg(
        (
            "Pending deliveries: all endpoints down from minute 10 to 70",
            "minutes",
            [("pending", [(at / 60, float(count)) for at, count in world.backlog[::30]])],
        ),
        (
            "POSTs a second",
            "minutes",
            [
                ("deliveries", [(m, starts.get(m, 0) / 60) for m in range(end)]),
                ("probes", [(m, probes.get(m, 0) / 60) for m in range(end)]),
            ],
        ),
        (
            "One lane recovers with 10,000 deliveries: POSTs a second",
            "seconds since the probe succeeded",
            [("starts", [(float(i), float(n)) for i, n in enumerate(_one())])],
        ),
    )


def _one() -> list[int]:
    return scenarios.recovery_of_one(10_000)[0][:30]
