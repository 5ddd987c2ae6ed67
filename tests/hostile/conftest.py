"""The hostile receiver, once for all tests in here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hostile.running import Hostile, running


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hostile]:
    with running(tmp_path_factory.mktemp("hostile")) as where:
        yield where
