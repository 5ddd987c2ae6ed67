"""The figures of this moment, from the webhooks' own tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import Count, Q

from webhooks.models import Delivery, Event, Subscription


@dataclass(frozen=True, slots=True)
class Figures:
    """How far the demo is.

    waiting: events that were not fanned out yet. retrying: pending deliveries that were tried.
    ended: deliveries that are final but not delivered, dead ones among them.
    """

    waiting: int
    deliveries: int
    delivered: int
    pending: int
    retrying: int
    dead: int
    ended: int

    @property
    def settled(self) -> bool:
        """Nothing is left to be done."""
        return not self.waiting and not self.pending

    def __str__(self) -> str:
        return (
            f"delivered {self.delivered:,} of {self.deliveries:,}, retrying {self.retrying:,}, "
            f"dead {self.dead:,}"
        )


def figures(subscriptions: Sequence[Subscription]) -> Figures:
    """Count the deliveries of these subscriptions, and all events that wait for their fan-out."""
    state = Delivery.State
    counts = Delivery.objects.filter(subscription__in=subscriptions).aggregate(
        deliveries=Count("pk"),
        delivered=Count("pk", filter=Q(state=state.DELIVERED)),
        pending=Count("pk", filter=Q(state=state.PENDING)),
        retrying=Count("pk", filter=Q(state=state.PENDING, attempts__gt=0)),
        dead=Count("pk", filter=Q(state=state.DEAD)),
        ended=Count("pk", filter=~Q(state__in=[state.DELIVERED, state.PENDING])),
    )
    return Figures(waiting=Event.objects.undispatched().count(), **counts)
