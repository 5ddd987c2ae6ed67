"""How a subscriber misbehaves: which POSTs it fails, leaves hanging, or answers with 429."""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass


class Answer(enum.Enum):
    """What a verified POST gets."""

    ACCEPT = "accepted"
    FAIL = "failed"
    HANG = "hung"
    RATE_LIMIT = "rate_limited"


@dataclass(frozen=True, slots=True)
class Temper:
    """Shares of verified POSTs, each between 0 and 1, that get no 2xx.

    A POST's fate hangs on the seed, its ``webhook-id`` and how often that id was seen, not on the
    order in which threads come by: the same POSTs under the same seed get the same answers, and a
    retry is a new throw of the dice.
    """

    fail: float = 0.0
    hang: float = 0.0
    rate_limit: float = 0.0
    seed: int = 1

    def __post_init__(self) -> None:
        shares = (self.fail, self.hang, self.rate_limit)
        if any(not 0 <= share <= 1 for share in shares) or sum(shares) > 1:
            raise ValueError(
                "Shares of requests lie between 0 and 1, and fail, hang and rate-limit together "
                f"are at most 1; these are {shares}."
            )

    def answer(self, message_id: str, seen: int) -> Answer:
        """What the POST gets that is the ``seen``-th one of this message."""
        throw = hashlib.blake2b(f"{self.seed}:{message_id}:{seen}".encode(), digest_size=8)
        share = int.from_bytes(throw.digest()) / 2**64
        if share < self.fail:
            return Answer.FAIL
        if share < self.fail + self.hang:
            return Answer.HANG
        if share < self.fail + self.hang + self.rate_limit:
            return Answer.RATE_LIMIT
        return Answer.ACCEPT
