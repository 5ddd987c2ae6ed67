"""Digests: windows, pages, figures, empty ones; each event in exactly one window."""

from __future__ import annotations

import hashlib
import json
import threading
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django_q.models import OrmQ
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from tests.engine.controlled import (
    Clock,
    Died,
    RecordingTransport,
    bodies,
    controlled_clock,
    deliver_or_die,
    end_leases,
    recording,
)
from tests.world import (
    Receiver,
    deliver,
    emit_orders,
    end_rests,
    fan_out_all,
    in_background,
    states,
    subscribe,
)
from webhooks import emit, lifecycle, tasks
from webhooks.engine import digests, housekeeping, lanes, markers
from webhooks.engine.windows import window_of
from webhooks.formats.base import MAX_BODY_BYTES
from webhooks.formats.signing import generate_secret
from webhooks.models import (
    Delivery,
    DeliveryAttempt,
    DeliveryStats,
    Duty,
    Event,
    Lane,
    Message,
    Subscription,
)
from webhooks.redelivery import redeliver

pytestmark = pytest.mark.django_db(transaction=True)

NOON = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
URL = "http://127.0.0.1:9/in"


@pytest.fixture
def clock() -> Iterator[Clock]:
    with controlled_clock(NOON + timedelta(minutes=10)) as made:
        yield made


@pytest.fixture
def transport(settings: Any) -> Iterator[type[RecordingTransport]]:
    with recording(settings, RETRY_SCHEDULE=(60,) * 20) as made:
        yield made


def subscribed(**options: Any) -> Subscription:
    made, _secret = Subscription.objects.subscribe(
        **{
            "requester": "app:a",
            "callback_url": URL,
            "event_types": ["order.*"],
            "trigger": "hourly",
            **options,
        }
    )
    return made


def ids_in(body: Any) -> list[str]:
    return [event["id"] for event in body["events"]]


# Windows


def test_a_digest_holds_its_window_and_comes_at_its_end(clock: Clock, transport: Any) -> None:
    subscribed()
    first = [event.pk for event in emit_orders(3)]
    deliver()
    assert not transport.sent
    assert set(Delivery.objects.values_list("due_at", "first_due_at")) == {
        (NOON + HOUR, NOON + HOUR)
    }
    clock.now = NOON + HOUR
    second = [event.pk for event in emit_orders(2)]
    deliver()
    [body] = bodies(transport.sent)
    assert ids_in(body) == first
    assert body["window"] == {
        "from": "2026-05-04T12:00:00.000000Z",
        "to": "2026-05-04T13:00:00.000000Z",
        "trigger": "hourly",
    }
    assert (body["page"], body["pages"], body["counts"]) == (1, 1, {"order.paid": 3})
    [attempt] = DeliveryAttempt.objects.all()
    assert (attempt.trigger, attempt.event_count) == ("digest", 3)
    clock.now = NOON + 2 * HOUR
    deliver()
    assert ids_in(bodies(transport.sent)[1]) == second
    assert states() == {"delivered": 5}


def test_a_day_of_the_subscriber_s_own(clock: Clock, transport: Any) -> None:
    subscribed(trigger="daily", time_zone="Asia/Kolkata", hour=9)
    emit_orders(1)
    deliver()
    end = window_of(clock.now, "daily", "Asia/Kolkata", 9).end
    clock.now = end
    deliver()
    [body] = bodies(transport.sent)
    assert body["window"]["to"] == "2026-05-05T03:30:00.000000Z"
    assert body["window"]["from"] == "2026-05-04T03:30:00.000000Z"


def test_a_digest_is_as_late_as_it_comes_after_its_window(clock: Clock, transport: Any) -> None:
    subscription = subscribed()
    emit_orders(4)
    Event.objects.update(created_at=clock.now)
    deliver()
    clock.now = NOON + HOUR + timedelta(seconds=2)
    deliver()
    [row] = DeliveryStats.objects.filter(subscription_id=subscription.pk)
    assert row.delivered == 4
    from webhooks.models.stats import ACK_BOUNDS

    [place] = [i for i, count in enumerate(row.acknowledged) if count]
    assert row.acknowledged[place] == 4
    assert ACK_BOUNDS[place] < 60_000  # not the hour since the events


def test_what_is_asked_for_again_comes_without_a_window(clock: Clock, transport: Any) -> None:
    subscribed()
    emit_orders(2)
    deliver()
    redeliver(Delivery.objects.order_by("pk")[0])  # pending: now, and not at the window's end
    deliver()
    [body] = bodies(transport.sent)
    assert len(body["events"]) == 1
    assert "window" not in body
    clock.now = NOON + HOUR
    deliver()
    assert bodies(transport.sent)[1]["counts"] == {"order.paid": 1}


# Pages


@pytest.fixture
def _small_rounds(monkeypatch: Any) -> None:
    monkeypatch.setattr(digests, "ROUND", 7)
    monkeypatch.setattr(digests, "GATHERED", 7)


@pytest.mark.usefixtures("_small_rounds")
def test_pages_are_numbered_and_hold_everything_once(clock: Clock, transport: Any) -> None:
    subscribed(batch_size=4)
    emitted = [event.pk for event in emit_orders(18)]
    deliver()
    clock.now = NOON + HOUR
    deliver()
    pages = bodies(transport.sent)
    assert sorted(body["page"] for body in pages) == [1, 2, 3, 4, 5]
    assert {body["pages"] for body in pages} == {5}
    assert all(body["counts"] == {"order.paid": 18} for body in pages)
    pages.sort(key=lambda body: body["page"])
    assert [pk for body in pages for pk in ids_in(body)] == emitted
    assert states() == {"delivered": 18}


@pytest.mark.usefixtures("_small_rounds")
@pytest.mark.parametrize("fate", ["before", "after"])
@pytest.mark.parametrize("page", [1, 2, 4])
def test_a_worker_that_dies_between_pages_repeats_one_page_at_most(
    clock: Clock, transport: Any, fate: str, page: int
) -> None:
    subscribed(batch_size=4, max_in_flight=1)
    emitted = [event.pk for event in emit_orders(18)]
    deliver()
    clock.now = NOON + HOUR
    transport.fates = [200] * (page - 1) + [fate]
    assert not deliver_or_die()
    end_leases(clock.now)
    deliver()
    by_id: dict[str, set[bytes]] = defaultdict(set)
    for request in transport.sent:
        by_id[request.headers["webhook-id"]].add(request.body)
    assert all(len(found) == 1 for found in by_id.values())
    assert len(transport.sent) - len(by_id) <= (1 if fate == "after" else 0) + page - 1
    assert len(by_id) == 5
    pages = sorted((json.loads(next(iter(b))) for b in by_id.values()), key=lambda b: b["page"])
    assert [body["page"] for body in pages] == [1, 2, 3, 4, 5]
    assert {body["pages"] for body in pages} == {5}
    assert {json.dumps(body["counts"]) for body in pages} == {'{"order.paid": 18}'}
    assert [pk for body in pages for pk in ids_in(body)] == emitted
    assert states() == {"delivered": 18}


def test_25_000_events_in_pages_within_both_limits_each_verified(receiver: Receiver) -> None:
    secret = generate_secret()
    subscription = subscribe(receiver, trigger="hourly", secret=secret)
    for _ in range(5):
        emit_orders(5000)
    fan_out_all()
    end = window_of(Delivery.objects.first().due_at - 2 * HOUR, "hourly", "UTC").end  # type: ignore[union-attr]
    Delivery.objects.update(due_at=end, first_due_at=end)
    Lane.objects.update(claim_at=end, latency_ms=20)
    deliver()
    seen: set[str] = set()
    pages = []
    for post in receiver.posts:
        body: Any = Webhook(secret).verify(post.body, post.headers)
        assert len(post.body) <= MAX_BODY_BYTES
        assert len(body["events"]) <= 1000
        assert not seen & set(ids_in(body))
        seen |= set(ids_in(body))
        assert (body["pages"], body["counts"]) == (25, {"order.paid": 25_000})
        pages.append(body["page"])
    assert sorted(pages) == list(range(1, 26))
    assert len(seen) == 25_000
    assert states() == {"delivered": 25_000}
    assert DeliveryAttempt.objects.filter(subscription=subscription, trigger="digest").count() == 25


def test_pages_keep_within_their_bytes(clock: Clock, transport: Any) -> None:
    for format_ in ("standard", "mandrill"):
        subscribed(format=format_)
    emit_orders(40, data={"text": '"%&ü' * 12_000})
    emit_orders(3, data={"text": "x" * 250_000})
    deliver()
    clock.now = NOON + HOUR
    deliver()
    assert max(len(request.body) for request in transport.sent) <= MAX_BODY_BYTES
    assert sum(request.body.count(b'"id":"evt_') for request in transport.sent) == 43
    assert sum(request.body.count(b"%22_id%22%3A%22evt_") for request in transport.sent) == 43


# Figures alone, and nothing at all


@pytest.mark.usefixtures("_small_rounds")
@pytest.mark.parametrize("fate", [200, "before", "after"])
def test_figures_come_alone_in_one_page(clock: Clock, transport: Any, fate: Any) -> None:
    subscribed(content="counts", batch_size=2)
    emit_orders(18)
    emit("order.shipped", {}, requester="app:a")
    deliver()
    clock.now = NOON + HOUR
    transport.fates = [fate]
    if not deliver_or_die():
        end_leases(clock.now)
        deliver()
    assert len({request.body for request in transport.sent}) == 1
    body = bodies(transport.sent)[0]
    assert body["events"] == []
    assert (body["page"], body["pages"]) == (1, 1)
    assert body["counts"] == {"order.paid": 18, "order.shipped": 1}
    assert states() == {"delivered": 19}
    assert {a.event_count for a in DeliveryAttempt.objects.all()} == {19}


@pytest.mark.usefixtures("_small_rounds")
def test_figures_whose_gathering_was_broken_off_are_complete(
    clock: Clock, transport: Any, monkeypatch: Any
) -> None:
    subscribed(content="counts")
    emit_orders(18)
    deliver()
    clock.now = NOON + HOUR
    dies_in_the_second_round(monkeypatch)
    assert not deliver_or_die()
    assert Message.objects.get().body_digest == ""
    end_leases(clock.now)
    deliver()
    [body] = bodies(transport.sent)
    assert body["counts"] == {"order.paid": 18}
    assert Message.objects.count() == 1
    assert states() == {"delivered": 18}


def test_an_empty_digest_comes_where_it_is_wanted(clock: Clock, transport: Any) -> None:
    subscribed(empty_digests=True)
    subscribed(requester="app:b")
    housekeeping.tick("default")
    housekeeping.tick("default")
    assert Delivery.objects.count() == 1
    assert not Event.objects.undispatched().exists()
    for hours in (1, 2):
        clock.now = NOON + hours * HOUR
        deliver()
        housekeeping.tick("default")
        clock.now += timedelta(minutes=1)
    assert [(b["events"], b["counts"], b["page"]) for b in bodies(transport.sent)] == [
        ([], {}, 1)
    ] * 2
    froms = [body["window"]["from"] for body in bodies(transport.sent)]
    assert froms == ["2026-05-04T12:00:00.000000Z", "2026-05-04T13:00:00.000000Z"]
    emit_orders(2)
    deliver()
    clock.now = NOON + 3 * HOUR
    deliver()
    last = bodies(transport.sent)[-1]
    assert (len(last["events"]), last["counts"]) == (2, {"order.paid": 2})
    assert {body["type"] for body in last["events"]} == {"order.paid"}


# Changes


def test_a_change_of_the_trigger_moves_what_waits(clock: Clock, transport: Any) -> None:
    subscription = subscribed(trigger="daily", hour=9)
    emitted = [event.pk for event in emit_orders(5)]
    deliver()
    lifecycle.update(subscription, trigger="hourly")
    deliver()
    assert not transport.sent
    assert set(Delivery.objects.values_list("due_at", flat=True)) == {NOON + HOUR}
    assert Lane.objects.get().retime_before is None
    lifecycle.update(subscription, trigger="realtime")
    deliver()
    assert [body["id"] for body in bodies(transport.sent)] == emitted
    assert states() == {"delivered": 5}


@pytest.mark.usefixtures("_small_rounds")
@pytest.mark.parametrize("change", [{"trigger": "daily"}, {"trigger": "realtime", "batch_size": 1}])
@pytest.mark.parametrize("content", ["events", "counts"])
def test_a_digest_that_was_begun_is_finished_before_a_change_moves_anything(
    clock: Clock, transport: Any, monkeypatch: Any, content: str, change: dict[str, Any]
) -> None:
    subscription = subscribed(batch_size=4, max_in_flight=1, content=content)
    emit_orders(18)
    deliver()
    clock.now = NOON + HOUR
    with monkeypatch.context() as mortal:
        if content == "events":
            transport.fates = ["after"]
        else:
            dies_in_the_second_round(mortal)
        assert not deliver_or_die()
    emit_orders(2)
    fan_out_all()
    lifecycle.update(subscription, **change)
    end_leases(clock.now)
    deliver()
    begun = {r.headers["webhook-id"]: json.loads(r.body) for r in transport.sent}
    pages = [body for body in begun.values() if body.get("counts") == {"order.paid": 18}]
    if content == "counts":
        assert len(pages) == 1
    else:
        assert sum(len(body["events"]) for body in pages) == 18
    assert {body["window"]["to"] for body in pages} == {"2026-05-04T13:00:00.000000Z"}
    assert len(begun) - len(pages) == (2 if change["trigger"] == "realtime" else 0)
    clock.pass_(timedelta(days=1))
    deliver()
    assert states() == {"delivered": 20}


def dies_in_the_second_round(monkeypatch: Any) -> None:
    steps = digests.Figures.step
    calls = 0

    def dying(self: Any, *arguments: Any) -> bool:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Died
        return steps(self, *arguments)

    monkeypatch.setattr(digests.Figures, "step", dying)


def test_a_suspension_keeps_windows_apart(clock: Clock, transport: Any) -> None:
    subscription = subscribed()
    emit_orders(1)
    fan_out_all()
    lifecycle.suspend(subscription)
    for _ in range(2):
        clock.pass_(HOUR)
        emit_orders(1)
        fan_out_all()
    clock.pass_(HOUR)
    deliver()
    assert not transport.sent
    lifecycle.resume(subscription)
    deliver()
    end_rests()
    deliver()
    found = sorted(body["window"]["from"] for body in bodies(transport.sent))
    assert [each[11:13] for each in found] == ["12", "13", "14"]
    assert states() == {"delivered": 3}


def test_a_discarded_backlog_includes_what_waits_for_its_window(
    clock: Clock, transport: Any
) -> None:
    subscription = subscribed()
    emit_orders(3)
    fan_out_all()
    lifecycle.suspend(subscription)
    lifecycle.resume(subscription, backlog="discard")
    deliver()
    assert states() == {"discarded": 3}


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("emit"), st.integers(1, 4)),
        st.tuples(st.just("pass"), st.integers(1, 100)),
        st.tuples(st.just("change"), st.sampled_from(["hourly", "daily", "realtime"])),
        st.tuples(st.just("zone"), st.sampled_from(["UTC", "Asia/Kolkata", "Europe/Vienna"])),
        st.tuples(st.just("suspend"), st.booleans()),
        st.tuples(st.just("fan out"), st.none()),
        st.tuples(
            st.just("deliver"),
            st.lists(st.sampled_from([200, 200, 500, "before", "after"]), max_size=3),
        ),
    ),
    min_size=3,
    max_size=14,
)


@hypothesis_settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=STEPS, empty=st.booleans())
def test_each_event_is_in_exactly_one_window_whatever_happens(
    steps: list[tuple[str, Any]], empty: bool, transport: Any, quick_rounds: None
) -> None:
    """Commits, changes, suspensions, failures and kills by chance; in the end all has come."""
    for model in (Event, Message, DeliveryAttempt, Subscription):
        model.objects.all().delete()
    transport.sent, transport.fates = [], []
    RecordingTransport.sent, RecordingTransport.fates = transport.sent, transport.fates
    with controlled_clock(NOON) as clock:
        subscription = subscribed(batch_size=3, empty_digests=empty)
        emitted: list[str] = []
        for step, what in steps:
            clock.pass_(timedelta(seconds=7))
            subscription.refresh_from_db()
            if step == "emit":
                emitted += [event.pk for event in emit_orders(what)]
            elif step == "pass":
                clock.pass_(timedelta(minutes=what))
            elif step == "change":
                lifecycle.update(
                    subscription, trigger=what, empty_digests=empty and what != "realtime"
                )
            elif step == "zone":
                lifecycle.update(subscription, time_zone=what)
            elif step == "suspend":
                (lifecycle.suspend if what else lifecycle.resume)(subscription)
            elif step == "fan out":
                fan_out_all()
            else:
                RecordingTransport.fates = list(what)
                if not deliver_or_die():
                    end_leases(clock.now)
                RecordingTransport.fates = []
        subscription.refresh_from_db()
        lifecycle.resume(subscription)
        for _ in range(6):
            clock.pass_(timedelta(days=1))
            end_rests()
            assert deliver_or_die()
    check(emitted)


def check(emitted: list[str]) -> None:
    """One id, one body; each event came, and its windows are one."""
    by_id: dict[str, set[str]] = defaultdict(set)
    windows: dict[str, set[str]] = defaultdict(set)
    ids_of: dict[str, set[str]] = defaultdict(set)
    for request in RecordingTransport.sent:
        message_id = request.headers["webhook-id"]
        by_id[message_id].add(hashlib.sha256(request.body).hexdigest())
        body = json.loads(request.body)
        for event in body.get("events", [body]):
            ids_of[event["id"]].add(message_id)
            if "window" in body:
                windows[event["id"]].add(json.dumps(body["window"]))
    assert all(len(found) == 1 for found in by_id.values())
    assert all(len(found) == 1 for found in windows.values())
    assert ids_of.keys() == set(emitted)
    assert all(len(found) == 1 for found in ids_of.values())
    left = Delivery.objects.exclude(state="delivered").exclude(event__type=markers.MARKER)
    assert not left.exists()
    # The windows of one trigger do not overlap, and their counts are what came in them.
    came = Counter(window for found in windows.values() for window in found)
    for request in RecordingTransport.sent:
        body = json.loads(request.body)
        if "window" in body:
            assert sum(body["counts"].values()) == came[json.dumps(body["window"])]


# Ticks


def test_a_tick_tells_how_late_it_came(clock: Clock, settings: Any) -> None:
    clock.now = NOON + timedelta(minutes=3)
    tasks.tick()
    duty = Duty.objects.get(name=Duty.Name.TICK)
    assert duty.ran_at is not None
    assert 180_000 <= (duty.late_ms or 0) < 180_010


def test_a_sweep_tells_how_late_it_came_after_the_one_before(clock: Clock) -> None:
    housekeeping.sweep("default")
    assert Duty.objects.get(name=Duty.Name.SWEEP).late_ms is None
    clock.pass_(timedelta(seconds=95))
    housekeeping.sweep("default")
    assert 35_000 <= (Duty.objects.get(name=Duty.Name.SWEEP).late_ms or 0) < 35_100
    clock.pass_(timedelta(seconds=50))
    housekeeping.sweep("default")
    assert Duty.objects.get(name=Duty.Name.SWEEP).late_ms == 0


def test_a_tick_wakes_a_worker(settings: Any) -> None:
    settings.WEBHOOKS = {
        **settings.WEBHOOKS,
        "WAKER": "webhooks.engine.wake.enqueue_drain",
    }
    tasks.tick()
    assert OrmQ.objects.count() == 1


# Between two workers


def test_a_window_is_not_planned_while_somebody_adds_to_its_lane(clock: Clock) -> None:
    """Fan-out reads the clock under the lane's lock: who has had that lock since sees all."""
    if connection.vendor == "sqlite":
        pytest.skip("there nobody can write meanwhile")
    subscription = subscribed()
    emit_orders(1)
    fan_out_all()
    late = emit_orders(1)
    clock.now = NOON + HOUR + timedelta(seconds=1)
    token = uuid.uuid4()
    [lane] = lanes.claim("default", token, limit=1, now=clock.now)
    plan = digests.Plan(lane, window_of(NOON, "hourly", "UTC"))
    adding, go_on = threading.Event(), threading.Event()

    def add() -> None:
        """As a fan-out that read the clock just before the window ended."""
        with transaction.atomic():
            Lane.objects.lock([subscription.pk])
            row = Delivery.objects.get().__dict__ | {"id": None}
            values = {k: v for k, v in row.items() if not k.startswith("_") and k != "id"}
            Delivery.objects.create(**{**values, "event_id": late[0].pk})
            adding.set()
            go_on.wait(10)

    with in_background(add):
        assert adding.wait(10)
        assert not plan.step("default", token)
        go_on.set()
    assert plan.step("default", token)
    assert plan.counts == {"order.paid": 2}
    Lane.objects.update(token=None, lease_until=None, claim_at=clock.now)
