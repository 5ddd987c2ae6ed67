"""The page “Webhook health”: what it says, whom it lets in, what it costs."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from tests.admin.browsing import EVIL, html_of, populate, url_of
from tests.world import Answer, Receiver, deliver, emit_orders, fan_out_all, subscribe
from webhooks import health, lifecycle
from webhooks.admin import ranges
from webhooks.clock import db_now
from webhooks.health import figures, workers
from webhooks.models import (
    Delivery,
    DeliveryAttempt,
    DeliveryStats,
    Duty,
    Event,
    Lane,
    Subscription,
    Worker,
)
from webhooks.models.stats import DAY, FRESH, HOUR, Tally
from webhooks.remedies import REMEDIES, remedy

pytestmark = pytest.mark.django_db(transaction=True)

Staff = Callable[..., Client]
FAILED = Answer(status=500)


def url() -> str:
    return reverse("admin:webhooks_webhookhealth_changelist")


def page(client: Client, **query: Any) -> str:
    return html_of(client, url(), **query)


def banner(html: str) -> str:
    """The banner's text, on one line."""
    found = re.search(r'<section class="wh-banner.*?</section>', html, re.S)
    assert found
    return " ".join(re.sub(r"<[^>]*>", " ", found[0]).split())


def links(html: str) -> dict[str, str]:
    """What the banner's reasons lead to, by their text."""
    found = re.search(r'<section class="wh-banner.*?</section>', html, re.S)
    assert found
    return {
        text: address for address, text in re.findall(r'<a href="([^"]*)">([^<]*)</a>', found[0])
    }


# Who may see it


def test_it_stands_in_the_index_for_those_who_may_see_it(staff: Staff) -> None:
    client = staff("view_webhookhealth")
    assert url() in html_of(client, reverse("admin:index"))
    page(client)
    other = staff("view_event")
    assert url() not in html_of(other, reverse("admin:index"))
    html_of(other, url(), status=403)


def test_nobody_writes_it(staff: Staff) -> None:
    client = staff()
    for rest in ("add/", "1/change/", "1/delete/", "1/history/"):
        assert client.get(url() + rest).status_code == 404


def test_links_lead_only_where_one_may_go(staff: Staff, receiver: Receiver) -> None:
    subscribe(receiver, retry_schedule=[])
    receiver.answer = FAILED
    emit_orders(1)
    deliver()
    html = page(staff("view_webhookhealth"))
    assert "was given up" in banner(html)
    content = html[html.index('id="content"') :]
    assert "/delivery" not in content
    assert "/subscription" not in content
    for address in links(page(staff())).values():
        html_of(staff(), address.replace("&amp;", "&"))


# The banner


def test_an_empty_service_is_idle_and_teaches(staff: Staff) -> None:
    html = page(staff())
    assert banner(html) == "○ Idle — no events in this period."
    assert "Nothing was sent yet" in html
    assert reverse("admin:webhooks_subscription_add") in html
    assert "No attempts in this period." in html


def test_a_service_that_delivers_is_healthy(staff: Staff, receiver: Receiver) -> None:
    subscribe(receiver)
    emit_orders(3)
    deliver()
    html = page(staff())
    assert banner(html) == "● Healthy — deliveries are flowing."
    assert "Nothing was sent yet" not in html


def test_failing_endpoints_degrade_it(staff: Staff, receiver: Receiver, receivers: Any) -> None:
    subscribe(receiver)
    bad = receivers(FAILED)
    for requester in ("app:b", "app:c"):
        subscribe(bad, requester, retry_schedule=[])
        emit_orders(6, requester)
    emit_orders(30)
    deliver()
    html = page(staff())
    assert banner(html).startswith("▲ Degraded — 2 endpoints are failing; others are fine.")
    texts = links(html)
    assert [text for text in texts if "were given up" in text]
    [rate] = [text for text in texts if "% of the attempts" in text]
    assert "error_code__exact=server_error" in texts[rate]
    # Which, since when, why, how many wait, and when is the next try: named at once.
    named = {text: url for text, url in texts.items() if text.startswith("127.0.0.1: Failing")}
    failing = Subscription.objects.filter(requester__in=["app:b", "app:c"])
    assert set(named.values()) <= {url_of(Subscription, "change", each.pk) for each in failing}
    assert named
    waits = [text for text in named if " wait" in text]
    assert all("; the next try is " in text for text in waits)
    for text in named:
        assert re.search(
            r"since \d\d:\d\d UTC \(\d attempts\)\. Last error: The endpoint failed \(5xx\)\. "
            r"(\d deliver(y|ies) waits?; the next try is (at|due now).*)?It will be suspended",
            text,
        ), text


def test_no_more_than_three_endpoints_are_named(staff: Staff, receivers: Any) -> None:
    bad = receivers(FAILED)
    for i in range(5):
        subscribe(bad, f"app:{i}", retry_schedule=[])
        emit_orders(6, f"app:{i}")
    deliver()
    assert page(staff()).count(">127.0.0.1: Failing since") == 3


def test_work_that_nobody_does_is_down(staff: Staff, receiver: Receiver) -> None:
    subscribe(receiver)
    emit_orders(7)
    fan_out_all()
    Lane.objects.update(claim_at=db_now("default") - timedelta(minutes=12))
    html = page(staff())
    assert banner(html).startswith(
        "■ Down — nothing has been delivered for 12 min while 7 are due. Is a worker running?"
    )
    [address] = {each for text, each in links(html).items() if "Is one running" in text}
    assert address == reverse("admin:webhooks_workersandschedules_changelist")


def test_the_page_and_the_reasons_agree(staff: Staff, receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    lifecycle.suspend(subscription, reason="failing")
    html = page(staff())
    [reason] = health.of_service().verdict.reasons
    assert reason.message in banner(html)
    assert "status__exact=suspended" in links(html)[reason.message]


# The figures


def tile(html: str, name: str) -> str:
    found = re.search(rf"<dt>{re.escape(name)}</dt><dd class=\"wh-value\">(.*?)</dd>", html, re.S)
    assert found, name
    return re.sub(r"<[^>]*>", "", found[1]).strip()


def test_the_tiles_say_what_happened(staff: Staff, receiver: Receiver) -> None:
    subscribe(receiver, retry_schedule=[0.0001 + 1])
    emit_orders(3)
    deliver()
    receiver.answer = FAILED
    emit_orders(1)
    deliver()
    html = page(staff())
    assert tile(html, "First-try success") == "100.0 %"
    assert tile(html, "Eventually delivered") == "100.0 %"
    assert tile(html, "Attempts") == "4"
    assert re.fullmatch(r"[\d,]+ / [\d,]+ / [\d,]+", tile(html, "Latency p50 / p95 / p99"))
    assert tile(html, "Event to acknowledged, p95").endswith("ms")
    assert tile(html, "Retrying") == "1"
    assert tile(html, "Dead letters") == "0"


def test_rates_are_of_what_ended_and_rounded_down(staff: Staff) -> None:
    count(delivered=1999, first_try=1000)
    count(code="timeout", attempts=1, dead=1)
    html = page(staff())
    assert tile(html, "First-try success") == "50.0 %"
    assert tile(html, "Eventually delivered") == "99.9 %"
    assert tile(html, "Dead letters") == "1"


def count(
    *,
    subscription_id: str = "sub_" + "0" * 32,
    code: str = "",
    attempts: int = 0,
    delivered: int = 0,
    first_try: int = 0,
    dead: int = 0,
    ago: timedelta = timedelta(0),
    width: int = FRESH,
    type: str = "order.paid",
) -> None:
    """A row of the roll-up."""
    at = (db_now("default") - ago).timestamp() // width * width
    DeliveryStats.objects.create(
        subscription_id=subscription_id,
        type=type,
        width=width,
        bucket=datetime.fromtimestamp(at, tz=db_now("default").tzinfo),
        code=code,
        attempts=attempts or delivered,
        delivered=delivered,
        first_try=first_try,
        dead=dead,
        latency_3=attempts or delivered,
        ack_2=delivered,
    )


@pytest.mark.parametrize(
    ("key", "seen"), [("1h", 1), ("24h", 3), ("7d", 7), ("30d", 15), ("nonsense", 3)]
)
def test_a_range_counts_what_lies_in_it_at_any_width(staff: Staff, key: str, seen: int) -> None:
    count(delivered=1)
    count(delivered=2, ago=timedelta(hours=5))
    count(delivered=4, ago=timedelta(days=3), width=HOUR)
    count(delivered=8, ago=timedelta(days=20), width=HOUR)
    count(delivered=16, ago=timedelta(days=50), width=DAY)
    assert tile(page(staff(), range=key), "Attempts") == str(seen)


def test_a_range_of_ones_own(staff: Staff) -> None:
    now = db_now("default")
    count(delivered=2, ago=timedelta(hours=5))
    count(delivered=16, ago=timedelta(days=50), width=DAY)
    client = staff()
    asked = {
        "range": "custom",
        "from": f"{now - timedelta(days=60):%Y-%m-%dT%H:%M}",
        "to": f"{now - timedelta(days=40):%Y-%m-%dT%H:%M}",
    }
    html = page(client, **asked)
    assert tile(html, "Attempts") == "16"
    assert asked["to"] in html  # it stays in the form


@pytest.mark.parametrize(
    ("start", "end"),
    [("", ""), ("x", "y"), ("2026-01-02", "2026-01-01"), ("0001-01-01", "2020-01-01"),
     ("2026-01-01", "9999-12-31"), ("2000-01-01", "2026-01-01"), (EVIL, EVIL)],
)  # fmt: skip
def test_a_range_that_is_none_is_told(staff: Staff, start: str, end: str) -> None:
    count(delivered=3)
    html = page(staff(), **{"range": "custom", "from": start, "to": end})
    assert "errornote" in html
    assert tile(html, "Attempts") == "3"
    assert EVIL not in html


def test_every_point_of_a_chart_has_a_label() -> None:
    now = db_now("default")
    for key in ranges.PRESETS:
        chosen = ranges.chosen({"range": key}, now)
        assert len(chosen.labels) == len(chosen.period.points) <= ranges.MOST_STEPS
        assert chosen.period.place(now - timedelta(seconds=1)) < len(chosen.labels)


@pytest.mark.parametrize(
    ("ago", "length", "step"),
    [
        (timedelta(hours=3), timedelta(hours=1), FRESH),
        (timedelta(days=3), timedelta(hours=1), HOUR),
        (timedelta(days=40), timedelta(hours=1), DAY),
        (timedelta(days=40), timedelta(days=40), DAY),
        (timedelta(days=300), timedelta(days=300), 7 * DAY),
    ],
)
def test_a_step_is_never_narrower_than_the_rows(
    ago: timedelta, length: timedelta, step: int
) -> None:
    now = db_now("default")
    start = now - ago
    query = {"range": "custom", "from": start.isoformat(), "to": (start + length).isoformat()}
    period = ranges.chosen(query, now).period
    assert period.step == step
    assert period.start <= start < period.start + timedelta(seconds=step)


@pytest.mark.parametrize("key", ["1h", "24h", "7d", "30d"])
def test_a_chart_shows_each_bucket_in_its_step(key: str) -> None:
    for minutes in (7, 21, 50, 200, 1300):
        count(delivered=minutes, ago=timedelta(minutes=minutes))
    for days in (3, 6, 17, 29):
        count(delivered=days, ago=timedelta(days=days), width=HOUR)
    period = ranges.chosen({"range": key}, db_now("default")).period
    expected = [0] * len(period.points)
    for row in DeliveryStats.objects.all():
        if period.start <= row.bucket < period.end:
            expected[period.place(row.bucket)] += row.attempts
    found = figures.of(period)
    assert found.succeeded == expected
    assert [each is not None for each in found.latency] == [bool(n) for n in expected]


def test_every_error_has_a_line_with_what_to_do(staff: Staff) -> None:
    html = page(staff())
    for code in REMEDIES:
        assert f"<code>{code}</code>" in html
    assert str(REMEDIES["tls_error"][0]) in html


def test_errors_that_happened_come_first_with_an_example(staff: Staff, receiver: Receiver) -> None:
    subscribe(receiver, retry_schedule=[3600])
    receiver.answer = FAILED
    emit_orders(1)
    deliver()
    count(code="brand_new", attempts=2)
    count(code="timeout", attempts=5)
    html = page(staff())
    happened = html[html.index("Failures by reason") : html.index("What else can go wrong")]
    assert re.findall(r"<code>(\w+)</code>", happened) == ["timeout", "brand_new", "server_error"]
    assert remedy("server_error").fix in happened.replace("&#x27;", "'")
    attempt = DeliveryAttempt.objects.get()
    assert url_of(DeliveryAttempt, "change", attempt.pk) in happened


def test_the_worst_endpoints_and_the_busiest_types(staff: Staff, receiver: Receiver) -> None:
    good, bad, worse = (subscribe(receiver, f"app:{i}") for i in range(3))
    count(subscription_id=good.pk, delivered=99)
    count(subscription_id=bad.pk, code="timeout", attempts=3)
    count(subscription_id=worse.pk, code="timeout", attempts=5, dead=2)
    Lane.objects.exclude(pk=good.pk).update(last_failure_at=db_now("default"))
    count(delivered=9, type="order.paid")
    count(delivered=90, type="order.shipped")
    html = page(staff())
    worst = html[html.index("Worst endpoints") : html.index("Busiest event types")]
    assert re.findall(r"app:\d", worst) == ["app:2", "app:1"]
    assert url_of(Subscription, "change", worse.pk) in worst
    busiest = html[html.index("Busiest event types") :]
    assert busiest.index("order.shipped") < busiest.index("order.paid")


def test_the_workers_and_what_runs_by_the_clock(staff: Staff) -> None:
    now = db_now("default")
    Duty.objects.ensure()
    Worker.objects.create(
        slot=3, token=uuid.uuid4(), host="h1", pid=9, started_at=now,
        heartbeat_at=now - timedelta(minutes=4), in_flight=17, lanes=2,
    )  # fmt: skip
    Duty.objects.filter(name="sweep").update(ran_at=now - timedelta(minutes=11))
    html = page(staff())
    crew = html[html.index("Workers</a></h2>") : html.index("Failures by reason")]
    assert "h1:9 (slot 3)" in crew
    assert "silent" in crew
    assert "4 min ago" in crew
    assert ">17<" in crew
    assert "10 min late: is a worker running?" in crew  # a minute of them was its due
    assert "manage.py qcluster" in crew
    assert "never run" in crew  # the pruning
    assert banner(html).startswith("▲ Degraded — what runs by the clock is late.")
    assert "Tasks in the queue: <strong>0</strong>" in crew
    Duty.objects.update(ran_at=now)
    assert page(staff()).count("</span> on time<") == len(workers.SCHEDULES)


def test_the_next_digests_and_what_waits_in_them(staff: Staff, receiver: Receiver) -> None:
    now = db_now("default")
    daily = {"trigger": "daily", "hour": (now.hour + 2) % 24}
    for requester in ("app:a", "app:b"):
        subscribe(receiver, requester, **daily)
    subscribe(receiver, "app:c", trigger="hourly")
    held = subscribe(receiver, "app:d", trigger="hourly")
    lifecycle.suspend(held, reason="operator")
    subscribe(receiver, "app:e")
    for requester in ("app:a", "app:a", "app:b", "app:d", "app:e"):
        emit_orders(1, requester)
    fan_out_all()
    html = page(staff())
    listed = html[html.index("Next digests") : html.index("Failures by reason")]
    rows = [
        [re.sub(r"<[^>]*>", "", cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)]
        for row in re.findall(r"<tr><th scope=\"row\">.*?</tr>", listed)
    ]
    hour = now.replace(minute=0, second=0, microsecond=0)
    ends = [f"{hour + timedelta(hours=n):%Y-%m-%d %H:%M} UTC" for n in (1, 2)]
    assert rows == [[ends[0], "hourly", "1", "0"], [ends[1], "daily", "2", "3"]]


def test_without_digests_it_says_so(staff: Staff, receiver: Receiver) -> None:
    subscribe(receiver)
    assert "No subscription gets digests" in page(staff())


def test_a_schedule_that_is_late_degrades_the_service_wherever_it_is_asked() -> None:
    now = db_now("default")
    Duty.objects.ensure()
    assert health.of_service().verdict.reasons == ()  # what never ran is no news
    Duty.objects.filter(name="tick").update(ran_at=now - timedelta(hours=3), late_ms=1500)
    found = health.of_service()
    assert found.status == "degraded"
    [reason] = found.verdict.reasons
    assert reason.code == "late_schedule"
    assert reason.message.startswith("tick is 2 h late: is a worker running? Start a cluster")
    tick = next(each for each in found.schedules if each.name == "tick")
    assert tick.began_late == timedelta(seconds=1.5)
    assert "late" not in found.as_dict()  # that one is for subscribers


def test_a_broker_that_is_down_is_no_error(staff: Staff, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> Any:
        raise ConnectionError

    monkeypatch.setattr("webhooks.engine.wake._broker", refuse)
    assert "the broker does not say" in page(staff())


# What it is made of


def test_the_part_that_renews_itself_comes_alone(staff: Staff) -> None:
    count(delivered=3)
    client = staff()
    whole, part = page(client, range="7d"), page(client, range="7d", fragment="1")
    assert 'data-url="/admin/webhooks/webhookhealth/?range=7d&amp;fragment=1"' in whole
    assert 'data-seconds="15"' in whole
    assert "<html" not in part
    assert banner(part) == banner(whole)
    assert tile(part, "Attempts") == "3"
    assert 'href="/admin/webhooks/webhookhealth/?range=7d"' in whole  # without JavaScript
    answer = client.get(url(), {"fragment": "1"})
    assert "no-store" in answer.headers["Cache-Control"]


def test_it_has_nothing_inline_and_shows_nothing_from_outside_as_markup(staff: Staff) -> None:
    populate()
    Subscription.objects.update(requester=EVIL, callback_url=f"https://h/{EVIL}")
    count(subscription_id=Subscription.objects.get().pk, code=EVIL[:32], attempts=5)
    count(code=EVIL[:32], attempts=5, type=EVIL)
    html = page(staff())
    assert EVIL[:32] not in html
    own = html[html.index('id="content"') :]
    assert not re.search(r"<script|<style| style=| on\w+=|javascript:", own)


def fill(count_of: int) -> None:
    """So many subscriptions, events and deliveries, with what was counted of them."""
    now = db_now("default")
    made = Subscription.objects.bulk_create(
        Subscription(requester=f"app:{i}", callback_url="https://h/", status="subscribed")
        for i in range(count_of)
    )
    Lane.objects.bulk_create(
        Lane(subscription=each, failures=9, last_failure_at=now) for each in made
    )
    events = Event.objects.bulk_create(
        Event(type="order.paid", data="{}", fanned_out_at=now) for _ in made
    )
    Delivery.objects.bulk_create(
        Delivery(event=event, subscription=each) for event, each in zip(events, made, strict=True)
    )
    tally = Tally()
    for i, each in enumerate(made):
        DeliveryAttempt.objects.create(
            subscription=each, message_id=events[i].pk, due_at=now, started_at=now,
            error_code=("timeout", "gone", "")[i % 3],
        )  # fmt: skip
        tally.count(
            subscription_id=each.pk, event_type=f"order.t{i % 20}", at=now,
            code=("timeout", "gone", "")[i % 3], elapsed_ms=i, first_try=True, dead=False,
            ack_ms=None if i % 3 < 2 else i,
        )  # fmt: skip
    DeliveryStats.objects.add(tally)


def test_it_costs_as_many_statements_for_a_thousand_rows_as_for_ten(staff: Staff) -> None:
    client = staff()
    Duty.objects.ensure()
    page(client)
    fill(50)  # three that fail among them: so many are named
    with CaptureQueriesContext(connection) as few:
        page(client)
    fill(950)
    with CaptureQueriesContext(connection) as many:
        page(client)
    assert len(many) == len(few) <= 40
