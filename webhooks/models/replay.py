"""``Replay``: deliveries of the past that a client asked for again, and how far that has come.

Making them is work for a worker, in batches; the row says what is asked for and where to go on, so
a worker that dies loses nothing. :class:`Selection` is the question that both the count before and
the work after it ask.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from django.db import models
from django.db.models import FilteredRelation, Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from webhooks.formats.base import DIGEST_TYPE
from webhooks.models.background import RunQuerySet, RunState
from webhooks.models.delivery import State
from webhooks.models.event import Event
from webhooks.models.fields import PrefixedIdField, first_id_of, new_replay_id
from webhooks.models.subscription import OPERATIONAL, Subscription

#: In place of a delivery's state: there is none for the event.
MISSING: Final = "missing"
#: What did not reach the receiver.
NOT_RECEIVED: Final = (
    *(State.DEAD.value, State.EXPIRED.value, State.CANCELLED.value, State.DISCARDED.value),
    MISSING,
)
#: What may be asked for again; what is pending comes by itself.
REPLAYABLE: Final = (State.DELIVERED.value, *NOT_RECEIVED)

#: An event's id is made just after its ``created_at``, and runs ahead of a clock that is set back.
#: The ids narrow the search to the window and so much on either side; ``created_at`` decides.
MARGIN: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Selection:
    """The events that a replay sends again, of those that a subscription may receive.

    start, end: recorded from ``start`` on and before ``end``. patterns: of types, each a list of
    which one must match. hidden: types that the owner does not see. states: see ``REPLAYABLE``.
    asked_at: what happened later is not part of it, so that the work never outgrows its count.
    """

    subscription_id: str
    requester: str
    start: datetime
    end: datetime
    patterns: tuple[Any, ...]
    hidden: Collection[str]
    states: Collection[str]
    asked_at: datetime

    def events(self, using: str, *, after: str = "", upto: str = "") -> models.QuerySet[Event]:
        """Its events, with ``own``: the subscription's delivery. after, upto: bounds of the ids."""
        states = [state for state in self.states if state != MISSING]
        wanted = Q(own__state__in=states, own__settled_at__lte=self.asked_at)
        if MISSING in self.states:
            # What is not fanned out yet may still get its delivery from there. And what stands for
            # a digest in which nothing else was, is nobody else's.
            missing = Q(own__isnull=True, fanned_out_at__lte=self.asked_at)
            wanted |= missing & ~Q(type=DIGEST_TYPE)
        found = (
            self._within(using, after)
            .alias(
                own=FilteredRelation(
                    "deliveries", condition=Q(deliveries__subscription=self.subscription_id)
                )
            )
            .filter(
                wanted,
                *(_matching(patterns) for patterns in self.patterns),
                requester__in=(self.requester, ""),
                created_at__gte=self.start,
                created_at__lt=self.end,
            )
        )
        if self.hidden:
            found = found.exclude(type__in=sorted(self.hidden))
        return found.filter(pk__lte=upto) if upto else found

    def reach(self, using: str, *, after: str, limit: int) -> str:
        """The last of the next ``limit`` events of anybody's; "" when there are not so many.

        However rare the events of the selection are, a search up to there is a short one.
        """
        ids = self._within(using, after).order_by("pk").values_list("pk", flat=True)
        return next(iter(ids[limit - 1 : limit]), "")

    def _within(self, using: str, after: str) -> models.QuerySet[Event]:
        events = Event.objects.using(using).filter(pk__lt=first_id_of(self.end + MARGIN, "evt"))
        if after:
            return events.filter(pk__gt=after)
        return events.filter(pk__gte=first_id_of(self.start - MARGIN, "evt"))


def _matching(patterns: Any) -> Q:
    """:func:`webhooks.models.subscription.matches`, in SQL."""
    found = Q(pk__in=())
    for pattern in patterns if isinstance(patterns, list) else ():
        if pattern == "*":
            found |= ~Q(type__startswith=OPERATIONAL)
        elif isinstance(pattern, str) and pattern.endswith(".*"):
            found |= Q(type__startswith=pattern[:-1])
        found |= Q(type=pattern)
    return found


class ReplayQuerySet(RunQuerySet["Replay"]):
    """Replays: work in the background like any other."""


class Replay(models.Model):
    """One request to deliver again what was recorded within a time, to one subscription."""

    State = RunState

    id = PrefixedIdField(prefix="rpl", primary_key=True, default=new_replay_id, editable=False)
    subscription = models.ForeignKey(Subscription, models.CASCADE, related_name="replays")
    from_at = models.DateTimeField(_("from"))
    to_at = models.DateTimeField(_("to"))
    types = models.JSONField(
        _("event types"), default=list, blank=True, help_text=_("Patterns; none: all.")
    )
    states = models.JSONField(
        _("states"),
        default=list,
        help_text=_("Which deliveries: their states, and “missing” for events without one."),
    )
    actor = models.CharField(_("asked for by"), max_length=255, blank=True, default="")
    state = models.CharField(
        _("state"), max_length=16, choices=State.choices, default=State.RUNNING
    )
    total = models.PositiveBigIntegerField(_("to do"), default=0)
    done = models.PositiveBigIntegerField(_("done"), default=0)
    after = models.CharField(
        max_length=36, blank=True, default="", editable=False, help_text=_("The last event seen.")
    )
    created_at = models.DateTimeField(_("asked for at"), default=timezone.now, editable=False)
    finished_at = models.DateTimeField(_("ended at"), null=True, blank=True)

    objects = ReplayQuerySet.as_manager()

    class Meta:
        verbose_name = _("replay")
        verbose_name_plural = _("replays")
        indexes = [
            models.Index(
                fields=["id"],
                condition=models.Q(state="running"),
                name="webhooks_replay_running",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.pk} ({self.get_state_display()})"
