"""What becomes of a delivery after an attempt: it decides, and others act."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from webhooks.engine.outcome import Outcome, Verdict
from webhooks.models.delivery import State

#: Each wait is made up to so much shorter or longer, so that what failed together does not
#: come back together.
JITTER = 0.2


@dataclass(frozen=True, slots=True)
class Decision:
    """The delivery's next state; ``due_at`` is the next try where it stays pending."""

    state: State
    reason: str = ""
    due_at: datetime | None = None


#: What follows from every success.
DELIVERED = Decision(State.DELIVERED)


def decide(
    outcome: Outcome,
    *,
    attempts: int,
    age: float,
    now: datetime,
    schedule: Sequence[float],
    max_age: float,
    rng: random.Random,
) -> Decision:
    """Decide after an attempt.

    attempts: how many there were since it was last asked for, this one included. schedule: seconds
    to wait after each failed try; when it is used up, the delivery is dead. age: seconds for which
    it has been due, but for those while its lane stood still. max_age: no further try is planned
    for when it would be older. ``Retry-After`` lengthens a wait and never shortens it.
    """
    if outcome.verdict is Verdict.DELIVERED:
        return DELIVERED
    if outcome.verdict is Verdict.GONE:
        return Decision(State.CANCELLED, "gone")
    if attempts > len(schedule):
        return Decision(State.DEAD, outcome.code)
    wait = schedule[attempts - 1] * rng.uniform(1 - JITTER, 1 + JITTER)
    wait = max(wait, outcome.retry_after or 0.0)
    if age + wait > max_age:
        return Decision(State.EXPIRED, "too_old")
    return Decision(State.PENDING, due_at=now + timedelta(seconds=wait))
