"""What a client never sees: secrets, values of headers, and that others exist."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.api.conftest import READ, Speaker
from tests.api.test_routes import ROUTES, Route
from tests.world import Answer, Receiver, deliver, emit_orders
from webhooks.api.serializers.fields import MASK
from webhooks.models import Delivery, Replay, SigningSecret, Subscription

SECRET = "whsec_" + base64.b64encode(b"very secret signing secret 12345").decode()
HUSH = [SECRET, SECRET.removeprefix("whsec_"), "header-value-hush", "password-hush"]
GETS = [route for route in ROUTES if route.method == "GET"]


@pytest.fixture
def world(api: Speaker, stranger: Speaker, receiver: Receiver) -> dict[str, str]:
    """Two clients with all there is; the ids of ``api``'s, by their prefix."""
    receiver.answer = Answer(status=500, body=b"out of order")
    for speaker, name in ((stranger, "of the other"), (api, "of one's own")):
        made = speaker.subscribe(
            f"{receiver.url}/callback-{name.replace(' ', '-')}",
            description=f"description {name}",
            secret=SECRET,
            headers={"X-Token": "header-value-hush"},
            basic_auth="ann:password-hush",
        )
        emit_orders(2, speaker.requester)
        speaker.post(f"subscriptions/{made['id']}/replay/", {"from": 1_600_000_000})
    deliver()
    own = Subscription.objects.get(requester=api.requester)
    delivery = Delivery.objects.filter(subscription=own)[0]
    return {
        "subscriptions": own.pk,
        "replays": Replay.objects.get(subscription=own).pk,
        "deliveries": delivery.pk,
        "events": delivery.event_id,
        "event-types": "order.paid",
    }


def filled(route: Route, world: dict[str, str]) -> str:
    places = [part for part in route.path.split("/") if part in world]
    return route.filled(*(world[place] for place in places))


def texts(answer: Any) -> str:
    assert answer.status_code == 200, answer.content
    return str(answer.content.decode()) + json.dumps(dict(answer.headers))


@pytest.mark.parametrize("route", GETS, ids=str)
def test_no_read_shows_a_secret_or_a_foreign_row(
    route: Route, world: dict[str, str], api: Speaker, reader: Speaker, stranger: Speaker
) -> None:
    foreign = [
        *Subscription.objects.filter(requester=stranger.requester).values_list("pk", flat=True),
        *Delivery.objects.filter(subscription__requester=stranger.requester).values_list(
            "pk", flat=True
        ),
        *Delivery.objects.filter(subscription__requester=stranger.requester).values_list(
            "event_id", flat=True
        ),
        stranger.requester,
        "of-the-other",
        "of the other",
    ]
    assert len(foreign) == 8
    for speaker in (api, reader):
        shown = texts(speaker.get(filled(route, world)))
        for hushed in (*HUSH, *foreign):
            assert hushed not in shown


@pytest.mark.parametrize("route", GETS, ids=str)
def test_a_token_that_only_reads_sees_what_one_that_writes_sees(
    route: Route, world: dict[str, str], api: Speaker, reader: Speaker
) -> None:
    path = filled(route, world)
    read, write = (speaker.get(path).json() for speaker in (reader, api))
    for shown in (read, write):
        if "oldest_pending_age_s" in shown:
            shown["oldest_pending_age_s"] = "some time passes between two looks"
    assert read == write


def test_masks_stand_in_the_place_of_what_is_secret(world: dict[str, str], reader: Speaker) -> None:
    shown = reader.get(f"subscriptions/{world['subscriptions']}/").json()
    assert shown["secret"] is None
    assert shown["secret_last_four"] == SECRET[-4:]
    assert shown["headers"] == {"X-Token": MASK}
    assert shown["basic_auth"] == MASK


def test_headers_that_nobody_can_open_are_no_error(
    world: dict[str, str], api: Speaker, settings: Any
) -> None:
    settings.WEBHOOKS = {
        **settings.WEBHOOKS,
        "ENCRYPTION_KEYS": ["x1rJ2Hmq5ZgGXh4m4bH0KXJ7bV1m8eSP9yTTIOJ0oVU="],
    }
    path = f"subscriptions/{world['subscriptions']}/"
    assert api.get(path).json()["headers"] == {}
    answer = api.post(f"{path}ping/")
    assert answer.status_code == 409
    assert "Rotate" in answer.json()["detail"]


def test_a_secret_is_shown_in_two_answers_alone(world: dict[str, str], api: Speaker) -> None:
    path = f"subscriptions/{world['subscriptions']}/"
    for answer in (
        api.patch(path, {"description": "x"}),
        api.put(path, {"callback_url": "http://127.0.0.1:9/", "event_types": ["*"]}),
        api.post(f"{path}suspend/"),
        api.post(f"{path}resume/"),
    ):
        assert answer.json()["secret"] is None
        assert SECRET not in answer.content.decode()


def test_errors_do_not_repeat_what_is_secret(api: Speaker) -> None:
    asked = {
        "callback_url": "http://10.0.0.1/?token=query-hush",
        "event_types": ["order.paid"],
        "secret": "whsec_secret-hush",
        "headers": {"Host": "value-hush"},
        "basic_auth": "auth-hush",
    }
    answer = api.post("subscriptions/", asked)
    assert answer.status_code == 400
    assert "hush" not in answer.content.decode()


def test_no_answer_that_is_ones_own_may_be_kept_by_others(
    world: dict[str, str], api: Speaker
) -> None:
    for route in GETS:
        answer = api.get(filled(route, world))
        assert answer["Cache-Control"] in ("private, no-cache", "no-store"), route


def test_one_requesters_applications_are_apart(
    make_user: Any, speak: Callable[..., Speaker], receiver: Receiver
) -> None:
    user = make_user("ann")
    one, other = speak("one", user=user), speak("other", user=user)
    made = one.subscribe(receiver.url)
    emit_orders(1, one.requester)
    deliver()
    delivery = Delivery.objects.get()
    assert other.get("subscriptions/").json()["results"] == []
    assert other.get("deliveries/").json()["results"] == []
    assert other.get(f"deliveries/{delivery.pk}/").status_code == 404
    # The event is addressed to the requester, and so it is both's; what became of it is not.
    [event] = other.get("events/").json()["results"]
    assert other.get(f"events/{event['id']}/").json()["deliveries"] == []
    assert [each["id"] for each in one.get("subscriptions/").json()["results"]] == [made["id"]]


def test_a_reader_can_change_nothing(world: dict[str, str], speak: Callable[..., Speaker]) -> None:
    reader = speak(scope=READ)

    def rows() -> list[Any]:
        return [
            list(model.objects.order_by("pk").values())
            for model in (Subscription, Delivery, SigningSecret, Replay)
        ]

    before = rows()
    for route in ROUTES:
        if route.method != "GET":
            assert reader.send(route.method, filled(route, world), {}).status_code == 403
    assert rows() == before
