"""``manage.py webhooks_worker``: deliver without django-q2, e.g. in a container of its own."""

from __future__ import annotations

import logging
import signal
import threading
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import connections

from webhooks import tasks
from webhooks.engine.worker import Stop, stopping_on, work

logger = logging.getLogger("webhooks")


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
            chores = threading.Thread(target=keep_house, args=(stop,), daemon=True)
            chores.start()
            deliver(stop)
            chores.join(timeout=1)
            self.stdout.write("Stopped.")


def deliver(stop: Stop) -> None:
    """Drain until stopped, whatever the database does meanwhile."""
    while not stop():
        try:
            work(seconds=None, slots=None, should_stop=stop)
        except Exception:
            # Whatever it was, those who wait for their events are better served by a new start.
            logger.exception("The worker failed; starting again.")
            connections.close_all()
            stop.told.wait(1)


def keep_house(stop: Stop) -> None:
    """Do what django-q2 would schedule. In a thread: nothing may hold up the deliveries."""
    next_prune = time.monotonic()
    while not stop():
        tasks.sweep()
        if time.monotonic() >= next_prune:
            tasks.prune()
            next_prune = time.monotonic() + 86_400
        connections.close_all()
        stop.told.wait(60)
