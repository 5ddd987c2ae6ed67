"""The requests that docs/formats.md and docs/digests.md show, as the engine sends them.

    python -m tests.documentation.wire          # writes them into the documents

The lanes are in memory, and secret, ids and times are fixed; all else is the way of a real POST.
"""

from __future__ import annotations

import os
import re
import time
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = ("formats.md", "digests.md")
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SENT = datetime(2027, 1, 1, 0, 0, 2, tzinfo=UTC)
SETTINGS = {
    "CLOUDEVENTS_SOURCE": "https://shop.example.com/",
    "BASE_URL": "https://shop.example.com",
}
#: Where an example stands in a document: a marker, and the block that follows it.
BLOCK = re.compile(r"(<!-- sent: ([a-z- ]+) -->\n```http\n)(.*?)(```)", re.DOTALL)


def examples() -> dict[str, str]:
    """Each example's request, by its name."""
    two = _events("push.delivered", "push.clicked")
    day = {"trigger": "daily", "time_zone": "Europe/Vienna", "hour": 1}
    month = {"trigger": "monthly", "time_zone": "UTC", "hour": 0, "day": 1}
    return {
        "standard": _single(),
        "standard thin": _single(payload="thin"),
        "standard batch": _batch(two, batch_size=100),
        "cloudevents": _single(format="cloudevents"),
        "cloudevents thin": _single(format="cloudevents", payload="thin"),
        "cloudevents batch": _batch(two, format="cloudevents", batch_size=100),
        "mandrill": _single(format="mandrill"),
        "mandrill batch": _batch(two, format="mandrill", batch_size=100),
        "realtime": _single(trigger="realtime"),
        "hourly": _batch(two, trigger="hourly"),
        "daily": _batch(two, **day),
        "monthly": _batch(two, **month),
        "daily thin": _batch(two, payload="thin", **day),
        "counts": _batch(two, content="counts", **day),
        "counts cloudevents": _batch(two, content="counts", format="cloudevents", **day),
        "counts mandrill": _batch(two, content="counts", format="mandrill", **day),
        "empty": _batch(_events("webhooks.digest"), empty_digests=True, **day),
    }


def written(text: str) -> str:
    """A document with its examples as they are sent now. Raises KeyError for an unknown one."""
    known = examples()
    return BLOCK.sub(lambda found: f"{found[1]}{known[found[2]]}{found[4]}", text)


def _events(*types: str) -> list[Any]:
    from webhooks.models.delivery import DueDelivery

    moment = datetime(2026, 12, 31, 23, 30, tzinfo=UTC)
    return [
        DueDelivery(
            id=f"dlv_01993b6f8c5d7e0a9b1c2d3e4f50617{place}",
            subscription_id="sub_" + "0" * 32,
            attempts=0,
            due_at=SENT,
            first_due_at=SENT,
            trigger="",
            event_id=f"evt_01993b6f8c5d7e0a9b1c2d3e4f50617{place}",
            event_type=type_,
            subject="campaign:7",
            requester="app:shop",
            occurred_at=moment,
            recorded_at=moment,
            data='{"campaign":7}',
        )
        for place, type_ in enumerate(types, 2)
    ]


def _single(**options: Any) -> str:
    [event] = _events("push.clicked")
    return _sent(_lane(**options), event)


def _batch(deliveries: list[Any], **options: Any) -> str:
    from webhooks.engine.parcels import draft, head_of, new_message
    from webhooks.engine.windows import window_for
    from webhooks.models.subscription import Content

    lane = _lane(**options)
    subscription = lane.subscription
    message = new_message(subscription, SENT)
    message.pk = "msg_01993b7a11d2703f8e5a6b7c8d9e0f10"
    page = None
    if subscription.is_scheduled:
        message.content = subscription.content
        counts: dict[str, int] = {}
        for each in deliveries:
            if each.event_type != "webhooks.digest":
                counts[each.event_type] = counts.get(each.event_type, 0) + 1
        window = window_for(subscription, deliveries[0].occurred_at)
        page = (window, 1, 1, counts)
    made = draft(message, deliveries, page)
    if message.content == Content.COUNTS:
        deliveries = deliveries[:1]
    return _sent(lane, head_of(made.message, deliveries, made.body))


def _lane(**options: Any) -> Any:
    from webhooks.crypto import Sealed, seal
    from webhooks.engine.lanes import HeldLane
    from webhooks.models import Lane, SigningSecret, Subscription

    subscription = Subscription(
        requester="app:shop",
        callback_url="https://hooks.example.com/in",
        event_types=["push.*"],
        status="subscribed",
        **options,
    )
    secret = SigningSecret(subscription=subscription, value=Sealed(seal(SECRET)))
    row = Lane(subscription=subscription, latency_ms=20)
    return HeldLane(row, [secret], lease_end=time.monotonic() + 60, now=SENT)


def _sent(lane: Any, delivery: Any) -> str:
    lane.buffer.append(replace(delivery, subscription_id=lane.id))
    request = lane.request(lane.begin(SENT, uuid.UUID(int=0)), 15.0)
    url = urlsplit(request.url)
    headers = "".join(f"{name}: {value}\n" for name, value in request.headers.items())
    return f"POST {url.path} HTTP/1.1\nHost: {url.netloc}\n{headers}\n{request.body.decode()}\n"


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    import django

    django.setup()
    from django.conf import settings

    with patch.dict(settings.WEBHOOKS, SETTINGS):
        for name in PAGES:
            page = DOCS / name
            page.write_text(written(page.read_text()))


if __name__ == "__main__":
    main()
