"""A simulated push service: it sends, and the simulated users deliver, open, click, unsubscribe.

It is the model of how a product emits: each step is written to the ``Push`` row, counted in the
roll-up and emitted in one transaction, so there is never a step without its event nor an event
without its step. A chunk of sends is one transaction with ``emit_many`` (one statement for all
events); each later step is a transaction of its own with ``emit``.

Nothing is kept but the rows: what will become of a push follows from the seed and its device, so a
provider that takes over from one that died goes on where the rows say that it was.
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

from example_project.campaigns.models import Campaign, CampaignStats, Device, Push
from example_project.campaigns.models.stats import SHARDS
from webhooks import emit, emit_many

#: The step of a push that could not be delivered. It is recorded, but no event tells of it.
FAILED = "failed"
#: Steps that may happen more than once, with the column that counts them.
REPEATED = {"opened": "opens", "clicked": "clicks"}


@dataclass(frozen=True, slots=True)
class Rates:
    """How likely each step is, given the step before it.

    delivered: of all sent; the others fail.
    opened: of all delivered.
    clicked: of all opened.
    again: of all opened, and of all clicked, once more.
    unsubscribed: of all delivered.
    """

    delivered: float = 0.97
    opened: float = 0.25
    clicked: float = 0.30
    again: float = 0.10
    unsubscribed: float = 0.01


@dataclass(slots=True)
class Journey:
    """A push on its way, and the steps that are still to come, the next one first."""

    push: Push
    steps: list[str] = field(default_factory=list)


class PushProvider:
    """Runs one campaign over subscribed devices, one transaction for each ``advance``.

    The same seed over the same devices gives the same steps in the same order.
    """

    def __init__(
        self,
        campaign: Campaign,
        *,
        seed: int = 1,
        rates: Rates | None = None,
        chunk: int = 50,
        audience: int | None = None,
    ) -> None:
        """chunk: pushes that are sent in one transaction. audience: how many devices it goes to at
        most, those that were sent to before included; None: all that are subscribed."""
        self.campaign = campaign
        self.rates = rates or Rates()
        self.chunk = chunk
        self.audience = audience
        self.sent = 0
        self._seed = seed
        self._random = random.Random(seed)
        # Which of an hour's rows in the roll-up are this one's to add to.
        self._shard = random.randrange(SHARDS)
        self._underway: list[Journey] = []
        self._last_device = 0
        self._last_push = 0
        self._all_sent = False

    @property
    def finished(self) -> bool:
        """Every push was sent, and nothing more will happen to any of them."""
        return self._all_sent and not self._underway

    @property
    def done_before(self) -> int:
        """Pushes of this campaign with lower ids have nothing left to do."""
        first = min((journey.push.pk for journey in self._underway), default=None)
        return first if first is not None else self._last_push + 1

    @property
    def missing_devices(self) -> int:
        """How many more must there be for the whole audience to be sent to."""
        if self.audience is None:
            return 0
        ahead = Device.objects.filter(unsubscribed_at=None, pk__gt=self._last_device).count()
        return max(0, self.audience - self.sent - ahead)

    def resume(self, done_before: int = 0) -> None:
        """Take over a campaign that another provider has begun; only its rows are known.

        done_before: its pushes with lower ids need not be looked at.
        """
        pushes = self.campaign.pushes.select_related("device")
        newest = pushes.order_by("-device_id").first()
        self.sent = self.campaign.pushes.count()
        self._last_device = newest.device_id if newest else 0
        self._last_push = done_before - 1
        for push in pushes.filter(pk__gte=done_before).order_by("pk").iterator(chunk_size=2000):
            self._last_push = push.pk
            left = self._steps(push.device_id)[push.steps_done :]
            if left:
                self._underway.append(Journey(push, left))

    def advance(self, at_most: int | None = None) -> int:
        """Do the next thing, whatever it is, and return how many events were emitted for it.

        at_most: emit no more events than this; None: no limit.
        """
        emitted = self._advance(at_most)
        if self.finished and self.campaign.state == Campaign.State.RUNNING:
            self._finish()
        return emitted

    def _advance(self, at_most: int | None) -> int:
        if not self._all_sent and len(self._underway) < self.chunk:
            devices = self._next_devices(at_most)
            if devices:
                self.send(devices)
                return len(devices)
        if not self._underway:
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

    def _next_devices(self, at_most: int | None) -> list[Device]:
        """Those that are sent to next; none when there are no more, or none is wanted."""
        if at_most == 0:
            return []
        room = self.chunk if self.audience is None else self.audience - self.sent
        limit = min(self.chunk, room, *([] if at_most is None else [at_most]))
        after = Device.objects.filter(unsubscribed_at=None, pk__gt=self._last_device)
        devices = list(after.order_by("pk")[:limit]) if limit > 0 else []
        self._all_sent = not devices
        return devices

    def send(self, devices: Sequence[Device]) -> list[Push]:
        """Send to these devices: one transaction, one row and one event for each of them."""
        now = timezone.now()
        with transaction.atomic():
            if self.campaign.state == Campaign.State.DRAFT:
                self._start(now)
            pushes = Push.objects.bulk_create(
                [Push(campaign=self.campaign, device=device, sent_at=now) for device in devices]
            )
            CampaignStats.objects.add(self.campaign.pk, now, self._shard, sent=len(pushes))
            emit_many(
                "push.sent",
                [
                    {
                        "data": self._data(push, now),
                        "requester": self.campaign.requester,
                        "subject": self.campaign.subject,
                        "occurred_at": now,
                    }
                    for push in pushes
                ],
            )
        self.sent += len(pushes)
        self._last_device = max(device.pk for device in devices)
        self._last_push = max(push.pk for push in pushes)
        self._underway += [Journey(push, self._steps(push.device_id)) for push in pushes]
        return pushes

    def record(self, push: Push, step: str) -> bool:
        """Write one step to the push, count it and emit its event, in one transaction.

        step: ``delivered``, ``opened``, ``clicked`` or ``unsubscribed``. Where another provider
        has recorded it since this push was read, nothing is done and the answer is False.
        """
        now = timezone.now()
        counts = {step: 1}
        known: dict[str, Any] = {f"{step}_at": getattr(push, f"{step}_at")}
        changes: dict[str, Any] = {f"{step}_at": known[f"{step}_at"] or now}
        if column := REPEATED.get(step):
            known = {column: getattr(push, column)}
            changes[column] = known[column] + 1
            counts[f"{step}_unique"] = int(not known[column])
        elif known[f"{step}_at"] is not None:
            return False
        with transaction.atomic():
            if not Push.objects.filter(pk=push.pk, **known).update(**changes):
                return False
            CampaignStats.objects.add(self.campaign.pk, now, self._shard, **counts)
            if step == "unsubscribed":
                push.device.unsubscribed_at = now
                push.device.save(update_fields=["unsubscribed_at"])
            emit(
                f"push.{step}",
                self._data(push, now),
                requester=self.campaign.requester,
                subject=self.campaign.subject,
                occurred_at=now,
            )
        for name, value in changes.items():
            setattr(push, name, value)
        return True

    def fail(self, push: Push) -> None:
        """Write that the device could not be reached."""
        now = timezone.now()
        with transaction.atomic():
            if Push.objects.filter(pk=push.pk, failed_at=None).update(failed_at=now):
                CampaignStats.objects.add(self.campaign.pk, now, self._shard, failed=1)
        push.failed_at = now

    def _start(self, now: datetime) -> None:
        if self.audience is None:
            self.audience = Device.objects.filter(unsubscribed_at=None).count()
        self.campaign.state = Campaign.State.RUNNING
        self.campaign.started_at = now
        self.campaign.audience = self.audience
        self.campaign.save(update_fields=["state", "started_at", "audience"])

    def _finish(self) -> None:
        ended = {"state": Campaign.State.FINISHED, "finished_at": timezone.now()}
        # Not where somebody has cancelled it meanwhile.
        running = Campaign.objects.filter(pk=self.campaign.pk, state=Campaign.State.RUNNING)
        if running.update(**ended):
            self.campaign.state, self.campaign.finished_at = ended.values()

    def _steps(self, device_id: int) -> list[str]:
        """All that will happen to one push after it was sent."""
        dice = random.Random(f"{self._seed}/{device_id}")
        if dice.random() >= self.rates.delivered:
            return [FAILED]
        steps = ["delivered"]
        if dice.random() < self.rates.opened:
            steps.append("opened")
            clicks = dice.random() < self.rates.clicked
            steps += ["clicked"] * clicks
            if dice.random() < self.rates.again:
                steps.append("opened")
            if clicks and dice.random() < self.rates.again:
                steps.append("clicked")
        if dice.random() < self.rates.unsubscribed:
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
