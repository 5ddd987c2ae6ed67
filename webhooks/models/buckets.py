"""The buckets in which statistics are counted: of time, and of milliseconds."""

from __future__ import annotations

from collections.abc import Sequence

#: Widths of the time buckets, in seconds: fresh rows, after 48 hours, after 30 days.
FRESH, HOUR, DAY = 300, 3600, 86_400

#: Upper bounds, in ms, of the buckets for the time of one POST; one more bucket is above them.
LATENCY_BOUNDS = (5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 15_000)
#: The same for the time from the event's record to its acknowledgement.
ACK_BOUNDS = (
    *(100, 250, 500, 1000, 2500, 5000, 15_000, 60_000, 300_000),
    *(1_800_000, 7_200_000, 36_000_000, 86_400_000),
)
LATENCY_COLUMNS = tuple(f"latency_{i}" for i in range(len(LATENCY_BOUNDS) + 1))
ACK_COLUMNS = tuple(f"ack_{i}" for i in range(len(ACK_BOUNDS) + 1))


def percentile(counts: Sequence[int], bounds: Sequence[int], share: float) -> float | None:
    """The value below which ``share`` (0 to 1) of what was counted lies, estimated; None: nothing.

    Within a bucket, values are taken as evenly spread. The last bucket has no upper bound: what
    lies there is taken for the last bound, so such an answer means "at least".
    """
    total = sum(counts)
    if not total:
        return None
    rank, below = share * total, 0
    lower = 0
    for count, upper in zip(counts, bounds, strict=False):
        if count and below + count >= rank:
            return lower + (upper - lower) * (rank - below) / count
        below += count
        lower = upper
    return float(bounds[-1])
