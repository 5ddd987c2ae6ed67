"""A token can do nothing with a subscription that would show it what it may not see."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.utils import timezone

from tests.api.conftest import BILLING, READ, WRITE, Speaker
from webhooks import access, lifecycle
from webhooks.exceptions import IllegalStatusChange
from webhooks.models import Subscription

pytestmark = pytest.mark.django_db

Speak = Callable[..., Speaker]


@pytest.fixture
def biller(speak: Speak) -> Speaker:
    """A token of the same client as ``api``, with one scope more."""
    return speak(scope=f"{READ} {WRITE} {BILLING}")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "", {"callback_url": "http://127.0.0.1:9/elsewhere"}),
        ("PATCH", "", {"description": "mine"}),
        ("PUT", "", {"callback_url": "http://127.0.0.1:9/elsewhere", "event_types": ["order.*"]}),
        ("POST", "rotate-secret/", {}),
        (
            "POST",
            "replay/",
            {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z", "dry_run": True},
        ),
    ],
)
def test_what_a_wider_token_receives_a_narrower_one_cannot_turn_to_itself(
    biller: Speaker, api: Speaker, method: str, path: str, body: Any
) -> None:
    made = biller.subscribe(event_types=["*"])
    where = f"subscriptions/{made['id']}/{path}"
    assert api.send(method, where, body).status_code == 403
    assert biller.send(method, where, body).status_code in (200, 202)


def test_it_cannot_ask_for_what_it_does_not_see_through_an_older_subscription(
    biller: Speaker, api: Speaker
) -> None:
    made = biller.subscribe(event_types=["order.paid"])
    where = f"subscriptions/{made['id']}/"
    assert api.patch(where, {"description": "both see all of it"}).status_code == 200
    assert api.patch(where, {"event_types": ["invoice.sent"]}).status_code == 403
    assert biller.patch(where, {"event_types": ["invoice.sent"]}).status_code == 200


def test_it_may_always_end_what_is_its_own(biller: Speaker, api: Speaker) -> None:
    made = biller.subscribe(event_types=["*"])
    assert api.post(f"subscriptions/{made['id']}/suspend/", {}).status_code == 200
    assert api.delete(f"subscriptions/{made['id']}/").status_code == 204


@pytest.mark.django_db(transaction=True)
def test_a_new_grant_that_is_narrower_is_not_widened_by_a_resume(speak: Speak) -> None:
    ann = get_user_model().objects.create_user("ann")
    wide = speak(user=ann, scope=f"{READ} {WRITE} {BILLING}")
    made = wide.subscribe(event_types=["*"])
    _revoke(wide)
    subscription = Subscription.objects.get()
    assert subscription.status_reason == "entitlement_lost"
    narrow = speak(user=ann, scope=f"{READ} {WRITE}")
    assert narrow.post(f"subscriptions/{made['id']}/resume/", {}).status_code == 200
    subscription.refresh_from_db()
    assert access.granted(subscription) == {READ, WRITE}


@pytest.mark.django_db(transaction=True)
def test_what_a_revoked_grant_covered_a_narrower_token_cannot_turn_to_itself(speak: Speak) -> None:
    ann = get_user_model().objects.create_user("ann")
    wide = speak(user=ann, scope=f"{READ} {WRITE} {BILLING}")
    made = wide.subscribe(event_types=["*"])
    _revoke(wide)
    assert access.granted(Subscription.objects.get()) is None
    narrow = speak(user=ann, scope=f"{READ} {WRITE}")
    assert narrow.post(f"subscriptions/{made['id']}/rotate-secret/", {}).status_code == 403


@pytest.mark.django_db(transaction=True)
def test_a_grant_that_is_revoked_during_the_request_is_noticed(
    speak: Speak, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = get_user_model().objects.create_user("ann")
    api = speak(user=ann)
    monkeypatch.setattr(
        "webhooks.models.subscription.check_url", lambda url, **options: _revoke(api)
    )
    made = api.post(
        "subscriptions/", {"callback_url": "http://127.0.0.1:9/in", "event_types": ["order.*"]}
    )
    assert made.status_code == 201
    assert Subscription.objects.get().status_reason == "entitlement_lost"


def _revoke(speaker: Speaker) -> None:
    from oauth2_provider.models import AccessToken

    for token in AccessToken.objects.filter(token=speaker.token):
        token.revoke()


def test_an_ended_subscription_is_left_as_it_was(api: Speaker) -> None:
    made = api.subscribe()
    where = f"subscriptions/{made['id']}/"
    api.delete(where)
    assert api.patch(where, {"description": "again"}).status_code == 400
    assert api.post(f"{where}rotate-secret/", {}).status_code == 400
    assert api.post(f"{where}ping/", {}).status_code == 400


def test_what_was_good_once_does_not_stand_in_the_way_of_another_change(api: Speaker) -> None:
    made = api.subscribe()
    Subscription.objects.update(event_types=["left.over"], callback_url="https://nowhere.invalid/")
    where = f"subscriptions/{made['id']}/"
    assert api.patch(where, {"description": "new"}).status_code == 200
    assert api.patch(where, {"event_types": ["left.over"]}).status_code == 400


def test_a_time_zone_exists(api: Speaker) -> None:
    made = api.subscribe()
    where = f"subscriptions/{made['id']}/"
    assert api.patch(where, {"time_zone": "Mars/Olympus"}).status_code == 400
    assert api.patch(where, {"time_zone": "Asia/Singapore"}).status_code == 200


def test_suspending_twice_can_change_what_becomes_of_new_events(api: Speaker) -> None:
    where = f"subscriptions/{api.subscribe()['id']}/"
    api.post(f"{where}suspend/", {})
    answer = api.post(f"{where}suspend/", {"on_suspend": "discard"})
    assert answer.json()["on_suspend"] == "discard"


def test_a_backlog_can_be_discarded_by_a_resume_alone(api: Speaker) -> None:
    subscription = Subscription.objects.get(pk=api.subscribe()["id"])
    with pytest.raises(IllegalStatusChange, match="suspended"):
        lifecycle.resume(subscription, backlog="discard")


def test_a_token_that_nobody_stands_behind_is_nobodys(speak: Speak) -> None:
    from oauth2_provider.models import AccessToken

    AccessToken.objects.create(
        token="introspected", scope=READ, expires=timezone.now() + timedelta(hours=1)
    )
    assert Speaker("introspected").get("event-types/").status_code == 401
