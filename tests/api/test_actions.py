"""What is done to a subscription: ping, suspend, resume, rotate, replay; and how it fares."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

import pytest
from django.core.cache import cache
from django.utils import timezone

from tests.api.conftest import Speaker
from tests.world import Answer, Receiver, deliver, emit_orders, states
from webhooks import health, lifecycle
from webhooks.models import DeliveryAttempt, Replay, SigningSecret, Subscription
from webhooks.receiving import verify

SECRET = "whsec_" + base64.b64encode(b"n" * 32).decode()
LONG_AGO = "2020-01-01T00:00:00Z"


@pytest.fixture
def path(api: Speaker, owned: Subscription) -> str:
    return f"subscriptions/{owned.pk}/"


# Ping


def test_a_ping_tells_how_the_endpoint_answered(
    api: Speaker, path: str, receiver: Receiver
) -> None:
    answer = api.post(f"{path}ping/")
    assert answer.status_code == 200
    told = answer.json()
    assert told["delivered"] is True
    assert (told["status_code"], told["error_code"], told["excerpt"]) == (200, "", "ok")
    [post] = receiver.posts
    assert post.id == told["webhook_id"]
    assert post.json["type"] == "webhooks.ping"
    assert DeliveryAttempt.objects.get().pk == told["id"]


def test_a_ping_that_fails_is_an_answer_too(api: Speaker, path: str, receiver: Receiver) -> None:
    receiver.answer = Answer(status=503)
    told = api.post(f"{path}ping/", {}).json()
    assert told["delivered"] is False
    assert (told["status_code"], told["error_code"]) == (503, "server_error")
    assert told["remedy"]


def test_a_ping_of_a_blocked_address_shows_nothing_of_it(
    api: Speaker, path: str, receiver: Receiver, settings: Any
) -> None:
    receiver.answer = Answer(body=b"inner secret")
    settings.WEBHOOKS = {**settings.WEBHOOKS, "ALLOWED_NETWORKS": []}
    answer = api.post(f"{path}ping/")
    assert (answer.status_code, answer.json()["error_code"]) == (200, "blocked_address")
    assert answer.json()["excerpt"] == ""
    assert b"127.0.0.1" not in answer.content
    assert receiver.posts == []


def test_what_an_operator_suspended_is_not_pinged(
    api: Speaker, path: str, receiver: Receiver
) -> None:
    lifecycle.suspend(Subscription.objects.get(), reason="operator")
    answer = api.post(f"{path}ping/")
    assert answer.status_code == 409
    assert "An operator has suspended" in answer.json()["detail"]
    assert receiver.posts == []


def test_what_is_unsubscribed_is_not_pinged(api: Speaker, path: str) -> None:
    api.delete(path)
    assert api.post(f"{path}ping/").status_code == 400


# Suspend and resume


def test_suspend_and_resume_answer_with_the_subscription(api: Speaker, path: str) -> None:
    suspended = api.post(f"{path}suspend/", {"on_suspend": "discard"}).json()
    assert (suspended["status"], suspended["on_suspend"]) == ("suspended", "discard")
    assert suspended["status_reason"] == "client"
    assert api.post(f"{path}suspend/").json()["status"] == "suspended"
    resumed = api.post(f"{path}resume/").json()
    assert resumed["status"] == "subscribed"
    assert Subscription.objects.get().status_actor == api.requester


@pytest.mark.parametrize(("backlog", "posts"), [("deliver", 2), ("discard", 0)])
def test_what_has_waited_is_delivered_or_discarded(
    backlog: str, posts: int, api: Speaker, path: str, receiver: Receiver
) -> None:
    api.post(f"{path}suspend/")
    emit_orders(2, api.requester)
    deliver()
    assert receiver.posts == []
    assert api.post(f"{path}resume/", {"backlog": backlog}).status_code == 200
    deliver()
    assert len(receiver.posts) == posts


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ("suspend", {"on_suspend": "drop"}),
        ("resume", {"backlog": "keep"}),
        ("resume", {"backlog": None}),
        ("rotate-secret", {"overlap_seconds": 604_801}),
        ("rotate-secret", {"overlap_seconds": -1}),
        ("rotate-secret", {"overlap_seconds": "5"}),
        ("rotate-secret", {"secret": "x"}),
        ("ping", {"url": "http://example.com"}),
        ("replay", {}),
        ("replay", {"from": "x"}),
        ("replay", {"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}),
        ("replay", {"from": LONG_AGO, "states": ["pending"]}),
        ("replay", {"from": LONG_AGO, "states": []}),
        ("replay", {"from": LONG_AGO, "types": ["no.such"]}),
        ("replay", {"from": LONG_AGO, "types": ["invoice.sent"]}),
        ("replay", {"from": LONG_AGO, "only_missing": True, "states": ["dead"]}),
        ("replay", {"from": LONG_AGO, "to": "9999-12-31T23:59:59Z"}),
        ("replay", {"from": LONG_AGO, "to": "9999-12-31T23:59:59-14:00"}),
        ("replay", {"from": "0001-01-01T00:00:00+14:00"}),
    ],
)
def test_a_body_that_makes_no_sense_is_refused_by_name(
    action: str, body: dict[str, Any], api: Speaker, path: str
) -> None:
    answer = api.post(f"{path}{action}/", body)
    assert answer.status_code == 400, answer.content
    assert {name.split(".")[0] for name in answer.json()["errors"]} <= {*body, "from", "to"}
    assert not Replay.objects.exists()


# Rotation


def test_both_secrets_sign_after_a_rotation(api: Speaker, receiver: Receiver) -> None:
    made = api.subscribe(receiver.url)
    answer = api.post(f"subscriptions/{made['id']}/rotate-secret/")
    assert answer.status_code == 200
    assert answer["Cache-Control"] == "no-store"
    rotated = answer.json()
    assert rotated["secret"] != made["secret"]
    emit_orders(1, api.requester)
    deliver()
    [post] = receiver.posts
    for secret in (made["secret"], rotated["secret"]):
        assert verify(post.body, post.headers, secret)
    shown = api.get(f"subscriptions/{made['id']}/").json()
    assert (shown["secret"], shown["secret_last_four"]) == (None, rotated["secret"][-4:])


def test_a_client_may_bring_the_new_secret_and_end_the_old_one(api: Speaker, path: str) -> None:
    answer = api.post(f"{path}rotate-secret/", {"secret": SECRET, "overlap_seconds": 0})
    assert answer.json()["secret"] == SECRET
    [live] = SigningSecret.objects.live(timezone.now())
    assert live.value.reveal() == SECRET


# Replay


def test_a_dry_run_counts_and_sends_nothing(api: Speaker, path: str, receiver: Receiver) -> None:
    emit_orders(3, api.requester)
    deliver()
    asked = {"from": LONG_AGO, "states": ["delivered"], "dry_run": True}
    answer = api.post(f"{path}replay/", asked)
    assert (answer.status_code, answer.json()) == (200, {"count": 3})
    assert not Replay.objects.exists()


def test_a_replay_is_made_watched_and_done(api: Speaker, path: str, receiver: Receiver) -> None:
    emit_orders(3, api.requester)
    deliver()
    asked = {"from": LONG_AGO, "states": ["delivered"], "types": ["order.*"]}
    answer = api.post(f"{path}replay/", asked)
    assert answer.status_code == 202
    made = answer.json()
    assert (made["state"], made["total"], made["done"]) == ("running", 3, 0)
    assert (made["types"], made["states"]) == (["order.*"], ["delivered"])
    assert Replay.objects.get().actor == api.requester
    deliver()
    assert sorted(receiver.ids.values()) == [2, 2, 2]
    done = api.get(f"{path}replays/{made['id']}/").json()
    assert (done["state"], done["done"]) == ("finished", 3)
    assert done["finished_at"]
    assert api.get(f"{path}replays/").json()["results"] == [done]


def test_only_what_is_missing_is_replayed(api: Speaker, receiver: Receiver) -> None:
    emit_orders(2, api.requester)
    deliver()  # before there is anybody
    path = f"subscriptions/{api.subscribe(receiver.url)['id']}/"
    emit_orders(1, api.requester)
    deliver()
    asked = {"from": LONG_AGO, "only_missing": True}
    assert api.post(f"{path}replay/", {**asked, "dry_run": True}).json() == {"count": 2}
    assert api.post(f"{path}replay/", asked).json()["states"] == ["missing"]
    deliver()
    assert states() == {"delivered": 3}
    assert receiver.duplicates == 0


def test_a_replay_can_be_stopped(api: Speaker, path: str, receiver: Receiver) -> None:
    emit_orders(2, api.requester)
    deliver()
    made = api.post(f"{path}replay/", {"from": LONG_AGO, "states": ["delivered"]}).json()
    for _ in range(2):
        answer = api.post(f"{path}replays/{made['id']}/cancel/")
        assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    deliver()
    assert len(receiver.posts) == 2


def test_what_is_unsubscribed_is_not_replayed(api: Speaker, path: str) -> None:
    api.delete(path)
    assert api.post(f"{path}replay/", {"from": LONG_AGO}).status_code == 409


def test_replays_come_in_pages(api: Speaker, owned: Subscription, path: str) -> None:
    now = timezone.now()
    made = [
        Replay.objects.create(subscription=owned, from_at=now - timedelta(days=1), to_at=now).pk
        for _ in range(3)
    ][::-1]
    page = api.get(f"{path}replays/?limit=2").json()
    assert [each["id"] for each in page["results"]] == made[:2]
    assert [each["id"] for each in api.get(page["next"]).json()["results"]] == made[2:]


# Health


def test_health_turns_bad_with_a_reason_and_good_again(
    api: Speaker, path: str, owned: Subscription, receiver: Receiver
) -> None:
    assert api.get(f"{path}health/").json()["status"] == "idle"
    emit_orders(1, api.requester)
    deliver()
    told = api.get(f"{path}health/").json()
    assert told["status"] == "healthy"
    assert told == {**health.of_subscription(owned).as_dict()}
    receiver.answer = Answer(status=500)
    emit_orders(1, api.requester)
    deliver()
    told = api.get(f"{path}health/").json()
    assert told["status"] in ("degraded", "failing")
    assert told["reason"]["code"] == "server_error"
    api.delete(path)
    assert api.get(f"{path}health/").json()["status"] == "unsubscribed"


def test_the_services_state_is_told_and_kept_for_a_while(
    api: Speaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = api.get("status/").json()
    assert set(first) == {"status", "updated_at", "delivery_delay_s", "source_ips"}
    assert api.get("status/").json() == first
    cache.clear()
    assert api.get("status/").json()["updated_at"] > first["updated_at"]


def test_the_services_state_is_told_where_a_cache_takes_nothing(
    api: Speaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **options: Any) -> None:
        raise ConnectionError("The cache is a replica.")

    monkeypatch.setattr("django.core.cache.backends.locmem.LocMemCache.set", full)
    first, second = (api.get("status/").json()["updated_at"] for _ in range(2))
    assert first < second


def test_the_services_state_is_told_without_a_cache(api: Speaker, broken_cache: None) -> None:
    assert api.get("status/").status_code == 200
