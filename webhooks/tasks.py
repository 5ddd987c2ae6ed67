"""The django-q2 tasks. They carry no data, may run twice or never, and never raise."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable

from webhooks.clock import db_now
from webhooks.conf import settings
from webhooks.engine import housekeeping
from webhooks.engine.wake import wake
from webhooks.engine.worker import stopping_on, work

logger = logging.getLogger("webhooks")


def drain() -> None:
    """Deliver what is due, for a slice of ``DRAIN_SECONDS``; hands on when there is more."""

    def slice_() -> None:
        # Workers of a qcluster outlive a killed master, and nobody would ever stop them.
        with stopping_on(signal.SIGTERM, with_parent=True) as stop:
            work(seconds=float(settings.DRAIN_SECONDS), slots=settings.WORKERS, should_stop=stop)
        if stop.told.is_set():
            # All is written and given back. The signal was for the process, which would otherwise
            # go on waiting for tasks from a cluster that is going down.
            signal.raise_signal(signal.SIGTERM)

    _safely("drain", slice_)


def sweep() -> None:
    """Look for what nobody was woken for, and for lanes astray; run it every minute."""

    def look() -> None:
        if housekeeping.sweep(settings.database):
            wake(force=True)

    _safely("sweep", look)


def tick() -> None:
    """Begin the windows of digests, and send what those that ended hold; run it each hour.

    One that comes late, twice or never loses nothing: the sweep finds what is due as well.
    """

    def begin() -> None:
        using = settings.database
        housekeeping.tick(using, housekeeping.planned_hour(db_now(using)))
        wake(force=True)

    _safely("tick", begin)


def prune() -> None:
    """Remove what is older than ``RETENTION_DAYS`` and compact the statistics; run it daily."""
    _safely("prune", lambda: housekeeping.prune(settings.database))


def _safely(name: str, task: Callable[[], object]) -> None:
    # A task that fails is handed out again by some brokers, for ever.
    try:
        task()
    except Exception:
        logger.exception("The task %s failed; the next one goes on from what is stored.", name)
