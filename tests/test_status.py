"""``manage.py webhooks_status``: what monitoring sees."""

from __future__ import annotations

import json
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import call_command

from tests.world import Answer, Receiver, deliver, emit_orders, fan_out_all, subscribe
from webhooks import health
from webhooks.clock import db_now
from webhooks.models import Duty, Lane

pytestmark = pytest.mark.django_db(transaction=True)


def status(*options: str) -> tuple[int, str]:
    out = StringIO()
    try:
        call_command("webhooks_status", *options, stdout=out)
    except SystemExit as left:
        return int(left.code or 0), out.getvalue()
    return 0, out.getvalue()


def break_down() -> None:
    """Work has been due for eleven minutes, and nobody is there."""
    emit_orders(3)
    fan_out_all()
    Lane.objects.update(claim_at=db_now("default") - timedelta(minutes=11))


def test_idle_and_healthy_are_well(receiver: Receiver) -> None:
    assert status() == (0, "○ Idle — no events in the last 24 hours.\n")
    subscribe(receiver)
    emit_orders(1)
    deliver()
    assert status() == (0, "● Healthy — deliveries are flowing.\n")


def test_degraded_exits_with_one_and_says_why(receiver: Receiver) -> None:
    subscribe(receiver, retry_schedule=[])
    receiver.answer = Answer(status=500)
    emit_orders(1)
    deliver()
    code, said = status()
    assert code == 1
    lines = said.splitlines()
    assert lines[0].startswith("▲ Degraded — ")
    assert [line.removeprefix("  - ") for line in lines[1:]] == [
        reason.message for reason in health.of_service().verdict.reasons
    ]


def test_down_exits_with_two_and_counts_what_waits(receiver: Receiver) -> None:
    subscribe(receiver)
    break_down()
    code, said = status()
    assert code == 2
    assert said.splitlines()[0] == (
        "■ Down — nothing has been delivered for 11 min while 3 are due. Is a worker running?"
    )


def test_json_is_one_object_with_the_same_reasons(receiver: Receiver) -> None:
    subscribe(receiver)
    break_down()
    code, said = status("--json")
    assert code == 2
    found = json.loads(said)
    assert found["status"] == "down"
    reasons = health.of_service().verdict.reasons
    assert [(each["code"], each["message"]) for each in found["reasons"]] == [
        (reason.code, reason.message) for reason in reasons
    ]
    assert {"updated_at", "delivery_delay_s", "dead_24h", "suspended_24h"} <= found.keys()
    assert found["headline"].startswith("nothing has been delivered")


def test_it_tells_of_schedules_that_are_late() -> None:
    now = db_now("default")
    Duty.objects.ensure()
    Duty.objects.filter(name="sweep").update(ran_at=now - timedelta(minutes=4))
    code, said = status()
    assert code == 1
    assert "sweep is 3 min late: is a worker running?" in said
    _code, said = status("--json")
    schedules = json.loads(said)["schedules"]
    assert 180 <= schedules["sweep"]["late_s"] < 185
    assert schedules["prune"] == {"last_run_at": None, "late_s": None}
