"""Is a page of the admin quick, and does it cost the same statements, at a million rows?

The pages are found in the admin site's registry and in each ModelAdmin's routes: what is added
there is measured here. Each is asked for over HTTP (without a network: Django's test client) as a
superuser, among a thousand and among a million events, deliveries and attempts. Good: half of the
answers within 300 ms, and as many statements at a million as at a thousand.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from tests.benchmarks import history
from tests.benchmarks.database import empty, own_database
from tests.benchmarks.harness import Figure, Options, alone

FEW, QUICK, MANY = 1000, 20_000, 1_000_000
#: Milliseconds that half of the answers may take.
AT_MOST = 300.0
#: What is asked for beside the plain page, by the model's name: what people look at most.
QUERIES = {
    "webhookhealth": ("range=1h", "range=24h", "range=7d", "range=30d"),
    "deadletter": ("reason=timeout", "subscription={subscription}&reason=timeout"),
    "event": ("since=all", "since=all&p=9", "q={event}"),
    "delivery": ("since=all", "since=all&state__exact=dead", "q={delivery}"),
    "deliveryattempt": ("since=all", "q={event}"),
}


def measure(options: Options) -> list[Figure]:
    many, times = (QUICK, 5) if options.quick else (MANY, 11)
    with own_database():
        few = _statements(FEW)
        figures = []
        empty_all()
        history.fill(many)
        client = _client()
        for name, address in _pages():
            case = f"{name}, {many:,} rows"
            statements = _cost(client, address)
            if statements is None:
                continue
            ms = [_milliseconds(client, address) for _ in range(times)]
            figures.append(alone(f"admin: {case}", "ms", ms, at_most=AT_MOST))
            expected = few.get(name)
            figures.append(
                Figure(
                    f"admin: {case}",
                    "statements",
                    statements,
                    expected,
                    wanted=f"{expected}",
                    good=expected is not None and statements == expected,
                )
            )
        return figures


def empty_all() -> None:
    """Remove the rows of ours that :func:`empty` leaves."""
    from webhooks.models import DeadLetterRun, Duty, Replay

    empty()
    for model in (DeadLetterRun, Replay, Duty):
        model.objects.all().delete()


def _statements(rows: int) -> dict[str, int | None]:
    """The statements of each page, among so many rows."""
    empty_all()
    history.fill(rows)
    client = _client()
    return {name: _cost(client, address) for name, address in _pages()}


def _client() -> Any:
    from django.contrib.auth.models import User
    from django.test import Client

    user, _made = User.objects.get_or_create(username="ada", is_staff=True, is_superuser=True)
    client = Client()
    client.force_login(user)
    return client


def _cost(client: Any, address: str) -> int | None:
    """The statements of a page; None where GET shows none (an action, a redirect)."""
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    if client.get(address).status_code != 200:  # and what is read once, has been
        return None
    with CaptureQueriesContext(connection) as queries:
        client.get(address)
    return len(queries)


def _milliseconds(client: Any, address: str) -> float:
    began = time.perf_counter()
    client.get(address)
    return (time.perf_counter() - began) * 1000


def _pages() -> Iterator[tuple[str, str]]:
    """Name and address of each page of our models, as far as it can be addressed."""
    from django.contrib import admin
    from django.contrib.admin.utils import quote
    from django.urls import NoReverseMatch, reverse

    known = _known()
    for model, model_admin in admin.site._registry.items():
        if model._meta.app_label != "webhooks":
            continue
        newest = model._default_manager.order_by("-pk").first()
        own = known | {"object_id": quote(newest.pk) if newest else ""}
        for route in model_admin.get_urls():
            wanted = set(route.pattern.converters)
            if not route.name or not wanted <= own.keys():
                continue
            kwargs = {name: own[name] for name in wanted}
            try:
                address = reverse(f"admin:{route.name}", kwargs=kwargs)
            except NoReverseMatch:
                continue
            name = route.name.removeprefix("webhooks_")
            yield name, address
            if name.endswith("_changelist"):
                for query in QUERIES.get(model._meta.model_name, ()):
                    yield f"{name}?{query}", f"{address}?{query.format(**known)}"


def _known() -> dict[str, str]:
    """What routes and queries name beside the row itself: a run, a replay, a form of export."""
    from django.utils import timezone

    from webhooks.models import DeadLetterRun, Delivery, Event, Replay, Subscription

    newest = Subscription.objects.order_by("-pk")[0]
    dead = Delivery.objects.filter(state="dead", reason="timeout").order_by("-pk")[0]
    now = timezone.now()
    replay, _made = Replay.objects.get_or_create(
        subscription=newest, defaults={"from_at": now, "to_at": now, "state": "finished"}
    )
    run, _made = DeadLetterRun.objects.get_or_create(action="retry", state="finished")
    return {
        "run_id": run.pk,
        "replay_id": replay.pk,
        "form": "csv",
        "subscription": dead.subscription_id,
        "delivery": dead.pk,
        "event": Event.objects.order_by("-pk")[0].pk,
    }
