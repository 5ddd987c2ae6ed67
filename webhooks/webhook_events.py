"""Operational event types: what the service tells subscribers of their own subscriptions.

They go to subscriptions of the requester concerned that ask for them by name or by ``webhooks.*``;
``*`` does not cover them. They are recorded by :mod:`webhooks.notices`.
"""

from __future__ import annotations

from typing import Any, Final

from webhooks import catalog

FAILING: Final = "webhooks.subscription.failing"
RECOVERED: Final = "webhooks.subscription.recovered"
SUSPENDED: Final = "webhooks.subscription.suspended"
DELIVERY_DEAD: Final = "webhooks.delivery.dead"

_SUBSCRIPTION_ID: Final = {"type": "string", "pattern": "^sub_[0-9a-f]{32}$"}
_HOST: Final = {
    "type": "string",
    "description": "Host of the callback URL; path and query are not told.",
}
_TIME: Final = {"type": "string", "format": "date-time"}
_TIME_OR_NULL: Final = {"type": ["string", "null"], "format": "date-time"}
_REASON: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "code": {"type": "string", "description": "For programs."},
        "message": {
            "type": "string",
            "description": "What is wrong, since when, and what to do.",
        },
    },
    "required": ["code", "message"],
    "additionalProperties": False,
}


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _subscription(*, with_reason: bool, **more: Any) -> dict[str, Any]:
    """The schema of what is told of a subscription. more: further properties."""
    properties = {"subscription_id": _SUBSCRIPTION_ID, "host": _HOST, "since": _TIME}
    if with_reason:
        properties["reason"] = _REASON
    return _object(**properties, last_success_at=_TIME_OR_NULL, **more)


_EXAMPLE: Final = {
    "subscription_id": "sub_0199e5a6b1c27d3e8f40a1b2c3d4e5f6",
    "host": "hooks.example.com",
}

catalog.register(
    FAILING,
    title="Subscription failing",
    description="Five or more attempts in a row have failed at a subscription's endpoint.",
    schema=_subscription(with_reason=True),
    example={
        **_EXAMPLE,
        "since": "2026-01-31T13:20:04.211Z",
        "reason": {
            "code": "server_error",
            "message": "5 attempts in a row have failed since 2026-01-31 13:20 UTC. Last error: "
            "The endpoint answered with a server error. Look into its log.",
        },
        "last_success_at": "2026-01-31T13:19:58.007Z",
    },
)
catalog.register(
    RECOVERED,
    title="Subscription recovered",
    description="The endpoint of a subscription that was failing, or suspended for it, has "
    "answered with a success again.",
    schema=_subscription(with_reason=False),
    example={
        **_EXAMPLE,
        "since": "2026-01-31T15:02:41.530Z",
        "last_success_at": "2026-01-31T15:02:41.530Z",
    },
)
catalog.register(
    SUSPENDED,
    title="Subscription suspended",
    description="A subscription was suspended, and not by its owner: nothing is sent to it.",
    schema=_subscription(
        with_reason=True,
        backlog_expires_at={
            **_TIME,
            "description": "When what is pending for it will expire, unless it is resumed.",
        },
    ),
    example={
        **_EXAMPLE,
        "since": "2026-02-05T13:20:04.211Z",
        "reason": {
            "code": "operator",
            "message": "The subscription was suspended by an operator of the service on "
            "2026-02-05 13:20 UTC. Ask them to resume it. New events are kept until then. "
            "What still waits on 2026-03-07 13:20 UTC expires.",
        },
        "last_success_at": "2026-01-31T13:19:58.007Z",
        "backlog_expires_at": "2026-03-07T13:20:04.211Z",
    },
)
catalog.register(
    DELIVERY_DEAD,
    title="Delivery given up",
    description=(
        "A delivery failed at its last try, or became too old for another one. It can be "
        "redelivered. Deliveries of operational events are given up without such an event."
    ),
    schema=_object(
        delivery_id={"type": "string", "pattern": "^dlv_[0-9a-f]{32}$"},
        subscription_id=_SUBSCRIPTION_ID,
        event_id={"type": "string", "pattern": "^evt_[0-9a-f]{32}$"},
        event_type={"type": "string"},
        state={"enum": ["dead", "expired"]},
        attempts={"type": "integer", "minimum": 1},
        error_code={"type": "string", "description": "Of the last attempt."},
        status_code={"type": ["integer", "null"], "description": "Of the last answer, if any."},
        ended_at=_TIME,
    ),
    example={
        "delivery_id": "dlv_0199e5a6b1c27d3e8f40a1b2c3d4e5f7",
        "subscription_id": "sub_0199e5a6b1c27d3e8f40a1b2c3d4e5f6",
        "event_id": "evt_0199e5a6b1c27d3e8f40a1b2c3d4e5f8",
        "event_type": "push.clicked",
        "state": "dead",
        "attempts": 10,
        "error_code": "timeout",
        "status_code": None,
        "ended_at": "2026-02-03T16:24:55.102Z",
    },
)
