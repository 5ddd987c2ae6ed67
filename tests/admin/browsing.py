"""What the tests of the admin share: rows of every kind, pages as text, forms as browsers do."""

from __future__ import annotations

import uuid
from html.parser import HTMLParser
from typing import Any

from django.contrib.admin.utils import quote
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from webhooks import emit, lifecycle
from webhooks.models import (
    Delivery,
    DeliveryAttempt,
    DeliveryStats,
    Duty,
    Event,
    Lane,
    Message,
    Subscription,
    Worker,
)
from webhooks.models.stats import Tally

LOGS = [Event, Delivery, Message, DeliveryAttempt, DeliveryStats, Lane, Worker, Duty]
URL = "http://127.0.0.1:9/in?token=in-the-query"
EVIL = "<script>alert('x')</script>"
HUSH = ("whsec_", "hush-header", "hush-password", "gAAAA")


def url_of(model: Any, page: str = "changelist", pk: Any = None) -> str:
    name = f"admin:webhooks_{model._meta.model_name}_{page}"
    return reverse(name, args=[] if pk is None else [quote(pk)])


def shows(html: str, model: Any, pk: Any) -> bool:
    """Whether a list links to the page of this row."""
    return url_of(model, "change", pk) in html


def populate(n: int = 1) -> Subscription:
    """A subscription with secrets of every kind, and ``n`` rows in each log."""
    subscription, _secret = lifecycle.subscribe(
        requester="app:shop", callback_url=URL, event_types=["order.*"], description=EVIL
    )
    lifecycle.rotate_secret(subscription)
    subscription.headers = '{"Authorization": "hush-header"}'
    subscription.basic_auth = "user:hush-password"
    subscription.save()
    now = timezone.now()
    tally = Tally()
    for i in range(n):
        event = emit(
            "order.paid", {"card": f"4111-{EVIL}"}, requester="app:shop", subject=f"order:{i}"
        )
        message = Message.objects.create(subscription=subscription, body_digest="0" * 64)
        Delivery.objects.create(event=event, subscription=subscription, message=message)
        for message_id in (event.pk, message.pk):
            DeliveryAttempt.objects.create(
                subscription=subscription,
                message_id=message_id,
                due_at=now,
                started_at=now,
                status_code=500,
                error_code="http_5xx",
                error_detail=EVIL,
                excerpt=f"answer-{EVIL}",
            )
        tally.count(
            subscription_id=subscription.pk,
            event_type=f"order.t{i}",
            at=now,
            code="",
            elapsed_ms=7,
            first_try=True,
            dead=False,
            ack_ms=70,
        )
        Worker.objects.create(
            slot=Worker.objects.count(),
            token=uuid.uuid4(),
            host="host",
            pid=1,
            started_at=now,
            heartbeat_at=now,
        )
    DeliveryStats.objects.add(tally)
    Duty.objects.ensure()
    return subscription


def html_of(client: Client, url: str, status: int = 200, **query: Any) -> str:
    response = client.get(url, query)
    assert response.status_code == status, response.headers
    return response.content.decode()


class Form(HTMLParser):
    """What a browser would send back from the page's form, unchanged."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.data: dict[str, Any] = {}
        self._inside = False
        self._text: str | None = None
        self._select: str | None = None
        self.feed(html)
        assert self.data, "the page has no form"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        name = given.get("name")
        if tag == "form":
            self._inside = given.get("id") == "subscription_form"
        elif not self._inside:
            return
        elif tag == "input" and name and not name.startswith("_"):
            kind = given.get("type")
            if kind not in ("submit", "checkbox") or "checked" in given:
                self.data[name] = given.get("value") or ""
        elif tag == "textarea":
            self._text = name
            self.data[name or ""] = ""
        elif tag == "select":
            self._select = name
        elif tag == "option" and self._select and "selected" in given:
            self.data[self._select] = given.get("value") or ""

    def handle_data(self, data: str) -> None:
        if self._text:
            self.data[self._text] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._inside = False
        elif tag == "textarea" and self._text:
            self.data[self._text] = self.data[self._text].removeprefix("\n")
            self._text = None
        elif tag == "select":
            self._select = None


def submit(client: Client, url: str, **changes: Any) -> Any:
    """Open a page, change some fields, save; the answer to the save itself."""
    form = Form(html_of(client, url)).data
    assert set(changes) <= set(form) | {"ordered"}, sorted(form)
    return client.post(url, {**form, **changes})
