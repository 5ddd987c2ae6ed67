"""The page of a delivery: where it stands, each attempt, what was sent, and what can be done.

Nothing is decided here: :mod:`webhooks.redelivery` and :mod:`webhooks.cancellation` do what is
asked for, :mod:`webhooks.previews` makes the request as a worker makes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern
from django.utils.safestring import SafeString
from django.utils.translation import gettext, gettext_lazy
from django.utils.translation import gettext_lazy as _

from webhooks import cancellation, previews, redelivery, remedies
from webhooks.admin.logs import SECRETS, VIEW_PAYLOAD
from webhooks.admin.overview import told
from webhooks.admin.pages import LogAdmin, Recent
from webhooks.admin.reasons import reasons_url
from webhooks.admin.sentences import Situation
from webhooks.admin.views import OverviewAdmin, Question, actor, is_allowed, posted
from webhooks.clock import db_now
from webhooks.conf import settings
from webhooks.models import Delivery, DeliveryAttempt, Event, Message, Subscription
from webhooks.models.delivery import State
from webhooks.models.subscription import Status
from webhooks.templatetags.webhooks_admin import CHIPS

#: Who may send again, and who may cancel. The row stays for the log, so nobody deletes one.
RESEND, CANCEL = "replay_delivery", "delete_delivery"
#: Attempts in the table, the newest first; and answers that are shown in full.
LISTED, ANSWERS = 50, 10


class ResendForm(forms.Form):
    new_id = forms.BooleanField(
        label=gettext_lazy("Under a new webhook-id"),
        required=False,
        help_text=gettext_lazy("For a receiver that drops what it has. It goes out alone then."),
    )


@admin.register(Delivery)
class DeliveryAdmin(OverviewAdmin, LogAdmin):
    change_form_template = "admin/webhooks/delivery/change_form.html"
    deferred = ("event__data", *SECRETS)
    search_ids = {"dlv": "pk", "evt": "event", "sub": "subscription", "msg": "message"}
    search_help_text = _("The id of a delivery, event, subscription or message.")
    list_filter = (Recent, "state")
    list_display = (
        *("id", "state", "reason", "event_type", "subscription_link"),
        *("attempts", "due_at", "settled_at"),
    )
    readonly_fields = ("event_link", "subscription_link", "message_link")
    fields = (
        *("id", "event_link", "subscription_link", "message_link", "state", "reason", "trigger"),
        *("attempts", "first_due_at", "due_at", "created_at", "settled_at"),
    )

    @admin.display(description=_("event type"))
    def event_type(self, delivery: Delivery) -> str:
        return delivery.event.type

    @admin.display(description=_("event"))
    def event_link(self, delivery: Delivery) -> SafeString:
        return self.link(Event, delivery.event_id, delivery.event)

    @admin.display(description=_("subscription"))
    def subscription_link(self, delivery: Delivery) -> SafeString:
        return self.link(Subscription, delivery.subscription_id, delivery.subscription)

    @admin.display(description=_("message"), empty_value="-")
    def message_link(self, delivery: Delivery) -> SafeString | None:
        return self.link(Message, delivery.message_id) if delivery.message_id else None

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        # On its page too: reached from the delivery alone, they would come with what is deferred.
        return super().get_queryset(request).select_related("event", "subscription")

    # The page

    def overview(self, request: HttpRequest, pk: str) -> dict[str, Any]:
        """All that the template shows; a constant number of statements."""
        known = Delivery.objects.using(settings.database).defer(*self.deferred)
        delivery = known.select_related("event", "message", "subscription__lane").get(pk=pk)
        now = db_now(settings.database)
        may_see = request.user.has_perm(VIEW_PAYLOAD)
        attempts, more = _attempts(delivery, with_answers=may_see)
        situation = _situation(delivery, now)
        failure = next((each for each in attempts if each.error_code), None)
        code = failure.error_code if failure is not None else ""
        ended = delivery.state not in (State.PENDING, State.DELIVERED)
        fix = remedies.ending(delivery.reason) if ended else remedies.remedy(code)
        return {
            "delivery": delivery,
            "sentence": situation.sentence(),
            "tone": CHIPS[delivery.state][0],
            "next_at": situation.next_at,
            "now": now,
            "event_url": self.change_url(request, Event, delivery.event_id),
            "subscription_url": self.change_url(request, Subscription, delivery.subscription_id),
            "message_url": self.change_url(request, Message, delivery.message_id or ""),
            "fix": fix if delivery.state != State.DELIVERED else None,
            "reasons_url": reasons_url(self, request, delivery.reason if ended else code),
            "attempts": [
                (each, told(each), self.change_url(request, DeliveryAttempt, each.pk))
                for each in attempts
            ],
            "more_attempts": more,
            "may_see": may_see,
            "answers": [(each, told(each)) for each in attempts[:ANSWERS]] if may_see else (),
            "preview": _preview(delivery, attempts) if may_see else None,
            "actions": self.actions_of(request, delivery),
        }

    def actions_of(self, request: HttpRequest, delivery: Delivery) -> dict[str, str]:
        """The addresses of what this user may do to it as it is; "" for anything else."""
        live = delivery.subscription.status != Status.UNSUBSCRIBED
        pending = delivery.state == State.PENDING

        def address(name: str, permission: str, possible: bool) -> str:
            return self.url(name, delivery) if possible and is_allowed(request, permission) else ""

        return {
            "retry": address("retry", RESEND, live and pending),
            "resend": address("resend", RESEND, live and not pending),
            "cancel": address("cancel", CANCEL, pending),
        }

    # The actions

    def get_urls(self) -> list[URLPattern]:  # type: ignore[override]
        return [
            self.route("resend/", self.resend_view, "resend", permission=RESEND),
            self.route("retry/", self.retry_view, "retry", permission=RESEND),
            self.route("cancel/", self.cancel_view, "cancel", permission=CANCEL),
            *super().get_urls(),
        ]

    def resend_view(self, request: HttpRequest, delivery: Delivery) -> HttpResponse:
        form = ResendForm(posted(request))

        def do() -> str:
            new_id = form.cleaned_data["new_id"]
            sent = redelivery.redeliver(delivery, actor=actor(request), new_id=new_id)
            return gettext("It is sent again, as %(id)s.") % {"id": sent.webhook_id}

        text = [
            gettext("It is due at once, with a new schedule of retries."),
            gettext("What travelled in a batch with it is sent again together with it."),
        ]
        question = Question(gettext("Send it again?"), text, gettext("Resend"), form)
        return self.confirm(request, delivery, question, do)

    def retry_view(self, request: HttpRequest, delivery: Delivery) -> HttpResponse:
        def do() -> str:
            redelivery.redeliver(delivery, actor=actor(request))
            return gettext("It is due now.")

        text = [
            gettext("It is due at once, and its schedule of retries begins anew."),
            gettext(
                "Where the subscription is suspended, or its queue rests for a rate limit or a "
                "Retry-After, it waits for that."
            ),
        ]
        question = Question(gettext("Try it now?"), text, gettext("Retry now"))
        return self.confirm(request, delivery, question, do)

    def cancel_view(self, request: HttpRequest, delivery: Delivery) -> HttpResponse:
        def do() -> str:
            cancellation.cancel_delivery(delivery, actor=actor(request))
            return gettext("It is cancelled.")

        text = [
            gettext("Nothing more is sent of it, unless somebody asks for it again."),
            gettext("While a worker may be sending it, it is not cancelled, and you are told so."),
        ]
        title = gettext("Cancel the delivery?")
        question = Question(title, text, gettext("Cancel the delivery"), is_grave=True)
        return self.confirm(request, delivery, question, do)


def _attempts(delivery: Delivery, *, with_answers: bool) -> tuple[list[DeliveryAttempt], bool]:
    """The newest attempts, and whether there are more."""
    rows = DeliveryAttempt.objects.using(settings.database).of(delivery).order_by("-pk")
    if not with_answers:
        rows = rows.defer("excerpt")
    found = list(rows[: LISTED + 1])
    return found[:LISTED], len(found) > LISTED


def _situation(delivery: Delivery, now: Any) -> Situation:
    lane = getattr(delivery.subscription, "lane", None)
    unwanted = False
    if lane is not None and lane.discard_before is not None and delivery.state == State.PENDING:
        rows = Delivery.objects.using(settings.database).filter(pk=delivery.pk)
        unwanted = rows.unwanted(lane.discard_before).exists()
    return Situation(delivery, delivery.subscription, lane, delivery.message, now, unwanted)


def _preview(delivery: Delivery, attempts: Sequence[DeliveryAttempt]) -> previews.Preview:
    """As the newest attempt sent it, or, before the first one, as it would be sent now."""
    return previews.of_delivery(delivery, attempts[0].started_at if attempts else None)
