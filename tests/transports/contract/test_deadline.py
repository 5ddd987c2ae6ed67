"""However a receiver spreads its answer, the POST ends when its time is over."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from tests.transports import receivers
from tests.transports.posting import post
from tests.transports.receivers import OK, Received, Receiver
from webhooks.transports import base, connections
from webhooks.transports.base import Transport


class TestDeadline:
    """However a receiver spreads its answer, the POST ends when its time is over."""

    @pytest.mark.parametrize(
        "behaviour",
        [
            pytest.param(receivers.stalls(), id="never answers"),
            pytest.param(receivers.drips(OK), id="status line a byte at a time"),
            pytest.param(
                receivers.stalls(b"HTTP/1.1 200 OK\r\nContent-"), id="stops within its headers"
            ),
            pytest.param(
                receivers.repeats(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", pause=0.05),
                id="headers without end",
            ),
            pytest.param(receivers.endless_continue, id="100 Continue without end"),
        ],
    )
    def test_before_the_status_and_headers_it_is_a_timeout(
        self, transport: Transport, behaviour: receivers.Behaviour
    ) -> None:
        with Receiver(behaviour) as receiver:
            response = post(transport, receiver.url, timeout=0.5)
        assert (response.status_code, response.error_code) == (None, base.TIMEOUT)
        assert 480 <= response.elapsed_ms < 1500

    @pytest.mark.parametrize("status", [200, 500])
    @pytest.mark.parametrize(
        "body",
        [
            pytest.param(receivers.stalls(b"Content-Length: 9\r\n\r\nabc"), id="stalled"),
            pytest.param(
                receivers.repeats(b"Content-Length: 999\r\n\r\nabc", b"d", pause=0.02),
                id="a byte at a time",
            ),
            pytest.param(
                receivers.repeats(
                    b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", b"1\r\nd\r\n", pause=0.02
                ),
                id="chunks without end",
            ),
        ],
    )
    def test_after_them_it_is_a_status_with_a_truncated_body(
        self, transport: Transport, body: receivers.Behaviour, status: int
    ) -> None:
        def behave(sock: socket.socket, got: Received) -> bool:
            sock.sendall(b"HTTP/1.1 %d Whatever\r\n" % status)
            return body(sock, got)

        with Receiver(behave) as receiver:
            response = post(transport, receiver.url, timeout=0.5)
        assert (response.status_code, response.error_code) == (status, "")
        assert response.excerpt.startswith("abc")
        assert response.truncated
        assert 480 <= response.elapsed_ms < 1500

    def test_a_receiver_that_does_not_read_is_a_timeout(self, transport: Transport) -> None:
        with Receiver(receivers.normal, greet=lambda sock: time.sleep(1)) as receiver:
            response = post(transport, receiver.url, timeout=0.5, body=b"x" * 50_000_000)
        assert response.error_code == base.TIMEOUT
        assert response.elapsed_ms < 1500

    def test_a_name_lookup_that_hangs_is_a_timeout(
        self, transport: Transport, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        release = threading.Event()
        monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: release.wait(10))
        response = post(transport, "http://hooks.example.com/", timeout=0.3)
        release.set()
        assert response.error_code == base.TIMEOUT
        assert response.elapsed_ms < 1000

    def test_a_tls_handshake_that_stalls_is_a_timeout(self, transport: Transport) -> None:
        def drip(sock: socket.socket) -> None:
            for byte in b"\x16\x03\x03\x40\x00" + b"\x02" * 200:
                sock.sendall(bytes([byte]))
                time.sleep(0.05)

        with Receiver(receivers.normal, greet=drip) as receiver:
            url = receiver.url.replace("http://", "https://")
            response = post(transport, url, timeout=0.5)
        assert response.error_code == base.TIMEOUT
        assert response.elapsed_ms < 1500

    def test_a_connect_takes_at_most_its_own_limit(
        self, transport: Transport, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(connections, "CONNECT_SECONDS", 0.3)
        with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
            port = full.getsockname()[1]
            fillers = [socket.create_connection(("127.0.0.1", port))]
            response = post(transport, f"http://127.0.0.1:{port}/", timeout=5)
            for filler in fillers:
                filler.close()
        assert response.error_code == base.TIMEOUT
        assert response.elapsed_ms < 1500

    @pytest.mark.parametrize("timeout", [0, -1])
    def test_no_time_at_all_sends_nothing(self, transport: Transport, timeout: float) -> None:
        with Receiver(receivers.normal) as receiver:
            assert post(transport, receiver.url, timeout=timeout).error_code == base.TIMEOUT
        assert receiver.connections == 0

    def test_a_kept_connection_gets_the_full_time_again(self, transport: Transport) -> None:
        with Receiver(receivers.after(0.35)) as receiver:
            for _ in range(3):
                assert post(transport, receiver.url, timeout=0.6).status_code == 200
        assert receiver.connections == 1
