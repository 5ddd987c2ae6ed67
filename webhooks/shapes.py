"""What a subscription may ask for: the shape of what it is sent, as far as that depends on settings
of the host and on its other fields.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from django.urls import NoReverseMatch, reverse
from django.utils.translation import gettext as _

from webhooks.conf import settings
from webhooks.formats import known

if TYPE_CHECKING:
    from webhooks.models import Subscription


def shape_faults(subscription: Subscription, names: Collection[str]) -> dict[str, Any]:
    """Why a subscription cannot be sent what it asks for, by field.

    names: the fields that were changed; only what depends on one of them is judged.
    """
    faults: dict[str, Any] = {}
    if "format" in names and (fault := _format_fault(subscription.format)):
        faults["format"] = fault
    if "payload" in names and subscription.payload == "thin" and (fault := _link_fault()):
        faults["payload"] = fault
    # Who goes back to real time keeps them for the next digests.
    in_real_time = not subscription.is_scheduled
    if "content" in names and subscription.content == "counts" and in_real_time:
        faults["content"] = _(
            "Counts alone come in digests: choose a trigger other than realtime with it."
        )
    if "empty_digests" in names and subscription.empty_digests and in_real_time:
        faults["empty_digests"] = _(
            "Only a digest can be empty: choose a trigger other than realtime with it."
        )
    return faults


def available_formats() -> list[str]:
    """The formats that a subscription may choose here."""
    return [name for name in known() if not _format_fault(name)]


def links_are_known() -> bool:
    """Whether a thin payload may be chosen: whether the service knows its own URL."""
    return not _link_fault()


def event_link(event_id: str) -> str:
    """The absolute URL under which a subscriber fetches an event: what a thin payload carries."""
    return str(settings.BASE_URL).rstrip("/") + reverse("webhooks:event", args=[event_id])


def _format_fault(name: str) -> str:
    if name not in known():
        return _("%(name)r is no format. Known formats: %(known)s.") % {
            "name": name[:64],
            "known": ", ".join(known()),
        }
    if name == "cloudevents" and not settings.CLOUDEVENTS_SOURCE:
        return _("This service has no source for CloudEvents yet. Choose another format.")
    return ""


def _link_fault() -> str:
    try:
        parts = urlsplit(event_link("evt_" + "0" * 32))
    except (NoReverseMatch, ValueError):
        return _("This service has no URL at which an event can be fetched. Choose full.")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        return _("This service does not know its own URL yet, so no link can be sent. Choose full.")
    return ""


def host_of(url: str) -> str:
    """The host of a URL for counting shares; "" where there is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
