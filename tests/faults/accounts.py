"""Which POSTs were open when a process died: those, and no others, may be sent again."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any, Literal

from django.db import connection

from tests.faults.ledger import Ledger, Post
from webhooks.engine.transactions import DATABASE_ERRORS
from webhooks.models import DeliveryAttempt, Lane, Worker

#: What is open began within so many seconds, whatever the database did meanwhile.
RECENT = 60.0


def insist(ask: Callable[[], Any]) -> Any:
    """Ask the database until it answers."""
    end = time.monotonic() + 60
    while True:
        try:
            return ask()
        except DATABASE_ERRORS:
            connection.close()
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def orphans() -> set[str]:
    """The subscriptions whose lanes are leased to nobody who lives."""
    living = set()
    for worker in Worker.objects.all():
        with contextlib.suppress(OSError):
            os.kill(worker.pid, 0)
            living.add(worker.token)
    held = Lane.objects.filter(token__isnull=False).values_list("pk", "token")
    return {pk for pk, token in held if token not in living}


def lanes_of(pid: int) -> set[str]:
    """The subscriptions whose lanes a process holds."""
    tokens = list(Worker.objects.filter(pid=pid).values_list("token", flat=True))
    return set(Lane.objects.filter(token__in=tokens).values_list("pk", flat=True))


def mark(ledger: Ledger, how: Literal["lost", "held"], subscriptions: set[str]) -> int:
    """Mark the POSTs of these subscriptions that are not on record; how many there are."""
    recent = {
        (post.subscription, post.id)
        for post in ledger.since(time.time() - RECENT)
        if post.subscription in subscriptions
    }
    came: dict[tuple[str, str], list[Post]] = defaultdict(list)
    for post in ledger.since(0):
        if (post.subscription, post.id) in recent and not post.lost:
            came[post.subscription, post.id].append(post)
    attempts = DeliveryAttempt.objects.filter(
        subscription__in=subscriptions, message_id__in={webhook_id for _, webhook_id in recent}
    )
    records = Counter(attempts.values_list("subscription_id", "message_id"))
    found = [post for key, posts in came.items() for post in posts[records[key] :]]
    for post in found:
        setattr(post, how, True)
    return len(found)
