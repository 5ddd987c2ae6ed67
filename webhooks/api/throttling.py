"""How often a requester may do what costs something: ``WEBHOOKS["THROTTLES"]``.

Counted by requester, whatever token, application or address it comes with, in Django's cache. A
cache that is down lets everybody pass: losing it must cost nothing but the limit.
"""

from __future__ import annotations

import hashlib
import logging
import math
from typing import Any

from rest_framework.throttling import SimpleRateThrottle

from webhooks.conf import DEFAULTS, settings

logger = logging.getLogger(__name__)


class RequesterThrottle(SimpleRateThrottle):
    """Holds the rate that the operation names; an operation that names none is free."""

    def __init__(self) -> None:
        """The rate is known once there is a request."""

    def allow_request(self, request: Any, view: Any) -> bool:
        scope = view.operation.throttle if view.operation is not None else ""
        rates = {**DEFAULTS["THROTTLES"], **settings.THROTTLES}
        self.rate = rates.get(scope)
        if not scope or self.rate is None:
            return True
        self.scope = scope
        self.num_requests, self.duration = self.parse_rate(self.rate)
        try:
            return bool(super().allow_request(request, view))
        except Exception:  # each cache has errors of its own
            logger.warning("The cache fails: nothing is throttled.", exc_info=True)
            return True

    def get_cache_key(self, request: Any, view: Any) -> str:
        # A requester may hold what a cache's keys may not.
        whom = hashlib.sha256(request.client.requester.encode()).hexdigest()
        return f"webhooks.throttle.{self.scope}.{whom}"

    def wait(self) -> float:
        """Seconds until the next request may pass; at least one."""
        left = self.duration - (self.now - self.history[-1])
        return float(max(1, math.ceil(left)))
