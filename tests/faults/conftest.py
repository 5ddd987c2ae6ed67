"""Processes that a test starts, and what must hold after each."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests import world
from tests.engine.conftest import _no_lane_is_astray, lanes_are_broken  # noqa: F401


@pytest.fixture
def start(_no_lane_is_astray: None) -> Iterator[Callable[..., Any]]:  # noqa: F811
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
