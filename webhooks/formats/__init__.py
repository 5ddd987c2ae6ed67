"""Formats: how an event looks on the wire. No models are imported here or below."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from webhooks.formats.base import BatchRecord, EventRecord, Format, Window
from webhooks.formats.cloudevents import CloudEventsFormat
from webhooks.formats.mandrill import MandrillFormat
from webhooks.formats.standard import StandardFormat

__all__ = ["FORMATS", "BatchRecord", "EventRecord", "Format", "Window", "get_format", "known"]

#: Our own formats by name. Formats have no state, so one object serves all threads.
FORMATS: Final[dict[str, Format]] = {
    format_.name: format_ for format_ in (StandardFormat(), CloudEventsFormat(), MandrillFormat())
}


def get_format(name: str) -> Format:
    """The format of this name: ours, or the host's by the setting ``FORMATS``.

    Raises LookupError, which names the known ones, and ImportError for a path that leads nowhere.
    """
    ours = FORMATS.get(name)
    if ours is not None:
        return ours
    path = _of_the_host().get(name)
    if path is None:
        raise LookupError(f"{name!r} is no webhook format. Known formats: {', '.join(known())}.")
    return _load(path)


def known() -> list[str]:
    """The names of the formats that a subscription may have, those of the host last."""
    return [*FORMATS, *(name for name in _of_the_host() if name not in FORMATS)]


def _of_the_host() -> Mapping[str, str]:
    from webhooks.conf import settings  # not above: who only verifies signatures needs no Django

    formats: Mapping[str, str] = settings.FORMATS
    return formats


@lru_cache(maxsize=64)
def _load(path: str) -> Format:
    from django.utils.module_loading import import_string

    format_: Format = import_string(path)()
    return format_
