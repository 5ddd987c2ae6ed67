"""A month of history: events, deliveries, attempts and their statistics, made by the database.

Ids and times spread evenly over the last 30 days, so that "the last 24 hours" is a thirtieth of it.
One delivery in five is dead, one in fifty waits. Made by PostgreSQL and SQLite themselves, in one
statement for each table: a million of each take half a minute.
"""

from __future__ import annotations

import time
from typing import Any

from tests.benchmarks.database import analyze

SUBSCRIPTIONS, TYPES = 100, 10
DAYS = 30
#: What ended in which way, in the statistics.
CODES = ("", "timeout", "server_error", "dns_error")
#: Buckets of the statistics, as ``compact`` leaves them: width in seconds, and how many.
BUCKETS = ((300, 48 * 12), (3600, (DAYS - 2) * 24))


def fill(count: int) -> None:
    """So many events, deliveries and attempts of a hundred subscriptions, and what was counted."""
    from webhooks.models import Delivery, DeliveryAttempt, Duty, Event, Lane, Message, Subscription

    made = Subscription.objects.bulk_create(
        Subscription(
            requester=f"app:{place}",
            callback_url=f"https://subscriber-{place}.example/in",
            event_types=["*"],
            status="subscribed",
            trigger="realtime" if place % 5 else "daily",
            hour=place % 24,
        )
        for place in range(SUBSCRIPTIONS)
    )
    now = int(time.time() * 1000)
    from django.utils import timezone

    Lane.objects.bulk_create(
        Lane(subscription=each, failures=place % 9, last_failure_at=timezone.now())
        for place, each in enumerate(made)
    )
    Message.objects.create(subscription=made[0], body_digest="0" * 64)
    Duty.objects.ensure()
    sql = _Dialect(now - DAYS * 86_400_000, DAYS * 86_400_000 // count)
    sql.insert(
        Event,
        f"{sql.series}",
        [count],
        id=sql.id,
        type=f"'order.t' || (n % {TYPES})",
        requester=f"'app:' || (n % {SUBSCRIPTIONS})",
        subject="'order:' || n",
        data='\'{"order": "' + "x" * 200 + "\"}'",
        occurred_at=sql.moment,
        created_at=sql.moment,
        seq="n",
        fanned_out_at=sql.moment,
    )
    owners = (
        "JOIN (SELECT id AS owner, row_number() OVER () - 1 AS place FROM webhooks_subscription) s "
        f"ON s.place = n % {SUBSCRIPTIONS}"
    )
    sql.insert(
        Delivery,
        f"{sql.series} {owners}",
        [count],
        id=sql.id,
        event=sql.id,
        subscription="owner",
        state="CASE WHEN n % 5 = 0 THEN 'dead' WHEN n % 50 = 1 THEN 'pending' ELSE 'delivered' END",
        reason="CASE WHEN n % 5 <> 0 THEN '' WHEN n % 3 = 0 THEN 'timeout' "
        "WHEN n % 3 = 1 THEN 'server_error' ELSE 'dns_error' END",
        due_at=sql.moment,
        first_due_at=sql.moment,
        attempts="CASE WHEN n % 5 = 0 THEN 10 ELSE 1 END",
        created_at=sql.moment,
        settled_at=f"CASE WHEN n % 50 = 1 THEN NULL ELSE {sql.moment} END",
    )
    sql.insert(
        DeliveryAttempt,
        f"{sql.series} {owners}",
        [count],
        id=sql.id,
        subscription="owner",
        message_id=f"'evt_' || {sql.hex}",
        due_at=sql.moment,
        started_at=sql.moment,
        status_code="CASE WHEN n % 5 = 0 THEN 500 ELSE 200 END",
        error_code="CASE WHEN n % 5 = 0 THEN 'server_error' ELSE '' END",
        elapsed_ms="n % 900",
        excerpt="'ok'",
    )
    _count(made, now // 1000)
    settle_down()


def settle_down() -> None:
    """Let the database look at what it holds, as autovacuum has in one that is older."""
    from django.db import connection

    if connection.vendor != "postgresql":
        analyze()
        return
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")


def _count(subscriptions: list[Any], now: int) -> None:
    """Statistics of the whole service for each type and code, and of each subscription for one."""
    from datetime import UTC, datetime

    from webhooks.models import DeliveryStats
    from webhooks.models.stats import WHOLE_SERVICE

    end = now // 3600 * 3600
    rows = []
    for width, buckets in BUCKETS:
        begin = end + 3600 if width == 300 else end - 2 * 86_400
        for place in range(1, buckets + 1):
            bucket = datetime.fromtimestamp(begin - place * width, UTC)
            for code in CODES:
                ok = not code
                counted = {
                    "width": width,
                    "bucket": bucket,
                    "code": code,
                    "attempts": 9 + place % 7,
                    "delivered": 9 if ok else 0,
                    "first_try": 8 if ok else 0,
                    "dead": 0 if ok else 1,
                    "latency_4": 5 + place % 5,
                    "latency_7": 4,
                    "ack_3": 9 if ok else 0,
                }
                rows += [
                    DeliveryStats(subscription_id=WHOLE_SERVICE, type=f"order.t{number}", **counted)
                    for number in range(TYPES)
                ]
                each = subscriptions[place % len(subscriptions)]
                rows.append(DeliveryStats(subscription=each, type="order.t1", **counted))
        DeliveryStats.objects.bulk_create(rows, batch_size=5000)
        rows.clear()


class _Dialect:
    """How each database says what a row of number ``n`` holds. start, step: milliseconds."""

    def __init__(self, start: int, step: int) -> None:
        from django.db import connection

        self.connection = connection
        ms = f"({start} + n * {step})"
        if connection.vendor == "postgresql":
            self.series = "generate_series(1, %s::bigint) AS series(n)"
            self.hex = (
                f"(lpad(to_hex({ms}), 12, '0') || '7' || lpad(to_hex(n & 4095), 3, '0') "
                "|| '8' || lpad(to_hex(n), 15, '0'))"
            )
            self.id = f"{self.hex}::uuid"
            self.moment = f"to_timestamp({ms} / 1000.0)"
            return
        self.series = (
            "(WITH RECURSIVE series(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM series "
            "WHERE n < %s) SELECT n FROM series) AS series"
        )
        self.id = self.hex = f"printf('%%012x7%%03x8%%015x', {ms}, n & 4095, n)"
        self.moment = f"strftime('%%Y-%%m-%%d %%H:%%M:%%S', {ms} / 1000, 'unixepoch')"

    def insert(self, model: Any, source: str, given: list[Any], **own: str) -> None:
        """INSERT … SELECT; columns that are not named hold what a new row has."""
        columns, values, params = [], [], []
        for field in model._meta.concrete_fields:
            columns.append(field.column)
            if (said := own.get(field.name)) is not None:
                values.append(said.replace("n % ", "n %% "))
                continue
            values.append("%s")
            params.append(field.get_db_prep_save(field.get_default(), self.connection))
        with self.connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO {model._meta.db_table} ({', '.join(columns)}) "
                f"SELECT {', '.join(values)} FROM {source.replace('n % ', 'n %% ')}",
                [*params, *given],
            )
