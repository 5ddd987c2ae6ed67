"""An event once more: to its receivers, and to subscribers that it did not reach."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, transaction

from tests.engine.conftest import _no_lane_is_astray  # noqa: F401
from tests.world import (
    Receiver,
    deliver,
    emit_orders,
    fan_out_all,
    in_background,
    states,
    subscribe,
)
from webhooks import emit, lifecycle, redelivery
from webhooks.clock import db_now
from webhooks.engine import fanout
from webhooks.engine.addressing import (
    NO_SCOPE,
    NOT_ENTITLED,
    NOT_SUBSCRIBED,
    OTHER_REQUESTER,
    OTHER_TYPES,
    refusal,
)
from webhooks.engine.fanout import FannedOutAgain
from webhooks.engine.parcels import MARKER
from webhooks.exceptions import NotDeliverable
from webhooks.models import Delivery, DeliveryAttempt, Event, Subscription
from webhooks.models.delivery import State
from webhooks.models.replay import NOT_RECEIVED
from webhooks.redelivery import count_lacking, fan_out_again, redeliver_event

pytestmark = pytest.mark.django_db(transaction=True)


def fanned_out(requester: str = "app:a") -> Event:
    [event] = emit_orders(1, requester)
    fan_out_all()
    event.refresh_from_db()
    return event


def attempts() -> list[tuple[int, str]]:
    return list(DeliveryAttempt.objects.order_by("pk").values_list("number", "trigger"))


# To subscribers that it did not reach


def test_it_reaches_who_subscribed_later_and_nobody_twice(receiver: Receiver) -> None:
    first = subscribe(receiver)
    event = fanned_out()
    deliver()
    later = subscribe(receiver)
    before = Delivery.objects.values().get(subscription=first)
    assert count_lacking(event) == (1, False)
    assert fan_out_again(event, actor="staff:ann") == FannedOutAgain(1, 0, "")
    assert Delivery.objects.values().get(subscription=first) == before
    made = Delivery.objects.get(subscription=later)
    assert (made.state, made.attempts, made.trigger) == ("pending", 0, "replay")
    deliver()
    assert receiver.ids == {event.pk: 2}
    assert attempts() == [(1, "first"), (1, "replay")]
    assert fan_out_again(event) == FannedOutAgain(0, 0, "")


def test_it_keeps_its_place_in_the_feed(receiver: Receiver) -> None:
    event = fanned_out()
    subscribe(receiver)
    fan_out_again(event)
    assert Event.objects.values().get() == Event.objects.values().get(
        seq=event.seq, fanned_out_at=event.fanned_out_at, fan_out_after=""
    )


def test_it_is_given_by_the_rules_of_fan_out(receiver: Receiver) -> None:
    event = fanned_out()
    wanted = subscribe(receiver)
    subscribe(receiver, "app:b")
    subscribe(receiver, event_types=["shop.closed"])
    ended = subscribe(receiver)
    lifecycle.change_status(ended, "unsubscribed", reason="client")
    kept = subscribe(receiver)
    lifecycle.suspend(kept, reason="client")
    discarding = subscribe(receiver)
    lifecycle.suspend(discarding, reason="client", on_suspend="discard")
    fan_out_again(event)
    rows = Delivery.objects.values_list("subscription_id", "state", "reason")
    assert set(rows) == {
        (wanted.pk, "pending", ""),
        (kept.pk, "pending", ""),
        (discarding.pk, "discarded", "suspended"),
    }


def test_a_digest_gets_it_at_the_end_of_its_window(receiver: Receiver) -> None:
    event = fanned_out()
    subscribe(receiver, trigger="daily")
    fan_out_again(event)
    assert Delivery.objects.get().due_at > db_now("default")
    deliver()
    assert receiver.posts == []


def test_many_subscribers_are_reached_step_by_step(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = emit("order.paid", {}, requester="app:a")
    fan_out_all()
    event.refresh_from_db()
    for _ in range(5):
        subscribe(receiver)
    monkeypatch.setattr(fanout, "LOOKED_AT", 2)
    after, steps = "", []
    while not steps or after:
        made = fan_out_again(event, after=after)
        steps.append(made.deliveries)
        after = made.after
    assert steps == [2, 2, 1]
    deliver()
    assert states() == {"delivered": 5}


def test_it_does_not_wait_for_a_lane_that_somebody_has_locked(receiver: Receiver) -> None:
    if not connection.features.has_select_for_update_skip_locked:
        pytest.skip("there nobody can write meanwhile")
    event = fanned_out()
    locked, free = subscribe(receiver), subscribe(receiver)
    with transaction.atomic():
        lifecycle.update(locked, description="slowly changed")
        with in_background(fan_out_again, event) as made:
            assert made.result(10) == FannedOutAgain(1, 1, "")
    assert Delivery.objects.get().subscription_id == free.pk
    assert fan_out_again(event).deliveries == 1


@pytest.mark.parametrize("kind", ["waiting", "marker", "removed"])
def test_what_is_not_fanned_out_or_none_of_the_hosts_is_refused(
    receiver: Receiver, kind: str
) -> None:
    [event] = emit_orders(1)
    if kind != "waiting":
        fan_out_all()
    if kind == "marker":
        Event.objects.update(type=MARKER)
    if kind == "removed":
        Event.objects.all().delete()
    subscribe(receiver, event_types=["order.*", "webhooks.*"])
    for ask in (fan_out_again, count_lacking):
        with pytest.raises(NotDeliverable):
            ask(event)
    assert not Delivery.objects.exists()


class Known:
    """What is asked of an event and of a subscription."""

    type = "order.paid"
    requester = "app:a"
    status = "subscribed"
    event_types: Any

    def __init__(self, **given: Any) -> None:
        self.event_types = ["order.*"]
        self.__dict__.update(given)


@pytest.mark.parametrize(
    ("subscription", "scopes", "why"),
    [
        ({}, {"*"}, ""),
        ({"status": "suspended"}, {"*"}, ""),
        ({"requester": "app:b"}, {"*"}, OTHER_REQUESTER),
        ({"status": "pending"}, {"*"}, NOT_SUBSCRIBED),
        ({"status": "unsubscribed"}, {"*"}, NOT_SUBSCRIBED),
        ({"event_types": ["push.*"]}, {"*"}, OTHER_TYPES),
        ({}, None, NOT_ENTITLED),
        ({"requester": "app:b", "status": "unsubscribed"}, None, OTHER_REQUESTER),
    ],
)
def test_one_function_says_whom_an_event_is_for(subscription: Any, scopes: Any, why: str) -> None:
    assert refusal(Known(), Known(**subscription), scopes) == why


def test_what_is_addressed_to_nobody_is_for_everybody() -> None:
    assert refusal(Known(requester=""), Known(requester="app:b"), {"*"}) == ""


def test_a_scope_that_is_not_granted_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webhooks.engine.addressing.sees_type", lambda scopes, name: False)
    assert refusal(Known(), Known(), {"other"}) == NO_SCOPE


# To its receivers


@pytest.fixture
def sent_to_four(receiver: Receiver) -> tuple[Event, list[Subscription]]:
    """An event and its subscriptions: two received it, one is dead, one waits."""
    subscriptions = [subscribe(receiver) for _ in range(4)]
    event = fanned_out()
    for subscription, state in zip(subscriptions, ("delivered", "delivered", "dead"), strict=False):
        rows = Delivery.objects.filter(subscription=subscription)
        rows.settle(State(state), now=db_now("default"), attempts=1)
    return event, subscriptions


@pytest.mark.parametrize(("chosen", "count"), [(NOT_RECEIVED, 1), (("delivered", "dead"), 3)])
def test_it_is_sent_again_to_those_in_the_chosen_states(
    receiver: Receiver, sent_to_four: Any, chosen: Any, count: int
) -> None:
    event, _subscriptions = sent_to_four
    assert redeliver_event(event, states=chosen).deliveries == count
    assert Delivery.objects.filter(trigger="manual", state="pending").count() == count
    deliver()
    assert states() == {"delivered": 4}
    assert len(receiver.posts) == count + 1  # and the one that had waited


def test_those_of_ended_subscriptions_are_counted_apart(sent_to_four: Any) -> None:
    event, subscriptions = sent_to_four
    lifecycle.change_status(subscriptions[0], "unsubscribed", reason="client")
    sent = redeliver_event(event, states=["delivered"])
    assert (sent.deliveries, sent.refused, sent.after) == (1, 1, "")


def test_many_receivers_get_it_step_by_step(
    sent_to_four: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redelivery, "RESENT", 2)
    event, _subscriptions = sent_to_four
    every = ["delivered", "dead", "pending"]  # those that are sent again are pending
    first = redeliver_event(event, states=every)
    assert (first.deliveries, bool(first.after)) == (2, True)
    second = redeliver_event(event, states=every, after=first.after)
    assert (second.deliveries, second.after) == (2, "")
    assert Delivery.objects.filter(trigger="manual").count() == 4


def test_each_may_get_it_under_an_id_of_its_own(receiver: Receiver, sent_to_four: Any) -> None:
    event, _subscriptions = sent_to_four
    redeliver_event(event, states=["delivered", "dead"], new_id=True)
    deliver()
    assert receiver.ids[event.pk] == 1
    assert len(receiver.ids) == 4


def test_a_log_tells_who_asked(
    receiver: Receiver, caplog: pytest.LogCaptureFixture, sent_to_four: Callable[..., Any]
) -> None:
    event, _subscriptions = sent_to_four  # type: ignore[misc]
    with caplog.at_level("INFO", logger="webhooks"):
        fan_out_again(event, actor="staff:ann")
        redeliver_event(event, states=["dead"], actor="staff:bob")
    assert "fanned out again to 0, asked for by 'staff:ann'" in caplog.text
    assert "is sent again, asked for by 'staff:bob'" in caplog.text
