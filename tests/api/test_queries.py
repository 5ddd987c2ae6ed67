"""A list or a detail costs the same number of statements at ten rows as at a thousand."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.api.conftest import Speaker
from tests.api.test_isolation import GETS, filled
from tests.api.test_routes import Route
from webhooks.models import Delivery, DeliveryAttempt, Event, Replay, SigningSecret, Subscription
from webhooks.models.delivery import State

FEW, MANY = 10, 1000


def grow(speaker: Speaker, count: int) -> dict[str, str]:
    """So many rows of every kind, nested ones in one; the ids of that one, by its place."""
    now = timezone.now()
    subscriptions = Subscription.objects.bulk_create(
        Subscription(
            requester=speaker.requester,
            application=speaker.application,
            callback_url="http://127.0.0.1:9/in",
            event_types=["order.*"],
            status="subscribed",
            scopes="webhooks:read",
        )
        for _ in range(count)
    )
    SigningSecret.objects.bulk_create(
        SigningSecret(subscription=each, value="x", last_four="last") for each in subscriptions
    )
    first = Event.objects.count() + 1
    events = Event.objects.bulk_create(
        Event(
            type="order.paid",
            requester=("", speaker.requester)[n % 2],
            data='{"order": 1}',
            seq=first + n,
            fanned_out_at=now,
        )
        for n in range(count)
    )
    own = Event.objects.create(type="order.paid", requester=speaker.requester, data="{}")
    deliveries = Delivery.objects.bulk_create(
        [
            *(
                Delivery(
                    event=event,
                    subscription=subscriptions[0],
                    state=State.DELIVERED,
                    settled_at=now,
                )
                for event in events
            ),
            *(Delivery(event=own, subscription=each) for each in subscriptions),
        ]
    )
    DeliveryAttempt.objects.bulk_create(
        DeliveryAttempt(
            subscription=subscriptions[0],
            message_id=deliveries[0].webhook_id,
            due_at=now,
            started_at=now,
            excerpt="x" * 100,
        )
        for _ in range(count)
    )
    replays = Replay.objects.bulk_create(
        Replay(subscription=subscriptions[0], from_at=now - timedelta(days=1), to_at=now)
        for _ in range(count)
    )
    return {
        "subscriptions": subscriptions[0].pk,
        "replays": replays[0].pk,
        "events": own.pk,
        "deliveries": deliveries[0].pk,
        "event-types": "order.paid",
    }


@pytest.mark.parametrize("route", GETS, ids=str)
def test_the_number_of_statements_is_constant(route: Route, speak: Callable[..., Speaker]) -> None:
    def statements(name: str, count: int) -> list[str]:
        speaker = speak(name)
        path = filled(route, grow(speaker, count))
        speaker.get(path)
        with CaptureQueriesContext(connection) as queries:
            answer = speaker.get(path + ("?limit=100" if route.pages else ""))
        assert answer.status_code == 200, answer.content
        if route.pages and not route.path.startswith("event-types"):
            assert len(answer.json()["results"]) >= min(100, count)
        return [query["sql"] for query in queries.captured_queries]

    few, many = statements("few", FEW), statements("many", MANY)
    assert len(many) <= len(few), "\n".join(many)
    assert len(many) <= 12


@pytest.mark.parametrize("path", ["subscriptions/", "events/", "deliveries/"])
def test_lists_do_not_read_what_they_do_not_show(path: str, api: Speaker) -> None:
    grow(api, FEW)
    with CaptureQueriesContext(connection) as queries:
        api.get(path)
    read = " ".join(query["sql"] for query in queries.captured_queries)
    assert '"webhooks_event"."data"' not in read
    assert '"webhooks_signingsecret"."value"' not in read


@pytest.mark.postgres
def test_a_page_of_deliveries_reads_each_subscription_to_its_limit_only(api: Speaker) -> None:
    grow(api, MANY)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE webhooks_delivery")
    with CaptureQueriesContext(connection) as queries:
        api.get("deliveries/")
    [sql] = [query["sql"] for query in queries.captured_queries if "LATERAL" in query["sql"]]
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {sql}")
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert "Scan Backward using webhooks_delivery_of" in plan, plan
