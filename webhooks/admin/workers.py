"""The page “Workers and schedules”: who works, and whether what runs by the clock has run.

Nothing is judged here: :mod:`webhooks.health` does, for this page, the page of the service and
``manage.py webhooks_status`` alike.
"""

from __future__ import annotations

from typing import Any, Final

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, pgettext

from webhooks import health
from webhooks.admin.health import Tile
from webhooks.admin.views import SitePageAdmin
from webhooks.health import figures, workers
from webhooks.health.verdicts import LATE
from webhooks.models import Delivery, Duty, Lane, Worker, WorkersAndSchedules
from webhooks.templatetags.webhooks_admin import CHIPS, capped, number, span

#: What each of them is for.
PURPOSES: Final = (
    (Duty.Name.SWEEP.value, gettext_lazy("finds what no worker was woken for")),
    (Duty.Name.TICK.value, gettext_lazy("begins the windows of digests, at each full hour")),
    (Duty.Name.PRUNE.value, gettext_lazy("removes what is older than RETENTION_DAYS")),
)


@admin.register(WorkersAndSchedules)
class WorkersAndSchedulesAdmin(SitePageAdmin):
    def page(self, request: HttpRequest) -> HttpResponse:
        service = health.of_service()
        crew = workers.crew(service.updated_at)
        headline = health.of_crew(service, crew)
        fixes = [health.how_to_fix(each) for each in service.schedules]
        return self.live(
            request,
            "admin/webhooks/workers.html",
            "admin/webhooks/workers_live.html",
            _("Workers and schedules"),
            now=service.updated_at,
            headline=headline,
            tone=CHIPS[headline.status][0],
            fixes=list(dict.fromkeys(filter(None, fixes))),
            tiles=self.tiles(request, service, crew),
            schedules=service.schedules,
            crew=crew,
            purposes=PURPOSES,
            lists=[
                (model._meta.verbose_name_plural, url)
                for model in (Worker, Lane, Duty)
                if (url := self.list_url(request, model))
            ],
        )

    def tiles(
        self, request: HttpRequest, service: health.ServiceHealth, crew: workers.Crew
    ) -> list[Tile]:
        alive = sum(not each.is_silent for each in crew.workers)
        silent = len(crew.workers) - alive
        delay = service.delivery_delay_s
        queue: Any = _("not known") if crew.queue is None else number(crew.queue)
        return [
            Tile(
                pgettext("processes", "Workers"),
                number(alive),
                _("Heard of within 90 s. They come when there is something to do, and leave."),
                self.list_url(request, Worker),
                "warn" if silent else "",
            ),
            Tile(_("POSTs in flight"), number(crew.in_flight), _("Sent, and not answered yet.")),
            Tile(
                _("Lanes held"),
                number(crew.lanes),
                _("Queues of subscriptions that a worker has in its hands."),
                self.list_url(request, Lane),
            ),
            Tile(
                _("Lanes that wait"),
                capped(figures.lanes_that_wait(service.updated_at)),
                _("Queues that are due, and that no worker has taken yet."),
                self.list_url(request, Lane),
            ),
            Tile(
                _("Oldest due"),
                span(delay),
                _("How long the oldest of what is due has waited for a worker."),
                self.list_url(request, Delivery, state__exact="pending", since="all"),
                "bad" if delay > LATE.total_seconds() else "",
            ),
            Tile(_("Tasks in the queue"), queue, _("Of django-q2, not begun yet.")),
        ]
