"""What is read of many lanes at once, for the sweep and for those who judge; nothing is changed."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import TYPE_CHECKING, Self

from django.db import models

from webhooks.clock import db_now
from webhooks.models.attempt import DeliveryAttempt
from webhooks.models.delivery import Delivery
from webhooks.models.subscription import FOR_FAILING, ON_HOLD, Status

if TYPE_CHECKING:
    from webhooks.models.lane import Lane  # noqa: F401 (the class below names it)

#: What ``Lane.told`` says; "": nothing, or that all is well.
FAILING, SUSPENDED = "failing", "suspended"
#: Reasons of a status that its owner chose, later or when it subscribed.
BY_ITS_OWNER = ("client", "")


class LaneReports(models.QuerySet["Lane"]):
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

    def failing_for_long(self, before: datetime, failures: int) -> Self:
        """Lanes that send, and whose endpoints failed first before then and ``failures`` times
        since, without a success; the longest failing first.

        None whose owner has not been told of it: nobody is suspended without a warning.
        """
        return self.filter(
            subscription__status=Status.SUBSCRIBED,
            failures__gte=failures,
            failing_since__lte=before,
            told=FAILING,
        ).order_by("failing_since", "pk")

    def failing_now(self, failures: int) -> Self:
        """Lanes that send and are parked, or whose last ``failures`` attempts failed."""
        return self.filter(
            models.Q(failures__gte=failures) | models.Q(parked_since__isnull=False),
            subscription__status=Status.SUBSCRIBED,
        )

    def failing_most(self, since: datetime, limit: int) -> list[str]:
        """Lanes that failed since then: those with the most failures in a row, then the latest."""
        failed = self.filter(last_failure_at__gte=since)
        found = failed.order_by("-failures", "-last_failure_at", "pk")
        return list(found.values_list("pk", flat=True)[:limit])

    def to_probe(self, by: datetime | None = None) -> Self:
        """Lanes of subscriptions that the service suspended and tries now and then; with ``by``,
        whose next probe is due then."""
        lanes = self.filter(
            probe_at__isnull=False,
            subscription__status=Status.SUSPENDED,
            subscription__status_reason=FOR_FAILING,
        )
        return lanes if by is None else lanes.filter(probe_at__lte=by)

    def next_claim_at(self) -> datetime | None:
        """When the first lane of all may be claimed."""
        return (
            self.filter(claim_at__isnull=False)
            .order_by("claim_at")
            .values_list("claim_at", flat=True)
            .first()
        )
