"""Replays at work: batch by batch, what a client asked for again becomes pending.

Runs over dead letters (:mod:`webhooks.engine.dead_letters`) are advanced in turn with them.

A batch is one transaction, and the replay's row says where the next one begins, so whoever dies in
the middle loses and repeats nothing. Nothing is sent here: the lane is told, and its holder does
the rest. :mod:`webhooks.redelivery` is where one asks.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Collection
from datetime import datetime
from typing import Any

from django.db import InterfaceError, OperationalError

from webhooks import access, catalog
from webhooks.clock import db_now
from webhooks.engine import dead_letters
from webhooks.engine.reviving import revive
from webhooks.engine.transactions import atomically
from webhooks.models import (
    DeadLetterRun,
    Delivery,
    DeliveryAttempt,
    Lane,
    Replay,
    Subscription,
)
from webhooks.models.delivery import State
from webhooks.models.fields import new_delivery_id
from webhooks.models.replay import Selection
from webhooks.models.subscription import Status

logger = logging.getLogger("webhooks")

#: Deliveries for each batch: a worker has POSTs to look after between two of them.
BATCH = 500
#: Events of anybody's that one batch looks through for its own.
SCANNED = 5000
#: Running replays that are tried in one look, until one of them can go on.
TRIED = 10
#: A replay that cannot go on, by an error, is left alone for so long.
REST = 30.0

#: When each of those may be tried again in this process, in monotonic seconds.
_resting: dict[str, float] = {}


def advance(using: str, limit: int = BATCH) -> bool:
    """Do the next batch of one running replay, or run over dead letters; whether there may be more
    to do at once.

    limit: deliveries at most. False too while all lanes concerned are locked by others. Which
    one it is, is left to chance: so all of them get on, however many workers and replays there
    are. Raises OperationalError or InterfaceError where the database is away.
    """
    now = time.monotonic()
    running = [
        (pk, batch)
        for model, batch in ((Replay, _advance), (DeadLetterRun, dead_letters.advance))
        for pk in model.objects.using(using).running().values_list("pk", flat=True)
    ]
    ready = [each for each in running if _resting.get(each[0], now) <= now]
    for pk, batch in random.sample(ready, min(TRIED, len(ready))):
        try:
            if atomically(using, lambda pk=pk, batch=batch: batch(using, pk, limit)):  # type: ignore[misc]
                return True
        except (OperationalError, InterfaceError):
            raise
        except Exception:
            # Nobody's replay may stop the deliveries of all.
            logger.exception("%s cannot go on; it is tried again in a while.", pk)
            _resting[pk] = now + REST
    return False


def _advance(using: str, pk: str, limit: int) -> bool:
    """One batch in the caller's transaction; False when somebody else has the replay or lane."""
    replay = Replay.objects.using(using).lock_free(pk)
    if replay is None:
        return False
    lane = Lane.objects.using(using).lock_one(replay.subscription_id, wait=False)
    if lane is None:
        return False
    now = db_now(using)
    # Under the lane's lock: it cannot end in the middle of the batch.
    subscription = Subscription.objects.using(using).get(pk=replay.subscription_id)
    selection = select(
        subscription,
        start=replay.from_at,
        end=replay.to_at,
        types=replay.types,
        states=replay.states,
        asked_at=replay.created_at,
    )
    if selection is None:
        Replay.objects.using(using).filter(pk=pk).end(Replay.State.CANCELLED, now)
        return True
    upto = selection.reach(using, after=replay.after, limit=SCANNED)
    events = selection.events(using, after=replay.after, upto=upto).order_by("pk")
    found = list(events.values_list("pk", "own__pk")[:limit])  # type: ignore[misc]
    again = [delivery for _event, delivery in found if delivery is not None]
    missing = [event for event, delivery in found if delivery is None]
    trigger = DeliveryAttempt.Trigger.REPLAY.value
    if again:
        revive(using, lane, again, trigger=trigger, now=now)
    if missing:
        _add(using, lane, missing, trigger=trigger, now=now)
    replay.done += len(found)
    replay.after = found[-1][0] if len(found) == limit else upto
    if not replay.after:
        replay.state = Replay.State.FINISHED
        replay.finished_at = now
    replay.save(using=using, update_fields=["done", "after", "state", "finished_at"])
    return True


def select(
    subscription: Subscription,
    *,
    start: datetime,
    end: datetime,
    types: list[str],
    states: Collection[str],
    asked_at: datetime,
) -> Selection | None:
    """What a replay covers; None for a subscription that has ended or is entitled to nothing.

    types: patterns; none: all that the subscription has.
    """
    if subscription.status == Status.UNSUBSCRIBED:
        return None
    scopes = access.granted(subscription)
    if scopes is None:
        return None
    return Selection(
        subscription_id=subscription.pk,
        requester=subscription.requester,
        start=start,
        end=end,
        patterns=(subscription.event_types, types) if types else (subscription.event_types,),
        hidden={each.name for each in catalog.all_types() if not access.sees(scopes, each)},
        states=states,
        asked_at=asked_at,
    )


def _add(using: str, lane: Lane, events: Collection[str], *, trigger: str, now: datetime) -> None:
    """Give a locked lane deliveries of events that it has none of."""
    rows: list[tuple[Any, ...]] = [
        (
            new_delivery_id(),
            event,
            lane.pk,
            State.PENDING.value,
            "",
            now,
            now,
            0,
            trigger,
            now,
            None,
            lane.clock_at(now),
        )
        for event in events
    ]
    Delivery.objects.using(using).add(rows)
    Lane.objects.using(using).expect([lane], now)
