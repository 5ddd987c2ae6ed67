"""The database refuses to write what came back: no POST is made twice for that."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction

from tests.world import (
    Answer,
    Received,
    Receiver,
    deliver,
    emit_orders,
    in_background,
    states,
    subscribe,
    until,
)
from webhooks.clock import db_now
from webhooks.models import Delivery, DeliveryAttempt, DeliveryStats, Lane, Worker

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.postgres]

ATTEMPTS, LANES = "webhooks_deliveryattempt", "webhooks_lane"


def execute(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


@contextmanager
def refusing(table: str, how: str, when: str = "TRUE", event: str = "INSERT") -> Iterator[None]:
    """A trigger that raises; ``how``: PL/pgSQL before the end of the RAISE statement."""
    execute("CREATE SEQUENCE IF NOT EXISTS refusals")
    execute(
        "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF {when} THEN RAISE EXCEPTION 'refused by the test' {how}; END IF; "
        "RETURN NEW; END $$"
    )
    execute(
        f"CREATE TRIGGER refuse BEFORE {event} ON {table} FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    try:
        yield
    finally:
        execute("DROP FUNCTION refuse() CASCADE")
        execute("DROP SEQUENCE refusals")


def recorded(count: int) -> Callable[[], bool]:
    return lambda: states() == {"delivered": count}


def test_while_attempts_cannot_be_written_each_post_is_made_once(receiver: Receiver) -> None:
    subscribe(receiver)
    subscribe(receiver, "app:b")
    emitted = [event.pk for name in ("app:a", "app:b") for event in emit_orders(30, name)]
    with in_background(deliver), refusing(ATTEMPTS, ""):
        receiver.wait_for(8)
        time.sleep(3)
        during = Counter(receiver.ids)
        assert max(during.values()) == 1
        assert not DeliveryAttempt.objects.exists()
    # It recovers as soon as it may, within the same lease: every answer was kept.
    assert receiver.ids == Counter(emitted)
    assert states() == {"delivered": 60}
    assert DeliveryAttempt.objects.count() == 60


def test_one_lane_whose_attempts_are_refused_does_not_stop_the_others(
    receiver: Receiver, receivers: Callable[..., Receiver]
) -> None:
    other = receivers()
    subscription = subscribe(receiver)
    subscribe(other, "app:b")
    emit_orders(20)
    emit_orders(200, "app:b")
    refused = f"NEW.subscription_id = '{subscription.pk[4:]}'"
    with in_background(deliver):
        with refusing(ATTEMPTS, "", when=refused):
            until(lambda: states()["delivered"] == 200, 15, "the delivery of the others")
            assert max(receiver.ids.values()) == 1
        until(recorded(220), 20, "the recovery")
    assert max(receiver.ids.values()) == 1


@pytest.mark.parametrize("error", ["40P01", "40001"], ids=["deadlock", "serialization"])
@pytest.mark.parametrize(
    ("table", "event"), [(ATTEMPTS, "INSERT"), (LANES, "UPDATE")], ids=["attempts", "lanes"]
)
def test_what_the_database_asks_to_repeat_is_written_again_and_not_sent_again(
    receiver: Receiver, error: str, table: str, event: str
) -> None:
    subscribe(receiver)
    emitted = [each.pk for each in emit_orders(40)]
    once = "nextval('refusals') <= 2"  # a sequence is not rolled back
    if table == LANES:
        once = f"NEW.token IS NULL AND OLD.token IS NOT NULL AND {once}"
    with refusing(table, f"USING ERRCODE = '{error}'", when=once, event=event):
        deliver()
    assert receiver.ids == Counter(emitted)
    assert states() == {"delivered": 40}
    assert DeliveryAttempt.objects.count() == 40
    [row] = DeliveryStats.objects.filter(subscription_id=Lane.objects.get().pk)
    assert row.attempts == 40


def test_a_real_deadlock_with_the_host_is_written_again_and_not_sent_again(
    receiver: Receiver, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The host has a delivery and wants its lane; the worker has the lane, and wants that."""
    settings.WEBHOOKS = {**settings.WEBHOOKS, "RETRY_SCHEDULE": [0.3]}
    answered = threading.Event()

    def answer(post: Received) -> Answer:
        if len(receiver.posts) > 1:
            return Answer()
        answered.wait(20)
        return Answer(status=500)

    receiver.answer = answer
    subscription = subscribe(receiver)
    [event] = emit_orders(1)
    with in_background(drain_twice):
        receiver.wait_for(1)
        with transaction.atomic():
            execute("SET LOCAL deadlock_timeout = '20s'")  # the worker notices it first
            Delivery.objects.select_for_update().get()
            answered.set()
            until(somebody_waits_for_us, 10, "the worker's wait")
            Lane.objects.lock([subscription.pk])
        until(recorded(1), 20, "the delivery")
    assert "deadlock detected" in caplog.text
    assert receiver.ids == Counter({event.pk: 2})
    codes = DeliveryAttempt.objects.order_by("number").values_list("number", "status_code")
    assert list(codes) == [(1, 500), (2, 200)]


def drain_twice() -> None:
    deliver()
    if not recorded(1)():  # it may have lasted until the retry
        until(Lane.objects.ready(db_now("default") + timedelta(1)).exists, 10, "the retry")
        time.sleep(0.5)
        deliver()


def somebody_waits_for_us() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND pg_backend_pid() = ANY (pg_blocking_pids(pid))"
        )
        return bool(cursor.fetchone()[0])


def test_a_connection_that_breaks_under_load_loses_nothing(
    receiver: Receiver, start: Callable[..., Any]
) -> None:
    receiver.answer = Answer(after=0.02)
    subscribe(receiver)
    Lane.objects.update(latency_ms=20)
    emitted = [event.pk for event in emit_orders(1500)]
    worker = start("webhooks_worker", settings={"TIMEOUT": 2, "LEASE_SECONDS": 19})
    receiver.wait_for(100, timeout=30)
    for _ in range(5):
        execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        time.sleep(0.4)
    until(recorded(1500), 40, "the delivery")
    assert worker.poll() is None  # it lived through it
    assert set(receiver.ids) == set(emitted)
    assert receiver.duplicates == 0
    # A commit whose answer was lost may have been written twice, for one flush at most each.
    assert DeliveryAttempt.objects.count() >= 1500


def test_a_fan_out_that_is_refused_does_not_stop_deliveries(receiver: Receiver) -> None:
    subscribe(receiver)
    emit_orders(5)
    with refusing("webhooks_delivery", "", when="nextval('refusals') <= 1"), in_background(deliver):
        until(recorded(5), 20, "the delivery")
    assert max(receiver.ids.values()) == 1
    assert Delivery.objects.count() == 5
    assert not Worker.objects.exists()
