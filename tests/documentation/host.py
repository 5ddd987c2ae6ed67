"""What a host project might do to its own schema."""

from __future__ import annotations

from typing import Any


def no_endpoints(endpoints: list[Any]) -> list[Any]:
    return []
