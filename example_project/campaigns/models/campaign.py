"""``Campaign``: one message to many devices, on behalf of one API client."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class Campaign(models.Model):
    """One message to many devices, on behalf of one API client."""

    class State(models.TextChoices):
        DRAFT = "draft", _("draft")
        RUNNING = "running", _("running")
        CANCELLED = "cancelled", _("cancelled")
        FINISHED = "finished", _("finished")

    name = models.CharField(_("name"), max_length=120)
    requester = models.CharField(
        _("requester"),
        max_length=200,
        help_text=_("The API client that the campaign's events are addressed to."),
    )
    message = models.CharField(_("message"), max_length=240)
    state = models.CharField(_("state"), max_length=10, choices=State, default=State.DRAFT)
    audience = models.PositiveIntegerField(
        _("audience"),
        null=True,
        editable=False,
        help_text=_("How many devices it goes to; not known before it starts."),
    )
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    started_at = models.DateTimeField(_("started"), null=True, blank=True)
    finished_at = models.DateTimeField(_("ended"), null=True, blank=True)
    counted_at = models.DateTimeField(
        null=True,
        editable=False,
        help_text=_("When its events and their deliveries were last counted."),
    )

    class Meta:
        verbose_name = _("campaign")
        verbose_name_plural = _("campaigns")
        permissions = [("simulate_campaign", "Can send to simulated devices")]

    def __str__(self) -> str:
        return self.name

    @property
    def subject(self) -> str:
        """What its events are about, in the words of the webhooks."""
        return f"campaign:{self.pk}"
