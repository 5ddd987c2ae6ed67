"""Several events in one POST: frozen before it, the same bytes at each try, settled together."""

from __future__ import annotations

import uuid
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from tests.world import (
    Answer,
    Received,
    Receiver,
    deliver,
    emit_orders,
    end_rests,
    fan_out_all,
    states,
    subscribe,
    without_breaker,
)
from webhooks import emit, emit_many, lifecycle, signals
from webhooks.clock import db_now
from webhooks.engine import leases
from webhooks.engine.freezing import MembersChanged, freeze
from webhooks.engine.lanes import HeldLane
from webhooks.engine.parcels import draft, new_message, read
from webhooks.formats import BatchRecord
from webhooks.formats.base import MAX_BODY_BYTES
from webhooks.formats.signing import generate_secret
from webhooks.formats.standard import StandardFormat
from webhooks.models import (
    Delivery,
    DeliveryAttempt,
    DeliveryStats,
    Event,
    Lane,
    Message,
    Subscription,
)
from webhooks.models.delivery import State
from webhooks.models.stats import WHOLE_SERVICE
from webhooks.redelivery import redeliver

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def configure(settings: Any) -> Any:
    def set_keys(**keys: Any) -> None:
        settings.WEBHOOKS = {**settings.WEBHOOKS, **keys}

    return set_keys


def come(receiver: Receiver) -> list[str]:
    """The ids of all events that came, in the order in which their POSTs were made ready."""
    posts = sorted(receiver.posts, key=lambda post: post.id)
    return [event["id"] for post in posts for event in post.json["events"]]


def make_due() -> None:
    """As if the waits of what failed were over."""
    now = db_now("default")
    Delivery.objects.pending().filter(due_at__gt=now).update(due_at=now)
    Lane.objects.filter(token=None, claim_at__gt=now).update(claim_at=now)
    end_rests()


class OneByOne(StandardFormat):
    """A format that makes other bytes than it did before, as after an update of the host's."""

    def batch_body(self, batch: BatchRecord) -> bytes:
        return super().batch_body(batch) + b" "


# The plain way


def test_events_travel_together_signed_and_in_order(receiver: Receiver) -> None:
    secret = generate_secret()
    subscription = subscribe(receiver, batch_size=10, secret=secret)
    emitted = [event.pk for event in emit_orders(25)]
    deliver()
    assert come(receiver) == emitted
    assert sorted(len(post.json["events"]) for post in receiver.posts) == [5, 10, 10]
    for post in receiver.posts:
        body: Any = Webhook(secret).verify(post.body, post.headers)
        message = Message.objects.get(pk=post.id)
        assert (body["id"], body["type"]) == (message.pk, "batch")
        assert set(body) == {"id", "type", "timestamp", "events"}
        assert (message.count, message.batch, message.format) == (
            len(body["events"]),
            True,
            "standard",
        )
        assert list(message.members.order_by("pk").values_list("event_id", flat=True)) == [
            each["id"] for each in body["events"]
        ]
    assert states() == {"delivered": 25}
    attempts = DeliveryAttempt.objects.filter(subscription=subscription)
    # The three were under way together: they may be answered in any order.
    assert sorted((each.number, each.trigger, each.event_count) for each in attempts) == [
        (1, "first", 5),
        (1, "first", 10),
        (1, "first", 10),
    ]


def test_one_event_comes_in_the_envelope_too(receiver: Receiver) -> None:
    subscribe(receiver, batch_size=2)
    [event] = emit_orders(1)
    deliver()
    assert come(receiver) == [event.pk]
    assert receiver.posts[0].id.startswith("msg_")


def test_a_batch_keeps_within_its_bytes_and_a_large_event_goes_alone(receiver: Receiver) -> None:
    subscribe(receiver, batch_size=100)
    emit_orders(4, data={"text": "x" * 250_000})
    emit_orders(30, data={"text": "x" * 20_000})
    deliver()
    assert all(len(post.body) <= MAX_BODY_BYTES for post in receiver.posts)
    assert len(come(receiver)) == len(set(come(receiver))) == 34
    assert len(receiver.posts) == 3


def test_many_lanes_of_batches_and_others_are_served_together(receiver: Receiver) -> None:
    for i in range(30):
        subscribe(receiver, f"app:{i}", batch_size=20 if i % 2 else 1)
    emitted = [event.pk for i in range(30) for event in emit_orders(50, f"app:{i}")]
    deliver()
    single = [post.json["id"] for post in receiver.posts if "events" not in post.json]
    batched = [e["id"] for p in receiver.posts if "events" in p.json for e in p.json["events"]]
    assert sorted(single + batched) == sorted(emitted)
    assert len(receiver.posts) == 15 * 50 + 15 * 3
    assert states() == {"delivered": 1500}


# What fails


def test_a_failed_batch_is_tried_again_with_the_same_bytes(
    receiver: Receiver, configure: Any
) -> None:
    configure(RETRY_SCHEDULE=(60, 60))
    receiver.answer = Answer(status=500)
    subscribe(receiver, batch_size=10)
    emit_orders(10)
    deliver()
    [message] = Message.objects.all()
    due = set(Delivery.objects.values_list("due_at", "attempts", "state"))
    assert len(due) == 1
    assert due.pop()[1:] == (1, "pending")
    emit_orders(3)  # what comes meanwhile does not get into it
    receiver.answer = Answer()
    make_due()
    deliver()
    assert receiver.ids[message.pk] == 2
    assert len(receiver.bodies_of(message.pk)) == 1
    assert states() == {"delivered": 13}
    assert len(set(come(receiver))) == 13
    tries = DeliveryAttempt.objects.filter(message_id=message.pk).order_by("pk")
    assert [(each.number, each.trigger) for each in tries] == [(1, "first"), (2, "retry")]


def test_members_end_together_and_dead_ones_are_told_of(receiver: Receiver, configure: Any) -> None:
    configure(RETRY_SCHEDULE=())
    told: list[Any] = []
    signals.delivery_dead.connect(told.append, weak=False, dispatch_uid="test")
    heard: list[dict[str, Any]] = []

    def hear(sender: Any, **said: Any) -> None:
        heard.append(said)

    signals.delivery_dead.connect(hear)
    try:
        receiver.answer = Answer(status=500)
        subscribe(receiver, batch_size=10)
        events = emit_orders(5)
        deliver()
    finally:
        signals.delivery_dead.disconnect(hear)
        signals.delivery_dead.disconnect(dispatch_uid="test")
    assert states() == {"dead": 5}
    assert [said["event_id"] for said in heard] == [event.pk for event in events]
    assert {said["attempts"] for said in heard} == {1}


def test_a_410_cancels_all_of_it(receiver: Receiver) -> None:
    receiver.answer = Answer(status=410)
    subscribe(receiver, batch_size=10)
    emit_orders(15)
    deliver()
    assert states() == {"cancelled": 15}
    assert Subscription.objects.get().status == "unsubscribed"


def test_statistics_count_events_and_the_endpoint_s_answer_once(receiver: Receiver) -> None:
    subscription = subscribe(receiver, batch_size=10, event_types=["*"])
    emit_orders(7)
    emit_many("order.shipped", [{"data": {}, "requester": "app:a"}] * 2)
    deliver()
    for whose in (subscription.pk, WHOLE_SERVICE):
        rows = DeliveryStats.objects.filter(subscription_id=whose)
        assert {row.type: (row.attempts, row.delivered, row.first_try) for row in rows} == {
            "order.paid": (7, 7, 7),
            "order.shipped": (2, 2, 2),
        }
        assert sum(sum(row.latency) for row in rows) == 1
        assert sum(sum(row.acknowledged) for row in rows) == 9


def test_what_was_frozen_and_never_sent_goes_out_as_it_was_frozen(
    receiver: Receiver, monkeypatch: Any
) -> None:
    """As after a kill between the freeze and the POST."""
    subscription = subscribe(receiver, batch_size=10)
    emit_orders(10)
    fan_out_all()
    message = frozen(subscription)
    emit_orders(5)
    deliver()
    assert set(receiver.ids.values()) == {1}
    [first] = [post for post in receiver.posts if post.id == message.pk]
    assert len(first.json["events"]) == 10
    assert len(come(receiver)) == 15


def frozen(subscription: Subscription) -> Message:
    """All that is pending, frozen in one message by a worker that then died."""
    made = draft(
        new_message(subscription, db_now("default")),
        read("default", subscription_id=subscription.pk, message=None),
    )
    made.message.save(force_insert=True)
    Delivery.objects.pending().filter(message=None).update(message=made.message)
    return made.message


def test_a_frozen_batch_keeps_its_format_whatever_is_chosen_later(receiver: Receiver) -> None:
    secret = generate_secret()
    subscription = subscribe(receiver, batch_size=10, secret=secret)
    emit_orders(3)
    fan_out_all()
    message = frozen(subscription)
    lifecycle.update(subscription, format="mandrill", batch_size=1)
    emit_orders(1)
    deliver()
    by_id = {post.id: post for post in receiver.posts}
    assert Webhook(secret).verify(by_id[message.pk].body, by_id[message.pk].headers)
    assert by_id[message.pk].headers["content-type"] == "application/json"
    [single] = [post for post in receiver.posts if post.id != message.pk]
    assert single.body.startswith(b"mandrill_events=")
    assert states() == {"delivered": 4}


@pytest.mark.parametrize("change", ["erased", "format"])
def test_bytes_that_cannot_be_made_again_go_out_under_another_id(
    receiver: Receiver, monkeypatch: Any, change: str
) -> None:
    subscription = subscribe(receiver, batch_size=10)
    events = emit_orders(4)
    fan_out_all()
    message = frozen(subscription)
    if change == "erased":
        Event.objects.filter(pk=events[1].pk).delete()
    else:
        monkeypatch.setitem(__import__("webhooks.formats").formats.FORMATS, "standard", OneByOne())
    deliver()
    [post] = receiver.posts
    assert post.id != message.pk
    message.refresh_from_db()
    assert message.superseded_at is not None
    assert not message.members.exists()
    left = [e.pk for i, e in enumerate(events) if change == "format" or i != 1]
    assert come(receiver) == left
    assert states() == {"delivered": len(left)}


def test_a_format_that_fails_fails_its_own_tries_alone(
    receiver: Receiver, receivers: Any, configure: Any, monkeypatch: Any
) -> None:
    class Broken(StandardFormat):
        def batch_body(self, batch: BatchRecord) -> bytes:
            raise RuntimeError("broken")

    from webhooks import formats

    monkeypatch.setitem(formats.FORMATS, "broken", Broken())
    configure(RETRY_SCHEDULE=(60,))
    subscribe(receiver, batch_size=5, format="broken")
    other = receivers()
    subscribe(other, "app:b", batch_size=5)
    emit_orders(3)
    emit_orders(3, "app:b")
    deliver()
    assert not receiver.posts
    assert len(other.posts) == 1
    [attempt] = DeliveryAttempt.objects.exclude(error_code="")
    assert attempt.error_code == "invalid_request"
    monkeypatch.setitem(formats.FORMATS, "broken", StandardFormat())
    make_due()
    deliver()
    assert receiver.posts[0].id == attempt.message_id
    assert states() == {"delivered": 6}


def test_a_frozen_batch_knows_how_long_its_lane_had_stood_still(receiver: Receiver) -> None:
    """Its age is reckoned from that: without it, what its lane stood still before would count."""
    subscription = subscribe(receiver, batch_size=5)
    Lane.objects.update(clock_stopped_ms=60_000)
    emit_orders(2)
    fan_out_all()
    message = frozen(subscription)
    assert {each.clock_stopped_ms for each in read("default", message=message)} == {60_000}
    deliver()


# Waiting for others


def test_a_batch_that_is_not_full_waits_for_its_seconds(receiver: Receiver) -> None:
    subscribe(receiver, batch_size=10, batch_seconds=30)
    emit_orders(4)
    deliver()
    assert not receiver.posts
    emit_orders(4)
    end_rests()
    deliver()
    assert not receiver.posts
    lane = Lane.objects.get()
    now = db_now("default")
    assert lane.claim_at is not None
    assert now < lane.claim_at <= now + timedelta(seconds=3)
    Delivery.objects.update(due_at=now - timedelta(seconds=30))
    end_rests()
    deliver()
    assert [len(post.json["events"]) for post in receiver.posts] == [8]


def test_a_batch_that_is_full_does_not_wait(receiver: Receiver) -> None:
    subscribe(receiver, batch_size=10, batch_seconds=30)
    emit_orders(4)
    deliver()
    emit_orders(19)
    end_rests()
    deliver()
    assert [len(post.json["events"]) for post in receiver.posts] == [10, 10]
    assert states() == {"delivered": 20, "pending": 3}


# Asked for again


def test_a_redelivery_of_one_sends_all_that_travelled_with_it(receiver: Receiver) -> None:
    subscribe(receiver, batch_size=10)
    emit_orders(5)
    deliver()
    redeliver(Delivery.objects.order_by("pk")[2])
    assert states() == {"pending": 5}
    deliver()
    [message] = Message.objects.all()
    assert receiver.ids == Counter({message.pk: 2})
    assert len(receiver.bodies_of(message.pk)) == 1
    assert set(Delivery.objects.values_list("state", "attempts")) == {("delivered", 2)}
    assert list(DeliveryAttempt.objects.order_by("pk").values_list("trigger", flat=True)) == [
        "first",
        "manual",
    ]


def test_a_redelivery_under_a_new_id_is_a_batch_of_one(receiver: Receiver) -> None:
    subscribe(receiver, batch_size=10)
    emit_orders(5)
    deliver()
    chosen = Delivery.objects.order_by("pk")[2]
    again = redeliver(chosen, new_id=True)
    deliver()
    assert [len(post.json["events"]) for post in receiver.posts] == [5, 1]
    assert receiver.posts[1].id == again.message_id == receiver.posts[1].json["id"]
    assert receiver.posts[1].json["events"][0]["id"] == chosen.event_id
    assert states() == {"delivered": 5}


def test_a_redelivery_of_what_is_pending_hastens_all_of_it(
    receiver: Receiver, configure: Any
) -> None:
    configure(RETRY_SCHEDULE=(600,))
    receiver.answer = Answer(status=500)
    subscribe(receiver, batch_size=10)
    emit_orders(5)
    deliver()
    receiver.answer = Answer()
    redeliver(Delivery.objects.order_by("pk")[4])
    deliver()
    assert states() == {"delivered": 5}
    assert len(set(receiver.ids)) == 1


def test_a_lane_in_order_keeps_it_in_batches(
    receiver: Receiver, configure: Any, monkeypatch: Any
) -> None:
    without_breaker(monkeypatch)
    configure(RETRY_SCHEDULE=(1,) * 9)
    seen: Counter[str] = Counter()

    def answer(post: Received) -> Answer:
        seen[post.id] += 1
        return Answer(status=500) if seen[post.id] == 1 else Answer()

    receiver.answer = answer
    subscribe(receiver, batch_size=4, ordered=True)
    emitted = [event.pk for event in emit_orders(10)]
    for _ in range(8):
        deliver()
        end_rests()
    assert states() == {"delivered": 10}
    good = list(dict.fromkeys(come(receiver)))
    assert good == emitted
    assert [post.id for post in receiver.posts] == sorted(
        (post.id for post in receiver.posts), key=[p.id for p in receiver.posts].index
    )


# Changes that nobody has heard of yet


def test_what_may_not_be_sent_any_more_leaves_the_batch(
    receiver: Receiver, monkeypatch: Any
) -> None:
    subscription = subscribe(receiver, batch_size=10)
    paid = emit_orders(2)
    emit("order.shipped", {}, requester="app:a")
    fan_out_all()
    message = frozen(subscription)
    monkeypatch.setattr(HeldLane, "may_be_sent", lambda self, name: name != "order.shipped")
    deliver()
    assert come(receiver) == [event.pk for event in paid]
    assert message.pk not in receiver.ids
    assert states() == {"delivered": 2, "cancelled": 1}
    assert Delivery.objects.get(state="cancelled").reason == "scope_lost"


def test_nothing_is_frozen_after_a_change_that_its_holder_has_not_heard_of(
    receiver: Receiver,
) -> None:
    subscription = subscribe(receiver, batch_size=10)
    emit_orders(2)
    fan_out_all()
    token = uuid.uuid4()
    [lane] = leases.claim("default", token, limit=1, now=db_now("default"))
    made = draft(
        new_message(subscription, db_now("default")), read("default", subscription_id=lane.id)
    )
    lifecycle.update(subscription, format="mandrill")
    assert freeze("default", token, [(lane, made)]) == set()
    assert not Message.objects.exists()
    lane.control += 1
    assert freeze("default", token, [(lane, made)]) == {lane.id}
    assert freeze("default", uuid.uuid4(), [(lane, made)]) == set()
    Lane.objects.update(token=None, lease_until=None, claim_at=db_now("default"))


def test_a_batch_that_lost_a_member_is_not_frozen(receiver: Receiver) -> None:
    subscription = subscribe(receiver, batch_size=10)
    emit_orders(2)
    fan_out_all()
    token = uuid.uuid4()
    [lane] = leases.claim("default", token, limit=1, now=db_now("default"))
    deliveries = read("default", subscription_id=lane.id)
    made = draft(new_message(subscription, db_now("default")), deliveries)
    Delivery.objects.filter(pk=deliveries[0].id).settle(State.CANCELLED, now=db_now("default"))
    with pytest.raises(MembersChanged):
        freeze("default", token, [(lane, made)])
    assert not Message.objects.exists()
    assert not Delivery.objects.exclude(message=None).exists()
    Lane.objects.update(token=None, lease_until=None, claim_at=db_now("default"))
