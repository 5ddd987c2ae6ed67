"""Changes to a subscription that leave its status as it is: fields and secrets.

Whoever holds its lane goes on with the new values within a second (:func:`tell_holder`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_variables

from webhooks.clock import db_now
from webhooks.conf import settings
from webhooks.engine import markers
from webhooks.engine.wake import wake
from webhooks.exceptions import IllegalStatusChange
from webhooks.formats.signing import decode_secret, generate_secret
from webhooks.models import Lane, SigningSecret, Subscription
from webhooks.models.lane import PACING
from webhooks.models.subscription import SCHEDULE, Status

#: What :func:`update` does not change: the key, who owns it, and what :func:`change_status` writes.
FIXED = frozenset(
    {
        *("id", "pk", "requester", "status", "status_reason", "status_since", "status_actor"),
        *("grant_revoked_at", "reshaped_at", "created_at", "updated_at"),
    }
)

#: What a change of a subscription may alter in its lane, beside the pacing.
CHANGED = (
    *("control", "held", "claim_at", "clock_stopped_since", "discard_before", "retime_before"),
    "probe_at",
)


@sensitive_variables()
def update(subscription: Subscription, **changes: Any) -> bool:
    """Change fields of a subscription; False when all of them are as asked for already.

    changes: any fields but the ``FIXED`` ones. Only these are written, so that two people who edit
    different things do not undo each other. Whoever holds the lane goes on with the new values
    within a second. Where the trigger, time zone, hour or day changes, what waits and was never
    sent is moved to the window of now by a worker, before anything else is sent.

    Raises ValidationError, and TypeError for a field that cannot be changed here.
    """
    take_changes(subscription, changes)
    return write_changes(subscription, changes)


@sensitive_variables()
def take_changes(subscription: Subscription, changes: Mapping[str, Any]) -> None:
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


@sensitive_variables()
def write_changes(subscription: Subscription, changes: Mapping[str, Any]) -> bool:
    """Write what differs from what is stored, and tell the lane's holder."""
    columns = {field.name: field.attname for field in Subscription._meta.concrete_fields}
    using = settings.database
    with transaction.atomic(using=using):
        lane = lock_lane(subscription, using)
        stored = Subscription.objects.using(using).get(pk=subscription.pk)
        changed = [
            name
            for name in changes
            if getattr(stored, columns[name]) != getattr(subscription, columns[name])
        ]
        if not changed:
            return False
        if {"format", "payload"} & set(changed):
            subscription.reshaped_at = db_now(using)
            changed.append("reshaped_at")
        subscription.save(using=using, update_fields=[*changed, "updated_at"])
        readable = {"headers", "basic_auth"} & changes.keys()
        if "callback_url" in changed or (readable and lane.pause_reason == "secret_unreadable"):
            lane.begin_anew(db_now(using))
        retimed = bool(set(SCHEDULE) & set(changed))
        if retimed:
            # What waits follows into the window of now; a worker moves it (engine/retiming.py).
            lane.retime_before = db_now(using)
        tell_holder(lane, using, at_once=retimed)
        if subscription.empty_digests:
            markers.plant(using, [subscription.pk])
        transaction.on_commit(wake, using=using, robust=True)
    return True


@sensitive_variables()
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
        lane = lock_lane(subscription, using)
        stored = Subscription.objects.using(using).filter(pk=subscription.pk)
        _refuse_ended(stored.values_list("status", flat=True).get())
        now = db_now(using)
        live = SigningSecret.objects.using(using).filter(subscription=subscription).live(now)
        for place, old in enumerate(list(live)):
            end = now if place >= 2 else now + overlap
            if old.expires_at is None or old.expires_at > end:
                old.expires_at = end
                old.save(using=using, update_fields=["expires_at"])
        add_secret(subscription, text, using)
        if lane.pause_reason == "secret_unreadable":
            lane.begin_anew(now)
        tell_holder(lane, using)
    return text


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
    lane.save(using=using, update_fields=[*CHANGED, *PACING])


def lock_lane(subscription: Subscription, using: str) -> Lane:
    """The subscription's lane, locked. Raises Subscription.DoesNotExist when it was deleted."""
    lane = Lane.objects.using(using).lock_one(subscription.pk)
    assert lane is not None, "it waits for its lock"
    return lane


@sensitive_variables()
def add_secret(subscription: Subscription, text: str, using: str) -> None:
    SigningSecret.objects.using(using).create(
        subscription=subscription, value=text, last_four=text[-4:]
    )


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


def _refuse_ended(status: str) -> None:
    if status == Status.UNSUBSCRIBED:
        raise IllegalStatusChange(_("The subscription has ended: subscribe anew."))
