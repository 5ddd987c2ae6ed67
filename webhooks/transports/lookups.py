"""Name lookups that end in time.

``getaddrinfo`` blocks in C for as long as the resolver likes, and cannot be interrupted. What the
answers mean, and whether they may be dialled, is judged in :mod:`webhooks.transports.addresses`.
"""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
from typing import Any, Final

#: One answer of ``socket.getaddrinfo``: family, type, protocol, canonical name, socket address.
AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]

#: At most so many lookups may be under way in a process.
MAX_LOOKUPS: Final = 32

_lookups = threading.BoundedSemaphore(MAX_LOOKUPS)


class TooManyLookups(Exception):
    """The process waits for as many name servers as it may: not the fault of this host."""


def _reset_lookups() -> None:
    """Threads do not survive a fork, so what they held would stay held in the child."""
    global _lookups
    _lookups = threading.BoundedSemaphore(MAX_LOOKUPS)


os.register_at_fork(after_in_child=_reset_lookups)


def look_up(host: str, port: int, timeout: float) -> list[AddressInfo]:
    """``getaddrinfo`` with a time limit, in seconds.

    It runs in a thread that is left behind when its time is over. ``MAX_LOOKUPS`` bounds the
    threads that a dead resolver holds. Raises ``socket.gaierror`` where there is no answer,
    TimeoutError where none came in time, TooManyLookups where it could not be asked.
    """
    started = time.monotonic()
    slots = _lookups
    if not slots.acquire(timeout=max(0.0, timeout)):
        raise TooManyLookups
    answer: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answer.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except Exception as error:  # noqa: BLE001 - it is raised in the thread that waits
            answer.put(error)
        finally:
            slots.release()

    try:
        threading.Thread(target=ask, name="webhooks-lookup", daemon=True).start()
    except RuntimeError:  # the process may start no more threads
        slots.release()
        raise
    try:
        result = answer.get(timeout=max(0.0, timeout - (time.monotonic() - started)))
    except queue.Empty:
        raise TimeoutError("the name lookup took too long") from None
    if isinstance(result, UnicodeError) or result == []:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    if isinstance(result, Exception):
        raise result
    return list(result)
