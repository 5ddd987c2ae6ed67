"""A transport dials public addresses and no others, whatever a name resolves to.

Names come from a fake resolver. Two records tell what was dialled: each ``connect`` of this
process, and real listeners on addresses that the policy here forbids.
"""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.test import override_settings

from tests.transports import receivers
from tests.transports.posting import LOOPBACK, gather, post, request, wait_until
from tests.transports.receivers import OK, Receiver, answers
from tests.transports.zone import Resolver
from webhooks.transports import addresses, base
from webhooks.transports.base import Transport

#: 127.0.0.1 stands for a public address here, every other of loopback for a private one.
STRICT = LOOPBACK | {"ALLOWED_NETWORKS": ["127.0.0.1/32"]}
PUBLIC = "127.0.0.1"
PRIVATE = "127.0.0.2"

_watched: list[list[Any]] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect" and _watched:
        for seen in _watched:
            seen.append(arguments[1][0])


sys.addaudithook(_hook)  # there is no way to take one back


@contextmanager
def dials() -> Iterator[list[str]]:
    """The addresses to which this process connects meanwhile."""
    seen: list[str] = []
    _watched.append(seen)
    yield seen
    _watched.remove(seen)


class Zone:
    """Stands in for ``getaddrinfo``: one list of addresses after the other, the last for ever."""

    def __init__(self, *turns: list[str]) -> None:
        self.turns = list(turns)
        self.asked: list[str] = []

    def __call__(self, host: str, port: int, *args: Any, **kwargs: Any) -> list[Any]:
        self.asked.append(host)
        ips = self.turns[0] if len(self.turns) == 1 else self.turns.pop(0)
        return [Resolver.answer(ip, port) for ip in ips]


@pytest.fixture(autouse=True)
def strict(policy: None) -> Iterator[None]:
    with override_settings(WEBHOOKS=STRICT):
        yield


@pytest.fixture
def trap() -> Iterator[Receiver]:
    """A receiver on the private address; nothing may ever come here."""
    with Receiver(receivers.normal, host=PRIVATE) as receiver:
        yield receiver
    assert receiver.connections == 0


@pytest.mark.parametrize(
    "ips",
    [
        [PRIVATE],
        [PUBLIC, PRIVATE],
        [PRIVATE, PUBLIC],
        [PUBLIC, PUBLIC, PRIVATE],
        ["::1"],
        [PUBLIC, "::1"],
        ["::1", PUBLIC],
        [f"::ffff:{PRIVATE}"],
        [PUBLIC, f"::ffff:{PRIVATE}"],
        ["::ffff:169.254.169.254"],
        ["64:ff9b::7f00:2"],
        [PUBLIC, "64:ff9b::a9fe:a9fe"],
        ["2002:7f00:2::"],
        ["::127.0.0.2"],
        ["fe80::1"],
        ["fd00::1"],
        ["10.0.0.5"],
        ["169.254.169.254"],
        ["0.0.0.0"],
        ["100.64.0.1"],
        ["255.255.255.255"],
        ["ff02::1"],
    ],
    ids=",".join,
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_name_with_any_address_that_is_not_public_is_not_dialled(
    transport: Transport,
    trap: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    ips: list[str],
    scheme: str,
) -> None:
    zone = Zone(ips)
    monkeypatch.setattr(socket, "getaddrinfo", zone)
    with dials() as seen:
        response = post(transport, f"{scheme}://hooks.example.com:{trap.port}/")
    assert response.error_code == base.BLOCKED_ADDRESS
    assert zone.asked == ["hooks.example.com"]
    assert seen == []
    for ip in (*ips, "hooks.example.com"):
        assert ip not in response.error_detail


@pytest.mark.parametrize(
    "host", [PRIVATE, f"[::ffff:{PRIVATE}]", "[::1]", "[::]", "0.0.0.0", "169.254.169.254"]
)
def test_an_address_in_the_url_is_not_dialled_even_if_the_url_was_never_checked(
    transport: Transport, trap: Receiver, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    def unchecked(url: str, policy: Any = None) -> addresses.Target:
        return addresses.Target("http", host, trap.port, "/")

    monkeypatch.setattr(addresses, "judge", unchecked)
    with dials() as seen:
        response = post(transport, f"http://{host}:{trap.port}/")
    assert response.error_code == base.BLOCKED_ADDRESS
    assert seen == []


def test_a_name_that_turns_private_is_dialled_no_more(
    transport: Transport, trap: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rebinding: each connection has one lookup, and goes where that lookup said."""
    zone = Zone([PUBLIC], [PRIVATE])
    monkeypatch.setattr(socket, "getaddrinfo", zone)
    with dials() as seen, Receiver(answers(OK, then_close=True), port=trap.port) as receiver:
        url = f"http://hooks.example.com:{receiver.port}/"
        assert post(transport, url).status_code == 200
        wait_until(lambda: receiver.closed == 1)
        assert post(transport, url).error_code == base.BLOCKED_ADDRESS
        assert post(transport, url, lane="sub_b").error_code == base.BLOCKED_ADDRESS
    assert zone.asked == ["hooks.example.com"] * 3
    assert seen == [PUBLIC]


def test_only_what_the_lookup_answered_is_dialled(
    transport: Transport, trap: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second lookup, by whoever connects, would lead to the private address."""
    zone = Zone([PUBLIC], [PRIVATE])
    monkeypatch.setattr(socket, "getaddrinfo", zone)
    with dials() as seen, Receiver(receivers.normal, port=trap.port) as receiver:
        for _ in range(3):
            response = post(transport, f"http://hooks.example.com:{receiver.port}/")
            assert response.status_code == 200
    assert zone.asked == ["hooks.example.com"]
    assert seen == [PUBLIC]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_leads_nowhere(transport: Transport, trap: Receiver, status: int) -> None:
    raw = receivers.with_body(b"", f"Location: {trap.url}", status=f"{status} Moved")
    with dials() as seen, Receiver(answers(raw)) as receiver:
        assert post(transport, receiver.url).status_code == status
    assert seen == [PUBLIC]


def test_a_lookup_that_hangs_holds_up_nobody_else(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    def look_up(host: str, port: int, *args: Any, **kwargs: Any) -> list[Any]:
        if host.startswith("slow"):
            release.wait(10)
        return [Resolver.answer(PUBLIC, port)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with Receiver(receivers.normal) as receiver:
        for number in range(7):
            url = f"http://slow-{number}.example.com:{receiver.port}/"
            transport.start(f"slow-{number}", request(url, lane=f"slow-{number}", timeout=1))
        for number in range(10):
            url = f"http://quick.example.com:{receiver.port}/"
            response = next(
                response
                for tag, response in _post_beside(transport, url, f"quick-{number}")
                if tag == f"quick-{number}"
            )
            assert response.status_code == 200
            assert response.elapsed_ms < 900
        slow = gather(transport, 7)
    release.set()
    assert {response.error_code for _, response in slow} == {base.TIMEOUT}


def _post_beside(transport: Transport, url: str, lane: str) -> list[tuple[Any, Any]]:
    transport.start(lane, request(url, lane=lane))
    return gather(transport, 1)
