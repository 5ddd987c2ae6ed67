"""How one subscription fares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from webhooks.clock import db_now
from webhooks.conf import settings
from webhooks.health import reasons
from webhooks.health.verdicts import (
    DAY,
    DEGRADED,
    FAILING,
    FAILING_AFTER,
    GOOD_RATE,
    HEALTHY,
    IDLE,
    LATE,
    MOST_COUNTED,
    Percentiles,
    Reason,
    Verdict,
    as_text,
    is_low,
    latencies,
    rate,
)
from webhooks.models import Delivery, DeliveryAttempt, DeliveryStats, Lane, Subscription
from webhooks.models.delivery import Backlog
from webhooks.models.stats import Sums
from webhooks.models.subscription import Status

#: The last failure is looked for among so many attempts.
LAST_ATTEMPTS: Final = 20
#: Why a lane rests because its endpoint asked for it.
BACK_PRESSURE = frozenset({"retry_after"})


@dataclass(frozen=True, slots=True)
class LastAttempt:
    """The newest POST of all. error_code: "" for a success."""

    at: datetime
    status_code: int | None
    error_code: str
    elapsed_ms: int

    def as_dict(self) -> dict[str, Any]:
        return {
            "at": as_text(self.at),
            "status_code": self.status_code,
            "error_code": self.error_code,
            "elapsed_ms": self.elapsed_ms,
        }


@dataclass(frozen=True, slots=True)
class SubscriptionHealth:
    """How a subscription fares.

    success_rate_24h: successes among the attempts of the last day, 0 to 1; None without attempts.
    latency_ms: of the same attempts, whatever came of them; None without. pending, retrying:
    deliveries that wait, and those of them that failed before; both at most ``MOST_COUNTED``, and
    of a larger backlog all figures speak of those that are due first. oldest_pending_age_s: since
    the one that waits longest was first due. dead_24h: deliveries given up within the last day.
    next_retry_at: of those that failed before; None while nothing is sent. backlog_expires_at: when
    what is pending will be given up; None unless it is suspended. failures: in a row, since
    ``failing_since``; last_error: the code of the last of them, "" where it is not on record.
    """

    verdict: Verdict
    success_rate_24h: float | None
    latency_ms: Percentiles | None
    pending: int
    oldest_pending_age_s: float | None
    retrying: int
    dead_24h: int
    last_success_at: datetime | None
    last_attempt: LastAttempt | None
    next_retry_at: datetime | None
    paused_by_backpressure: bool
    backlog_expires_at: datetime | None
    retention_days: int
    updated_at: datetime
    failures: int = 0
    failing_since: datetime | None = None
    last_error: str = ""
    #: Of all that waits, tried before or not; None while nothing is sent.
    next_try_at: datetime | None = None

    @property
    def status(self) -> str:
        return self.verdict.status

    @property
    def since(self) -> datetime | None:
        return self.verdict.since

    @property
    def reason(self) -> Reason | None:
        return self.verdict.reason

    def as_dict(self) -> dict[str, Any]:
        """As the API shows it: JSON values alone."""
        reason = self.reason
        return {
            "status": self.status,
            "since": as_text(self.since),
            "reason": reason and {"code": reason.code, "message": reason.message},
            "success_rate_24h": self.success_rate_24h,
            "latency_ms": self.latency_ms and self.latency_ms.as_dict(),
            "pending": self.pending,
            "oldest_pending_age_s": self.oldest_pending_age_s,
            "retrying": self.retrying,
            "dead_24h": self.dead_24h,
            "last_success_at": as_text(self.last_success_at),
            "last_attempt": self.last_attempt and self.last_attempt.as_dict(),
            "next_retry_at": as_text(self.next_retry_at),
            "paused_by_backpressure": self.paused_by_backpressure,
            "backlog_expires_at": as_text(self.backlog_expires_at),
            "retention_days": self.retention_days,
        }


def of_subscription(subscription: Subscription) -> SubscriptionHealth:
    """How a subscription fares now. A constant number of statements, whatever it has received."""
    using = settings.database
    now = db_now(using)
    pk = subscription.pk
    # One that was written past ``subscribe()`` gets its lane with its first event.
    lane = Lane.objects.using(using).filter(pk=pk).first() or Lane(subscription=subscription)
    day = DeliveryStats.objects.using(using).sums(pk, now - DAY)
    backlog = Delivery.objects.using(using).backlog(pk, MOST_COUNTED)
    newest = DeliveryAttempt.objects.using(using).filter(subscription_id=pk).order_by("-pk")
    attempts = [
        LastAttempt(*row)
        for row in newest.values_list("started_at", "status_code", "error_code", "elapsed_ms")[
            :LAST_ATTEMPTS
        ]
    ]
    last_error = next((each.error_code for each in attempts if each.error_code), "")
    paused = lane.paused_until is not None and lane.paused_until > now
    active = subscription.status == Status.SUBSCRIBED
    return SubscriptionHealth(
        verdict=_judge(subscription, lane, day, backlog, attempts, now),
        success_rate_24h=rate(day),
        latency_ms=latencies(day),
        pending=backlog.pending,
        oldest_pending_age_s=_age(backlog.oldest_at, now),
        retrying=backlog.retrying,
        dead_24h=sum(each.dead for each in day),
        last_success_at=lane.last_success_at,
        last_attempt=attempts[0] if attempts else None,
        next_retry_at=_after_pause(backlog.next_retry_at, lane) if active else None,
        paused_by_backpressure=paused and lane.pause_reason in BACK_PRESSURE,
        backlog_expires_at=reasons.backlog_expires_at(subscription),
        retention_days=int(settings.RETENTION_DAYS),
        updated_at=now,
        failures=lane.failures,
        failing_since=lane.failing_since,
        last_error=last_error if lane.failures else "",
        next_try_at=_after_pause(backlog.next_at, lane) if active else None,
    )


def _judge(
    subscription: Subscription,
    lane: Lane,
    day: Sequence[Sums],
    backlog: Backlog,
    attempts: Sequence[LastAttempt],
    now: datetime,
) -> Verdict:
    if subscription.status != Status.SUBSCRIBED:
        why = reasons.inactive(subscription)
        return Verdict(subscription.status, subscription.status_since, (why,))
    found: list[Reason] = []
    starts: list[datetime] = []

    def add(reason: Reason, since: datetime | None) -> None:
        found.append(reason)
        if since is not None:
            starts.append(since)

    if lane.failures:
        code = next((each.error_code for each in attempts if each.error_code), "")
        add(reasons.failing(lane.failures, lane.failing_since, code), lane.failing_since)
        if lane.parked_since is not None:
            found.append(reasons.parked(lane, code))
        if lane.failures >= FAILING_AFTER or lane.parked_since is not None:
            return Verdict(FAILING, lane.failing_since, tuple(found))
    if lane.pause_reason == "secret_unreadable" and (lane.paused_until or now) > now:
        add(reasons.unsigned(), None)
    if is_low(day, GOOD_RATE):
        add(reasons.low_rate(day), min(each.first_at for each in day if each.code))
    if dead := sum(each.dead for each in day):
        first = min(each.first_dead_at for each in day if each.first_dead_at)
        add(reasons.dead_letters(dead), first)
    due_at = _after_pause(backlog.next_at, lane)
    if due_at is not None and now - due_at > LATE:
        more = backlog.pending >= MOST_COUNTED
        add(reasons.late(backlog.pending, due_at, more=more), due_at)
    if found:
        return Verdict(DEGRADED, min(starts, default=None), tuple(found))
    if not day and not backlog.pending:
        return Verdict(IDLE, attempts[0].at if attempts else None)
    return Verdict(HEALTHY)


def _after_pause(moment: datetime | None, lane: Lane) -> datetime | None:
    """When what is due at ``moment`` may be sent, its lane's rest included."""
    return None if moment is None else max(moment, lane.paused_until or moment)


def _age(moment: datetime | None, now: datetime) -> float | None:
    """Seconds since then."""
    return None if moment is None else round(max((now - moment).total_seconds(), 0.0), 1)
