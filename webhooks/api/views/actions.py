"""What is done to one subscription beyond changing it: each is a POST to a path of its own."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from webhooks import entitlement, health, lifecycle, probing
from webhooks.api.operations import operation
from webhooks.api.serializers.actions import (
    ResumeBody,
    RotateBody,
    RotatedSecret,
    SuspendBody,
)
from webhooks.api.serializers.deliveries import PingSerializer
from webhooks.api.serializers.service import HealthSerializer
from webhooks.api.serializers.strict import NoBody
from webhooks.api.serializers.subscriptions import SubscriptionSerializer
from webhooks.api.views.base import APIView


class PingView(APIView):
    """A test of the endpoint."""

    @operation(answer=PingSerializer, body=NoBody, throttle="ping", problems=(409,))
    def post(self, request: Request, id: str) -> Response:
        """Send one signed POST of the type `webhooks.ping` now, and tell how it went.

        The answer is 200 whatever the endpoint said; look at `delivered`.
        """
        subscription = self.subscription(id)
        self.body()
        return self.answer(probing.ping(subscription, actor=self.client.requester))


class SuspendView(APIView):
    """A pause that the client asks for."""

    @operation(answer=SubscriptionSerializer, body=SuspendBody)
    def post(self, request: Request, id: str) -> Response:
        """Send nothing until the subscription is resumed. New events are kept, or discarded."""
        subscription = self.subscription(id)
        lifecycle.suspend(subscription, actor=self.client.requester, **self.body())
        return self.answer(self.subscription(id))


class ResumeView(APIView):
    """The end of a pause."""

    @operation(answer=SubscriptionSerializer, body=ResumeBody, problems=(409,))
    def post(self, request: Request, id: str) -> Response:
        """Send again. What has waited is delivered, or discarded."""
        subscription = self.subscription(id)
        client = self.client
        lifecycle.resume(subscription, actor=client.requester, scopes=client.scopes, **self.body())
        entitlement.confirm_grant(request.auth)
        return self.answer(self.subscription(id))


class RotateSecretView(APIView):
    """A new signing secret."""

    @operation(answer=RotatedSecret, body=RotateBody, throttle="rotate", secret=True)
    def post(self, request: Request, id: str) -> Response:
        """Make a new signing secret, shown once.

        The old ones sign beside it until the overlap has passed; at most three are live.
        """
        subscription = self.changeable(id)
        asked = self.body()
        secret = lifecycle.rotate_secret(
            subscription,
            secret=asked.get("secret"),
            overlap=timedelta(seconds=asked["overlap_seconds"]),
        )
        shown: dict[str, Any] = {"id": id, "secret": secret, "secret_last_four": secret[-4:]}
        return self.answer(shown)


class HealthView(APIView):
    """How the endpoint fares."""

    @operation(answer=HealthSerializer)
    def get(self, request: Request, id: str) -> Response:
        """Tell how the endpoint fares, since when and why, and what waits for it."""
        return self.answer(health.of_subscription(self.subscription(id)))
