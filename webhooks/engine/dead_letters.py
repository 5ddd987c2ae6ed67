"""Dead letters at work: retried or discarded, a lane's at a time, under the lane's lock.

Whoever revives a dead letter locks its lane first, so what is dead under that lock stays so until
the transaction ends; it is read once more there. Nothing is sent here. A run over all that match
goes on from the place in its row (:func:`webhooks.engine.replays.advance` calls it), so whoever
dies in the middle loses and repeats nothing. :mod:`webhooks.dead_letters` is where one asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby, islice
from operator import itemgetter
from typing import Any, Final

from webhooks import access
from webhooks.clock import db_now
from webhooks.engine.reviving import revive
from webhooks.models import DeadLetter, DeadLetterRun, Delivery, DeliveryAttempt, Lane, Subscription
from webhooks.models.dead_letters import KEY, Place
from webhooks.models.subscription import Status

#: Dead letters of anybody's that one batch looks through for its own.
SCANNED: Final = 5000
#: Lanes that one batch locks: their holders write no failure meanwhile.
LANES: Final = 10
#: Why a delivery was discarded; who did it and what for, is in the history.
BY_OPERATOR: Final = "operator"


def advance(using: str, pk: str, limit: int) -> bool:
    """One batch of a run, of at most ``limit`` dead letters, in the caller's transaction.

    False when somebody else has the run, or the lane that comes next.
    """
    run: DeadLetterRun | None = DeadLetterRun.objects.using(using).lock_free(pk)
    if run is None:
        return False
    # What died since it was asked for is not part of it: its work never outgrows its count.
    end = min(filter(None, (run.to_at, run.created_at)))
    which = replace(run.matching, end=end)
    # Where subscription and reason are given, all in that part of the index is meant.
    is_one = bool(which.subscription_id) and which.reason is not None
    passed = which if is_one else replace(which, reason=None, start=None)
    dead = DeadLetter.objects.using(using)
    upto = dead.reach(passed, run.place, SCANNED)
    found = dead.matching(which).after(run.place, which).upto(upto, passed).in_order(which)
    rows = list(found.values_list(*KEY, "event__type")[:limit])
    looked_at: list[Any] = []
    locked: list[tuple[Lane, list[str]]] = []
    for whose, own in islice(groupby(rows, itemgetter(0)), LANES):
        lane = Lane.objects.using(using).lock_one(whose, wait=False)
        if lane is None:
            break
        mine = list(own)
        looked_at += mine
        locked.append((lane, [row[3] for row in mine if not run.types or row[4] in run.types]))
    if rows and not looked_at:
        return False
    for lane, ids in locked:
        if run.action == DeadLetterRun.Action.RETRY:
            run.changed += len(retry(using, lane, ids, trigger=DeliveryAttempt.Trigger.REPLAY))
        else:
            run.changed += len(discard(using, ids))
    run.done += len(looked_at)
    is_at_end = len(looked_at) == len(rows) and len(rows) < limit
    place = upto if is_at_end else Place.of(looked_at[-1])
    run.after = [] if place is None else place.as_list()
    if place is None:
        run.state = DeadLetterRun.State.FINISHED
        run.finished_at = db_now(using)
    run.save(using=using, update_fields=["changed", "done", "after", "state", "finished_at"])
    return True


def retry(using: str, lane: Lane, ids: Sequence[str], *, trigger: str) -> list[str]:
    """Make those of these deliveries of a locked lane that are dead due now; which those were.

    None for a subscription that has ended or is entitled to nothing, and none of a type that its
    owner does not see any more. Each leaves the batch that it travelled in, to be gathered anew.
    """
    subscription = Subscription.objects.using(using).get(pk=lane.pk)
    if subscription.status == Status.UNSUBSCRIBED:
        return []
    scopes = access.granted(subscription)
    dead = DeadLetter.objects.using(using).filter(pk__any=ids, subscription_id=lane.pk)
    types = dict(dead.values_list("pk", "event__type"))
    again = [pk for pk, name in types.items() if access.sees_type(scopes, name)]
    if again:
        revive(using, lane, again, trigger=trigger, now=db_now(using))
    return again


def discard(using: str, ids: Sequence[str]) -> list[str]:
    """Discard those of these deliveries of locked lanes that are dead; which those were."""
    dead = DeadLetter.objects.using(using).filter(pk__any=sorted(ids)).order_by("pk")
    # Locked in the order of their ids first, as everybody does.
    found = list(dead.select_for_update().values_list("pk", flat=True))
    Delivery.objects.using(using).filter(pk__any=found).lay_aside(
        now=db_now(using), reason=BY_OPERATOR
    )
    return found
