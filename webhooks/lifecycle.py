"""The life of a subscription: it begins here, and every change to it goes through here.

``pending → subscribed ⇄ suspended → unsubscribed``. A change locks the subscription's lane, so that
the worker which holds it hears of it within a second, and so that no delivery is left on a lane
that nobody would claim.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta
from hashlib import sha256
from typing import Any

from django.core.exceptions import ValidationError
from django.db import connections, transaction
from django.utils.translation import gettext as _

from webhooks.access import granted
from webhooks.clock import db_now
from webhooks.conf import settings
from webhooks.engine.wake import wake
from webhooks.exceptions import HeldByOperator, IllegalStatusChange
from webhooks.formats.signing import decode_secret, generate_secret
from webhooks.models import Lane, SigningSecret, Subscription
from webhooks.models.lane import PACING
from webhooks.models.subscription import ON_HOLD, OnSuspend, Status
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
        *("id", "pk", "requester", "status", "status_reason", "status_since", "status_actor"),
        *("grant_revoked_at", "created_at", "updated_at"),
    }
)


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
        Lane.objects.using(using).create(
            subscription=subscription, held=subscription.status in ON_HOLD
        )
        _add_secret(subscription, text, using)
        if subscription.status == Status.PENDING:
            transaction.on_commit(wake, using=using, robust=True)
    return subscription, text


def update(subscription: Subscription, **changes: Any) -> bool:
    """Change fields of a subscription; False when all of them are as asked for already.

    changes: any fields but the ``FIXED`` ones. Only these are written, so that two people who edit
    different things do not undo each other. Whoever holds the lane goes on with the new values
    within a second. Raises ValidationError, and TypeError for a field that cannot be changed here.
    """
    _take_changes(subscription, changes)
    return _write_changes(subscription, changes)


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
    _take_changes(subscription, changes)
    with transaction.atomic(using=settings.database):
        _write_changes(subscription, changes)
        if status is not None:
            change_status(subscription, status, reason=reason, actor=actor, scopes=scopes)


def _take_changes(subscription: Subscription, changes: Mapping[str, Any]) -> None:
    """Give the instance its new values, and judge them.

    Outside of any transaction: the URL's host is looked up.
    """
    if not changes:
        return
    columns = {field.name for field in Subscription._meta.concrete_fields}
    if refused := sorted(set(changes) - (columns - FIXED)):
        raise TypeError(
            f"update() cannot change {', '.join(refused)}. The status is changed by "
            "change_status(); who owns a subscription, and its id, never change."
        )
    for name, value in changes.items():
        setattr(subscription, name, value)
    _keep_proof(subscription, changes)
    others = {field.name for field in Subscription._meta.concrete_fields} - changes.keys()
    subscription.clean_fields(exclude=others)
    subscription.judge(changes.keys())


def _write_changes(subscription: Subscription, changes: Mapping[str, Any]) -> bool:
    """Write what differs from what is stored, and tell the lane's holder."""
    columns = {field.name: field.attname for field in Subscription._meta.concrete_fields}
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
        readable = {"headers", "basic_auth"} & changes.keys()
        if "callback_url" in changed or (readable and lane.pause_reason == "secret_unreadable"):
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
        stored = Subscription.objects.using(using).filter(pk=subscription.pk)
        _refuse_ended(stored.values_list("status", flat=True).get())
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
    ``handshake_failed``, ``entitlement_lost``, ``automatic``. actor: who asks; "": the service.
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
        lane = _lock_lane(subscription, using)
        # The row as it is now, under the lane's lock: the caller's may be old.
        stored = Subscription.objects.using(using).get(pk=subscription.pk)
        previous = stored.status
        if previous == status:
            subscription.status = status
            if discard:
                raise IllegalStatusChange(
                    "The subscription is subscribed, and its backlog is being delivered: only what "
                    "waits while it is suspended can be discarded, by resuming it."
                )
            for name, value in (changes or {}).items():
                setattr(subscription, name, value)
            if changes:
                _write_changes(subscription, changes)
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
        # An unsubscribed lane stays claimable: its next holder cancels what is pending.
        lane.held = status in ON_HOLD
        if status == Status.SUBSCRIBED:
            lane.begin_anew()
            if discard:
                lane.discard_before = written["status_since"]
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


def _check_move(stored: Subscription, status: str, reason: str) -> None:
    """Raise unless a subscription may go from where it is to ``status``, for this reason."""
    if status not in MOVES[stored.status]:
        raise IllegalStatusChange(
            f"A subscription that is {stored.status} cannot become {str(status)!r}. From there it "
            f"may become: {', '.join(sorted(map(str, MOVES[stored.status]))) or 'nothing else'}."
        )
    if status != Status.SUBSCRIBED or reason != "client":
        return
    if stored.status == Status.PENDING:
        raise IllegalStatusChange(
            "The subscription is pending: it becomes subscribed by itself, when its endpoint "
            "answers the handshake."
        )
    if stored.status_reason == "operator":
        raise HeldByOperator("An operator has suspended the subscription, and can resume it.")
    if stored.status_reason == "entitlement_lost" and granted(stored) is None:
        raise HeldByOperator(
            "The application or the user that owns the subscription is not entitled to it any more."
        )


def _refuse_ended(status: str) -> None:
    if status == Status.UNSUBSCRIBED:
        raise IllegalStatusChange("The subscription has ended: subscribe anew.")


def _keep_proof(subscription: Subscription, changes: Mapping[str, Any]) -> None:
    """Refuse changes that would leave a proven endpoint for one that nobody has proven."""
    refused = {"handshake"} & changes.keys()
    stored = Subscription.objects.using(settings.database).filter(pk=subscription.pk)
    old = stored.values("handshake", "callback_url", "status").first()
    if old is None:
        raise Subscription.DoesNotExist(f"{subscription.pk} was deleted.")
    _refuse_ended(old["status"])
    if old["handshake"]:
        refused |= {"callback_url"} & changes.keys()
    for name in sorted(refused):
        if changes[name] != old[name]:
            raise ValidationError(
                {
                    name: _(
                        "It cannot be changed: the handshake has proven this endpoint. Subscribe "
                        "anew."
                    )
                    if old["handshake"]
                    else _("A handshake is asked for when one subscribes. Subscribe anew.")
                }
            )


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
    fields = ["control", "held", "claim_at", "discard_before", *PACING]
    lane.save(using=using, update_fields=fields)


def _lock_lane(subscription: Subscription, using: str) -> Lane:
    """The subscription's lane, locked. Raises Subscription.DoesNotExist when it was deleted."""
    lane = Lane.objects.using(using).lock_one(subscription.pk)
    assert lane is not None, "it waits for its lock"
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
