"""Cancelling one delivery: nothing more is sent, and nothing is taken that may be under way."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest

from tests.engine.conftest import _no_lane_is_astray  # noqa: F401
from tests.world import (
    Answer,
    Receiver,
    deliver,
    emit_orders,
    fan_out_all,
    in_background,
    states,
    subscribe,
)
from webhooks.cancellation import cancel_delivery
from webhooks.clock import db_now
from webhooks.exceptions import NotCancellable
from webhooks.models import Delivery, DeliveryAttempt, Lane, Message
from webhooks.models.delivery import State
from webhooks.redelivery import redeliver

pytestmark = pytest.mark.django_db(transaction=True)

HOUR = timedelta(hours=1)


def waiting(receiver: Receiver, **options: Any) -> Delivery:
    """A delivery that failed once and is tried again in an hour; the endpoint is mended since."""
    receiver.answer = Answer(status=500)
    subscribe(receiver, retry_schedule=[3600], **options)
    emit_orders(1)
    deliver()
    receiver.answer = Answer()
    return Delivery.objects.get()


def make_due() -> None:
    now = db_now("default")
    Delivery.objects.update(due_at=now)
    Lane.objects.filter(token=None).update(claim_at=now)


def lease(span: timedelta) -> None:
    """As if some worker had the lane until then."""
    until = db_now("default") + span
    Lane.objects.update(token=uuid.uuid4(), lease_until=until, claim_at=until)


def test_of_what_is_cancelled_nothing_more_is_sent(receiver: Receiver) -> None:
    delivery = waiting(receiver)
    before = db_now("default")
    returned = cancel_delivery(delivery, actor="staff:ann")
    assert returned is delivery
    assert (delivery.state, delivery.reason, delivery.attempts) == ("cancelled", "operator", 1)
    assert delivery.settled_at is not None
    assert before <= delivery.settled_at <= db_now("default")
    make_due()
    deliver()
    assert len(receiver.posts) == 1


def test_it_may_be_asked_for_again(receiver: Receiver) -> None:
    delivery = cancel_delivery(waiting(receiver))
    redeliver(delivery)
    deliver()
    assert states() == {"delivered": 1}


@pytest.mark.parametrize("state", ["delivered", "dead", "cancelled", "discarded", "expired"])
def test_what_has_ended_stays_as_it_is(receiver: Receiver, state: str) -> None:
    delivery = waiting(receiver)
    now = db_now("default")
    Delivery.objects.all().settle(state, now=now, reason="whatever")  # type: ignore[arg-type]
    with pytest.raises(NotCancellable, match="has ended already"):
        cancel_delivery(delivery)
    stored = Delivery.objects.get()
    assert (stored.state, stored.reason, stored.settled_at) == (state, "whatever", now)


def test_what_was_removed_is_said_to_be(receiver: Receiver) -> None:
    delivery = waiting(receiver)
    Delivery.objects.all().delete()
    with pytest.raises(NotCancellable, match="was removed"):
        cancel_delivery(delivery)


def test_what_is_in_flight_is_not_taken_from_under_its_worker(receiver: Receiver) -> None:
    receiver.answer = Answer(after=0.4)
    subscribe(receiver)
    emit_orders(1)
    with in_background(deliver):
        receiver.wait_for(1)
        with pytest.raises(NotCancellable, match="may be sending it"):
            cancel_delivery(Delivery.objects.get())
    assert states() == {"delivered": 1}


def test_what_its_worker_may_have_read_is_not_taken_either(receiver: Receiver) -> None:
    receiver.answer = Answer(after=0.4)
    subscribe(receiver, max_in_flight=1)
    emit_orders(2)
    with in_background(deliver):
        receiver.wait_for(1)
        [waits] = Delivery.objects.exclude(event_id=receiver.posts[0].id)
        with pytest.raises(NotCancellable, match="may be sending it"):
            cancel_delivery(waits)
    assert len(receiver.posts) == 2


def test_a_retry_that_is_not_due_is_cancelled_though_its_lane_is_at_work(
    receiver: Receiver,
) -> None:
    delivery = waiting(receiver)
    receiver.answer = Answer(after=0.4)
    emit_orders(1)
    with in_background(deliver):
        receiver.wait_for(2)
        cancel_delivery(delivery)
    make_due()
    deliver()
    assert len(receiver.posts) == 2
    assert states() == {"cancelled": 1, "delivered": 1}


@pytest.mark.parametrize(("due_in", "refused"), [(0.0, True), (0.5, True), (30.0, False)])
def test_under_a_lease_it_must_not_be_due_nor_just_about_to_be(
    receiver: Receiver, due_in: float, refused: bool
) -> None:
    delivery = waiting(receiver)
    Delivery.objects.update(due_at=db_now("default") + timedelta(seconds=due_in))
    lease(HOUR)
    if refused:
        with pytest.raises(NotCancellable):
            cancel_delivery(delivery)
    else:
        cancel_delivery(delivery)
    assert Delivery.objects.pending().exists() is refused
    lease(-HOUR)


def test_a_lease_that_has_ended_protects_nothing(receiver: Receiver) -> None:
    delivery = waiting(receiver)
    make_due()
    lease(-HOUR)  # its worker was killed
    cancel_delivery(delivery)
    deliver()
    assert len(receiver.posts) == 1


def test_an_acknowledgement_that_comes_first_stands(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery = waiting(receiver)

    def acknowledged(using: str) -> Any:
        now = db_now(using)
        Delivery.objects.all().settle(State.DELIVERED, now=now, attempts=1)
        return now

    # After it was read, and before it is ended.
    monkeypatch.setattr("webhooks.cancellation.db_now", acknowledged)
    with pytest.raises(NotCancellable, match="has ended already"):
        cancel_delivery(delivery)


def test_a_member_of_a_frozen_batch_stays_in_it(receiver: Receiver) -> None:
    receiver.answer = Answer(status=500)
    subscribe(receiver, retry_schedule=[3600], batch_size=2)
    emit_orders(2)
    deliver()
    message = Message.objects.get()
    for member in Delivery.objects.all():
        with pytest.raises(NotCancellable, match=f"travels in {message.pk}"):
            cancel_delivery(member)
    assert states() == {"pending": 2}


def test_what_has_an_id_of_its_own_is_no_batch(receiver: Receiver) -> None:
    delivery = redeliver(waiting(receiver), new_id=True)
    assert delivery.message_id
    cancel_delivery(delivery)
    deliver()
    assert len(receiver.posts) == 1


def test_before_its_first_try_it_ends_without_one(receiver: Receiver) -> None:
    subscribe(receiver)
    emit_orders(1)
    fan_out_all()
    cancel_delivery(Delivery.objects.get())
    deliver()
    assert receiver.posts == []
    assert not DeliveryAttempt.objects.exists()
