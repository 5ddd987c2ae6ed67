"""What a subscriber has received: one receipt for each ``webhook-id``, and the figures.

The ledger is the subscriber's side of a tie-out, so it counts what it saw and never corrects it.
What digests tell is kept beside what was counted from single events, for both to be compared.
It is kept in memory: it lives as long as the receiver's process.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from example_project.receiver.digests import Comparison, Digest, compare
from webhooks.receiving import Message, Seen


@dataclass(slots=True)
class Receipt:
    """One message, however often it came.

    id: the ``webhook-id``.
    type: the ``type`` in the body, "" where there was none.
    received_at: when it was first seen, in unix seconds.
    sha256: digest of the body that came first.
    seen: verified POSTs under this id.
    accepted: one of them was answered with 2xx.
    """

    id: str
    type: str
    received_at: float
    sha256: str
    seen: int = 0
    accepted: bool = False


class Ledger(Seen):
    """Receipts and figures, shared by all threads of the server.

    It is also where the server remembers what it has handled: a receipt that is accepted.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._receipts: dict[str, Receipt] = {}
        self._figures: Counter[str] = Counter()
        self._by_type: Counter[str] = Counter()
        self._digests: list[Digest] = []
        # By minute and type: windows begin and end with a minute.
        self._singles: Counter[tuple[datetime, str]] = Counter()
        self.began_at = datetime.now(UTC)

    def rejected(self) -> None:
        """A POST came whose signature is missing, wrong, too old or too new."""
        with self._lock:
            self._figures["received"] += 1
            self._figures["rejected"] += 1

    def verified(self, message_id: str, event_type: str, body: bytes) -> int:
        """A POST came and its signature is right. Returns how often the id was seen by now."""
        sha256 = hashlib.sha256(body).hexdigest()
        with self._lock:
            self._figures["received"] += 1
            self._figures["verified"] += 1
            receipt = self._receipts.get(message_id)
            if receipt is None:
                receipt = Receipt(message_id, event_type, time.time(), sha256)
                self._receipts[message_id] = receipt
            if receipt.accepted:
                # The sender had our 2xx, or at least we had sent it.
                self._figures["duplicates"] += 1
            if receipt.sha256 != sha256:
                self._figures["body_mismatch"] += 1
            receipt.seen += 1
            return receipt.seen

    def remember(self, message_id: str) -> bool:
        """The message is kept; called before the 2xx goes out, as a subscriber has to do it."""
        with self._lock:
            receipt = self._receipts[message_id]
            first = not receipt.accepted
            if first:
                receipt.accepted = True
                self._figures["accepted"] += 1
            return first

    def forget(self, message_id: str) -> None:
        """It could not be handled after all; its next copy is the first again."""
        with self._lock:
            self._receipts[message_id].accepted = False
            self._figures["accepted"] -= 1

    def note(self, message: Message) -> None:
        """The subscriber's work: it counts events by their type, and keeps what digests tell."""
        digest = Digest.of(message)
        with self._lock:
            self._by_type[message.type] += 1
            if digest is not None:
                self._digests.append(digest)
                return
            # An event out of a batch comes by itself as well, and then has no body: whether it was
            # a digest's, only the batch knows.
            for event in message.events if message.body else ():
                if event.timestamp is not None:
                    minute = event.timestamp.astimezone(UTC).replace(second=0, microsecond=0)
                    self._singles[minute, event.type] += 1

    def refuse(self, how: str) -> None:
        """The POST is answered with no 2xx; ``how`` is ``failed``, ``hung`` or ``rate_limited``."""
        with self._lock:
            self._figures[how] += 1

    def figures(self) -> dict[str, object]:
        """All counts at this moment.

        received: POSTs; verified and rejected: those with a right and a wrong signature.
        accepted: messages answered with 2xx at least once. by_type: their events for each type;
        a batch counts under ``batch`` besides.
        duplicates: verified POSTs of a message that had been answered with 2xx before.
        body_mismatch: verified POSTs whose body was not the one that first came under their id.
        failed, hung, rate_limited: POSTs answered with 500, with nothing, with 429.
        """
        names = (
            "received",
            "verified",
            "rejected",
            "accepted",
            "duplicates",
            "body_mismatch",
            "failed",
            "hung",
            "rate_limited",
        )
        with self._lock:
            figures: dict[str, object] = {name: self._figures[name] for name in names}
            figures["by_type"] = dict(sorted(self._by_type.items()))
        return figures

    def comparison(self) -> Comparison:
        """What digests told beside what was counted from single events, up to this moment."""
        with self._lock:
            digests, singles = list(self._digests), dict(self._singles)
        return compare(digests, singles, self.began_at)

    def lines(self, size: int = 500) -> Iterator[bytes]:
        """The receipts as NDJSON, ``size`` lines at a time, in the order of their arrival."""
        with self._lock:
            receipts = list(self._receipts.values())
        for start in range(0, len(receipts), size):
            yield b"".join(_line(receipt) for receipt in receipts[start : start + size])


def _line(receipt: Receipt) -> bytes:
    return (
        json.dumps(
            {
                "id": receipt.id,
                "type": receipt.type,
                "received_at": receipt.received_at,
                "seen": receipt.seen,
                "accepted": receipt.accepted,
                "sha256": receipt.sha256,
            }
        ).encode()
        + b"\n"
    )
