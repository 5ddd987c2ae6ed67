"""``Subscription``: what a client asked for. ``SigningSecret``: what signs its messages."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self
from zoneinfo import available_timezones

from django.conf import settings as django_settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models.functions import Cast
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.views.decorators.debug import sensitive_variables
from oauth2_provider.settings import oauth2_settings

from webhooks import catalog
from webhooks.access import ALL, Client, granted, sees
from webhooks.bounds import MAX_INTEGER, is_storable, metadata_fault
from webhooks.conf import settings
from webhooks.exceptions import BlockedAddress
from webhooks.headers import clean_headers
from webhooks.models.fields import (
    PrefixedIdField,
    SealedField,
    new_secret_id,
    new_subscription_id,
)
from webhooks.shapes import shape_faults
from webhooks.transports.addresses import check_url

if TYPE_CHECKING:
    from webhooks.models.lane import Lane


class Status(models.TextChoices):
    PENDING = "pending", _("pending")
    SUBSCRIBED = "subscribed", _("subscribed")
    SUSPENDED = "suspended", _("suspended")
    UNSUBSCRIBED = "unsubscribed", _("unsubscribed")


class Trigger(models.TextChoices):
    REALTIME = "realtime", _("in real time")
    HOURLY = "hourly", _("hourly")
    DAILY = "daily", _("daily")
    MONTHLY = "monthly", _("monthly")


class Format(models.TextChoices):
    STANDARD = "standard", _("Standard Webhooks")
    CLOUDEVENTS = "cloudevents", _("CloudEvents")
    MANDRILL = "mandrill", _("Mandrill")


class Payload(models.TextChoices):
    FULL = "full", _("full")
    THIN = "thin", _("thin")


class Content(models.TextChoices):
    EVENTS = "events", _("events")
    COUNTS = "counts", _("counts")


class OnSuspend(models.TextChoices):
    KEEP = "keep", _("keep new events")
    DISCARD = "discard", _("discard new events")


class Handshake(models.TextChoices):
    NONE = "", _("none")
    HOOK_SECRET = "x-hook-secret", _("X-Hook-Secret")
    CLOUDEVENTS = "cloudevents", _("CloudEvents")


#: Statuses in which nothing is sent. (An unsubscribed lane is claimed: to cancel what is pending.)
ON_HOLD = (Status.PENDING, Status.SUSPENDED)

#: Why the service itself suspends an endpoint that fails, and resumes it after a probe.
FOR_FAILING, BY_PROBE = "failing", "recovered"

#: Statuses in which a subscription is given new deliveries.
RECEIVING = (Status.SUBSCRIBED, Status.SUSPENDED)

#: What chooses the window of a digest: pending deliveries follow where one of these is changed.
SCHEDULE = ("trigger", "time_zone", "hour", "day")

#: Fields that hold text from outside, and numbers, as far as nothing else bounds them.
TEXTS = ("requester", "scopes", "status_reason", "status_actor", "description", "contact_email")
COUNTS = ("batch_seconds", "rate_limit", "max_in_flight")
#: An event waits for others to fill its batch for so many seconds at most.
MOST_BATCH_SECONDS = 3600

#: The namespace of what the service itself tells subscribers of: how their subscriptions fare.
OPERATIONAL = "webhooks."


def matches(patterns: Any, event_type: str) -> bool:
    """Whether one of the patterns covers the type.

    ``*`` covers all of the host's, ``push.*`` all that begin with ``push.``, anything else itself
    alone. What is no list of texts (a row that was written past ``clean``) covers nothing, and
    stops nobody else.
    """
    if not isinstance(patterns, list):
        return False
    # Operational events go to those alone who ask for them by name or by ``webhooks.*``: who wants
    # all that happens in the host's business has not asked to hear of dead deliveries among it.
    operational = event_type.startswith(OPERATIONAL)
    for pattern in patterns:
        if pattern == event_type or (pattern == "*" and not operational):
            return True
        if not isinstance(pattern, str) or not pattern.endswith(".*"):
            continue
        if event_type.startswith(pattern[:-1]):
            return True
    return False


class SubscriptionQuerySet(models.QuerySet["Subscription"]):
    def receiving(self) -> Self:
        """Those that new events are kept for."""
        return self.filter(status__in=RECEIVING)

    def asking_for_operational(self, requesters: Collection[str]) -> list[tuple[str, Any]]:
        """Requester and patterns of those that may receive operational events; one statement.

        Found by the text of the patterns, since not every database can look into a JSON list; what
        the patterns cover is for :func:`matches` to say.
        """
        asking = (
            self.receiving()
            .filter(requester__in=requesters)
            .annotate(patterns=Cast("event_types", models.TextField()))
            .filter(patterns__contains=f'"{OPERATIONAL}')
        )
        return list(asking.values_list("requester", "event_types"))

    def owned_by(self, client: Client) -> Self:
        """Those that a client of the API may see: its requester's, of the same application."""
        return self.filter(requester=client.requester, application=client.application_id)


class SubscriptionManager(models.Manager.from_queryset(SubscriptionQuerySet)):  # type: ignore[misc]
    @sensitive_variables()
    def subscribe(self, **asked: Any) -> tuple[Subscription, str]:
        """Make a live subscription; see :func:`webhooks.lifecycle.subscribe`."""
        from webhooks.lifecycle import subscribe

        return subscribe(**asked)


class Subscription(models.Model):
    """Where, for which events, and how a client wants to be told."""

    Status = Status

    id = PrefixedIdField(
        prefix="sub", primary_key=True, default=new_subscription_id, editable=False
    )
    requester = models.CharField(
        _("requester"), max_length=255, help_text=_("Who owns it, e.g. app:<client id>.")
    )
    # Neither has a constraint in the database: a subscription outlives them, suspended and with a
    # reason, where a cascade would make deliveries vanish.
    application = models.ForeignKey(
        oauth2_settings.APPLICATION_MODEL,
        models.DO_NOTHING,
        null=True,
        blank=True,
        db_constraint=False,
        related_name="+",
        verbose_name=_("application"),
    )
    user = models.ForeignKey(
        django_settings.AUTH_USER_MODEL,
        models.DO_NOTHING,
        null=True,
        blank=True,
        db_constraint=False,
        related_name="+",
        verbose_name=_("user"),
    )
    scopes = models.TextField(_("granted scopes"), blank=True, default="")
    callback_url = models.CharField(_("callback URL"), max_length=2048)
    event_types = models.JSONField(
        _("event types"), default=list, help_text=_('E.g. ["push.clicked", "push.*", "*"].')
    )
    status = models.CharField(
        _("status"), max_length=16, choices=Status.choices, default=Status.PENDING
    )
    status_reason = models.CharField(_("reason"), max_length=64, blank=True, default="")
    status_since = models.DateTimeField(_("since"), default=timezone.now)
    status_actor = models.CharField(
        _("changed by"),
        max_length=255,
        blank=True,
        default="",
        help_text=_("Who asked for it, e.g. app:<client id>; empty: the service itself."),
    )
    # Written when the grant that the client held is revoked: the tokens themselves are deleted,
    # by a revocation as well as by the clean-up of expired ones.
    grant_revoked_at = models.DateTimeField(_("grant revoked at"), null=True, editable=False)

    reshaped_at = models.DateTimeField(
        _("shape changed at"),
        null=True,
        editable=False,
        help_text=_("What was tried before then, in another format or payload, gets another id."),
    )

    trigger = models.CharField(
        _("trigger"), max_length=16, choices=Trigger.choices, default=Trigger.REALTIME
    )
    time_zone = models.CharField(_("time zone"), max_length=64, default="UTC")
    hour = models.PositiveSmallIntegerField(
        _("hour of day"), default=0, validators=[MaxValueValidator(23)]
    )
    day = models.PositiveSmallIntegerField(
        _("day of month"), default=1, validators=[MinValueValidator(1), MaxValueValidator(31)]
    )
    # Without choices: a host has formats of its own.
    format = models.CharField(_("format"), max_length=32, default=Format.STANDARD)
    payload = models.CharField(
        _("payload"), max_length=8, choices=Payload.choices, default=Payload.FULL
    )
    content = models.CharField(
        _("content"), max_length=8, choices=Content.choices, default=Content.EVENTS
    )
    batch_size = models.PositiveIntegerField(
        _("batch size"), default=1, validators=[MinValueValidator(1), MaxValueValidator(1000)]
    )
    batch_seconds = models.PositiveIntegerField(
        _("batch seconds"),
        default=0,
        validators=[MaxValueValidator(MOST_BATCH_SECONDS)],
        help_text=_("How long an event waits for others, in real time, while a batch is not full."),
    )
    empty_digests = models.BooleanField(
        _("empty digests"),
        default=False,
        db_default=False,
        help_text=_("Send a digest also of a window in which nothing happened."),
    )
    rate_limit = models.PositiveIntegerField(
        _("rate limit"),
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text=_("POSTs for each minute."),
    )
    max_in_flight = models.PositiveIntegerField(
        _("POSTs at once"), null=True, blank=True, validators=[MinValueValidator(1)]
    )
    ordered = models.BooleanField(
        _("in order"), default=False, help_text=_("One at a time; a failure holds the rest.")
    )
    on_suspend = models.CharField(
        _("while suspended"), max_length=8, choices=OnSuspend.choices, default=OnSuspend.KEEP
    )
    handshake = models.CharField(
        _("handshake"), max_length=16, choices=Handshake.choices, blank=True, default=""
    )
    retry_schedule = models.JSONField(
        _("retry schedule"),
        null=True,
        blank=True,
        default=None,
        help_text=_("Seconds to wait after each failed try; none given: the service's."),
    )
    headers = SealedField(_("headers"), blank=True, default="", editable=False)
    basic_auth = SealedField(_("basic auth"), blank=True, default="", editable=False)
    contact_email = models.EmailField(_("contact e-mail"), blank=True, default="")
    description = models.CharField(_("description"), max_length=255, blank=True, default="")
    metadata = models.JSONField(_("metadata"), default=dict, blank=True)
    created_at = models.DateTimeField(_("created at"), default=timezone.now, editable=False)
    updated_at = models.DateTimeField(_("updated at"), auto_now=True)

    objects = SubscriptionManager()

    lane: Lane

    class Meta:
        verbose_name = _("subscription")
        verbose_name_plural = _("subscriptions")
        # To unsubscribe is to delete it, as far as a person may: the row stays for the log.
        permissions = [
            ("ping_subscription", "Can ping subscriptions"),
            ("suspend_subscription", "Can suspend and resume subscriptions"),
            ("rotate_secret_subscription", "Can rotate signing secrets"),
        ]
        indexes = [
            models.Index(fields=["requester", "status"], name="webhooks_sub_requester"),
            models.Index(fields=["status", "id"], name="webhooks_sub_status"),
            models.Index(
                fields=["trigger", "time_zone", "hour", "day", "status"],
                condition=~models.Q(trigger=Trigger.REALTIME),
                name="webhooks_sub_scheduled",
            ),
        ]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(status__in=Status.values), name="webhooks_sub_status_known"
            ),
        ]

    def __str__(self) -> str:
        # Without the query: it is where people put their tokens.
        return f"{self.requester} → {self.callback_url.split('?')[0]}"

    @property
    def is_scheduled(self) -> bool:
        """Whether its events come in digests."""
        return self.trigger != Trigger.REALTIME

    @property
    def batches(self) -> bool:
        """Whether its events travel in batches: in the batch's envelope, also if it is one."""
        return self.trigger != Trigger.REALTIME or self.batch_size > 1

    @property
    def waits(self) -> Sequence[float]:
        """Seconds to wait after each failed try: its own schedule, or the service's."""
        own: Any = self.retry_schedule
        # None, or what was written past ``clean``: the service's.
        waits: Sequence[float] = own if is_schedule(own) else settings.RETRY_SCHEDULE
        return waits

    def covers(self, event_type: str) -> bool:
        return matches(self.event_types, event_type)

    def hidden_from(self, scopes: Collection[str], patterns: list[str] | None = None) -> list[str]:
        """The event types that it receives, and that these scopes do not see.

        patterns: others than its own, which it is to be given.
        """
        asked = self.event_types if patterns is None else patterns
        # While its owner is entitled to nothing, what it had been granted may come back.
        whole = granted(self)
        if whole is None:
            whole = frozenset(self.scopes.split()) or ALL
        return [
            entry.name
            for entry in catalog.visible(whole)
            if matches(asked, entry.name) and not sees(scopes, entry)
        ]

    def clean(self) -> None:
        """Refuse what cannot be sent to, matched, or acted upon."""
        self.judge({field.name for field in self._meta.concrete_fields})

    def judge(self, names: Collection[str]) -> None:
        """:meth:`clean`, of these fields alone. Raises ValidationError.

        What was good when it was written need not be so for ever, and must not stand in the way of
        changing something else.
        """
        errors: dict[str, Any] = {}
        if "callback_url" in names:
            try:
                check_url(self.callback_url)
            except BlockedAddress as error:
                errors["callback_url"] = str(error)
        if "event_types" in names:
            try:
                catalog.check_patterns(self.event_types, granted(self))
            except ValueError as error:
                errors["event_types"] = str(error)
        if "time_zone" in names and self.time_zone not in available_timezones():
            errors["time_zone"] = _("It is no time zone of the IANA database, e.g. Asia/Singapore.")
        schedule = self.retry_schedule
        if schedule is not None and not is_schedule(schedule):
            errors["retry_schedule"] = _(
                "A list of at most 30 numbers of seconds, each from 1 to 86,400."
            )
        if "metadata" in names and (fault := metadata_fault(self.metadata)):
            errors["metadata"] = fault
        for name in TEXTS:
            if name in names and not is_storable(str(getattr(self, name))):
                errors[name] = _(
                    "It holds a character that cannot be stored (U+0000, a surrogate)."
                )
        for name in COUNTS:
            value = getattr(self, name)
            if name in names and isinstance(value, int) and value > MAX_INTEGER:
                errors[name] = _("At most %(limit)d.") % {"limit": MAX_INTEGER}
        errors |= shape_faults(self, names)
        if {"headers", "basic_auth"} & set(names):
            errors.update(clean_headers(self))
        if errors:
            raise ValidationError(errors)


def is_schedule(value: Any) -> bool:
    """Whether this is a retry schedule: a list of seconds, each from 1 to 86,400."""
    return (
        isinstance(value, list)
        and len(value) <= 30
        and all(type(wait) in (int, float) and 1 <= wait <= 86_400 for wait in value)
    )


class SecretQuerySet(models.QuerySet["SigningSecret"]):
    def live(self, now: datetime) -> Self:
        """Those that sign at ``now``, newest first."""
        return self.filter(
            models.Q(expires_at__isnull=True) | models.Q(expires_at__gt=now)
        ).order_by("-pk")


class SigningSecret(models.Model):
    """A signing secret of a subscription. Every live one signs, newest first."""

    id = PrefixedIdField(prefix="sec", primary_key=True, default=new_secret_id, editable=False)
    subscription = models.ForeignKey(Subscription, models.CASCADE, related_name="secrets")
    value = SealedField(_("secret"), editable=False)
    last_four = models.CharField(_("last four"), max_length=4, editable=False)
    created_at = models.DateTimeField(_("created at"), default=timezone.now, editable=False)
    expires_at = models.DateTimeField(_("expires at"), null=True, blank=True)

    objects = SecretQuerySet.as_manager()

    class Meta:
        verbose_name = _("signing secret")
        verbose_name_plural = _("signing secrets")

    def __str__(self) -> str:
        return f"…{self.last_four}"
