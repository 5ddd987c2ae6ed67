"""The page “Failure reasons”: every way to fail, what it means, how to fix it, and an example."""

from __future__ import annotations

from dataclasses import dataclass

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _

from webhooks.admin.views import PagesAdmin
from webhooks.conf import settings
from webhooks.models import DeliveryAttempt
from webhooks.remedies import ENDINGS, REMEDIES, ending, remedy

NAME = "webhooks_deliveryattempt_reasons"


@dataclass(frozen=True, slots=True)
class Line:
    """One reason. example: the address of the newest attempt that failed so; "": there is none."""

    code: str
    title: str
    fix: str
    example: str = ""


class FailureReasons(PagesAdmin):
    """The page, to be mixed into the ModelAdmin of attempts: who may see those, may see it."""

    def reasons_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.reasons_view)
        return [path("reasons/", view, name=NAME)]

    def reasons_view(self, request: HttpRequest) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        newest = DeliveryAttempt.objects.using(settings.database).newest_failures(REMEDIES)
        attempts = [
            Line(
                code,
                remedy(code).title,
                remedy(code).fix,
                self.change_url(request, DeliveryAttempt, newest.get(code, "")),
            )
            for code in REMEDIES
        ]
        endings = [Line(code, ending(code).title, ending(code).fix) for code in ENDINGS]
        return self.render(
            request,
            "admin/webhooks/reasons.html",
            _("Failure reasons"),
            attempts=attempts,
            endings=endings,
            days=settings.RETENTION_DAYS,
        )


def reasons_url(page: PagesAdmin, request: HttpRequest, code: str = "") -> str:
    """The address of the page, at one of its reasons; "" for who may not see it."""
    if not page.list_url(request, DeliveryAttempt):
        return ""
    address = reverse(f"admin:{NAME}", current_app=page.admin_site.name)
    return f"{address}#{code}" if code in REMEDIES or code in ENDINGS else address
