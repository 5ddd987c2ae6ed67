"""Notices: owners hear of trouble once, those alone who ask, and nothing stops for it."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import django
import jsonschema
import pytest
from django.core.mail.backends.locmem import EmailBackend
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from tests.engine.test_recorder import BAD, held
from tests.world import (
    Answer,
    Receiver,
    deliver,
    emit_orders,
    end_rests,
    in_background,
    states,
    subscribe,
)
from webhooks import catalog, health, lifecycle, notices, signals
from webhooks.clock import db_now
from webhooks.engine.housekeeping import sweep
from webhooks.models import Delivery, DeliveryAttempt, Event, Lane, Subscription
from webhooks.models.subscription import matches

pytestmark = pytest.mark.django_db(transaction=True)


FAILING = "webhooks.subscription.failing"
RECOVERED = "webhooks.subscription.recovered"
SUSPENDED = "webhooks.subscription.suspended"
DEAD = "webhooks.delivery.dead"

FAILED = Answer(status=500)


def mail_through(settings: Any, backend: str, **options: Any) -> None:
    """Have mails sent through a backend, as this Django wants it to be said."""
    if django.VERSION >= (6, 1):
        settings.MAILERS = {"default": {"BACKEND": backend, "OPTIONS": options}}
        return
    settings.EMAIL_BACKEND = backend
    for name, value in options.items():
        setattr(settings, f"EMAIL_{name.upper()}", value)


@pytest.fixture(autouse=True)
def _outbox(settings: Any) -> None:
    mail_through(settings, "django.core.mail.backends.locmem.EmailBackend")


@pytest.fixture
def failing(receivers: Callable[..., Receiver]) -> Receiver:
    """A receiver that refuses everything."""
    return receivers(FAILED)


@pytest.fixture
def watcher(receivers: Callable[..., Receiver]) -> Receiver:
    """A receiver of ``app:a``'s that asks for operational events alone."""
    made = receivers()
    subscribe(made, event_types=["webhooks.*"])
    return made


def fail(count: int = 5, requester: str = "app:a") -> None:
    emit_orders(count, requester)
    deliver()


def swept() -> list[str]:
    """The operational events there are after two more sweeps, and after they were delivered."""
    sweep("default")
    sweep("default")
    deliver()
    return told()


def told() -> list[str]:
    events = Event.objects.filter(type__startswith="webhooks.").order_by("pk")
    return list(events.values_list("type", flat=True))


@contextmanager
def heard() -> Iterator[list[tuple[str, str, str]]]:
    """What the host's receivers hear: (subscription, previous, state)."""
    found: list[tuple[str, str, str]] = []

    def hear(subscription: Subscription, previous: str, state: str, **kwargs: Any) -> None:
        found.append((subscription.pk, previous, state))

    signals.subscription_health_changed.connect(hear)
    yield found
    signals.subscription_health_changed.disconnect(hear)


# Who is asked


@pytest.mark.parametrize(
    ("patterns", "asks"),
    [
        (["*"], False),
        (["order.*", "*"], False),
        ([None, "*"], False),
        (["webhooks.*"], True),
        (["webhooks.subscription.*"], True),
        (["*", FAILING], True),
        (["webhooks.delivery.*"], False),
        (["webhooks.delivery.dead"], False),
    ],
)
def test_operational_events_must_be_asked_for(patterns: list[Any], asks: bool) -> None:
    assert matches(patterns, FAILING) is asks
    assert matches(["*"], "order.paid")
    assert matches(["*"], "webhooksother.thing")


def test_the_catalogue_lets_subscribers_ask(receiver: Receiver) -> None:
    for pattern in ("webhooks.*", "webhooks.delivery.*", FAILING, RECOVERED, SUSPENDED, DEAD):
        catalog.check_patterns([pattern])
        assert subscribe(receiver, event_types=[pattern]).event_types == [pattern]


@pytest.mark.parametrize("name", [FAILING, RECOVERED, SUSPENDED, DEAD])
def test_every_operational_type_is_documented(name: str) -> None:
    entry = catalog.get(name)
    assert entry.title
    assert entry.description
    assert entry.audience == "requester"
    jsonschema.Draft202012Validator.check_schema(dict(entry.schema or {}))
    jsonschema.validate(entry.example, entry.schema)


# Failing, recovered, suspended


def test_an_owner_is_told_once_that_a_subscription_fails(
    failing: Receiver, watcher: Receiver
) -> None:
    subscription = subscribe(failing)
    with heard() as signalled:
        fail(4)
        assert swept() == []
        fail(1)
        assert swept() == [FAILING]
        fail(3)
        assert swept() == [FAILING]
    assert signalled == [(subscription.pk, "", "failing")]
    [post] = watcher.posts
    lane = Lane.objects.get(pk=subscription.pk)
    assert post.json["type"] == FAILING
    data = post.json["data"]
    jsonschema.validate(data, catalog.get(FAILING).schema)
    assert lane.failing_since is not None
    assert data == {
        "subscription_id": subscription.pk,
        "host": "127.0.0.1",
        "since": lane.failing_since.isoformat().replace("+00:00", "Z"),
        "reason": {
            "code": "server_error",
            "message": health.failing(5, lane.failing_since, "server_error").message,
        },
        "last_success_at": None,
    }
    assert Event.objects.get(type=FAILING).subject == f"subscription:{subscription.pk}"


def test_an_owner_is_told_once_that_it_recovered(failing: Receiver, watcher: Receiver) -> None:
    subscription = subscribe(failing, retry_schedule=[3600])
    fail()
    assert swept() == [FAILING]
    failing.answer = Answer()
    with heard() as signalled:
        fail(1)  # the first probe; it succeeds
        end_rests()
        deliver()
        assert swept() == [FAILING, RECOVERED]
    assert signalled == [(subscription.pk, "failing", "recovered")]
    data = watcher.posts[-1].json["data"]
    jsonschema.validate(data, catalog.get(RECOVERED).schema)
    since = Lane.objects.get(pk=subscription.pk).last_success_at
    assert since is not None
    assert data["since"] == data["last_success_at"] == since.isoformat().replace("+00:00", "Z")
    assert Lane.objects.get(pk=subscription.pk).told == ""
    failing.answer = FAILED
    for _ in range(5):  # at a ramped rate
        fail(1)
        end_rests()
    assert swept() == [FAILING, RECOVERED, FAILING]


def test_a_new_address_is_no_recovery_before_it_has_accepted_something(
    failing: Receiver, watcher: Receiver, receivers: Callable[..., Receiver]
) -> None:
    subscription = subscribe(failing, retry_schedule=[3600])
    fail()
    assert swept() == [FAILING]
    lifecycle.update(subscription, callback_url=receivers().url)
    assert Lane.objects.get(pk=subscription.pk).failures == 0
    assert swept() == [FAILING]
    fail(1)
    assert swept() == [FAILING, RECOVERED]


@pytest.mark.parametrize("reason", ["operator", "entitlement_lost", "failing"])
def test_an_owner_is_told_once_that_a_subscription_was_suspended(
    receiver: Receiver, watcher: Receiver, reason: str
) -> None:
    subscription = subscribe(receiver)
    lifecycle.suspend(subscription, reason=reason)
    with heard() as signalled:
        assert swept() == [SUSPENDED]
    assert signalled == [(subscription.pk, "", "suspended")]
    data = watcher.posts[-1].json["data"]
    jsonschema.validate(data, catalog.get(SUSPENDED).schema)
    assert data["reason"]["code"] == reason
    assert data["since"] == subscription.status_since.isoformat().replace("+00:00", "Z")


def test_who_suspends_a_subscription_need_not_be_told(
    receiver: Receiver, watcher: Receiver
) -> None:
    lifecycle.suspend(subscribe(receiver), reason="client")
    subscribe(receiver, status="suspended")
    with heard() as signalled:
        assert swept() == []
    assert signalled == []


def test_a_resumption_is_not_told_and_the_next_suspension_is(
    receiver: Receiver, watcher: Receiver
) -> None:
    subscription = subscribe(receiver)
    lifecycle.suspend(subscription, reason="operator")
    assert swept() == [SUSPENDED]
    lifecycle.resume(subscription, reason="operator")
    with heard() as signalled:
        assert swept() == [SUSPENDED]
    assert signalled == []
    assert Lane.objects.get(pk=subscription.pk).told == ""
    lifecycle.suspend(subscription, reason="operator")
    assert swept() == [SUSPENDED, SUSPENDED]


def test_a_failing_one_that_is_suspended_is_told_as_that(
    failing: Receiver, watcher: Receiver
) -> None:
    subscription = subscribe(failing, retry_schedule=[3600])
    fail()
    swept()
    lifecycle.suspend(subscription, reason="operator")
    with heard() as signalled:
        assert swept() == [FAILING, SUSPENDED]
    assert signalled == [(subscription.pk, "failing", "suspended")]


@pytest.mark.parametrize("end", ["suspended", "unsubscribed"])
def test_its_owner_may_end_the_trouble(failing: Receiver, watcher: Receiver, end: str) -> None:
    subscription = subscribe(failing, retry_schedule=[3600])
    fail()
    swept()
    lifecycle.change_status(subscription, end, reason="client")
    with heard() as signalled:
        assert swept() == [FAILING]
    assert signalled == []
    assert Lane.objects.get(pk=subscription.pk).told == ""
    if end == "suspended":  # and after that, there is something to tell again
        lifecycle.resume(subscription)
        for _ in range(5):  # at a ramped rate
            fail(1)
            end_rests()
        assert swept() == [FAILING, FAILING]


def test_nothing_is_recorded_when_nobody_asks(failing: Receiver) -> None:
    subscription = subscribe(failing, event_types=["*"], retry_schedule=[])
    subscribe(failing, "app:b", event_types=["webhooks.*"])
    with heard() as signalled:
        fail()
        assert swept() == []
    assert states() == {"dead": 5}
    assert signalled == [(subscription.pk, "", "failing")]  # the host hears of it in any case


def test_only_the_requesters_own_subscriptions_are_told(
    failing: Receiver, watcher: Receiver, receivers: Callable[..., Receiver]
) -> None:
    other = receivers()
    subscribe(other, "app:b", event_types=["*", "webhooks.*"])
    subscribe(failing, retry_schedule=[])
    fail()
    lifecycle.suspend(subscribe(failing), reason="operator")
    assert sorted(swept()) == [DEAD] * 5 + [FAILING, SUSPENDED]
    assert len(watcher.posts) == 7
    assert other.posts == []


def test_only_what_was_asked_for_is_recorded(failing: Receiver, receiver: Receiver) -> None:
    subscribe(receiver, event_types=[SUSPENDED])
    subscription = subscribe(failing, retry_schedule=[])
    fail()
    assert swept() == []
    lifecycle.suspend(subscription, reason="operator")
    assert swept() == [SUSPENDED]


def test_quiet_lanes_cost_one_statement(receiver: Receiver, failing: Receiver) -> None:
    for i in range(20):
        subscribe(receiver, f"app:{i}")
        emit_orders(1, f"app:{i}")
    subscribe(failing)
    fail()
    lifecycle.suspend(subscribe(receiver, "app:b"), reason="operator")
    lifecycle.suspend(subscribe(receiver, "app:c"))
    swept()
    with CaptureQueriesContext(connection) as captured:
        notices.tell_owners("default")
    assert len(captured) == 1


def test_a_page_costs_the_same_for_one_and_for_many(failing: Receiver, watcher: Receiver) -> None:
    def cost(subscriptions: int) -> int:
        for _ in range(subscriptions):
            subscribe(failing, retry_schedule=[3600])
        fail()
        with CaptureQueriesContext(connection) as captured:
            notices.tell_owners("default")
        return len(captured)

    assert cost(1) == cost(15)
    assert told() == [FAILING] * 16


def test_every_page_is_told(
    failing: Receiver, watcher: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "PAGE", 2)
    for _ in range(5):
        subscribe(failing, retry_schedule=[3600])
    fail()
    sweep("default")
    assert told() == [FAILING] * 5


# Dead deliveries


def test_an_owner_is_told_of_each_dead_delivery(failing: Receiver, watcher: Receiver) -> None:
    subscription = subscribe(failing, retry_schedule=[])
    fail(3)
    deliver()
    assert told() == [DEAD] * 3
    by_delivery = {post.json["data"]["delivery_id"]: post.json["data"] for post in watcher.posts}
    dead = Delivery.objects.filter(state="dead")
    assert set(by_delivery) == {delivery.pk for delivery in dead}
    for delivery in dead:
        data = by_delivery[delivery.pk]
        jsonschema.validate(data, catalog.get(DEAD).schema)
        assert delivery.settled_at is not None
        ended_at = data.pop("ended_at")
        assert ended_at.endswith("Z")
        assert data == {
            "delivery_id": delivery.pk,
            "subscription_id": subscription.pk,
            "event_id": delivery.event_id,
            "event_type": "order.paid",
            "state": "dead",
            "attempts": 1,
            "error_code": "server_error",
            "status_code": 500,
        }


def test_an_owner_is_told_of_what_became_too_old(
    failing: Receiver, watcher: Receiver, settings: Any
) -> None:
    settings.WEBHOOKS = {**settings.WEBHOOKS, "MAX_AGE": 1}
    subscribe(failing)
    fail(1)
    deliver()
    assert [post.json["data"]["state"] for post in watcher.posts] == ["expired"]


def test_what_is_still_tried_is_not_dead(failing: Receiver, watcher: Receiver) -> None:
    subscribe(failing)
    fail(3)
    assert told() == []


def flushed(dead: int) -> list[str]:
    """The statements of one flush with so many dead deliveries."""
    holder = held(dead)
    results = holder.post(*[BAD] * dead)
    with CaptureQueriesContext(connection) as captured:
        holder.write(results, release=True)
    deliver()
    return [query["sql"] for query in captured.captured_queries]


def test_a_flush_records_all_its_dead_together(failing: Receiver, watcher: Receiver) -> None:
    subscribe(failing, retry_schedule=[])
    one, many = flushed(1), flushed(60)
    assert len(one) == len(many)
    assert told() == [DEAD] * 61
    assert sum('INSERT INTO "webhooks_event"' in sql.replace("`", '"') for sql in many) == 1


def test_a_flush_asks_once_whether_anybody_wants_to_know(failing: Receiver) -> None:
    subscribe(failing, retry_schedule=[])
    asked = [sql for sql in flushed(60) if "webhooks_subscription" in sql]
    assert len(asked) == 1
    assert told() == []


def test_a_dead_endpoint_that_asks_for_everything_makes_no_loop(failing: Receiver) -> None:
    subscription = subscribe(failing, event_types=["*", "webhooks.*"], retry_schedule=[])
    fail(1)
    for _ in range(4):
        deliver()
    # The order's delivery is dead, and that was told; that telling failed is not told.
    assert told() == [DEAD]
    assert states() == {"dead": 2}
    assert Delivery.objects.filter(subscription=subscription, event__type=DEAD).count() == 1
    for _ in range(3):
        fail(1)
        swept()
    # The fifth failure parked it; what waits since then is not given up.
    assert sorted(told()) == [DEAD] * 3 + [FAILING]
    assert states()["pending"] == 3


@contextmanager
def events_refused() -> Iterator[None]:
    """The database refuses operational events, and nothing else."""
    condition = "NEW.type LIKE 'webhooks.%'"
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute(
                f"CREATE TRIGGER refuse BEFORE INSERT ON webhooks_event WHEN {condition} "
                "BEGIN SELECT RAISE(ABORT, 'refused by the test'); END"
            )
        else:
            cursor.execute(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                f"IF {condition} THEN RAISE EXCEPTION 'refused by the test'; END IF; "
                "RETURN NEW; END $$"
            )
            cursor.execute(
                "CREATE TRIGGER refuse BEFORE INSERT ON webhooks_event "
                "FOR EACH ROW EXECUTE FUNCTION refuse()"
            )
        try:
            yield
        finally:
            cursor.execute(
                "DROP TRIGGER refuse ON webhooks_event"
                if connection.vendor != "sqlite"
                else "DROP TRIGGER refuse"
            )
            if connection.vendor != "sqlite":
                cursor.execute("DROP FUNCTION refuse()")


def test_what_cannot_be_told_stops_no_delivery(
    failing: Receiver, watcher: Receiver, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    if connection.vendor == "mysql":
        pytest.skip("its triggers would need another wording")
    subscribe(failing, retry_schedule=[])
    subscribe(receiver)
    with events_refused():
        fail(3)
        assert states() == {"dead": 3, "delivered": 3}
        assert max(failing.ids.values()) == 1
        assert DeliveryAttempt.objects.count() == 6
    assert told() == []
    assert "could not be recorded" in caplog.text


def test_one_requester_that_cannot_be_told_stops_no_other(
    failing: Receiver, watcher: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    # Written past the API: no event can be addressed to such a requester.
    odd = subscribe(failing, "app:odd", event_types=["*", "webhooks.*"], retry_schedule=[])
    subscribe(failing, event_types=["order.*"], retry_schedule=[])
    Subscription.objects.filter(pk=odd.pk).update(requester="app:\x07")
    lifecycle.suspend(subscribe(failing), reason="operator")
    Subscription.objects.filter(pk=odd.pk).update(status="suspended", status_reason="operator")
    Lane.objects.filter(pk=odd.pk).update(held=True)
    assert swept() == [SUSPENDED]
    assert "cannot be recorded" in caplog.text
    assert Lane.objects.get(pk=odd.pk).told == "suspended"


# Mails


def with_secrets(receiver: Receiver, **options: Any) -> Subscription:
    """A subscription whose URL has a token in its path and its query, and who has an address."""
    subscription, _secret = Subscription.objects.subscribe(
        requester="app:a",
        callback_url=f"{receiver.url}/t0ken-in-path?key=t0ken-in-query",
        event_types=["order.*"],
        **{"contact_email": "owner@example.com", **options},
    )
    return subscription


def test_a_mail_tells_what_is_wrong_and_what_to_do(failing: Receiver, mailoutbox: Any) -> None:
    subscription = with_secrets(failing)
    fail()
    swept()
    swept()
    [sent] = mailoutbox
    lane = Lane.objects.get()
    assert lane.failing_since is not None
    assert sent.to == ["owner@example.com"]
    assert sent.subject == "Webhook deliveries to 127.0.0.1 are failing"
    assert health.failing(5, lane.failing_since, "server_error").message in sent.body
    for words in (
        "Look into the receiving server's log",  # as it is, not as HTML
        f"Failing since: {health.shown(lane.failing_since)}",
        "Last success:  none",
        subscription.pk,
        "What happens next",
        "What to do",
        "30 days",
    ):
        assert words in sent.body
    assert_without_secrets(sent, subscription)


def assert_without_secrets(sent: Any, subscription: Subscription) -> None:
    text = sent.message().as_string()
    assert "t0ken" not in text
    assert "/in" not in text
    assert "whsec" not in text
    assert subscription.secrets.get().value.reveal() not in text


@pytest.mark.parametrize(("on_suspend", "fate"), [("keep", "kept"), ("discard", "discarded")])
def test_a_mail_tells_of_a_suspension(
    receiver: Receiver, mailoutbox: Any, on_suspend: str, fate: str
) -> None:
    subscription = with_secrets(receiver)
    fail(1)
    lifecycle.suspend(subscription, reason="operator", on_suspend=on_suspend)
    swept()
    [sent] = mailoutbox
    lane = Lane.objects.get()
    assert lane.last_success_at is not None
    assert sent.subject == "The webhook subscription at 127.0.0.1 is suspended"
    assert health.suspended(subscription).message in sent.body
    assert f"Suspended since: {health.shown(subscription.status_since)}" in sent.body
    assert f"Last success:    {health.shown(lane.last_success_at)}" in sent.body
    assert f"New events are {fate}" in sent.body
    assert_without_secrets(sent, subscription)


def test_a_recovery_needs_no_mail(failing: Receiver, mailoutbox: Any) -> None:
    with_secrets(failing, retry_schedule=[3600])
    fail()
    swept()
    failing.answer = Answer()
    with heard() as signalled:
        fail(1)
        end_rests()
        deliver()
        swept()
    assert [state for _pk, _previous, state in signalled] == ["recovered"]
    assert len(mailoutbox) == 1


def test_without_an_address_there_is_no_mail(failing: Receiver, mailoutbox: Any) -> None:
    subscribe(failing)
    fail()
    swept()
    assert Lane.objects.get().told == "failing"
    assert mailoutbox == []


def test_the_host_may_tell_owners_itself(failing: Receiver, mailoutbox: Any) -> None:
    subscription = with_secrets(failing, retry_schedule=[3600])
    reasons: list[health.Reason | None] = []

    def write_a_letter(subscription: Subscription, reason: Any, **kwargs: Any) -> bool:
        reasons.append(reason)
        assert not connection.in_atomic_block  # it is told of what has been committed
        return True

    signals.subscription_health_changed.connect(write_a_letter)
    try:
        fail()
        swept()
    finally:
        signals.subscription_health_changed.disconnect(write_a_letter)
    since = Lane.objects.get(pk=subscription.pk).failing_since
    assert reasons == [health.failing(5, since, "server_error")]
    assert mailoutbox == []


def test_a_receiver_that_raises_stops_nothing(
    failing: Receiver, watcher: Receiver, mailoutbox: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with_secrets(failing)

    def stumble(**kwargs: Any) -> None:
        raise RuntimeError("the host's own defect")

    signals.subscription_health_changed.connect(stumble)
    try:
        fail()
        assert swept() == [FAILING]
    finally:
        signals.subscription_health_changed.disconnect(stumble)
    assert len(mailoutbox) == 1


class OneIsRefused(EmailBackend):
    """A mail server that refuses one of the recipients."""

    def send_messages(self, messages: Any) -> int:
        if messages[0].to == ["refused@example.com"]:
            raise OSError("550 no such mailbox")
        return int(super().send_messages(messages))


def test_a_mail_that_fails_stops_neither_the_others_nor_the_sweep(
    failing: Receiver, mailoutbox: Any, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    mail_through(settings, f"{__name__}.OneIsRefused")
    for name in ("first", "refused", "last"):
        with_secrets(failing, contact_email=f"{name}@example.com")
    fail()
    assert sweep("default") is True
    assert [sent.to for sent in mailoutbox] == [["first@example.com"], ["last@example.com"]]
    assert "could not be sent" in caplog.text
    assert set(Lane.objects.values_list("told", flat=True)) == {"failing"}
    swept()
    assert len(mailoutbox) == 2


def test_a_mail_server_that_hangs_does_not_hold_the_sweep(
    failing: Receiver,
    watcher: Receiver,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert notices.MAIL_TIMEOUT <= 10
    assert notices.MAIL_PATIENCE + notices.MAIL_TIMEOUT <= 30
    monkeypatch.setattr(notices, "MAIL_TIMEOUT", 0.2)
    monkeypatch.setattr(notices, "MAIL_PATIENCE", 0.5)
    for _ in range(10):
        with_secrets(failing)
    fail()
    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts, and never says a word
        host, port = server.getsockname()
        mail_through(settings, "django.core.mail.backends.smtp.EmailBackend", host=host, port=port)
        began = time.monotonic()
        assert sweep("default") is True
        assert time.monotonic() - began < 5
    assert told() == [FAILING] * 10
    assert "the mail server is slow" in caplog.text


def test_a_sweep_sends_so_many_mails_and_the_next_one_goes_on(
    failing: Receiver, watcher: Receiver, mailoutbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert notices.MAILS == 100
    monkeypatch.setattr(notices, "MAILS", 2)
    monkeypatch.setattr(notices, "PAGE", 2)
    mailed = [with_secrets(failing).pk for _ in range(5)]
    subscribe(failing)  # needs no mail, and waits for nobody
    fail()
    for mails, events in ((2, 3), (4, 5), (5, 6), (5, 6)):
        sweep("default")
        assert len(mailoutbox) == mails
        assert told() == [FAILING] * events
    assert [pk for sent in mailoutbox for pk in mailed if pk in sent.body] == mailed


def test_a_sweep_survives_what_goes_wrong_here(
    failing: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    subscribe(failing)
    fail()

    def break_down(*args: Any, **options: Any) -> None:
        raise RuntimeError("a defect of ours")

    monkeypatch.setattr(notices, "_tell_page", break_down)
    assert sweep("default") is True
    assert "could not be told" in caplog.text
    assert caplog.records[-1].levelno == logging.ERROR


def test_a_lane_that_somebody_has_locked_is_told_a_minute_later(
    failing: Receiver, watcher: Receiver
) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("there nobody can write meanwhile")
    subscription = subscribe(failing)
    fail()
    with transaction.atomic():
        Lane.objects.lock([subscription.pk])
        began = db_now("default")
        with in_background(notices.tell_owners, "default"):
            pass
        assert (db_now("default") - began).total_seconds() < 3
    assert told() == []
    assert swept() == [FAILING]
