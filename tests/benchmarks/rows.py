"""The rows that the benchmarks work on: subscriptions, and events that wait for fan-out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.benchmarks.harness import DATA

REQUESTER = "app:{}"


def subscriptions(count: int, url: str, *, together: bool = False, first: int = 0) -> list[Any]:
    """So many live subscriptions at a URL, each with a secret and a lane of its own.

    together: all of one requester, ``app:0``; else each of its own, from ``app:<first>`` on.
    Written in bulk: the API would take its 100 a requester and a transaction for each.
    """
    from webhooks.crypto import Sealed, seal
    from webhooks.lifecycle import subscribe
    from webhooks.models import Lane, SigningSecret, Subscription

    # One is made as clients make it, and the others are its copies.
    whose = REQUESTER.format(first)
    original, secret = subscribe(requester=whose, callback_url=url, event_types=["order.*"])
    sealed = Sealed(seal(secret))
    made = [
        Subscription(
            requester=whose if together else REQUESTER.format(first + place),
            callback_url=url,
            event_types=["order.*"],
            status=original.status,
        )
        for place in range(1, count)
    ]
    Subscription.objects.bulk_create(made, batch_size=500)
    SigningSecret.objects.bulk_create(
        [SigningSecret(subscription=each, value=sealed, last_four="0000") for each in made],
        batch_size=500,
    )
    Lane.objects.bulk_create([Lane(subscription=each) for each in made], batch_size=500)
    return [original, *made]


def events(count: int, requesters: int, *, data: Any = DATA, first: int = 0) -> Sequence[Any]:
    """So many events in the outbox, in turn for ``app:<first>`` and those that follow it."""
    from django.conf import settings
    from django.test import override_settings

    from webhooks import emit_many

    with override_settings(WEBHOOKS=settings.WEBHOOKS | {"WAKER": None}):
        return emit_many(
            "order.paid",
            (
                {"data": data, "requester": REQUESTER.format(first + place % requesters)}
                for place in range(count)
            ),
        )


def backlog(subscription: Any, count: int) -> None:
    """So many due deliveries of one subscription, as fan-out would have left them.

    One goes the usual way; the database copies it. Millions would take hours the usual way.
    """
    from django.db import connection

    from webhooks.engine.fanout import fan_out
    from webhooks.models import Delivery, Duty, Event

    Duty.objects.ensure()
    event = events(1, 1)[0]
    while fan_out("default").more:
        pass
    delivery = Delivery.objects.get(event=event)
    # Ids of a time long ago, so that none of them meets one that is made now.
    number = (
        "lpad(to_hex(n), 32, '0')::uuid"
        if connection.vendor == "postgresql"
        else "printf('%%032x', n)"
    )
    series = (
        "generate_series(1, %s) AS series(n)"
        if connection.vendor == "postgresql"
        else "(WITH RECURSIVE series(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM series "
        "WHERE n < %s) SELECT n FROM series) AS series"
    )
    for model, original, own in (
        (Event, event, {"id": number, "seq": "-n"}),
        (Delivery, delivery, {"id": number, "event_id": number}),
    ):
        table = model._meta.db_table
        columns = [field.column for field in model._meta.concrete_fields]
        chosen = ", ".join(own.get(column, f"original.{column}") for column in columns)
        pk = model._meta.get_field("id").get_db_prep_value(original.pk, connection)
        with connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO {table} ({', '.join(columns)}) SELECT {chosen} "
                f"FROM {table} original CROSS JOIN {series} WHERE original.id = %s",
                [count, pk],
            )
