"""Retries start when they are due, although the scheduler ticks every 30 seconds only."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django_q.models import OrmQ

from tests.world import Answer, Received, Receiver, emit_orders, states, subscribe, until
from webhooks.conf import DEFAULTS
from webhooks.models import DeliveryAttempt

pytestmark = pytest.mark.django_db(transaction=True)

EVENTS = 12


def test_retries_start_within_a_second_and_a_half_of_their_time(
    receiver: Receiver, start: Callable[..., Any], settings: Any
) -> None:
    """The default schedule's first wait, through several slices of a real cluster."""
    settings.WEBHOOKS = {**settings.WEBHOOKS, "WAKER": "webhooks.engine.wake.enqueue_drain"}
    assert DEFAULTS["RETRY_SCHEDULE"][0] == 5

    def answer(post: Received) -> Answer:
        # Every second message fails once: the endpoint is not so ill that it is parked.
        fails = receiver.ids[post.id] == 1 and len(receiver.ids) % 2
        return Answer(status=500 if fails else 200)

    receiver.answer = answer
    subscribe(receiver)
    call_command("webhooks_schedules", stdout=io.StringIO())
    start("qcluster", settings={"DRAIN_SECONDS": 3})
    for _ in range(EVENTS):
        emit_orders(1)
        time.sleep(0.25)
    until(lambda: states() == {"delivered": EVENTS}, 30, "the delivery")
    retries = DeliveryAttempt.objects.filter(number=2)
    assert retries.count() == EVENTS / 2
    for retry in retries:
        assert retry.trigger == "retry"
        late = retry.started_at - retry.due_at
        assert timedelta(0) <= late <= timedelta(seconds=1.5)
        first = DeliveryAttempt.objects.get(message_id=retry.message_id, number=1)
        wait = (retry.due_at - first.started_at).total_seconds()
        assert 4.0 <= wait <= 6.0 + 1.0  # and the time of the answer
    # Waiting costs next to nothing: a handful of tasks, not one for each look.
    assert OrmQ.objects.count() < 10
