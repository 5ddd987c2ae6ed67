"""Connections for libcurl that are dialled, checked and chosen by us.

libcurl never looks up a name and never opens a socket here. Threads dial with the same guarded
``dial`` as the ``requests`` transport, and the connected socket is handed over. For libcurl each
connection has an address of its own, out of a block that is never routed; by that address we say
which one a POST uses, so nothing is ever shared between lanes, and no rule of libcurl's decides.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import select
import socket
import threading
import time
from collections.abc import Hashable
from typing import Any, Final

from webhooks.transports.connections import IdleConnections, dial
from webhooks.transports.sockets import PlainSocket, Wire, posting

#: POSTs that share one HTTP/2 connection of a lane; servers allow a hundred or more (RFC 9113).
MAX_STREAMS: Final = 64
#: Seconds that ``close`` waits for threads; one in a name lookup cannot be woken.
CLOSE_SECONDS: Final = 1.0

_numbers = itertools.count(1)


class Connection:
    """One connection of libcurl's, as we know it.

    key: whose it is: lane, scheme, host and port. connect_to: its identity, as libcurl wants it.
    fd: libcurl's number for the socket; it is only ever looked at, never closed. streams: POSTs
    under way. received: bytes since the last one ended. multiplexed: it speaks HTTP/2. broken:
    nothing new begins on it.
    """

    #: As urllib3 has it; nothing of ours waits in a TLS layer.
    sock = None
    __slots__ = (
        "_ear",
        "broken",
        "connect_to",
        "fd",
        "handle",
        "key",
        "multiplexed",
        "received",
        "streams",
    )

    def __init__(self, key: Hashable) -> None:
        number = next(_numbers) & 0xFFFFFFFF
        self.key = key
        # 100::/64 is discard-only (RFC 6666): packets to it go nowhere, whatever happens.
        self.connect_to = [f"::[100::{number >> 16:x}:{number & 0xFFFF:x}]:"]
        self.fd = -1
        self.streams = 0
        self.received = 0
        self.multiplexed = False
        self.broken = False
        #: What carried its last POST, and is told less for the next one.
        self.handle: Any = None
        self._ear: select.poll | None = None

    @property
    def is_connected(self) -> bool:
        """Whether it is silent, as urllib3 asks. Readable while idle means closed by the peer, or
        an answer that nobody asked for."""
        if self._ear is None:
            self._ear = select.poll()
            self._ear.register(self.fd, select.POLLIN)
        return not self._ear.poll(0)

    def close(self) -> None:
        """Nothing: libcurl closes what it has not used for long, and what it finds dead."""


class Connections:
    """Which connection the next POST of a lane uses."""

    def __init__(self, limit: int) -> None:
        """limit: idle connections that are kept."""
        self.idle: Any = IdleConnections(limit)
        #: HTTP/2 connections with POSTs under way, one for each key.
        self._shared: dict[Hashable, Connection] = {}

    def take(self, key: Hashable) -> Connection | None:
        """An open connection of this key with room for one more POST, or None."""
        connection = self._shared.get(key)
        if connection is None:
            connection = self.idle.take(key)
            if connection is None:
                return None
            if connection.multiplexed:
                self._shared[key] = connection
        elif connection.streams >= MAX_STREAMS:
            return None
        connection.streams += 1
        return connection

    def put(self, connection: Connection, *, usable: bool) -> None:
        """A POST has ended. usable: another one may follow on this connection."""
        connection.streams -= 1
        connection.received = 0
        if not usable:
            connection.broken = True
        if connection.broken or not connection.streams:
            if self._shared.get(connection.key) is connection:
                del self._shared[connection.key]
            if not connection.broken:
                self.idle.put(connection)


class Dialler:
    """Threads that look up and connect, so that nobody else waits meanwhile.

    A thread is started when all others are busy, up to ``limit``. ``bell`` becomes readable when
    there is something to ``collect``.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bell, self._clapper = socket.socketpair()
        self.bell.setblocking(False)
        self._clapper.setblocking(False)
        self._inbox: queue.SimpleQueue[tuple[Any, str, int, float] | None] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[tuple[Any, PlainSocket | Exception]] = queue.SimpleQueue()
        self._threads: list[tuple[threading.Thread, Wire]] = []
        self._busy = 0
        self._closed = False

    def dial(self, post: Any, host: str, port: int, deadline: float) -> None:
        """Dial in a thread; ``post`` comes back with the socket, or with what was raised.

        host: without brackets. deadline: on the clock of ``time.monotonic``.
        """
        self._busy += 1
        if len(self._threads) < min(self._busy, self.limit):
            self._start_thread()
        self._inbox.put((post, host, port, deadline))

    def collect(self) -> list[tuple[Any, PlainSocket | Exception]]:
        """What has been dialled since the last call."""
        with contextlib.suppress(BlockingIOError):
            self.bell.recv(4096)
        results = []
        with contextlib.suppress(queue.Empty):
            while True:
                results.append(self._outbox.get_nowait())
        self._busy -= len(results)
        return results

    def close(self) -> None:
        """End every thread; sockets that nobody collected are closed."""
        self._closed = True
        for _ in self._threads:
            self._inbox.put(None)
        for _, wire in self._threads:
            wire.cut()
        until = time.monotonic() + CLOSE_SECONDS
        for thread, _ in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        for _, result in self.collect():
            if isinstance(result, PlainSocket):
                result.close()
        self.bell.close()
        self._clapper.close()

    def _start_thread(self) -> None:
        wire = Wire()
        name = f"webhooks-dial-{len(self._threads)}"
        thread = threading.Thread(target=self._work, args=(wire,), name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the process may start no more threads
            if not self._threads:
                raise
        else:
            self._threads.append((thread, wire))

    def _work(self, wire: Wire) -> None:
        posting.wire = wire
        while (work := self._inbox.get()) is not None and not self._closed:
            post, host, port, deadline = work
            try:
                result: PlainSocket | Exception = dial(host, port, deadline)
            except Exception as error:  # noqa: BLE001 - it is judged by whoever collects it
                result = error
            self._outbox.put((post, result))
            # OSError: it rings already, or nobody listens any more.
            with contextlib.suppress(OSError):
                self._clapper.send(b"\0")
