"""Settings and transport that the tests in here share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.test import override_settings

from tests.transports.posting import LOOPBACK
from webhooks.transports.requests import RequestsTransport


@pytest.fixture(autouse=True)
def policy() -> Iterator[None]:
    """The operator allows plain http to loopback, on any port."""
    with override_settings(WEBHOOKS=LOOPBACK):
        yield


@pytest.fixture
def transport() -> Iterator[RequestsTransport]:
    made = RequestsTransport(concurrency=8)
    yield made
    made.close()
