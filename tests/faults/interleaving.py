"""Runs two transactions of two connections statement by statement, in every order.

Only the statements that matter wait for their turn, and each commit; all others flow. A turn that a
database lock makes impossible is passed over: who waits there is seen in ``pg_blocking_pids``, so
nothing depends on how long anything takes.
"""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.db import connection, connections

#: Whatever reads or writes lanes, brings deliveries, or reads who is to get them.
WATCHED = re.compile(
    r'"webhooks_lane"|INSERT INTO "webhooks_delivery"|"on_suspend" FROM "webhooks_subscription"'
)


class Party:
    """One transaction, in a thread and on a connection of its own, that stops before each step."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work
        self.error: BaseException | None = None
        self.pid = 0
        self.steps: list[str] = []
        self.at_gate = threading.Event()
        self.go = threading.Event()
        self.free = False  # run on without stopping
        self.ended = threading.Event()

    def run(self) -> None:
        own: Any = connections["default"]
        try:
            with own.cursor() as cursor:
                cursor.execute("SELECT pg_backend_pid()")
                self.pid = cursor.fetchone()[0]
            commit = own._commit

            def gated_commit() -> None:
                self.wait_for_turn("COMMIT")
                commit()

            own._commit = gated_commit
            try:
                with own.execute_wrapper(self.gate):
                    self.work()
            finally:
                del own._commit
        except BaseException as error:
            self.error = error
        finally:
            self.ended.set()

    def gate(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if WATCHED.search(sql):
            self.wait_for_turn(sql)
        return execute(sql, params, many, context)

    def wait_for_turn(self, what: str) -> None:
        if self.free:
            return
        self.steps.append(what)
        self.at_gate.set()
        assert self.go.wait(20), "nobody gave the turn"
        self.go.clear()

    def settled(self) -> bool:
        """Wait until it stands at its next step, has ended, or waits for a lock: then False."""
        end = time.monotonic() + 20
        while time.monotonic() < end:
            if self.ended.is_set() or self.at_gate.wait(0.002):
                return True
            if self.pid and is_blocked(self.pid):
                return False
        raise AssertionError("neither at a step nor blocked")

    def step(self) -> bool:
        """Take one step; False when that is not possible now."""
        if self.ended.is_set() or not self.at_gate.is_set():
            return False
        self.at_gate.clear()
        self.go.set()
        self.settled()
        return True


def dont_wait_for_the_disk() -> None:
    """Thousands of commits; what matters is their order."""
    with connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit = off")


def is_blocked(pid: int) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT cardinality(pg_blocking_pids(%s)) > 0", [pid])
        return bool(cursor.fetchone()[0])


class Stage:
    """Two threads with a connection each, on which parties are played."""

    def __init__(self) -> None:
        self.pools = {letter: ThreadPoolExecutor(1) for letter in "AB"}
        for pool in self.pools.values():
            pool.submit(dont_wait_for_the_disk).result(10)
        dont_wait_for_the_disk()

    def close(self) -> None:
        connection.close()
        for pool in self.pools.values():
            pool.submit(connections.close_all).result(10)
            pool.shutdown()

    def play(self, order: str, first: Callable[[], Any], second: Callable[[], Any]) -> list[Party]:
        """Play two transactions in an order such as ``AABAB``; what is left runs at the end."""
        parties = {"A": Party(first), "B": Party(second)}
        running = [self.pools[letter].submit(party.run) for letter, party in parties.items()]
        try:
            for letter in order:
                parties[letter].settled()
                parties[letter].step()
            while any(not party.ended.is_set() for party in parties.values()):
                for party in parties.values():
                    if party.settled():
                        party.step()
        finally:
            for party in parties.values():
                party.free = True
                party.go.set()
            for each in running:
                each.result(20)
        for party in parties.values():
            if party.error is not None:
                raise party.error
        return list(parties.values())


def orders(first: int, second: int) -> Iterator[str]:
    """Every way to merge so many steps of A with so many of B."""
    total = first + second
    for places in itertools.combinations(range(total), first):
        yield "".join("A" if i in places else "B" for i in range(total))
