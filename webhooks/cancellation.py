"""Ending one delivery by hand, before it is sent again.

What says “cancelled” was not under way: a worker that holds the delivery's lane may have it in
memory, and so a delivery that is due is not taken from under its hands.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Final

from django.utils.translation import gettext as _

from webhooks.clock import db_now
from webhooks.conf import settings
from webhooks.engine.transactions import atomically
from webhooks.exceptions import NotCancellable
from webhooks.models import Delivery, Lane, Message, Subscription
from webhooks.models.delivery import State

logger = logging.getLogger("webhooks")

#: Why a delivery ended that a person has cancelled.
BY_OPERATOR: Final = "operator"
#: A worker's own clock differs from the database's by less than this.
MARGIN: Final = timedelta(seconds=1)


def cancel_delivery(delivery: Delivery, *, actor: str = "") -> Delivery:
    """End a pending delivery: nothing more is sent of it. Returns it as it is stored now.

    It may be asked for again later (:func:`webhooks.redelivery.redeliver`).

    actor: who asks, for the log. Raises NotCancellable where it has ended or was removed; where it
    is due while a worker holds its lane, for then it may be under way; and where it travels in a
    frozen batch, whose bytes would not be the same without it.
    """
    using = settings.database

    def work() -> None:
        try:
            lane = Lane.objects.using(using).lock_one(delivery.subscription_id)
        except Subscription.DoesNotExist:
            lane = None
        rows = Delivery.objects.using(using).filter(pk=delivery.pk)
        found = rows.first()
        if lane is None or found is None:
            raise NotCancellable(_("%(id)s was removed.") % {"id": delivery.pk})
        now = db_now(using)
        if found.state == State.PENDING:
            if lane.is_leased(now) and found.due_at <= now + MARGIN:
                raise NotCancellable(
                    _(
                        "A worker has the queue of this subscription now, and may be sending it. "
                        "Try again in a moment, or suspend the subscription first."
                    )
                )
            if found.message_id and Message.objects.using(using).batches([found.message_id]):
                raise NotCancellable(
                    _(
                        "It travels in %(message)s, which is frozen: what was put together for one "
                        "POST is sent, or given up, together."
                    )
                    % {"message": found.message_id}
                )
        # An acknowledgement needs no lane: it may come first until this very statement.
        if not rows.settle(State.CANCELLED, now=now, reason=BY_OPERATOR):
            raise NotCancellable(_("%(id)s has ended already.") % {"id": delivery.pk})

    atomically(using, work)
    logger.info("%s is cancelled%s.", delivery.pk, f", asked for by {actor!r}" if actor else "")
    delivery.refresh_from_db(using=using)
    return delivery
