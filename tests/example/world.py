"""What the cases of the push dashboard share; imported under the example's settings alone."""

from __future__ import annotations

import re
from typing import Any

from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from example_project.campaigns.models import Campaign
from example_project.campaigns.provider import PushProvider, simulate_devices
from webhooks.models import Delivery, Event, Subscription


def draft(name: str = "Autumn sale") -> Campaign:
    return Campaign.objects.create(name=name, requester="app:demo", message="Now!")


def sent(devices: int = 60, name: str = "Autumn sale", **options: Any) -> Campaign:
    """A campaign that was sent to new devices, to its end."""
    campaign = draft(name)
    simulate_devices(devices)
    provider = PushProvider(campaign, audience=devices, **options)
    while not provider.finished:
        provider.advance()
    return campaign


def subscriber(pattern: str = "push.*", **options: Any) -> Subscription:
    subscription, _secret = Subscription.objects.subscribe(
        requester="app:demo",
        callback_url="http://127.0.0.1:9/webhooks",
        event_types=[pattern],
        **options,
    )
    return subscription


def deliver(subscription: Subscription, state: str = "delivered", **chosen: Any) -> int:
    """Deliveries of these events in that state; how many."""
    events = [each for each in Event.objects.filter(**chosen) if subscription.covers(each.type)]
    ended = None if state == "pending" else timezone.now()
    Delivery.objects.bulk_create(
        Delivery(event=event, subscription=subscription, state=state, settled_at=ended)
        for event in events
    )
    return len(events)


def staff(*codenames: str) -> Client:
    """A client of a staff user with these permissions (``app.codename``); none: a superuser."""
    user = User.objects.create_user(
        f"user{User.objects.count()}", is_staff=True, is_superuser=not codenames
    )
    for name in codenames:
        app, codename = name.split(".")
        user.user_permissions.add(
            Permission.objects.get(content_type__app_label=app, codename=codename)
        )
    client = Client()
    client.force_login(user)
    return client


def url_of(page: str, *args: Any) -> str:
    return reverse(f"admin:campaigns_campaign_{page}", args=args)


def text_of(html: str) -> str:
    """What a page says, without its elements, on one line."""
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())
