"""Pages of the admin that belong to no one table: each is a proxy, for its place in the index and
for its permission."""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _

from webhooks.models.stats import DeliveryStats
from webhooks.models.worker import Duty


class WebhookHealth(DeliveryStats):
    """How the service fares."""

    class Meta:
        proxy = True
        managed = False
        default_permissions = ("view",)
        verbose_name = _("webhook health")
        verbose_name_plural = _("webhook health")


class WorkersAndSchedules(Duty):
    """Who works now, and whether what runs by the clock has run."""

    class Meta:
        proxy = True
        managed = False
        default_permissions = ("view",)
        verbose_name = _("workers and schedules")
        verbose_name_plural = _("workers and schedules")
