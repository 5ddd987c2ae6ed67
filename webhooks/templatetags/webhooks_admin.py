"""What the admin's templates say in one way everywhere: statuses, times, numbers, links."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from django import template
from django.utils import formats
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from webhooks import health
from webhooks.health import headlines
from webhooks.health.workers import Scheduled
from webhooks.models import Delivery, Replay
from webhooks.models.subscription import Status
from webhooks.texts import visible

register = template.Library()
register.filter("visible", visible)

#: In place of a figure that there is not.
NOTHING = "\N{EN DASH}"

#: By status: the tone of its mark, the mark, the word. The shape says what the colour says.
CHIPS: dict[str, tuple[str, str, Any]] = {
    **{
        status: (tone, headlines.MARKS[status], headlines.WORDS[status])
        for status, tone in {
            "healthy": "good",
            "degraded": "warn",
            "down": "bad",
            "failing": "bad",
            "idle": "quiet",
        }.items()
    },
    Status.PENDING.value: ("quiet", "◌", Status.PENDING.label),
    Status.SUBSCRIBED.value: ("good", "●", Status.SUBSCRIBED.label),
    Status.SUSPENDED.value: ("warn", "▲", Status.SUSPENDED.label),
    Status.UNSUBSCRIBED.value: ("quiet", "○", Status.UNSUBSCRIBED.label),
    Delivery.State.DELIVERED.value: ("good", "●", Delivery.State.DELIVERED.label),
    Delivery.State.DEAD.value: ("bad", "■", Delivery.State.DEAD.label),
    Delivery.State.CANCELLED.value: ("quiet", "○", Delivery.State.CANCELLED.label),
    Delivery.State.DISCARDED.value: ("quiet", "○", Delivery.State.DISCARDED.label),
    Delivery.State.EXPIRED.value: ("warn", "▲", Delivery.State.EXPIRED.label),
    Replay.State.RUNNING.value: ("quiet", "◌", Replay.State.RUNNING.label),
    Replay.State.FINISHED.value: ("good", "●", Replay.State.FINISHED.label),
    "late": ("warn", "▲", gettext_lazy("late")),
    "silent": ("bad", "■", gettext_lazy("silent")),
    "on time": ("good", "●", gettext_lazy("on time")),
    "never": ("quiet", "○", gettext_lazy("never run")),
    "all types": ("warn", "▲", gettext_lazy("All events")),
}


@register.simple_tag
def chip(status: str, words: str = "") -> SafeString:
    """A status as mark and word. words: other ones than it usually has."""
    tone, mark, word = CHIPS.get(status, ("quiet", "◌", status))
    return format_html(
        '<span class="wh-chip wh-{}"><span class="wh-mark" aria-hidden="true">{}</span> {}</span>',
        tone,
        mark,
        words or word,
    )


@register.simple_tag
def at(moment: datetime | None, form: str = "minutes") -> SafeString | str:
    """A time in UTC. form: ``minutes``, or ``seconds`` for the time of day with its seconds."""
    if moment is None:
        return NOTHING
    utc = moment.astimezone(UTC)
    text = f"{utc:%H:%M:%S} UTC" if form == "seconds" else f"{utc:%Y-%m-%d %H:%M} UTC"
    return format_html('<time datetime="{}">{}</time>', utc.isoformat(), text)


@register.filter
def span(value: timedelta | float | None) -> str:
    """A length of time (seconds, or a timedelta) in the unit that fits."""
    if value is None:
        return NOTHING
    return headlines.span(value if isinstance(value, timedelta) else timedelta(seconds=value))


@register.simple_tag
def lateness(each: Scheduled) -> SafeString:
    """Whether what runs by the clock is late, as mark and words."""
    status = "never" if each.ran_at is None else "late" if each.late else "on time"
    return chip(status, health.lateness(each))


@register.filter
def how_to_fix(each: Scheduled) -> str:
    """What to do about it; "" where it is on time."""
    return health.how_to_fix(each)


@register.filter
def milliseconds(value: float | None) -> str:
    return NOTHING if value is None else _("%(n)s ms") % {"n": number(value)}


@register.filter
def number(value: float | None) -> str:
    return NOTHING if value is None else formats.number_format(round(value), force_grouping=True)


@register.filter
def capped(value: int) -> str:
    """A number that was counted up to a limit: ``10,000+``."""
    return headlines.capped(value)


@register.filter
def percent(share: float | None) -> str:
    """A share of one as a percentage, rounded down: what is not all is not 100."""
    if share is None:
        return NOTHING
    return _("%(n)s %%") % {"n": formats.number_format(int(share * 1000) / 10, 1)}


@register.filter
def host(url: str) -> SafeString:
    """An address with its host in bold, and without its query, where people put tokens."""
    try:
        parts = urlsplit(url)
        name = parts.hostname or ""
    except ValueError:
        return format_html("{}", url.split("?")[0])
    shown = url.split("?")[0].split("#")[0]
    before, found, after = shown.partition(name) if name else (shown, "", "")
    return format_html("{}<strong>{}</strong>{}", before, found, after)


@register.filter
def safe_link(url: str, text: str = "") -> SafeString:
    """A link to an address from outside, where that is http or https; else its text."""
    if str(url).lower().startswith(("http://", "https://")):
        return format_html('<a href="{}" rel="noopener noreferrer">{}</a>', url, text or url)
    return format_html("{}", text or url)
