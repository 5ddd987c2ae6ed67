"""Settings that the tests in here share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.test import override_settings

from tests.transports.posting import LOOPBACK


@pytest.fixture(autouse=True)
def policy() -> Iterator[None]:
    """The operator allows plain http to loopback, on any port."""
    with override_settings(WEBHOOKS=LOOPBACK):
        yield
