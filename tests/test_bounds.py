"""What bounds a subscription at the API bounds it in Python and in the admin as well."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ValidationError

from webhooks import lifecycle
from webhooks.bounds import MAX_INTEGER, MAX_METADATA, MAX_METADATA_DEPTH, metadata_fault
from webhooks.models import Subscription

pytestmark = pytest.mark.django_db

URL = "http://127.0.0.1:9/in"


def nested(levels: int) -> dict[str, Any]:
    data: Any = {}
    for _ in range(levels - 1):
        data = {"a": data}
    return data  # type: ignore[no-any-return]


BEYOND: dict[str, tuple[str, Any]] = {
    "a long description": ("description", "x" * 256),
    "NUL in the description": ("description", "a\0b"),
    "half a character in the description": ("description", "\ud800"),
    "a long URL": ("callback_url", f"{URL}?{'x' * 2048}"),
    "many event types": ("event_types", ["order.paid"] * 101),
    "no event types": ("event_types", []),
    "an event type that is a long text": ("event_types", ["x" * 129]),
    "a long e-mail address": ("contact_email", f"{'x' * 250}@example.com"),
    "what is no e-mail address": ("contact_email", "a\r\nBcc: b@example.com"),
    "31 waits": ("retry_schedule", [1] * 31),
    "a wait of no time": ("retry_schedule", [0]),
    "a wait of more than a day": ("retry_schedule", [86_401]),
    "a wait that is no number": ("retry_schedule", [float("nan")]),
    "a long time zone": ("time_zone", "x" * 65),
    "a rate that no column holds": ("rate_limit", MAX_INTEGER + 1),
    "in-flight that no column holds": ("max_in_flight", MAX_INTEGER + 1),
    "seconds that no column holds": ("batch_seconds", 10**30),
    "long metadata": ("metadata", {"a": "x" * MAX_METADATA}),
    "metadata of many bytes in few characters": ("metadata", {"a": "\U0001f600" * 1100}),
    "metadata that are a list": ("metadata", [1]),
    "metadata with NaN": ("metadata", {"a": float("nan")}),
    "metadata with a large number": ("metadata", {"a": [10**15]}),
    "metadata with NUL": ("metadata", {"a": ["\0"]}),
    "metadata with NUL in a name": ("metadata", {"a\0": 1}),
    "metadata with half a character": ("metadata", {"a": "\ud800"}),
    "metadata with a number as name": ("metadata", {1: 1}),
    "metadata that are deep": ("metadata", nested(MAX_METADATA_DEPTH + 1)),
    "many headers": ("headers", {f"X-{n}": "a" for n in range(21)}),
    "long basic auth": ("basic_auth", "a:" + "b" * 511),
}


def asked(name: str, value: Any) -> dict[str, Any]:
    return {"requester": "app:a", "callback_url": URL, "event_types": ["order.paid"], name: value}


@pytest.mark.parametrize(("name", "value"), BEYOND.values(), ids=BEYOND)
def test_what_is_beyond_a_bound_is_refused_beside_its_field(name: str, value: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        lifecycle.subscribe(**asked(name, value))
    assert name in refused.value.message_dict
    with pytest.raises(ValidationError) as refused:
        Subscription(**asked(name, value)).full_clean()
    assert name in refused.value.message_dict
    assert not Subscription.objects.exists()


@pytest.mark.parametrize(("name", "value"), BEYOND.values(), ids=BEYOND)
def test_neither_can_a_change_go_beyond(name: str, value: Any) -> None:
    subscription, _ = lifecycle.subscribe(**asked("description", "a"))
    before = Subscription.objects.values().get()
    with pytest.raises(ValidationError):
        lifecycle.update(subscription, **{name: value})
    assert Subscription.objects.values().get() == before


def test_a_requester_that_cannot_be_stored_is_refused() -> None:
    for requester in ("app:\0", "app:\udfff", "x" * 256, ""):
        with pytest.raises(ValidationError) as refused:
            lifecycle.subscribe(**asked("requester", requester))
        assert "requester" in refused.value.message_dict


def test_what_is_at_its_bound_is_taken() -> None:
    longest = {"a": "x" * (MAX_METADATA - len('{"a":""}'))}
    values = {
        "description": "x" * 255,
        "event_types": ["order.paid"] * 100,
        "retry_schedule": [86_400] * 30,
        "rate_limit": MAX_INTEGER,
        "max_in_flight": MAX_INTEGER,
        "metadata": longest,
        "headers": {f"X-{n}": "a" for n in range(20)},
        "basic_auth": "a:" + "b" * 510,
        "callback_url": f"{URL}?{'x' * (2047 - len(URL))}",
    }
    made, _ = lifecycle.subscribe(**{**asked("time_zone", "UTC"), **values})
    stored = Subscription.objects.get()
    assert stored.metadata == longest
    assert stored.description == made.description == "x" * 255
    lifecycle.update(made, metadata=nested(MAX_METADATA_DEPTH))
    assert Subscription.objects.get().metadata == nested(MAX_METADATA_DEPTH)


def test_an_escaped_backslash_is_no_nul() -> None:
    assert metadata_fault({"a": "\\u0000"}) == ""
    assert metadata_fault({"a": [None, True, -1.5, ("b",)]}) == ""
