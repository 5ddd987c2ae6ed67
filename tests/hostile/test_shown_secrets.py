"""No error report, and no form in which a row is shown or kept, has a secret."""

from __future__ import annotations

import base64
import json
import pickle
import secrets as random
from html import unescape
from typing import Any

import pytest
from django.core import serializers
from django.core.serializers.json import DjangoJSONEncoder
from django.forms.models import model_to_dict
from django.test import RequestFactory
from django.utils.log import AdminEmailHandler
from django.views.debug import ExceptionReporter
from rest_framework.renderers import BrowsableAPIRenderer, JSONRenderer
from rest_framework.serializers import ModelSerializer

from tests.api.conftest import Speaker, _service, api, speak  # noqa: F401
from tests.hostile.canaries import search
from tests.world import (
    Receiver,
    deliver,
    emit_orders,
    subscribe,
)
from webhooks import lifecycle, probing
from webhooks.formats.signing import generate_secret
from webhooks.models import SigningSecret, Subscription

pytestmark = pytest.mark.django_db(transaction=True)

VALUE, PASSWORD = "canary-of-a-header", "canary-of-a-password"


# Reports of errors


def readable_secret() -> str:
    """One whose key is a text: a report may cut and quote other bytes in too many ways."""
    return "whsec_" + base64.b64encode(random.token_hex(16).encode()).decode()


def reports(error: BaseException, request: Any = None) -> str:
    """What is mailed to the admins, as text and as HTML with all variables of all frames."""
    # From our frames on: what a test holds in its own is no leak.
    trace = error.__traceback__
    while trace is not None and "/webhooks/" not in trace.tb_frame.f_code.co_filename:
        trace = trace.tb_next
    assert trace is not None
    reporter = ExceptionReporter(request, type(error), error, trace)
    return unescape(reporter.get_traceback_text() + reporter.get_traceback_html())


@pytest.mark.parametrize(
    ("where", "act"),
    [
        ("webhooks.models.Subscription.save", "subscribe"),
        ("webhooks.lifecycle.add_secret", "subscribe"),
        ("webhooks.lifecycle.check_room", "subscribe at once"),
        ("webhooks.edits.add_secret", "rotate"),
        ("webhooks.edits.lock_lane", "update"),
        ("webhooks.formats.base.sign_with_keys", "ping"),
        ("webhooks.probing._post", "ping"),
    ],
)
def test_a_report_of_an_error_shows_no_secret(
    where: str, act: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = readable_secret()
    plain: dict[str, Any] = {"headers": {"X-Token": VALUE}, "basic_auth": f"user:{PASSWORD}"}
    subscription = subscribe(receiver, secret=secret, **plain)
    acts = {
        "subscribe": lambda: subscribe(receiver, secret=secret, **plain),
        "subscribe at once": lambda: lifecycle.subscribe(
            requester="app:a",
            callback_url=receiver.url,
            event_types=["order.*"],
            secret=secret,
            **plain,
        ),
        "rotate": lambda: lifecycle.rotate_secret(subscription, secret=secret),
        "update": lambda: lifecycle.update(subscription, **plain),
        "ping": lambda: probing.ping(subscription),
    }

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("it broke")

    monkeypatch.setattr(where, fail)
    with pytest.raises(RuntimeError, match="it broke") as caught:
        acts[act]()
    report = reports(caught.value)
    assert "it broke" in report
    assert _told_in(report, secret) == []


def _told_in(text: str, secret: str) -> list[Any]:
    return search("report", text.encode(), {"secret": secret, "header": VALUE, "auth": PASSWORD})


def test_the_report_of_a_broken_request_shows_nothing_of_its_body(
    api: Speaker,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("it broke")

    monkeypatch.setattr(Subscription, "full_clean", fail)
    secret = readable_secret()
    asked = {"secret": secret, "headers": {"X-T": VALUE}, "basic_auth": f"user:{PASSWORD}"}
    wanted = {"callback_url": "http://127.0.0.1:9/in", "event_types": ["order.*"], **asked}
    api.browser.raise_request_exception = False
    assert api.post("subscriptions/", wanted).status_code == 500
    [record] = [each for each in caplog.records if "Unexpected error" in each.getMessage()]
    assert record.exc_info is not None
    assert record.exc_info[1] is not None
    request = RequestFactory().post("/webhooks/subscriptions/")
    report = reports(record.exc_info[1], request)
    assert "it broke" in report
    assert _told_in(report, secret) == []


def test_a_delivery_that_cannot_be_built_is_reported_without_its_keys(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    secret = readable_secret()
    subscribe(receiver, secret=secret, headers={"X-Token": VALUE}, basic_auth=f"user:{PASSWORD}")

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("it broke")

    monkeypatch.setattr("webhooks.formats.base.sign_with_keys", fail)
    emit_orders(1)
    deliver()
    [record] = [each for each in caplog.records if "cannot be sent" in each.getMessage()]
    assert record.exc_info is not None
    assert record.exc_info[1] is not None
    assert _told_in(reports(record.exc_info[1]), secret) == []
    sent: list[str] = []

    class Mail(AdminEmailHandler):
        def send_mail(self, *args: Any, **kwargs: Any) -> None:
            sent.append(str(kwargs["html_message"]))

    Mail(include_html=True).emit(record)
    assert "it broke" in sent[0]
    assert _told_in(unescape(sent[0]), secret) == []


# Wherever a model may be shown


def test_no_form_in_which_a_row_is_shown_or_kept_has_a_secret(receiver: Receiver) -> None:
    secret = generate_secret()
    made = subscribe(
        receiver, secret=secret, headers={"X-Token": VALUE}, basic_auth=f"user:{PASSWORD}"
    )
    fresh = SigningSecret(subscription=made, value=secret, last_four=secret[-4:])
    fresh.save()
    rows = [made, fresh, Subscription.objects.get(), *SigningSecret.objects.all()]

    class Rows(ModelSerializer):  # type: ignore[type-arg]
        class Meta:
            model = Subscription
            fields = "__all__"

    class Secrets(ModelSerializer):  # type: ignore[type-arg]
        class Meta:
            model = SigningSecret
            fields = "__all__"

    shown: list[Any] = [serializers.serialize("json", rows)]
    for row in rows:
        shown += [repr(row), str(row), vars(row), model_to_dict(row), pickle.dumps(row)]
        data = (Rows if isinstance(row, Subscription) else Secrets)(row).data
        shown += [
            data,
            JSONRenderer().render(data),
            BrowsableAPIRenderer().get_content(JSONRenderer(), data, "application/json", {}),
        ]
    sealed = made.basic_auth
    shown += [repr(sealed), str(sealed), f"{sealed}", f"{sealed!r}", ascii(sealed)]
    for encode in (json.dumps, DjangoJSONEncoder().encode):
        with pytest.raises(TypeError) as caught:
            encode(sealed)  # type: ignore[operator]
        shown.append(str(caught.value))
    assert _told_in(" ".join(map(str, shown)), secret) == []
    assert "<sealed>" in str(shown)
