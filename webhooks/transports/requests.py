"""The transport that needs nothing but ``requests``: POSTs in threads, safe from their receivers.

``Session`` is not used. It reads ``.netrc`` and proxy variables, keeps cookies, and downloads and
decompresses the body of a redirect even when it may not follow it. Its adapter does all that is
wanted: it is given guarded connection classes, and one ``PreparedRequest`` at a time.
"""

from __future__ import annotations

import functools
import http.client
import queue
import re
import ssl
import threading
import time
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Final

import requests
import requests.adapters
import requests.utils
import urllib3
from urllib3.util import Retry

import webhooks
from webhooks.exceptions import BlockedAddress
from webhooks.headers import masked
from webhooks.transports import addresses, base
from webhooks.transports.base import Request, Response, Transport
from webhooks.transports.connections import IdleConnections, LanePool, LaneTLSPool
from webhooks.transports.sockets import PostFailed, TLSContext, Wire, posting, tls_detail

#: Idle keep-alive connections of one process.
MAX_IDLE_CONNECTIONS: Final = 512
#: urllib3 pools kept; they are configuration only, the idle connections wait elsewhere.
MAX_POOLS: Final = 1024
#: Seconds that ``close`` waits for its threads.
CLOSE_SECONDS: Final = 2.0
METHODS: Final = ("POST", "OPTIONS")
#: Characters of ``Retry-After`` worth keeping; a date has 29.
MAX_RETRY_AFTER: Final = 128

#: Headers that belong to the connection; from anyone else they could forge or split requests.
RESERVED_HEADERS: Final = frozenset(
    (
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
#: Who sends the POSTs, unless the subscriber's own headers say something else.
USER_AGENT: Final = f"django-webhook-delivery/{webhooks.__version__}"
HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, token
HEADER_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # RFC 9110, field-value
#: What requests, urllib3 and http.client raise over an answer that they cannot parse.
ANSWER_ERRORS: Final = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    ValueError,
    LookupError,
)


class _Adapter(requests.adapters.HTTPAdapter):
    """The ``requests`` adapter over our pools: no proxies, no cookies, no retries."""

    def __init__(self, idle: IdleConnections, ca_file: str) -> None:
        self._idle = idle
        self._ca_file = ca_file
        # total=False: an error is raised as it is, once.
        super().__init__(max_retries=Retry(total=False, respect_retry_after_header=False))

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        self.poolmanager = urllib3.PoolManager(
            num_pools=MAX_POOLS,
            maxsize=1,
            ssl_context=TLSContext.trusting(self._ca_file),
        )
        # Replaced, never changed in place: the dict is shared by every PoolManager there is.
        pool_classes: Any = {
            "http": functools.partial(LanePool, idle=self._idle),
            "https": functools.partial(LaneTLSPool, idle=self._idle),
        }
        self.poolmanager.pool_classes_by_scheme = pool_classes

    def get_connection_with_tls_context(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        # requests would parse the URL again, with another parser than the one that judged it.
        target = request.target
        return self.poolmanager.connection_from_host(target.host, target.port, target.scheme)

    def cert_verify(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the context verifies. requests would load the CA bundle at each connection."""

    def request_url(self, request: Any, proxies: Any) -> str:
        # urllib3 logs and raises with what it is told: the query, where people put their tokens, is
        # for the connection alone (posting.target).
        return str(request.target.path).partition("?")[0]

    def build_response(self, req: Any, resp: Any) -> requests.Response:
        response = requests.Response()
        response.status_code = resp.status
        response.headers = resp.headers
        response.raw = resp
        return response


class _Post(requests.PreparedRequest):
    """A request that is ready as it stands; ``prepare`` would only parse the URL once more."""

    def __init__(self, request: Request) -> None:
        """Raises BlockedAddress and PostFailed for what may not or cannot be sent."""
        super().__init__()
        if request.method not in METHODS or (request.method == "OPTIONS" and request.body):
            detail = "Only POST is sent with a body, and OPTIONS without one."
            raise PostFailed(base.INVALID_REQUEST, detail)
        self.target = addresses.judge(request.url)
        self.method = request.method
        self.url = request.url
        self.body = request.body
        self.headers = sendable_headers(request)  # type: ignore[assignment]


@functools.lru_cache(maxsize=1024)
def _header_name(name: str) -> str:
    """The name in lower case. Raises PostFailed for what is none, and for names that are ours."""
    if not (isinstance(name, str) and HEADER_NAME.fullmatch(name)):
        raise PostFailed(base.INVALID_REQUEST, "A header's name is no RFC 9110 token.")
    lower = name.lower()
    if lower in RESERVED_HEADERS:
        raise PostFailed(base.INVALID_REQUEST, f"Header {name} is set by the transport alone.")
    return lower


def sendable_headers(request: Request) -> dict[str, str]:
    """All headers but ``Host``. Raises PostFailed for those that are no headers or are ours."""
    headers: dict[str, str] = {}
    agent = USER_AGENT
    for name, value in request.headers.items():
        lower = _header_name(name)
        if not (isinstance(value, str) and HEADER_VALUE.fullmatch(value)):
            raise PostFailed(base.INVALID_REQUEST, f"The value of header {name} cannot be sent.")
        if lower == "user-agent":
            agent = value
        elif lower != "accept-encoding":
            headers[name] = value
    headers["User-Agent"] = agent
    # Nothing is decompressed, so a body cannot grow in our memory.
    headers["Accept-Encoding"] = "identity"
    headers["Content-Length"] = str(len(request.body))
    return headers


class RequestsTransport(Transport):
    """Up to ``concurrency`` daemon threads, each with one POST at a time.

    The threads start with the first POSTs, so the object may be made before a fork but must be used
    only after it. A host with a CA of its own sets ``ca_file`` in a subclass.
    """

    #: Path of the PEM bundle that certificates are verified against; None: that of ``requests``.
    ca_file: ClassVar[str | None] = None

    def __init__(self, *, concurrency: int) -> None:
        super().__init__(concurrency=concurrency)
        self._inbox: queue.SimpleQueue[tuple[Hashable, Request] | None] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[tuple[Hashable, Response]] = queue.SimpleQueue()
        self._idle = IdleConnections(MAX_IDLE_CONNECTIONS)
        self._adapter = _Adapter(self._idle, self.ca_file or requests.utils.DEFAULT_CA_BUNDLE_PATH)
        self._threads: list[tuple[threading.Thread, Wire]] = []
        self._outstanding = 0
        self._closed = False

    def start(self, tag: Hashable, request: Request) -> None:
        if self._closed:
            raise RuntimeError("This transport is closed. Make a new one.")
        self._outstanding += 1
        if len(self._threads) < min(self._outstanding, self.concurrency):
            self._start_thread()
        self._inbox.put((tag, request))

    def finished(self, timeout: float) -> list[tuple[Hashable, Response]]:
        results: list[tuple[Hashable, Response]] = []
        try:
            results.append(self._outbox.get(timeout=max(0.0, timeout)))
            while True:
                results.append(self._outbox.get_nowait())
        except queue.Empty:
            pass
        self._outstanding -= len(results)
        return results

    def close(self) -> None:
        self._closed = True
        for _ in self._threads:
            self._inbox.put(None)
        for _, wire in self._threads:
            wire.cut()
        until = time.monotonic() + CLOSE_SECONDS
        for thread, _ in self._threads:
            # A thread in a name lookup cannot be woken; it is a daemon and ends by its deadline.
            thread.join(max(0.0, until - time.monotonic()))
        self._threads.clear()
        self._idle.close()
        self._adapter.close()

    def _start_thread(self) -> None:
        wire = Wire()
        thread = threading.Thread(
            target=self._work,
            args=(wire,),
            name=f"webhooks-post-{len(self._threads)}",
            daemon=True,
        )
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
            tag, request = work
            self._outbox.put((tag, self._post(request)))

    def _post(self, request: Request) -> Response:
        """One POST, from its name lookup to the end of its excerpt. Raises nothing."""
        started = time.monotonic()
        try:
            response = self._send(request, started)
        except Exception as error:  # noqa: BLE001 - receivers cause ValueError, UnicodeError, ...
            code, detail = _failure(error)
            response = Response(error_code=code, error_detail=detail)
        return replace(response, elapsed_ms=(time.monotonic() - started) * 1000)

    def _send(self, request: Request, started: float) -> Response:
        if request.timeout <= 0:
            raise PostFailed(base.TIMEOUT, "There was no time left for the POST.")
        post = _Post(request)
        posting.lane = request.lane
        posting.target = str(post.target.path)
        posting.deadline = started + request.timeout
        answer = self._adapter.send(post, stream=True, timeout=request.timeout, proxies={})
        status = answer.status_code
        try:
            if not 200 <= status < 600:
                # http.client takes 101, 103 and 999 for final answers; RFC 9110 does not.
                detail = f"The receiver answered {status}, which is no final HTTP status."
                raise PostFailed(base.BAD_RESPONSE, detail)
            if 300 <= status < 400:
                # The body of a redirect is of no use, and the place for a bomb: it is not read.
                body, complete = b"", answer.raw.length_remaining == 0
            else:
                body, complete = _excerpt(answer.raw)
        finally:
            # Read to its end, the answer has given its connection back; otherwise this closes it.
            answer.raw.close()
        return Response(
            status_code=status,
            retry_after=_retry_after(answer.headers),
            excerpt=masked(body.decode("utf-8", "replace").replace("\0", ""), request.headers),
            truncated=not complete,
            headers=_kept(answer.headers),
        )


def _excerpt(raw: Any) -> tuple[bytes, bool]:
    """The first bytes of a body as they came, and whether they are all of it.

    A body that stalls or breaks off does not fail the POST: the status line has been received.
    """
    parts: list[bytes] = []
    left = base.EXCERPT_BYTES
    complete = False
    try:
        while left > 0 and not complete:
            part = raw.read1(left, decode_content=False)
            # A lying chunk size makes http.client return more than was asked for.
            parts.append(part[:left])
            left -= len(part)
            complete = left >= 0 and (not part or raw.length_remaining == 0)
    except Exception:  # noqa: BLE001 - whatever a receiver's framing causes
        complete = False
    return b"".join(parts), complete


def _retry_after(headers: Mapping[str, str]) -> str:
    return headers.get("Retry-After", "").replace("\0", "").strip()[:MAX_RETRY_AFTER]


def _kept(headers: Mapping[str, str]) -> dict[str, str]:
    """The answer's headers that a handshake asks for; http.client has decoded them as latin-1."""
    return {
        name: headers[name].replace("\0", "").strip()[: base.MAX_KEPT_HEADER]
        for name in base.KEPT_HEADERS
        if name in headers
    }


def _failure(error: Exception) -> tuple[str, str]:
    """Error code and sentence for whatever ended a POST. The sentence repeats nothing received."""
    if isinstance(error, PostFailed):
        return error.code, error.detail
    if isinstance(error, addresses.MalformedURL):
        return base.INVALID_REQUEST, str(error)
    if isinstance(error, BlockedAddress):
        return base.BLOCKED_ADDRESS, str(error)
    # requests and urllib3 wrap what happened at the socket in layers; the innermost says most.
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError):
            return base.TLS_ERROR, tls_detail(cause)
        if isinstance(cause, TimeoutError):
            return base.TIMEOUT, "The POST did not end in time."
        if isinstance(cause, http.client.RemoteDisconnected):
            return base.CONNECTION_ERROR, "The receiver closed the connection without an answer."
        if isinstance(cause, http.client.HTTPException):
            return base.BAD_RESPONSE, f"The answer is not valid HTTP ({type(cause).__name__})."
        if isinstance(cause, OSError) and not isinstance(cause, requests.RequestException):
            return base.CONNECTION_ERROR, f"The connection broke: {cause.strerror or 'reset'}."
    # The request was checked before it was sent, so what is unusable here is the answer.
    kind = type(error).__name__
    if isinstance(error, ANSWER_ERRORS):
        return base.BAD_RESPONSE, f"The answer cannot be understood ({kind})."
    return base.INTERNAL_ERROR, f"The POST failed inside the sender ({kind})."


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and what it was made from, innermost first."""
    for argument in error.args:
        if isinstance(argument, BaseException):
            yield from _causes(argument)
    if error.__cause__ is not None:
        yield from _causes(error.__cause__)
    yield error
