"""One POST on its way through libcurl, and the handle that carries it."""

from __future__ import annotations

import time
from collections.abc import Hashable
from typing import Any, Final

import pycurl

from webhooks.transports import addresses, base
from webhooks.transports.base import Request
from webhooks.transports.connections import MAX_IDLE_SECONDS
from webhooks.transports.curl_answers import Answer
from webhooks.transports.curl_connections import Connection
from webhooks.transports.requests import METHODS, sendable_headers
from webhooks.transports.sockets import PlainSocket, PostFailed

#: Headers that libcurl adds by itself; named without a value, they are left out.
UNWANTED: Final = (b"Accept:", b"Expect:")


class Post:
    """One POST under way.

    started, deadline: on the clock of ``time.monotonic``. fresh: its connection was made for it.
    """

    __slots__ = (
        "connection",
        "deadline",
        "fresh",
        "headers",
        "request",
        "sock",
        "started",
        "tag",
        "target",
    )

    def __init__(self, tag: Hashable, request: Request) -> None:
        """Raises BlockedAddress and PostFailed for what may not or cannot be sent."""
        self.tag = tag
        self.request = request
        self.started = time.monotonic()
        self.deadline = self.started + request.timeout
        self.connection: Connection | None = None
        #: A connected socket that libcurl has not asked for yet.
        self.sock: PlainSocket | None = None
        self.fresh = False
        if request.timeout <= 0:
            raise PostFailed(base.TIMEOUT, "There was no time left for the POST.")
        if request.method not in METHODS or (request.method == "OPTIONS" and request.body):
            detail = "Only POST is sent with a body, and OPTIONS without one."
            raise PostFailed(base.INVALID_REQUEST, detail)
        self.target = addresses.judge(request.url)
        self.headers = _lines(sendable_headers(request))

    def key(self) -> Hashable:
        """Whose connections it may use."""
        target = self.target
        return (self.request.lane, target.scheme, target.host, target.port)

    def drop_socket(self) -> None:
        """Close what libcurl has not taken, or has its own copy of."""
        if self.sock is not None:
            self.sock.close()
            self.sock = None


def _lines(headers: dict[str, str]) -> list[bytes]:
    """Headers as libcurl takes them; ``Name;`` is one without a value."""
    del headers["Content-Length"]  # libcurl's own
    lines = [
        f"{name}: {value}".encode("latin-1") if value.strip(" \t") else f"{name};".encode()
        for name, value in headers.items()
    ]
    lines += UNWANTED
    if "Content-Type" not in headers and "content-type" not in map(str.lower, headers):
        lines.append(b"Content-Type:")  # a form, libcurl would say
    return lines


class Handle:
    """A transfer of libcurl's, set up once and used for one POST after the other."""

    def __init__(self, ca_file: str, by_fd: dict[int, Connection]) -> None:
        """by_fd: told of each connection that libcurl takes over, by its number for the socket."""
        self._by_fd = by_fd
        self.answer = Answer()
        self.post: Post | None = None
        #: What it was told last, and need not be told again.
        self._url = self._method = ""
        self._connect_to: list[str] = []
        self.curl = curl = pycurl.Curl()
        curl.handle = self
        for option, value in (
            (pycurl.NOSIGNAL, 1),
            (pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS),
            (pycurl.FOLLOWLOCATION, 0),
            (pycurl.PATH_AS_IS, 1),
            (pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2TLS),
            (pycurl.HTTP09_ALLOWED, 0),
            (pycurl.HTTP_CONTENT_DECODING, 0),
            (pycurl.NETRC, pycurl.NETRC_IGNORED),
            (pycurl.PROXY, ""),
            (pycurl.NOPROXY, "*"),
            (pycurl.TCP_NODELAY, 1),
            (pycurl.DNS_CACHE_TIMEOUT, 0),
            (pycurl.SSLVERSION, pycurl.SSLVERSION_TLSv1_2),
            (pycurl.SSL_VERIFYPEER, 1),
            (pycurl.SSL_VERIFYHOST, 2),
            # Sessions are found by host name, which lanes have in common.
            (pycurl.SSL_SESSIONID_CACHE, 0),
            (pycurl.CAINFO, ca_file),
            (pycurl.MAXAGE_CONN, round(MAX_IDLE_SECONDS)),
            (pycurl.HEADERFUNCTION, self.answer.header),
            (pycurl.WRITEFUNCTION, self.answer.body),
            (pycurl.OPENSOCKETFUNCTION, self._open_socket),
            (pycurl.SOCKOPTFUNCTION, self._take_socket),
        ):
            curl.setopt(option, value)
        curl.unsetopt(pycurl.CAPATH)  # the system's, which would be trusted as well

    def load(self, post: Post, connection: Connection) -> None:
        """Make ready for a POST."""
        self.post = post
        self.answer.clear()
        request, target, curl = post.request, post.target, self.curl
        url = f"{target.scheme}://{target.host}:{target.port}{target.path}"
        if url != self._url:
            curl.setopt(pycurl.URL, url)
            self._url = url
        if connection.connect_to is not self._connect_to:
            curl.setopt(pycurl.CONNECT_TO, connection.connect_to)
            self._connect_to = connection.connect_to
        if request.method != self._method:
            curl.setopt(pycurl.CUSTOMREQUEST, request.method)
            self._method = request.method
        curl.setopt(pycurl.POSTFIELDS, request.body)
        curl.setopt(pycurl.HTTPHEADER, post.headers)

    def _open_socket(self, purpose: int, address: Any) -> Any:
        """libcurl wants to connect: it gets what was dialled for this POST, or nothing."""
        sock = self.post.sock if self.post is not None else None
        return pycurl.SOCKET_BAD if sock is None else sock

    def _take_socket(self, fd: int, purpose: int) -> int:
        """libcurl has its own copy of the socket, ``fd``."""
        assert self.post is not None
        assert self.post.connection is not None
        self.post.connection.fd = fd
        self._by_fd[fd] = self.post.connection
        self.post.drop_socket()
        return int(pycurl.SOCKOPT_ALREADY_CONNECTED)
