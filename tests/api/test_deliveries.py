"""Deliveries and attempts: where an event is, what came back, what to do about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.api.conftest import Speaker
from tests.world import Answer, Receiver, deliver, emit_orders, fan_out_all
from webhooks import catalog, emit
from webhooks.engine import outcome
from webhooks.models import Delivery, DeliveryAttempt, Subscription
from webhooks.remedies import REMEDIES, remedy
from webhooks.transports import base

RANDOM = "9" * 32


def ids(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.content
    return [each["id"] for each in answer.json()["results"]]


def of(subscription: str) -> list[str]:
    """The ids of a subscription's deliveries, newest first."""
    rows = Delivery.objects.filter(subscription_id=subscription).order_by("-pk")
    return list(rows.values_list("pk", flat=True))


def test_deliveries_of_all_own_subscriptions_are_merged_newest_first(
    api: Speaker, stranger: Speaker
) -> None:
    own = [api.subscribe()["id"] for _ in range(3)]
    stranger.subscribe()
    emit_orders(4, api.requester)
    emit_orders(4, stranger.requester)
    fan_out_all()
    expected = sorted((pk for each in own for pk in of(each)), reverse=True)
    assert len(expected) == 12
    assert ids(api.get("deliveries/")) == expected
    page = api.get("deliveries/?limit=5").json()
    found = [page]
    while page["next"]:
        page = api.get(page["next"]).json()
        found.append(page)
    assert [each["id"] for page in found for each in page["results"]] == expected
    assert ids(api.get(found[2]["previous"])) == expected[5:10]
    assert ids(api.get(found[1]["previous"])) == expected[:5]


def test_a_client_without_subscriptions_has_no_deliveries(api: Speaker) -> None:
    assert api.get("deliveries/").json() == {"next": None, "previous": None, "results": []}


def test_more_subscriptions_than_can_be_read_one_by_one(
    api: Speaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webhooks.models.due.UNION_TERMS", 2)
    own = [api.subscribe()["id"] for _ in range(5)]
    emit_orders(3, api.requester)
    fan_out_all()
    expected = sorted((pk for each in own for pk in of(each)), reverse=True)
    assert ids(api.get("deliveries/?limit=7")) == expected[:7]


def test_deliveries_are_filtered(api: Speaker, receiver: Receiver) -> None:
    good = api.subscribe(receiver.url)["id"]
    bad = api.subscribe("http://127.0.0.1:9/in")["id"]
    paid = emit("order.paid", {"order": 1}, requester=api.requester, subject="order:1")
    emit("order.shipped", {"order": 2}, requester=api.requester, subject="order:2")
    deliver()
    assert ids(api.get(f"deliveries/?subscription={good}")) == of(good)
    assert ids(api.get("deliveries/?state=delivered")) == of(good)
    assert ids(api.get("deliveries/?status=pending")) == of(bad)
    assert ids(api.get("deliveries/?state=dead")) == []
    paid_ones = {each.pk for each in Delivery.objects.filter(event=paid)}
    assert set(ids(api.get("deliveries/?type=order.paid"))) == paid_ones
    assert set(ids(api.get("deliveries/?subject=order:1"))) == paid_ones
    assert set(ids(api.get(f"deliveries/?event={paid.pk}"))) == paid_ones
    [one] = ids(api.get(f"deliveries/?event={paid.pk}&state=pending&type=order.paid"))
    assert one in of(bad)
    assert len(ids(api.get("deliveries/?after=2020-01-01T00:00:00Z"))) == 4
    assert ids(api.get("deliveries/?before=2020-01-01T00:00:00Z")) == []
    assert ids(api.get("deliveries/?type=no.such")) == []


def test_a_foreign_subscription_is_as_empty_as_a_random_one(
    api: Speaker, stranger: Speaker
) -> None:
    foreign = stranger.subscribe()["id"]
    [event] = emit_orders(1, stranger.requester)
    fan_out_all()
    for query in (f"subscription={foreign}", f"event={event.pk}"):
        name, id = query.split("=")
        random = f"{name}={id[:4]}{RANDOM}"
        answers = {api.get(f"deliveries/?{each}").content for each in (query, random)}
        assert answers == {b'{"next":null,"previous":null,"results":[]}'}


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("subscription=1", "subscription"),
        ("subscription=" + "0" * 32, "subscription"),
        ("event=evt_x", "event"),
        ("state=gone", "state"),
        ("status=gone", "status"),
        ("state=dead&status=pending", "status"),
        ("cursor=x", "cursor"),
        ("after=x", "after"),
        ("order=asc", "order"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused_by_name(
    query: str, named: str, api: Speaker
) -> None:
    answer = api.get(f"deliveries/?{query}")
    assert answer.status_code == 400
    assert list(answer.json()["errors"]) == [named]


def test_a_delivery_tells_how_far_it_is(api: Speaker, receiver: Receiver) -> None:
    made = api.subscribe(receiver.url)["id"]
    receiver.answer = Answer(status=500, body=b"out of order")
    event = emit("order.paid", {"order": 1}, requester=api.requester, subject="order:1")
    deliver()
    [id] = of(made)
    waiting = api.get(f"deliveries/{id}/").json()
    assert (waiting["state"], waiting["attempts"]) == ("pending", 1)
    assert waiting["due_at"] > waiting["first_due_at"]
    assert waiting["subscription"] == made
    assert waiting["webhook_id"] == waiting["event"] == event.pk
    assert (waiting["event_type"], waiting["subject"]) == ("order.paid", "order:1")
    receiver.answer = Answer()
    assert api.post(f"deliveries/{id}/redeliver/").status_code == 202
    deliver()
    done = api.get(f"deliveries/{id}/").json()
    assert (done["state"], done["attempts"], done["due_at"]) == ("delivered", 2, None)
    assert done["settled_at"]
    first, second = api.get(f"deliveries/{id}/attempts/").json()["results"]
    assert (first["number"], first["trigger"], first["status_code"]) == (1, "first", 500)
    assert (first["error_code"], first["excerpt"]) == ("server_error", "out of order")
    assert first["remedy"] == remedy("server_error").fix
    assert (second["number"], second["trigger"]) == (2, "manual")
    assert (second["error_code"], second["remedy"]) == ("", "")


def test_attempts_come_in_pages(api: Speaker) -> None:
    made = api.subscribe()["id"]
    emit_orders(1, api.requester)
    fan_out_all()
    delivery = Delivery.objects.get()
    now = delivery.created_at
    rows = [
        DeliveryAttempt(
            subscription_id=made,
            message_id=delivery.webhook_id,
            number=number,
            due_at=now,
            started_at=now,
        )
        for number in range(1, 6)
    ]
    DeliveryAttempt.objects.bulk_create(rows)
    page = api.get(f"deliveries/{delivery.pk}/attempts/?limit=3").json()
    rest = api.get(page["next"]).json()
    numbers = [each["number"] for each in page["results"] + rest["results"]]
    assert numbers == [1, 2, 3, 4, 5]


def test_the_answer_of_a_blocked_host_is_never_shown(api: Speaker) -> None:
    made = api.subscribe()["id"]
    emit_orders(1, api.requester)
    fan_out_all()
    delivery = Delivery.objects.get()
    DeliveryAttempt.objects.create(
        subscription_id=made,
        message_id=delivery.webhook_id,
        due_at=delivery.due_at,
        started_at=delivery.due_at,
        error_code=base.BLOCKED_ADDRESS,
        error_detail="169.254.169.254",
        excerpt="root:x:0:0",
    )
    answer = api.get(f"deliveries/{delivery.pk}/attempts/")
    assert b"root" not in answer.content
    assert b"169.254" not in answer.content
    assert answer.json()["results"][0]["remedy"] == remedy(base.BLOCKED_ADDRESS).fix


def test_other_subscriptions_attempts_at_the_same_event_are_not_shown(
    api: Speaker, stranger: Speaker, receiver: Receiver
) -> None:
    own = api.subscribe(receiver.url, event_types=["shop.closed"])["id"]
    stranger.subscribe(receiver.url, event_types=["shop.closed"])
    emit("shop.closed", {"day": "Sunday"})
    deliver()
    assert DeliveryAttempt.objects.count() == 2
    [id] = of(own)
    [attempt] = api.get(f"deliveries/{id}/attempts/").json()["results"]
    assert DeliveryAttempt.objects.get(pk=attempt["id"]).subscription_id == own


def test_a_token_without_the_scope_of_a_type_does_not_see_its_deliveries(
    api: Speaker, speak: Callable[..., Speaker]
) -> None:
    rich = speak(scope="webhooks:read webhooks:write billing")
    made = rich.subscribe(event_types=["invoice.sent", "order.paid"])["id"]
    invoice = emit("invoice.sent", {"invoice": 1}, requester=api.requester)
    emit_orders(1, api.requester)
    fan_out_all()
    hidden = Delivery.objects.get(event=invoice).pk
    assert set(ids(rich.get("deliveries/"))) == set(of(made))
    assert set(ids(api.get("deliveries/"))) == set(of(made)) - {hidden}
    assert api.get(f"deliveries/{hidden}/").status_code == 404
    assert api.post(f"deliveries/{hidden}/redeliver/").status_code == 404


def test_deliveries_of_a_type_that_is_no_more_stay_readable_whatever_the_scopes(
    api: Speaker, speak: Callable[..., Speaker]
) -> None:
    catalog.register("ticket.sold", title="Ticket sold")
    made = api.subscribe(event_types=["ticket.sold"])["id"]
    emit("ticket.sold", {"ticket": 1}, requester=api.requester)
    fan_out_all()
    catalog.unregister("ticket.sold")
    [delivery] = of(made)
    for speaker in (api, speak(scope="webhooks:read billing")):
        assert ids(speaker.get("deliveries/")) == [delivery]
        assert speaker.get(f"deliveries/{delivery}/").json()["event_type"] == "ticket.sold"


# What to do about errors


def _codes() -> set[str]:
    codes = set()
    for module in (base, outcome):
        for name, value in vars(module).items():
            if name.isupper() and isinstance(value, str):
                codes.add(value)
    return codes


def test_there_is_a_remedy_for_every_error_code() -> None:
    assert {"timeout", "gone", "internal_error", "redirect"} <= _codes()
    assert set(REMEDIES) == _codes()
    assert all(remedy(code).title and remedy(code).fix.endswith(".") for code in REMEDIES)


def test_a_success_and_an_unknown_code_have_no_remedy() -> None:
    assert remedy("") == remedy("no_such") == type(remedy(""))("", "")


def test_what_is_unsubscribed_is_not_sent_again(api: Speaker) -> None:
    made = api.subscribe()["id"]
    emit_orders(1, api.requester)
    fan_out_all()
    [id] = of(made)
    api.delete(f"subscriptions/{made}/")
    answer = api.post(f"deliveries/{id}/redeliver/")
    assert answer.status_code == 409
    assert "unsubscribed" in answer.json()["detail"]
    assert Subscription.objects.get().status == "unsubscribed"


def test_a_new_id_is_given_where_it_is_asked_for(api: Speaker, receiver: Receiver) -> None:
    made = api.subscribe(receiver.url)["id"]
    emit_orders(1, api.requester)
    deliver()
    [id] = of(made)
    again = api.post(f"deliveries/{id}/redeliver/", {"new_id": True}).json()
    assert again["webhook_id"].startswith("msg_")
    deliver()
    assert [post.id for post in receiver.posts] == [again["event"], again["webhook_id"]]
