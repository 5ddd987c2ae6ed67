"""How a delivery fares, in a sentence or two: where it stands, why, and when it is tried next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from webhooks import remedies
from webhooks.health.headlines import clock
from webhooks.models import Delivery, DeliveryAttempt, Lane, Message, Subscription
from webhooks.models.delivery import State
from webhooks.models.subscription import Status

#: Why a lane rests (``Lane.pause_reason``).
RESTS: Final = {
    "parked": gettext_lazy("Its endpoint fails, and is tried with one delivery at a time"),
    "ramp": gettext_lazy("Its endpoint recovers, and is sent more step by step"),
    "rate_limit": gettext_lazy("The subscription's rate limit is used up"),
    "retry_after": gettext_lazy("The endpoint asked for quiet (Retry-After)"),
    "ordered": gettext_lazy("It goes in order, and the first in the queue failed"),
    "secret_unreadable": gettext_lazy(
        "Nothing can be signed: its secret or headers are unreadable"
    ),
    "batch": gettext_lazy("It waits for others, to be sent in one batch"),
}
#: How a delivery ended without success: after attempts, and without any.
ENDED: Final = {
    State.DEAD: (
        gettext_lazy("Given up after attempt %(number)s, %(time)s after the event."),
        gettext_lazy("Given up without an attempt, %(time)s after the event."),
    ),
    State.EXPIRED: (
        gettext_lazy("Expired after attempt %(number)s, %(time)s after the event."),
        gettext_lazy("Expired without an attempt, %(time)s after the event."),
    ),
    State.CANCELLED: (
        gettext_lazy("Cancelled after attempt %(number)s, %(time)s after the event."),
        gettext_lazy("Cancelled without an attempt, %(time)s after the event."),
    ),
    State.DISCARDED: (
        gettext_lazy("Discarded after attempt %(number)s, %(time)s after the event."),
        gettext_lazy("Discarded without an attempt, %(time)s after the event."),
    ),
}
#: Why it was asked for again (``Delivery.trigger``).
ASKED: Final = {
    DeliveryAttempt.Trigger.MANUAL: gettext_lazy("It was asked for again by hand."),
    DeliveryAttempt.Trigger.REPLAY: gettext_lazy(
        "It was asked for later, by a replay or a fan-out."
    ),
}


@dataclass(frozen=True, slots=True)
class Situation:
    """All that a sentence on a delivery is made of.

    delivery: with its event. lane: None where it has none yet. message: the batch that it travels
    in. is_unwanted: it belongs to a backlog that is being discarded.
    """

    delivery: Delivery
    subscription: Subscription
    lane: Lane | None
    message: Message | None
    now: datetime
    is_unwanted: bool = False

    @property
    def next_at(self) -> datetime | None:
        """When it is tried next, as far as that is known; None: not by itself."""
        if self.delivery.state != State.PENDING or self.is_unwanted:
            return None
        if self.subscription.status != Status.SUBSCRIBED:
            return None
        return max(self.delivery.due_at, self._rest_ends or self.delivery.due_at)

    @property
    def _rest_ends(self) -> datetime | None:
        return self.lane.paused_until if self.lane is not None else None

    @property
    def number(self) -> str:
        """The last attempt's number, and of how many: ``3 of 10``."""
        made = self.delivery.attempts
        planned = self.delivery.retries_from + len(self.subscription.waits) + 1
        if made > planned:  # the schedule was shortened since, or probes came in between
            return str(made)
        return _("%(made)d of %(planned)d") % {"made": made, "planned": planned}

    def sentence(self) -> str:
        """``Delivered on attempt 3 of 10, 6 min 12 s after the event.``"""
        state = State(self.delivery.state)
        parts = self._pending() if state is State.PENDING else self._ended(state)
        if self.message is not None and self.message.batch:
            said = ngettext(
                "It travels in a batch of %(count)d event.",
                "It travels in a batch of %(count)d events.",
                self.message.count,
            )
            parts.append(said % {"count": self.message.count})
        if said := ASKED.get(self.delivery.trigger):  # type: ignore[call-overload]
            parts.append(str(said))
        return " ".join(parts)

    def _ended(self, state: State) -> list[str]:
        delivery = self.delivery
        settled = delivery.settled_at or self.now
        facts = {"number": self.number, "time": exactly(settled - delivery.event.created_at)}
        if state is State.DELIVERED:
            return [_("Delivered on attempt %(number)s, %(time)s after the event.") % facts]
        after, without = ENDED[state]
        parts = [str(after if delivery.attempts else without) % facts]
        if title := remedies.ending(delivery.reason).title or delivery.reason:
            parts.append(_("%(why)s.") % {"why": title})
        return parts

    def _pending(self) -> list[str]:
        lead = _("Not tried yet.")
        if self.delivery.attempts:
            lead = _("Attempt %(number)s failed.") % {"number": self.number}
        return [lead, next(filter(None, (each(self) for each in _WAITS)))]

    # Why a pending one is not sent at this moment: the first that applies

    def _by_status(self) -> str:
        subscription = self.subscription
        if subscription.status == Status.UNSUBSCRIBED:
            return _("It will be cancelled: its subscription has ended.")
        if subscription.status == Status.PENDING:
            return _("It waits until its endpoint has answered the handshake.")
        if subscription.status == Status.SUSPENDED:
            since = clock(subscription.status_since, self.now)
            return _("It waits: the subscription has been suspended since %(since)s.") % {
                "since": since
            }
        return ""

    def _by_backlog(self) -> str:
        if not self.is_unwanted:
            return ""
        return _("It will be discarded: the subscription was resumed without what had waited.")

    def _by_rest(self) -> str:
        until = self._rest_ends
        if until is None or until <= max(self.now, self.delivery.due_at):
            return ""
        assert self.lane is not None
        facts = {
            "why": RESTS.get(self.lane.pause_reason, _("Its queue rests")),
            "time": exactly(until - self.now),
            "at": clock(until, self.now),
        }
        return _("%(why)s; the queue goes on in %(time)s, at %(at)s.") % facts

    def _by_time(self) -> str:
        due_at = self.delivery.due_at
        if due_at <= self.now:
            return ""
        facts = {"time": exactly(due_at - self.now), "at": clock(due_at, self.now)}
        if self.delivery.attempts > self.delivery.retries_from:
            return _("It is tried again in %(time)s, at %(at)s.") % facts
        if self.subscription.is_scheduled:
            return _("It waits for its digest, due in %(time)s, at %(at)s.") % facts
        return _("It is due in %(time)s, at %(at)s.") % facts

    def _by_worker(self) -> str:
        if self.lane is not None and self.lane.is_leased(self.now):
            return _("A worker has its queue: it is being sent, or will be soon.")
        waited = {"time": exactly(self.now - self.delivery.due_at)}
        return _("It has been due for %(time)s, and waits for a worker.") % waited


_WAITS: Final[tuple[Callable[[Situation], str], ...]] = (
    Situation._by_status,
    Situation._by_backlog,
    Situation._by_rest,
    Situation._by_time,
    Situation._by_worker,
)


def exactly(time: timedelta) -> str:
    """A length of time in its two largest units: ``6 min 12 s``, ``3 days 2 h``, ``340 ms``."""
    ms = max(0, round(time.total_seconds() * 1000))
    if ms < 1000:
        return _("%(n)d ms") % {"n": ms}
    seconds = ms // 1000
    if seconds < 60:
        return _("%(n)d s") % {"n": seconds}
    if seconds < 3600:
        return _("%(n)d min %(rest)d s") % {"n": seconds // 60, "rest": seconds % 60}
    if seconds < 86_400:
        hours = seconds // 3600
        return _("%(n)d h %(rest)d min") % {"n": hours, "rest": seconds % 3600 // 60}
    days, rest = seconds // 86_400, seconds % 86_400 // 3600
    return ngettext("%(n)d day %(rest)d h", "%(n)d days %(rest)d h", days) % {
        "n": days,
        "rest": rest,
    }
