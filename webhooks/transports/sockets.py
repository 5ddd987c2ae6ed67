"""Sockets that keep the deadline of one POST, in plain TCP and in TLS.

The timeouts of urllib3 and requests are for each read: a peer that sends a byte at a time, endless
chunks or endless ``100 Continue`` is never stopped by them. Here every operation on a socket may
take only what is left of the POST's time, and an answer may bring in only so many bytes.

Our refusals and time-outs are no ``OSError``: urllib3 would wrap, swallow or retry those.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from typing import Any, Final

from webhooks.transports import base

#: How far a socket's timeout may be off, in seconds, before it is set again (a system call).
SLACK_SECONDS: Final = 0.02
#: Bytes of status line, headers, 1xx answers, chunk framing and body that one POST may bring in.
MAX_RECEIVED_BYTES: Final = 128 * 1024


class PostFailed(Exception):
    """A POST ended without a usable answer, for a reason that we know.

    code: one of the codes of ``transports.base``. detail: a sentence without address or secret.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class Wire:
    """What one thread waits for, so that another can cut it off."""

    def __init__(self) -> None:
        self._sock: socket.socket | None = None
        self._is_cut = False

    def hold(self, sock: socket.socket) -> None:
        """The thread is about to wait for this socket. Raises PostFailed when it was cut off."""
        self._sock = sock
        if self._is_cut:
            raise PostFailed(base.INTERNAL_ERROR, "The transport was closed.")

    def cut(self) -> None:
        """End what the thread waits for, now and from now on."""
        self._is_cut = True
        if self._sock is not None:
            # Not SSLSocket.shutdown, which would turn the socket into a plain one meanwhile.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._sock, socket.SHUT_RDWR)


class Posting(threading.local):
    """The POST that this thread is busy with; urllib3's call chain has no room to pass it.

    lane: whose connections may be used. target: the path and query that are asked for. deadline: on
    the clock of ``time.monotonic``.
    """

    def __init__(self) -> None:
        self.lane = ""
        self.target = ""
        self.deadline = 0.0
        self.wire = Wire()


posting = Posting()


def time_left(deadline: float) -> float:
    """Seconds until the deadline. Raises PostFailed with ``timeout`` when it has passed."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise out_of_time()
    return left


def out_of_time() -> PostFailed:
    return PostFailed(base.TIMEOUT, "The POST did not end in time.")


class DeadlineSocket(socket.socket):
    """Mixin of both socket classes: no operation outlives the deadline, no answer its budget."""

    #: On the clock of ``time.monotonic``; None until the POST has connected.
    deadline: float | None = None
    budget: int = MAX_RECEIVED_BYTES

    _armed: float = 0.0

    def renew(self, deadline: float) -> None:
        """Ready for the next POST."""
        self.deadline = deadline
        self.budget = MAX_RECEIVED_BYTES

    def settimeout(self, value: float | None) -> None:
        """Before the deadline is known as usual; after that nothing, for urllib3 has another idea.

        Each call costs a system call, and its change of threads, for a value that is not used.
        """
        if self.deadline is None:
            super().settimeout(value)

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self._arm()
        try:
            count = super().recv_into(*args, **kwargs)
        except TimeoutError:
            raise out_of_time() from None
        return self._spend(count)

    def recv(self, *args: Any, **kwargs: Any) -> bytes:
        self._arm()
        try:
            data = super().recv(*args, **kwargs)
        except TimeoutError:
            raise out_of_time() from None
        self._spend(len(data))
        return data

    def send(self, *args: Any, **kwargs: Any) -> int:
        self._arm()
        try:
            return super().send(*args, **kwargs)
        except TimeoutError:
            raise out_of_time() from None

    def sendall(self, *args: Any, **kwargs: Any) -> None:
        # socket.sendall keeps its timeout over all parts; SSLSocket.sendall calls send for each.
        self._arm()
        try:
            super().sendall(*args, **kwargs)
        except TimeoutError:
            raise out_of_time() from None

    def _arm(self) -> None:
        if self.deadline is None:
            return
        left = time_left(self.deadline)
        if not left - SLACK_SECONDS <= self._armed <= left + SLACK_SECONDS:
            super().settimeout(left)
            self._armed = left

    def _spend(self, count: int) -> int:
        self.budget -= count
        if self.budget < 0:
            raise PostFailed(base.BAD_RESPONSE, "The answer's headers or framing are too large.")
        return count


class PlainSocket(DeadlineSocket):
    """A TCP socket that keeps the deadline."""

    def connect_within(self, seconds: float, address: tuple[Any, ...], deadline: float) -> None:
        """Connect, for at most so many seconds. Raises OSError, and PostFailed when time is up."""
        posting.wire.hold(self)
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.settimeout(min(seconds, time_left(deadline)))
        self.connect(address)
        self.renew(deadline)


class TLSSocket(DeadlineSocket, ssl.SSLSocket):
    """A TLS socket that keeps the deadline."""


class TLSContext(ssl.SSLContext):
    """TLS 1.2 and later, verified against one CA file; its sockets keep the deadline."""

    sslsocket_class = TLSSocket

    @classmethod
    def trusting(cls, ca_file: str) -> TLSContext:
        """ca_file: path of a PEM bundle."""
        context = cls(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        context.check_hostname = True
        context.load_verify_locations(cafile=ca_file)
        ssl.SSLContext.set_alpn_protocols(context, ["http/1.1"])
        return context

    def set_alpn_protocols(self, alpn_protocols: Any) -> None:
        """Nothing: urllib3 sets them anew for each connection, while other threads handshake."""

    def wrap_socket(self, sock: socket.socket, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        """Wrap and shake hands within the deadline of the socket."""
        assert isinstance(sock, PlainSocket)
        assert sock.deadline is not None
        deadline = sock.deadline
        kwargs["do_handshake_on_connect"] = False
        tls = super().wrap_socket(sock, *args, **kwargs)
        assert isinstance(tls, TLSSocket)
        try:
            posting.wire.hold(tls)
            tls.settimeout(time_left(deadline))
            tls.do_handshake()
            tls.renew(deadline)
        except TimeoutError:
            tls.close()
            raise out_of_time() from None
        except ssl.SSLError as error:
            tls.close()
            raise PostFailed(base.TLS_ERROR, tls_detail(error)) from None
        except OSError as error:
            tls.close()
            detail = "The connection ended during the TLS handshake."
            raise PostFailed(base.TLS_ERROR, detail) from error
        except BaseException:
            tls.close()
            raise
        return tls


def tls_detail(error: ssl.SSLError) -> str:
    """What failed, in OpenSSL's words, less the names and addresses that it may repeat."""
    if isinstance(error, ssl.SSLCertVerificationError):
        words = error.verify_message.split(",")[0]
        return f"The receiver's certificate was refused: {words}."
    return f"TLS failed: {(error.reason or type(error).__name__).replace('_', ' ').lower()}."
