"""Formats on the wire: receivers that others wrote take what the engine sends."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from anymail.signals import tracking
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event
from cloudevents.core.formats.json import JSONFormat
from standardwebhooks.webhooks import Webhook

from tests.world import Answer, Receiver, deliver, emit_orders, states, subscribe
from webhooks import lifecycle, probing
from webhooks.formats.signing import generate_secret
from webhooks.formats.standard import StandardFormat
from webhooks.models import Delivery, DeliveryAttempt, Message, Subscription
from webhooks.redelivery import redeliver

pytestmark = pytest.mark.django_db(transaction=True)

SOURCE = "https://shop.example.com/"
BASE = "https://api.example.com"


@pytest.fixture(autouse=True)
def _known(settings: Any) -> None:
    settings.WEBHOOKS = {**settings.WEBHOOKS, "CLOUDEVENTS_SOURCE": SOURCE, "BASE_URL": BASE}


# Mandrill


@pytest.fixture
def tracked(settings: Any) -> Iterator[list[Any]]:
    """What django-anymail's signal tells of."""
    settings.ROOT_URLCONF = "tests.engine.receivers_urls"
    found: list[Any] = []

    def hear(sender: Any, event: Any, esp_name: str, **_: Any) -> None:
        found.append(event)

    tracking.connect(hear)
    yield found
    tracking.disconnect(hear)


@pytest.mark.parametrize("basic_auth", ["", "username:pass:w0rd"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_anymail_s_mandrill_view_takes_our_posts(
    live_server: Any, tracked: list[Any], settings: Any, basic_auth: str, batch_size: int
) -> None:
    secret = generate_secret()
    settings.ANYMAIL = {"MANDRILL_WEBHOOK_KEY": secret}
    if basic_auth:
        settings.ANYMAIL["WEBHOOK_SECRET"] = basic_auth
    subscription, _secret = Subscription.objects.subscribe(
        requester="app:a",
        callback_url=f"{live_server.url}/anymail/mandrill/?tenant=7",
        event_types=["*"],
        format="mandrill",
        batch_size=batch_size,
        secret=secret,
        **({"basic_auth": basic_auth} if basic_auth else {}),
    )
    emitted = [event.pk for event in emit_orders(6)]
    deliver()
    assert states() == {"delivered": 6}
    assert sorted(event.message_id for event in tracked) == sorted(emitted)
    assert {event.esp_event["event"] for event in tracked} == {"order.paid"}
    assert probing.ping(subscription).error_code == ""
    assert DeliveryAttempt.objects.exclude(error_code="").count() == 0


def test_anymail_refuses_what_another_secret_signed(
    live_server: Any, tracked: list[Any], settings: Any
) -> None:
    settings.ANYMAIL = {"MANDRILL_WEBHOOK_KEY": generate_secret()}
    Subscription.objects.subscribe(
        requester="app:a",
        callback_url=f"{live_server.url}/anymail/mandrill/",
        event_types=["*"],
        format="mandrill",
    )
    emit_orders(1)
    deliver()
    assert not tracked
    assert states() == {"pending": 1}


def test_anymail_refuses_what_lacks_its_password(
    live_server: Any, tracked: list[Any], settings: Any
) -> None:
    secret = generate_secret()
    settings.ANYMAIL = {"MANDRILL_WEBHOOK_KEY": secret, "WEBHOOK_SECRET": "username:password"}
    Subscription.objects.subscribe(
        requester="app:a",
        callback_url=f"{live_server.url}/anymail/mandrill/",
        event_types=["*"],
        format="mandrill",
        secret=secret,
    )
    emit_orders(1)
    deliver()
    assert not tracked
    assert states() == {"pending": 1}


# CloudEvents


@pytest.mark.parametrize("basic_auth", ["", "username:pass:w0rd"])
def test_the_cloudevents_sdk_reads_single_posts_and_batches(
    receiver: Receiver, basic_auth: str
) -> None:
    secret = generate_secret()
    options: dict[str, Any] = {"format": "cloudevents", "secret": secret}
    if basic_auth:
        options["basic_auth"] = basic_auth
    subscribe(receiver, **options)
    subscribe(receiver, "app:b", batch_size=3, **options)
    single = [event.pk for event in emit_orders(1)]
    batch = [event.pk for event in emit_orders(3, "app:b")]
    deliver()
    came = {post.headers["content-type"].split(";")[0]: post for post in receiver.posts}
    one = came["application/cloudevents+json"]
    event: Any = from_structured_event(HTTPMessage(headers=one.headers, body=one.body))
    assert (event.get_id(), event.get_source()) == (single[0], SOURCE)
    many = came["application/cloudevents-batch+json"]
    read = [JSONFormat().read(None, json.dumps(each).encode()) for each in json.loads(many.body)]
    assert [each.get_id() for each in read] == batch
    sent = f"Basic {base64.b64encode(basic_auth.encode()).decode()}" if basic_auth else None
    for post in (one, many):
        assert Webhook(secret).verify(post.body, post.headers)
        assert post.headers.get("authorization") == sent


# Thin


@pytest.mark.parametrize("batch_size", [1, 5])
def test_a_thin_payload_carries_the_event_s_url(
    receiver: Receiver, batch_size: int, client: Any, settings: Any
) -> None:
    secret = generate_secret()
    subscribe(receiver, payload="thin", batch_size=batch_size, secret=secret)
    [event] = emit_orders(1)
    deliver()
    [post] = receiver.posts
    body: Any = Webhook(secret).verify(post.body, post.headers)
    shown = body if batch_size == 1 else body["events"][0]
    assert shown["data"] == f"{BASE}/webhooks/events/{event.pk}/"
    assert client.get(shown["data"].removeprefix(BASE)).status_code == 401  # it is there


def test_a_thin_redelivery_under_a_new_id_is_thin(receiver: Receiver) -> None:
    subscribe(receiver, payload="thin")
    emit_orders(1)
    deliver()
    redeliver(Delivery.objects.get(), new_id=True)
    deliver()
    assert len({post.body for post in receiver.posts}) == 1
    assert len(receiver.ids) == 2


# The host's own


class Lines(StandardFormat):
    name = "lines"

    def batch_body(self, batch: Any) -> bytes:
        return b"\n".join(map(self.body, batch.events)) or b"{}"

    def content_type(self, *, batch: bool) -> str:
        return "application/x-ndjson" if batch else "application/json"


def test_a_host_s_own_format_may_be_chosen(receiver: Receiver, settings: Any) -> None:
    settings.WEBHOOKS = {
        **settings.WEBHOOKS,
        "FORMATS": {"lines": "tests.engine.test_formats.Lines"},
    }
    subscription = subscribe(receiver, format="lines", batch_size=3)
    emit_orders(3)
    deliver()
    [post] = receiver.posts
    assert post.headers["content-type"] == "application/x-ndjson"
    assert len(post.body.splitlines()) == 3
    assert Message.objects.get().format == "lines"
    lifecycle.update(subscription, format="standard")


# One id, one body, also for events that travel alone


@pytest.mark.parametrize("change", [{"format": "mandrill"}, {"payload": "thin"}])
def test_a_retry_after_a_change_of_the_shape_comes_under_a_new_id(
    receiver: Receiver, change: dict[str, str]
) -> None:
    receiver.answer = Answer(status=500)
    subscription = subscribe(receiver)
    [event] = emit_orders(1)
    deliver()
    lifecycle.update(subscription, **change)
    receiver.answer = Answer()
    deliver()
    redeliver(Delivery.objects.get())
    deliver()
    assert [post.id for post in receiver.posts[:1]] == [event.pk]
    assert all(len(receiver.bodies_of(webhook_id)) == 1 for webhook_id in receiver.ids)
    assert len({post.body for post in receiver.posts}) == 2
    assert states() == {"delivered": 1}
