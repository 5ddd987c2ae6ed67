"""Whose application, user or grant is gone gets nothing more, and is told why."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import transaction
from django.utils import timezone
from oauth2_provider.models import (
    get_access_token_model,
    get_application_model,
    get_refresh_token_model,
)

from tests.world import Receiver, deliver, emit_orders, fan_out_all, states, subscribe
from webhooks import access, lifecycle
from webhooks.exceptions import HeldByOperator
from webhooks.models import Delivery, Lane, Subscription
from webhooks.tasks import sweep

pytestmark = pytest.mark.django_db(transaction=True)

SCOPES = "webhooks:read webhooks:write"


@pytest.fixture(autouse=True)
def _scopes(settings: Any) -> None:
    settings.OAUTH2_PROVIDER = {"SCOPES": dict.fromkeys([*SCOPES.split(), "orders"], "")}


@pytest.fixture
def user() -> Any:
    return get_user_model().objects.create_user("ann", "ann@example.com", "secret")


@pytest.fixture
def application(user: Any) -> Any:
    models = get_application_model()
    return models.objects.create(
        name="crm",
        client_id="crm",
        client_type=models.CLIENT_CONFIDENTIAL,
        authorization_grant_type=models.GRANT_CLIENT_CREDENTIALS,
    )


@pytest.fixture
def token(user: Any, application: Any) -> Any:
    return get_access_token_model().objects.create(
        user=user,
        application=application,
        token="t1",
        scope=SCOPES,
        expires=timezone.now() + timedelta(hours=1),
    )


def refresh_token(token: Any) -> Any:
    return get_refresh_token_model().objects.create(
        user=token.user, application=token.application, token="r1", access_token=token
    )


@pytest.fixture
def subscribed(receiver: Receiver, user: Any, application: Any) -> Subscription:
    """A subscription that a user made through an application."""
    return subscribe(receiver, f"user:{user.pk}", application=application, user=user, scopes=SCOPES)


def status_of(subscription: Subscription) -> tuple[str, str]:
    subscription.refresh_from_db()
    return subscription.status, subscription.status_reason


LOST = ("suspended", "entitlement_lost")


def delete_application(token: Any) -> None:
    token.application.delete()


def delete_user(token: Any) -> None:
    token.user.delete()


def deactivate_user(token: Any) -> None:
    token.user.is_active = False
    token.user.save()


def revoke_token(token: Any) -> None:
    token.revoke()


def revoke_refresh_token(token: Any) -> None:
    refresh_token(token).revoke()


GONE = [delete_application, delete_user, deactivate_user, revoke_token, revoke_refresh_token]


@pytest.mark.parametrize("goes", GONE)
def test_what_takes_the_entitlement_away_suspends_at_once(
    subscribed: Subscription, token: Any, goes: Callable[[Any], None]
) -> None:
    goes(token)
    assert status_of(subscribed) == LOST


@pytest.mark.parametrize("goes", GONE)
def test_a_rollback_takes_nothing_away(
    subscribed: Subscription, token: Any, goes: Callable[[Any], None]
) -> None:
    with transaction.atomic():
        goes(token)
        transaction.set_rollback(True)
    assert status_of(subscribed)[0] == "subscribed"


@pytest.mark.parametrize(
    "silently",
    [
        lambda token: get_user_model().objects.filter(pk=token.user_id).update(is_active=False),
        lambda token: (
            get_application_model().objects.filter(pk=token.application_id)._raw_delete("default")
        ),
    ],
)
def test_the_sweep_finds_what_no_signal_told_of(
    subscribed: Subscription, silently: Callable[[Any], object], token: Any
) -> None:
    get_access_token_model().objects.all()._raw_delete("default")
    silently(token)
    assert status_of(subscribed)[0] == "subscribed"
    sweep()
    assert status_of(subscribed) == LOST


def test_the_sweep_reads_page_after_page(
    receiver: Receiver, user: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webhooks.entitlement.PAGE", 2)
    made = [subscribe(receiver, f"user:{user.pk}", user=user) for _ in range(5)]
    get_user_model().objects.filter(pk=user.pk).update(is_active=False)
    sweep()
    assert {status_of(each) for each in made} == {LOST}


def test_an_expired_token_takes_nothing_away(subscribed: Subscription, token: Any) -> None:
    token.expires = timezone.now() - timedelta(days=1)
    token.save()
    sweep()
    call_command("cleartokens")
    assert not get_access_token_model().objects.exists()
    sweep()
    assert status_of(subscribed)[0] == "subscribed"
    assert access.granted(subscribed) == set(SCOPES.split())


def test_a_refreshed_token_takes_nothing_away(subscribed: Subscription, token: Any) -> None:
    with transaction.atomic():  # what django-oauth-toolkit does at its token endpoint
        refresh_token(token).revoke()
        get_access_token_model().objects.create(
            user=token.user,
            application=token.application,
            token="t2",
            scope=SCOPES,
            expires=timezone.now() + timedelta(hours=1),
        )
    assert status_of(subscribed)[0] == "subscribed"


def test_another_token_of_the_same_grant_keeps_it(subscribed: Subscription, token: Any) -> None:
    refresh = refresh_token(token)
    token.revoke()
    assert status_of(subscribed)[0] == "subscribed"
    refresh.refresh_from_db()
    refresh.revoke()
    assert status_of(subscribed) == LOST


def test_a_clients_own_token_is_no_grant(receiver: Receiver, application: Any) -> None:
    mine = subscribe(receiver, "app:crm", application=application, scopes=SCOPES)
    get_access_token_model().objects.create(
        application=application,
        token="t1",
        scope=SCOPES,
        expires=timezone.now() + timedelta(hours=1),
    ).revoke()
    sweep()
    assert status_of(mine)[0] == "subscribed"


def test_other_peoples_subscriptions_are_left_alone(
    subscribed: Subscription, receiver: Receiver, token: Any
) -> None:
    of_the_host = subscribe(receiver, "app:a")
    other = get_user_model().objects.create_user("bob")
    of_bob = subscribe(receiver, f"user:{other.pk}", user=other)
    delete_user(token)
    sweep()
    assert {status_of(each)[0] for each in (of_the_host, of_bob)} == {"subscribed"}


def test_nothing_is_sent_to_whom_it_was_taken_from(
    subscribed: Subscription, receiver: Receiver, user: Any
) -> None:
    emit_orders(2, subscribed.requester)
    fan_out_all()
    get_user_model().objects.filter(pk=user.pk).update(is_active=False)
    deliver()
    assert receiver.posts == []
    assert status_of(subscribed) == LOST
    assert states() == {"pending": 2}


def test_what_is_emitted_after_that_makes_no_delivery(subscribed: Subscription, user: Any) -> None:
    get_user_model().objects.filter(pk=user.pk).update(is_active=False)
    emit_orders(2, subscribed.requester)
    fan_out_all()
    assert not Delivery.objects.exists()


def test_it_goes_on_when_its_owner_is_entitled_again(
    subscribed: Subscription, receiver: Receiver, token: Any
) -> None:
    emit_orders(1, subscribed.requester)
    fan_out_all()
    token.revoke()
    users = get_user_model().objects.filter(pk=token.user_id)
    users.update(is_active=False)
    with pytest.raises(HeldByOperator):
        lifecycle.resume(subscribed, reason="client")
    users.update(is_active=True)
    lifecycle.resume(subscribed, reason="client", actor=subscribed.requester)
    deliver()
    assert len(receiver.posts) == 1
    sweep()
    assert status_of(subscribed)[0] == "subscribed"


def test_a_pending_one_that_lost_its_owner_ends(
    receiver: Receiver, user: Any, application: Any, token: Any
) -> None:
    pending = subscribe(
        receiver, "user:1", application=application, user=user, handshake="x-hook-secret"
    )
    deactivate_user(token)
    assert status_of(pending) == ("unsubscribed", "entitlement_lost")


class TestScopes:
    """Event types may need a scope."""

    @pytest.fixture(autouse=True)
    def _scoped(self) -> Any:
        from webhooks import catalog

        catalog.register("invoice.paid", scope="orders", example={"n": 1})
        yield
        catalog.unregister("invoice.paid")

    def mine(self, receiver: Receiver, application: Any, scopes: str, *types: str) -> Any:
        return subscribe(
            receiver, "app:crm", types or ["*"], application=application, scopes=scopes
        )

    def emit(self) -> None:
        from webhooks import emit

        emit("invoice.paid", {"n": 1}, requester="app:crm")
        emit("order.paid", {"order": 1}, requester="app:crm")

    def test_a_star_never_covers_what_the_owner_may_not_see(
        self, receiver: Receiver, application: Any
    ) -> None:
        self.mine(receiver, application, SCOPES)
        self.emit()
        deliver()
        assert [post.json["type"] for post in receiver.posts] == ["order.paid"]

    def test_with_the_scope_it_does(self, receiver: Receiver, application: Any) -> None:
        self.mine(receiver, application, f"{SCOPES} orders")
        self.emit()
        deliver()
        assert {post.json["type"] for post in receiver.posts} == {"invoice.paid", "order.paid"}

    def test_it_cannot_be_asked_for_and_seems_unknown(
        self, receiver: Receiver, application: Any
    ) -> None:
        from django.core.exceptions import ValidationError

        with pytest.raises(ValidationError, match=r"'invoice\.paid' is not registered"):
            self.mine(receiver, application, SCOPES, "invoice.paid")
        with pytest.raises(ValidationError) as near:
            self.mine(receiver, application, SCOPES, "invoice.pai")
        assert "invoice.paid" not in str(near.value).replace("invoice.pai'", "")

    def test_a_scope_that_was_taken_away_is_noticed_before_the_post(
        self, receiver: Receiver, application: Any, settings: Any
    ) -> None:
        self.mine(receiver, application, f"{SCOPES} orders")
        self.emit()
        fan_out_all()
        settings.OAUTH2_PROVIDER = {"SCOPES": dict.fromkeys(SCOPES.split(), "")}
        deliver()
        assert [post.json["type"] for post in receiver.posts] == ["order.paid"]
        assert states() == {"delivered": 1, "cancelled": 1}
        assert Delivery.objects.get(state="cancelled").reason == "scope_lost"


class TestTheHostsOwnRule:
    """``ENTITLEMENT``."""

    @pytest.fixture
    def rule(self, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
        from webhooks import access as module

        def use(function: Callable[[Any], bool]) -> None:
            monkeypatch.setattr(module, "of_the_host", function, raising=False)
            settings.WEBHOOKS = {**settings.WEBHOOKS, "ENTITLEMENT": "webhooks.access.of_the_host"}

        return use

    def test_it_is_asked_for_everybody(self, receiver: Receiver, rule: Any) -> None:
        paid, unpaid = subscribe(receiver, "app:paid"), subscribe(receiver, "app:unpaid")
        rule(lambda owner: owner.requester == "app:paid")
        sweep()
        assert status_of(paid)[0] == "subscribed"
        assert status_of(unpaid) == LOST

    def test_when_it_fails_nobody_loses_anything(
        self, receiver: Receiver, rule: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        subscribe(receiver, "app:a")

        def fail(owner: Any) -> bool:
            raise RuntimeError("the plan's database is away")

        rule(fail)
        emit_orders(1)
        deliver()
        assert states() == {"delivered": 1}
        assert "ENTITLEMENT failed for 'app:a" in caplog.text


def test_a_clean_up_in_one_transaction_takes_nothing_away(
    subscribed: Subscription, token: Any
) -> None:
    refresh_token(token).revoke()
    get_access_token_model().objects.create(
        user=token.user,
        application=token.application,
        token="t2",
        scope=SCOPES,
        expires=timezone.now() - timedelta(days=1),
    )
    Subscription.objects.update(status="subscribed", status_reason="", grant_revoked_at=None)
    with transaction.atomic():
        get_refresh_token_model().objects.all().delete()
        get_access_token_model().objects.all().delete()
    assert status_of(subscribed)[0] == "subscribed"


def test_the_lanes_beyond_the_first_twenty_hear_of_it_within_a_second(
    receiver: Receiver, user: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webhooks.entitlement.AT_ONCE", 2)
    made = [subscribe(receiver, f"user:{user.pk}", user=user) for _ in range(5)]
    before = dict(Lane.objects.values_list("pk", "control"))
    user.is_active = False
    user.save()
    assert [status_of(each)[0] for each in made].count("suspended") == 2
    after = dict(Lane.objects.values_list("pk", "control"))
    assert all(after[pk] > before[pk] for pk in before)


def test_a_rule_of_the_hosts_that_fails_in_the_database_stops_nobody(
    receiver: Receiver, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.db import connection

    def ask(owner: Any) -> bool:
        with connection.cursor() as cursor:
            cursor.execute("SELECT plan FROM no_such_table")
        return True

    monkeypatch.setattr(access, "of_the_host", ask, raising=False)
    settings.WEBHOOKS = {**settings.WEBHOOKS, "ENTITLEMENT": "webhooks.access.of_the_host"}
    subscribe(receiver)
    emit_orders(2)
    deliver()
    assert states() == {"delivered": 2}


def test_a_scopes_backend_that_fails_for_one_application_narrows_that_one_alone(
    receiver: Receiver, application: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from oauth2_provider.scopes import SettingsScopes

    def fail(self: Any, application: Any = None, **options: Any) -> list[str]:
        raise RuntimeError("the scopes are away")

    mine = subscribe(receiver, "app:crm", application=application, scopes=SCOPES)
    monkeypatch.setattr(SettingsScopes, "get_available_scopes", fail)
    assert access.granted(mine) == frozenset()
    emit_orders(1, "app:crm")
    deliver()
    assert states() == {"delivered": 1}
