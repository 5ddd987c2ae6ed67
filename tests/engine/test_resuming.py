"""Resuming with or without the backlog, and the rate that a client asked for."""

from __future__ import annotations

from typing import Any

import pytest
from django.utils import timezone

from tests.world import Receiver, deliver, emit_orders, fan_out_all, states, subscribe
from webhooks import lifecycle
from webhooks.exceptions import HeldByOperator, IllegalStatusChange
from webhooks.models import Delivery, Lane

pytestmark = pytest.mark.django_db(transaction=True)


def suspended_with_backlog(receiver: Receiver, count: int, **options: Any) -> Any:
    subscription = subscribe(receiver, **options)
    lifecycle.suspend(subscription, actor="app:a")
    emit_orders(count)
    fan_out_all()
    return subscription


def test_resuming_delivers_what_waited(receiver: Receiver) -> None:
    subscription = suspended_with_backlog(receiver, 3)
    deliver()
    assert receiver.posts == []
    assert lifecycle.resume(subscription, actor="app:a")
    assert (subscription.status_reason, subscription.status_actor) == ("client", "app:a")
    deliver()
    assert states() == {"delivered": 3}


def test_resuming_can_discard_it_and_what_comes_then_is_sent(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webhooks.engine.holdings.END_BATCH", 2)
    subscription = suspended_with_backlog(receiver, 5)
    lifecycle.resume(subscription, backlog="discard")
    emit_orders(2)
    deliver()
    assert states() == {"discarded": 5, "delivered": 2}
    assert set(Delivery.objects.filter(state="discarded").values_list("reason", flat=True)) == {
        "resumed"
    }
    assert len(receiver.posts) == 2
    assert Lane.objects.get().discard_before is None


def test_what_is_due_later_is_discarded_too_and_at_once(receiver: Receiver) -> None:
    subscription = suspended_with_backlog(receiver, 1)
    Delivery.objects.update(due_at=timezone.now() + timezone.timedelta(days=1))
    lifecycle.resume(subscription, backlog="discard")
    deliver()
    assert states() == {"discarded": 1}


def test_a_suspension_can_say_what_becomes_of_new_events(receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    lifecycle.suspend(subscription, on_suspend="discard")
    emit_orders(2)
    fan_out_all()
    assert states() == {"discarded": 2}


@pytest.mark.parametrize("wrong", ["drop", "", None, 7])
def test_another_word_for_the_backlog_is_refused(receiver: Receiver, wrong: Any) -> None:
    subscription = suspended_with_backlog(receiver, 1)
    with pytest.raises(ValueError, match="backlog is"):
        lifecycle.resume(subscription, backlog=wrong)
    with pytest.raises(ValueError, match="on_suspend is"):
        lifecycle.suspend(subscription, on_suspend=wrong or "drop")


def test_a_client_cannot_resume_what_an_operator_suspended(receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    lifecycle.suspend(subscription, reason="operator", actor="admin")
    with pytest.raises(HeldByOperator, match="operator"):
        lifecycle.resume(subscription, reason="client")
    subscription.refresh_from_db()
    assert (subscription.status, subscription.status_actor) == ("suspended", "admin")
    assert lifecycle.resume(subscription, reason="operator")


def test_a_client_cannot_skip_the_handshake(receiver: Receiver) -> None:
    subscription = subscribe(receiver, handshake="x-hook-secret")
    assert subscription.status == "pending"
    with pytest.raises(IllegalStatusChange, match="handshake"):
        lifecycle.change_status(subscription, "subscribed", reason="client")


@pytest.mark.parametrize(
    ("handshake", "changes"),
    [
        ("x-hook-secret", {"callback_url": "http://127.0.0.1:9/elsewhere"}),
        ("x-hook-secret", {"handshake": ""}),
        ("", {"handshake": "x-hook-secret"}),
    ],
)
def test_a_proof_stays_with_its_endpoint(
    receiver: Receiver, handshake: str, changes: dict[str, str]
) -> None:
    from django.core.exceptions import ValidationError

    subscription = subscribe(receiver, handshake=handshake)
    with pytest.raises(ValidationError) as refused:
        lifecycle.update(subscription, **changes)
    assert set(refused.value.message_dict) == set(changes)
    subscription.refresh_from_db()
    assert lifecycle.update(subscription, description="the same endpoint")


def test_a_rate_is_kept_by_whoever_holds_the_lane(receiver: Receiver) -> None:
    subscribe(receiver, rate_limit=120)  # two at a time, and then a second's rest
    emit_orders(5)
    deliver()
    assert len(receiver.posts) == 2
    lane = Lane.objects.get()
    assert lane.pause_reason == "rate_limit"
    assert lane.paused_until is not None
    assert lane.claim_at == lane.paused_until
    rest = (lane.paused_until - timezone.now()).total_seconds()
    assert 0 < rest <= 1.0


def test_a_rate_of_less_than_one_a_second_sends_one_by_one(receiver: Receiver) -> None:
    subscribe(receiver, rate_limit=6)
    emit_orders(3)
    deliver()
    assert len(receiver.posts) == 1
    lane = Lane.objects.get()
    assert lane.paused_until is not None
    assert 8 < (lane.paused_until - timezone.now()).total_seconds() <= 10
    lane.claim_at = lane.paused_until = timezone.now()
    lane.save()
    deliver()
    assert len(receiver.posts) == 2


def test_a_rate_holds_up_nobody_else(receiver: Receiver, receivers: Any) -> None:
    other = receivers()
    subscribe(receiver, rate_limit=1)
    subscribe(other)
    emit_orders(20)
    deliver()
    assert (len(receiver.posts), len(other.posts)) == (1, 20)
