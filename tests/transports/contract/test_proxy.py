"""``EGRESS_PROXY``: the way out through the operator's proxy, and that it opens no other."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from django.test import override_settings

from tests.transports import receivers
from tests.transports.certificates import Authority
from tests.transports.posting import BODY, LOOPBACK, post
from tests.transports.proxies import ESTABLISHED, Proxy
from tests.transports.receivers import OK, Receiver
from tests.transports.zone import Resolver
from webhooks.transports import base, tunnel
from webhooks.transports.base import Transport


def through(url: str, **policy: Any) -> AbstractContextManager[Any]:
    return override_settings(WEBHOOKS=LOOPBACK | {"EGRESS_PROXY": url} | policy)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Proxy() as made:
        yield made


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every name is 127.0.0.1; what was asked for."""
    asked: list[str] = []

    def answer(host: str, port: int, *args: Any, **kwargs: Any) -> list[Any]:
        asked.append(host)
        return [Resolver.answer("127.0.0.1", port)]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return asked


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_proxy_is_told_the_checked_address_and_the_receiver_its_own_name(
    transport: Transport, authority: Authority, proxy: Proxy, zone: list[str], scheme: str
) -> None:
    tls = authority.server("hooks.example.com") if scheme == "https" else None
    asked_for: list[str | None] = []
    if tls is not None:
        tls.sni_callback = lambda sock, name, context: asked_for.append(name)
    with Receiver(receivers.normal, tls=tls) as receiver, through(proxy.url):
        for _ in range(3):
            url = f"{scheme}://hooks.example.com:{receiver.port}/in?a=1"
            assert post(transport, url).status_code == 200
    assert proxy.goals == [f"127.0.0.1:{receiver.port}"]
    assert "hooks.example.com" not in proxy.heads[0]
    assert "authorization" not in proxy.heads[0].lower()
    assert {got.line for got in receiver.requests} == {"POST /in?a=1 HTTP/1.1"}
    assert {got.headers["host"] for got in receiver.requests} == {
        f"hooks.example.com:{receiver.port}"
    }
    assert receiver.requests[0].body == BODY
    assert asked_for == (["hooks.example.com"] if tls else [])
    assert zone.count("hooks.example.com") == 1


def test_each_lane_has_a_tunnel_of_its_own(transport: Transport, proxy: Proxy) -> None:
    with Receiver(receivers.normal) as receiver, through(proxy.url):
        for lane in ("sub_a", "sub_b", "sub_a", "sub_b"):
            assert post(transport, receiver.url, lane=lane).status_code == 200
    assert len(proxy.goals) == receiver.connections == 2


@pytest.mark.parametrize("ips", [["127.0.0.1"], ["93.184.216.34", "127.0.0.1"], ["::1"]])
def test_what_may_not_be_dialled_is_not_asked_of_the_proxy_either(
    transport: Transport, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, ips: list[str]
) -> None:
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, port, **_: [Resolver.answer(ip, port) for ip in ips]
    )
    with through(proxy.url, ALLOWED_NETWORKS=[]):
        response = post(transport, "http://hooks.example.com:8080/")
    assert response.error_code == base.BLOCKED_ADDRESS
    assert proxy.connections == 0


def test_the_proxy_itself_may_be_private(transport: Transport, proxy: Proxy) -> None:
    """Its address is not in ALLOWED_NETWORKS; it refuses, so nothing leaves."""
    proxy.answer = b"HTTP/1.1 503 Unavailable\r\n\r\n"
    with through(proxy.url, ALLOWED_NETWORKS=[]):
        response = post(transport, "http://93.184.216.34:8080/")
    assert proxy.goals == ["93.184.216.34:8080"]
    assert response.error_code == base.CONNECTION_ERROR


def test_an_ipv6_receiver_is_named_in_brackets(transport: Transport, proxy: Proxy) -> None:
    proxy.answer = b"HTTP/1.1 502 Bad Gateway\r\n\r\n"
    with through(proxy.url, ALLOWED_NETWORKS=[]):
        post(transport, "http://[2606:4700::1111]:8080/")
    assert proxy.goals == ["[2606:4700::1111]:8080"]


def test_user_and_password_go_to_the_proxy_and_nowhere_else(
    transport: Transport, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    url = proxy.url.replace("http://", "http://ann:p%40ss-w0rd@")
    with caplog.at_level(logging.DEBUG), Receiver(receivers.normal) as receiver, through(url):
        assert post(transport, receiver.url).status_code == 200
        assert "p@ss" not in repr(tunnel.current())
        assert "YW5u" not in repr(tunnel.current())
        proxy.answer = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"
        refused = post(transport, receiver.url, lane="sub_b")
    assert "Proxy-Authorization: Basic YW5uOnBAc3MtdzByZA==\r\n" in proxy.heads[0]
    assert not {"proxy-authorization", "authorization"} & set(receiver.requests[0].headers)
    assert (refused.error_code, refused.status_code) == (base.PROXY_ERROR, None)
    assert str(proxy.port) not in repr(refused)
    for text in (caplog.text, repr(refused)):
        assert "w0rd" not in text
        assert "YW5u" not in text


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", base.PROXY_ERROR),
        (b"HTTP/1.1 407 Who?\r\n\r\n", base.PROXY_ERROR),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n", base.PROXY_ERROR),
        (b"HTTP/1.1 500 Oops\r\n\r\n", base.PROXY_ERROR),
        (b"HTTP/1.1 +200 Fine\r\n\r\n", base.PROXY_ERROR),
        (b"SSH-2.0-x\r\n\r\n", base.PROXY_ERROR),
        (b"HTTP/1.1 300 ", base.PROXY_ERROR),
        (b"", base.PROXY_ERROR),
        (b"HTTP/1.1 407 Who?\r\n" + b"X: y\r\n" * 5000, base.PROXY_ERROR),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", base.CONNECTION_ERROR),
        (b"HTTP/1.1 503 Unavailable\r\n\r\n", base.CONNECTION_ERROR),
        (b"HTTP/1.1 504 Late\r\n\r\n", base.CONNECTION_ERROR),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_what_the_proxy_answers_instead(
    transport: Transport, proxy: Proxy, scheme: str, answer: bytes, code: str
) -> None:
    proxy.answer = answer
    with through(proxy.url):
        response = post(transport, f"{scheme}://127.0.0.1:9/")
    assert (response.status_code, response.error_code) == (None, code)
    assert "127.0.0.1" not in response.error_detail


def test_a_proxy_that_never_answers_is_a_timeout(transport: Transport) -> None:
    with (
        Receiver(receivers.normal, greet=receivers.listens) as silent,
        through(f"http://127.0.0.1:{silent.port}"),
    ):
        response = post(transport, "http://127.0.0.1:9/", timeout=0.4)
    assert response.error_code == base.TIMEOUT
    assert response.elapsed_ms < 1400


def test_a_proxy_that_is_not_there_is_a_proxy_error(transport: Transport) -> None:
    with socket.socket() as bound, Receiver(receivers.normal) as receiver:
        bound.bind(("127.0.0.1", 0))
        with through(f"http://127.0.0.1:{bound.getsockname()[1]}"):
            assert post(transport, receiver.url).error_code == base.PROXY_ERROR
    assert receiver.connections == 0  # never past the proxy


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8080", "https://proxy.example.com", "socks5://127.0.0.1:1", "http://", 5]
)
def test_an_unusable_setting_sends_nothing(transport: Transport, url: Any) -> None:
    with Receiver(receivers.normal) as receiver, through(url):
        assert post(transport, receiver.url).error_code == base.PROXY_ERROR
    assert receiver.connections == 0


def test_what_a_receiver_says_unasked_is_not_taken_for_the_proxys_answer(
    transport: Transport, proxy: Proxy
) -> None:
    """It comes in one packet with the proxy's answer, and stays the receiver's."""
    proxy.answer = ESTABLISHED + OK
    with Receiver(receivers.stalls()) as receiver, through(proxy.url):
        response = post(transport, receiver.url)
    assert (response.status_code, response.excerpt) == (200, "ok")


def test_the_deadline_holds_inside_a_tunnel(transport: Transport, proxy: Proxy) -> None:
    with Receiver(receivers.stalls()) as receiver, through(proxy.url):
        response = post(transport, receiver.url, timeout=0.4)
    assert response.error_code == base.TIMEOUT
    assert response.elapsed_ms < 1400
