"""After an outage of all receivers: the backlogs come at a ramped rate, and not all at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db.models import Min

from tests.world import Answer, Receiver, emit_orders, states, subscribe, until
from webhooks.engine.pacing import JITTER, RAMP_BEGIN
from webhooks.models import DeliveryAttempt, Lane

pytestmark = pytest.mark.django_db(transaction=True)

LANES, EVENTS = 12, 25
#: Seconds between probes: a hundredth of what they are.
WAIT = 3.0
CONSTANTS = {"webhooks.engine.pacing.FIRST_PROBE": 1.0, "webhooks.engine.pacing.LONGEST_WAIT": WAIT}


def test_endpoints_that_come_back_together_are_not_overrun(
    receiver: Receiver, start_faulty: Callable[..., Any]
) -> None:
    receiver.answer = Answer(status=500)
    for i in range(LANES):
        subscribe(receiver, f"app:{i}")
        emit_orders(EVENTS, f"app:{i}")
    start_faulty(
        "webhooks_worker", constants=CONSTANTS, settings={"RETRY_SCHEDULE": [1] * 20, "TIMEOUT": 5}
    )
    until(lambda: Lane.objects.aggregate(Min("probes"))["probes__min"] >= 1, 30, "the outage")
    during = len(receiver.posts)
    assert during < LANES * EVENTS / 2  # parked, they are asked now and then
    receiver.answer = Answer()
    until(lambda: states() == {"delivered": LANES * EVENTS}, 40, "the delivery of all")

    firsts = []
    for lane in Lane.objects.all():
        successes = DeliveryAttempt.objects.filter(subscription=lane.pk, status_code=200)
        begun = sorted(each.timestamp() for each in successes.values_list("started_at", flat=True))
        since = [moment - begun[0] for moment in begun]
        firsts.append(begun[0])
        # The probe, then so many in the first second, twice as many in the next.
        assert sum(moment < 0.9 for moment in since) <= 1 + RAMP_BEGIN
        assert sum(moment < 1.8 for moment in since) <= 1 + 3 * RAMP_BEGIN
        assert since[-1] > 1.8
    # What broke together is not probed together.
    assert max(firsts) - min(firsts) > JITTER * WAIT / 2
