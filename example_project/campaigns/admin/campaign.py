"""The push dashboard: the list of campaigns, and a campaign's page with its metrics.

Figures come from :mod:`example_project.campaigns.dashboard`; what is done, and what is refused, is
said by :mod:`example_project.campaigns.simulator`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.utils import unquote
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import path, reverse
from django.utils import timezone
from django.utils.functional import SimpleLazyObject
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from example_project.campaigns import dashboard, exports, simulator
from example_project.campaigns.models import Campaign, CampaignStats, DeliveryCount, Simulation
from example_project.campaigns.models.stats import Totals, share
from webhooks.admin.pages import CappedPaginator
from webhooks.admin.views import PagesAdmin, Question, actor, live_part, posted
from webhooks.models import Subscription
from webhooks.templatetags.webhooks_admin import chip, number, percent

SIMULATE = "simulate_campaign"
FRAGMENT = "admin/campaigns/campaign/dashboard.html"
#: Seconds between two looks at a campaign that runs.
WHILE_RUNNING = 3


class SimulationForm(forms.Form):
    devices = forms.IntegerField(
        label=gettext_lazy("Simulated devices"),
        initial=10_000,
        min_value=1,
        max_value=simulator.MOST_DEVICES,
        help_text=gettext_lazy("Those that are missing are made. At most 100,000."),
    )


class FiguresChangeList(ChangeList):
    """A page of campaigns, with the figures of all of them in two statements."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.result_list = list(self.result_list)
        ids = [each.pk for each in self.result_list]
        totals = CampaignStats.objects.totals(ids)
        backlogs = DeliveryCount.objects.backlogs(ids)
        for campaign in self.result_list:
            campaign.totals = totals[campaign.pk]
            campaign.backlog = backlogs.get(campaign.pk, 0)


def figure(name: Any, text: Callable[[Totals], str]) -> Callable[..., str]:
    """A column from the roll-up."""

    @admin.display(description=name)
    def column(self: CampaignAdmin, campaign: Any) -> str:
        return text(campaign.totals)

    return column


@admin.register(Campaign)
class CampaignAdmin(PagesAdmin):
    list_display = (
        *("name", "status", "going_to", "sent", "delivered", "opened", "clicked"),
        *("unsubscribed", "failed", "webhook_backlog", "started_at"),
    )
    search_fields = ("name", "=state")
    # No filter beside the list: its columns need the width.
    search_help_text = gettext_lazy(
        "By name or state. Delivered is a share of sent, opened (at least once) of delivered, "
        "clicked of opened."
    )
    ordering = ("-pk",)
    sortable_by = ("name", "started_at")
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    paginator = CappedPaginator
    list_per_page = 50
    change_form_template = "admin/campaigns/campaign/change_form.html"
    fields = ("name", "requester", "message", "state", "created_at", "started_at", "finished_at")

    sent = figure(gettext_lazy("sent"), lambda each: number(each.sent))
    delivered = figure(
        gettext_lazy("delivered %"), lambda each: percent(share(each.delivered, each.sent))
    )
    opened = figure(
        gettext_lazy("opened %"),
        lambda each: percent(share(each.opened_unique, each.delivered)),
    )
    clicked = figure(
        gettext_lazy("clicked %"),
        lambda each: percent(share(each.clicked_unique, each.opened_unique)),
    )
    unsubscribed = figure(gettext_lazy("unsubscribed"), lambda each: number(each.unsubscribed))
    failed = figure(gettext_lazy("failed"), lambda each: number(each.failed))

    @admin.display(description=gettext_lazy("state"))
    def status(self, campaign: Campaign) -> str:
        return chip(campaign.state, campaign.get_state_display())

    @admin.display(description=gettext_lazy("audience"))
    def going_to(self, campaign: Campaign) -> str:
        return number(campaign.audience)

    @admin.display(description=gettext_lazy("webhook backlog"))
    def webhook_backlog(self, campaign: Any) -> str:
        return number(campaign.backlog)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return FiguresChangeList

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        kept = ("state", "created_at", "started_at", "finished_at")
        if obj is None or obj.state == Campaign.State.DRAFT:
            return kept
        # Its events were addressed and told already.
        return (*kept, "name", "requester", "message")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # Events of pushes that are gone would tie out with nothing.
        draft = obj is not None and obj.state == Campaign.State.DRAFT
        return draft and super().has_delete_permission(request, obj)

    def get_urls(self) -> list[Any]:
        export = path(
            "export/",
            self.admin_site.admin_view(self.export_all_view),
            name="campaigns_campaign_export_all",
        )
        return [
            export,
            self.route("export/", self.export_view, "export", permission="view_campaign"),
            self.route("simulate/", self.simulate_view, "simulate", permission=SIMULATE),
            self.route("cancel/", self.cancel_view, "cancel", permission=SIMULATE),
            self.route("resume/", self.resume_view, "resume", permission=SIMULATE),
            *super().get_urls(),
        ]

    # The page of a campaign

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: Any = None,
    ) -> HttpResponse:
        if "fragment" in request.GET:
            return self.part_view(request, object_id)
        # Read when the page is drawn, and so after the stock view has looked at the permissions.
        shown = SimpleLazyObject(lambda: self.shown(request, unquote(object_id)))
        extra = {"dashboard": shown, **live_part(request, FRAGMENT), **(extra_context or {})}
        running = Campaign.objects.filter(pk__in=_number(object_id), state=Campaign.State.RUNNING)
        if running.exists():
            extra["live_seconds"] = WHILE_RUNNING
        return super().change_view(request, object_id, form_url, extra)

    def part_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The part that renews itself, alone."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        campaign = self.get_object(request, unquote(object_id))
        if campaign is None:
            raise Http404
        shown = self.shown(request, campaign.pk)
        return self.render(request, FRAGMENT, str(campaign), campaign, dashboard=shown)

    def shown(self, request: HttpRequest, pk: Any) -> dict[str, Any]:
        """All that the page shows above the fields; a constant number of statements."""
        campaign = Campaign.objects.select_related("simulation").get(pk=pk)
        simulation = getattr(campaign, "simulation", None)
        found = dashboard.overview(campaign, timezone.now())
        return {
            **found,
            "campaign": campaign,
            "simulation": simulation,
            "done": min(found["totals"].sent, simulation.devices) if simulation else 0,
            "received": [
                (each, self.change_url(request, Subscription, each.subscription.pk))
                for each in found["received"]
            ],
            "actions": self.actions_of(request, campaign, simulation),
        }

    def actions_of(
        self, request: HttpRequest, campaign: Campaign, simulation: Simulation | None
    ) -> dict[str, str]:
        """The addresses of what this user may do to it as it is; "" for anything else."""

        def address(name: str, permission: str, possible: bool) -> str:
            allowed = possible and request.user.has_perm(f"campaigns.{permission}")
            return self.url(name, campaign) if allowed else ""

        state = simulation.state if simulation else ""
        interrupted = simulation is not None and simulation.is_abandoned
        return {
            "simulate": address("simulate", SIMULATE, campaign.state == Campaign.State.DRAFT),
            "cancel": address("cancel", SIMULATE, state == Simulation.State.RUNNING),
            "resume": address(
                "resume", SIMULATE, state == Simulation.State.CANCELLED or interrupted
            ),
            "export": address("export", "view_campaign", True),
        }

    # Its actions

    def simulate_view(self, request: HttpRequest, campaign: Campaign) -> HttpResponse:
        form = SimulationForm(posted(request))
        question = Question(
            _("Send to simulated devices"),
            [
                _("The campaign is sent in the background, and its simulated users begin to act."),
                _("Every step becomes an event for the subscribers of %(requester)s.")
                % {"requester": campaign.requester},
            ],
            _("Send"),
            form,
        )

        def do() -> str:
            devices = form.cleaned_data["devices"]
            simulator.start(campaign, devices, actor=actor(request))
            return _("Sending to %(n)s simulated devices began.") % {"n": number(devices)}

        return self.confirm(request, campaign, question, do)

    def cancel_view(self, request: HttpRequest, campaign: Campaign) -> HttpResponse:
        question = Question(
            _("Cancel sending"),
            [
                _("Nothing more is sent, and the simulated users stop where they are."),
                _("What was recorded stays, and its webhooks are delivered. It can be resumed."),
            ],
            _("Cancel sending"),
            is_grave=True,
        )

        def do() -> str:
            simulator.cancel(campaign)
            return _("Sending was cancelled.")

        return self.confirm(request, campaign, question, do)

    def resume_view(self, request: HttpRequest, campaign: Campaign) -> HttpResponse:
        question = Question(
            _("Resume sending"),
            [_("It goes on where it stopped: no device is sent to twice.")],
            _("Resume"),
        )

        def do() -> str:
            simulator.resume(campaign)
            return _("Sending was resumed.")

        return self.confirm(request, campaign, question, do)

    # Exports

    def export_view(self, request: HttpRequest, campaign: Campaign) -> HttpResponse:
        return exports.answer(f"campaign-{campaign.pk}-by-hour", exports.hours(campaign))

    def export_all_view(self, request: HttpRequest) -> HttpResponse:
        """The list as it is filtered, of any length."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        try:
            found = self.get_changelist_instance(request).get_queryset(request)
        except IncorrectLookupParameters:
            return HttpResponseRedirect(self.list_url(request, Campaign, e=1))
        return exports.answer("campaigns", exports.campaigns(found))

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        name = "admin:campaigns_campaign_export_all"
        address = reverse(name, current_app=self.admin_site.name)
        query = request.GET.urlencode()
        export = f"{address}?{query}" if query else address
        return super().changelist_view(request, {"export": export, **(extra_context or {})})


def _number(text: str) -> list[int]:
    """The id in a URL; none where it is no number."""
    return [int(text)] if text.isascii() and text.isdigit() and len(text) < 19 else []
