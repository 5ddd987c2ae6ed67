"""Reading the queue of deliveries: hundreds of lanes in one statement, each to its own limit.

No ORM gives that: it is a LATERAL join on PostgreSQL, a UNION ALL of limited selects elsewhere.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.core.exceptions import EmptyResultSet
from django.db import connections, models
from django.db.models.expressions import RawSQL

from webhooks.models.event import Event
from webhooks.models.parcel import Parcel

if TYPE_CHECKING:
    from webhooks.models.delivery import Delivery


@dataclass(frozen=True, slots=True)
class LanePosition:
    """How far a holder has read in a lane: the last (due_at, id) it took; None: nothing yet."""

    subscription_id: str
    limit: int
    after: tuple[datetime, str] | None = None


@dataclass(slots=True, eq=False)  # thousands a second: a frozen one takes three times as long
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
    #: How long its lane had stood still, in ms, when it was first due.
    clock_stopped_ms: int = 0
    #: The message that it stands for, once that was loaded.
    parcel: Parcel | None = None

    @property
    def webhook_id(self) -> str:
        """The ``webhook-id`` under which it is sent: the message's, or the event's."""
        return self.message_id or self.event_id


#: SQLite takes 500 terms in a compound SELECT.
UNION_TERMS = 400

#: Stands for a subscription's id in a statement that is made once and used for many.
_PLACE = "0" * 32

_BEGINNING = (datetime(1, 1, 1, tzinfo=UTC), "dlv_" + "0" * 32)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_EVENT = Event._meta.db_table


class QueueReader(models.QuerySet["Delivery"]):
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

    def _lateral(self, positions: Sequence[LanePosition], now: datetime) -> tuple[str, list[Any]]:
        table = self.model._meta.db_table
        starts = [position.after or _BEGINNING for position in positions]
        return (
            f"SELECT {self._columns(_as_text, _as_microseconds)} FROM "  # noqa: S608
            "unnest(%s::uuid[], %s::timestamptz[], %s::uuid[], %s::int[]) "
            "AS lane(id, due_at, delivery_id, wanted) CROSS JOIN LATERAL ("
            f"SELECT * FROM {table} WHERE subscription_id = lane.id AND state = 'pending' "
            "AND due_at <= %s AND (due_at, id) > (lane.due_at, lane.delivery_id) "
            f"ORDER BY due_at, id LIMIT lane.wanted) d JOIN {_EVENT} e ON e.id = d.event_id "
            "ORDER BY d.due_at, d.id",
            [
                _array(position.subscription_id for position in positions),
                f"{{{','.join(due_at.isoformat() for due_at, _id in starts)}}}",
                _array(last_id for _due, last_id in starts),
                f"{{{','.join(str(position.limit) for position in positions)}}}",
                now,
            ],
        )

    def _union(
        self, connection: Any, positions: Sequence[LanePosition], now: datetime
    ) -> tuple[str, list[Any]]:
        table = self.model._meta.db_table
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
                f"SELECT * FROM (SELECT * FROM {table} WHERE subscription_id = %s "  # noqa: S608
                f"AND state = 'pending' AND due_at <= %s {condition}"
                "ORDER BY due_at, id LIMIT %s) part"
            )
            params += [*values, position.limit]
        return (
            f"SELECT {self._columns()} FROM ({' UNION ALL '.join(parts)}) d "  # noqa: S608
            f"JOIN {_EVENT} e ON e.id = d.event_id ORDER BY d.due_at, d.id",
            params,
        )

    def _columns(self, id: Callable[[str], str] = str, moment: Callable[[str], str] = str) -> str:
        """The columns of a due delivery; how an id and a time are asked for."""
        return (
            f"{id('d.id')}, {id('d.subscription_id')}, d.attempts, {moment('d.due_at')}, "
            f"{moment('d.first_due_at')}, d.trigger, {id('e.id')}, e.type, e.subject, e.requester, "
            f"{moment('e.occurred_at')}, {moment('e.created_at')}, e.data, d.retries_from, "
            f"{id('d.message_id')}, d.clock_stopped_ms"
        )


def _as_text(column: str) -> str:
    return f"{column}::text"


def _as_microseconds(column: str) -> str:
    """A time as a whole number, for PostgreSQL: the driver's own reading of one takes 5 µs, and
    each delivery has four."""
    return f"(extract(epoch FROM {column}) * 1000000)::bigint"


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
        clock_stopped_ms=row[15],
    )


def _array(ids: Iterable[str]) -> str:
    """A PostgreSQL array of UUIDs, as one parameter."""
    return f"{{{','.join(each[4:] for each in ids)}}}"


def _hex(value: Any) -> str:
    """A UUID as the driver gave it: an object, hex, or (MariaDB) with hyphens."""
    return value.hex if isinstance(value, uuid.UUID) else str(value).replace("-", "")


def _moment(value: Any) -> datetime:
    """A time as the driver gave it: microseconds since 1970, aware, naive UTC, or ISO text."""
    if isinstance(value, int):
        return _EPOCH + timedelta(microseconds=value)
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    moment: datetime = value
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
