"""Digests of counts: what they may tell, and members that follow the one that stands for them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

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
from tests.world import deliver, emit_orders, fan_out_all, states
from webhooks import emit, lifecycle, signals
from webhooks.conf import settings as conf
from webhooks.engine import digests, following, giving_up, reviving
from webhooks.engine.lanes import HeldLane
from webhooks.formats.standard import StandardFormat
from webhooks.models import Delivery, DeliveryAttempt, Event, Message, Subscription
from webhooks.redelivery import redeliver

pytestmark = pytest.mark.django_db(transaction=True)

NOON = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
PAID, SHIPPED = 12, 5


@pytest.fixture
def clock() -> Iterator[Clock]:
    with controlled_clock(NOON + timedelta(minutes=10)) as made:
        yield made


@pytest.fixture
def transport(settings: Any) -> Iterator[type[RecordingTransport]]:
    with recording(settings, RETRY_SCHEDULE=(60,) * 20) as made:
        yield made


@pytest.fixture(autouse=True)
def _small_rounds(quick_rounds: None, monkeypatch: Any) -> None:
    monkeypatch.setattr(digests, "GATHERED", 4)
    for module in (digests, following, reviving):
        monkeypatch.setattr(module, "ROUND", 4)


@pytest.fixture
def lose(monkeypatch: Any) -> Callable[..., None]:
    """Let the owner lose the scopes of these types."""

    def lose_(*types: str) -> None:
        monkeypatch.setattr(HeldLane, "may_be_sent", lambda self, name: name not in types)

    return lose_


def subscribed(**options: Any) -> Subscription:
    made, _secret = Subscription.objects.subscribe(
        **{
            "requester": "app:a",
            "callback_url": "http://127.0.0.1:9/in",
            "event_types": ["order.*"],
            "trigger": "hourly",
            "content": "counts",
            **options,
        }
    )
    return made


def a_window(clock: Clock) -> None:
    """Events of two types, and the end of their window."""
    for place in range(PAID):
        emit_orders(1)
        if place < SHIPPED:
            emit("order.shipped", {}, requester="app:a")
    fan_out_all()
    clock.now = NOON + HOUR


def due_again(clock: Clock) -> None:
    clock.pass_(2 * MINUTE)


def dies_at(monkeypatch: Any, kind: Any, nth: int) -> None:
    """Kill the worker before the nth round of a kind; the next one lives."""
    step = kind.step
    rounds = 0

    def dying(self: Any, *arguments: Any) -> bool:
        nonlocal rounds
        rounds += 1
        if rounds == nth:
            raise Died
        return bool(step(self, *arguments))

    monkeypatch.setattr(kind, "step", dying)


def check_ids(transport: type[RecordingTransport]) -> None:
    """One id, one body; all of them digests of the one window."""
    by_id: dict[str, bytes] = {}
    for request in transport.sent:
        assert by_id.setdefault(request.headers["webhook-id"], request.body) == request.body
        body = json.loads(request.body)
        assert body["window"]["to"] == "2026-05-04T13:00:00.000000Z"
        assert body["events"] == []


# What may be told


@pytest.mark.parametrize("dies", [0, 2])
def test_a_frozen_digest_tells_no_count_of_a_type_whose_scope_was_lost(
    clock: Clock, transport: Any, lose: Any, monkeypatch: Any, dies: int
) -> None:
    subscribed()
    a_window(clock)
    transport.fates = [500]
    deliver()
    lose("order.shipped")
    due_again(clock)
    if dies:
        dies_at(monkeypatch, digests.Figures, dies)
        assert not deliver_or_die()
        end_leases(clock.now)
    deliver()
    first, second = bodies(transport.sent)
    assert first["counts"] == {"order.paid": PAID, "order.shipped": SHIPPED}
    assert second["counts"] == {"order.paid": PAID}
    assert first["id"] != second["id"]
    assert first["window"] == second["window"]
    check_ids(transport)
    assert states() == {"delivered": PAID, "cancelled": SHIPPED}
    ended = Delivery.objects.filter(state="cancelled").values_list("reason", "message")
    assert set(ended) == {("scope_lost", None)}
    assert Message.objects.get(pk=first["id"]).superseded_at is not None


def test_a_digest_of_nothing_that_may_be_told_is_not_sent(
    clock: Clock, transport: Any, lose: Any
) -> None:
    subscribed()
    a_window(clock)
    transport.fates = [500]
    deliver()
    lose("order.shipped", "order.paid")
    due_again(clock)
    deliver()
    assert len(transport.sent) == 1
    assert states() == {"cancelled": PAID + SHIPPED}


def test_what_was_gathered_before_the_scope_was_lost_is_not_counted(
    clock: Clock, transport: Any, lose: Any, monkeypatch: Any
) -> None:
    subscribed()
    a_window(clock)
    with monkeypatch.context() as mortal:
        dies_at(mortal, digests.Figures, 3)
        assert not deliver_or_die()
    assert Delivery.objects.filter(message=Message.objects.get()).count() == 8
    lose("order.shipped")
    end_leases(clock.now)
    deliver()
    [body] = bodies(transport.sent)
    assert body["counts"] == {"order.paid": PAID}
    assert states() == {"delivered": PAID, "cancelled": SHIPPED}


@pytest.mark.parametrize("lost", ["order.paid", "order.shipped"])
def test_a_page_tells_no_count_of_a_type_whose_scope_was_lost(
    clock: Clock, transport: Any, lose: Any, lost: str
) -> None:
    """Each page has the counts of all; the last has no event of the type at all."""
    subscribed(content="events", batch_size=10, max_in_flight=1)
    a_window(clock)
    transport.fates = [200, 500]
    deliver()
    lose(lost)
    due_again(clock)
    deliver()
    kept = {"order.paid": PAID, "order.shipped": SHIPPED}
    assert [body["counts"] for body in bodies(transport.sent)[:2]] == [kept, kept]
    del kept[lost]
    later = bodies(transport.sent)[2:]
    assert {body["id"] for body in later}.isdisjoint(
        body["id"] for body in bodies(transport.sent)[:2]
    )
    assert all(body["counts"] == kept for body in later)
    assert not Delivery.objects.filter(state="pending").exists()


def test_pages_that_follow_tell_no_count_of_a_type_whose_scope_was_lost(
    clock: Clock, transport: Any, lose: Any
) -> None:
    subscribed(content="events", batch_size=5, max_in_flight=1)
    a_window(clock)
    transport.fates = [200, "before"]
    assert not deliver_or_die()
    lose("order.shipped")
    end_leases(clock.now)
    deliver()
    counts = [body["counts"] for body in bodies(transport.sent)]
    assert counts[0] == {"order.paid": PAID, "order.shipped": SHIPPED}
    assert len(counts) > 2
    assert all(each == {"order.paid": PAID} for each in counts[1:])


# What is gathered


def test_a_first_member_that_ends_while_others_are_gathered_takes_nobody_along(
    clock: Clock, transport: Any, monkeypatch: Any
) -> None:
    subscribed()
    a_window(clock)
    step = digests.Figures.step

    def erasing(self: Any, *arguments: Any) -> bool:
        done = step(self, *arguments)
        Event.objects.filter(deliveries=Delivery.objects.order_by("pk")[0]).delete()
        return done

    with monkeypatch.context() as once:
        once.setattr(digests.Figures, "step", erasing)
        deliver()
    [body] = bodies(transport.sent)
    assert sum(body["counts"].values()) == PAID + SHIPPED  # they happened
    assert Message.objects.count() == 1
    assert set(states()) == {"delivered"}


@pytest.mark.parametrize("dies", [0, 3])
def test_a_window_whose_bytes_cannot_be_made_again_is_told_as_one(
    clock: Clock, transport: Any, monkeypatch: Any, dies: int
) -> None:
    subscribed()
    a_window(clock)
    transport.fates = [500]
    deliver()
    body = StandardFormat.batch_body
    monkeypatch.setattr(StandardFormat, "batch_body", lambda self, batch: body(self, batch) + b" ")
    due_again(clock)
    if dies:
        dies_at(monkeypatch, digests.Figures, dies)
        assert not deliver_or_die()
        end_leases(clock.now)
    deliver()
    due_again(clock)
    deliver()
    first, second = bodies(transport.sent)
    assert first["counts"] == second["counts"] == {"order.paid": PAID, "order.shipped": SHIPPED}
    assert first["id"] != second["id"]
    check_ids(transport)
    assert states() == {"delivered": PAID + SHIPPED}


def test_figures_that_could_not_be_rendered_at_first_come_as_figures(
    clock: Clock, transport: Any, monkeypatch: Any
) -> None:
    subscribed()
    a_window(clock)

    def fail(self: Any, batch: Any) -> bytes:
        raise RuntimeError("no")

    with monkeypatch.context() as broken:
        broken.setattr(StandardFormat, "batch_body", fail)
        deliver()
    assert not transport.sent
    due_again(clock)
    deliver()
    [body] = bodies(transport.sent)
    assert body["counts"] == {"order.paid": PAID, "order.shipped": SHIPPED}
    assert body["id"] == Message.objects.get().pk
    check_ids(transport)


# Members that follow


@pytest.mark.parametrize("dies", [0, 2])
def test_what_was_acknowledged_is_not_sent_again_while_its_members_follow(
    clock: Clock, transport: Any, monkeypatch: Any, dies: int
) -> None:
    subscribed()
    a_window(clock)
    if dies:
        dies_at(monkeypatch, following.Following, dies)
        assert not deliver_or_die()
        assert Delivery.objects.filter(state="delivered").count() == 1 + 4 * (dies - 1)
        assert Message.objects.get().following == "delivered"
        end_leases(clock.now)
    deliver()
    assert len(transport.sent) == 1
    assert states() == {"delivered": PAID + SHIPPED}
    [(attempts, settled_at)] = set(Delivery.objects.values_list("attempts", "settled_at"))
    assert (attempts, settled_at is not None) == (1, True)
    assert Message.objects.get().following == ""


@pytest.mark.parametrize("dies", [0, 2])
def test_members_of_what_failed_follow_to_its_next_try_and_to_its_end(
    clock: Clock, transport: Any, monkeypatch: Any, dies: int, settings: Any
) -> None:
    settings.WEBHOOKS = {**settings.WEBHOOKS, "RETRY_SCHEDULE": (60,)}
    subscribed()
    a_window(clock)
    transport.fates = [500, 500]
    if dies:
        with monkeypatch.context() as mortal:
            dies_at(mortal, following.Following, dies)
            assert not deliver_or_die()
        end_leases(clock.now)
    deliver()
    assert len(transport.sent) == 1
    [(due_at, attempts)] = set(Delivery.objects.values_list("due_at", "attempts"))
    assert attempts == 1
    assert due_at > clock.now + timedelta(seconds=30)
    due_again(clock)
    if dies:
        with monkeypatch.context() as mortal:
            dies_at(mortal, following.Following, dies)
            assert not deliver_or_die()
        end_leases(clock.now)
    deliver()
    assert len(transport.sent) == 2
    check_ids(transport)
    assert states() == {"dead": PAID + SHIPPED}
    assert len(set(Delivery.objects.values_list("reason", "settled_at", "attempts"))) == 1


@pytest.mark.parametrize("dies", [0, 2])
def test_asking_for_one_brings_all_of_them_in_rounds(
    clock: Clock, transport: Any, monkeypatch: Any, dies: int
) -> None:
    subscribed()
    a_window(clock)
    deliver()
    clock.pass_(HOUR)
    asked = Delivery.objects.order_by("pk")[9]
    with CaptureQueriesContext(
        connection,
    ) as queries:
        redeliver(asked)
    assert states() == {"delivered": PAID + SHIPPED - 2, "pending": 2}  # itself, and the head
    assert max(query["sql"].count("dlv_") for query in queries) <= 2
    if dies:
        dies_at(monkeypatch, following.Following, dies)
        assert not deliver_or_die()
        end_leases(clock.now)
        assert len(transport.sent) == 1  # nothing before all of them are pending
    deliver()
    assert [each.headers["webhook-id"] for each in transport.sent] == [asked.message_id] * 2
    check_ids(transport)
    assert states() == {"delivered": PAID + SHIPPED}
    assert set(Delivery.objects.values_list("attempts", "retries_from", "trigger")) == {
        (2, 1, "manual")
    }
    triggers = DeliveryAttempt.objects.order_by("number").values_list("trigger", flat=True)
    assert list(triggers) == ["digest", "manual"]


def test_asking_for_what_waits_for_its_retry_hastens_all_of_it(
    clock: Clock, transport: Any
) -> None:
    subscribed()
    a_window(clock)
    transport.fates = [500]
    deliver()
    redeliver(Delivery.objects.order_by("pk")[9])
    deliver()
    assert len(transport.sent) == 2
    check_ids(transport)
    assert states() == {"delivered": PAID + SHIPPED}


def test_asking_for_one_while_others_are_gathered_changes_that_one(
    clock: Clock, transport: Any, monkeypatch: Any
) -> None:
    subscribed()
    a_window(clock)
    with monkeypatch.context() as mortal:
        dies_at(mortal, digests.Figures, 3)
        assert not deliver_or_die()
    end_leases(clock.now)
    redeliver(Delivery.objects.order_by("pk")[2])
    assert Delivery.objects.filter(trigger="manual").count() == 1
    deliver()
    [body] = bodies(transport.sent)
    assert sum(body["counts"].values()) == PAID + SHIPPED
    assert states() == {"delivered": PAID + SHIPPED}


def test_what_belonged_to_a_digest_that_was_given_up_comes_alone(
    clock: Clock, transport: Any, lose: Any
) -> None:
    subscribed()
    a_window(clock)
    transport.fates = [500]
    deliver()
    old = Message.objects.get()
    lose("order.shipped")
    due_again(clock)
    deliver()
    asked = Delivery.objects.order_by("pk")[0]
    Delivery.objects.filter(pk=asked.pk).update(message=old)  # it had ended in the old one
    redeliver(asked)
    deliver()
    last = bodies(transport.sent)[-1]
    assert [event["id"] for event in last["events"]] == [asked.event_id]
    assert "window" not in last


def test_asking_while_it_is_under_way_is_not_ended_by_its_answer(
    clock: Clock, transport: Any, monkeypatch: Any, settings: Any
) -> None:
    """The answer is a failure, the last one; what was asked for since then still goes out."""
    settings.WEBHOOKS = {**settings.WEBHOOKS, "RETRY_SCHEDULE": ()}
    subscribed()
    a_window(clock)
    transport.fates = [500]
    start = transport.start

    def asking(self: Any, *arguments: Any) -> None:
        start(self, *arguments)
        if len(transport.sent) == 1:
            redeliver(Delivery.objects.order_by("pk")[9])

    monkeypatch.setattr(transport, "start", asking)
    deliver()
    assert len(transport.sent) == 2
    assert states() == {"delivered": PAID + SHIPPED}


def test_a_head_that_was_removed_is_stood_for_by_another(clock: Clock, transport: Any) -> None:
    subscribed()
    a_window(clock)
    transport.fates = [500]
    deliver()
    message = Message.objects.get()
    Event.objects.filter(deliveries=message.head).delete()
    due_again(clock)
    deliver()
    assert len(transport.sent) == 2
    check_ids(transport)
    assert states() == {"delivered": PAID + SHIPPED - 1}


def test_members_know_of_a_try_before_the_next_one_in_a_lane_in_order_too(
    clock: Clock, transport: Any
) -> None:
    """There a failure moves no due time: the lane waits."""
    subscribed(ordered=True)
    a_window(clock)
    transport.fates = [500, "before"]
    deliver()
    due_again(clock)
    assert not deliver_or_die()
    assert set(Delivery.objects.values_list("attempts", flat=True)) == {1}


def test_what_was_acknowledged_is_not_called_discarded(
    clock: Clock, transport: Any, monkeypatch: Any
) -> None:
    subscription = subscribed()
    a_window(clock)
    with monkeypatch.context() as mortal:
        dies_at(mortal, following.Following, 2)
        assert not deliver_or_die()
    end_leases(clock.now)
    lifecycle.suspend(subscription)
    emit_orders(1)
    fan_out_all()
    lifecycle.resume(subscription, backlog="discard")
    deliver()
    assert len(transport.sent) == 1
    assert states() == {"delivered": PAID + SHIPPED, "discarded": 1}


def test_what_was_acknowledged_is_not_called_expired(
    clock: Clock, transport: Any, monkeypatch: Any
) -> None:
    subscription = subscribed()
    a_window(clock)
    with monkeypatch.context() as mortal:
        dies_at(mortal, following.Following, 2)
        assert not deliver_or_die()
    end_leases(clock.now)
    lifecycle.suspend(subscription)
    clock.pass_(timedelta(seconds=conf.SUSPENDED_MAX_AGE + 60))
    giving_up.expire_backlogs("default")
    assert states() == {"delivered": PAID + SHIPPED}


def test_others_are_served_between_two_rounds(
    clock: Clock, transport: Any, monkeypatch: Any
) -> None:
    subscribed()
    a_window(clock)
    subscribed(requester="app:b", trigger="realtime", content="events", ordered=True)
    emit_orders(60, "app:b")
    fan_out_all()
    happened: list[str] = []
    step, start = following.Following.step, transport.start

    def noted_step(self: Any, *arguments: Any) -> bool:
        happened.append("round")
        return step(self, *arguments)

    def noted_start(self: Any, *arguments: Any) -> None:
        happened.append("POST")
        start(self, *arguments)

    monkeypatch.setattr(following.Following, "step", noted_step)
    monkeypatch.setattr(transport, "start", noted_start)
    deliver()
    rounds = [place for place, what in enumerate(happened) if what == "round"]
    assert len(rounds) >= 4
    assert "POST" in happened[rounds[0] : rounds[-1]]


# What the host is told


@pytest.fixture
def heard() -> Iterator[list[tuple[str, dict[str, Any]]]]:
    found: list[tuple[str, dict[str, Any]]] = []
    names = ("delivery_succeeded", "delivery_failed", "delivery_dead")
    receivers = []
    for name in names:

        def hear(sender: Any, signal: Any, name: str = name, **said: Any) -> None:
            found.append((name, said))

        getattr(signals, name).connect(hear)
        receivers.append((name, hear))
    yield found
    for name, hear in receivers:
        getattr(signals, name).disconnect(hear)


def test_signals_fire_once_for_each_post_of_a_digest_of_counts(
    clock: Clock, transport: Any, heard: list[tuple[str, dict[str, Any]]]
) -> None:
    subscribed()
    a_window(clock)
    transport.fates = [500, 200]
    deliver()
    due_again(clock)
    deliver()
    head = Delivery.objects.get(pk=Message.objects.get().head)
    assert [(name, said["delivery_id"], said["attempts"]) for name, said in heard] == [
        ("delivery_failed", head.pk, 1),
        ("delivery_succeeded", head.pk, 2),
    ]
    assert {said["event_id"] for _name, said in heard} == {head.event_id}


def test_a_digest_of_counts_that_is_given_up_is_told_of_once(
    clock: Clock, transport: Any, heard: list[tuple[str, dict[str, Any]]], settings: Any
) -> None:
    settings.WEBHOOKS = {**settings.WEBHOOKS, "RETRY_SCHEDULE": ()}
    subscribed()
    subscribed(event_types=["webhooks.delivery.dead"], trigger="realtime", content="events")
    a_window(clock)
    transport.fates = [500]
    deliver()
    assert [name for name, _said in heard] == ["delivery_dead", "delivery_succeeded"]
    assert Event.objects.filter(type="webhooks.delivery.dead").count() == 1
    assert states() == {"dead": PAID + SHIPPED, "delivered": 1}


def test_signals_fire_for_each_event_of_another_digest(
    clock: Clock, transport: Any, heard: list[tuple[str, dict[str, Any]]]
) -> None:
    subscribed(content="events")
    a_window(clock)
    deliver()
    told = Counter(said["delivery_id"] for _name, said in heard)
    assert told == Counter(Delivery.objects.values_list("pk", flat=True))
