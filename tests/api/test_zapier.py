"""The requests of a Zapier REST-hook trigger, exactly as its platform makes them.

``performSubscribe`` posts ``bundle.targetUrl``; its answer becomes ``bundle.subscribeData``, whose
``id`` ``performUnsubscribe`` uses; ``performList`` fetches samples for the editor; ``perform`` gets
what arrives. A Zap that was turned off answers 410.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.api.conftest import Speaker
from tests.world import Answer, Receiver, deliver, emit_orders
from webhooks.models import Subscription

AGENT = {"HTTP_USER_AGENT": "Zapier", "HTTP_ACCEPT": "application/json, */*;q=0.8"}


@pytest.fixture
def subscribed(api: Speaker, receiver: Receiver) -> dict[str, Any]:
    """``bundle.subscribeData``."""
    body = json.dumps({"hookUrl": receiver.url, "event": "order.paid"}).encode()
    kind = "application/json; charset=utf-8"
    answer = api.post("subscriptions/", raw=body, content_type=kind, **AGENT)
    assert answer.status_code == 201
    data: dict[str, Any] = answer.json()
    return data


def test_subscribing_gives_a_flat_object_with_the_id(
    subscribed: dict[str, Any], receiver: Receiver
) -> None:
    assert isinstance(subscribed["id"], str)
    assert subscribed["callback_url"] == receiver.url
    assert subscribed["status"] == "subscribed"  # no handshake is asked of it


def test_samples_are_an_array_in_the_shape_of_what_arrives(
    api: Speaker, subscribed: dict[str, Any], receiver: Receiver
) -> None:
    answer = api.get("event-types/order.paid/samples/", **AGENT)
    samples = answer.json()
    assert answer.status_code == 200
    assert isinstance(samples, list)
    assert 1 <= len(samples) <= 3
    emit_orders(1, api.requester)
    deliver()
    [post] = receiver.posts
    for sample in samples:
        assert sample.keys() == post.json.keys()
        assert sample["data"].keys() == post.json["data"].keys()
    # Zapier drops repeats by ``id``.
    assert len({sample["id"] for sample in samples}) == len(samples)
    assert api.get("event-types/order.paid/samples/", **AGENT).json()[0] == post.json


def test_unsubscribing_needs_the_id_alone(
    api: Speaker, subscribed: dict[str, Any], receiver: Receiver
) -> None:
    # It sends the content type of all its requests, and no body.
    for _ in range(2):
        answer = api.send("DELETE", f"subscriptions/{subscribed['id']}/", **AGENT)
        assert answer.status_code == 204
    emit_orders(1, api.requester)
    deliver()
    assert receiver.posts == []


def test_a_body_in_the_unsubscription_is_ignored(api: Speaker, subscribed: dict[str, Any]) -> None:
    body = {"hookUrl": subscribed["callback_url"], "event": "order.paid"}
    answer = api.send("DELETE", f"subscriptions/{subscribed['id']}/", body, **AGENT)
    assert answer.status_code == 204


def test_a_zap_that_is_off_unsubscribes_with_410(
    api: Speaker, subscribed: dict[str, Any], receiver: Receiver
) -> None:
    receiver.answer = Answer(status=410)
    emit_orders(3, api.requester)
    deliver()
    shown = api.get(f"subscriptions/{subscribed['id']}/").json()
    assert (shown["status"], shown["status_reason"]) == ("unsubscribed", "gone")
    assert Subscription.objects.get().status == "unsubscribed"
    asked = api.get("deliveries/?state=cancelled").json()["results"]
    assert len(asked) + len(api.get("deliveries/?state=dead").json()["results"]) == 3
    assert api.delete(f"subscriptions/{subscribed['id']}/").status_code == 204


def test_the_connection_test_reads_something_cheap(api: Speaker) -> None:
    assert api.get("status/", **AGENT).status_code == 200
