"""Which addresses may be dialled."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from tests.transports.zone import POLICY, PUBLIC, Resolver
from webhooks.transports import addresses
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

    @pytest.mark.parametrize("host", ["nowhere.example.com", "a" * 64])
    def test_a_host_without_address_is_a_failed_lookup(self, host: str) -> None:
        with pytest.raises(socket.gaierror):
            resolve(host, 443, 1)

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
        for number in range(addresses.MAX_LOOKUPS + 3):
            with pytest.raises(TimeoutError):
                resolve(f"h{number}.example.com", 443, 0.01)
        assert len(asked) == addresses.MAX_LOOKUPS
        release.set()
        assert resolve("again.example.com", 443, 5)  # and they are given back

    def test_lookups_work_in_a_child_that_was_forked_while_all_were_taken(self) -> None:
        script = """
import os, socket, sys, threading, django
from django.conf import settings
settings.configure(WEBHOOKS={}); django.setup()
from webhooks.transports import addresses
block = threading.Event()
answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("1.1.1.1", 443))]
socket.getaddrinfo = lambda *a, **k: block.wait(30) and answer
for n in range(addresses.MAX_LOOKUPS):
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
