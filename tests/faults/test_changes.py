"""What people change while a real worker is delivering: no POST of the old kind begins later than a
second after the commit, and the worker's log shows no error."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction

from tests.world import Answer, Received, Receiver, emit_orders, states, subscribe, until
from webhooks import edits
from webhooks.exceptions import InvalidSignature
from webhooks.lifecycle import change_status
from webhooks.models import Lane, Subscription
from webhooks.models.subscription import Status
from webhooks.receiving import verify

pytestmark = pytest.mark.django_db(transaction=True)

EVENTS = 1500
#: A second, and what a busy machine takes to bring a POST that has begun.
LATE = 1.15


def suspend(subscription: Subscription, new: Receiver) -> str:
    change_status(subscription, Status.SUSPENDED, reason="client")
    return ""


def delete(subscription: Subscription, new: Receiver) -> str:
    with transaction.atomic():
        Lane.objects.lock([subscription.pk])
        subscription.delete()
    return ""


def point_elsewhere(subscription: Subscription, new: Receiver) -> str:
    edits.update(subscription, callback_url=new.url)
    return ""


def rotate(subscription: Subscription, new: Receiver) -> str:
    return edits.rotate_secret(subscription, overlap=timedelta(0))


def is_signed(post: Received, secret: str) -> bool:
    try:
        verify(post.body, post.headers, secret)
    except InvalidSignature:
        return False
    return True


@pytest.mark.parametrize("change", [suspend, delete, point_elsewhere, rotate])
def test_a_change_in_mid_delivery_is_heeded_within_a_second(
    receivers: Callable[..., Receiver],
    start: Callable[..., Any],
    tmp_path: Path,
    change: Callable[[Subscription, Receiver], str],
) -> None:
    old, new = receivers(Answer(after=0.03)), receivers()
    subscription = subscribe(old)
    Lane.objects.update(latency_ms=30)
    emit_orders(EVENTS)
    log = tmp_path / "log"
    worker = start("webhooks_worker", settings={"CONCURRENCY": 8}, log=log)
    old.wait_for(50, timeout=30)
    secret = change(subscription, new)
    committed = time.time()
    if change is point_elsewhere:
        new.wait_for(50)
    elif change is rotate:
        until(lambda: old.posts[-1].at > committed + LATE + 0.3, 20, "more POSTs")
    else:
        time.sleep(LATE + 0.5)
    worker.terminate()
    assert worker.wait(25) == 0
    late = [post for post in old.posts if post.at > committed + LATE]
    if change is rotate:
        assert late
        assert all(is_signed(post, secret) for post in late)
        assert not is_signed(old.posts[0], secret)
    else:
        assert late == []
        assert len(old.posts) < EVENTS  # or nothing was tried
    assert states()["pending"] > 0 or change is delete
    assert max(old.ids.values()) == 1
    assert "Traceback" not in log.read_text()
