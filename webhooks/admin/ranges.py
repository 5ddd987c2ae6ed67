"""The range picker: which period a page with charts shows. It stands in the URL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from django.utils.formats import date_format
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from webhooks.health.figures import Period
from webhooks.models.stats import DAY, FRESH, HOUR

DEFAULT, CUSTOM = "24h", "custom"
#: By their name in the URL: what they are called, how long they are, seconds of each step.
PRESETS: Final[dict[str, tuple[Promise, timedelta, int]]] = {
    "1h": (gettext_lazy("Last hour"), timedelta(hours=1), FRESH),
    "24h": (gettext_lazy("24 hours"), timedelta(hours=24), HOUR),
    "7d": (gettext_lazy("7 days"), timedelta(days=7), 6 * HOUR),
    "30d": (gettext_lazy("30 days"), timedelta(days=30), DAY),
}
#: Steps of a range of one's own, and how many of them a chart shows at most.
STEPS: Final = (FRESH, 3 * FRESH, HOUR, 3 * HOUR, 6 * HOUR, DAY, 7 * DAY)
MOST_STEPS: Final = 62
#: Years that every database can compute with.
_YEARS: Final = range(1971, 9998)
#: When the roll-up's rows grow wider; a step must not be narrower than they.
_HOURS_AFTER, _DAYS_AFTER = timedelta(days=2), timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Range:
    """key: as in the URL. start, end: as they are put into the form. error: why the one that was
    asked for is not shown."""

    key: str
    period: Period
    error: str = ""

    @property
    def choices(self) -> list[tuple[str, Promise | str, bool]]:
        """Key and name of each, and whether it is this one."""
        return [(key, name, key == self.key) for key, (name, *_rest) in PRESETS.items()]

    @property
    def start_text(self) -> str:
        return f"{self.period.start:%Y-%m-%dT%H:%M}"

    @property
    def end_text(self) -> str:
        return f"{self.period.end:%Y-%m-%dT%H:%M}"

    @property
    def labels(self) -> list[str]:
        """What stands under each point of a chart."""
        points = self.period.points
        if self.period.step >= DAY:
            return [date_format(each, "j M") for each in points]
        long = self.period.end - self.period.start > timedelta(hours=25)
        return [date_format(each, "j M H:i" if long else "H:i") for each in points]


def chosen(query: Mapping[str, str], now: datetime) -> Range:
    """The range that a URL's query asks for: ``range``, and for one's own ``from`` and ``to``."""
    now = now.astimezone(UTC)
    key = query.get("range", DEFAULT)
    if key == CUSTOM:
        try:
            return Range(CUSTOM, _period(_moment(query.get("from")), _moment(query.get("to")), now))
        except ValueError as error:
            return Range(DEFAULT, _preset(DEFAULT, now), str(error))
    key = key if key in PRESETS else DEFAULT
    return Range(key, _preset(key, now))


def _preset(key: str, now: datetime) -> Period:
    _name, length, step = PRESETS[key]
    return Period(_floor(now - length, step), now, step)


def _period(start: datetime, end: datetime, now: datetime) -> Period:
    end = min(end, now)
    if start >= end:
        raise ValueError(_("It must begin before it ends, and in the past."))
    narrowest = FRESH
    if now - start > _HOURS_AFTER:
        narrowest = HOUR
    if now - start > _DAYS_AFTER:
        narrowest = DAY
    seconds = (end - start).total_seconds()
    fitting = [step for step in STEPS if step >= narrowest and seconds / step <= MOST_STEPS - 1]
    if not fitting:
        raise ValueError(_("It is too long: at most 14 months."))
    return Period(_floor(start, fitting[0]), end, fitting[0])


def _moment(text: str | None) -> datetime:
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        raise ValueError(_("Give two times, such as 2026-01-31T13:20.")) from None
    if moment.year not in _YEARS:
        raise ValueError(_("Give two times, such as 2026-01-31T13:20."))
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _floor(moment: datetime, step: int) -> datetime:
    return datetime.fromtimestamp(moment.timestamp() // step * step, UTC)
