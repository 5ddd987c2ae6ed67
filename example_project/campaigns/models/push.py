"""A campaign sends one push to each device of its audience; the push records what became of it.

Every step is written to the ``Push`` row, and every event is emitted in the transaction that does
so. So the number of events that must exist can be counted from these rows alone, without a look at
the webhooks: that is the product's side of the tie-out.
"""

from __future__ import annotations

from typing import Final

from django.db import models
from django.db.models import Count, Q, Sum
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from example_project.campaigns.models.campaign import Campaign

#: What can happen to a push and is told to subscribers, as ``push.<step>``, in its order.
STEPS: Final = ("sent", "delivered", "opened", "clicked", "unsubscribed")


class Device(models.Model):
    """Where a push goes."""

    class Platform(models.TextChoices):
        ANDROID = "android", "Android"
        IOS = "ios", "iOS"
        WEB = "web", "Web"

    token = models.CharField(_("token"), max_length=64, unique=True)
    platform = models.CharField(_("platform"), max_length=10, choices=Platform)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    unsubscribed_at = models.DateTimeField(
        _("unsubscribed"), null=True, blank=True, help_text=_("It gets no pushes after this.")
    )

    class Meta:
        verbose_name = _("device")
        verbose_name_plural = _("devices")

    def __str__(self) -> str:
        return f"{self.get_platform_display()} {self.token[:8]}"


class PushQuerySet(models.QuerySet["Push"]):
    def recorded(self) -> dict[str, int]:
        """How often each step was recorded: ``{"push.sent": 40, …}``, zeros included."""
        counts = self.aggregate(
            sent=Count("sent_at"),
            delivered=Count("delivered_at"),
            opened=Sum("opens", default=0),
            clicked=Sum("clicks", default=0),
            unsubscribed=Count("unsubscribed_at"),
        )
        return {f"push.{step}": counts[step] for step in STEPS}


class Push(models.Model):
    """One campaign's message to one device. A timestamp is empty until its step happens.

    Users open and click more than once: ``opened_at`` and ``clicked_at`` are of the first time,
    ``opens`` and ``clicks`` count them all.
    """

    campaign = models.ForeignKey(
        Campaign, models.CASCADE, related_name="pushes", verbose_name=_("campaign")
    )
    device = models.ForeignKey(
        Device, models.CASCADE, related_name="pushes", verbose_name=_("device")
    )
    sent_at = models.DateTimeField(_("sent"))
    delivered_at = models.DateTimeField(_("delivered"), null=True, blank=True)
    opened_at = models.DateTimeField(_("opened"), null=True, blank=True)
    clicked_at = models.DateTimeField(_("clicked"), null=True, blank=True)
    opens = models.PositiveSmallIntegerField(_("opens"), default=0)
    clicks = models.PositiveSmallIntegerField(_("clicks"), default=0)
    unsubscribed_at = models.DateTimeField(_("unsubscribed"), null=True, blank=True)
    failed_at = models.DateTimeField(
        _("failed"),
        null=True,
        blank=True,
        help_text=_("The device could not be reached; no event tells of it."),
    )

    objects = PushQuerySet.as_manager()

    class Meta:
        verbose_name = _("push")
        verbose_name_plural = _("pushes")
        constraints = [
            models.UniqueConstraint(
                fields=["campaign", "device"], name="push_once_for_each_device"
            ),
            models.CheckConstraint(
                name="push_failed_or_delivered",
                condition=Q(failed_at=None) | Q(delivered_at=None),
            ),
            models.CheckConstraint(
                name="push_opened_after_delivered",
                condition=Q(opened_at=None) | Q(delivered_at__isnull=False),
            ),
            models.CheckConstraint(
                name="push_clicked_after_opened",
                condition=Q(clicked_at=None) | Q(opened_at__isnull=False),
            ),
            models.CheckConstraint(
                name="push_opens_since_opened",
                condition=Q(opened_at=None, opens=0) | Q(opened_at__isnull=False, opens__gt=0),
            ),
            models.CheckConstraint(
                name="push_clicks_since_clicked",
                condition=Q(clicked_at=None, clicks=0) | Q(clicked_at__isnull=False, clicks__gt=0),
            ),
            models.CheckConstraint(
                name="push_unsubscribed_after_delivered",
                condition=Q(unsubscribed_at=None) | Q(delivered_at__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        facts = {"campaign": self.campaign, "device": self.device}
        return gettext("%(campaign)s to %(device)s") % facts

    @property
    def steps_done(self) -> int:
        """How many steps were recorded after it was sent."""
        ends = (self.delivered_at, self.unsubscribed_at, self.failed_at)
        return sum(each is not None for each in ends) + self.opens + self.clicks
