"""The POST of a delivery: its body, its headers and its signature.

Made here for whoever holds the lane, and for the pages that show what a receiver gets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from django.views.decorators.debug import sensitive_variables

from webhooks.engine.parcels import is_thin, record
from webhooks.formats import get_format
from webhooks.headers import combined
from webhooks.models import Subscription
from webhooks.models.delivery import DueDelivery
from webhooks.transports.base import Request


@sensitive_variables()
def post_of(
    delivery: DueDelivery,
    subscription: Subscription,
    *,
    url: str,
    at: datetime,
    keys: Sequence[bytes],
    custom_headers: Mapping[str, str],
    signed_url: str,
    timeout: float,
) -> Request:
    """The signed POST of a delivery, or of the frozen message that it stands for.

    url: where it goes. at: when it begins. keys: of the live secrets, newest first. custom_headers,
    signed_url: as :mod:`webhooks.headers` opens them. timeout: seconds for all of it.

    Raises what the format raises for what it cannot render, and ValueError for a message that
    could not be rendered as it was frozen.
    """
    parcel = delivery.parcel
    format_ = get_format(subscription.format if parcel is None else parcel.format)
    if parcel is None:
        body = format_.body(record(delivery, thin=is_thin(subscription)))
    elif not (body := parcel.body):
        raise ValueError(f"{parcel.message_id} could not be rendered.")
    headers = format_.headers(
        delivery.webhook_id,
        int(at.timestamp()),
        body,
        keys,
        url=signed_url,
        batch=parcel is not None and parcel.batch,
    )
    if custom_headers:
        headers = combined(custom_headers, headers)
    return Request(delivery.subscription_id, url, headers, body, timeout)
