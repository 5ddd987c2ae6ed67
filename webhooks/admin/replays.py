"""Sending a subscription's past again: what, a preview of how much, and how far it has come."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import Any, Final

from django import forms
from django.core.exceptions import ValidationError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from webhooks import probing, redelivery
from webhooks.admin.views import PagesAdmin, actor
from webhooks.exceptions import WebhookError
from webhooks.models import Delivery, Replay, Subscription
from webhooks.models.replay import MISSING, REPLAYABLE
from webhooks.redelivery import DEFAULT_STATES, ReplayRequest
from webhooks.templatetags.webhooks_admin import number

PERMISSION: Final = "replay_delivery"
#: Replays in the list of those that were.
LISTED: Final = 10
STATES: Final = {
    **{state: Delivery.State(state).label for state in REPLAYABLE if state != MISSING},
    MISSING: gettext_lazy("missing: there is no delivery of the event"),
}


class ReplayForm(forms.Form):
    """What is to be sent again; :class:`ReplayRequest` judges it."""

    start = forms.DateTimeField(label=gettext_lazy("Recorded from (UTC)"))
    end = forms.DateTimeField(label=gettext_lazy("and before (UTC)"))
    types = forms.MultipleChoiceField(
        label=gettext_lazy("Event types"),
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text=gettext_lazy("None chosen: all that it receives."),
    )
    states = forms.MultipleChoiceField(
        label=gettext_lazy("What became of them"),
        choices=list(STATES.items()),
        widget=forms.CheckboxSelectMultiple,
    )

    def __init__(self, subscription: Subscription, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        types: Any = self.fields["types"]
        types.choices = [(each.name,) * 2 for each in probing.received_types(subscription)]
        for name in ("start", "end"):
            self.fields[name].widget = forms.DateTimeInput(
                attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"
            )

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if not self.errors:
            try:
                cleaned["request"] = ReplayRequest(**{name: cleaned[name] for name in self.fields})
            except ValidationError as error:
                self.add_error(None, ValidationError(error.messages))
        return cleaned


class SubscriptionReplays(PagesAdmin):
    """The pages of replays, to be mixed into the ModelAdmin of subscriptions."""

    def replay_urls(self) -> list[URLPattern]:
        one = "replay/<str:replay_id>/"
        return [
            self.route("replay/", self.replay_view, "replay", permission=PERMISSION),
            self.route(one, self.progress_view, "replay_progress", permission=PERMISSION),
            self.route(
                f"{one}cancel/",
                self.cancel_view,
                "replay_cancel",
                permission=PERMISSION,
                post=True,
            ),
        ]

    def replay_view(self, request: HttpRequest, subscription: Subscription) -> HttpResponse:
        """GET asks what, and with ``preview`` tells how much that is; POST begins."""
        with timezone.override(UTC):  # as the form says
            return self._replay(request, subscription)

    def _replay(self, request: HttpRequest, subscription: Subscription) -> HttpResponse:
        now = timezone.now()
        initial = {"start": now - timedelta(days=1), "end": now, "states": DEFAULT_STATES}
        given = request.POST if request.method == "POST" else request.GET
        is_asked = request.method == "POST" or "preview" in request.GET
        form = ReplayForm(subscription, given if is_asked else None, initial=initial)
        preview = None
        if is_asked and form.is_valid():
            asked = form.cleaned_data["request"]
            if request.method == "POST":
                return self._begin(request, subscription, asked)
            try:
                count = redelivery.count(subscription, asked)
            except ValidationError as error:
                form.add_error(None, ValidationError(error.messages))
            else:
                said = ngettext(
                    "Preview: %(count)s delivery", "Preview: %(count)s deliveries", count
                )
                preview = {"count": count, "text": said % {"count": number(count)}}
        answer = self.render(
            request,
            "admin/webhooks/subscription/replay.html",
            _("Replay"),
            subscription,
            form=form,
            preview=preview,
            asked=[(name, value) for name in form.fields for value in given.getlist(name)],
            replays=[
                (each, self.url("replay_progress", subscription, replay_id=each.pk))
                for each in subscription.replays.order_by("-pk")[:LISTED]
            ],
        )
        return answer.render()  # within the time zone of the form

    def _begin(
        self, request: HttpRequest, subscription: Subscription, asked: ReplayRequest
    ) -> HttpResponse:
        made: list[Replay] = []

        def do() -> str:
            made.append(redelivery.replay(subscription, asked, actor=actor(request)))
            what = {"id": made[0].pk, "count": number(made[0].total)}
            return _("Replay %(id)s of %(count)s deliveries began.") % what

        if not self.act(request, subscription, do, tell=False):
            return HttpResponseRedirect(self.url("change", subscription))
        address = self.url("replay_progress", subscription, replay_id=made[0].pk)
        return HttpResponseRedirect(address)

    def progress_view(
        self, request: HttpRequest, subscription: Subscription, replay_id: str
    ) -> HttpResponse:
        replay = _one(subscription, replay_id)
        running = replay.state == Replay.State.RUNNING
        cancel = self.url("replay_cancel", subscription, replay_id=replay.pk) if running else ""
        return self.live(
            request,
            "admin/webhooks/subscription/progress.html",
            "admin/webhooks/subscription/progress_live.html",
            _("Replay"),
            subscription,
            replay=replay,
            cancel=cancel,
            now=timezone.now(),
        )

    def cancel_view(
        self, request: HttpRequest, subscription: Subscription, replay_id: str
    ) -> HttpResponse:
        replay = _one(subscription, replay_id)

        def do() -> str:
            if not redelivery.cancel(replay):
                raise WebhookError(_("The replay has ended already."))
            return _("Replay %(id)s was cancelled.") % {"id": replay.pk}

        self.act(request, subscription, do)
        address = self.url("replay_progress", subscription, replay_id=replay.pk)
        return HttpResponseRedirect(address)


def _one(subscription: Subscription, pk: str) -> Replay:
    try:
        return subscription.replays.get(pk=pk)
    except (Replay.DoesNotExist, ValidationError):
        raise Http404 from None
