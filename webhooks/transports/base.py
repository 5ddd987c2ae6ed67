"""What the engine asks of a transport, and what it gets back.

A transport sends POSTs and reports how each ended. It knows nothing of models, retries or
signatures: a ``Request`` comes in complete, and a ``Response`` goes out for every request, whatever
the peer or the network did. A transport never raises for what a receiver does.

An ``OPTIONS`` request, with which CloudEvents asks for consent, is sent and bounded like a POST.
"""

from __future__ import annotations

import abc
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final, Literal

#: How a POST can fail before, or instead of, a usable status line.
TIMEOUT: Final = "timeout"
DNS_ERROR: Final = "dns_error"
CONNECTION_REFUSED: Final = "connection_refused"
CONNECTION_ERROR: Final = "connection_error"
TLS_ERROR: Final = "tls_error"
BLOCKED_ADDRESS: Final = "blocked_address"
INVALID_REQUEST: Final = "invalid_request"
#: The operator's own proxy failed, not the receiver.
PROXY_ERROR: Final = "proxy_error"
BAD_RESPONSE: Final = "bad_response"
INTERNAL_ERROR: Final = "internal_error"
#: What is never the receiver's fault.
OURS: Final = frozenset({PROXY_ERROR, INTERNAL_ERROR})

#: At most so much of a response body is read and kept.
EXCERPT_BYTES: Final = 4096
#: The headers of an answer that are kept, because a handshake asks for them.
KEPT_HEADERS: Final = ("x-hook-secret", "webhook-allowed-origin", "webhook-allowed-rate")
#: Characters of each that are kept.
MAX_KEPT_HEADER: Final = 256


@dataclass(slots=True)  # one for each POST, as a Response: frozen ones take three times as long
class Request:
    """One POST, complete.

    lane: connections are kept for, and shared within, one lane only (a subscription's id).
    url: the absolute http(s) URL; it is checked again at the connection.
    headers: all headers, ``Content-Type`` and signature included.
    body: the bytes that were signed.
    timeout: seconds for the whole POST: DNS, connect, TLS, send and receive together.
    method: ``OPTIONS`` has an empty body.
    """

    lane: str
    # None of these three in reprs, for they end in logs and error reports: people put tokens into
    # URLs, and the headers hold theirs.
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    timeout: float
    method: Literal["POST", "OPTIONS"] = "POST"


@dataclass(slots=True)
class Response:
    """How one POST ended.

    status_code: the final status, or None where no usable status line came.
    error_code: "" where a status line came, else one of the codes above.
    error_detail: a sentence for operators; never holds an address, a secret or a body.
    retry_after: the ``Retry-After`` header as it came, "" where there was none.
    excerpt: the first ``EXCERPT_BYTES`` of the body, decoded with replacement, without NUL.
    truncated: there was, or may have been, more body than the excerpt.
    elapsed_ms: milliseconds from the start of the POST to its end.
    headers: those of ``KEPT_HEADERS`` that came, by lower-case name, each cut to
        ``MAX_KEPT_HEADER`` characters, without NUL.
    """

    status_code: int | None = None
    error_code: str = ""
    error_detail: str = ""
    retry_after: str = ""
    excerpt: str = ""
    truncated: bool = False
    elapsed_ms: float = 0.0
    headers: Mapping[str, str] = field(default_factory=dict)


class Transport(abc.ABC):
    """Sends POSTs, many at a time. One object for each process; used from one thread."""

    #: Path of the PEM bundle that certificates are verified against; None: the default bundle. A
    #: host with a certificate authority of its own sets it in a subclass.
    ca_file: ClassVar[str | None] = None
    #: POSTs in flight where the setting ``CONCURRENCY`` names no number.
    default_concurrency: ClassVar[int] = 32

    def __init__(self, *, concurrency: int) -> None:
        """concurrency: at most so many POSTs are in flight at once."""
        self.concurrency = concurrency

    @abc.abstractmethod
    def start(self, tag: Hashable, request: Request) -> None:
        """Begin a POST at once and return. ``tag`` comes back with its response."""

    @abc.abstractmethod
    def finished(self, timeout: float) -> list[tuple[Hashable, Response]]:
        """The POSTs that ended since the last call; waits up to ``timeout`` s for the first."""

    @abc.abstractmethod
    def close(self) -> None:
        """Drop every connection and end every thread. Requests in flight are abandoned."""
