"""The life of a subscription: it begins here, and every change of its status goes through here.

``pending → subscribed ⇄ suspended → unsubscribed``. A change locks the subscription's lane, so that
the worker which holds it hears of it within a second, and so that no delivery is left on a lane
that nobody would claim.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db import transaction

from webhooks.clock import db_now
from webhooks.conf import settings
from webhooks.engine.wake import wake
from webhooks.exceptions import IllegalStatusChange
from webhooks.formats.signing import decode_secret, generate_secret
from webhooks.models import Lane, SigningSecret, Subscription
from webhooks.models.subscription import Status
from webhooks.signals import subscription_status_changed

#: Where each status may lead.
MOVES: dict[str, frozenset[str]] = {
    Status.PENDING: frozenset({Status.SUBSCRIBED, Status.UNSUBSCRIBED}),
    Status.SUBSCRIBED: frozenset({Status.SUSPENDED, Status.UNSUBSCRIBED}),
    Status.SUSPENDED: frozenset({Status.SUBSCRIBED, Status.UNSUBSCRIBED}),
    Status.UNSUBSCRIBED: frozenset(),
}


def subscribe(
    *,
    requester: str,
    callback_url: str,
    event_types: list[str],
    secret: str | None = None,
    status: str = Status.SUBSCRIBED,
    **options: Any,
) -> tuple[Subscription, str]:
    """Make a subscription with its lane and first secret; returns it and the secret's text.

    secret: one that the client brings (``whsec_`` + base64 of 24 to 64 bytes); None: a new one.
    options: any other field of Subscription. The secret's text cannot be read back by anybody but
    the signing worker: show it now. Raises ValidationError (URL, event types, options), and
    InvalidSecret.
    """
    text = secret or generate_secret()
    decode_secret(text)
    subscription = Subscription(
        requester=requester,
        callback_url=callback_url,
        event_types=event_types,
        status=status,
        **options,
    )
    subscription.full_clean()
    using = settings.database
    with transaction.atomic(using=using):
        subscription.save(using=using, force_insert=True)
        Lane.objects.using(using).create(
            subscription=subscription, held=status != Status.SUBSCRIBED
        )
        _add_secret(subscription, text, using)
    return subscription, text


def rotate_secret(
    subscription: Subscription, *, secret: str | None = None, overlap: timedelta = timedelta(days=1)
) -> str:
    """Make a new signing secret; the old ones sign too, until ``overlap`` has passed.

    At most three are live; the oldest goes first. Returns the new secret's text. Raises
    InvalidSecret, and ValueError for an overlap that is not within 0 to 7 days.
    """
    if not timedelta(0) <= overlap <= timedelta(days=7):
        raise ValueError("The overlap must be from 0 to 7 days.")
    text = secret or generate_secret()
    decode_secret(text)
    using = settings.database
    with transaction.atomic(using=using):
        [lane] = Lane.objects.using(using).lock([subscription.pk])
        now = db_now(using)
        live = SigningSecret.objects.using(using).filter(subscription=subscription).live(now)
        for place, old in enumerate(list(live)):
            end = now if place >= 2 else now + overlap
            if old.expires_at is None or old.expires_at > end:
                old.expires_at = end
                old.save(using=using, update_fields=["expires_at"])
        _add_secret(subscription, text, using)
        tell_holder(lane, using)
    return text


def change_status(subscription: Subscription, status: str, *, reason: str) -> bool:
    """Move a subscription to ``status``; False when it is there already.

    reason: a short code, e.g. ``client``, ``operator``, ``gone``. What is pending is kept while a
    subscription is suspended, and cancelled by a worker once it is unsubscribed. Raises
    IllegalStatusChange for a move that ``MOVES`` does not have.
    """
    using = settings.database
    with transaction.atomic(using=using):
        [lane] = Lane.objects.using(using).lock([subscription.pk])
        # The row as it is now, under the lane's lock: the caller's may be old.
        previous = (
            Subscription.objects.using(using)
            .values_list("status", flat=True)
            .get(pk=subscription.pk)
        )
        if previous == status:
            subscription.status = status
            return False
        if status not in MOVES[previous]:
            raise IllegalStatusChange(
                f"A subscription that is {previous} cannot become {status!r}. From there it may "
                f"become: {', '.join(sorted(MOVES[previous])) or 'nothing else'}."
            )
        subscription.status = status
        subscription.status_reason = reason
        subscription.status_since = db_now(using)
        subscription.save(
            using=using,
            update_fields=["status", "status_reason", "status_since", "updated_at"],
        )
        # An unsubscribed lane stays claimable: its next holder cancels what is pending.
        lane.held = status in (Status.PENDING, Status.SUSPENDED)
        tell_holder(lane, using, at_once=status == Status.UNSUBSCRIBED)
        transaction.on_commit(
            lambda: subscription_status_changed.send_robust(
                sender=Subscription,
                subscription=subscription,
                previous=previous,
                status=status,
                reason=reason,
            ),
            using=using,
            robust=True,
        )
        transaction.on_commit(wake, using=using, robust=True)
    return True


def tell_holder(lane: Lane, using: str, *, at_once: bool = False) -> None:
    """Make a change known to whoever holds the locked lane; where nobody does, re-time it.

    at_once: a lane that holds anything is to be claimed now, whenever that is due.
    """
    lane.control += 1
    if lane.token is None:
        earliest = Lane.objects.using(using).earliest_due([lane.pk])
        lane.claim_at = lane.next_claim(earliest.get(lane.pk))
        if at_once and lane.claim_at is not None:
            lane.claim_at = db_now(using)
    lane.save(using=using, update_fields=["control", "held", "claim_at"])


def _add_secret(subscription: Subscription, text: str, using: str) -> None:
    SigningSecret.objects.using(using).create(
        subscription=subscription, value=text, last_four=text[-4:]
    )
