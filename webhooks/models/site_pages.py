"""Pages of the admin that belong to no one table: each is a proxy, for its place in the index and
for its permission."""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _

from webhooks.models.stats import DeliveryStats


class WebhookHealth(DeliveryStats):
    """How the service fares."""

    class Meta:
        proxy = True
        managed = False
        default_permissions = ("view",)
        verbose_name = _("webhook health")
        verbose_name_plural = _("webhook health")
