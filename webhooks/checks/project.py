"""Checks of the project around us: its apps, times, scopes, and the cluster that runs our tasks."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.urls import get_resolver

from webhooks import cluster
from webhooks.access import READ, WRITE
from webhooks.checks.reading import value


@register("webhooks")
def check_apps(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """E007: an app that this one rests upon is not installed."""
    reasons = {
        "django_q": "its tasks and schedules deliver the events",
        "oauth2_provider": "its applications own the subscriptions",
    }
    return [
        Error(
            f"{name!r} is missing from INSTALLED_APPS: {reason}.",
            hint=f"Add {name!r} to INSTALLED_APPS and run manage.py migrate.",
            id="webhooks.E007",
        )
        for name, reason in reasons.items()
        if not apps.is_installed(name)
    ]


@register("webhooks")
def check_time_zones(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """E034: times without a zone, of which nobody knows when they are."""
    if django_settings.USE_TZ:
        return []
    return [
        Error(
            "USE_TZ is False: the times of events and attempts would have no zone, and no message "
            "could say when its event happened.",
            hint="Set USE_TZ = True.",
            id="webhooks.E034",
        )
    ]


@register("webhooks")
def check_scopes(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W006: the API is mounted, and no token can be granted what it asks for."""
    if not apps.is_installed("oauth2_provider") or "webhooks" not in get_resolver().app_dict:
        return []
    from oauth2_provider.scopes import get_scopes_backend

    missing = {READ, WRITE} - set(get_scopes_backend().get_all_scopes())
    if not missing:
        return []
    return [
        Warning(
            f"The API is mounted, but the authorization server knows no scope "
            f"{' and no scope '.join(sorted(missing))}: every token is refused.",
            hint=f"Add to settings: OAUTH2_PROVIDER = {{'SCOPES': {{{READ!r}: 'Read webhooks', "
            f"{WRITE!r}: 'Change webhooks'}}}}.",
            id="webhooks.W006",
        )
    ]


@register("webhooks")
def check_cluster(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """E040 to E046, W003 to W005: the django-q2 cluster that runs our tasks."""
    if value("WAKER") is None:
        return []  # nobody is woken: manage.py webhooks_worker delivers, without django-q2
    return list(
        cluster.judge(
            getattr(django_settings, "Q_CLUSTER", {}),
            value("CLUSTER"),
            drain_seconds=value("DRAIN_SECONDS"),
            post_seconds=value("TIMEOUT"),
        )
    )
