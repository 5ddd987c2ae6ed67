"""Subscriptions as clients write and read them. What is secret goes in, and never comes out."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from rest_framework import serializers

from webhooks.api.serializers.fields import (
    MASK,
    Choice,
    Flag,
    Id,
    Integer,
    JsonObject,
    Moment,
    Number,
    Text,
)
from webhooks.api.serializers.strict import PageQuery, StrictSerializer
from webhooks.bounds import MAX_INTEGER, metadata_fault
from webhooks.engine.windows import window_for
from webhooks.exceptions import SecretUnreadable
from webhooks.formats import known
from webhooks.headers import open_headers
from webhooks.models import Subscription
from webhooks.models.subscription import (
    MOST_BATCH_SECONDS,
    Content,
    Handshake,
    OnSuspend,
    Payload,
    Status,
    Trigger,
)

#: What other implementations of REST Hooks call our fields.
ALIASES: Final[dict[str, str]] = {
    "target_url": "callback_url",
    "url": "callback_url",
    "hookUrl": "callback_url",
    "event": "event_types",
    "events": "event_types",
}

#: Options that a PUT sets back where it does not name them, to what they are for a new one.
RESET: Final = (
    *("trigger", "time_zone", "hour", "day", "format", "payload", "content", "batch_size"),
    *(
        "batch_seconds",
        "empty_digests",
        "rate_limit",
        "max_in_flight",
        "ordered",
        "on_suspend",
        "retry_schedule",
    ),
    *("headers", "basic_auth", "contact_email", "description", "metadata"),
)


class Headers(JsonObject):
    """Names and values; the values are shown masked, and a mask is no value."""

    def to_internal_value(self, data: Any) -> Any:
        headers = super().to_internal_value(data)
        masked = [name for name, value in headers.items() if value == MASK]
        if masked:
            raise serializers.ValidationError(
                _("The value of %(names)s is the mask in place of it. Send the value.")
                % {"names": ", ".join(masked)}
            )
        return headers

    def to_representation(self, value: Any) -> Any:
        try:
            return dict.fromkeys(open_headers(value), MASK)
        except SecretUnreadable:
            return {}


class Metadata(JsonObject):
    """An object of the client's own, small enough to be repeated in every answer."""

    def to_internal_value(self, data: Any) -> Any:
        metadata = super().to_internal_value(data)
        if fault := metadata_fault(metadata):
            raise serializers.ValidationError(fault)
        return metadata


class BasicAuth(Text):
    """``user:password``, shown as a mask where there is one."""

    def run_validation(self, data: Any = serializers.empty) -> Any:
        if data == MASK:
            raise serializers.ValidationError(_("This is the mask in place of it. Send the value."))
        return super().run_validation("" if data is None else data)

    def get_attribute(self, instance: Any) -> Any:
        return bool(instance.basic_auth) or None

    def to_representation(self, value: Any) -> Any:
        return MASK


class FormatName(Choice):
    """A format's name: ours, or the host's. Which there are is asked each time one is made."""

    def __init__(self, **options: Any) -> None:
        super().__init__(choices=known(), **options)


class Options(StrictSerializer):
    """What a client may choose, of a new subscription or an old one."""

    callback_url = Text(
        max_length=2048, help_text="Where the POSTs go. Also target_url, url, hookUrl."
    )
    event_types = serializers.ListField(
        child=Text(max_length=128),
        min_length=1,
        max_length=100,
        help_text='E.g. ["push.clicked", "push.*"], or one text. Also event, events.',
    )
    requester = Text(required=False, help_text="Your own; nobody else's is accepted.")
    trigger = Choice(
        choices=Trigger.choices,
        required=False,
        help_text=(
            "realtime, or digests: hourly, daily, monthly. What waits when it is changed, or the "
            "time zone, hour or day, moves to the window of that moment."
        ),
    )
    time_zone = Text(
        max_length=64, required=False, help_text="Of hour and day: an IANA name, e.g. Asia/Tokyo."
    )
    hour = Integer(
        min_value=0, max_value=23, required=False, help_text="At which days and months begin."
    )
    day = Integer(
        min_value=1,
        max_value=31,
        required=False,
        help_text="On which months begin: the last one where a month is shorter.",
    )
    format = FormatName(required=False, help_text="The dialect of body and signature.")
    payload = Choice(
        choices=Payload.choices,
        required=False,
        help_text="full, or thin: the event's URL in place of its data.",
    )
    content = Choice(
        choices=Content.choices,
        required=False,
        help_text="Of digests: events, or counts of each type alone.",
    )
    batch_size = Integer(
        min_value=1,
        max_value=1000,
        required=False,
        help_text=(
            "Events in one POST at most: above 1, they come in a batch, also if it is one. Of a "
            "digest's pages too; 1 means 1,000 there."
        ),
    )
    batch_seconds = Integer(
        min_value=0,
        max_value=MOST_BATCH_SECONDS,
        required=False,
        help_text="How long, in real time, an event waits for others to fill a batch.",
    )
    empty_digests = Flag(
        required=False, help_text="Send a digest also of a window in which nothing happened."
    )
    rate_limit = Integer(
        min_value=1,
        max_value=MAX_INTEGER,
        allow_null=True,
        required=False,
        help_text="POSTs for each minute.",
    )
    max_in_flight = Integer(min_value=1, max_value=MAX_INTEGER, allow_null=True, required=False)
    ordered = Flag(required=False, help_text="One at a time; a failure holds the rest.")
    on_suspend = Choice(choices=OnSuspend.choices, required=False)
    handshake = Choice(choices=Handshake.choices, required=False, allow_blank=True)
    retry_schedule = serializers.ListField(
        child=Number(min_value=1, max_value=86_400),
        max_length=30,
        allow_null=True,
        required=False,
        help_text="Seconds to wait after each failed try; null: the service's own.",
    )
    headers = Headers(required=False, help_text="Sent with each POST. Values are shown masked.")
    basic_auth = BasicAuth(
        required=False,
        allow_null=True,
        allow_blank=True,
        max_length=512,
        help_text="user:password, sent with each POST. Shown masked.",
    )
    contact_email = serializers.EmailField(required=False, allow_blank=True, max_length=254)
    description = Text(required=False, allow_blank=True, max_length=255)
    metadata = Metadata(
        required=False,
        help_text=(
            "Yours: kept and shown, not acted upon. At most 4 KiB of JSON; numbers between -10^15 "
            "and 10^15."
        ),
    )
    id = Id("sub", read_only=True)
    status_reason = Text(read_only=True)
    status_since = Moment(read_only=True)
    secret_last_four = Text(read_only=True)
    created_at = Moment(read_only=True)
    updated_at = Moment(read_only=True)

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            data = _plain_names(data)
            if isinstance(data.get("event_types"), str):
                data["event_types"] = [data["event_types"]]
        return super().to_internal_value(data)

    def validate_requester(self, value: str) -> str:
        if value != self.context["client"].requester:
            raise serializers.ValidationError(_("This is not you. Leave it out, or send your own."))
        return value


def _plain_names(data: Mapping[str, Any]) -> dict[str, Any]:
    """The names of ours for what came under another one. Raises ValidationError for both."""
    found: dict[str, Any] = {}
    spelt: dict[str, str] = {}
    errors: dict[str, list[str]] = {}
    for name, value in data.items():
        own = ALIASES.get(name, name)
        if own in found:
            errors[own] = [
                _("Given as %(one)s and as %(other)s. Send one of them.")
                % {"one": spelt[own], "other": name}
            ]
        found[own], spelt[own] = value, name
    if errors:
        raise serializers.ValidationError(errors)
    return found


class NewSubscription(Options):
    """The body of a create."""

    status = Choice(
        choices=[Status.SUBSCRIBED, Status.SUSPENDED],
        required=False,
        error_messages={
            "invalid_choice": gettext_lazy(
                "A new subscription is “subscribed” or “suspended”, not “{input}”. Send one of "
                "the two, or leave it out; to end a subscription, DELETE it by its id."
            )
        },
    )
    secret = Text(
        required=False,
        max_length=128,
        write_only=True,
        help_text="A signing secret of your own: whsec_ and base64 of 24 to 64 bytes.",
    )


class ChangedSubscription(Options):
    """The body of a PUT, which sets back the options that it leaves out."""

    status = Choice(
        choices=[Status.SUBSCRIBED, Status.SUSPENDED, Status.UNSUBSCRIBED], required=False
    )
    secret = Text(read_only=True, help_text="Rotate it: POST to rotate-secret/.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if not self.partial:
            fresh = Subscription()
            for name in RESET:
                attrs.setdefault(name, getattr(fresh, name))
        return attrs


class PatchedSubscription(ChangedSubscription):
    """The body of a PATCH, which changes what it names and nothing else."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, partial=True, **options)


class SubscriptionSerializer(serializers.Serializer[Any]):
    """A subscription. Secrets and values of headers are masked, for every token."""

    id = Id("sub")
    callback_url = Text()
    event_types = serializers.ListField(child=Text())
    requester = Text()
    status = Choice(choices=Status.choices)
    status_reason = Text(
        help_text="Why: client, operator, gone, handshake, entitlement_lost, failing, …"
    )
    status_since = Moment()
    trigger = Choice(choices=Trigger.choices)
    time_zone = Text()
    hour = Integer()
    day = Integer()
    format = Text()
    payload = Choice(choices=Payload.choices)
    content = Choice(choices=Content.choices)
    batch_size = Integer()
    batch_seconds = Integer()
    empty_digests = Flag()
    next_digest_at = serializers.SerializerMethodField(
        help_text="When the present window ends, and with it what waits for it; null in real time."
    )
    rate_limit = Integer(allow_null=True)
    max_in_flight = Integer(allow_null=True)
    ordered = Flag()
    on_suspend = Choice(choices=OnSuspend.choices)
    handshake = Choice(choices=Handshake.choices, allow_blank=True)
    retry_schedule = serializers.ListField(child=Number(), allow_null=True)
    headers = Headers(help_text="Names; the values are masked.")
    basic_auth = BasicAuth(allow_null=True, help_text="A mask where there is one.")
    contact_email = Text()
    description = Text()
    metadata = JsonObject()
    secret = serializers.SerializerMethodField(
        help_text="Shown once, when it is made; null ever after."
    )
    secret_last_four = serializers.SerializerMethodField(help_text="Of the newest secret.")
    created_at = Moment()
    updated_at = Moment()

    def get_secret(self, subscription: Subscription) -> str | None:
        shown: str | None = self.context.get("secret")
        return shown

    def get_next_digest_at(self, subscription: Subscription) -> datetime | None:
        if not subscription.is_scheduled:
            return None
        end = window_for(subscription, timezone.now()).end
        shown: Any = Moment().to_representation(end)
        return shown  # type: ignore[no-any-return]

    def get_secret_last_four(self, subscription: Subscription) -> str:
        # Sorted here, so that a prefetch serves a whole page.
        secrets = sorted(subscription.secrets.all(), key=lambda each: each.pk)
        return secrets[-1].last_four if secrets else ""


class SubscriptionQuery(PageQuery):
    """Filters of the list of subscriptions."""

    status = Choice(
        choices=Status.choices,
        required=False,
        help_text="Without it: all but the unsubscribed ones.",
    )
    event_type = Text(
        required=False,
        max_length=128,
        help_text="Those that cover it, or name this pattern.",
    )
    callback_url = Text(required=False, max_length=2048, help_text="Exactly this URL.")
