"""``manage.py webhooks_worker``: deliver without django-q2, e.g. in a container of its own."""

from __future__ import annotations

import signal
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from webhooks import tasks
from webhooks.conf import settings
from webhooks.engine.worker import Stop, stopping_on, work


class Command(BaseCommand):
    help = (
        "Deliver events until stopped. SIGTERM or SIGINT ends it cleanly: what is in flight ends, "
        "is recorded, and every lane goes back."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--until-idle",
            action="store_true",
            help="leave when nothing is due; retries that are due later stay for the next run",
        )

    def handle(self, *args: Any, until_idle: bool, **options: Any) -> None:
        with stopping_on(signal.SIGTERM, signal.SIGINT) as stop:
            if until_idle:
                tasks.sweep()
                work(seconds=None, slots=None, until_idle=True, should_stop=stop)
                return
            self.stdout.write("Delivering; Ctrl-C stops.")
            self.run(stop)
            self.stdout.write("Stopped.")

    def run(self, stop: Stop) -> None:
        """Drain in slices, with the sweep and the pruning that django-q2 would schedule between."""
        next_sweep = next_prune = time.monotonic()
        while not stop():
            now = time.monotonic()
            if now >= next_sweep:
                tasks.sweep()
                next_sweep = now + 60
            if now >= next_prune:
                tasks.prune()
                next_prune = now + 86_400
            begun = time.monotonic()
            work(seconds=float("inf"), slots=None, should_stop=_Either(stop, begun + 60))


class _Either:
    """Stop when told to, or when the minute is over and the sweep is due."""

    def __init__(self, stop: Stop, end: float) -> None:
        self._stop = stop
        self._end = end

    def __call__(self) -> bool:
        return self._stop() or time.monotonic() >= self._end
