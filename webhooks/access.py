"""Who owns a subscription, and what its owner may still receive.

The same questions are asked at the API, at fan-out and by whoever holds a lane; the answers are
given here and nowhere else. Nothing is changed here: :mod:`webhooks.lifecycle` suspends what is
entitled no longer.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol, cast

from django.contrib.auth import get_user_model
from django.db import transaction
from django.utils.module_loading import import_string

from webhooks.conf import settings
from webhooks.exceptions import UnknownEventType

logger = logging.getLogger("webhooks")

#: The scopes of the API.
READ: Final = "webhooks:read"
WRITE: Final = "webhooks:write"
#: In place of scopes: all of them. What the host itself or its staff made is bound by none.
ALL: Final = frozenset({"*"})


class Owner(Protocol):
    """What is asked of a subscription, or of whatever knows its owner."""

    @property
    def requester(self) -> str: ...
    @property
    def application_id(self) -> Any: ...
    @property
    def user_id(self) -> Any: ...
    @property
    def scopes(self) -> str | frozenset[str]: ...
    @property
    def grant_revoked_at(self) -> datetime | None: ...


class TypeWithScope(Protocol):
    """An event type, as far as its visibility goes."""

    @property
    def scope(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Client:
    """Who makes a request of the API.

    requester: whose subscriptions and events it may see. application_id, user_id: of the token;
    None where it has none. scopes: granted to the token; ``ALL`` for staff.
    """

    requester: str
    application_id: Any
    user_id: Any
    scopes: frozenset[str]

    @property
    def grant_revoked_at(self) -> None:
        """A token that was accepted just now has not been revoked."""
        return None


def identify(request: Any) -> Client | None:
    """The client behind an authenticated request of Django REST framework; None: nobody.

    A token counts for what it was granted and is still entitled to; a session, for active staff
    alone. Raises what a
    ``REQUESTER`` of the host's raises.
    """
    if getattr(request, "successful_authenticator", True) is None:
        return None  # what a host sets as UNAUTHENTICATED_TOKEN is nobody's
    token = request.auth
    if token is not None and hasattr(token, "scope"):
        if token.application_id is None and token.user_id is None:
            return None  # known from an introspection elsewhere: nobody here stands behind it
        application_id = token.application_id
        user_id = token.user_id
        scopes = frozenset(token.scope.split())
    elif getattr(request.user, "is_active", False) and getattr(request.user, "is_staff", False):
        application_id, user_id, scopes = None, request.user.pk, ALL
    else:
        return None
    requester = str(import_string(settings.REQUESTER)(request))
    still = granted(Client(requester, application_id, user_id, scopes))
    if still is None:
        return None
    # A token without an application is bound by its own scopes alone, be there none.
    return Client(requester, application_id, user_id, scopes if still == ALL else still)


def requester_of(request: Any) -> str:
    """The default of ``REQUESTER``: ``user:<pk>``, or ``app:<client id>`` for a token without user.

    request: authenticated by :mod:`webhooks.api.authentication`.
    """
    if request.user is not None and request.user.pk is not None:
        return f"user:{request.user.pk}"
    return f"app:{request.auth.application.client_id}"


def sees(scopes: Collection[str] | None, entry: TypeWithScope) -> bool:
    """Whether these scopes let their holder receive, and know of, an event type.

    scopes: None: the holder is entitled to nothing.
    """
    if scopes is None:
        return False
    return entry.scope is None or "*" in scopes or entry.scope in scopes


def sees_type(scopes: Collection[str] | None, name: str) -> bool:
    """:func:`sees`, for the name of a type that a release before this one may have recorded."""
    from webhooks import catalog

    try:
        return sees(scopes, catalog.get(name))
    except UnknownEventType:
        return scopes is not None  # no scope is known that it would need


def granted(owner: Owner) -> frozenset[str] | None:
    """What an owner is entitled to now: its scopes, or None when it is entitled to nothing.

    See :class:`Entitlements`, which answers for many with the same statements.
    """
    return Entitlements([owner]).granted(owner)


class Entitlements:
    """What each of these owners is entitled to, read when this is made.

    An owner is entitled as long as its application exists, its user is active, its grant has not
    been revoked, and the host's ``ENTITLEMENT`` agrees; to those of its scopes that the
    application may still ask for. Whether the token that made the subscription has expired does
    not matter: tokens come and go, the grant stays. Three statements at most, however many owners.
    """

    def __init__(self, owners: Iterable[Owner]) -> None:
        owners = list(owners)
        applications = {each.application_id for each in owners} - {None}
        users = {each.user_id for each in owners} - {None}
        self._applications = _existing_applications(applications)
        self._users = _active_users(users)
        self._asked: dict[tuple[str, Any, Any], bool] = {}
        self._available: dict[Any, frozenset[str]] = {}

    def granted(self, owner: Owner) -> frozenset[str] | None:
        """The scopes of one of the owners; None: entitled to nothing."""
        if owner.grant_revoked_at is not None:
            return None
        if owner.application_id is not None and owner.application_id not in self._applications:
            return None
        if owner.user_id is not None and owner.user_id not in self._users:
            return None
        if not self._host_agrees(owner):
            return None
        scopes = frozenset(owner.scopes.split() if isinstance(owner.scopes, str) else owner.scopes)
        if owner.application_id is None:
            return scopes or ALL  # without any, the host itself made it
        return scopes & self._available_to(owner.application_id)

    def _available_to(self, application_id: Any) -> frozenset[str]:
        from oauth2_provider.scopes import get_scopes_backend

        if application_id not in self._available:
            application = self._applications[application_id]
            try:
                found = get_scopes_backend().get_available_scopes(application=application)
                self._available[application_id] = frozenset(found)
            except Exception:
                # The host's backend fails for one application: nobody else may suffer from it, and
                # this one gets what needs no scope.
                logger.exception("The scopes of application %r are not known.", application_id)
                self._available[application_id] = frozenset()
        return self._available[application_id]

    def _host_agrees(self, owner: Owner) -> bool:
        path = settings.ENTITLEMENT
        if path is None:
            return True
        key = (owner.requester, owner.application_id, owner.user_id)
        if key not in self._asked:
            try:
                # In a savepoint, for fan-out asks within its transaction: a statement of the
                # host's that fails must not take everybody's events with it.
                with transaction.atomic(using=settings.database):
                    self._asked[key] = bool(import_string(path)(owner))
            except Exception:
                # A defect of the host's function must not stop everybody's events: what was
                # entitled yesterday stays so until somebody says otherwise.
                logger.exception("ENTITLEMENT failed for %r; it stays entitled.", owner.requester)
                self._asked[key] = True
        return self._asked[key]


def _existing_applications(ids: set[Any]) -> dict[Any, Any]:
    # Imported here: the catalogue asks this module, and may be imported before any model is.
    from oauth2_provider.models import get_application_model

    if not ids:
        return {}
    return cast(dict[Any, Any], get_application_model()._default_manager.in_bulk(ids))


def _active_users(ids: set[Any]) -> set[Any]:
    if not ids:
        return set()
    users = get_user_model()._default_manager.filter(pk__in=ids)
    return {user.pk for user in users if user.is_active}
