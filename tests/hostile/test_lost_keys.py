"""Without the keys, and with spoilt rows: everything waits, and nothing goes out unsigned."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.db import connection

from tests.api.conftest import Speaker, _service, api, speak  # noqa: F401
from tests.world import (
    Receiver,
    deliver,
    emit_orders,
    states,
    subscribe,
)
from webhooks import health, probing
from webhooks.clock import db_now
from webhooks.crypto import KeysUnusable, Sealed, seal
from webhooks.exceptions import SecretUnreadable
from webhooks.formats.signing import generate_secret
from webhooks.models import DeliveryAttempt, Lane, SigningSecret, Subscription

pytestmark = pytest.mark.django_db(transaction=True)

VALUE, PASSWORD = "canary-of-a-header", "canary-of-a-password"


@pytest.fixture
def keys(settings: Any) -> Any:
    good = settings.WEBHOOKS["ENCRYPTION_KEYS"]

    def use(which: str) -> None:
        chosen = {"good": good, "none": [], "wrong": [Fernet.generate_key().decode()]}
        chosen |= {"malformed": ["no key"]}
        settings.WEBHOOKS = {**settings.WEBHOOKS, "ENCRYPTION_KEYS": chosen[which]}

    return use


@pytest.mark.parametrize("which", ["none", "wrong", "malformed"])
def test_without_the_key_everything_waits_and_goes_out_once_it_is_back(
    which: str, keys: Any, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    secret = generate_secret()
    made = subscribe(receiver, secret=secret, headers={"X-Token": VALUE}, basic_auth="u:p")
    emit_orders(3)
    keys(which)
    deliver()
    assert (receiver.posts, states()) == ([], {"pending": 3})
    assert Lane.objects.get().pause_reason == "secret_unreadable"
    assert health.of_subscription(made).reason.code == "secret_unreadable"
    [told] = [each for each in caplog.records if "cannot be signed for" in each.getMessage()]
    assert told.levelno == logging.ERROR
    assert "ENCRYPTION_KEYS" in told.getMessage()
    keys("good")
    Lane.objects.update(paused_until=None, claim_at=db_now("default"))
    deliver()
    assert states() == {"delivered": 3}
    assert all(post.headers["x-token"] == VALUE for post in receiver.posts)
    assert all(post.headers["authorization"] == "Basic dTpw" for post in receiver.posts)


@pytest.mark.parametrize("which", ["none", "wrong", "malformed"])
@pytest.mark.parametrize("kind", ["x-hook-secret", "cloudevents"])
def test_no_handshake_begins_without_the_key(
    which: str, kind: str, keys: Any, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    made = subscribe(receiver, handshake=kind, headers={"X-Token": VALUE})
    keys(which)
    deliver()
    assert receiver.posts == []
    made.refresh_from_db()
    assert made.status == "pending"
    assert any("cannot be signed for" in each.getMessage() for each in caplog.records)


@pytest.mark.parametrize(("which", "status"), [("none", 503), ("malformed", 503), ("wrong", 409)])
def test_a_ping_without_the_key_is_refused_and_not_sent(
    which: str,
    status: int,
    keys: Any,
    api: Speaker,  # noqa: F811
    receiver: Receiver,
) -> None:
    made = api.subscribe(receiver.url)
    keys(which)
    answer = api.post(f"subscriptions/{made['id']}/ping/")
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert receiver.posts == []
    assert not DeliveryAttempt.objects.exists()


@pytest.mark.parametrize("which", ["none", "malformed"])
def test_what_would_store_a_secret_answers_503_without_keys_and_stores_nothing(
    which: str,
    keys: Any,
    api: Speaker,  # noqa: F811
    receiver: Receiver,
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = api.subscribe(receiver.url, headers={"X-Token": VALUE})
    where = f"subscriptions/{made['id']}/"
    before = Subscription.objects.values().get()
    keys(which)
    caplog.clear()
    wanted = {"callback_url": receiver.url, "event_types": ["order.*"]}
    for answer in (
        api.post("subscriptions/", wanted),
        api.post("subscriptions/", {**wanted, "headers": {"X-Token": VALUE}}),
        api.post(f"{where}rotate-secret/"),
        api.patch(where, {"headers": {"X-Token": VALUE}}),
        api.patch(where, {"basic_auth": "u:p"}),
    ):
        assert answer.status_code == 503
        problem = answer.json()
        assert problem["title"] == "Service Unavailable"
        assert "ENCRYPTION" not in str(problem), "the operator's business"
        assert VALUE not in str(problem)
    assert Subscription.objects.values().get() == before
    assert SigningSecret.objects.count() == 1
    told = [each for each in caplog.records if "ENCRYPTION_KEYS" in each.getMessage()]
    assert len(told) == 5
    assert not any(each.exc_info for each in told)
    # What needs no secret goes on.
    assert api.get(where).status_code == api.get("subscriptions/").status_code == 200
    assert api.patch(where, {"description": "new"}).status_code == 200
    assert api.get("event-types/order.paid/samples/").status_code == 200


def test_the_keys_are_missed_as_such_and_as_a_secret_that_cannot_be_read(keys: Any) -> None:
    keys("none")
    with pytest.raises(SecretUnreadable) as caught:
        seal("text")
    assert isinstance(caught.value, KeysUnusable)


@pytest.mark.parametrize(
    ("column", "stored"),
    [
        ("basic_auth", "user:plain-password"),
        ("headers", '{"X-Token": "plain-value"}'),
        ("value", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        ("value", ""),
        ("basic_auth", " "),
    ],
)
def test_what_was_stored_unsealed_is_never_sent_and_nothing_without_it(
    column: str, stored: str, receiver: Receiver
) -> None:
    made = subscribe(receiver, headers={"X-Token": VALUE}, basic_auth=f"user:{PASSWORD}")
    table = "signingsecret" if column == "value" else "subscription"
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE webhooks_{table} SET {column} = %s", [stored])
    emit_orders(1)
    deliver()
    assert (receiver.posts, states()) == ([], {"pending": 1})
    assert Lane.objects.get().pause_reason == "secret_unreadable"
    with pytest.raises(SecretUnreadable):
        probing.ping(made)
    assert receiver.posts == []


@pytest.mark.parametrize(
    ("column", "text"),
    [("basic_auth", "<sealed>"), ("headers", "<sealed>"), ("headers", "['X-Token']")],
)
def test_what_was_sealed_past_the_checks_is_not_sent_either(
    column: str, text: str, receiver: Receiver
) -> None:
    # As loaddata does with what dumpdata has written, or QuerySet.update() with a plain text.
    subscribe(receiver)
    Subscription.objects.update(**{column: text})
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {column} FROM webhooks_subscription")
        assert cursor.fetchone()[0].startswith("gAAAA")
    emit_orders(1)
    deliver()
    assert (receiver.posts, states()) == ([], {"pending": 1})


def test_a_plain_text_that_is_saved_is_sealed_in_the_instance_too(receiver: Receiver) -> None:
    made = subscribe(receiver)
    secret = SigningSecret.objects.create(
        subscription=made, value=generate_secret(), last_four="aaaa"
    )
    bulk = SigningSecret.objects.bulk_create(
        [SigningSecret(subscription=made, value=generate_secret(), last_four="bbbb")]
    )
    for each in (secret, *bulk):
        assert isinstance(each.value, Sealed)
        assert each.value == SigningSecret.objects.get(pk=each.pk).value
