"""After every test on the database: no lane was left that nobody would claim."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from webhooks.engine import batches, drain, flushing, holdings
from webhooks.models import Duty, Lane


@pytest.fixture
def quick_rounds(monkeypatch: Any) -> None:
    """Workers of this process look again at once: for tests that control the time."""
    for module in (drain, batches, flushing, holdings):
        monkeypatch.setattr(module, "POLL", 0.002)
    monkeypatch.setattr(flushing, "FLUSH_SECONDS", 0.002)


@pytest.fixture
def lanes_are_broken() -> None:
    """Asked for by tests that break lanes on purpose, and see to the repair themselves."""


@pytest.fixture(autouse=True)
def _no_lane_is_astray(request: pytest.FixtureRequest) -> Iterator[None]:
    marker = request.node.get_closest_marker("django_db")
    if marker is None or "lanes_are_broken" in request.fixturenames:
        yield
        return
    # Asked for here, so that this looks before the database is emptied.
    request.getfixturevalue("transactional_db" if marker.kwargs.get("transaction") else "db")
    yield
    repairs = Duty.objects.filter(name=Duty.Name.SWEEP).values_list("counter", flat=True).first()
    assert not repairs, f"the sweep had to repair {repairs} lanes"
    assert Lane.objects.astray(10) == []
