"""Clients of the API: applications, users, tokens, sessions, each speaking for itself alone."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.cache import cache
from django.core.cache.backends.base import BaseCache
from django.test import Client as Browser
from django.utils import timezone
from oauth2_provider.models import AccessToken, Application

from tests.world import Receiver
from webhooks import catalog
from webhooks.models import Subscription

READ, WRITE, BILLING = "webhooks:read", "webhooks:write", "billing"


@dataclass
class Speaker:
    """A client of the API. ``get``, ``post``, … take a path below the mount, or a whole URL."""

    token: str = ""
    browser: Browser = field(default_factory=lambda: Browser(enforce_csrf_checks=True))
    requester: str = ""
    application: Any = None

    def send(
        self, method: str, path: str, body: Any = None, *, raw: bytes | None = None, **headers: Any
    ) -> Any:
        if path.startswith("http"):
            path = "/" + path.split("/", 3)[3]
        elif not path.startswith("/"):
            path = f"/webhooks/{path}"
        if self.token:
            headers.setdefault("HTTP_AUTHORIZATION", f"Bearer {self.token}")
        data = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
        kind = headers.pop("content_type", "application/json")
        return self.browser.generic(method, path, data, content_type=kind, **headers)

    def get(self, path: str, **headers: Any) -> Any:
        return self.send("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: Any) -> Any:
        return self.send("POST", path, body, **headers)

    def put(self, path: str, body: Any) -> Any:
        return self.send("PUT", path, body)

    def patch(self, path: str, body: Any) -> Any:
        return self.send("PATCH", path, body)

    def delete(self, path: str) -> Any:
        return self.send("DELETE", path)

    def subscribe(self, url: str = "http://127.0.0.1:9/in", **options: Any) -> dict[str, Any]:
        """A subscription made over HTTP; its JSON."""
        asked = {"callback_url": url, "event_types": ["order.*"], **options}
        answer = self.post("subscriptions/", asked)
        assert answer.status_code == 201, answer.content
        made: dict[str, Any] = answer.json()
        return made


@pytest.fixture(autouse=True)
def _service(settings: Any, db: None) -> Iterator[None]:
    scopes = {READ: "Read", WRITE: "Write", BILLING: "Invoices"}
    settings.OAUTH2_PROVIDER = {"SCOPES": scopes}
    settings.WEBHOOKS = {
        **settings.WEBHOOKS,
        "THROTTLES": dict.fromkeys(["create", "ping", "rotate", "replay"]),
    }
    cache.clear()
    catalog.register("invoice.sent", title="Invoice sent", scope=BILLING, example={"invoice": 1})
    yield
    catalog.unregister("invoice.sent")
    cache.clear()


@pytest.fixture
def speak() -> Callable[..., Speaker]:
    """Makes a client: ``speak("app", scope="webhooks:read")``; the same name is the same client."""
    applications: dict[str, Any] = {}

    def make(
        name: str = "shop",
        *,
        scope: str = f"{READ} {WRITE}",
        user: Any = None,
        seconds: int = 3600,
    ) -> Speaker:
        application = applications.get(name)
        if application is None:
            application = applications[name] = Application.objects.create(
                name=name,
                client_id=f"client-{name}",
                client_type=Application.CLIENT_CONFIDENTIAL,
                authorization_grant_type=Application.GRANT_CLIENT_CREDENTIALS,
            )
        token = AccessToken.objects.create(
            user=user,
            application=application,
            token=secrets.token_hex(16),
            scope=scope,
            expires=timezone.now() + timedelta(seconds=seconds),
        )
        requester = f"user:{user.pk}" if user else f"app:{application.client_id}"
        return Speaker(token.token, requester=requester, application=application)

    return make


@pytest.fixture
def api(speak: Callable[..., Speaker]) -> Speaker:
    """A client that may read and write."""
    return speak()


@pytest.fixture
def stranger(speak: Callable[..., Speaker]) -> Speaker:
    """Another client that may read and write."""
    return speak("stranger")


@pytest.fixture
def reader(speak: Callable[..., Speaker], api: Speaker) -> Speaker:
    """The same client as ``api``, with a token that may read alone."""
    return speak(scope=READ)


@pytest.fixture
def nobody() -> Speaker:
    """A client without a token."""
    return Speaker()


@pytest.fixture
def make_user() -> Callable[..., Any]:
    def make(name: str, **options: Any) -> Any:
        return get_user_model().objects.create_user(name, password="pass", **options)

    return make


@pytest.fixture
def staff(make_user: Callable[..., Any]) -> Speaker:
    """A member of staff with a session, and the CSRF token that goes with it in ``browser``."""
    speaker = Speaker()
    user = make_user("staff", is_staff=True)
    speaker.browser.force_login(user)
    speaker.requester = f"user:{user.pk}"
    return speaker


@pytest.fixture
def owned(api: Speaker, receiver: Receiver) -> Subscription:
    """A subscription of ``api``'s to all orders, at ``receiver``."""
    return Subscription.objects.get(pk=api.subscribe(receiver.url)["id"])


class BrokenCache(BaseCache):
    """A cache whose server is down."""

    def __init__(self, *args: Any) -> None:
        super().__init__({})

    def get(self, *args: Any, **options: Any) -> Any:
        raise ConnectionError("The cache is down.")

    set = get


@pytest.fixture
def broken_cache(settings: Any) -> Iterator[None]:
    """Every use of the cache fails."""
    settings.CACHES = {"default": {"BACKEND": "tests.api.conftest.BrokenCache"}}
    yield
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
