"""A client, its subscriptions and an operator, in a process of their own: all that has a secret.

Told by the environment (``JOURNEY``: URLs and canaries, as JSON); prints, as JSON, what the service
made up itself.
"""

from __future__ import annotations

import json
import os
import re
import sys
from datetime import timedelta
from typing import Any

import django

django.setup()

from django.contrib.auth import get_user_model  # noqa: E402
from django.test import Client  # noqa: E402
from django.utils import timezone  # noqa: E402
from oauth2_provider.models import AccessToken, Application  # noqa: E402

from tests.admin.browsing import Form  # noqa: E402
from tests.world import emit_orders, until  # noqa: E402
from webhooks import emit_many  # noqa: E402
from webhooks.models import Delivery, DeliveryAttempt, Replay, Subscription  # noqa: E402

TOLD = json.loads(os.environ["JOURNEY"])
CANARIES = TOLD["canaries"]
URLS = TOLD["urls"]


class Api:
    """The API, for one application."""

    def __init__(self) -> None:
        application = Application.objects.create(
            name="canary",
            client_id="canary",
            client_type=Application.CLIENT_CONFIDENTIAL,
            authorization_grant_type=Application.GRANT_CLIENT_CREDENTIALS,
        )
        self.token = AccessToken.objects.create(
            application=application,
            token="token-of-the-client",
            scope="webhooks:read webhooks:write",
            expires=timezone.now() + timedelta(hours=1),
        ).token
        self.requester = "app:canary"

    def __call__(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        answer = Client(raise_request_exception=False).generic(
            method,
            f"/webhooks/{path}",
            json.dumps(body or {}),
            content_type="application/json",
            HTTP_AUTHORIZATION=f"Bearer {self.token}",
        )
        assert answer.status_code == status, (method, path, answer.status_code, answer.content)
        return answer.json() if answer.content else None


def travel() -> list[str]:
    """Everything that a subscription may go through; the secrets that the service made."""
    api = Api()
    asked = {
        "event_types": ["order.*", "webhooks.*"],
        "headers": {"X-Canary": CANARIES["header"]},
        "basic_auth": f"user:{CANARIES['password']}",
        "retry_schedule": [1],
    }
    brought = {"callback_url": URLS["good"], "secret": CANARIES["brought"]}
    good = api("POST", "subscriptions/", {**asked, **brought}, 201)
    bad = api("POST", "subscriptions/", {**asked, "callback_url": URLS["bad"]}, 201)
    proven = {"callback_url": URLS["hook"], "handshake": "x-hook-secret"}
    hook = api("POST", "subscriptions/", {**asked, **proven}, 201)
    refused(api, asked)
    one, other = f"subscriptions/{good['id']}/", f"subscriptions/{bad['id']}/"
    api("PATCH", one, {"headers": {"X-Canary": CANARIES["header"], "X-New": CANARIES["new"]}})
    changed = {key: asked[key] for key in ("event_types", "headers", "retry_schedule")}
    api("PUT", other, {**changed, "callback_url": URLS["bad"], "basic_auth": asked["basic_auth"]})
    rotated = api("POST", f"{one}rotate-secret/", {"overlap_seconds": 60})
    api("POST", f"{other}rotate-secret/", {"secret": CANARIES["rotated"]})
    for each in (one, other):
        api("POST", f"{each}ping/")
        api("GET", each)
    until(
        lambda: Subscription.objects.get(pk=hook["id"]).status == "subscribed",
        40,
        "the handshake",
    )
    emit_orders(1, api.requester)
    until(lambda: ended(good["id"]) and ended(bad["id"]), 40, "the deliveries")
    again(api, one, other, bad["id"])
    for action in ("suspend/", "resume/"):
        api("POST", f"{one}{action}")
    api("GET", "subscriptions/")
    api("GET", "status/")
    api("GET", f"{other}health/")
    made = [
        good["secret"],
        bad["secret"],
        hook["secret"],
        rotated["secret"],
        administer(good["id"]),
    ]
    api("DELETE", f"subscriptions/{hook['id']}/", status=204)
    return made


def refused(api: Api, asked: dict[str, Any]) -> None:
    """Bodies with what is secret in the wrong place."""
    header, password = CANARIES["header"], CANARIES["password"]
    for wrong in (
        {"headers": {"X-Canary": f"{header}\n"}},
        {"headers": {"Host": header}},
        {"headers": {"Authorization": header}},
        {"basic_auth": f"no colon {password}"},
        {"secret": CANARIES["brought"] + "x"},
        {"retry_schedule": header},
    ):
        api("POST", "subscriptions/", {**asked, "callback_url": URLS["good"], **wrong}, 400)


def ended(subscription: str) -> bool:
    orders = Delivery.objects.filter(subscription=subscription, event__type="order.paid")
    return orders.exclude(state="pending").exists()


def again(api: Api, one: str, other: str, bad: str) -> None:
    """Redelivery and replay."""
    before = DeliveryAttempt.objects.count()
    delivery = Delivery.objects.filter(subscription=bad, state="dead").first()
    assert delivery is not None
    api("POST", f"deliveries/{delivery.pk}/redeliver/", {"new_id": True}, 202)
    since = (timezone.now() - timedelta(hours=1)).isoformat()
    api("POST", f"{one}replay/", {"from": since, "states": ["delivered"]}, 202)
    until(
        lambda: (
            not Replay.objects.exclude(state="finished").exists()
            and DeliveryAttempt.objects.count() >= before + 3
        ),
        40,
        "the replay",
    )


def administer(pk: str) -> str:
    """An operator makes a subscription, and changes one; the secret that was shown."""
    admin = get_user_model().objects.create_superuser("root", "root@example.com", "pass")
    browser = Client()
    browser.force_login(admin)

    def submit(url: str, **changes: Any) -> Any:
        form = Form(browser.get(url).content.decode()).data
        return browser.post(url, {**form, **changes})

    page = submit(
        "/admin/webhooks/subscription/add/",
        requester="app:admin",
        callback_url=URLS["good"],
        event_types='["order.paid"]',
    )
    found = re.search(r"whsec_[\w+/=]+", page.content.decode())
    assert found, page.content
    where = f"/admin/webhooks/subscription/{pk}/change/"
    assert submit(where, description="seen", callback_url=URLS["good"]).status_code == 302
    for path in ("", f"{pk}/history/", f"{pk}/change/"):
        browser.get(f"/admin/webhooks/subscription/{path}")
    return found[0]


if __name__ == "__main__":
    secrets = travel()
    emit_many("order.paid", [{"data": {"last": True}, "requester": "app:canary"}])
    sys.stdout.write(json.dumps(secrets))
