"""Events: look one up to verify what came, or read the feed of what was missed.

A client sees those that are addressed to its requester or to everyone, but for the types that its
scopes hide.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import merge
from itertools import islice
from typing import Any

from django.db.models import Q
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from webhooks.api.operations import operation
from webhooks.api.pagination import Cursor, Source, beyond
from webhooks.api.serializers.events import EventDetail, EventQuery, EventSerializer
from webhooks.api.views.base import APIView
from webhooks.models import Delivery, Event
from webhooks.models.fields import first_id_of

#: A database's largest BigInteger; no seq is beyond it.
MAX_SEQ = 2**63 - 1


class _Visible(APIView):
    @property
    def events(self) -> Any:
        return Event.objects.using(self.using).exclude(type__in=self.hidden_types)

    @property
    def own(self) -> Any:
        """Those that the client may see."""
        return self.events.filter(requester__in=[self.client.requester, ""])


class EventsView(_Visible):
    """The feed."""

    @operation(answer=EventSerializer, query=EventQuery, page=True)
    def get(self, request: Request) -> Response:
        """List events without their data, the newest first.

        With `since` it is the feed of what was missed: all that was fanned out after that event,
        in this order, oldest first. An event appears here once it has been fanned out.
        """
        wanted = self.parameters
        rows = self.events.defer("data").filter(self._chosen(), seq__isnull=False)
        descending = "since" not in wanted
        if not descending:
            rows = rows.filter(seq__gt=self._seq_of(wanted["since"]))

        def read(cursor: Cursor | None, limit: int) -> Sequence[Event]:
            # One read for each addressee, so that each walks the index (requester, seq).
            down = descending if cursor is None else descending != cursor.backwards
            parts = [
                beyond(rows.filter(requester=whom), "seq", cursor, descending=descending)[:limit]
                for whom in {self.client.requester, ""}
            ]
            return list(islice(merge(*parts, key=lambda row: row.seq, reverse=down), limit))

        return self.page(Source(read, lambda row: row.seq, _seq))

    def _chosen(self) -> Q:
        wanted = self.parameters
        chosen = Q()
        for name in ("type", "subject"):
            if name in wanted:
                chosen &= Q(**{name: wanted[name]})
        # Ids sort as the times at which they were made.
        if "after" in wanted:
            chosen &= Q(pk__gte=first_id_of(wanted["after"], "evt"))
        if "before" in wanted:
            chosen &= Q(pk__lt=first_id_of(wanted["before"], "evt"))
        return chosen

    def _seq_of(self, id: str) -> int:
        """Where in the feed an event stands. Raises ValidationError for what is not there."""
        seq = self.own.filter(pk=id).values_list("seq", flat=True).first()
        if seq is None:
            raise ValidationError({"since": ["There is no such event in the feed."]})
        found: int = seq
        return found


def _seq(text: str) -> int | None:
    if not (text.isascii() and text.isdigit()) or len(text) > 19 or int(text) > MAX_SEQ:
        return None
    return int(text)


class EventView(_Visible):
    """One event."""

    @operation(answer=EventDetail)
    def get(self, request: Request, id: str) -> Response:
        """Read an event: what was sent under its id, and what became of it.

        To verify what came in, compare it with this: `id`, `type`, `timestamp` and `data` are as
        they were delivered.
        """
        event = self.one(self.own, "evt", id)
        deliveries = Delivery.objects.using(self.using).filter(
            event=event, subscription__in=self.subscriptions
        )
        rows = deliveries.only("pk", "subscription_id", "state").order_by("pk")
        return self.answer(event, deliveries=list(rows))
