"""The rules of a lane's row: claim, renew, release, repair."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from tests.world import Receiver, emit_orders, fan_out_all, subscribe
from webhooks.clock import Clock, db_now
from webhooks.engine import housekeeping, leases
from webhooks.engine.holdings import Holdings
from webhooks.engine.transactions import atomically
from webhooks.formats.signing import decode_secret
from webhooks.lifecycle import change_status, rotate_secret
from webhooks.models import Delivery, Duty, Lane, Subscription
from webhooks.models.lane import LaneQuerySet
from webhooks.models.subscription import Status

pytestmark = pytest.mark.django_db(transaction=True)

LEASE = timedelta(seconds=60)
ME, ANOTHER = uuid.uuid4(), uuid.uuid4()


def claim(token: uuid.UUID = ME, *, limit: int = 10, **given: Any) -> list[str]:
    claimed = atomically(
        "default",
        lambda: Lane.objects.claim(token, **{"lease": LEASE, "limit": limit, **given}),
    )
    return [lane.pk for lane in claimed]


def let_go(token: uuid.UUID, *ids: str) -> int:
    """Release; how many of these lanes the token still had."""

    def release() -> int:
        locked = Lane.objects.held_by(token, ids)
        Lane.objects.let_go(locked)
        return len(locked)

    return atomically("default", release)


def waiting_lanes(receiver: Receiver, count: int) -> list[Subscription]:
    """Lanes with one due delivery each, the first one due the longest."""
    made = [subscribe(receiver, f"app:{i}") for i in range(count)]
    for place, subscription in enumerate(made):
        emit_orders(1, subscription.requester)
        fan_out_all()
        re_time(subscription, db_now("default") - timedelta(seconds=60 - place))
    return made


def re_time(subscription: Subscription, due_at: datetime) -> None:
    """Move a lane's deliveries, as whoever does that must: under its lock."""

    def move() -> None:
        locked = Lane.objects.lock([subscription.pk])
        Delivery.objects.filter(subscription=subscription).update(due_at=due_at)
        Lane.objects.filter(pk=subscription.pk, token=None).update(claim_at=None)
        for lane in locked:
            lane.claim_at = None
        Lane.objects.expect(locked, due_at)

    atomically("default", move)


def renew(token: uuid.UUID, subscription: Subscription) -> None:
    hour = timedelta(hours=1)
    atomically("default", lambda: Lane.objects.renew(token, [subscription.pk], lease=hour))


def row(subscription: Subscription) -> Lane:
    return Lane.objects.get(pk=subscription.pk)


def expire(subscription: Subscription) -> None:
    """As if the lease had run out a second ago."""
    past = db_now("default") - timedelta(seconds=1)
    Lane.objects.filter(pk=subscription.pk).update(lease_until=past, claim_at=past)


def test_a_claimed_lane_cannot_be_claimed_again(receiver: Receiver) -> None:
    [subscription] = waiting_lanes(receiver, 1)
    before = db_now("default")
    assert claim(ME) == [subscription.pk]
    assert claim(ANOTHER) == []
    lane = row(subscription)
    assert lane.token == ME
    assert lane.claim_at == lane.lease_until
    assert before + LEASE <= lane.claim_at <= db_now("default") + LEASE


def test_lanes_are_claimed_in_the_order_in_which_they_became_due(receiver: Receiver) -> None:
    subscriptions = waiting_lanes(receiver, 5)
    claimed = [claim(uuid.uuid4(), limit=1)[0] for _ in subscriptions]
    assert claimed == [each.pk for each in subscriptions]


def test_what_is_not_due_yet_is_not_claimed(receiver: Receiver) -> None:
    [subscription] = waiting_lanes(receiver, 1)
    re_time(subscription, db_now("default") + timedelta(seconds=30))
    assert claim() == []


def test_only_lanes_known_to_be_fast_are_claimed_when_so_asked(receiver: Receiver) -> None:
    fast, slow, _unknown = waiting_lanes(receiver, 3)
    Lane.objects.filter(pk=fast.pk).update(latency_ms=20)
    Lane.objects.filter(pk=slow.pk).update(latency_ms=3000)
    assert claim(faster_than=1000.0) == [fast.pk]


def test_a_lease_that_ran_out_is_taken_over_and_the_old_holder_is_shut_out(
    receiver: Receiver,
) -> None:
    [subscription] = waiting_lanes(receiver, 1)
    claim(ME)
    expire(subscription)
    assert claim(ANOTHER) == [subscription.pk]
    taken = row(subscription)
    assert let_go(ME, subscription.pk) == 0
    renew(ME, subscription)
    assert Lane.objects.controls(ME) == {}
    after = row(subscription)
    assert (after.token, after.lease_until) == (ANOTHER, taken.lease_until)


def test_a_renewed_lease_lasts_longer(receiver: Receiver) -> None:
    [subscription] = waiting_lanes(receiver, 1)
    claim(ME)
    renew(ME, subscription)
    lane = row(subscription)
    assert lane.lease_until is not None
    assert lane.lease_until > db_now("default") + timedelta(minutes=59)
    assert lane.claim_at == lane.lease_until


def test_renewing_in_memory_never_lengthens_a_lease_that_was_lost(receiver: Receiver) -> None:
    lost, kept = waiting_lanes(receiver, 2)
    held = leases.claim("default", ME, limit=10, now=db_now("default"))
    expire(lost)
    assert claim(ANOTHER) == [lost.pk]
    ends = {lane.id: lane.lease_end for lane in held}
    leases.renew("default", ME, held)
    by_id = {lane.id: lane for lane in held}
    assert by_id[kept.pk].lease_end > ends[kept.pk]
    assert by_id[lost.pk].lease_end == ends[lost.pk]


def test_a_released_lane_is_due_when_its_earliest_delivery_is(receiver: Receiver) -> None:
    [subscription] = waiting_lanes(receiver, 1)
    claim(ME)
    later = db_now("default") + timedelta(minutes=5)
    Delivery.objects.update(due_at=later)
    assert let_go(ME, subscription.pk) == 1
    lane = row(subscription)
    assert (lane.token, lane.lease_until, lane.claim_at) == (None, None, later)


def test_a_released_lane_with_nothing_pending_is_never_claimed(receiver: Receiver) -> None:
    [subscription] = waiting_lanes(receiver, 1)
    claim(ME)
    Delivery.objects.all().delete()
    let_go(ME, subscription.pk)
    assert row(subscription).claim_at is None


def test_a_released_lane_waits_for_its_pause(receiver: Receiver) -> None:
    [subscription] = waiting_lanes(receiver, 1)
    claim(ME)
    pause = db_now("default") + timedelta(minutes=5)
    Lane.objects.update(paused_until=pause)
    let_go(ME, subscription.pk)
    assert row(subscription).claim_at == pause


def test_a_released_lane_goes_behind_those_that_have_waited(receiver: Receiver) -> None:
    first, second, third = waiting_lanes(receiver, 3)
    assert claim(ME, limit=1) == [first.pk]
    let_go(ME, first.pk)
    claimed = [claim(uuid.uuid4(), limit=1) for _ in range(3)]
    assert claimed == [[second.pk], [third.pk], [first.pk]]


def test_what_comes_for_a_leased_lane_is_found_at_its_release(receiver: Receiver) -> None:
    [subscription] = waiting_lanes(receiver, 1)
    claim(ME)
    Delivery.objects.all().delete()
    before = row(subscription).claim_at
    emit_orders(1, subscription.requester)
    fan_out_all()
    assert row(subscription).claim_at == before  # the lease is not cut short
    let_go(ME, subscription.pk)
    lane = row(subscription)
    assert lane.claim_at is not None
    assert lane.claim_at <= db_now("default")


@pytest.mark.parametrize(
    "broken",
    [
        {"token": ME, "lease_until": None},
        {"token": None, "lease_until": "now"},
        {"token": ME, "lease_until": "now", "claim_at": None},
        {"token": ME, "lease_until": "now", "claim_at": "before"},
    ],
)
def test_the_database_refuses_a_lease_that_can_be_claimed(
    receiver: Receiver, broken: dict[str, Any]
) -> None:
    subscribe(receiver)
    now = db_now("default")
    times = {"now": now, "before": now - timedelta(seconds=1)}
    values = {
        name: times.get(value, value) if isinstance(value, str) else value
        for name, value in broken.items()
    }
    with pytest.raises(IntegrityError), transaction.atomic():
        Lane.objects.update(**values)


def test_a_change_by_a_person_is_counted_for_the_holder(receiver: Receiver) -> None:
    [subscription] = waiting_lanes(receiver, 1)
    claim(ME)
    assert Lane.objects.controls(ME) == {subscription.pk: 0}
    rotate_secret(subscription)
    assert Lane.objects.controls(ME) == {subscription.pk: 1}
    change_status(subscription, Status.SUSPENDED, reason="client")
    assert Lane.objects.controls(ME) == {subscription.pk: 2}


def test_a_reload_never_takes_old_secrets_with_a_new_control(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a rotation in between is heard of, and never followed."""
    [subscription] = waiting_lanes(receiver, 1)
    [lane] = leases.claim("default", ME, limit=1, now=db_now("default"))
    rotate_secret(subscription)
    original = leases.secrets_of

    def in_between(*args: Any) -> Any:
        found = original(*args)
        rotate_secret(subscription, overlap=timedelta(0))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(leases, "secrets_of", in_between)
        leases.reload("default", ME, [lane], db_now("default"))
    if lane.control != Lane.objects.controls(ME)[lane.id]:
        leases.reload("default", ME, [lane], db_now("default"))  # as the holder does, in a second
    newest = subscription.secrets.order_by("-pk")[0]
    assert lane.keys[0][0] == decode_secret(newest.value.reveal())


def test_a_suspended_lane_is_not_claimable_until_it_is_resumed(receiver: Receiver) -> None:
    [subscription] = waiting_lanes(receiver, 1)
    change_status(subscription, Status.SUSPENDED, reason="client")
    assert claim() == []
    change_status(subscription, Status.SUBSCRIBED, reason="client")
    assert claim() == [subscription.pk]


def test_a_lane_suspended_while_it_is_leased_is_not_claimable_after_its_release(
    receiver: Receiver,
) -> None:
    [subscription] = waiting_lanes(receiver, 1)
    claim(ME)
    change_status(subscription, Status.SUSPENDED, reason="client")
    let_go(ME, subscription.pk)
    assert row(subscription).claim_at is None
    change_status(subscription, Status.SUBSCRIBED, reason="client")
    assert claim() == [subscription.pk]


def test_an_unsubscribed_lane_is_claimed_at_once_to_be_cleared(receiver: Receiver) -> None:
    [subscription] = waiting_lanes(receiver, 1)
    re_time(subscription, db_now("default") + timedelta(hours=1))
    change_status(subscription, Status.UNSUBSCRIBED, reason="client")
    assert claim() == [subscription.pk]


@pytest.mark.parametrize("claim_at", [None, timedelta(hours=1)])
def test_the_sweep_finds_a_lane_astray_repairs_and_counts_it(
    receiver: Receiver, claim_at: timedelta | None, lanes_are_broken: None
) -> None:
    astray, fine = waiting_lanes(receiver, 2)
    wrong = None if claim_at is None else db_now("default") + claim_at
    Lane.objects.filter(pk=astray.pk).update(claim_at=wrong)
    assert Lane.objects.astray(10) == [astray.pk]
    assert housekeeping.sweep("default")
    assert Duty.objects.get(name="sweep").counter == 1
    assert Lane.objects.astray(10) == []
    assert set(claim()) == {astray.pk, fine.pk}


def test_the_sweep_leaves_every_sound_lane_alone(receiver: Receiver) -> None:
    leased, paused, suspended, later, released, _due = waiting_lanes(receiver, 6)
    claim(ME, limit=1)
    assert row(leased).token == ME
    pause = db_now("default") + timedelta(hours=1)
    Lane.objects.filter(pk=paused.pk).update(paused_until=pause, claim_at=pause)
    change_status(suspended, Status.SUSPENDED, reason="client")
    re_time(later, pause)
    Lane.objects.filter(pk=released.pk).update(token=ANOTHER, lease_until=pause, claim_at=pause)
    let_go(ANOTHER, released.pk)
    before = list(Lane.objects.order_by("pk").values())
    assert Lane.objects.astray(10) == []
    housekeeping.sweep("default")
    assert list(Lane.objects.order_by("pk").values()) == before
    assert Duty.objects.get(name="sweep").counter == 0


def test_the_repair_looks_again_under_the_lock(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    [subscription] = waiting_lanes(receiver, 1)
    sound = row(subscription).claim_at
    monkeypatch.setattr(LaneQuerySet, "astray", lambda self, limit: [subscription.pk])
    assert housekeeping.repair("default") == 0
    assert row(subscription).claim_at == sound
    monkeypatch.undo()


def test_a_look_that_finds_nothing_is_one_statement(django_assert_num_queries: Any) -> None:
    holdings = Holdings("default", ME, Clock("default"), 16)
    with django_assert_num_queries(1):
        assert holdings.claim(fast_only=False) == (0, False)
