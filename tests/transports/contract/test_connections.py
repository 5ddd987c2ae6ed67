"""Whom a transport dials, which connections it keeps, and how many POSTs it does at once."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from tests.transports import receivers
from tests.transports.posting import LOOPBACK, drive, gather, post, request, wait_until
from tests.transports.receivers import OK, Received, Receiver, answers, with_body
from webhooks.transports import base
from webhooks.transports.base import Transport


class TestBlockedAddresses:
    @staticmethod
    def zone(monkeypatch: pytest.MonkeyPatch, *ips: str) -> list[str]:
        asked: list[str] = []

        def answer(host: str, port: int, *args: Any, **kwargs: Any) -> list[Any]:
            asked.append(host)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ips]

        monkeypatch.setattr(socket, "getaddrinfo", answer)
        return asked

    def test_a_literal_outside_the_allowed_networks(self, transport: Transport) -> None:
        with Receiver(receivers.normal) as receiver:
            with override_settings(WEBHOOKS=LOOPBACK | {"ALLOWED_NETWORKS": []}):
                response = post(transport, receiver.url)
            assert response.error_code == base.BLOCKED_ADDRESS
            assert "127.0.0.1" not in response.error_detail
        assert receiver.connections == 0

    def test_a_name_with_one_bad_answer_is_not_dialled_at_all(
        self, transport: Transport, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = self.zone(monkeypatch, "127.0.0.1", "10.0.0.5")
        with Receiver(receivers.normal) as receiver:
            response = post(transport, f"http://hooks.example.com:{receiver.port}/")
        assert response.error_code == base.BLOCKED_ADDRESS
        assert receiver.connections == 0
        assert asked == ["hooks.example.com"]

    def test_a_name_is_looked_up_once_for_each_connection(
        self, transport: Transport, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = self.zone(monkeypatch, "127.0.0.1")
        with Receiver(receivers.normal) as receiver:
            for _ in range(3):
                url = f"http://Hooks.example.com:{receiver.port}/"
                assert post(transport, url).status_code == 200
        assert asked == ["hooks.example.com"]
        assert receiver.requests[0].headers["host"] == f"hooks.example.com:{receiver.port}"

    def test_the_next_address_is_tried_when_the_first_refuses(
        self, transport: Transport, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.zone(monkeypatch, "127.0.0.2", "127.0.0.1")
        with Receiver(receivers.normal) as receiver:
            url = f"http://hooks.example.com:{receiver.port}/"
            assert post(transport, url).status_code == 200


class TestKeptConnections:
    def test_are_used_again_within_a_lane_and_never_by_another(self, transport: Transport) -> None:
        with Receiver(receivers.normal) as receiver:
            for _ in range(3):
                for lane in ("sub_a", "sub_b"):
                    post(transport, receiver.url, lane=lane, headers={"X-Lane": lane})
        assert receiver.connections == 2
        used = {(got.headers["x-lane"], got.connection) for got in receiver.requests}
        assert len(used) == 2

    def test_are_used_by_one_post_at_a_time(self, transport: Transport) -> None:
        with Receiver(receivers.after(0.3)) as receiver:
            for _ in range(2):
                for number in range(2):
                    transport.start(number, request(receiver.url))
                gather(transport, 2)
        assert receiver.connections == 2

    def test_one_that_the_peer_closed_meanwhile_is_no_failure(self, transport: Transport) -> None:
        with Receiver(answers(OK, then_close=True)) as receiver:
            for number in range(3):
                assert post(transport, receiver.url).status_code == 200
                wait_until(lambda count=number + 1: receiver.closed == count)
        assert receiver.connections == 3

    def test_one_that_breaks_while_it_is_used_is_reported_and_not_sent_again(
        self, transport: Transport
    ) -> None:
        def second_is_dropped(sock: socket.socket, got: Received) -> bool:
            if len(receiver.requests) == 2:
                return False
            sock.sendall(OK)
            return True

        with Receiver(second_is_dropped) as receiver:
            assert post(transport, receiver.url).status_code == 200
            assert post(transport, receiver.url).error_code == base.CONNECTION_ERROR
            assert post(transport, receiver.url).status_code == 200
        assert len(receiver.requests) == 3

    @pytest.mark.parametrize(
        "raw",
        [
            with_body(b"x" * 5000),
            with_body(b"", "Location: /", status="302 Found"),
            with_body(b"ok", "Connection: close"),
            OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged",
        ],
    )
    def test_none_is_kept_after_an_answer_that_was_not_read_to_its_end(
        self, transport: Transport, raw: bytes
    ) -> None:
        with Receiver(answers(raw)) as receiver:
            first = post(transport, receiver.url)
            second = post(transport, receiver.url)
        assert "forged" not in first.excerpt + second.excerpt
        if b"forged" not in raw:
            assert receiver.connections == 2


class TestManyPosts:
    def test_at_most_concurrency_are_in_flight_and_each_tag_comes_back_once(
        self, transport_class: type[Transport]
    ) -> None:
        transport = transport_class(concurrency=4)
        crowd = receivers.Crowd()
        with Receiver(receivers.after(0.05, crowd)) as receiver:
            for number in range(20):
                transport.start(number, request(receiver.url, lane=f"sub_{number % 3}"))
            results = gather(transport, 20)
        transport.close()
        assert sorted(tag for tag, _ in results) == list(range(20))
        assert all(response.status_code == 200 for _, response in results)
        assert crowd.most == 4

    def test_hostile_receivers_do_not_hold_up_a_good_one(self, transport: Transport) -> None:
        with Receiver(receivers.stalls()) as bad, Receiver(receivers.normal) as good:
            for number in range(7):
                transport.start(f"bad-{number}", request(bad.url, lane="sub_bad", timeout=1))
            for number in range(50):
                transport.start(f"good-{number}", request(good.url, lane="sub_good"))
            first = gather(transport, 50)
            gather(transport, 57 - len(first))
        assert {tag.split("-")[0] for tag, _ in first[:50]} == {"good"}

    def test_a_forked_child_may_use_a_transport_of_its_own(
        self, transport_class: type[Transport]
    ) -> None:
        script = """
import os, sys, django
from django.conf import settings
settings.configure(WEBHOOKS={"ALLOW_HTTP": True, "ALLOWED_PORTS": "any",
                             "ALLOWED_NETWORKS": ["127.0.0.0/8"]})
django.setup()
from django.utils.module_loading import import_string
from webhooks.transports.base import Request
def post():
    transport = import_string(sys.argv[2])(concurrency=2)
    transport.start(1, Request("sub_a", sys.argv[1], {}, b"{}", 5))
    [(_, response)] = transport.finished(10)
    return 0 if response.status_code == 200 else 1
assert post() == 0
child = os.fork()
if child == 0:
    os._exit(post())
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
        [parent] = transport_class.__bases__
        with Receiver(receivers.normal) as receiver:
            done = subprocess.run(
                [
                    sys.executable,
                    "-c",
                    script,
                    receiver.url,
                    f"{parent.__module__}.{parent.__qualname__}",
                ],
                cwd=Path(__file__).parents[3],
                capture_output=True,
                text=True,
                timeout=60,
            )
        assert done.returncode == 0, done.stderr
        assert len(receiver.requests) == 2

    def test_close_drops_what_is_in_flight_at_once(self, transport_class: type[Transport]) -> None:
        transport = transport_class(concurrency=4)
        before = threading.active_count()
        with (
            Receiver(receivers.stalls()) as silent,
            Receiver(receivers.normal, greet=receivers.listens) as mute,
        ):
            urls = [silent.url, silent.url, mute.url.replace("http:", "https:"), silent.url]
            for number, url in enumerate(urls):
                transport.start(number, request(url, timeout=15))
            drive(transport, lambda: len(silent.requests) == 3 and mute.connections == 1)
            started = time.monotonic()
            transport.close()
            assert time.monotonic() - started < 1
            wait_until(lambda: silent.closed == 3)
        assert threading.active_count() <= before
        with pytest.raises(RuntimeError, match="closed"):
            transport.start(1, request("http://127.0.0.1/"))

    def test_finished_waits_no_longer_than_asked(self, transport: Transport) -> None:
        started = time.monotonic()
        assert transport.finished(0.1) == []
        assert 0.09 < time.monotonic() - started < 1
        assert transport.finished(0) == []
