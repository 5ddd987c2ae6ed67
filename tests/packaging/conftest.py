"""The wheel of this checkout, built once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.packaging.installing import build_wheel, need_an_index


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need_an_index()
    return build_wheel(tmp_path_factory.mktemp("dist"))
