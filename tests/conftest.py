"""Fixtures for all tests."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests import leaks
from tests.world import Answer, Received, Receiver

CI = bool(os.environ.get("CI"))


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def pytest_configure(config: pytest.Config) -> None:
    """Search the logs of every test for what was sealed meanwhile."""
    leaks.install(config)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, with the reason, what needs a database or service that is not there; in CI, fail."""
    vendor = os.environ.get("WEBHOOKS_TEST_DB", "sqlite")
    for needed in ("postgres", "mariadb"):
        if item.get_closest_marker(needed) and vendor != needed:
            pytest.skip(f"needs WEBHOOKS_TEST_DB={needed}")
    if item.get_closest_marker("redis"):
        host = os.environ.get("REDIS_HOST", "127.0.0.1")
        if not _listens(host, int(os.environ.get("REDIS_PORT", "6379"))):
            message = f"needs Redis on {host}"
            pytest.fail(message) if CI else pytest.skip(message)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that answers 200 at once; set its ``answer`` to change that."""
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def receivers() -> Iterator[Callable[..., Receiver]]:
    """Makes further receivers: ``receivers(Answer(status=500))``."""
    made: list[Receiver] = []

    def make(answer: Answer | Callable[[Received], Answer] | None = None) -> Receiver:
        made.append(Receiver(answer))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(autouse=True)
def _quiet_waker(settings: Any) -> None:
    """Nobody is woken, unless a test says so: tests call ``drain()`` themselves."""
    from webhooks.engine.wake import quiet

    quiet.reset()
    settings.WEBHOOKS = {**settings.WEBHOOKS, "WAKER": None}
