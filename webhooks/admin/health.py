"""The page “Webhook health”: how the service fares, in one sentence and in figures.

Nothing is judged or counted here: :mod:`webhooks.health` does both, for this page, the API and
``manage.py webhooks_status`` alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _

from webhooks import health
from webhooks.admin import charts, ranges
from webhooks.admin.views import SitePageAdmin, live_part
from webhooks.health import digests, figures, workers
from webhooks.health.headlines import span
from webhooks.models import (
    DeadLetter,
    Delivery,
    DeliveryAttempt,
    Event,
    Subscription,
    WebhookHealth,
    WorkersAndSchedules,
)
from webhooks.models.subscription import FOR_FAILING, Status
from webhooks.remedies import REMEDIES, remedy
from webhooks.templatetags.webhooks_admin import (
    CHIPS,
    NOTHING,
    capped,
    milliseconds,
    number,
    percent,
)

#: Which lists show what a reason speaks of; any other reason's code is an error's.
REASONS: Final[dict[str, tuple[type[Model], dict[str, str]]]] = {
    "no_worker": (WorkersAndSchedules, {}),
    "late_schedule": (WorkersAndSchedules, {}),
    "abandoned": (Delivery, {"state__exact": "pending", "since": "all"}),
    "delayed": (Delivery, {"state__exact": "pending", "since": "all"}),
    "outage": (DeliveryAttempt, {}),
    "suspended": (
        Subscription,
        {"status__exact": Status.SUSPENDED.value, "status_reason__exact": FOR_FAILING},
    ),
    "dead_letters": (DeadLetter, {}),
}
TEMPLATE, FRAGMENT = "admin/webhooks/health.html", "admin/webhooks/health_live.html"


@dataclass(frozen=True, slots=True)
class Tile:
    """A figure. means: its definition. url: the list behind it; "": none that the user may see."""

    name: str
    value: str
    means: str
    url: str = ""
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """A reason for which attempts fail, with the list of such attempts and one of them."""

    code: str
    title: str
    fix: str
    count: int
    url: str
    example: str


@admin.register(WebhookHealth)
class WebhookHealthAdmin(SitePageAdmin):
    def page(self, request: HttpRequest) -> HttpResponse:
        is_part = "fragment" in request.GET
        context = {**self.shown(request), **({} if is_part else live_part(request, FRAGMENT))}
        template = FRAGMENT if is_part else TEMPLATE
        return self.render(request, template, _("Webhook health"), **context)

    def shown(self, request: HttpRequest) -> dict[str, Any]:
        """All that the page shows; a constant number of statements."""
        service = health.of_service()
        now = service.updated_at
        chosen = ranges.chosen(request.GET, now)
        found = figures.of(chosen.period)
        headline = health.headline(service, seen=bool(found.attempts))
        waiting = figures.waiting(now)
        failures = self.failures(request, found, chosen.key)
        return {
            "now": now,
            "range": chosen,
            "headline": headline,
            "tone": CHIPS[service.status][0],
            "reasons": [
                *self.failing(request, service),
                *(
                    (reason.message, self.reason_url(request, reason.code))
                    for reason in service.verdict.reasons
                ),
            ],
            "is_new": service.status == health.IDLE and not found.attempts,
            "add_url": self.add_url(request),
            "tiles": [
                *self.rates(request, found, chosen.key),
                *self.backlog(request, service, waiting),
            ],
            "throughput": throughput(found, chosen.labels),
            "latency": latency(found, chosen.labels),
            "crew": workers.crew(now),
            "schedules": service.schedules,
            "digests": [
                (each, Subscription(trigger=each.trigger).get_trigger_display())
                for each in digests.next_digests(now)
            ],
            "workers_url": self.list_url(request, WorkersAndSchedules),
            "failures": [each for each in failures if each.count],
            "other_failures": [each for each in failures if not each.count],
            "worst": [
                (each, self.change_url(request, Subscription, each.subscription.pk))
                for each in figures.worst_endpoints(chosen.period)
            ],
            "busiest": [
                (each, self.list_url(request, Event, type=each.name, since=since(chosen.key)))
                for each in figures.busiest_types(chosen.period)
            ],
        }

    def rates(self, request: HttpRequest, found: figures.Figures, key: str) -> list[Tile]:
        """What was sent within the period."""
        attempts = self.list_url(request, DeliveryAttempt, since=since(key))
        dead = self.list_url(request, Delivery, state__exact="dead", since=since(key))
        estimated = _("Milliseconds of one POST; half, 95 % and 99 % took less. Estimated.")
        overall = found.overall
        times = " / ".join(map(number, overall.as_dict().values())) if overall else NOTHING
        return [
            Tile(
                _("First-try success"),
                percent(found.first_try_rate),
                _("Delivered by the first attempt, of all deliveries that ended."),
                self.list_url(request, Delivery, since=since(key)),
            ),
            Tile(
                _("Eventually delivered"),
                percent(found.delivered_rate),
                _("Delivered, of all deliveries that ended: delivered or dead."),
                self.list_url(request, Delivery, state__exact="delivered", since=since(key)),
            ),
            Tile(_("Attempts"), number(found.attempts), _("POSTs, retries included."), attempts),
            Tile(
                _("Latency p50 / p95 / p99"),
                times,
                estimated,
                attempts,
            ),
            Tile(
                _("Event to acknowledged, p95"),
                milliseconds(found.acknowledged.p95 if found.acknowledged else None),
                _("From the event's record to the receiver's 2xx. Estimated."),
                self.list_url(request, Event, since=since(key)),
            ),
            Tile(
                _("Dead letters"),
                number(found.dead),
                _("Deliveries that were given up within the period."),
                dead,
                "bad" if found.dead else "",
            ),
        ]

    def backlog(self, request: HttpRequest, service: health.ServiceHealth, waiting: Any) -> Any:
        """What waits now, whatever the period."""
        pending = self.list_url(request, Delivery, state__exact="pending", since="all")
        held = figures.suspended_for_failing()
        of_many = waiting.pending >= health.MOST_COUNTED
        next_at = waiting.next_retry_at
        return [
            Tile(
                _("Due now"),
                capped(waiting.due),
                _("Of the first 10,000 that wait.") if of_many else _("Deliveries to send now."),
                pending,
            ),
            Tile(
                _("Oldest due"),
                span(timedelta(seconds=service.delivery_delay_s)),
                _("How long the oldest of what is due has waited for a worker."),
                pending,
            ),
            Tile(
                _("Retrying"),
                capped(waiting.retrying),
                _("They failed before; the next at %(at)s.") % {"at": health.shown(next_at)}
                if next_at
                else _("Deliveries that failed before, and wait."),
                pending,
            ),
            Tile(
                _("Suspended (automatic)"),
                capped(held),
                _("Subscriptions that the service holds, since they failed for days."),
                self.reason_url(request, "suspended"),
                "warn" if held else "",
            ),
        ]

    def failures(self, request: HttpRequest, found: figures.Figures, key: str) -> list[Failure]:
        """A line for each error there is; what happened comes first."""
        examples = figures.examples()
        codes = [*REMEDIES, *(each for each in found.by_code if not remedy(each).title)]
        lines = [
            Failure(
                code,
                remedy(code).title or code,
                remedy(code).fix,
                found.by_code[code],
                self.list_url(request, DeliveryAttempt, error_code__exact=code, since=since(key)),
                self.change_url(request, DeliveryAttempt, examples.get(code, "")),
            )
            for code in codes
        ]
        return sorted(lines, key=lambda each: -each.count)

    def failing(self, request: HttpRequest, service: Any) -> list[tuple[str, str]]:
        """The endpoints that the headline counts, where all is not well."""
        if not service.verdict.reasons:
            return []
        return [
            (said, self.change_url(request, Subscription, subscription.pk))
            for subscription, said in health.failing_endpoints(service.updated_at)
        ]

    def reason_url(self, request: HttpRequest, code: str) -> str:
        model, query = REASONS.get(code, (DeliveryAttempt, {"error_code__exact": code}))
        return self.list_url(request, model, **query)

    def add_url(self, request: HttpRequest) -> str:
        if not request.user.has_perm("webhooks.add_subscription"):
            return ""
        return reverse("admin:webhooks_subscription_add", current_app=self.admin_site.name)


def throughput(found: figures.Figures, labels: list[str]) -> charts.Chart:
    """Attempts by how they ended."""
    shown = [
        charts.Series(_("delivered"), found.succeeded, "good"),
        charts.Series(_("failed"), found.failed, "bad"),
    ]
    return charts.bars(_("Throughput: attempts"), labels, shown, label=_("Time (UTC)"))


def latency(found: figures.Figures, labels: list[str]) -> charts.Chart:
    """Percentiles of one POST."""
    shown = [
        charts.Series(name, [getattr(each, name, None) for each in found.latency], tone)
        for name, tone in (("p50", "first"), ("p95", "second"), ("p99", "third"))
    ]
    title = _("Latency in milliseconds, estimated")
    return charts.lines(title, labels, shown, label=_("Time (UTC)"))


def since(key: str) -> str:
    """The span of the lists that holds a range; the lists' own is the last 24 hours."""
    return {"1h": "", "24h": "", "7d": "7d", "30d": "30d"}.get(key, "all")
