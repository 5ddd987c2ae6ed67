"""Who works now, and whether what runs by the clock has run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from webhooks.conf import settings
from webhooks.engine.wake import queue_size
from webhooks.health.verdicts import HEARTBEAT, as_text
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
    """What runs by the clock. ran_at: None: never yet. late: of the run that has not come; None: it
    is in time. began_late: of the last run, behind its planned time; None: not known."""

    name: str
    every: timedelta
    ran_at: datetime | None = None
    late: timedelta | None = None
    began_late: timedelta | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON values alone. late_s: 0 where it is in time, None where it never ran."""
        late = self.late or timedelta()
        return {
            "last_run_at": as_text(self.ran_at),
            "late_s": None if self.ran_at is None else round(late.total_seconds(), 1),
        }


@dataclass(frozen=True, slots=True)
class Crew:
    """queue: tasks that wait in the django-q2 queue; None: the broker does not say."""

    workers: list[AtWork]
    queue: int | None

    @property
    def in_flight(self) -> int:
        return sum(each.worker.in_flight for each in self.workers)

    @property
    def lanes(self) -> int:
        return sum(each.worker.lanes for each in self.workers)


def crew(now: datetime) -> Crew:
    """Who works at ``now``. One statement, and a question to the broker."""
    workers = Worker.objects.using(settings.database).order_by("slot")
    return Crew(
        [AtWork(each, max(timedelta(), now - each.heartbeat_at)) for each in workers],
        queue_size(),
    )


def schedules(now: datetime) -> tuple[Scheduled, ...]:
    """What runs by the clock, and whether it is late at ``now``. One statement."""
    duties = Duty.objects.using(settings.database).in_bulk(list(SCHEDULES))
    return tuple(_scheduled(name, duties.get(name), now) for name in SCHEDULES)


def _scheduled(name: Duty.Name, duty: Duty | None, now: datetime) -> Scheduled:
    every, grace = SCHEDULES[name]
    if duty is None or duty.ran_at is None:
        return Scheduled(name.value, every)
    late = now - duty.ran_at - every
    began_late = None if duty.late_ms is None else timedelta(milliseconds=duty.late_ms)
    return Scheduled(name.value, every, duty.ran_at, late if late > grace else None, began_late)
