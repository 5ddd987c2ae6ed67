"""Processes that a test starts, and what must hold after each."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction

from tests import world
from tests.engine.conftest import _no_lane_is_astray, lanes_are_broken  # noqa: F401
from webhooks.clock import db_now
from webhooks.engine import housekeeping
from webhooks.models import Lane


@pytest.fixture(autouse=True)
def _the_sweep_repairs_nothing(
    request: pytest.FixtureRequest,
    _no_lane_is_astray: None,  # noqa: F811
) -> Iterator[None]:
    """After every fault a sweep runs; what it had to repair is then asserted to be nothing."""
    yield
    database = {"db", "transactional_db"} & set(request.fixturenames)
    if database and "lanes_are_broken" not in request.fixturenames:
        housekeeping.sweep("default")


@pytest.fixture
def start(_the_sweep_repairs_nothing: None) -> Iterator[Callable[..., Any]]:
    """``world.start``; what still runs when the test ends is killed, with all its children."""
    started: list[subprocess.Popen[bytes]] = []

    def start_(*arguments: str, **options: Any) -> Any:
        started.append(world.start(*arguments, **options))
        return started[-1]

    yield start_
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # each leads a session of its own
        process.wait(10)


@pytest.fixture
def start_faulty(start: Callable[..., Any]) -> Callable[..., Any]:
    """As ``start``, with what :mod:`tests.faults.worker` takes: constants, die, leases."""

    def start_(
        *arguments: str,
        constants: dict[str, Any] | None = None,
        die: dict[str, Any] | None = None,
        leases: Path | None = None,
        **options: Any,
    ) -> Any:
        faults: dict[str, Any] = {"constants": constants or {}}
        if die is not None:
            faults["die"] = die
        if leases is not None:
            faults["leases"] = str(leases)
        told = json.dumps(faults)
        return start(*arguments, module="tests.faults.worker", WEBHOOKS_TEST_FAULTS=told, **options)

    return start_


def end_leases() -> None:
    """As if the leases of whoever died had run out by now."""
    with transaction.atomic():
        Lane.objects.lock(list(Lane.objects.values_list("pk", flat=True)))
        past = db_now("default") - timedelta(seconds=1)
        Lane.objects.filter(token__isnull=False).update(lease_until=past, claim_at=past)
