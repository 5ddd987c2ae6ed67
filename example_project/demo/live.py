"""``manage.py demo``: everything at once, until Ctrl-C."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.db import connections

from example_project.campaigns import counting
from example_project.campaigns.models import Campaign, Device
from example_project.campaigns.provider import PushProvider, simulate_devices
from example_project.demo import services, subscribers
from example_project.demo.api import Api
from example_project.demo.console import Console
from example_project.demo.figures import figures
from example_project.demo.processes import Children
from example_project.demo.stopping import StopSignal
from example_project.demo.subscribers import REQUESTER, Subscriber
from webhooks.conf import settings as webhook_settings

#: Devices that a campaign goes to; when it is finished, the next one starts.
AUDIENCE = 500
#: Seconds between two counts of the campaign's events and deliveries, for its page.
COUNT = 5.0
#: Pushes that are sent at once: few, so that the figures move smoothly.
CHUNK = 10


@dataclass(frozen=True, slots=True)
class Live:
    """What was asked for.

    rate: events for each second. fail: share of requests that the subscribers fail. port: of the
    web server, or the next free one. database: a SQLite file; None: the one in the settings.
    """

    rate: float
    fail: float
    port: int
    seed: int
    database: str | None


def run(asked: Live, console: Console, stop: StopSignal) -> None:
    """Run until Stopped is raised. Raises ChildDied or NotReady with what a child had to say."""
    with ExitStack() as stack:
        logs = Path(
            stack.enter_context(
                tempfile.TemporaryDirectory(prefix="webhooks-demo-", ignore_cleanup_errors=True)
            )
        )
        stack.callback(connections.close_all)
        services.use_database(asked.database or str(settings.DATABASES["default"]["NAME"]))
        console.say("Preparing the database ...")
        services.prepare_database()
        services.staff_user()
        services.draft_campaign()
        secret = services.api_client()
        stop.check()
        port = services.free_port(asked.port)
        origin = services.origin(port)
        children = stack.enter_context(Children(settings.BASE_DIR, logs))
        web = services.start_web(children, port)
        services.await_web(children, stop, port)
        with Api(origin, services.CLIENT_ID, secret) as api:
            subscribed = subscribers.assemble(api, keep=True)
        stop.check()
        receivers = subscribers.start_receivers(
            children, subscribed, fail=asked.fail, seed=asked.seed
        )
        cluster = services.start_cluster(children)
        services.await_cluster(children, stop)
        product = services.start_product_cluster(children)
        console.say("Running:")
        console.columns(
            [
                ("database", settings.DATABASES["default"]["NAME"], ""),
                ("logs", str(logs), "removed at the end"),
                ("web server", f"{origin}/", f"pid {web.pid}"),
                ("cluster", "django-q2, deliveries", f"pid {cluster.pid}"),
                ("product cluster", "django-q2, simulations", f"pid {product.pid}"),
                *subscribers.rows(subscribed, receivers, asked.fail),
                ("campaign", f"{asked.rate:g} events/s", "in this process"),
            ]
        )
        console.say(f"Look at  {origin}/admin/")
        console.say(f"         {origin}/admin/campaigns/campaign/  the push dashboard")
        for each in subscribed:
            if each.digest:
                console.say(f"         {each.origin}/  what a subscriber makes of it")
        console.say(f"Log in   {services.LOGIN} / {services.PASSWORD}  (this demo only)")
        console.say(f"Read     {origin}/webhooks/docs/")
        console.say("Call the API as the demo's client, in another terminal:")
        for line in services.curl(origin, secret):
            console.say(f"  {line}")
        console.say(services.retries())
        console.say("Ctrl-C stops all of it.")
        stack.callback(
            console.say,
            "Stopping the web server, the cluster (once its running task ends, "
            f"{webhook_settings.DRAIN_SECONDS} s at most) and the subscribers ...",
        )
        _campaigns(asked, subscribed, console, children, stop)


def _campaigns(
    asked: Live,
    subscribed: list[Subscriber],
    console: Console,
    children: Children,
    stop: StopSignal,
) -> None:
    """Run one campaign after the other at the wanted rate, and show the figures each second."""
    subscriptions = [subscriber.subscription for subscriber in subscribed]
    campaign, provider = _next_campaign(asked)
    began = time.monotonic()
    emitted = 0
    shown = counted = 0.0
    while True:
        while emitted < asked.rate * (time.monotonic() - began):
            if provider.finished:
                campaign, provider = _next_campaign(asked)
            emitted += provider.advance()
            stop.check()
        if time.monotonic() - shown >= 1:
            shown = time.monotonic()
            children.check()
            console.figures(f"{campaign}: emitted {emitted:,}, {figures(subscriptions)}")
        if time.monotonic() - counted >= COUNT:
            counted = time.monotonic()
            counting.count(campaign)
        stop.pause(0.1)


def _next_campaign(asked: Live) -> tuple[Campaign, PushProvider]:
    number = Campaign.objects.count() + 1
    campaign = Campaign.objects.create(
        name=f"Campaign {number}", requester=REQUESTER, message="Everything must go."
    )
    # Those that have unsubscribed are replaced.
    missing = AUDIENCE - Device.objects.filter(unsubscribed_at=None).count()
    simulate_devices(max(missing, 0), seed=asked.seed + number)
    return campaign, PushProvider(
        campaign, seed=asked.seed + number, chunk=CHUNK, audience=AUDIENCE
    )
