"""What handshakes need of a transport: OPTIONS, and some headers of the answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from django.test import override_settings

from tests.transports import receivers
from tests.transports.posting import BODY, LOOPBACK, gather, post, request
from tests.transports.receivers import OK, Receiver, answers, with_body
from webhooks.transports import base
from webhooks.transports.base import Response, Transport


def options(transport: Transport, url: str, **kwargs: Any) -> Response:
    """One OPTIONS request, from start to its response."""
    transport.start("tag", replace(request(url, **{"body": b"", **kwargs}), method="OPTIONS"))
    [(_, response)] = gather(transport, 1)
    return response


class TestOptions:
    def test_it_is_sent_without_a_body(self, transport: Transport) -> None:
        with Receiver(receivers.normal) as receiver:
            response = options(
                transport, receiver.url + "?a=1", headers={"WebHook-Request-Origin": "example.org"}
            )
        assert (response.status_code, response.excerpt) == (200, "ok")
        [got] = receiver.requests
        assert got.line == "OPTIONS /hook?a=1 HTTP/1.1"
        assert got.body == b""
        assert got.headers["content-length"] == "0"
        assert got.headers["webhook-request-origin"] == "example.org"

    def test_posts_of_the_same_lane_go_on_over_its_connection(self, transport: Transport) -> None:
        with Receiver(receivers.normal) as receiver:
            options(transport, receiver.url)
            post(transport, receiver.url)
        assert [each.line.split()[0] for each in receiver.requests] == ["OPTIONS", "POST"]
        assert receiver.requests[1].body == BODY
        assert receiver.connections == 1

    def test_it_obeys_the_address_guard(self, transport: Transport) -> None:
        with (
            Receiver(receivers.normal) as receiver,
            override_settings(WEBHOOKS={**LOOPBACK, "ALLOWED_NETWORKS": []}),
        ):
            response = options(transport, receiver.url)
        assert response.error_code == base.BLOCKED_ADDRESS
        assert receiver.connections == 0

    def test_it_ends_at_its_deadline(self, transport: Transport) -> None:
        with Receiver(receivers.stalls()) as receiver:
            response = options(transport, receiver.url, timeout=0.3)
        assert (response.status_code, response.error_code) == (None, base.TIMEOUT)

    def test_it_reads_no_flood(self, transport: Transport) -> None:
        with Receiver(receivers.endless_headers) as receiver:
            assert options(transport, receiver.url).error_code == base.BAD_RESPONSE

    def test_redirects_are_not_followed(self, transport: Transport) -> None:
        with Receiver(receivers.normal) as goal:
            raw = with_body(b"", f"Location: {goal.url}", status="302 Found")
            with Receiver(answers(raw)) as receiver:
                assert options(transport, receiver.url).status_code == 302
        assert goal.connections == 0

    def test_it_has_no_body_that_one_could_send_by_mistake(self, transport: Transport) -> None:
        with Receiver(receivers.normal) as receiver:
            response = options(transport, receiver.url, body=b"{}")
        assert response.error_code == base.INVALID_REQUEST
        assert receiver.connections == 0

    def test_other_methods_are_not_sent(self, transport: Transport) -> None:
        other: Any = "DELETE"
        with Receiver(receivers.normal) as receiver:
            transport.start("tag", replace(request(receiver.url, body=b""), method=other))
            [(_, response)] = gather(transport, 1)
        assert response.error_code == base.INVALID_REQUEST
        assert receiver.connections == 0


class TestHeadersOfTheAnswer:
    def test_those_that_a_handshake_asks_for_are_kept_and_no_others(
        self, transport: Transport
    ) -> None:
        raw = with_body(
            b"",
            "X-Hook-Secret: abc",
            "WebHook-Allowed-Origin:  *  ",
            "webhook-allowed-rate: 60",
            "Set-Cookie: a=b",
            "X-Other: c",
        )
        with Receiver(answers(raw)) as receiver:
            response = post(transport, receiver.url)
        assert response.headers == {
            "x-hook-secret": "abc",
            "webhook-allowed-origin": "*",
            "webhook-allowed-rate": "60",
        }

    def test_an_answer_without_them_has_none(self, transport: Transport) -> None:
        with Receiver(answers(OK)) as receiver:
            assert post(transport, receiver.url).headers == {}

    @pytest.mark.parametrize("name", base.KEPT_HEADERS)
    def test_each_is_cut(self, transport: Transport, name: str) -> None:
        with Receiver(answers(with_body(b"", f"{name}: {'x' * 5000}"))) as receiver:
            response = post(transport, receiver.url)
        assert response.headers == {name: "x" * 256}

    def test_other_bytes_are_latin_1(self, transport: Transport) -> None:
        raw = b"HTTP/1.1 200 OK\r\nX-Hook-Secret: ab\xff\xe9\r\nContent-Length: 0\r\n\r\n"
        with Receiver(answers(raw)) as receiver:
            assert post(transport, receiver.url).headers == {"x-hook-secret": "ab\xff\xe9"}

    def test_nul_is_removed_or_the_answer_refused(self, transport: Transport) -> None:
        """RFC 9110, section 5.5, leaves both to the recipient; libcurl refuses."""
        raw = b"HTTP/1.1 200 OK\r\nX-Hook-Secret: a\0b\r\nContent-Length: 0\r\n\r\n"
        with Receiver(answers(raw)) as receiver:
            response = post(transport, receiver.url)
        said = (response.status_code, response.error_code, dict(response.headers))
        assert said in ((200, "", {"x-hook-secret": "ab"}), (None, base.BAD_RESPONSE, {}))

    def test_one_that_came_twice_is_neither_of_the_two(self, transport: Transport) -> None:
        raw = with_body(b"", "X-Hook-Secret: a", "X-Hook-Secret: b")
        with Receiver(answers(raw)) as receiver:
            assert post(transport, receiver.url).headers == {"x-hook-secret": "a, b"}
