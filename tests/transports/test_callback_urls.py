"""Which callback URLs may be set."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.test import override_settings
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.transports.zone import POLICY, Resolver, Row, each_row, rows
from webhooks import exceptions
from webhooks.transports import addresses
from webhooks.transports.addresses import BlockedAddress, check_url, is_public


@pytest.fixture(autouse=True)
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    fake = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", fake)
    return fake


@pytest.fixture(autouse=True)
def policy() -> Iterator[None]:
    with override_settings(WEBHOOKS=POLICY):
        yield


def verdict_of(url: str, **kwargs: Any) -> str:
    try:
        check_url(url, **kwargs)
    except BlockedAddress:
        return "reject"
    return "accept"


class TestTheTableOfCallbackURLs:
    @each_row()
    def test_every_row_gets_its_verdict(self, row: Row) -> None:
        assert verdict_of(row.url) == ("accept" if row.accept else "reject")

    def test_it_has_rows_of_both_kinds(self) -> None:
        verdicts = [row.accept for row in rows()]
        assert verdicts.count(True) >= 9
        assert verdicts.count(False) >= 40


class TestWhichURLsAreRefused:
    @pytest.mark.parametrize(
        "url",
        [
            "https://münchen.example/in",
            "https://hooks.example.com./in",
            "https://HOOKS.example.com:8443/in?a=b&c=%20",
            "https://hooks_x.example.com/",
            "https://xn--80ak6aa92e.com/",
            "https://[2606:4700::1111]:443/in",
            "https://[::ffff:93.184.216.34]/in",
            "https://127.0.0.1.example.com/in",
        ],
    )
    def test_unusual_but_public_ones_pass(self, url: str) -> None:
        check_url(url)

    @pytest.mark.parametrize(
        "url",
        [
            "https://127.1/",
            "https://0177.0.0.1/",
            "https://1.1.1.01/",
            "https://\uff11\uff12\uff17.0.0.1/",
            "https://127\u30020\u30020\u30021/",
            "https://example.0x7f/",
            "https://example.0x/",
            "https://%31%32%37.0.0.1/",
            "https://hooks.example.com%00.evil.example/",
            "https://@hooks.example.com/",
            "https://hooks.example.com\\.evil.example/",
            "https://hooks.example.com/a\\b",
            "https://hooks.example.com/#",
            "https://hooks.example.com/\u2028x",
            "https://hooks.example.com/\u200bx",
            "https://hooks.example.com/\ud800",
            "https://hooks.example.com/\x7f",
            "https://hooks.example.com:443:80/",
            "https://hooks.example.com:99999/",
            "https://-hooks.example.com/",
            f"https://{'a' * 64}.example.com/",
            f"https://{'a.' * 130}com/",
            "https://hooks.example.com../",
            "https:///in",
            "https:/hooks.example.com/",
            "https:hooks.example.com/",
            "hooks.example.com/in",
            "",
            "ftp://hooks.example.com/",
            "https://metadata.google.internal/",
            "https://a.localhost/",
            "https://nas.lan/",
            "https://hub.home.arpa./",
            "https://mixed.example.com/",
            "https://mapped.example.com/",
            "https://nat64.example.com/",
            "https://scoped.example.com/",
            "https://cname.example.com/",
            "https://nowhere.example.com/",
            "https://HOOK.self.example.com./",
        ],
    )
    def test_addresses_in_disguise_and_malformed_text_do_not(self, url: str) -> None:
        assert verdict_of(url) == "reject"

    def test_plain_http_needs_the_operator(self) -> None:
        with (
            override_settings(WEBHOOKS=POLICY | {"ALLOW_HTTP": False}),
            pytest.raises(BlockedAddress, match="Use an https:// URL"),
        ):
            check_url("http://hooks.example.com/in")

    def test_a_port_that_is_not_allowed_is_named_with_those_that_are(self) -> None:
        with pytest.raises(BlockedAddress, match=r"Port 25 is not allowed.*80, 443, 8080, 8443"):
            check_url("https://hooks.example.com:25/")

    def test_any_port_may_be_allowed_but_zero(self) -> None:
        with override_settings(WEBHOOKS=POLICY | {"ALLOWED_PORTS": "any"}):
            check_url("https://hooks.example.com:25/")
            assert verdict_of("https://hooks.example.com:0/") == "reject"

    def test_only_the_denied_host_itself_is_denied(self) -> None:
        with override_settings(WEBHOOKS=POLICY | {"DENIED_HOSTS": ["Hooks.Example.com."]}):
            assert verdict_of("https://hooks.example.com/", resolve=False) == "reject"
            assert verdict_of("https://x.hooks.example.com/", resolve=False) == "accept"

    @pytest.mark.parametrize(
        ("entry", "refused", "passes"),
        [
            (".example.com", ["hooks.example.com", "a.b.c.d.e.example.com"], "xn--80ak6aa92e.com"),
            (".hooks.example.com", ["hooks.example.com"], "v6.example.com"),
            ("93.184.216.34", ["93.184.216.34", "hooks.example.com"], "v6.example.com"),
            ("93.184.216.34", ["[::ffff:93.184.216.34]", "[::ffff:5db8:d822]"], "v6.example.com"),
            ("[2606:4700:0:0::1111]", ["[2606:4700::1111]", "dual.example.com"], "1.1.1.1"),
            ("2606:4700::1111", ["[2606:4700:0::1111]", "v6.example.com"], "hooks.example.com"),
        ],
    )
    def test_a_domain_or_an_address_may_be_denied_however_it_is_written(
        self, entry: str, refused: list[str], passes: str
    ) -> None:
        with override_settings(WEBHOOKS=POLICY | {"DENIED_HOSTS": [entry]}):
            assert [verdict_of(f"https://{host}/") for host in refused] == ["reject"] * len(refused)
            assert verdict_of(f"https://{passes}/") == "accept"

    def test_what_is_denied_is_denied_in_the_operators_networks_too(self) -> None:
        allowed = {"ALLOWED_NETWORKS": ["127.0.0.0/8"], "DENIED_HOSTS": ["127.0.0.1"]}
        with override_settings(WEBHOOKS=POLICY | allowed):
            assert verdict_of("http://127.0.0.2/") == "accept"
            assert verdict_of("http://127.0.0.1/") == "reject"
            assert verdict_of("http://localhost/") == "reject"

    def test_a_change_of_the_settings_counts_at_once(self) -> None:
        check_url("https://hooks.example.com:8443/")
        with override_settings(WEBHOOKS=POLICY | {"ALLOWED_PORTS": (443,)}):
            assert verdict_of("https://hooks.example.com:8443/") == "reject"
        check_url("https://hooks.example.com:8443/")


class TestWhatTheClientIsTold:
    @pytest.mark.parametrize(
        "url",
        [
            "https://priv.example.com/",
            "https://mixed.example.com/",
            "https://nowhere.example.com/",
            "https://intranet/",
            "https://10.1.2.3/",
            "https://[::1]/",
            "https://metadata.google.internal/",
            "https://hook.self.example.com/",
        ],
    )
    def test_the_same_words_for_every_blocked_host(self, url: str) -> None:
        with pytest.raises(BlockedAddress) as caught:
            check_url(url)
        assert str(caught.value) == addresses.BLOCKED
        assert str(caught.value).startswith("blocked address")

    @pytest.mark.parametrize(
        ("url", "words"),
        [
            ("https://a:b@hooks.example.com/", "basic authentication"),
            ("https://hooks.example.com/#top", "Remove '#'"),
            ("https://hooks.example.com/a b", "percent-encode"),
            ("gopher://hooks.example.com/", "Begin the URL with https://"),
            ("https://hooks.example.com/" + "a" * 2048, "at most 2048"),
        ],
    )
    def test_what_is_wrong_with_the_text_and_what_to_do(self, url: str, words: str) -> None:
        with pytest.raises(BlockedAddress, match=words):
            check_url(url)

    def test_the_refusal_is_one_that_no_http_library_swallows(self) -> None:
        import requests

        assert addresses.BlockedAddress is exceptions.BlockedAddress
        assert not issubclass(BlockedAddress, OSError | requests.RequestException)


class TestNetworksThatTheOperatorAllows:
    LOOPBACK = POLICY | {"ALLOWED_PORTS": "any", "ALLOWED_NETWORKS": ["127.0.0.0/8"]}

    @pytest.mark.parametrize("resolve", [True, False])
    @pytest.mark.parametrize(
        "url", ["http://127.0.0.1:9000/x", "http://localhost:9000/x", "http://[::ffff:7f00:1]/"]
    )
    def test_their_literals_and_localhost_pass(self, url: str, resolve: bool) -> None:
        with override_settings(WEBHOOKS=self.LOOPBACK):
            check_url(url, resolve=resolve)

    @pytest.mark.parametrize(
        "url",
        [
            "http://10.0.0.1/",
            "http://127.1/",
            "http://127.0.0.1./",
            "http://dual-localhost/",
            "http://intranet/",
        ],
    )
    def test_nothing_else_passes_with_them(self, url: str) -> None:
        # ``intranet`` resolves to a public address: a name without a dot still proves nothing.
        with override_settings(WEBHOOKS=self.LOOPBACK):
            assert verdict_of(url) == "reject"

    def test_a_private_name_passes_when_all_its_addresses_are_in_them(self) -> None:
        with override_settings(WEBHOOKS=self.LOOPBACK):
            check_url("http://printer.local/")
            assert verdict_of("http://printer.local/", resolve=False) == "reject"

    def test_a_public_name_may_lead_into_them(self) -> None:
        with override_settings(WEBHOOKS=POLICY | {"ALLOWED_NETWORKS": ["10.0.0.0/8"]}):
            check_url("https://priv.example.com/")
            check_url("https://mixed.example.com/")
            assert verdict_of("https://localhost/", resolve=False) == "reject"

    def test_a_network_that_is_none_is_an_error_not_a_pass(self) -> None:
        with (
            override_settings(WEBHOOKS=POLICY | {"ALLOWED_NETWORKS": ["everywhere"]}),
            pytest.raises(ValueError, match="everywhere"),
        ):
            check_url("https://hooks.example.com/")


SEPARATORS = st.sampled_from(["", "/", "//", ":", "@", "#", "?", "\\", "%", "[", "]", ".", " "])
PIECES = st.sampled_from(
    [
        "https",
        "http",
        "127.0.0.1",
        "hooks.example.com",
        "localhost",
        "0x7f",
        "443",
        "::1",
        "ⓛ",
        "%2f",
    ]
)


class TestFuzz:
    @hypothesis_settings(max_examples=400, deadline=None)
    @given(
        st.one_of(
            st.text(max_size=60),
            st.text(max_size=60).map("https://".__add__),
            st.lists(st.one_of(SEPARATORS, PIECES), max_size=12).map("".join),
            st.lists(st.one_of(SEPARATORS, PIECES), max_size=9).map(
                lambda parts: "https://" + "".join(parts)
            ),
        )
    )
    @example("https://[")
    @example("https://[::1")
    @example("https://\ud800/")
    def test_every_text_is_judged_and_what_passes_leads_to_a_checked_host(self, url: str) -> None:
        try:
            target = addresses.judge(url)
        except BlockedAddress:
            return
        assert target.scheme in {"http", "https"}
        assert target.port in POLICY["ALLOWED_PORTS"]
        assert target.path.startswith("/")
        assert target.path.isascii()
        host = target.host.strip("[]")
        assert set(host) <= set("abcdefghijklmnopqrstuvwxyz0123456789-._:")
        assert "127" not in host.split(".")[0] or not host[-1].isdigit()
        assert urlsplit(url).username is None

    @hypothesis_settings(max_examples=300, deadline=None)
    @given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
    def test_a_literal_passes_exactly_when_it_is_public(self, ip: Any) -> None:
        text = f"[{ip}]" if ip.version == 6 else str(ip)
        assert (verdict_of(f"https://{text}/") == "accept") is is_public(ip)
