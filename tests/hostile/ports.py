"""Receivers that do not come as far as a request: each needs a port of its own."""

from __future__ import annotations

import socket
import ssl
import struct
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from tests.hostile.modes import LONG, SHORT
from tests.transports.certificates import Authority
from tests.transports.receivers import Receiver, listens, normal
from webhooks.transports import base

Greeting = Callable[[socket.socket], None]


@dataclass(frozen=True)
class Port:
    """What listens on it, and the error code that must come of it.

    open: called with two authorities, the trusted and a strange one, gives the Receiver; None:
        nothing accepts there. scheme: of the URL. waits: the POST lasts until its deadline.
    """

    scheme: str
    error_code: str
    open: Callable[[Authority, Authority], Receiver] | None
    waits: bool = False

    @property
    def timeout(self) -> float:
        """Seconds to give to the POST."""
        return SHORT if self.waits else LONG


def _greets(greet: Greeting) -> Callable[[Authority, Authority], Receiver]:
    return lambda trusted, strange: Receiver(normal, greet=greet)


def _closes(sock: socket.socket) -> None:
    """Nothing: the connection is closed after this."""


def _resets(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _resets_in_handshake(sock: socket.socket) -> None:
    sock.recv(65536)
    _resets(sock)


def _never_reads(sock: socket.socket) -> None:
    time.sleep(5)


def _drips(sock: socket.socket) -> None:
    """A ServerHello that never ends, a byte at a time."""
    for byte in b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc" + b"\x03" * 500:
        sock.sendall(bytes([byte]))
        time.sleep(0.05)


def _speaks_http(sock: socket.socket) -> None:
    sock.recv(65536)
    sock.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


def _garbage(sock: socket.socket) -> None:
    sock.recv(65536)
    sock.sendall(b"\xff" * 1000)


def _alerts(sock: socket.socket) -> None:
    """Warnings that are not fatal, without end."""
    sock.recv(65536)
    while True:
        sock.sendall(b"\x15\x03\x03\x00\x02\x01\x5a")


def _closes_in_handshake(sock: socket.socket) -> None:
    sock.recv(65536)
    sock.sendall(b"\x16\x03\x03\x40\x00\x02")


def _tls(
    change: Callable[[ssl.SSLContext], None] | None = None,
    *,
    host: str = "127.0.0.1",
    expired: bool = False,
    self_signed: bool = False,
) -> Callable[[Authority, Authority], Receiver]:
    """Behaves once the handshake is done. change: something else about its context."""

    def listen(trusted: Authority, strange: Authority) -> Receiver:
        context = (strange if self_signed else trusted).server(host, expired=expired)
        if change is not None:
            change(context)
        return Receiver(normal, tls=context)

    return listen


def _only(version: ssl.TLSVersion) -> Callable[[ssl.SSLContext], None]:
    def change(context: ssl.SSLContext) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = version
            context.maximum_version = version
        context.set_ciphers("ALL:@SECLEVEL=0")

    return change


def _wants_certificate(context: ssl.SSLContext) -> None:
    context.verify_mode = ssl.CERT_REQUIRED
    # In TLS 1.3 the refusal comes after the handshake, in place of the answer.
    context.maximum_version = ssl.TLSVersion.TLSv1_2


PORTS: Final[dict[str, Port]] = {
    "refuses": Port("http", base.CONNECTION_REFUSED, None),
    "full-backlog": Port("http", base.TIMEOUT, None, waits=True),
    "closes": Port("http", base.CONNECTION_ERROR, _greets(_closes)),
    "resets": Port("http", base.CONNECTION_ERROR, _greets(_resets)),
    "silent": Port("http", base.TIMEOUT, _greets(listens), waits=True),
    "never-reads": Port("http", base.TIMEOUT, _greets(_never_reads), waits=True),
    "tls-on-plain-port": Port("http", base.BAD_RESPONSE, _greets(_garbage)),
    "tls-refuses": Port("https", base.CONNECTION_REFUSED, None),
    "tls-full-backlog": Port("https", base.TIMEOUT, None, waits=True),
    "tls-closes": Port("https", base.TLS_ERROR, _greets(_closes)),
    "tls-resets": Port("https", base.TLS_ERROR, _greets(_resets_in_handshake)),
    "tls-silent": Port("https", base.TIMEOUT, _greets(listens), waits=True),
    "tls-drips": Port("https", base.TIMEOUT, _greets(_drips), waits=True),
    "tls-garbage": Port("https", base.TLS_ERROR, _greets(_garbage)),
    "tls-alerts": Port("https", base.TLS_ERROR, _greets(_alerts)),
    "tls-closes-in-handshake": Port("https", base.TLS_ERROR, _greets(_closes_in_handshake)),
    "tls-is-plain-http": Port("https", base.TLS_ERROR, _greets(_speaks_http)),
    "tls-expired": Port("https", base.TLS_ERROR, _tls(expired=True)),
    "tls-self-signed": Port("https", base.TLS_ERROR, _tls(self_signed=True)),
    "tls-wrong-name": Port("https", base.TLS_ERROR, _tls(host="elsewhere.example.com")),
    "tls-wrong-address": Port("https", base.TLS_ERROR, _tls(host="127.0.0.9")),
    "tls-1.0": Port("https", base.TLS_ERROR, _tls(_only(ssl.TLSVersion.TLSv1))),
    "tls-1.1": Port("https", base.TLS_ERROR, _tls(_only(ssl.TLSVersion.TLSv1_1))),
    "tls-wants-certificate": Port("https", base.TLS_ERROR, _tls(_wants_certificate)),
}


@contextmanager
def listening(trusted: Authority, strange: Authority) -> Iterator[dict[str, str]]:
    """All of them, on free ports; the URL of each by its name."""
    with ExitStack() as stack:
        urls = {}
        for name, port in PORTS.items():
            if port.open is not None:
                number = stack.enter_context(port.open(trusted, strange)).port
            else:
                number = _number_of(name, stack)
            urls[name] = f"{port.scheme}://127.0.0.1:{number}/"
        yield urls


def _number_of(name: str, stack: ExitStack) -> int:
    """A port where nobody accepts: a bound one that does not listen, or a backlog that is full."""
    sock = stack.enter_context(socket.socket())
    sock.bind(("127.0.0.1", 0))
    number = int(sock.getsockname()[1])
    if name.endswith("full-backlog"):
        sock.listen(0)
        stack.enter_context(socket.create_connection(("127.0.0.1", number)))
    return number
