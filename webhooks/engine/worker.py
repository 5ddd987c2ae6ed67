"""A worker: a process that takes a slot, drains for a while, and stops when it is told to."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import FrameType
from typing import Any

from django.db import connections
from django.utils.module_loading import import_string

from webhooks.conf import settings
from webhooks.engine.drain import Drain
from webhooks.engine.wake import wake
from webhooks.models import Duty, Worker
from webhooks.transports.base import Transport

logger = logging.getLogger("webhooks")


class Stop:
    """Whether this worker was told to stop, by a signal or by the death of its parent."""

    def __init__(self, *, with_parent: bool) -> None:
        """with_parent: stop when the parent process is gone."""
        self.told = threading.Event()
        self._parent = os.getppid() if with_parent else None

    def __call__(self) -> bool:
        if self._parent is not None and os.getppid() != self._parent:
            self.told.set()
        return self.told.is_set()


@contextmanager
def stopping_on(*signals: signal.Signals, with_parent: bool = False) -> Iterator[Stop]:
    """A ``Stop`` that these signals set; the handlers that stood before come back at the end."""
    stop = Stop(with_parent=with_parent)
    if threading.current_thread() is not threading.main_thread():
        yield stop  # Python runs handlers in the main thread alone
        return

    def handle(signum: int, frame: FrameType | None) -> None:
        stop.told.set()

    before = {each: signal.signal(each, handle) for each in signals}
    try:
        yield stop
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def transport() -> Transport:
    """This process's transport; connections stay open from one drain to the next."""
    return _transport(os.getpid(), settings.TRANSPORT, settings.concurrency)


@lru_cache(maxsize=4)
def _transport(pid: int, path: str, concurrency: int) -> Transport:
    # ``pid``: a fork must not inherit its parent's threads and sockets.
    made: Transport = import_string(path)(concurrency=concurrency)
    return made


def work(
    *,
    seconds: float | None,
    slots: int | None,
    until_idle: bool = False,
    should_stop: Callable[[], bool],
) -> None:
    """Take a slot and drain; leave when idle, when ``seconds`` are over, or when told to.

    slots: how many workers there may be; with none free it returns at once. None: no limit.
    seconds: the length of the slice, then it hands on to a new task; None: there is no end.
    """
    using = settings.database
    connection: Any = connections[using]
    if connection.in_atomic_block and not connection.atomic_blocks[-1]._from_testcase:
        # As Django's durable blocks: a TestCase's own transaction is no transaction of the host's.
        raise RuntimeError(
            "A drain in a transaction would send what may be rolled back. Call it outside of "
            "transaction.atomic()."
        )
    Duty.objects.using(using).ensure()
    while not should_stop():
        began = time.monotonic()
        drain = _drain_in_a_slot(
            using, seconds=seconds, slots=slots, until_idle=until_idle, should_stop=should_stop
        )
        # The slot is free again, and now it looks once more: an event whose drain found no free
        # slot came before this look, or finds this slot free.
        if drain is None or not (drain.sitting or drain.something_is_ready()):
            return
        if seconds is not None and time.monotonic() - began >= seconds:
            if not drain.handed_on:
                wake(force=True)
            return


#: One drain in a process: the transport, and with it the answers, is the process's.
_draining = threading.Lock()


def _drain_in_a_slot(
    using: str,
    *,
    seconds: float | None,
    slots: int | None,
    until_idle: bool,
    should_stop: Callable[[], bool],
) -> Drain | None:
    """Drain once, in a slot; None when there is none free, here or in the whole service."""
    if not _draining.acquire(blocking=False):
        return None
    try:
        token = uuid.uuid4()
        worker = Worker.objects.using(using).take_slot(token, slots)
        if worker is None:
            return None
        try:
            drain = Drain(
                using,
                transport(),
                worker=worker,
                seconds=seconds,
                until_idle=until_idle,
                should_stop=should_stop,
            )
            drain.run()
        finally:
            Worker.objects.using(using).filter(token=token).delete()
        return drain
    finally:
        _draining.release()
