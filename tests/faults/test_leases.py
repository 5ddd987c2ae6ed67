"""No two unexpired leases on one lane, ever, whoever asks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.leases import Lease, overlaps
from tests.world import Receiver, emit_orders, fan_out_all, subscribe
from webhooks.models import Lane

pytestmark = pytest.mark.django_db(transaction=True)


def test_the_test_finds_an_overlap() -> None:
    assert overlaps([("a", 0, 2, "x"), ("a", 1, 3, "y"), ("b", 0, 9, "z")])
    assert overlaps([("a", 0, 9, "x"), ("a", 1, 2, "x"), ("a", 5, 6, "y")])
    assert not overlaps([("a", 0, 1, "x"), ("a", 1, 2, "y"), ("b", 0, 9, "z")])


def test_two_processes_of_many_claimers_never_hold_one_lane_at_once(
    receiver: Receiver, start: Callable[..., Any], tmp_path: Path
) -> None:
    for i in range(3):
        subscribe(receiver, f"app:{i}")
        emit_orders(1, f"app:{i}")
    fan_out_all()
    files = [tmp_path / "one", tmp_path / "two"]
    processes = [start(str(file), "6", "4", module="tests.faults.claimer") for file in files]
    assert [process.wait(60) for process in processes] == [0, 0]
    leases: list[Lease] = [
        tuple(json.loads(line)) for file in files for line in file.read_text().splitlines()
    ]
    assert overlaps(leases) == []
    assert {lease[0] for lease in leases} == set(Lane.objects.values_list("pk", flat=True))
    assert len(leases) > 100
    # Both took part, in turn: otherwise nothing was tried.
    for file in files:
        assert len(file.read_text().splitlines()) > 20
