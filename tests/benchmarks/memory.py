"""Does a worker grow with what it has delivered?

Memory (RSS) of a worker process that has delivered so many, beside one that has delivered a tenth,
and beside its own before the first. Good: ten times the work takes at most a tenth more.
"""

from __future__ import annotations

from tests.benchmarks.database import own_database
from tests.benchmarks.drain import deliver
from tests.benchmarks.harness import Figure, Options, compared
from tests.benchmarks.receiver import fastest

LANES = 100


def measure(options: Options) -> list[Figure]:
    few, many = (1000, 10_000) if options.quick else (10_000, 100_000)
    with own_database(), fastest() as receiver:
        found = {
            count: deliver(options, options.transport, receiver.url, LANES, count)["memory"]
            for count in (few, many)
        }
    case = f"after {many:,} deliveries, beside {few:,}"
    return [compared(case, "MiB", [found[many]], [found[few]], at_most=1.1)]
