"""Formats: how an event looks on the wire. No models are imported here or below."""

from __future__ import annotations

from typing import Final

from webhooks.formats.base import EventRecord, Format
from webhooks.formats.standard import StandardFormat

__all__ = ["FORMATS", "EventRecord", "Format", "get_format"]

#: Every format by name. Formats have no state, so one object serves all threads.
FORMATS: Final[dict[str, Format]] = {format_.name: format_ for format_ in (StandardFormat(),)}


def get_format(name: str) -> Format:
    """The format of this name. Raises LookupError, which names the known ones."""
    try:
        return FORMATS[name]
    except KeyError:
        raise LookupError(
            f"{name!r} is no webhook format. Known formats: {', '.join(sorted(FORMATS))}."
        ) from None
