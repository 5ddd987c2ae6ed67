"""What is particular to CurlTransport; what every transport promises is tested in ``contract``."""

from __future__ import annotations

import select
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("pycurl")

from tests.transports import receivers
from tests.transports.certificates import Authority
from tests.transports.h2_receiver import H2Receiver, settle
from tests.transports.posting import BODY, drive, gather, post, request, wait_until
from tests.transports.receivers import OK, Received, Receiver, answers
from webhooks.transports import (
    addresses,
    base,
    connections,
    curl,
    curl_connections,
    curl_posts,
)
from webhooks.transports.curl import CurlTransport


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def transport(authority: Authority) -> Iterator[CurlTransport]:
    class Trusting(CurlTransport):
        ca_file = str(authority.ca_file)

    made = Trusting(concurrency=8)
    yield made
    made.close()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every name leads to loopback; what was asked for is noted."""
    names: list[str] = []

    def answer(host: str, port: int, *args: Any, **kwargs: Any) -> list[Any]:
        names.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return names


def lanes_of(receiver: Receiver) -> dict[int, set[str]]:
    """Which lanes each of the receiver's connections has served."""
    served: dict[int, set[str]] = defaultdict(set)
    for got in receiver.requests:
        served[got.connection].add(got.headers["x-lane"])
    return served


class TestSockets:
    def test_libcurl_gets_no_socket_but_the_one_that_was_dialled_for_the_post(
        self, transport: CurlTransport, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def forget(post: curl_posts.Post, result: Any) -> None:
            result.close()
            post.sock = None
            connection = curl_connections.Connection(post.key())
            connection.streams = 1
            post.fresh = True
            transport._dialling.discard(post)
            transport._send(post, connection)

        given: list[Any] = []
        open_socket = curl_posts.Handle._open_socket

        def spy(handle: curl_posts.Handle, purpose: int, address: Any) -> Any:
            given.append(open_socket(handle, purpose, address))
            return given[-1]

        monkeypatch.setattr(curl_posts.Handle, "_open_socket", spy)
        monkeypatch.setattr(transport, "_dialled", forget)
        with Receiver(receivers.normal) as receiver:
            response = post(transport, receiver.url)
        assert response.error_code == base.CONNECTION_ERROR
        assert given == [curl.pycurl.SOCKET_BAD]
        assert "100::" not in response.error_detail
        assert receiver.requests == []

    def test_a_socket_whose_peer_is_another_one_is_not_handed_over(
        self, transport: CurlTransport, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        peer = ("10.0.0.1", 80)
        monkeypatch.setattr(
            connections.PlainSocket, "getpeername", lambda self: peer, raising=False
        )
        with Receiver(receivers.normal) as receiver:
            assert post(transport, receiver.url).error_code == base.BLOCKED_ADDRESS
        assert receiver.requests == []

    def test_a_connection_that_libcurl_has_closed_is_made_anew_and_looked_up_anew(
        self, transport: CurlTransport, asked: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(curl, "MAX_IDLE_CONNECTIONS", 1)
        monkeypatch.setattr(curl_connections.Connection, "is_connected", True)
        transport.concurrency = 1
        with Receiver(receivers.normal) as receiver:
            url = f"http://hooks.example.com:{receiver.port}/"
            for lane in ("a", "b", "a"):
                # The books say that the connections of both lanes are open.
                if transport._multi is not None:
                    transport._connections.idle.limit = 9
                assert post(transport, url, lane=lane).status_code == 200
        assert (receiver.connections, len(receiver.requests)) == (3, 3)
        assert asked == ["hooks.example.com"] * 3

    def test_a_name_lookup_that_hangs_holds_up_nobody_else(
        self, transport: CurlTransport, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        release = threading.Event()
        monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: release.wait(10) and [])
        with Receiver(receivers.normal) as receiver:
            for number in range(7):
                transport.start(number, request("http://hooks.example.com/", timeout=9))
            started = time.monotonic()
            transport.start("good", request(receiver.url, timeout=9))
            [(tag, response)] = gather(transport, 1)
            assert time.monotonic() - started < 3
        release.set()
        assert (tag, response.status_code) == ("good", 200)


class TestLanes:
    def test_many_with_the_same_host_never_share_a_connection(
        self, transport: CurlTransport
    ) -> None:
        with Receiver(receivers.normal) as receiver:
            for number in range(120):
                lane = f"sub_{number * 7 % 20}"
                headers = {"X-Lane": lane}
                transport.start(number, request(receiver.url, lane=lane, headers=headers))
            results = gather(transport, 120)
        assert {response.status_code for _, response in results} == {200}
        served = lanes_of(receiver)
        assert all(len(lanes) == 1 for lanes in served.values())
        assert len(set.union(*served.values())) == 20
        assert len(served) < 120  # they were used again

    def test_share_no_tls_session(self, transport: CurlTransport, authority: Authority) -> None:
        tls = authority.server("127.0.0.1")
        with Receiver(receivers.normal, tls=tls) as receiver:
            for lane in ("a", "b", "c"):
                assert post(transport, receiver.url, lane=lane).status_code == 200
            assert receiver.connections == 3
        assert tls.session_stats()["hits"] == 0

    def test_no_more_than_the_limit_wait(
        self, transport: CurlTransport, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(curl, "MAX_IDLE_CONNECTIONS", 2)
        transport.concurrency = 1
        with Receiver(receivers.normal) as receiver:
            for number in range(10):
                assert post(transport, receiver.url, lane=f"sub_{number}").status_code == 200
            wait_until(lambda: receiver.connections - receiver.closed <= 2)
            assert len(transport._connections.idle) == 2
            post(transport, receiver.url, lane="sub_9")
            assert receiver.connections == 10
            post(transport, receiver.url, lane="sub_0")
            assert receiver.connections == 11

    def test_one_that_has_waited_too_long_is_not_used_again(
        self, transport: CurlTransport, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(connections, "MAX_IDLE_SECONDS", 0.1)
        with Receiver(receivers.normal) as receiver:
            post(transport, receiver.url)
            time.sleep(0.15)
            assert post(transport, receiver.url).status_code == 200
        assert receiver.connections == 2

    def test_what_is_kept_in_memory_does_not_grow_with_the_lanes(
        self, transport: CurlTransport, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(curl, "MAX_IDLE_CONNECTIONS", 4)
        with Receiver(answers(OK, then_close=True)) as receiver:
            for number in range(100):
                transport.start(number, request(receiver.url, lane=f"sub_{number}"))
            gather(transport, 100)
        assert len(transport._handles) <= transport.concurrency
        assert len(transport._by_fd) < 60
        assert len(transport._connections.idle) <= 4
        assert [*transport._sending, *transport._dialling] == []
        assert transport._watched.keys() <= transport._unwanted


class TestTheCallersThread:
    def test_an_answer_that_comes_at_once_is_reported_at_once(
        self, transport: CurlTransport
    ) -> None:
        """libcurl may have read the answer before ``start`` returns: no socket tells of it."""

        class Patient:
            def __init__(self, multi: Any) -> None:
                self.multi = multi

            def __getattr__(self, name: str) -> Any:
                return getattr(self.multi, name)

            def socket_action(self, fd: int, events: int) -> Any:
                self.multi.socket_action(fd, events)
                for watched in list(transport._watched):
                    poll = select.poll()
                    poll.register(watched, select.POLLIN)
                    poll.poll(5000)
                    self.multi.socket_action(watched, 1)

        with Receiver(receivers.normal) as receiver:
            post(transport, receiver.url)
            transport._multi = Patient(transport._multi)
            transport.start("tag", request(receiver.url))
            assert len(receiver.requests) == 2
            started = time.monotonic()
            assert len(transport.finished(5)) == 1
            assert time.monotonic() - started < 0.5

    def test_an_answer_that_came_in_time_counts_however_late_it_is_read(
        self, transport: CurlTransport
    ) -> None:
        with Receiver(receivers.after(0.1)) as receiver:
            post(transport, receiver.url)
            transport.start("tag", request(receiver.url, timeout=0.3))
            time.sleep(0.5)  # the caller is busy with its database
            [(_, response)] = gather(transport, 1)
        assert response.status_code == 200

    def test_what_waits_for_a_slot_has_its_whole_time_still(self, transport: CurlTransport) -> None:
        transport.concurrency = 1
        with Receiver(receivers.after(0.3)) as receiver:
            for number in range(3):
                transport.start(number, request(receiver.url, timeout=0.6))
            results = gather(transport, 3)
        assert {response.status_code for _, response in results} == {200}

    def test_a_fault_of_ours_is_an_internal_error_and_the_next_post_goes_out(
        self, transport: CurlTransport, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Receiver(receivers.normal) as receiver:
            with monkeypatch.context() as patch:
                patch.setattr(curl_posts.Handle, "load", lambda *args: 1 / None)  # type: ignore[operator]
                assert post(transport, receiver.url).error_code == base.INTERNAL_ERROR
            assert post(transport, receiver.url).status_code == 200


class TestAnswers:
    def test_framing_without_end_is_cut_off(self, transport: CurlTransport) -> None:
        sent: list[int] = []

        def flood(sock: socket.socket, got: Received) -> bool:
            sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;")
            while True:
                sent.append(sock.send(b"x" * 65536))

        with Receiver(flood) as receiver:
            response = post(transport, receiver.url, timeout=5)
        assert (response.status_code, response.truncated) == (200, True)
        assert response.elapsed_ms < 2000
        assert sum(sent) < 20_000_000  # what the kernel buffered

    @pytest.mark.parametrize(
        "raw",
        [b"HTTP/1.1 200 OK\r\nX-Half: a", b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\n"],
    )
    def test_a_head_that_breaks_off_is_no_answer(
        self, transport: CurlTransport, raw: bytes
    ) -> None:
        with Receiver(answers(raw, then_close=True)) as receiver:
            response = post(transport, receiver.url)
        assert (response.status_code, response.error_code) == (None, base.CONNECTION_ERROR)

    def test_trailers_count_as_what_was_received(self, transport: CurlTransport) -> None:
        start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"
        with Receiver(receivers.repeats(start, b"X-Filler: " + b"x" * 1000 + b"\r\n")) as receiver:
            response = post(transport, receiver.url)
        assert (response.status_code, response.excerpt) == (200, "abc")
        assert response.truncated
        assert response.elapsed_ms < 2000


class TestRequests:
    def test_a_header_may_be_empty_and_none_is_added(self, transport: CurlTransport) -> None:
        with Receiver(receivers.normal) as receiver:
            post(transport, receiver.url, headers={"X-Empty": "", "X-Blank": " ", "X-A": "b"})
        got = receiver.requests[0].headers
        assert (got["x-empty"], got["x-blank"], got["x-a"]) == ("", "", "b")
        ours = {"host", "user-agent", "accept-encoding", "content-length"}
        assert set(got) == ours | {"x-empty", "x-blank", "x-a"}

    def test_nothing_of_one_post_is_left_in_the_next(self, transport: CurlTransport) -> None:
        transport.concurrency = 1
        with Receiver(receivers.normal) as receiver:
            options = base.Request("sub_a", receiver.url, {"X-Once": "1"}, b"", 5, "OPTIONS")
            transport.start("options", options)
            gather(transport, 1)
            post(transport, receiver.url + "?b=1", headers={})
        assert [got.line.split()[:2] for got in receiver.requests] == [
            ["OPTIONS", "/hook"],
            ["POST", "/hook?b=1"],
        ]
        assert "x-once" not in receiver.requests[1].headers
        assert receiver.requests[1].body == BODY

    def test_a_path_goes_out_as_it_was_judged(self, transport: CurlTransport) -> None:
        path = "/a/%2e%2e/b//c?x=%2F..&y=[1]"
        with Receiver(receivers.normal) as receiver:
            url = f"http://127.0.0.1:{receiver.port}{path}"
            target = addresses.judge(url)
            post(transport, url)
        assert receiver.requests[0].line == f"POST {target.path} HTTP/1.1"


class TestHTTP2:
    def test_is_spoken_with_receivers_that_have_it_and_the_connection_kept(
        self, transport: CurlTransport, authority: Authority
    ) -> None:
        with H2Receiver(authority.server("127.0.0.1")) as receiver:
            for _ in range(3):
                response = post(transport, receiver.url)
                assert (response.status_code, response.excerpt) == (200, "ok")
                assert response.retry_after == "7"
                settle()
        assert receiver.requests[0].line == "POST /hook HTTP/2"
        assert receiver.requests[0].body == BODY
        assert receiver.connections == 1

    def test_posts_of_a_lane_share_a_connection_and_those_of_others_do_not(
        self, transport: CurlTransport, authority: Authority
    ) -> None:
        with H2Receiver(authority.server("127.0.0.1"), hold=0.1) as receiver:
            for lane in ("a", "b"):
                post(transport, receiver.url, lane=lane, headers={"X-Lane": lane})
            settle()
            for number in range(8):
                lane = "ab"[number % 2]
                headers = {"X-Lane": lane}
                transport.start(number, request(receiver.url, lane=lane, headers=headers))
            results = gather(transport, 8)
        assert {response.status_code for _, response in results} == {200}
        assert (receiver.connections, receiver.most) == (2, 4)
        assert all(len(lanes) == 1 for lanes in lanes_of(receiver).values())

    def test_a_connection_on_which_one_post_failed_is_not_used_again(
        self, transport: CurlTransport, authority: Authority
    ) -> None:
        with H2Receiver(authority.server("127.0.0.1")) as receiver:
            post(transport, receiver.url)
            settle()
            receiver.hold = 5
            assert post(transport, receiver.url, timeout=0.3).error_code == base.TIMEOUT
            receiver.hold = 0
            assert post(transport, receiver.url).status_code == 200
        assert receiver.connections == 2


class TestLifeAndDeath:
    def test_nothing_is_made_before_the_first_post(self) -> None:
        before = threading.active_count()
        transport = CurlTransport(concurrency=8)
        assert transport.finished(0) == []
        assert transport._multi is None
        assert threading.active_count() == before
        transport.close()

    def test_close_ends_a_dial_in_the_middle_and_may_be_called_again(self) -> None:
        transport = CurlTransport(concurrency=2)
        with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
            port = full.getsockname()[1]
            filler = socket.create_connection(("127.0.0.1", port))
            transport.start(1, request(f"http://127.0.0.1:{port}/", timeout=15))
            drive(transport, lambda: transport._dialler._threads[0][1]._sock is not None)
            threads = [thread for thread, _ in transport._dialler._threads]
            started = time.monotonic()
            transport.close()
            transport.close()
            filler.close()
        assert time.monotonic() - started < 2
        assert not any(thread.is_alive() for thread in threads)

    def test_without_pycurl_it_says_what_to_do(self) -> None:
        script = """
import sys
sys.modules["pycurl"] = None
from django.core.exceptions import ImproperlyConfigured
try:
    import webhooks.transports.curl
except ImproperlyConfigured as error:
    print(error)
"""
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
        )
        assert "Install django-webhook-delivery[curl]" in done.stdout, done.stderr
