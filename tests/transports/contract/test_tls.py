"""A transport over TLS: whom it believes, and that the deadline holds there too."""

from __future__ import annotations

import socket
import ssl
from typing import Any

import pytest

from tests.transports import receivers
from tests.transports.certificates import Authority
from tests.transports.posting import post
from tests.transports.receivers import OK, Receiver
from webhooks.transports import base
from webhooks.transports.base import Transport


@pytest.fixture
def _hooks_is_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(host: str, port: int, *args: Any, **kwargs: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", answer)


class TestCertificates:
    def test_one_of_a_trusted_authority_is_believed_and_the_connection_kept(
        self, transport: Transport, authority: Authority
    ) -> None:
        with Receiver(receivers.normal, tls=authority.server("127.0.0.1")) as receiver:
            for _ in range(3):
                response = post(transport, receiver.url)
                assert (response.status_code, response.excerpt) == (200, "ok")
        assert receiver.connections == 1

    @pytest.mark.usefixtures("_hooks_is_loopback")
    def test_name_sni_and_host_are_those_of_the_url_not_of_the_address(
        self, transport: Transport, authority: Authority
    ) -> None:
        context = authority.server("hooks.example.com")
        asked_for: list[str | None] = []
        context.sni_callback = lambda sock, name, ctx: asked_for.append(name)
        with Receiver(receivers.normal, tls=context) as receiver:
            url = f"https://hooks.example.com:{receiver.port}/in"
            assert post(transport, url).status_code == 200
        assert asked_for == ["hooks.example.com"]
        assert receiver.requests[0].headers["host"] == f"hooks.example.com:{receiver.port}"

    @pytest.mark.usefixtures("_hooks_is_loopback")
    @pytest.mark.parametrize(
        ("host", "expired", "words"),
        [
            ("elsewhere.example.com", False, "Hostname mismatch"),
            ("hooks.example.com", True, "certificate has expired"),
        ],
    )
    def test_a_wrong_name_or_an_expired_one_is_a_tls_error(
        self,
        transport: Transport,
        authority: Authority,
        host: str,
        expired: bool,
        words: str,
    ) -> None:
        with Receiver(receivers.normal, tls=authority.server(host, expired=expired)) as receiver:
            response = post(transport, f"https://hooks.example.com:{receiver.port}/in")
        assert response.error_code == base.TLS_ERROR
        assert words in response.error_detail
        assert "example.com" not in response.error_detail
        assert receiver.requests == []

    def test_an_unknown_authority_is_a_tls_error(
        self, transport_class: type[Transport], authority: Authority
    ) -> None:
        transport_class.ca_file = None
        transport = transport_class(concurrency=1)
        with Receiver(receivers.normal, tls=authority.server("127.0.0.1")) as receiver:
            response = post(transport, receiver.url)
        transport.close()
        assert response.error_code == base.TLS_ERROR
        assert receiver.requests == []

    def test_an_address_that_the_certificate_lacks_is_not_repeated(
        self, transport: Transport, authority: Authority
    ) -> None:
        with Receiver(receivers.normal, tls=authority.server("127.0.0.9")) as receiver:
            response = post(transport, receiver.url)
        assert response.error_code == base.TLS_ERROR
        assert "127.0.0" not in response.error_detail

    @pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1 is deprecated")
    def test_tls_1_0_is_a_tls_error(self, transport: Transport, authority: Authority) -> None:
        context = authority.server("127.0.0.1")
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1
        context.set_ciphers("ALL:@SECLEVEL=0")
        with Receiver(receivers.normal, tls=context) as receiver:
            response = post(transport, receiver.url)
        assert response.error_code == base.TLS_ERROR

    def test_a_receiver_without_tls_is_a_tls_error(self, transport: Transport) -> None:
        def plain(sock: socket.socket) -> None:
            sock.recv(100)
            sock.sendall(OK)

        with Receiver(receivers.normal, greet=plain) as receiver:
            response = post(transport, receiver.url.replace("http:", "https:"))
        assert response.error_code == base.TLS_ERROR

    def test_a_connection_that_ends_in_the_handshake_is_recorded(
        self, transport: Transport
    ) -> None:
        with Receiver(receivers.normal, greet=lambda sock: None) as receiver:
            response = post(transport, receiver.url.replace("http:", "https:"))
        assert response.error_code in {base.TLS_ERROR, base.CONNECTION_ERROR}


class TestDeadlineOverTLS:
    @pytest.mark.parametrize(
        "behaviour", [receivers.stalls(), receivers.drips(OK), receivers.endless_continue]
    )
    def test_it_holds_for_the_answer(
        self,
        transport: Transport,
        authority: Authority,
        behaviour: receivers.Behaviour,
    ) -> None:
        with Receiver(behaviour, tls=authority.server("127.0.0.1")) as receiver:
            response = post(transport, receiver.url, timeout=0.5)
        assert response.error_code == base.TIMEOUT
        assert 480 <= response.elapsed_ms < 1500

    def test_it_holds_for_the_body(self, transport: Transport, authority: Authority) -> None:
        tls = authority.server("127.0.0.1")
        with Receiver(receivers.endless_chunks, tls=tls) as receiver:
            response = post(transport, receiver.url, timeout=0.5)
        assert (response.status_code, response.truncated) == (200, True)
        assert response.elapsed_ms < 1500
