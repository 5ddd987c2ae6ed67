"""Workers that die around a batch: between its freeze and its POST, between POST and record, while
a digest is planned, between its pages, and while the members of a large one follow."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.faults.conftest import end_leases
from tests.faults.storm import PLACES
from tests.world import Answer, Receiver, deliver, emit_orders, fan_out_all, states, subscribe
from webhooks.clock import db_now
from webhooks.engine.windows import window_of
from webhooks.models import Delivery, DeliveryAttempt, Lane, Message

pytestmark = pytest.mark.django_db(transaction=True)

EVENTS = 60
SETTINGS = {"TIMEOUT": 2, "LEASE_SECONDS": 19, "CONCURRENCY": 8, "FLUSH_MAX": 1}
FREEZE = r"INSERT INTO .webhooks_message."


def die(start_faulty: Callable[..., Any], **fault: Any) -> None:
    process = start_faulty(
        "webhooks_worker", die=fault, settings=SETTINGS, constants=fault.pop("constants", {})
    )
    assert process.wait(40) == -signal.SIGKILL
    time.sleep(0.2)  # what it had sent arrives


def check(receiver: Receiver, emitted: list[str], repeated: set[str]) -> None:
    """All came, once; a message whose POST was open when the worker died may have come twice."""
    assert states() == {"delivered": len(emitted)}
    assert {pk for pk, times in receiver.ids.items() if times > 1} <= repeated
    assert receiver.duplicates <= len(repeated)
    bodies = {}
    for post in receiver.posts:
        assert bodies.setdefault(post.id, post.body) == post.body
        bodies[post.id] = post.body
    events = Counter(
        event["id"]
        for post in {post.id: post for post in receiver.posts}.values()
        for event in post.json["events"]
    )
    assert events == Counter(emitted)


@pytest.mark.parametrize("at", ["before", "after"])
@pytest.mark.parametrize("place", ["freeze", "answers"])
def test_a_worker_that_dies_at_a_commit_of_a_batch(
    receiver: Receiver, start_faulty: Callable[..., Any], place: str, at: str
) -> None:
    receiver.answer = Answer(after=0.05)
    subscribe(receiver, batch_size=10, max_in_flight=1)
    Lane.objects.update(latency_ms=20)
    emitted = [event.pk for event in emit_orders(EVENTS)]
    die(start_faulty, sql=FREEZE if place == "freeze" else PLACES["answers"], at=at, nth=2)
    recorded = set(DeliveryAttempt.objects.values_list("message_id", flat=True))
    open_posts = set(receiver.ids) - recorded
    assert len(open_posts) <= 1
    frozen = Message.objects.count()
    assert frozen >= (2 if (place, at) == ("freeze", "after") else 1)
    end_leases()
    deliver()
    check(receiver, emitted, open_posts)
    assert Message.objects.filter(superseded_at=None).count() == EVENTS // 10


@pytest.mark.parametrize("nth", [1, 3])
@pytest.mark.parametrize("at", ["before", "after"])
def test_a_worker_that_dies_between_the_pages_of_a_digest(
    receiver: Receiver, start_faulty: Callable[..., Any], at: str, nth: int
) -> None:
    receiver.answer = Answer(after=0.05)
    subscribe(receiver, trigger="hourly", batch_size=10, max_in_flight=1)
    emitted = [event.pk for event in emit_orders(EVENTS)]
    fan_out_all()
    end = window_of(db_now("default") - timedelta(hours=1), "hourly", "UTC").end
    Delivery.objects.update(due_at=end, first_due_at=end)
    Lane.objects.update(claim_at=end, latency_ms=20)
    die(
        start_faulty,
        sql=FREEZE,
        at=at,
        nth=nth,
        constants={"webhooks.engine.digests.ROUND": 25},
    )
    open_posts = set(receiver.ids) - set(
        DeliveryAttempt.objects.values_list("message_id", flat=True)
    )
    assert len(open_posts) <= 1
    end_leases()
    deliver()
    check(receiver, emitted, open_posts)
    pages = {post.id: (post.json["page"], post.json["pages"]) for post in receiver.posts}
    assert sorted(pages.values()) == [(page, 6) for page in range(1, 7)]
    assert {str(post.json["counts"]) for post in receiver.posts} == {"{'order.paid': 60}"}


# Three rounds gather the members, a fourth commit has the answer, and three rounds follow it.
@pytest.mark.parametrize(("nth", "at"), [(4, "after"), (5, "before"), (6, "after")])
def test_a_worker_that_dies_while_members_of_a_digest_of_counts_follow(
    receiver: Receiver, start_faulty: Callable[..., Any], nth: int, at: str
) -> None:
    subscribe(receiver, trigger="hourly", content="counts")
    emit_orders(EVENTS)
    fan_out_all()
    end = window_of(db_now("default") - timedelta(hours=1), "hourly", "UTC").end
    Delivery.objects.update(due_at=end, first_due_at=end)
    Lane.objects.update(claim_at=end, latency_ms=20)
    rounds = {"webhooks.engine.digests.GATHERED": 20, "webhooks.engine.following.ROUND": 20}
    die(start_faulty, sql=PLACES["answers"], at=at, nth=nth, constants=rounds)
    assert states()["delivered"] == {4: 1, 5: 1, 6: 41}[nth]
    end_leases()
    deliver()
    [post] = receiver.posts
    assert post.json["counts"] == {"order.paid": EVENTS}
    assert states() == {"delivered": EVENTS}
    assert DeliveryAttempt.objects.count() == 1
