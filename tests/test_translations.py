"""The German catalogues are whole and in step with the sources, and the pages show no English."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.core.management import call_command
from django.test import Client
from django.urls import reverse
from django.utils import translation

from tests.admin.browsing import populate, url_of
from tests.catalogues import FOLDERS, compiled, english, entries, marked
from webhooks import health, lifecycle, notices
from webhooks.admin.sentences import exactly
from webhooks.clock import db_now
from webhooks.models import Delivery, DeliveryAttempt, Event, Lane, Message, Subscription, Worker
from webhooks.models.subscription import FOR_FAILING
from webhooks.templatetags.webhooks_admin import capped, milliseconds, number, percent

PLACEHOLDER = re.compile(r"%\(\w+\)[a-z]|%[a-z%]")
TAG = re.compile(r"</?\w+[^>]*>")


@pytest.fixture
def german() -> Iterator[None]:
    with translation.override("de"):
        yield


# The catalogues


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_string_has_a_translation(folder: str) -> None:
    for key, translated in entries(folder).items():
        assert len(translated) == (2 if key.plural else 1), key
        assert all(text.strip() for text in translated), key


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_translation_is_none_that_repeats_an_english_sentence(folder: str) -> None:
    repeated = {key.text for key, texts in entries(folder).items() if key.text in texts}
    words = {text: re.findall(r"\b[a-z]{3,}", PLACEHOLDER.sub("", text)) for text in repeated}
    assert {text for text, found in words.items() if len(found) > 1} == set()


@pytest.mark.parametrize("folder", FOLDERS)
def test_placeholders_and_tags_are_those_of_the_string(folder: str) -> None:
    for key, translated in entries(folder).items():
        for of in (PLACEHOLDER, TAG):
            wanted = Counter(of.findall(key.plural or key.text))
            assert [Counter(of.findall(text)) for text in translated] == [wanted] * len(translated)


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_the_sources_mark_is_what_the_catalogue_holds(folder: str) -> None:
    asked = {key for _path, key in marked(folder)}
    assert len(asked) > 100
    known = set(entries(folder))
    assert asked - known == set(), "run makemessages, and translate"
    assert known - asked == set(), "run makemessages: nobody uses these"


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_compiled_file_is_in_step(folder: str) -> None:
    written = {(key.context, key.text): translated for key, translated in entries(folder).items()}
    read = {(key.context, key.text): translated for key, translated in compiled(folder).items()}
    assert read == written, "run compilemessages"


# Numbers, times and plurals


def test_numbers_and_lengths_are_written_as_the_language_writes_them(german: None) -> None:
    assert (number(1204), capped(10_000), percent(0.254)) == ("1.204", "10.000+", "25,4 %")
    assert milliseconds(12_500) == "12.500 ms"
    with translation.override("en"):
        assert (number(1204), capped(10_000), percent(0.254)) == ("1,204", "10,000+", "25.4 %")


def test_a_length_of_time_has_no_grammatical_case(german: None) -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    days = datetime(2026, 1, 6, 2, tzinfo=UTC) - moment
    assert (health.headlines.span(days), exactly(days)) == ("5 d", "5 d 2 h")


def test_one_and_many_differ(german: None) -> None:
    one, many = health.reasons.dead_letters(1), health.reasons.dead_letters(3)
    assert one.message.startswith("1 Zustellung wurde ")
    assert many.message.startswith("3 Zustellungen wurden ")


# The pages


@pytest.fixture
def subscription(db: None) -> Subscription:
    made = populate()
    Event.objects.update(occurred_at=datetime(2026, 11, 22, 15, 5, tzinfo=UTC))
    Delivery.objects.settle("dead", now=db_now("default"), reason="timeout")
    return made


@pytest.fixture
def client(db: None) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("staff"))
    return client


def pages(subscription: Subscription) -> list[str]:
    lists = ["webhookhealth", "workersandschedules", "deadletter", "event", "delivery", "lane"]
    [event, delivery] = [Event.objects.get(), Delivery.objects.get()]
    rows: list[Any] = [subscription, event, delivery, Message.objects.get(), Lane.objects.get()]
    rows += [DeliveryAttempt.objects.all()[0], Worker.objects.get()]
    return [
        *(reverse(f"admin:webhooks_{name}_changelist") for name in lists),
        *(url_of(type(row), "change", row.pk) for row in rows),
        url_of(Subscription, "add"),
        url_of(Subscription),
        url_of(DeliveryAttempt, "reasons"),
        *(url_of(Subscription, name, subscription.pk) for name in ("suspend", "rotate", "replay")),
        url_of(Subscription, "unsubscribe", subscription.pk),
        url_of(Event, "resend", event.pk),
        url_of(Delivery, "resend", delivery.pk),
        reverse("admin:webhooks_deadletter_retry"),
        reverse("admin:webhooks_deadletter_discard"),
    ]


def test_no_english_is_left_on_the_pages(
    subscription: Subscription, client: Client, german: None
) -> None:
    for url in pages(subscription):
        response = client.get(url)
        assert response.status_code == 200, url
        assert english(response.content.decode()) == [], url


def test_an_untranslated_page_is_seen_as_one(subscription: Subscription, client: Client) -> None:
    html = client.get(url_of(Subscription, "suspend", subscription.pk)).content.decode()
    assert "What waits already is kept." in html
    assert "Suspend the subscription?" in english(html)


def test_times_of_day_have_24_hours(
    subscription: Subscription, client: Client, german: None
) -> None:
    html = client.get(reverse("admin:webhooks_event_changelist")).content.decode()
    assert "22. November 2026 15:05" in html


@pytest.mark.parametrize("language", ["ar", "he"])
def test_pages_are_drawn_from_right_to_left(
    subscription: Subscription, client: Client, language: str
) -> None:
    delivery = Delivery.objects.get()
    with translation.override(language):
        for url in (
            reverse("admin:webhooks_webhookhealth_changelist"),
            url_of(Subscription, "change", subscription.pk),
            url_of(Delivery, "change", delivery.pk),
        ):
            html = client.get(url).content.decode()
            assert 'dir="rtl"' in html, url
            # Geometry is written for machines, whatever digits and signs the language has.
            assert not re.search(r'\b(x|y|width|height|viewBox)="[^"]*[,\u0660-\u0669]', html), url


# What programs read


def test_the_api_answers_in_english(db: None, german: None) -> None:
    answer = Client().get("/webhooks/subscriptions/").json()
    assert answer["detail"] == "Authentication credentials were not provided."
    assert translation.get_language() == "de"


def test_the_command_for_monitoring_speaks_english(
    db: None, german: None, capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("webhooks_status")
    assert "Idle — no events in the last 24 hours." in capsys.readouterr().out


@pytest.mark.django_db(transaction=True)
def test_owners_are_told_in_english(settings: Any, german: None) -> None:
    made, _secret = lifecycle.subscribe(
        requester="app:shop",
        callback_url="http://127.0.0.1:9/in",
        event_types=["order.*"],
        contact_email="owner@example.com",
    )
    lifecycle.suspend(made, reason=FOR_FAILING)
    notices.tell_owners("default")
    [sent] = mail.outbox
    assert "The subscription was suspended by the service" in sent.body
    assert "vom Dienst ausgesetzt" in health.reasons.suspended(made).message
