"""Every event is in exactly one window: where clocks change and months end, whatever goes wrong."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from tests.engine.controlled import (
    RecordingTransport,
    controlled_clock,
    deliver_or_die,
    end_leases,
    recording,
)
from tests.world import emit_orders, end_rests, fan_out_all
from webhooks import lifecycle
from webhooks.engine import digests, following
from webhooks.engine.windows import window_for
from webhooks.formats.base import utc_text
from webhooks.models import Delivery, Subscription

pytestmark = pytest.mark.django_db(transaction=True)

MOMENT = timedelta(microseconds=1)
#: A zone, and a time shortly before something happens to its clocks or its calendar.
PLACES = {
    "a leap day": ("UTC", datetime(2028, 2, 29, 20, tzinfo=UTC)),
    "a year's end": ("UTC", datetime(2026, 12, 31, 21, tzinfo=UTC)),
    "a month's end in Singapore": ("Asia/Singapore", datetime(2026, 2, 28, 13, tzinfo=UTC)),
    "clocks forward": ("America/New_York", datetime(2026, 3, 8, 4, 30, tzinfo=UTC)),
    "clocks back": ("America/New_York", datetime(2026, 11, 1, 3, 30, tzinfo=UTC)),
}


@pytest.fixture(autouse=True)
def _several_rounds(quick_rounds: None, monkeypatch: Any) -> None:
    for name in ("ROUND", "GATHERED"):
        monkeypatch.setattr(digests, name, 3)
    monkeypatch.setattr(following, "ROUND", 3)


class Life:
    """A subscription to which things happen by chance, from a seed."""

    def __init__(self, seed: int, clock: Any, zone: str) -> None:
        self.rng = random.Random(seed)
        self.clock = clock
        self.content = self.rng.choice(["events", "counts"])
        self.changed = False
        self.emitted: list[str] = []
        self.subscription, _secret = Subscription.objects.subscribe(
            requester="app:a",
            callback_url="http://127.0.0.1:9/in",
            event_types=["order.*"],
            trigger=self.rng.choice(["hourly", "daily", "monthly"]),
            time_zone=zone,
            hour=self.rng.choice([0, 1, 2, 3]),
            day=self.rng.choice([1, 1, 8, 31]),
            content=self.content,
            batch_size=3,
        )

    def live(self, steps: int) -> None:
        things = [self.emit, self.emit, self.wait, self.wait_for_the_end, self.fan_out]
        things += [self.deliver, self.deliver, self.suspend, self.resume, self.change]
        for _ in range(steps):
            self.clock.pass_(timedelta(seconds=7))
            self.subscription.refresh_from_db()
            self.rng.choice(things)()

    def emit(self) -> None:
        self.emitted += [event.pk for event in emit_orders(self.rng.randint(1, 4))]

    def wait(self) -> None:
        self.clock.pass_(timedelta(minutes=self.rng.randint(1, 150)))

    def wait_for_the_end(self) -> None:
        """Of the present window, or until just before it."""
        if self.subscription.is_scheduled:
            end = window_for(self.subscription, self.clock.now).end
            self.clock.now = max(self.clock.now, end - self.rng.choice([1, 2, 50]) * MOMENT)

    def fan_out(self) -> None:
        fan_out_all()

    def deliver(self) -> None:
        fates = [200, 200, 500, "before", "after"]
        RecordingTransport.fates = [self.rng.choice(fates) for _ in range(self.rng.randint(0, 3))]
        if not deliver_or_die():
            end_leases(self.clock.now)
        RecordingTransport.fates = []

    def suspend(self) -> None:
        lifecycle.suspend(self.subscription)

    def resume(self) -> None:
        lifecycle.resume(self.subscription)

    def change(self) -> None:
        self.changed = True
        trigger = self.rng.choice(["hourly", "daily", "monthly"])
        lifecycle.update(self.subscription, trigger=trigger, hour=self.rng.choice([0, 2, 23]))

    def end(self) -> None:
        """Everything comes in the end."""
        self.subscription.refresh_from_db()
        self.resume()
        for _ in range(8):
            self.clock.pass_(timedelta(days=9))
            end_rests()
            assert deliver_or_die()


def check(life: Life) -> None:
    bodies: dict[str, dict[str, Any]] = {}
    for request in RecordingTransport.sent:
        body = bodies.setdefault(request.headers["webhook-id"], json.loads(request.body))
        assert body == json.loads(request.body)
    assert set(Delivery.objects.values_list("state", flat=True)) <= {"delivered"}
    windows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for body in bodies.values():
        windows[json.dumps(body["window"])].append(body)
    if life.content == "counts":
        # One digest for each window, and each event counted once.
        assert all(len(pages) == 1 for pages in windows.values())
    else:
        came = Counter(event["id"] for body in bodies.values() for event in body["events"])
        assert came == Counter(life.emitted)
    told = sum(pages[0]["counts"].get("order.paid", 0) for pages in windows.values())
    assert told == len(life.emitted)
    if not life.changed:
        # Windows do not overlap, and an event is in that in which it was fanned out.
        spans = {(body["window"]["from"], body["window"]["to"]) for body in bodies.values()}
        assert all(before[1] <= after[0] for before, after in pairwise(sorted(spans)))
        made = [utc_text(each) for each in Delivery.objects.values_list("created_at", flat=True)]
        found = Counter(span for span in spans for at in made if span[0] <= at < span[1])
        counted = {
            (pages[0]["window"]["from"], pages[0]["window"]["to"]): sum(pages[0]["counts"].values())
            for pages in windows.values()
        }
        assert found == Counter(counted)


@pytest.mark.parametrize("place", PLACES)
def test_every_event_is_in_exactly_one_window(place: str, settings: Any) -> None:
    zone, start = PLACES[place]
    with recording(settings, RETRY_SCHEDULE=(60,) * 20):
        for seed in range(4):
            RecordingTransport.sent, RecordingTransport.fates = [], []
            Subscription.objects.all().delete()
            with controlled_clock(start) as clock:
                life = Life(seed, clock, zone)
                life.live(14)
                life.end()
            check(life)
