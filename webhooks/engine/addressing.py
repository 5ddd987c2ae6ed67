"""Whom an event is for: one answer, for fan-out and for those who ask why somebody got none."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final, Protocol

from webhooks.access import sees_type
from webhooks.models.subscription import RECEIVING, matches

#: Why a subscription is not given an event, in the order in which it is asked.
OTHER_REQUESTER: Final = "other_requester"
NOT_SUBSCRIBED: Final = "not_subscribed"
OTHER_TYPES: Final = "other_types"
NOT_ENTITLED: Final = "not_entitled"
NO_SCOPE: Final = "no_scope"


class Addressed(Protocol):
    """What is asked of an event."""

    @property
    def type(self) -> str: ...
    @property
    def requester(self) -> str: ...


class Subscriber(Protocol):
    """What is asked of a subscription."""

    @property
    def requester(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def event_types(self) -> Any: ...


def refusal(event: Addressed, subscription: Subscriber, scopes: Collection[str] | None) -> str:
    """Why a subscription, as it is now, is not given an event; "": it is given a delivery.

    scopes: what its owner is entitled to now (:class:`webhooks.access.Entitlements`).
    """
    if event.requester and event.requester != subscription.requester:
        return OTHER_REQUESTER
    if subscription.status not in RECEIVING:
        return NOT_SUBSCRIBED
    if not matches(subscription.event_types, event.type):
        return OTHER_TYPES
    if scopes is None:
        return NOT_ENTITLED
    return "" if sees_type(scopes, event.type) else NO_SCOPE
