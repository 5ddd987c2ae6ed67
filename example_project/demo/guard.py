"""Ends the demo's children when the demo itself could not, because it was killed.

``python -m example_project.demo.guard`` reads from its standard input: ``+PID`` for a child that
was started (each leads a process group of its own), ``-PID`` for one that has ended. When the input
ends, so has the demo, and what is still noted is ended: SIGTERM to the child, a grace period, then
SIGKILL to its group.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable

#: Seconds between SIGTERM and SIGKILL.
GRACE = 10.0


def end(groups: Iterable[int]) -> None:
    """End these process groups, each named by its leader's pid."""
    alive = [group for group in groups if _send(os.kill, group, signal.SIGTERM)]
    deadline = time.monotonic() + GRACE
    while alive and time.monotonic() < deadline:
        time.sleep(0.1)
        # Signal 0 only asks whether the group has a member.
        alive = [group for group in alive if _send(os.killpg, group, 0)]
    for group in groups:
        _send(os.killpg, group, signal.SIGKILL)


def _send(how: Callable[[int, int], None], pid: int, number: int) -> bool:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        how(pid, number)
        return True
    return False


def main() -> None:
    noted: set[int] = set()
    for line in sys.stdin:
        if line.startswith("+"):
            noted.add(int(line[1:]))
        else:
            noted.discard(int(line[1:]))
    end(noted)


if __name__ == "__main__":
    main()
