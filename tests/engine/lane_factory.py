"""Held lanes in memory, without a database."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime
from typing import Any

from webhooks.crypto import Sealed, seal
from webhooks.engine.lanes import HeldLane
from webhooks.formats.signing import generate_secret
from webhooks.models import Lane, SigningSecret, Subscription
from webhooks.models.delivery import DueDelivery
from webhooks.models.fields import new_delivery_id, new_event_id
from webhooks.models.subscription import Status

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
FAST, SLOW, UNKNOWN = 20, 3000, None


def due(lane_id: str, **given: Any) -> DueDelivery:
    values: dict[str, Any] = {
        "id": new_delivery_id(),
        "subscription_id": lane_id,
        "attempts": 0,
        "due_at": NOW,
        "first_due_at": NOW,
        "trigger": "",
        "event_id": new_event_id(),
        "event_type": "order.paid",
        "subject": "",
        "requester": "app:a",
        "occurred_at": NOW,
        "recorded_at": NOW,
        "data": "{}",
    }
    return DueDelivery(**{**values, **given})


def held_lane(
    latency_ms: int | None = FAST,
    *,
    waiting: int = 100,
    requester: str = "",
    host: str = "",
    **options: Any,
) -> HeldLane:
    """A lane of its own requester and host, with ``waiting`` deliveries in its buffer."""
    own = uuid.uuid4().hex
    subscription = Subscription(
        requester=requester or f"app:{own}",
        callback_url=f"https://{host or own + '.example'}/in",
        event_types=["*"],
        status=Status.SUBSCRIBED,
        **options,
    )
    row = Lane(subscription=subscription, latency_ms=latency_ms)
    secret = SigningSecret(subscription=subscription, value=Sealed(seal(generate_secret())))
    lane = HeldLane(row, [secret], lease_end=time.monotonic() + 60, now=NOW)
    lane.fill([due(lane.id) for _ in range(waiting)], waiting)
    return lane
