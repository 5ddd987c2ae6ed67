"""``manage.py demo --once``: N events, to the last acknowledgement, and then the tie-out."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.db import connections

from example_project.campaigns.models import Campaign
from example_project.campaigns.provider import PushProvider, simulate_devices
from example_project.demo import services, subscribers
from example_project.demo.api import Api
from example_project.demo.console import Console
from example_project.demo.figures import figures
from example_project.demo.processes import Children
from example_project.demo.stopping import StopSignal
from example_project.demo.subscribers import REQUESTER, Subscriber
from example_project.demo.tieout import Tieout, received, tie_out

#: Seconds between two transactions of the campaign. SQLite's writers do not stand in line: one that
#: comes back at once keeps the others out. Measured with 2,000 events: without a gap 712 events/s,
#: but nothing was fanned out before the last of them (p50 2.3 s); with it 250 to 670 events/s
#: while they are delivered (p50 0.1 to 0.2 s).
GAP = 0.001


@dataclass(frozen=True, slots=True)
class Once:
    """What was asked for.

    events: how many, exactly. fail: share of requests that the subscribers fail. seconds: time
    limit from the first event on. seed: of the simulation and of the failures. database: a SQLite
    file to work in; None: a new one, which is removed afterwards.
    """

    events: int
    fail: float
    seconds: float
    seed: int
    database: str | None


def run(asked: Once, console: Console, stop: StopSignal) -> Tieout:
    """Run it. Raises Stopped, and ChildDied or NotReady with what a child had to say."""
    with ExitStack() as stack:
        directory = Path(
            stack.enter_context(
                tempfile.TemporaryDirectory(prefix="webhooks-demo-", ignore_cleanup_errors=True)
            )
        )
        stack.callback(connections.close_all)
        services.use_database(asked.database or str(directory / "demo.sqlite3"))
        services.prepare_database()
        secret = services.api_client()
        stop.check()
        campaign = Campaign.objects.create(
            name="Demo campaign", requester=REQUESTER, message="Everything must go."
        )
        # Each push is at least one event, so there are devices enough.
        simulate_devices(asked.events, seed=asked.seed)
        children = stack.enter_context(Children(settings.BASE_DIR, directory))
        port = services.free_port(0)
        web = services.start_web(children, port)
        services.await_web(children, stop, port)
        with Api(services.origin(port), services.CLIENT_ID, secret) as api:
            subscribed = subscribers.assemble(api, keep=False)
        stop.check()
        receivers = subscribers.start_receivers(
            children, subscribed, fail=asked.fail, seed=asked.seed
        )
        cluster = services.start_cluster(children)
        console.columns(
            [
                ("database", settings.DATABASES["default"]["NAME"], ""),
                ("web server", f"{services.origin(port)}/webhooks/", f"pid {web.pid}"),
                ("cluster", "django-q2, deliveries", f"pid {cluster.pid}"),
                *subscribers.rows(subscribed, receivers, asked.fail),
            ]
        )
        console.say(services.retries())
        services.await_cluster(children, stop)
        deadline = time.monotonic() + asked.seconds
        _emit(campaign, asked, console, children, stop, deadline)
        late = _settle(subscribed, console, children, stop, deadline)
        console.close()
        return tie_out(
            campaign,
            subscribed,
            [received(subscriber) for subscriber in subscribed],
            asked_for=asked.events,
            late=late,
        )


def _emit(
    campaign: Campaign,
    asked: Once,
    console: Console,
    children: Children,
    stop: StopSignal,
    deadline: float,
) -> None:
    """Run the campaign until exactly so many events were emitted, or time is up."""
    provider = PushProvider(campaign, seed=asked.seed)
    emitted = 0
    shown = 0.0
    while emitted < asked.events and not provider.finished and time.monotonic() < deadline:
        emitted += provider.advance(at_most=asked.events - emitted)
        time.sleep(GAP)
        stop.check()
        if time.monotonic() - shown >= 1:
            shown = time.monotonic()
            children.check()
            console.figures(f"emitted {emitted:,} of {asked.events:,}")


def _settle(
    subscribed: list[Subscriber],
    console: Console,
    children: Children,
    stop: StopSignal,
    deadline: float,
) -> str:
    """Wait until nothing is left to do; "" then, else what was missing when time was up."""
    subscriptions = [subscriber.subscription for subscriber in subscribed]
    while True:
        now = figures(subscriptions)
        console.figures(str(now))
        if now.settled:
            return ""
        if time.monotonic() >= deadline:
            return (
                f"time is up: {now.waiting} events wait for their fan-out, "
                f"{now.pending} deliveries are pending, {now.retrying} of them were tried"
            )
        children.check()
        stop.pause(0.25)
