"""Rows that nobody can deliver for: each ends in recorded failures or rests, and all else flows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.world import Receiver, emit_orders, subscribe, until
from webhooks.crypto import Sealed, seal
from webhooks.models import Delivery, DeliveryAttempt, Lane, SigningSecret, Subscription

pytestmark = pytest.mark.django_db(transaction=True)

#: Written past every check: column -> value.
ROWS: list[dict[str, Any]] = [
    {"callback_url": ""},
    {"callback_url": "http://["},
    {"callback_url": "http://127.0.0.1:1/\r\nX: y"},
    {"callback_url": "http://10.0.0.1/"},
    {"headers": Sealed(seal('{"X-A": "a\\r\\nX-B: b"}'))},
    {"headers": Sealed(seal('{"X-A": "\\ud800"}'))},
    {"headers": Sealed(seal("no JSON"))},
    {"headers": Sealed("gAAAAABnot-ours")},
    {"basic_auth": Sealed(seal("no colon"))},
    {"format": "unheard-of"},
    {"event_types": {"no": "list"}},
]
SECRETS = [Sealed("gAAAAABnot-ours"), Sealed(seal("whsec_!")), None]


def poison(receiver: Receiver) -> list[Subscription]:
    made = []
    for i, row in enumerate([*ROWS, *({} for _ in SECRETS)]):
        made.append(subscribe(receiver, f"app:poison-{i}"))
        emit_orders(3, f"app:poison-{i}")
        Subscription.objects.filter(pk=made[-1].pk).update(**row)
    for each, value in zip(made[len(ROWS) :], SECRETS, strict=True):
        secrets = SigningSecret.objects.filter(subscription=each)
        if value is None:
            secrets.delete()
        else:
            secrets.update(value=value)
    return made


def has_ended_visibly(subscription: Subscription) -> bool:
    attempts = DeliveryAttempt.objects.filter(subscription=subscription)
    if attempts.exists():
        return not attempts.filter(error_code="").exists()
    lane = Lane.objects.get(pk=subscription.pk)
    rests = lane.pause_reason == "secret_unreadable" and lane.claim_at is not None
    # What subscribes to nothing that can be read gets nothing.
    return rests or not Delivery.objects.filter(subscription=subscription).exists()


def test_rows_that_cannot_be_delivered_hold_nobody_up(
    receivers: Callable[..., Receiver], start: Callable[..., Any]
) -> None:
    poisoned, healthy = receivers(), receivers()
    subscribe(healthy, "app:healthy")
    bad = poison(poisoned)
    worker = start("webhooks_worker", settings={"TIMEOUT": 2, "LEASE_SECONDS": 19})
    emit_orders(50, "app:healthy")
    healthy.wait_for(50, timeout=30)
    until(lambda: all(map(has_ended_visibly, bad)), 20, "an end for each")
    emit_orders(50, "app:healthy")
    healthy.wait_for(100)
    assert healthy.duplicates == 0
    assert worker.poll() is None
    assert poisoned.posts == []  # nothing unsigned, nothing without its headers, nothing forged
    assert not Delivery.objects.filter(subscription__in=bad, state="delivered").exists()
