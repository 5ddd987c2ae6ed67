"""Event types of every kind: the test project's, the example project's, and made-up ones."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest

from webhooks import catalog


@pytest.fixture
def register() -> Iterator[Any]:
    """``catalog.register``, undone after the test."""
    made: list[str] = []

    def add(name: str, **options: Any) -> catalog.EventType:
        made.append(name)
        return catalog.register(name, **options)

    yield add
    for name in made:
        catalog.unregister(name)


@pytest.fixture(scope="session")
def _example_types() -> list[catalog.EventType]:
    """The event types of the example project."""
    before = {each.name for each in catalog.all_types()}
    importlib.import_module("example_project.campaigns.webhook_events")
    added = [each for each in catalog.all_types() if each.name not in before]
    for each in added:
        catalog.unregister(each.name)
    return added


@pytest.fixture
def every_type(_example_types: list[catalog.EventType], register: Any) -> list[catalog.EventType]:
    """All types of the test project and of the example project, registered."""
    for each in _example_types:
        register(
            each.name,
            title=each.title,
            description=each.description,
            serializer=each.serializer,
            schema=each.schema,
            example=each.example,
            audience=each.audience,
            scope=each.scope,
        )
    assert _example_types
    return list(catalog.all_types())
