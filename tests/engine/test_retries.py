"""When a delivery is tried again, and when no more."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from webhooks.conf import DEFAULTS
from webhooks.engine.outcome import Outcome, Verdict
from webhooks.engine.retries import Decision, decide
from webhooks.models.delivery import State

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
SCHEDULE = DEFAULTS["RETRY_SCHEDULE"]
FAILED = Outcome(Verdict.FAILED, "server_error")


def decided(outcome: Outcome = FAILED, **given: Any) -> Decision:
    facts: dict[str, Any] = {
        "attempts": 1,
        "age": 0.0,
        "now": NOW,
        "schedule": SCHEDULE,
        "max_age": DEFAULTS["MAX_AGE"],
        "rng": random.Random(1),
    }
    return decide(outcome, **{**facts, **given})


def waits(count: int, **given: Any) -> list[float]:
    rng = random.Random(2)
    found = []
    for _ in range(count):
        due_at = decided(rng=rng, **given).due_at
        assert due_at is not None
        found.append((due_at - NOW).total_seconds())
    return found


def test_the_default_schedule_is_ten_tries_within_75_hours() -> None:
    assert SCHEDULE == (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
    assert 75 <= sum(SCHEDULE) / 3600 < 76


def test_a_success_ends_it() -> None:
    assert decided(Outcome(Verdict.DELIVERED)) == Decision(State.DELIVERED)


def test_410_cancels_it_however_few_tries_there_were() -> None:
    assert decided(Outcome(Verdict.GONE, "gone")) == Decision(State.CANCELLED, "gone")


@pytest.mark.parametrize("attempts", range(1, 10))
def test_each_wait_is_the_schedules_give_or_take_a_fifth(attempts: int) -> None:
    wait = SCHEDULE[attempts - 1]
    found = waits(400, attempts=attempts)
    assert 0.8 * wait <= min(found) < 0.82 * wait
    assert 1.18 * wait < max(found) <= 1.2 * wait


def test_the_jitter_spreads_what_failed_together() -> None:
    found = waits(1000)
    for low in (4.0, 4.4, 4.8, 5.2, 5.6):
        assert 120 < sum(low <= each < low + 0.4 for each in found) < 280


def test_after_the_schedule_it_is_dead_with_the_last_error() -> None:
    assert decided(attempts=9).state is State.PENDING
    assert decided(attempts=10) == Decision(State.DEAD, "server_error")


def test_an_empty_schedule_means_one_try() -> None:
    assert decided(schedule=()).state is State.DEAD


def test_retry_after_lengthens_a_wait_and_never_shortens_it() -> None:
    longer = Outcome(Verdict.FAILED, "rate_limited", retry_after=60)
    assert decided(longer).due_at == NOW + timedelta(seconds=60)
    shorter = Outcome(Verdict.FAILED, "rate_limited", retry_after=1)
    due_at = decided(shorter).due_at
    assert due_at is not None
    assert due_at >= NOW + timedelta(seconds=4)


def test_no_try_begins_after_the_age_limit() -> None:
    old = timedelta(hours=95, minutes=50).total_seconds()
    assert decided(attempts=1, age=old).state is State.PENDING
    assert decided(attempts=3, age=old) == Decision(State.EXPIRED, "too_old")


def test_a_retry_after_beyond_the_age_limit_expires_it() -> None:
    tomorrow = Outcome(Verdict.FAILED, "rate_limited", retry_after=86_400)
    assert decided(tomorrow, max_age=3600).state is State.EXPIRED
