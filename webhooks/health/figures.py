"""What the admin's pages show beside the verdict: a period's figures, from the roll-up alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from webhooks.conf import settings
from webhooks.health.verdicts import MOST_COUNTED, Percentiles, percentiles
from webhooks.models import Delivery, DeliveryAttempt, DeliveryStats, Lane, Subscription
from webhooks.models.delivery import Waiting
from webhooks.models.stats import ACK_BOUNDS, ACK_COLUMNS, LATENCY_COLUMNS, WHOLE_SERVICE
from webhooks.models.stats_reports import Tried
from webhooks.models.subscription import FOR_FAILING, Status

#: Lines of the lists of worst endpoints and busiest types.
LISTED = 10
#: An example of each error is looked for among so many of the newest attempts.
LOOKED_THROUGH = 2000


@dataclass(frozen=True, slots=True)
class Period:
    """From ``start`` on and before ``end``. step: seconds that each point of a chart stands for."""

    start: datetime
    end: datetime
    step: int

    @property
    def points(self) -> list[datetime]:
        """The beginning of each step."""
        count = -int((self.start - self.end).total_seconds() // self.step)
        return [self.start + timedelta(seconds=self.step * i) for i in range(max(1, count))]

    def place(self, moment: datetime) -> int:
        """The step that a moment lies in; what a wide bucket began earlier counts for the first."""
        return max(0, int((moment - self.start).total_seconds()) // self.step)


@dataclass(slots=True)
class Figures:
    """What was tried within a period, in all and for each of its points.

    succeeded, failed: attempts, for each point. latency: of all attempts, for each point; None:
    there was none. first_try, delivered, dead: deliveries that ended so. by_code: failed attempts.
    """

    period: Period
    succeeded: list[int]
    failed: list[int]
    latency: list[Percentiles | None]
    first_try: int = 0
    delivered: int = 0
    dead: int = 0
    by_code: Counter[str] = field(default_factory=Counter)
    overall: Percentiles | None = None
    acknowledged: Percentiles | None = None

    @property
    def attempts(self) -> int:
        return sum(self.succeeded) + sum(self.failed)

    @property
    def ended(self) -> int:
        """Deliveries that were delivered, or given up."""
        return self.delivered + self.dead

    @property
    def first_try_rate(self) -> float | None:
        """Of those that ended, the share that was delivered at the first attempt."""
        return self.first_try / self.ended if self.ended else None

    @property
    def delivered_rate(self) -> float | None:
        """Of those that ended, the share that was delivered at all."""
        return self.delivered / self.ended if self.ended else None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A subscription that fails, with what was tried and failed in the period."""

    subscription: Subscription
    failed: int
    dead: int


def of(period: Period, subscription_id: str = WHOLE_SERVICE) -> Figures:
    """The figures of a subscription, or of all, in a period. One statement."""
    stats = DeliveryStats.objects.using(settings.database)
    count = len(period.points)
    found = Figures(period, [0] * count, [0] * count, [])
    latency = [[0] * len(LATENCY_COLUMNS) for _ in range(count)]
    acknowledged = [0] * len(ACK_COLUMNS)
    for row in stats.results(subscription_id, period.start, period.end, period.step):
        place = min(row.place, count - 1)
        found.first_try += row.first_try
        found.delivered += row.delivered
        found.dead += row.dead
        if row.code:
            found.failed[place] += row.attempts
            found.by_code[row.code] += row.attempts
        else:
            found.succeeded[place] += row.attempts
        latency[place] = _added(latency[place], row.latency)
        acknowledged = _added(acknowledged, row.acknowledged)
    found.latency = [percentiles(counts) for counts in latency]
    found.overall = percentiles([sum(column) for column in zip(*latency, strict=True)])
    found.acknowledged = percentiles(acknowledged, ACK_BOUNDS)
    return found


def waiting(now: datetime) -> Waiting:
    """What waits for anybody, counted up to ``MOST_COUNTED``. One statement."""
    return Delivery.objects.using(settings.database).waiting(now, MOST_COUNTED)


def lanes_that_wait(now: datetime) -> int:
    """Lanes that may be claimed and nobody has claimed; counted up to ``MOST_COUNTED``."""
    ready = Lane.objects.using(settings.database).ready(now)
    return int(ready.order_by()[:MOST_COUNTED].count())


def suspended_for_failing() -> int:
    """Subscriptions that the service itself holds now; counted up to ``MOST_COUNTED``."""
    held = Subscription.objects.using(settings.database).filter(
        status=Status.SUSPENDED, status_reason=FOR_FAILING
    )
    return int(held[:MOST_COUNTED].count())


def worst_endpoints(period: Period) -> list[Endpoint]:
    """Those that fail most in a row now, the most failed attempts in the period first.

    Which of all failed most in the period would take an aggregate of everybody's rows. Three
    statements.
    """
    using = settings.database
    candidates = Lane.objects.using(using).failing_most(period.start, LISTED)
    worst = DeliveryStats.objects.using(using).failed_of(candidates, period.start, period.end)
    known = Subscription.objects.using(using).defer("headers", "basic_auth")
    found = known.in_bulk([each.name for each in worst])
    return [
        Endpoint(found[each.name], each.failed, each.dead) for each in worst if each.name in found
    ]


def busiest_types(period: Period) -> list[Tried]:
    """The event types with the most attempts."""
    stats = DeliveryStats.objects.using(settings.database)
    return stats.busiest_types(WHOLE_SERVICE, period.start, period.end, LISTED)


def examples() -> dict[str, str]:
    """Error codes, each with the id of an attempt that ended so; of the newest attempts alone."""
    newest = DeliveryAttempt.objects.using(settings.database).order_by("-pk")
    found: dict[str, str] = {}
    for code, pk in newest.values_list("error_code", "pk")[:LOOKED_THROUGH]:
        if code:
            found.setdefault(code, pk)
    return found


def _added(left: Sequence[int], right: Sequence[int]) -> list[int]:
    return [a + b for a, b in zip(left, right, strict=True)]
