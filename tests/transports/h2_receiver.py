"""A receiver that speaks HTTP/2 over TLS, on loopback; it answers every request ``200 ok``."""

from __future__ import annotations

import contextlib
import ssl
import threading
import time

import h2.config
import h2.connection
import h2.events

from tests.transports.receivers import Received, Receiver, normal


class H2Receiver(Receiver):
    """``requests`` holds what arrived; ``most`` is the most requests at once on one connection.

    hold: seconds that each connection waits before it answers what came by then.
    """

    def __init__(self, tls: ssl.SSLContext, *, hold: float = 0.0) -> None:
        tls.set_alpn_protocols(["h2"])
        super().__init__(normal, tls=tls)
        self.hold = hold
        self.most = 0
        self._lock = threading.Lock()

    def _talk(self, sock: ssl.SSLSocket, number: int) -> None:
        config = h2.config.H2Configuration(client_side=False, header_encoding="latin-1")
        connection = h2.connection.H2Connection(config)
        connection.initiate_connection()
        sock.sendall(connection.data_to_send())
        heads: dict[int, dict[str, str]] = {}
        bodies: dict[int, bytes] = {}
        complete: list[int] = []
        while data := self._receive(sock, complete):
            for event in connection.receive_data(data) if data != b"\0" else ():
                if isinstance(event, h2.events.RequestReceived):
                    heads[event.stream_id] = dict(event.headers)
                    bodies[event.stream_id] = b""
                elif isinstance(event, h2.events.DataReceived):
                    bodies[event.stream_id] += event.data
                    connection.acknowledge_received_data(
                        event.flow_controlled_length, event.stream_id
                    )
                elif isinstance(event, h2.events.StreamEnded):
                    complete.append(event.stream_id)
                elif isinstance(event, h2.events.StreamReset) and event.stream_id in complete:
                    complete.remove(event.stream_id)
            if data == b"\0" or not self.hold:
                self._answer(connection, number, heads, bodies, complete)
            sock.sendall(connection.data_to_send())

    def _receive(self, sock: ssl.SSLSocket, complete: list[int]) -> bytes:
        """What came; one NUL when nothing more came for ``hold`` seconds after a request."""
        sock.settimeout(self.hold if complete and self.hold else None)
        with contextlib.suppress(TimeoutError):
            return sock.recv(65536)
        return b"\0"

    def _answer(
        self,
        connection: h2.connection.H2Connection,
        number: int,
        heads: dict[int, dict[str, str]],
        bodies: dict[int, bytes],
        complete: list[int],
    ) -> None:
        with self._lock:
            self.most = max(self.most, len(complete))
        for stream in complete:
            head = heads.pop(stream)
            line = f"{head[':method']} {head[':path']} HTTP/2"
            self.requests.append(Received(number, line, head, bodies.pop(stream)))
            connection.send_headers(stream, [(":status", "200"), ("retry-after", "7")])
            connection.send_data(stream, b"ok", end_stream=True)
        complete.clear()


def settle() -> None:
    """Long enough for the frames that follow an answer to have been sent."""
    time.sleep(0.05)
