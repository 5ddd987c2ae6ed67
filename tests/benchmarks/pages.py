"""Does a page of the API cost the same, however long the list is? And those of the admin?

A requester's deliveries are listed over HTTP (without a network: Django's test client) at a
thousand and at a million of them, spread over one subscription and over a hundred; so is its feed
of events. Each page has 50 rows. The reference is the short list's page, in turns with the long
one's. Good: a long list's costs at most three times as much.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from tests.benchmarks import admin_pages
from tests.benchmarks.database import own_database
from tests.benchmarks.harness import Figure, Options, compared, left_out

FEW = 1000
#: A long list may cost so many times what a short one does.
AT_MOST = 3.0
PAGES = {
    "newest deliveries": "deliveries/",
    "a state": "deliveries/?state=delivered",
    "from the middle": "deliveries/?cursor={middle}",
    "one subscription's": "deliveries/?subscription={subscription}",
    "newest events": "events/",
}


def measure(options: Options) -> list[Figure]:
    return [*admin_pages.measure(options), *_of_the_api(options)]


def _of_the_api(options: Options) -> list[Figure]:
    if options.database != "postgres":
        return [left_out("pages", "its rows are made by PostgreSQL's generate_series")]
    many, requests = (20_000, 20) if options.quick else (1_000_000, 60)
    figures = []
    with own_database():
        for subscriptions in (1, 100):
            _empty()
            # The short list is the newer one: to the long one's pages it lies in the way.
            long = _fill("long", subscriptions, many, 0)
            short = _fill("short", subscriptions, FEW, many)
            for page, path in PAGES.items():
                case = f"{page}, {many:,} rows of {subscriptions} subscriptions"
                longs, shorts = _milliseconds(path, requests, long, short)
                figures.append(compared(case, "ms", longs, shorts, at_most=AT_MOST))
    return figures


def _milliseconds(path: str, requests: int, *whose: dict[str, str]) -> list[list[float]]:
    """Milliseconds of a page for each requester; in turns, so that noise hits all."""
    found: list[list[float]] = [[] for _ in whose]
    for _ in range(requests):
        for own, ms in zip(whose, found, strict=True):
            began = time.perf_counter()
            answer = _get(path, own)
            ms.append((time.perf_counter() - began) * 1000)
            assert answer.json()["results"], path
    return found


def _get(path: str, own: dict[str, str]) -> Any:
    from django.test import Client

    client = Client(headers={"authorization": f"Bearer {own['token']}"})
    answer = client.get(f"/webhooks/{path.format(**own)}")
    assert answer.status_code == 200, answer.content
    return answer


def _empty() -> None:
    from django.db import connection
    from oauth2_provider.models import AccessToken, Application

    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE webhooks_event, webhooks_subscription CASCADE")
    AccessToken.objects.all().delete()
    Application.objects.all().delete()


def _fill(name: str, subscriptions: int, rows: int, above: int) -> dict[str, str]:
    """A requester with so many deliveries; what stands in ``PAGES``, and its token.

    above: all its ids are beyond this number.
    """
    from django.db import connection
    from django.utils import timezone
    from oauth2_provider.models import AccessToken, Application

    from webhooks.api.pagination import Cursor, encode
    from webhooks.models import Delivery, Event, Subscription

    application = Application.objects.create(
        client_id=name,
        client_type=Application.CLIENT_CONFIDENTIAL,
        authorization_grant_type=Application.GRANT_CLIENT_CREDENTIALS,
    )
    token = AccessToken.objects.create(
        application=application,
        token=name,
        scope="webhooks:read webhooks:write",
        expires=timezone.now() + timedelta(hours=1),
    )
    made = Subscription.objects.bulk_create(
        Subscription(
            requester=f"app:{name}",
            application=application,
            callback_url="https://example.com/in",
            event_types=["order.*"],
            status="subscribed",
        )
        for _ in range(subscriptions)
    )
    first, last = above + 1, above + rows // subscriptions
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO webhooks_event (id, type, requester, subject, data, occurred_at, "
            "created_at, seq, fanned_out_at, fan_out_after) "
            "SELECT lpad(to_hex(n), 32, '0')::uuid, 'order.paid', %s, "
            "'order:' || n, %s, now(), now(), n, now(), '' FROM generate_series(%s, %s) n",
            [f"app:{name}", '{"order": "' + "x" * 400 + '"}', first, last],
        )
        cursor.execute(
            "INSERT INTO webhooks_delivery (id, event_id, subscription_id, state, reason, due_at, "
            "first_due_at, attempts, retries_from, trigger, created_at, settled_at, "
            "clock_stopped_ms) "
            "SELECT lpad(to_hex(n.n::bigint * %s + s.place), 32, '0')::uuid, "
            "lpad(to_hex(n.n), 32, '0')::uuid, s.id, 'delivered', '', now(), now(), 1, 0, '', "
            "now(), now(), 0 FROM generate_series(%s, %s) n CROSS JOIN "
            "(SELECT id, row_number() OVER () AS place FROM webhooks_subscription "
            "WHERE requester = %s) s",
            [subscriptions, first, last, f"app:{name}"],
        )
        for model in (Event, Delivery, Subscription):
            cursor.execute(f"VACUUM ANALYZE {model._meta.db_table}")
    half = Delivery.objects.filter(subscription__requester=f"app:{name}").order_by("pk")
    return {
        "token": token.token,
        "subscription": made[0].pk,
        "middle": encode(Cursor(half[rows // 2].pk)),
    }
