"""The one place that judges health: of a subscription, and of the whole service.

Figures come from lanes, the roll-up and the queue, never from counting attempts, so that a verdict
costs the same handful of statements at any size. Every verdict but a good one has reasons that say
what is wrong, since when, and what to do. Nothing is changed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from webhooks import remedies
from webhooks.clock import db_now
from webhooks.conf import settings
from webhooks.models import (
    Delivery,
    DeliveryAttempt,
    DeliveryStats,
    Event,
    Lane,
    Subscription,
    Worker,
)
from webhooks.models.delivery import Backlog
from webhooks.models.stats import LATENCY_BOUNDS, WHOLE_SERVICE, Sums, percentile
from webhooks.models.subscription import OnSuspend, Status

HEALTHY: Final = "healthy"
DEGRADED: Final = "degraded"
FAILING: Final = "failing"
DOWN: Final = "down"
IDLE: Final = "idle"

#: So many failures in a row are more than a hiccup (design: they open the breaker, too).
FAILING_AFTER: Final = 5
#: Fewer attempts say nothing about a rate; a lower rate of successes is a trouble, or an outage.
ENOUGH_ATTEMPTS, GOOD_RATE, BAD_RATE = 20, 0.98, 0.5
#: Rates and dead letters are counted over a day; an outage shows within minutes.
DAY, LATELY = timedelta(days=1), timedelta(minutes=15)
#: What is due for longer is late; for much longer, nobody is coming for it.
LATE, ABANDONED = timedelta(seconds=60), timedelta(minutes=10)
#: When work is due, some worker was heard of within this time, or there is none.
HEARTBEAT = timedelta(seconds=90)
#: A backlog is counted up to here: a larger one is shown as this number.
MOST_COUNTED: Final = 10_000
#: The last failure is looked for among so many attempts.
LAST_ATTEMPTS: Final = 20
#: Why a lane rests because its endpoint asked for it.
BACK_PRESSURE = frozenset({"retry_after"})


@dataclass(frozen=True, slots=True)
class Reason:
    """code: for programs. message: what is wrong, since when, and what to do."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """A status, since when where that is known, and its reasons, the gravest first."""

    status: str
    since: datetime | None = None
    reasons: tuple[Reason, ...] = ()

    @property
    def reason(self) -> Reason | None:
        return self.reasons[0] if self.reasons else None


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Milliseconds, estimated from the roll-up's buckets."""

    p50: int
    p95: int
    p99: int

    def as_dict(self) -> dict[str, int]:
        return {"p50": self.p50, "p95": self.p95, "p99": self.p99}


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
    next_retry_at: of those that failed before; None while nothing is sent.
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
    retention_days: int

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
            "retention_days": self.retention_days,
        }


@dataclass(frozen=True, slots=True)
class ServiceHealth:
    """How the whole service fares; nothing in ``as_dict`` tells of any one tenant.

    delivery_delay_s: how long what waits longest has waited for a worker: an event for its fan-out,
    or a lane that may be claimed. What an endpoint's slowness or pause holds up is not in it.
    success_rate_24h, dead_24h, suspended_24h (by the service itself): over the last day.
    """

    verdict: Verdict
    updated_at: datetime
    delivery_delay_s: float
    source_ips: tuple[str, ...]
    success_rate_24h: float | None
    dead_24h: int
    suspended_24h: int

    @property
    def status(self) -> str:
        return self.verdict.status

    def as_dict(self) -> dict[str, Any]:
        """As the API shows it to everybody: JSON values alone, without the reasons."""
        return {
            "status": self.status,
            "updated_at": as_text(self.updated_at),
            "delivery_delay_s": self.delivery_delay_s,
            "source_ips": list(self.source_ips),
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
    paused = lane.paused_until is not None and lane.paused_until > now
    active = subscription.status == Status.SUBSCRIBED
    return SubscriptionHealth(
        verdict=_judge_subscription(subscription, lane, day, backlog, attempts, now),
        success_rate_24h=_rate(day),
        latency_ms=_percentiles(day),
        pending=backlog.pending,
        oldest_pending_age_s=_age(backlog.oldest_at, now),
        retrying=backlog.retrying,
        dead_24h=sum(each.dead for each in day),
        last_success_at=lane.last_success_at,
        last_attempt=attempts[0] if attempts else None,
        next_retry_at=_after_pause(backlog.next_retry_at, lane) if active else None,
        paused_by_backpressure=paused and lane.pause_reason in BACK_PRESSURE,
        retention_days=int(settings.RETENTION_DAYS),
    )


def of_service() -> ServiceHealth:
    """How the service fares now."""
    using = settings.database
    now = db_now(using)
    stats = DeliveryStats.objects.using(using)
    day, lately = stats.sums(WHOLE_SERVICE, now - DAY), stats.sums(WHOLE_SERVICE, now - LATELY)
    delay = _delay(using, now)
    workers = Worker.objects.using(using).filter(heartbeat_at__gte=now - HEARTBEAT)
    is_manned = delay <= HEARTBEAT or workers.exists()
    suspended = Subscription.objects.using(using).filter(
        status=Status.SUSPENDED, status_reason="automatic", status_since__gte=now - DAY
    )
    suspended_24h = suspended[:MOST_COUNTED].count()
    return ServiceHealth(
        verdict=_judge_service(day, lately, delay, suspended_24h, is_manned=is_manned),
        updated_at=now,
        delivery_delay_s=round(delay.total_seconds(), 1),
        source_ips=tuple(settings.SOURCE_IPS),
        success_rate_24h=_rate(day),
        dead_24h=sum(each.dead for each in day),
        suspended_24h=suspended_24h,
    )


def failing(failures: int, since: datetime | None, code: str) -> Reason:
    """Why a subscription's attempts fail. code: the last error's; "": it is not on record."""
    many = "1 attempt has" if failures == 1 else f"{failures} attempts in a row have"
    said = f"{many} failed{f' since {shown(since)}' if since else ''}."
    return Reason(code or "failing", _with_remedy(said, "Last error", code))


def suspended(subscription: Subscription) -> Reason:
    """Why a subscription is suspended."""
    code = subscription.status_reason or "client"
    what, to_do = _SUSPENDED.get(code, (f"was suspended ({code})", "Resume it to go on."))
    fate = "discarded" if subscription.on_suspend == OnSuspend.DISCARD else "kept"
    since = shown(subscription.status_since)
    return Reason(
        code, f"The subscription {what} on {since}. {to_do} New events are {fate} until then."
    )


def shown(moment: datetime) -> str:
    """A time for people, e.g. ``2026-01-31 13:20 UTC``."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def as_text(moment: datetime | None) -> str | None:
    """A time for programs, as RFC 3339 has it."""
    return None if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


_SUSPENDED: Final = {
    "client": ("was suspended by its owner", "Resume it to go on."),
    "operator": (
        "was suspended by an operator of the service",
        "Ask them to resume it.",
    ),
    "entitlement_lost": (
        "was suspended, because its application, its user or its grant is gone,",
        "Authorize the application again and resume it.",
    ),
    "automatic": (
        "was suspended by the service, because its endpoint had failed for days,",
        "Repair the endpoint and resume it.",
    ),
}


def _judge_subscription(
    subscription: Subscription,
    lane: Lane,
    day: Sequence[Sums],
    backlog: Backlog,
    attempts: Sequence[LastAttempt],
    now: datetime,
) -> Verdict:
    if subscription.status != Status.SUBSCRIBED:
        return Verdict(subscription.status, subscription.status_since, (_inactive(subscription),))
    reasons: list[Reason] = []
    starts: list[datetime] = []

    def add(reason: Reason, since: datetime | None) -> None:
        reasons.append(reason)
        if since is not None:
            starts.append(since)

    if lane.failures:
        code = next((each.error_code for each in attempts if each.error_code), "")
        add(failing(lane.failures, lane.failing_since, code), lane.failing_since)
        if lane.failures >= FAILING_AFTER:
            return Verdict(FAILING, lane.failing_since, tuple(reasons))
    if lane.pause_reason == "secret_unreadable" and (lane.paused_until or now) > now:
        add(_UNSIGNED, None)
    if _is_low(day, GOOD_RATE):
        add(_low_rate(day), min(each.first_at for each in day if each.code))
    if dead := sum(each.dead for each in day):
        add(_dead(dead), min(each.first_dead_at for each in day if each.first_dead_at))
    due_at = _after_pause(backlog.next_at, lane)
    if due_at is not None and now - due_at > LATE:
        add(_late(backlog.pending, due_at), due_at)
    if reasons:
        return Verdict(DEGRADED, min(starts, default=None), tuple(reasons))
    if not day and not backlog.pending:
        return Verdict(IDLE, attempts[0].at if attempts else None)
    return Verdict(HEALTHY)


def _judge_service(
    day: Sequence[Sums],
    lately: Sequence[Sums],
    delay: timedelta,
    suspended_24h: int,
    *,
    is_manned: bool,
) -> Verdict:
    minutes = f"{delay.total_seconds() / 60:.0f} min"
    down: list[Reason] = []
    if not is_manned:
        message = (
            f"Work has been due for {minutes}, and no worker has been heard of. Is one running?"
        )
        down.append(Reason("no_worker", message))
    if delay > ABANDONED:
        message = f"What waits longest has waited for a worker for {minutes}. Start more workers."
        down.append(Reason("abandoned", message))
    if _is_low(lately, BAD_RATE):
        down.append(
            Reason("outage", "More than half of the attempts of the last 15 minutes failed.")
        )
    if down:
        return Verdict(DOWN, reasons=tuple(down))
    reasons: list[Reason] = []
    if delay > LATE:
        message = f"What waits longest has waited for a worker for {delay.total_seconds():.0f} s."
        reasons.append(Reason("delayed", message))
    if _is_low(day, GOOD_RATE):
        reasons.append(_low_rate(day))
    if suspended_24h:
        many = "1 subscription was" if suspended_24h == 1 else f"{suspended_24h} subscriptions were"
        message = f"{many} suspended automatically in the last 24 hours."
        reasons.append(Reason("suspended", message))
    if dead := sum(each.dead for each in day):
        reasons.append(_dead(dead))
    if reasons:
        return Verdict(DEGRADED, reasons=tuple(reasons))
    return Verdict(HEALTHY if day or delay else IDLE)


def _delay(using: str, now: datetime) -> timedelta:
    """How long what waits longest has waited for a worker.

    Told by the lanes' ``claim_at``, not by their deliveries: a lane is at most a lease away from
    its next claim, whatever its endpoint does, so one tenant's backlog is no delay of the service.
    """
    waiting = Event.objects.using(using).next_to_fan_out(1)
    since = [event.created_at for event in waiting]
    next_claim = Lane.objects.using(using).next_claim_at()
    if next_claim is not None:
        since.append(next_claim)
    return max(now - min(since, default=now), timedelta())


def _inactive(subscription: Subscription) -> Reason:
    """Why a subscription that is not subscribed gets nothing."""
    since = shown(subscription.status_since)
    if subscription.status == Status.SUSPENDED:
        return suspended(subscription)
    if subscription.status == Status.PENDING:
        message = (
            f"The endpoint has not confirmed the subscription's handshake (since {since}). Nothing "
            "else is sent until it does: see the attempts, and let it answer as the documentation "
            "of the handshake says."
        )
        return Reason(subscription.status_reason or "handshake", message)
    gone = " because its endpoint answered 410 Gone" if subscription.status_reason == "gone" else ""
    message = f"The subscription ended on {since}{gone}. Subscribe anew to receive events again."
    return Reason(subscription.status_reason or "client", message)


_UNSIGNED: Final = Reason(
    "secret_unreadable",
    "The signing secret cannot be read, and nothing is sent unsigned: deliveries wait. Rotate the "
    "secret, or tell an operator of the service.",
)


def _low_rate(day: Sequence[Sums]) -> Reason:
    rate = _rate(day) or 0.0
    # Rounded down: "98.0 % succeeded" is no trouble.
    said = f"{int(rate * 1000) / 10:.1f} % of the attempts of the last 24 hours succeeded."
    code = max((each for each in day if each.code), key=lambda each: each.attempts).code
    return Reason(code, _with_remedy(said, "Most frequent error", code))


def _dead(count: int) -> Reason:
    many = "1 delivery was" if count == 1 else f"{count} deliveries were"
    message = (
        f"{many} given up in the last 24 hours, after the last try. See their attempts, mend what "
        "went wrong, and have them redelivered."
    )
    return Reason("dead_letters", message)


def _late(pending: int, due_at: datetime) -> Reason:
    many = f"{pending:,}{' or more' if pending >= MOST_COUNTED else ''}"
    message = (
        f"Deliveries are late: {many} are pending, the first due since {shown(due_at)}. Answer "
        "faster or allow more POSTs at once; if the endpoint is quick, see the service's status."
    )
    return Reason("delayed", message)


def _with_remedy(said: str, label: str, code: str) -> str:
    remedy = remedies.remedy(code)
    if not remedy.title:
        return said
    return f"{said} {label}: {remedy.title}. {remedy.fix}"


def _rate(sums: Sequence[Sums]) -> float | None:
    """The share of attempts that succeeded."""
    attempts = sum(each.attempts for each in sums)
    if not attempts:
        return None
    return sum(each.attempts for each in sums if not each.code) / attempts


def _is_low(sums: Sequence[Sums], limit: float) -> bool:
    """Whether there were enough attempts to say that too few of them succeeded."""
    rate = _rate(sums)
    enough = sum(each.attempts for each in sums) >= ENOUGH_ATTEMPTS
    return rate is not None and enough and rate < limit


def _percentiles(sums: Sequence[Sums]) -> Percentiles | None:
    counts = [sum(column) for column in zip(*(each.latency for each in sums), strict=True)]
    values = [percentile(counts, LATENCY_BOUNDS, share) for share in (0.5, 0.95, 0.99)]
    if None in values:
        return None
    return Percentiles(*(round(value or 0.0) for value in values))


def _after_pause(moment: datetime | None, lane: Lane) -> datetime | None:
    """When what is due at ``moment`` may be sent, its lane's rest included."""
    return None if moment is None else max(moment, lane.paused_until or moment)


def _age(moment: datetime | None, now: datetime) -> float | None:
    """Seconds since then."""
    return None if moment is None else round(max((now - moment).total_seconds(), 0.0), 1)
