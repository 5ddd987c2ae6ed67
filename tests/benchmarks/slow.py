"""Are slow receivers a matter of slots alone? Each takes 100 ms, and many POSTs are in flight.

One worker, 128 and 512 POSTs in flight (``CONCURRENCY``). The reference is the ideal: in flight
divided by 0.1 s. Good: nine tenths of it at 128, and with curl at 512.
"""

from __future__ import annotations

from tests.benchmarks.database import own_database
from tests.benchmarks.drain import deliver
from tests.benchmarks.harness import Figure, Options, compared
from tests.benchmarks.receiver import Receiver

IN_FLIGHT = (128, 512)
SECONDS, QUICK_SECONDS = 20.0, 2.0
LANES = 100


def measure(options: Options) -> list[Figure]:
    figures = []
    with own_database(), Receiver() as receiver:
        for in_flight in IN_FLIGHT:
            ideal = in_flight / 0.1
            count = int(ideal * (QUICK_SECONDS if options.quick else SECONDS) / 2)
            rates = []
            for _ in range(1 if options.quick else 3):
                found = deliver(
                    options,
                    options.transport,
                    f"{receiver.root}/after/100",
                    LANES,
                    count,
                    CONCURRENCY=in_flight,
                )
                rates.append(1 / found["seconds"])
            wanted = 0.9 if in_flight == 128 or options.transport == "curl" else None
            case = f"{options.transport}, {in_flight} in flight, {LANES} lanes"
            references = [ideal] * len(rates)
            figures.append(compared(case, "deliveries/s", rates, references, at_least=wanted))
    return figures
