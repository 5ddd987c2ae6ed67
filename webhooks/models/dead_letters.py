"""Dead letters: deliveries that were given up, by whom they were for and why.

All of it is read along one partial index, (subscription, reason, end, id) of the dead ones: the
groups that there are by leaping from one to the next, a group's rows by their key, counts up to a
limit. So a million of them cost what a thousand do.

``DeadLetterRun`` is what a person asked to be done with all that match, and how far that has come.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Self

from django.db import connections, models
from django.db.models.lookups import (
    GreaterThan,
    GreaterThanOrEqual,
    LessThan,
    LessThanOrEqual,
)
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from webhooks.models.background import RunQuerySet, RunState
from webhooks.models.delivery import Delivery, DeliveryQuerySet, State
from webhooks.models.fields import PrefixedIdField, new_dead_letter_run_id
from webhooks.models.subscription import Subscription

#: The order of the index.
KEY = ("subscription_id", "reason", "settled_at", "pk")


@dataclass(frozen=True, slots=True)
class Matching:
    """Which dead letters are meant.

    subscription_id: "" for all. reason: None for all. types: event types; none: all. start, end:
    given up from ``start`` on and before ``end``; None: whenever.
    """

    subscription_id: str = ""
    reason: str | None = None
    types: tuple[str, ...] = ()
    start: datetime | None = None
    end: datetime | None = None

    @property
    def key(self) -> tuple[str, ...]:
        """The rest of the index's key, behind what is the same for all that match.

        Asked for the whole key, SQLite would sort what the index has in order.
        """
        if not self.subscription_id:
            return KEY
        return KEY[1:] if self.reason is None else KEY[2:]


class _Row(models.Func):
    """``(a, b, c)``, to be compared as a whole; so compared, the index is read from there on."""

    template = "(%(expressions)s)"
    output_field = models.BooleanField()  # a row has no type, and an expression must have one


@dataclass(frozen=True, slots=True)
class Place:
    """Where one stands in the order of the index: at this dead letter."""

    subscription_id: str
    reason: str
    settled_at: datetime
    pk: str

    def row(self, key: Sequence[str]) -> _Row:
        """These columns of it, to be compared with a row's."""
        fields: dict[str, Any] = {
            "subscription_id": Subscription._meta.pk,
            "pk": Delivery._meta.pk,
            **{name: Delivery._meta.get_field(name) for name in ("reason", "settled_at")},
        }
        values = [models.Value(getattr(self, name), output_field=fields[name]) for name in key]
        return _Row(*values)

    def as_list(self) -> list[str]:
        return [self.subscription_id, self.reason, self.settled_at.isoformat(), self.pk]

    @classmethod
    def of(cls, values: Sequence[Any]) -> Place:
        """The place of a row (the values of ``KEY``, and perhaps more), or of :meth:`as_list`.

        Raises ValueError and TypeError for what is none.
        """
        whose, reason, at, pk = values[:4]
        moment = at if isinstance(at, datetime) else datetime.fromisoformat(at)
        if timezone.is_naive(moment):
            raise ValueError("A time without its zone.")
        return cls(whose, reason, moment, pk)


@dataclass(frozen=True, slots=True)
class Group:
    """The dead letters of one subscription that were given up for one reason.

    count: of the period that was asked for, up to the limit that was given. oldest_at, newest_at:
    when the first and the last of them all were given up.
    """

    subscription: Subscription
    reason: str
    count: int
    oldest_at: datetime
    newest_at: datetime


class _CountOf(models.Subquery):
    """How many rows a subquery, which may have a limit, finds."""

    template = "(SELECT COUNT(*) FROM (%(subquery)s) AS counted)"
    output_field = models.IntegerField()


class DeadLetterQuerySet(DeliveryQuerySet):
    def matching(self, which: Matching) -> Self:
        """Those that are meant, of all types: a type is in the event, and not in the index."""
        found = self
        if which.subscription_id:
            found = found.filter(subscription_id=which.subscription_id)
        if which.reason is not None:
            found = found.filter(reason=which.reason)
        if which.start is not None:
            found = found.filter(settled_at__gte=which.start)
        if which.end is not None:
            found = found.filter(settled_at__lt=which.end)
        return found

    def in_order(self, which: Matching, *, newest_first: bool = False) -> Self:
        return self.order_by(*(f"-{name}" if newest_first else name for name in which.key))

    def after(self, place: Place | None, which: Matching) -> Self:
        return self._beyond(GreaterThan, place, which)

    def before(self, place: Place | None, which: Matching) -> Self:
        return self._beyond(LessThan, place, which)

    def upto(self, place: Place | None, which: Matching) -> Self:
        return self._beyond(LessThanOrEqual, place, which)

    def _beyond(self, lookup: Any, place: Place | None, which: Matching) -> Self:
        if place is None:
            return self
        return self.filter(lookup(_Row(*which.key), place.row(which.key)))

    def reach(self, which: Matching, after: Place | None, limit: int) -> Place | None:
        """The place of the last of the next ``limit`` that match; None: there are not so many."""
        found = self.matching(which).after(after, which).in_order(which)
        rows = found.values_list(*KEY)[limit - 1 : limit]
        return next((Place.of(row) for row in rows), None)

    def newest(
        self, which: Matching, *, before: Place | None, limit: int, looked_through: int
    ) -> tuple[list[DeadLetter], Place | None]:
        """The newest of one group, or those before a place, with their events but for the payload;
        and where to go on, None at the end. Two statements.

        which: a subscription and a reason, and perhaps more. looked_through: rows at most, of which
        only some may be of the types that are meant.
        """
        found = self.matching(which).before(before, which).in_order(which, newest_first=True)
        last = found.values_list(*KEY)[looked_through - 1 : looked_through]
        end = next((Place.of(row) for row in last), None)
        if end is not None:
            found = found._beyond(GreaterThanOrEqual, end, which)
        if which.types:
            found = found.filter(event__type__in=which.types)
        rows: list[Any] = list(found.select_related("event").defer("event__data")[: limit + 1])
        if len(rows) > limit:
            return rows[:limit], rows[limit - 1].place
        return rows, end

    def groups(
        self, which: Matching, *, after: tuple[str, str] | None, limit: int, leaps: int, most: int
    ) -> tuple[list[Group], tuple[str, str] | None]:
        """Up to ``limit`` groups in the order of the index, and where to go on: the last group
        that was looked at, None where it was the last of all. Three statements, four at most.

        after: a subscription's id and a reason. leaps: groups that are looked at, at most, whether
        they are meant or not. most: each is counted up to here; event types are not looked at.
        """
        ids = self._one_of_groups(which.subscription_id, after, leaps)
        own = DeadLetter.objects.using(self.db).filter(
            subscription_id=models.OuterRef("subscription_id"), reason=models.OuterRef("reason")
        )
        meant = own.matching(Matching(start=which.start, end=which.end))
        found = self.filter(pk__any=ids).order_by(*KEY)
        if which.reason is not None:
            found = found.filter(reason=which.reason)
        if which.start is not None or which.end is not None:
            found = found.filter(models.Exists(meant))
        rows = list(found.only(*KEY)[: limit + 1])
        more: tuple[str, str] | None = None
        if len(rows) > limit:
            rows = rows[:limit]
            more = (rows[-1].subscription_id, rows[-1].reason)
        elif len(ids) == leaps:
            more = self.filter(pk=ids[-1]).values_list("subscription_id", "reason").first()
        counted = (
            self.filter(pk__any=[row.pk for row in rows])
            .order_by(*KEY)
            .select_related("subscription")
            .defer("subscription__headers", "subscription__basic_auth")
            .annotate(
                waiting=self._counted(meant, most),
                oldest_at=models.Subquery(own.order_by("settled_at").values("settled_at")[:1]),
                newest_at=models.Subquery(own.order_by("-settled_at").values("settled_at")[:1]),
            )
        )
        groups = [
            Group(row.subscription, row.reason, row.waiting, row.oldest_at, row.newest_at)
            for row in counted
        ]
        return groups, more

    def _counted(self, rows: Any, most: int) -> Any:
        if connections[self.db].vendor == "mysql":
            # It knows no outer columns two levels down, and so no limit.
            counts = rows.order_by().values("reason").annotate(n=models.Count("pk"))
            return models.functions.Coalesce(models.Subquery(counts.values("n")), 0)
        return _CountOf(rows.order_by().values("reason")[:most])

    def _one_of_groups(
        self, subscription_id: str, after: tuple[str, str] | None, limit: int
    ) -> list[str]:
        """The id of one of each group, in the order of the index.

        A leap is one look into the index. No ORM gives that: it is a recursive statement.
        """
        connection = connections[self.db]
        if connection.vendor == "mysql":
            return self._one_of_groups_slowly(subscription_id, after, limit)
        pk: Any = Delivery._meta.get_field("id")
        owner: Any = Subscription._meta.pk
        begin, params = "", []
        own, own_params = "", []
        if subscription_id:
            own = " AND n.subscription_id = %s"
            own_params = [owner.get_db_prep_value(subscription_id, connection)]
        if after is not None:
            begin = " AND (n.subscription_id, n.reason) > (%s, %s)"
            params = [owner.get_db_prep_value(after[0], connection), after[1]]
        table = connection.ops.quote_name(Delivery._meta.db_table)
        dead = f"SELECT n.id FROM {table} n WHERE n.state = 'dead'{own}"  # noqa: S608
        order = "ORDER BY n.subscription_id, n.reason, n.settled_at, n.id LIMIT 1"
        same = f"{dead} AND n.subscription_id = d.subscription_id AND n.reason > d.reason {order}"
        other = f"{dead} AND n.subscription_id > d.subscription_id {order}"
        sql = (
            f"WITH RECURSIVE leap(id, place) AS (SELECT ({dead}{begin} {order}), 1 "  # noqa: S608
            f"UNION ALL SELECT COALESCE(({same}), ({other})), leap.place + 1 "
            f"FROM leap JOIN {table} d ON d.id = leap.id WHERE leap.place < %s) "
            "SELECT id FROM leap WHERE id IS NOT NULL ORDER BY place"
        )
        with connection.cursor() as cursor:
            cursor.execute(sql, [*own_params, *params, *own_params, *own_params, limit])
            return [pk.to_python(uuid.UUID(str(row[0]))) for row in cursor.fetchall()]

    def _one_of_groups_slowly(
        self, subscription_id: str, after: tuple[str, str] | None, limit: int
    ) -> list[str]:
        found = self.matching(Matching(subscription_id))
        if after is not None:
            own = models.Q(subscription_id=after[0], reason__gt=after[1])
            found = found.filter(own | models.Q(subscription_id__gt=after[0]))
        grouped = found.values("subscription_id", "reason").annotate(one=models.Min("pk"))
        rows = grouped.order_by("subscription_id", "reason").values_list("one", flat=True)
        return list(rows[:limit])


class DeadLetterManager(models.Manager.from_queryset(DeadLetterQuerySet)):  # type: ignore[misc]
    def get_queryset(self) -> Any:
        return super().get_queryset().filter(state=State.DEAD)


class DeadLetter(Delivery):
    """A delivery that was given up, and waits for somebody to see to it."""

    objects: ClassVar[Any] = DeadLetterManager()

    class Meta:
        proxy = True
        managed = False
        default_permissions = ("view",)
        permissions = [("discard_deadletter", "Can discard dead letters")]
        verbose_name = _("dead letter")
        verbose_name_plural = _("dead letters")

    @property
    def place(self) -> Place:
        assert self.settled_at is not None, "what is dead has ended"
        return Place(self.subscription_id, self.reason, self.settled_at, self.pk)


class DeadLetterRunQuerySet(RunQuerySet["DeadLetterRun"]):
    """Runs over dead letters: work in the background like any other."""


class DeadLetterRun(models.Model):
    """One request to retry, or to discard, all dead letters that match."""

    class Action(models.TextChoices):
        RETRY = "retry", _("retry")
        DISCARD = "discard", _("discard")

    State = RunState

    id = PrefixedIdField(
        prefix="dlr", primary_key=True, default=new_dead_letter_run_id, editable=False
    )
    action = models.CharField(_("action"), max_length=8, choices=Action.choices)
    subscription = models.ForeignKey(
        Subscription,
        models.CASCADE,
        null=True,
        blank=True,
        related_name="+",
        help_text=_("None: all."),
    )
    reason = models.CharField(  # noqa: DJ001 (empty is a reason as well)
        _("reason"), max_length=64, null=True, blank=True, help_text=_("None: any.")
    )
    types = models.JSONField(
        _("event types"), default=list, blank=True, help_text=_("None: all of them.")
    )
    from_at = models.DateTimeField(_("given up from"), null=True, blank=True)
    to_at = models.DateTimeField(_("given up before"), null=True, blank=True)
    actor = models.CharField(_("asked for by"), max_length=255, blank=True, default="")
    note = models.CharField(_("why"), max_length=255, blank=True, default="")
    state = models.CharField(
        _("state"), max_length=16, choices=State.choices, default=State.RUNNING
    )
    total = models.PositiveBigIntegerField(
        _("to look at"), default=0, help_text=_("Those that match, whatever their event types.")
    )
    done = models.PositiveBigIntegerField(_("looked at"), default=0)
    changed = models.PositiveBigIntegerField(
        _("retried or discarded"), default=0, help_text=_("The others were passed over.")
    )
    after = models.JSONField(default=list, blank=True, editable=False)
    created_at = models.DateTimeField(_("asked for at"), default=timezone.now, editable=False)
    finished_at = models.DateTimeField(_("ended at"), null=True, blank=True)

    objects = DeadLetterRunQuerySet.as_manager()

    class Meta:
        verbose_name = _("run over dead letters")
        verbose_name_plural = _("runs over dead letters")
        indexes = [
            models.Index(
                fields=["id"],
                condition=models.Q(state="running"),
                name="webhooks_dead_run_running",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.pk} ({self.get_state_display()})"

    @property
    def matching(self) -> Matching:
        """What it is about."""
        return Matching(
            self.subscription_id or "", self.reason, tuple(self.types), self.from_at, self.to_at
        )

    @property
    def place(self) -> Place | None:
        """The last dead letter that was looked at; None: none yet."""
        return Place.of(self.after) if self.after else None
