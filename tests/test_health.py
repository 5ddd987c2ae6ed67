"""Health: what is said of a subscription and of the service, from what really happened."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from tests.world import (
    Answer,
    Receiver,
    deliver,
    emit_orders,
    end_rests,
    fan_out_all,
    states,
    subscribe,
)
from webhooks import health, lifecycle
from webhooks.clock import db_now
from webhooks.crypto import Sealed
from webhooks.health import SubscriptionHealth, of_service, of_subscription, shown
from webhooks.models import (
    Delivery,
    DeliveryAttempt,
    DeliveryStats,
    Duty,
    Event,
    Lane,
    SigningSecret,
    Subscription,
    Worker,
)
from webhooks.models.stats import LATENCY_BOUNDS, percentile

pytestmark = pytest.mark.django_db(transaction=True)


FIELDS = [
    *("status", "since", "reason", "success_rate_24h", "latency_ms", "pending"),
    *("oldest_pending_age_s", "retrying", "dead_24h", "last_success_at", "last_attempt"),
    *("next_retry_at", "paused_by_backpressure", "backlog_expires_at", "retention_days"),
]

FAILED, REFUSED = Answer(status=500), Answer(status=404)


def post(count: int) -> None:
    """So many events, each tried once."""
    emit_orders(count)
    deliver()


def post_failing(receiver: Receiver, count: int, answer: Answer = FAILED) -> None:
    """So many events that the receiver refuses; after that it accepts again."""
    receiver.answer = answer
    post(count)
    receiver.answer = Answer()


def post_as_the_probe(count: int) -> None:
    """So many events; the first tries an endpoint that is parked."""
    emit_orders(count)
    fan_out_all()
    end_rests()
    deliver()


def a_while_ago(**ago: float) -> datetime:
    return db_now("default") - timedelta(**ago)


def backdate_stats(**ago: float) -> None:
    DeliveryStats.objects.update(bucket=F("bucket") - timedelta(**ago))


def of(subscription: Subscription) -> SubscriptionHealth:
    subscription.refresh_from_db()
    return of_subscription(subscription)


# A subscription


def test_one_that_has_received_nothing_is_idle(receiver: Receiver) -> None:
    shown = of(subscribe(receiver)).as_dict()
    assert list(shown) == FIELDS
    assert shown == {
        **dict.fromkeys(FIELDS),
        "status": "idle",
        "pending": 0,
        "retrying": 0,
        "dead_24h": 0,
        "paused_by_backpressure": False,
        "backlog_expires_at": None,
        "retention_days": 30,
    }


def test_one_that_receives_is_healthy(receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    post(3)
    found = of(subscription)
    assert (found.status, found.reason, found.since) == ("healthy", None, None)
    assert (found.success_rate_24h, found.pending, found.dead_24h) == (1.0, 0, 0)
    assert found.latency_ms is not None
    assert 0 < found.latency_ms.p50 <= found.latency_ms.p95 <= found.latency_ms.p99 <= 15_000
    assert found.last_attempt is not None
    newest = DeliveryAttempt.objects.latest("pk")
    assert found.last_attempt.as_dict() == {
        "at": newest.started_at.isoformat().replace("+00:00", "Z"),
        "status_code": 200,
        "error_code": "",
        "elapsed_ms": newest.elapsed_ms,
    }
    assert found.last_success_at == Lane.objects.get().last_success_at is not None
    json.dumps(found.as_dict())


def test_one_that_received_nothing_for_a_day_is_idle_again(receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    post(3)
    backdate_stats(hours=23, minutes=50)
    assert of(subscription).status == "healthy"
    backdate_stats(minutes=20)
    found = of(subscription)
    assert (found.status, found.success_rate_24h, found.latency_ms) == ("idle", None, None)
    assert found.since == DeliveryAttempt.objects.latest("pk").started_at


@pytest.mark.parametrize(("failures", "status"), [(1, "degraded"), (4, "degraded"), (5, "failing")])
def test_failures_in_a_row_degrade_and_five_are_failing(
    receiver: Receiver, failures: int, status: str
) -> None:
    subscription = subscribe(receiver)
    post_failing(receiver, failures)
    found = of(subscription)
    assert found.status == status
    assert found.since == Lane.objects.get().failing_since is not None
    assert found.reason is not None
    assert found.reason.code == "server_error"
    many = "1 attempt has" if failures == 1 else f"{failures} attempts in a row have"
    since = found.since.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    assert found.reason.message == (
        f"{many} failed since {since}. Last error: The endpoint failed (5xx). "
        "Look into the receiving server's log at the time of the attempt."
    )
    assert (found.success_rate_24h, found.pending, found.retrying) == (0.0, failures, failures)
    due = Delivery.objects.order_by("due_at").values_list("due_at", flat=True)[0]
    lane = Lane.objects.get()
    assert found.next_retry_at == (lane.paused_until if status == "failing" else due)
    codes = [reason.code for reason in found.verdict.reasons]
    assert codes[1:] == (["parked"] if status == "failing" else [])


def test_a_parked_one_says_since_when_and_when_it_is_tried_next(receiver: Receiver) -> None:
    subscription = subscribe(receiver, retry_schedule=[3600])
    post_failing(receiver, 5)
    lane = Lane.objects.get()
    assert lane.parked_since is not None
    assert lane.paused_until is not None
    [_failing, parked] = of(subscription).verdict.reasons
    assert f"Parked since {shown(lane.parked_since)}" in parked.message
    assert "failed with server_error (by now 5 in a row)" in parked.message
    assert f"the next one at {shown(lane.paused_until)}" in parked.message


def test_a_success_ends_the_row(receiver: Receiver) -> None:
    subscription = subscribe(receiver, retry_schedule=[3600])
    post_failing(receiver, 5)
    assert of(subscription).status == "failing"
    post_as_the_probe(1)
    found = of(subscription)
    assert (found.status, found.reason) == ("healthy", None)
    assert (found.pending, found.retrying, found.success_rate_24h) == (5, 5, 1 / 6)


def test_the_last_error_is_the_one_that_is_told(receiver: Receiver) -> None:
    subscription = subscribe(receiver, retry_schedule=[3600])
    post_failing(receiver, 3, Answer(status=500, headers={"Connection": "close"}))
    receiver.close()
    post(3)
    reason = of(subscription).reason
    assert reason is not None
    assert reason.code == "connection_refused"
    assert "The connection was refused" in reason.message


@pytest.mark.parametrize(
    ("failures", "successes", "status"),
    [
        (1, 49, "healthy"),  # 98 %
        (1, 48, "degraded"),
        (1, 18, "healthy"),  # 19 attempts say nothing
        (1, 19, "degraded"),  # 20 do
    ],
)
def test_a_low_rate_of_enough_attempts_degrades(
    receiver: Receiver, failures: int, successes: int, status: str
) -> None:
    subscription = subscribe(receiver, retry_schedule=[3600])
    post_failing(receiver, failures, REFUSED)
    post(successes)
    found = of(subscription)
    assert Lane.objects.get().failures == 0
    assert found.status == status
    if status == "degraded":
        assert found.reason is not None
        assert found.reason.code == "client_error"
        assert "% of the attempts of the last 24 hours succeeded" in found.reason.message
        assert found.since == DeliveryStats.objects.filter(code="client_error")[0].bucket


def test_the_rate_is_of_the_last_day(receiver: Receiver) -> None:
    subscription = subscribe(receiver, retry_schedule=[3600])
    post_failing(receiver, 4)
    backdate_stats(hours=25)
    post(10)
    assert of(subscription).success_rate_24h == 1.0


def test_a_dead_letter_degrades_for_a_day(receiver: Receiver) -> None:
    subscription = subscribe(receiver, retry_schedule=[])
    post_failing(receiver, 2)
    post(1)
    assert states() == {"dead": 2, "delivered": 1}
    found = of(subscription)
    assert (found.status, found.dead_24h) == ("degraded", 2)
    assert found.reason is not None
    assert found.reason.code == "dead_letters"
    assert found.reason.message.startswith("2 deliveries were given up in the last 24 hours")
    assert found.since == DeliveryStats.objects.filter(dead=2)[0].bucket
    backdate_stats(hours=25)
    post(1)
    assert (of(subscription).status, of(subscription).dead_24h) == ("healthy", 0)


@pytest.mark.parametrize(("seconds", "status"), [(45, "healthy"), (75, "degraded")])
def test_what_nobody_sends_in_time_degrades(receiver: Receiver, seconds: int, status: str) -> None:
    subscription = subscribe(receiver)
    emit_orders(3)
    fan_out_all()
    then = a_while_ago(seconds=seconds)
    Delivery.objects.update(due_at=then, first_due_at=then)
    found = of(subscription)
    assert found.status == status
    assert found.oldest_pending_age_s == pytest.approx(seconds, abs=10)
    assert (found.pending, found.retrying, found.next_retry_at) == (3, 0, None)
    if status == "degraded":
        assert found.reason is not None
        assert found.reason.code == "delayed"
        assert "3 are pending" in found.reason.message


def test_the_age_is_that_of_the_one_that_waits_longest(receiver: Receiver) -> None:
    subscription = subscribe(receiver, retry_schedule=[3600])
    post_failing(receiver, 1)
    Delivery.objects.update(first_due_at=a_while_ago(hours=2))  # and due in an hour
    emit_orders(1)
    fan_out_all()
    assert of(subscription).oldest_pending_age_s == pytest.approx(7200, abs=30)


def test_a_receiver_that_asks_for_quiet_is_not_late(receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    post_failing(receiver, 1, Answer(status=503, headers={"Retry-After": "3600"}))
    Delivery.objects.update(due_at=a_while_ago(seconds=75))
    found = of(subscription)
    assert found.paused_by_backpressure
    assert found.next_retry_at == Lane.objects.get().paused_until
    assert [reason.code for reason in found.verdict.reasons] == ["server_error"]
    Lane.objects.update(paused_until=a_while_ago(seconds=1))
    assert not of(subscription).paused_by_backpressure


def test_its_own_rate_limit_is_no_back_pressure(receiver: Receiver) -> None:
    subscription = subscribe(receiver, rate_limit=1)
    post(2)
    assert Lane.objects.get().paused_until > db_now("default")
    found = of(subscription)
    assert (found.status, found.paused_by_backpressure, found.pending) == ("healthy", False, 1)


def test_what_cannot_be_signed_for_degrades(receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    SigningSecret.objects.update(value=Sealed("gAAAAABnot-ours"))
    post(1)
    found = of(subscription)
    assert found.status == "degraded"
    assert found.reason is not None
    assert found.reason.code == "secret_unreadable"


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("client", "by its owner"),
        ("operator", "by an operator"),
        ("entitlement_lost", "grant is gone"),
        ("failing", "had failed for days"),
        ("handshake_failed", "(handshake_failed)"),
    ],
)
def test_a_suspended_one_says_why_and_what_becomes_of_events(
    receiver: Receiver, reason: str, words: str
) -> None:
    subscription = subscribe(receiver, retry_schedule=[3600])
    post_failing(receiver, 6)
    lifecycle.suspend(subscription, reason=reason)
    found = of(subscription)
    assert (found.status, found.since) == ("suspended", subscription.status_since)
    assert found.reason is not None
    assert found.reason.code == reason
    assert words in found.reason.message
    assert "New events are kept until then." in found.reason.message
    expires_at = subscription.status_since + timedelta(days=30)
    assert found.backlog_expires_at == expires_at
    assert f"waits on {health.shown(expires_at)} expires." in found.reason.message
    assert ("tried now and then" in found.reason.message) is (reason == "failing")
    # What waits is shown; that it will be retried is not, for it will not.
    assert (found.pending, found.next_retry_at) == (6, None)
    assert found.retrying >= 5  # the fifth failure parks it, if the sixth has not begun by then


def test_a_suspended_one_may_discard(receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    lifecycle.suspend(subscription, on_suspend="discard")
    reason = of(subscription).reason
    assert reason is not None
    assert "New events are discarded until then." in reason.message


def test_one_that_waits_for_its_handshake_is_pending(receiver: Receiver) -> None:
    found = of(subscribe(receiver, handshake="x-hook-secret"))
    assert found.status == "pending"
    assert found.reason is not None
    assert "handshake" in found.reason.message


def test_one_that_is_gone_is_unsubscribed(receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    post_failing(receiver, 1, Answer(status=410))
    found = of(subscription)
    assert found.status == "unsubscribed"
    assert found.reason is not None
    assert found.reason.code == "gone"
    assert "410 Gone" in found.reason.message


def test_one_without_a_lane_is_judged_too(receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    Lane.objects.all().delete()
    assert of(subscription).status == "idle"


def test_others_do_not_count(receiver: Receiver, receivers: Callable[..., Receiver]) -> None:
    subscription = subscribe(receiver)
    subscribe(receivers(FAILED), "app:b", retry_schedule=[])
    emit_orders(25, "app:b")
    post(1)
    found = of(subscription)
    assert (found.status, found.success_rate_24h, found.dead_24h) == ("healthy", 1.0, 0)


def test_a_long_backlog_is_counted_up_to_a_limit(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webhooks.health.subscriptions.MOST_COUNTED", 5)
    subscription = subscribe(receiver)
    emit_orders(12)
    fan_out_all()
    Delivery.objects.update(due_at=a_while_ago(minutes=5))
    found = of(subscription)
    assert found.pending == 5
    assert found.reason is not None
    assert "5 or more are pending" in found.reason.message


def test_the_figures_cost_the_same_at_ten_and_at_a_thousand(
    receiver: Receiver, django_assert_num_queries: Any
) -> None:
    subscription = subscribe(receiver, retry_schedule=[3600])
    subscription.refresh_from_db()
    post_failing(receiver, 4)
    post(4)
    with CaptureQueriesContext(connection) as few:
        of_subscription(subscription)
    assert len(few) <= 5
    post(496)
    emit_orders(496)
    fan_out_all()
    with django_assert_num_queries(len(few)):
        found = of_subscription(subscription)
    assert (found.pending, found.success_rate_24h) == (500, 500 / 504)
    deliver()


@pytest.mark.parametrize("whose", ["subscription", "service"])
def test_every_figure_comes_from_an_index(receiver: Receiver, whose: str) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("the planner of others reads small tables as a whole")
    subscription = subscribe(receiver)
    post(3)
    with CaptureQueriesContext(connection) as captured:
        of_subscription(subscription) if whose == "subscription" else of_service()
    plans = []
    with connection.cursor() as cursor:
        for query in captured.captured_queries:
            cursor.execute(f"EXPLAIN QUERY PLAN {query['sql']}")
            plans += [(row[3], query["sql"]) for row in cursor.fetchall()]
    assert plans
    scans = [plan for plan in plans if plan[0].startswith("SCAN webhooks_")]
    # By claim_at, from its beginning, to the first: that is the index.
    assert [plan for plan in scans if "USING INDEX" not in plan[0]] == []
    stats = [plan for plan, _sql in plans if "webhooks_deliverystats" in plan]
    assert stats
    assert all("subscription_id=? AND width=? AND bucket>?" in plan for plan in stats)


# Percentiles


def histogram(**counts: int) -> list[int]:
    """Counts by the upper bound of their bucket: ``le_50=3``; ``more`` is the last one."""
    made = [0] * (len(LATENCY_BOUNDS) + 1)
    for name, count in counts.items():
        at = len(made) - 1 if name == "more" else LATENCY_BOUNDS.index(int(name[3:]))
        made[at] = count
    return made


@pytest.mark.parametrize(
    ("counts", "share", "value"),
    [
        (histogram(), 0.5, None),
        (histogram(le_50=10), 0.5, 37.5),  # half-way from 25 to 50
        (histogram(le_50=10), 1.0, 50.0),
        (histogram(le_5=10), 0.5, 2.5),
        (histogram(le_10=50, le_1000=50), 0.5, 10.0),
        (histogram(le_10=50, le_1000=50), 0.51, 510.0),
        (histogram(le_10=90, le_100=9, le_5000=1), 0.95, 50 + 50 * 5 / 9),
        (histogram(le_10=90, le_100=9, le_5000=1), 0.99, 100.0),
        (histogram(more=1), 0.5, 15_000.0),
        (histogram(le_5=1, more=1), 0.99, 15_000.0),
    ],
)
def test_a_percentile_is_estimated_within_its_bucket(
    counts: list[int], share: float, value: float | None
) -> None:
    found = percentile(counts, LATENCY_BOUNDS, share)
    assert found == (None if value is None else pytest.approx(value))


def test_percentiles_are_of_all_types_and_codes(receiver: Receiver) -> None:
    subscription = subscribe(receiver, retry_schedule=[3600])
    post_failing(receiver, 1)
    post(1)
    # As if the 99 first had been quick successes, and the last a failure after 2 s.
    blank = {f"latency_{i}": 0 for i in range(len(LATENCY_BOUNDS) + 1)}
    DeliveryStats.objects.filter(code="").update(**{**blank, "latency_2": 96})
    DeliveryStats.objects.filter(code="server_error").update(**{**blank, "latency_8": 4})
    latency = of(subscription).latency_ms
    assert latency is not None
    assert latency.as_dict() == {
        "p50": round(10 + 15 * 50 / 96),
        "p95": round(10 + 15 * 95 / 96),
        "p99": 1000 + 1500 * 3 // 4,
    }


# The service


@pytest.fixture
def _manned() -> None:
    """A worker was heard of just now."""
    Worker.objects.create(
        slot=7,
        token="0" * 32,
        host="elsewhere",
        pid=1,
        started_at=db_now("default"),
        heartbeat_at=a_while_ago(seconds=80),
    )


def codes() -> list[str]:
    return [reason.code for reason in of_service().verdict.reasons]


def test_a_service_without_events_is_idle(settings: Any) -> None:
    settings.WEBHOOKS = {**settings.WEBHOOKS, "SOURCE_IPS": ("192.0.2.0/24", "192.0.2.7")}
    shown = of_service().as_dict()
    assert list(shown) == ["status", "updated_at", "delivery_delay_s", "source_ips"]
    assert shown["updated_at"].endswith("Z")
    assert (shown["status"], shown["delivery_delay_s"]) == ("idle", 0.0)
    assert shown["source_ips"] == ["192.0.2.0/24", "192.0.2.7"]
    json.dumps(shown)


def test_a_service_that_delivers_is_healthy(receiver: Receiver) -> None:
    subscribe(receiver)
    post(3)
    found = of_service()
    assert (found.status, found.verdict.reasons, found.delivery_delay_s) == ("healthy", (), 0.0)
    assert found.success_rate_24h == 1.0


@pytest.mark.usefixtures("_manned")
@pytest.mark.parametrize(
    ("seconds", "status", "reasons"),
    [
        (45, "healthy", []),
        (75, "degraded", ["delayed"]),
        (585, "degraded", ["delayed"]),
        (615, "down", ["abandoned"]),
    ],
)
@pytest.mark.parametrize("where", ["outbox", "lane"])
def test_a_delay_degrades_and_a_long_one_is_an_outage(
    receiver: Receiver, seconds: int, status: str, reasons: list[str], where: str
) -> None:
    subscribe(receiver)
    emit_orders(2)
    if where == "outbox":
        Duty.objects.ensure()
        Event.objects.update(created_at=a_while_ago(seconds=seconds))
    else:
        fan_out_all()
        Lane.objects.update(claim_at=a_while_ago(seconds=seconds))
    found = of_service()
    assert found.delivery_delay_s == pytest.approx(seconds, abs=10)
    assert (found.status, codes()) == (status, reasons)


@pytest.mark.parametrize(("seconds", "status"), [(75, "degraded"), (105, "down")])
def test_work_that_no_worker_comes_for_is_an_outage(
    receiver: Receiver, seconds: int, status: str
) -> None:
    subscribe(receiver)
    emit_orders(1)
    fan_out_all()
    Lane.objects.update(claim_at=a_while_ago(seconds=seconds))
    assert of_service().status == status
    assert codes() == [{"down": "no_worker", "degraded": "delayed"}[status]]


@pytest.mark.usefixtures("_manned")
def test_a_worker_that_fell_silent_does_not_count(receiver: Receiver) -> None:
    subscribe(receiver)
    emit_orders(1)
    fan_out_all()
    Lane.objects.update(claim_at=a_while_ago(seconds=105))
    assert of_service().status == "degraded"
    Worker.objects.update(heartbeat_at=a_while_ago(seconds=95))
    assert of_service().status == "down"


def test_one_receiver_that_asks_for_quiet_delays_nobody(receiver: Receiver) -> None:
    subscribe(receiver)
    post_failing(receiver, 1, Answer(status=503, headers={"Retry-After": "3600"}))
    Delivery.objects.update(due_at=a_while_ago(hours=1))
    assert of_service().delivery_delay_s == 0.0


def test_the_backlog_of_one_slow_endpoint_is_no_delay_of_the_service(receiver: Receiver) -> None:
    subscribe(receiver)
    emit_orders(3)
    fan_out_all()
    # It was given back a moment ago, after its turn; what is left in it has waited for an hour.
    Delivery.objects.update(due_at=a_while_ago(hours=1))
    assert of_service().delivery_delay_s < 10


@pytest.mark.parametrize(
    ("failures", "successes", "status"),
    [
        (11, 9, "down"),
        (10, 10, "degraded"),  # half of them is not less than half
        (10, 9, "healthy"),  # 19 attempts say nothing
    ],
)
def test_an_outage_is_when_most_attempts_fail(
    receiver: Receiver, failures: int, successes: int, status: str
) -> None:
    for requester in ("app:a", "app:b", "app:c"):  # none of them fails so often that it is parked
        subscribe(receiver, requester, retry_schedule=[3600])
    receiver.answer = FAILED
    for i in range(failures):
        emit_orders(1, f"app:{'abc'[i % 3]}")
    deliver()
    receiver.answer = Answer()
    post(successes)
    assert of_service().status == status
    if status == "down":
        assert codes() == ["outage"]
        # An hour later it is a bad day, and no outage any more.
        backdate_stats(hours=1)
        assert (of_service().status, codes()) == ("degraded", ["server_error"])


@pytest.mark.parametrize(
    ("successes", "status"), [(49, "healthy"), (48, "degraded")], ids=["98 %", "less"]
)
def test_a_low_rate_of_the_day_degrades_the_service(
    receiver: Receiver, successes: int, status: str
) -> None:
    subscribe(receiver, retry_schedule=[3600])
    post_failing(receiver, 1)
    post(successes)
    assert of_service().status == status


def test_a_dead_letter_degrades_the_service_for_a_day(receiver: Receiver) -> None:
    subscribe(receiver, retry_schedule=[])
    post_failing(receiver, 1)
    assert (of_service().status, codes()) == ("degraded", ["dead_letters"])
    backdate_stats(hours=25)
    assert of_service().status == "idle"


def test_an_automatic_suspension_degrades_the_service_for_a_day(receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    lifecycle.suspend(subscription, reason="operator")
    assert of_service().status == "idle"
    lifecycle.resume(subscription, reason="operator")
    lifecycle.suspend(subscription, reason="failing")
    assert (of_service().status, codes()) == ("degraded", ["suspended"])
    Subscription.objects.update(status_since=a_while_ago(hours=25))
    assert of_service().status == "idle"


def test_the_service_tells_nothing_of_a_tenant(receiver: Receiver) -> None:
    subscription = subscribe(receiver, "app:acme")
    emit_orders(3, "app:acme")
    receiver.answer = FAILED
    deliver()
    shown = json.dumps(of_service().as_dict())
    for word in ("acme", subscription.pk, "127.0.0.1", "order.paid"):
        assert word not in shown


def test_the_service_costs_the_same_at_one_and_at_many(
    receiver: Receiver, django_assert_num_queries: Any
) -> None:
    subscribe(receiver)
    post(1)
    with CaptureQueriesContext(connection) as few:
        of_service()
    assert len(few) <= 9
    for i in range(30):
        subscribe(receiver, f"app:{i}")
        emit_orders(10, f"app:{i}")
    deliver()
    with django_assert_num_queries(len(few)):
        of_service()
