"""What a receiver may do to a sender, by the path of its URL, and what must be made of it.

One table for all: the receiver's process reads the behaviours, the tests read what is expected of
a transport. Every mode is served over http and https; what ends before a request is read, or needs
a port of its own, is in ``ports.py``.
"""

from __future__ import annotations

import gzip
import socket
import struct
import weakref
import zlib
from dataclasses import dataclass
from itertools import product
from typing import Final

from tests.transports.receivers import (
    OK,
    Behaviour,
    Received,
    answers,
    drips,
    endless_chunks,
    endless_continue,
    endless_headers,
    normal,
    redirect_with_flood,
    repeats,
    stalls,
    with_body,
)
from webhooks.transports import base

#: Seconds for a POST that ends only with its deadline, and for one that ends by itself.
SHORT: Final = 1.0
LONG: Final = 5.0

FORGED: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
CHUNKED: Final = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
#: What a reader with a buffer takes from a connection at once, in Python and in libcurl.
BUFFERS: Final = {"8k": 8192, "16k": 16384}


@dataclass(frozen=True)
class Mode:
    """What a receiver does, and the Response that must come of it.

    status, error_code: as in ``Response``; exactly one of the two says something.
    truncated: None where it does not matter. excerpt: what the excerpt begins with.
    waits: the POST lasts until its deadline.
    """

    behaviour: Behaviour
    status: int | None = 200
    error_code: str = ""
    truncated: bool | None = None
    excerpt: str = ""
    waits: bool = False

    @property
    def timeout(self) -> float:
        """Seconds to give to the POST."""
        return SHORT if self.waits else LONG


def _fails(behaviour: Behaviour, error_code: str) -> Mode:
    return Mode(behaviour, None, error_code, waits=error_code == base.TIMEOUT)


def _raw(raw: bytes, *, close: bool = True) -> Behaviour:
    return answers(raw, then_close=close)


def _head(*fields: str, status: str = "200 OK") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *fields, "", ""]).encode("latin-1")


def resets(start: bytes = b"") -> Behaviour:
    """Sends ``start`` and then a TCP reset."""

    def behave(sock: socket.socket, request: Received) -> bool:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # or a reset discards it
        sock.sendall(start)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False

    return behave


def echoes(field: str, *headers: str, status: str = "200 OK") -> Behaviour:
    """Answers with what the request said in one of its headers."""

    def behave(sock: socket.socket, request: Received) -> bool:
        value = f"{field}: {request.headers.get(field, 'none')}".encode("latin-1")
        sock.sendall(with_body(value, *headers, status=status))
        return True

    return behave


def answers_twice(first: bytes) -> Behaviour:
    """To the first request of a connection ``first``, to each later one ``OK``."""
    seen: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def behave(sock: socket.socket, request: Received) -> bool:
        again = sock in seen
        seen.add(sock)
        sock.sendall(OK if again else first)
        return True

    return behave


def floods(start: bytes, piece: bytes, total: int) -> Behaviour:
    """Sends ``start`` and then ``total`` bytes, as fast as they are taken."""

    def behave(sock: socket.socket, request: Received) -> bool:
        sock.sendall(start)
        for _ in range(total // len(piece)):
            sock.sendall(piece)
        return False

    return behave


def _bomb() -> bytes:
    """64 KiB of gzip that are 64 MiB; members may be strung together without end."""
    return gzip.compress(b"\0" * (64 * 1024 * 1024), compresslevel=6)


def _redirects() -> dict[str, Mode]:
    modes: dict[str, Mode] = {}
    for status in (*range(300, 309), 399):
        for name, fields in (
            ("", ("Location: /normal",)),
            ("-nowhere", ()),
        ):
            raw = with_body(b"moved", *fields, status=f"{status} Moved")
            modes[f"redirect-{status}{name}"] = Mode(_raw(raw, close=False), status)
    for name, location in (
        ("malformed", "http://[::1/"),
        ("private", "http://169.254.169.254/latest/meta-data/"),
        ("file", "file:///etc/passwd"),
        ("self", "/redirect-self"),
        ("bytes", "http://\xff\x80/"),
    ):
        raw = with_body(b"", f"Location: {location}", status="302 Found")
        modes[f"redirect-{name}"] = Mode(_raw(raw, close=False), 302, truncated=False)
    bomb = _head(
        "Location: /normal", "Content-Encoding: gzip", "Connection: close", status="302 Found"
    )
    stalled = _head("Location: /normal", "Content-Length: 9", status="302 Found") + b"abc"
    return modes | {
        "redirect-bomb": Mode(repeats(bomb, _bomb()), 302, truncated=True),
        "redirect-flood": Mode(redirect_with_flood, 302, truncated=True),
        "redirect-stall": Mode(stalls(stalled), 302, truncated=True),
    }


def _slow() -> dict[str, Mode]:
    return {
        "never-answers": _fails(stalls(), base.TIMEOUT),
        "drip-status": _fails(drips(OK, pause=0.25), base.TIMEOUT),
        "drip-headers": _fails(
            repeats(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x", pause=0.05), base.TIMEOUT
        ),
        "drip-body": Mode(
            repeats(_head("Content-Length: 9999") + b"abc", b"d", pause=0.05),
            truncated=True,
            excerpt="abc",
            waits=True,
        ),
        "drip-chunks": Mode(endless_chunks, truncated=True, excerpt="x", waits=True),
        "drip-chunk-size": Mode(repeats(CHUNKED, b"0", pause=0.05), truncated=True, waits=True),
        "drip-trailers": Mode(
            repeats(CHUNKED + b"2\r\nok\r\n0\r\n", b"X: y\r\n", pause=0.05),
            excerpt="ok",
            waits=True,
        ),
        "drip-continue": _fails(endless_continue, base.TIMEOUT),
        "stall-in-status": _fails(stalls(b"HTTP/1.1 2"), base.TIMEOUT),
        "stall-in-headers": _fails(stalls(b"HTTP/1.1 200 OK\r\nContent-"), base.TIMEOUT),
        "stall-after-continue": _fails(stalls(b"HTTP/1.1 100 Continue\r\n\r\n"), base.TIMEOUT),
        "stall-in-body": Mode(
            stalls(_head("Content-Length: 9") + b"abc"), truncated=True, excerpt="abc", waits=True
        ),
        "stall-before-body": Mode(stalls(_head("Content-Length: 9")), truncated=True, waits=True),
        "stall-in-chunk": Mode(
            stalls(CHUNKED + b"9\r\nabc"), truncated=True, excerpt="abc", waits=True
        ),
        "stall-in-error": Mode(
            stalls(_head("Content-Length: 9", status="500 Oops") + b"abc"), 500, waits=True
        ),
    }


def _large() -> dict[str, Mode]:
    filler = b"X-Filler: " + b"x" * 60_000 + b"\r\n"
    gzipped = _head("Content-Encoding: gzip", "Content-Length: 300000000")
    deflated = zlib.compress(b"\0" * 50_000_000)
    return {
        "gzip-300mb": Mode(floods(gzipped, _bomb(), 300_000_000), truncated=True),
        "gzip-endless": Mode(repeats(_head("Content-Encoding: gzip"), _bomb()), truncated=True),
        "deflate-bomb": Mode(
            _raw(with_body(deflated, "Content-Encoding: deflate, gzip, br"), close=False),
            truncated=True,
        ),
        "body-2gb": Mode(
            floods(_head("Content-Length: 2000000000"), b"x" * 65536, 2_000_000_000),
            truncated=True,
            excerpt="xxx",
        ),
        "body-chunks": Mode(
            repeats(CHUNKED, b"10000\r\n" + b"x" * 65536 + b"\r\n"), truncated=True, excerpt="xxx"
        ),
        "headers-1gb": _fails(
            floods(b"HTTP/1.1 200 OK\r\n", filler, 1_000_000_000), base.BAD_RESPONSE
        ),
        "headers-endless": _fails(endless_headers, base.BAD_RESPONSE),
        "headers-many": _fails(
            repeats(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 500), base.BAD_RESPONSE
        ),
        "header-without-end": _fails(
            repeats(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 65536), base.BAD_RESPONSE
        ),
        "status-without-end": _fails(repeats(b"HTTP/1.1 200 ", b"x" * 65536), base.BAD_RESPONSE),
        "continue-flood": _fails(
            repeats(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 500), base.BAD_RESPONSE
        ),
        "early-hints-flood": _fails(
            repeats(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 500), base.BAD_RESPONSE
        ),
        "chunk-extension": Mode(repeats(CHUNKED + b"2;", b"x" * 65536), truncated=True),
        "trailers-flood": Mode(
            repeats(CHUNKED + b"2\r\nok\r\n0\r\n", b"X: y\r\n" * 500), excerpt="ok"
        ),
    }


def _malformed() -> dict[str, Mode]:
    bad = {
        "nonsense": b"nonsense\r\n\r\n",
        "http-0.9": b"<html>hello</html>\r\n",
        "ssh": b"SSH-2.0-OpenSSH_9.6\r\n",
        "tls-alert": b"\x15\x03\x03\x00\x02\x02\x28\r\n",
        "http-2": b"HTTP/2.0 200 OK\r\n\r\n",
        "http-2-settings": b"\x00\x00\x00\x04\x00\x00\x00\x00\x00\r\n",
        "status-word": b"HTTP/1.1 abc OK\r\n\r\n",
        "status-none": b"HTTP/1.1\r\n\r\n",
        "status-plus": b"HTTP/1.1 +200 OK\r\nContent-Length: 0\r\n\r\n",
        "status-underscore": b"HTTP/1.1 2_00 OK\r\nContent-Length: 0\r\n\r\n",
        "status-negative": b"HTTP/1.1 -200 OK\r\nContent-Length: 0\r\n\r\n",
        "status-000": b"HTTP/1.1 000 Zero\r\nContent-Length: 0\r\n\r\n",
        "status-099": b"HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n",
        "status-101": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        "status-103": b"HTTP/1.1 103 Early Hints\r\n\r\n",
        "status-600": b"HTTP/1.1 600 High\r\nContent-Length: 0\r\n\r\n",
        "status-999": b"HTTP/1.1 999 No\r\nContent-Length: 0\r\n\r\n",
        "status-2000": b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
        "header-without-colon": _head("this is no header", "Content-Length: 2") + b"ok",
        "lengths-differ": _head("Content-Length: 2", "Content-Length: 3") + b"abc",
        "lengths-listed": _head("Content-Length: 2, 3") + b"abc",
        "length-negative": _head("Content-Length: -5") + b"abc",
        "length-word": _head("Content-Length: many") + b"abc",
        "length-plus": _head("Content-Length: +3") + b"abc",
    }
    modes = {name: _fails(_raw(raw), base.BAD_RESPONSE) for name, raw in bad.items()}
    modes |= {
        "empty-reply": _fails(_raw(b""), base.CONNECTION_ERROR),
        "closes-in-status": _fails(_raw(b"HTTP/1.1 200 OK"), base.CONNECTION_ERROR),
        "closes-in-headers": _fails(_raw(b"HTTP/1.1 200 OK\r\nX: y"), base.CONNECTION_ERROR),
        "closes-after-header": _fails(_raw(b"HTTP/1.1 200 OK\r\nX: y\r\n"), base.CONNECTION_ERROR),
        "resets": _fails(resets(), base.CONNECTION_ERROR),
        "resets-in-headers": _fails(resets(b"HTTP/1.1 200 OK\r\nX: "), base.CONNECTION_ERROR),
    }
    broken = {
        "length-too-long": _head("Content-Length: 100") + b"abc",
        "length-absurd": _head("Content-Length: 1" + "0" * 30) + b"abc",
        "chunk-word": CHUNKED + b"3\r\nabc\r\nZZ\r\n",
        "chunk-negative": CHUNKED + b"3\r\nabc\r\n-1\r\n",
        "chunk-absurd": CHUNKED + b"3\r\nabc\r\nFFFFFFFFFFFFFFFFFF\r\nabc",
        "chunk-lies": CHUNKED + b"3\r\nabcdefgh\r\n0\r\n\r\n",
        "chunk-unfinished": CHUNKED + b"3\r\nabc\r\n",
    }
    modes |= {name: Mode(_raw(raw), truncated=True, excerpt="abc") for name, raw in broken.items()}
    modes["chunk-bad-first"] = Mode(_raw(CHUNKED + b"ZZ\r\nabc\r\n"), truncated=True)
    modes["resets-in-body"] = Mode(resets(_head("Content-Length: 100") + b"abc"), truncated=True)
    return modes


def _odd() -> dict[str, Mode]:
    """Answers that are odd and none the less answers."""
    return {
        "normal": Mode(normal, truncated=False, excerpt="ok"),
        "http-1.0": Mode(_raw(b"HTTP/1.0 200 OK\r\n\r\nbye"), excerpt="bye"),
        "no-length": Mode(_raw(_head() + b"bye"), excerpt="bye"),
        "length-zero": Mode(_raw(_head("Content-Length: 0"), close=False), truncated=False),
        "length-repeated": Mode(
            _raw(_head("Content-Length: 2", "Content-Length: 2") + b"ok", close=False),
            excerpt="ok",
        ),
        "length-and-chunks": Mode(
            _raw(
                _head("Content-Length: 99", "Transfer-Encoding: chunked") + b"2\r\nok\r\n0\r\n\r\n"
            ),
            excerpt="ok",
        ),
        "bytes-in-body": Mode(
            _raw(with_body(b"a\0b\xff\xc3\xa9"), close=False), excerpt="ab\ufffd\xe9"
        ),
        "bytes-in-headers": Mode(
            _raw(with_body(b"ok", "X-Hook-Secret: a\xff\xe9b", "\xff: 1"), close=False),
            truncated=False,
            excerpt="ok",
        ),
        "gzip-that-is-none": Mode(
            _raw(with_body(b"plain", "Content-Encoding: gzip"), close=False), excerpt="plain"
        ),
        "cookies": Mode(
            echoes("cookie", "Set-Cookie: id=1; Path=/", "Set-Cookie: all=2; Domain=0.0.1"),
            excerpt="cookie: none",
        ),
        "asks-for-password": Mode(
            echoes(
                "authorization",
                'WWW-Authenticate: Basic realm="x"',
                'WWW-Authenticate: Digest realm="x", nonce="1"',
                "WWW-Authenticate: Negotiate",
                "WWW-Authenticate: NTLM",
                status="401 Unauthorized",
            ),
            401,
            excerpt="authorization: none",
        ),
        "asks-for-proxy-password": Mode(
            echoes("proxy-authorization", "Proxy-Authenticate: Basic", status="407 No"),
            407,
            excerpt="proxy-authorization: none",
        ),
        "refresh": Mode(
            _raw(
                with_body(
                    b"ok",
                    "Refresh: 0; url=/never-answers",
                    'Alt-Svc: h3=":443"; ma=9999',
                    "Link: </>",
                ),
                close=False,
            ),
            excerpt="ok",
        ),
        "upgrade-required": Mode(
            _raw(
                with_body(b"", "Upgrade: h2c", "Connection: Upgrade", status="426 No"), close=False
            ),
            426,
        ),
        "misdirected": Mode(_raw(with_body(b"", status="421 Elsewhere"), close=False), 421),
        "request-timeout": Mode(_raw(with_body(b"", status="408 Late")), 408),
        "too-early": Mode(_raw(with_body(b"", "Retry-After: -1", status="425 Early")), 425),
        "retry-after-absurd": Mode(
            _raw(with_body(b"", f"Retry-After: {'9' * 400}", status="503 Busy"), close=False), 503
        ),
    }


def _smuggling() -> dict[str, Mode]:
    """More than one answer to a request: the rest must never be the answer to the next one."""
    modes = {"two-answers": Mode(answers_twice(OK + FORGED), excerpt="ok")}
    for name, size in BUFFERS.items():
        # The first answer and what follows fill a reader's buffer; the forged one lies behind it,
        # in the same TLS record where there is one.
        padded = OK.ljust(size, b"x") + FORGED
        modes[f"two-answers-{name}"] = Mode(answers_twice(padded), excerpt="ok")
    modes["garbage-after-answer"] = Mode(answers_twice(OK + b"\0" * 20_000), excerpt="ok")
    modes["length-too-short"] = Mode(
        answers_twice(_head("Content-Length: 2") + b"ok" + FORGED), excerpt="ok"
    )
    modes["body-of-204"] = Mode(answers_twice(_head(status="204 None") + FORGED), 204)
    modes["chunks-then-answer"] = Mode(
        answers_twice(CHUNKED + b"2\r\nok\r\n0\r\n\r\n" + FORGED), excerpt="ok"
    )
    return modes


MODES: Final[dict[str, Mode]] = (
    _odd() | _redirects() | _slow() | _large() | _malformed() | _smuggling()
)
SMUGGLING: Final = tuple(_smuggling())
SCHEMES: Final = ("http", "https")
CASES: Final = tuple(product(SCHEMES, MODES))


def by_path(sock: socket.socket, request: Received) -> bool:
    """The behaviour of a receiver that has them all: ``/never-answers`` never answers."""
    name = request.line.split(" ")[1].strip("/").partition("?")[0]
    mode = MODES.get(name)
    if mode is None:
        sock.sendall(with_body(b"", status="404 No such mode"))
        return True
    return mode.behaviour(sock, request)
