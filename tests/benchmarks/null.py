"""A transport that sends nothing: what is left is the cost of the engine itself."""

from __future__ import annotations

import time
from collections.abc import Hashable

from webhooks.transports.base import Request, Response, Transport


class NullTransport(Transport):
    """Answers 200 to half of what is in flight at each look: a real one is never all done either,
    and the drain writes at once when nothing is in flight."""

    def __init__(self, *, concurrency: int) -> None:
        super().__init__(concurrency=concurrency)
        self._answers: list[tuple[Hashable, Response]] = []

    def start(self, tag: Hashable, request: Request) -> None:
        self._answers.append((tag, Response(status_code=200, excerpt="ok", elapsed_ms=1.0)))

    def finished(self, timeout: float) -> list[tuple[Hashable, Response]]:
        if not self._answers:
            time.sleep(timeout)  # there is nobody who could answer later
        half = (len(self._answers) + 1) // 2
        answers, self._answers = self._answers[:half], self._answers[half:]
        return answers

    def close(self) -> None:
        self._answers.clear()
