"""Fixtures of the end-to-end tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.e2e.endpoint import Endpoint
from tests.e2e.verifying import NodeSvix


@pytest.fixture
def endpoints() -> Iterator[Callable[[], Endpoint]]:
    """Makes subscribers' endpoints."""
    made: list[Endpoint] = []

    def make() -> Endpoint:
        made.append(Endpoint())
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(scope="session")
def node_svix(tmp_path_factory: pytest.TempPathFactory) -> NodeSvix:
    return NodeSvix.install(tmp_path_factory.mktemp("svix"))
