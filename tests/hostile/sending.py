"""Many POSTs over one transport, beside a lane whose receiver behaves; and what that costs.

    python -m tests.hostile.sending TRANSPORT HOSTILE

Posts to everything that the hostile receiver does and prints by how many bytes the memory of this
process rose meanwhile at most: the peak resident set, after a round that warmed everything up.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from tests.hostile.running import Case, Hostile
from tests.transports.posting import request, transport_named
from webhooks.transports.base import Response, Transport

CONCURRENCY = 32
#: Seconds between the POSTs to the good receiver.
PAUSE = 0.02


@dataclass
class Run:
    """What came of one POST to each, and of those to the good receiver meanwhile."""

    responses: dict[str, Response] = field(default_factory=dict)
    #: Seconds by the clock of the caller, from ``start`` to the result.
    lasted: dict[str, float] = field(default_factory=dict)
    good: list[Response] = field(default_factory=list)


def run(transport: Transport, cases: list[Case], good: str) -> Run:
    """One POST for each case, all but one slot busy with them; the last is for the good receiver's,
    one after the other."""
    done = Run()
    waiting = list(cases)
    started: dict[Any, float] = {}

    def start(name: str, url: str, timeout: float) -> None:
        started[name] = time.monotonic()
        transport.start(name, request(url, lane=name, timeout=timeout))

    next_good = 0.0
    while waiting or started:
        while waiting and len(started) < CONCURRENCY - 1:
            case = waiting.pop()
            start(case.name, case.url, case.timeout)
        if "good" not in started and time.monotonic() > next_good:
            next_good = time.monotonic() + PAUSE
            start("good", good, 5)
        for name, response in transport.finished(PAUSE):
            seconds = time.monotonic() - started.pop(name)
            if name == "good":
                done.good.append(response)
            else:
                done.responses[name], done.lasted[name] = response, seconds
    return done


def peak() -> int:
    """Bytes of the largest resident set that this process has had."""
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kib if sys.platform == "darwin" else kib * 1024


def main(path: str, where: str) -> None:
    hostile = Hostile(**json.loads(where))
    transport = transport_named(path, hostile.ca_file)(concurrency=CONCURRENCY)
    good = hostile.good["https"] + "normal"
    for _ in range(4):  # so many threads, connections and TLS sessions as later
        for number in range(CONCURRENCY):
            lane = f"{number}"
            transport.start(lane, request(good, lane=lane))
        ended = 0
        while ended < CONCURRENCY:
            ended += len(transport.finished(1))
    before = peak()
    done = run(transport, hostile.cases(), good)
    print(json.dumps({"rise": peak() - before, "posts": len(done.responses)}))
    transport.close()


if __name__ == "__main__":
    import django

    django.setup()
    main(*sys.argv[1:])
