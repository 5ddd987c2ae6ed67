"""``manage.py campaign_schedules``: install the django-q2 schedule of the product's own tasks."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from django_q.models import Schedule

FUNC = "example_project.campaigns.tasks.housekeep"


class Command(BaseCommand):
    help = (
        "Install or update the schedule that, each minute, goes on with interrupted simulations "
        "and counts the webhooks of campaigns. The product's own cluster runs it, not that of the "
        "webhooks."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        wanted = {
            "name": "campaigns: housekeep",
            "schedule_type": Schedule.MINUTES,
            "minutes": 1,
            "repeats": -1,
            "cluster": settings.Q_CLUSTER["name"],
        }
        Schedule.objects.update_or_create(func=FUNC, defaults=wanted)
        self.stdout.write(f"{wanted['name']}: installed")
