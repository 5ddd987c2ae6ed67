"""``Simulation``: a campaign that is sent to simulated devices in the background."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from example_project.campaigns.models.campaign import Campaign

#: A run that nobody has been heard of for so long has lost its process.
LEASE: Final = timedelta(seconds=30)


class Simulation(models.Model):
    """One run; who holds it writes a heartbeat, so that a second process never joins in."""

    class State(models.TextChoices):
        RUNNING = "running", _("running")
        CANCELLED = "cancelled", _("cancelled")
        FINISHED = "finished", _("finished")

    campaign = models.OneToOneField(Campaign, models.CASCADE, related_name="simulation")
    devices = models.PositiveIntegerField(_("devices"))
    seed = models.PositiveIntegerField(_("seed"), default=1)
    state = models.CharField(_("state"), max_length=10, choices=State, default=State.RUNNING)
    actor = models.CharField(_("asked for by"), max_length=255)
    created_at = models.DateTimeField(_("asked for"), auto_now_add=True)
    holder = models.UUIDField(null=True, editable=False)
    heartbeat_at = models.DateTimeField(_("last heard of"), null=True, editable=False)
    done_before = models.BigIntegerField(
        default=0, editable=False, help_text=_("Pushes of lower ids have nothing left to do.")
    )
    failure = models.TextField(_("last failure"), blank=True, default="")

    class Meta:
        verbose_name = _("simulation")
        verbose_name_plural = _("simulations")

    def __str__(self) -> str:
        return f"{self.campaign}: {self.devices}"

    @property
    def is_abandoned(self) -> bool:
        """It should be running, and nobody has been heard of for the length of a lease."""
        if self.state != self.State.RUNNING:
            return False
        return (self.heartbeat_at or self.created_at) < timezone.now() - LEASE
