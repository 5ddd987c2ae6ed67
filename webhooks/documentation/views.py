"""The public pages for subscribers: the event catalogue and the reference of the API.

Everybody may read them. They show the types that need no scope, and nothing of any tenant.
"""

from __future__ import annotations

from typing import Final

from django.apps import apps
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils.cache import patch_cache_control, patch_vary_headers
from django.views.decorators.http import require_safe

from webhooks.documentation import pages
from webhooks.documentation.markdown import as_markdown
from webhooks.documentation.openapi import EXTRA, HAS_EXTRA

#: Seconds that a page may be kept: it changes with a release of the host only.
MAX_AGE: Final = 300
#: The media types of the catalogue, the preferred one first.
_FORMATS: Final = {
    "html": "text/html",
    "md": "text/markdown",
    "json": "application/json",
}


@require_safe
def events(request: HttpRequest, form: str = "") -> HttpResponse:
    """The event catalogue.

    form: ``md``, ``json`` or ``html``, by the path or by ``?format=``; "": what ``Accept`` prefers.
    """
    form = form or request.GET.get("format", "")
    if form not in _FORMATS:
        preferred = request.get_preferred_type(list(_FORMATS.values()))
        form = next((name for name, media in _FORMATS.items() if media == preferred), "html")
    if form == "md":
        response = HttpResponse(as_markdown(), content_type="text/markdown; charset=utf-8")
    elif form == "json":
        response = JsonResponse(pages.as_data(), json_dumps_params={"ensure_ascii": False})
    else:
        context = {"entries": pages.entries(), "facts": pages.facts(), "page": "events"}
        response = render(request, "webhooks/documentation/events.html", context)
    patch_vary_headers(response, ["Accept"])
    return _kept(response)


@require_safe
def reference(request: HttpRequest) -> HttpResponse:
    """The reference of the API: Swagger UI from the host's own static files."""
    missing = ""
    if not HAS_EXTRA:
        missing = EXTRA
    elif not apps.is_installed("drf_spectacular_sidecar"):
        missing = (
            "The reference needs the static files of drf-spectacular-sidecar. Install "
            "'django-webhook-delivery[schema]' on the server and add 'drf_spectacular_sidecar' "
            "to INSTALLED_APPS."
        )
    context = {"missing": missing, "page": "reference"}
    return _kept(render(request, "webhooks/documentation/reference.html", context))


def _kept(response: HttpResponse) -> HttpResponse:
    patch_cache_control(response, public=True, max_age=MAX_AGE)
    return response
