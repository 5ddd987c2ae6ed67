"""What costs something has a rate, for each requester."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from tests.api.conftest import Speaker
from tests.api.test_routes import ROUTES, problem
from webhooks.api.throttling import RequesterThrottle
from webhooks.conf import DEFAULTS

NEW = {"callback_url": "http://127.0.0.1:9/in", "event_types": ["order.paid"]}
NAMED = {
    "create": "POST subscriptions/",
    "ping": "POST subscriptions/<str:id>/ping/",
    "rotate": "POST subscriptions/<str:id>/rotate-secret/",
    "replay": "POST subscriptions/<str:id>/replay/",
}


@pytest.fixture
def limit(settings: Any) -> Callable[..., None]:
    def set_rates(**rates: str | None) -> None:
        settings.WEBHOOKS = {**settings.WEBHOOKS, "THROTTLES": rates}

    return set_rates


def test_these_have_a_rate_by_default() -> None:
    throttled = {str(route): route.operation.throttle for route in ROUTES}
    assert {throttled[route] for route in NAMED.values()} == set(NAMED)
    assert set(DEFAULTS["THROTTLES"]) == set(NAMED)
    assert all(DEFAULTS["THROTTLES"].values())
    assert set(throttled.values()) == {"", *NAMED}


@pytest.mark.parametrize("name", NAMED)
def test_beyond_the_rate_it_is_429_and_says_when_to_come_back(
    name: str, api: Speaker, limit: Callable[..., None]
) -> None:
    method, path = NAMED[name].replace("<str:id>", "sub_" + "0" * 32).split()
    limit(**{**dict.fromkeys(NAMED), name: "2/min"})
    for _ in range(2):
        assert api.send(method, path, {}).status_code in (400, 404)
    answer = api.send(method, path, {})
    problem(answer, 429)
    assert 1 <= int(answer["Retry-After"]) <= 60
    # What has another rate, and what has none, is not held up.
    for other in set(NAMED) - {name}:
        method, path = NAMED[other].replace("<str:id>", "sub_" + "0" * 32).split()
        assert api.send(method, path, {}).status_code in (400, 404)
    assert api.get("subscriptions/").status_code == 200


def test_a_rate_counts_for_the_requester_whatever_its_token(
    api: Speaker, speak: Callable[..., Speaker], stranger: Speaker, limit: Callable[..., None]
) -> None:
    limit(create="1/min")
    assert api.post("subscriptions/", NEW).status_code == 201
    problem(speak().post("subscriptions/", NEW), 429)
    assert stranger.post("subscriptions/", NEW).status_code == 201


def test_the_rate_is_free_again_when_its_time_has_passed(
    api: Speaker, limit: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_000_000.0]
    monkeypatch.setattr(RequesterThrottle, "timer", lambda self: now[0])
    limit(create="1/min")
    assert api.post("subscriptions/", NEW).status_code == 201
    now[0] += 20
    assert api.post("subscriptions/", NEW)["Retry-After"] == "40"
    now[0] += 41
    assert api.post("subscriptions/", NEW).status_code == 201


def test_none_is_no_limit_and_what_is_left_out_has_its_default(
    api: Speaker, limit: Callable[..., None]
) -> None:
    limit(ping=None)
    for _ in range(40):
        assert api.post("subscriptions/sub_1/ping/").status_code == 404
    answers = [api.post("subscriptions/sub_1/rotate-secret/").status_code for _ in range(31)]
    assert answers == [404] * 30 + [429]


def test_a_requester_of_any_form_is_a_key_for_every_cache(
    limit: Callable[..., None], api: Speaker, settings: Any
) -> None:
    settings.WEBHOOKS = {**settings.WEBHOOKS, "REQUESTER": "tests.api.test_throttles.odd_requester"}
    limit(create="1/min")
    assert api.post("subscriptions/", NEW).status_code == 201
    problem(api.post("subscriptions/", NEW), 429)


def odd_requester(request: Any) -> str:
    return "a requester with spaces, ü, and of many characters " + "x" * 190


def test_without_its_cache_the_service_serves(
    api: Speaker,
    limit: Callable[..., None],
    broken_cache: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    limit(create="1/min")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert api.post("subscriptions/", NEW).status_code == 201
    assert "nothing is throttled" in caplog.text
