"""What only RequestsTransport has: its threads, its store of idle connections, its seams."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator

import pytest

from tests.transports import receivers
from tests.transports.posting import post, request, wait_until
from tests.transports.receivers import Receiver, answers
from webhooks.transports import base, connections, sockets
from webhooks.transports.requests import RequestsTransport


@pytest.fixture
def transport() -> Iterator[RequestsTransport]:
    made = RequestsTransport(concurrency=8)
    yield made
    made.close()


class TestConnections:
    def test_a_peer_that_is_not_the_one_that_was_checked(
        self, transport: RequestsTransport, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            sockets.PlainSocket, "getpeername", lambda self: ("10.0.0.1", 80), raising=False
        )
        with Receiver(receivers.normal) as receiver:
            assert post(transport, receiver.url).error_code == base.BLOCKED_ADDRESS
        assert receiver.requests == []

    def test_one_that_has_waited_too_long_is_closed(
        self, transport: RequestsTransport, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(connections, "MAX_IDLE_SECONDS", 0.1)
        with Receiver(receivers.normal) as receiver:
            post(transport, receiver.url)
            time.sleep(0.15)
            assert post(transport, receiver.url).status_code == 200
        assert receiver.connections == 2

    def test_no_more_than_the_limit_wait_and_the_longest_waiting_goes_first(
        self, transport: RequestsTransport
    ) -> None:
        transport._idle.limit = 2
        with Receiver(receivers.normal) as receiver:
            for lane in ("a", "b", "c"):
                post(transport, receiver.url, lane=lane)
            assert len(transport._idle) == 2
            post(transport, receiver.url, lane="c")
            post(transport, receiver.url, lane="b")
            assert receiver.connections == 3
            post(transport, receiver.url, lane="a")
            assert receiver.connections == 4


class TestThreads:
    def test_finished_takes_all_that_are_there_and_waits_no_longer_than_asked(
        self, transport: RequestsTransport
    ) -> None:
        started = time.monotonic()
        assert transport.finished(0.1) == []
        assert 0.09 < time.monotonic() - started < 1
        assert transport.finished(0) == []
        with Receiver(receivers.normal) as receiver:
            for number in range(5):
                transport.start(number, request(receiver.url))
            wait_until(lambda: transport._outbox.qsize() == 5)
            assert len(transport.finished(5)) == 5

    def test_close_ends_every_thread_at_once_even_in_the_middle_of_posts(self) -> None:
        transport = RequestsTransport(concurrency=4)
        before = threading.active_count()
        with (
            Receiver(receivers.stalls()) as silent,
            Receiver(receivers.normal, greet=receivers.listens) as mute,
        ):
            urls = [silent.url, silent.url, mute.url.replace("http:", "https:"), silent.url]
            for number, url in enumerate(urls):
                transport.start(number, request(url, timeout=15))
            wait_until(lambda: len(silent.requests) == 3 and mute.connections == 1)
            threads = [thread for thread, _ in transport._threads]
            assert len(threads) == 4
            started = time.monotonic()
            transport.close()
            assert time.monotonic() - started < 1
            assert not any(thread.is_alive() for thread in threads)
        assert threading.active_count() <= before
        with pytest.raises(RuntimeError, match="closed"):
            transport.start(1, request("http://127.0.0.1/"))

    def test_nothing_is_started_before_the_first_post(self) -> None:
        before = threading.active_count()
        transport = RequestsTransport(concurrency=8)
        assert threading.active_count() == before
        transport.close()


class TestErrors:
    def test_a_fault_of_ours_is_an_internal_error_and_the_thread_lives_on(
        self, transport: RequestsTransport, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(RequestsTransport, "_send", lambda *args: 1 / None)  # type: ignore[operator]
            assert post(transport, "http://127.0.0.1/").error_code == base.INTERNAL_ERROR
        with Receiver(receivers.normal) as receiver:
            assert post(transport, receiver.url).status_code == 200

    def test_headers_that_urllib3_cannot_parse_put_no_query_into_the_log(
        self, transport: RequestsTransport, caplog: pytest.LogCaptureFixture
    ) -> None:
        raw = b"HTTP/1.1 200 OK\r\n continues nothing\r\nContent-Length: 0\r\n\r\n"
        with caplog.at_level(logging.INFO), Receiver(answers(raw)) as receiver:
            post(transport, receiver.url + "?token=hush")
        assert "Failed to parse headers" in caplog.text
        assert "hush" not in caplog.text
