"""What an action on a subscription takes, and what a rotation answers."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from webhooks.api.serializers.fields import Choice, Id, Integer, Text
from webhooks.api.serializers.strict import StrictSerializer
from webhooks.models.subscription import OnSuspend


class RotatedSecret(serializers.Serializer[Any]):
    """The answer to a rotation: the one time that the new secret is shown."""

    id = Id("sub")
    secret = Text()
    secret_last_four = Text()


class RotateBody(StrictSerializer):
    """How a secret is rotated."""

    secret = Text(
        required=False,
        max_length=128,
        write_only=True,
        help_text="One of your own: whsec_ and base64 of 24 to 64 bytes.",
    )
    overlap_seconds = Integer(
        required=False,
        min_value=0,
        max_value=604_800,
        default=86_400,
        help_text="How long the old secrets go on signing beside the new one.",
    )


class SuspendBody(StrictSerializer):
    """What becomes of new events meanwhile."""

    on_suspend = Choice(
        choices=OnSuspend.choices, required=False, help_text="Without it: as it was set before."
    )


class ResumeBody(StrictSerializer):
    """What becomes of what waits."""

    backlog = Choice(choices=["deliver", "discard"], required=False, default="deliver")
