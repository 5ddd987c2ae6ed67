"""The windows of scheduled deliveries: which one a moment falls into, in the subscriber's own time.

Windows tile time without a gap: each ends where the next begins, and a moment belongs to the one
that begins at or before it and ends after it. Days and months begin at ``hour`` o'clock there:
where clocks are put forward over that hour, when they have been; where it comes twice, the first
time. A month begins on ``day``, or on its last day if it is shorter.
"""

from __future__ import annotations

import calendar
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo

from webhooks.formats import Window

HOUR = timedelta(hours=1)

HOURLY, DAILY, MONTHLY = "hourly", "daily", "monthly"


class Scheduled(Protocol):
    """Whose events come in digests, and when."""

    @property
    def trigger(self) -> str: ...
    @property
    def time_zone(self) -> str: ...
    @property
    def hour(self) -> int: ...
    @property
    def day(self) -> int: ...


def window_for(owner: Scheduled, moment: datetime) -> Window:
    """The window of a scheduled subscription that a moment falls into."""
    return window_of(moment, owner.trigger, owner.time_zone, owner.hour, owner.day)


def window_that_ends(owner: Scheduled, end: datetime) -> Window | None:
    """The window of a subscription that ends just then; None where none does."""
    if owner.trigger not in (HOURLY, DAILY, MONTHLY):
        return None
    window = window_for(owner, end - timedelta(microseconds=1))
    return window if window.end == end else None


def window_of(moment: datetime, trigger: str, zone: str, hour: int = 0, day: int = 1) -> Window:
    """The window into which a moment falls; both its ends in UTC.

    moment: aware. trigger: ``hourly``, ``daily`` or ``monthly``. zone: an IANA time zone.
    hour: 0-23. day: 1-31, of a month. Raises ValueError for another trigger, ZoneInfoNotFoundError
    (a KeyError) for a zone that is not known.
    """
    place = ZoneInfo(zone)
    if trigger == HOURLY:
        return Window(_whole_hour(moment, place, -1), _whole_hour(moment, place, 1), trigger)
    local = moment.astimezone(place)
    boundary: Callable[[int], datetime]
    if trigger == DAILY:
        number = local.toordinal()

        def boundary(number: int) -> datetime:
            return _at(datetime.fromordinal(number), hour, place)

    elif trigger == MONTHLY:
        number = local.year * 12 + local.month - 1

        def boundary(number: int) -> datetime:
            year, month = divmod(number, 12)
            last = calendar.monthrange(year, month + 1)[1]
            return _at(datetime(year, month + 1, min(day, last)), hour, place)

    else:
        raise ValueError(f"{trigger!r} has no windows. Use hourly, daily or monthly.")
    # The day or month that the calendar shows there has perhaps not begun for us, at ``hour``.
    if moment < boundary(number):
        number -= 1
    return Window(boundary(number), boundary(number + 1), trigger)


def _at(date: datetime, hour: int, place: ZoneInfo) -> datetime:
    # fold=0: the first of two; in a gap the offset from before it holds, which leads behind it.
    return date.replace(hour=hour, tzinfo=place).astimezone(UTC)


def _whole_hour(moment: datetime, place: ZoneInfo, direction: int) -> datetime:
    """The last whole hour of the place's clocks up to a moment (-1), or the first after it (1).

    Not all zones are whole hours from UTC, and on Lord Howe Island clocks change by half an hour.
    """
    reached = moment.astimezone(UTC)
    past = _past_hour(reached, place)
    if direction < 0:
        while past:
            reached -= past
            past = _past_hour(reached, place)
        return reached
    while True:
        reached += HOUR - past
        past = _past_hour(reached, place)
        if not past:
            return reached


def _past_hour(moment: datetime, place: ZoneInfo) -> timedelta:
    local = moment.astimezone(place)
    return timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
