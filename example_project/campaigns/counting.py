"""Counting a campaign's events and their deliveries in the webhooks' tables, in the background.

Events have no index by subject, so a count reads what was recorded in the campaign's time, by its
primary key: ids sort by time. For 30,000 events with 60,000 deliveries that is 0.3 s (SQLite), and
belongs into no request. A count is a snapshot and replaces the last one, so it heals whatever that
one missed.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any, Final

from django.db import transaction
from django.db.models import Count, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce
from django.utils import timezone

from example_project.campaigns.models import (
    STEPS,
    Campaign,
    CampaignStats,
    DeliveryCount,
    EventCount,
)
from webhooks.models import Delivery, Event
from webhooks.models.fields import first_id_of

#: Clocks of two machines may differ by so much; a subject is looked for that much further.
MARGIN: Final = timedelta(minutes=1)
#: Campaigns that ended longer ago are left as they were last counted; their events may be pruned.
RECENT: Final = timedelta(days=7)
#: A count is that share of the time since the end old before the next one is made.
PATIENCE: Final = 20


def events_of(campaign: Campaign) -> QuerySet[Event]:
    """The events of a campaign, read along the primary key over its time."""
    return Event.objects.filter(_in_its_time(campaign, "pk"), subject=campaign.subject)


def count(campaign: Campaign) -> None:
    """Count anew. Of two counts at the same time, the one that began later is kept."""
    campaign.refresh_from_db()
    if campaign.started_at is None:
        return
    as_of = timezone.now()
    # Deliveries first: one that is made meanwhile cannot make them more than the events.
    deliveries = _deliveries(campaign)
    events = _events(campaign)
    with transaction.atomic():
        fresh = Campaign.objects.filter(pk=campaign.pk)
        older = Q(counted_at=None) | Q(counted_at__lt=as_of)
        if not fresh.filter(older).update(counted_at=as_of):
            return  # somebody else's count is newer
        campaign.event_counts.all().delete()
        campaign.delivery_counts.all().delete()
        EventCount.objects.bulk_create(events)
        DeliveryCount.objects.bulk_create(deliveries)
    campaign.counted_at = as_of


def count_due(now: datetime | None = None) -> int:
    """Count the campaigns whose figures may have changed; how many there were.

    Those that run each time; the longer ago one has ended, the rarer.
    """
    now = now or timezone.now()
    recent = Q(state=Campaign.State.RUNNING) | Q(finished_at__gt=now - RECENT)
    counted = 0
    for campaign in Campaign.objects.filter(recent).order_by("pk"):
        since_end = now - campaign.finished_at if campaign.finished_at else timedelta()
        if campaign.counted_at and now - campaign.counted_at < since_end / PATIENCE:
            continue
        count(campaign)
        counted += 1
    return counted


def _in_its_time(campaign: Campaign, column: str) -> Q:
    started = campaign.started_at or campaign.created_at
    within = Q(**{f"{column}__gte": first_id_of(started - MARGIN, "evt")})
    if campaign.finished_at is not None:
        within &= Q(**{f"{column}__lt": first_id_of(campaign.finished_at + MARGIN, "evt")})
    return within


def _events(campaign: Campaign) -> list[EventCount]:
    """Events of each type, and the steps that the roll-up had at that moment.

    One statement, and so one snapshot: the two sides agree also while the campaign runs.
    """
    steps = CampaignStats.objects.filter(campaign=campaign.pk).values("campaign")
    sums = {
        f"n_{step}": Coalesce(Subquery(steps.annotate(n=Sum(step)).values("n")), 0)
        for step in STEPS
    }
    rows: Any = (
        events_of(campaign).annotate(**sums).values("type", *sums).annotate(emitted=Count("pk"))
    )
    emitted: dict[str, int] = {}
    recorded = None
    for row in rows.order_by("type"):
        emitted[row["type"]] = row["emitted"]
        recorded = {f"push.{step}": row[f"n_{step}"] for step in STEPS}
    if recorded is None:  # there is no event to stand beside
        totals = CampaignStats.objects.totals([campaign.pk])[campaign.pk]
        recorded = {f"push.{step}": getattr(totals, step) for step in STEPS}
    return [
        EventCount(
            campaign=campaign,
            type=name,
            emitted=emitted.get(name, 0),
            recorded=recorded.get(name, 0),
        )
        for name in recorded | emitted
    ]


def _deliveries(campaign: Campaign) -> list[DeliveryCount]:
    """Deliveries by subscriber, type and state."""
    rows: Any = (
        Delivery.objects.filter(_in_its_time(campaign, "event_id"), event__subject=campaign.subject)
        .values_list("subscription_id", "event__type", "state")
        .annotate(n=Count("pk"))
        .order_by()
    )
    found: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for subscription, event_type, state, n in rows:
        known = state in (Delivery.State.DELIVERED, Delivery.State.PENDING, Delivery.State.DEAD)
        found[subscription, event_type][state if known else "ended"] += n
    return [
        DeliveryCount(campaign=campaign, subscription_id=subscription, type=event_type, **states)
        for (subscription, event_type), states in found.items()
    ]
