"""What the campaign pages show: figures from the roll-up, charts, and what the webhooks made of it.

No push, event or delivery is read here: ``CampaignStats`` is kept as steps are recorded, and
``EventCount`` and ``DeliveryCount`` are what :mod:`~example_project.campaigns.counting` last
counted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from django.db.models import Sum
from django.utils.formats import date_format
from django.utils.translation import gettext as _

from example_project.campaigns.models import Campaign, CampaignStats, DeliveryCount, EventCount
from example_project.campaigns.models.stats import Totals, share
from webhooks.admin import charts
from webhooks.admin.health import Tile
from webhooks.health.headlines import span
from webhooks.models import DeliveryStats, Subscription
from webhooks.models.stats import ACK_BOUNDS, ACK_COLUMNS, FRESH, percentile
from webhooks.templatetags.webhooks_admin import milliseconds, number, percent

#: Points of a chart at most; the latest are shown.
MOST_HOURS: Final = 72
MOST_DAYS: Final = 62
#: The statistics of a campaign's last events come with their acknowledgement, some time later.
AFTERMATH: Final = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric as the table of figures has it. total: every time; None where there is but one."""

    name: str
    unique: int
    total: int | None
    said: str


@dataclass(frozen=True, slots=True)
class Received:
    """What one subscriber got of one type.

    emitted: events of that type, whoever got them. lag: milliseconds within which 95 % were
    acknowledged, from the event on; estimated, and of all that this subscriber was sent of the
    type in the campaign's time, for the roll-up does not know campaigns.
    """

    count: DeliveryCount
    subscription: Subscription
    emitted: int
    lag: float | None

    @property
    def said(self) -> str:
        return f"{number(self.count.delivered)} / {number(self.emitted)}"

    @property
    def is_complete(self) -> bool:
        return self.count.delivered >= self.emitted

    @property
    def lag_text(self) -> str:
        if self.lag is None or self.lag < 1000:
            return milliseconds(self.lag)
        return span(timedelta(milliseconds=self.lag))

    @property
    def is_digest(self) -> bool:
        return self.subscription.trigger != "realtime"


@dataclass(frozen=True, slots=True)
class TieOut:
    """Events beside the steps that they tell of, at one moment. lines: each type's, both sides."""

    lines: list[EventCount]

    @property
    def emitted(self) -> int:
        return sum(each.emitted for each in self.lines)

    @property
    def recorded(self) -> int:
        return sum(each.recorded for each in self.lines)

    @property
    def astray(self) -> list[EventCount]:
        """The types of which there are more events than steps, or fewer."""
        return [each for each in self.lines if each.emitted != each.recorded]

    @property
    def ok(self) -> bool:
        return not self.astray

    @property
    def differences(self) -> list[str]:
        """Each type that does not tie out, with its difference."""
        return [
            _("%(type)s: %(emitted)s events, %(recorded)s steps (%(more)s)")
            % {
                "type": each.type,
                "emitted": number(each.emitted),
                "recorded": number(each.recorded),
                "more": signed(each.emitted - each.recorded),
            }
            for each in self.astray
        ]


def signed(difference: int) -> str:
    """A difference that is not zero, with its sign: ``+1,204``."""
    return f"{'+' if difference > 0 else '-'}{number(abs(difference))}"


def of_share(part: int, whole: int, name: str) -> str:
    """A rate with its denominator: ``25.4 % of delivered``."""
    return _("%(rate)s of %(whole)s") % {"rate": percent(share(part, whole)), "whole": name}


def overview(campaign: Campaign, now: datetime) -> dict[str, Any]:
    """All that a campaign's page shows of it; a constant number of statements."""
    hours = CampaignStats.objects.by_hour(campaign.pk)
    totals = added(hours.values())
    tie_out = TieOut(list(campaign.event_counts.order_by("pk")))
    counts = list(campaign.delivery_counts.order_by("subscription_id", "pk"))
    return {
        "now": now,
        "totals": totals,
        "tiles": tiles(campaign, totals, sum(each.pending for each in counts)),
        "funnel": funnel(totals),
        "unsubscribed": _("Unsubscribed %(n)s — %(rate)s")
        % {
            "n": number(totals.unsubscribed),
            "rate": of_share(totals.unsubscribed, totals.delivered, _("delivered")),
        },
        "metrics": metrics(totals),
        "by_hour": by_hour(hours),
        "by_day": by_day(hours),
        "tie_out": tie_out if tie_out.lines else None,
        "received": received(campaign, counts, tie_out, now),
    }


def added(totals: Collection[Totals]) -> Totals:
    """The sum of all of them."""
    return Totals(
        *(sum(getattr(each, name) for each in totals) for name in Totals.__dataclass_fields__)
    )


def tiles(campaign: Campaign, totals: Totals, backlog: int) -> list[Tile]:
    audience = campaign.audience
    return [
        Tile(
            _("Sent"),
            number(totals.sent),
            _("Of an audience of %(n)s devices.") % {"n": number(audience)},
        ),
        Tile(
            _("Delivered"),
            number(totals.delivered),
            of_share(totals.delivered, totals.sent, _("sent")),
        ),
        Tile(
            _("Opened"),
            number(totals.opened_unique),
            _("%(rate)s; %(n)s times in all")
            % {
                "rate": of_share(totals.opened_unique, totals.delivered, _("delivered")),
                "n": number(totals.opened),
            },
        ),
        Tile(
            _("Clicked"),
            number(totals.clicked_unique),
            _("%(rate)s; %(n)s times in all")
            % {
                "rate": of_share(totals.clicked_unique, totals.opened_unique, _("opened")),
                "n": number(totals.clicked),
            },
        ),
        Tile(
            _("Unsubscribed"),
            number(totals.unsubscribed),
            of_share(totals.unsubscribed, totals.delivered, _("delivered")),
        ),
        Tile(
            _("Failed"),
            number(totals.failed),
            _("%(rate)s: the device could not be reached.")
            % {"rate": of_share(totals.failed, totals.sent, _("sent"))},
            tone="bad" if totals.failed else "",
        ),
        Tile(
            _("Webhook backlog"),
            number(backlog),
            _("Deliveries of this campaign's events that are still to be made."),
            tone="warn" if backlog else "",
        ),
    ]


def funnel(totals: Totals) -> charts.Chart:
    """Sent, delivered, opened, clicked: pushes, each counted once."""
    steps = [charts.Step(_("Sent"), totals.sent, number(totals.sent))]
    for name, value, whole_name, whole in (
        (_("Delivered"), totals.delivered, _("sent"), totals.sent),
        (_("Opened"), totals.opened_unique, _("delivered"), totals.delivered),
        (_("Clicked"), totals.clicked_unique, _("opened"), totals.opened_unique),
    ):
        said = f"{number(value)} — {of_share(value, whole, whole_name)}"
        steps.append(charts.Step(name, value, said))
    return charts.funnel(
        _("From sent to clicked"), steps, label=_("Step"), figure=_("Pushes, each once")
    )


def metrics(totals: Totals) -> list[Metric]:
    """Unique and total, each with what it is a share of."""
    return [
        Metric(_("Sent"), totals.sent, None, ""),
        Metric(
            _("Delivered"),
            totals.delivered,
            None,
            of_share(totals.delivered, totals.sent, _("sent")),
        ),
        Metric(
            _("Opened"),
            totals.opened_unique,
            totals.opened,
            of_share(totals.opened_unique, totals.delivered, _("delivered")),
        ),
        Metric(
            _("Clicked"),
            totals.clicked_unique,
            totals.clicked,
            of_share(totals.clicked_unique, totals.opened_unique, _("opened")),
        ),
        Metric(
            _("Unsubscribed"),
            totals.unsubscribed,
            None,
            of_share(totals.unsubscribed, totals.delivered, _("delivered")),
        ),
        Metric(_("Failed"), totals.failed, None, of_share(totals.failed, totals.sent, _("sent"))),
    ]


def by_hour(hours: Mapping[datetime, Totals]) -> charts.Chart:
    """The steps of each hour, the latest ``MOST_HOURS``."""
    points = _points(hours, timedelta(hours=1), MOST_HOURS)
    is_long = len(points) > 24
    labels = [date_format(each, "j M H:i" if is_long else "H:i") for each in points]
    return _lines(_("Steps by hour"), labels, [hours.get(each, Totals()) for each in points])


def by_day(hours: Mapping[datetime, Totals]) -> charts.Chart:
    """The steps of each day, the latest ``MOST_DAYS``."""
    days: dict[datetime, list[Totals]] = {}
    for hour, totals in hours.items():
        days.setdefault(hour.replace(hour=0), []).append(totals)
    points = _points(days, timedelta(days=1), MOST_DAYS)
    labels = [date_format(each, "j M") for each in points]
    return _lines(_("Steps by day"), labels, [added(days.get(each, [])) for each in points])


def received(
    campaign: Campaign, counts: Collection[DeliveryCount], tie_out: TieOut, now: datetime
) -> list[Received]:
    """What each subscriber got of each type. Two statements."""
    known = Subscription.objects.defer("headers", "basic_auth")
    subscriptions = known.in_bulk({each.subscription_id for each in counts})
    emitted = {each.type: each.emitted for each in tie_out.lines}
    lags = _lags(campaign, list(subscriptions), now)
    return [
        Received(
            each,
            subscriptions[each.subscription_id],
            emitted.get(each.type, 0),
            lags.get((each.subscription_id, each.type)),
        )
        for each in counts
        if each.subscription_id in subscriptions
    ]


def _lags(
    campaign: Campaign, subscriptions: list[str], now: datetime
) -> dict[tuple[str, str], float | None]:
    if campaign.started_at is None:
        return {}
    # A five-minute bucket belongs to it whose beginning lies before the campaign's.
    begin = campaign.started_at - timedelta(seconds=FRESH)
    end = min(now, campaign.finished_at + AFTERMATH) if campaign.finished_at else now
    rows: Any = (
        DeliveryStats.objects.within(begin, end)
        .filter(subscription_id__in=subscriptions, code="")
        .values_list("subscription_id", "type")
        .annotate(*(Sum(column) for column in ACK_COLUMNS))
        .order_by("subscription_id", "type")
    )
    return {
        (pk, event_type): percentile(counts, ACK_BOUNDS, 0.95) for pk, event_type, *counts in rows
    }


def _points(known: Collection[datetime], step: timedelta, most: int) -> list[datetime]:
    """From the first to the last moment, without a gap; the latest of them."""
    if not known:
        return []
    first, last = min(known), max(known)
    count = min(most, (last - first) // step + 1)
    return [last - step * i for i in reversed(range(count))]


def _lines(title: str, labels: list[str], totals: list[Totals]) -> charts.Chart:
    series = [
        charts.Series(_("sent"), [each.sent for each in totals], "first"),
        charts.Series(_("delivered"), [each.delivered for each in totals], "good"),
        charts.Series(_("opened, total"), [each.opened for each in totals], "second"),
        charts.Series(_("clicked, total"), [each.clicked for each in totals], "third"),
        charts.Series(_("unsubscribed"), [each.unsubscribed for each in totals], "bad"),
    ]
    return charts.lines(title, labels, series, label=_("Time (UTC)"))
