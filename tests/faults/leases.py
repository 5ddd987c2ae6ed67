"""Leases as their holders saw them, and whether two of one lane were ever valid at once.

A lease begins for its record after the claim has committed, and ends before the release begins or
when it runs out; so two that overlap here have overlapped in truth. Moments are unix seconds: the
database runs on the same machine.
"""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from django.db import transaction

from webhooks.models.lane import LaneQuerySet

#: Lane, from, until, holder.
Lease = tuple[str, float, float, str]


def overlaps(leases: Iterable[Lease]) -> list[tuple[Lease, Lease]]:
    """Pairs of leases of one lane, of two holders, that were both valid at some moment."""
    by_lane: dict[str, list[Lease]] = defaultdict(list)
    for lease in leases:
        by_lane[lease[0]].append(lease)
    found = []
    for of_lane in by_lane.values():
        of_lane.sort(key=lambda lease: lease[1])
        latest = of_lane[0]
        for lease in of_lane[1:]:
            if lease[1] < latest[2] and lease[3] != latest[3]:
                found.append((latest, lease))
            if lease[2] > latest[2]:
                latest = lease
    return found


def record(folder: str) -> None:
    """From now on, write every claim, renewal and release of this process into a file there."""
    claim, renew, let_go = LaneQuerySet.claim, LaneQuerySet.renew, LaneQuerySet.let_go

    def write(*lines: list[Any]) -> None:
        if lines:
            with open(Path(folder, str(os.getpid())), "a") as file:  # a fork has a file of its own
                file.writelines(json.dumps(line) + "\n" for line in lines)

    def claimed(self: Any, token: Any, *args: Any, **options: Any) -> Any:
        rows = claim(self, token, *args, **options)
        leases = {row.pk: row.lease_until.timestamp() for row in rows}

        def note() -> None:
            now = time.time()
            write(*(["claim", pk, token.hex, now, until] for pk, until in leases.items()))

        transaction.on_commit(note, using=self.db)
        return rows

    def renewed(self: Any, token: Any, *args: Any, **options: Any) -> Any:
        until = time.time() + options["lease"].total_seconds()  # it lasts so long at least
        mine = renew(self, token, *args, **options)
        transaction.on_commit(
            lambda: write(*(["renew", pk, token.hex, until] for pk in mine)), using=self.db
        )
        return mine

    def gone(self: Any, locked: Any, *args: Any, **options: Any) -> Any:
        now = time.time()
        write(*(["go", lane.pk, lane.token.hex, now] for lane in locked))
        return let_go(self, locked, *args, **options)

    LaneQuerySet.claim = claimed  # type: ignore[method-assign]
    LaneQuerySet.renew = renewed  # type: ignore[method-assign]
    LaneQuerySet.let_go = gone  # type: ignore[method-assign]


def recorded(folder: Path) -> list[Lease]:
    """The leases of all processes that kept records in this folder."""
    found: list[Lease] = []
    for file in folder.iterdir():
        last: dict[tuple[str, str], list[Any]] = {}
        leases: list[list[Any]] = []
        for line in file.read_text().splitlines(keepends=True):
            if not line.endswith("\n"):
                break  # its writer was killed
            what, lane, holder, *moments = json.loads(line)
            if what == "claim":
                last[lane, holder] = [lane, *moments, holder]
                leases.append(last[lane, holder])
            elif (lane, holder) in last:
                lease = last[lane, holder]
                lease[2] = moments[0] if what == "renew" else min(lease[2], moments[0])
        found += [(lane, since, until, holder) for lane, since, until, holder in leases]
    return [lease for lease in found if lease[2] > lease[1]]
