"""A worker looks while a host commits, rolls back, and emits without any transaction."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from django.db import transaction

from tests.shop.models import Order
from tests.world import Receiver, subscribe, until
from webhooks import emit
from webhooks.exceptions import WrongDatabase
from webhooks.models import Event, Worker

pytestmark = pytest.mark.django_db(transaction=True)


class Rollback(Exception):
    pass


def order() -> str:
    return emit("order.paid", {"order": 1}, requester="app:a").pk


def test_what_is_committed_arrives_and_nothing_else(
    receiver: Receiver, start: Callable[..., Any]
) -> None:
    subscribe(receiver)
    start("webhooks_worker")
    until(Worker.objects.exists, 30, "the worker's start")
    committed: list[str] = []
    for _ in range(3):
        committed.append(order())  # autocommit
        with contextlib.suppress(Rollback), transaction.atomic():
            order()
            time.sleep(0.3)  # it lies there uncommitted while the worker looks
            raise Rollback
        with transaction.atomic():
            Order.objects.create(number="1")
            committed.append(order())
            with contextlib.suppress(Rollback), transaction.atomic():
                order()
                raise Rollback
            with pytest.raises(WrongDatabase):
                emit("order.paid", {"order": 1}, requester="app:a", using="elsewhere")
            committed.append(order())  # the block is as usable as before
    receiver.wait_for(len(committed))
    time.sleep(0.5)
    assert receiver.ids == Counter(committed)
    assert set(Event.objects.values_list("pk", flat=True)) == set(committed)
    assert Order.objects.count() == 3
