"""Who asks: a bearer token in the ``Authorization`` header, or a session of active staff.

A token anywhere else (query, body) is not looked at: it would end up in logs. The body is not read
here, so that nobody needs to be believed before their bytes are parsed.
"""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from oauth2_provider.contrib.rest_framework import OAuth2Authentication
from rest_framework.authentication import SessionAuthentication
from rest_framework.exceptions import AuthenticationFailed, UnsupportedMediaType
from rest_framework.permissions import SAFE_METHODS

FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


class BearerAuthentication(OAuth2Authentication):  # type: ignore[misc]
    """A token of django-oauth-toolkit's, from the header alone (RFC 6750, section 2.1).

    A header that holds no valid token is refused, even where a session would do.
    """

    def authenticate(self, request: Any) -> tuple[Any, Any] | None:
        header = request.META.get("HTTP_AUTHORIZATION", "")
        if header.split(" ", 1)[0].lower() != "bearer":
            return None
        bare = _without_query_and_body(request)
        found = super().authenticate(bare)
        if found is None:
            request.oauth2_error = getattr(bare, "oauth2_error", {})
            raise AuthenticationFailed(
                _("The access token is unknown, expired or revoked. Get a new one.")
            )
        user, token = found
        return user, token


def _without_query_and_body(request: Any) -> HttpRequest:
    """A request that holds the header, and no other place in which a token could stand."""
    bare = HttpRequest()
    bare.method = "GET"
    bare.path = bare.path_info = request.path
    bare.META = {**request.META, "QUERY_STRING": "", "CONTENT_TYPE": "", "CONTENT_LENGTH": ""}
    return bare


class StaffSessionAuthentication(SessionAuthentication):
    """The session of an active member of staff; changes need the CSRF token in its header."""

    def authenticate(self, request: Any) -> tuple[Any, None] | None:
        user = getattr(request._request, "user", None)
        # A user model of the host's own may have neither.
        if not (getattr(user, "is_active", False) and getattr(user, "is_staff", False)):
            return None
        if request.method not in SAFE_METHODS and request.content_type.startswith(FORMS):
            # Django would read such a body, files included, to look for a token in it.
            raise UnsupportedMediaType(request.content_type)
        self.enforce_csrf(request._request)
        return user, None
