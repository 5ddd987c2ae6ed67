"""The page of a subscription: how it fares, what can be done, its fields.

Plain fields can be edited, everything else only looked at. Nothing is written here: ``lifecycle``
makes a subscription with its lane and secret, and tells the worker that holds the lane of a change.
The secret's text is shown once, after creation. What is done beyond editing stands in
:mod:`webhooks.admin.actions` and :mod:`webhooks.admin.replays`.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.debug import sensitive_variables

from webhooks import lifecycle
from webhooks.admin.actions import ShownOnce, SubscriptionActions
from webhooks.admin.overview import overview
from webhooks.admin.pages import LargeTableAdmin
from webhooks.admin.replays import SubscriptionReplays
from webhooks.admin.views import OverviewAdmin
from webhooks.conf import settings
from webhooks.models import Lane, SigningSecret, Subscription

OWNER = ("requester", "application", "user", "scopes")
ASKED_FOR = (
    *("callback_url", "event_types", "description", "contact_email", "metadata"),
    *("max_in_flight", "ordered", "on_suspend", "retry_schedule"),
)
SEEN = (
    *("id", "status", "status_reason", "status_since", "trigger", "format"),
    *("created_at", "updated_at"),
)


class SubscriptionForm(forms.ModelForm):  # type: ignore[type-arg]
    """The fields that a person may set; the model judges them."""

    def clean_metadata(self) -> dict[str, Any]:
        metadata = self.cleaned_data["metadata"] or {}
        if not isinstance(metadata, dict):
            raise ValidationError(gettext("Metadata is a JSON object, e.g. {}."))
        return metadata

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if self.instance._state.adding and "requester" in cleaned:
            with transaction.atomic(using=settings.database):
                lifecycle.check_room(cleaned["requester"], settings.database)
        return cleaned

    def add_error(self, field: str | None, error: Any) -> None:
        # The model may object to a field that this form does not have.
        if field is None and hasattr(error, "error_dict"):
            placed: dict[str, list[ValidationError]] = {}
            for name, each in error.error_dict.items():
                key = name if name in self.fields else NON_FIELD_ERRORS
                placed.setdefault(key, []).extend(each)
            error = ValidationError(placed)
        super().add_error(field, error)


class _Seen:
    """An inline that is only looked at."""

    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class LaneInline(_Seen, admin.StackedInline):  # type: ignore[type-arg]
    model = Lane
    fields = (
        *("claim_at", "lease_until", "held", "paused_until", "pause_reason", "failures"),
        *("latency_ms", "last_success_at", "last_failure_at", "failing_since", "control"),
    )


class SecretInline(_Seen, admin.TabularInline):  # type: ignore[type-arg]
    model = SigningSecret
    fields = ("last_four", "created_at", "expires_at")
    readonly_fields = fields
    ordering = ("-pk",)

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).defer("value")


@admin.register(Subscription)
class SubscriptionAdmin(SubscriptionActions, SubscriptionReplays, OverviewAdmin, LargeTableAdmin):
    form = SubscriptionForm
    change_form_template = "admin/webhooks/subscription/change_form.html"
    deferred = ("headers", "basic_auth")
    search_ids = {"sub": "pk"}
    search_help_text = _("A subscription's id: sub_…")
    list_filter = ("status",)
    list_select_related = ("lane",)
    list_display = (
        *("id", "requester", "address", "event_types", "status", "status_reason"),
        *("status_since", "last_success"),
    )
    raw_id_fields = ("application", "user")

    @admin.display(description=_("callback URL"))
    def address(self, subscription: Subscription) -> str:
        return subscription.callback_url.split("?")[0]  # people put tokens into the query

    @admin.display(description=_("last success"))
    def last_success(self, subscription: Subscription) -> Any:
        return subscription.lane.last_success_at

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        asked = (None, {"fields": ASKED_FOR})
        owner = (_("Owner"), {"fields": OWNER})
        if obj is None:
            return [owner, asked]
        return [asked, (_("State"), {"fields": SEEN}), owner]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return () if obj is None else (*SEEN, *OWNER)

    def formfield_for_dbfield(self, db_field: Any, request: Any, **kwargs: Any) -> Any:
        if db_field.name == "callback_url":
            kwargs["strip"] = False  # judged as it was given, as in the API
        return super().formfield_for_dbfield(db_field, request, **kwargs)

    def get_inlines(self, request: HttpRequest, obj: Any) -> Any:
        return () if obj is None else (LaneInline, SecretInline)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # what was sent would lose its owner; a subscription is unsubscribed

    def get_urls(self) -> list[Any]:
        return [*self.action_urls(), *self.replay_urls(), *super().get_urls()]

    def overview(self, request: HttpRequest, pk: str) -> dict[str, Any]:
        return overview(self, request, pk)

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: Any = None,
    ) -> HttpResponse:
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except ValidationError as error:
            # Good a moment ago in the form, and bad since: a name that no longer resolves.
            self.message_user(request, " ".join(error.messages), messages.ERROR)
            return HttpResponseRedirect(request.get_full_path())

    @sensitive_variables()
    def save_model(self, request: HttpRequest, obj: Subscription, form: Any, change: bool) -> None:
        if change:
            changes = {name: form.cleaned_data[name] for name in form.changed_data}
            if changes:
                lifecycle.update(obj, **changes)
            return
        made, secret = lifecycle.subscribe(id=obj.pk, **form.cleaned_data)
        obj.__dict__.update(made.__dict__)
        request.webhooks_secret = secret  # type: ignore[attr-defined]

    @sensitive_variables()
    def response_add(
        self, request: HttpRequest, obj: Subscription, post_url_continue: str | None = None
    ) -> HttpResponse:
        title = gettext("The subscription was made")
        secret = ShownOnce(request.webhooks_secret)  # type: ignore[attr-defined]
        return self.secret_page(request, obj, title, secret)
