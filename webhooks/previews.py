"""What a receiver gets of an event, for people: the POST that the engine makes, secrets masked.

Nothing is sent and nothing is changed. No signing secret is opened: the headers are made twice,
with keys of nobody's, and whatever differs depends on the secret.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_variables

from webhooks.clock import db_now
from webhooks.conf import settings
from webhooks.engine.parcels import digest, draft, due_of, head_of, new_message, rendered
from webhooks.engine.posts import post_of
from webhooks.exceptions import SecretUnreadable
from webhooks.headers import MASK, headers_of
from webhooks.models import Delivery, Event, Message, SigningSecret, Subscription
from webhooks.models.delivery import DueDelivery
from webhooks.models.subscription import Content
from webhooks.transports.base import Request
from webhooks.transports.requests import sendable_headers
from webhooks.transports.sockets import PostFailed

logger = logging.getLogger("webhooks")

#: Characters of a body that are shown.
SHOWN: Final = 64 * 1024
#: Where an example goes that is for no subscription.
NOWHERE: Final = "https://example.com/"
#: Two keys of nobody's.
_KEYS: Final = (b"\0" * 32, b"\1" * 32)
#: What curl sets by itself.
_OF_CURL: Final = frozenset({"content-length", "host"})


@dataclass(frozen=True, slots=True)
class Preview:
    """A POST with its secrets masked.

    url: without its query. headers: all that are sent but for ``Host``. body: its first ``SHOWN``
    characters; size: its bytes in all. notes: what is to be known of it, one sentence each. fault:
    why nothing can be sent; then the rest may be empty.
    """

    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    size: int = 0
    notes: Sequence[str] = ()
    fault: str = ""

    @property
    def is_cut(self) -> bool:
        return len(self.body) < self.size and len(self.body) == SHOWN

    def curl(self) -> str:
        """The command that sends it; what is masked is to be filled in, the signature among it."""
        parts = [f"curl -X POST {shlex.quote(self.url)}"]
        for name, value in self.headers.items():
            if name.lower() not in _OF_CURL:
                parts.append(f"-H {shlex.quote(f'{name}: {value}')}")
        # Of the two, only the first one takes what begins with @ for the name of a file.
        body = "--data-binary @body" if self.is_cut else f"--data-raw {shlex.quote(self.body)}"
        parts.append(body)
        return " \\\n  ".join(parts)


def of_delivery(delivery: Delivery, at: datetime | None = None) -> Preview:
    """The POST of a delivery, as it would be made of what is stored now.

    at: when it begins; None: now. A constant number of statements; a batch is read with all its
    members.
    """
    using = settings.database
    subscription = Subscription.objects.using(using).get(pk=delivery.subscription_id)
    notes: list[str] = []
    if delivery.message_id:
        message = Message.objects.using(using).get(pk=delivery.message_id)
        members = _members(using, delivery, message)
        body = rendered(message, members) or b""
        if message.body_digest and digest(body) != message.body_digest:
            notes.append(_("It is not as it was sent: what it is made of has changed since."))
        due = head_of(message, members, body)
    else:
        [due] = due_of(using, pk=delivery.pk)
        if subscription.batches:
            due = _alone(subscription, due, notes)
    return _shown(subscription, due, at or db_now(using), notes)


def of_event(event: Event, subscription: Subscription) -> Preview:
    """What a subscription would get of an event that it has no delivery of."""
    now = db_now(settings.database)
    notes: list[str] = []
    due = _due(event, subscription, now)
    if subscription.batches:
        due = _alone(subscription, due, notes)
    return _shown(subscription, due, now, notes)


def in_format(event: Event, name: str) -> Preview:
    """An event in a format, for no subscription in particular."""
    now = db_now(settings.database)
    anybody = Subscription(requester=event.requester, callback_url=NOWHERE, format=name)
    return _shown(anybody, _due(event, anybody, now), now, [], of_somebody=False)


def _members(using: str, delivery: Delivery, message: Message) -> list[DueDelivery]:
    """What travels in a message; of a digest of counts, one of them stands for all."""
    if message.content == Content.COUNTS:
        return due_of(using, pk=delivery.pk)
    return due_of(using, message=message.pk)


def _alone(subscription: Subscription, due: DueDelivery, notes: list[str]) -> DueDelivery:
    """As a batch of its own: with which others it will travel is decided when they are sent."""
    notes.append(
        _("It is sent in a batch. Shown is a batch of this event alone; its id is given later.")
    )
    message = new_message(subscription, due.due_at)
    alone = draft(message, [due])
    return head_of(message, alone.deliveries, alone.body)


def _due(event: Event, subscription: Subscription, now: datetime) -> DueDelivery:
    return DueDelivery(
        id="",
        subscription_id=subscription.pk,
        attempts=0,
        due_at=now,
        first_due_at=now,
        trigger="",
        event_id=event.pk,
        event_type=event.type,
        subject=event.subject,
        requester=event.requester,
        occurred_at=event.occurred_at,
        recorded_at=event.created_at,
        data=event.data,
    )


@sensitive_variables()
def _shown(
    subscription: Subscription,
    due: DueDelivery,
    at: datetime,
    notes: list[str],
    *,
    of_somebody: bool = True,
) -> Preview:
    custom: dict[str, str] = {}
    fault = ""
    if of_somebody:
        try:
            custom = dict.fromkeys(headers_of(subscription), MASK)
        except (SecretUnreadable, ImproperlyConfigured):
            fault = _("Its own headers cannot be read: nothing is sent before that is mended.")
        live = SigningSecret.objects.using(settings.database).live(at)
        if not live.filter(subscription=subscription).exists():
            fault = _("It has no live signing secret: nothing is sent unsigned. Rotate it.")
    try:
        one, other = (_made(subscription, due, at, key, custom) for key in _KEYS)
    except PostFailed as error:
        return Preview(notes=notes, fault=fault or str(error))
    except Exception:
        # Formats may be the host's own.
        logger.warning("%s cannot be rendered for a page.", due.event_id, exc_info=True)
        return Preview(notes=notes, fault=fault or _("It cannot be rendered in its format."))
    theirs = sendable_headers(other)
    return Preview(
        url=_without_query(subscription.callback_url),
        headers={
            name: value if theirs.get(name) == value else MASK
            for name, value in sendable_headers(one).items()
        },
        body=one.body.decode("utf-8", "replace")[:SHOWN],
        size=len(one.body),
        notes=notes,
        fault=fault,
    )


def _made(
    subscription: Subscription,
    due: DueDelivery,
    at: datetime,
    key: bytes,
    custom: Mapping[str, str],
) -> Request:
    url = subscription.callback_url
    request = post_of(
        due,
        subscription,
        url=url,
        at=at,
        keys=[key],
        custom_headers=custom,
        signed_url=url,
        timeout=float(settings.TIMEOUT),
    )
    sendable_headers(request)  # raises what cannot be sent
    return request


def _without_query(url: str) -> str:
    """People put tokens into the query."""
    address, separator, _query = url.partition("?")
    return f"{address}{separator}{MASK if separator else ''}"
