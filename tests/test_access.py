"""Who makes a request, and what an owner may receive."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.utils import timezone
from oauth2_provider.models import get_access_token_model, get_application_model

from webhooks import access, catalog
from webhooks.access import ALL, Client, Entitlements, granted, identify, sees, sees_type
from webhooks.models import Subscription

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _scopes(settings: Any) -> None:
    settings.OAUTH2_PROVIDER = {"SCOPES": {"webhooks:read": "", "webhooks:write": ""}}


@pytest.fixture
def application() -> Any:
    return get_application_model().objects.create(
        client_id="crm",
        client_type="confidential",
        authorization_grant_type="client-credentials",
    )


def token(application: Any, user: Any = None, scope: str = "webhooks:read") -> Any:
    return get_access_token_model()(
        application=application,
        user=user,
        token="t",
        scope=scope,
        expires=timezone.now() + timedelta(hours=1),
    )


def request(user: Any = None, auth: Any = None) -> Any:
    return SimpleNamespace(user=user, auth=auth)


def person(name: str = "ann", **fields: Any) -> Any:
    return get_user_model().objects.create_user(name, **fields)


def test_a_client_credentials_token_is_the_application(application: Any) -> None:
    assert identify(request(auth=token(application))) == Client(
        "app:crm", application.pk, None, frozenset({"webhooks:read"})
    )


def test_a_users_token_is_the_user_through_the_application(application: Any) -> None:
    ann = person()
    client = identify(request(ann, token(application, ann)))
    assert client == Client(f"user:{ann.pk}", application.pk, ann.pk, frozenset({"webhooks:read"}))


def test_a_session_counts_for_active_staff_alone() -> None:
    staff = person("boss", is_staff=True)
    assert identify(request(staff)) == Client(f"user:{staff.pk}", None, staff.pk, ALL)
    assert identify(request(person())) is None
    assert identify(request(person("gone", is_staff=True, is_active=False))) is None
    assert identify(request(AnonymousUser())) is None


def test_an_inactive_users_token_is_nobodys(application: Any) -> None:
    ann = person(is_active=False)
    assert identify(request(ann, token(application, ann))) is None


def test_a_token_has_no_scope_that_its_application_cannot_have(application: Any) -> None:
    client = identify(request(auth=token(application, scope="webhooks:read admin")))
    assert client is not None
    assert client.scopes == {"webhooks:read"}


@pytest.mark.parametrize("scope", ["", "webhooks:read"])
def test_a_token_without_an_application_has_its_own_scopes_alone(scope: str) -> None:
    ann = person()
    client = identify(request(ann, token(None, ann, scope)))
    assert client is not None
    assert client.scopes == set(scope.split())


def test_a_host_may_say_who_makes_a_request(
    application: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "by_team", lambda request: "team:7", raising=False)
    settings.WEBHOOKS = {**settings.WEBHOOKS, "REQUESTER": "webhooks.access.by_team"}
    client = identify(request(auth=token(application)))
    assert client is not None
    assert client.requester == "team:7"


def test_what_the_host_made_itself_is_bound_by_no_scope() -> None:
    assert granted(Subscription(requester="app:a")) == ALL


def test_what_belongs_to_nobody_that_exists_is_entitled_to_nothing(application: Any) -> None:
    for gone in ({"application_id": application.pk + 1}, {"user_id": 4711}):
        assert granted(Subscription(requester="app:a", scopes="webhooks:read", **gone)) is None


def test_a_revoked_grant_stays_revoked(application: Any) -> None:
    owner = Subscription(
        requester="app:crm",
        application=application,
        scopes="webhooks:read",
        grant_revoked_at=timezone.now(),
    )
    assert granted(owner) is None


def test_many_owners_are_asked_for_together(
    application: Any, django_assert_num_queries: Any
) -> None:
    users = [person(f"u{i}", is_active=i % 2 == 0) for i in range(20)]
    owners = [
        Subscription(
            requester=f"user:{u.pk}", user=u, application=application, scopes="webhooks:read"
        )
        for u in users
    ]
    with django_assert_num_queries(2):
        found = Entitlements(owners)
        assert [found.granted(each) is not None for each in owners] == [True, False] * 10


def test_a_type_with_a_scope_is_seen_with_it_alone() -> None:
    free, bound = SimpleNamespace(scope=None), SimpleNamespace(scope="orders")
    assert [sees(scopes, bound) for scopes in (set(), {"orders"}, ALL, None)] == [
        *(False, True, True, False),
    ]
    assert [sees(scopes, free) for scopes in (set(), {"orders"}, ALL, None)] == [
        *(True, True, True, False),
    ]


def test_a_type_that_nobody_registers_any_more_has_no_scope() -> None:
    assert sees_type(frozenset(), "left.over")
    assert not sees_type(None, "left.over")


def test_the_catalogue_shows_what_the_scopes_see() -> None:
    catalog.register("invoice.paid", scope="orders")
    try:
        assert "invoice.paid" in {entry.name for entry in catalog.visible({"orders"})}
        assert "invoice.paid" not in {entry.name for entry in catalog.visible(set())}
        assert catalog.visible(None) == []
    finally:
        catalog.unregister("invoice.paid")
