"""Proving that a campaign's three books agree: the pushes, their roll-up, and the events.

The roll-up is compared with the pushes hour by hour, but for repeated opens and clicks, whose hour
no push keeps: those are compared in all. Events are compared with the roll-up by type and hour;
each was recorded as of the moment of its step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from django.db import transaction
from django.db.models import Count
from django.db.models.functions import TruncHour

from example_project.campaigns.counting import events_of
from example_project.campaigns.models import STEPS, Campaign, CampaignStats
from example_project.campaigns.models.stats import Totals, hour_of

#: Counters of the roll-up, each with the column of the push that says when that was.
MOMENTS: Final = {
    "sent": "sent_at",
    "delivered": "delivered_at",
    "opened_unique": "opened_at",
    "clicked_unique": "clicked_at",
    "unsubscribed": "unsubscribed_at",
    "failed": "failed_at",
}
#: Counters of what happens more than once, with the column that counts it.
REPEATED: Final = {"opened": "opens", "clicked": "clicks"}


def differences(campaign: Campaign) -> Iterator[str]:
    """What disagrees, in sentences; nothing: all agree. Reads every push and event of it.

    For a campaign at rest: of one that runs, the books are read one after the other.
    """
    kept = CampaignStats.objects.by_hour(campaign.pk)
    pushes = _pushes_by_hour(campaign)
    for hour in sorted({*kept, *pushes}):
        for name in MOMENTS:
            rolled, rows = getattr(kept.get(hour, Totals()), name), pushes[hour][name]
            if rolled != rows:
                yield f"{hour:%Y-%m-%d %H:00}: {name} is {rolled} in the roll-up, {rows} by rows"
    recorded = campaign.pushes.recorded()
    for name in REPEATED:
        rolled = sum(getattr(each, name) for each in kept.values())
        if rolled != recorded[f"push.{name}"]:
            yield f"{name} is {rolled} in the roll-up, {recorded[f'push.{name}']} by rows"
    events = _events_by_hour(campaign)
    steps = {
        (f"push.{step}", hour): count
        for hour, totals in kept.items()
        for step in STEPS
        if (count := getattr(totals, step))
    }
    for key in sorted({*events, *steps}):
        emitted, rolled = events.get(key, 0), steps.get(key, 0)
        if emitted != rolled:
            yield f"{key[1]:%Y-%m-%d %H:00}: {emitted} events {key[0]}, {rolled} in the roll-up"


def repair(campaign: Campaign) -> None:
    """Write the roll-up anew, from the pushes; repeats are counted in the hour of the first time.

    For a campaign at rest: what is recorded meanwhile would be lost from it.
    """
    with transaction.atomic():
        pushes = _pushes_by_hour(campaign)
        for name, column in REPEATED.items():
            first = f"{name}_at"
            rows: Any = campaign.pushes.exclude(**{first: None}).values_list(first, column)
            for moment, times in rows.iterator():
                pushes[hour_of(moment)][name] += times
        campaign.stats.all().delete()
        CampaignStats.objects.bulk_create(
            [
                CampaignStats(campaign=campaign, hour=hour, shard=0, **counts)
                for hour, counts in pushes.items()
            ]
        )


def _pushes_by_hour(campaign: Campaign) -> dict[datetime, dict[str, int]]:
    found: dict[datetime, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for name, column in MOMENTS.items():
        rows: Any = (
            campaign.pushes.exclude(**{column: None})
            .values_list(TruncHour(column))
            .annotate(Count("pk"))
            .order_by()
        )
        for hour, count in rows:
            found[hour][name] = count
    return found


def _events_by_hour(campaign: Campaign) -> dict[tuple[str, datetime], int]:
    rows: Any = (
        events_of(campaign)
        .values_list("type", TruncHour("occurred_at"))
        .annotate(Count("pk"))
        .order_by()
    )
    return {(event_type, hour): count for event_type, hour, count in rows}
