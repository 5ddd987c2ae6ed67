"""The life of a subscription: it begins here, and every change to it goes through here.

``pending → subscribed ⇄ suspended → unsubscribed``. A change locks the subscription's lane, so that
the worker which holds it hears of it within a second, and so that no delivery is left on a lane
that nobody would claim.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from django.core.exceptions import ValidationError
from django.db import connections, transaction
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_variables

from webhooks.access import granted
from webhooks.clock import db_now
from webhooks.conf import settings
from webhooks.edits import FIXED as FIXED
from webhooks.edits import add_secret, lock_lane, take_changes, write_changes
from webhooks.edits import rotate_secret as rotate_secret
from webhooks.edits import tell_holder as tell_holder
from webhooks.edits import update as update
from webhooks.engine import markers
from webhooks.engine.pacing import JITTER, RAMP_BEGIN
from webhooks.engine.wake import wake
from webhooks.exceptions import HeldByOperator, IllegalStatusChange
from webhooks.formats.signing import decode_secret, generate_secret
from webhooks.models import Lane, Subscription
from webhooks.models.subscription import FOR_FAILING, ON_HOLD, OnSuspend, Status
from webhooks.signals import subscription_status_changed

#: Where each status may lead.
MOVES: dict[str, frozenset[str]] = {
    Status.PENDING: frozenset({Status.SUBSCRIBED, Status.UNSUBSCRIBED}),
    Status.SUBSCRIBED: frozenset({Status.SUSPENDED, Status.UNSUBSCRIBED}),
    Status.SUSPENDED: frozenset({Status.SUBSCRIBED, Status.UNSUBSCRIBED}),
    Status.UNSUBSCRIBED: frozenset(),
}


@sensitive_variables()
def subscribe(
    *,
    requester: str,
    callback_url: str,
    event_types: list[str],
    secret: str | None = None,
    status: str | None = None,
    actor: str = "",
    **options: Any,
) -> tuple[Subscription, str]:
    """Make a subscription with its lane and first secret; returns it and the secret's text.

    secret: one that the client brings (``whsec_`` + base64 of 24 to 64 bytes); None: a new one.
    status: None: ``subscribed``. One that asks for a handshake is ``pending`` until a worker has
    proven the endpoint. actor: who asks for it. options: any other field of Subscription; headers
    as a mapping, basic_auth as ``user:password``. The secret's text cannot be read back by anybody
    but the signing worker: show it now. Raises ValidationError (URL, event types, options, or
    ``MAX_SUBSCRIPTIONS`` are there), and InvalidSecret.
    """
    text = secret or generate_secret()
    decode_secret(text)
    subscription = Subscription(
        requester=requester,
        callback_url=callback_url,
        event_types=event_types,
        status=status or Status.SUBSCRIBED,
        status_actor=actor,
        **options,
    )
    if subscription.handshake:
        if status == Status.SUSPENDED:
            raise ValidationError(
                {"status": _("It is pending until its handshake is done; suspend it after that.")}
            )
        subscription.status = Status.PENDING
    subscription.full_clean()
    using = settings.database
    with transaction.atomic(using=using):
        check_room(requester, using)
        subscription.save(using=using, force_insert=True)
        Lane.of(subscription, db_now(using)).save(using=using, force_insert=True)
        add_secret(subscription, text, using)
        if subscription.empty_digests:
            markers.plant(using, [subscription.pk])
        if subscription.status == Status.PENDING:
            transaction.on_commit(wake, using=using, robust=True)
    return subscription, text


@sensitive_variables()
def update_and_move(
    subscription: Subscription,
    status: str | None,
    *,
    reason: str,
    actor: str,
    scopes: Collection[str] | None = None,
    **changes: Any,
) -> None:
    """Both :func:`update` and :func:`change_status`, or neither. status: None: as it is."""
    take_changes(subscription, changes)
    with transaction.atomic(using=settings.database):
        write_changes(subscription, changes)
        if status is not None:
            change_status(subscription, status, reason=reason, actor=actor, scopes=scopes)


def change_status(
    subscription: Subscription,
    status: str,
    *,
    reason: str,
    actor: str = "",
    scopes: Collection[str] | None = None,
) -> bool:
    """Move a subscription to ``status``; False when it is there already.

    reason: a short code: ``client`` (its owner asks), ``operator``, ``gone``, ``handshake``,
    ``handshake_failed``, ``entitlement_lost``, ``failing`` (and ``recovered``, which ends it).
    actor: who asks; "": the service. Whoever suspends what is suspended for ``failing`` makes that
    suspension theirs: the service does not end it any more.
    scopes: of the token with which its owner asks: where the grant was revoked before, the new one
    may be narrower; None: as they were. What is pending is kept while a subscription is suspended,
    and cancelled by a worker once it is unsubscribed. Raises IllegalStatusChange for a move that
    ``MOVES`` does not have, and HeldByOperator where a client may not undo what was done.
    """
    return _move(subscription, status, reason=reason, actor=actor, scopes=scopes)


def suspend(
    subscription: Subscription,
    *,
    reason: str = "client",
    actor: str = "",
    on_suspend: str | None = None,
) -> bool:
    """Send nothing until it is resumed; False when it is suspended already.

    on_suspend: what becomes of new events, ``keep`` or ``discard``; None: as it was set before.
    Raises as :func:`change_status` does, and ValueError for another ``on_suspend``.
    """
    if on_suspend not in (None, *OnSuspend.values):
        raise ValueError(f"on_suspend is 'keep' or 'discard', not {on_suspend!r}.")
    changes = {} if on_suspend is None else {"on_suspend": on_suspend}
    return _move(subscription, Status.SUSPENDED, reason=reason, actor=actor, changes=changes)


def resume(
    subscription: Subscription,
    *,
    reason: str = "client",
    actor: str = "",
    backlog: str = "deliver",
    scopes: Collection[str] | None = None,
) -> bool:
    """Send again; False when it is subscribed already.

    backlog: what becomes of what waits: ``deliver`` or ``discard``; a worker does either. Raises as
    :func:`change_status` does, and ValueError for another ``backlog``.
    """
    if backlog not in ("deliver", "discard"):
        raise ValueError(f"backlog is 'deliver' or 'discard', not {backlog!r}.")
    return _move(
        subscription,
        Status.SUBSCRIBED,
        reason=reason,
        actor=actor,
        discard=backlog == "discard",
        scopes=scopes,
    )


def _move(
    subscription: Subscription,
    status: str,
    *,
    reason: str,
    actor: str,
    changes: Mapping[str, Any] | None = None,
    discard: bool = False,
    scopes: Collection[str] | None = None,
) -> bool:
    """Every move of every subscription. discard: end what is pending, instead of sending it."""
    using = settings.database
    with transaction.atomic(using=using):
        lane = lock_lane(subscription, using)
        # The row as it is now, under the lane's lock: the caller's may be old.
        stored = Subscription.objects.using(using).get(pk=subscription.pk)
        previous = stored.status
        if previous == status:
            subscription.status = status
            if discard:
                raise IllegalStatusChange(
                    _(
                        "The subscription is subscribed, and its backlog is being delivered: only "
                        "what waits while it is suspended can be discarded, by resuming it."
                    )
                )
            if status == Status.SUSPENDED and _outranks(reason, stored.status_reason):
                _take_over(subscription, lane, reason, actor)
            for name, value in (changes or {}).items():
                setattr(subscription, name, value)
            if changes:
                write_changes(subscription, changes)
            return False
        written = {**(changes or {}), "status": status, "status_reason": reason}
        written |= {"status_actor": actor, "status_since": db_now(using)}
        if status == Status.SUBSCRIBED and reason == "client":
            # Its owner asks with a token that was accepted just now, so there is a grant again.
            if stored.grant_revoked_at is not None and scopes is not None and "*" not in scopes:
                narrower = set(stored.scopes.split()) & set(scopes)
                stored.scopes = written["scopes"] = " ".join(sorted(narrower))
            stored.grant_revoked_at = written["grant_revoked_at"] = None
        _check_move(stored, status, reason)
        for name, value in written.items():
            setattr(stored, name, value)
        stored.save(using=using, update_fields=[*written, "updated_at"])
        # Only now: where the database refuses, the caller's is as it was.
        for name in (*written, "updated_at"):
            setattr(subscription, name, getattr(stored, name))
        _move_lane(lane, status, reason, written["status_since"], discard=discard)
        tell_holder(lane, using, at_once=discard or status == Status.UNSUBSCRIBED)
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


def _move_lane(lane: Lane, status: str, reason: str, now: datetime, *, discard: bool) -> None:
    """Let the locked lane follow; it is written when its holder is told."""
    # An unsubscribed lane stays claimable: its next holder cancels what is pending.
    lane.hold(status in ON_HOLD, now)
    failing = status == Status.SUSPENDED and reason == FOR_FAILING
    lane.probe_at = next_probe(now) if failing else None
    if status == Status.SUBSCRIBED:
        lane.begin_anew(now)
        if discard:
            lane.discard_before = now
        elif Lane.objects.using(settings.database).earliest_due([lane.pk]):
            lane.ramp = RAMP_BEGIN  # an endpoint that was ill is not given all of it at once


def _outranks(reason: str, stored: str) -> bool:
    """Whether a suspension is to stand for this reason, and for the stored one no longer.

    What an operator suspends its client cannot resume, also where the client had suspended it
    first; and no probe ends what anybody else than the service wants suspended.
    """
    return reason != stored and (reason == "operator" or stored == FOR_FAILING)


def _take_over(subscription: Subscription, lane: Lane, reason: str, actor: str) -> None:
    """Make a suspension somebody else's."""
    using = settings.database
    subscription.status_reason, subscription.status_actor = reason, actor
    columns = ["status_reason", "status_actor", "updated_at"]
    subscription.save(using=using, update_fields=columns)
    lane.probe_at = None
    lane.save(using=using, update_fields=["probe_at"])


def next_probe(now: datetime) -> datetime | None:
    """When a subscription that is suspended for failing is tried next; None: never."""
    if settings.PROBE_SECONDS is None:
        return None
    wait = settings.PROBE_SECONDS * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
    return now + timedelta(seconds=wait)


def _check_move(stored: Subscription, status: str, reason: str) -> None:
    """Raise unless a subscription may go from where it is to ``status``, for this reason."""
    if status not in MOVES[stored.status]:
        facts = {
            "old": stored.status,
            "new": str(status),
            "others": ", ".join(sorted(map(str, MOVES[stored.status]))) or _("nothing else"),
        }
        raise IllegalStatusChange(
            _(
                "A subscription that is %(old)s cannot become %(new)r. From there it may become: "
                "%(others)s."
            )
            % facts
        )
    if status != Status.SUBSCRIBED or reason != "client":
        return
    if stored.status == Status.PENDING:
        raise IllegalStatusChange(
            _(
                "The subscription is pending: it becomes subscribed by itself, when its endpoint "
                "answers the handshake."
            )
        )
    if stored.status_reason == "operator":
        raise HeldByOperator(_("An operator has suspended the subscription, and can resume it."))
    if stored.status_reason == "entitlement_lost" and granted(stored) is None:
        raise HeldByOperator(
            _(
                "The application or the user that owns the subscription is not entitled to it any "
                "more."
            )
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
    # Those who subscribe for one requester go one after the other: each waits here for the lock,
    # and counts in a new statement after that. Elsewhere than on PostgreSQL the lock is the one on
    # the oldest subscription, so the first ones of all may pass together (SQLite has one writer).
    connection = connections[using]
    if connection.vendor == "postgresql":
        key = int.from_bytes(sha256(f"webhooks {requester}".encode()).digest()[:8], signed=True)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [key])
    # Not the key is locked, so that a fan-out to it is not held up.
    no_key = connection.features.has_select_for_no_key_update
    list(live.order_by("pk").select_for_update(no_key=no_key).values_list("pk")[:1])
    if live.count() >= limit:
        raise ValidationError(
            _(
                "%(requester)s has %(limit)d subscriptions, and may not have more. Unsubscribe one "
                "that is not needed."
            )
            % {"requester": requester, "limit": limit}
        )
