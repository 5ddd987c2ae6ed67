"""From ``emit()`` to a recorded answer, over real HTTP."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from standardwebhooks.webhooks import Webhook

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
    until,
)
from webhooks import emit, signals
from webhooks.clock import db_now
from webhooks.crypto import Sealed
from webhooks.engine import drain as drain_module
from webhooks.engine import flushing, leases
from webhooks.engine import holdings as holdings_module
from webhooks.engine.drain import Drain
from webhooks.engine.worker import transport
from webhooks.formats.signing import generate_secret
from webhooks.lifecycle import change_status, rotate_secret, tell_holder
from webhooks.models import (
    Delivery,
    DeliveryAttempt,
    DeliveryStats,
    Duty,
    Event,
    Lane,
    SigningSecret,
    Subscription,
    Worker,
)
from webhooks.models.subscription import Status
from webhooks.receiving import InvalidSignature, verify
from webhooks.tasks import drain

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def configure(settings: Any) -> Callable[..., None]:
    def set_keys(**keys: Any) -> None:
        settings.WEBHOOKS = {**settings.WEBHOOKS, **keys}

    return set_keys


def failing(times: int, status: int = 500, **answer: Any) -> Callable[[Received], Answer]:
    """An endpoint that fails the first tries at each message."""
    seen: Counter[str] = Counter()
    lock = threading.Lock()

    def answer_to(post: Received) -> Answer:
        with lock:
            seen[post.id] += 1
            return Answer(status=status, **answer) if seen[post.id] <= times else Answer()

    return answer_to


def attempts() -> list[tuple[int, str, int | None]]:
    rows = DeliveryAttempt.objects.order_by("pk")
    return list(rows.values_list("number", "trigger", "status_code"))


def change_url(subscription: Subscription, url: str) -> None:
    """What an API does with a new callback URL: written under the lane's lock."""
    with transaction.atomic():
        [lane] = Lane.objects.lock([subscription.pk])
        Subscription.objects.filter(pk=subscription.pk).update(callback_url=url)
        tell_holder(lane, "default")


# The plain way


def test_an_event_arrives_signed_and_is_recorded(receiver: Receiver) -> None:
    secret = generate_secret()
    subscription = subscribe(receiver, secret=secret)
    event = emit("order.paid", {"order": "ünï"}, requester="app:a", subject="order:1")
    drain()
    [post] = receiver.posts
    assert post.id == event.pk
    body = verify(post.body, post.headers, secret)
    assert Webhook(secret).verify(post.body, post.headers) == body
    assert body["data"] == {"order": "ünï"}
    assert (body["id"], body["type"]) == (event.pk, "order.paid")
    assert states() == {"delivered": 1}
    assert attempts() == [(1, "first", 200)]
    lane = Lane.objects.get(pk=subscription.pk)
    assert (lane.token, lane.claim_at) == (None, None)
    assert not Worker.objects.exists()


def test_a_wrong_secret_does_not_verify(receiver: Receiver) -> None:
    subscribe(receiver)
    emit_orders(1)
    deliver()
    with pytest.raises(InvalidSignature):
        verify(receiver.posts[0].body, receiver.posts[0].headers, generate_secret())


def test_a_thousand_events_arrive_once_each(receiver: Receiver) -> None:
    for requester in ("app:a", "app:b"):
        subscribe(receiver, requester)
    emitted = [event.pk for name in ("app:a", "app:b") for event in emit_orders(500, name)]
    deliver()
    assert receiver.ids == Counter(emitted)
    assert states() == {"delivered": 1000}
    assert DeliveryAttempt.objects.count() == 1000
    whole = DeliveryStats.objects.filter(subscription_id="sub_" + "0" * 32)
    assert sum(row.attempts for row in whole) == 1000


def test_payloads_of_a_quarter_megabyte_arrive_whole(receiver: Receiver) -> None:
    subscribe(receiver)
    emit_orders(20, data={"text": "x" * 250_000})
    deliver()
    assert {len(post.json["data"]["text"]) for post in receiver.posts} == {250_000}
    assert len(receiver.ids) == 20


# What fails


def test_a_failed_delivery_is_tried_again_under_the_same_id_with_the_same_body(
    receiver: Receiver, configure: Any
) -> None:
    configure(RETRY_SCHEDULE=(1.5, 1.5))
    receiver.answer = failing(2)
    secret = generate_secret()
    subscribe(receiver, secret=secret)
    [event] = emit_orders(1)
    drain()
    assert attempts() == [(1, "first", 500), (2, "retry", 500), (3, "retry", 200)]
    assert states() == {"delivered": 1}
    assert receiver.ids == {event.pk: 3}
    assert len(receiver.bodies_of(event.pk)) == 1
    times = [int(post.headers["webhook-timestamp"]) for post in receiver.posts]
    assert times[0] < times[1] < times[2]  # each attempt is signed afresh
    for post in receiver.posts:
        verify(post.body, post.headers, secret)
    delivery = Delivery.objects.get()
    assert delivery.attempts == 3
    for attempt in DeliveryAttempt.objects.filter(trigger="retry"):
        assert timedelta(0) <= attempt.started_at - attempt.due_at < timedelta(seconds=1.5)


def test_a_retry_is_not_early_although_its_lane_is_busy(receiver: Receiver, configure: Any) -> None:
    configure(RETRY_SCHEDULE=(2,))

    def answer(post: Received) -> Answer:
        if post.json["data"]["order"] == 0:
            return Answer(status=500 if receiver.ids[post.id] == 1 else 200)
        return Answer(after=0.25)

    receiver.answer = answer
    subscribe(receiver, max_in_flight=1)
    emit_orders(6)
    drain()
    retry = DeliveryAttempt.objects.get(number=2)
    assert timedelta(0) <= retry.started_at - retry.due_at < timedelta(seconds=1.5)
    assert states() == {"delivered": 6}


def test_after_the_schedule_it_is_dead_and_the_host_is_told(
    receiver: Receiver, configure: Any
) -> None:
    configure(RETRY_SCHEDULE=(0.3, 0.3))
    receiver.answer = Answer(status=503)
    subscribe(receiver)
    heard: list[dict[str, Any]] = []

    def hear(**kwargs: Any) -> None:
        heard.append(kwargs)

    signals.delivery_dead.connect(hear)
    try:
        emit_orders(1)
        drain()
    finally:
        signals.delivery_dead.disconnect(hear)
    delivery = Delivery.objects.get()
    assert (delivery.state, delivery.reason, delivery.attempts) == ("dead", "server_error", 3)
    assert delivery.settled_at is not None
    assert len(receiver.posts) == 3
    [said] = heard
    assert (said["delivery_id"], said["state"]) == (delivery.pk, "dead")


def test_a_delivery_that_is_too_old_expires(receiver: Receiver, configure: Any) -> None:
    configure(MAX_AGE=1)
    receiver.answer = Answer(status=500)
    subscribe(receiver)
    emit_orders(1)
    deliver()
    delivery = Delivery.objects.get()
    assert (delivery.state, delivery.reason) == ("expired", "too_old")


def test_a_subscription_has_its_own_schedule(receiver: Receiver) -> None:
    receiver.answer = Answer(status=500)
    subscribe(receiver, retry_schedule=[1])
    emit_orders(1)
    drain()
    assert states() == {"dead": 1}
    assert len(receiver.posts) == 2


def test_410_unsubscribes_and_cancels_what_is_pending_visibly(receiver: Receiver) -> None:
    receiver.answer = Answer(status=410)
    subscription = subscribe(receiver, max_in_flight=1)
    emit_orders(50)
    deliver()
    subscription.refresh_from_db()
    assert (subscription.status, subscription.status_reason) == ("unsubscribed", "gone")
    assert states() == {"cancelled": 50}
    assert len(receiver.posts) < 10
    reasons = Counter(Delivery.objects.values_list("reason", flat=True))
    assert reasons == {"gone": len(receiver.posts), "unsubscribed": 50 - len(receiver.posts)}
    emit_orders(1)
    deliver()
    assert Delivery.objects.count() == 50


def test_retry_after_pauses_the_whole_lane(receiver: Receiver) -> None:
    pause = 2
    receiver.answer = failing(1, 429, headers={"Retry-After": str(pause)})
    subscribe(receiver, max_in_flight=1)
    other = subscribe(receiver, "app:b")
    emit_orders(4)
    first = threading.Event()
    quiet: list[float] = []
    original = receiver.answer

    def answer(post: Received) -> Answer:
        if not first.is_set():
            first.set()
            return original(post)  # 429, once
        quiet.append(post.at)
        return Answer()

    receiver.answer = answer
    drain()
    assert len(receiver.posts) == 5
    assert min(quiet) - receiver.posts[0].at >= pause
    assert min(quiet) - receiver.posts[0].at < pause + 1.5
    # The other three start at once then; the one that was refused has its own retry time, too.
    assert states()["delivered"] >= 3
    assert other.lane.claim_at is None


def test_an_ordered_lane_keeps_its_order_through_failures(
    receiver: Receiver, configure: Any
) -> None:
    configure(RETRY_SCHEDULE=(0.2, 0.2, 0.2))
    failures: Counter[str] = Counter()
    delivered: list[str] = []

    def answer(post: Received) -> Answer:
        if post.json["data"]["order"] % 4 == 2 and failures[post.id] < 2:
            failures[post.id] += 1
            return Answer(status=500)
        delivered.append(post.id)
        return Answer()

    receiver.answer = answer
    subscribe(receiver, ordered=True)
    emitted = [event.pk for event in emit_orders(12)]
    emitted += [event.pk for event in emit_orders(3)]
    drain()
    assert delivered == emitted
    assert sum(failures.values()) == 8
    # Nothing of a later message was sent while an earlier one waited.
    arrived = [post.id for post in receiver.posts]
    assert sorted(arrived, key=emitted.index) == arrived


def test_the_head_of_an_ordered_lane_that_dies_lets_the_others_pass(
    receiver: Receiver, configure: Any
) -> None:
    configure(RETRY_SCHEDULE=(0.2,))
    receiver.answer = lambda post: Answer(status=500 if post.json["data"]["order"] == 0 else 200)
    subscribe(receiver, ordered=True)
    emit_orders(4)
    drain()
    assert states() == {"dead": 1, "delivered": 3}


# What people change


def test_nothing_begins_a_second_after_a_suspension(receiver: Receiver) -> None:
    receiver.answer = Answer(after=0.02)
    subscription = subscribe(receiver)
    Lane.objects.update(latency_ms=20)
    emit_orders(3000)
    with in_background(deliver):
        receiver.wait_for(200)
        change_status(subscription, Status.SUSPENDED, reason="client")
        committed = time.time()
        time.sleep(2)
        came = list(receiver.posts)
    assert max(post.at for post in came) < committed + 1.05
    assert states()["pending"] > 500
    assert Lane.objects.get().claim_at is None
    # Resumed, all the rest arrives.
    receiver.answer = Answer()
    change_status(subscription, Status.SUBSCRIBED, reason="client")
    with transaction.atomic():
        Lane.objects.lock([subscription.pk])
        Lane.objects.update(ramp=None)  # at full speed: the ramp has tests of its own
    deliver()
    assert states() == {"delivered": 3000}
    assert receiver.duplicates == 0


def test_a_subscription_deleted_in_mid_delivery_leaves_no_trace_and_no_error(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answer = Answer(after=0.02)
    gone = subscribe(receiver)
    Lane.objects.update(latency_ms=20)
    emit_orders(1000)
    fan_out_all()
    with in_background(deliver):
        receiver.wait_for(100)
        delete_now(gone)
        committed = time.time()
        time.sleep(1.5)
    assert max(post.at for post in receiver.posts) < committed + 1.05
    assert not [record for record in caplog.records if record.exc_info]
    assert not Delivery.objects.exists()


def delete_now(subscription: Subscription) -> None:
    """Delete it as a careful host would: the lane's lock first."""
    with transaction.atomic():
        Lane.objects.lock([subscription.pk])
        subscription.delete()


def test_the_next_attempt_goes_to_the_new_url_under_the_new_secret(
    receivers: Callable[..., Receiver], configure: Any
) -> None:
    configure(RETRY_SCHEDULE=(2,))
    old, new = receivers(Answer(status=500)), receivers()
    subscription = subscribe(old)
    emit_orders(1)
    with in_background(drain):
        old.wait_for(1)
        change_url(subscription, new.url)
        secret = rotate_secret(subscription, overlap=timedelta(0))
        new.wait_for(1)
    assert len(old.posts) == 1
    verify(new.posts[0].body, new.posts[0].headers, secret)
    assert new.posts[0].headers["webhook-signature"].count("v1,") == 1


def test_a_holder_with_a_backlog_follows_a_new_url_and_secret_within_a_second(
    receivers: Callable[..., Receiver],
) -> None:
    old, new = receivers(Answer(after=0.02)), receivers()
    subscription = subscribe(old)
    Lane.objects.update(latency_ms=20)
    emit_orders(1500)
    with in_background(deliver):
        old.wait_for(100)
        secret = rotate_secret(subscription, overlap=timedelta(0))
        change_url(subscription, new.url)  # whoever hears of this one has heard of the other
        committed = time.time()
        new.wait_for(100)
    assert max(post.at for post in old.posts) < committed + 1.05
    for post in new.posts:
        verify(post.body, post.headers, secret)
    assert states() == {"delivered": 1500}


def test_every_live_secret_signs(receiver: Receiver) -> None:
    first = generate_secret()
    subscription = subscribe(receiver, secret=first)
    second = rotate_secret(subscription)
    emit_orders(1)
    deliver()
    for secret in (first, second):
        verify(receiver.posts[0].body, receiver.posts[0].headers, secret)


def test_an_unreadable_secret_waits_and_nothing_is_sent_unsigned(
    receiver: Receiver, receivers: Callable[..., Receiver]
) -> None:
    other = receivers()
    subscription = subscribe(receiver)
    subscribe(other, "app:b")
    good = SigningSecret.objects.get(subscription=subscription).value
    secret = SigningSecret.objects.filter(subscription=subscription)
    secret.update(value=Sealed("gAAAAABnot-ours"))
    emit_orders(3)
    emit_orders(3, "app:b")
    deliver()
    assert receiver.posts == []
    assert len(other.posts) == 3
    assert states() == {"pending": 3, "delivered": 3}
    assert Delivery.objects.filter(state="pending", attempts=0).count() == 3
    lane = Lane.objects.get(pk=subscription.pk)
    assert lane.pause_reason == "secret_unreadable"
    assert lane.claim_at is not None
    assert lane.claim_at > db_now("default")
    # The key is back, and the pause is over.
    secret.update(value=good)
    with transaction.atomic():
        Lane.objects.lock([subscription.pk])
        Lane.objects.filter(pk=subscription.pk).update(
            paused_until=None, claim_at=db_now("default")
        )
    deliver()
    assert states() == {"delivered": 6}


def test_a_subscription_without_any_secret_sends_nothing(receiver: Receiver) -> None:
    subscribe(receiver)
    SigningSecret.objects.all().delete()
    emit_orders(1)
    deliver()
    assert receiver.posts == []
    assert states() == {"pending": 1}


def test_unsubscribing_cancels_a_backlog_at_once_and_keeps_what_was_acknowledged(
    receiver: Receiver,
) -> None:

    def answer(post: Received) -> Answer:
        return Answer(status=500 if post.json["data"]["order"] % 2 else 200, after=1.5)

    receiver.answer = answer
    subscription = subscribe(receiver)
    emit_orders(40)
    with in_background(deliver):
        receiver.wait_for(4)
        change_status(subscription, Status.UNSUBSCRIBED, reason="client")
    assert len(receiver.posts) == 4
    # Also those that failed, and would have waited for a retry, are over.
    assert states() == {"delivered": 2, "cancelled": 38}
    assert Lane.objects.get().claim_at is None


# What cannot be sent


@pytest.mark.parametrize(
    "poison",
    [
        {"callback_url": "http://["},
        {"callback_url": "not a url"},
        {"callback_url": ""},
        {"callback_url": "http://127.0.0.1:0/"},
        {"callback_url": "ftp://127.0.0.1/"},
        {"callback_url": "http://127.0.0.1:1/\r\nX: y"},
        {"callback_url": "http://169.254.169.254/latest"},
        {"format": "unheard-of"},
        {"retry_schedule": "soon"},
        {"retry_schedule": ["soon"]},
        {"retry_schedule": {"a": 1}},
        {"retry_schedule": 5},
        {"retry_schedule": [None]},
    ],
    ids=str,
)
def test_a_poison_row_fails_on_record_and_everything_else_flows(
    receiver: Receiver, receivers: Callable[..., Receiver], poison: dict[str, Any]
) -> None:
    other = receivers()
    receiver.answer = Answer(status=500)
    bad = subscribe(receiver)
    subscribe(other, "app:b")
    Subscription.objects.filter(pk=bad.pk).update(**poison)
    emit_orders(3)
    emit_orders(10, "app:b")
    deliver()
    assert len(other.ids) == 10
    failed = DeliveryAttempt.objects.filter(subscription=bad)
    assert failed.count() == 3
    assert set(failed.values_list("status_code", flat=True)) <= {None, 500}
    assert not failed.filter(error_code="").exists()
    assert Delivery.objects.filter(subscription=bad).exclude(state="delivered").count() == 3


def test_a_payload_written_past_emit_harms_nobody_else(
    receiver: Receiver, receivers: Callable[..., Receiver]
) -> None:
    other = receivers()
    subscribe(receiver)
    subscribe(other, "app:b")
    [event] = emit_orders(1)
    Event.objects.filter(pk=event.pk).update(data="not json", type="x" * 128)
    emit_orders(5, "app:b")
    deliver()
    assert len(other.posts) == 5


# Several at once


def test_several_workers_share_the_work_without_sending_twice(
    receiver: Receiver, configure: Any
) -> None:
    configure(CONCURRENCY=4)
    for i in range(12):
        subscribe(receiver, f"app:{i}")
    emitted = [event.pk for i in range(12) for event in emit_orders(25, f"app:{i}")]
    receiver.answer = Answer(after=0.02)
    with in_background(run_apart), in_background(run_apart), in_background(run_apart):
        pass
    assert receiver.ids == Counter(emitted)
    assert states() == {"delivered": 300}
    assert not Worker.objects.exists()


def run_apart() -> None:
    """A worker with a transport of its own, as another process has."""
    from webhooks.transports.requests import RequestsTransport

    token = uuid.uuid4()
    worker = Worker.objects.take_slot(token, None)
    assert worker is not None
    own = RequestsTransport(concurrency=4)
    try:
        Duty.objects.ensure()
        Drain("default", own, worker=worker, seconds=None, until_idle=True).run()
    finally:
        own.close()
        worker.delete()


def test_a_backlog_hides_nobody(
    receivers: Callable[..., Receiver], configure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lanes with an old backlog take turns with one that has just got its first event."""
    configure(CONCURRENCY=4)
    monkeypatch.setattr(holdings_module, "TURN_DELIVERIES", 10)
    crowd, fresh = receivers(Answer(after=0.015)), receivers()
    for i in range(24):
        subscribe(crowd, f"app:{i}")
        emit_orders(40, f"app:{i}")
    subscribe(fresh, "app:fresh")
    fan_out_all()
    Lane.objects.update(latency_ms=20)
    with in_background(deliver):
        crowd.wait_for(50)
        emit_orders(1, "app:fresh")
        fresh.wait_for(1, timeout=60)
        before = len(crowd.posts)
    assert before < 0.7 * 24 * 40, f"{before} of {24 * 40} went first"


def test_lanes_of_one_worker_advance_together(
    receivers: Callable[..., Receiver], configure: Any
) -> None:
    configure(CONCURRENCY=4)
    order: list[str] = []

    def answer(post: Received) -> Answer:
        order.append(post.json["data"]["order"])
        return Answer(after=0.005)

    crowd = receivers(answer)
    for i in range(8):
        subscribe(crowd, f"app:{i}")
        emit_orders(40, f"app:{i}", data={"order": i})
    fan_out_all()
    Lane.objects.update(latency_ms=20)
    deliver()
    half = Counter(order[:160])
    assert set(half) == set(range(8))
    assert min(half.values()) >= 10, half  # 20 each, where nobody is preferred


def test_hundreds_of_hanging_lanes_leave_the_others_their_slots(
    receivers: Callable[..., Receiver], configure: Any
) -> None:
    configure(CONCURRENCY=8, TIMEOUT=2)
    hanging, quick = receivers(Answer(after=10)), receivers()
    for i in range(60):
        subscribe(hanging, f"app:{i}")
        emit_orders(3, f"app:{i}")
    fan_out_all()
    subscribe(quick, "app:quick")
    Lane.objects.filter(subscription__requester="app:quick").update(latency_ms=20)
    with in_background(drain):
        hanging.wait_for(4)
        emit_orders(20, "app:quick")
        began = time.time()
        quick.wait_for(20, timeout=15)
        took = max(post.at for post in quick.posts) - began
        Subscription.objects.all()
        suspend_all()
    assert took < 10  # those that hang would take 45 s


def suspend_all() -> None:
    for subscription in Subscription.objects.filter(status=Status.SUBSCRIBED):
        change_status(subscription, Status.SUSPENDED, reason="operator")


# Leases in memory


def make_drain(receiver: Receiver, **options: Any) -> Drain:
    Duty.objects.ensure()
    token = uuid.uuid4()
    worker = Worker.objects.take_slot(token, None)
    assert worker is not None
    return Drain("default", transport(), worker=worker, seconds=None, until_idle=True, **options)


def begin(drain: Drain) -> None:
    """Let it begin what it may, as if it had heard of changes a moment ago, however slow we are."""
    drain.next_control = time.monotonic() + 1
    drain.begin()


def test_nothing_begins_when_the_lease_would_end_before_the_post(
    receiver: Receiver, configure: Any
) -> None:
    configure(TIMEOUT=2)
    subscribe(receiver)
    emit_orders(5)
    drain_ = make_drain(receiver)
    drain_.look()
    drain_.keep()
    [lane] = drain_.holdings.lanes.values()
    drain_.holdings.refill()
    lane.lease_end = time.monotonic() + 6.9  # less than TIMEOUT + 5
    begin(drain_)
    assert drain_.in_flight == 0
    assert lane.leaving
    drain_.finish()
    assert receiver.posts == []
    assert states() == {"pending": 5}
    assert Lane.objects.get().token is None


def test_a_worker_that_slept_through_its_leases_sends_nothing_twice(
    receiver: Receiver, configure: Any
) -> None:
    """A machine was suspended, or the database was away: the lease ran out, and nobody took it."""
    receiver.answer = Answer(after=0.5)
    subscribe(receiver, ordered=True)
    emit_orders(3)
    drain_ = make_drain(receiver)
    drain_.look()
    drain_.keep()
    drain_.holdings.refill()
    begin(drain_)
    receiver.wait_for(1)
    past = db_now("default") - timedelta(seconds=1)
    Lane.objects.update(lease_until=past, claim_at=past)
    drain_.next_look = 0.0
    drain_.run()
    assert receiver.duplicates == 0
    assert drain_.in_flight == 0
    assert states() == {"delivered": 3}


def test_when_changes_cannot_be_heard_nothing_begins(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.db import OperationalError

    subscribe(receiver)
    emit_orders(5)
    drain_ = make_drain(receiver)
    drain_.look()

    def away() -> None:
        raise OperationalError("the database is away")

    drain_.next_control = 0.0
    with monkeypatch.context() as patch:
        patch.setattr(drain_.holdings, "hear", away)
        with pytest.raises(OperationalError):
            drain_.keep()
        drain_.holdings.refill()
        drain_.begin()
    assert drain_.in_flight == 0
    drain_.run()
    assert states() == {"delivered": 5}


@pytest.mark.parametrize("step", ["look", "keep", "refill"])
def test_what_was_answered_is_written_although_a_step_fails_each_time(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    from django.db import OperationalError

    receiver.answer = Answer(after=0.3)
    subscribe(receiver)
    emit_orders(3)
    drain_ = make_drain(receiver)
    drain_.look()
    drain_.holdings.refill()
    begin(drain_)
    assert drain_.in_flight == 3
    kept: list[float] = []
    original = drain_.keep

    def fail() -> None:
        raise OperationalError("it always fails")

    def keep() -> None:
        drain_.next_control = 0.0
        original()
        kept.append(time.monotonic())

    monkeypatch.setattr(drain_module, "RECOVERY", 0.05)
    monkeypatch.setattr(drain_, "keep", keep)
    monkeypatch.setattr(drain_.holdings if step == "refill" else drain_, step, fail)
    end = time.monotonic() + 15
    while states() != {"delivered": 3}:
        assert time.monotonic() < end, "nothing was written"
        drain_.round()
    assert kept or step == "keep"
    monkeypatch.undo()
    drain_.finish()


def test_what_an_earlier_drain_left_in_the_transport_is_no_harm(receiver: Receiver) -> None:
    receiver.answer = Answer(after=0.5)
    subscribe(receiver)
    emit_orders(2)
    abandoned = make_drain(receiver)
    abandoned.look()
    abandoned.keep()
    abandoned.holdings.refill()
    abandoned.begin()
    receiver.wait_for(2)
    # It dies here, by an error that nobody foresaw; its lease runs out.
    past = db_now("default") - timedelta(seconds=1)
    Lane.objects.update(lease_until=past, claim_at=past)
    deliver()
    assert states() == {"delivered": 2}
    assert receiver.duplicates == 2  # the two that were open


@pytest.mark.parametrize(
    ("answer", "heard"),
    [
        (Answer(headers={"Retry-After": "30"}), 0),
        (Answer(status=503, headers={"Retry-After": "30"}), 1),
        (Answer(status=410), 1),
    ],
)
def test_changes_are_heard_of_after_answers_that_concern_the_lane(
    receiver: Receiver, answer: Answer, heard: int
) -> None:
    """Once for those that came together: an endpoint cannot keep its worker at that."""
    receiver.answer = answer
    subscribe(receiver)
    emit_orders(3)
    drain_ = make_drain(receiver)
    drain_.look()
    drain_.holdings.refill()
    begin(drain_)
    assert drain_.in_flight == 3
    hears = 0
    plain = drain_.holdings.hear

    def hear() -> float:
        nonlocal hears
        hears += 1
        return plain()

    drain_.holdings.hear = hear  # type: ignore[method-assign]
    receiver.wait_for(3)
    time.sleep(0.2)  # all answers are here
    drain_.take_in(1.0)
    assert drain_.in_flight == 0
    assert hears == heard
    drain_.run()


@pytest.fixture
def many_held(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Drain:
    """A worker that holds nearly as many lanes as it may, and has one that is eager."""
    monkeypatch.setattr(holdings_module, "HELD", 32)
    for i in range(40):
        subscribe(receiver, f"app:{i}")
        emit_orders(1, f"app:{i}")
    fan_out_all()
    Lane.objects.update(latency_ms=20)
    drain_ = make_drain(receiver)
    held = leases.claim("default", drain_.token, limit=30, now=db_now("default"))
    drain_.holdings.lanes.update((lane.id, lane) for lane in held)
    drain_.holdings.refill()
    assert 0 < drain_.holdings.eager() < drain_.transport.concurrency
    return drain_


def test_a_few_lanes_are_claimed_now_and_then_beside_eager_ones(many_held: Drain) -> None:
    holdings = many_held.holdings
    began = time.monotonic()
    assert holdings.claim(fast_only=False) == (2, True)
    assert holdings._few_at > began
    holdings._few_at += 60  # however slow we are
    holdings.lose([next(iter(holdings.lanes))])
    holdings.freed([next(iter(holdings.lanes.values()))])
    assert holdings.claim(fast_only=False, sure=True) == (0, False)  # nor is it asked at once
    holdings._few_at = 0.0
    assert holdings.claim(fast_only=False, sure=True) == (1, True)


def test_what_runs_dry_is_claimed_before_the_next_look(receiver: Receiver, configure: Any) -> None:
    configure(CONCURRENCY=4)
    for i in range(12):
        subscribe(receiver, f"app:{i}")
        emit_orders(1, f"app:{i}")
    fan_out_all()
    Lane.objects.update(latency_ms=20)
    drain_ = make_drain(receiver)
    drain_.look()
    drain_.holdings.refill()
    assert drain_.holdings.claim(fast_only=False) == (0, False)
    assert drain_.holdings.has_plenty
    assert not drain_.holdings.runs_dry()
    drain_.next_look = time.monotonic() + 60
    drain_.holdings.ready.clear()
    held = len(drain_.holdings.lanes)
    drain_.look()
    assert len(drain_.holdings.lanes) > held
    drain_.finish()


def test_a_lane_that_is_locked_at_the_end_is_asked_for_now_and_then(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscribe(receiver)
    emit_orders(1)
    drain_ = make_drain(receiver)
    drain_.look()
    flushes = 0
    plain = drain_.flusher.flush

    def busy(**named: Any) -> None:
        nonlocal flushes
        flushes += 1
        if flushes > 10:
            plain(**named)

    monkeypatch.setattr(drain_.flusher, "flush", busy)
    began = time.monotonic()
    drain_.finish()
    assert not drain_.holdings.lanes
    assert time.monotonic() - began > 10 * 0.015


def test_open_posts_never_exceed_what_the_settings_allow(
    receiver: Receiver, configure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(CONCURRENCY=4, FLUSH_MAX=6)
    monkeypatch.setattr(flushing, "FLUSH_SECONDS", 30)
    subscribe(receiver)
    Lane.objects.update(latency_ms=20)
    emit_orders(100)
    drain_ = make_drain(receiver)
    most = 0
    original = drain_.flusher.flush

    def watch(**kwargs: Any) -> None:
        nonlocal most
        [*open_] = [len(lane.open) for lane in drain_.holdings.lanes.values()]
        most = max(most, sum(open_))
        original(**kwargs)

    monkeypatch.setattr(drain_.flusher, "flush", watch)
    drain_.run()
    assert 4 <= most <= 4 + 6
    assert states() == {"delivered": 100}


def test_a_rolled_back_event_is_never_sent(receiver: Receiver) -> None:
    subscribe(receiver)
    with transaction.atomic():
        emit_orders(1)
        transaction.set_rollback(True)
    with transaction.atomic():
        kept = emit_orders(1)
        with transaction.atomic():
            emit_orders(1)
            transaction.set_rollback(True)  # the savepoint
    deliver()
    assert receiver.ids == {kept[0].pk: 1}


def test_an_event_that_comes_while_a_drain_lingers_needs_no_wake_up(receiver: Receiver) -> None:
    subscribe(receiver)
    with in_background(drain):
        until(Worker.objects.exists, what="the drain's start")
        time.sleep(0.4)
        [event] = emit_orders(1)
        receiver.wait_for(1)
    assert receiver.posts[0].at - event.created_at.timestamp() < 0.6


def test_the_database_is_asked_little_while_nothing_happens() -> None:
    statements: list[str] = []

    def count(execute: Any, sql: str, *args: Any) -> Any:
        statements.append(sql)
        return execute(sql, *args)

    Duty.objects.ensure()
    with connection.execute_wrapper(count):
        drain()
    assert len(statements) < 80  # a second of lingering, with a look each 150 ms
