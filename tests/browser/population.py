"""A world with something to see on every page: run within the example project's processes."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.contrib.admin.utils import quote
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.urls import reverse
from django.utils import timezone
from django.utils.http import urlencode

from example_project.campaigns import counting, simulator
from example_project.campaigns.models import Campaign, CampaignStats, Simulation
from example_project.campaigns.provider import PushProvider, simulate_devices
from webhooks import dead_letters, emit, emit_many, lifecycle, redelivery, tasks
from webhooks.models import (
    DeadLetterRun,
    Delivery,
    DeliveryAttempt,
    DeliveryStats,
    Event,
    Message,
    Replay,
    Subscription,
)
from webhooks.models.dead_letters import Matching

#: How somebody works: with the scripts of the pages, without any, by the keyboard alone.
WAYS = ("script", "plain", "keys")
#: What breaks a layout that has not thought of it.
LONG = "unbreakable" * 5


def found(name: str, password: str) -> None:
    """The tables, the schedules, somebody who may log in."""
    call_command("migrate", verbosity=0, interactive=False)
    call_command("webhooks_schedules", verbosity=0)
    get_user_model().objects.create_superuser(name, "", password)


def subscribe(name: str, url: str, **options: Any) -> Subscription:
    """The subscription of one client, which receives all that is emitted for ``app:<name>``."""
    made, _secret = lifecycle.subscribe(
        requester=f"app:{name}", callback_url=url, event_types=["push.*"], **options
    )
    return made


def push(name: str, count: int = 1, event_type: str = "push.opened") -> None:
    """So many events for one client."""
    emit_many(
        event_type,
        [
            {"data": {"push": i, "note": LONG}, "requester": f"app:{name}", "subject": f"push:{i}"}
            for i in range(count)
        ],
    )


def populate(good: str, failing: str) -> dict[str, str]:
    """Emit, wait until workers have done what they can, ask for the rest; ids by what they are.

    good, failing: callback URLs of receivers that answer 2xx, or 500.
    """
    made = {
        "good": subscribe("good", good, description="Takes everything"),
        "failing": subscribe("failing", failing, retry_schedule=[]),
        "retrying": subscribe("retrying", failing, retry_schedule=[3600, 3600]),
        "held": subscribe("held", good),
        "left": subscribe("left", good),
        "asked": subscribe("asked", failing, handshake="x-hook-secret"),
        "daily": subscribe("daily", good, trigger="daily"),
        "batched": subscribe("batched", good, batch_size=5, batch_seconds=1),
        "long": subscribe(LONG, f"{good}/{LONG}/{LONG}?{LONG}", description=LONG),
    }
    counts = {"good": 12, "failing": 4, "retrying": 2, "daily": 3, "batched": 5}
    for name, count in counts.items():
        push(name, count)
    push(LONG)
    lifecycle.suspend(made["held"], reason="operator", actor="staff:admin")
    push("held", 2)
    lifecycle.change_status(made["left"], "unsubscribed", reason="operator", actor="staff:admin")
    emit("push.sent", {"push": 1}, requester="app:nobody")
    now = timezone.now()

    settled = Delivery.objects.exclude(state="pending")
    for name in ("good", "failing", "batched"):
        rows = settled.filter(subscription=made[name])
        wait_for(lambda rows=rows, name=name: rows.count() == counts[name], f"ends of {name}")
    tried = Delivery.objects.filter(subscription=made["retrying"], attempts__gt=0)
    wait_for(tried.exists, "a failed try")

    asked = redelivery.ReplayRequest(
        start=now - timedelta(hours=1), end=timezone.now(), states=["delivered"]
    )
    redelivery.replay(made["good"], asked, actor="staff:admin")
    which = Matching(subscription_id=made["failing"].pk, types=("push.sent",))
    dead_letters.begin("discard", which, actor="staff:admin", note="Of no use now.")
    return {name: subscription.pk for name, subscription in made.items()}


def neglect(url: str) -> None:
    """Something is due from now on."""
    subscribe("waiting", url)
    push("waiting")


def traffic(name: str, url: str, count: int, clients: int = 1) -> None:
    """Events for so many clients at one receiver, of which none is retried."""
    for i in range(clients):
        subscribe(f"{name}-{i}", url, retry_schedule=[])
        push(f"{name}-{i}", count)


def campaigns() -> None:
    """One in each state: a draft, one that was sent, one that was cancelled, one under way."""
    Campaign.objects.create(name="A draft", requester="app:good", message="Not sent yet.")
    made = [
        Campaign.objects.create(name=name, requester="app:good", message=LONG)
        for name in ("Sent to everybody", "Stopped", "Under way")
    ]
    for campaign in made:
        simulator.start(campaign, 40, actor="staff:admin")
    simulator.cancel(made[1])
    # Held by a process that nobody has heard of for less than a lease.
    now = timezone.now()
    Simulation.objects.filter(campaign=made[2]).update(holder=uuid.uuid4(), heartbeat_at=now)
    # Nothing moves any more when the pages are looked for.
    wait_for(Campaign.objects.filter(pk=made[0].pk, state="finished").exists, "end of a campaign")
    moving = Delivery.objects.filter(state="pending", subscription__requester="app:good")
    unheard = Event.objects.filter(fanned_out_at=None)
    wait_for(lambda: not unheard.exists() and not moving.exists(), "end of its deliveries")


def cast(good: str, healing: str, failing: str) -> dict[str, dict[str, str]]:
    """For each way of working those that somebody will work on: subscriptions, deliveries, events.

    healing: fails now, and will not later.
    """
    found: dict[str, dict[str, str]] = {}
    subscriptions = {}
    for way in WAYS:
        early = emit("push.sent", {"push": 1}, requester=f"app:late-{way}")
        # Before its subscriber comes, however busy the worker is.
        wait_for(lambda pk=early.pk: _is_fanned_out(pk), "fan-out of an event")
        made = {
            **{name: subscribe(f"{name}-{way}", good) for name in ("sent", "held", "kept")},
            **{name: subscribe(f"{name}-{way}", good) for name in ("switched", "rotated", "ended")},
            "late": subscribe(f"late-{way}", good),
            "retried": subscribe(f"retried-{way}", failing, retry_schedule=[3600, 3600]),
            "dead": subscribe(f"dead-{way}", healing, retry_schedule=[]),
        }
        for name in ("held", "kept"):
            lifecycle.suspend(made[name], reason="operator", actor="staff:admin")
        for name, count in {"sent": 3, "held": 2, "kept": 1, "retried": 1, "dead": 3}.items():
            push(f"{name}-{way}", count)
        found[way] = {name: each.pk for name, each in made.items()}
        found[way]["early"] = early.pk
        subscriptions[way] = made
    for way, made in subscriptions.items():
        rows = Delivery.objects.filter(subscription__in=made.values())
        wait_for(lambda rows=rows: rows.count() == 10, "deliveries")
        wait_for(lambda rows=rows: rows.filter(state="pending").count() == 4, "ends of them")
        wait_for(lambda rows=rows: rows.filter(state="pending", attempts=1).exists(), "a failure")
        for name in ("sent", "kept", "retried"):
            delivery = rows.filter(subscription=made[name])[0]
            found[way][f"delivery-{name}"] = delivery.pk
            found[way][f"event-{name}"] = delivery.event_id
    return found


def pages() -> list[str]:
    """The pages of one row in each state that there is: each offers other links."""
    found = []
    kinds: dict[Any, str] = {
        **{Subscription: "status", Delivery: "state", Campaign: "state"},
        **{Message: "format", DeliveryAttempt: "error_code"},
    }
    for model, state in kinds.items():
        meta = model._meta
        rows = {getattr(row, state): row for row in model._default_manager.order_by("pk")}
        name = f"admin:{meta.app_label}_{meta.model_name}_change"
        found += [reverse(name, args=[quote(row.pk)]) for row in rows.values()]
    for row in Delivery.objects.filter(state="dead")[:1]:
        group = {"subscription": row.subscription_id, "reason": row.reason}
        found.append(f"{reverse('admin:webhooks_deadletter_changelist')}?{urlencode(group)}")
    for run in DeadLetterRun.objects.all():
        found.append(reverse("admin:webhooks_deadletter_run", args=[run.pk]))
    for replay in Replay.objects.all():
        name = "admin:webhooks_subscription_replay_progress"
        found.append(reverse(name, args=[quote(replay.subscription_id), replay.pk]))
    return found


def show(good: str, failing: str) -> dict[str, str]:
    """A service as one meets it in the afternoon: campaigns, subscribers, one endpoint that fails.

    All of it is emitted, delivered and counted as ever. Only what the roll-ups have counted is
    moved into the past, an hour after each round, so that their charts have more than one of them.
    """
    owner = "app:shop"
    made = {
        name: lifecycle.subscribe(requester=owner, callback_url=url, **options)[0]
        for name, url, options in (
            ("crm", good, {"event_types": ["push.*"], "description": "CRM"}),
            ("clicks", good, {"event_types": ["push.clicked"], "description": "Attribution"}),
            (
                "warehouse",
                failing,
                {
                    "event_types": ["push.opened", "push.unsubscribed"],
                    "description": "Warehouse",
                    "retry_schedule": [],
                },
            ),
            (
                "report",
                good,
                {"event_types": ["push.*"], "trigger": "daily", "description": "Daily report"},
            ),
        )
    }
    message = "Everything must go."
    first, last = (
        Campaign.objects.create(name=name, requester=owner, message=message)
        for name in ("Autumn sale", "Members' evening")
    )
    Campaign.objects.create(name="Black Friday", requester=owner, message=message)
    simulate_devices(1200, seed=1)
    provider = PushProvider(first, seed=1, audience=1200)
    rounds = (120, 180, 260, 340, 300, 240, 160)
    for steps in rounds:
        for _ in range(steps):
            provider.advance()
        settle()
        into_the_past()
    while not provider.finished:
        provider.advance()
    Campaign.objects.filter(pk=first.pk).update(
        started_at=timezone.now() - timedelta(hours=len(rounds), minutes=10)
    )
    simulator.start(last, 200, actor="staff:admin")
    wait_for(Campaign.objects.filter(pk=last.pk, state="finished").exists, "end", seconds=90)
    settle()
    tasks.tick()
    counting.count(first)
    counting.count(last)
    dead = Delivery.objects.filter(state="dead").order_by("-pk").first()
    found = {name: each.pk for name, each in made.items()}
    return {
        **found,
        "campaign": str(first.pk),
        "delivery": dead.pk if dead else "",
        "event": Event.objects.filter(type="push.opened").order_by("pk")[0].pk,
    }


def settle() -> None:
    """Wait until workers have sent what they can."""
    waiting = Delivery.objects.filter(state="pending", attempts=0)
    waiting = waiting.exclude(subscription__trigger="daily")
    unheard = Event.objects.filter(fanned_out_at=None)
    parked = Subscription.objects.filter(lane__paused_until__gt=timezone.now())
    wait_for(
        lambda: not unheard.exists() and not waiting.exclude(subscription__in=parked).exists(),
        "end of it",
        seconds=60,
    )


def into_the_past() -> None:
    """Move what was counted by an hour; the oldest first, since two rows may not meet."""
    for row in DeliveryStats.objects.order_by("bucket"):
        DeliveryStats.objects.filter(pk=row.pk).update(bucket=row.bucket - timedelta(hours=1))
    for row in CampaignStats.objects.order_by("hour"):
        CampaignStats.objects.filter(pk=row.pk).update(hour=row.hour - timedelta(hours=1))


def _is_fanned_out(pk: str) -> bool:
    return Event.objects.filter(pk=pk, fanned_out_at__isnull=False).exists()


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 40) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"There were no {what} within {seconds:.0f} s.")
        time.sleep(0.1)
