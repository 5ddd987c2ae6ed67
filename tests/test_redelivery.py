"""Sending again: the same message, a new schedule, and nothing that was under way gets lost."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import transaction

from tests.engine.conftest import _no_lane_is_astray  # noqa: F401
from tests.world import (
    Answer,
    Received,
    Receiver,
    deliver,
    emit_orders,
    fan_out_all,
    in_background,
    states,
    subscribe,
    without_breaker,
)
from webhooks import lifecycle
from webhooks.clock import db_now
from webhooks.exceptions import NotDeliverable
from webhooks.formats import FORMATS
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
from webhooks.models.delivery import MOST_ATTEMPTS, State
from webhooks.models.fields import first_id_of
from webhooks.models.replay import REPLAYABLE
from webhooks.models.stats import ACK_COLUMNS
from webhooks.models.subscription import Status
from webhooks.receiving import verify
from webhooks.redelivery import DEFAULT_STATES, ReplayRequest, redeliver
from webhooks.tasks import drain

pytestmark = pytest.mark.django_db(transaction=True)

HOUR = timedelta(hours=1)
NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)

woken: list[str] = []


def note_wake_up() -> None:
    woken.append("drain")


@pytest.fixture
def configure(settings: Any) -> Callable[..., None]:
    def set_keys(**keys: Any) -> None:
        settings.WEBHOOKS = {**settings.WEBHOOKS, **keys}

    return set_keys


def attempts() -> list[tuple[int, str, int | None]]:
    rows = DeliveryAttempt.objects.order_by("pk")
    return list(rows.values_list("number", "trigger", "status_code"))


def put_off(delivery: Delivery, wait: timedelta) -> None:
    """Its next try is due later."""
    later = db_now("default") + wait
    Delivery.objects.filter(pk=delivery.pk).update(due_at=later)
    Lane.objects.filter(pk=delivery.subscription_id).update(claim_at=later)


def answers(*each: Answer) -> Callable[[Received], Answer]:
    """These answers one after the other, and then the last one for ever."""
    left = list(each)
    return lambda _post: left.pop(0) if len(left) > 1 else left[0]


def dead(receiver: Receiver, **options: Any) -> Delivery:
    """A delivery that failed at its only try; the endpoint is mended since."""
    receiver.answer = Answer(status=500)
    subscribe(receiver, **{"retry_schedule": [], **options})
    emit_orders(1)
    deliver()
    assert states() == {"dead": 1}
    receiver.answer = Answer()
    return Delivery.objects.get()


# The same message


def test_what_was_delivered_comes_again_under_the_same_id_with_the_same_bytes(
    receiver: Receiver,
) -> None:
    subscribe(receiver)
    [event] = emit_orders(1)
    deliver()
    redeliver(Delivery.objects.get())
    deliver()
    assert receiver.ids == {event.pk: 2}
    assert len(receiver.bodies_of(event.pk)) == 1
    assert attempts() == [(1, "first", 200), (2, "manual", 200)]
    assert states() == {"delivered": 1}


@pytest.mark.parametrize("state", [state for state in State if state != State.PENDING])
def test_whatever_became_of_it_it_is_pending_again(receiver: Receiver, state: State) -> None:
    subscribe(receiver)
    emit_orders(1)
    fan_out_all()
    old = db_now("default") - 200 * HOUR
    Delivery.objects.update(due_at=old, first_due_at=old)
    Delivery.objects.all().settle(state, now=old, reason="whatever", attempts=4)
    Lane.objects.update(claim_at=None)
    before = db_now("default")
    given = Delivery.objects.get()
    returned = redeliver(given, actor="app:a")
    assert returned is given
    assert (returned.state, returned.reason, returned.settled_at) == ("pending", "", None)
    assert (returned.attempts, returned.retries_from, returned.trigger) == (4, 4, "manual")
    assert before <= returned.due_at == returned.first_due_at <= db_now("default")
    deliver()
    assert attempts() == [(5, "manual", 200)]


def test_the_schedule_begins_anew_and_the_numbers_go_on(
    receiver: Receiver, configure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_breaker(monkeypatch)
    configure(RETRY_SCHEDULE=(0.3, 0.3))
    receiver.answer = Answer(status=500)
    subscribe(receiver)
    emit_orders(1)
    drain()
    assert states() == {"dead": 1}
    redeliver(Delivery.objects.get())
    drain()
    assert states() == {"dead": 1}
    triggers = ["first", "retry", "retry", "manual", "retry", "retry"]
    assert attempts() == [(i + 1, trigger, 500) for i, trigger in enumerate(triggers)]
    assert Delivery.objects.get().attempts == 6


def test_the_age_limit_begins_anew(receiver: Receiver) -> None:
    delivery = dead(receiver)
    old = db_now("default") - 500 * HOUR
    Delivery.objects.update(first_due_at=old, due_at=old)
    Subscription.objects.update(retry_schedule=[60])
    receiver.answer = Answer(status=500)
    redeliver(delivery)
    deliver()
    assert states() == {"pending": 1}  # to be tried again, not expired


def test_its_acknowledgement_is_as_late_as_it_comes_after_the_asking(receiver: Receiver) -> None:
    delivery = dead(receiver)
    Event.objects.update(created_at=db_now("default") - 72 * HOUR)
    redeliver(delivery)
    deliver()
    stats = DeliveryStats.objects.filter(subscription_id=delivery.subscription_id, code="").get()
    counted = [getattr(stats, name) for name in ACK_COLUMNS]
    assert sum(counted) == 1
    assert sum(counted[8:]) == 0  # not one of minutes, hours or days


def test_however_often_it_was_tried_the_columns_do_not_overflow(receiver: Receiver) -> None:
    delivery = dead(receiver)
    Delivery.objects.update(attempts=MOST_ATTEMPTS + 31)
    redeliver(delivery)
    deliver()
    assert states() == {"delivered": 1}
    assert attempts()[-1] == (MOST_ATTEMPTS + 1, "manual", 200)


def test_a_parked_lane_is_probed_with_it_at_once(receiver: Receiver) -> None:
    receiver.answer = Answer(status=500)
    subscribe(receiver, max_in_flight=1)
    emit_orders(7)
    deliver()
    lane = Lane.objects.get()
    assert lane.pause_reason == "parked"
    assert len(receiver.posts) == 5
    receiver.answer = Answer()
    asked = Delivery.objects.filter(attempts=0).latest("pk")
    redeliver(asked)
    assert Lane.objects.get().clock_at(db_now("default")) < lane.clock_stopped_ms
    deliver()
    assert receiver.posts[5].headers["webhook-id"] == asked.event_id
    assert attempts()[5] == (1, "manual", 200)
    assert Lane.objects.get().parked_since is None


# What is pending


def test_what_waits_for_a_retry_is_due_at_once(receiver: Receiver) -> None:
    receiver.answer = answers(Answer(status=500), Answer())
    subscribe(receiver)
    emit_orders(1)
    deliver()
    delivery = Delivery.objects.get()
    put_off(delivery, HOUR)
    deliver()
    assert len(receiver.posts) == 1
    assert redeliver(delivery).first_due_at == Delivery.objects.get().first_due_at
    deliver()
    assert attempts() == [(1, "first", 500), (2, "manual", 200)]
    assert states() == {"delivered": 1}


def test_asking_for_a_pending_one_leaves_its_age_and_uses_up_no_retry(receiver: Receiver) -> None:
    receiver.answer = Answer(status=500)
    subscribe(receiver, retry_schedule=[60])
    emit_orders(1)
    deliver()
    first_due_at = Delivery.objects.get().first_due_at
    for _ in range(3):
        redeliver(Delivery.objects.get())
        deliver()
    delivery = Delivery.objects.get()
    assert (delivery.state, delivery.attempts) == ("pending", 4)
    assert delivery.first_due_at == first_due_at


def test_what_is_due_already_keeps_its_place(receiver: Receiver) -> None:
    subscribe(receiver)
    emit_orders(3)
    fan_out_all()
    delivery = Delivery.objects.order_by("pk").first()
    assert delivery is not None
    due_at = delivery.due_at
    assert redeliver(delivery).due_at == due_at
    deliver()
    assert len(receiver.posts) == 3
    assert receiver.duplicates == 0


# Subscriptions that are not live


def test_for_a_suspended_subscription_it_waits(receiver: Receiver) -> None:
    delivery = dead(receiver)
    subscription = delivery.subscription
    lifecycle.change_status(subscription, Status.SUSPENDED, reason="client")
    assert redeliver(delivery).state == "pending"
    deliver()
    assert len(receiver.posts) == 1
    lifecycle.change_status(subscription, Status.SUBSCRIBED, reason="client")
    deliver()
    assert states() == {"delivered": 1}


def test_to_one_that_unsubscribed_nothing_is_sent_again(receiver: Receiver) -> None:
    delivery = dead(receiver)
    lifecycle.change_status(delivery.subscription, Status.UNSUBSCRIBED, reason="client")
    with pytest.raises(NotDeliverable, match="is unsubscribed"):
        redeliver(delivery, new_id=True)
    assert states() == {"dead": 1}
    assert not Message.objects.exists()


@pytest.mark.parametrize("gone", ["event", "delivery", "subscription"])
def test_what_was_removed_cannot_be_sent_again(receiver: Receiver, gone: str) -> None:
    delivery = dead(receiver)
    {"event": Event, "delivery": Delivery, "subscription": Subscription}[
        gone
    ].objects.all().delete()
    with pytest.raises(NotDeliverable, match="was removed"):
        redeliver(delivery)


def test_a_subscription_that_was_written_past_subscribe_gets_a_lane(receiver: Receiver) -> None:
    delivery = dead(receiver)
    Lane.objects.all().delete()
    redeliver(delivery)
    deliver()
    assert states() == {"delivered": 1}


# A new id


def test_under_a_new_id_the_body_stays_as_it_was(receiver: Receiver) -> None:
    secret = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    subscribe(receiver, secret=secret)
    [event] = emit_orders(1)
    deliver()
    delivery = redeliver(Delivery.objects.get(), new_id=True)
    deliver()
    first, second = receiver.posts
    message = Message.objects.get()
    assert (first.id, second.id) == (event.pk, message.pk)
    assert first.body == second.body
    assert second.json["id"] == event.pk
    assert verify(second.body, second.headers, secret)["id"] == event.pk
    assert (message.count, message.format, message.payload) == (1, "standard", "full")
    assert message.subscription_id == delivery.subscription_id
    assert message.body_digest == hashlib.sha256(second.body).hexdigest()
    assert delivery.webhook_id == message.pk
    under_it = DeliveryAttempt.objects.filter(message_id=message.pk)
    assert list(under_it.values_list("number", "trigger")) == [(2, "manual")]
    assert states() == {"delivered": 1}


def test_retries_and_later_askings_keep_the_new_id_until_there_is_a_newer_one(
    receiver: Receiver,
) -> None:
    delivery = dead(receiver)
    Subscription.objects.update(retry_schedule=[60])
    receiver.answer = answers(Answer(status=500), Answer())
    redeliver(delivery, new_id=True)
    deliver()
    Delivery.objects.update(due_at=db_now("default"))
    Lane.objects.update(claim_at=db_now("default"))
    deliver()
    redeliver(delivery)
    deliver()
    [message] = Message.objects.all()
    assert receiver.ids == {delivery.event_id: 1, message.pk: 3}
    assert len(receiver.bodies_of(message.pk)) == 1
    redeliver(delivery, new_id=True)
    deliver()
    assert receiver.ids[message.pk] == 3
    assert len(receiver.ids) == 3


class Other(StandardFormat):
    """Another format, as a subscriber may change to."""

    def body(self, event: Any) -> bytes:
        return b'{"other":' + super().body(event) + b"}"


def test_a_message_keeps_its_format_though_the_subscription_changes_its(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FORMATS, "cloudevents", Other())
    delivery = dead(receiver)
    redeliver(delivery, new_id=True)
    deliver()
    Subscription.objects.update(format="cloudevents")
    redeliver(delivery)
    deliver()
    message = Message.objects.get()
    assert receiver.ids[message.pk] == 2
    assert receiver.bodies_of(message.pk) == {message.body_digest}
    redeliver(delivery, new_id=True)
    deliver()
    assert receiver.posts[-1].body.startswith(b'{"other":')


# While an attempt is under way


def test_a_failure_of_before_does_not_end_what_was_asked_for_since(receiver: Receiver) -> None:
    receiver.answer = answers(Answer(status=500, after=1.0), Answer())
    subscribe(receiver, retry_schedule=[])
    emit_orders(1)
    with in_background(deliver):
        receiver.wait_for(1)
        Delivery.objects.all().settle(State.DISCARDED, now=db_now("default"), reason="resumed")
        redeliver(Delivery.objects.get())
    deliver()
    assert states() == {"delivered": 1}
    assert [status for _number, _trigger, status in attempts()] == [500, 200]
    assert not DeliveryStats.objects.filter(dead__gt=0).exists()


def test_what_is_asked_for_during_the_last_try_is_tried_once_more(
    receiver: Receiver, configure: Any
) -> None:
    configure(RETRY_SCHEDULE=(0.2,))
    receiver.answer = answers(Answer(status=500), Answer(status=500, after=1.0), Answer())
    subscribe(receiver)
    emit_orders(1)
    with in_background(drain):
        receiver.wait_for(2)
        redeliver(Delivery.objects.get())
    deliver()
    assert states() == {"delivered": 1}
    assert attempts()[1:] == [(2, "retry", 500), (2, "manual", 200)]


def test_an_acknowledgement_of_before_is_one_of_the_same_message(receiver: Receiver) -> None:
    receiver.answer = Answer(after=1.0)
    subscribe(receiver)
    emit_orders(1)
    with in_background(deliver):
        receiver.wait_for(1)
        Delivery.objects.all().settle(State.DISCARDED, now=db_now("default"), reason="resumed")
        redeliver(Delivery.objects.get())
    assert states() == {"delivered": 1}


def test_an_acknowledgement_of_the_old_id_is_none_of_the_new_one(receiver: Receiver) -> None:
    receiver.answer = answers(Answer(after=1.0), Answer())
    subscribe(receiver)
    [event] = emit_orders(1)
    with in_background(deliver):
        receiver.wait_for(1)
        Delivery.objects.all().settle(State.DISCARDED, now=db_now("default"), reason="resumed")
        redeliver(Delivery.objects.get(), new_id=True)
    deliver()
    assert receiver.ids == {event.pk: 1, Message.objects.get().pk: 1}
    assert states() == {"delivered": 1}


# Waking


def test_a_worker_is_woken_after_the_commit_and_not_before(
    receiver: Receiver, configure: Any
) -> None:
    delivery = dead(receiver)
    configure(WAKER=f"{__name__}.note_wake_up")
    woken.clear()
    with transaction.atomic():
        redeliver(delivery)
        assert woken == []
    assert woken == ["drain"]
    deliver()


def test_what_is_rolled_back_is_not_sent_again(receiver: Receiver, configure: Any) -> None:
    delivery = dead(receiver)
    configure(WAKER=f"{__name__}.note_wake_up")
    woken.clear()
    with transaction.atomic():
        redeliver(delivery, new_id=True)
        transaction.set_rollback(True)  # as when the request fails
    deliver()
    assert woken == []
    assert states() == {"dead": 1}
    assert len(receiver.posts) == 1


# What may be asked of a replay


def test_unless_one_says_otherwise_all_that_did_not_arrive_is_replayed() -> None:
    request = ReplayRequest(NOW - HOUR, NOW)
    assert request.types == []
    assert set(request.states) == set(DEFAULT_STATES) == set(REPLAYABLE) - {"delivered"}
    assert "pending" not in REPLAYABLE


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"start": NOW}, "end"),
        ({"start": NOW + HOUR}, "end"),
        ({"start": NOW.replace(tzinfo=None)}, "start"),
        ({"start": "yesterday"}, "start"),
        ({"start": datetime(1, 1, 1, tzinfo=UTC)}, "start"),
        ({"end": datetime.max.replace(tzinfo=UTC)}, "end"),
        ({"types": ["order.payed"]}, "types"),
        ({"types": "order.paid"}, "types"),
        ({"types": [7]}, "types"),
        ({"states": ["pending"]}, "states"),
        ({"states": ["lost"]}, "states"),
        ({"states": []}, "states"),
        ({"states": "dead"}, "states"),
        ({"states": [["dead"]]}, "states"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_by_field(
    wrong: dict[str, Any], where: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        ReplayRequest(**{"start": NOW - HOUR, "end": NOW, **wrong})
    assert set(caught.value.message_dict) == {where}


def test_the_widest_window_is_one_that_ids_can_be_made_of() -> None:
    request = ReplayRequest(datetime(1970, 1, 1, tzinfo=UTC), datetime(9998, 12, 31, tzinfo=UTC))
    assert len(first_id_of(request.end, "evt")) == 36
