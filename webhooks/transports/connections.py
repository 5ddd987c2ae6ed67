"""Connections that dial checked addresses only, and where the idle ones wait for their lane.

This is the layer between the ``requests`` adapter and the sockets: urllib3's connection and pool
classes with the parts replaced that decide what is dialled, and which connection is used again.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Final

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.response import HTTPResponse
from urllib3.util.connection import is_connection_dropped

from webhooks.transports import addresses, base, tunnel
from webhooks.transports.lookups import TooManyLookups
from webhooks.transports.sockets import DeadlineSocket, PlainSocket, PostFailed, posting, time_left

#: Seconds for the connect to one address.
CONNECT_SECONDS: Final = 5.0
#: Seconds after which an idle connection is not used again: most servers have closed it by then,
#: and a POST that meets the close in flight cannot be told from one that was received.
MAX_IDLE_SECONDS: Final = 30.0

#: RFC 9112, section 4, less the reason. http.client reads the status with ``int()``, to which
#: "+200" and "2_00" are numbers.
STATUS_LINE: Final = re.compile(rb"HTTP/[0-9]\.[0-9] +[0-9]{3}[ \r\n]")
#: A field, the rest of one, or the end of the head; and a field whose name is no RFC 9110 token.
HEAD_LINE: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+[ \t]*:|[ \t\r\n]")
ODD_FIELD: Final = re.compile(rb"[^:]+:")
CONTENT_LENGTH: Final = re.compile(r"[0-9]+")


def dial(host: str, port: int, deadline: float) -> PlainSocket:
    """A connected socket to the first address of ``host`` that answers.

    Only addresses that ``addresses.resolve`` allows are tried, each for at most 5 s, all within
    the deadline; through the operator's proxy where there is one. Raises BlockedAddress and
    PostFailed, never an ``OSError``.
    """
    proxy = tunnel.current()
    try:
        answers = addresses.resolve(host, port, time_left(deadline))
    except socket.gaierror as error:
        raise PostFailed(base.DNS_ERROR, f"The host was not found: {error.strerror}.") from None
    except TooManyLookups:
        detail = "The service waits for too many name servers already."
        raise PostFailed(base.INTERNAL_ERROR, detail) from None
    except TimeoutError:
        raise PostFailed(base.TIMEOUT, "The name lookup did not end in time.") from None
    except OSError:  # EAI_SYSTEM comes as whatever errno says
        raise PostFailed(base.DNS_ERROR, "The name lookup failed.") from None
    failure = PostFailed(base.DNS_ERROR, "The host has no address.")
    for family, kind, protocol, _, sockaddr in answers:
        time_left(deadline)
        try:
            if proxy is not None:
                return tunnel.dial(proxy, sockaddr, deadline)
            return _connect(PlainSocket(family, kind, protocol), sockaddr, deadline)
        except TimeoutError:
            failure = PostFailed(base.TIMEOUT, "The receiver accepted no connection in time.")
        except ConnectionRefusedError:
            failure = PostFailed(base.CONNECTION_REFUSED, "The receiver refused the connection.")
        except OSError as error:
            failure = PostFailed(base.CONNECTION_ERROR, f"No connection: {error.strerror}.")
    raise failure


def _connect(sock: PlainSocket, sockaddr: tuple[Any, ...], deadline: float) -> PlainSocket:
    try:
        sock.connect_within(CONNECT_SECONDS, sockaddr, deadline)
        # What was dialled was checked; that it is also what answered is checked once more.
        if not addresses.is_allowed(sock.getpeername()[0]):
            raise addresses.BlockedAddress(addresses.BLOCKED)
    except BaseException:
        sock.close()
        raise
    return sock


class _Head:
    """The stream from which http.client reads an answer's head.

    http.client takes the end of the stream for the end of the head: a receiver that died in the
    middle of its status line would count as one that has answered. And after a line that is no
    field it takes no further one, ``Content-Length`` included, so that each POST would wait for an
    end that does not come: a field with an odd name is left out, any other line is an error.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._begins = True

    def readline(self, limit: int) -> bytes:
        while True:
            line: bytes = self._stream.readline(limit)
            if self._begins and line and not STATUS_LINE.match(line):
                raise http.client.BadStatusLine("")
            if len(line) < limit and not line.endswith(b"\n"):
                raise http.client.RemoteDisconnected("")
            if self._begins or len(line) == limit or HEAD_LINE.match(line):
                # After the empty line of a 100 Continue another head begins.
                self._begins = line in (b"\r\n", b"\n")
                return line
            if not ODD_FIELD.match(line):
                raise http.client.HTTPException

    def close(self) -> None:
        self._stream.close()


class _Answer(http.client.HTTPResponse):
    """An answer whose head is whole, and whose length, if it says one, is a number."""

    def begin(self) -> None:
        stream = self.fp
        self.fp = _Head(stream)  # type: ignore[assignment]
        try:
            super().begin()
        finally:
            if self.fp is not None:
                self.fp = stream
        fields = self.headers.get_all("content-length", [])
        lengths = {part.strip() for field in fields for part in field.split(",")}
        valid = len(lengths) <= 1 and all(CONTENT_LENGTH.fullmatch(each) for each in lengths)
        if not (self.chunked or valid):  # RFC 9112, section 6.3, rule 5
            raise PostFailed(base.BAD_RESPONSE, "The answer's Content-Length is no number.")


class GuardedConnection(HTTPConnection):
    """Dials checked addresses only; remembers whose lane it belongs to."""

    response_class = _Answer
    key: Hashable = None
    #: The head of the request, until its body comes; None: nothing is held back.
    _held: bytes | None = None

    def renew(self, key: Hashable, deadline: float) -> None:
        """Ready for the next POST of the same lane."""
        self.key = key
        if isinstance(self.sock, DeadlineSocket):
            self.sock.renew(deadline)
            posting.wire.hold(self.sock)

    def _new_conn(self) -> socket.socket:
        # _dns_host keeps a trailing dot, so the resolver is not led through search domains.
        return dial(self._dns_host, self.port, posting.deadline)

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        """Send the request, head and body in one piece: one packet, one system call."""
        self._held = b""
        # The pool, which logs what it is asked for, was given no more than the path.
        super().request(method, posting.target or url, *args, **kwargs)
        head, self._held = self._held, None
        if head:  # there was no body
            self.send(head)

    def send(self, data: Any) -> None:
        if self._held is None:
            super().send(data)
        elif not self._held:
            self._held = bytes(data)  # the head: urllib3 sends it by itself
        else:
            head, self._held = self._held, None
            super().send(head + data)

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]
        # urllib3 logs the request's target, query included, when it cannot parse the headers.
        if self._response_options is not None:
            self._response_options = self._response_options._replace(request_url="/")
        return super().getresponse()


class GuardedTLSConnection(GuardedConnection, HTTPSConnection):
    """As above; SNI and certificate name are the URL's host name, not the address."""


class IdleConnections:
    """Keep-alive connections that wait for their lane's next POST. Safe for many threads.

    At most ``limit`` in all: the one that has waited longest is closed for a newcomer. A connection
    is either in here or in the hands of one thread.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        #: Longest waiting first; the value is when it began to wait.
        self._since: OrderedDict[GuardedConnection, float] = OrderedDict()
        self._by_key: dict[Hashable, list[GuardedConnection]] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._since)

    def take(self, key: Hashable) -> GuardedConnection | None:
        """The connection of this key that was used last; dead and stale ones are closed."""
        while True:
            with self._lock:
                waiting = self._by_key.get(key)
                if not waiting:
                    return None
                connection = waiting.pop()
                if not waiting:
                    del self._by_key[key]
                since = self._since.pop(connection)
            fresh = time.monotonic() - since < MAX_IDLE_SECONDS
            # Readable while idle means closed by the peer, or an answer nobody asked for.
            if fresh and not is_connection_dropped(connection) and not _holds_more(connection):
                return connection
            connection.close()

    def put(self, connection: GuardedConnection) -> None:
        """Let a connection wait; its last answer has been read to the end."""
        evicted: GuardedConnection | None = connection
        with self._lock:
            if not self._closed:
                self._since[connection] = time.monotonic()
                self._by_key.setdefault(connection.key, []).append(connection)
                evicted = self._evict() if len(self._since) > self.limit else None
        if evicted is not None:
            evicted.close()

    def _evict(self) -> GuardedConnection:
        connection, _ = self._since.popitem(last=False)
        waiting = self._by_key[connection.key]
        waiting.remove(connection)
        if not waiting:
            del self._by_key[connection.key]
        return connection

    def close(self) -> None:
        """Close all, now and whatever is put in later."""
        with self._lock:
            self._closed = True
            connections = list(self._since)
            self._since.clear()
            self._by_key.clear()
        for connection in connections:
            connection.close()


def _holds_more(connection: GuardedConnection) -> bool:
    """Has TLS decrypted more than was read? The socket beneath does not show that."""
    return isinstance(connection.sock, ssl.SSLSocket) and connection.sock.pending() > 0


class LanePool(HTTPConnectionPool):
    """The connections to one host; idle ones wait in ``IdleConnections``, apart for each lane."""

    ConnectionCls: Any = GuardedConnection

    def __init__(self, *args: Any, idle: IdleConnections, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.idle = idle

    def _get_conn(self, timeout: float | None = None) -> Any:
        key = (posting.lane, self.scheme, self.host, self.port)
        connection = self.idle.take(key) or self._new_conn()
        assert isinstance(connection, GuardedConnection)
        try:
            connection.renew(key, posting.deadline)
        except PostFailed:
            connection.close()
            raise
        return connection

    def _put_conn(self, conn: Any) -> None:
        if conn is not None and conn.sock is not None:
            self.idle.put(conn)


class LaneTLSPool(LanePool, HTTPSConnectionPool):
    """As above, with TLS."""

    ConnectionCls: Any = GuardedTLSConnection
