"""An event becomes one delivery for each subscription that it concerns."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection, connections
from django.db.models import JSONField, Value

from tests.world import Receiver, emit_orders, fan_out_all, states, subscribe
from webhooks import emit
from webhooks.engine import fanout
from webhooks.engine.fanout import fan_out
from webhooks.lifecycle import change_status
from webhooks.models import Delivery, Duty, Event, Lane, Subscription
from webhooks.models.lane import LaneQuerySet
from webhooks.models.subscription import OnSuspend, Status

pytestmark = pytest.mark.django_db(transaction=True)


def told(subscription: Subscription) -> list[str]:
    """The types of the events that a subscription gets, in the order of its lane."""
    rows = Delivery.objects.filter(subscription=subscription).order_by("due_at", "pk")
    return list(rows.values_list("event__type", flat=True))


def make_subscriptions(count: int, *, lanes: bool = True, **given: Any) -> list[Subscription]:
    """Written past ``subscribe()``, in bulk."""
    fields: dict[str, Any] = {
        "requester": "app:a",
        "callback_url": "https://hooks.example.com/in",
        "event_types": ["*"],
        "status": Status.SUBSCRIBED,
    }
    made = [Subscription(**{**fields, **given}) for _ in range(count)]
    Subscription.objects.bulk_create(made, batch_size=500)
    if lanes:
        Lane.objects.bulk_create([Lane(subscription=each) for each in made], batch_size=500)
    return made


def test_an_event_goes_to_its_requesters_subscriptions_only(receiver: Receiver) -> None:
    ours, theirs = subscribe(receiver, "app:a"), subscribe(receiver, "app:b")
    emit_orders(1, "app:a")
    fan_out_all()
    assert (told(ours), told(theirs)) == (["order.paid"], [])


def test_an_event_for_everyone_goes_to_every_requester(receiver: Receiver) -> None:
    subscriptions = [subscribe(receiver, f"app:{i}", ["shop.closed"]) for i in range(3)]
    emit("shop.closed", {"day": "Monday"})
    fan_out_all()
    assert [told(each) for each in subscriptions] == [["shop.closed"]] * 3


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["order.paid"], ["order.paid"]),
        (["order.*"], ["order.paid", "order.shipped"]),
        (["*"], ["order.paid", "order.shipped", "shop.order.refunded"]),
        (["shop.*"], ["shop.order.refunded"]),
        (["order.paid", "order.*", "*"], ["order.paid", "order.shipped", "shop.order.refunded"]),
    ],
)
def test_patterns_choose_the_event_types(
    receiver: Receiver, patterns: list[str], expected: list[str]
) -> None:
    subscription = subscribe(receiver, event_types=patterns)
    for name in ("order.paid", "order.shipped", "shop.order.refunded"):
        emit(name, {"order": 1}, requester="app:a")
    fan_out_all()
    assert told(subscription) == expected


def test_repeating_a_fan_out_changes_nothing(receiver: Receiver) -> None:
    subscribe(receiver)
    emit_orders(5)
    fan_out_all()
    before = list(Delivery.objects.order_by("pk").values())
    # As if a crash had taken back the mark, but not the deliveries.
    Event.objects.update(fanned_out_at=None)
    fan_out_all()
    assert list(Delivery.objects.order_by("pk").values()) == before
    assert list(Event.objects.order_by("pk").values_list("seq", flat=True)) == [1, 2, 3, 4, 5]


def test_seq_has_no_gaps_and_follows_the_order_in_which_events_became_visible(
    receiver: Receiver,
) -> None:
    subscribe(receiver)
    fields = {"type": "order.paid", "requester": "app:a", "data": "{}"}
    early, late = Event(**fields), Event(**fields)
    assert early.pk < late.pk
    late.save()  # ids precede commits: this one commits first
    fan_out_all()
    early.save()
    emit_orders(3)
    fan_out_all()
    early.refresh_from_db()
    late.refresh_from_db()
    assert (late.seq, early.seq) == (1, 2)
    assert sorted(Event.objects.values_list("seq", flat=True)) == [1, 2, 3, 4, 5]


def test_seq_goes_on_where_it_stopped_although_old_events_were_removed(receiver: Receiver) -> None:
    emit_orders(3)
    fan_out_all()
    Event.objects.all().delete()
    emit_orders(1)
    fan_out_all()
    assert Event.objects.get().seq == 4


def test_events_of_one_transaction_keep_their_order(receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    emitted = [event.pk for event in emit_orders(50)]
    fan_out_all()
    in_lane = Delivery.objects.filter(subscription=subscription).order_by("due_at", "pk")
    assert list(in_lane.values_list("event_id", flat=True)) == emitted
    assert list(Event.objects.order_by("seq").values_list("pk", flat=True)) == emitted


@pytest.mark.parametrize(
    ("on_suspend", "state"), [(OnSuspend.KEEP, "pending"), (OnSuspend.DISCARD, "discarded")]
)
def test_a_suspended_subscription_keeps_or_discards_as_it_chose(
    receiver: Receiver, on_suspend: str, state: str
) -> None:
    subscription = subscribe(receiver, on_suspend=on_suspend)
    change_status(subscription, Status.SUSPENDED, reason="client")
    emit_orders(1)
    fan_out_all()
    delivery = Delivery.objects.get()
    assert (delivery.state, delivery.settled_at is None) == (state, state == "pending")
    assert delivery.reason == ("suspended" if state == "discarded" else "")
    assert subscription.lane.claim_at is None


@pytest.mark.parametrize("status", [Status.PENDING, Status.UNSUBSCRIBED])
def test_a_subscription_that_is_not_live_gets_nothing(receiver: Receiver, status: str) -> None:
    subscription = subscribe(receiver)
    Subscription.objects.filter(pk=subscription.pk).update(status=status)
    emit_orders(1)
    fan_out_all()
    assert not Delivery.objects.exists()
    assert Event.objects.get().fanned_out_at is not None


def test_new_deliveries_make_their_lane_claimable_at_once(receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    idle = subscribe(receiver, "app:b")
    assert subscription.lane.claim_at is None
    emit_orders(1)
    fan_out_all()
    for each in (subscription, idle):
        each.lane.refresh_from_db()
    assert subscription.lane.claim_at == Delivery.objects.get().due_at
    assert idle.lane.claim_at is None


def test_a_paused_lane_stays_paused(receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    pause = datetime(2100, 1, 1, tzinfo=UTC)
    Lane.objects.update(paused_until=pause)
    emit_orders(1)
    fan_out_all()
    subscription.lane.refresh_from_db()
    assert subscription.lane.claim_at == pause


def test_a_subscription_without_a_lane_is_given_one() -> None:
    live, suspended = make_subscriptions(2, lanes=False)
    Subscription.objects.filter(pk=suspended.pk).update(status=Status.SUSPENDED)
    emit_orders(1)
    fan_out_all()
    assert states() == {"pending": 2}
    assert Lane.objects.get(pk=live.pk).claim_at is not None
    assert Lane.objects.get(pk=suspended.pk).claim_at is None
    assert Lane.objects.get(pk=suspended.pk).held


def test_emitting_costs_one_statement_however_many_subscribe(
    django_assert_num_queries: Any,
) -> None:
    make_subscriptions(50, event_types=["shop.closed"])
    with django_assert_num_queries(1):
        emit("shop.closed", {"day": "Monday"})


def test_ten_thousand_subscriptions_get_an_event_once_each_in_several_transactions() -> None:
    subscriptions = make_subscriptions(10_000)
    first = emit("shop.closed", {"day": "Monday"})
    emit("shop.closed", {"day": "Tuesday"})
    Duty.objects.ensure()
    sizes, more = [], True
    while more:
        done = fan_out("default")
        sizes.append(done.deliveries)
        more = done.more
    assert sum(sizes) == 20_000
    assert max(sizes) <= 2 * fanout.IDLE  # bounded in memory and in time
    assert len(sizes) >= 5
    of_first = Delivery.objects.filter(event=first).values_list("subscription_id", flat=True)
    assert sorted(of_first) == sorted(each.pk for each in subscriptions)
    assert Delivery.objects.count() == 20_000
    assert list(Event.objects.order_by("pk").values_list("seq", "fan_out_after")) == [
        (1, ""),
        (2, ""),
    ]


def test_a_large_fan_out_is_finished_before_the_next_event_begins() -> None:
    [subscription, *_rest] = make_subscriptions(30)
    first, second = (emit("shop.closed", {"day": day}) for day in ("Monday", "Tuesday"))
    Duty.objects.ensure()
    while fan_out("default", room=7).more:
        pass
    order = Delivery.objects.filter(subscription=subscription).order_by("due_at", "pk")
    assert list(order.values_list("event_id", flat=True)) == [first.pk, second.pk]
    assert Delivery.objects.count() == 60


@pytest.mark.parametrize("crash_at", range(1, 6))
def test_a_crash_in_the_middle_loses_and_repeats_nothing(
    crash_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_subscriptions(25)
    emit("shop.closed", {"day": "Monday"})
    emit_orders(2)
    Duty.objects.ensure()
    transactions = 0
    original = LaneQuerySet.expect

    def crash(self: Any, *args: Any) -> None:
        nonlocal transactions
        transactions += 1
        if transactions == crash_at:
            raise KeyboardInterrupt  # deliveries are inserted, nothing is committed
        original(self, *args)

    monkeypatch.setattr(LaneQuerySet, "expect", crash)
    crashes = 0
    for _ in range(30):
        try:
            if not fan_out("default", room=10).more:
                break
        except KeyboardInterrupt:
            crashes += 1
    assert crashes == 1
    assert Delivery.objects.count() == 75
    per_event = Counter(Delivery.objects.values_list("event__seq", flat=True))
    assert per_event == {1: 25, 2: 25, 3: 25}


def test_while_another_process_is_at_it_nothing_is_done(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not connection.features.has_select_for_update_skip_locked:
        pytest.skip("there the second one waits for its turn")
    subscribe(receiver)
    emit_orders(3)
    Duty.objects.ensure()
    seen = []
    original = fanout._write

    def meanwhile(*args: Any) -> None:
        def other() -> None:
            seen.append(fan_out("default"))
            connections.close_all()

        thread = threading.Thread(target=other)
        thread.start()
        thread.join(10)
        original(*args)

    monkeypatch.setattr(fanout, "_write", meanwhile)
    fan_out("default")
    assert seen == [fanout.FannedOut()]
    assert Delivery.objects.count() == 3


def test_a_subscription_deleted_in_the_middle_of_a_fan_out_harms_nobody(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("there nobody can write meanwhile")
    gone, stays = subscribe(receiver), subscribe(receiver)
    emit_orders(2)
    Duty.objects.ensure()
    original = fanout._lock_lanes

    def meanwhile(*args: Any) -> Any:
        def delete() -> None:
            Subscription.objects.filter(pk=gone.pk).delete()
            connections.close_all()

        thread = threading.Thread(target=delete)
        thread.start()
        thread.join(10)
        assert not thread.is_alive()
        return original(*args)

    monkeypatch.setattr(fanout, "_lock_lanes", meanwhile)
    fan_out("default")
    assert told(stays) == ["order.paid"] * 2
    assert Delivery.objects.count() == 2
    assert not Lane.objects.filter(pk=gone.pk).exists()


def test_a_subscription_that_ends_in_the_middle_of_a_fan_out_leaves_nothing_pending_unseen(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscription = subscribe(receiver)
    emit_orders(1)
    Duty.objects.ensure()
    original = fanout._lock_lanes

    def meanwhile(*args: Any) -> Any:
        # As if it had committed between the reading of the subscriptions and the lock.
        change_status(subscription, Status.UNSUBSCRIBED, reason="client")
        return original(*args)

    monkeypatch.setattr(fanout, "_lock_lanes", meanwhile)
    fan_out("default")
    subscription.lane.refresh_from_db()
    assert subscription.lane.claim_at is not None  # somebody comes and cancels it


@pytest.mark.parametrize("poison", [None, 5, True, {"a": 1}, "order.paid", [None], [["*"]], [5]])
def test_event_types_that_make_no_sense_harm_nobody_else(receiver: Receiver, poison: Any) -> None:
    bad, good = subscribe(receiver), subscribe(receiver)
    # JSON's null, which Python's None would not write.
    value = Value(None, JSONField()) if poison is None else poison
    Subscription.objects.filter(pk=bad.pk).update(event_types=value)
    emit_orders(1)
    fan_out_all()
    assert told(good) == ["order.paid"]
    assert told(bad) in ([], ["order.paid"])


def test_requesters_that_differ_in_case_or_trailing_space_are_different(
    receiver: Receiver,
) -> None:
    subscribe(receiver, "app:Shop")
    for requester in ("app:shop", "app:Shop "):
        emit("order.paid", {"order": 1}, requester=requester)
    fan_out_all()
    assert not Delivery.objects.exists()
    emit("order.paid", {"order": 1}, requester="app:Shop")
    fan_out_all()
    assert Delivery.objects.count() == 1


def test_idempotency_keys_that_differ_in_case_or_accent_are_different() -> None:
    keys = ["abc", "ABC", "äbc", "abc "]
    events = {
        emit("order.paid", {"key": key}, requester="app:a", idempotency_key=key).pk for key in keys
    }
    assert len(events) == len(keys)
