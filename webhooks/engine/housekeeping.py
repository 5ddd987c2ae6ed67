"""What runs by the clock: the sweep that misses nothing, and the pruning of what is over."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Exists, OuterRef

from webhooks import notices
from webhooks.clock import db_now
from webhooks.conf import settings
from webhooks.engine import giving_up, markers
from webhooks.engine.drain import HORIZON, KINDS
from webhooks.engine.transactions import atomically
from webhooks.entitlement import review
from webhooks.models import (
    DeadLetterRun,
    Delivery,
    DeliveryAttempt,
    DeliveryStats,
    Duty,
    Event,
    Lane,
    Message,
    Replay,
    Subscription,
    Worker,
)
from webhooks.models.fields import first_id_of
from webhooks.models.stats import DAY, FRESH, HOUR
from webhooks.models.subscription import ON_HOLD

logger = logging.getLogger("webhooks")

#: How often each of them runs, for what is told of their lateness.
EVERY_SWEEP, EVERY_PRUNE = timedelta(minutes=1), timedelta(days=1)
#: Rows for each transaction of the housekeeping.
BATCH = 1000
#: Statistics stay in fine buckets for so long, then in hours, then in days.
KEEP_FRESH, KEEP_HOURS = timedelta(hours=48), timedelta(days=30)


def sweep(using: str) -> bool:
    """Repair lanes, bury silent workers, review entitlements, give up on what fails for ever;
    whether a worker should look.

    A lane that needs a repair is a defect of ours; the number is kept in the ``sweep`` duty.
    """
    Duty.objects.using(using).ensure()
    repaired = repair(using)
    review(using)
    now = db_now(using)
    Worker.objects.using(using).silent(now).delete()
    Duty.objects.using(using).note(Duty.Name.SWEEP, add=repaired, every=EVERY_SWEEP)
    notices.tell_owners(using)
    if giving_up.suspend_failing(using):
        notices.tell_owners(using)  # of the suspension, and after its warning
    giving_up.expire_backlogs(using)
    markers.plant_missing(using)
    # What becomes due before the next sweep needs somebody who sits and waits for it.
    soon = now + timedelta(seconds=HORIZON)
    return (
        Event.objects.using(using).undispatched().exists()
        or Lane.objects.using(using).ready(soon).exists()
        or any(kind.waiting(using, soon).exists() for kind in KINDS)
        or Replay.objects.using(using).running().exists()
        or DeadLetterRun.objects.using(using).running().exists()
    )


def tick(using: str, planned: datetime | None = None) -> None:
    """What is done when windows end, each hour: plant the markers of the next ones.

    planned: when this tick was to come. One that comes late, twice or never changes nothing: due
    digests are found like everything that is due, and the sweep plants markers as well.
    """
    Duty.objects.using(using).ensure()
    markers.plant_missing(using)
    Duty.objects.using(using).note(Duty.Name.TICK, planned=planned)


def planned_hour(now: datetime) -> datetime:
    """When the tick of this moment was to come: at the last full hour."""
    return now.replace(minute=0, second=0, microsecond=0)


def repair(using: str) -> int:
    """Make lanes claimable whose deliveries nobody would come for; how many there were."""
    repaired = 0
    while astray := Lane.objects.using(using).astray(BATCH):
        found = atomically(using, lambda ids=astray: _repair(using, ids))  # type: ignore[misc]
        repaired += found
        if len(astray) < BATCH or not found:
            break
    if repaired:
        logger.error("%d lanes had pending deliveries and no time to be claimed.", repaired)
    return repaired


def _repair(using: str, ids: list[str]) -> int:
    lanes = Lane.objects.using(using)
    locked = lanes.lock(ids)
    # Named without locks, and perhaps rightly timed since: look again.
    earliest = lanes.earliest_due(ids)
    now = db_now(using)
    repaired = 0
    statuses = dict(
        Subscription.objects.using(using).filter(pk__any=ids).values_list("pk", "status")
    )
    for lane in locked:
        lane.hold(statuses[lane.pk] in ON_HOLD, now)
        target = lane.next_claim(earliest.get(lane.pk))
        if lane.token is not None or target is None:
            continue
        if lane.claim_at is None or lane.claim_at > max(target, now):
            lane.claim_at = target
            columns = ["claim_at", "held", "clock_stopped_ms", "clock_stopped_since"]
            lane.save(using=using, update_fields=columns)
            repaired += 1
    return repaired


def prune(using: str) -> int:
    """Remove finished rows that are older than RETENTION_DAYS; how many there were.

    Nothing unfinished goes: an event stays as long as one of its deliveries is pending.
    """
    Duty.objects.using(using).ensure()
    limit = db_now(using) - timedelta(days=settings.RETENTION_DAYS)
    removed = 0
    attempts = DeliveryAttempt.objects.using(using).filter(pk__lt=first_id_of(limit, "att"))
    removed += _delete(using, attempts)
    settled = Delivery.objects.using(using).filter(
        pk__lt=first_id_of(limit, "dlv"), settled_at__lt=limit
    )
    removed += _delete(using, settled)
    remaining = Delivery.objects.using(using).filter(event_id=OuterRef("pk"))
    events = Event.objects.using(using).filter(
        ~Exists(remaining), pk__lt=first_id_of(limit, "evt"), fanned_out_at__lt=limit
    )
    removed += _delete(using, events)
    members = Delivery.objects.using(using).filter(message_id=OuterRef("pk"))
    messages = Message.objects.using(using).filter(
        ~Exists(members), pk__lt=first_id_of(limit, "msg")
    )
    removed += _delete(using, messages)
    replays = Replay.objects.using(using).filter(
        pk__lt=first_id_of(limit, "rpl"), finished_at__lt=limit
    )
    removed += _delete(using, replays)
    runs = DeadLetterRun.objects.using(using).filter(
        pk__lt=first_id_of(limit, "dlr"), finished_at__lt=limit
    )
    removed += _delete(using, runs)
    compact(using)
    Duty.objects.using(using).note(Duty.Name.PRUNE, add=removed, every=EVERY_PRUNE)
    return removed


def compact(using: str) -> None:
    """Merge old statistics into larger buckets."""
    now = db_now(using)
    for age, width, into in ((KEEP_FRESH, FRESH, HOUR), (KEEP_HOURS, HOUR, DAY)):
        # Whole target buckets only: a bucket that is merged twice would still be right, but
        # one that is still being written would be merged for nothing.
        older_than = now - age
        older_than -= timedelta(seconds=older_than.timestamp() % into)
        stats = DeliveryStats.objects.using(using)
        while atomically(
            using,
            lambda stats=stats, end=older_than, width=width, into=into: stats.compact(  # type: ignore[misc]
                end, width=width, into=into, limit=BATCH
            ),
        ):
            pass


def _delete(using: str, rows: Any) -> int:
    """Delete in small transactions, oldest first."""
    removed = 0
    while ids := list(rows.order_by("pk").values_list("pk", flat=True)[:BATCH]):
        # Still over, and not only when they were named: a delivery may be asked for again.
        with_ids = rows.filter(pk__any=ids)
        removed += atomically(using, lambda q=with_ids: q._raw_delete(q.db))  # type: ignore[misc]
    return removed
