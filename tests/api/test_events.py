"""Event types, samples, and events: what there is, what happened, what was missed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from django.utils import timezone

from tests.api.conftest import Speaker
from tests.world import Receiver, deliver, emit_orders, fan_out_all
from webhooks import catalog, emit
from webhooks.documentation.schemas import documented_message
from webhooks.models import Event, Subscription
from webhooks.samples import samples

# The catalogue


def names(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.content
    return [each["name"] for each in answer.json()["results"]]


def test_the_event_types_are_listed_by_name(api: Speaker) -> None:
    found = names(api.get("event-types/"))
    assert found == sorted(found)
    assert {"order.paid", "shop.closed", "webhooks.delivery.dead"} <= set(found)


def test_types_that_need_another_scope_are_not_there(
    api: Speaker, speak: Callable[..., Speaker], staff: Speaker
) -> None:
    rich = speak(scope="webhooks:read billing")
    assert "invoice.sent" not in names(api.get("event-types/"))
    assert "invoice.sent" in names(rich.get("event-types/"))
    assert "invoice.sent" in names(staff.get("event-types/"))
    assert rich.get("event-types/invoice.sent/").json()["scope"] == "billing"


def test_the_event_types_come_in_pages(api: Speaker) -> None:
    every = names(api.get("event-types/"))
    page = api.get("event-types/?limit=3").json()
    found = [page]
    while page["next"]:
        page = api.get(page["next"]).json()
        found.append(page)
    assert [each["name"] for page in found for each in page["results"]] == every
    assert names(api.get(found[1]["previous"])) == every[:3]


def test_a_type_has_what_a_developer_needs(api: Speaker) -> None:
    assert api.get("event-types/order.paid/").json() == {
        "name": "order.paid",
        "title": "Order paid",
        "description": "",
        "audience": "requester",
        "scope": None,
        "schema": None,
        "example": {"order": 1},
    }
    dead = api.get("event-types/webhooks.delivery.dead/").json()
    assert dead["schema"]["properties"]["attempts"] == {"type": "integer", "minimum": 1}


# Samples


def test_samples_without_events_are_the_example_as_it_would_be_delivered(api: Speaker) -> None:
    found = api.get("event-types/order.paid/samples/").json()
    assert found == [documented_message(catalog.get("order.paid"))]


def test_samples_are_the_newest_own_events_as_they_were_delivered(
    api: Speaker, stranger: Speaker, receiver: Receiver
) -> None:
    api.subscribe(receiver.url)
    emit_orders(5, api.requester)
    emit_orders(5, stranger.requester)
    emit("order.shipped", {"order": 9}, requester=api.requester)
    deliver()
    bodies = {json.loads(post.body)["id"]: json.loads(post.body) for post in receiver.posts}
    newest = Event.objects.filter(type="order.paid", requester=api.requester).order_by("-seq")
    expected = [bodies[event.pk] for event in newest[:3]]
    assert api.get("event-types/order.paid/samples/").json() == expected


def test_samples_are_filled_up_with_the_example(api: Speaker) -> None:
    emit_orders(1, api.requester)
    fan_out_all()
    one, example = api.get("event-types/order.paid/samples/").json()
    assert one["id"] == Event.objects.get().pk
    assert example == documented_message(catalog.get("order.paid"))


def test_samples_of_what_goes_to_everyone_are_everyones(api: Speaker) -> None:
    event = emit("shop.closed", {"day": "Sunday"})
    fan_out_all()
    assert api.get("event-types/shop.closed/samples/").json()[0]["id"] == event.pk


def test_samples_look_at_a_bounded_number_of_events(
    api: Speaker, django_assert_num_queries: Any
) -> None:
    emit("order.shipped", {"order": 1}, requester=api.requester)
    emit_orders(600, api.requester)
    fan_out_all()
    whose: Any = type("Whose", (), {"requester": api.requester})
    with django_assert_num_queries(1):
        assert len(samples(catalog.get("order.shipped"), whose)) == 1


# The feed


def ids(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.content
    return [each["id"] for each in answer.json()["results"]]


def happened(api: Speaker, count: int) -> list[str]:
    """The ids of so many new events, in the order of the feed."""
    made = {event.pk for event in emit_orders(count, api.requester)}
    fan_out_all()
    return list(Event.objects.filter(pk__in=made).order_by("seq").values_list("pk", flat=True))


def test_events_are_listed_newest_first_without_their_data(api: Speaker) -> None:
    made = happened(api, 3)
    assert ids(api.get("events/")) == made[::-1]
    [one] = api.get("events/?limit=1").json()["results"]
    assert set(one) == {"id", "type", "subject", "timestamp", "recorded_at", "seq"}


def test_an_event_is_listed_once_it_is_fanned_out_and_read_at_once(api: Speaker) -> None:
    [event] = emit_orders(1, api.requester)
    assert ids(api.get("events/")) == []
    assert api.get(f"events/{event.pk}/").json()["seq"] is None
    fan_out_all()
    assert ids(api.get("events/")) == [event.pk]


def test_what_was_missed_comes_in_the_order_of_the_feed(api: Speaker) -> None:
    made = happened(api, 5)
    page = api.get(f"events/?since={made[0]}&limit=2").json()
    assert [each["id"] for each in page["results"]] == made[1:3]
    after = api.get(page["next"]).json()
    assert [each["id"] for each in after["results"]] == made[3:]
    assert after["next"] is None
    assert ids(api.get(after["previous"])) == made[1:3]
    assert ids(api.get(f"events/?since={made[-1]}")) == []


def test_a_late_commit_is_not_skipped(api: Speaker) -> None:
    # Its id is older than the last one seen, and it was fanned out after it.
    late = Event(type="order.paid", requester=api.requester, data='{"order":0}')
    [seen] = happened(api, 1)
    late.save()
    fan_out_all()
    assert late.pk < seen
    assert ids(api.get(f"events/?since={seen}")) == [late.pk]


@pytest.mark.parametrize("since", ["evt_" + "9" * 32, "foreign", "waiting"])
def test_the_feed_begins_at_an_event_that_is_in_it(
    since: str, api: Speaker, stranger: Speaker
) -> None:
    if since == "foreign":
        [since] = happened(stranger, 1)
    elif since == "waiting":
        since = emit_orders(1, api.requester)[0].pk
    answer = api.get(f"events/?since={since}")
    assert answer.status_code == 400
    assert answer.json()["errors"] == {"since": ["There is no such event in the feed."]}


def test_the_feed_has_ones_own_and_everyones(
    api: Speaker, stranger: Speaker, speak: Callable[..., Speaker]
) -> None:
    [own] = emit_orders(1, api.requester)
    emit_orders(1, stranger.requester)
    everyones = emit("shop.closed", {"day": "Sunday"})
    invoice = emit("invoice.sent", {"invoice": 1}, requester=api.requester)
    fan_out_all()
    assert set(ids(api.get("events/"))) == {own.pk, everyones.pk}
    assert set(ids(stranger.get("events/"))) & {own.pk, everyones.pk} == {everyones.pk}
    assert api.get(f"events/{invoice.pk}/").status_code == 404
    rich = speak(scope="webhooks:read billing")
    assert set(ids(rich.get("events/"))) == {own.pk, everyones.pk, invoice.pk}


def test_events_of_a_type_that_is_no_more_stay_readable_whatever_the_scopes(
    api: Speaker, stranger: Speaker, speak: Callable[..., Speaker]
) -> None:
    catalog.register("ticket.sold", title="Ticket sold")
    gone = emit("ticket.sold", {"ticket": 1}, requester=api.requester)
    fan_out_all()
    catalog.unregister("ticket.sold")
    for speaker in (api, speak(scope="webhooks:read billing")):
        assert ids(speaker.get("events/")) == [gone.pk]
        assert speaker.get(f"events/{gone.pk}/").json()["data"] == {"ticket": 1}
    assert ids(stranger.get("events/")) == []
    assert stranger.get(f"events/{gone.pk}/").status_code == 404


def test_own_and_everyones_events_are_merged_in_their_order(api: Speaker) -> None:
    for day in range(6):
        emit("shop.closed", {"day": day})
        emit_orders(1, api.requester)
    fan_out_all()
    expected = list(Event.objects.order_by("-seq").values_list("pk", flat=True))
    page = api.get("events/?limit=5").json()
    found = [page]
    while page["next"]:
        page = api.get(page["next"]).json()
        found.append(page)
    assert [each["id"] for page in found for each in page["results"]] == expected
    assert ids(api.get(found[2]["previous"])) == expected[5:10]


def test_events_are_filtered_by_type_subject_and_time(api: Speaker) -> None:
    first = emit("order.paid", {"order": 1}, requester=api.requester, subject="order:1")
    time.sleep(0.002)  # ids know the millisecond
    between = timezone.now().isoformat()
    second = emit("order.shipped", {"order": 1}, requester=api.requester, subject="order:1")
    third = emit("order.paid", {"order": 2}, requester=api.requester, subject="order:2")
    fan_out_all()
    assert ids(api.get("events/?type=order.paid")) == [third.pk, first.pk]
    assert ids(api.get("events/?subject=order:1")) == [second.pk, first.pk]
    assert ids(api.get("events/?subject=order:1&type=order.paid")) == [first.pk]
    assert set(ids(api.get("events/?after=2020-01-01T00:00:00Z"))) == {
        first.pk,
        second.pk,
        third.pk,
    }
    assert ids(api.get("events/?before=2020-01-01T00:00:00Z")) == []
    assert ids(api.get("events/?before=1577836800")) == []
    assert ids(api.get(f"events/?after={between}")) == [third.pk, second.pk]
    assert ids(api.get(f"events/?before={quote(between)}")) == [first.pk]


@pytest.mark.parametrize(
    "query",
    [
        "after=yesterday",
        "after=2026-01-01",
        "after=2026-01-01T00:00:00",
        "after=-1",
        "before=1e999",
        "before=NaN",
        "before=99999999999999999",
        "after=1969-01-01T00:00:00Z",
        "after=9999-12-31T23:59:59-14:00",
        "before=9999-12-31T23:59:59Z",
        "before=0001-01-01T00:00:00%2B14:00",
        "since=1",
        "since=evt_1",
        "since=dlv_" + "0" * 32,
        "cursor=KzE4NDQ2NzQ0MDczNzA5NTUxNjE2",
        "cursor=K2V2dF8x",
        "subject=%00",
        "type=" + "x" * 129,
        "limit=-1",
    ],
)
def test_a_query_that_makes_no_sense_is_refused_by_name(query: str, api: Speaker) -> None:
    answer = api.get(f"events/?{query}")
    assert answer.status_code == 400
    assert list(answer.json()["errors"]) == [query.split("=")[0]]


# One event


def test_an_event_is_read_as_it_was_delivered(api: Speaker, receiver: Receiver) -> None:
    made = api.subscribe(receiver.url)
    text = 'ü \\u2028 "'
    data = {"order": 1, "text": text, "sum": 1e-7, "none": None, "big": 2**60}
    event = emit("order.paid", data, requester=api.requester, subject="order:1")
    deliver()
    read = api.get(f"events/{event.pk}/").json()
    sent = receiver.posts[0].json
    assert {name: read[name] for name in sent} == sent
    assert read["subject"] == "order:1"
    [delivery] = read["deliveries"]
    assert (delivery["subscription"], delivery["state"]) == (made["id"], "delivered")


def test_what_became_of_it_is_told_for_ones_own_subscriptions(
    api: Speaker, stranger: Speaker, receiver: Receiver
) -> None:
    own = api.subscribe(receiver.url, event_types=["shop.closed"])["id"]
    stranger.subscribe(receiver.url, event_types=["shop.closed"])
    event = emit("shop.closed", {"day": "Sunday"})
    fan_out_all()
    assert event.deliveries.count() == Subscription.objects.count() == 2
    [delivery] = api.get(f"events/{event.pk}/").json()["deliveries"]
    assert delivery["subscription"] == own
