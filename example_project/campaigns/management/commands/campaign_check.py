"""``manage.py campaign_check``: do the pushes, their roll-up and the events agree?"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from example_project.campaigns import checking, counting
from example_project.campaigns.models import Campaign


class Command(BaseCommand):
    help = (
        "Compare the pushes of campaigns with their roll-up and with the events, hour by hour; "
        "exit 1 where they disagree. For campaigns at rest."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("campaigns", nargs="*", type=int, help="ids; none: all that have begun")
        parser.add_argument(
            "--repair", action="store_true", help="write the roll-up anew, from the pushes"
        )

    def handle(self, *args: Any, campaigns: list[int], repair: bool, **options: Any) -> None:
        found = Campaign.objects.exclude(state=Campaign.State.DRAFT).order_by("pk")
        if campaigns:
            found = found.filter(pk__in=campaigns)
        wrong = 0
        for campaign in found:
            if repair:
                checking.repair(campaign)
            counting.count(campaign)
            reasons = list(checking.differences(campaign))
            wrong += bool(reasons)
            self.stdout.write(f"{campaign.pk} {campaign}: {'differs' if reasons else 'agrees'}")
            for reason in reasons:
                self.stdout.write(f"  {reason}")
        if wrong:
            raise CommandError(
                f"{wrong} of the campaigns disagree. Where roll-up and rows differ, --repair "
                "writes the roll-up anew; where events do, a step was recorded without emit(), "
                "or its events were pruned."
            )
