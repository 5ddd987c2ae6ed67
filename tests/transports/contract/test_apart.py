"""Nothing passes from one lane to another, nor from the environment into a POST."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.transports import receivers
from tests.transports.certificates import Authority
from tests.transports.posting import post
from tests.transports.receivers import OK, Receiver, answers, with_body
from webhooks.transports.base import Transport


def test_two_lanes_of_one_host_share_no_connection_and_no_tls_session(
    transport: Transport, authority: Authority
) -> None:
    with Receiver(receivers.normal, tls=authority.server("127.0.0.1")) as receiver:
        for lane in ("sub_a", "sub_b", "sub_a", "sub_b", "sub_c"):
            assert post(transport, receiver.url, lane=lane).status_code == 200
    assert receiver.connections == 3
    assert receiver.resumed == 0


def test_a_new_connection_of_another_lane_resumes_no_tls_session(
    transport: Transport, authority: Authority
) -> None:
    tls = authority.server("127.0.0.1")
    with Receiver(answers(OK, then_close=True), tls=tls) as receiver:
        for lane in ("sub_a", "sub_b", "sub_c"):
            assert post(transport, receiver.url, lane=lane).status_code == 200
    assert receiver.connections == 3
    assert receiver.resumed == 0


def test_cookies_are_kept_for_nobody(transport: Transport) -> None:
    raw = with_body(b"ok", "Set-Cookie: id=1; Path=/", "Set-Cookie: b=2; Max-Age=9999")
    with Receiver(answers(raw)) as receiver:
        for lane in ("sub_a", "sub_a", "sub_b"):
            post(transport, receiver.url, lane=lane)
    assert [got.headers.get("cookie") for got in receiver.requests] == [None] * 3


def test_authorization_is_that_of_the_request(transport: Transport) -> None:
    raw = with_body(b"", 'WWW-Authenticate: Basic realm="x"', status="401 Unauthorized")
    with Receiver(answers(raw)) as receiver:
        post(transport, receiver.url, lane="sub_a", headers={"Authorization": "Basic YTpi"})
        post(transport, receiver.url, lane="sub_a", headers={})
        post(transport, receiver.url, lane="sub_b", headers={})
    said = [got.headers.get("authorization") for got in receiver.requests]
    assert said == ["Basic YTpi", None, None]


def test_nothing_comes_from_the_environment(
    transport_class: type[Transport],
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """No proxy, no .netrc, no .curlrc, no certificates of somebody else's."""
    for name in (".netrc", "netrc"):
        (tmp_path / name).write_text("default login me password secret\n")
    (tmp_path / ".curlrc").write_text('header = "X-From-Curlrc: 1"\n')
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CURL_HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("no_proxy", "")
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, str(tmp_path / "missing.pem"))
    with (
        Receiver(receivers.normal) as proxy,
        Receiver(receivers.normal) as plain,
        Receiver(receivers.normal, tls=authority.server("127.0.0.1")) as tls,
    ):
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        transport = transport_class(concurrency=2)
        for receiver in (plain, tls):
            assert post(transport, receiver.url).status_code == 200
        transport.close()
    assert proxy.connections == 0
    for receiver in (plain, tls):
        assert not {"authorization", "x-from-curlrc"} & set(receiver.requests[0].headers)
