"""The life of a subscription: how it begins, what it may become, and who hears of a change."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import connection, connections, transaction
from django.utils import timezone

from webhooks import lifecycle
from webhooks.clock import db_now
from webhooks.exceptions import HeldByOperator, IllegalStatusChange, InvalidSecret
from webhooks.formats.signing import generate_secret
from webhooks.models import Delivery, Event, Lane, SigningSecret, Subscription
from webhooks.models.subscription import Status
from webhooks.signals import subscription_status_changed

URL = "http://127.0.0.1:9/in"
WHOM = "app:shop"


def subscribe(**asked: Any) -> tuple[Subscription, str]:
    return lifecycle.subscribe(
        **{"requester": WHOM, "callback_url": URL, "event_types": ["order.*"], **asked}
    )


def lane_of(subscription: Subscription) -> Lane:
    return Lane.objects.get(pk=subscription.pk)


def owe(subscription: Subscription, *, in_seconds: float = 0) -> Delivery:
    """A pending delivery, as fan-out makes one: its lane is told under its lock."""
    event = Event.objects.create(type="order.paid", requester=WHOM, data="{}")
    due_at = db_now("default") + timedelta(seconds=in_seconds)
    with transaction.atomic():
        lanes = Lane.objects.lock([subscription.pk])
        delivery = Delivery.objects.create(
            event=event, subscription=subscription, due_at=due_at, first_due_at=due_at
        )
        Lane.objects.expect(lanes, due_at)
    return delivery


def in_status(status: str) -> Subscription:
    subscription, _secret = subscribe(status=Status.PENDING)
    path = {
        Status.PENDING: [],
        Status.SUBSCRIBED: [Status.SUBSCRIBED],
        Status.SUSPENDED: [Status.SUBSCRIBED, Status.SUSPENDED],
        Status.UNSUBSCRIBED: [Status.UNSUBSCRIBED],
    }[Status(status)]
    for step in path:
        assert lifecycle.change_status(subscription, step, reason="test")
    return subscription


@pytest.fixture
def changes() -> Iterator[list[dict[str, Any]]]:
    """What the signal told."""
    heard: list[dict[str, Any]] = []

    def hear(sender: Any, signal: Any, **kwargs: Any) -> None:
        heard.append({**kwargs, "committed": not connection.in_atomic_block})

    subscription_status_changed.connect(hear, weak=False)
    yield heard
    subscription_status_changed.disconnect(hear)


# How it begins


@pytest.mark.django_db
def test_a_subscription_begins_with_its_lane_and_its_secret() -> None:
    subscription, secret = subscribe(description="ours", metadata={"a": 1})
    row = Subscription.objects.get()
    assert (row.pk, row.status, row.description) == (subscription.pk, "subscribed", "ours")
    lane = lane_of(subscription)
    assert (lane.claim_at, lane.held, lane.token, lane.control) == (None, False, None, 0)
    [stored] = row.secrets.all()
    assert stored.value.reveal() == secret
    assert secret.startswith("whsec_")
    assert stored.last_four == secret[-4:]
    assert stored.expires_at is None


@pytest.mark.django_db
def test_a_pending_subscription_begins_on_hold() -> None:
    subscription, _secret = subscribe(status=Status.PENDING)
    assert lane_of(subscription).held


@pytest.mark.django_db
def test_a_client_may_bring_its_secret() -> None:
    mine = generate_secret()
    subscription, secret = subscribe(secret=mine)
    assert secret == mine
    assert subscription.secrets.get().value.reveal() == mine


@pytest.mark.django_db
@pytest.mark.parametrize("secret", ["short", "whsec_", "whsec_c2hvcnQ=", "whsec_!!!!", "x" * 1000])
def test_a_bad_secret_makes_no_subscription(secret: str) -> None:
    with pytest.raises(InvalidSecret):
        subscribe(secret=secret)
    assert not Subscription.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("callback_url", "http://10.0.0.1/in"),
        ("callback_url", "ftp://127.0.0.1/in"),
        ("callback_url", "no url"),
        ("callback_url", ""),
        ("event_types", ["order.pain"]),
        ("event_types", []),
        ("event_types", "order.paid"),
        ("requester", ""),
        ("retry_schedule", [0]),
        ("retry_schedule", ["5"]),
        ("max_in_flight", 0),
        ("contact_email", "nobody"),
        ("status", "sleeping"),
        ("trigger", "weekly"),
        ("batch_size", 1001),
        ("format", "xml"),
        ("format", "cloudevents"),
        ("payload", "thin"),
        ("content", "counts"),
        ("empty_digests", True),
    ],
)
def test_what_cannot_be_acted_upon_makes_no_subscription(field: str, value: Any) -> None:
    with pytest.raises(ValidationError) as raised:
        subscribe(**{field: value})
    assert field in raised.value.message_dict
    assert not Subscription.objects.exists()
    assert not Lane.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_subscription_is_made_whole_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise RuntimeError("no secret")

    monkeypatch.setattr(lifecycle, "add_secret", fail)
    with pytest.raises(RuntimeError):
        subscribe()
    assert (Subscription.objects.count(), Lane.objects.count()) == (0, 0)


# Limits


@pytest.fixture
def three(settings: Any) -> None:
    settings.WEBHOOKS = {**settings.WEBHOOKS, "MAX_SUBSCRIPTIONS": 3}


@pytest.mark.django_db
def test_a_requester_has_only_so_many_subscriptions(three: None) -> None:
    made = [subscribe()[0] for _ in range(3)]
    with pytest.raises(ValidationError, match="3 subscriptions"):
        subscribe()
    assert Subscription.objects.count() == 3
    subscribe(requester="app:other")  # each has its own limit
    lifecycle.change_status(made[0], Status.SUSPENDED, reason="client")
    with pytest.raises(ValidationError):
        subscribe()
    lifecycle.change_status(made[0], Status.UNSUBSCRIBED, reason="client")
    subscribe()
    with pytest.raises(ValidationError):
        subscribe()


@pytest.mark.django_db(transaction=True)
def test_two_that_subscribe_at_once_do_not_exceed_the_limit(three: None) -> None:
    subscribe()
    subscribe()
    began, refused = threading.Event(), []

    def second() -> None:
        try:
            began.wait(20)
            subscribe()
        except ValidationError as error:
            refused.append(error)
        finally:
            connection.close()

    thread = threading.Thread(target=second)
    thread.start()
    with transaction.atomic():
        subscribe()
        began.set()
        time.sleep(0.4)
    thread.join(30)
    assert len(refused) == 1
    assert Subscription.objects.count() == 3


# What it may become

EVERY_MOVE = [(a, b) for a in Status.values for b in Status.values if a != b]
LEGAL = {
    ("pending", "subscribed"),
    ("pending", "unsubscribed"),
    ("subscribed", "suspended"),
    ("subscribed", "unsubscribed"),
    ("suspended", "subscribed"),
    ("suspended", "unsubscribed"),
}


@pytest.mark.django_db
@pytest.mark.parametrize(("before", "after"), [move for move in EVERY_MOVE if move in LEGAL])
def test_a_legal_move_is_made(before: str, after: str) -> None:
    subscription = in_status(before)
    since = subscription.status_since
    assert lifecycle.change_status(subscription, after, reason="operator") is True
    row = Subscription.objects.get()
    assert (row.status, row.status_reason) == (after, "operator")
    assert row.status_since >= since
    assert lane_of(subscription).held is (after == "suspended")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("before", "after"), [move for move in EVERY_MOVE if move not in LEGAL] + [("pending", "gone")]
)
def test_an_illegal_move_is_refused_and_changes_nothing(before: str, after: str) -> None:
    subscription = in_status(before)
    control = lane_of(subscription).control
    with pytest.raises(IllegalStatusChange, match=before):
        lifecycle.change_status(subscription, after, reason="operator")
    row = Subscription.objects.get()
    assert row.status == before
    assert subscription.status == before
    assert lane_of(subscription).control == control


@pytest.mark.django_db
@pytest.mark.parametrize("status", Status.values)
def test_a_move_to_where_it_is_changes_nothing(status: str) -> None:
    subscription = in_status(status)
    control = lane_of(subscription).control
    assert lifecycle.change_status(subscription, status, reason="again") is False
    assert Subscription.objects.get().status_reason != "again"
    assert lane_of(subscription).control == control


@pytest.mark.django_db
def test_a_move_is_judged_by_the_row_and_not_by_what_the_caller_remembers() -> None:
    subscription, _secret = subscribe()
    stale = Subscription.objects.get()
    lifecycle.change_status(subscription, Status.UNSUBSCRIBED, reason="client")
    with pytest.raises(IllegalStatusChange):
        lifecycle.change_status(stale, Status.SUSPENDED, reason="operator")
    assert Subscription.objects.get().status == "unsubscribed"


@pytest.mark.django_db
def test_a_move_writes_the_status_alone() -> None:
    subscription, _secret = subscribe(description="old")
    Subscription.objects.update(description="new")
    lifecycle.change_status(subscription, Status.SUSPENDED, reason="operator")
    assert Subscription.objects.get().description == "new"


# Who hears of it


@pytest.mark.django_db(transaction=True)
def test_a_move_is_told_after_its_commit(changes: list[dict[str, Any]]) -> None:
    subscription, _secret = subscribe()
    with transaction.atomic():
        lifecycle.change_status(subscription, Status.SUSPENDED, reason="operator")
        assert changes == []
    [told] = changes
    assert (told["previous"], told["status"], told["reason"], told["committed"]) == (
        *("subscribed", "suspended", "operator"),
        True,
    )
    assert told["subscription"].pk == subscription.pk


@pytest.mark.django_db(transaction=True)
def test_a_move_that_did_not_happen_is_not_told(changes: list[dict[str, Any]]) -> None:
    subscription, _secret = subscribe()
    with transaction.atomic():
        lifecycle.change_status(subscription, Status.SUSPENDED, reason="operator")
        transaction.set_rollback(True)
    lifecycle.change_status(subscription, Status.SUBSCRIBED, reason="operator")
    assert changes == []


@pytest.mark.django_db(transaction=True)
def test_a_listener_that_fails_undoes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def fail(sender: Any, **kwargs: Any) -> None:
        raise RuntimeError("the host's listener")

    subscription, _secret = subscribe()
    subscription_status_changed.connect(fail, weak=False)
    try:
        assert lifecycle.change_status(subscription, Status.SUSPENDED, reason="operator")
    finally:
        subscription_status_changed.disconnect(fail)
    assert Subscription.objects.get().status == "suspended"
    assert "the host's listener" in caplog.text


@pytest.mark.django_db
@pytest.mark.parametrize(
    "change",
    [
        lambda s: lifecycle.change_status(s, Status.SUSPENDED, reason="operator"),
        lambda s: lifecycle.change_status(s, Status.UNSUBSCRIBED, reason="operator"),
        lambda s: lifecycle.rotate_secret(s),
        lambda s: lifecycle.update(s, callback_url="http://127.0.0.1:9/new"),
    ],
)
def test_whoever_holds_the_lane_can_see_each_change(change: Any) -> None:
    subscription, _secret = subscribe()
    token, until = uuid.uuid4(), timezone.now() + timedelta(minutes=1)
    Lane.objects.update(token=token, lease_until=until, claim_at=until)
    change(subscription)
    lane = lane_of(subscription)
    assert lane.control == 1
    assert (lane.token, lane.lease_until, lane.claim_at) == (token, until, until)  # still held


@pytest.mark.django_db
def test_a_suspended_lane_is_not_claimed_and_a_resumed_one_is() -> None:
    subscription, _secret = subscribe()
    delivery = owe(subscription)
    assert lane_of(subscription).claim_at == delivery.due_at
    lifecycle.change_status(subscription, Status.SUSPENDED, reason="operator")
    assert lane_of(subscription).claim_at is None
    owe(subscription)
    assert lane_of(subscription).claim_at is None
    lifecycle.change_status(subscription, Status.SUBSCRIBED, reason="operator")
    assert lane_of(subscription).claim_at == delivery.due_at


@pytest.mark.django_db
def test_an_unsubscribed_lane_is_claimed_at_once_to_cancel_what_is_pending() -> None:
    subscription, _secret = subscribe()
    owe(subscription, in_seconds=3600)
    lifecycle.change_status(subscription, Status.UNSUBSCRIBED, reason="client")
    claim_at = lane_of(subscription).claim_at
    assert claim_at is not None
    assert claim_at <= db_now("default")


@pytest.mark.django_db
def test_an_unsubscribed_lane_without_deliveries_is_left_alone() -> None:
    subscription, _secret = subscribe()
    lifecycle.change_status(subscription, Status.UNSUBSCRIBED, reason="client")
    assert lane_of(subscription).claim_at is None


# Editing


@pytest.mark.django_db
def test_an_edit_writes_what_was_asked_for_and_nothing_else() -> None:
    subscription, _secret = subscribe(description="old", max_in_flight=3)
    Subscription.objects.update(max_in_flight=7)  # somebody else's edit
    assert lifecycle.update(subscription, description="new", callback_url="http://127.0.0.1:9/b")
    row = Subscription.objects.get()
    assert (row.description, row.callback_url) == ("new", "http://127.0.0.1:9/b")
    assert row.max_in_flight == 7
    assert lane_of(subscription).control == 1


@pytest.mark.django_db
def test_an_edit_that_changes_nothing_tells_nobody() -> None:
    subscription, _secret = subscribe(description="old")
    assert lifecycle.update(subscription, description="old") is False
    assert lifecycle.update(subscription) is False
    assert lane_of(subscription).control == 0


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("callback_url", "http://10.0.0.1/in"),
        ("event_types", ["order.pain"]),
        ("retry_schedule", [-1]),
        ("batch_size", 1001),
        ("content", "counts"),
    ],
)
def test_a_bad_edit_is_refused_and_writes_nothing(field: str, value: Any) -> None:
    subscription, _secret = subscribe()
    with pytest.raises(ValidationError) as raised:
        lifecycle.update(subscription, **{field: value, "description": "new"})
    assert field in raised.value.message_dict
    assert Subscription.objects.get().description == ""
    assert lane_of(subscription).control == 0


@pytest.mark.django_db
@pytest.mark.parametrize("field", [*sorted(lifecycle.FIXED), "nothing"])
def test_some_things_are_not_edited(field: str) -> None:
    subscription, _secret = subscribe()
    with pytest.raises(TypeError, match=field):
        lifecycle.update(subscription, **{field: "x"})


@pytest.mark.django_db
def test_a_subscription_that_was_read_can_be_edited() -> None:
    subscribe()
    assert lifecycle.update(Subscription.objects.get(), event_types=["*"])
    assert Subscription.objects.get().event_types == ["*"]


# Secrets


def live(subscription: Subscription) -> list[str]:
    """The texts of the secrets that sign now, newest first."""
    now = db_now("default") + timedelta(milliseconds=1)
    secrets = SigningSecret.objects.filter(subscription=subscription).live(now)
    return [secret.value.reveal() for secret in secrets]


@pytest.mark.django_db
def test_a_rotated_secret_signs_beside_the_new_one() -> None:
    subscription, old = subscribe()
    new = lifecycle.rotate_secret(subscription)
    assert live(subscription) == [new, old]
    in_a_day = timezone.now() + timedelta(days=1, seconds=5)
    secrets = SigningSecret.objects.filter(subscription=subscription)
    assert [secret.value.reveal() for secret in secrets.live(in_a_day)] == [new]


@pytest.mark.django_db
def test_at_most_three_secrets_are_live() -> None:
    subscription, _first = subscribe()
    texts = [lifecycle.rotate_secret(subscription) for _ in range(5)]
    assert live(subscription) == texts[:1:-1]
    assert len(live(subscription)) == 3


@pytest.mark.django_db
def test_a_rotation_without_overlap_ends_the_old_one() -> None:
    subscription, _old = subscribe()
    new = lifecycle.rotate_secret(subscription, overlap=timedelta(0))
    assert live(subscription) == [new]


@pytest.mark.django_db
def test_a_later_rotation_never_lengthens_an_old_secret() -> None:
    subscription, old = subscribe()
    lifecycle.rotate_secret(subscription, overlap=timedelta(hours=1))
    lifecycle.rotate_secret(subscription, overlap=timedelta(days=7))
    in_two_hours = timezone.now() + timedelta(hours=2)
    secrets = SigningSecret.objects.filter(subscription=subscription).live(in_two_hours)
    assert old not in [secret.value.reveal() for secret in secrets]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("first", "then", "stands"),
    [
        ("client", "operator", "operator"),
        ("failing", "operator", "operator"),
        ("failing", "client", "client"),
        ("operator", "client", "operator"),
        ("client", "failing", "client"),
    ],
)
def test_who_wants_it_suspended_most_is_the_reason(first: str, then: str, stands: str) -> None:
    subscription, _secret = subscribe()
    lifecycle.suspend(subscription, reason=first)
    assert not lifecycle.suspend(subscription, reason=then, actor="user:1")
    stored = Subscription.objects.get()
    assert (stored.status, stored.status_reason) == ("suspended", stands)
    if stands == "operator":
        with pytest.raises(HeldByOperator):
            lifecycle.resume(stored)


@pytest.mark.django_db
@pytest.mark.parametrize("overlap", [timedelta(seconds=-1), timedelta(days=7, seconds=1)])
def test_an_overlap_is_from_nothing_to_a_week(overlap: timedelta) -> None:
    subscription, old = subscribe()
    with pytest.raises(ValueError, match="7 days"):
        lifecycle.rotate_secret(subscription, overlap=overlap)
    assert live(subscription) == [old]


@pytest.mark.django_db
def test_a_bad_secret_rotates_nothing() -> None:
    subscription, old = subscribe()
    with pytest.raises(InvalidSecret):
        lifecycle.rotate_secret(subscription, secret="short")
    assert live(subscription) == [old]
    assert lane_of(subscription).control == 0


@pytest.mark.django_db
def test_a_secret_of_the_clients_own_is_rotated_to() -> None:
    subscription, old = subscribe()
    mine = generate_secret()
    assert lifecycle.rotate_secret(subscription, secret=mine) == mine
    assert live(subscription) == [mine, old]


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_the_first_ones_that_are_made_at_once_stay_within_the_limit(settings: Any) -> None:
    settings.WEBHOOKS = {**settings.WEBHOOKS, "MAX_SUBSCRIPTIONS": 2}
    together = threading.Barrier(6)

    def make() -> bool:
        together.wait(10)
        try:
            lifecycle.subscribe(
                requester="app:new", callback_url="http://127.0.0.1:9/in", event_types=["order.*"]
            )
        except ValidationError:
            return False
        finally:
            connections.close_all()
        return True

    with ThreadPoolExecutor(6) as pool:
        made = [pool.submit(make) for _ in range(6)]
        assert [each.result() for each in made].count(True) == 2
