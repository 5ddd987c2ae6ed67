"""Ids as the API takes them: one form, ``<prefix>_`` and 32 lower-case hex digits."""

from __future__ import annotations

import re
from typing import Any

_DIGITS = re.compile(r"[0-9a-f]{32}")


def is_id(prefix: str, value: Any) -> bool:
    """Whether this is the text of an id; the database is asked for nothing else."""
    return (
        isinstance(value, str)
        and value.startswith(f"{prefix}_")
        and _DIGITS.fullmatch(value[len(prefix) + 1 :]) is not None
    )
