"""A transport against real receivers on loopback: what is sent, and what is reported."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import pytest

import webhooks
from tests.transports import receivers
from tests.transports.posting import BODY, post
from tests.transports.receivers import OK, Received, Receiver, answers, with_body
from webhooks.transports import base
from webhooks.transports.base import EXCERPT_BYTES, Transport


class TestOnePost:
    def test_the_receiver_gets_the_request_as_it_was_given(self, transport: Transport) -> None:
        with Receiver(receivers.normal) as receiver:
            response = post(transport, receiver.url + "?a=b%20c")
        assert (response.status_code, response.error_code) == (200, "")
        assert (response.excerpt, response.truncated) == ("ok", False)
        [got] = receiver.requests
        assert got.line == "POST /hook?a=b%20c HTTP/1.1"
        assert got.body == BODY
        assert got.headers == {
            "host": f"127.0.0.1:{receiver.port}",
            "content-type": "application/json",
            "content-length": str(len(BODY)),
            "webhook-id": "evt_1",
            "x-mine": "caf\xe9",
            "user-agent": f"django-webhook-delivery/{webhooks.__version__}",
            "accept-encoding": "identity",
        }

    def test_the_callers_user_agent_wins(self, transport: Transport) -> None:
        with Receiver(receivers.normal) as receiver:
            post(transport, receiver.url, headers={"user-agent": "mine/1"})
        assert receiver.requests[0].headers["user-agent"] == "mine/1"

    def test_nobody_can_ask_for_a_compressed_answer(self, transport: Transport) -> None:
        with Receiver(receivers.normal) as receiver:
            post(transport, receiver.url, headers={"accept-encoding": "gzip"})
        assert receiver.requests[0].headers["accept-encoding"] == "identity"

    @pytest.mark.parametrize("size", [0, 1, 1_000_000])
    def test_a_body_of_any_size_arrives_whole(self, transport: Transport, size: int) -> None:
        with Receiver(receivers.normal) as receiver:
            assert post(transport, receiver.url, body=b"x" * size).status_code == 200
        assert len(receiver.requests[0].body) == size

    @pytest.mark.parametrize("status", [200, 204, 299, 400, 410, 429, 500, 503, 599])
    def test_every_final_status_is_reported_without_error(
        self, transport: Transport, status: int
    ) -> None:
        raw = with_body(b"" if status == 204 else b"why", status=f"{status} Reason")
        with Receiver(answers(raw)) as receiver:
            response = post(transport, receiver.url)
        assert (response.status_code, response.error_code) == (status, "")

    def test_retry_after_comes_back_as_it_was_sent(self, transport: Transport) -> None:
        raw = with_body(b"", "Retry-After: Fri, 31 Dec 2027 23:59:59 GMT", status="503 Busy")
        with Receiver(answers(raw)) as receiver:
            assert post(transport, receiver.url).retry_after == "Fri, 31 Dec 2027 23:59:59 GMT"

    def test_the_time_it_took_is_measured(self, transport: Transport) -> None:
        with Receiver(receivers.after(0.2)) as receiver:
            response = post(transport, receiver.url)
        assert 200 <= response.elapsed_ms < 2000

    def test_a_provisional_continue_before_the_answer_is_skipped(
        self, transport: Transport
    ) -> None:
        with Receiver(answers(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)) as receiver:
            assert post(transport, receiver.url).status_code == 200


class TestWhatIsKeptOfTheAnswer:
    def test_nul_is_removed_and_bad_utf8_is_replaced(self, transport: Transport) -> None:
        with Receiver(answers(with_body(b"a\0b\xff\xc3\xa9"))) as receiver:
            assert post(transport, receiver.url).excerpt == "ab\ufffd\xe9"

    @pytest.mark.parametrize(
        ("size", "truncated"), [(EXCERPT_BYTES, False), (EXCERPT_BYTES + 1, True)]
    )
    def test_only_the_first_4_kib_are_kept(
        self, transport: Transport, size: int, truncated: bool
    ) -> None:
        with Receiver(answers(with_body(b"x" * size))) as receiver:
            response = post(transport, receiver.url)
        assert response.excerpt == "x" * EXCERPT_BYTES
        assert response.truncated is truncated

    def test_chunks_are_joined(self, transport: Transport) -> None:
        raw = (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        )
        with Receiver(answers(raw)) as receiver:
            assert post(transport, receiver.url).excerpt == "abcde"
            post(transport, receiver.url)
        assert receiver.connections == 1

    def test_a_gzip_bomb_is_kept_as_it_came(self, transport: Transport) -> None:
        with Receiver(answers(receivers.gzip_bomb)) as receiver:
            response = post(transport, receiver.url)
        assert response.status_code == 200
        assert response.truncated
        assert response.excerpt.startswith("\x1f\ufffd\x08")
        assert len(response.excerpt) <= EXCERPT_BYTES

    def test_a_body_without_length_ends_with_the_connection(self, transport: Transport) -> None:
        with Receiver(answers(b"HTTP/1.1 200 OK\r\n\r\nbye", then_close=True)) as receiver:
            response = post(transport, receiver.url)
        assert (response.excerpt, response.truncated) == ("bye", False)

    @pytest.mark.parametrize(
        "framing",
        [
            b"Content-Length: 100\r\n\r\nabc",
            b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nZZ\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n-1\r\n",
        ],
    )
    def test_a_body_that_breaks_off_leaves_the_success(
        self, transport: Transport, framing: bytes
    ) -> None:
        with Receiver(answers(b"HTTP/1.1 200 OK\r\n" + framing, then_close=True)) as receiver:
            response = post(transport, receiver.url)
        assert (response.status_code, response.error_code) == (200, "")
        assert response.excerpt == "abc"
        assert response.truncated

    @pytest.mark.parametrize("size", [1_000_000_000, 10**30])
    def test_an_endless_body_is_read_no_further_than_the_excerpt(
        self, transport: Transport, size: int
    ) -> None:
        sent: list[int] = []

        def flood(sock: socket.socket, got: Received) -> bool:
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            while True:
                sent.append(sock.send(b"x" * 65536))

        with Receiver(flood) as receiver:
            response = post(transport, receiver.url)
        assert (response.status_code, response.truncated) == (200, True)
        assert sum(sent) < 20_000_000  # what the kernel buffered


class TestAnswersThatAreNone:
    @pytest.mark.parametrize(
        "raw",
        [
            b"nonsense\r\n\r\n",
            b"\x16\x03\x03\x00\x02\x02\x28\r\n",
            b"<html>HTTP/0.9</html>\r\n",
            b"HTTP/1.1 abc OK\r\n\r\n",
            b"HTTP/2.0 200 OK\r\n\r\n",
            b"HTTP/1.1 99 Low\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
            b"HTTP/1.1 103 Early Hints\r\n\r\n",
            b"HTTP/1.1 999 No\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 101 + b"\r\n",
            b"HTTP/1.1 " + b"2" * 400_000,
            b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000,
        ],
    )
    def test_are_a_bad_response(self, transport: Transport, raw: bytes) -> None:
        with Receiver(answers(raw, then_close=True)) as receiver:
            response = post(transport, receiver.url)
        assert (response.status_code, response.error_code) == (None, base.BAD_RESPONSE)
        assert response.error_detail

    def test_headers_without_end_are_cut_off(self, transport: Transport) -> None:
        with Receiver(receivers.endless_headers) as receiver:
            response = post(transport, receiver.url)
        assert response.error_code == base.BAD_RESPONSE
        assert response.elapsed_ms < 3000

    def test_an_empty_reply_is_a_connection_error(self, transport: Transport) -> None:
        with Receiver(answers(b"", then_close=True)) as receiver:
            response = post(transport, receiver.url)
        assert response.error_code == base.CONNECTION_ERROR

    def test_a_reset_is_a_connection_error(self, transport: Transport) -> None:
        def reset(sock: socket.socket, got: Received) -> bool:
            linger = (1).to_bytes(4, sys.byteorder) + (0).to_bytes(4, sys.byteorder)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            return False

        with Receiver(reset) as receiver:
            response = post(transport, receiver.url)
        assert response.error_code == base.CONNECTION_ERROR

    def test_nobody_listening_is_connection_refused(self, transport: Transport) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        response = post(transport, f"http://127.0.0.1:{port}/")
        assert response.error_code == base.CONNECTION_REFUSED
        assert "127.0.0.1" not in response.error_detail

    @pytest.mark.parametrize(
        "error",
        [socket.gaierror(socket.EAI_NONAME, "Name or service not known"), OSError(24, "files")],
    )
    def test_a_name_lookup_that_fails_is_a_dns_error(
        self, transport: Transport, monkeypatch: pytest.MonkeyPatch, error: OSError
    ) -> None:
        def nothing(*args: Any, **kwargs: Any) -> Any:
            raise error

        monkeypatch.setattr(socket, "getaddrinfo", nothing)
        response = post(transport, "http://nowhere.example.com/")
        assert response.error_code == base.DNS_ERROR


class TestRequestsThatCannotBeSent:
    @pytest.mark.parametrize(
        "headers",
        [
            {"X-Split": "a\r\nX-Forged: b"},
            {"X-Nul": "a\0b"},
            {"X-Wide": "\u20ac"},
            {"X Space": "a"},
            {"": "a"},
            {"X:": "a"},
            {"X-Number": 5},
            {"Host": "elsewhere.example.com"},
            {"transfer-encoding": "chunked"},
            {"Content-Length": "3"},
        ],
    )
    def test_unusable_headers_are_an_invalid_request(
        self, transport: Transport, headers: dict[str, Any]
    ) -> None:
        with Receiver(receivers.normal) as receiver:
            response = post(transport, receiver.url, headers=headers)
        assert response.error_code == base.INVALID_REQUEST
        assert receiver.connections == 0

    @pytest.mark.parametrize("url", ["", "nonsense", "http://", "http://a b/", "ftp://127.0.0.1/"])
    def test_an_unusable_url_is_an_invalid_request(self, transport: Transport, url: str) -> None:
        assert post(transport, url).error_code == base.INVALID_REQUEST


class TestRedirects:
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_are_reported_and_not_followed(self, transport: Transport, status: int) -> None:
        with Receiver(receivers.normal) as elsewhere:
            raw = with_body(b"", f"Location: {elsewhere.url}", status=f"{status} Moved")
            with Receiver(answers(raw)) as receiver:
                response = post(transport, receiver.url)
        assert (response.status_code, response.error_code) == (status, "")
        assert not response.truncated
        assert elsewhere.connections == 0

    def test_their_body_is_not_read(self, transport: Transport) -> None:
        with Receiver(receivers.redirect_with_flood) as receiver:
            response = post(transport, receiver.url)
        assert (response.status_code, response.excerpt) == (302, "")
        assert response.truncated
        assert response.elapsed_ms < 1000

    def test_a_malformed_location_is_no_trouble(self, transport: Transport) -> None:
        raw = with_body(b"", "Location: http://[::1/", status="302 Found")
        with Receiver(answers(raw)) as receiver:
            assert post(transport, receiver.url).status_code == 302


class TestNothingIsAddedFromTheEnvironment:
    def test_no_netrc_no_proxy_no_cookie(
        self, transport: Transport, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        netrc = tmp_path / "netrc"
        netrc.write_text("default login me password secret\n")
        monkeypatch.setenv("NETRC", str(netrc))
        raw = with_body(b"ok", "Set-Cookie: id=1; Path=/")
        with Receiver(receivers.normal) as proxy, Receiver(answers(raw)) as receiver:
            for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
                monkeypatch.setenv(name, proxy.url)
            monkeypatch.setenv("no_proxy", "")
            for _ in range(2):
                assert post(transport, receiver.url).status_code == 200
        assert proxy.connections == 0
        for got in receiver.requests:
            assert not {"authorization", "cookie"} & set(got.headers)
