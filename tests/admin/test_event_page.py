"""The page of an event: who got it, who did not and why, what a receiver is sent, and once more."""

from __future__ import annotations

import html as markup
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import quote
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from tests.admin.browsing import EVIL, html_of, url_of
from tests.engine.conftest import _no_lane_is_astray  # noqa: F401
from tests.world import Answer, Receiver, deliver, emit_orders, fan_out_all, states, subscribe
from webhooks import emit, lifecycle, recipients, redelivery
from webhooks.clock import db_now
from webhooks.engine import fanout
from webhooks.engine.parcels import MARKER
from webhooks.models import Delivery, DeliveryAttempt, Event, Subscription
from webhooks.models.delivery import State

pytestmark = pytest.mark.django_db(transaction=True)

Staff = Callable[..., Client]
ACTIONS = {"resend": "Resend to all", "fan_out": "Fan out again"}
HEADERS = {"X-Token": "hush-header-value"}


def address(name: str, event: Event) -> str:
    return reverse(f"admin:webhooks_event_{name}", args=[quote(event.pk)])


def page(client: Client, event: Event, **query: Any) -> str:
    return html_of(client, url_of(Event, "change", event.pk), **query)


def part(html: str, begin: str) -> str:
    """A section of the page, by its id."""
    start = html.index(f'id="{begin}"')
    return html[start : html.index("</section>", start)]


def text(html: str) -> str:
    return " ".join(markup.unescape(re.sub(r"<[^>]*>", " ", html)).split())


def rows(section: str) -> dict[str, str]:
    """The rows of a section's table, by the subscription that each is about."""
    found = re.findall(r"<tr>(.*?)</tr>", section[section.find("<tbody") :], re.DOTALL)
    ids = [re.search(r"sub_[0-9a-f]{32}", row) for row in found]
    return {each[0]: text(row) for each, row in zip(ids, found, strict=True) if each is not None}


def fanned_out(requester: str = "app:a", data: Any = None) -> Event:
    [event] = emit_orders(1, requester, data)
    fan_out_all()
    event.refresh_from_db()
    return event


# Who got it


def test_the_timeline_tells_of_each_subscription_and_its_attempts(
    receiver: Receiver, receivers: Callable[..., Receiver], staff: Staff
) -> None:
    good = subscribe(receiver)
    bad = subscribe(receivers(Answer(status=503)), retry_schedule=[])
    event = fanned_out()
    deliver()
    html = page(staff(), event)
    found = rows(part(html, "timeline"))
    assert list(found) == [good.pk, bad.pk]
    assert re.search(r"● delivered .*1 first try, [\d:]+ UTC : 200 OK in [\d,]+ ms", found[good.pk])
    assert re.search(r"■ dead server_error .*503 Service Unavailable in [\d,]+ ms", found[bad.pk])
    for model in (Delivery, DeliveryAttempt):
        for row in model.objects.all():
            assert url_of(model, "change", row.pk) in html
    head = text(html[html.index("wh-event") : html.index("wh-facts")])
    assert "● delivered 1 · ■ dead 1" in head
    listed = f"{url_of(Delivery)}?q={event.pk}&amp;state__exact=dead"
    assert listed in html
    assert Delivery.objects.get(state="dead").pk in html_of(staff(), markup.unescape(listed))


def test_no_more_are_counted_than_need_be(
    receiver: Receiver, staff: Staff, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        subscribe(receiver)
    event = fanned_out()
    monkeypatch.setattr(recipients, "MOST_COUNTED", 2)
    html = page(staff(), event)
    head = text(html[html.index("wh-event") : html.index("wh-facts")])
    assert "pending 2 (of the first 10,000)" in head


def test_a_new_id_does_not_hide_the_attempts_under_the_old_one(
    receiver: Receiver, staff: Staff
) -> None:
    subscription = subscribe(receiver)
    event = fanned_out()
    deliver()
    redelivery.redeliver(Delivery.objects.get(), new_id=True)
    deliver()
    said = rows(part(page(staff(), event), "timeline"))[subscription.pk]
    assert re.search(r"1 first try, .* 2 by hand, ", said)


def test_of_many_attempts_the_last_ones_are_shown(receiver: Receiver, staff: Staff) -> None:
    subscription = subscribe(receiver)
    event = fanned_out()
    now = timezone.now()
    for number in range(1, 13):
        DeliveryAttempt.objects.create(
            subscription=subscription,
            message_id=event.pk,
            number=number,
            due_at=now,
            started_at=now,
            error_code="timeout",
        )
    said = rows(part(page(staff(), event), "timeline"))[subscription.pk]
    assert re.findall(r"(\d+) first try", said) == ["8", "9", "10", "11", "12"]
    assert "7 earlier" in said


def test_attempts_of_one_subscription_are_not_shown_at_another(
    receiver: Receiver, staff: Staff
) -> None:
    tried, other = subscribe(receiver), subscribe(receiver)
    event = fanned_out()
    now = timezone.now()
    DeliveryAttempt.objects.create(
        subscription=tried, message_id=event.pk, due_at=now, started_at=now, status_code=404
    )
    found = rows(part(page(staff(), event), "timeline"))
    assert "404" in found[tried.pk]
    assert "none yet" in found[other.pk]


def test_attempts_of_others_do_not_push_out_those_of_the_page(
    receiver: Receiver, staff: Staff, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipients, "LISTED", 1)
    monkeypatch.setattr(recipients, "ATTEMPTS_READ", 2)
    first, second = subscribe(receiver), subscribe(receiver)
    event = fanned_out()
    now = timezone.now()
    for subscription in (first, second, second):
        DeliveryAttempt.objects.create(
            subscription=subscription, message_id=event.pk, due_at=now, started_at=now
        )
    assert "1 first try" in rows(part(page(staff(), event), "timeline"))[first.pk]


def test_many_deliveries_come_page_by_page_at_the_same_cost(
    receiver: Receiver, staff: Staff, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipients, "LISTED", 3)
    client = staff()
    subscriptions = [subscribe(receiver).pk for _ in range(2)]
    few_event = fanned_out()
    deliver()
    page(client, few_event)
    with CaptureQueriesContext(connection) as few:
        page(client, few_event)
    subscriptions += [subscribe(receiver).pk for _ in range(5)]
    event = fanned_out()
    deliver()
    with CaptureQueriesContext(connection) as many:
        html = page(client, event)
    assert len(many) == len(few) <= 25
    seen = []
    while True:
        seen.append(list(rows(part(html, "timeline"))))
        further = re.search(r'href="\?([^"]*)#timeline"', html)
        if further is None:
            break
        html = html_of(client, f"{url_of(Event, 'change', event.pk)}?{further[1]}")
    assert seen == [subscriptions[:3], subscriptions[3:6], subscriptions[6:]]


@pytest.mark.parametrize("name", ["after", "missed_after", "ask", "as"])
def test_what_is_no_id_in_the_address_is_passed_over(
    receiver: Receiver, staff: Staff, name: str
) -> None:
    subscribe(receiver)
    html = page(staff(), fanned_out(), **{name: f"sub_{EVIL}"})
    assert EVIL not in html
    assert len(rows(part(html, "timeline"))) == 1


# Who did not, and why


def missing(receiver: Receiver) -> tuple[Event, dict[str, Subscription]]:
    """An event, and a subscription for each reason not to be sent it."""
    found = {
        "other_types": subscribe(receiver, event_types=["shop.closed"]),
        "not_subscribed": subscribe(receiver),
        "paused": subscribe(receiver),
        "changed_since": subscribe(receiver, event_types=["shop.closed"]),
        "sent": subscribe(receiver),
        "other_requester": subscribe(receiver, "app:b"),
    }
    lifecycle.change_status(found["not_subscribed"], "unsubscribed", reason="client")
    lifecycle.suspend(found["paused"], reason="client", on_suspend="discard")
    event = fanned_out()
    lifecycle.update(found["changed_since"], event_types=["order.*"])
    found["subscribed_later"] = subscribe(receiver)
    return event, found


def test_each_reason_is_told(receiver: Receiver, staff: Staff) -> None:
    event, subscriptions = missing(receiver)
    found = rows(part(page(staff(), event), "not-sent"))
    listed = set(subscriptions) - {"sent", "other_requester"}
    assert found.keys() == {subscriptions[code].pk for code in listed}
    for code in listed:
        said = found[subscriptions[code].pk]
        assert str(recipients.REASONS[code]) in said
        gets_it = code in ("changed_since", "subscribed_later")
        assert said.endswith("does not get it") is not gets_it
    redelivery.fan_out_again(event)
    left = rows(part(page(staff(), event), "not-sent"))
    gone = {subscriptions[code].pk for code in ("changed_since", "subscribed_later")}
    assert left.keys() == found.keys() - gone


def test_one_subscription_may_be_asked_about(receiver: Receiver, staff: Staff) -> None:
    event, subscriptions = missing(receiver)
    client = staff()
    for code, subscription in subscriptions.items():
        answer = text(part(page(client, event, ask=f" {subscription.pk} "), "not-sent"))
        said = "It was sent it" if code == "sent" else str(recipients.REASONS[code])
        assert said in answer[answer.index(" Ask ") :]
    for nobody in ("sub_" + "0" * 32, "nonsense"):
        assert "There is no subscription with this id." in page(client, event, ask=nobody)


def test_a_scope_or_an_owner_that_is_gone_is_a_reason(
    receiver: Receiver, staff: Staff, monkeypatch: pytest.MonkeyPatch
) -> None:
    event, client = fanned_out(), staff()
    Event.objects.update(fanned_out_at=db_now("default") + timedelta(hours=1))
    subscription = subscribe(receiver)
    monkeypatch.setattr("webhooks.engine.addressing.sees_type", lambda scopes, name: False)
    said = rows(part(page(client, event), "not-sent"))[subscription.pk]
    assert "Its owner has not the scope" in said
    Subscription.objects.update(grant_revoked_at=db_now("default"))
    said = rows(part(page(client, event), "not-sent"))[subscription.pk]
    assert "Its owner is not entitled to anything" in said


def test_what_is_not_fanned_out_says_so(receiver: Receiver, staff: Staff) -> None:
    subscription = subscribe(receiver)
    [event] = emit_orders(1)
    html = page(staff(), event)
    assert "It is not fanned out yet." in html
    assert "it will get a delivery" in rows(part(html, "not-sent"))[subscription.pk]
    for name in ACTIONS:
        assert address(name, event) not in html


def test_an_empty_digest_is_for_nobody_else(receiver: Receiver, staff: Staff) -> None:
    subscribe(receiver)
    event = fanned_out()
    subscribe(receiver)
    Event.objects.update(type=MARKER)
    assert rows(part(page(staff(), event), "not-sent")) == {}


def test_those_who_did_not_come_page_by_page_at_the_same_cost(
    receiver: Receiver, staff: Staff, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = staff()
    few_event = fanned_out()
    subscriptions = [subscribe(receiver).pk for _ in range(2)]
    page(client, few_event)
    with CaptureQueriesContext(connection) as few:
        page(client, few_event)
    subscriptions += [subscribe(receiver).pk for _ in range(9)]
    monkeypatch.setattr(recipients, "LISTED", 3)
    monkeypatch.setattr(recipients, "LOOKED_AT", 5)
    with CaptureQueriesContext(connection) as many:
        html = page(client, few_event)
    assert len(many) == len(few)
    seen: list[str] = []
    for _ in range(8):
        seen += rows(part(html, "not-sent"))
        further = re.search(r'href="\?([^"]*)#not-sent"', html)
        if further is None:
            break
        html = html_of(client, f"{url_of(Event, 'change', few_event.pk)}?{further[1]}")
    assert seen == subscriptions[::-1]


def test_with_the_last_of_those_looked_at_the_list_ends(
    receiver: Receiver, staff: Staff, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipients, "LOOKED_AT", 2)
    event = fanned_out()
    client = staff()
    first = subscribe(receiver)
    subscribe(receiver)
    assert "Look further" not in page(client, event)
    subscribe(receiver)
    html = page(client, event)
    assert first.pk not in rows(part(html, "not-sent"))
    further = re.search(r'href="\?([^"]*)#not-sent"', html)
    assert further is not None
    html = html_of(client, f"{url_of(Event, 'change', event.pk)}?{further[1]}")
    assert list(rows(part(html, "not-sent"))) == [first.pk]


# What the receiver gets


@pytest.mark.parametrize("options", [{}, {"format": "mandrill"}])
def test_it_is_what_comes(receiver: Receiver, staff: Staff, options: Any) -> None:
    subscription = subscribe(receiver, headers=HEADERS, **options)
    event = emit("order.paid", {"note": "it's <b>“bold”</b>"}, requester="app:a")
    fan_out_all()
    section = markup.unescape(part(page(staff(), event, **{"as": subscription.pk}), "receiver"))
    deliver()
    [post] = receiver.posts
    assert post.body.decode() in section
    assert f"webhook-id: {post.id}" in section
    assert f"POST {receiver.url}" in section
    assert "X-Token: ********" in section
    assert "hush" not in section


def test_before_there_is_a_delivery_it_is_what_would_come(receiver: Receiver, staff: Staff) -> None:
    event = fanned_out(data={"note": "later"})
    subscription = subscribe(receiver, format="mandrill", headers=HEADERS)
    section = markup.unescape(part(page(staff(), event, **{"as": subscription.pk}), "receiver"))
    redelivery.fan_out_again(event)
    deliver()
    assert receiver.posts[0].body.decode() in section
    assert "X-Token: ********" in section


@pytest.mark.parametrize("is_later", [False, True])
def test_of_a_batch_it_is_one_of_this_event_alone(
    receiver: Receiver, staff: Staff, is_later: bool
) -> None:
    event = fanned_out() if is_later else None
    subscription = subscribe(receiver, batch_size=5)
    event = event or fanned_out()
    section = part(page(staff(), event, **{"as": subscription.pk}), "receiver")
    section = markup.unescape(section)
    assert "Shown is a batch of this event alone" in section
    assert '"type":"batch"' in section
    assert event.pk in section


@pytest.mark.parametrize(
    ("name", "sign"), [("standard", '{"id":"evt_'), ("mandrill", "mandrill_events=")]
)
def test_it_is_shown_in_any_format(staff: Staff, name: str, sign: str) -> None:
    section = markup.unescape(part(page(staff(), fanned_out(), **{"as": name}), "receiver"))
    assert sign in section
    assert f'<option value="{name}" selected>' in section
    assert "-signature: ********" in section.lower()


def test_without_the_permission_nothing_of_the_payload_is_shown(
    receiver: Receiver, staff: Staff
) -> None:
    receiver.answer = Answer(status=500, body=b"the-answer")
    subscription = subscribe(receiver, headers=HEADERS)
    event = emit("order.paid", {"card": "the-payload"}, requester="app:a")
    deliver()
    client = staff("view_event", "replay_delivery")
    for query in ({}, {"as": subscription.pk}, {"as": "standard"}):
        with CaptureQueriesContext(connection) as captured:
            html = page(client, event, **query)
        for hush in ("the-answer", "the-payload", "X-Token", "webhook-timestamp", "curl", "hush"):
            assert hush not in html
        for statement in captured:
            for column in ("data", "excerpt", "headers", "basic_auth"):
                assert f'."{column}"' not in statement["sql"]
    assert "Can see payloads" in html
    seen = page(staff("view_event", "view_payload"), event)
    for shown in ("the-payload", "X-Token", "webhook-timestamp", "curl -X POST"):
        assert shown in seen
    assert "the-answer" not in seen  # that is on the delivery's page


def test_who_may_see_events_alone_is_led_nowhere_else(receiver: Receiver, staff: Staff) -> None:
    subscription = subscribe(receiver)
    event = fanned_out()
    deliver()
    html = page(staff("view_event", "replay_delivery"), event)
    assert Delivery.objects.get().pk in html
    for model in (Delivery, DeliveryAttempt):
        assert url_of(model, "change", model.objects.get().pk) not in html
    assert url_of(Subscription, "change", subscription.pk) not in html
    assert url_of(Delivery) not in html


HOSTILE = f"{EVIL}\x1b[2J\u202egnp.exe\u2066&amp;</pre></textarea>"


def test_hostile_text_is_only_text(receiver: Receiver, staff: Staff) -> None:
    subscribe(receiver)
    event = emit("order.paid", {"note": HOSTILE}, requester="app:a", subject="a\u202eb")
    deliver()
    Subscription.objects.update(callback_url=f"https://a.example/{HOSTILE}?q=hush")
    html = page(staff(), event)
    assert EVIL not in html
    own = html[html.index("wh-event") : html.index("<fieldset")]
    for sign in ("\x1b", "\u202e", "\u2066"):
        assert sign not in own
    assert "hush" not in own
    assert not re.search(r"<script|<style| style=| on\w+=|href=\"javascript:", own)
    assert own.count("<textarea") == own.count("</textarea>") == 1
    field = html[html.index("field-shown_payload") :]
    assert "\u202e" not in field[: field.index("</pre>")]


# Once more


@pytest.fixture
def sent(receiver: Receiver) -> Event:
    """An event that one received, and that is dead for another."""
    first, _second = subscribe(receiver), subscribe(receiver)
    event = fanned_out()
    now = db_now("default")
    mine = Delivery.objects.filter(subscription=first)
    mine.settle(State.DELIVERED, now=now, attempts=1)
    Delivery.objects.all().settle(State.DEAD, now=now, reason="timeout")
    return event


@pytest.mark.parametrize("name", ACTIONS)
def test_without_its_permission_an_action_is_refused_and_not_offered(
    sent: Event, receiver: Receiver, staff: Staff, name: str
) -> None:
    subscribe(receiver)
    client = staff("view_event", "view_delivery", "delete_delivery", "view_payload")
    target = address(name, sent)
    html = page(client, sent)
    assert target not in html
    assert "/resend/" not in html  # of a single delivery neither
    assert client.get(target).status_code == 403
    assert client.post(target, {"states": "dead"}).status_code == 403
    assert states() == {"delivered": 1, "dead": 1}
    assert not LogEntry.objects.exists()
    assert staff("replay_delivery").post(target, {"states": "dead"}).status_code == 403
    allowed = page(staff("view_event", "replay_delivery"), sent)
    assert target in allowed
    assert ACTIONS[name] in allowed


@pytest.mark.parametrize("name", ACTIONS)
def test_it_is_asked_first_and_not_from_elsewhere(
    sent: Event, receiver: Receiver, staff: Staff, name: str
) -> None:
    subscribe(receiver)
    html = html_of(staff(), address(name, sent))
    assert "csrfmiddlewaretoken" in html
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create_user("root", is_staff=True, is_superuser=True))
    assert client.post(address(name, sent), {"states": "dead"}).status_code == 403
    assert states() == {"delivered": 1, "dead": 1}


@pytest.mark.parametrize("name", ACTIONS)
def test_an_id_that_is_none_is_not_found(staff: Staff, name: str) -> None:
    client = staff()
    for wrong in ("nonsense", "evt_" + "1" * 32):
        target = reverse(f"admin:webhooks_event_{name}", args=[wrong])
        assert client.post(target).status_code == 404


def done(client: Client, name: str, event: Event, query: str = "", **data: Any) -> Any:
    answer = client.post(f"{address(name, event)}{query}", data)
    assert answer.status_code == 302, answer.content.decode()[:2000]
    return answer.url


def test_resend_goes_to_those_who_did_not_receive_it(
    sent: Event, receiver: Receiver, staff: Staff
) -> None:
    client = staff()
    html = html_of(client, address("resend", sent))
    assert "delivered (1)" in html
    assert "dead (1)" in html
    checked = re.findall(r'value="(\w+)"[^>]* checked', html)
    assert checked == ["dead", "cancelled", "discarded", "expired"]
    url = done(client, "resend", sent, states=checked)
    assert url == url_of(Event, "change", sent.pk)
    assert "1 delivery is sent again." in html_of(client, url)
    assert states() == {"delivered": 1, "pending": 1}
    [entry] = LogEntry.objects.all()
    assert (entry.object_id, entry.change_message) == (sent.pk, "1 delivery is sent again.")


def test_resend_may_go_to_all_under_new_ids(sent: Event, receiver: Receiver, staff: Staff) -> None:
    done(staff(), "resend", sent, states=["delivered", "dead"], new_id="on")
    deliver()
    assert states() == {"delivered": 2}
    assert len(receiver.ids) == 2
    assert sent.pk not in receiver.ids


def test_resend_needs_a_choice(sent: Event, staff: Staff) -> None:
    answer = staff().post(address("resend", sent))
    assert answer.status_code == 200
    assert "This field is required" in answer.content.decode()
    assert not LogEntry.objects.exists()


def test_those_that_have_ended_are_told_of(sent: Event, staff: Staff) -> None:
    subscription = Delivery.objects.get(state="dead").subscription
    lifecycle.change_status(subscription, "unsubscribed", reason="client")
    client = staff()
    html = html_of(client, done(client, "resend", sent, states=["delivered", "dead"]))
    assert "1 delivery is sent again. 1 is not: its subscription has ended." in html


def test_resend_goes_on_part_by_part(
    sent: Event, staff: Staff, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redelivery, "RESENT", 1)
    client = staff()
    url = done(client, "resend", sent, states=["delivered", "dead"], new_id="on")
    html = html_of(client, url)
    assert "That was a part. Go on with the rest?" in html
    assert re.findall(r'value="(\w+)"[^>]* checked', html) == ["delivered", "dead"]
    assert re.search(r'name="new_id"[^>]* checked', html)
    rest = client.post(url, {"states": ["delivered", "dead"]})
    assert rest.url == url_of(Event, "change", sent.pk)
    assert states() == {"pending": 2}


def test_fan_out_again_reaches_who_came_later(
    sent: Event, receiver: Receiver, staff: Staff
) -> None:
    later = subscribe(receiver)
    client = staff()
    assert "Preview: 1 subscription that it is for now" in html_of(client, address("fan_out", sent))
    url = done(client, "fan_out", sent)
    assert url == url_of(Event, "change", sent.pk)
    assert "1 more subscription gets it." in html_of(client, url)
    assert Delivery.objects.get(state="pending").subscription_id == later.pk
    assert LogEntry.objects.get().change_message == "1 more subscription gets it."


def test_fan_out_again_goes_on_part_by_part(
    sent: Event, receiver: Receiver, staff: Staff, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = {subscribe(receiver).pk for _ in range(2)}
    monkeypatch.setattr(fanout, "LOOKED_AT", 2)
    client = staff()
    assert "There are more to look at" in html_of(client, address("fan_out", sent))
    url = done(client, "fan_out", sent)
    assert "That was a part. Go on with the rest?" in html_of(client, url)
    assert client.post(url).url == url_of(Event, "change", sent.pk)
    pending = Delivery.objects.filter(state="pending")
    assert set(pending.values_list("subscription_id", flat=True)) == later


def test_what_cannot_be_fanned_out_again_is_told(sent: Event, staff: Staff) -> None:
    Event.objects.update(type=MARKER)
    client = staff()
    for ask in (client.get, client.post):
        answer = ask(address("fan_out", sent))
        assert answer.url == url_of(Event, "change", sent.pk)
        assert "It stands for an empty digest" in html_of(client, answer.url)
    assert not LogEntry.objects.exists()


def test_one_delivery_is_sent_again_from_its_row(
    sent: Event, receiver: Receiver, staff: Staff
) -> None:
    html = page(staff(), sent)
    for delivery in Delivery.objects.all():
        assert reverse("admin:webhooks_delivery_resend", args=[quote(delivery.pk)]) in html
