"""``CampaignStats``: the roll-up that lists, tiles and charts read instead of the pushes.

A row counts what was recorded for one campaign within one hour. It is written in the transaction
that records the step, so it is never ahead of the pushes nor behind them, and a rollback takes both
back: ``manage.py campaign_check`` proves it.

One row for each hour would make every writer of a campaign wait for the last one's commit. So each
hour has ``SHARDS`` rows, of which every provider (one in each process) adds to its own, and reading
adds them up. A step touches one row of the roll-up, so there is no order of locks to be kept. The
other way, one more row for each step and a task that folds them, writes twice as much and reads
stale; it pays where a thousand processes record one campaign.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from django.db import models
from django.db.models import F, Sum
from django.utils.translation import gettext_lazy as _

from example_project.campaigns.models.campaign import Campaign

#: Writers that may add to one hour of a campaign at the same moment.
SHARDS: Final = 8
COUNTERS: Final = (
    *("sent", "delivered", "opened", "opened_unique", "clicked", "clicked_unique"),
    *("unsubscribed", "failed"),
)


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums of the counters. Unique: pushes with at least one; the others count every time."""

    sent: int = 0
    delivered: int = 0
    opened: int = 0
    opened_unique: int = 0
    clicked: int = 0
    clicked_unique: int = 0
    unsubscribed: int = 0
    failed: int = 0

    @property
    def events(self) -> int:
        """Events that must have been emitted: every step but a failure has one."""
        return self.sent + self.delivered + self.opened + self.clicked + self.unsubscribed


def share(part: int, whole: int) -> float | None:
    """``part`` of ``whole``, from 0 to 1; None of nothing."""
    return part / whole if whole else None


def hour_of(moment: datetime) -> datetime:
    """The beginning of its hour in UTC."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


class CampaignStatsQuerySet(models.QuerySet["CampaignStats"]):
    def add(self, campaign_id: int, at: datetime, shard: int, **counts: int) -> None:
        """Add to the counters of the hour of ``at``. Call in the transaction of the step."""
        row = self.filter(campaign_id=campaign_id, hour=hour_of(at), shard=shard)
        more: Any = {name: F(name) + count for name, count in counts.items()}
        if not row.update(**more):
            # The hour is new: whoever comes first makes the row, everybody adds to it.
            new = CampaignStats(campaign_id=campaign_id, hour=hour_of(at), shard=shard)
            self.bulk_create([new], ignore_conflicts=True)
            row.update(**more)

    def totals(self, campaigns: Collection[int]) -> dict[int, Totals]:
        """The sums of each of these campaigns; one statement."""
        rows: Any = (
            self.filter(campaign_id__in=campaigns).values_list("campaign_id").annotate(*_sums())
        )
        found = {pk: Totals(*sums) for pk, *sums in rows.order_by("campaign_id")}
        return {pk: found.get(pk, Totals()) for pk in campaigns}

    def by_hour(self, campaign_id: int) -> dict[datetime, Totals]:
        """The sums of each hour in which something was recorded, in their order."""
        rows: Any = self.filter(campaign_id=campaign_id).values_list("hour").annotate(*_sums())
        return {hour: Totals(*sums) for hour, *sums in rows.order_by("hour")}


def _sums() -> list[Sum]:
    return [Sum(name) for name in COUNTERS]


class CampaignStats(models.Model):
    """What was recorded within an hour; see the module."""

    campaign = models.ForeignKey(
        Campaign, models.CASCADE, related_name="stats", db_index=False, verbose_name=_("campaign")
    )
    hour = models.DateTimeField(_("hour"))
    shard = models.PositiveSmallIntegerField(_("shard"))
    sent = models.PositiveIntegerField(_("sent"), default=0)
    delivered = models.PositiveIntegerField(_("delivered"), default=0)
    opened = models.PositiveIntegerField(_("opened"), default=0)
    opened_unique = models.PositiveIntegerField(_("opened for the first time"), default=0)
    clicked = models.PositiveIntegerField(_("clicked"), default=0)
    clicked_unique = models.PositiveIntegerField(_("clicked for the first time"), default=0)
    unsubscribed = models.PositiveIntegerField(_("unsubscribed"), default=0)
    failed = models.PositiveIntegerField(_("failed"), default=0)

    objects = CampaignStatsQuerySet.as_manager()

    class Meta:
        verbose_name = verbose_name_plural = _("campaign statistics")
        constraints = [
            models.UniqueConstraint(
                fields=["campaign", "hour", "shard"], name="campaign_stats_key"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.campaign_id} {self.hour:%Y-%m-%d %H:00} #{self.shard}"
