"""How the whole service fares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from webhooks.clock import db_now
from webhooks.conf import settings
from webhooks.health import reasons
from webhooks.health.verdicts import (
    ABANDONED,
    BAD_RATE,
    DAY,
    DEGRADED,
    DOWN,
    GOOD_RATE,
    HEALTHY,
    HEARTBEAT,
    IDLE,
    LATE,
    LATELY,
    MOST_COUNTED,
    Reason,
    Verdict,
    as_text,
    is_low,
    rate,
)
from webhooks.health.workers import Scheduled, schedules
from webhooks.models import DeliveryStats, Event, Lane, Subscription, Worker
from webhooks.models.stats import WHOLE_SERVICE, Sums
from webhooks.models.subscription import FOR_FAILING, Status


@dataclass(frozen=True, slots=True)
class ServiceHealth:
    """How the whole service fares; nothing in ``as_dict`` tells of any one tenant.

    delivery_delay_s: how long what waits longest has waited for a worker: an event for its fan-out,
    or a lane that may be claimed. What an endpoint's slowness or pause holds up is not in it.
    success_rate_24h, dead_24h, suspended_24h (by the service itself): over the last day. schedules:
    what runs by the clock, and whether it is late.
    """

    verdict: Verdict
    updated_at: datetime
    delivery_delay_s: float
    source_ips: tuple[str, ...]
    success_rate_24h: float | None
    dead_24h: int
    suspended_24h: int
    schedules: tuple[Scheduled, ...] = ()

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
        status=Status.SUSPENDED, status_reason=FOR_FAILING, status_since__gte=now - DAY
    )
    suspended_24h = suspended[:MOST_COUNTED].count()
    found = schedules(now)
    return ServiceHealth(
        verdict=_judge(day, lately, delay, suspended_24h, found, is_manned=is_manned),
        updated_at=now,
        delivery_delay_s=round(delay.total_seconds(), 1),
        source_ips=tuple(settings.SOURCE_IPS),
        success_rate_24h=rate(day),
        dead_24h=sum(each.dead for each in day),
        suspended_24h=suspended_24h,
        schedules=found,
    )


def _judge(
    day: Sequence[Sums],
    lately: Sequence[Sums],
    delay: timedelta,
    suspended_24h: int,
    by_the_clock: Sequence[Scheduled],
    *,
    is_manned: bool,
) -> Verdict:
    down: list[Reason] = []
    if not is_manned:
        down.append(reasons.no_worker(delay))
    if delay > ABANDONED:
        down.append(reasons.abandoned(delay))
    if is_low(lately, BAD_RATE):
        down.append(reasons.outage())
    if down:
        return Verdict(DOWN, reasons=tuple(down))
    found: list[Reason] = []
    if delay > LATE:
        found.append(reasons.delayed(delay))
    if late := [each for each in by_the_clock if each.late]:
        found.append(reasons.late_schedule(late))
    if is_low(day, GOOD_RATE):
        found.append(reasons.low_rate(day))
    if suspended_24h:
        found.append(reasons.suspended_lately(suspended_24h))
    if dead := sum(each.dead for each in day):
        found.append(reasons.dead_letters(dead))
    if found:
        return Verdict(DEGRADED, reasons=tuple(found))
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
