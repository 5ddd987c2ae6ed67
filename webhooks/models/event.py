"""``Event``: the outbox and the log. A row here is the promise that an event will be delivered."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Self

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from webhooks.formats import EventRecord
from webhooks.models.bulk import insert_rows, update_rows
from webhooks.models.fields import PrefixedIdField, new_event_id

#: The columns that emission fills; the others are fan-out's.
RECORDED = (
    "id",
    "type",
    "requester",
    "subject",
    "data",
    "occurred_at",
    "created_at",
    "idempotency_key",
    "fan_out_after",
)


class EventQuerySet(models.QuerySet["Event"]):
    def undispatched(self) -> Self:
        """Events whose fan-out is not complete."""
        return self.filter(fanned_out_at__isnull=True)

    def some_wait(self) -> bool:
        """Whether there are any. In an order, so that the planner walks the partial index: it read
        the whole table where it had last counted rows while the outbox was full."""
        return bool(self.undispatched().order_by("seq", "pk").values_list("pk")[:1])

    def next_to_fan_out(self, limit: int) -> list[Event]:
        """The next events in order: one that a fan-out began comes first, then by id.

        Two statements, because databases disagree on where NULL sorts; both walk the partial
        index, however long the outbox is.
        """
        undispatched = self.undispatched().defer("data")  # payloads may be large, and nobody asks
        begun = list(undispatched.filter(seq__isnull=False).order_by("seq")[:limit])
        rest = undispatched.filter(seq__isnull=True).order_by("pk")[: limit - len(begun)]
        return begun + list(rest)

    def record(self, events: Sequence[Event]) -> None:
        """Insert new events, all in one statement. ``bulk_create`` takes four times as long."""
        insert_rows(
            self.db, Event, RECORDED, [tuple(getattr(e, n) for n in RECORDED) for e in events]
        )
        for event in events:
            event._state.adding = False
            event._state.db = self.db

    def mark_dispatched(self, events: Sequence[Event]) -> None:
        """Write ``seq``, ``fanned_out_at`` and ``fan_out_after`` of these events."""
        columns = ("seq", "fanned_out_at", "fan_out_after")
        rows = [(event.pk, *(getattr(event, name) for name in columns)) for event in events]
        update_rows(self.db, Event, columns, rows)


class Event(models.Model):
    """One thing that happened, frozen as it was when the host project said so."""

    id = PrefixedIdField(prefix="evt", primary_key=True, default=new_event_id, editable=False)
    type = models.CharField(_("type"), max_length=128)
    requester = models.CharField(
        _("requester"),
        max_length=255,
        blank=True,
        default="",
        help_text=_("Whose subscriptions get it; empty: everyone's."),
    )
    subject = models.CharField(_("subject"), max_length=255, blank=True, default="")
    data = models.TextField(_("data"), help_text=_("JSON text, frozen at emission."))
    occurred_at = models.DateTimeField(_("occurred at"), default=timezone.now)
    created_at = models.DateTimeField(_("recorded at"), default=timezone.now)
    idempotency_key = models.CharField(  # noqa: DJ001  (NULL: no key; NULLs never collide)
        _("idempotency key"), max_length=255, null=True, blank=True, default=None
    )
    seq = models.BigIntegerField(
        _("sequence"),
        null=True,
        editable=False,
        help_text=_("Place in the order of fan-out; ids precede commits, this never does."),
    )
    fanned_out_at = models.DateTimeField(_("fanned out at"), null=True, editable=False)
    fan_out_after = models.CharField(
        max_length=36,
        blank=True,
        default="",
        editable=False,
        help_text=_("The last subscription that a large, unfinished fan-out reached."),
    )

    objects = EventQuerySet.as_manager()

    class Meta:
        verbose_name = _("event")
        verbose_name_plural = _("events")
        permissions = [("view_payload", "Can see payloads")]
        constraints = [
            # NULL keys never collide, on any database.
            models.UniqueConstraint(
                fields=["requester", "type", "idempotency_key"], name="webhooks_event_once"
            ),
        ]
        indexes = [
            models.Index(
                fields=["seq", "id"],
                condition=models.Q(fanned_out_at__isnull=True),
                name="webhooks_event_outbox",
            ),
            models.Index(fields=["seq"], name="webhooks_event_seq"),
            models.Index(fields=["requester", "seq"], name="webhooks_event_feed"),
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.pk}"

    def as_record(self) -> EventRecord:
        """As the formats take it."""
        return EventRecord(
            id=self.pk,
            type=self.type,
            occurred_at=self.occurred_at,
            data=self.data,
            subject=self.subject,
            requester=self.requester,
        )

    @property
    def payload(self) -> Any:
        """The data as Python values."""
        return json.loads(self.data)
