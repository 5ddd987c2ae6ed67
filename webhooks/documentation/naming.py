"""The names of the operations, and the form of what stands in their paths.

Generated clients make methods of these names, so they never change.
"""

from __future__ import annotations

from typing import Any, Final

#: operationId by method and path.
NAMES: Final[dict[tuple[str, str], str]] = {
    ("GET", "subscriptions/"): "listSubscriptions",
    ("POST", "subscriptions/"): "createSubscription",
    ("GET", "subscriptions/{id}/"): "getSubscription",
    ("PUT", "subscriptions/{id}/"): "replaceSubscription",
    ("PATCH", "subscriptions/{id}/"): "updateSubscription",
    ("DELETE", "subscriptions/{id}/"): "deleteSubscription",
    ("POST", "subscriptions/{id}/ping/"): "pingSubscription",
    ("POST", "subscriptions/{id}/suspend/"): "suspendSubscription",
    ("POST", "subscriptions/{id}/resume/"): "resumeSubscription",
    ("POST", "subscriptions/{id}/rotate-secret/"): "rotateSubscriptionSecret",
    ("POST", "subscriptions/{id}/replay/"): "replaySubscription",
    ("GET", "subscriptions/{id}/replays/"): "listReplays",
    ("GET", "subscriptions/{id}/replays/{replay_id}/"): "getReplay",
    ("POST", "subscriptions/{id}/replays/{replay_id}/cancel/"): "cancelReplay",
    ("GET", "subscriptions/{id}/health/"): "getSubscriptionHealth",
    ("GET", "event-types/"): "listEventTypes",
    ("GET", "event-types/{name}/"): "getEventType",
    ("GET", "event-types/{name}/samples/"): "listEventTypeSamples",
    ("GET", "events/"): "listEvents",
    ("GET", "events/{id}/"): "getEvent",
    ("GET", "deliveries/"): "listDeliveries",
    ("GET", "deliveries/{id}/"): "getDelivery",
    ("GET", "deliveries/{id}/attempts/"): "listDeliveryAttempts",
    ("POST", "deliveries/{id}/redeliver/"): "redeliverDelivery",
    ("GET", "status/"): "getServiceStatus",
    ("GET", "schema/"): "getSchema",
}

#: What each group of operations is about.
TAGS: Final[dict[str, str]] = {
    "subscriptions": "What you asked for: where to, which events, and how it fares.",
    "event-types": "What you can subscribe to.",
    "events": "What happened: look one up, or read what you missed.",
    "deliveries": "One event on its way to one subscription; and, under webhooks, what arrives.",
    "status": "The service as a whole.",
    "schema": "This document.",
}

_PREFIXES: Final = {"subscriptions": "sub", "replays": "rpl", "events": "evt", "deliveries": "dlv"}


def parameter_schema(place: str) -> dict[str, Any]:
    """The schema of what follows ``place/`` in a path: an id, or the name of an event type."""
    if place in _PREFIXES:
        return {"type": "string", "pattern": f"^{_PREFIXES[place]}_[0-9a-f]{{32}}$"}
    return {"type": "string", "pattern": r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*){1,2}$"}
