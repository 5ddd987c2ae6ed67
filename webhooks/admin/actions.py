"""What can be done to a subscription beyond editing it, each with a permission of its own.

What is lost, is asked about first. The rules are those of ``lifecycle`` and ``probing``.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.debug import sensitive_variables

from webhooks import catalog, health, lifecycle, probing
from webhooks.admin.overview import told
from webhooks.admin.views import PagesAdmin, Question, actor, posted
from webhooks.conf import settings
from webhooks.models import Delivery, DeliveryAttempt, Subscription
from webhooks.models.subscription import OnSuspend, Status

#: Why the status changes, as clients see it.
BY_OPERATOR = "operator"


class ShownOnce(str):
    """A secret for a template. Django logs, at DEBUG, the repr of all that a template is given."""

    def __repr__(self) -> str:
        return "<secret>"


class SuspendForm(forms.Form):
    on_suspend = forms.ChoiceField(
        label=gettext_lazy("New events will be"),
        choices=[
            (OnSuspend.KEEP.value, gettext_lazy("kept, and delivered on resume")),
            (OnSuspend.DISCARD.value, gettext_lazy("discarded")),
        ],
        widget=forms.RadioSelect,
    )


class ResumeForm(forms.Form):
    backlog = forms.ChoiceField(
        label=gettext_lazy("What waits"),
        choices=[
            ("deliver", gettext_lazy("deliver it, at a ramped rate")),
            ("discard", gettext_lazy("discard it")),
        ],
        widget=forms.RadioSelect,
    )


class RotateForm(forms.Form):
    hours = forms.IntegerField(
        label=gettext_lazy("The old secret signs too, for so many hours"),
        min_value=0,
        max_value=168,
        help_text=gettext_lazy("0 to 168. With 0, receivers that have not changed theirs fail."),
    )


class SubscriptionActions(PagesAdmin):
    """The actions' pages, to be mixed into the ModelAdmin of subscriptions."""

    def action_urls(self) -> list[URLPattern]:
        ping, hold = "ping_subscription", "suspend_subscription"
        rotate, end = "rotate_secret_subscription", "delete_subscription"
        return [
            self.route("ping/", self.ping_view, "ping", permission=ping, post=True),
            self.route("example/", self.example_view, "example", permission=ping, post=True),
            self.route("suspend/", self.suspend_view, "suspend", permission=hold),
            self.route("resume/", self.resume_view, "resume", permission=hold),
            self.route("rotate/", self.rotate_view, "rotate", permission=rotate),
            self.route("unsubscribe/", self.unsubscribe_view, "unsubscribe", permission=end),
        ]

    def ping_view(self, request: HttpRequest, subscription: Subscription) -> HttpResponse:
        return self._send(
            request,
            subscription,
            _("Ping"),
            lambda: probing.ping(subscription, actor=actor(request)),
        )

    def example_view(self, request: HttpRequest, subscription: Subscription) -> HttpResponse:
        name = request.POST.get("type", "")
        return self._send(
            request,
            subscription,
            _("Example of %(type)s") % {"type": name[: catalog.MAX_NAME]},
            lambda: probing.send_example(subscription, catalog.get(name), actor=actor(request)),
        )

    def _send(
        self,
        request: HttpRequest,
        subscription: Subscription,
        what: str,
        send: Callable[[], DeliveryAttempt],
    ) -> HttpResponse:
        """Send one POST now; its answer is shown beside the button, by its id in the URL."""
        sent: list[DeliveryAttempt] = []

        def do() -> str:
            sent.append(send())
            return f"{what}: {told(sent[0])}"

        back = self.url("change", subscription)
        if self.act(request, subscription, do, tell=False):
            back = f"{back}?sent={sent[0].pk}#actions"
        return HttpResponseRedirect(back)

    def suspend_view(self, request: HttpRequest, subscription: Subscription) -> HttpResponse:
        form = SuspendForm(posted(request), initial={"on_suspend": subscription.on_suspend})

        def do() -> str:
            chosen = form.cleaned_data["on_suspend"]
            lifecycle.suspend(
                subscription, reason=BY_OPERATOR, actor=actor(request), on_suspend=chosen
            )
            if chosen == OnSuspend.DISCARD:
                return _("Suspended. New events are discarded.")
            return _("Suspended. New events are kept.")

        text = [
            _("Nothing more is sent to it, no ping either, until an operator resumes it."),
            _("What waits already is kept."),
        ]
        question = Question(_("Suspend the subscription?"), text, _("Suspend"), form, is_grave=True)
        return self.confirm(request, subscription, question, do)

    def resume_view(self, request: HttpRequest, subscription: Subscription) -> HttpResponse:
        form = ResumeForm(posted(request), initial={"backlog": "deliver"})

        def do() -> str:
            chosen = form.cleaned_data["backlog"]
            lifecycle.resume(subscription, reason=BY_OPERATOR, actor=actor(request), backlog=chosen)
            if chosen == "discard":
                return _("Resumed. What had waited is discarded.")
            return _("Resumed. What had waited is delivered, at a ramped rate.")

        text = [
            _("%(waiting)s Deliver them, at a ramped rate, or discard them?")
            % {"waiting": _waiting(subscription)}
        ]
        question = Question(_("Resume the subscription?"), text, _("Resume"), form)
        return self.confirm(request, subscription, question, do)

    def unsubscribe_view(self, request: HttpRequest, subscription: Subscription) -> HttpResponse:
        def do() -> str:
            lifecycle.change_status(
                subscription, Status.UNSUBSCRIBED, reason=BY_OPERATOR, actor=actor(request)
            )
            return _("Unsubscribed. What waited is cancelled.")

        text = [
            _("%(waiting)s They will be cancelled.") % {"waiting": _waiting(subscription)},
            _("It cannot be undone: its owner would have to subscribe anew, with a new secret."),
        ]
        question = Question(_("End the subscription?"), text, _("Unsubscribe"), is_grave=True)
        return self.confirm(request, subscription, question, do)

    @sensitive_variables()
    def rotate_view(self, request: HttpRequest, subscription: Subscription) -> HttpResponse:
        form = RotateForm(posted(request), initial={"hours": 24})
        made: list[str] = []

        @sensitive_variables()
        def do() -> str:
            overlap = timedelta(hours=form.cleaned_data["hours"])
            made.append(lifecycle.rotate_secret(subscription, overlap=overlap))
            return _("New signing secret, …%(four)s") % {"four": made[0][-4:]}

        text = [
            _("A new signing secret is made and shown once. Give it to the receiver."),
            _("The old one signs beside it for a while, so that nothing is refused meanwhile."),
        ]
        title = _("Rotate the signing secret?")
        question = Question(title, text, _("Rotate"), form, is_grave=True)
        if request.method != "POST" or not form.is_valid():
            return self.confirm(request, subscription, question, do)
        if not self.act(request, subscription, do, tell=False):
            return HttpResponseRedirect(self.url("change", subscription))
        return self.secret_page(
            request, subscription, _("The secret was rotated"), ShownOnce(made[0])
        )

    @sensitive_variables()
    def secret_page(
        self, request: HttpRequest, subscription: Subscription, title: str, secret: ShownOnce
    ) -> HttpResponse:
        """The secret, in this very answer: a message would keep it in a cookie or a session."""
        return self.render(
            request,
            "webhooks/admin/secret.html",
            title,
            subscription,
            id=subscription.pk,
            secret=secret,
            next=self.url("change", subscription),
        )


def _waiting(subscription: Subscription) -> str:
    """How many deliveries wait, in a sentence."""
    pending = Delivery.objects.using(settings.database).pending()
    count = pending.filter(subscription_id=subscription.pk)[: health.MOST_COUNTED].count()
    said: Any = ngettext("%(count)s is waiting.", "%(count)s are waiting.", count)
    return str(said % {"count": health.capped(count)})
