"""What must be true when a storm is over: the receivers' ledger against what was emitted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.faults import leases
from tests.faults.ledger import Ledger, Post
from tests.faults.stream import Stream
from webhooks.engine import housekeeping
from webhooks.models import Delivery, DeliveryAttempt, Duty, Event


class Verdict:
    """wrong: what does not hold, in sentences. figures: what was counted."""

    def __init__(self, ledger: Ledger, stream: Stream, around: Callable[[float], str]) -> None:
        """around: what was done around a moment (unix seconds)."""
        self.ledger = ledger
        self.stream = stream
        self.wrong: list[str] = []
        self.figures: dict[str, Any] = {}
        self._around = around

    def judge(self, held: list[leases.Lease]) -> None:
        """Compare the ledger with the database, and both with what was emitted."""
        stored = dict(Event.objects.filter(type="order.paid").values_list("pk", "requester"))
        self.judge_events(stored)
        self.judge_deliveries(stored)
        self.judge_repeats()
        if differing := self.ledger.differing():
            self.wrong.append(f"other bytes under the same id: {differing[:3]}")
        if self.ledger.forged:
            self.wrong.append(f"{self.ledger.forged} signatures do not verify")
        housekeeping.sweep("default")
        repairs = Duty.objects.get(name=Duty.Name.SWEEP).counter
        if repairs:
            self.wrong.append(f"the sweep had to repair {repairs} lanes")
        if found := leases.overlaps(held):
            self.wrong.append(f"{len(found)} lanes were leased twice at once: {found[0]}")
        if not held:
            self.wrong.append("no lease is on record")
        self.figures |= {"repairs": repairs, "leases": len(held)}

    def judge_events(self, stored: dict[str, str]) -> None:
        said = self.stream
        posted = {post.id for post in self.ledger.posts}
        if lost := said.committed - stored.keys():
            self.wrong.append(f"{len(lost)} events were committed and are not there")
        if wrong := (said.taken_back & stored.keys()) | (posted - stored.keys()):
            self.wrong.append(f"{len(wrong)} events were rolled back and are there, or were sent")
        self.figures |= {"events": len(stored), "rolled back": len(said.taken_back)}
        self.figures["slowest emit, s"] = round(said.slowest, 2)

    def judge_deliveries(self, stored: dict[str, str]) -> None:
        subscribers: dict[str, list[str]] = {}
        for endpoint in self.ledger.endpoints.values():
            subscribers.setdefault(endpoint.requester, []).append(endpoint.subscription)
        expected = {
            (subscription, event)
            for event, requester in stored.items()
            for subscription in subscribers[requester]
        }
        rows = Delivery.objects.values_list("subscription_id", "event_id", "state", "reason")
        ended = {(row[0], row[1]): (row[2], row[3]) for row in rows}
        acknowledged = self.ledger.acknowledged()
        lost = [
            key
            for key in expected
            if key not in ended
            or ended[key][0] == "pending"
            or (ended[key][0] == "delivered" and key not in acknowledged)
            or (ended[key][0] != "delivered" and not ended[key][1])
        ]
        if lost:
            self.wrong.append(f"{len(lost)} deliveries were lost, e.g. {lost[0]}")
        if not expected or not acknowledged:
            self.wrong.append("nothing was delivered at all")
        states = Counter(state for state, _ in ended.values())
        self.figures |= {"deliveries": len(ended), **states}

    def judge_repeats(self) -> None:
        attempts: Counter[tuple[str, str]] = Counter()
        unheard: Counter[tuple[str, str]] = Counter()
        rows = DeliveryAttempt.objects.values_list("subscription_id", "message_id", "status_code")
        for subscription, message, status in rows:
            attempts[subscription, message] += 1
            unheard[subscription, message] += status is None
        counts = self.ledger.counts()
        unrecorded = sum(max(0, n - attempts[key]) for key, n in counts.items())
        acknowledged = Counter(
            (post.subscription, post.id) for post in self.ledger.posts if post.acknowledged
        )
        # On record as timeouts, although the receiver had answered: a busy machine.
        late = sum(min(n - 1, unheard[key]) for key, n in acknowledged.items() if n > 1)
        repeats = self.ledger.repeats()
        lost = sum(post.lost for post in self.ledger.posts)
        held = sum(post.held and not post.lost for post in self.ledger.posts)
        if unrecorded > lost:
            self.wrong.append(f"{unrecorded} POSTs without a record; {lost} were open at the kills")
            self.wrong += self.unexplained(attempts)
        if repeats > lost + held + late:
            self.wrong.append(f"{repeats} duplicates; {lost} + {held} + {late} may have been")
        self.figures |= {
            "POSTs": len(self.ledger.posts),
            "attempts": sum(attempts.values()),
            "POSTs without a record": unrecorded,
            "duplicates": repeats,
            "open POSTs when killed": lost,
            "open POSTs when stopped": held,
            "answers that came too late": late,
        }

    def unexplained(self, attempts: Counter[tuple[str, str]]) -> list[str]:
        """Some of the POSTs that are neither on record nor known to have been open at a kill."""
        came: dict[tuple[str, str], list[Post]] = {}
        for post in self.ledger.posts:
            came.setdefault((post.subscription, post.id), []).append(post)
        found = []
        for key, posts in came.items():
            if len(posts) - attempts[key] > sum(post.lost for post in posts):
                times = ", ".join(f"{post.at:.2f}{' lost' * post.lost}" for post in posts)
                found += [f"{key[1]} at {times}, {attempts[key]} attempts"]
                found += [f"  {self._around(post.at)}" for post in posts]
        return found[:20]
