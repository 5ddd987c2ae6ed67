"""The next digests, and what waits in them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.db.models import Count

from webhooks.conf import settings
from webhooks.engine.windows import window_of
from webhooks.health.verdicts import MOST_COUNTED
from webhooks.models import Delivery, Subscription
from webhooks.models.subscription import SCHEDULE, Status, Trigger

#: Windows in the list.
LISTED: Final = 5
#: Schedules whose windows are worked out; those of the most subscriptions.
SCHEDULES: Final = 2000


@dataclass(frozen=True, slots=True)
class NextDigest:
    """A window that ends next. subscriptions: how many get a digest then. waiting: deliveries in
    it, counted up to ``MOST_COUNTED``."""

    end: datetime
    trigger: str
    subscriptions: int
    waiting: int


def next_digests(now: datetime) -> list[NextDigest]:
    """The windows that end next, of all subscriptions that get digests, the first to end first.

    One statement, and one for each of the ``LISTED``.
    """
    using = settings.database
    scheduled = (
        Subscription.objects.using(using)
        .filter(status=Status.SUBSCRIBED)
        .exclude(trigger=Trigger.REALTIME)
    )
    counted = scheduled.values_list(*SCHEDULE).annotate(count=Count("pk")).order_by("-count")
    windows: Counter[tuple[datetime, str]] = Counter()
    for trigger, zone, hour, day, count in counted[:SCHEDULES]:
        try:
            end = window_of(now, trigger, zone, hour, day).end
        except (KeyError, ValueError):
            continue  # written past the model's own check: it gets none, and its lane says why
        windows[end, trigger] += count
    pending = Delivery.objects.using(using).pending()
    return [
        NextDigest(
            end,
            trigger,
            windows[end, trigger],
            pending.filter(
                due_at=end, subscription__trigger=trigger, subscription__status=Status.SUBSCRIBED
            )[:MOST_COUNTED].count(),
        )
        for end, trigger in sorted(windows)[:LISTED]
    ]
