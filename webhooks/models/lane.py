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
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from webhooks.clock import db_now
from webhooks.models.bulk import update_rows
from webhooks.models.fields import AnyOf
from webhooks.models.lane_reports import FAILING as FAILING
from webhooks.models.lane_reports import SUSPENDED as SUSPENDED
from webhooks.models.lane_reports import LaneReports
from webhooks.models.subscription import ON_HOLD, Subscription

#: What a holder may change in the lane's row when it lets go or paces the lane.
PACING = (
    "paused_until",
    "pause_reason",
    "failures",
    "latency_ms",
    "last_success_at",
    "last_failure_at",
    "failing_since",
    "parked_since",
    "probes",
    "recent",
    "recent_failed",
    "recent_since",
    "window",
    "ramp",
    "clock_stopped_ms",
)

#: Rests for these reasons stop the clock, and are added to it as they begin (engine/pacing.py).
COUNTED_AHEAD = frozenset({"parked", "rate_limit"})


class LaneQuerySet(LaneReports):
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
            if not self.make([subscription_id]):
                raise Subscription.DoesNotExist(f"{subscription_id} was deleted.")
            locked = lock([subscription_id])
        return locked[0] if locked else None

    def make(self, ids: Collection[str]) -> int:
        """Make the lanes of subscriptions that were written past ``subscribe()``, e.g. by a
        fixture; of how many there are. A lane that is there stays as it is.
        """
        now = db_now(self.db)
        found = Subscription.objects.using(self.db).filter(pk__any=ids)
        made = [Lane.of(subscription, now) for subscription in found]
        self.bulk_create(made, batch_size=500, ignore_conflicts=True)
        return len(made)

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
        if not locked:
            return
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
    # The breaker (engine/pacing.py): open means parked, one probe at a time.
    parked_since = models.DateTimeField(_("parked since"), null=True, blank=True)
    probes = models.PositiveSmallIntegerField(
        _("probes"), default=0, help_text=_("Failed probes since it was parked.")
    )
    recent = models.PositiveIntegerField(_("recent attempts"), default=0)
    recent_failed = models.PositiveIntegerField(_("recent failures"), default=0)
    recent_since = models.DateTimeField(_("recent since"), null=True, blank=True)
    window = models.PositiveIntegerField(
        _("in flight at most"),
        null=True,
        blank=True,
        help_text=_("What the endpoint bears by its last answers; empty: not limited."),
    )
    ramp = models.PositiveIntegerField(
        _("ramp"),
        null=True,
        blank=True,
        help_text=_("POSTs a second while it recovers; empty: full speed."),
    )
    # The age of a delivery does not grow while its lane stands still.
    clock_stopped_ms = models.PositiveBigIntegerField(_("stood still, ms"), default=0)
    clock_stopped_since = models.DateTimeField(_("stands still since"), null=True, blank=True)
    probe_at = models.DateTimeField(
        _("next probe"),
        null=True,
        blank=True,
        help_text=_("When a subscription that the service suspended is tried once more."),
    )
    discard_before = models.DateTimeField(
        _("discard until"),
        null=True,
        blank=True,
        help_text=_("Pending deliveries that were made up to then are discarded, not sent."),
    )
    retime_before = models.DateTimeField(
        _("re-time until"),
        null=True,
        blank=True,
        help_text=_("Pending deliveries that were made up to then are moved to another window."),
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
        indexes = [
            models.Index(
                fields=["probe_at"],
                condition=models.Q(probe_at__isnull=False),
                name="webhooks_lane_probe",
            ),
        ]
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
        return gettext("lane of %(id)s") % {"id": self.pk}

    @classmethod
    def of(cls, subscription: Subscription, now: datetime) -> Lane:
        """A new subscription's lane, not yet written. Its clock stands still while it is held."""
        held = subscription.status in ON_HOLD
        stopped = now if held else None
        return cls(subscription=subscription, held=held, clock_stopped_since=stopped)

    def clock_at(self, now: datetime) -> int:
        """For how long this lane has stood still in all by ``now``, in ms.

        A delivery remembers what that was when it was first due, and its age does not grow by what
        was added since: while the lane is on hold, parked, or held by the client's own rate.
        """
        stands = now - (self.clock_stopped_since or now)
        return self.clock_stopped_ms - self._counted_ahead(now) + max(0, _milliseconds(stands))

    def _counted_ahead(self, now: datetime) -> int:
        """What is left of a rest that was added to the clock when it began, in ms."""
        if self.paused_until is None or self.pause_reason not in COUNTED_AHEAD:
            return 0
        return min(self.clock_stopped_ms, max(0, _milliseconds(self.paused_until - now)))

    def is_leased(self, now: datetime) -> bool:
        """Whether a worker holds it, and so may have POSTs of it under way."""
        return self.token is not None and self.lease_until is not None and self.lease_until > now

    def probe_now(self, now: datetime) -> bool:
        """End the rest of a parked lane that nobody holds: its next probe goes now; whether it had
        one to wait for."""
        if self.parked_since is None or self.token is not None or self.paused_until is None:
            return False
        self.clock_stopped_ms -= self._counted_ahead(now)
        self.paused_until = min(self.paused_until, now)
        return True

    def hold(self, held: bool, now: datetime) -> None:
        """Send nothing from now on, or send again; the clock follows."""
        if held and self.clock_stopped_since is None:
            # Up to the end of its rest it has been counted.
            self.clock_stopped_since = now + timedelta(milliseconds=self._counted_ahead(now))
        elif not held and self.clock_stopped_since is not None:
            self.clock_stopped_ms += max(0, _milliseconds(now - self.clock_stopped_since))
            self.clock_stopped_since = None
        self.held = held

    def next_claim(self, earliest_due: datetime | None) -> datetime | None:
        """When a lane that nobody holds may be claimed, given its earliest due delivery."""
        if self.held or earliest_due is None:
            return None
        return max(earliest_due, self.paused_until or earliest_due)

    def begin_anew(self, now: datetime) -> None:
        """Forget the old endpoint's pause and failures: another one, or a mended one, is tried."""
        self.clock_stopped_ms -= self._counted_ahead(now)  # the rest ends here
        if self.clock_stopped_since is not None:
            self.clock_stopped_since = min(self.clock_stopped_since, now)
        self.paused_until = None
        self.pause_reason = ""
        self.failures = 0
        self.failing_since = None
        self.latency_ms = None
        self.parked_since = None
        self.probes = 0
        self.recent = self.recent_failed = 0
        self.recent_since = None
        self.window = self.ramp = None

    def values(self, columns: Iterable[str]) -> tuple[object, ...]:
        return (self.pk, *(getattr(self, column) for column in columns))


# A related field has lookups of its own; this one's key is an id like any other.
Lane._meta.get_field("subscription").register_lookup(AnyOf)


def _milliseconds(span: timedelta) -> int:
    return round(span / timedelta(milliseconds=1))
