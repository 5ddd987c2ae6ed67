"""Fan-out, release and changes of status at the same moment, in every order of their statements.

Whatever the order: no pending delivery is left on a lane that nobody would claim in time.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from tests.faults.interleaving import Stage, orders
from tests.world import Receiver, emit_orders, fan_out_all, subscribe
from webhooks.clock import Clock, db_now
from webhooks.engine import housekeeping, leases
from webhooks.engine.fanout import fan_out
from webhooks.engine.recorder import Recorder, conclude
from webhooks.engine.transactions import atomically
from webhooks.lifecycle import change_status
from webhooks.models import Delivery, DeliveryAttempt, Duty, Event, Lane, Subscription
from webhooks.models.subscription import Status
from webhooks.transports.base import Response

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.postgres]

Work = Callable[[], Any]


class Scene:
    """A lane that a worker holds, an event that waits for its fan-out, and what may happen."""

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        Duty.objects.ensure()
        for model in (DeliveryAttempt, Delivery, Event):
            model.objects.all()._raw_delete("default")
        Subscription.objects.update(status=Status.SUBSCRIBED)
        Lane.objects.update(
            token=None, lease_until=None, claim_at=None, held=False, paused_until=None, failures=0
        )
        subscription.refresh_from_db()
        self.token = uuid.uuid4()
        self.clock = Clock("default")

    def hold(self, answer: Response) -> Scene:
        """A worker has claimed the lane, and has an answer for its one delivery."""
        now = self.clock.now()
        [event] = emit_orders(1)
        Event.objects.update(fanned_out_at=now)
        Delivery.objects.create(event=event, subscription=self.subscription, due_at=now)
        Lane.objects.update(claim_at=now)
        [self.lane] = leases.claim("default", self.token, limit=1, now=self.clock.now())
        found = Delivery.objects.due([self.lane.position(10)], db_now("default"))
        self.lane.fill(found, 10)
        job = self.lane.begin(self.clock.now(), self.token)
        self.results = [conclude(self.lane, job, answer, self.clock, random.Random(1))]
        return self

    def release(self) -> None:
        Recorder("default", self.token).write(self.results, [self.lane], [self.lane])

    def expire(self) -> Scene:
        past = db_now("default") - timedelta(seconds=1)
        Lane.objects.update(lease_until=past, claim_at=past)
        return self

    def fan_out(self) -> None:
        fan_out("default")

    def change_to(self, status: str) -> Work:
        subscription = Subscription.objects.get(pk=self.subscription.pk)
        return lambda: change_status(subscription, status, reason="client")

    def claim(self) -> None:
        atomically(
            "default",
            lambda: Lane.objects.claim(uuid.uuid4(), lease=timedelta(seconds=60), limit=5),
        )


def is_lost() -> bool:
    """Is there a pending delivery that nobody would come for in time?"""
    lane = Lane.objects.get()
    if lane.token is not None:
        return lane.claim_at != lane.lease_until
    if lane.held:
        return lane.claim_at is not None
    earliest = Lane.objects.earliest_due([lane.pk]).get(lane.pk)
    if earliest is None:
        return False
    latest = max(earliest, db_now("default"), lane.paused_until or earliest)
    return lane.claim_at is None or lane.claim_at > latest


def play_every_order(stage: Stage, make: Callable[[], tuple[Work, Work]]) -> dict[str, bool]:
    """Play all orders on a fresh scene each; for each, whether a delivery was lost."""
    # One after the other, to learn how many steps each has at most.
    steps = [0, 0]
    for order in ("A" * 50, "B" * 50):
        played = stage.play(order, *make())
        assert not is_lost()
        steps = [max(n, len(party.steps)) for n, party in zip(steps, played, strict=True)]
    assert min(steps) >= 3, [party.steps for party in played]
    outcomes = {}
    for order in orders(*steps):
        stage.play(order, *make())
        outcomes[order] = is_lost()
    return outcomes


def lost(outcomes: dict[str, bool]) -> list[str]:
    return [order for order, is_lost_ in outcomes.items() if is_lost_]


OK, BAD = Response(status_code=200, elapsed_ms=5), Response(status_code=500, elapsed_ms=5)
LATER = Response(status_code=429, retry_after="60", elapsed_ms=5)


@pytest.fixture
def stage(transactional_db: None) -> Iterator[Stage]:
    made = Stage()
    yield made
    made.close()


@pytest.fixture
def subscription(receiver: Receiver) -> Subscription:
    return subscribe(receiver)


@pytest.mark.parametrize("answer", [OK, LATER], ids=["delivered", "rescheduled and paused"])
def test_fan_out_and_release(stage: Stage, subscription: Subscription, answer: Response) -> None:
    def make() -> tuple[Work, Work]:
        scene = Scene(subscription).hold(answer)
        emit_orders(1)
        return scene.fan_out, scene.release

    outcomes = play_every_order(stage, make)
    assert len(outcomes) >= 35  # three steps and four
    assert lost(outcomes) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Status.SUBSCRIBED, Status.SUSPENDED),
        (Status.SUSPENDED, Status.SUBSCRIBED),
        (Status.SUBSCRIBED, Status.UNSUBSCRIBED),
    ],
)
def test_a_change_of_status_and_release(
    stage: Stage, subscription: Subscription, before: str, after: str
) -> None:
    def make() -> tuple[Work, Work]:
        scene = Scene(subscription).hold(BAD)
        if before == Status.SUSPENDED:
            scene.change_to(Status.SUSPENDED)()
        return scene.change_to(after), scene.release

    assert lost(play_every_order(stage, make)) == []


@pytest.mark.parametrize("after", [Status.SUBSCRIBED, Status.UNSUBSCRIBED])
def test_a_change_of_status_and_fan_out(
    stage: Stage, subscription: Subscription, after: str
) -> None:
    def make() -> tuple[Work, Work]:
        scene = Scene(subscription)
        if after == Status.SUBSCRIBED:
            scene.change_to(Status.SUSPENDED)()
        emit_orders(1)
        return scene.change_to(after), scene.fan_out

    assert lost(play_every_order(stage, make)) == []


def test_a_late_release_and_a_new_claim(stage: Stage, subscription: Subscription) -> None:
    def make() -> tuple[Work, Work]:
        scene = Scene(subscription).hold(BAD).expire()
        return scene.claim, scene.release

    assert lost(play_every_order(stage, make)) == []


def repair(ids: list[str]) -> None:
    atomically("default", lambda: housekeeping._repair("default", ids))


def test_a_repair_and_fan_out(stage: Stage, subscription: Subscription) -> None:
    def make() -> tuple[Work, Work]:
        scene = Scene(subscription)
        emit_orders(1)
        fan_out_all()
        later = db_now("default") + timedelta(hours=1)
        Delivery.objects.update(due_at=later)
        Lane.objects.update(claim_at=None)  # astray, and about to get something more
        emit_orders(1)
        return lambda: repair([subscription.pk]), scene.fan_out

    assert lost(play_every_order(stage, make)) == []


# The power of the above: the same harness finds what is known to be wrong.


def test_reading_what_is_due_before_the_lock_does_lose(
    stage: Stage, subscription: Subscription, lanes_are_broken: None
) -> None:
    def wrong_release(scene: Scene) -> None:
        def write() -> None:
            lanes = Lane.objects.all()
            Delivery.objects.filter(pk=scene.results[0].job.delivery.id).settle(
                Delivery.State.DELIVERED, now=db_now("default")
            )
            earliest = lanes.earliest_due([subscription.pk])  # too early
            for lane in lanes.held_by(scene.token, [subscription.pk]):
                lane.token = lane.lease_until = None
                lane.claim_at = lane.next_claim(earliest.get(lane.pk))
                lane.save()

        atomically("default", write)

    def make() -> tuple[Work, Work]:
        scene = Scene(subscription).hold(OK)
        emit_orders(1)
        return scene.fan_out, lambda: wrong_release(scene)

    outcomes = play_every_order(stage, make)
    assert 0 < len(lost(outcomes)) < len(outcomes)


def test_fanning_out_without_the_lanes_lock_does_lose(
    stage: Stage,
    subscription: Subscription,
    monkeypatch: pytest.MonkeyPatch,
    lanes_are_broken: None,
) -> None:
    def without_lock(using: str, ids: set[str]) -> tuple[list[Lane], set[str], set[str]]:
        return list(Lane.objects.filter(pk__any=ids).order_by("pk")), set(), set()

    monkeypatch.setattr("webhooks.engine.fanout._lock_lanes", without_lock)

    def make() -> tuple[Work, Work]:
        scene = Scene(subscription).hold(OK)
        emit_orders(1)
        return scene.fan_out, scene.release

    outcomes = play_every_order(stage, make)
    assert 0 < len(lost(outcomes)) < len(outcomes)
