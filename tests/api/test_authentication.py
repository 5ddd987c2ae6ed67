"""Who is believed: a token in the header, or a session of active staff; nobody else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import override_settings
from oauth2_provider.models import AccessToken, get_application_model

from tests.api.conftest import READ, WRITE, Speaker
from tests.api.test_routes import problem
from webhooks.models import Subscription

NEW = {"callback_url": "http://127.0.0.1:9/in", "event_types": ["order.paid"]}


def test_a_client_credentials_token_needs_no_user(api: Speaker) -> None:
    assert api.get("subscriptions/").status_code == 200


def test_an_expired_token_is_401(speak: Callable[..., Speaker]) -> None:
    answer = speak(seconds=-1).get("subscriptions/")
    assert "expired" in problem(answer, 401)["detail"]
    assert 'error="invalid_token"' in answer["WWW-Authenticate"]


@pytest.mark.parametrize(
    "header", ["Bearer", "Bearer ", "Bearer nothing", "Bearer a b", "Bearer \xe9\xff", "bearer x"]
)
def test_a_token_that_is_none_is_401(header: str, nobody: Speaker) -> None:
    answer = nobody.get("subscriptions/", HTTP_AUTHORIZATION=header)
    problem(answer, 401)
    assert answer["WWW-Authenticate"].startswith("Bearer ")


@pytest.mark.parametrize("header", ["", "Basic YTpi", "Token x", "x"])
def test_another_scheme_is_401(header: str, nobody: Speaker) -> None:
    problem(nobody.get("subscriptions/", HTTP_AUTHORIZATION=header), 401)


def test_the_scheme_is_read_in_any_case(api: Speaker) -> None:
    answer = api.get("subscriptions/", HTTP_AUTHORIZATION=f"bEARER {api.token}")
    assert answer.status_code == 200


@pytest.mark.parametrize("name", ["access_token", "bearer_token", "token"])
def test_a_token_in_the_query_is_not_looked_at(name: str, api: Speaker, nobody: Speaker) -> None:
    for header in ("", "Bearer", "Bearer "):
        answer = nobody.get(f"subscriptions/?{name}={api.token}", HTTP_AUTHORIZATION=header)
        problem(answer, 401)


def test_the_query_is_not_read_for_a_token(api: Speaker) -> None:
    # oauthlib refuses a query that it cannot decode, whatever the header holds.
    answer = api.get("subscriptions/?callback_url=100%zz")
    assert answer.status_code == 200


def test_a_token_in_a_form_is_not_looked_at(api: Speaker, nobody: Speaker) -> None:
    form = f"access_token={api.token}".encode()
    kind = "application/x-www-form-urlencoded"
    problem(nobody.post("subscriptions/", raw=form, content_type=kind), 401)
    assert not Subscription.objects.exists()


def test_the_body_is_not_read_before_the_client_is_known(nobody: Speaker) -> None:
    problem(nobody.post("subscriptions/", raw=b"[" * 100_000), 401)


def test_a_revoked_token_is_401(api: Speaker) -> None:
    AccessToken.objects.all().delete()
    problem(api.get("subscriptions/"), 401)


def test_a_deleted_applications_token_is_401(api: Speaker) -> None:
    get_application_model().objects.all().delete()
    problem(api.get("subscriptions/"), 401)


def test_an_inactive_users_token_is_401(speak: Callable[..., Speaker], make_user: Any) -> None:
    user = make_user("ann")
    speaker = speak(user=user)
    assert speaker.get("subscriptions/").status_code == 200
    user.is_active = False
    user.save()
    problem(speaker.get("subscriptions/"), 401)


def test_a_scope_that_the_service_no_longer_knows_counts_for_nothing(
    api: Speaker, settings: Any
) -> None:
    settings.OAUTH2_PROVIDER = {"SCOPES": {READ: "Read"}}
    assert api.get("subscriptions/").status_code == 200
    assert WRITE in problem(api.post("subscriptions/", NEW), 403)["detail"]


def test_write_alone_does_not_read(speak: Callable[..., Speaker]) -> None:
    writer = speak(scope=WRITE)
    assert writer.post("subscriptions/", NEW).status_code == 201
    assert READ in problem(writer.get("subscriptions/"), 403)["detail"]


# Staff


def csrf(staff: Speaker) -> str:
    """The CSRF token that a page of the admin would hold."""
    staff.browser.get("/admin/password_change/")
    return staff.browser.cookies["csrftoken"].value


def test_staff_may_use_their_session(staff: Speaker) -> None:
    assert staff.get("subscriptions/").json()["results"] == []
    answer = staff.post("subscriptions/", NEW, HTTP_X_CSRFTOKEN=csrf(staff))
    assert answer.status_code == 201
    made = Subscription.objects.get()
    assert (made.requester, made.application_id) == (staff.requester, None)
    assert staff.get(f"subscriptions/{made.pk}/").status_code == 200


def test_a_session_needs_the_csrf_token_to_change_anything(staff: Speaker) -> None:
    assert "CSRF" in problem(staff.post("subscriptions/", NEW), 403)["detail"]
    assert not Subscription.objects.exists()


@pytest.mark.parametrize(
    "kind", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
def test_a_form_is_no_way_around_it(kind: str, staff: Speaker) -> None:
    form = f"csrfmiddlewaretoken={csrf(staff)}".encode()
    problem(staff.post("subscriptions/", raw=form, content_type=kind), 415)


@pytest.mark.parametrize("state", [{"is_staff": False}, {"is_active": False}])
def test_other_peoples_sessions_are_401(state: dict[str, bool], staff: Speaker) -> None:
    from django.contrib.auth import get_user_model

    get_user_model().objects.update(**state)
    problem(staff.get("subscriptions/"), 401)


@pytest.mark.parametrize("lacking", ["is_staff", "is_active"])
def test_a_user_model_need_not_know_of_staff(
    lacking: str, staff: Speaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Plain:
        """What a host's own user model may be."""

        pk, is_anonymous, is_authenticated = 1, False, True

    user = Plain()
    for name in {"is_staff", "is_active"} - {lacking}:
        setattr(user, name, True)
    monkeypatch.setattr("django.contrib.auth.middleware.get_user", lambda request: user)
    problem(staff.get("subscriptions/"), 401)


def test_a_bad_token_is_refused_where_a_session_would_do(staff: Speaker) -> None:
    problem(staff.get("subscriptions/", HTTP_AUTHORIZATION="Bearer nothing"), 401)


def test_a_users_own_token_and_session_are_not_mixed_up(
    staff: Speaker, speak: Callable[..., Speaker]
) -> None:
    from django.contrib.auth import get_user_model

    user = get_user_model().objects.get()
    token = speak("portal", user=user)
    made = token.subscribe()
    assert made["requester"] == staff.requester
    # The same requester, of another application: not the session's.
    problem(staff.get(f"subscriptions/{made['id']}/"), 404)
    problem(speak("other", user=user).get(f"subscriptions/{made['id']}/"), 404)


# The host's own settings

HOSTILE = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.BasicAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAdminUser"],
    "DEFAULT_THROTTLE_CLASSES": ["rest_framework.throttling.AnonRateThrottle"],
    "DEFAULT_THROTTLE_RATES": {"anon": "1/day"},
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.BrowsableAPIRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.FormParser"],
    "DEFAULT_PAGINATION_CLASS": "rest_framework.pagination.PageNumberPagination",
    "DEFAULT_VERSIONING_CLASS": "rest_framework.versioning.AcceptHeaderVersioning",
    "DEFAULT_SCHEMA_CLASS": "rest_framework.schemas.coreapi.AutoSchema",
    "DEFAULT_METADATA_CLASS": "rest_framework.metadata.SimpleMetadata",
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "no.such.Class",
    "EXCEPTION_HANDLER": "no.such.handler",
    "ALLOWED_VERSIONS": ["1"],
    "PAGE_SIZE": 1,
    "URL_FORMAT_OVERRIDE": "limit",
    "FORMAT_SUFFIX_KWARG": "id",
    "DATETIME_FORMAT": "%d.%m.%Y",
    "DATETIME_INPUT_FORMATS": ["%d.%m.%Y"],
    "UNICODE_JSON": False,
    "COMPACT_JSON": False,
    "NON_FIELD_ERRORS_KEY": "wrong",
    "UNAUTHENTICATED_USER": None,
}


def test_the_hosts_rest_framework_settings_change_nothing(
    api: Speaker, nobody: Speaker, receiver: Any
) -> None:
    made = api.subscribe(receiver.url, description="ü")

    def look() -> list[Any]:
        answers = [
            *(api.get("subscriptions/?limit=5") for _ in range(3)),
            api.get(f"subscriptions/{made['id']}/"),
            api.get("events/?after=2026-01-01T00:00:00Z"),
            api.post("subscriptions/", {"zzz": 1}),
            api.post("subscriptions/", {**NEW, "on_suspend": 1, "metadata": []}),
            api.post("subscriptions/", raw=b"["),
            api.send("OPTIONS", "subscriptions/"),
            api.get("nothing/"),
            nobody.get("subscriptions/"),
        ]
        return [(each.status_code, dict(each.headers), each.content) for each in answers]

    before = look()
    with override_settings(REST_FRAMEWORK=HOSTILE):
        assert look() == before


@pytest.mark.parametrize(
    "policy",
    [
        *("authentication_classes", "permission_classes", "throttle_classes", "parser_classes"),
        *("renderer_classes", "content_negotiation_class"),
    ],
)
def test_every_view_has_its_own_policies(policy: str) -> None:
    from webhooks.urls import urlpatterns

    for pattern in urlpatterns:
        value = getattr(pattern.callback.cls, policy)
        for each in value if isinstance(value, tuple) else (value,):
            assert each.__module__.startswith("webhooks."), (pattern, each)
        assert pattern.callback.cls.metadata_class is None
        assert pattern.callback.cls.versioning_class is None
        assert pattern.callback.cls.schema is None


def test_a_host_that_wraps_requests_in_transactions_does_not_wrap_these() -> None:
    from webhooks.urls import urlpatterns

    for pattern in urlpatterns:
        assert "default" in pattern.callback._non_atomic_requests
