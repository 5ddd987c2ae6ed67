"""``Lane``: the queue of one subscription, and who may work on it now.

``claim_at`` says when a lane may next be claimed: max(earliest due delivery, end of lease, end of
pause); NULL when there is nothing to claim it for. Two rules keep every pending delivery findable:

* whoever adds, revives or re-times a pending delivery first locks the lane (:meth:`lock`), and then
  tells it (:meth:`expect`);
* whoever lets go of a lane locks it first and *then*, in a new statement, reads what is due.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Self

from django.db import models, transaction
from django.utils.translation import gettext_lazy as _

from webhooks.clock import db_now
from webhooks.models.attempt import DeliveryAttempt
from webhooks.models.bulk import update_rows
from webhooks.models.delivery import Delivery
from webhooks.models.fields import AnyOf
from webhooks.models.subscription import ON_HOLD, Status, Subscription

#: What a holder may change in the lane's row when it lets go or paces the lane.
PACING = (
    "paused_until",
    "pause_reason",
    "failures",
    "latency_ms",
    "last_success_at",
    "last_failure_at",
    "failing_since",
)

#: What ``told`` says; "": nothing, or that all is well.
FAILING, SUSPENDED = "failing", "suspended"
#: Reasons of a status that its owner chose, later or when it subscribed.
BY_ITS_OWNER = ("client", "")


class LaneQuerySet(models.QuerySet["Lane"]):
    def ready(self, now: datetime) -> Self:
        """Lanes that may be claimed at ``now``, the longest waiting first."""
        return self.filter(claim_at__lte=now).order_by("claim_at")

    def lock(self, ids: Collection[str]) -> list[Lane]:
        """Lock these lanes in the order of their ids, as everybody does."""
        return list(self.filter(pk__any=ids).order_by("pk").select_for_update())

    def lock_free(self, ids: Collection[str]) -> list[Lane]:
        """Lock those of these lanes that nobody has locked, in the order of their ids.

        Workers never wait for a lane: a slow transaction of the host's, which changed one
        subscription, would stop the deliveries of all others.
        """
        return list(self.filter(pk__any=ids).order_by("pk").select_for_update(skip_locked=True))

    def lock_one(self, subscription_id: str, *, wait: bool = True) -> Lane | None:
        """One subscription's lane, locked; None where others have it and one does not wait.

        It is made where somebody wrote the subscription past ``subscribe()``. Raises
        Subscription.DoesNotExist when that was deleted.
        """
        lock = self.lock if wait else self.lock_free
        locked = lock([subscription_id])
        if not locked and not self.filter(pk=subscription_id).exists():
            stored = Subscription.objects.using(self.db).get(pk=subscription_id)
            made = Lane(subscription=stored, held=stored.status in ON_HOLD)
            self.bulk_create([made], ignore_conflicts=True)
            locked = lock([subscription_id])
        return locked[0] if locked else None

    def claim(
        self, token: uuid.UUID, *, lease: timedelta, limit: int, faster_than: float | None = None
    ) -> list[Lane]:
        """Lease up to ``limit`` ready lanes to ``token``. Call in a transaction.

        faster_than: only lanes that are known to answer within so many milliseconds.

        Where rows cannot be locked (SQLite) the transaction has been begun as a writer
        (:func:`webhooks.engine.transactions.atomically`), so nobody can be between the statements.
        """
        now = db_now(self.db)
        ready = self.ready(now)
        if faster_than is not None:
            ready = ready.filter(latency_ms__lte=faster_than)
        features = transaction.get_connection(self.db).features
        ready = ready.select_for_update(skip_locked=features.has_select_for_update_skip_locked)
        ids = list(ready.values_list("pk", flat=True)[:limit])
        if not ids:
            return []
        until = now + lease
        self.filter(pk__any=ids).update(token=token, lease_until=until, claim_at=until)
        return list(self.filter(pk__any=ids).select_related("subscription"))

    def renew(self, token: uuid.UUID, ids: Collection[str], *, lease: timedelta) -> set[str]:
        """Extend the leases that ``token`` still has on these lanes; which those are.

        Call in a transaction.
        """
        until = db_now(self.db) + lease
        mine = {lane.pk for lane in self.held_by(token, ids)}
        self.filter(pk__any=mine).update(lease_until=until, claim_at=until)
        return mine

    def controls(self, token: uuid.UUID) -> dict[str, int]:
        """The lanes that ``token`` holds, each with its ``control``."""
        return dict(self.filter(token=token).values_list("pk", "control"))

    def held_by(self, token: uuid.UUID, ids: Collection[str]) -> list[Lane]:
        """Lock those of the lanes that ``token`` still holds, but for those locked by others."""
        return self.filter(token=token).lock_free(ids)

    def discarded(self, pk: str, until: datetime) -> bool:
        """Note that the backlog up to ``until`` is discarded; False where the lane is locked.

        Call in a transaction. Where its owner wanted more discarded since then, that stays noted.
        """
        if not self.lock_free([pk]):
            return False
        self.filter(pk=pk, discard_before=until).update(discard_before=None)
        return True

    def expect(self, locked: Iterable[Lane], due_at: datetime) -> None:
        """Tell locked lanes of a delivery that is due at ``due_at``.

        A leased lane needs no telling: it can be claimed when its lease ends, and its holder reads
        what is due after it has locked the row to let go.
        """
        moved: dict[datetime, list[str]] = defaultdict(list)
        for lane in locked:
            target = lane.next_claim(due_at)
            if target is None or lane.token is not None:
                continue
            if lane.claim_at is None or target < lane.claim_at:
                moved[target].append(lane.pk)
        for target, ids in moved.items():
            self.filter(pk__any=ids).update(claim_at=target)

    def let_go(self, locked: Sequence[Lane], at_once: Collection[str] = ()) -> None:
        """Free locked lanes for the next claim, and write their pacing.

        at_once: those whose holder did not hear of a change in time; the next one is to look now.

        The earliest due is read here, after the locks were taken and in a statement of its own:
        read earlier, it could miss what somebody added before the lock was granted.
        """
        earliest = self.earliest_due([lane.pk for lane in locked])
        now = db_now(self.db)
        for lane in locked:
            lane.token = lane.lease_until = None
            lane.claim_at = lane.next_claim(earliest.get(lane.pk))
            if lane.claim_at is not None:
                # Behind those that wait already: an old backlog must not come first each time.
                lane.claim_at = now if lane.pk in at_once else max(lane.claim_at, now)
        columns = ("token", "lease_until", "claim_at", "held", *PACING)
        update_rows(self.db, Lane, columns, [lane.values(columns) for lane in locked])

    def pace(self, locked: Sequence[Lane]) -> None:
        """Write the pacing of locked lanes that their holder keeps."""
        update_rows(self.db, Lane, PACING, [lane.values(PACING) for lane in locked])

    def earliest_due(self, ids: Collection[str]) -> dict[str, datetime]:
        """When the earliest pending delivery of each lane is due."""
        pending = Delivery.objects.using(self.db).pending()
        first = pending.filter(subscription_id=models.OuterRef("pk")).order_by("due_at")
        rows = self.filter(pk__any=ids).annotate(
            earliest=models.Subquery(first.values("due_at")[:1])
        )
        return {pk: due for pk, due in rows.values_list("pk", "earliest") if due is not None}

    def astray(self, limit: int) -> list[str]:
        """Lanes that nobody holds and nobody would claim in time, by their deliveries.

        Read without locks, so a lane may be named that is just being written; look again under
        its lock before you believe it.
        """
        first = (
            Delivery.objects.using(self.db)
            .pending()
            .filter(subscription_id=models.OuterRef("pk"))
            .order_by("due_at")
        )
        late = models.Q(claim_at__isnull=True) | (
            models.Q(claim_at__gt=models.F("earliest"))
            & models.Q(claim_at__gt=db_now(self.db))
            & (
                models.Q(paused_until__isnull=True)
                | models.Q(claim_at__gt=models.F("paused_until"))
            )
        )
        # By the subscription's status, should somebody have written that past the life cycle.
        found = (
            self.filter(token__isnull=True)
            .exclude(subscription__status__in=ON_HOLD)
            .annotate(earliest=models.Subquery(first.values("due_at")[:1]))
            .filter(late, earliest__isnull=False)
        )
        return list(found.values_list("pk", flat=True)[:limit])

    def untold(self, *, failing_after: int) -> Self:
        """Lanes whose owner was last told something else than what is so; that is ``state``.

        ``suspended``: by somebody else than the owner. ``failing``: after so many failures in a
        row, until a success comes: an endpoint that was replaced is not known to be mended. Else
        "". With their subscriptions, by id; quiet lanes are passed over without a look at theirs.
        """
        subscribed = models.Q(subscription__status=Status.SUBSCRIBED)
        suspended = models.Q(subscription__status=Status.SUSPENDED)
        no_success_since = (
            models.Q(failures__gt=0)
            | models.Q(last_success_at__isnull=True)
            | models.Q(last_success_at__lte=models.F("last_failure_at"))
        )
        state = models.Case(
            models.When(
                suspended & ~models.Q(subscription__status_reason__in=BY_ITS_OWNER),
                then=models.Value(SUSPENDED),
            ),
            models.When(
                subscribed
                & (
                    models.Q(failures__gte=failing_after)
                    | models.Q(told=FAILING) & no_success_since
                ),
                then=models.Value(FAILING),
            ),
            default=models.Value(""),
        )
        concerned = models.Q(failures__gte=failing_after) | ~models.Q(told="") | models.Q(held=True)
        return (
            self.filter(concerned)
            .annotate(state=state)
            .exclude(told=models.F("state"))
            .select_related("subscription")
            .order_by("pk")
        )

    def last_errors(self, ids: Collection[str]) -> dict[str, str]:
        """The error code of each lane's last failed attempt.

        For lanes that failed lately: a long row of successes would be read to its end.
        """
        failed = DeliveryAttempt.objects.using(self.db).exclude(error_code="")
        last = failed.filter(subscription_id=models.OuterRef("pk")).order_by("-pk")
        rows = self.filter(pk__any=ids).annotate(
            code=models.Subquery(last.values("error_code")[:1])
        )
        return {pk: code for pk, code in rows.values_list("pk", "code") if code is not None}

    def next_claim_at(self) -> datetime | None:
        """When the first lane of all may be claimed."""
        return (
            self.filter(claim_at__isnull=False)
            .order_by("claim_at")
            .values_list("claim_at", flat=True)
            .first()
        )


class Lane(models.Model):
    """The hot row of a subscription, apart from it so that edits and deliveries never collide."""

    subscription = models.OneToOneField(
        Subscription, models.CASCADE, primary_key=True, related_name="lane"
    )
    claim_at = models.DateTimeField(_("next claim"), null=True, blank=True, db_index=True)
    token = models.UUIDField(_("held by"), null=True, blank=True, editable=False)
    lease_until = models.DateTimeField(_("lease ends"), null=True, blank=True)
    control = models.PositiveBigIntegerField(
        _("control"), default=0, help_text=_("Counts the changes that its holder must hear of.")
    )
    held = models.BooleanField(
        _("on hold"), default=False, help_text=_("Nothing is sent: the subscription is not active.")
    )
    paused_until = models.DateTimeField(_("paused until"), null=True, blank=True)
    pause_reason = models.CharField(_("paused because"), max_length=64, blank=True, default="")
    failures = models.PositiveIntegerField(_("failures in a row"), default=0)
    latency_ms = models.PositiveIntegerField(
        _("p90 latency"), null=True, blank=True, help_text=_("Estimated, in milliseconds.")
    )
    last_success_at = models.DateTimeField(_("last success"), null=True, blank=True)
    last_failure_at = models.DateTimeField(_("last failure"), null=True, blank=True)
    failing_since = models.DateTimeField(_("failing since"), null=True, blank=True)
    discard_before = models.DateTimeField(
        _("discard until"),
        null=True,
        blank=True,
        help_text=_("Pending deliveries that were made up to then are discarded, not sent."),
    )
    told = models.CharField(
        _("owner was told"),
        max_length=16,
        blank=True,
        default="",
        db_default="",
        help_text=_("The last trouble that the owner was told of: failing, suspended, or none."),
    )

    objects = LaneQuerySet.as_manager()

    class Meta:
        verbose_name = _("lane")
        verbose_name_plural = _("lanes")
        constraints = [
            # Whatever moves claim_at, a leased lane cannot be claimed before its lease ends.
            models.CheckConstraint(
                condition=models.Q(token__isnull=True, lease_until__isnull=True)
                | models.Q(
                    token__isnull=False,
                    lease_until__isnull=False,
                    claim_at__isnull=False,
                    claim_at__gte=models.F("lease_until"),
                ),
                name="webhooks_lane_lease",
            ),
        ]

    def __str__(self) -> str:
        return f"lane of {self.pk}"

    def next_claim(self, earliest_due: datetime | None) -> datetime | None:
        """When a lane that nobody holds may be claimed, given its earliest due delivery."""
        if self.held or earliest_due is None:
            return None
        return max(earliest_due, self.paused_until or earliest_due)

    def begin_anew(self) -> None:
        """Forget the old endpoint's pause and failures: another one, or a mended one, is tried."""
        self.paused_until = None
        self.pause_reason = ""
        self.failures = 0
        self.failing_since = None
        self.latency_ms = None

    def values(self, columns: Iterable[str]) -> tuple[object, ...]:
        return (self.pk, *(getattr(self, column) for column in columns))


# A related field has lookups of its own; this one's key is an id like any other.
Lane._meta.get_field("subscription").register_lookup(AnyOf)
