"""Work that a person asks for and a worker does in batches: what its rows have in common.

A row says what is asked for, how much has been done, and where to go on; so a worker that dies
loses and repeats nothing. :mod:`webhooks.engine.replays` advances them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Self, TypeVar

from django.db import models, transaction
from django.utils.translation import gettext_lazy as _

M = TypeVar("M", bound=models.Model)


class RunState(models.TextChoices):
    RUNNING = "running", _("running")
    FINISHED = "finished", _("finished")
    CANCELLED = "cancelled", _("cancelled")


class RunQuerySet(models.QuerySet[M]):
    def running(self) -> Self:
        return self.filter(state=RunState.RUNNING)

    def lock_free(self, pk: str) -> M | None:
        """Lock a running one; None when it has ended, or somebody is at it."""
        skips = transaction.get_connection(self.db).features.has_select_for_update_skip_locked
        return self.running().filter(pk=pk).select_for_update(skip_locked=skips).first()

    def end(self, state: RunState, now: datetime) -> int:
        """End those that are running still; how many there were."""
        return self.running().update(state=state, finished_at=now)
