"""Waking a worker: a django-q2 task that carries no data.

The database holds the truth; a task only says "look". So losing one costs latency (the sweep looks
every minute), doubling one costs a look, and a burst of events needs few. Nothing here may fail or
delay the host: a broker that is down is noticed in half a second and reported to the log.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

from django.utils.module_loading import import_string

from webhooks.conf import settings

logger = logging.getLogger("webhooks")

TASKS = ("webhooks.tasks.drain", "webhooks.tasks.sweep", "webhooks.tasks.prune")

#: A drain lingers for so many seconds before it leaves, and looks so often meanwhile.
LINGER, POLL = 1.0, 0.15
#: How long a process keeps quiet after a wake-up that succeeded. It grows while wake-ups follow one
#: another, and stays below LINGER: the drain that was called cannot have left yet. Measured:
#: 10,000 autocommitted events in 20 s would be 80 tasks at the first of these, and are 25.
QUIET = (0.25, 0.5, 0.9)
#: After a broker took longer than this to fail, it is left alone for so long.
SLOW, REST = 0.1, 5.0
#: A broker that is down is logged at most so often, in seconds.
COMPLAIN = 30.0
BROKER_TIMEOUT = 0.5
#: Tasks in the queue of a cluster of its own, and in one that the host shares, that are enough:
#: while all workers are busy, tasks must not pile up.
ENOUGH, ENOUGH_SHARED = 1, 100


class _Quiet:
    """When this process last called, and how long it keeps quiet since."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until = self._silent_until = 0.0
        self._step = 0

    def keeps(self) -> bool:
        return time.monotonic() < self._until

    def called(self) -> None:
        with self._lock:
            now = time.monotonic()
            follows = now < self._until + QUIET[-1]
            self._step = min(self._step + 1, len(QUIET) - 1) if follows else 0
            self._until = now + QUIET[self._step]

    def failed(self, took: float) -> None:
        # A refusal costs nothing, so the next event tries again; a broker that hangs would cost
        # the host half a second for each event.
        if took > SLOW:
            self._until = time.monotonic() + REST

    def may_complain(self) -> bool:
        """Whether it is time to say once more that the broker is down; not for each event."""
        now = time.monotonic()
        if now < self._silent_until:
            return False
        self._silent_until = now + COMPLAIN
        return True

    def reset(self) -> None:
        self._until = self._silent_until = 0.0
        self._step = 0


quiet = _Quiet()


def wake(*, force: bool = False) -> None:
    """Call a worker, unless one was called just now. Never raises.

    force: call in any case (a drain that hands on, a sweep that found work). A WAKER of the host's
    own runs in the caller's thread: what it takes, the caller waits.
    """
    if not force and quiet.keeps():
        return
    began = time.monotonic()
    try:
        path = settings.WAKER
        if path is None:
            return
        cast(Callable[[], Any], import_string(path))()
    except Exception:
        quiet.failed(time.monotonic() - began)
        if quiet.may_complain():
            logger.exception("No worker could be woken; the sweep will find what is due.")
    else:
        quiet.called()


def enqueue_drain() -> None:
    """Put a ``drain`` on the queue of the configured cluster. Raises what the broker raises."""
    from django_q.tasks import async_task

    broker = _broker(os.getpid(), settings.CLUSTER)
    # A task that nobody has begun will look later than now, so it does for this event too. In a
    # queue that the host shares, one cannot tell whose tasks wait: there, the bound is a wide one.
    bound = ENOUGH if settings.CLUSTER is not None else ENOUGH_SHARED
    if _counts_cheaply(broker) and broker.queue_size() >= bound:
        return
    async_task(TASKS[0], broker=broker)


def queue_size() -> int | None:
    """Tasks in our cluster's queue; None where the broker is down, or cannot say so cheaply."""
    try:
        broker = _broker(os.getpid(), settings.CLUSTER)
        return int(broker.queue_size()) if _counts_cheaply(broker) else None
    except Exception:
        logger.warning("The broker does not tell how many tasks wait.", exc_info=True)
        return None


def _counts_cheaply(broker: Any) -> bool:
    """Whether asking for the queue's length is one quick statement, as on the ORM and Redis."""
    return type(broker).__module__.startswith(("django_q.brokers.redis_broker", __name__))


def task_timeout() -> int:
    """Seconds after which django-q2 may kill a task of ours.

    A drain ends DRAIN_SECONDS + TIMEOUT after its start; an endpoint that begins to hang just then
    may take one more TIMEOUT.
    """
    return int(settings.DRAIN_SECONDS + 2 * settings.TIMEOUT + 20)


@lru_cache(maxsize=4)
def _broker(pid: int, cluster: str | None) -> Any:
    """The queue's broker, one object for each process (``pid``: a fork must not share sockets)."""
    from django_q.brokers import get_broker
    from django_q.conf import Conf

    others_first = Conf.BROKER_CLASS or Conf.IRON_MQ or isinstance(Conf.SQS, dict)
    if Conf.ORM and not others_first:  # as get_broker() chooses
        return _orm_broker()(list_key=cluster or Conf.CLUSTER_NAME)
    broker = get_broker(cluster)
    _hurry(broker.connection)
    return broker


def _orm_broker() -> type[Any]:
    # Made here: django-q2's models cannot be imported before the apps are ready.
    from django_q.brokers.orm import ORM
    from django_q.conf import Conf
    from django_q.models import OrmQ

    class OutboxOrmBroker(ORM):  # type: ignore[misc]
        """django-q2's, but it leaves the caller's connection open.

        The original closes old connections when it is made and before each INSERT; with
        CONN_MAX_AGE = 0 that is the connection of the request that just emitted.
        """

        @staticmethod
        def get_connection(list_key: str | None = None) -> Any:
            return OrmQ.objects.using(Conf.ORM)

    return OutboxOrmBroker


def _hurry(connection: Any) -> None:
    """Make a Redis client give up in half a second, and not try again by itself."""
    pool = getattr(connection, "connection_pool", None)
    if pool is None:
        return
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    pool.connection_kwargs.update(
        socket_connect_timeout=BROKER_TIMEOUT,
        socket_timeout=BROKER_TIMEOUT,
        retry=Retry(NoBackoff(), 0),
        retry_on_error=[],
    )
