"""``manage.py webhooks_schedules``: install the django-q2 schedules, as often as one likes."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone
from django_q.models import Schedule

from webhooks.conf import settings

SCHEDULES = (
    ("webhooks: sweep", "webhooks.tasks.sweep", {"schedule_type": Schedule.MINUTES, "minutes": 1}),
    ("webhooks: prune", "webhooks.tasks.prune", {"schedule_type": Schedule.DAILY}),
)


class Command(BaseCommand):
    help = "Install or update the django-q2 schedules of the sweep (each minute) and the pruning."

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
                Schedule.objects.create(name=name, next_run=timezone.now(), **wanted)
                self.stdout.write(f"{name}: installed")
                continue
            Schedule.objects.filter(pk__in=[extra.pk for extra in ours[1:]]).delete()
            changed = Schedule.objects.filter(pk=ours[0].pk).exclude(**wanted).update(**wanted)
            self.stdout.write(f"{name}: {'updated' if changed else 'as it should be'}")
