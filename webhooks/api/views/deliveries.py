"""Deliveries and their attempts: where an event is on its way to one of the client's endpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.models import Q
from rest_framework.request import Request
from rest_framework.response import Response

from webhooks import redelivery
from webhooks.api.ids import is_id
from webhooks.api.operations import operation
from webhooks.api.pagination import Cursor, Source, keyset
from webhooks.api.serializers.deliveries import (
    AttemptSerializer,
    DeliveryQuery,
    DeliverySerializer,
    RedeliverBody,
)
from webhooks.api.serializers.strict import PageQuery
from webhooks.api.views.base import APIView
from webhooks.models import Delivery, DeliveryAttempt
from webhooks.models.fields import first_id_of


class DeliveriesView(APIView):
    """Deliveries to all of the client's subscriptions."""

    @operation(answer=DeliverySerializer, query=DeliveryQuery, page=True)
    def get(self, request: Request) -> Response:
        """List deliveries, the newest first."""
        chosen = self._chosen()
        subscriptions = self.subscriptions
        if "subscription" in self.parameters:
            subscriptions = subscriptions.filter(pk=self.parameters["subscription"])
        ids = list(subscriptions.order_by().values_list("pk", flat=True))

        def read(cursor: Cursor | None, limit: int) -> Sequence[Delivery]:
            rows = self.visible_deliveries.filter(chosen)
            backwards = False
            if cursor is not None:
                backwards = cursor.backwards
                side = "gt" if backwards else "lt"
                rows = rows.filter(**{f"pk__{side}": cursor.key})
            found: list[Delivery] = rows.newest_of(ids, limit, oldest_first=backwards)
            return found

        return self.page(
            Source(read, lambda row: row.pk, lambda text: text if is_id("dlv", text) else None)
        )

    def _chosen(self) -> Q:
        wanted = self.parameters
        chosen = Q()
        for name, field in (
            ("state", "state"),
            ("event", "event_id"),
            ("type", "event__type"),
            ("subject", "event__subject"),
        ):
            if name in wanted:
                chosen &= Q(**{field: wanted[name]})
        # Ids sort as the times at which they were made.
        if "after" in wanted:
            chosen &= Q(pk__gte=first_id_of(wanted["after"], "dlv"))
        if "before" in wanted:
            chosen &= Q(pk__lt=first_id_of(wanted["before"], "dlv"))
        return chosen


class DeliveryView(APIView):
    """One delivery."""

    @operation(answer=DeliverySerializer)
    def get(self, request: Request, id: str) -> Response:
        """Read a delivery: how far it is, why it ended, when it is tried next."""
        return self.answer(self.one(self.deliveries, "dlv", id))


class AttemptsView(APIView):
    """The attempts at one delivery."""

    @operation(answer=AttemptSerializer, query=PageQuery, page=True)
    def get(self, request: Request, id: str) -> Response:
        """List the attempts at a delivery, the first one first."""
        delivery = self.one(self.deliveries, "dlv", id)
        return self.page(
            keyset(
                DeliveryAttempt.objects.using(self.using).of(delivery),
                "pk",
                lambda text: text if is_id("att", text) else None,
                descending=False,
            )
        )


class RedeliverView(APIView):
    """Sending a delivery again."""

    @operation(
        answer=DeliverySerializer,
        body=RedeliverBody,
        status=202,
        throttle="replay",
        problems=(409,),
    )
    def post(self, request: Request, id: str) -> Response:
        """Send a delivery again, soon.

        It comes under the same webhook-id, since it is the same message; a receiver that drops
        repeats needs `new_id`.
        """
        delivery: Any = self.one(self.deliveries, "dlv", id)
        sent = redelivery.redeliver(delivery, actor=self.client.requester, **self.body())
        return self.answer(self.one(self.deliveries, "dlv", sent.pk))
