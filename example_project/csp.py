"""A Content-Security-Policy for every page: nothing but what the project itself serves.

Django has a middleware of its own from 6.0 on (``django.middleware.csp``); this does for 5.2 as
well. There is no inline script and no inline style in any page. Swagger UI alone, on the page of
the API's reference, has its icons as ``data:`` URLs in its style sheet.
"""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

POLICY = "default-src 'self'; frame-ancestors 'none'"
REFERENCE = "webhooks-docs:reference"


def content_security_policy(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """The middleware. A view that sends a policy of its own keeps it."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        match = request.resolver_match
        icons = "; img-src 'self' data:" if match and match.view_name == REFERENCE else ""
        response.headers.setdefault("Content-Security-Policy", POLICY + icons)
        return response

    return middleware
