"""``Delivery`` and ``Message``: what is to be sent, and in what.

A delivery is one event for one subscription. It changes in three ways only:
:meth:`~DeliveryQuerySet.settle` ends it, :meth:`~DeliveryQuerySet.reschedule` moves its next try,
:meth:`~DeliveryQuerySet.revive` (or ``hasten``, while it is pending) makes it due once more.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import connections, models
from django.db.models.expressions import RawSQL
from django.db.models.functions import Least
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from webhooks.models.bulk import insert_rows, update_rows
from webhooks.models.event import Event
from webhooks.models.fields import (
    PrefixedIdField,
    new_delivery_id,
    new_message_id,
)
from webhooks.models.subscription import Format, Payload, Subscription


class State(models.TextChoices):
    PENDING = "pending", _("pending")
    DELIVERED = "delivered", _("delivered")
    DEAD = "dead", _("dead")
    CANCELLED = "cancelled", _("cancelled")
    DISCARDED = "discarded", _("discarded")
    EXPIRED = "expired", _("expired")


@dataclass(frozen=True, slots=True)
class LanePosition:
    """How far a holder has read in a lane: the last (due_at, id) it took; None: nothing yet."""

    subscription_id: str
    limit: int
    after: tuple[datetime, str] | None = None


@dataclass(frozen=True, slots=True)
class DueDelivery:
    """A due delivery with all that its POST needs of the event."""

    id: str
    subscription_id: str
    attempts: int
    due_at: datetime
    first_due_at: datetime
    trigger: str
    event_id: str
    event_type: str
    subject: str
    requester: str
    occurred_at: datetime
    recorded_at: datetime
    data: str
    retries_from: int = 0
    message_id: str | None = None
    #: The message's, which stays as it is; "": the subscription's present one.
    format: str = ""

    @property
    def webhook_id(self) -> str:
        """The ``webhook-id`` under which it is sent: the message's, or the event's."""
        return self.message_id or self.event_id


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


#: Attempts are counted up to here. The column ends at 32,767, and a schedule has 30 waits at most.
MOST_ATTEMPTS = 32_700

#: SQLite takes 500 terms in a compound SELECT.
UNION_TERMS = 400

#: Stands for a subscription's id in a statement that is made once and used for many.
_PLACE = "0" * 32

_BEGINNING = (datetime(1, 1, 1, tzinfo=UTC), "dlv_" + "0" * 32)


class DeliveryQuerySet(models.QuerySet["Delivery"]):
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

    def due(self, positions: Sequence[LanePosition], now: datetime) -> list[DueDelivery]:
        """What is due in these lanes, in lane order; one statement for hundreds of lanes.

        Each lane is read from its own position and to its own limit, through the partial index on
        (subscription, due_at, id): a lane's backlog costs nothing, however long.
        """
        connection = connections[self.db]
        lateral = connection.vendor == "postgresql"
        size = len(positions) if lateral else UNION_TERMS
        found: list[DueDelivery] = []
        for start in range(0, len(positions), size or 1):
            part = positions[start : start + size]
            sql, params = (
                self._lateral(part, now) if lateral else self._union(connection, part, now)
            )
            with connection.cursor() as cursor:
                cursor.execute(sql, params)
                found += [_due_delivery(row) for row in cursor.fetchall()]
        return found

    def newest_of(
        self, subscription_ids: Sequence[str], limit: int, *, oldest_first: bool = False
    ) -> list[Delivery]:
        """The newest of these deliveries that belong to some subscriptions, newest first.

        oldest_first: the oldest ones instead, oldest first. Each subscription is read through the
        index on (subscription, id) and to the limit only; a plain ``IN`` reads and sorts all that
        they have. It is used where they are more than SQLite or MariaDB can take one by one.
        """
        order = "pk" if oldest_first else "-pk"
        connection = connections[self.db]
        lateral = connection.vendor == "postgresql"
        if not lateral and len(subscription_ids) > UNION_TERMS:
            return list(self.filter(subscription_id__in=subscription_ids).order_by(order)[:limit])
        # Where an id belongs, in the statement of one subscription: a column, or a parameter.
        place = RawSQL("owner.id" if lateral else "%s", () if lateral else (_PLACE,))  # noqa: S611
        one = self.filter(subscription_id=place).order_by(order).values_list("id")[:limit]
        try:
            part, params = one.query.get_compiler(self.db).as_sql()
        except EmptyResultSet:
            return []
        if not subscription_ids:
            return []
        if lateral:
            given: list[Any] = [_array(subscription_ids), *params]
            rows = f"unnest(%s::uuid[]) AS owner(id) CROSS JOIN LATERAL ({part}) AS part(id)"
        else:
            given = [
                id[4:] if value is _PLACE else value for id in subscription_ids for value in params
            ]
            terms = [f"SELECT id FROM ({part}) one"] * len(subscription_ids)  # noqa: S608
            rows = f"({' UNION ALL '.join(terms)}) part"
        way = "ASC" if oldest_first else "DESC"
        with connection.cursor() as cursor:
            cursor.execute(
                f"SELECT part.id FROM {rows} ORDER BY part.id {way} LIMIT %s",  # noqa: S608
                [*given, limit],
            )
            ids = [f"dlv_{_hex(row[0])}" for row in cursor.fetchall()]
        return list(self.filter(pk__any=ids).order_by(order))

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

    def reschedule(self, rows: Sequence[tuple[str, datetime, int]]) -> None:
        """Move the next try of pending deliveries; rows of (id, due_at, attempts so far).

        The caller has locked the lanes: a delivery that is re-timed behind a lane's back would
        never be claimed.
        """
        update_rows(
            self.db, Delivery, ["due_at", "attempts"], rows, only=f"state = '{State.PENDING.value}'"
        )

    def revive(self, *, trigger: str, now: datetime) -> int:
        """Make deliveries that ended pending again, due now; how many there were.

        The number of attempts goes on, the schedule of retries and the age limit begin anew. The
        caller has locked their lanes, and tells them.
        """
        return self.exclude(state=State.PENDING).update(
            state=State.PENDING,
            reason="",
            settled_at=None,
            due_at=now,
            first_due_at=now,
            trigger=trigger,
            **_schedule_anew(),
        )

    def hasten(self, *, trigger: str, now: datetime, discard_before: datetime | None = None) -> int:
        """Make pending deliveries due now; how many there were. Else as :meth:`revive`.

        One that is due already keeps its time: the lane's holder may have read it, and would read
        it once more if it moved. The age limit stays: it has been tried since it was first due.

        discard_before: the lane's; those of its backlog are wanted now, as if they were new.
        """
        values: dict[str, Any] = {}
        if discard_before is not None:
            values["first_due_at"] = models.Case(
                models.When(first_due_at__lte=discard_before, then=models.Value(now)),
                default=models.F("first_due_at"),
            )
        return self.pending().update(
            due_at=Least("due_at", now, output_field=models.DateTimeField()),
            trigger=trigger,
            **_schedule_anew(),
            **values,
        )

    def add(self, rows: Sequence[Sequence[Any]]) -> None:
        """Insert deliveries as fan-out makes them; an (event, subscription) there is stays."""
        insert_rows(self.db, Delivery, FANNED_OUT, rows, ignore_conflicts=True)

    @staticmethod
    def _lateral(positions: Sequence[LanePosition], now: datetime) -> tuple[str, list[Any]]:
        starts = [position.after or _BEGINNING for position in positions]
        return (
            f"SELECT {_COLUMNS} FROM unnest(%s::uuid[], %s::timestamptz[], %s::uuid[], %s::int[]) "  # noqa: S608
            "AS lane(id, due_at, delivery_id, wanted) CROSS JOIN LATERAL ("
            f"SELECT * FROM {_TABLE} WHERE subscription_id = lane.id AND state = 'pending' "
            "AND due_at <= %s AND (due_at, id) > (lane.due_at, lane.delivery_id) "
            f"ORDER BY due_at, id LIMIT lane.wanted) d JOIN {_EVENT} e ON e.id = d.event_id "
            "ORDER BY d.due_at, d.id",
            [
                _array(position.subscription_id for position in positions),
                [due_at for due_at, _id in starts],
                _array(last_id for _due, last_id in starts),
                [position.limit for position in positions],
                now,
            ],
        )

    @staticmethod
    def _union(
        connection: Any, positions: Sequence[LanePosition], now: datetime
    ) -> tuple[str, list[Any]]:
        adapt = connection.ops.adapt_datetimefield_value
        parts = []
        params: list[Any] = []
        for position in positions:
            condition = ""
            values = [position.subscription_id[4:], adapt(now)]
            if position.after is not None:
                due_at, last_id = position.after
                condition = "AND (due_at > %s OR (due_at = %s AND id > %s)) "
                values += [adapt(due_at), adapt(due_at), last_id[4:]]
            parts.append(
                f"SELECT * FROM (SELECT * FROM {_TABLE} WHERE subscription_id = %s "  # noqa: S608
                f"AND state = 'pending' AND due_at <= %s {condition}"
                "ORDER BY due_at, id LIMIT %s) part"
            )
            params += [*values, position.limit]
        return (
            f"SELECT {_COLUMNS} FROM ({' UNION ALL '.join(parts)}) d "  # noqa: S608
            f"JOIN {_EVENT} e ON e.id = d.event_id ORDER BY d.due_at, d.id",
            params,
        )


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
        related_name="members",
        help_text=_("The batch or digest page that it travels in."),
    )
    created_at = models.DateTimeField(_("created at"), default=timezone.now)
    settled_at = models.DateTimeField(_("ended at"), null=True, blank=True)

    objects = DeliveryQuerySet.as_manager()

    class Meta:
        verbose_name = _("delivery")
        verbose_name_plural = _("deliveries")
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
            models.Index(
                fields=["settled_at"],
                condition=models.Q(state=State.DEAD),
                name="webhooks_delivery_dead",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.pk} ({self.state})"

    @property
    def webhook_id(self) -> str:
        """The ``webhook-id`` under which it is sent: the message's, or the event's."""
        own: str = self.message_id or self.event_id
        return own


class Message(models.Model):
    """A frozen batch or digest page; its id is the ``webhook-id`` of all its attempts."""

    id = PrefixedIdField(prefix="msg", primary_key=True, default=new_message_id, editable=False)
    subscription = models.ForeignKey(Subscription, models.CASCADE, related_name="messages")
    format = models.CharField(max_length=32, choices=Format.choices, default=Format.STANDARD)
    payload = models.CharField(max_length=8, choices=Payload.choices, default=Payload.FULL)
    created_at = models.DateTimeField(default=timezone.now)
    window_from = models.DateTimeField(null=True, blank=True)
    window_to = models.DateTimeField(null=True, blank=True)
    page = models.PositiveIntegerField(default=1)
    pages = models.PositiveIntegerField(default=1)
    count = models.PositiveIntegerField(default=0)
    body_digest = models.CharField(max_length=64, help_text=_("SHA-256 of the body, hex."))
    superseded_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = _("message")
        verbose_name_plural = _("messages")

    def __str__(self) -> str:
        return str(self.pk)


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
)

_TABLE = Delivery._meta.db_table
_EVENT = Event._meta.db_table
# The format in a subquery, not a join: few deliveries have a message, and no plan may read all.
_COLUMNS = (
    "d.id, d.subscription_id, d.attempts, d.due_at, d.first_due_at, d.trigger, e.id, e.type, "  # noqa: S608
    "e.subject, e.requester, e.occurred_at, e.created_at, e.data, d.retries_from, d.message_id, "
    f"(SELECT m.format FROM {Message._meta.db_table} m WHERE m.id = d.message_id)"
)


def _due_delivery(row: Sequence[Any]) -> DueDelivery:
    return DueDelivery(
        id=f"dlv_{_hex(row[0])}",
        subscription_id=f"sub_{_hex(row[1])}",
        attempts=row[2],
        due_at=_moment(row[3]),
        first_due_at=_moment(row[4]),
        trigger=row[5],
        event_id=f"evt_{_hex(row[6])}",
        event_type=row[7],
        subject=row[8],
        requester=row[9],
        occurred_at=_moment(row[10]),
        recorded_at=_moment(row[11]),
        data=row[12],
        retries_from=row[13],
        message_id=None if row[14] is None else f"msg_{_hex(row[14])}",
        format=row[15] or "",
    )


def _schedule_anew() -> dict[str, Any]:
    attempts = Least("attempts", MOST_ATTEMPTS, output_field=models.PositiveSmallIntegerField())
    return {"attempts": attempts, "retries_from": attempts}


def _array(ids: Iterable[str]) -> str:
    """A PostgreSQL array of UUIDs, as one parameter."""
    return f"{{{','.join(each[4:] for each in ids)}}}"


def _hex(value: Any) -> str:
    """A UUID as the driver gave it: an object, hex, or (MariaDB) with hyphens."""
    return value.hex if isinstance(value, uuid.UUID) else str(value).replace("-", "")


def _moment(value: Any) -> datetime:
    """A time as the driver gave it: aware, naive UTC, or (SQLite) ISO text."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    moment: datetime = value
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
