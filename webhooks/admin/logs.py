"""The read-only pages that show rows as they are: attempts, messages, figures, who works now.

Events and deliveries have pages of their own: :mod:`event` and :mod:`delivery`.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from webhooks import catalog, formats
from webhooks.admin.pages import LogAdmin, Recent
from webhooks.admin.reasons import FailureReasons
from webhooks.models import (
    DeliveryAttempt,
    DeliveryStats,
    Duty,
    Event,
    Lane,
    Message,
    Subscription,
    Worker,
)
from webhooks.models.stats import (
    ACK_BOUNDS,
    ACK_COLUMNS,
    LATENCY_BOUNDS,
    LATENCY_COLUMNS,
    WHOLE_SERVICE,
)
from webhooks.texts import visible

#: Who may see what events carry, and what receivers answered.
VIEW_PAYLOAD = "webhooks.view_payload"
HIDDEN = _("Only with the permission “Can see payloads”.")
SECRETS = ("subscription__headers", "subscription__basic_auth")


class EventTypeFilter(admin.SimpleListFilter):
    """By event type; the choices come from the catalogue, not from the table."""

    title = _("event type")
    parameter_name = "type"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [(entry.name, entry.name) for entry in catalog.all_types()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(type=self.value()) if self.value() else queryset


class FormatFilter(admin.SimpleListFilter):
    """By format; the choices are those that there are, and are not looked for in the table."""

    title = _("format")
    parameter_name = "format"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [(name, name) for name in formats.known()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(format=self.value()) if self.value() else queryset


class PayloadAdmin(LogAdmin):
    """A log with text from outside in it, which not everybody who sees the log may read."""

    payload = ""

    @admin.display(description=_("payload"))
    def shown_payload(self, row: Any) -> SafeString:
        return format_html('<pre class="wh-text">{}</pre>', visible(getattr(row, self.payload)))

    @admin.display(description=_("payload"))
    def hidden_payload(self, row: Any) -> str:
        return str(HIDDEN)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        may = request.user.has_perm(VIEW_PAYLOAD)
        return [*super().get_fields(request, obj), "shown_payload" if may else "hidden_payload"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        return [*super().get_readonly_fields(request, obj), "shown_payload", "hidden_payload"]


@admin.register(Message)
class MessageAdmin(LogAdmin):
    deferred = SECRETS
    search_ids = {"msg": "pk", "sub": "subscription"}
    search_help_text = _("The id of a message or subscription.")
    list_filter = (Recent, FormatFilter)
    list_select_related = ("subscription",)
    list_display = ("id", "subscription_link", "format", "count", "page", "pages", "created_at")
    readonly_fields = ("subscription_link",)
    fields = (
        *("id", "subscription_link", "format", "payload", "count", "page", "pages"),
        *("window_from", "window_to", "created_at", "body_digest", "superseded_at"),
    )

    @admin.display(description=_("subscription"))
    def subscription_link(self, message: Message) -> SafeString:
        return self.link(Subscription, message.subscription_id, message.subscription)


@admin.register(DeliveryAttempt)
class DeliveryAttemptAdmin(FailureReasons, PayloadAdmin):
    change_list_template = "admin/webhooks/deliveryattempt/change_list.html"
    payload = "excerpt"
    deferred = ("excerpt",)
    search_ids = {"att": "pk", "evt": "message_id", "msg": "message_id", "sub": "subscription"}
    search_help_text = _("The id of an attempt, event, message or subscription.")
    list_filter = (Recent, "trigger")
    list_display = (
        *("id", "message_link", "subscription_link", "number", "trigger"),
        *("status_code", "error_code", "elapsed_ms", "started_at"),
    )
    readonly_fields = ("message_link", "subscription_link")
    fields = (
        *("id", "message_link", "subscription_link", "number", "trigger", "due_at", "started_at"),
        *("status_code", "error_code", "error_detail", "elapsed_ms", "event_count", "truncated"),
    )

    def get_urls(self) -> list[Any]:
        return [*self.reasons_urls(), *super().get_urls()]

    @admin.display(description=_("message"))
    def message_link(self, attempt: DeliveryAttempt) -> SafeString:
        sent = Event if attempt.message_id.startswith("evt_") else Message
        return self.link(sent, attempt.message_id)

    # By its id: the subscription may be gone, and a join would hide its attempts.
    @admin.display(description=_("subscription"))
    def subscription_link(self, attempt: DeliveryAttempt) -> SafeString:
        return self.link(Subscription, attempt.subscription_id)


@admin.register(DeliveryStats)
class DeliveryStatsAdmin(LogAdmin):
    search_ids = {"sub": "subscription"}
    search_help_text = _("A subscription's id: sub_…")
    list_filter = (EventTypeFilter,)
    list_display = (
        *("bucket", "width", "whose", "type", "code"),
        *("attempts", "first_try", "delivered", "dead"),
    )
    readonly_fields = ("whose", "latencies", "acknowledgements")
    fields = (*list_display, "latencies", "acknowledgements")

    @admin.display(description=_("subscription"))
    def whose(self, stats: DeliveryStats) -> Any:
        if stats.subscription_id == WHOLE_SERVICE:
            return _("the whole service")
        return self.link(Subscription, stats.subscription_id)

    @admin.display(description=_("milliseconds of a POST"))
    def latencies(self, stats: DeliveryStats) -> str:
        return _histogram(stats, LATENCY_BOUNDS, LATENCY_COLUMNS)

    @admin.display(description=_("milliseconds from event to acknowledgement"))
    def acknowledgements(self, stats: DeliveryStats) -> str:
        return _histogram(stats, ACK_BOUNDS, ACK_COLUMNS)


def _histogram(stats: DeliveryStats, bounds: Any, columns: Any) -> str:
    labels = [*(f"≤ {bound}" for bound in bounds), f"> {bounds[-1]}"]
    counts = [getattr(stats, name) for name in columns]
    return ", ".join(f"{label}: {n}" for label, n in zip(labels, counts, strict=True) if n) or "-"


@admin.register(Lane)
class LaneAdmin(LogAdmin):
    deferred = SECRETS
    search_ids = {"sub": "pk"}
    search_help_text = _("A subscription's id: sub_…")
    list_filter = ("held",)
    list_select_related = ("subscription",)
    list_display = (
        *("__str__", "subscription_link", "claim_at", "lease_until", "held"),
        *("paused_until", "failures"),
    )
    readonly_fields = ("subscription_link",)
    fields = (
        *("subscription_link", "claim_at", "lease_until", "control", "held", "paused_until"),
        *("pause_reason", "failures", "latency_ms", "last_success_at", "last_failure_at"),
        "failing_since",
    )

    @admin.display(description=_("subscription"))
    def subscription_link(self, lane: Lane) -> SafeString:
        return self.link(Subscription, lane.pk, lane.subscription)


@admin.register(Worker)
class WorkerAdmin(LogAdmin):
    ordering = ("slot",)
    list_display = (
        *("slot", "host", "pid", "started_at", "heartbeat_at"),
        *("in_flight", "lanes"),
    )
    fields = list_display


@admin.register(Duty)
class DutyAdmin(LogAdmin):
    ordering = ("name",)
    list_display = ("name", "counter", "until", "ran_at")
    fields = list_display
