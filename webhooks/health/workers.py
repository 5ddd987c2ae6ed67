"""Who works now, and whether what runs by the clock has run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from webhooks.conf import settings
from webhooks.engine.wake import queue_size
from webhooks.health.verdicts import HEARTBEAT
from webhooks.models import Duty, Worker

#: How often each is to run, and how much later than that is no lateness: django-q2's scheduler
#: ticks every 30 s, and a run takes its time.
SCHEDULES = {
    Duty.Name.SWEEP: (timedelta(minutes=1), timedelta(minutes=1)),
    Duty.Name.TICK: (timedelta(hours=1), timedelta(minutes=2)),
    Duty.Name.PRUNE: (timedelta(days=1), timedelta(hours=1)),
}


@dataclass(frozen=True, slots=True)
class AtWork:
    """A worker, and how long ago it was heard of."""

    worker: Worker
    silent_for: timedelta

    @property
    def is_silent(self) -> bool:
        return self.silent_for > HEARTBEAT


@dataclass(frozen=True, slots=True)
class Scheduled:
    """What runs by the clock. ran_at: None: never yet. late: None: it is in time."""

    name: str
    ran_at: datetime | None
    late: timedelta | None


@dataclass(frozen=True, slots=True)
class Crew:
    """queue: tasks that wait in the django-q2 queue; None: the broker does not say."""

    workers: list[AtWork]
    schedules: list[Scheduled]
    queue: int | None

    @property
    def in_flight(self) -> int:
        return sum(each.worker.in_flight for each in self.workers)


def crew(now: datetime) -> Crew:
    """Who works at ``now``. Two statements, and a question to the broker."""
    using = settings.database
    workers = Worker.objects.using(using).order_by("slot")
    ran_at = dict(Duty.objects.using(using).values_list("name", "ran_at"))
    return Crew(
        [AtWork(each, max(timedelta(), now - each.heartbeat_at)) for each in workers],
        [_scheduled(name, ran_at.get(name.value), now) for name in SCHEDULES],
        queue_size(),
    )


def _scheduled(name: Duty.Name, ran_at: datetime | None, now: datetime) -> Scheduled:
    every, grace = SCHEDULES[name]
    if ran_at is None:
        return Scheduled(name.value, None, None)
    late = now - ran_at - every
    return Scheduled(name.value, ran_at, late if late > grace else None)
