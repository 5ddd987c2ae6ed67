"""A worker whose subscribers do everything that a receiver may do, beside one that behaves."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.engine.conftest import _no_lane_is_astray  # noqa: F401
from tests.faults.conftest import _the_sweep_repairs_nothing, start  # noqa: F401
from tests.hostile.running import Case, Hostile
from tests.world import Receiver, emit_orders, subscribe, until
from webhooks import emit
from webhooks.engine import outcome
from webhooks.models import DeliveryAttempt, Subscription, Worker
from webhooks.transports import base

pytestmark = pytest.mark.django_db(transaction=True)

TIMEOUT = 2
SETTINGS = {
    "TIMEOUT": TIMEOUT,
    "LEASE_SECONDS": 2 * TIMEOUT + 15,
    "CONCURRENCY": 32,
    "TRANSPORT": "tests.hostile.transports.RequestsTransport",
    "MAX_SUBSCRIPTIONS": 1000,
}
#: Seconds from record to receipt that a subscriber who behaves may see at most, beside all others.
USUAL = 1.5


def expected(case: Case) -> tuple[int | None, str]:
    """What the first attempt must say: here a status has its error code, too."""
    if case.status is None:
        return None, case.error_code
    kinds = {2: "", 3: outcome.REDIRECT, 4: outcome.CLIENT_ERROR, 5: outcome.SERVER_ERROR}
    return case.status, kinds[case.status // 100]


def test_each_first_attempt_is_recorded_and_a_good_subscriber_is_served_meanwhile(
    hostile: Hostile,
    receivers: Callable[..., Receiver],
    start: Callable[..., Any],  # noqa: F811
) -> None:
    good = receivers()
    subscribe(good, "app:good")
    cases = {}
    for case in hostile.cases():
        requester = f"app:{case.name}"
        subscription, _ = Subscription.objects.subscribe(
            requester=requester, callback_url=case.url, event_types=["order.*"]
        )
        cases[subscription.pk] = case
    start("webhooks_worker", settings=SETTINGS, HOSTILE_CA_FILE=hostile.ca_file)
    until(Worker.objects.exists, 30, "the worker's start")
    for count in range(1, 11):  # so that its lane is known to be fast
        emit_orders(1, "app:good")
        good.wait_for(count)
    emitted = {}
    for case in cases.values():
        emit("order.paid", {"order": 1}, requester=f"app:{case.name}")
    end = time.monotonic() + 60
    while len(attempts(cases)) < len(cases):
        assert time.monotonic() < end, f"{len(attempts(cases))} of {len(cases)} were attempted"
        event = emit("order.paid", {"order": 2}, requester="app:good")
        emitted[event.pk] = event.created_at.timestamp()
        time.sleep(0.1)
    until(lambda: emitted.keys() <= good.ids.keys(), 10, "the receipt of all")

    recorded = attempts(cases)
    said = {cases[pk].name: (row.status_code, row.error_code) for pk, row in recorded.items()}
    assert said == {case.name: expected(case) for case in cases.values()}
    for row in recorded.values():
        assert (row.status_code is None) == bool(row.error_detail)
        assert "127.0.0" not in row.error_detail
    waited = sorted(post.at - emitted[post.id] for post in good.posts if post.id in emitted)
    assert len(waited) > 20
    assert waited[int(0.95 * len(waited))] < USUAL, f"{waited[-5:]}"
    assert base.INTERNAL_ERROR not in {row.error_code for row in recorded.values()}


def attempts(cases: dict[str, Case]) -> dict[str, DeliveryAttempt]:
    """The first attempt for each subscription so far."""
    rows = DeliveryAttempt.objects.filter(subscription_id__in=cases, number=1)
    return {row.subscription_id: row for row in rows}
