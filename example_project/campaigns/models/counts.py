"""What was last counted of a campaign's events and of their deliveries.

The webhooks' tables know an event by its id and its place in the order, not by its subject: an
index for that would cost every ``emit()`` of every product. So the pages read these rows, which
:mod:`example_project.campaigns.counting` replaces in the background; ``Campaign.counted_at`` says
as of when.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django.db import models
from django.db.models import Sum
from django.utils.translation import gettext_lazy as _

from example_project.campaigns.models.campaign import Campaign
from webhooks.models import Subscription


class EventCount(models.Model):
    """Events of one type, and the steps that the product had recorded at the same moment."""

    campaign = models.ForeignKey(
        Campaign, models.CASCADE, related_name="event_counts", db_index=False
    )
    type = models.CharField(_("event type"), max_length=128)
    emitted = models.PositiveIntegerField(_("events emitted"), default=0)
    recorded = models.PositiveIntegerField(_("steps recorded"), default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["campaign", "type"], name="campaign_events_key")
        ]

    def __str__(self) -> str:
        return f"{self.campaign_id} {self.type}: {self.emitted}"


class DeliveryCountQuerySet(models.QuerySet["DeliveryCount"]):
    def backlogs(self, campaigns: Collection[int]) -> dict[int, int]:
        """Pending deliveries of each of these campaigns; one statement."""
        rows: Any = (
            self.filter(campaign_id__in=campaigns)
            .values_list("campaign_id")
            .annotate(Sum("pending"))
            .order_by("campaign_id")
        )
        return dict(rows)


class DeliveryCount(models.Model):
    """Deliveries of one type to one subscriber, by what became of them."""

    campaign = models.ForeignKey(
        Campaign, models.CASCADE, related_name="delivery_counts", db_index=False
    )
    subscription = models.ForeignKey(
        Subscription, models.CASCADE, related_name="+", db_index=False, db_constraint=False
    )
    type = models.CharField(_("event type"), max_length=128)
    delivered = models.PositiveIntegerField(_("delivered"), default=0)
    pending = models.PositiveIntegerField(_("pending"), default=0)
    dead = models.PositiveIntegerField(_("dead"), default=0)
    ended = models.PositiveIntegerField(
        _("ended otherwise"), default=0, help_text=_("Cancelled, discarded or expired.")
    )

    objects = DeliveryCountQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["campaign", "subscription", "type"], name="campaign_deliveries_key"
            )
        ]

    def __str__(self) -> str:
        return f"{self.campaign_id} {self.subscription_id} {self.type}: {self.delivered}"
