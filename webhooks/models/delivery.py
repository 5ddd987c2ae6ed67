"""``Delivery``: what is to be sent.

A delivery is one event for one subscription. It changes in four ways only:
:meth:`~DeliveryQuerySet.settle` ends it, :meth:`~DeliveryQuerySet.reschedule` moves its next try,
:meth:`~DeliveryQuerySet.revive` (or ``hasten``, while it is pending) makes it due once more, and
:meth:`~DeliveryQuerySet.lay_aside` ends the wait of a dead one for somebody to see to it. Those
that travel with it may :meth:`~DeliveryQuerySet.follow`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import models
from django.db.models.functions import Least
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from webhooks.models.bulk import insert_rows, update_rows
from webhooks.models.due import DueDelivery as DueDelivery
from webhooks.models.due import LanePosition as LanePosition
from webhooks.models.due import QueueReader
from webhooks.models.event import Event
from webhooks.models.fields import PrefixedIdField, new_delivery_id
from webhooks.models.subscription import Subscription


class State(models.TextChoices):
    PENDING = "pending", _("pending")
    DELIVERED = "delivered", _("delivered")
    DEAD = "dead", _("dead")
    CANCELLED = "cancelled", _("cancelled")
    DISCARDED = "discarded", _("discarded")
    EXPIRED = "expired", _("expired")


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is pending for one subscription.

    pending, retrying: how many, and how many of them failed before. oldest_at: when the one that
    waits longest was first due. next_at: the earliest due time; next_retry_at: of those that failed
    before. None where there is none.
    """

    pending: int = 0
    retrying: int = 0
    oldest_at: datetime | None = None
    next_at: datetime | None = None
    next_retry_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """What is pending for anybody, as far as it was counted.

    due: what could be sent now. retrying: what failed before; next_retry_at: the first of those.
    """

    pending: int = 0
    due: int = 0
    retrying: int = 0
    next_retry_at: datetime | None = None


#: Attempts are counted up to here. The column ends at 32,767, and a schedule has 30 waits at most.
MOST_ATTEMPTS = 32_700


class DeliveryQuerySet(QueueReader):
    def pending(self) -> DeliveryQuerySet:
        return self.filter(state=State.PENDING)

    def backlog(self, subscription_id: str, limit: int) -> Backlog:
        """What is pending for a subscription, as far as the ``limit`` that are due first show it.

        However many wait, no more rows than that are read, through the index of pending ones.
        """
        first = self.pending().filter(subscription_id=subscription_id).order_by("due_at", "pk")
        failed = models.Q(attempts__gt=models.F("retries_from"))
        return Backlog(
            **first[:limit].aggregate(
                pending=models.Count("pk"),
                retrying=models.Count("pk", filter=failed),
                oldest_at=models.Min("first_due_at"),
                next_at=models.Min("due_at"),
                next_retry_at=models.Min("due_at", filter=failed),
            )
        )

    def waiting(self, now: datetime, limit: int) -> Waiting:
        """What is pending for anybody; no more than ``limit`` rows are read, whichever they are."""
        failed = models.Q(attempts__gt=models.F("retries_from"))
        return Waiting(
            **self.pending()
            .order_by()[:limit]
            .aggregate(
                pending=models.Count("pk"),
                due=models.Count("pk", filter=models.Q(due_at__lte=now)),
                retrying=models.Count("pk", filter=failed),
                next_retry_at=models.Min("due_at", filter=failed),
            )
        )

    def settle(
        self, state: State, *, now: datetime, reason: str = "", attempts: int | None = None
    ) -> int:
        """End deliveries that are still pending; how many there were.

        The first end stands: an acknowledgement that comes after a cancellation changes nothing,
        and neither does a second acknowledgement.
        """
        values: dict[str, Any] = {"state": state, "reason": reason, "settled_at": now}
        if attempts is not None:
            values["attempts"] = attempts
        return self.pending().update(**values)

    def lay_aside(self, *, now: datetime, reason: str) -> int:
        """Discard dead deliveries: nobody is to see to them any more; how many there were.

        The caller has locked their lanes: whoever wants them sent once more has done so before.
        """
        dead = self.filter(state=State.DEAD)
        return dead.update(state=State.DISCARDED, reason=reason, settled_at=now)

    def unwanted(self, until: datetime) -> DeliveryQuerySet:
        """What belongs to a backlog that is discarded up to then.

        By when it was first due: what was asked for again since then is wanted. What waits for the
        end of a window was made before it is due.
        """
        return self.filter(
            models.Q(first_due_at__lte=until) | models.Q(created_at__lte=until, trigger="")
        )

    def reschedule_together(self, due_at: datetime, attempts: int) -> int:
        """:meth:`reschedule`, for all of these deliveries alike: the members of a batch."""
        return self.pending().update(due_at=due_at, attempts=attempts)

    def reschedule(self, rows: Sequence[tuple[str, datetime, int]]) -> None:
        """Move the next try of pending deliveries; rows of (id, due_at, attempts so far).

        The caller has locked the lanes: a delivery that is re-timed behind a lane's back would
        never be claimed.
        """
        update_rows(
            self.db, Delivery, ["due_at", "attempts"], rows, only=f"state = '{State.PENDING.value}'"
        )

    def revive(self, *, trigger: str, now: datetime, clock_ms: int) -> int:
        """Make deliveries of one lane that ended pending again, due now; how many there were.

        The number of attempts goes on, the schedule of retries and the age limit begin anew. The
        caller has locked the lane, and tells it. clock_ms: for how long it has stood still by now.
        """
        return self.exclude(state=State.PENDING).update(
            state=State.PENDING,
            reason="",
            settled_at=None,
            due_at=now,
            first_due_at=now,
            clock_stopped_ms=clock_ms,
            trigger=trigger,
            **_schedule_anew(),
        )

    def hasten(
        self,
        *,
        trigger: str,
        now: datetime,
        clock_ms: int,
        discard_before: datetime | None = None,
    ) -> int:
        """Make pending deliveries due now; how many there were. Else as :meth:`revive`.

        One that is due already keeps its time: the lane's holder may have read it, and would read
        it once more if it moved. The age limit stays: it has been tried since it was first due.

        discard_before: the lane's; those of its backlog are wanted now, as if they were new.
        """
        values: dict[str, Any] = {}
        if discard_before is not None:
            unwanted = models.Q(first_due_at__lte=discard_before)
            # The clock first: MariaDB reads what the columns before it were set to.
            for column, value in (("clock_stopped_ms", clock_ms), ("first_due_at", now)):
                field: Any = Delivery._meta.get_field(column)
                values[column] = models.Case(
                    models.When(unwanted, then=models.Value(value)),
                    default=models.F(column),
                    output_field=field,
                )
        return self.pending().update(
            due_at=Least("due_at", now, output_field=models.DateTimeField()),
            trigger=trigger,
            **_schedule_anew(),
            **values,
        )

    def follow(self, head: Delivery) -> int:
        """Make these deliveries what the one is that stands for them, in a message of many.

        It was settled, rescheduled or revived; nothing else is decided here.
        """
        return self.update(**{name: getattr(head, name) for name in FOLLOWED})

    def add(self, rows: Sequence[Sequence[Any]]) -> None:
        """Insert deliveries as fan-out makes them; an (event, subscription) there is stays."""
        insert_rows(self.db, Delivery, FANNED_OUT, rows, ignore_conflicts=True)


class Delivery(models.Model):
    """One event for one subscription."""

    State = State

    id = PrefixedIdField(prefix="dlv", primary_key=True, default=new_delivery_id, editable=False)
    event = models.ForeignKey(Event, models.CASCADE, related_name="deliveries")
    subscription = models.ForeignKey(
        Subscription, models.CASCADE, related_name="deliveries", db_index=False
    )
    state = models.CharField(
        _("state"), max_length=16, choices=State.choices, default=State.PENDING
    )
    reason = models.CharField(
        _("reason"), max_length=64, blank=True, default="", help_text=_("Why it ended as it did.")
    )
    due_at = models.DateTimeField(_("due at"), default=timezone.now)
    first_due_at = models.DateTimeField(_("first due at"), default=timezone.now)
    attempts = models.PositiveSmallIntegerField(_("attempts"), default=0)
    retries_from = models.PositiveSmallIntegerField(
        default=0,
        db_default=0,
        editable=False,
        help_text=_(
            "Attempts there were when it was last asked for again; the schedule of "
            "retries begins anew there."
        ),
    )
    trigger = models.CharField(
        _("trigger"),
        max_length=16,
        blank=True,
        default="",
        help_text=_("Why it is tried next, where a person asked for it."),
    )
    message = models.ForeignKey(
        "webhooks.Message",
        models.SET_NULL,
        null=True,
        blank=True,
        db_index=False,
        related_name="members",
        help_text=_("The batch or digest page that it travels in."),
    )
    clock_stopped_ms = models.PositiveBigIntegerField(
        _("stood still before, ms"),
        default=0,
        help_text=_("How long its lane had stood still when this was first due."),
    )
    created_at = models.DateTimeField(_("created at"), default=timezone.now)
    settled_at = models.DateTimeField(_("ended at"), null=True, blank=True)

    objects = DeliveryQuerySet.as_manager()

    class Meta:
        verbose_name = _("delivery")
        verbose_name_plural = _("deliveries")
        permissions = [("replay_delivery", "Can replay deliveries")]
        constraints = [
            models.UniqueConstraint(
                fields=["event", "subscription"], name="webhooks_delivery_once"
            ),
            models.CheckConstraint(
                condition=models.Q(state=State.PENDING, settled_at__isnull=True)
                | (~models.Q(state=State.PENDING) & models.Q(settled_at__isnull=False)),
                name="webhooks_delivery_settled",
            ),
        ]
        indexes = [
            models.Index(
                fields=["subscription", "due_at", "id"],
                condition=models.Q(state=State.PENDING),
                name="webhooks_delivery_due",
            ),
            models.Index(fields=["subscription", "id"], name="webhooks_delivery_of"),
            # Not of those that travel alone, which are most: they have no entry in it.
            models.Index(
                fields=["message", "id"],
                condition=models.Q(message__isnull=False),
                name="webhooks_delivery_in",
            ),
            # In this order dead letters are grouped and read (models/dead_letters.py).
            models.Index(
                fields=["subscription", "reason", "settled_at", "id"],
                condition=models.Q(state=State.DEAD),
                name="webhooks_delivery_dead",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.pk} ({self.get_state_display()})"

    @property
    def webhook_id(self) -> str:
        """The ``webhook-id`` under which it is sent: the message's, or the event's."""
        own: str = self.message_id or self.event_id
        return own

    @property
    def was_asked_for(self) -> bool:
        """Whether a person asked for its next try; those that follow are retries of that."""
        return bool(self.trigger) and self.attempts == self.retries_from


#: What members of a message take over from the one that stands for them.
FOLLOWED = (
    *("state", "reason", "settled_at", "due_at", "first_due_at"),
    *("attempts", "retries_from", "trigger", "clock_stopped_ms"),
)

#: The columns that fan-out fills, in this order.
FANNED_OUT = (
    "id",
    "event",
    "subscription",
    "state",
    "reason",
    "due_at",
    "first_due_at",
    "attempts",
    "trigger",
    "created_at",
    "settled_at",
    "clock_stopped_ms",
)


def _schedule_anew() -> dict[str, Any]:
    attempts = Least("attempts", MOST_ATTEMPTS, output_field=models.PositiveSmallIntegerField())
    return {"attempts": attempts, "retries_from": attempts}
