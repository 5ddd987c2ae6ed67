"""A simulated push service: it sends, and the simulated users deliver, open, click, unsubscribe.

It is the model of how a product emits: each step is written to the ``Push`` row and emitted in one
transaction, so there is never a step without its event nor an event without its step. A chunk of
sends is one transaction with ``emit_many`` (one statement for all events); each later step is a
transaction of its own with ``emit``.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import transaction
from django.utils import timezone

from example_project.campaigns.models import Campaign, Device, Push
from webhooks import emit, emit_many

#: The step of a push that could not be delivered. It is recorded, but no event tells of it.
FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Rates:
    """How likely each step is, given the step before it.

    delivered: of all sent; the others fail.
    opened: of all delivered.
    clicked: of all opened.
    unsubscribed: of all delivered.
    """

    delivered: float = 0.97
    opened: float = 0.25
    clicked: float = 0.30
    unsubscribed: float = 0.01


@dataclass(slots=True)
class Journey:
    """A push on its way, and the steps that are still to come, the next one first."""

    push: Push
    steps: list[str] = field(default_factory=list)


class PushProvider:
    """Runs one campaign over all subscribed devices, one transaction for each ``advance``.

    The same seed over the same number of devices gives the same steps in the same order.
    """

    def __init__(
        self, campaign: Campaign, *, seed: int = 1, rates: Rates | None = None, chunk: int = 50
    ) -> None:
        """chunk: pushes that are sent in one transaction."""
        self.campaign = campaign
        self.rates = rates or Rates()
        self.chunk = chunk
        self._random = random.Random(seed)
        self._underway: list[Journey] = []
        self._last_device = 0
        self._all_sent = False

    @property
    def finished(self) -> bool:
        """Every push was sent, and nothing more will happen to any of them."""
        return self._all_sent and not self._underway

    def advance(self, at_most: int | None = None) -> int:
        """Do the next thing, whatever it is, and return how many events were emitted for it.

        at_most: emit no more events than this; None: no limit.
        """
        if not self._all_sent and len(self._underway) < self.chunk:
            limit = self.chunk if at_most is None else min(self.chunk, at_most)
            devices = list(
                Device.objects.filter(unsubscribed_at=None, pk__gt=self._last_device).order_by(
                    "pk"
                )[:limit]
            )
            if devices:
                self.send(devices)
                return len(devices)
            self._all_sent = True
        if not self._underway:
            self._finish()
            return 0
        # Users act in no order: any push that is underway may be the next one.
        index = self._random.randrange(len(self._underway))
        journey = self._underway[index]
        step = journey.steps[0]
        if step == FAILED:
            self.fail(journey.push)
        elif at_most == 0:
            return 0
        else:
            self.record(journey.push, step)
        del journey.steps[0]
        if not journey.steps:
            self._underway[index] = self._underway[-1]
            self._underway.pop()
        return 0 if step == FAILED else 1

    def send(self, devices: Sequence[Device]) -> list[Push]:
        """Send to these devices: one transaction, one row and one event for each of them."""
        now = timezone.now()
        with transaction.atomic():
            if self.campaign.state == Campaign.State.DRAFT:
                self.campaign.state = Campaign.State.RUNNING
                self.campaign.started_at = now
                self.campaign.save(update_fields=["state", "started_at"])
            pushes = Push.objects.bulk_create(
                [Push(campaign=self.campaign, device=device, sent_at=now) for device in devices]
            )
            emit_many(
                "push.sent",
                [
                    {
                        "data": self._data(push, now),
                        "requester": self.campaign.requester,
                        "subject": self.campaign.subject,
                    }
                    for push in pushes
                ],
            )
        self._last_device = max(device.pk for device in devices)
        self._underway += [Journey(push, self._steps()) for push in pushes]
        return pushes

    def record(self, push: Push, step: str) -> None:
        """Write one step to the push and emit its event, in one transaction.

        step: ``delivered``, ``opened``, ``clicked`` or ``unsubscribed``.
        """
        now = timezone.now()
        with transaction.atomic():
            setattr(push, f"{step}_at", now)
            push.save(update_fields=[f"{step}_at"])
            if step == "unsubscribed":
                push.device.unsubscribed_at = now
                push.device.save(update_fields=["unsubscribed_at"])
            emit(
                f"push.{step}",
                self._data(push, now),
                requester=self.campaign.requester,
                subject=self.campaign.subject,
            )

    def fail(self, push: Push) -> None:
        """Write that the device could not be reached."""
        push.failed_at = timezone.now()
        push.save(update_fields=["failed_at"])

    def _finish(self) -> None:
        self.campaign.state = Campaign.State.FINISHED
        self.campaign.finished_at = timezone.now()
        self.campaign.save(update_fields=["state", "finished_at"])

    def _steps(self) -> list[str]:
        """All that will happen to one push after it was sent."""
        if self._random.random() >= self.rates.delivered:
            return [FAILED]
        steps = ["delivered"]
        if self._random.random() < self.rates.opened:
            steps.append("opened")
            if self._random.random() < self.rates.clicked:
                steps.append("clicked")
        if self._random.random() < self.rates.unsubscribed:
            steps.append("unsubscribed")
        return steps

    def _data(self, push: Push, at: datetime) -> dict[str, Any]:
        return {
            "push_id": push.pk,
            "campaign_id": self.campaign.pk,
            "campaign": self.campaign.name,
            "device": {"token": push.device.token, "platform": push.device.platform},
            "at": at.isoformat().replace("+00:00", "Z"),
        }


def simulate_devices(count: int, *, seed: int = 1) -> list[Device]:
    """Create devices; tokens are always new, the mix of platforms hangs on the seed."""
    dice = random.Random(seed)
    return Device.objects.bulk_create(
        [
            Device(
                token=uuid.uuid4().hex,
                platform=dice.choices(Device.Platform.values, weights=(60, 30, 10))[0],
            )
            for _ in range(count)
        ],
        batch_size=500,
    )
