"""What a verdict is, and the limits from which one follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from webhooks.models.stats import LATENCY_BOUNDS, Sums, percentile

HEALTHY: Final = "healthy"
DEGRADED: Final = "degraded"
FAILING: Final = "failing"
DOWN: Final = "down"
IDLE: Final = "idle"

#: So many failures in a row are more than a hiccup (design: they open the breaker, too).
FAILING_AFTER: Final = 5
#: Fewer attempts say nothing about a rate; a lower rate of successes is a trouble, or an outage.
ENOUGH_ATTEMPTS, GOOD_RATE, BAD_RATE = 20, 0.98, 0.5
#: Rates and dead letters are counted over a day; an outage shows within minutes.
DAY, LATELY = timedelta(days=1), timedelta(minutes=15)
#: What is due for longer is late; for much longer, nobody is coming for it.
LATE, ABANDONED = timedelta(seconds=60), timedelta(minutes=10)
#: When work is due, some worker was heard of within this time, or there is none.
HEARTBEAT = timedelta(seconds=90)
#: A backlog is counted up to here: a larger one is shown as this number.
MOST_COUNTED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Reason:
    """code: for programs. message: what is wrong, since when, and what to do."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """A status, since when where that is known, and its reasons, the gravest first."""

    status: str
    since: datetime | None = None
    reasons: tuple[Reason, ...] = ()

    @property
    def reason(self) -> Reason | None:
        return self.reasons[0] if self.reasons else None


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Milliseconds, estimated from the roll-up's buckets."""

    p50: int
    p95: int
    p99: int

    def as_dict(self) -> dict[str, int]:
        return {"p50": self.p50, "p95": self.p95, "p99": self.p99}


def percentiles(
    counts: Sequence[int], bounds: Sequence[int] = LATENCY_BOUNDS
) -> Percentiles | None:
    """Of what was counted in buckets with these upper bounds; None: nothing was."""
    values = [percentile(counts, bounds, share) for share in (0.5, 0.95, 0.99)]
    if None in values:
        return None
    return Percentiles(*(round(value or 0.0) for value in values))


def latencies(sums: Sequence[Sums]) -> Percentiles | None:
    """Of all these attempts, whatever came of them."""
    return percentiles(
        [sum(column) for column in zip(*(each.latency for each in sums), strict=True)]
    )


def rate(sums: Sequence[Sums]) -> float | None:
    """The share of attempts that succeeded; None without attempts."""
    attempts = sum(each.attempts for each in sums)
    if not attempts:
        return None
    return sum(each.attempts for each in sums if not each.code) / attempts


def is_low(sums: Sequence[Sums], limit: float) -> bool:
    """Whether there were enough attempts to say that too few of them succeeded."""
    share = rate(sums)
    enough = sum(each.attempts for each in sums) >= ENOUGH_ATTEMPTS
    return share is not None and enough and share < limit


def shown(moment: datetime) -> str:
    """A time for people, e.g. ``2026-01-31 13:20 UTC``."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def as_text(moment: datetime | None) -> str | None:
    """A time for programs, as RFC 3339 has it."""
    return None if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def span(time: timedelta) -> str:
    """A length of time for people, in the unit that fits: ``12 min``, ``3 h``, ``5 days``."""
    seconds = max(0, round(time.total_seconds()))
    if seconds < 120:
        return _("%(n)d s") % {"n": seconds}
    if seconds < 7200:
        return _("%(n)d min") % {"n": seconds // 60}
    if seconds < 2 * 86_400:
        return _("%(n)d h") % {"n": seconds // 3600}
    return ngettext("%(n)d day", "%(n)d days", seconds // 86_400) % {"n": seconds // 86_400}


def capped(count: int) -> str:
    """A number that was counted up to ``MOST_COUNTED``: ``340``, ``10,000+``."""
    return f"{grouped(count)}+" if count >= MOST_COUNTED else grouped(count)


def grouped(count: int) -> str:
    """A number as the reader's language writes it: ``10,000``, ``10.000``."""
    return number_format(count, force_grouping=True)
