"""Leases: lanes are claimed, kept, and read again when somebody has changed them.

The statements are the lane's (:mod:`webhooks.models.lane`); here a leased row becomes a
:class:`~webhooks.engine.lanes.HeldLane`, with the secrets and the scopes that its POSTs need.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from webhooks.access import Entitlements
from webhooks.conf import settings
from webhooks.engine.lanes import HeldLane
from webhooks.engine.pacing import SLOW_MS
from webhooks.engine.transactions import atomically
from webhooks.models import Lane, SigningSecret
from webhooks.models.lane import PACING


def claim(
    using: str, token: UUID, *, limit: int, now: datetime, fast_only: bool = False
) -> list[HeldLane]:
    """Lease ready lanes and load what their POSTs need. now: database time."""
    began = time.monotonic()  # before the database looks at its clock: never too long
    lease = timedelta(seconds=settings.LEASE_SECONDS)
    faster_than = SLOW_MS if fast_only else None
    rows = atomically(
        using,
        lambda: Lane.objects.using(using).claim(
            token, lease=lease, limit=limit, faster_than=faster_than
        ),
    )
    secrets = secrets_of(using, [row.pk for row in rows], now)
    entitlements = Entitlements([row.subscription for row in rows])
    return [
        HeldLane(
            row,
            secrets.get(row.pk, ()),
            lease_end=began + settings.LEASE_SECONDS,
            now=now,
            scopes=entitlements.granted(row.subscription),
        )
        for row in rows
    ]


def renew(using: str, token: UUID, held: Sequence[HeldLane]) -> None:
    """Extend the leases of these lanes; one that was lost shows when its control is read."""
    lease = timedelta(seconds=settings.LEASE_SECONDS)
    ids = [lane.id for lane in held]

    def extend() -> tuple[float, set[str]]:
        began = time.monotonic()  # before the database looks at its clock: never too long
        return began, Lane.objects.using(using).renew(token, ids, lease=lease)

    began, renewed = atomically(using, extend)
    for lane in held:
        if lane.id in renewed:
            lane.lease_end = began + settings.LEASE_SECONDS


def reload(using: str, token: UUID, held: Sequence[HeldLane], now: datetime) -> None:
    """Take over what people changed about these lanes."""
    by_id = {lane.id: lane for lane in held}
    rows = Lane.objects.using(using).filter(pk__any=list(by_id), token=token)
    # The rows first: a change that comes between the two statements is then heard of once more.
    changed = list(rows.select_related("subscription"))
    secrets = secrets_of(using, list(by_id), now)
    entitlements = Entitlements([row.subscription for row in changed])
    for row in changed:
        lane = by_id[row.pk]
        scopes = entitlements.granted(row.subscription)
        if lane.changes_what_is_due(row, scopes):
            lane.read_anew()
        # A new URL or a resume begins without the old pause, and perhaps without the backlog.
        for column in (*PACING, "discard_before", "retime_before"):
            setattr(lane.row, column, getattr(row, column))
        lane.take(row.subscription, secrets.get(row.pk, ()), row.control, now, scopes)


def secrets_of(using: str, ids: Sequence[str], now: datetime) -> dict[str, list[SigningSecret]]:
    """The live signing secrets of these subscriptions, newest first."""
    found: dict[str, list[SigningSecret]] = {}
    live = SigningSecret.objects.using(using).live(now)
    for secret in live.filter(subscription_id__in=ids) if ids else ():
        found.setdefault(secret.subscription_id, []).append(secret)
    return found
