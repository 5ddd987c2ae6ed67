"""The demo's tie-out must notice what is wrong. Run by ``test_tieout.py``."""

from __future__ import annotations

import json
import socket
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from example_project.campaigns.models import Campaign
from example_project.campaigns.provider import PushProvider, simulate_devices
from example_project.demo.subscribers import Subscriber, soonest_zone
from example_project.demo.tieout import Received, Tieout, percentile, tie_out
from webhooks.models import Delivery, DeliveryAttempt, Event, Message, Subscription

pytestmark = pytest.mark.django_db

EVENTS = 60


class Run:
    """A run that ties out: every event delivered at the first try, and found at its subscriber."""

    def __init__(self) -> None:
        self.campaign = Campaign.objects.create(name="Sale", requester="app:demo", message="Now!")
        simulate_devices(EVENTS)
        provider = PushProvider(self.campaign, seed=4, chunk=10)
        emitted = 0
        while emitted < EVENTS:
            emitted += provider.advance(at_most=EVENTS - emitted)
        self.subscribers = [
            self._subscriber("everything", "push.*"),
            self._subscriber("delivered", "push.delivered"),
        ]
        self.reports = [self._deliver(each.subscription) for each in self.subscribers]

    def _subscriber(self, name: str, pattern: str) -> Subscriber:
        subscription, secret = Subscription.objects.subscribe(
            requester="app:demo",
            callback_url="http://127.0.0.1:9/webhooks",
            event_types=[pattern],
        )
        return Subscriber(name, subscription, secret, socket.socket())

    def _deliver(self, subscription: Subscription) -> Received:
        accepted = []
        for event in Event.objects.all():
            if not subscription.covers(event.type):
                continue
            Delivery.objects.create(
                event=event,
                subscription=subscription,
                state=Delivery.State.DELIVERED,
                attempts=1,
                settled_at=event.created_at + timedelta(milliseconds=100),
            )
            now = timezone.now()
            DeliveryAttempt.objects.create(
                subscription=subscription, message_id=event.pk, due_at=now, started_at=now
            )
            accepted.append(event.pk)
        figures = dict.fromkeys(("rejected", "duplicates", "body_mismatch"), 0)
        figures["received"] = figures["verified"] = len(accepted)
        return Received(figures, frozenset(accepted))

    def tie_out(self, **changed: Any) -> Tieout:
        return tie_out(
            self.campaign, self.subscribers, self.reports, **{"asked_for": EVENTS, **changed}
        )

    def digest(self) -> dict[str, Any]:
        """Give the first subscriber a digest of half of the events; what it tells of it."""
        subscription, secret = Subscription.objects.subscribe(
            requester="app:demo",
            callback_url="http://127.0.0.1:9/digests",
            event_types=["push.*"],
            trigger="hourly",
            content="counts",
        )
        self.subscribers[0] = replace(
            self.subscribers[0], digest=subscription, digest_secret=secret
        )
        events = list(Event.objects.order_by("pk"))
        counts = Counter(event.type for event in events[: EVENTS // 2])
        message = Message.objects.create(
            subscription=subscription, batch=True, counts=json.dumps(counts)
        )
        for i, event in enumerate(events):
            is_in = i < EVENTS // 2
            Delivery.objects.create(
                event=event,
                subscription=subscription,
                message=message if is_in else None,
                state=Delivery.State.DELIVERED if is_in else Delivery.State.PENDING,
                settled_at=timezone.now() if is_in else None,
            )
        window = {"ids": [message.pk], "to": "2027-01-01T00:00:00+00:00", "told": dict(counts)}
        report = self.reports[0]
        self.reports[0] = Received(report.figures, report.accepted | {message.pk}, [window])
        return window


@pytest.fixture
def run() -> Run:
    made = Run()
    for subscriber in made.subscribers:
        subscriber.listener.close()
    return made


def test_a_run_without_loss_ties_out(run):
    result = run.tie_out()
    assert result.reasons == ()
    assert result.ok
    assert result.emitted == result.recorded == EVENTS
    assert result.deliveries == result.delivered == result.verified > EVENTS
    assert (result.attempts, result.retries, result.dead) == (result.deliveries, 0, 0)
    assert result.p50_ms == result.p95_ms == result.first_p95_ms == 100


def test_the_json_has_exactly_the_keys_that_were_promised(run):
    told = json.loads(run.tie_out().as_json())
    assert list(told) == [
        *("emitted", "recorded", "deliveries", "delivered", "dead", "attempts", "retries"),
        *("duplicates", "verified", "p50_ms", "p95_ms", "per_s", "ok"),
    ]


def test_a_message_that_its_subscriber_does_not_have_is_noticed(run):
    report = run.reports[0]
    lost = min(report.accepted)
    run.reports[0] = Received(report.figures, report.accepted - {lost})
    result = run.tie_out()
    assert result.verified == result.deliveries - 1
    assert any(lost in reason for reason in result.reasons)


def test_a_loss_is_noticed_though_the_counts_agree(run):
    report = run.reports[0]
    lost = min(report.accepted)
    run.reports[0] = Received(report.figures, report.accepted - {lost} | {"evt_of_nobody"})
    result = run.tie_out()
    assert len(result.reasons) == 2
    assert not result.ok


def test_an_event_that_was_not_fanned_out_is_noticed(run):
    delivery = Delivery.objects.filter(subscription=run.subscribers[1].subscription)[0]
    delivery.delete()
    assert any("have no delivery" in reason for reason in run.tie_out().reasons)


def test_an_event_for_the_wrong_subscriber_is_noticed(run):
    Delivery.objects.create(
        event=Event.objects.filter(type="push.sent")[0],
        subscription=run.subscribers[1].subscription,
        state=Delivery.State.DELIVERED,
        settled_at=timezone.now(),
    )
    assert any("not subscribed to" in reason for reason in run.tie_out().reasons)


@pytest.mark.parametrize("state", ["pending", "dead", "expired"])
def test_a_delivery_that_did_not_succeed_is_noticed(run, state):
    delivery = Delivery.objects.all()[0]
    delivery.state = state
    delivery.settled_at = None if state == "pending" else timezone.now()
    delivery.save()
    result = run.tie_out()
    assert result.delivered == result.deliveries - 1
    assert result.dead == (state == "dead")
    assert any(delivery.pk in reason for reason in result.reasons)


def test_a_step_without_its_event_is_noticed(run):
    push = run.campaign.pushes.filter(delivered_at=None)[0]
    push.delivered_at = timezone.now()
    push.save()
    result = run.tie_out()
    assert (result.emitted, result.recorded) == (EVENTS, EVENTS + 1)
    assert not result.ok


def test_fewer_events_than_asked_for_are_noticed(run):
    assert not run.tie_out(asked_for=EVENTS + 1).ok


@pytest.mark.parametrize("name", ["rejected", "body_mismatch"])
def test_a_wrong_signature_and_a_changed_body_are_noticed(run, name):
    run.reports[0].figures[name] = 1
    assert not run.tie_out().ok


def test_duplicates_are_told_but_are_no_failure(run):
    run.reports[0].figures["duplicates"] = 2
    result = run.tie_out()
    assert result.duplicates == 2
    assert result.ok


def test_a_run_that_took_too_long_does_not_tie_out(run):
    assert run.tie_out(late="time is up").reasons == ("time is up",)


def test_a_digest_that_was_delivered_ties_out_as_well(run):
    run.digest()
    result = run.tie_out()
    assert result.reasons == ()
    assert (result.digests, result.digested, result.undigested) == (1, EVENTS // 2, EVENTS // 2)
    assert result.deliveries == result.verified  # of the others alone


def test_a_digest_that_its_subscriber_does_not_have_is_noticed(run):
    [pk] = run.digest()["ids"]
    report = run.reports[0]
    run.reports[0] = Received(report.figures, report.accepted - {pk}, report.digests)
    assert run.tie_out().reasons == (
        f"everything: the digest {pk} was not verified at the subscriber",
    )


def test_a_digest_that_counts_what_it_has_not_is_noticed(run):
    window = run.digest()
    Delivery.objects.filter(message=window["ids"][0])[0].delete()
    [reason] = run.tie_out().reasons
    assert "counts other events than it has" in reason


def test_a_digest_that_is_read_as_other_counts_is_noticed(run):
    run.digest()["told"]["push.sent"] += 1
    [reason] = run.tie_out().reasons
    assert "it has read" in reason


def test_a_digest_of_an_event_that_did_not_come_singly_is_noticed(run):
    window = run.digest()
    event = Delivery.objects.filter(message=window["ids"][0]).first().event_id
    report = run.reports[0]
    run.reports[0] = Received(report.figures, report.accepted - {event}, report.digests)
    assert any("did not come singly" in reason for reason in run.tie_out().reasons)


@pytest.mark.parametrize(
    ("minute", "zone"),
    [(0, "Asia/Kathmandu"), (20, "Asia/Kolkata"), (29, "Asia/Kolkata"), (31, "UTC"), (59, "UTC")],
)
def test_a_digest_is_asked_for_where_the_hour_ends_first(minute, zone):
    now = datetime(2027, 1, 1, 10, minute, tzinfo=UTC)
    assert soonest_zone(now) == zone


def test_percentiles_are_nearest_ranks():
    assert percentile([], 50) is None
    assert percentile([7], 95) == 7
    assert percentile(range(1, 101), 50) == 50
    assert percentile(range(1, 101), 95) == 95
