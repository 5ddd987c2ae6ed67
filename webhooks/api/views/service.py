"""The service as a whole, and whatever path there is not."""

from __future__ import annotations

import logging
from typing import Any, NoReturn

from django.core.cache import cache
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from webhooks import health
from webhooks.api.operations import operation
from webhooks.api.serializers.service import ServiceSerializer
from webhooks.api.views.base import APIView

#: Seconds that the service's state is kept.
FRESH = 15
KEY = "webhooks.status"

logger = logging.getLogger(__name__)


class StatusView(APIView):
    """The service's state."""

    @operation(answer=ServiceSerializer)
    def get(self, request: Request) -> Response:
        """Tell how the service fares, from where it sends, and how late it is."""
        return self.answer(_status())


def _status() -> dict[str, Any]:
    try:
        kept: dict[str, Any] | None = cache.get(KEY)
    except Exception:  # each cache has errors of its own
        logger.warning("The cache fails: the state is read each time.", exc_info=True)
        return health.of_service().as_dict()
    if kept is None:
        kept = health.of_service().as_dict()
        try:
            cache.set(KEY, kept, FRESH)
        except Exception:  # one that can be read may still be full, or a replica
            logger.warning("The cache keeps nothing: the state is read each time.", exc_info=True)
    return kept


class NothingView(APIView):
    """Any other path below the API: 404 in the form of all problems, whoever asks."""

    authentication_classes: Any = ()
    permission_classes: Any = ()

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotFound
