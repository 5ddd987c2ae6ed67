"""The app's start: system checks, signal receivers, and the host's event types."""

from django.apps import AppConfig, apps
from django.utils.module_loading import autodiscover_modules
from django.utils.translation import gettext_lazy as _


class WebhooksConfig(AppConfig):
    name = "webhooks"
    verbose_name = _("Webhooks")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from django_q.signals import pre_enqueue

        from webhooks import (
            checks,  # noqa: F401  (registers the checks)
            entitlement,
        )
        from webhooks.receivers import keep_no_results, record_event
        from webhooks.signals import webhook_event

        webhook_event.connect(record_event, dispatch_uid="webhooks.record_event")
        pre_enqueue.connect(keep_no_results, dispatch_uid="webhooks.keep_no_results")
        if apps.is_installed("oauth2_provider"):  # without it, check E007 says so
            entitlement.connect()
        autodiscover_modules("webhook_events")
