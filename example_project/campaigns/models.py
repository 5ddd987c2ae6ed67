"""A campaign sends one push to each device of its audience; the push records what became of it.

Every step is a timestamp on the ``Push`` row, and every event is emitted in the transaction that
writes that timestamp. So the number of events that must exist can be counted from these rows
alone, without a look at the webhooks: that is the product's side of the tie-out.
"""

from __future__ import annotations

from typing import Final

from django.db import models
from django.db.models import Q

#: What can happen to a push and is told to subscribers, as ``push.<step>``, in its order.
STEPS: Final = ("sent", "delivered", "opened", "clicked", "unsubscribed")


class Campaign(models.Model):
    """One message to many devices, on behalf of one API client."""

    class State(models.TextChoices):
        DRAFT = "draft"
        RUNNING = "running"
        FINISHED = "finished"

    name = models.CharField(max_length=120)
    requester = models.CharField(
        max_length=200, help_text="The API client that the campaign's events are addressed to."
    )
    message = models.CharField(max_length=240)
    state = models.CharField(max_length=10, choices=State, default=State.DRAFT)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return self.name

    @property
    def subject(self) -> str:
        """What its events are about, in the words of the webhooks."""
        return f"campaign:{self.pk}"


class Device(models.Model):
    """Where a push goes."""

    class Platform(models.TextChoices):
        ANDROID = "android", "Android"
        IOS = "ios", "iOS"
        WEB = "web", "Web"

    token = models.CharField(max_length=64, unique=True)
    platform = models.CharField(max_length=10, choices=Platform)
    created_at = models.DateTimeField(auto_now_add=True)
    unsubscribed_at = models.DateTimeField(
        null=True, blank=True, help_text="It gets no pushes after this."
    )

    def __str__(self) -> str:
        return f"{self.get_platform_display()} {self.token[:8]}"


class PushQuerySet(models.QuerySet["Push"]):
    def recorded(self) -> dict[str, int]:
        """How often each step was recorded: ``{"push.sent": 40, …}``, zeros included."""
        counts = self.aggregate(**{step: models.Count(f"{step}_at") for step in STEPS})
        return {f"push.{step}": counts[step] for step in STEPS}


class Push(models.Model):
    """One campaign's message to one device. A timestamp is empty until its step happens."""

    campaign = models.ForeignKey(Campaign, models.CASCADE, related_name="pushes")
    device = models.ForeignKey(Device, models.CASCADE, related_name="pushes")
    sent_at = models.DateTimeField()
    delivered_at = models.DateTimeField(null=True, blank=True)
    opened_at = models.DateTimeField(null=True, blank=True)
    clicked_at = models.DateTimeField(null=True, blank=True)
    unsubscribed_at = models.DateTimeField(null=True, blank=True)
    failed_at = models.DateTimeField(
        null=True, blank=True, help_text="The device could not be reached; no event tells of it."
    )

    objects = PushQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "pushes"
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
                name="push_unsubscribed_after_delivered",
                condition=Q(unsubscribed_at=None) | Q(delivered_at__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.campaign} to {self.device}"
