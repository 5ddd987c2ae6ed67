"""Health, as ``webhooks.health`` tells it."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from webhooks.api.serializers.fields import Integer, JsonObject, Moment, Number, Text


class ReasonSerializer(serializers.Serializer[Any]):
    """Why a subscription is as it is."""

    code = Text()
    message = Text()


class LatencySerializer(serializers.Serializer[Any]):
    """Estimated percentiles of the time of one POST."""

    p50 = Integer()
    p95 = Integer()
    p99 = Integer()


class HealthSerializer(serializers.Serializer[Any]):
    """How a subscription's endpoint fares."""

    status = serializers.ChoiceField(
        choices=["healthy", "degraded", "failing", "idle", "pending", "suspended", "unsubscribed"]
    )
    since = Moment(allow_null=True)
    reason = ReasonSerializer(allow_null=True)
    success_rate_24h = Number(allow_null=True, help_text="From 0 to 1; null: no attempts.")
    latency_ms = LatencySerializer(allow_null=True)
    pending = Integer()
    oldest_pending_age_s = Number(allow_null=True)
    retrying = Integer()
    dead_24h = Integer()
    last_success_at = Moment(allow_null=True)
    last_attempt = JsonObject(allow_null=True)
    next_retry_at = Moment(allow_null=True)
    paused_by_backpressure = serializers.BooleanField()
    backlog_expires_at = Moment(
        allow_null=True,
        help_text="When what is pending will expire; null unless it is suspended.",
    )
    retention_days = Integer()

    def to_representation(self, instance: Any) -> Any:
        return instance.as_dict()


class ServiceSerializer(serializers.Serializer[Any]):
    """How the whole service fares; nothing of any tenant."""

    status = Text()
    updated_at = Moment()
    delivery_delay_s = Number(allow_null=True)
    source_ips = serializers.ListField(child=Text())

    def to_representation(self, instance: Any) -> Any:
        return instance
