"""One POST, now, outside of the queue: the ping, with which a subscriber tests its endpoint.

The engine holds no HTTP and the transports hold no models; here the two meet for a single POST in
the caller's process. It waits for nobody's turn, counts in no statistics and leaves the lane's
pacing as it is. The trials of :mod:`webhooks.engine.trials` are recorded the same way.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from django.utils.module_loading import import_string
from django.utils.translation import gettext
from django.views.decorators.debug import sensitive_variables

from webhooks import catalog
from webhooks.access import granted
from webhooks.catalog import EventType
from webhooks.clock import db_now
from webhooks.conf import settings
from webhooks.engine.outcome import Outcome, judge
from webhooks.exceptions import (
    HeldByOperator,
    IllegalStatusChange,
    InvalidSecret,
    NotDeliverable,
    SecretUnreadable,
)
from webhooks.formats import EventRecord, get_format
from webhooks.formats.signing import decode_secret
from webhooks.headers import combined, headers_of, signed_url
from webhooks.models import DeliveryAttempt, SigningSecret, Subscription
from webhooks.models.attempt import storable
from webhooks.models.fields import new_message_id
from webhooks.models.subscription import Status
from webhooks.transports import base
from webhooks.transports.base import Request, Response, Transport

logger = logging.getLogger("webhooks")

#: The event type of what is sent for the sake of the answer alone. No catalogue lists it.
PING_TYPE: Final = "webhooks.ping"
#: Seconds beyond the timeout after which a transport that says nothing is given up.
PATIENCE: Final = 5.0


@sensitive_variables()
def ping(subscription: Subscription, *, actor: str = "") -> DeliveryAttempt:
    """Send one signed ``webhooks.ping`` and wait for its answer; returns the recorded attempt.

    It takes up to ``TIMEOUT`` seconds: do not call it in a transaction. actor: who asks for it, for
    the log. Raises IllegalStatusChange for a subscription that is pending or unsubscribed,
    HeldByOperator for one that an operator has suspended, SecretUnreadable where nothing can be
    signed, and Subscription.DoesNotExist.
    """
    return _send(subscription, PING_TYPE, _ping_data(subscription), actor)


@sensitive_variables()
def send_example(
    subscription: Subscription, event_type: EventType, *, actor: str = ""
) -> DeliveryAttempt:
    """Send the catalogue's example of an event type, as :func:`ping` sends a ping.

    It carries an id of its own, and no event is recorded. Raises what :func:`ping` raises, and
    NotDeliverable for a type that the subscription does not receive.
    """
    # Documents are made from the same examples; nobody else here needs them.
    from webhooks.documentation.schemas import example_of

    if event_type not in received_types(subscription):
        facts = {"id": subscription.pk, "type": event_type.name}
        raise NotDeliverable(gettext("%(id)s does not receive %(type)s.") % facts)
    data = json.dumps(example_of(event_type), ensure_ascii=False, separators=(",", ":"))
    return _send(subscription, event_type.name, data, actor)


def received_types(subscription: Subscription) -> list[EventType]:
    """The event types that a subscription asks for, and whose owner may receive them, by name."""
    return [
        entry for entry in catalog.visible(granted(subscription)) if subscription.covers(entry.name)
    ]


@sensitive_variables()
def _send(subscription: Subscription, event_type: str, data: str, actor: str) -> DeliveryAttempt:
    using = settings.database
    stored = Subscription.objects.using(using).get(pk=subscription.pk)  # the caller's may be old
    if stored.status == Status.PENDING:
        raise IllegalStatusChange(
            gettext(
                "The endpoint has not answered its handshake yet, and nothing else is sent before "
                "that."
            )
        )
    if stored.status == Status.UNSUBSCRIBED:
        raise IllegalStatusChange(
            gettext(
                "An unsubscribed subscription is sent nothing more, and no ping either. Subscribe "
                "anew."
            )
        )
    if stored.status == Status.SUSPENDED and stored.status_reason == "operator":
        # The operator's stop is for every POST: it may be the endpoint's owner who asked for it.
        raise HeldByOperator(
            gettext(
                "An operator has suspended the subscription: nothing is sent to it, and no ping "
                "either."
            )
        )
    started_at = db_now(using)
    live = SigningSecret.objects.using(using).live(started_at).filter(subscription=stored)
    message_id = new_message_id()
    keys = signing_keys(live)
    request = signed_request(stored, keys, message_id, started_at, event_type, data)
    what = "pinged" if event_type == PING_TYPE else f"sent an example of {event_type}"
    logger.info("%s is %s by %r.", stored.pk, what, actor or "the service")
    response = _post(request)
    return record(
        using,
        response,
        judge(response, db_now(using)),
        subscription_id=stored.pk,
        message_id=message_id,
        trigger=DeliveryAttempt.Trigger.PING,
        due_at=started_at,
        started_at=started_at,
    )


@sensitive_variables()
def signing_keys(secrets: Iterable[SigningSecret]) -> list[bytes]:
    """The keys behind live secrets, in their order. Raises SecretUnreadable, for none as well."""
    try:
        keys = [decode_secret(secret.value.reveal()) for secret in secrets]
    except InvalidSecret as error:
        raise SecretUnreadable(str(error)) from error
    if not keys:
        raise SecretUnreadable(
            gettext(
                "The subscription has no live signing secret, and nothing is sent unsigned. Rotate "
                "it."
            )
        )
    return keys


@sensitive_variables()
def ping_request(
    subscription: Subscription, keys: Sequence[bytes], message_id: str, now: datetime
) -> Request:
    """The signed POST of a ping; see :func:`signed_request`."""
    data = _ping_data(subscription)
    return signed_request(subscription, keys, message_id, now, PING_TYPE, data)


def _ping_data(subscription: Subscription) -> str:
    return json.dumps({"subscription": subscription.pk}, separators=(",", ":"))


@sensitive_variables()
def signed_request(
    subscription: Subscription,
    keys: Sequence[bytes],
    message_id: str,
    now: datetime,
    event_type: str,
    data: str,
) -> Request:
    """The signed POST of something that is no event of ours, in the subscription's format and with
    its own headers.

    keys: newest first. now: database time. data: JSON. Raises SecretUnreadable where the headers
    are, and what the format raises.
    """
    format_ = get_format(subscription.format)
    event = EventRecord(
        id=message_id,
        type=event_type,
        occurred_at=now,
        data=data,
        requester=subscription.requester,
    )
    body = format_.body(event)
    url = signed_url(subscription)
    signed = format_.headers(message_id, int(now.timestamp()), body, keys, url=url)
    return Request(
        lane=subscription.pk,
        url=subscription.callback_url,
        headers=combined(headers_of(subscription), signed),
        body=body,
        timeout=float(settings.TIMEOUT),
    )


def record(
    using: str,
    response: Response,
    outcome: Outcome,
    *,
    subscription_id: str,
    message_id: str,
    trigger: str,
    due_at: datetime,
    started_at: datetime,
    number: int = 1,
    detail: str = "",
) -> DeliveryAttempt:
    """Write down one POST and its answer. detail: a sentence in place of the transport's."""
    return DeliveryAttempt.objects.using(using).create(
        subscription_id=subscription_id,
        message_id=message_id,
        number=number,
        trigger=trigger,
        due_at=due_at,
        started_at=started_at,
        status_code=response.status_code,
        error_code=outcome.code,
        error_detail=storable(detail or response.error_detail)[:200],
        elapsed_ms=round(response.elapsed_ms),
        excerpt=storable(response.excerpt),
        truncated=response.truncated,
        event_count=1,
    )


def _post(request: Request) -> Response:
    """Send one request with a transport of its own, in whichever thread and process this is.

    A transport is used from one thread; one for all threads would let a hanging endpoint hold up
    every other ping. Measured: 15 ms to make and close one (it reads the CA bundle), 40 ms on
    a busy machine: about what a TLS handshake takes.
    """
    transport: Transport = import_string(settings.TRANSPORT)(concurrency=1)
    try:
        transport.start("ping", request)
        until = time.monotonic() + request.timeout + PATIENCE
        while (left := until - time.monotonic()) > 0:
            for _, response in transport.finished(left):
                return response
    finally:
        transport.close()
    return Response(error_code=base.TIMEOUT, error_detail="The transport gave no answer in time.")
