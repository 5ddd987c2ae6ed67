"""Probes: what the service suspended is tried now and then, and goes on when it answers."""

from __future__ import annotations

import json
import os
import signal
import uuid
from collections.abc import Hashable
from datetime import timedelta
from typing import Any

import pytest

from tests.world import (
    Answer,
    Receiver,
    deliver,
    emit_orders,
    fan_out_all,
    start,
    states,
    subscribe,
)
from webhooks import lifecycle
from webhooks.clock import Clock, db_now
from webhooks.crypto import Sealed
from webhooks.engine.housekeeping import sweep
from webhooks.engine.pacing import RAMP_BEGIN
from webhooks.engine.probes import Probes
from webhooks.engine.trials import CLAIM_MARGIN, Trials
from webhooks.models import Delivery, DeliveryAttempt, Event, Lane, SigningSecret, Subscription
from webhooks.transports.base import Request, Response, Transport

pytestmark = pytest.mark.django_db(transaction=True)

DAY = timedelta(days=1)


def suspended(receiver: Receiver, backlog: int = 2, **options: Any) -> Subscription:
    """One that the service has suspended for failing."""
    subscription = subscribe(receiver, **options)
    lifecycle.change_status(subscription, "suspended", reason="failing")
    emit_orders(backlog, subscription.requester)
    fan_out_all()
    return subscription


def now_due() -> None:
    Lane.objects.update(probe_at=db_now("default") - timedelta(seconds=1))


def status_of(subscription: Subscription) -> tuple[str, str]:
    stored = Subscription.objects.get(pk=subscription.pk)
    return stored.status, stored.status_reason


def attempts() -> list[tuple[Any, ...]]:
    rows = DeliveryAttempt.objects.order_by("pk")
    return list(rows.values_list("trigger", "number", "status_code", "error_code"))


class Mute(Transport):
    """Sends nothing, and never answers."""

    def __init__(self) -> None:
        super().__init__(concurrency=32)
        self.started: list[Any] = []

    def start(self, tag: Hashable, request: Request) -> None:
        self.started.append(tag)

    def finished(self, timeout: float) -> list[tuple[Hashable, Response]]:
        return []

    def close(self) -> None:
        pass


def worker(transport: Transport) -> Trials:
    return Trials("default", uuid.uuid4(), Clock("default"), transport, [Probes()])


def begun_probe() -> tuple[Trials, Any]:
    """A worker that waits for the answer to its probe."""
    now_due()
    mute = Mute()
    trials = worker(mute)
    assert trials.look(32)
    [begun] = mute.started
    return trials, begun


def test_it_is_planned_for_about_a_day_later(receiver: Receiver, settings: Any) -> None:
    moments = set()
    for number in range(5):
        subscription = suspended(receiver, 0, requester=f"app:{number}")
        probe_at = Lane.objects.get(pk=subscription.pk).probe_at
        assert probe_at is not None
        wait = probe_at - Subscription.objects.get(pk=subscription.pk).status_since
        assert 0.8 * DAY <= wait <= 1.2 * DAY
        moments.add(wait)
    assert len(moments) == 5
    deliver()
    assert receiver.posts == []  # none is due yet


def test_an_answer_resumes_and_the_backlog_goes_out(receiver: Receiver, receivers: Any) -> None:
    watcher = receivers()
    subscribe(watcher, event_types=["webhooks.subscription.*"])
    subscription = suspended(receiver)
    sweep("default")
    now_due()
    deliver()
    assert status_of(subscription) == ("subscribed", "recovered")
    assert states()["delivered"] == 3  # the backlog, and what the watcher was told
    [probe, *rest] = receiver.posts
    assert probe.json["type"] == "webhooks.ping"
    assert probe.json["data"] == {"subscription": subscription.pk}
    assert {post.json["type"] for post in rest} == {"order.paid"}
    own = DeliveryAttempt.objects.filter(subscription_id=subscription.pk).order_by("pk")
    assert (own[0].trigger, own[0].status_code, own[0].message_id) == ("probe", 200, probe.id)
    lane = Lane.objects.get(pk=subscription.pk)
    assert (lane.probe_at, lane.clock_stopped_since, lane.held) == (None, None, False)
    sweep("default")
    sweep("default")
    told = Event.objects.filter(type__startswith="webhooks.").order_by("pk")
    assert [each.rpartition(".")[2] for each in told.values_list("type", flat=True)] == [
        "suspended",
        "recovered",
    ]
    assert json.loads(told[1].data)["last_success_at"] is not None


def test_the_backlog_goes_out_at_a_rising_rate(receiver: Receiver) -> None:
    suspended(receiver, 1)
    trials, begun = begun_probe()
    trials.end(begun, Response(status_code=200))
    lane = Lane.objects.get()
    assert lane.ramp == RAMP_BEGIN
    assert lane.last_success_at is not None


def test_no_answer_changes_no_delivery_and_it_is_tried_again_tomorrow(receiver: Receiver) -> None:
    receiver.answer = Answer(status=503, headers={"Retry-After": "60"})
    subscription = suspended(receiver)
    before = list(Delivery.objects.order_by("pk").values())
    now_due()
    deliver()
    deliver()
    assert attempts() == [("probe", 1, 503, "server_error")]
    assert status_of(subscription) == ("suspended", "failing")
    assert list(Delivery.objects.order_by("pk").values()) == before
    lane = Lane.objects.get()
    assert lane.probe_at is not None
    assert lane.probe_at - db_now("default") > 0.79 * DAY
    assert lane.last_failure_at is not None
    now_due()
    receiver.answer = Answer()
    deliver()
    assert status_of(subscription) == ("subscribed", "recovered")


def test_410_ends_the_subscription(receiver: Receiver) -> None:
    receiver.answer = Answer(status=410)
    subscription = suspended(receiver)
    now_due()
    deliver()
    assert status_of(subscription) == ("unsubscribed", "gone")
    assert states() == {"cancelled": 2}


@pytest.mark.parametrize("reason", ["client", "operator", "entitlement_lost"])
def test_what_somebody_else_suspended_is_never_probed(receiver: Receiver, reason: str) -> None:
    subscription = subscribe(receiver)
    lifecycle.change_status(subscription, "suspended", reason=reason)
    assert Lane.objects.get().probe_at is None
    now_due()  # whatever the row says
    deliver()
    assert not sweep("default")
    assert receiver.posts == []
    assert status_of(subscription) == ("suspended", reason)


@pytest.mark.parametrize("reason", ["client", "operator", "entitlement_lost"])
def test_who_suspends_it_meanwhile_makes_the_suspension_theirs(
    receiver: Receiver, reason: str
) -> None:
    subscription = suspended(receiver)
    trials, begun = begun_probe()
    lifecycle.suspend(Subscription.objects.get(pk=subscription.pk), reason=reason, actor="app:a")
    assert Lane.objects.get().probe_at is None
    trials.end(begun, Response(status_code=200))
    assert status_of(subscription) == ("suspended", reason)
    assert attempts() == [("probe", 1, 200, "")]
    assert Subscription.objects.get().status_actor == "app:a"
    now_due()
    deliver()
    assert receiver.posts == []


def test_a_service_that_suspends_again_changes_nothing(receiver: Receiver) -> None:
    subscription = suspended(receiver)
    lifecycle.suspend(subscription, reason="operator")  # taken over,
    assert not lifecycle.suspend(subscription, reason="failing")  # and not given back
    assert status_of(subscription) == ("suspended", "operator")


def test_its_owner_may_resume_it_without_a_probe(receiver: Receiver) -> None:
    subscription = suspended(receiver)
    trials, begun = begun_probe()
    assert lifecycle.resume(Subscription.objects.get(pk=subscription.pk))
    trials.end(begun, Response(status_code=410))
    assert status_of(subscription) == ("subscribed", "client")


def test_the_answer_of_another_url_resumes_nothing(receiver: Receiver, receivers: Any) -> None:
    subscription = suspended(receiver)
    trials, begun = begun_probe()
    lifecycle.update(Subscription.objects.get(pk=subscription.pk), callback_url=receivers().url)
    trials.end(begun, Response(status_code=200))
    assert status_of(subscription) == ("suspended", "failing")


def test_they_can_be_switched_off(receiver: Receiver, settings: Any) -> None:
    subscription = suspended(receiver)
    settings.WEBHOOKS = {**settings.WEBHOOKS, "PROBE_SECONDS": None}
    now_due()
    deliver()
    assert not sweep("default")
    assert receiver.posts == []
    other = suspended(receiver, 0, requester="app:b")
    assert Lane.objects.get(pk=other.pk).probe_at is None
    settings.WEBHOOKS = {**settings.WEBHOOKS, "PROBE_SECONDS": 3600}
    now_due()
    deliver()
    assert status_of(subscription) == ("subscribed", "recovered")


def test_nothing_is_sent_unsigned(receiver: Receiver) -> None:
    subscription = suspended(receiver)
    SigningSecret.objects.update(value=Sealed("gAAAAABnot-ours"))
    now_due()
    deliver()
    assert receiver.posts == []
    assert attempts() == [("probe", 1, None, "invalid_request")]
    assert Lane.objects.get().probe_at > db_now("default") + DAY / 2
    assert status_of(subscription) == ("suspended", "failing")


def test_whoever_is_entitled_no_longer_is_not_probed(receiver: Receiver, settings: Any) -> None:
    subscription = suspended(receiver)
    settings.WEBHOOKS = {**settings.WEBHOOKS, "ENTITLEMENT": "tests.engine.test_handshakes.nobody"}
    now_due()
    deliver()
    assert receiver.posts == []
    assert status_of(subscription) == ("suspended", "entitlement_lost")


def test_no_two_workers_probe_at_once_and_one_takes_over(receiver: Receiver) -> None:
    subscription = suspended(receiver)
    late, begun = begun_probe()
    other = Mute()
    second = worker(other)
    assert not second.look(32)
    now_due()  # the claim has run out
    second._next_look = 0.0
    assert second.look(32)
    late.end(begun, Response(status_code=410))  # not its claim any more
    assert status_of(subscription) == ("suspended", "failing")
    assert Lane.objects.get().probe_at == other.started[0].claimed_until
    second.end(other.started[0], Response(status_code=200))
    assert status_of(subscription) == ("subscribed", "recovered")


def test_a_worker_that_is_killed_in_the_middle_loses_nothing(receiver: Receiver) -> None:
    receiver.answer = Answer(after=20)
    subscription = suspended(receiver)
    now_due()
    process = start("webhooks_worker", settings={"TIMEOUT": 15, "LEASE_SECONDS": 60})
    try:
        receiver.wait_for(1, timeout=60)
        arrived = db_now("default")
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.wait(10)
    assert attempts() == []
    assert status_of(subscription) == ("suspended", "failing")
    probe_at = Lane.objects.get().probe_at
    assert probe_at is not None
    assert arrived < probe_at <= arrived + timedelta(seconds=15 + CLAIM_MARGIN)
    receiver.answer = Answer()
    now_due()  # that time has passed
    deliver()
    assert status_of(subscription) == ("subscribed", "recovered")
    assert states() == {"delivered": 2}


def test_the_sweep_calls_for_a_worker_when_one_is_due_soon(receiver: Receiver) -> None:
    suspended(receiver, 0)
    assert not sweep("default")
    Lane.objects.update(probe_at=db_now("default") + timedelta(seconds=60))
    assert sweep("default")
    assert worker(Mute()).next_at() == Lane.objects.get().probe_at
