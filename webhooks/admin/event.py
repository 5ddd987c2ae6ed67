"""The page of an event: who got it and how, who did not and why, and what a receiver is sent.

Nothing is decided here: :mod:`webhooks.recipients` reads, :mod:`webhooks.previews` makes the
request as a worker makes it, :mod:`webhooks.redelivery` sends again.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern
from django.utils.http import urlencode
from django.utils.translation import gettext, gettext_lazy, ngettext
from django.utils.translation import gettext_lazy as _

from webhooks import formats, previews, recipients, redelivery
from webhooks.admin.logs import VIEW_PAYLOAD, EventTypeFilter, PayloadAdmin
from webhooks.admin.overview import told
from webhooks.admin.pages import Recent
from webhooks.admin.views import OverviewAdmin, Question, actor, is_allowed, posted
from webhooks.conf import settings
from webhooks.exceptions import WebhookError
from webhooks.models import Delivery, DeliveryAttempt, Event, Subscription
from webhooks.models.delivery import State
from webhooks.models.replay import NOT_RECEIVED
from webhooks.models.subscription import Status
from webhooks.templatetags.webhooks_admin import number

PERMISSION: Final = "replay_delivery"
#: What became of a delivery that may be sent again; what is pending comes by itself.
STATES: Final = [state for state in State if state != State.PENDING]

_SUBSCRIPTION: Final = re.compile(r"sub_[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Row:
    """A subscription that was sent the event; the addresses are "" for who may not go there."""

    delivery: Delivery
    attempts: list[tuple[DeliveryAttempt, str, str]]
    earlier: int
    url: str
    subscription_url: str
    resend_url: str


class ResendForm(forms.Form):
    states = forms.MultipleChoiceField(
        label=gettext_lazy("To those whose delivery is"), widget=forms.CheckboxSelectMultiple
    )
    new_id = forms.BooleanField(
        label=gettext_lazy("Under a new webhook-id"),
        required=False,
        help_text=gettext_lazy("For receivers that drop what they have. It goes out alone then."),
    )

    def __init__(self, counts: Counter[str], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        states: Any = self.fields["states"]
        states.choices = [(each.value, f"{each.label} ({number(counts[each])})") for each in STATES]


@admin.register(Event)
class EventAdmin(OverviewAdmin, PayloadAdmin):
    change_form_template = "admin/webhooks/event/change_form.html"
    payload = "data"
    deferred = ("data",)
    search_ids = {"evt": "pk"}
    search_help_text = _("An event's id: evt_…")
    list_filter = (Recent, EventTypeFilter)
    list_display = ("id", "type", "requester", "subject", "occurred_at", "fanned_out_at")
    fields = (
        *("id", "type", "requester", "subject", "occurred_at", "created_at"),
        *("idempotency_key", "seq", "fanned_out_at"),
    )

    # The page

    def overview(self, request: HttpRequest, pk: str) -> dict[str, Any]:
        """All that the template shows; a constant number of statements."""
        event = Event.objects.using(settings.database).defer("data").get(pk=pk)
        counts = recipients.states(event)
        sent = recipients.deliveries(event, _given(request, "after"))
        unsent = recipients.missed(event, _given(request, "missed_after"))
        may_see = request.user.has_perm(VIEW_PAYLOAD)
        return {
            "event": event,
            "counts": [
                (state.value, counts[state], self._deliveries_url(request, event, state))
                for state in State
                if counts[state]
            ],
            "is_capped": counts.total() >= recipients.MOST_COUNTED,
            "rows": [self._row(request, each) for each in sent.rows],
            "next_rows": _on(request, "after", sent.after, "timeline"),
            "missed": [
                (each, self.change_url(request, Subscription, each.subscription.pk))
                for each in unsent.rows
            ],
            "next_missed": _on(request, "missed_after", unsent.after, "not-sent"),
            "asked": self._asked(request, event),
            "may_see": may_see,
            "preview": self._preview(request, event, sent.rows) if may_see else None,
            "actions": self._actions(request, event),
        }

    def _row(self, request: HttpRequest, received: recipients.Received) -> Row:
        delivery = received.delivery
        url = self.change_url(request, Delivery, delivery.pk)
        may_resend = (
            url
            and is_allowed(request, PERMISSION)
            and delivery.subscription.status != Status.UNSUBSCRIBED
        )
        page: Any = self.admin_site._registry.get(Delivery)
        return Row(
            delivery,
            [
                (each, told(each), self.change_url(request, DeliveryAttempt, each.pk))
                for each in received.attempts
            ],
            received.earlier,
            url,
            self.change_url(request, Subscription, delivery.subscription_id),
            page.url("resend", delivery) if may_resend else "",
        )

    def _deliveries_url(self, request: HttpRequest, event: Event, state: State) -> str:
        return self.list_url(request, Delivery, q=event.pk, state__exact=state.value)

    def _asked(self, request: HttpRequest, event: Event) -> dict[str, Any] | None:
        """Why the subscription that is asked about was not sent it; None: none is."""
        pk = request.GET.get("ask", "").strip()
        if not pk:
            return None
        known = _SUBSCRIPTION.fullmatch(pk)
        subscription = recipients.of_anybody(pk) if known else None
        missed = recipients.why_not(event, subscription) if subscription is not None else None
        return {"id": pk, "subscription": subscription, "missed": missed}

    def _preview(self, request: HttpRequest, event: Event, rows: Any) -> dict[str, Any]:
        """What is sent to the chosen subscription, or in the chosen format."""
        listed = [each.delivery.subscription for each in rows]
        chosen = request.GET.get("as", listed[0].pk if listed else "")
        subscription = None
        if _SUBSCRIPTION.fullmatch(chosen):
            subscription = recipients.of_anybody(chosen)
        if subscription is not None:
            delivery = event.deliveries.filter(subscription=subscription).first()
            shown = (
                previews.of_event(event, subscription)
                if delivery is None
                else previews.of_delivery(delivery)
            )
            if subscription not in listed:
                listed.append(subscription)
        else:
            chosen = chosen if chosen in formats.known() else formats.known()[0]
            shown = previews.in_format(event, chosen)
        return {
            "shown": shown,
            "chosen": chosen,
            "subscriptions": listed,
            "formats": formats.known(),
        }

    def _actions(self, request: HttpRequest, event: Event) -> dict[str, str]:
        """The addresses of what this user may do; "" for anything else."""
        allowed = is_allowed(request, PERMISSION) and event.fanned_out_at is not None
        return {
            "resend": self.url("resend", event) if allowed else "",
            "fan_out": self.url("fan_out", event) if allowed else "",
        }

    # The actions

    def get_urls(self) -> list[URLPattern]:  # type: ignore[override]
        return [
            self.route("resend/", self.resend_view, "resend", permission=PERMISSION),
            self.route("fan-out/", self.fan_out_view, "fan_out", permission=PERMISSION),
            *super().get_urls(),
        ]

    def resend_view(self, request: HttpRequest, event: Event) -> HttpResponse:
        """To all, or to those whose deliveries ended in some states; step by step."""
        chosen = request.GET.getlist("states") or list(NOT_RECEIVED)
        initial = {"states": chosen, "new_id": "new_id" in request.GET}
        form = ResendForm(recipients.states(event), posted(request), initial=initial)
        made: list[redelivery.Resent] = []

        def do() -> str:
            made.append(
                redelivery.redeliver_event(
                    event,
                    states=form.cleaned_data["states"],
                    new_id=form.cleaned_data["new_id"],
                    after=_given(request, "after"),
                    actor=actor(request),
                )
            )
            said = _sent_again(made[0].deliveries)
            if made[0].refused:
                refused: Any = ngettext(
                    "%(count)s is not: its subscription has ended.",
                    "%(count)s are not: their subscriptions have ended.",
                    made[0].refused,
                )
                said = f"{said} {refused % {'count': number(made[0].refused)}}"
            return said

        text = [
            gettext("They are due at once, each with a new schedule of retries."),
            gettext("What travelled in a batch with them is sent again together with them."),
        ]
        question = Question(gettext("Send the event again?"), text, gettext("Resend"), form)
        if request.method == "POST" and form.is_valid():
            self.act(request, event, do)
            query = {"states": form.cleaned_data["states"]}
            if form.cleaned_data["new_id"]:
                query["new_id"] = ["1"]
            return self._go_on(request, event, "resend", made[0].after if made else "", query)
        return self.confirm(request, event, question, do)

    def fan_out_view(self, request: HttpRequest, event: Event) -> HttpResponse:
        """To current subscribers that have no delivery of it; step by step."""
        after = _given(request, "after")
        made: list[Any] = []

        def do() -> str:
            made.append(redelivery.fan_out_again(event, after=after, actor=actor(request)))
            said: Any = ngettext(
                "%(count)s more subscription gets it.",
                "%(count)s more subscriptions get it.",
                made[0].deliveries,
            )
            said %= {"count": number(made[0].deliveries)}
            if made[0].busy:
                busy: Any = ngettext(
                    "%(count)s was busy and is left: ask again.",
                    "%(count)s were busy and are left: ask again.",
                    made[0].busy,
                )
                said = f"{said} {busy % {'count': number(made[0].busy)}}"
            return str(said)

        if request.method == "POST":
            self.act(request, event, do)
            return self._go_on(request, event, "fan_out", made[0].after if made else "", {})
        try:
            count, more = redelivery.count_lacking(event, after=after)
        except WebhookError as error:
            self.message_user(request, str(error), messages.ERROR)
            return HttpResponseRedirect(self.url("change", event))
        said: Any = ngettext(
            "Preview: %(count)s subscription that it is for now has no delivery of it.",
            "Preview: %(count)s subscriptions that it is for now have no delivery of it.",
            count,
        )
        text = [
            said % {"count": number(count)},
            gettext("Each of them gets one. Those that there are stay as they are."),
        ]
        if more:
            text.append(gettext("There are more to look at: you are asked again after this part."))
        title = gettext("Fan it out again?")
        return self.confirm(request, event, Question(title, text, gettext("Fan out again")), do)

    def _go_on(
        self, request: HttpRequest, event: Event, name: str, after: str, query: dict[str, Any]
    ) -> HttpResponse:
        """Back to the event, or to the question about the next part."""
        if not after:
            return HttpResponseRedirect(self.url("change", event))
        self.message_user(request, gettext("That was a part. Go on with the rest?"), messages.INFO)
        asked = urlencode({"after": after, **query}, doseq=True)
        return HttpResponseRedirect(f"{self.url(name, event)}?{asked}")


def _sent_again(count: int) -> str:
    said: Any = ngettext(
        "%(count)s delivery is sent again.", "%(count)s deliveries are sent again.", count
    )
    return str(said % {"count": number(count)})


def _given(request: HttpRequest, name: str) -> str:
    """The subscription that a list begins behind; "" for none, and for what is no id."""
    pk = request.GET.get(name, "")
    return pk if _SUBSCRIPTION.fullmatch(pk) else ""


def _on(request: HttpRequest, name: str, after: str, place: str) -> str:
    """The address of a list's next part; "" at its end."""
    if not after:
        return ""
    query = request.GET.copy()
    query[name] = after
    return f"?{query.urlencode()}#{place}"
