"""Bounds of what a subscriber keeps with us, whichever way it comes: API, admin or Python."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from django.utils.translation import gettext as _

#: Of metadata: bytes of JSON text, levels of nesting, and what every number in it stays below.
MAX_METADATA: Final = 4096
MAX_METADATA_DEPTH: Final = 20
MAX_NUMBER: Final = 10**15
#: The largest number that an integer column of every database holds.
MAX_INTEGER: Final = 2_147_483_647

#: What one database or the other cannot store as text.
_UNSTORABLE: Final = re.compile(r"[\0\ud800-\udfff]")


def is_storable(text: str) -> bool:
    """Whether every database takes this text."""
    return _UNSTORABLE.search(text) is None


def metadata_fault(value: Any) -> str:
    """Why this cannot be a subscription's metadata; "" where it can.

    value: as it was given, not yet text: a JSON object of at most ``MAX_METADATA`` bytes.
    """
    if not isinstance(value, dict):
        return _("This is no JSON object, e.g. {}.")
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError):
        return _("This cannot be written as JSON: plain values, finite numbers, well-formed text.")
    if size > MAX_METADATA:
        return _(
            "This is more than %(limit)d bytes of JSON. Keep it on your side, under the id."
        ) % {"limit": MAX_METADATA}
    return _fault_inside(value, MAX_METADATA_DEPTH)


def _fault_inside(value: Any, levels: int) -> str:
    if isinstance(value, str):
        return "" if is_storable(value) else _("The character U+0000 cannot be stored.")
    if isinstance(value, int | float):
        # A database may write 1e308 as 309 digits.
        small = abs(value) < MAX_NUMBER
        return "" if small else _("Numbers must lie between -10^15 and 10^15. Send it as text.")
    if not isinstance(value, dict | list | tuple):
        return ""  # None; whatever else was refused before
    if not levels:
        return _("This is nested more than %(limit)d levels deep.") % {"limit": MAX_METADATA_DEPTH}
    if isinstance(value, dict):
        if not all(isinstance(name, str) for name in value):
            return _("The names in a JSON object are texts.")
        value = [*value, *value.values()]
    return next(filter(None, (_fault_inside(each, levels - 1) for each in value)), "")
