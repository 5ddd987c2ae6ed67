"""Small real HTTP receivers on loopback: one that behaves, and many that do not.

A receiver is a listening socket with a thread for each connection. Its behaviour is a function that
is called with the connection after each complete request, and answers whether to read another one.
"""

from __future__ import annotations

import contextlib
import gzip
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass(frozen=True)
class Received:
    """One request as it arrived; ``connection`` counts the receiver's connections from 1."""

    connection: int
    line: str
    headers: dict[str, str]
    body: bytes


Behaviour = Callable[[socket.socket, Received], bool]


class Receiver:
    """``with Receiver(behaviour) as receiver:`` then POST to ``receiver.url``."""

    def __init__(
        self,
        behaviour: Behaviour,
        *,
        tls: ssl.SSLContext | None = None,
        greet: Callable[[socket.socket], None] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        """greet: called with each raw connection in place of everything else."""
        self.behaviour = behaviour
        self.tls = tls
        self.greet = greet
        self.requests: list[Received] = []
        self.connections = 0
        self.closed = 0
        #: TLS sessions that were resumed rather than begun.
        self.resumed = 0
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server((host, port), backlog=128)
        self.host = host
        self.port = self._listener.getsockname()[1]

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}/hook"

    def __enter__(self) -> Receiver:
        self._spawn(self._accept)
        return self

    def __exit__(self, *exc_info: object) -> None:
        # On Linux closing a listener does not wake accept(); shutting it down does.
        for sock in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        self._listener.close()

    def _spawn(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._sockets.append(sock)
            self._spawn(self._serve, sock, self.connections)

    def _serve(self, sock: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError, ValueError), sock:
            if self.greet is not None:
                self.greet(sock)
                return
            if self.tls is not None:
                with self.tls.wrap_socket(sock, server_side=True) as wrapped:
                    self._sockets.append(wrapped)
                    self.resumed += bool(wrapped.session_reused)
                    self._talk(wrapped, number)
            else:
                self._talk(sock, number)
        self.closed += 1

    def _talk(self, sock: socket.socket, number: int) -> None:
        with sock.makefile("rb") as stream:
            while (request := self._read(stream, number)) is not None:
                self.requests.append(request)
                if not self.behaviour(sock, request):
                    return

    @staticmethod
    def _read(stream: object, number: int) -> Received | None:
        line = stream.readline().decode("latin-1").rstrip("\r\n")
        if not line:
            return None
        headers: dict[str, str] = {}
        while field := stream.readline().decode("latin-1").rstrip("\r\n"):
            name, _, value = field.partition(":")
            headers[name.lower()] = value.strip()
        body = stream.read(int(headers["content-length"]))
        return Received(number, line, headers, body)


def listens(sock: socket.socket) -> None:
    """A greeting: none. What comes is read until the sender hangs up."""
    while sock.recv(65536):
        pass


def answers(raw: bytes, *, then_close: bool = False) -> Behaviour:
    """Always answers these bytes; ``then_close`` closes without having announced it."""

    def behave(sock: socket.socket, request: Received) -> bool:
        sock.sendall(raw)
        return not then_close

    return behave


class Crowd:
    """How many requests wait for their answer at once, at most."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *exc_info: object) -> None:
        with self._lock:
            self.now -= 1


def after(seconds: float, crowd: Crowd | None = None) -> Behaviour:
    """Answers, but not at once; ``crowd`` counts who waits meanwhile."""

    def behave(sock: socket.socket, request: Received) -> bool:
        with crowd or Crowd():
            time.sleep(seconds)
        sock.sendall(OK)
        return True

    return behave


def repeats(start: bytes, piece: bytes, pause: float = 0.0) -> Behaviour:
    """Sends ``start`` and then ``piece`` for ever, until the sender hangs up."""

    def behave(sock: socket.socket, request: Received) -> bool:
        sock.sendall(start)
        while True:
            sock.sendall(piece)
            time.sleep(pause)

    return behave


def stalls(start: bytes = b"") -> Behaviour:
    """Sends ``start`` and then nothing more, with the connection open."""

    def behave(sock: socket.socket, request: Received) -> bool:
        sock.sendall(start)
        sock.recv(1)  # until the sender hangs up
        return False

    return behave


def drips(raw: bytes, pause: float = 0.05) -> Behaviour:
    """Sends a byte at a time."""

    def behave(sock: socket.socket, request: Received) -> bool:
        for index in range(len(raw)):
            sock.sendall(raw[index : index + 1])
            time.sleep(pause)
        return True

    return behave


def with_body(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """A complete answer."""
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


normal = answers(OK)
gzip_bomb = with_body(gzip.compress(b"\0" * 50_000_000), "Content-Encoding: gzip")
redirect_with_flood = repeats(
    b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"4000\r\n" + b"x" * 0x4000 + b"\r\n",
)
endless_chunks = repeats(
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", pause=0.05
)
endless_continue = repeats(b"", b"HTTP/1.1 100 Continue\r\n\r\n", pause=0.01)
endless_headers = repeats(b"HTTP/1.1 200 OK\r\n", b"X-Filler: " + b"x" * 60_000 + b"\r\n")
