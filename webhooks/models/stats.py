"""``DeliveryStats``: what charts, rates and percentiles are read from, never the attempts.

A row counts the attempts of one subscription at one event type that ended in one way, within one
bucket of time. Latencies are counted in fixed buckets, so rows can be added up in any way and a
percentile can be estimated from the sums.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db import models
from django.utils.translation import gettext_lazy as _

from webhooks.models.buckets import ACK_BOUNDS as ACK_BOUNDS
from webhooks.models.buckets import ACK_COLUMNS as ACK_COLUMNS
from webhooks.models.buckets import DAY as DAY
from webhooks.models.buckets import FRESH as FRESH
from webhooks.models.buckets import HOUR as HOUR
from webhooks.models.buckets import LATENCY_BOUNDS as LATENCY_BOUNDS
from webhooks.models.buckets import LATENCY_COLUMNS as LATENCY_COLUMNS
from webhooks.models.buckets import percentile as percentile
from webhooks.models.bulk import add_rows
from webhooks.models.stats_reports import StatsReports
from webhooks.models.subscription import Subscription

#: The subscription of the rows that count the whole service.
WHOLE_SERVICE = "sub_" + "0" * 32

KEYS = ("subscription", "type", "width", "bucket", "code")
COUNTERS = ("attempts", "first_try", "delivered", "dead", *LATENCY_COLUMNS, *ACK_COLUMNS)

Key = tuple[str, str, int, datetime, str]


class Tally:
    """Counts results in memory until they are written in one statement."""

    def __init__(self) -> None:
        self._rows: dict[Key, list[int]] = {}

    def __bool__(self) -> bool:
        return bool(self._rows)

    def count(
        self,
        *,
        subscription_id: str,
        event_type: str,
        at: datetime,
        code: str,
        elapsed_ms: float,
        first_try: bool,
        dead: bool,
        ack_ms: float | None,
    ) -> None:
        """Count one attempt, for its subscription and for the whole service.

        code: "" for a success, else the error code. ack_ms: for a success that ended a delivery,
        milliseconds from the event's record to the acknowledgement.
        """
        bucket = datetime.fromtimestamp(at.timestamp() // FRESH * FRESH, UTC)
        for whose in (subscription_id, WHOLE_SERVICE):
            row = self._rows.setdefault(
                (whose, event_type, FRESH, bucket, code), [0] * len(COUNTERS)
            )
            row[0] += 1
            row[4 + bisect_left(LATENCY_BOUNDS, elapsed_ms)] += 1
            if dead:
                row[3] += 1
            if ack_ms is not None:
                row[1] += first_try
                row[2] += 1
                row[4 + len(LATENCY_COLUMNS) + bisect_left(ACK_BOUNDS, ack_ms)] += 1

    def count_batch(
        self,
        types: Mapping[str, int],
        *,
        subscription_id: str,
        at: datetime,
        code: str,
        elapsed_ms: float,
        first_try: bool,
        dead: bool,
        ack_ms: Mapping[str, Sequence[float]] | None,
    ) -> None:
        """Count one attempt at a batch; else as :meth:`count`.

        types: events of each type in it. Each of them was tried, delivered, given up; the endpoint
        answered once, and that is counted for the first type alone.
        """
        bucket = datetime.fromtimestamp(at.timestamp() // FRESH * FRESH, UTC)
        for whose in (subscription_id, WHOLE_SERVICE):
            answered = 1
            for event_type, events in types.items():
                key = (whose, event_type, FRESH, bucket, code)
                row = self._rows.setdefault(key, [0] * len(COUNTERS))
                row[0] += events
                row[4 + bisect_left(LATENCY_BOUNDS, elapsed_ms)] += answered
                answered = 0
                if dead:
                    row[3] += events
                if ack_ms is not None:
                    row[1] += events * first_try
                    row[2] += events
                    waits = ack_ms[event_type]
                    # One wait for all of them, or one for each.
                    times = events if len(waits) == 1 else 1
                    for wait in waits:
                        row[4 + len(LATENCY_COLUMNS) + bisect_left(ACK_BOUNDS, wait)] += times

    def rows(self) -> list[tuple[Any, ...]]:
        """Rows of keys and counters in the order of their keys, as locks must be taken."""
        return [(*key, *counters) for key, counters in sorted(self._rows.items())]


@dataclass(frozen=True, slots=True)
class Sums:
    """All attempts of some time that ended in one way.

    code: "" for successes. dead: deliveries that were given up with such an attempt. first_at,
    first_dead_at: the bucket of the first attempt, and of the first of those; None: there is none.
    latency: counts for each bucket of ``LATENCY_BOUNDS``.
    """

    code: str
    attempts: int
    dead: int
    first_at: datetime
    first_dead_at: datetime | None
    latency: Sequence[int]


class StatsQuerySet(StatsReports):
    def sums(self, subscription_id: str, since: datetime) -> list[Sums]:
        """What ended since then (48 hours ago at most), by code; for ``WHOLE_SERVICE``, of all.

        Exact to a bucket: what ended in the one that ``since`` lies in is not counted.
        """
        latency = {f"sum_{name}": models.Sum(name) for name in LATENCY_COLUMNS}
        rows: Any = (
            self.filter(subscription_id=subscription_id, width=FRESH, bucket__gte=since)
            .values("code")
            .annotate(
                sum_attempts=models.Sum("attempts"),
                sum_dead=models.Sum("dead"),
                first_at=models.Min("bucket"),
                first_dead_at=models.Min("bucket", filter=models.Q(dead__gt=0)),
                **latency,
            )
            .order_by("code")
        )
        return [
            Sums(
                code=row["code"],
                attempts=int(row["sum_attempts"]),
                dead=int(row["sum_dead"]),
                first_at=row["first_at"],
                first_dead_at=row["first_dead_at"],
                latency=[int(row[name]) for name in latency],
            )
            for row in rows
        ]

    def add(self, tally: Tally) -> None:
        """Add what was counted to the rows there are, and make those that are missing."""
        add_rows(self.db, DeliveryStats, KEYS, COUNTERS, tally.rows())

    def compact(self, older_than: datetime, *, width: int, into: int, limit: int) -> int:
        """Merge rows of one width that are older into rows of a larger width.

        Takes at most about ``limit`` rows, whole buckets only; how many rows it merged. Call in a
        transaction.
        """
        old = self.filter(width=width, bucket__lt=older_than).order_by("bucket", "pk")
        batch = list(old.select_for_update()[:limit])
        sums: dict[Key, list[int]] = {}
        for stats in batch:
            bucket = datetime.fromtimestamp(stats.bucket.timestamp() // into * into, UTC)
            key = (stats.subscription_id, stats.type, into, bucket, stats.code)
            row = sums.setdefault(key, [0] * len(COUNTERS))
            for i, name in enumerate(COUNTERS):
                row[i] += getattr(stats, name)
        add_rows(
            self.db,
            DeliveryStats,
            KEYS,
            COUNTERS,
            [(*key, *counters) for key, counters in sorted(sums.items())],
        )
        self.filter(pk__in=[stats.pk for stats in batch]).delete()
        return len(batch)


class DeliveryStats(models.Model):
    """A count of attempts; see the module."""

    subscription = models.ForeignKey(
        Subscription,
        models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="stats",
        help_text=_("All zeros: the whole service."),
    )
    type = models.CharField(_("event type"), max_length=128)
    width = models.PositiveIntegerField(_("width in seconds"), default=FRESH)
    bucket = models.DateTimeField(_("from"))
    code = models.CharField(
        _("code"), max_length=32, blank=True, default="", help_text=_("Empty: success.")
    )
    attempts = models.PositiveBigIntegerField(_("attempts"), default=0)
    first_try = models.PositiveBigIntegerField(_("delivered at the first try"), default=0)
    delivered = models.PositiveBigIntegerField(_("delivered"), default=0)
    dead = models.PositiveBigIntegerField(_("dead"), default=0)

    objects = StatsQuerySet.as_manager()

    class Meta:
        verbose_name = _("delivery statistics")
        verbose_name_plural = _("delivery statistics")
        # In this order one subscription's rows of a day stand together: they are what is read.
        constraints = [
            models.UniqueConstraint(
                fields=["subscription", "width", "bucket", "type", "code"],
                name="webhooks_stats_key",
            )
        ]
        indexes = [models.Index(fields=["width", "bucket"], name="webhooks_stats_time")]

    def __str__(self) -> str:
        return f"{self.type} {self.bucket:%Y-%m-%d %H:%M} {self.code or 'ok'}: {self.attempts}"

    @property
    def latency(self) -> Sequence[int]:
        """Counts for each bucket of ``LATENCY_BOUNDS``."""
        return [getattr(self, name) for name in LATENCY_COLUMNS]

    @property
    def acknowledged(self) -> Sequence[int]:
        """Counts for each bucket of ``ACK_BOUNDS``."""
        return [getattr(self, name) for name in ACK_COLUMNS]


for _name in (*LATENCY_COLUMNS, *ACK_COLUMNS):
    models.PositiveBigIntegerField(default=0, editable=False).contribute_to_class(
        DeliveryStats, _name
    )
