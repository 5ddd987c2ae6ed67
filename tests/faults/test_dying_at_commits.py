"""Processes that die around a commit: the one moment that decides what is repeated."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from django_q.models import OrmQ

from tests.faults.conftest import end_leases
from tests.faults.storm import PLACES
from tests.world import Answer, Receiver, deliver, emit_orders, states, subscribe
from webhooks.models import Delivery, DeliveryAttempt, Event, Lane
from webhooks.tasks import sweep

pytestmark = pytest.mark.django_db(transaction=True)

EVENTS = 40
#: Small flushes, so that there are several to die at.
SETTINGS = {"TIMEOUT": 2, "LEASE_SECONDS": 19, "CONCURRENCY": 8, "FLUSH_MAX": 10}


def die(start_faulty: Callable[..., Any], *arguments: str, **die: Any) -> None:
    process = start_faulty(*arguments, die=die, settings=SETTINGS)
    assert process.wait(30) == -signal.SIGKILL
    time.sleep(0.2)  # what it had sent arrives


def posts_without_a_record(receiver: Receiver) -> set[str]:
    return set(receiver.ids) - set(DeliveryAttempt.objects.values_list("message_id", flat=True))


@pytest.mark.parametrize("at", ["before", "after"])
@pytest.mark.parametrize("place", ["fan-out", "claim", "answers"])
def test_a_worker_that_dies_at_a_commit_repeats_exactly_its_open_posts(
    receiver: Receiver, start_faulty: Callable[..., Any], place: str, at: str
) -> None:
    receiver.answer = Answer(after=0.02)
    for name in ("app:a", "app:b"):
        subscribe(receiver, name)
    Lane.objects.update(latency_ms=20)
    emitted = [event.pk for name in ("app:a", "app:b") for event in emit_orders(EVENTS // 2, name)]
    nth = 3 if place == "answers" else 1
    die(start_faulty, "webhooks_worker", sql=PLACES[place], at=at, nth=nth)
    open_posts = posts_without_a_record(receiver)
    if place == "answers":
        assert DeliveryAttempt.objects.exists()  # of the flushes before
        assert (at == "after") or open_posts
    else:
        assert not receiver.posts
        assert Delivery.objects.count() == (0 if (place, at) == ("fan-out", "before") else EVENTS)
    end_leases()
    deliver()
    assert states() == {"delivered": EVENTS}
    assert receiver.ids == Counter(emitted) + Counter(open_posts)
    for webhook_id in emitted:
        assert len(receiver.bodies_of(webhook_id)) == 1


@pytest.mark.parametrize("at", ["before", "after"])
def test_a_host_that_dies_between_its_commit_and_the_wake_up_has_emitted(
    receiver: Receiver, start_faulty: Callable[..., Any], settings: Any, at: str
) -> None:
    """Before the commit there is nothing to send; after it, the sweep finds what nobody called
    for."""
    waker = {"WAKER": "webhooks.engine.wake.enqueue_drain"}
    settings.WEBHOOKS = {**settings.WEBHOOKS, **waker}
    subscribe(receiver)
    die(start_faulty, "emit", "3", "app:a", sql=r"INSERT INTO .webhooks_event.", at=at, nth=1)
    committed = 3 if at == "after" else 0
    assert Event.objects.count() == committed
    assert not OrmQ.objects.exists()
    sweep()
    assert OrmQ.objects.count() == min(committed, 1)
    deliver()
    assert Counter(receiver.ids.values()) == ({1: 3} if committed else {})
    assert set(receiver.ids) == set(Event.objects.values_list("pk", flat=True))
