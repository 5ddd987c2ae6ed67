"""Verdicts in one sentence, for people: over the page of the service, and of a subscription."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from webhooks import remedies
from webhooks.conf import settings
from webhooks.health.reasons import lateness
from webhooks.health.service import ServiceHealth
from webhooks.health.subscriptions import SubscriptionHealth, of_subscription
from webhooks.health.verdicts import (
    DEGRADED,
    DOWN,
    FAILING,
    FAILING_AFTER,
    HEALTHY,
    IDLE,
    MOST_COUNTED,
    grouped,
)
from webhooks.health.verdicts import capped as capped
from webhooks.health.verdicts import span as span
from webhooks.health.workers import Crew
from webhooks.models import Delivery, DeliveryStats, Event, Lane, Subscription
from webhooks.models.stats import FRESH, WHOLE_SERVICE
from webhooks.models.subscription import Status
from webhooks.shapes import host_of

#: Each status as a word; the mark beside it says the same by its shape.
WORDS: Final = {
    HEALTHY: gettext_lazy("Healthy"),
    DEGRADED: gettext_lazy("Degraded"),
    DOWN: gettext_lazy("Down"),
    IDLE: gettext_lazy("Idle"),
    FAILING: gettext_lazy("Failing"),
    Status.PENDING.value: gettext_lazy("Pending"),
    Status.SUSPENDED.value: gettext_lazy("Suspended"),
    Status.UNSUBSCRIBED.value: gettext_lazy("Unsubscribed"),
}
#: Endpoints that are named below the headline.
NAMED: Final = 3
MARKS: Final = {HEALTHY: "●", DEGRADED: "▲", DOWN: "■", FAILING: "■", IDLE: "○"}


@dataclass(frozen=True, slots=True)
class Headline:
    """``<mark> <word> — <text>``. status: as in the verdict."""

    status: str
    text: str

    @property
    def mark(self) -> str:
        return MARKS.get(self.status, "◌")

    @property
    def word(self) -> str:
        return str(WORDS.get(self.status, self.status))

    def __str__(self) -> str:
        return f"{self.mark} {self.word} — {self.text}"


def headline(found: ServiceHealth, *, seen: bool = True) -> Headline:
    """The verdict on the service in one sentence; three statements at most.

    seen: whether the period that is looked at has events, although the last day has none.
    """
    if found.status == HEALTHY:
        text = _("deliveries are flowing.")
    elif found.status == IDLE:
        text = _("no events in the last 24 hours.") if seen else _("no events in this period.")
    elif found.status == DOWN:
        text = _down(found)
    else:
        text = _degraded(found)
    return Headline(found.status, text)


def of_crew(found: ServiceHealth, crew: Crew) -> Headline:
    """Who works, in one sentence."""
    codes = [reason.code for reason in found.verdict.reasons]
    late = [each for each in found.schedules if each.late]
    if "no_worker" in codes:
        time = span(timedelta(seconds=found.delivery_delay_s))
        text = _("work has been due for %(time)s, and no worker was heard of.") % {"time": time}
        return Headline(DOWN, text)
    if late:
        worst = max(late, key=lambda each: each.late or timedelta())
        said = {"name": worst.name, "late": lateness(worst)}
        return Headline(DEGRADED, _("%(name)s is %(late)s") % said)
    if all(each.ran_at is None for each in found.schedules):
        return Headline(IDLE, _("what runs by the clock has never run: see how to fix it below."))
    alive = sum(not each.is_silent for each in crew.workers)
    if not alive:
        return Headline(HEALTHY, _("nobody works now, and nothing is to be done."))
    said_of = ngettext(
        "%(workers)d worker is at work, with %(posts)s POSTs in flight.",
        "%(workers)d workers are at work, with %(posts)s POSTs in flight.",
        alive,
    )
    return Headline(HEALTHY, said_of % {"workers": alive, "posts": grouped(crew.in_flight)})


def sentence(found: SubscriptionHealth) -> str:
    """How a subscription fares, in a few sentences; what to do stands in the verdict's reasons."""
    parts = []
    now = found.updated_at
    if found.status in (FAILING, DEGRADED) and found.failing_since is not None:
        said = ngettext(
            "Failing since %(since)s (%(count)d attempt).",
            "Failing since %(since)s (%(count)d attempts).",
            found.failures,
        )
        parts.append(said % {"since": clock(found.failing_since, now), "count": found.failures})
        if title := remedies.remedy(found.last_error).title:
            parts.append(_("Last error: %(error)s.") % {"error": title})
        parts.append(waiting(found))
        if settings.AUTO_SUSPEND_SECONDS is not None:
            limit = timedelta(seconds=settings.AUTO_SUSPEND_SECONDS)
            parts.append(
                _("It will be suspended after %(time)s without a success.") % {"time": span(limit)}
            )
    elif found.reason is not None:
        parts.append(found.reason.message)
    elif found.status == IDLE:
        parts.append(_("Nothing was sent to it in the last 24 hours."))
    else:
        parts.append(_("Deliveries are flowing."))
    if found.last_success_at is not None:
        when = {"at": clock(found.last_success_at, now)}
        parts.append(_("Last success %(at)s.") % when)
    elif found.last_attempt is not None:
        parts.append(_("It has not succeeded yet."))
    return " ".join(filter(None, parts))


def waiting(found: SubscriptionHealth) -> str:
    """How many deliveries wait, and when the next try is; "" where none do."""
    if not found.pending:
        return ""
    said = ngettext("%(count)s delivery waits", "%(count)s deliveries wait", found.pending)
    said %= {"count": capped(found.pending)}
    if found.next_try_at is None:
        return f"{said}."
    if found.next_try_at <= found.updated_at:
        return _("%(waiting)s; the next try is due now.") % {"waiting": said}
    at = clock(found.next_try_at, found.updated_at, seconds=True)
    return _("%(waiting)s; the next try is at %(at)s.") % {"waiting": said, "at": at}


def failing_endpoints(now: datetime) -> list[tuple[Subscription, str]]:
    """The endpoints that have failed for longest, with a sentence for each: those of the headline.

    A constant number of statements for each, and ``NAMED`` of them at most.
    """
    using = settings.database
    lanes = Lane.objects.using(using).failing_now(FAILING_AFTER).select_related("subscription")
    found = []
    for lane in lanes.order_by("failing_since", "pk")[:NAMED]:
        subscription = lane.subscription
        host = host_of(subscription.callback_url) or subscription.callback_url
        found.append((subscription, f"{host}: {sentence(of_subscription(subscription))}"))
    return found


def clock(moment: datetime, now: datetime, *, seconds: bool = False) -> str:
    """A time for people: without its date, where that is today's. In UTC, and says so."""
    moment, now = moment.astimezone(UTC), now.astimezone(UTC)
    day = "" if moment.date() == now.date() else f"{moment:%Y-%m-%d} "
    return f"{day}{moment:{'%H:%M:%S' if seconds else '%H:%M'}} UTC"


def _down(found: ServiceHealth) -> str:
    codes = [reason.code for reason in found.verdict.reasons]
    if codes == ["outage"]:
        return _("most attempts of the last 15 minutes failed.")
    using = settings.database
    now = found.updated_at
    due = capped(_due(using, now))
    silence = _silence(using, now)
    said = (
        _("nothing has been delivered for %(time)s while %(due)s are due.")
        if silence is None or silence.total_seconds() >= 60
        else _("what waits longest has been due for %(time)s, and %(due)s are due.")
    )
    time = timedelta(seconds=found.delivery_delay_s)
    if silence is not None and silence.total_seconds() >= 60:
        time = min(time, silence)
    text = said % {"time": span(time), "due": due}
    return " ".join((text, _("Is a worker running?"))) if "no_worker" in codes else text


def _degraded(found: ServiceHealth) -> str:
    codes = [reason.code for reason in found.verdict.reasons]
    failing = _count_failing(settings.database)
    if failing and "delayed" not in codes:
        said = ngettext(
            "%(count)s endpoint is failing; others are fine.",
            "%(count)s endpoints are failing; others are fine.",
            failing,
        )
        return said % {"count": capped(failing)}
    if "delayed" in codes:
        return _("deliveries are late by %(time)s.") % {
            "time": span(timedelta(seconds=found.delivery_delay_s))
        }
    if codes == ["late_schedule"]:
        return _("what runs by the clock is late.")
    return _("deliveries are flowing, but not all is well.")


def _count_failing(using: str) -> int:
    """Endpoints that send and fail, or are parked; counted up to ``MOST_COUNTED``."""
    lanes = Lane.objects.using(using).failing_now(FAILING_AFTER)
    return lanes[:MOST_COUNTED].count()


def _due(using: str, now: datetime) -> int:
    """What waits for a worker: due deliveries, and events that are not fanned out."""
    pending = Delivery.objects.using(using).waiting(now, MOST_COUNTED)
    return pending.due + Event.objects.using(using).undispatched()[:MOST_COUNTED].count()


def _silence(using: str, now: datetime) -> timedelta | None:
    """Since when at least nothing has been delivered, by the roll-up; None: not in two days."""
    last = DeliveryStats.objects.using(using).last_delivered(WHOLE_SERVICE)
    return None if last is None else max(timedelta(), now - last - timedelta(seconds=FRESH))
