"""The life of a subscription: it begins here, and every change to it goes through here.

``pending → subscribed ⇄ suspended → unsubscribed``. A change locks the subscription's lane, so that
the worker which holds it hears of it within a second, and so that no delivery is left on a lane
that nobody would claim.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.db import connections, transaction
from django.utils.translation import gettext as _

from webhooks.clock import db_now
from webhooks.conf import settings
from webhooks.engine.wake import wake
from webhooks.exceptions import IllegalStatusChange
from webhooks.formats.signing import decode_secret, generate_secret
from webhooks.models import Lane, SigningSecret, Subscription
from webhooks.models.lane import PACING
from webhooks.models.subscription import ON_HOLD, Status
from webhooks.signals import subscription_status_changed

#: Where each status may lead.
MOVES: dict[str, frozenset[str]] = {
    Status.PENDING: frozenset({Status.SUBSCRIBED, Status.UNSUBSCRIBED}),
    Status.SUBSCRIBED: frozenset({Status.SUSPENDED, Status.UNSUBSCRIBED}),
    Status.SUSPENDED: frozenset({Status.SUBSCRIBED, Status.UNSUBSCRIBED}),
    Status.UNSUBSCRIBED: frozenset(),
}

#: What :func:`update` does not change: the key, who owns it, and what :func:`change_status` writes.
FIXED = frozenset(
    {
        *("id", "pk", "requester", "status", "status_reason", "status_since"),
        *("created_at", "updated_at"),
    }
)


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
    the signing worker: show it now. Raises ValidationError (URL, event types, options, or
    ``MAX_SUBSCRIPTIONS`` are there), and InvalidSecret.
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
        check_room(requester, using)
        subscription.save(using=using, force_insert=True)
        Lane.objects.using(using).create(
            subscription=subscription, held=status != Status.SUBSCRIBED
        )
        _add_secret(subscription, text, using)
    return subscription, text


def update(subscription: Subscription, **changes: Any) -> bool:
    """Change fields of a subscription; False when all of them are as asked for already.

    changes: any fields but the ``FIXED`` ones. Only these are written, so that two people who edit
    different things do not undo each other. Whoever holds the lane goes on with the new values
    within a second. Raises ValidationError, and TypeError for a field that cannot be changed here.
    """
    columns = {field.name: field.attname for field in Subscription._meta.concrete_fields}
    if refused := sorted(set(changes) - (set(columns) - FIXED)):
        raise TypeError(
            f"update() cannot change {', '.join(refused)}. The status is changed by "
            "change_status(); who owns a subscription, and its id, never change."
        )
    for name, value in changes.items():
        setattr(subscription, name, value)
    subscription.full_clean()  # before the transaction: it looks the URL's host up
    using = settings.database
    with transaction.atomic(using=using):
        lane = _lock_lane(subscription, using)
        stored = Subscription.objects.using(using).get(pk=subscription.pk)
        changed = [
            name
            for name in changes
            if getattr(stored, columns[name]) != getattr(subscription, columns[name])
        ]
        if not changed:
            return False
        subscription.save(using=using, update_fields=[*changed, "updated_at"])
        if "callback_url" in changed:
            lane.begin_anew()
        tell_holder(lane, using)
        transaction.on_commit(wake, using=using, robust=True)
    return True


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
        lane = _lock_lane(subscription, using)
        now = db_now(using)
        live = SigningSecret.objects.using(using).filter(subscription=subscription).live(now)
        for place, old in enumerate(list(live)):
            end = now if place >= 2 else now + overlap
            if old.expires_at is None or old.expires_at > end:
                old.expires_at = end
                old.save(using=using, update_fields=["expires_at"])
        _add_secret(subscription, text, using)
        if lane.pause_reason == "secret_unreadable":
            lane.begin_anew()
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
        lane = _lock_lane(subscription, using)
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
        lane.held = status in ON_HOLD
        if status == Status.SUBSCRIBED:
            lane.begin_anew()
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
    lane.save(using=using, update_fields=["control", "held", "claim_at", *PACING])


def _lock_lane(subscription: Subscription, using: str) -> Lane:
    """The subscription's lane, locked; made first where somebody wrote the subscription past us.

    Raises Subscription.DoesNotExist when it was deleted.
    """
    lanes = Lane.objects.using(using)
    if locked := lanes.lock([subscription.pk]):
        return locked[0]
    stored = Subscription.objects.using(using).get(pk=subscription.pk)
    lanes.bulk_create(
        [Lane(subscription=stored, held=stored.status in ON_HOLD)], ignore_conflicts=True
    )
    [lane] = lanes.lock([subscription.pk])
    return lane


def _add_secret(subscription: Subscription, text: str, using: str) -> None:
    SigningSecret.objects.using(using).create(
        subscription=subscription, value=text, last_four=text[-4:]
    )


def check_room(requester: str, using: str) -> None:
    """Refuse a subscription beyond ``MAX_SUBSCRIPTIONS``; call it in the transaction that adds it.

    Unsubscribed ones do not count: they only stay to be seen.
    """
    limit = settings.MAX_SUBSCRIPTIONS
    live = (
        Subscription.objects.using(using)
        .filter(requester=requester)
        .exclude(status=Status.UNSUBSCRIBED)
    )
    # Those who subscribe for one requester go one after the other: each waits here for the lock
    # on the oldest one, and counts in a new statement after that. Not the key is locked, so that
    # a fan-out to it is not held up.
    no_key = connections[using].features.has_select_for_no_key_update
    list(live.order_by("pk").select_for_update(no_key=no_key).values_list("pk")[:1])
    if live.count() >= limit:
        raise ValidationError(
            _(
                "%(requester)s has %(limit)d subscriptions, and may not have more. Unsubscribe one "
                "that is not needed."
            )
            % {"requester": requester, "limit": limit}
        )
