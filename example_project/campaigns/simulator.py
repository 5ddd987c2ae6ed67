"""Sending a campaign to simulated devices in the background, by django-q2 tasks.

A run is a row (:class:`Simulation`) and is worked on in slices: a task takes the row, advances the
provider for ``SLICE`` seconds, and hands on to the next task. So no task runs for long, a cluster
can be stopped between two of them, and a process that dies leaves no more behind than a heartbeat
that grows old: :func:`continue_abandoned` finds it, and the rows say how far it had come.
"""

from __future__ import annotations

import logging
import time
import uuid
from functools import partial
from typing import Final

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext as _
from django_q.tasks import async_task

from example_project.campaigns import counting
from example_project.campaigns.models import Campaign, Simulation
from example_project.campaigns.models.simulation import LEASE
from example_project.campaigns.provider import PushProvider, simulate_devices

logger = logging.getLogger(__name__)

#: Seconds that one task works; well below the cluster's ``timeout``.
SLICE: Final = 10.0
#: Seconds between two looks at whether it was cancelled; the heartbeat goes with them.
LOOK: Final = 0.5
#: Seconds between two counts of the webhooks while it runs.
COUNT: Final = 4.0
#: Seconds between two transactions: on SQLite, one that comes back at once keeps the others out.
GAP: Final = 0.001
#: Devices that are made in one transaction.
CHUNK: Final = 500
MOST_DEVICES: Final = 100_000
TASK: Final = "example_project.campaigns.tasks.simulate"


def start(campaign: Campaign, devices: int, *, actor: str) -> Simulation:
    """Send a draft to so many simulated devices, from after the commit on.

    Devices that are missing are made. Raises ValidationError where the campaign has begun already.
    """
    with transaction.atomic():
        taken = Campaign.objects.filter(pk=campaign.pk, state=Campaign.State.DRAFT).update(
            state=Campaign.State.RUNNING, started_at=timezone.now(), audience=devices
        )
        if not taken:
            raise ValidationError(_("The campaign has begun already."))
        simulation = Simulation.objects.create(
            campaign=campaign, devices=devices, seed=campaign.pk, actor=actor
        )
        _wake(simulation)
    return simulation


def cancel(campaign: Campaign) -> None:
    """Stop a run: no step is recorded later than ``LOOK`` seconds after the commit.

    Raises ValidationError where none is running.
    """
    with transaction.atomic():
        running = Simulation.objects.filter(campaign=campaign, state=Simulation.State.RUNNING)
        if not running.update(state=Simulation.State.CANCELLED):
            raise ValidationError(_("Nothing is being sent."))
        Campaign.objects.filter(pk=campaign.pk, state=Campaign.State.RUNNING).update(
            state=Campaign.State.CANCELLED, finished_at=timezone.now()
        )


def resume(campaign: Campaign) -> None:
    """Go on with a run that was cancelled, or that has lost its process.

    Raises ValidationError where there is nothing to go on with.
    """
    with transaction.atomic():
        simulation = Simulation.objects.select_for_update().filter(campaign=campaign).first()
        if simulation is None or simulation.state == Simulation.State.FINISHED:
            raise ValidationError(_("There is nothing to go on with."))
        if simulation.state == Simulation.State.RUNNING and not simulation.is_abandoned:
            raise ValidationError(_("It is being sent already."))
        simulation.state = Simulation.State.RUNNING
        simulation.failure = ""
        simulation.save(update_fields=["state", "failure"])
        Campaign.objects.filter(pk=campaign.pk).exclude(state=Campaign.State.FINISHED).update(
            state=Campaign.State.RUNNING, finished_at=None
        )
        _wake(simulation)


def continue_abandoned() -> int:
    """Wake the runs that nobody has been heard of for the length of a lease; how many there are."""
    silent = Q(heartbeat_at=None, created_at__lt=timezone.now() - LEASE) | Q(
        heartbeat_at__lt=timezone.now() - LEASE
    )
    found = list(Simulation.objects.filter(silent, state=Simulation.State.RUNNING))
    for simulation in found:
        _wake(simulation)
    return len(found)


def work(pk: int, *, seconds: float = SLICE) -> None:
    """One slice of a run, unless another process has it; then hand on.

    Raises nothing: django-q2 would run the task again at once, and again. What went wrong stands
    in the row, and :func:`continue_abandoned` tries once more.
    """
    token = uuid.uuid4()
    now = timezone.now()
    free = Q(holder=None) | Q(heartbeat_at__lt=now - LEASE)
    mine = Simulation.objects.filter(pk=pk, state=Simulation.State.RUNNING)
    if not mine.filter(free).update(holder=token, heartbeat_at=now):
        return
    held = Simulation.objects.filter(pk=pk, holder=token)
    simulation = held.select_related("campaign").get()
    try:
        done = _Slice(simulation, time.monotonic() + seconds).run()
    except Exception as error:
        logger.exception("The simulation of campaign %s was interrupted.", simulation.campaign_id)
        # The heartbeat stays: it is tried again when the lease is over, and not at once.
        held.update(holder=None, failure=f"{type(error).__name__}: {error}")
        return
    held.update(holder=None, failure="")
    if done:
        mine.update(state=Simulation.State.FINISHED)
    elif mine.exists():  # it was not cancelled
        _wake(simulation)


class _Slice:
    """The work of one task on one run."""

    def __init__(self, simulation: Simulation, until: float) -> None:
        self.simulation = simulation
        self.until = until
        self.provider = PushProvider(
            simulation.campaign, seed=simulation.seed, audience=simulation.devices
        )
        self._looked = self._counted = time.monotonic()

    def run(self) -> bool:
        """Whether the run is done; False: its time is up, or it was cancelled."""
        self.provider.resume(self.simulation.done_before)
        missing = self.provider.missing_devices
        while missing > 0 and self._goes_on():
            simulate_devices(min(missing, CHUNK), seed=self.simulation.seed)
            missing -= CHUNK
        while self._goes_on() and not self.provider.finished:
            self.provider.advance()
            time.sleep(GAP)
        counting.count(self.simulation.campaign)
        return self.provider.finished

    def _goes_on(self) -> bool:
        if time.monotonic() - self._counted >= COUNT:
            counting.count(self.simulation.campaign)
            self._counted = time.monotonic()
        now = time.monotonic()
        if now - self._looked >= LOOK:
            self._looked = now
            held = Simulation.objects.filter(
                pk=self.simulation.pk,
                holder=self.simulation.holder,
                state=Simulation.State.RUNNING,
            )
            if not held.update(heartbeat_at=timezone.now(), done_before=self.provider.done_before):
                return False
        return now < self.until


def _wake(simulation: Simulation) -> None:
    transaction.on_commit(partial(async_task, TASK, simulation.pk, save=False))
