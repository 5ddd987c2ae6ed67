"""What every transport promises; each test in here runs over all of them.

A transport is added by its dotted path in ``TRANSPORTS``. One that cannot be imported, for what
it needs is not installed, is skipped with the reason. Tests ask for ``transport`` (eight POSTs at
once) or for ``transport_class``; both trust the certificates of ``authority``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.transports.certificates import Authority
from tests.transports.posting import TRANSPORTS, transport_named
from webhooks.transports.base import Transport


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(params=TRANSPORTS, ids=lambda path: path.split(".")[-2])
def transport_class(request: pytest.FixtureRequest, authority: Authority) -> type[Transport]:
    return transport_named(request.param, str(authority.ca_file))


@pytest.fixture
def transport(transport_class: type[Transport]) -> Iterator[Transport]:
    made = transport_class(concurrency=8)
    yield made
    made.close()
