"""One event for thousands of subscriptions, more than a worker holds lanes or connections at once.

That ten thousand are fanned out in bounded transactions is ``tests/engine/test_fanout.py``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from tests.world import Answer, Received, Receiver, states, subscribe, until
from webhooks import emit
from webhooks.engine.holdings import HELD
from webhooks.models import Lane, SigningSecret, Subscription, Worker

pytestmark = pytest.mark.django_db(transaction=True)

#: MiB that a worker may grow, whatever the size of the audience.
GROWTH = 60


def megabytes(pid: int, what: str) -> float:
    """VmRSS: that a process has in memory; VmHWM: that it had at most."""
    found = re.search(rf"^{what}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert found is not None
    return int(found[1]) / 1024


def crowd(receiver: Receiver, count: int) -> None:
    """So many subscribers to what is for everyone, each with a path of its own."""
    model = subscribe(receiver, "app:0", ["shop.closed"])
    [secret] = SigningSecret.objects.filter(subscription=model)
    Subscription.objects.filter(pk=model.pk).update(callback_url=f"{receiver.url}/0")
    made = [
        Subscription(
            requester=f"app:{i}",
            callback_url=f"{receiver.url}/{i}",
            event_types=["shop.closed"],
            status=model.status,
        )
        for i in range(1, count)
    ]
    Subscription.objects.bulk_create(made, batch_size=500)
    Lane.objects.bulk_create([Lane(subscription=each) for each in made], batch_size=500)
    SigningSecret.objects.bulk_create(
        [
            SigningSecret(subscription=each, value=secret.value, last_four=secret.last_four)
            for each in made
        ],
        batch_size=500,
    )


def test_each_of_a_large_audience_receives_an_event_once_in_bounded_memory(
    receiver: Receiver, start: Callable[..., Any], django_assert_num_queries: Any
) -> None:
    count = 3000 if connection.vendor == "postgresql" else 1500
    assert count > HELD
    paths: Counter[str] = Counter()

    def answer(post: Received) -> Answer:
        with receiver.arrived:
            receiver.posts.clear()  # so many bodies are not what is measured
            paths[post.path] += 1
        return Answer()

    receiver.answer = answer
    crowd(receiver, count)
    worker = start("webhooks_worker")
    until(Worker.objects.exists, 30, "the worker's start")
    before = megabytes(worker.pid, "VmRSS")
    with django_assert_num_queries(1):
        emit("shop.closed", {"day": "Monday"})
    until(lambda: states() == {"delivered": count}, 150, "the delivery to all")
    grown = megabytes(worker.pid, "VmHWM") - before
    assert len(paths) == count
    assert set(paths.values()) == {1}
    assert grown < GROWTH, f"{grown:.0f} MiB more than {before:.0f}"
