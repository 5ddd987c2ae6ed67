"""What digests tell, beside what was counted from single events.

A digest has a window and the counts of each type in it (``docs/digests.md``). An event belongs to
the window in which the sender took it up, within about a second of its timestamp: what happened in
a window's last second may be in the next one's digest. So a single window may differ by a few, its
neighbour by as many the other way, and all windows together are what is compared in the end.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from webhooks.receiving import Message


@dataclass(frozen=True, slots=True)
class Digest:
    """One digest. trigger: ``hourly``, ``daily`` or ``monthly``. counts: events of each type."""

    id: str
    begin: datetime
    end: datetime
    trigger: str
    counts: Mapping[str, int]

    @classmethod
    def of(cls, message: Message) -> Digest | None:
        """The digest that a message is; None for any other, and for pages after the first.

        Each page has the counts of the whole window, so one of them is enough.
        """
        window, counts = message.raw.get("window"), message.raw.get("counts")
        if not isinstance(window, dict) or not isinstance(counts, dict):
            return None
        return cls(
            id=message.id,
            begin=datetime.fromisoformat(window["from"]),
            end=datetime.fromisoformat(window["to"]),
            trigger=window["trigger"],
            counts=counts if message.raw.get("page") == 1 else {},
        )


@dataclass(frozen=True, slots=True)
class Line:
    """Events of one type within a window: what its digest told, and what came singly."""

    type: str
    told: int
    counted: int

    @property
    def difference(self) -> int:
        return self.counted - self.told


@dataclass(frozen=True, slots=True)
class Window:
    """A window that a digest was received of. is_whole: the receiver ran all the while."""

    begin: datetime
    end: datetime
    trigger: str
    is_whole: bool
    ids: Sequence[str]
    lines: Sequence[Line]

    @property
    def agrees(self) -> bool:
        return all(line.difference == 0 for line in self.lines)


@dataclass(frozen=True, slots=True)
class Comparison:
    """All windows, the newest first; and all of them together. None: no digest came yet."""

    began_at: datetime
    windows: Sequence[Window]
    together: Window | None

    def as_json(self) -> str:
        """One object: ``began_at``, ``windows``, ``together``; times in ISO 8601, UTC."""
        return json.dumps(
            {
                "began_at": self.began_at.isoformat(),
                "windows": [_plain(window) for window in self.windows],
                "together": self.together and _plain(self.together),
            }
        )


def compare(
    digests: Sequence[Digest], singles: Mapping[tuple[datetime, str], int], began_at: datetime
) -> Comparison:
    """Put them side by side. singles: events by the minute of their timestamp and their type."""
    by_window: dict[tuple[datetime, datetime, str], list[Digest]] = {}
    for digest in digests:
        by_window.setdefault((digest.begin, digest.end, digest.trigger), []).append(digest)
    windows = [
        _window(key, found, singles, began_at)
        for key, found in sorted(by_window.items(), reverse=True)
    ]
    if not digests:
        return Comparison(began_at, [], None)
    begin, end = min(each.begin for each in digests), max(each.end for each in digests)
    together = _window((begin, end, ""), digests, singles, began_at)
    return Comparison(began_at, windows, together)


def _window(
    key: tuple[datetime, datetime, str],
    digests: Sequence[Digest],
    singles: Mapping[tuple[datetime, str], int],
    began_at: datetime,
) -> Window:
    begin, end, trigger = key
    told: Counter[str] = Counter()
    for digest in digests:
        told.update(digest.counts)
    counted: Counter[str] = Counter()
    for (minute, event_type), count in singles.items():
        if begin <= minute < end:
            counted[event_type] += count
    lines = [Line(name, told[name], counted[name]) for name in sorted({*told, *counted})]
    return Window(begin, end, trigger, begin >= began_at, [each.id for each in digests], lines)


def _plain(window: Window) -> dict[str, Any]:
    return {
        "from": window.begin.isoformat(),
        "to": window.end.isoformat(),
        "trigger": window.trigger,
        "is_whole": window.is_whole,
        "agrees": window.agrees,
        "ids": list(window.ids),
        "told": {line.type: line.told for line in window.lines},
        "counted": {line.type: line.counted for line in window.lines},
    }
