"""A frozen message in the memory of who sends it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Member:
    """One delivery in a batch. recorded_at: its event."""

    delivery_id: str
    event_id: str
    event_type: str
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class Parcel:
    """A message, of several deliveries or of one, ready to be sent: the first stands for all.

    batch: whether its body is a batch's. body: b"" where it could not be rendered. size: how many
    deliveries travel in it, whether or not each is among ``members``: those of a digest of counts
    are not read. types: events of each type. scheduled: a digest's page, which is as late as it
    comes after its window's end.
    """

    message_id: str
    batch: bool
    format: str
    body: bytes
    size: int
    members: Sequence[Member]
    types: Mapping[str, int]
    scheduled: bool

    @property
    def events(self) -> int:
        """Events in it: an empty digest's only delivery carries none."""
        return sum(self.types.values())
