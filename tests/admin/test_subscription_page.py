"""The page of a subscription, and what can be done there: by whom, and what is written down."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import quote
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from tests.admin.browsing import EVIL, html_of, url_of
from tests.world import Answer, Receiver, deliver, emit_orders, fan_out_all, states, subscribe
from webhooks import lifecycle
from webhooks.clock import db_now
from webhooks.models import Delivery, DeliveryAttempt, Lane, Replay, Subscription

pytestmark = pytest.mark.django_db(transaction=True)

Staff = Callable[..., Client]
FAILED = Answer(status=500)
#: Each action, with the permission it needs and the button or link that leads to it.
ACTIONS = {
    "ping": ("ping_subscription", "Send ping"),
    "example": ("ping_subscription", "Send example"),
    "suspend": ("suspend_subscription", "Suspend"),
    "rotate": ("rotate_secret_subscription", "Rotate secret"),
    "replay": ("replay_delivery", "Replay"),
    "unsubscribe": ("delete_subscription", "Unsubscribe"),
}


def address(name: str, subscription: Subscription, **kwargs: Any) -> str:
    kwargs = {"object_id": quote(subscription.pk), **kwargs}
    return reverse(f"admin:webhooks_subscription_{name}", kwargs=kwargs)


def page(client: Client, subscription: Subscription, **query: Any) -> str:
    return html_of(client, url_of(Subscription, "change", subscription.pk), **query)


def follow(client: Client, answer: Any) -> str:
    assert answer.status_code == 302, answer.content.decode()[:2000]
    return html_of(client, answer.url)


def do(client: Client, name: str, subscription: Subscription, **data: Any) -> str:
    """POST an action; the page that it leads to."""
    return follow(client, client.post(address(name, subscription), data))


def text(html: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


# What it shows


def test_the_header_says_where_what_and_whose(staff: Staff, receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    Subscription.objects.update(callback_url="https://hooks.acme.example:8443/in?token=hush-me")
    html = page(staff("view_subscription"), subscription)
    head = html[html.index("wh-address") : html.index("wh-banner")]
    assert "https://<strong>hooks.acme.example</strong>:8443/in<" in head
    assert "hush-me" not in head
    assert "app:a" in head
    assert "order.*" in head
    assert subscription.secrets.get().last_four in head
    assert "in real time" in text(head)
    assert "All events" not in head
    Subscription.objects.update(event_types=["*"])
    assert re.search(r"wh-warn.*All events", page(staff(), subscription))


def test_the_sentence_of_one_that_fails(staff: Staff, receiver: Receiver) -> None:
    subscription = subscribe(receiver, retry_schedule=[3600])
    emit_orders(1)
    deliver()
    receiver.answer = FAILED
    emit_orders(6)
    deliver()
    now = db_now("default").replace(hour=14, minute=0)
    Lane.objects.update(
        failing_since=now - timedelta(minutes=40), last_success_at=now - timedelta(days=2)
    )
    failures = Lane.objects.get().failures
    said = text(page(staff(), subscription))
    assert re.search(
        rf"Failing since [\d-]* ?13:20 UTC \({failures} attempts\). "
        r"Last error: The endpoint failed \(5xx\). "
        r"\d deliveries wait; the next try is at (\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d UTC. "
        r"It will be suspended after 5 days without a success. "
        r"Last success \d{4}-\d\d-\d\d 14:00 UTC.",
        said,
    )


def test_the_sentence_of_one_that_is_well(staff: Staff, receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    client = staff()
    assert "Nothing was sent to it in the last 24 hours." in page(client, subscription)
    assert "Nothing was sent to it yet." in page(client, subscription)
    emit_orders(1)
    deliver()
    html = page(client, subscription)
    assert "Deliveries are flowing. Last success" in html
    assert "<svg" in html


def test_the_last_fifty_deliveries(staff: Staff, receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    other = subscribe(receiver, "app:b")
    emit_orders(60)
    emit_orders(1, "app:b")
    fan_out_all()
    html = page(staff(), subscription)
    newest = list(subscription.deliveries.order_by("-pk"))
    shown = [each.pk for each in newest if url_of(Delivery, "change", each.pk) in html]
    assert shown == [each.pk for each in newest[:50]]
    assert other.deliveries.get().pk not in html
    without = page(staff("view_subscription"), subscription)
    assert newest[0].pk in without
    assert url_of(Delivery, "change", newest[0].pk) not in without


def test_the_page_costs_the_same_for_many_deliveries(staff: Staff, receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    client = staff()
    emit_orders(2)
    deliver()
    page(client, subscription)
    with CaptureQueriesContext(connection) as few:
        page(client, subscription)
    emit_orders(100)
    deliver()
    with CaptureQueriesContext(connection) as many:
        page(client, subscription)
    assert len(many) == len(few) <= 25


def test_nothing_from_outside_is_markup_and_nothing_is_inline(
    staff: Staff, receiver: Receiver
) -> None:
    subscription = subscribe(receiver)
    Subscription.objects.update(
        requester=EVIL, callback_url=f"javascript:alert(1)//{EVIL}", event_types=[EVIL]
    )
    html = page(staff(), subscription)
    assert EVIL not in html
    own = html[html.index("wh-subscription") : html.index("<form", html.index("Last deliveries"))]
    assert not re.search(r"<script|<style| style=| on\w+=|href=\"javascript:", own)


# Who may do what


@pytest.mark.parametrize("name", [*ACTIONS, "resume"])
def test_without_its_permission_an_action_is_refused_and_not_offered(
    staff: Staff, receiver: Receiver, name: str
) -> None:
    subscription = subscribe(receiver)
    if name == "resume":
        lifecycle.suspend(subscription, reason="client")
    permission, button = ACTIONS.get(name, ("suspend_subscription", "Resume"))
    others = {each for each, _ in ACTIONS.values()} - {permission}
    client = staff("view_subscription", "change_subscription", *others)
    before = Subscription.objects.values().get()
    target = address(name, subscription)
    assert target not in page(client, subscription)
    assert client.get(target).status_code == 403
    assert client.post(target, {"on_suspend": "keep", "hours": "1"}).status_code == 403
    assert Subscription.objects.values().get() == before
    assert receiver.posts == []
    assert not LogEntry.objects.exists()
    # With it, and without the view of subscriptions, neither.
    assert staff(permission).post(target).status_code == 403
    allowed = page(staff("view_subscription", permission), subscription)
    assert target in allowed
    assert button in allowed


@pytest.mark.parametrize("name", [*ACTIONS, "resume"])
def test_a_request_from_elsewhere_does_nothing(staff: Staff, receiver: Receiver, name: str) -> None:
    subscription = subscribe(receiver)
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create_user("root", is_staff=True, is_superuser=True))
    assert client.post(address(name, subscription)).status_code == 403
    assert receiver.posts == []
    assert Subscription.objects.get().status == "subscribed"


@pytest.mark.parametrize("name", ["ping", "example"])
def test_what_sends_is_no_link(staff: Staff, receiver: Receiver, name: str) -> None:
    assert staff().get(address(name, subscribe(receiver))).status_code == 405
    assert receiver.posts == []


@pytest.mark.parametrize("name", [*ACTIONS, "resume"])
def test_an_id_that_is_none_is_not_found(staff: Staff, name: str) -> None:
    client = staff()
    for wrong in ("nonsense", "sub_" + "1" * 32):
        target = reverse(f"admin:webhooks_subscription_{name}", args=[wrong])
        assert client.post(target).status_code == 404


@pytest.mark.parametrize("name", ["suspend", "resume", "rotate", "unsubscribe", "replay"])
def test_what_asks_first_does_nothing_by_get(staff: Staff, receiver: Receiver, name: str) -> None:
    subscription = subscribe(receiver)
    if name == "resume":
        lifecycle.suspend(subscription, reason="client")
    before = (Subscription.objects.values().get(), subscription.secrets.count())
    html = html_of(staff(), address(name, subscription))
    assert "csrfmiddlewaretoken" in html or name == "replay"
    assert (Subscription.objects.values().get(), subscription.secrets.count()) == before


# What they do


def test_a_ping_shows_its_answer_beside_the_button(staff: Staff, receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    client = staff()
    html = do(client, "ping", subscription)
    [post] = receiver.posts
    assert post.json["type"] == "webhooks.ping"
    assert re.search(r"● 200 OK in [\d,]+ ms", text(html))
    [entry] = LogEntry.objects.all()
    assert re.fullmatch(r"Ping: 200 OK in [\d,]+ ms", entry.change_message)
    receiver.answer = Answer(status=404)
    assert re.search(
        r"■ 404 Not Found in [\d,]+ ms Check the path", text(do(client, "ping", subscription))
    )


def test_a_ping_that_nobody_answers_is_told_by_its_name(staff: Staff, receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    receiver.close()
    assert "■ The connection was refused in" in text(do(staff(), "ping", subscription))


def test_no_answer_of_anybody_else_is_shown(staff: Staff, receiver: Receiver) -> None:
    mine, other = subscribe(receiver), subscribe(receiver, "app:b")
    client = staff()
    do(client, "ping", other)
    pk = DeliveryAttempt.objects.get().pk
    for sent in (pk, "att_7", EVIL):
        assert "200 OK in" not in page(client, mine, sent=sent)


def test_an_example_is_sent_as_the_catalogue_has_it(staff: Staff, receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    client = staff()
    html = page(client, subscription)
    assert '<option value="order.paid">' in html
    assert '<option value="shop.closed">' not in html
    html = do(client, "example", subscription, type="order.paid")
    [post] = receiver.posts
    assert (post.json["type"], post.json["data"]) == ("order.paid", {"order": 1})
    assert "200 OK in" in html
    assert LogEntry.objects.get().change_message.startswith("Example of order.paid: 200 OK")
    assert not Delivery.objects.exists()


@pytest.mark.parametrize("name", ["shop.closed", "nonsense", "", EVIL])
def test_no_example_of_what_it_does_not_receive(
    staff: Staff, receiver: Receiver, name: str
) -> None:
    html = do(staff(), "example", subscribe(receiver), type=name)
    assert "messagelist" in html
    assert receiver.posts == []
    assert not LogEntry.objects.exists()


@pytest.mark.parametrize(("fate", "ended"), [("keep", "pending"), ("discard", "discarded")])
def test_it_is_suspended_by_name(staff: Staff, receiver: Receiver, fate: str, ended: str) -> None:
    subscription = subscribe(receiver)
    client = staff()
    html = do(client, "suspend", subscription, on_suspend=fate)
    row = Subscription.objects.get()
    assert (row.status, row.status_reason, row.on_suspend) == ("suspended", "operator", fate)
    assert row.status_actor == "staff:user0"
    assert "▲ suspended" in text(html)
    [entry] = LogEntry.objects.all()
    assert entry.user.username == "user0"
    assert entry.object_id == subscription.pk
    emit_orders(1)
    deliver()
    assert states() == {ended: 1}
    # Not by a ping either, and it is offered to be resumed.
    assert "An operator has suspended" in do(client, "ping", subscription)
    assert receiver.posts == []
    assert address("resume", subscription) in html
    assert address("suspend", subscription) not in html


@pytest.mark.parametrize(("backlog", "ended"), [("deliver", "delivered"), ("discard", "discarded")])
def test_it_is_resumed_with_or_without_what_waits(
    staff: Staff, receiver: Receiver, backlog: str, ended: str
) -> None:
    subscription = subscribe(receiver)
    lifecycle.suspend(subscription, reason="operator")
    emit_orders(3)
    fan_out_all()
    client = staff()
    asked = text(html_of(client, address("resume", subscription)))
    assert "3 are waiting. Deliver them, at a ramped rate, or discard them?" in asked
    html = do(client, "resume", subscription, backlog=backlog)
    assert "● subscribed" in text(html)
    assert Subscription.objects.get().status_actor == "staff:user0"
    deliver()
    assert states() == {ended: 3}
    assert "Resumed." in LogEntry.objects.get().change_message


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("suspend", {"on_suspend": "burn"}), ("resume", {}), ("rotate", {"hours": "169"})],
)
def test_an_answer_that_is_none_is_asked_again(
    staff: Staff, receiver: Receiver, name: str, wrong: dict[str, str]
) -> None:
    subscription = subscribe(receiver)
    if name == "resume":
        lifecycle.suspend(subscription, reason="client")
    before = (Subscription.objects.values().get(), subscription.secrets.count())
    answer = staff().post(address(name, subscription), wrong)
    assert answer.status_code == 200
    assert "errorlist" in answer.content.decode()
    assert (Subscription.objects.values().get(), subscription.secrets.count()) == before
    assert not LogEntry.objects.exists()


def test_a_new_secret_is_shown_once(staff: Staff, receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    client = staff()
    answer = client.post(address("rotate", subscription), {"hours": "2"})
    assert answer.status_code == 200
    assert "no-store" in answer.headers["Cache-Control"]
    newest, old = subscription.secrets.order_by("-pk")
    secret = newest.value.reveal()
    assert secret in answer.content.decode()
    assert old.expires_at is not None
    left = old.expires_at - db_now("default")
    assert timedelta(hours=1, minutes=59) < left <= timedelta(hours=2)
    told = LogEntry.objects.get().change_message
    assert secret not in told
    assert secret[-4:] in told
    assert secret not in page(client, subscription)
    assert secret not in str([session.get_decoded() for session in Session.objects.all()])
    assert set(answer.cookies) <= {"csrftoken", "sessionid"}


def test_it_is_ended_after_a_word_of_what_is_lost(staff: Staff, receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    emit_orders(2)
    fan_out_all()
    client = staff()
    asked = text(html_of(client, address("unsubscribe", subscription)))
    assert "2 are waiting. They will be cancelled." in asked
    assert "cannot be undone" in asked
    html = do(client, "unsubscribe", subscription)
    row = Subscription.objects.get()
    assert (row.status, row.status_reason, row.status_actor) == (
        "unsubscribed", "operator", "staff:user0",
    )  # fmt: skip
    deliver()
    assert states() == {"cancelled": 2}
    assert LogEntry.objects.count() == 1
    for name in [*ACTIONS, "resume"]:
        assert address(name, subscription) not in html
    # What comes too late is told, and not an error.
    assert "unsubscribed" in text(do(client, "suspend", subscription, on_suspend="keep"))
    assert LogEntry.objects.count() == 1


# Replays


def asked_for(**changes: Any) -> dict[str, Any]:
    now = db_now("default")
    return {
        "start": f"{now - timedelta(hours=2):%Y-%m-%dT%H:%M}",
        "end": f"{now + timedelta(hours=1):%Y-%m-%dT%H:%M}",
        "states": ["delivered"],
        **changes,
    }


def test_a_replay_is_previewed_begun_and_watched(staff: Staff, receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    emit_orders(3)
    deliver()
    client = staff()
    target = address("replay", subscription)
    preview = html_of(client, target, preview="1", **asked_for())
    assert "Preview: 3 deliveries" in preview
    assert not Replay.objects.exists()
    hidden = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', preview)
    assert {"start", "end", "states"} <= {name for name, _ in hidden}
    answer = client.post(target, {**asked_for(), "states": ["delivered"]})
    replay = Replay.objects.get()
    assert (replay.total, replay.actor, replay.states) == (3, "staff:user0", ["delivered"])
    watched = follow(client, answer)
    assert "0 of 3 deliveries" in watched
    assert 'data-seconds="15"' in watched
    assert replay.pk in LogEntry.objects.get().change_message
    deliver()
    assert len(receiver.posts) == 6
    part = html_of(client, answer.url, fragment="1")
    assert "3 of 3 deliveries" in part
    assert "finished" in part
    assert "Cancel" not in part
    assert answer.url in html_of(client, target)


def test_a_replay_is_cancelled(staff: Staff, receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    emit_orders(1)
    deliver()
    client = staff()
    client.post(address("replay", subscription), asked_for())
    replay = Replay.objects.get()
    target = address("replay_cancel", subscription, replay_id=replay.pk)
    assert client.get(target).status_code == 405
    assert "was cancelled" in follow(client, client.post(target))
    assert Replay.objects.get().state == "cancelled"
    assert LogEntry.objects.count() == 2
    assert "ended already" in follow(client, client.post(target))
    assert LogEntry.objects.count() == 2


def test_a_replay_of_somebody_else_is_not_found(staff: Staff, receiver: Receiver) -> None:
    mine, other = subscribe(receiver), subscribe(receiver, "app:b")
    client = staff()
    client.post(address("replay", mine), asked_for())
    replay = Replay.objects.get()
    for pk in (replay.pk, "rpl_7", "rpl_" + "1" * 32):
        shown = address("replay_progress", other, replay_id=pk)
        assert client.get(shown).status_code == 404
        assert client.post(address("replay_cancel", other, replay_id=pk)).status_code == 404
    assert Replay.objects.get().state == "running"


@pytest.mark.parametrize(
    "wrong",
    [{"start": ""}, {"end": "x"}, {"start": "2030-01-01T00:00", "end": "2020-01-01T00:00"},
     {"states": []}, {"states": ["burnt"]}, {"types": ["shop.closed"]}, {"start": EVIL}],
)  # fmt: skip
def test_a_replay_that_cannot_be_is_told(
    staff: Staff, receiver: Receiver, wrong: dict[str, Any]
) -> None:
    subscription = subscribe(receiver)
    client = staff()
    target = address("replay", subscription)
    answers = [client.get(target, {"preview": "1", **asked_for(**wrong)})]
    answers.append(client.post(target, asked_for(**wrong)))
    for answer in answers:
        assert answer.status_code == 200
        assert "errorlist" in answer.content.decode()
        assert EVIL not in answer.content.decode()
    assert not Replay.objects.exists()


def test_the_times_of_a_replay_are_utc_wherever_the_host_is(
    staff: Staff, receiver: Receiver, settings: Any
) -> None:
    settings.TIME_ZONE = "Asia/Singapore"
    subscription = subscribe(receiver)
    staff().post(address("replay", subscription), asked_for(start="2026-01-31T13:20"))
    assert f"{Replay.objects.get().from_at:%H:%M %Z}" == "13:20 UTC"
