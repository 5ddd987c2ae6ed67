"""Batches, digests and other formats are documented as the engine makes them."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl

import jsonschema
import pytest

from tests.documentation.test_openapi import OPENAPI_31, within
from tests.documentation.validation import check
from tests.documentation.wire import SETTINGS
from webhooks import catalog
from webhooks.documentation import parcels
from webhooks.documentation.openapi import document
from webhooks.documentation.schemas import EXAMPLE_TIME, documented_record
from webhooks.engine.parcels import draft, new_message
from webhooks.engine.windows import window_of
from webhooks.models import Subscription
from webhooks.models.delivery import DueDelivery

pytestmark = pytest.mark.urls("tests.documentation.urls")

JSON, FORM = "application/json", "application/x-www-form-urlencoded"
MEDIA_TYPES = {
    "standard": JSON,
    "cloudevents": "application/cloudevents-batch+json",
    "mandrill": FORM,
}
WINDOW = window_of(EXAMPLE_TIME, "daily", "UTC")


@pytest.fixture(autouse=True)
def _known(settings: Any) -> None:
    settings.WEBHOOKS = {**settings.WEBHOOKS, **SETTINGS}


@pytest.fixture
def told(every_type: list[catalog.EventType]) -> dict[str, Any]:
    return document(every_type, "https://api.example.com/webhooks/")


def content(told: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = told["webhooks"][name]["post"]["requestBody"]["content"]
    return found


def examples(told: dict[str, Any], name: str) -> list[tuple[str, str, Any]]:
    """Media type, kind and value of each example."""
    return [
        (media_type, kind, example["value"])
        for media_type, each in content(told, name).items()
        for kind, example in (each.get("examples") or {"": {"value": each["example"]}}).items()
    ]


def check_example(told: dict[str, Any], name: str, media_type: str, value: Any) -> None:
    schema = within(told, content(told, name)[media_type]["schema"])
    check(schema, value)
    if media_type == FORM:
        form = told["components"]["schemas"]["MandrillForm"]["properties"]["mandrill_events"]
        check(within(told, form["contentSchema"]), json.loads(value["mandrill_events"]))


def made_by_the_engine(
    types: list[catalog.EventType], format_: str, payload: str, window: Any, content: str
) -> Any:
    subscription = Subscription(format=format_, payload=payload)
    created_at = EXAMPLE_TIME if window is None else WINDOW.end
    message = new_message(subscription, created_at + timedelta(seconds=2))
    message.pk = parcels.MESSAGE_ID
    deliveries = []
    for place, each in enumerate(types[:2] if content != "empty" else []):
        record = documented_record(each)
        event_id = f"{record.id[:-1]}{place}"
        moments = (EXAMPLE_TIME, EXAMPLE_TIME)
        deliveries.append(
            DueDelivery(
                *(f"dlv_{place:032}", subscription.pk, 0, *moments, "", event_id, each.name),
                *("", "", *moments, record.data),
            )
        )
    page = None
    if window is not None:
        page = (window, 1, 1, dict(Counter(each.event_type for each in deliveries)))
        message.content = "counts" if content == "counts" else "events"
    body = draft(message, deliveries, page).body
    return dict(parse_qsl(body.decode())) if format_ == "mandrill" else json.loads(body)


def test_the_document_is_valid_with_them(told: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(OPENAPI_31).validate(told)
    assert set(content(told, "batch")) == set(content(told, "digest")) == set(MEDIA_TYPES.values())
    assert {kind for _, kind, _ in examples(told, "batch")} == {"full", "thin"}
    assert {kind for _, kind, _ in examples(told, "digest")} == {"full", "thin", "counts", "empty"}


def test_each_example_fits_its_schema(told: dict[str, Any]) -> None:
    shown = 0
    for name in told["webhooks"]:
        for media_type, _kind, value in examples(told, name):
            check_example(told, name, media_type, value)
            shown += 1
    assert shown == 3 * (len(told["webhooks"]) - 2) + 3 * 2 + 3 * 4


@pytest.mark.parametrize("format_", MEDIA_TYPES)
@pytest.mark.parametrize("kind", ["full", "thin", "counts", "empty"])
def test_each_example_is_what_the_engine_makes(
    told: dict[str, Any], every_type: list[catalog.EventType], format_: str, kind: str
) -> None:
    payload = "thin" if kind == "thin" else "full"
    for name, window in (("batch", None), ("digest", WINDOW)):
        shown = {k: v for m, k, v in examples(told, name) if m == MEDIA_TYPES[format_]}
        if kind in shown:
            made = made_by_the_engine(every_type, format_, payload, window, kind)
            assert shown[kind] == made


def test_a_single_event_in_other_formats_is_what_they_make(
    told: dict[str, Any], every_type: list[catalog.EventType]
) -> None:
    for each in every_type:
        data = json.loads(documented_record(each).data)
        shown = content(told, each.name)
        assert shown["application/cloudevents+json"]["example"]["data"] == data
        [item] = json.loads(shown[FORM]["example"]["mandrill_events"])
        assert (item["event"], item["data"]) == (each.name, data)


@pytest.mark.parametrize(
    ("name", "media_type", "spoil"),
    [
        ("digest", JSON, lambda value: value.pop("counts")),
        ("digest", JSON, lambda value: value["window"].update(trigger="realtime")),
        ("batch", JSON, lambda value: value["events"][0].update(data=7)),
        ("batch", MEDIA_TYPES["cloudevents"], lambda value: value[0].update(dataref="https://a")),
        ("batch", FORM, lambda value: value.update(mandrill_events='[{"event":"a.b"}]')),
        ("order.paid", "application/cloudevents+json", lambda value: value.update(type="a.b")),
    ],
)
def test_schemas_refuse_what_is_not_sent(
    told: dict[str, Any], name: str, media_type: str, spoil: Any
) -> None:
    value = next(value for found, _, value in examples(told, name) if found == media_type)
    spoil(value)
    with pytest.raises(jsonschema.ValidationError):
        check_example(told, name, media_type, value)


def test_what_this_service_cannot_send_is_not_shown(
    every_type: list[catalog.EventType], settings: Any
) -> None:
    settings.WEBHOOKS = {**settings.WEBHOOKS, "CLOUDEVENTS_SOURCE": "", "BASE_URL": ""}
    told = document(every_type, "https://api.example.com/webhooks/")
    for name in told["webhooks"]:
        assert set(content(told, name)) == {JSON, FORM}
        assert "thin" not in {kind for _, kind, _ in examples(told, name)}


def test_without_event_types_there_is_nothing_to_show() -> None:
    assert document([], "https://api.example.com/webhooks/")["webhooks"] == {}
