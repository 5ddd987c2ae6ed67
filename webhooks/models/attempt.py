"""``DeliveryAttempt``: what was sent and what came back, one row for each POST."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from django.db import connections, models
from django.utils.translation import gettext_lazy as _

from webhooks.models.bulk import insert_rows
from webhooks.models.delivery import Delivery
from webhooks.models.fields import PrefixedIdField, new_attempt_id
from webhooks.models.subscription import Subscription

#: Of the newest attempts so many are looked through where no index leads to failures.
LOOKED_THROUGH = 2000


class AttemptQuerySet(models.QuerySet["DeliveryAttempt"]):
    def of(self, delivery: Delivery) -> AttemptQuerySet:
        """The attempts at one delivery, oldest first: under its event's id and its message's."""
        return self.filter(
            subscription_id=delivery.subscription_id,
            message_id__in={delivery.event_id, delivery.webhook_id},
        ).order_by("pk")

    def newest_failures(self, codes: Iterable[str]) -> dict[str, str]:
        """Error codes, each with the id of the newest attempt that ended so, where there is one.

        One statement for each code, through the partial index of failures. A database without such
        indexes is asked for its newest attempts alone: a code that nothing has would read them all.
        """
        if not connections[self.db].features.supports_partial_indexes:
            found: dict[str, str] = {}
            newest = self.order_by("-pk").values_list("error_code", "pk")
            for code, pk in newest[:LOOKED_THROUGH]:
                found.setdefault(code, pk)
            return {code: found[code] for code in codes if code in found}
        failed = self.exclude(error_code="")  # as the index has it: SQLite draws no conclusions
        newest_of = {
            code: failed.filter(error_code=code)
            .order_by("-pk")
            .values_list("pk", flat=True)
            .first()
            for code in codes
        }
        return {code: pk for code, pk in newest_of.items() if pk is not None}

    def append(self, rows: Iterable[Sequence[Any]]) -> None:
        """Insert attempts, in the order of ``APPENDED``."""
        insert_rows(self.db, DeliveryAttempt, APPENDED, list(rows), copy=True)


class DeliveryAttempt(models.Model):
    """One POST and its answer. Rows are only ever added, and removed when they are old."""

    class Trigger(models.TextChoices):
        FIRST = "first", _("first try")
        RETRY = "retry", _("retry")
        PROBE = "probe", _("probe")
        MANUAL = "manual", _("by hand")
        REPLAY = "replay", _("replay")
        PING = "ping", _("ping")
        DIGEST = "digest", _("digest")

    id = PrefixedIdField(prefix="att", primary_key=True, default=new_attempt_id, editable=False)
    # Without a constraint in the database: a log may outlive what it tells of, and the check
    # would cost more than the row.
    subscription = models.ForeignKey(
        Subscription,
        models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="attempts",
    )
    message_id = models.CharField(_("message"), max_length=36, help_text=_("The webhook-id."))
    number = models.PositiveSmallIntegerField(_("number"), default=1)
    trigger = models.CharField(
        _("trigger"), max_length=8, choices=Trigger.choices, default=Trigger.FIRST
    )
    due_at = models.DateTimeField(_("due at"))
    started_at = models.DateTimeField(_("started at"))
    status_code = models.PositiveSmallIntegerField(_("status code"), null=True, blank=True)
    error_code = models.CharField(
        _("error code"), max_length=32, blank=True, default="", help_text=_("Empty: success.")
    )
    error_detail = models.CharField(_("error"), max_length=200, blank=True, default="")
    elapsed_ms = models.PositiveIntegerField(_("milliseconds"), default=0)
    excerpt = models.TextField(_("answer"), blank=True, default="")
    truncated = models.BooleanField(_("truncated"), default=False)
    event_count = models.PositiveIntegerField(_("events"), default=1)

    objects = AttemptQuerySet.as_manager()

    class Meta:
        verbose_name = _("delivery attempt")
        verbose_name_plural = _("delivery attempts")
        indexes = [
            models.Index(fields=["message_id"], name="webhooks_attempt_message"),
            models.Index(fields=["subscription", "id"], name="webhooks_attempt_of"),
            models.Index(
                fields=["error_code", "id"],
                condition=~models.Q(error_code=""),
                name="webhooks_attempt_failed",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.message_id} #{self.number}: {self.status_code or self.error_code}"


#: The columns of an attempt, in the order in which the recorder appends them.
APPENDED = (
    "id",
    "subscription",
    "message_id",
    "number",
    "trigger",
    "due_at",
    "started_at",
    "status_code",
    "error_code",
    "error_detail",
    "elapsed_ms",
    "excerpt",
    "truncated",
    "event_count",
)


def storable(text: str) -> str:
    """Text of an answer as every database takes it, whatever a host's own transport let through.

    An attempt that cannot be written would be sent again for ever.
    """
    return text.replace("\0", "").encode("utf-8", "replace").decode()
