"""The tie-out: do the product, the webhooks and the subscribers agree, event by event?

Three ledgers are compared: the ``Push`` rows (what happened), the webhooks' tables (what was
promised and done), and what each subscriber says it has verified and accepted. Ids are compared,
not counts: a lost message and a wrong one too many would cancel out in a count.
"""

from __future__ import annotations

import json
import math
import urllib.request
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from example_project.campaigns.models import Campaign
from example_project.demo.console import Console
from example_project.demo.subscribers import Subscriber
from webhooks.models import Delivery, DeliveryAttempt, Event, Message

#: Reasons name so many ids at most.
NAMED = 3


@dataclass(frozen=True, slots=True)
class Received:
    """What one subscriber says: its figures, and the ids it verified and answered with 2xx.

    digests: the windows that it has digests of, as its ``/digests`` tells them.
    """

    figures: dict[str, Any]
    accepted: frozenset[str]
    digests: Sequence[dict[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Tieout:
    """The figures of one run, and the reasons why they do not tie out; none: they do.

    recorded: steps on the Push rows. verified: deliveries whose message the subscriber has
    verified and accepted. Milliseconds are from the event's INSERT to its acknowledgement, over all
    deliveries and over those that succeeded at the first try. per_s: deliveries for each second,
    from the first event to the last acknowledgement. emitted_per_s: events for each second.
    digests, digested: digests that were delivered, and events in them. undigested: events that wait
    for the end of their window.
    """

    emitted: int
    recorded: int
    deliveries: int
    delivered: int
    dead: int
    ended: int
    attempts: int
    retries: int
    posts: int
    signatures: int
    rejected: int
    duplicates: int
    verified: int
    p50_ms: int | None
    p95_ms: int | None
    first_p50_ms: int | None
    first_p95_ms: int | None
    per_s: float | None
    emitted_per_s: float | None
    reasons: tuple[str, ...]
    digests: int = 0
    digested: int = 0
    undigested: int = 0

    @property
    def ok(self) -> bool:
        return not self.reasons

    def as_json(self) -> str:
        """One JSON object with the keys that outside checks rely on."""
        names = (
            "emitted",
            "recorded",
            "deliveries",
            "delivered",
            "dead",
            "attempts",
            "retries",
            "duplicates",
            "verified",
            "p50_ms",
            "p95_ms",
            "per_s",
            "ok",
        )
        return json.dumps({name: getattr(self, name) for name in names})

    def show(self, console: Console) -> None:
        """Print it as a table."""
        console.columns(
            [
                (name, f"{value:,}".rjust(9) if value is not None else "-".rjust(9), remark)
                for name, value, remark in (
                    ("events emitted", self.emitted, "rows in the outbox"),
                    ("  events/s", self.emitted_per_s, "one transaction after the other"),
                    ("pushes recorded", self.recorded, "steps on the Push rows"),
                    ("deliveries", self.deliveries, "one for each event and subscriber"),
                    ("  delivered", self.delivered, ""),
                    ("  dead", self.dead, "given up after all retries"),
                    ("  ended otherwise", self.ended - self.dead, "cancelled, discarded, expired"),
                    ("attempts", self.attempts, "POSTs that were sent"),
                    ("  retries", self.retries, ""),
                    ("POSTs received", self.posts, "as the subscribers count them, digests too"),
                    ("  verified signatures", self.signatures, ""),
                    ("  rejected signatures", self.rejected, ""),
                    ("  duplicates", self.duplicates, "of messages acknowledged before"),
                    ("deliveries verified", self.verified, "found at their subscriber, by id"),
                    ("digests of counts", self.digests, "whose window has ended meanwhile"),
                    ("  events in them", self.digested, "each found among the single ones, by id"),
                    ("  waiting", self.undigested, "for the end of their window"),
                    ("first-try p50, ms", self.first_p50_ms, "event to acknowledged"),
                    ("first-try p95, ms", self.first_p95_ms, ""),
                    ("p50, ms", self.p50_ms, "event to acknowledged, retries included"),
                    ("p95, ms", self.p95_ms, ""),
                    (
                        "deliveries/s",
                        self.per_s,
                        "first event to last acknowledgement, retries too",
                    ),
                )
            ]
        )


def received(subscriber: Subscriber) -> Received:
    """Ask a subscriber what it has. Raises OSError if it does not answer."""
    figures = json.loads(_get(f"{subscriber.origin}/figures"))
    messages = [json.loads(line) for line in _get(f"{subscriber.origin}/messages").splitlines()]
    digests = json.loads(_get(f"{subscriber.origin}/digests"))["windows"]
    accepted = frozenset(each["id"] for each in messages if each["accepted"])
    return Received(figures, accepted, digests)


def _get(url: str) -> bytes:
    # Without the environment's proxies: the subscribers are on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=10) as response:
        return bytes(response.read())


def tie_out(
    campaign: Campaign,
    subscribers: Sequence[Subscriber],
    reports: Sequence[Received],
    *,
    asked_for: int,
    late: str = "",
) -> Tieout:
    """Compare the three ledgers for one campaign.

    subscribers: those of its events, and of no others. reports: what each of them says, in their
    order. asked_for: the number of events that the campaign was to emit. late: what was missing
    when the time was up, "" when nothing was.
    """
    reasons = [late] if late else []
    events = Event.objects.filter(subject=campaign.subject)
    types = dict(events.values_list("pk", "type"))
    created = dict(events.values_list("pk", "created_at"))
    begin = min(created.values(), default=None)
    emitted = Counter(types.values())
    recorded = {name: count for name, count in campaign.pushes.recorded().items() if count}
    if dict(emitted) != recorded:
        reasons.append(f"emitted {dict(emitted)} is not what the pushes record, {recorded}")
    if len(types) != asked_for:
        reasons.append(f"{len(types)} events were emitted, {asked_for} were asked for")

    subscriptions = [subscriber.subscription for subscriber in subscribers]
    deliveries = list(
        Delivery.objects.filter(subscription__in=subscriptions, event__subject=campaign.subject)
    )
    verified = 0
    digests = Digests()
    for subscriber, report in zip(subscribers, reports, strict=True):
        if subscriber.digest is not None:
            digests.look_at(subscriber, report)
        own = [each for each in deliveries if each.subscription_id == subscriber.subscription.pk]
        verified += sum(each.webhook_id in report.accepted for each in own)
        reasons += _disagreements(subscriber, own, report, types, digests.messages)

    reasons += digests.reasons
    delivered = [each for each in deliveries if each.state == Delivery.State.DELIVERED]
    overall = [_milliseconds(each, created) for each in delivered]
    first = [_milliseconds(each, created) for each in delivered if each.attempts == 1]
    attempts = DeliveryAttempt.objects.filter(subscription__in=subscriptions)
    return Tieout(
        emitted=len(types),
        recorded=sum(recorded.values()),
        deliveries=len(deliveries),
        delivered=len(delivered),
        dead=sum(each.state == Delivery.State.DEAD for each in deliveries),
        ended=sum(
            each.state not in (Delivery.State.DELIVERED, Delivery.State.PENDING)
            for each in deliveries
        ),
        attempts=attempts.count(),
        retries=attempts.exclude(trigger=DeliveryAttempt.Trigger.FIRST).count(),
        posts=sum(report.figures["received"] for report in reports),
        signatures=sum(report.figures["verified"] for report in reports),
        rejected=sum(report.figures["rejected"] for report in reports),
        duplicates=sum(report.figures["duplicates"] for report in reports),
        verified=verified,
        p50_ms=percentile(overall, 50),
        p95_ms=percentile(overall, 95),
        first_p50_ms=percentile(first, 50),
        first_p95_ms=percentile(first, 95),
        per_s=_per_second(len(delivered), begin, _latest(each.settled_at for each in delivered)),
        emitted_per_s=_per_second(len(types), begin, _latest(created.values())),
        reasons=tuple(reasons),
        digests=len(digests.messages),
        digested=digests.events,
        undigested=digests.waiting,
    )


class Digests:
    """The digests of counts that were delivered, each compared with three books.

    With the events that it was made of; with what its receiver has read in it; and, event by event,
    with what the same receiver was sent singly.
    """

    def __init__(self) -> None:
        self.messages: set[str] = set()
        self.events = 0
        self.waiting = 0
        self.reasons: list[str] = []

    def look_at(self, subscriber: Subscriber, report: Received) -> None:
        """Add those of one subscriber."""
        assert subscriber.digest is not None
        own = Delivery.objects.filter(subscription=subscriber.digest)
        self.waiting += own.filter(state=Delivery.State.PENDING).count()
        delivered = own.filter(state=Delivery.State.DELIVERED, message__isnull=False)
        members: dict[str, dict[str, str]] = {}
        for message, event, event_type in delivered.values_list(
            "message_id", "event_id", "event__type"
        ):
            members.setdefault(message, {})[event] = event_type
        found = Message.objects.in_bulk(list(members))
        for pk, message in sorted(found.items()):
            events = members[pk]
            self.messages.add(pk)
            self.events += len(events)
            for what, differs in (
                ("was not verified at the subscriber", pk not in report.accepted),
                ("counts other events than it has", message.counted != Counter(events.values())),
                ("has events that did not come singly", not report.accepted.issuperset(events)),
            ):
                if differs:
                    self.reasons.append(f"{subscriber.name}: the digest {pk} {what}")
        for window in report.digests:
            sent: Counter[str] = Counter()
            for pk in window["ids"]:
                sent.update(found[pk].counted if pk in found else {})
            if window["told"] != sent:
                self.reasons.append(
                    f"{subscriber.name}: of the digest until {window['to']} it has read "
                    f"{window['told']}, {dict(sent)} was sent"
                )


def _disagreements(
    subscriber: Subscriber,
    deliveries: Sequence[Delivery],
    report: Received,
    types: dict[str, str],
    digests: Collection[str],
) -> list[str]:
    """Why one subscriber's ledger and the webhooks' do not agree. digests: sent to it besides."""
    covers = subscriber.subscription.covers
    expected = {pk for pk, event_type in types.items() if covers(event_type)}
    promised = {each.event_id for each in deliveries}
    sent = {each.webhook_id for each in deliveries}
    open_or_lost = {each.pk for each in deliveries if each.state != Delivery.State.DELIVERED}
    return [
        f"{subscriber.name}: {len(ids)} {what} ({', '.join(sorted(ids)[:NAMED])}, ...)"
        for what, ids in (
            ("events have no delivery", expected - promised),
            ("events were delivered that were not subscribed to", promised - expected),
            ("deliveries are not delivered", open_or_lost),
            ("messages were not verified at the subscriber", sent - report.accepted),
            ("messages came that nobody sent", report.accepted - sent - {*digests}),
        )
        if ids
    ] + [
        f"{subscriber.name}: {report.figures[name]} {what}"
        for name, what in (
            ("rejected", "signatures were rejected"),
            ("body_mismatch", "bodies differed from the first one under their id"),
        )
        if report.figures[name]
    ]


def _milliseconds(delivery: Delivery, created: dict[str, datetime]) -> float:
    assert delivery.settled_at is not None
    return (delivery.settled_at - created[delivery.event_id]).total_seconds() * 1000


def _latest(moments: Iterable[datetime | None]) -> datetime | None:
    return max((moment for moment in moments if moment is not None), default=None)


def _per_second(count: int, begin: datetime | None, end: datetime | None) -> float | None:
    if begin is None or end is None or end <= begin:
        return None
    return round(count / (end - begin).total_seconds(), 1)


def percentile(values: Sequence[float], percent: int) -> int | None:
    """The nearest-rank percentile, rounded; None of nothing."""
    if not values:
        return None
    return round(sorted(values)[math.ceil(len(values) * percent / 100) - 1])
