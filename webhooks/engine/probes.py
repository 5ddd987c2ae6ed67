"""Probes: an endpoint that was suspended for failing is asked once a day whether it answers again.

What is sent is a ping, not what waits for the endpoint: it changes no delivery, whatever becomes of
it. A 2xx resumes the subscription, and its backlog goes out. Only the service's own suspension ends
like that; whoever else suspends a subscription makes that theirs (:func:`lifecycle.suspend`).
``Lane.probe_at`` is the trial's column (:mod:`trials`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from webhooks.conf import settings
from webhooks.engine.outcome import Verdict
from webhooks.engine.trials import Claimed, Judged, Kind, Try
from webhooks.lifecycle import change_status, next_probe
from webhooks.models import DeliveryAttempt, Lane, SigningSecret, Subscription
from webhooks.models.lane import LaneQuerySet
from webhooks.models.subscription import BY_PROBE, FOR_FAILING, Status
from webhooks.probing import ping_request, signing_keys
from webhooks.transports.base import Request


class Probes(Kind):
    """The probes of subscriptions that the service suspended for failing."""

    column = "probe_at"
    waits_for_keys = False

    def waiting(self, using: str, by: datetime | None = None) -> LaneQuerySet:
        lanes = Lane.objects.using(using)
        return lanes.none() if settings.PROBE_SECONDS is None else lanes.to_probe(by)

    def concerns(self, subscription: Subscription, begun: Try) -> bool:
        suspended = subscription.status == Status.SUSPENDED
        return suspended and subscription.status_reason == FOR_FAILING

    def begin(self, claimed: Claimed) -> Try:
        return Try(**claimed.facts, number=1, trigger=DeliveryAttempt.Trigger.PROBE)

    def request(
        self, begun: Try, subscription: Subscription, live: Sequence[SigningSecret]
    ) -> Request:
        return ping_request(subscription, signing_keys(live), begun.message_id, begun.started_at)

    def passed(self, subscription: Subscription, lane: Lane, judged: Judged) -> None:
        lane.last_success_at = judged.answered_at
        lane.save(using=settings.database, update_fields=["last_success_at"])
        change_status(subscription, Status.SUBSCRIBED, reason=BY_PROBE)

    def failed(self, subscription: Subscription, lane: Lane, judged: Judged) -> None:
        if judged.outcome.verdict is Verdict.GONE:
            change_status(subscription, Status.UNSUBSCRIBED, reason="gone")
            return
        lane.last_failure_at = judged.answered_at
        lane.probe_at = next_probe(judged.answered_at)
        lane.save(using=settings.database, update_fields=["last_failure_at", "probe_at"])
