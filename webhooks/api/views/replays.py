"""Replays: events of the past, delivered again to one subscription by a worker."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from webhooks import catalog, redelivery
from webhooks.api.ids import is_id
from webhooks.api.operations import operation
from webhooks.api.pagination import keyset
from webhooks.api.serializers.deliveries import (
    ReplayBody,
    ReplayCount,
    ReplayQuery,
    ReplaySerializer,
)
from webhooks.api.serializers.strict import NoBody
from webhooks.api.views.base import APIView
from webhooks.clock import db_now
from webhooks.exceptions import CatalogError
from webhooks.models import Replay
from webhooks.redelivery import ReplayRequest


class ReplayView(APIView):
    """Asking for a replay."""

    @operation(
        answer=ReplaySerializer,
        body=ReplayBody,
        status=202,
        throttle="replay",
        also=((200, ReplayCount),),
        problems=(409,),
    )
    def post(self, request: Request, id: str) -> Response:
        """Deliver again what was recorded within a time.

        Each comes under the webhook-id that it had, since it is the same message. With `dry_run`
        the answer is the count, and nothing is sent.
        """
        subscription = self.changeable(id)
        asked = self.body()
        wanted = self._wanted(asked)
        if asked["dry_run"]:
            return Response(ReplayCount({"count": redelivery.count(subscription, wanted)}).data)
        replay = redelivery.replay(subscription, wanted, actor=self.client.requester)
        return self.answer(replay)

    def _wanted(self, asked: dict[str, Any]) -> ReplayRequest:
        chosen: dict[str, Any] = {}
        if types := asked.get("types"):
            try:
                catalog.check_patterns(types, self.client.scopes)
            except CatalogError as error:
                raise ValidationError({"types": str(error)}) from None
            chosen["types"] = types
        if asked["only_missing"]:
            chosen["states"] = ["missing"]
        elif "states" in asked:
            chosen["states"] = asked["states"]
        end = asked.get("to") or db_now(self.using)
        try:
            return ReplayRequest(start=asked["from"], end=end, **chosen)
        except ValidationError as error:
            names = {"start": "from", "end": "to"}
            told = {names.get(name, name): each for name, each in error.message_dict.items()}
            raise ValidationError(told) from None


class _OfSubscription(APIView):
    def replays(self, id: str) -> Any:
        subscription = self.subscription(id)
        return Replay.objects.using(self.using).filter(subscription=subscription)


class ReplaysView(_OfSubscription):
    """The replays of a subscription."""

    @operation(answer=ReplaySerializer, query=ReplayQuery, page=True)
    def get(self, request: Request, id: str) -> Response:
        """List the replays of a subscription, the newest first."""
        return self.page(
            keyset(
                self.replays(id),
                "pk",
                lambda text: text if is_id("rpl", text) else None,
                descending=True,
            )
        )


class ReplayDetailView(_OfSubscription):
    """One replay."""

    @operation(answer=ReplaySerializer)
    def get(self, request: Request, id: str, replay_id: str) -> Response:
        """Read how far a replay has come."""
        return self.answer(self.one(self.replays(id), "rpl", replay_id))


class CancelReplayView(_OfSubscription):
    """The end of a replay."""

    @operation(answer=ReplaySerializer, body=NoBody)
    def post(self, request: Request, id: str, replay_id: str) -> Response:
        """Stop a replay. What it has put into the queue is delivered all the same."""
        replay: Replay = self.one(self.replays(id), "rpl", replay_id)
        self.body()
        redelivery.cancel(replay)
        replay.refresh_from_db()
        return self.answer(replay)
