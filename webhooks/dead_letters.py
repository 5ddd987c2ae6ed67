"""What a person asks to be done with dead letters: retry or discard some, or all that match.

Some are done at once, a lane's in one transaction. All that match are a run: asking writes a row,
and workers do it, batch by batch (:mod:`webhooks.engine.dead_letters`).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from django.db import transaction

from webhooks.clock import db_now
from webhooks.conf import settings
from webhooks.engine import dead_letters as engine
from webhooks.engine.transactions import atomically
from webhooks.engine.wake import wake
from webhooks.models import DeadLetter, DeadLetterRun, DeliveryAttempt, Lane, Subscription
from webhooks.models.dead_letters import Matching, Place

logger = logging.getLogger("webhooks")

#: A preview looks through so many.
LOOKED_THROUGH: Final = 5000
#: Rows that an export reads at a time.
CHUNK: Final = 1000


@dataclass(frozen=True, slots=True)
class Preview:
    """What would be done. by_type: how many of each event type, of those that were looked through.

    more: there are more than were looked through.
    """

    by_type: dict[str, int]
    more: bool

    @property
    def count(self) -> int:
        return sum(self.by_type.values())


def preview(which: Matching) -> Preview:
    """How many match now, by event type; one statement, of at most ``LOOKED_THROUGH`` rows."""
    found = DeadLetter.objects.using(settings.database).matching(which).in_order(which)
    seen = Counter(found.values_list("event__type", flat=True)[:LOOKED_THROUGH])
    meant = {name: n for name, n in seen.most_common() if not which.types or name in which.types}
    return Preview(meant, more=seen.total() == LOOKED_THROUGH)


def begin(action: str, which: Matching, *, actor: str = "", note: str = "") -> DeadLetterRun:
    """Ask for a run over all that match now; its row tells how far it is.

    action: of ``DeadLetterRun.Action``. actor: who asks, e.g. ``staff:ada``. note: what for.
    """
    using = settings.database
    now = db_now(using)
    meant = replace(which, end=min(filter(None, (which.end, now))))
    run = DeadLetterRun(
        action=action,
        subscription_id=which.subscription_id or None,
        reason=which.reason,
        types=list(which.types),
        from_at=which.start,
        to_at=which.end,
        actor=actor[:255],
        note=note[:255],
        total=DeadLetter.objects.using(using).matching(meant).count(),
        created_at=now,
    )
    run.save(using=using, force_insert=True)
    transaction.on_commit(wake, using=using, robust=True)
    logger.info("%s: %s of %d dead letters, asked for by %r.", run.pk, action, run.total, actor)
    return run


def cancel(run: DeadLetterRun) -> bool:
    """End a run that is under way; False when it has ended. What it has done stays done."""
    using = settings.database
    rows = DeadLetterRun.objects.using(using).filter(pk=run.pk)
    ended = atomically(using, lambda: rows.end(DeadLetterRun.State.CANCELLED, db_now(using)))
    run.refresh_from_db(using=using)
    return bool(ended)


def retry(ids: Collection[str]) -> list[str]:
    """Send some dead letters again; the ids of those that are.

    Passed over is what is dead no longer, whose subscription has ended, or whose owner is not
    entitled to it any more. For some tens of them: it waits for their lanes.
    """
    trigger = DeliveryAttempt.Trigger.MANUAL

    def work(using: str, lane: Lane, own: Sequence[str]) -> list[str]:
        transaction.on_commit(wake, using=using, robust=True)
        return engine.retry(using, lane, own, trigger=trigger)

    return _lane_by_lane(ids, work)


def discard(ids: Collection[str]) -> list[str]:
    """Discard some dead letters; the ids of those that were dead still.

    They stay on record as ``discarded``, with the reason ``operator``.
    """
    return _lane_by_lane(ids, lambda using, lane, own: engine.discard(using, own))


def _lane_by_lane(
    ids: Collection[str], work: Callable[[str, Lane, Sequence[str]], list[str]]
) -> list[str]:
    using = settings.database
    found = DeadLetter.objects.using(using).filter(pk__any=ids).values_list("subscription_id", "pk")
    lanes: dict[str, list[str]] = {}
    for whose, pk in found:
        lanes.setdefault(whose, []).append(pk)
    done: list[str] = []
    for whose, own in sorted(lanes.items()):

        def locked(whose: str = whose, own: Sequence[str] = own) -> list[str]:
            try:
                lane = Lane.objects.using(using).lock_one(whose)
            except Subscription.DoesNotExist:
                return []
            assert lane is not None, "it was waited for"
            return work(using, lane, own)

        done += atomically(using, locked)
    return done


def each(which: Matching, *, with_payload: bool) -> Iterator[list[DeadLetter]]:
    """All that match, in the order of the index, a chunk at a time: memory does not grow with them.

    With their events and subscriptions, without the latter's secrets; the events' payload with
    ``with_payload`` alone.
    """
    left_out = ["subscription__headers", "subscription__basic_auth"]
    if not with_payload:
        left_out.append("event__data")
    found = DeadLetter.objects.using(settings.database).matching(which).in_order(which)
    rows = found.select_related("event", "subscription").defer(*left_out)
    place: Place | None = None
    while chunk := list(rows.after(place, which)[:CHUNK]):
        place = chunk[-1].place
        yield [row for row in chunk if not which.types or row.event.type in which.types]
