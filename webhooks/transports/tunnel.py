"""A way out through the operator's HTTP proxy (``EGRESS_PROXY``).

A receiver's addresses are looked up and judged by us, as without a proxy, and the proxy is asked
for a tunnel (``CONNECT``, RFC 9110, section 9.3.6) to the address that was judged: it never learns
a host's name, so it can resolve none to something else. What runs inside is the same as on a direct
connection.

Plain http goes through a tunnel too. In the other way to ask a proxy, the absolute form, the name
must stand in the request's target (a proxy replaces ``Host`` by it: RFC 9112, section 3.2.2), and
the proxy would look it up a second time, unguarded.

The proxy is the operator's: its own address may be private. Nothing in here repeats the proxy's
URL, which may hold a password.
"""

from __future__ import annotations

import base64
import re
import socket
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote

from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from webhooks.conf import settings
from webhooks.transports import base
from webhooks.transports.lookups import look_up
from webhooks.transports.sockets import PlainSocket, PostFailed, time_left

#: Seconds for the connect to the proxy.
CONNECT_SECONDS: Final = 5.0
#: Bytes of the proxy's answer, from which its first line is read.
MAX_ANSWER: Final = 8192
STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r\n]")
#: What a proxy says of a receiver that it cannot reach (RFC 9110, sections 15.6.3 to 15.6.5).
UNREACHABLE: Final = (502, 503, 504)


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where the operator's proxy listens. authorization: a header's value, or ""."""

    host: str
    port: int
    authorization: str = field(repr=False)


def current() -> Proxy | None:
    """The proxy of the settings as they are now. Raises PostFailed for one that is unusable."""
    url = settings.EGRESS_PROXY
    return None if url is None else _parse(url)


@lru_cache(maxsize=4)
def _parse(url: str) -> Proxy:
    try:
        parsed = parse_url(url)
    except (LocationParseError, TypeError, AttributeError):
        raise _unusable() from None
    if parsed.scheme != "http" or not parsed.host:
        raise _unusable()
    authorization = ""
    if parsed.auth is not None:
        user, _, password = parsed.auth.partition(":")
        pair = f"{unquote(user)}:{unquote(password)}".encode()
        authorization = f"Basic {base64.b64encode(pair).decode()}"
    return Proxy(parsed.host.strip("[]"), parsed.port or 80, authorization)


def _unusable() -> PostFailed:
    return PostFailed(base.PROXY_ERROR, 'EGRESS_PROXY is no URL like "http://host:port".')


def dial(proxy: Proxy, sockaddr: tuple[Any, ...], deadline: float) -> PlainSocket:
    """A socket that reaches ``sockaddr`` (address and port, judged already) through the proxy.

    Raises PostFailed, never an ``OSError``.
    """
    try:
        answers = look_up(proxy.host, proxy.port, time_left(deadline))
    except OSError:
        raise PostFailed(base.PROXY_ERROR, "The egress proxy's host was not found.") from None
    for family, kind, protocol, _, address in answers:
        sock = PlainSocket(family, kind, protocol)
        try:
            sock.connect_within(CONNECT_SECONDS, address, deadline)
            _ask(sock, proxy, sockaddr)
        except OSError:
            sock.close()
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise PostFailed(base.PROXY_ERROR, "The egress proxy could not be reached.")


def _ask(sock: socket.socket, proxy: Proxy, sockaddr: tuple[Any, ...]) -> None:
    """Have the tunnel opened. Raises PostFailed, or OSError where the connection breaks."""
    host, port = sockaddr[0], sockaddr[1]
    goal = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {goal} HTTP/1.1", f"Host: {goal}"]
    if proxy.authorization:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    sock.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
    status = STATUS_LINE.match(_head(sock))
    if status is None:
        raise PostFailed(base.PROXY_ERROR, "The egress proxy did not answer as one.")
    code = int(status[1])
    if code in UNREACHABLE:
        detail = f"The egress proxy could not reach the receiver (it answered {code})."
        raise PostFailed(base.CONNECTION_ERROR, detail)
    if not 200 <= code < 300:
        raise PostFailed(base.PROXY_ERROR, f"The egress proxy answered {code}.")


def _head(sock: socket.socket) -> bytes:
    """The proxy's answer up to its empty line; what follows is the receiver's, and stays unread."""
    head = bytearray()
    while not head.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        head += byte
        if not byte or len(head) > MAX_ANSWER:
            raise PostFailed(base.PROXY_ERROR, "The egress proxy did not answer as one.")
    return bytes(head)
