"""Subscriptions: make, list, read, change, end. What may be done is judged by the life cycle."""

from __future__ import annotations

from typing import Any

from django.db.models import Prefetch
from django.utils.encoding import escape_uri_path
from rest_framework.request import Request
from rest_framework.response import Response

from webhooks import catalog, entitlement, lifecycle
from webhooks.api.ids import is_id
from webhooks.api.operations import operation
from webhooks.api.pagination import keyset
from webhooks.api.serializers.subscriptions import (
    ChangedSubscription,
    NewSubscription,
    PatchedSubscription,
    SubscriptionQuery,
    SubscriptionSerializer,
)
from webhooks.api.views.base import APIView
from webhooks.models import SigningSecret, Subscription
from webhooks.models.subscription import Status, matches


class SubscriptionsView(APIView):
    """The client's subscriptions."""

    @operation(answer=SubscriptionSerializer, query=SubscriptionQuery, page=True)
    def get(self, request: Request) -> Response:
        """List your subscriptions, the newest first.

        Unsubscribed ones are listed with `status=unsubscribed` alone; each can be read by its id.
        """
        return self.page(
            keyset(
                self._chosen().prefetch_related(_secrets(self.using)),
                "pk",
                lambda text: text if is_id("sub", text) else None,
                descending=True,
            )
        )

    @operation(
        answer=SubscriptionSerializer,
        body=NewSubscription,
        status=201,
        throttle="create",
        secret=True,
    )
    def post(self, request: Request) -> Response:
        """Subscribe to event types.

        The answer shows the signing secret in full, once; later only its last four characters.
        """
        asked = self.body()
        asked.pop("requester", None)
        client = self.client
        subscription, secret = lifecycle.subscribe(
            requester=client.requester,
            application_id=client.application_id,
            user_id=client.user_id,
            scopes=" ".join(sorted(client.scopes)),
            actor=client.requester,
            **asked,
        )
        entitlement.confirm_grant(request.auth)
        response = self.answer(subscription, secret=secret)
        # Each lies right below the list, wherever the host has mounted it.
        where = f"{escape_uri_path(request.path)}{subscription.pk}/"
        response.headers["Location"] = request.build_absolute_uri(where)
        return response

    def _chosen(self) -> Any:
        wanted = self.parameters
        found = self.subscriptions
        if status := wanted.get("status"):
            found = found.filter(status=status)
        else:
            found = found.exclude(status=Status.UNSUBSCRIBED)
        if url := wanted.get("callback_url"):
            found = found.filter(callback_url=url)
        if event_type := wanted.get("event_type"):
            found = found.filter(pk__any=self._covering(found, event_type))
        return found

    def _covering(self, rows: Any, event_type: str) -> list[str]:
        """The ids of those that cover a type, or name a pattern."""
        known = {entry.name for entry in catalog.visible(self.client.scopes)}
        # Patterns are matched here: databases differ in what they can ask of a JSON list, and one
        # requester has few subscriptions.
        return [
            pk
            for pk, patterns in rows.values_list("pk", "event_types")
            if event_type in patterns or (event_type in known and matches(patterns, event_type))
        ]


class SubscriptionView(APIView):
    """One subscription."""

    @operation(answer=SubscriptionSerializer)
    def get(self, request: Request, id: str) -> Response:
        """Read a subscription, an unsubscribed one too."""
        return self.answer(self.subscription(id))

    @operation(answer=SubscriptionSerializer, body=ChangedSubscription, problems=(409,))
    def put(self, request: Request, id: str) -> Response:
        """Set all options of a subscription.

        Those that are left out become what they are for a new subscription, headers and basic_auth
        included; `status` and `handshake` stay.
        """
        return self._change(id)

    @operation(answer=SubscriptionSerializer, body=PatchedSubscription, problems=(409,))
    def patch(self, request: Request, id: str) -> Response:
        """Change some options of a subscription, or its status."""
        return self._change(id)

    @operation(status=204)
    def delete(self, request: Request, id: str) -> Response:
        """Unsubscribe. What still waits is cancelled; a second time is 204 as well."""
        subscription = self.subscription(id)
        move(subscription, Status.UNSUBSCRIBED, actor=self.client.requester)
        return Response(status=204)

    def _change(self, id: str) -> Response:
        subscription = self.subscription(id)
        changes = self.body()
        changes.pop("requester", None)
        status = changes.pop("status", None)
        if changes:
            self.changeable(id)
        if "event_types" in changes:
            self.changeable(id, changes["event_types"])
        lifecycle.update_and_move(
            subscription,
            status,
            reason="client",
            actor=self.client.requester,
            scopes=self.client.scopes,
            **changes,
        )
        entitlement.confirm_grant(self.request.auth)
        return self.answer(self.subscription(subscription.pk))


def move(subscription: Subscription, status: str, *, actor: str) -> None:
    """Move a subscription as its owner asks; where it is there already, nothing happens."""
    lifecycle.change_status(subscription, status, reason="client", actor=actor)


def _secrets(using: str) -> Prefetch[Any]:
    """The secrets of a whole page, without what is secret of them."""
    return Prefetch("secrets", SigningSecret.objects.using(using).defer("value"))
