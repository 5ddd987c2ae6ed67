"""Replays: what they cover, that they do it once, and that nobody waits for them."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections, transaction
from oauth2_provider.models import get_application_model

from tests.world import (
    Receiver,
    deliver,
    emit_orders,
    fan_out_all,
    in_background,
    states,
    subscribe,
)
from webhooks import catalog, emit, lifecycle
from webhooks.clock import db_now
from webhooks.engine import housekeeping, markers, replays
from webhooks.engine.replays import advance
from webhooks.engine.wake import LINGER
from webhooks.exceptions import NotDeliverable
from webhooks.models import (
    Delivery,
    DeliveryAttempt,
    Event,
    Lane,
    Message,
    Replay,
    Subscription,
)
from webhooks.models.delivery import State
from webhooks.models.fields import first_id_of
from webhooks.models.replay import MISSING, REPLAYABLE
from webhooks.models.subscription import Status, matches
from webhooks.redelivery import ReplayRequest, cancel, count, redeliver, replay
from webhooks.tasks import drain, prune, sweep

pytestmark = pytest.mark.django_db(transaction=True)

HOUR = timedelta(hours=1)
TYPES = ("order.paid", "order.shipped", "shop.order.refunded")
SETTLED = [state for state in State if state != State.PENDING]

woken: list[str] = []


def note_wake_up() -> None:
    woken.append("drain")


@pytest.fixture(autouse=True)
def _all_may_go_on() -> Iterator[None]:
    yield
    replays._resting.clear()


def window(**given: Any) -> ReplayRequest:
    """The last hour and the next one."""
    now = db_now("default")
    return ReplayRequest(**{"start": now - HOUR, "end": now + HOUR, **given})


def settle(state: State, events: list[Event] | None = None) -> None:
    """Deliveries (of these events) have ended, in this state, a while ago."""
    rows = Delivery.objects.all()
    if events is not None:
        rows = rows.filter(event__in=events)
    rows.settle(state, now=db_now("default"), reason="then", attempts=3)
    still = Delivery.objects.pending().values("subscription_id")
    Lane.objects.exclude(pk__in=still).update(claim_at=None)


def dead(receiver: Receiver, events: int, requester: str = "app:a", **options: Any) -> Subscription:
    """A subscription with so many dead deliveries."""
    subscription = subscribe(receiver, requester, **options)
    emitted = emit_orders(events, requester)
    fan_out_all()
    settle(State.DEAD, emitted)
    return subscription


def finish() -> int:
    """Advance until there is nothing more to do; how many batches that took."""
    batches = 0
    while advance("default"):
        batches += 1
        assert batches < 1000
    return batches


# What it covers


@pytest.mark.parametrize("state", SETTLED)
def test_what_ended_in_the_state_that_is_asked_for_comes_again(
    receiver: Receiver, state: State
) -> None:
    subscription = subscribe(receiver)
    others = [each for each in SETTLED if each != state]
    events = emit_orders(2 + len(others))
    fan_out_all()
    settle(state, events[:2])
    for event, other in zip(events[2:], others, strict=True):
        settle(other, [event])
    request = window(states=[state.value])
    assert count(subscription, request) == 2
    made = replay(subscription, request, actor="app:a")
    assert (made.state, made.total, made.done, made.actor) == ("running", 2, 0, "app:a")
    deliver()
    made.refresh_from_db()
    assert (made.state, made.done) == ("finished", 2)
    assert made.finished_at is not None
    assert receiver.ids == {event.pk: 1 for event in events[:2]}
    rows = DeliveryAttempt.objects.values_list("number", "trigger")
    assert set(rows) == {(4, "replay")}


def test_what_is_pending_is_left_alone(receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    emit_orders(3)
    fan_out_all()
    before = list(Delivery.objects.order_by("pk").values())
    made = replay(subscription, window(states=list(REPLAYABLE)))
    finish()
    assert made.total == 0
    assert list(Delivery.objects.order_by("pk").values()) == before


def test_what_ended_is_due_now_with_a_new_schedule_and_age(receiver: Receiver) -> None:
    subscription = dead(receiver, 1)
    old = db_now("default") - 500 * HOUR
    Delivery.objects.update(due_at=old, first_due_at=old)
    before = db_now("default")
    replay(subscription, window())
    finish()
    delivery, lane = Delivery.objects.get(), Lane.objects.get()
    assert (delivery.state, delivery.reason, delivery.trigger) == ("pending", "", "replay")
    assert (delivery.attempts, delivery.retries_from, delivery.settled_at) == (3, 3, None)
    assert before <= delivery.due_at == delivery.first_due_at == lane.claim_at


def test_events_of_before_the_subscription_are_missing_ones(receiver: Receiver) -> None:
    events = emit_orders(5)
    fan_out_all()
    subscription = subscribe(receiver)
    assert count(subscription, window(states=[MISSING])) == 5
    replay(subscription, window(states=[MISSING]))
    deliver()
    assert receiver.ids == {event.pk: 1 for event in events}
    assert set(DeliveryAttempt.objects.values_list("number", "trigger")) == {(1, "replay")}
    replay(subscription, window(states=[MISSING]))
    deliver()
    assert receiver.duplicates == 0


def test_what_stands_for_an_empty_digest_is_missing_nowhere_else(receiver: Receiver) -> None:
    subscribe(receiver, trigger="daily", empty_digests=True)
    markers.plant_missing("default")
    assert Event.objects.get().type == markers.MARKER
    other = subscribe(receiver, event_types=["webhooks.*"])
    assert count(other, window(states=[MISSING])) == 0


def test_what_is_not_fanned_out_yet_is_left_to_the_fan_out(receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    [event] = emit_orders(1)
    request = window()
    assert count(subscription, request) == 0
    replay(subscription, request)
    deliver()
    assert receiver.ids == {event.pk: 1}
    assert DeliveryAttempt.objects.get().trigger == "first"


def test_what_happened_after_the_asking_is_not_part_of_it(receiver: Receiver) -> None:
    subscription = dead(receiver, 2)
    emit_orders(1)
    fan_out_all()
    made = replay(subscription, window(states=["dead", MISSING]))
    settle(State.DEAD)
    Subscription.objects.update(event_types=["shop.*"])
    emit_orders(1)
    fan_out_all()
    Subscription.objects.update(event_types=["*"])
    finish()
    made.refresh_from_db()
    assert (made.total, made.done) == (2, 2)


@pytest.mark.parametrize("ahead", [-30, 0, 30])
def test_the_window_has_its_start_and_not_its_end(receiver: Receiver, ahead: int) -> None:
    """By the time that an event was recorded at, though its id may be of another."""
    subscription = dead(receiver, 4)
    start = db_now("default") + timedelta(seconds=ahead)
    end = start + timedelta(seconds=2)
    moments = [start - timedelta(microseconds=1), start, end - timedelta(microseconds=1), end]
    events = list(Event.objects.order_by("pk"))
    for event, moment in zip(events, moments, strict=True):
        Event.objects.filter(pk=event.pk).update(created_at=moment)
    request = ReplayRequest(start, end)
    assert count(subscription, request) == 2
    replay(subscription, request)
    finish()
    pending = Delivery.objects.pending().order_by("pk").values_list("event_id", flat=True)
    assert list(pending) == [events[1].pk, events[2].pk]


def test_types_narrow_what_the_subscription_has_and_never_widen_it(receiver: Receiver) -> None:
    for type_ in TYPES:
        emit(type_, {"order": 1}, requester="app:a")
    emit("shop.closed", {"day": "Monday"})
    fan_out_all()
    subscription = subscribe(receiver, event_types=["order.*", "shop.closed"])
    found = {
        patterns: count(subscription, window(types=list(patterns)))
        for patterns in ((), ("*",), ("order.*",), ("order.paid",), ("shop.*",))
    }
    assert found == {(): 3, ("*",): 3, ("order.*",): 2, ("order.paid",): 1, ("shop.*",): 1}
    assert count(subscription, window(types=["shop.order.refunded"])) == 0


def test_events_that_are_addressed_to_others_never_come(receiver: Receiver) -> None:
    emit_orders(3, "app:b")
    emit_orders(2, "app:A")
    fan_out_all()
    subscription = subscribe(receiver, "app:a", ["*"])
    dead(receiver, 2, "app:b")
    assert count(subscription, window(states=list(REPLAYABLE))) == 0
    replay(subscription, window(states=list(REPLAYABLE)))
    deliver()
    assert receiver.posts == []


class TestScopes:
    """Types that need a scope."""

    @pytest.fixture
    def mine(self, receiver: Receiver, settings: Any) -> Iterator[Callable[[str], Subscription]]:
        settings.OAUTH2_PROVIDER = {"SCOPES": {"webhooks:read": "", "orders": ""}}
        catalog.register("invoice.paid", scope="orders", example={"n": 1})
        models = get_application_model()
        application = models.objects.create(
            name="crm",
            client_id="crm",
            client_type=models.CLIENT_CONFIDENTIAL,
            authorization_grant_type=models.GRANT_CLIENT_CREDENTIALS,
        )
        emit("invoice.paid", {"n": 1}, requester="app:crm")
        emit("order.paid", {"order": 1}, requester="app:crm")
        fan_out_all()
        yield lambda scopes: subscribe(
            receiver, "app:crm", ["*"], application=application, scopes=scopes
        )
        catalog.unregister("invoice.paid")

    def test_what_the_owner_does_not_see_is_not_replayed(
        self, receiver: Receiver, mine: Callable[[str], Subscription]
    ) -> None:
        subscription = mine("webhooks:read")
        assert count(subscription, window()) == 1
        replay(subscription, window())
        deliver()
        assert [post.json["type"] for post in receiver.posts] == ["order.paid"]

    def test_with_the_scope_it_is(self, mine: Callable[[str], Subscription]) -> None:
        assert count(mine("webhooks:read orders"), window()) == 2

    def test_a_scope_that_is_lost_in_the_middle_is_lost(
        self, receiver: Receiver, mine: Callable[[str], Subscription]
    ) -> None:
        subscription = mine("webhooks:read orders")
        replay(subscription, window())
        Subscription.objects.update(scopes="webhooks:read")
        deliver()
        assert [post.json["type"] for post in receiver.posts] == ["order.paid"]

    def test_a_type_that_the_owner_does_not_see_is_as_unknown_as_one_there_is_not(
        self, mine: Callable[[str], Subscription]
    ) -> None:
        from django.core.exceptions import ValidationError

        subscription = mine("webhooks:read")
        request = window(types=["invoice.paid"])
        for ask in (count, replay):
            with pytest.raises(ValidationError, match=r"'invoice\.paid' is not registered"):
                ask(subscription, request)  # type: ignore[operator]
        assert not Replay.objects.exists()


@pytest.mark.parametrize("seed", range(8))
def test_the_count_is_what_is_done_and_both_are_what_the_words_say(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """A world by chance, and beside it the rules once more, in Python."""
    rng = random.Random(seed)
    monkeypatch.setattr(replays, "SCANNED", rng.choice([2, 7, 5000]))
    subscription = subscribe(receiver, event_types=rng.choice([["*"], ["order.*"], list(TYPES)]))
    base = db_now("default")
    for _ in range(40):
        emit(rng.choice(TYPES), {"order": 1}, requester=rng.choice(["app:a", "app:a", "app:b"]))
    fan_out_all()
    for event in Event.objects.all():
        moment = base + timedelta(seconds=rng.randrange(10))
        Event.objects.filter(pk=event.pk).update(created_at=moment)
    became: dict[str, str] = {}
    for delivery in list(Delivery.objects.all()):
        fate = rng.choice([*REPLAYABLE, "pending"])
        became[delivery.event_id] = fate
        if fate == MISSING:
            delivery.delete()
        elif fate != "pending":
            Delivery.objects.filter(pk=delivery.pk).settle(State(fate), now=base)
    states_asked = rng.sample(REPLAYABLE, rng.randint(1, len(REPLAYABLE)))
    start = base + timedelta(seconds=rng.randrange(5))
    request = ReplayRequest(
        start=start,
        end=start + timedelta(seconds=rng.randint(1, 8)),
        types=rng.choice([[], ["order.paid"], ["shop.*", "order.shipped"]]),
        states=states_asked,
    )
    expected = {
        event.pk
        for event in Event.objects.filter(requester="app:a")
        if request.start <= event.created_at < request.end
        and subscription.covers(event.type)
        and (not request.types or matches(request.types, event.type))
        and became.get(event.pk, MISSING) in states_asked
    }
    made = replay(subscription, request)
    assert count(subscription, request) == made.total == len(expected)
    limit = rng.choice([1, 3, 500])
    while advance("default", limit):
        pass
    made.refresh_from_db()
    assert (made.state, made.done) == ("finished", len(expected))
    due_again = Delivery.objects.pending().filter(trigger="replay")
    assert set(due_again.values_list("event_id", flat=True)) == expected
    assert count(subscription, request) == 0
    deliver()
    assert set(receiver.ids) == expected | {pk for pk, fate in became.items() if fate == "pending"}
    assert receiver.duplicates == 0


def test_counting_is_a_statement_or_two(
    receiver: Receiver, django_assert_max_num_queries: Any
) -> None:
    subscription = dead(receiver, 20)
    request = window(states=list(REPLAYABLE))
    with django_assert_max_num_queries(3):  # the clock's, the subscription, and the count
        assert count(subscription, request) == 20


# Batch by batch


def test_it_is_done_in_batches_and_each_delivery_once(receiver: Receiver) -> None:
    subscription = dead(receiver, 10)
    made = replay(subscription, window())
    progress = []
    while advance("default", 4):
        made.refresh_from_db()
        progress.append((made.done, made.state))
    assert progress == [(4, "running"), (8, "running"), (10, "finished")]
    deliver()
    assert len(receiver.posts) == 10
    assert receiver.duplicates == 0


def test_few_events_in_a_long_window_are_found_in_short_steps(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replays, "SCANNED", 5)
    emit_orders(12, "app:b")
    subscription = dead(receiver, 2)
    emit_orders(12, "app:b")
    fan_out_all()
    made = replay(subscription, window())
    assert finish() == 6
    made.refresh_from_db()
    assert (made.state, made.done) == ("finished", 2)


def test_one_that_dies_in_the_middle_of_a_batch_loses_and_repeats_nothing(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    subscription = dead(receiver, 10)
    Delivery.objects.filter(pk__in=list(Delivery.objects.values_list("pk", flat=True)[:4])).delete()
    made = replay(subscription, window())
    assert advance("default", 3)
    save = Replay.save
    with monkeypatch.context() as patch:

        def die(self: Replay, *args: Any, **options: Any) -> None:
            save(self, *args, **options)
            raise Killed

        patch.setattr(Replay, "save", die)
        with pytest.raises(Killed):
            advance("default", 3)
    made.refresh_from_db()
    assert (made.done, Delivery.objects.pending().count()) == (3, 3)
    finish()
    made.refresh_from_db()
    assert (made.state, made.done) == ("finished", 10)
    deliver()
    assert len(receiver.posts) == 10
    assert receiver.duplicates == 0


def test_what_was_cancelled_in_the_middle_stays_half_done(receiver: Receiver) -> None:
    subscription = dead(receiver, 10)
    made = replay(subscription, window())
    assert advance("default", 4)
    assert cancel(made)
    assert (made.state, made.done) == ("cancelled", 4)
    assert made.finished_at is not None
    assert not cancel(made)
    deliver()
    assert len(receiver.posts) == 4
    assert states() == {"delivered": 4, "dead": 6}


def test_one_that_has_finished_cannot_be_cancelled(receiver: Receiver) -> None:
    made = replay(dead(receiver, 1), window())
    deliver()
    assert not cancel(made)
    assert made.state == "finished"


def test_workers_who_are_at_it_at_once_do_each_event_once(receiver: Receiver) -> None:
    subscriptions = [dead(receiver, 40, f"app:{i}") for i in range(3)]
    made = [replay(each, window()) for each in subscriptions]

    def work() -> None:
        # As a worker's looks: whether or not there was something, it looks again.
        while Replay.objects.running().exists():
            advance("default", 3)

    with in_background(work), in_background(work), in_background(work):
        pass
    for each in made:
        each.refresh_from_db()
        assert (each.state, each.done) == ("finished", 40)
    deliver()
    assert len(receiver.posts) == 120
    assert receiver.duplicates == 0


def test_replays_take_turns(receiver: Receiver) -> None:
    made = [replay(dead(receiver, 40, f"app:{i}"), window()) for i in range(2)]
    for _ in range(36):
        assert advance("default", 1)
    for each in made:
        each.refresh_from_db()
        assert 0 < each.done < 36


@pytest.mark.postgres
def test_a_lane_that_somebody_has_locked_is_not_waited_for(receiver: Receiver) -> None:
    held_up, other = dead(receiver, 3, "app:a"), dead(receiver, 3, "app:b")
    replay(held_up, window())
    replay(other, window())
    locked, done = threading.Event(), threading.Event()

    def slow_request() -> None:
        try:
            with transaction.atomic():
                Lane.objects.lock([held_up.pk])
                locked.set()
                done.wait(20)
        finally:
            connections.close_all()

    request = threading.Thread(target=slow_request)
    request.start()
    assert locked.wait(10)
    try:
        finish()
        assert not Delivery.objects.pending().filter(subscription=held_up).exists()
        assert Delivery.objects.pending().filter(subscription=other).count() == 3
    finally:
        done.set()
        request.join(20)
    assert finish() == 1
    assert states() == {"pending": 6}


def test_one_that_cannot_go_on_stops_nobody_else(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = dead(receiver, 3, "app:a"), dead(receiver, 3, "app:b")
    broken, made = replay(bad, window()), replay(good, window())
    original = replays.select

    def select(subscription: Subscription, **given: Any) -> Any:
        if subscription.pk == bad.pk:
            raise ValueError("in the host's ENTITLEMENT")
        return original(subscription, **given)

    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR, "webhooks"):
        patch.setattr(replays, "select", select)
        deliver()
        assert not advance("default")
    made.refresh_from_db()
    assert made.state == "finished"
    assert len(receiver.posts) == 3
    said = [each for each in caplog.records if broken.pk in each.getMessage()]
    assert len(said) == 1  # and not in every look
    replays._resting.clear()
    deliver()
    assert len(receiver.posts) == 6


# Subscriptions that are not live


def test_for_a_suspended_subscription_it_waits(receiver: Receiver) -> None:
    subscription = dead(receiver, 3)
    lifecycle.change_status(subscription, Status.SUSPENDED, reason="client")
    made = replay(subscription, window())
    deliver()
    made.refresh_from_db()
    assert (made.state, made.done) == ("finished", 3)
    assert receiver.posts == []
    lifecycle.change_status(subscription, Status.SUBSCRIBED, reason="client")
    deliver()
    assert states() == {"delivered": 3}


def test_a_worker_stays_while_it_replays_though_it_has_nothing_to_send(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a suspended subscription: what is made for it cannot be claimed."""
    end = time.monotonic() + LINGER + 1
    looks: list[bool] = []

    def as_if(using: str) -> bool:
        looks.append(time.monotonic() < end)
        return looks[-1]

    monkeypatch.setattr(replays, "advance", as_if)
    drain()
    assert not looks[-1]


def test_nothing_can_be_asked_for_one_that_unsubscribed(receiver: Receiver) -> None:
    subscription = dead(receiver, 3)
    lifecycle.change_status(subscription, Status.UNSUBSCRIBED, reason="client")
    assert count(subscription, window()) == 0
    with pytest.raises(NotDeliverable, match="unsubscribed"):
        replay(subscription, window())
    assert not Replay.objects.exists()


def test_one_that_unsubscribes_in_the_middle_ends_its_replay(receiver: Receiver) -> None:
    subscription = dead(receiver, 6)
    made = replay(subscription, window())
    assert advance("default", 2)
    lifecycle.change_status(subscription, Status.UNSUBSCRIBED, reason="client")
    deliver()
    made.refresh_from_db()
    assert (made.state, made.done) == ("cancelled", 2)
    assert made.finished_at is not None
    assert states() == {"dead": 4, "cancelled": 2}
    assert receiver.posts == []


def nobody(owner: Any) -> bool:
    return False


def test_one_whose_owner_is_entitled_no_longer_ends_its_replay(
    receiver: Receiver, settings: Any
) -> None:
    subscription = dead(receiver, 3)
    made = replay(subscription, window())
    settings.WEBHOOKS = {**settings.WEBHOOKS, "ENTITLEMENT": f"{__name__}.nobody"}
    finish()
    made.refresh_from_db()
    assert (made.state, made.done) == ("cancelled", 0)
    assert states() == {"dead": 3}
    assert count(subscription, window(types=["order.paid"])) == 0
    with pytest.raises(NotDeliverable, match="not entitled"):
        replay(subscription, window())


def test_a_subscription_that_was_written_past_subscribe_gets_a_lane(receiver: Receiver) -> None:
    subscription = dead(receiver, 2)
    replay(subscription, window())
    Lane.objects.all().delete()
    deliver()
    assert states() == {"delivered": 2}


def test_a_subscription_that_is_deleted_takes_its_replay_with_it(receiver: Receiver) -> None:
    subscription = dead(receiver, 2)
    replay(subscription, window())
    subscription.delete()
    assert not advance("default")
    assert not Replay.objects.exists()


# By the clock


def test_a_worker_is_woken_for_it_and_by_the_sweep_if_it_was_not(
    receiver: Receiver, settings: Any
) -> None:
    subscription = dead(receiver, 1)
    settings.WEBHOOKS = {**settings.WEBHOOKS, "WAKER": f"{__name__}.note_wake_up"}
    woken.clear()
    with transaction.atomic():
        made = replay(subscription, window())
        assert woken == []
    assert woken == ["drain"]
    sweep()
    assert woken == ["drain", "drain"]
    cancel(made)
    sweep()
    assert woken == ["drain", "drain"]


def test_pruning_removes_old_replays_that_have_ended_and_no_others(
    receiver: Receiver, settings: Any
) -> None:
    subscription = subscribe(receiver)
    now = db_now("default")
    for state, days in (("finished", 40), ("cancelled", 40), ("running", 40), ("finished", 2)):
        moment = now - timedelta(days=days)
        Replay.objects.create(
            pk=f"{first_id_of(moment, 'rpl')[:-8]}{random.randrange(16**8):08x}",
            subscription=subscription,
            from_at=moment - HOUR,
            to_at=moment,
            state=state,
            finished_at=None if state == "running" else moment,
        )
    prune()
    left = Replay.objects.order_by("pk").values_list("state", flat=True)
    assert list(left) == ["running", "finished"]


def test_pruning_removes_messages_that_nothing_is_sent_under_any_more(receiver: Receiver) -> None:
    subscription = dead(receiver, 2)
    old = db_now("default") - timedelta(days=40)
    made = []
    for place in range(2):
        made.append(
            Message.objects.create(
                pk=f"{first_id_of(old, 'msg')[:-8]}{place:08x}", subscription=subscription
            )
        )
    delivery = Delivery.objects.first()
    assert delivery is not None
    Delivery.objects.filter(pk=delivery.pk).update(message=made[1])
    redeliver(Delivery.objects.exclude(pk=delivery.pk).get(), new_id=True)
    young = Message.objects.exclude(pk__in=[each.pk for each in made]).get()
    prune()
    assert set(Message.objects.all()) == {made[1], young}
    deliver()


def test_what_is_asked_for_again_while_it_is_pruned_is_not_lost(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead(receiver, 2)
    old = db_now("default") - timedelta(days=40)
    for place, delivery in enumerate(Delivery.objects.all()):
        pk = f"{first_id_of(old, 'dlv')[:-8]}{place:08x}"
        Delivery.objects.filter(pk=delivery.pk).update(id=pk, settled_at=old)
    again = Delivery.objects.order_by("pk").first()
    assert again is not None
    original = housekeeping.atomically

    def in_the_last_moment(using: str, work: Any) -> Any:
        monkeypatch.setattr(housekeeping, "atomically", original)
        redeliver(again)
        return original(using, work)

    monkeypatch.setattr(housekeeping, "atomically", in_the_last_moment)
    prune()
    assert list(Delivery.objects.all()) == [again]
    deliver()
    assert states() == {"delivered": 1}
