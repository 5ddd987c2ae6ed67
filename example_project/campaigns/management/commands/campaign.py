"""``manage.py campaign``: a push campaign, for whoever waits for its events."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from example_project.campaigns.models import Campaign
from example_project.campaigns.provider import PushProvider, simulate_devices


class Command(BaseCommand):
    help = (
        "Send a campaign to new simulated devices, and have their users open, click and "
        "unsubscribe. Prints the subject of its events, and how many there are."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--devices", type=int, default=10, help="how many (10)")
        parser.add_argument(
            "--requester", default="app:demo", help="whom the events are addressed to (app:demo)"
        )
        parser.add_argument("--seed", type=int, default=1, help="seed of the simulation (1)")

    def handle(self, *args: Any, devices: int, requester: str, seed: int, **options: Any) -> None:
        campaign = Campaign.objects.create(
            name="A campaign", requester=requester, message="Everything must go."
        )
        provider = PushProvider(campaign, seed=seed)
        emitted = len(provider.send(simulate_devices(devices, seed=seed)))
        while not provider.finished:
            emitted += provider.advance()
        self.stdout.write(f"{campaign.subject} {emitted}")
