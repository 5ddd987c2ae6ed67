"""The transport for many POSTs at once: libcurl, driven by the thread that asks for them.

There is no thread for the sockets: it would take the interpreter's lock for each line of a header,
and may wait 5 ms for it each time while the engine computes. What came in while the caller was
elsewhere is read when it is back, and counts if it came in time. Only names are looked up, and
connections made, in threads (:mod:`webhooks.transports.curl_connections`).

Install it with ``pip install django-webhook-delivery[curl]``.
"""

from __future__ import annotations

import contextlib
import select
import sys
import time
from collections import deque
from collections.abc import Hashable
from dataclasses import replace
from fcntl import ioctl
from termios import FIONREAD
from typing import Any, Final

import requests.utils
from django.core.exceptions import ImproperlyConfigured

from webhooks.headers import masked
from webhooks.transports.base import Request, Response, Transport
from webhooks.transports.requests import MAX_IDLE_CONNECTIONS
from webhooks.transports.sockets import MAX_RECEIVED_BYTES, PlainSocket

try:
    import pycurl
except ImportError as error:
    raise ImproperlyConfigured(
        "CurlTransport needs pycurl. Install django-webhook-delivery[curl], or leave "
        'WEBHOOKS["TRANSPORT"] out.'
    ) from error

from webhooks.transports.curl_answers import refusal, too_large
from webhooks.transports.curl_connections import Connection, Connections, Dialler
from webhooks.transports.curl_posts import Handle, Post

#: The values are those of ``select.poll`` as well.
EVENTS: Final = {
    pycurl.POLL_IN: select.POLLIN,
    pycurl.POLL_OUT: select.POLLOUT,
    pycurl.POLL_INOUT: select.POLLIN | select.POLLOUT,
}
#: Where ``ioctl`` puts a C integer.
NOTHING: Final = bytes(4)
#: Seconds without an event after which ``finished`` looks around all the same.
MAX_WAIT: Final = 1.0


class CurlTransport(Transport):
    """POSTs through one multi handle of libcurl's, over connections that never leave their lane.

    Everything is made with the first POST, so the object may be made before a fork but must be used
    only after it. HTTP/2 is spoken over TLS with receivers that have it.
    """

    #: Without a thread for each, more of them cost nothing, and answers are taken in and written
    #: many at a time: with 32 a delivery took half as much CPU again.
    default_concurrency = 128

    def __init__(self, *, concurrency: int) -> None:
        super().__init__(concurrency=concurrency)
        self._ca_file = self.ca_file or requests.utils.DEFAULT_CA_BUNDLE_PATH
        self._multi: Any = None
        #: Those that carry nothing, the longest idle first.
        self._handles: dict[Handle, None] = {}
        self._sending: dict[Handle, Post] = {}
        self._dialling: set[Post] = set()
        self._waiting: deque[tuple[Hashable, Request]] = deque()
        self._results: list[tuple[Hashable, Response]] = []
        #: When libcurl wants to be called, and when the next POST may be out of time.
        self._timer = self._next_deadline = float("inf")
        self._closed = False

    def start(self, tag: Hashable, request: Request) -> None:
        if self._closed:
            raise RuntimeError("This transport is closed. Make a new one.")
        if self._multi is None:
            self._open()
        if len(self._sending) + len(self._dialling) < self.concurrency:
            self._begin(tag, request)
        else:
            self._waiting.append((tag, request))

    def finished(self, timeout: float) -> list[tuple[Hashable, Response]]:
        until = time.monotonic() + timeout
        if self._multi is None:
            time.sleep(max(0.0, timeout))
            return []
        self._work(max(0.0, timeout))
        while not self._results and (left := until - time.monotonic()) > 0:
            self._work(left)
        results, self._results = self._results, []
        return results

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._multi is None:
            return
        self._dialler.close()
        for handle, post in self._sending.items():
            self._multi.remove_handle(handle.curl)
            post.drop_socket()
        for handle in (*self._sending, *self._handles):
            handle.curl.close()
        self._sending.clear()
        self._handles.clear()
        self._dialling.clear()
        self._waiting.clear()
        self._multi.close()
        self._multi = None
        if hasattr(self._poll, "close"):
            self._poll.close()

    def _open(self) -> None:
        self._connections = Connections(MAX_IDLE_CONNECTIONS)
        self._dialler = Dialler(self.concurrency)
        # poll() counts in milliseconds, epoll in seconds; else they are the same.
        has_epoll = hasattr(select, "epoll")
        self._poll: Any = select.epoll() if has_epoll else select.poll()
        self._unit = 1.0 if has_epoll else 1000.0
        #: Sockets that are polled, for what, and whose they are; those that need no more of it.
        self._watched: dict[int, tuple[int, Connection | None]] = {}
        self._unwanted: set[int] = set()
        #: The last connection that had this number; as many as the process may open files.
        self._by_fd: dict[int, Connection] = {}
        self._bell = self._dialler.bell.fileno()
        self._poll.register(self._bell, select.POLLIN)
        self._multi = pycurl.CurlMulti()
        # Idle and busy ones together; the one that was idle for longest goes first.
        self._multi.setopt(pycurl.M_MAXCONNECTS, max(MAX_IDLE_CONNECTIONS, self.concurrency))
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)

    # A POST

    def _begin(self, tag: Hashable, request: Request) -> None:
        started = time.monotonic()
        try:
            post = Post(tag, request)
            connection = self._connections.take(post.key())
            if connection is None:
                self._dial(post)
            else:
                self._send(post, connection)
        except Exception as error:  # noqa: BLE001 - whatever strangers wrote into their settings
            self._refuse(tag, started, error)

    def _dial(self, post: Post) -> None:
        host = post.target.host.strip("[]")
        self._dialler.dial(post, host, post.target.port, post.deadline)
        self._dialling.add(post)

    def _dialled(self, post: Post, result: PlainSocket | Exception) -> None:
        self._dialling.discard(post)
        if isinstance(result, Exception):
            self._refuse(post.tag, post.started, result)
            return
        post.sock = result
        post.fresh = True
        connection = Connection(post.key())
        connection.streams = 1
        self._send(post, connection)

    def _send(self, post: Post, connection: Connection) -> None:
        handle = self._handle(connection)
        post.connection = connection
        try:
            handle.load(post, connection)
        except Exception as error:  # noqa: BLE001 - one POST fails, the others go on
            self._handles[handle] = None
            self._connections.put(connection, usable=False)
            post.drop_socket()
            self._refuse(post.tag, post.started, error)
            return
        self._sending[handle] = post
        self._next_deadline = min(self._next_deadline, post.deadline)
        self._multi.add_handle(handle.curl)
        self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)

    def _handle(self, connection: Connection) -> Handle:
        """A handle that carries nothing: the one that knows the connection, if it is free."""
        handle: Handle | None = connection.handle
        if handle is None or handle not in self._handles:
            handle = next(iter(self._handles), None)
        if handle is None:
            handle = Handle(self._ca_file, self._by_fd)
        else:
            del self._handles[handle]
        connection.handle = handle
        return handle

    def _refuse(self, tag: Hashable, started: float, error: Exception) -> None:
        failed = refusal(error)
        elapsed_ms = (time.monotonic() - started) * 1000
        response = Response(
            error_code=failed.code, error_detail=failed.detail, elapsed_ms=elapsed_ms
        )
        self._results.append((tag, response))

    def _end(self, handle: Handle, code: int, message: str) -> None:
        """libcurl is done with a POST, or we are. code: libcurl's, 0 for success."""
        post = self._sending.pop(handle)
        self._multi.remove_handle(handle.curl)
        handle.post = None
        connection = post.connection
        assert connection is not None
        post.drop_socket()
        usable = code == 0 and handle.answer.complete
        if usable and post.fresh:
            version = handle.curl.getinfo(pycurl.INFO_HTTP_VERSION)
            connection.multiplexed = version == pycurl.CURL_HTTP_VERSION_2_0
        self._connections.put(connection, usable=usable)
        unsent = code == pycurl.E_COULDNT_CONNECT and not handle.curl.getinfo(pycurl.REQUEST_SIZE)
        self._handles[handle] = None
        if unsent and not post.fresh:
            self._dial(post)  # libcurl had closed that connection meanwhile
            return
        response = handle.answer.response(code, message, post.started, time.monotonic())
        unsaid = masked(response.excerpt, post.request.headers)
        if unsaid != response.excerpt:
            response = replace(response, excerpt=unsaid)
        self._results.append((post.tag, response))

    # The loop

    def _work(self, wait: float) -> None:
        """Wait for something to happen, for up to ``wait`` seconds, and do what follows."""
        self._reap()  # an answer may come at once: then no socket will tell of it
        until = min(self._timer, self._next_deadline) - time.monotonic()
        wait = 0.0 if self._results else max(0.0, min(wait, until, MAX_WAIT))
        self._unwatch()
        for fd, events in self._poll.poll(wait * self._unit):
            if fd == self._bell:
                for post, result in self._dialler.collect():
                    self._dialled(post, result)
            else:
                self._move(fd, events)
        now = time.monotonic()
        if now >= self._timer:
            self._timer = float("inf")
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        self._reap()
        if now >= self._next_deadline:
            self._cut(now)
        while self._waiting and len(self._sending) + len(self._dialling) < self.concurrency:
            self._begin(*self._waiting.popleft())

    def _move(self, fd: int, events: int) -> None:
        """Let libcurl read and write. A flood that no callback hears of, chunk extensions or frames
        without end, is cut here."""
        if fd not in self._watched or fd in self._unwanted:
            return  # done with since the events were read
        ready = pycurl.CSELECT_OUT if events & select.POLLOUT else 0
        if events & ~select.POLLOUT:  # errors are found by reading
            ready |= pycurl.CSELECT_IN
            connection = self._by_fd[fd]
            connection.received += int.from_bytes(ioctl(fd, FIONREAD, NOTHING), sys.byteorder)
            if connection.received > max(1, connection.streams) * MAX_RECEIVED_BYTES:
                self._cut_off(connection)
        self._multi.socket_action(fd, ready)

    def _cut_off(self, connection: Connection) -> None:
        """End every POST on a connection that brings in too much."""
        for handle, post in list(self._sending.items()):
            if post.connection is connection:
                handle.answer.failure = too_large()
                self._end(handle, pycurl.E_WRITE_ERROR, "")

    def _reap(self) -> None:
        """Take over what libcurl has ended."""
        left = 1
        while left:
            left, ended, failed = self._multi.info_read()
            for curl in ended:
                self._end(curl.handle, 0, "")
            for curl, code, message in failed:
                self._end(curl.handle, code, message)

    def _cut(self, now: float) -> None:
        """End what is out of time.

        libcurl has no part in it: it looks at the clock before it looks at the socket, so what came
        in time while the caller was elsewhere would be a time-out all the same.
        """
        late = [handle for handle, post in self._sending.items() if post.deadline <= now]
        for handle in late:
            self._end(handle, pycurl.E_OPERATION_TIMEDOUT, "")
        deadlines = [post.deadline for post in self._sending.values()]
        self._next_deadline = min(deadlines, default=float("inf"))

    def _watch(self, what: int, fd: int, multi: Any, data: Any) -> None:
        """libcurl wants to hear of a socket, or no more.

        No more is what it says after each POST. The next one on that connection often begins before
        anything is polled again; then nothing is to be done.
        """
        if what == pycurl.POLL_REMOVE:
            self._unwanted.add(fd)
            return
        wanted = (EVENTS[what], self._by_fd.get(fd))
        known = self._watched.get(fd)
        self._unwanted.discard(fd)
        if known == wanted:
            return
        self._watched[fd] = wanted
        if known is not None and known[1] is wanted[1]:
            self._poll.modify(fd, wanted[0])
        else:  # new, or a closed one had this number: closing has ended its watch
            self._poll.register(fd, wanted[0])

    def _unwatch(self) -> None:
        """Poll no more what libcurl does not want to hear of."""
        for fd in self._unwanted:
            if self._watched.pop(fd, None) is not None:
                with contextlib.suppress(OSError, KeyError):  # closed by now
                    self._poll.unregister(fd)
        self._unwanted.clear()

    def _set_timer(self, milliseconds: int) -> None:
        """libcurl wants to be called after so long; -1: not at all."""
        later = time.monotonic() + milliseconds / 1000
        self._timer = later if milliseconds >= 0 else float("inf")
