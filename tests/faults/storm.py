"""A running stream of events, faults at random over it, and what must be true when it is over.

Workers are real processes that are killed, stopped and told to end; some die by themselves at a
commit. The broker loses everything, and PostgreSQL crashes where it is the storm's own. At the end
a healthy worker delivers what is left, and the receivers' ledger is compared with what was emitted.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from django.db import connections

from tests.faults import leases
from tests.faults.accounts import insist, lanes_of, mark, orphans
from tests.faults.ledger import Ledger
from tests.faults.servers import Postgres, Redis
from tests.faults.stream import Stream
from tests.faults.verdict import Verdict
from tests.world import start, until
from webhooks.models import Delivery, Duty, Event, Subscription, Worker

TIMEOUT = 2
#: Everything goes faster than in production, so that much can go wrong in a short time.
SETTINGS = {
    "TIMEOUT": TIMEOUT,
    "CONCURRENCY": 8,
    "FLUSH_MAX": 20,
    "DRAIN_SECONDS": 4,
    "RETRY_SCHEDULE": [0.5, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3, 3],
}
CONSTANTS = {"webhooks.engine.pacing.FIRST_PROBE": 0.5, "webhooks.engine.pacing.LONGEST_WAIT": 2.0}
#: POSTs that one process may have begun and not committed.
MOST_OPEN = SETTINGS["CONCURRENCY"] + SETTINGS["FLUSH_MAX"]  # type: ignore[operator]
#: Where workers die by themselves: a statement of the transaction, and which side of its commit.
PLACES = {
    "fan-out": r"UPDATE .webhooks_event.",
    "claim": r"UPDATE .webhooks_lane. SET .token.",
    "answers": r"UPDATE .webhooks_delivery.",
}
#: One of each kind for each requester, and two for good measure.
POPULATION = {
    "app:a": ("good", "flaky", "hanging"),
    "app:b": ("good", "slow", "broken"),
    "app:c": ("flaky", "flaky"),
    "app:d": ("good",),
}


@dataclass(eq=False)
class Child:
    """A process of the storm's. ends: it was told to, and may; by: when at the latest."""

    process: Any
    cluster: bool = False
    doomed: bool = False
    by: float | None = None
    left_alone_until: float = 0.0


class Storm:
    """``run()``, then ``verdict`` and ``figures``."""

    def __init__(
        self,
        *,
        seconds: float,
        faults: dict[str, float],
        seed: int = 0,
        workers: int = 3,
        cluster: bool = True,
        lease: int = 2 * TIMEOUT + 15,
        rate: float = 40.0,
        redis: Redis | None = None,
        postgres: Postgres | None = None,
    ) -> None:
        """faults: kind (a method ``do_...`` here) -> seconds between two of them, about. It rages
        for so many seconds, and on until each kind was done.

        lease, in seconds: how long a killed worker's lanes wait. rate: events a second. redis: the
        cluster's broker; None: the ORM's. postgres: the storm's own, for the fault ``crash``.
        """
        self.seconds = seconds
        self.faults = faults
        self.workers = workers
        self.cluster = cluster
        self.lease = lease
        self.redis = redis
        self.postgres = postgres
        self.rng = random.Random(seed)
        self.ledger = Ledger(seed, timeout=TIMEOUT)
        self.stream = Stream(tuple(POPULATION), rate=rate, seed=self.rng.random())
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        #: What was done when, in unix seconds, to be compared with what came out.
        self.history: list[tuple[float, str]] = []
        self.figures: dict[str, Any] = {}
        self.children: list[Child] = []
        self.stopped: dict[int, float] = {}  # pid -> when it goes on
        self.broker_returns: float | None = None
        self.folder = tempfile.TemporaryDirectory(prefix="webhooks-faults-")
        self.logs = Path(self.folder.name, "log")

    # The run

    def run(self) -> None:
        leases_ = Path(self.folder.name, "leases")
        leases_.mkdir()
        try:
            self.populate()
            for _ in range(self.workers):
                self.start_worker()
            if self.cluster:
                self.start_cluster()
            until(lambda: Worker.objects.count() >= self.workers, 60, "the start of all workers")
            self.stream.start()
            self.rage()
            self.stream.end()
            self.calm_down()
            verdict = Verdict(self.ledger, self.stream, self.around)
            verdict.judge(leases.recorded(leases_))
            self.wrong += verdict.wrong
            self.figures = verdict.figures
        finally:
            self.stream.end()
            for child in self.children:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.process.pid, signal.SIGKILL)
                child.process.wait(10)
            self.ledger.close()
            connections.close_all()
            self.folder.cleanup()

    def populate(self) -> None:
        Duty.objects.ensure()
        for requester, kinds in POPULATION.items():
            for kind in kinds:
                endpoint, url = self.ledger.add(kind)
                subscription, _ = Subscription.objects.subscribe(
                    requester=requester,
                    callback_url=url,
                    event_types=["order.*"],
                    secret=endpoint.secret,
                    ordered=kind == "slow",
                )
                endpoint.subscription, endpoint.requester = subscription.pk, requester

    def start(self, command: str, **faults: Any) -> Any:
        environ = {} if self.redis is None else self.redis.environ
        told = {"constants": CONSTANTS, "leases": str(Path(self.folder.name, "leases")), **faults}
        return start(
            command,
            settings={**SETTINGS, "LEASE_SECONDS": self.lease},
            module="tests.faults.worker",
            log=self.logs,
            WEBHOOKS_TEST_FAULTS=json.dumps(told),
            **environ,
        )

    def start_worker(self, **faults: Any) -> None:
        process = self.start("webhooks_worker", **faults)
        self.children.append(Child(process, doomed="die" in faults))

    def start_cluster(self) -> None:
        self.children.append(Child(self.start("qcluster"), cluster=True))

    # The faults

    def rage(self) -> None:
        """Do faults until the time is over, and look after the processes."""
        began = time.monotonic()
        missing = set(self.faults)
        due = {
            kind: began + every * self.rng.uniform(0.3, 1) for kind, every in self.faults.items()
        }
        while (time.monotonic() < began + self.seconds) or missing:
            time.sleep(0.1)
            self.tend()
            for kind, moment in due.items():
                if time.monotonic() >= moment:
                    missing -= {kind} if getattr(self, f"do_{kind}")() else set()
                    due[kind] = time.monotonic() + self.faults[kind] * self.rng.uniform(0.7, 1.3)
            if time.monotonic() > began + self.seconds + 120:
                self.wrong.append(f"nobody was there for: {', '.join(sorted(missing))}")
                return

    def count(self, fault: str, pid: int = 0) -> None:
        self.done[fault] += 1
        self.note(f"{fault} {pid or ''}".strip())

    def note(self, what: str) -> None:
        self.history.append((time.time(), what))

    def around(self, moment: float) -> str:
        """What was done shortly before and after, for whoever looks for the reason."""
        near = [f"{at - moment:+.2f} s {what}" for at, what in self.history if -9 < at - moment < 4]
        return "; ".join(near)

    def tend(self) -> None:
        """Let go on what stood still, account for what died, and put another in its place."""
        now = time.monotonic()
        for pid in [pid for pid, moment in self.stopped.items() if moment <= now]:
            del self.stopped[pid]
            self.note(f"goes on: {pid}")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        if self.broker_returns is not None and self.broker_returns <= now:
            assert self.redis is not None
            self.redis.start()
            self.broker_returns = None
        for child in list(self.children):
            code = child.process.poll()
            if code is None:
                if child.by is not None and now > child.by:
                    self.wrong.append("a worker that was told to end did not, in TIMEOUT + 5 s")
                    child.process.kill()
                continue
            self.children.remove(child)
            if child.by is not None and self.ended_well(child, code):
                continue
            if not (child.doomed and code == -signal.SIGKILL):
                self.wrong.append(f"a worker ended by itself, with {code}: {self.tail()}")
            else:
                self.count("died at a commit", child.process.pid)
                self.account()
            self.start_worker()

    def ended_well(self, child: Child, code: int) -> bool:
        """Whether it ended as it was told; killed by the signal only before it had begun."""
        begun = Path(self.folder.name, "leases", str(child.process.pid)).exists()
        return code == 0 or (code == -signal.SIGTERM and not begun)

    def account(self) -> None:
        """Note the POSTs that were open when a process died: those, and no others, may repeat."""
        time.sleep(0.3)  # what it had sent arrives
        self.mark("lost", orphans)

    def mark(self, how: Literal["lost", "held"], lanes: Callable[[], set[str]]) -> None:
        found = insist(lambda: mark(self.ledger, how, lanes()))
        self.done[f"open POSTs {how}"] += found
        if how == "lost" and found > MOST_OPEN:
            self.wrong.append(f"{found} POSTs were open at a kill, and at most {MOST_OPEN} may be")

    def victim(self, *, cluster: bool = True) -> int | None:
        """The process id of a worker that may be harmed now."""
        now = time.monotonic()
        children = {child.process.pid: child for child in self.children}
        pids = insist(lambda: list(Worker.objects.values_list("pid", flat=True)))
        fair = []
        for pid in sorted(set(pids) - self.stopped.keys()):
            child = children.get(pid)
            if child is None and cluster:
                fair.append(pid)  # a process of the cluster's
            elif child is not None and child.by is None and child.left_alone_until <= now:
                fair.append(pid)
        return self.rng.choice(fair) if fair else None

    def child(self, pid: int) -> Child | None:
        return next((child for child in self.children if child.process.pid == pid), None)

    # Each says whether it was done: there may be nobody to do it to.

    def do_kill(self) -> bool:
        """kill -9 of a worker; the cluster makes a new process by itself."""
        pid = self.victim()
        if pid is None:
            return False
        child = self.child(pid)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        if child is not None:
            child.process.wait(10)
            self.children.remove(child)
        self.count("kill -9", pid)
        self.account()
        if child is not None:
            self.start_worker()
        return True

    def do_die(self) -> bool:
        """One worker ends in peace, and another takes its place that will die at a commit."""
        pid = self.victim(cluster=False)
        if pid is None:
            return False
        self.end(pid)
        place = self.rng.choice(tuple(PLACES))
        at = self.rng.choice(("before", "after"))
        die = {"sql": PLACES[place], "at": at, "nth": self.rng.randint(1, 12)}
        self.start_worker(die=die)
        return True

    def do_term(self) -> bool:
        pid = self.victim(cluster=False)
        if pid is None:
            return False
        self.end(pid)
        self.count("SIGTERM", pid)
        self.start_worker()
        return True

    def end(self, pid: int) -> None:
        child = self.child(pid)
        assert child is not None
        child.by = time.monotonic() + TIMEOUT + 5 + 3  # and what a busy machine takes
        child.process.terminate()

    def do_stop(self) -> bool:
        """A worker stands still until its leases have run out, and then goes on."""
        pid = self.victim(cluster=False)
        if pid is None or self.stopped:
            return False
        self.mark("held", lambda: lanes_of(pid))
        os.kill(pid, signal.SIGSTOP)
        self.mark("held", lambda: lanes_of(pid))
        until_ = time.monotonic() + self.lease + 2
        self.stopped[pid] = until_
        child = self.child(pid)
        assert child is not None
        # Killed before it has written, it would have lost POSTs on lanes that others hold by then.
        child.left_alone_until = until_ + TIMEOUT + 5
        self.count("SIGSTOP beyond the lease", pid)
        return True

    def do_flush(self) -> bool:
        """Every wake-up that waits is lost."""
        if self.redis is None:
            from django_q.models import OrmQ

            insist(lambda: OrmQ.objects.all().delete())
        elif self.broker_returns is None:
            self.redis.flush()
        else:
            return False
        self.count("broker flushed")
        return True

    def do_broker(self) -> bool:
        """The broker is away for a while, and comes back empty."""
        assert self.redis is not None
        if self.broker_returns is not None:
            return False
        self.redis.stop()
        self.broker_returns = time.monotonic() + self.rng.uniform(0.5, 4)
        self.count("broker restarted")
        return True

    def do_crash(self) -> bool:
        """PostgreSQL goes down at once, and recovers."""
        assert self.postgres is not None
        self.note("PostgreSQL crashes")
        self.postgres.restart()
        self.count("PostgreSQL crashed")
        return True

    def tail(self) -> str:
        return self.logs.read_text(errors="replace")[-1500:] if self.logs.exists() else ""

    # The end

    def calm_down(self) -> None:
        """End everything, and let one healthy worker deliver what is left."""
        for pid in self.stopped:
            os.kill(pid, signal.SIGCONT)
        self.stopped = {}
        if self.broker_returns is not None:
            self.broker_returns = 0
            self.tend()
        self.ledger.calm = True
        for child in list(self.children):
            if child.by is None and not child.cluster:
                self.end(child.process.pid)
        deadline = time.monotonic() + 2 * (TIMEOUT + 8)
        while any(not child.cluster for child in self.children) and time.monotonic() < deadline:
            time.sleep(0.1)
            self.tend_at_the_end()
        self.start_worker()
        left, patience = -1, time.monotonic() + self.lease + 60
        while pending := insist(self.pending):
            if pending != left:
                left, patience = pending, time.monotonic() + self.lease + 60
            if time.monotonic() > patience:
                self.wrong.append(f"{left} events and deliveries are left, and nothing moves")
                return
            time.sleep(0.2)

    def tend_at_the_end(self) -> None:
        for child in list(self.children):
            code = child.process.poll()
            if code is None or child.cluster:
                continue
            self.children.remove(child)
            if not self.ended_well(child, code):
                if not child.doomed:
                    self.wrong.append(f"a worker that was told to end did so with {code}")
                self.account()

    @staticmethod
    def pending() -> int:
        return Event.objects.undispatched().count() + Delivery.objects.pending().count()

    @property
    def summary(self) -> dict[str, Any]:
        return {
            "faults": dict(sorted(self.done.items())),
            **self.figures,
            "wrong": self.wrong,
            "verdict": "violated" if self.wrong else "held",
        }
