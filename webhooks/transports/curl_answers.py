"""What libcurl hands over of one answer, and what it means.

libcurl calls ``header`` and ``body`` as bytes come in; what is worth no more reading is cut there.
Afterwards ``response`` judges the answer in the words of the ``requests`` transport: an operator
does not see which of the two has sent a POST.
"""

from __future__ import annotations

import re
from typing import Final

import pycurl

from webhooks.exceptions import BlockedAddress
from webhooks.transports import addresses, base
from webhooks.transports.base import Response
from webhooks.transports.requests import MAX_RETRY_AFTER
from webhooks.transports.sockets import MAX_RECEIVED_BYTES, PostFailed

#: Lines of one head, as in http.client.
MAX_HEADERS: Final = 100
#: Bytes of one of them, as there.
MAX_LINE: Final = 64 * 1024
#: RFC 9112, section 4; of HTTP/2 libcurl makes one as well.
STATUS_LINE: Final = re.compile(rb"HTTP/(?:1\.[0-9]|2) +([0-9]{3})[ \r\n]")
#: What a callback returns to end the transfer: fewer bytes than it was given.
CUT: Final = 0
#: libcurl's own names are missing for some of its codes.
TOO_LARGE: Final = 100
INVALID_ANSWER: Final = frozenset(
    (
        pycurl.E_UNSUPPORTED_PROTOCOL,  # HTTP/0.9, or a version that is none
        8,  # CURLE_WEIRD_SERVER_REPLY
        16,  # CURLE_HTTP2: framing
        pycurl.E_PARTIAL_FILE,
        pycurl.E_BAD_CONTENT_ENCODING,
    )
)
#: The connection was there, and broke.
BROKEN: Final = frozenset(
    (
        pycurl.E_COULDNT_CONNECT,
        pycurl.E_GOT_NOTHING,
        pycurl.E_SEND_ERROR,
        pycurl.E_RECV_ERROR,
        92,  # CURLE_HTTP2_STREAM: reset by the peer
    )
)
#: OpenSSL's verdict on a certificate, in libcurl's sentence; it names no host.
REFUSED: Final = re.compile(r"(?:problem|verify result): ([A-Za-z][A-Za-z ,'-]*)")
#: The reason at the end of an OpenSSL error.
REASON: Final = re.compile(r"::([a-z][a-z0-9 ]*)")
#: Of a 64-bit number.
MAX_DIGITS: Final = 19
WANTED: Final = frozenset(name.encode() for name in ("retry-after", *base.KEPT_HEADERS))
LENGTH: Final = b"content-length"


class Answer:
    """One answer as it comes in. It is used again for the next POST after ``clear``."""

    __slots__ = ("_left", "complete", "excerpt", "failure", "lines", "status")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Nothing has come yet."""
        #: The head so far, its status line first.
        self.lines: list[bytes] = []
        #: Of the last head, which may have been a provisional one; 0: none came.
        self.status = 0
        #: The final head is here as a whole.
        self.complete = False
        self.excerpt = b""
        self.failure: PostFailed | None = None
        self._left = MAX_RECEIVED_BYTES

    def header(self, line: bytes) -> int | None:
        """libcurl has read one line of a head, or a trailer."""
        lines, size = self.lines, len(line)
        self._left -= size
        if self._left < 0 or len(lines) > MAX_HEADERS or size > MAX_LINE:
            self.failure = too_large()
            return CUT
        if self.complete:
            return None
        if size > 2 or line not in (b"\r\n", b"\n"):
            lines.append(line)
            return None
        status_line = STATUS_LINE.match(lines[0]) if lines else None
        if status_line is None:
            detail = "The answer is not valid HTTP (status line)."
            self.failure = PostFailed(base.BAD_RESPONSE, detail)
            return CUT
        self.status = int(status_line[1])
        if 100 <= self.status < 200 and self.status != 101:
            self.lines.clear()
            return None
        self.complete = True
        # The body of a redirect is of no use, and the place for a bomb: it is not read.
        return None if 200 <= self.status < 300 or 400 <= self.status < 600 else CUT

    def body(self, data: bytes) -> int | None:
        """libcurl has read some of the body."""
        self.excerpt += data
        return None if len(self.excerpt) <= base.EXCERPT_BYTES else CUT

    def response(self, code: int, message: str, started: float, ended: float) -> Response:
        """How the POST ended.

        code: libcurl's, 0 where it was read to its end. message: libcurl's; it names hosts and
        addresses, so only words that are known are repeated. started, ended: in seconds.
        """
        elapsed_ms = (ended - started) * 1000
        try:
            if self.failure is not None and not self.complete:
                raise self.failure
            if not self.complete:
                raise self._without_head(code, message)
            return self._with_head(code, elapsed_ms)
        except PostFailed as failed:
            return Response(
                error_code=failed.code, error_detail=failed.detail, elapsed_ms=elapsed_ms
            )

    def _with_head(self, code: int, elapsed_ms: float) -> Response:
        status = self.status
        if not 200 <= status < 600:
            raise _no_final_status(status)
        found, length = _fields(self.lines)
        retry_after = _text(found.pop("retry-after", b""))[:MAX_RETRY_AFTER]
        # A length that libcurl cannot hold is none to it: it reads to the end of the connection.
        complete = code == 0 and len(length.lstrip(b"0")) < MAX_DIGITS
        if 300 <= status < 400:
            complete = length == b"0"
        return Response(
            status_code=status,
            retry_after=retry_after,
            excerpt=self.excerpt[: base.EXCERPT_BYTES].decode("utf-8", "replace").replace("\0", ""),
            truncated=not complete,
            elapsed_ms=elapsed_ms,
            headers={name: _text(value)[: base.MAX_KEPT_HEADER] for name, value in found.items()},
        )

    def _without_head(self, code: int, message: str) -> PostFailed:
        if code == 0:  # the head broke off: of HTTP/1 libcurl takes that for an end
            code = pycurl.E_GOT_NOTHING
        if code in BROKEN and self.status > 100:
            return _no_final_status(self.status)
        return failure(code, message)


def failure(code: int, message: str) -> PostFailed:
    """What libcurl's code for a POST without an answer means."""
    if code == pycurl.E_OPERATION_TIMEDOUT:
        return PostFailed(base.TIMEOUT, "The POST did not end in time.")
    if code == pycurl.E_PEER_FAILED_VERIFICATION:
        return PostFailed(
            base.TLS_ERROR, f"The receiver's certificate was refused: {_why(message)}."
        )
    if code == pycurl.E_SSL_CONNECT_ERROR:
        if "SYSCALL" in message or "reset by peer" in message:
            return PostFailed(base.TLS_ERROR, "The connection ended during the TLS handshake.")
        reason = REASON.search(message)
        return PostFailed(base.TLS_ERROR, f"TLS failed: {reason[1] if reason else 'handshake'}.")
    if code == pycurl.E_RECV_ERROR and "reset" in message.lower():
        return PostFailed(base.CONNECTION_ERROR, "The connection broke: Connection reset by peer.")
    if code == pycurl.E_SEND_ERROR:
        return PostFailed(base.CONNECTION_ERROR, "The connection broke: Broken pipe.")
    if code in BROKEN:
        detail = "The receiver closed the connection without an answer."
        return PostFailed(base.CONNECTION_ERROR, detail)
    if code in INVALID_ANSWER:
        return PostFailed(base.BAD_RESPONSE, f"The answer is not valid HTTP (libcurl {code}).")
    if code in (TOO_LARGE, pycurl.E_OUT_OF_MEMORY):  # older ones say so of a line without end
        return too_large()
    return PostFailed(base.INTERNAL_ERROR, f"The POST failed inside the sender (libcurl {code}).")


def refusal(error: Exception) -> PostFailed:
    """What an exception before the connection stood means."""
    if isinstance(error, PostFailed):
        return error
    if isinstance(error, addresses.MalformedURL):
        return PostFailed(base.INVALID_REQUEST, str(error))
    if isinstance(error, BlockedAddress):
        return PostFailed(base.BLOCKED_ADDRESS, str(error))
    if isinstance(error, OSError):
        detail = f"No connection: {error.strerror or 'reset'}."
        return PostFailed(base.CONNECTION_ERROR, detail)
    kind = type(error).__name__
    return PostFailed(base.INTERNAL_ERROR, f"The POST failed inside the sender ({kind}).")


def _fields(lines: list[bytes]) -> tuple[dict[str, bytes], bytes]:
    """The fields that are kept, by lower-case name, and ``Content-Length``, b"" where none came.

    Raises PostFailed for several lengths that differ (RFC 9112, section 6.3).
    """
    found: dict[str, bytes] = {}
    length = b""
    for line in lines:
        name, _, value = line.partition(b":")
        name = name.lower()
        if name == LENGTH:
            value = value.strip()
            if length not in (b"", value):
                raise PostFailed(base.BAD_RESPONSE, "The answer's Content-Length is no number.")
            length = value
        elif name in WANTED:
            key = name.decode()
            value = value.strip()
            found[key] = found[key] + b", " + value if key in found else value
    return found, length


def _text(value: bytes) -> str:
    return value.decode("latin-1").replace("\0", "").strip()


def too_large() -> PostFailed:
    """The answer has brought in more than it may."""
    return PostFailed(base.BAD_RESPONSE, "The answer's headers or framing are too large.")


def _no_final_status(status: int) -> PostFailed:
    detail = f"The receiver answered {status}, which is no final HTTP status."
    return PostFailed(base.BAD_RESPONSE, detail)


def _why(message: str) -> str:
    """Why a certificate was refused, in OpenSSL's words."""
    if found := REFUSED.search(message):
        return found[1].strip()
    if "IP address" in message or "ipv4" in message.lower() or "ipv6" in message.lower():
        return "IP address mismatch"
    return "Hostname mismatch"
