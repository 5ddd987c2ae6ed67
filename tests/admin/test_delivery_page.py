"""The page of a delivery: its sentence, its attempts, what was sent, and what can be done."""

from __future__ import annotations

import html as markup
import re
import shlex
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
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
from webhooks import emit, lifecycle
from webhooks.admin.sentences import RESTS, Situation, exactly
from webhooks.clock import db_now
from webhooks.models import Delivery, DeliveryAttempt, Event, Lane, Message, Subscription
from webhooks.models.delivery import State
from webhooks.remedies import ENDINGS, REMEDIES, ending, remedy

pytestmark = pytest.mark.django_db(transaction=True)

Staff = Callable[..., Client]
#: Each action, with the permission it needs, what leads to it, and for which state it is.
ACTIONS = {
    "resend": ("replay_delivery", "Resend", State.DEAD),
    "retry": ("replay_delivery", "Retry now", State.PENDING),
    "cancel": ("delete_delivery", "Cancel the delivery", State.PENDING),
}
NOW = datetime(2026, 11, 22, 14, 0, tzinfo=UTC)
HEADERS = {"X-Token": "hush-header-value", "X-Place": "hush-other-value"}


def address(name: str, delivery: Delivery) -> str:
    return reverse(f"admin:webhooks_delivery_{name}", args=[quote(delivery.pk)])


def page(client: Client, delivery: Delivery, **query: Any) -> str:
    return html_of(client, url_of(Delivery, "change", delivery.pk), **query)


def part(html: str, begin: str) -> str:
    """A section of the page, by its id."""
    start = html.index(f'id="{begin}"')
    return html[start : html.index("</section>", start)]


def text(html: str) -> str:
    return " ".join(markup.unescape(re.sub(r"<[^>]*>", " ", html)).split())


def curl_of(html: str) -> list[str]:
    """The words of the command that the page gives."""
    found = re.search(r"<textarea[^>]*>(.*?)</textarea>", html, re.DOTALL)
    assert found is not None
    return shlex.split(markup.unescape(found[1]))


def delivery_of(receiver: Receiver, state: State = State.PENDING, **options: Any) -> Delivery:
    """A delivery that was never tried, and ended so."""
    subscribe(receiver, **options)
    emit_orders(1)
    fan_out_all()
    if state != State.PENDING:
        Delivery.objects.all().settle(state, now=db_now("default"), reason="timeout")
    return Delivery.objects.select_related("event", "subscription").get()


# Its sentence


def situation(state: str, reason: str = "", **given: Any) -> Situation:
    """A delivery that was recorded at 13:00 and settled, or is due, at 13:06:12."""
    lane_given = given.pop("lane", {})
    subscription_given = {"status": "subscribed", **given.pop("subscription", {})}
    subscription = Subscription(callback_url="https://a.example/", **subscription_given)
    event = Event(type="order.paid", created_at=NOW - timedelta(hours=1), data="{}")
    moment = event.created_at + timedelta(minutes=6, seconds=12)
    values: dict[str, Any] = {"attempts": 3, "due_at": moment, "first_due_at": event.created_at}
    values |= {"settled_at": None if state == "pending" else moment}
    delivery = Delivery(
        event=event, subscription=subscription, state=state, reason=reason, **{**values, **given}
    )
    lane = Lane(subscription=subscription, **lane_given)
    return Situation(delivery, subscription, lane, None, NOW)


@pytest.mark.parametrize(
    ("state", "reason", "said"),
    [
        ("delivered", "", "Delivered on attempt 3 of 10, 6 min 12 s after the event."),
        *(
            (
                "dead",
                code,
                f"Given up after attempt 3 of 10, 6 min 12 s after the event. {found.title}.",
            )
            for code, found in ((code, remedy(code)) for code in REMEDIES)
        ),
        *(
            (
                state,
                reason,
                f"{word} after attempt 3 of 10, 6 min 12 s after the event. "
                f"{ending(reason).title}.",
            )
            for state, word, reasons in (
                ("expired", "Expired", ("too_old", "suspended_too_long")),
                ("cancelled", "Cancelled", ("gone", "unsubscribed", "scope_lost", "operator")),
                ("discarded", "Discarded", ("suspended", "resumed")),
            )
            for reason in reasons
        ),
        (
            "dead",
            "of_the_host",
            "Given up after attempt 3 of 10, 6 min 12 s after the event. of_the_host.",
        ),
    ],
)
def test_each_end_has_its_sentence(state: str, reason: str, said: str) -> None:
    assert situation(state, reason).sentence() == said
    assert situation(state, reason).next_at is None


@pytest.mark.parametrize(("state", "word"), [("expired", "Expired"), ("cancelled", "Cancelled")])
def test_an_end_without_an_attempt_says_so(state: str, word: str) -> None:
    said = situation(state, attempts=0).sentence()
    assert said == f"{word} without an attempt, 6 min 12 s after the event."


def test_every_reason_has_a_meaning_and_a_remedy() -> None:
    for code in (*REMEDIES, *ENDINGS):
        assert ending(code).title
        assert ending(code).fix


IN_FOUR_MINUTES = NOW + timedelta(minutes=4, seconds=30)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"due_at": IN_FOUR_MINUTES}, "It is tried again in 4 min 30 s, at 14:04 UTC."),
        (
            {"due_at": IN_FOUR_MINUTES, "retries_from": 3},
            "It is due in 4 min 30 s, at 14:04 UTC.",
        ),
        (
            {"due_at": IN_FOUR_MINUTES, "attempts": 0, "subscription": {"trigger": "hourly"}},
            "It waits for its digest, due in 4 min 30 s, at 14:04 UTC.",
        ),
        ({}, "It has been due for 53 min 48 s, and waits for a worker."),
        (
            {"lane": {"token": "x", "lease_until": IN_FOUR_MINUTES}},
            "A worker has its queue: it is being sent, or will be soon.",
        ),
        (
            {"lane": {"token": "x", "lease_until": NOW}},
            "It has been due for 53 min 48 s, and waits for a worker.",
        ),
        (
            {"subscription": {"status": "unsubscribed"}},
            "It will be cancelled: its subscription has ended.",
        ),
        (
            {"subscription": {"status": "pending"}},
            "It waits until its endpoint has answered the handshake.",
        ),
        (
            {"subscription": {"status": "suspended", "status_since": NOW - timedelta(hours=2)}},
            "It waits: the subscription has been suspended since 12:00 UTC.",
        ),
        *(
            (
                {"lane": {"paused_until": IN_FOUR_MINUTES, "pause_reason": reason}},
                f"{why}; the queue goes on in 4 min 30 s, at 14:04 UTC.",
            )
            for reason, why in RESTS.items()
        ),
        (
            {"lane": {"paused_until": NOW, "pause_reason": "parked"}},
            "It has been due for 53 min 48 s, and waits for a worker.",
        ),
    ],
)
def test_what_waits_says_for_what(given: Any, said: str) -> None:
    found = situation("pending", **given)
    lead = "Not tried yet." if given.get("attempts") == 0 else "Attempt 3 of"
    assert found.sentence().startswith(lead)
    assert found.sentence().endswith(said)


def test_the_next_try_is_when_the_delivery_is_due_and_its_queue_goes_on() -> None:
    due, later = IN_FOUR_MINUTES, IN_FOUR_MINUTES + timedelta(hours=1)
    assert situation("pending", due_at=due).next_at == due
    assert situation("pending", due_at=due, lane={"paused_until": later}).next_at == later
    assert situation("pending", due_at=later, lane={"paused_until": due}).next_at == later
    assert situation("pending", due_at=due, subscription={"status": "suspended"}).next_at is None


def test_a_number_beyond_the_schedule_stands_alone() -> None:
    shortened = situation("delivered", subscription={"retry_schedule": [5]})
    assert shortened.number == "3"
    assert situation("delivered", subscription={"retry_schedule": [5, 5]}).number == "3 of 3"
    assert situation("delivered", retries_from=2).number == "3 of 12"


def test_who_asked_for_it_again_is_told() -> None:
    assert situation("delivered", trigger="manual").sentence().endswith("again by hand.")
    assert situation("delivered", trigger="replay").sentence().endswith("a replay or a fan-out.")


def test_a_batch_is_told(receiver: Receiver, staff: Staff) -> None:
    subscribe(receiver, batch_size=2)
    emit_orders(2)
    deliver()
    for delivery in Delivery.objects.all():
        assert "It travels in a batch of 2 events." in page(staff(), delivery)


def test_what_is_being_discarded_is_told(receiver: Receiver, staff: Staff) -> None:
    delivery = delivery_of(receiver)
    lifecycle.suspend(delivery.subscription, reason="client")
    lifecycle.resume(delivery.subscription, reason="client", backlog="discard")
    html = page(staff(), delivery)
    assert "It will be discarded: the subscription was resumed without" in html
    assert "none, as things are" in html


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-1, "0 ms"),
        (0.34, "340 ms"),
        (59, "59 s"),
        (372, "6 min 12 s"),
        (3600, "1 h 0 min"),
        (90_000, "1 day 1 h"),
        (180_000, "2 days 2 h"),
    ],
)
def test_lengths_of_time(seconds: float, said: str) -> None:
    assert exactly(timedelta(seconds=seconds)) == said


# What it shows


def test_the_page_tells_of_each_attempt(receiver: Receiver, staff: Staff) -> None:
    receiver.answer = Answer(status=500, body=b"no room")
    subscribe(receiver, retry_schedule=[3600])
    emit_orders(1)
    deliver()
    delivery = Delivery.objects.get()
    html = page(staff(), delivery)
    wait = r"(\d+ min \d+ s|1 h \d+ min)"
    assert re.search(rf"Attempt 1 of 2 failed. It is tried again in {wait}, at ", html)
    receiver.answer = Answer(body=b"thank you")
    now = db_now("default")
    Delivery.objects.update(due_at=now)
    Lane.objects.update(claim_at=now)
    deliver()
    html = page(staff(), delivery)
    assert re.search(r"Delivered on attempt 2 of 2, [\d a-z]+ after the event\.", html)
    said = text(html)
    assert re.search(r"■ 500 Internal Server Error in [\d,]+ ms server_error", said)
    assert re.search(r"● 200 OK in [\d,]+ ms", said)
    for attempt in DeliveryAttempt.objects.all():
        assert url_of(DeliveryAttempt, "change", attempt.pk) in html
    responses = text(part(html, "response"))
    assert responses.index("thank you") < responses.index("no room")  # the newest first
    assert url_of(Event, "change", delivery.event_id) in html
    assert url_of(Subscription, "change", delivery.subscription_id) in html


@pytest.mark.parametrize("options", [{}, {"format": "mandrill"}, {"batch_size": 5}])
def test_the_request_is_the_one_that_was_sent(
    receiver: Receiver, staff: Staff, options: Any
) -> None:
    subscribe(receiver, headers=HEADERS, basic_auth="user:hush-password", **options)
    emit("order.paid", {"note": "it's <b>“bold”</b> & \\ more"}, requester="app:a")
    deliver()
    [post] = receiver.posts
    html = page(staff(), Delivery.objects.get())
    request = markup.unescape(part(html, "request"))
    assert post.body.decode() in request
    words = curl_of(html)
    assert words[:4] == ["curl", "-X", "POST", receiver.url]
    assert words[-2:] == ["--data-raw", post.body.decode()]
    given = [words[i + 1] for i, word in enumerate(words) if word == "-H"]
    shown = dict(each.split(": ", 1) for each in given)
    sent = {name.lower(): value for name, value in post.headers.items()}
    connection_s = {"host", "content-length", "connection"}
    assert {name.lower() for name in shown} >= sent.keys() - connection_s
    masked = {name for name, value in shown.items() if value == "********"}
    for name, value in shown.items():
        assert name in masked or value == sent[name.lower()]
    assert {name.lower() for name in masked} == {
        *("x-token", "x-place", "authorization"),
        *(name for name in sent if name.endswith("-signature")),
    }


def test_no_secret_is_on_the_page(receiver: Receiver, staff: Staff) -> None:
    subscription = subscribe(receiver, headers=HEADERS, basic_auth="user:hush-password")
    Subscription.objects.update(callback_url=f"{receiver.url}?token=hush-query")
    emit_orders(1)
    deliver()
    html = page(staff(), Delivery.objects.get())
    [post] = receiver.posts
    secret = subscription.secrets.get().value.reveal()
    for hush in (secret, "hush", post.headers["webhook-signature"], "dXNlcjpod"):
        assert hush not in html
    assert f"{receiver.url}?********" in html


def test_without_the_permission_nothing_of_the_payload_is_shown(
    receiver: Receiver, staff: Staff
) -> None:
    receiver.answer = Answer(status=500, body=b"the-answer")
    subscribe(receiver, headers=HEADERS)
    emit("order.paid", {"card": "the-payload"}, requester="app:a")
    deliver()
    delivery = Delivery.objects.get()
    with CaptureQueriesContext(connection) as captured:
        html = page(staff("view_delivery", "replay_delivery"), delivery)
    for hush in ("the-answer", "the-payload", "X-Token", "webhook-timestamp", "curl", "hush"):
        assert hush not in html
    for query in captured:
        for column in ("data", "excerpt", "headers", "basic_auth"):
            assert f'."{column}"' not in query["sql"]
    assert "Can see payloads" in html
    seen = page(staff("view_delivery", "view_payload"), delivery)
    for shown in ("the-answer", "the-payload", "X-Token", "webhook-timestamp", "curl -X POST"):
        assert shown in seen


HOSTILE = f"{EVIL}\x1b[2J\u202egnp.exe\u2066\x00\x07&amp;</pre></textarea>"


def test_hostile_text_is_only_text(receiver: Receiver, staff: Staff) -> None:
    receiver.answer = Answer(status=500, body=HOSTILE.encode())
    subscribe(receiver)
    emit("order.paid", {"note": HOSTILE.replace("\0", "")}, requester="app:a")
    deliver()
    DeliveryAttempt.objects.update(error_detail=HOSTILE.replace("\0", ""))
    delivery = Delivery.objects.get()
    html = page(staff(), delivery)
    assert EVIL not in html
    for sign in ("\x1b", "\u202e", "\u2066", "\x00", "\x07"):
        assert sign not in html
    assert "\\u202egnp.exe\\u2066" in part(html, "response")
    own = html[html.index("wh-delivery") : html.index("</fieldset>")]
    assert not re.search(r"<script|<style| style=| on\w+=|href=\"javascript:", own)
    assert own.count("<textarea") == own.count("</textarea>") == 1
    # What is copied means what was sent.
    assert "\\u202egnp.exe" in curl_of(html)[-1]


def test_what_cannot_be_sent_is_told(receiver: Receiver, staff: Staff) -> None:
    delivery = delivery_of(receiver, headers=HEADERS)
    client = staff()
    delivery.subscription.secrets.all().delete()
    html = page(client, delivery)
    assert "It has no live signing secret" in html
    assert "X-Token: ********" in html


def test_what_cannot_be_rendered_is_told(receiver: Receiver, staff: Staff) -> None:
    delivery = delivery_of(receiver)
    Subscription.objects.update(format="unknown")
    html = page(staff(), delivery)
    assert "It cannot be rendered in its format." in html
    assert "<textarea" not in html


def test_headers_that_cannot_be_read_are_told(
    receiver: Receiver, staff: Staff, settings: Any
) -> None:
    delivery = delivery_of(receiver, headers=HEADERS)
    settings.WEBHOOKS = {
        **settings.WEBHOOKS,
        "ENCRYPTION_KEYS": ["8uGVaDLI5t6jzSCSb0EOTm9yBhXDDzvYu2nqmF0YwKM="],
    }
    assert "Its own headers cannot be read" in page(staff(), delivery)


def test_of_a_large_body_the_beginning_is_shown(receiver: Receiver, staff: Staff) -> None:
    subscribe(receiver)
    emit("order.paid", {"note": "x" * 100_000}, requester="app:a")
    fan_out_all()
    html = page(staff(), Delivery.objects.get())
    assert re.search(r"Shown is the beginning of 100,\d\d\d bytes\.", html)
    assert 65_000 < html.count("x") < 70_000
    assert curl_of(html)[-2:] == ["--data-binary", "@body"]


def test_a_request_that_has_changed_since_says_so(receiver: Receiver, staff: Staff) -> None:
    subscribe(receiver, batch_size=2)
    emit_orders(2)
    deliver()
    delivery = Delivery.objects.first()
    assert delivery is not None
    client = staff()
    assert "It is not as it was sent" not in page(client, delivery)
    Message.objects.update(body_digest="0" * 64)
    assert "It is not as it was sent" in page(client, delivery)


@pytest.mark.parametrize("code", REMEDIES)
def test_each_error_has_its_remedy_beside_it(receiver: Receiver, staff: Staff, code: str) -> None:
    delivery = delivery_of(receiver)
    now = timezone.now()
    DeliveryAttempt.objects.create(
        subscription_id=delivery.subscription_id,
        message_id=delivery.event_id,
        due_at=now,
        started_at=now,
        error_code=code,
    )
    html = page(staff(), delivery)
    assert f"How to fix: {remedy(code).fix}" in text(html)
    assert f"{reverse('admin:webhooks_deliveryattempt_reasons')}#{code}" in html
    # Who may not see attempts is not led there.
    assert "/reasons/" not in page(staff("view_delivery"), delivery)


def test_the_page_costs_the_same_for_many_attempts(receiver: Receiver, staff: Staff) -> None:
    delivery = delivery_of(receiver)
    client = staff()
    now = timezone.now()

    def add(count: int) -> None:
        for number in range(count):
            DeliveryAttempt.objects.create(
                subscription_id=delivery.subscription_id,
                message_id=delivery.event_id,
                number=number,
                due_at=now,
                started_at=now,
                error_code="timeout",
            )

    add(2)
    page(client, delivery)
    with CaptureQueriesContext(connection) as few:
        page(client, delivery)
    add(70)
    with CaptureQueriesContext(connection) as many:
        html = page(client, delivery)
    assert len(many) == len(few) <= 20
    assert "There were more before these" in html
    assert html.count("<details") == 10


# Who may do what


@pytest.mark.parametrize("name", ACTIONS)
def test_without_its_permission_an_action_is_refused_and_not_offered(
    receiver: Receiver, staff: Staff, name: str
) -> None:
    permission, button, state = ACTIONS[name]
    delivery = delivery_of(receiver, state)
    others = {each for each, _, _ in ACTIONS.values()} - {permission}
    client = staff("view_delivery", *others)
    target = address(name, delivery)
    before = Delivery.objects.values().get()
    assert target not in page(client, delivery)
    assert client.get(target).status_code == 403
    assert client.post(target).status_code == 403
    assert Delivery.objects.values().get() == before
    assert not LogEntry.objects.exists()
    # With it, and without the view of deliveries, neither.
    assert staff(permission).post(target).status_code == 403
    allowed = page(staff("view_delivery", permission), delivery)
    assert target in allowed
    assert button in allowed


@pytest.mark.parametrize("name", ACTIONS)
def test_a_request_from_elsewhere_does_nothing(receiver: Receiver, name: str) -> None:
    delivery = delivery_of(receiver, ACTIONS[name][2])
    before = Delivery.objects.values().get()
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create_user("root", is_staff=True, is_superuser=True))
    assert client.post(address(name, delivery)).status_code == 403
    assert Delivery.objects.values().get() == before


@pytest.mark.parametrize("name", ACTIONS)
def test_it_is_asked_first(receiver: Receiver, staff: Staff, name: str) -> None:
    delivery = delivery_of(receiver, ACTIONS[name][2])
    before = Delivery.objects.values().get()
    html = html_of(staff(), address(name, delivery))
    assert "csrfmiddlewaretoken" in html
    assert "No, take me back" in html
    assert Delivery.objects.values().get() == before


@pytest.mark.parametrize("name", ACTIONS)
def test_an_id_that_is_none_is_not_found(staff: Staff, name: str) -> None:
    client = staff()
    for wrong in ("nonsense", "dlv_" + "1" * 32):
        target = reverse(f"admin:webhooks_delivery_{name}", args=[wrong])
        assert client.post(target).status_code == 404


def test_only_what_can_be_done_is_offered(receiver: Receiver, staff: Staff) -> None:
    client = staff()
    delivery = delivery_of(receiver)
    html = page(client, delivery)
    assert [address(name, delivery) in html for name in ACTIONS] == [False, True, True]
    Delivery.objects.all().settle(State.DEAD, now=db_now("default"))
    html = page(client, delivery)
    assert [address(name, delivery) in html for name in ACTIONS] == [True, False, False]
    lifecycle.change_status(delivery.subscription, "unsubscribed", reason="client")
    html = page(client, delivery)
    assert [address(name, delivery) in html for name in ACTIONS] == [False, False, False]


# What they do


def done(client: Client, name: str, delivery: Delivery, **data: Any) -> str:
    answer = client.post(address(name, delivery), data)
    assert answer.status_code == 302, answer.content.decode()[:2000]
    assert answer.url == url_of(Delivery, "change", delivery.pk)
    return html_of(client, answer.url)


def test_resend_sends_it_again_and_is_written_down(receiver: Receiver, staff: Staff) -> None:
    delivery = delivery_of(receiver, State.DEAD)
    assert f"It is sent again, as {delivery.event_id}." in done(staff(), "resend", delivery)
    deliver()
    assert states() == {"delivered": 1}
    [entry] = LogEntry.objects.all()
    assert (entry.object_id, entry.action_flag) == (delivery.pk, 2)
    assert entry.change_message == f"It is sent again, as {delivery.event_id}."


def test_resend_may_give_it_another_id(receiver: Receiver, staff: Staff) -> None:
    delivery = delivery_of(receiver, State.DELIVERED)
    done(staff(), "resend", delivery, new_id="on")
    deliver()
    assert receiver.ids == {Message.objects.get().pk: 1}


def test_retry_now_makes_it_due(receiver: Receiver, staff: Staff) -> None:
    receiver.answer = Answer(status=500)
    subscribe(receiver, retry_schedule=[3600])
    emit_orders(1)
    deliver()
    receiver.answer = Answer()
    assert "It is due now." in done(staff(), "retry", Delivery.objects.get())
    deliver()
    assert states() == {"delivered": 1}
    assert LogEntry.objects.count() == 1


def test_cancel_ends_it(receiver: Receiver, staff: Staff) -> None:
    delivery = delivery_of(receiver)
    html = done(staff(), "cancel", delivery)
    assert "Cancelled without an attempt" in html
    assert "An operator cancelled it." in html
    deliver()
    assert receiver.posts == []
    assert LogEntry.objects.get().change_message == "It is cancelled."


def test_what_is_refused_is_told_and_not_written_down(receiver: Receiver, staff: Staff) -> None:
    delivery = delivery_of(receiver)
    until = db_now("default") + timedelta(minutes=1)
    Lane.objects.update(token="1" * 32, lease_until=until, claim_at=until)
    assert "A worker has the queue of this subscription now" in done(staff(), "cancel", delivery)
    assert states() == {"pending": 1}
    assert not LogEntry.objects.exists()


# Failure reasons


REASONS = "admin:webhooks_deliveryattempt_reasons"


def test_each_reason_has_a_row_a_remedy_and_an_example(receiver: Receiver, staff: Staff) -> None:
    delivery = delivery_of(receiver)
    now = timezone.now()
    newest = {}
    for _ in range(2):
        for code in REMEDIES:
            attempt = DeliveryAttempt.objects.create(
                subscription_id=delivery.subscription_id,
                message_id=delivery.event_id,
                due_at=now,
                started_at=now,
                error_code=code,
            )
            newest[code] = attempt.pk
    html = html_of(staff(), reverse(REASONS))
    rows = dict(re.findall(r'<tr id="(\w+)">(.*?)</tr>', html, re.DOTALL))
    assert rows.keys() == REMEDIES.keys() | ENDINGS.keys()
    for code in REMEDIES:
        said = text(rows[code])
        assert remedy(code).title in said
        assert remedy(code).fix in said
        assert url_of(DeliveryAttempt, "change", newest[code]) in rows[code]
    for code in ENDINGS.keys() - REMEDIES.keys():
        assert ending(code).fix in text(rows[code])


def test_a_reason_without_an_example_says_so(receiver: Receiver, staff: Staff) -> None:
    receiver.answer = Answer(status=500)
    subscribe(receiver, retry_schedule=[])
    emit_orders(1)
    deliver()
    html = html_of(staff(), reverse(REASONS))
    assert html.count("an attempt</a>") == 1
    assert url_of(DeliveryAttempt, "change", DeliveryAttempt.objects.get().pk) in html


def test_the_reasons_are_for_those_who_see_attempts(receiver: Receiver, staff: Staff) -> None:
    html_of(staff("view_delivery"), reverse(REASONS), status=403)
    client = staff("view_deliveryattempt")
    html_of(client, reverse(REASONS))
    assert reverse(REASONS) in html_of(client, url_of(DeliveryAttempt))


def test_an_example_is_found_by_an_index(receiver: Receiver) -> None:
    if not connection.features.supports_partial_indexes:
        pytest.skip("there the newest attempts are looked through")
    with CaptureQueriesContext(connection) as captured:
        assert DeliveryAttempt.objects.all().newest_failures(["timeout"]) == {}
    [query] = captured
    failed = DeliveryAttempt.objects.exclude(error_code="").filter(error_code="timeout")
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET enable_seqscan = off")
        plan = failed.order_by("-pk").values_list("pk")[:1].explain()
        if connection.vendor == "postgresql":
            cursor.execute("RESET enable_seqscan")
    assert "webhooks_attempt_failed" in plan
    assert "SCAN webhooks" not in plan
    assert "TEMP B-TREE" not in plan
    assert "Sort" not in plan
    assert query["sql"].count("error_code") == 2


def test_without_such_indexes_the_newest_attempts_are_looked_through(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.answer = Answer(status=500)
    subscribe(receiver, retry_schedule=[])
    emit_orders(2)
    deliver()
    newest = DeliveryAttempt.objects.latest("pk").pk
    monkeypatch.setattr(connection.features, "supports_partial_indexes", False)
    with CaptureQueriesContext(connection) as captured:
        found = DeliveryAttempt.objects.all().newest_failures(["timeout", "server_error"])
    assert found == {"server_error": newest}
    assert len(captured) == 1
