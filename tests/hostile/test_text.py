"""What strangers wrote stays text: part of a line in the log, no markup and no link in a page."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.db import OperationalError, models
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.api.conftest import Speaker, _service, api, speak  # noqa: F401
from tests.world import Receiver, emit_orders, fan_out_all
from webhooks import lifecycle, redelivery
from webhooks.access import Entitlements
from webhooks.engine.transactions import atomically
from webhooks.models import (
    Delivery,
    DeliveryAttempt,
    DeliveryStats,
    Duty,
    Message,
    Replay,
    Subscription,
    Worker,
)
from webhooks.models.stats import Tally
from webhooks.probing import ping

FORGED = "a\r\n2026-01-01 INFO all is well\x1b[2J\x00\x85\u2028b"


# Logs


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    """What has been logged; at the end of the test, each as one printable line."""

    def lines(records: list[logging.LogRecord] | None = None) -> list[str]:
        found = caplog.records if records is None else records
        return [each.getMessage() for each in found if each.name.startswith("webhooks")]

    with caplog.at_level(logging.DEBUG):
        yield lines
        written = lines(caplog.get_records("call"))
        assert written, "nothing was logged"
        assert [line for line in written if not line.isprintable()] == []


def fail_for(owner: Any) -> bool:
    raise RuntimeError("the host's rule failed")


@pytest.mark.django_db
def test_no_requester_forges_a_line(said: Any, settings: Any) -> None:
    settings.WEBHOOKS = {**settings.WEBHOOKS, "ENTITLEMENT": f"{__name__}.fail_for"}
    made, _ = lifecycle.subscribe(
        requester="app:a", callback_url="http://127.0.0.1:9/", event_types=["order.paid"]
    )
    Subscription.objects.update(requester=FORGED.replace("\0", ""))
    made.refresh_from_db()
    assert Entitlements([made]).granted(made) is not None
    assert any("2026-01-01 INFO" in line for line in said())


@pytest.mark.django_db(transaction=True)
def test_no_actor_forges_a_line(said: Any, receiver: Receiver) -> None:
    made, _ = lifecycle.subscribe(
        requester="app:a", callback_url=receiver.url, event_types=["order.paid"]
    )
    ping(made, actor=FORGED)
    emit_orders(1, "app:a")
    fan_out_all()
    Delivery.objects.update(state="dead", settled_at=timezone.now())
    redelivery.redeliver(Delivery.objects.get(), actor=FORGED)
    assert sum("2026-01-01 INFO" in line for line in said()) == 2


@pytest.mark.django_db(transaction=True)
def test_no_error_of_the_database_forges_a_line(said: Any) -> None:
    errors = [OperationalError(FORGED), OperationalError("")]

    def work() -> str:
        if errors:
            raise errors.pop()
        return "done"

    assert atomically("default", work) == "done"
    assert any("2026-01-01 INFO" in line for line in said())


@pytest.mark.django_db
def test_no_path_or_method_forges_a_line(
    said: Any,
    api: Speaker,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*args: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("webhooks.api.views.base.APIView.initial", broken)
    api.browser.raise_request_exception = False
    for path in ("event-types/a%0A2026%0D%1B%C2%85%E2%80%A8b/", "subscriptions/%0A%00/"):
        for method in ("GET", "GET\r\nforged"):
            assert api.send(method, path).status_code == 500
    assert len(said()) == 4


# The admin

EVIL = "<x-evil onload=evil()>\"'><x-evil></textarea></pre></script><x-evil>&lt;x-evil&gt;"
SCHEMES = ("javascript:evil()//", " DATA:text/html,")


class Page(HTMLParser):
    """What a browser would make of a page: its elements, what they do, and where they lead."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.addresses: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name in ("href", "src", "action", "formaction", "data", "poster", "srcset"):
                self.addresses.append((value or "").strip())

    def handle_data(self, data: str) -> None:
        self.text += data


def taint(model: Any, scheme: str) -> int:
    """Write hostile text into every column of text that a stranger may reach; into how many."""
    changes: dict[str, Any] = {}
    for field in model._meta.concrete_fields:
        if field.is_relation or field.primary_key or hasattr(field, "prefix") or field.choices:
            continue
        if isinstance(field, models.JSONField):
            changes[field.name] = {scheme + EVIL: [scheme + EVIL]}
        elif (
            field.get_internal_type() in ("CharField", "TextField")
            and "eal" not in type(field).__name__
        ):
            changes[field.name] = (scheme + EVIL)[: field.max_length]
    changes.pop("subscription_id", None)  # DeliveryStats: the key of the row
    if changes:
        assert model._default_manager.update(**changes)
    return len(changes)


@pytest.fixture
def everything(db: None) -> list[Any]:
    """A row of every model that the admin shows; the models."""
    made, _ = lifecycle.subscribe(
        requester="app:a", callback_url="http://127.0.0.1:9/", event_types=["order.paid"]
    )
    [event] = emit_orders(1, "app:a")
    fan_out_all()
    now = timezone.now()
    message = Message.objects.create(subscription=made, body_digest="0" * 64)
    Delivery.objects.update(message=message, state="dead", settled_at=now)
    for message_id in (event.pk, message.pk):
        DeliveryAttempt.objects.create(
            subscription=made, message_id=message_id, due_at=now, started_at=now
        )
    Replay.objects.create(subscription=made, from_at=now - timedelta(1), to_at=now, states=["dead"])
    tally = Tally()
    tally.count(
        subscription_id=made.pk,
        event_type="order.paid",
        at=now,
        code="",
        elapsed_ms=7,
        first_try=True,
        dead=False,
        ack_ms=70,
    )
    DeliveryStats.objects.add(tally)
    Worker.objects.create(
        slot=0, token=uuid.uuid4(), host="host", pid=1, started_at=now, heartbeat_at=now
    )
    Duty.objects.ensure()
    return [model for model in admin.site._registry if model._meta.app_label == "webhooks"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_is_stored_is_text_on_every_page(scheme: str, everything: list[Any]) -> None:
    written = sum(taint(model, scheme) for model in everything if model is not Duty)
    assert written > 20
    browser = Client()
    browser.force_login(User.objects.create_superuser("root"))
    shown = 0
    for model in everything:
        name = f"webhooks_{model._meta.model_name}"
        there = {pattern.name for pattern in admin.site._registry[model].get_urls()}
        changelist = reverse(f"admin:{name}_changelist")
        urls = [changelist, f"{changelist}?since=all"]
        pages = [f"{name}_{page}" for page in ("change", "history") if f"{name}_{page}" in there]
        if pages:
            for row in model._default_manager.all():
                urls += [reverse(f"admin:{page}", args=[row.pk]) for page in pages]
        for url in urls:
            answer = browser.get(url)
            assert answer.status_code in (200, 302), url
            page = Page(answer.content.decode())
            assert "x-evil" not in page.tags, url
            assert not {each for each in page.attributes if each.startswith("on")}, url
            for address in page.addresses:
                assert (
                    address.startswith(("/", "?", "#", ".", "http://", "https://")) or not address
                )
            shown += "x-evil" in page.text
    assert shown > 10
