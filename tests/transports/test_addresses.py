"""Which addresses may be dialled."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, collapse_addresses
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from tests.transports.zone import POLICY, PUBLIC, Resolver
from webhooks.transports import addresses, lookups
from webhooks.transports.addresses import BlockedAddress, is_public, resolve


@pytest.fixture(autouse=True)
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    fake = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", fake)
    return fake


@pytest.fixture(autouse=True)
def policy() -> Iterator[None]:
    with override_settings(WEBHOOKS=POLICY):
        yield


class TestIsPublic:
    @pytest.mark.parametrize(
        "ip",
        [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "168.63.129.15",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2000::",
            "2606:4700::1111",
            "2001:200::",
            "3ffe::",
            "3fff:1000::",
            "::ffff:1.1.1.1",
        ],
    )
    def test_addresses_just_outside_the_special_ranges_are(self, ip: str) -> None:
        assert is_public(ip)

    @pytest.mark.parametrize(
        "ip",
        [
            "0.0.0.0",
            "0.255.255.255",
            "10.0.0.0",
            "10.255.255.255",
            "100.64.0.0",
            "100.127.255.255",
            "127.255.255.255",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.0",
            "172.31.255.255",
            "192.0.0.9",
            "192.0.2.255",
            "192.31.196.1",
            "192.52.193.1",
            "192.88.99.1",
            "192.168.255.255",
            "192.175.48.1",
            "198.18.0.0",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::808:808",
            "64:ff9b:1::1",
            "100::1",
            "1fff:ffff::",
            "2001::1",
            "2001:1ff:ffff::1",
            "2001:db8::1",
            "2002:a9fe:a9fe::1",
            "2620:4f:8000::1",
            "3fff::1",
            "3fff:fff:ffff::1",
            "4000::1",
            "5f00::1",
            "fc00::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ],
    )
    def test_addresses_inside_them_are_not(self, ip: str) -> None:
        assert not is_public(ip)

    @pytest.mark.parametrize(
        "garbage",
        [
            "",
            "x",
            "1.1.1",
            "1.1.1.1/32",
            "01.1.1.1",
            "2606:4700::1111%eth0",
            16843009,
            None,
            b"\1\1\1\1",
        ],
    )
    def test_garbage_and_scoped_addresses_are_not(self, garbage: Any) -> None:
        assert not is_public(garbage)

    def test_it_takes_address_objects(self) -> None:
        assert is_public(IPv4Address("1.1.1.1"))
        assert not is_public(IPv6Address("::ffff:127.0.0.1"))

    @given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
    def test_nothing_that_python_knows_as_private_is_public(self, ip: Any) -> None:
        address = getattr(ip, "ipv4_mapped", None) or ip
        special = (
            address.is_private
            or address.is_loopback
            or address.is_link_local
            or address.is_multicast
            or address.is_reserved
            or address.is_unspecified
        )
        assert not (special and is_public(ip))


#: https://www.iana.org/assignments/iana-ipv4-special-registry, written down anew ...
IANA_V4 = [
    *("0.0.0.0/8", "0.0.0.0/32", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
    *("172.16.0.0/12", "192.0.0.0/24", "192.0.0.0/29", "192.0.0.8/32", "192.0.0.9/32"),
    *("192.0.0.10/32", "192.0.0.170/32", "192.0.0.171/32", "192.0.2.0/24", "192.31.196.0/24"),
    *("192.52.193.0/24", "192.88.99.0/24", "192.88.99.2/32", "192.168.0.0/16", "192.175.48.0/24"),
    *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4", "255.255.255.255/32"),
]
#: ... and what hostile networks have beside it: multicast, and a cloud's own public address.
OTHER_V4 = ["224.0.0.0/4", "168.63.129.16/32"]
#: https://www.iana.org/assignments/iana-ipv6-special-registry
IANA_V6 = [
    *("::1/128", "::/128", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64"),
    *("100:0:0:1::/64", "2001::/23", "2001::/32", "2001:1::1/128", "2001:1::2/128"),
    *("2001:1::3/128", "2001:2::/48", "2001:3::/32", "2001:4:112::/48", "2001:10::/28"),
    *("2001:20::/28", "2001:30::/28", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48"),
    *("3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10"),
]
#: Everything outside 2000::/3, and the five ranges that are carved out of it.
REFUSED_V6 = [
    *("::/3", "4000::/2", "8000::/1"),
    *("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20"),
]


class TestTheTable:
    def test_ipv4_is_the_registry_and_two_ranges_more(self) -> None:
        wanted = map(IPv4Network, IANA_V4 + OTHER_V4)
        assert list(collapse_addresses(addresses.NOT_PUBLIC_V4)) == list(collapse_addresses(wanted))

    def test_ipv6_is_the_one_block_less_five_ranges(self) -> None:
        assert IPv6Network("2000::/3") == addresses.PUBLIC_V6
        assert {str(network) for network in addresses.NOT_PUBLIC_V6} == set(REFUSED_V6[3:])

    @pytest.mark.parametrize("text", IANA_V4 + OTHER_V4)
    def test_the_edges_of_each_ipv4_range(self, text: str) -> None:
        network = IPv4Network(text)
        refused = [IPv4Network(each) for each in IANA_V4 + OTHER_V4]
        assert not is_public(network[0])
        assert not is_public(network[-1])
        assert not is_public(f"::ffff:{network[0]}")
        for number in (int(network[0]) - 1, int(network[-1]) + 1):
            if 0 <= number < 2**32:
                beside = IPv4Address(number)
                assert is_public(beside) is not any(beside in each for each in refused)

    @pytest.mark.parametrize("text", IANA_V6 + REFUSED_V6)
    def test_the_edges_of_each_ipv6_range(self, text: str) -> None:
        network = IPv6Network(text)
        refused = [IPv6Network(each) for each in REFUSED_V6]
        if text != "::ffff:0:0/96":  # judged as IPv4
            assert not is_public(network[0])
            assert not is_public(network[-1])
        for number in (int(network[0]) - 1, int(network[-1]) + 1):
            if 0 <= number < 2**128:
                beside = IPv6Address(number)
                assert is_public(beside) is not any(beside in each for each in refused)

    @pytest.mark.parametrize("text", ["1.1.1.1", "2000::", "3fff:1000::", "3ffe:ffff::", "2003::"])
    def test_what_lies_beside_them_is_public(self, text: str) -> None:
        assert is_public(text)


class TestResolve:
    def test_it_looks_up_once_and_keeps_the_order(self, resolver: Resolver) -> None:
        answers = resolve("dual.example.com", 443, 1)
        assert [answer[4][:2] for answer in answers] == [(PUBLIC, 443), ("2606:4700::1111", 443)]
        assert resolver.asked == ["dual.example.com"]

    def test_a_literal_needs_no_lookup(self, resolver: Resolver) -> None:
        assert resolve("1.1.1.1", 80, 0)[0][4] == ("1.1.1.1", 80)
        assert resolve("2606:4700::1111", 80, 0)[0][4] == ("2606:4700::1111", 80, 0, 0)
        assert resolver.asked == []

    def test_one_answer_that_is_not_allowed_refuses_all(self) -> None:
        with pytest.raises(BlockedAddress):
            resolve("mixed.example.com", 443, 1)

    def test_a_host_without_address_is_a_failed_lookup(self) -> None:
        with pytest.raises(socket.gaierror):
            resolve("nowhere.example.com", 443, 1)

    @pytest.mark.parametrize("host", ["intranet", "nowhere.local", "printer.local", "a" * 64])
    def test_a_private_name_is_looked_up_only_where_an_answer_could_do(
        self, resolver: Resolver, host: str
    ) -> None:
        with pytest.raises(BlockedAddress):
            resolve(host, 443, 1)
        assert resolver.asked == []
        with override_settings(WEBHOOKS=POLICY | {"ALLOWED_NETWORKS": ["127.0.0.0/8"]}):
            with contextlib.suppress(BlockedAddress, socket.gaierror):
                resolve(host, 443, 1)
            assert resolver.asked == [host]

    def test_a_name_that_python_cannot_encode_is_a_failed_lookup(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.undo()
        with pytest.raises(socket.gaierror):
            resolve(f"{'a' * 64}.example.com", 443, 1)

    def test_a_lookup_that_hangs_ends_in_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        release = threading.Event()
        monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: release.wait(10))
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            resolve("hooks.example.com", 443, 0.2)
        assert time.monotonic() - started < 1
        release.set()

    def test_hanging_lookups_hold_a_bounded_number_of_threads(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        release = threading.Event()
        asked: list[str] = []

        def hang(host: str, *args: Any, **kwargs: Any) -> list[Any]:
            asked.append(host)
            release.wait(10)
            return [Resolver.answer(PUBLIC, 443)]

        monkeypatch.setattr(socket, "getaddrinfo", hang)
        for number in range(lookups.MAX_LOOKUPS):
            with pytest.raises(TimeoutError):
                resolve(f"h{number}.example.com", 443, 0.01)
        for _ in range(3):  # it is not this host that is slow
            with pytest.raises(lookups.TooManyLookups):
                resolve("good.example.com", 443, 0.01)
        with pytest.raises(addresses.BlockedAddress):
            addresses.check_url("https://good.example.com/")
        assert len(asked) == lookups.MAX_LOOKUPS
        release.set()
        assert resolve("again.example.com", 443, 5)  # and they are given back

    def test_lookups_work_in_a_child_that_was_forked_while_all_were_taken(self) -> None:
        script = """
import os, socket, sys, threading, django
from django.conf import settings
settings.configure(WEBHOOKS={}); django.setup()
from webhooks.transports import addresses, lookups
block = threading.Event()
answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("1.1.1.1", 443))]
socket.getaddrinfo = lambda *a, **k: block.wait(30) and answer
for n in range(lookups.MAX_LOOKUPS):
    try:
        addresses.resolve("a.example.com", 443, 0.001)
    except TimeoutError:
        pass
socket.getaddrinfo = lambda *a, **k: answer
child = os.fork()
if child == 0:
    os._exit(0 if addresses.resolve("a.example.com", 443, 2) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr


def test_a_host_of_the_operators_networks_may_use_any_port_until_ports_are_set() -> None:
    networks = {"ALLOW_HTTP": True, "ALLOWED_NETWORKS": ["127.0.0.0/8"]}
    with override_settings(WEBHOOKS=networks):
        addresses.check_url("http://127.0.0.1:49152/in", resolve=False)
        addresses.check_url("http://localhost:49152/in", resolve=False)
        with pytest.raises(addresses.BlockedAddress, match="Port 49152 is not allowed"):
            addresses.check_url("http://hooks.example.com:49152/in", resolve=False)
    with (
        override_settings(WEBHOOKS=networks | {"ALLOWED_PORTS": [443]}),
        pytest.raises(addresses.BlockedAddress, match="Port 49152 is not allowed"),
    ):
        addresses.check_url("http://127.0.0.1:49152/in", resolve=False)
