"""What charts and tiles read from the roll-up: sums over any period, at any of its widths.

Every attempt is counted in one row of one width, so rows of all widths may be added up. A period's
ends are exact to the width of the rows there: five minutes for two days, then an hour, then a day.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from django.db import models

from webhooks.models.buckets import ACK_COLUMNS, DAY, FRESH, HOUR, LATENCY_COLUMNS

if TYPE_CHECKING:
    from webhooks.models.stats import DeliveryStats  # noqa: F401 (the class below names it)

#: In the order in which the unique index has them.
WIDTHS = (FRESH, HOUR, DAY)


@dataclass(frozen=True, slots=True)
class Results:
    """What ended in one way within one step of a period.

    place: of the step; 0: the first. code: "" for successes. latency: how long attempts took;
    acknowledged: how long events took to be acknowledged.
    """

    place: int
    code: str
    attempts: int
    first_try: int
    delivered: int
    dead: int
    latency: Sequence[int]
    acknowledged: Sequence[int]


@dataclass(frozen=True, slots=True)
class Tried:
    """What was tried for one subscription or event type. name: its id, or the type."""

    name: str
    attempts: int
    failed: int
    delivered: int
    dead: int


class _Place(models.Func):
    """The place of the step that a bucket lies in, of steps of so many seconds from a moment on.

    No ORM has it: each database counts seconds in its own way.
    """

    output_field = models.BigIntegerField()

    def __init__(self, column: str, start: datetime, step: int) -> None:
        self._steps: dict[str, Any] = {"start": int(start.timestamp()), "step": int(step)}
        super().__init__(column)

    def as_postgresql(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        template = "(extract(epoch FROM %(expressions)s)::bigint - %(start)s) / %(step)s"
        return self.as_sql(compiler, connection, template=template, **self._steps)

    def as_sqlite(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        template = "(CAST(strftime('%%%%s', %(expressions)s) AS INTEGER) - %(start)s) / %(step)s"
        return self.as_sql(compiler, connection, template=template, **self._steps)

    def as_mysql(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        # UNIX_TIMESTAMP would read the column in the session's time zone.
        seconds = "TIMESTAMPDIFF(SECOND, '1970-01-01', %(expressions)s)"
        template = f"({seconds} - %(start)s) DIV %(step)s"
        return self.as_sql(compiler, connection, template=template, **self._steps)


class StatsReports(models.QuerySet["DeliveryStats"]):
    def within(self, start: datetime, end: datetime) -> Self:
        return self.filter(width__in=WIDTHS, bucket__gte=start, bucket__lt=end)

    def results(
        self, subscription_id: str, start: datetime, end: datetime, step: int
    ) -> list[Results]:
        """By step (of so many seconds) and code, in the order of time; ``WHOLE_SERVICE``: of all.

        Added up by the database, in one look: a month's buckets, one by one, cost three times as
        much in Python.
        """
        counters = ("attempts", "first_try", "delivered", "dead")
        columns = (*counters, *LATENCY_COLUMNS, *ACK_COLUMNS)
        rows: Any = (
            self.within(start, end)
            .filter(subscription_id=subscription_id)
            .annotate(place=_Place("bucket", start, step))
            .values_list("place", "code")
            .annotate(*(models.Sum(column) for column in columns))
            .order_by("place", "code")
        )
        return [
            Results(
                place,
                code,
                attempts=int(counts[0]),
                first_try=int(counts[1]),
                delivered=int(counts[2]),
                dead=int(counts[3]),
                latency=[int(n) for n in counts[4 : 4 + len(LATENCY_COLUMNS)]],
                acknowledged=[int(n) for n in counts[4 + len(LATENCY_COLUMNS) :]],
            )
            for place, code, *counts in rows
        ]

    def busiest_types(
        self, subscription_id: str, start: datetime, end: datetime, limit: int
    ) -> list[Tried]:
        """The event types with the most attempts."""
        rows = self.within(start, end).filter(subscription_id=subscription_id)
        return rows._tried("type", limit)

    def failed_of(self, ids: Collection[str], start: datetime, end: datetime) -> list[Tried]:
        """What failed of these subscriptions, the worst first. What they have beside is not read.

        Each is read by its key: over a million rows of all others this is 20 ms, and an aggregate
        of them all a second.
        """
        rows = self.within(start, end).filter(subscription_id__in=ids).exclude(code="")
        return rows._tried("subscription_id", len(ids))

    def last_delivered(self, subscription_id: str) -> datetime | None:
        """The beginning of the last bucket of two days with a success in it."""
        fresh = self.filter(subscription_id=subscription_id, width=FRESH, code="")
        return fresh.order_by("-bucket").values_list("bucket", flat=True).first()

    def _tried(self, name: str, limit: int) -> list[Tried]:
        failed = models.Q(code="")
        rows: Any = (
            self.values_list(name)
            .annotate(
                tried=models.Sum("attempts"),
                failed=models.Sum("attempts", filter=~failed, default=0),
                arrived=models.Sum("delivered"),
                given_up=models.Sum("dead"),
            )
            .order_by("-tried", name)
        )
        return [Tried(str(row[0]), *(int(n) for n in row[1:])) for row in rows[:limit]]
