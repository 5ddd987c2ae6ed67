"""Handshakes: an endpoint proves that it wants what it will be sent, before anything else is sent.

``x-hook-secret`` (REST Hooks): a signed ping carries a random ``X-Hook-Secret``, and a 2xx that
echoes it confirms. ``cloudevents`` (CloudEvents HTTP webhook binding, section 4): an ``OPTIONS``
request asks for consent, which the answer gives by ``WebHook-Allowed-Origin``, never by its status
alone.

The lane of a subscription that is pending tells of its handshake: ``paused_until`` is the trial's
column (:mod:`trials`); ``failures`` counts the tries. What follows a failed one is decided as for
deliveries.
"""

from __future__ import annotations

import hmac
import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

from django.db.models import Q
from django.views.decorators.debug import sensitive_variables

from webhooks.conf import settings
from webhooks.engine.outcome import Outcome, Verdict
from webhooks.engine.retries import decide
from webhooks.engine.trials import Claimed, Judged, Kind, Try
from webhooks.headers import combined, headers_of
from webhooks.lifecycle import change_status
from webhooks.models import DeliveryAttempt, Lane, SigningSecret, Subscription
from webhooks.models.delivery import State
from webhooks.models.lane import LaneQuerySet
from webhooks.models.subscription import Handshake, Status, is_schedule
from webhooks.probing import ping_request, signing_keys
from webhooks.transports.base import Request, Response

#: The error code of an answer that came, and confirmed nothing.
REFUSED: Final = "handshake_refused"
#: The kinds that a worker proves.
PROVEN: Final = (Handshake.HOOK_SECRET, Handshake.CLOUDEVENTS)
#: Requests for each minute that CloudEvents endpoints are asked for, where no rate was set.
USUAL_RATE: Final = 120
#: The most that ``rate_limit`` takes in every database.
MAX_RATE: Final = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class HandshakeTry(Try):
    """One request of a handshake.

    expected: what the endpoint is to give back: the secret, or our origin.
    """

    handshake: str
    expected: str = field(repr=False)
    rate_limit: int | None
    retry_schedule: tuple[float, ...]
    failing_since: datetime | None


class Handshakes(Kind):
    """The handshakes of pending subscriptions."""

    column = "paused_until"
    waits_for_keys = True

    def __init__(self) -> None:
        self._rng = random.Random()  # noqa: S311

    def waiting(self, using: str, by: datetime | None = None) -> LaneQuerySet:
        lanes = Lane.objects.using(using).filter(
            subscription__status=Status.PENDING, subscription__handshake__in=PROVEN
        )
        if by is None:
            return lanes
        return lanes.filter(Q(paused_until__isnull=True) | Q(paused_until__lte=by))

    def concerns(self, subscription: Subscription, begun: Try) -> bool:
        assert isinstance(begun, HandshakeTry)
        same = subscription.handshake == begun.handshake
        return same and subscription.status == Status.PENDING

    def begin(self, claimed: Claimed) -> HandshakeTry:
        lane, subscription = claimed.lane, claimed.lane.subscription
        own: Any = subscription.retry_schedule
        is_echo = subscription.handshake == Handshake.HOOK_SECRET
        triggers = DeliveryAttempt.Trigger
        return HandshakeTry(
            **claimed.facts,
            number=lane.failures + 1,
            trigger=triggers.RETRY if lane.failures else triggers.FIRST,
            handshake=subscription.handshake,
            expected=secrets.token_hex(32) if is_echo else our_origin(),
            rate_limit=subscription.rate_limit,
            retry_schedule=tuple(own if is_schedule(own) else settings.RETRY_SCHEDULE),
            failing_since=lane.failing_since,
        )

    def request(
        self, begun: Try, subscription: Subscription, live: Sequence[SigningSecret]
    ) -> Request:
        assert isinstance(begun, HandshakeTry)
        if begun.handshake == Handshake.HOOK_SECRET:
            return _echo_request(begun, subscription, live)
        return _consent_request(begun, subscription)

    def judge(self, begun: Try, response: Response, outcome: Outcome) -> tuple[Outcome, str]:
        assert isinstance(begun, HandshakeTry)
        if outcome.verdict is not Verdict.DELIVERED:
            return outcome, ""
        refusal, _rate = _judge_headers(begun, response)
        return (Outcome(Verdict.FAILED, REFUSED) if refusal else outcome), refusal

    def passed(self, subscription: Subscription, lane: Lane, judged: Judged) -> None:
        assert isinstance(judged.begun, HandshakeTry)
        _refusal, rate = _judge_headers(judged.begun, judged.response)
        if rate is not None and (subscription.rate_limit is None or rate < subscription.rate_limit):
            # Not update(): it looks the URL's host up, and all deliveries would wait for that.
            subscription.rate_limit = rate
            subscription.save(using=settings.database, update_fields=["rate_limit", "updated_at"])
        change_status(subscription, Status.SUBSCRIBED, reason="handshake")

    def failed(self, subscription: Subscription, lane: Lane, judged: Judged) -> None:
        begun, now = judged.begun, judged.answered_at
        assert isinstance(begun, HandshakeTry)
        decision = decide(
            judged.outcome,
            attempts=begun.number,
            age=(now - (begun.failing_since or begun.due_at)).total_seconds(),
            now=now,
            schedule=begun.retry_schedule,
            max_age=settings.MAX_AGE,
            rng=self._rng,
        )
        lane.failures = begun.number
        lane.last_failure_at = now
        lane.failing_since = lane.failing_since or now
        lane.paused_until = decision.due_at
        lane.pause_reason = "handshake" if lane.paused_until else ""
        columns = ["failures", "last_failure_at", "failing_since", "paused_until", "pause_reason"]
        lane.save(using=settings.database, update_fields=columns)
        if decision.state is not State.PENDING:
            change_status(subscription, Status.UNSUBSCRIBED, reason="handshake_failed")


def our_origin() -> str:
    """Who asks, in ``WebHook-Request-Origin``: the host name of ``BASE_URL``."""
    return urlsplit(settings.BASE_URL).hostname or "localhost"


@sensitive_variables()
def _echo_request(
    begun: HandshakeTry, subscription: Subscription, live: Sequence[SigningSecret]
) -> Request:
    """A signed ping with the secret that is to be echoed."""
    request = ping_request(subscription, signing_keys(live), begun.message_id, begun.started_at)
    return Request(
        lane=request.lane,
        url=request.url,
        headers=combined(request.headers, {"X-Hook-Secret": begun.expected}),
        body=request.body,
        timeout=request.timeout,
    )


@sensitive_variables()
def _consent_request(begun: HandshakeTry, subscription: Subscription) -> Request:
    """The OPTIONS request of CloudEvents. Nothing in it is signed, for it has no body."""
    asked = {
        "WebHook-Request-Origin": begun.expected,
        "WebHook-Request-Rate": str(begun.rate_limit or USUAL_RATE),
    }
    return Request(
        lane=subscription.pk,
        url=subscription.callback_url,
        headers=combined(headers_of(subscription), asked),
        body=b"",
        timeout=float(settings.TIMEOUT),
        method="OPTIONS",
    )


def _judge_headers(begun: HandshakeTry, response: Response) -> tuple[str, int | None]:
    """Why a 2xx confirms nothing, "" where it does; and the rate that it grants."""
    if begun.handshake == Handshake.HOOK_SECRET:
        echo = response.headers.get("x-hook-secret", "")
        if hmac.compare_digest(echo.encode("utf-8", "replace"), begun.expected.encode()):
            return "", None
        return "The answer does not repeat the X-Hook-Secret of this request.", None
    origin = response.headers.get("webhook-allowed-origin", "").strip().lower()
    if origin not in ("*", begun.expected.lower()):
        return "The answer does not name our origin, nor *, in WebHook-Allowed-Origin.", None
    return "", _granted_rate(response.headers.get("webhook-allowed-rate", ""))


def _granted_rate(text: str) -> int | None:
    """Requests for each minute that ``WebHook-Allowed-Rate`` grants; None: no limit, or garbage."""
    text = text.strip()
    if not (text.isascii() and text.isdigit()):
        return None
    return min(int(text), MAX_RATE) or None
