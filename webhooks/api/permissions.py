"""What a client may do: read with ``webhooks:read``, anything else with ``webhooks:write``."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext as _
from rest_framework.exceptions import NotAuthenticated, PermissionDenied
from rest_framework.permissions import SAFE_METHODS, BasePermission

from webhooks import access


class ScopePermission(BasePermission):
    """Tells the view who asks (``request.client``), and refuses what its scopes do not cover.

    ``IsAuthenticated`` would refuse every client-credentials token: it has no user.
    """

    def has_permission(self, request: Any, view: Any) -> bool:
        client = access.identify(request)
        if client is None:
            raise NotAuthenticated
        needed = access.READ if request.method in SAFE_METHODS else access.WRITE
        if needed not in client.scopes and client.scopes != access.ALL:
            raise PermissionDenied(
                _("The access token lacks the scope %(scope)s. Ask for one that has it.")
                % {"scope": needed}
            )
        request.client = client
        return True
