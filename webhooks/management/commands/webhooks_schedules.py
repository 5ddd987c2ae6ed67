"""``manage.py webhooks_schedules``: install the django-q2 schedules, as often as one likes."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone
from django_q.models import Schedule

from webhooks.conf import settings

SCHEDULES = (
    ("webhooks: sweep", "webhooks.tasks.sweep", {"schedule_type": Schedule.MINUTES, "minutes": 1}),
    # At minute 0: hours, days and months end there, in almost every time zone.
    ("webhooks: tick", "webhooks.tasks.tick", {"schedule_type": Schedule.HOURLY}),
    ("webhooks: prune", "webhooks.tasks.prune", {"schedule_type": Schedule.DAILY}),
)


class Command(BaseCommand):
    help = "Install or update the django-q2 schedules: sweep (each minute), tick (hourly), prune."

    def handle(self, *args: Any, **options: Any) -> None:
        for name, func, when in SCHEDULES:
            wanted = {
                "func": func,
                "repeats": -1,
                "cluster": settings.CLUSTER,
                "args": None,
                "kwargs": None,
                "hook": None,
                **when,
            }
            # By function: a schedule that somebody renamed is still ours. A second one would be
            # harmless, and useless.
            ours = list(Schedule.objects.filter(func=func).order_by("pk"))
            if not ours:
                Schedule.objects.create(name=name, next_run=_first_run(wanted), **wanted)
                self.stdout.write(f"{name}: installed")
                continue
            Schedule.objects.filter(pk__in=[extra.pk for extra in ours[1:]]).delete()
            if _is_astray(ours[0]):
                wanted["next_run"] = _first_run(wanted)
            changed = Schedule.objects.filter(pk=ours[0].pk).exclude(**wanted).update(**wanted)
            self.stdout.write(f"{name}: {'updated' if changed else 'as it should be'}")


def _first_run(wanted: dict[str, Any]) -> datetime:
    """Now; for what runs hourly, the last full hour, so that all its runs are at minute 0."""
    now = timezone.now()
    if wanted["schedule_type"] != Schedule.HOURLY:
        return now
    return now.replace(minute=0, second=0, microsecond=0)


def _is_astray(schedule: Schedule) -> bool:
    """Whether an hourly one was moved away from minute 0."""
    moment = schedule.next_run
    return schedule.schedule_type == Schedule.HOURLY and moment is not None and moment.minute != 0
