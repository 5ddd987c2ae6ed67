"""Handshakes, from ``subscribe()`` to the proof, with real endpoints on loopback."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from standardwebhooks.webhooks import Webhook

from tests.world import (
    Receiver,
    deliver,
    emit_orders,
    in_background,
    start,
    states,
)
from webhooks import signals
from webhooks.clock import Clock, db_now
from webhooks.crypto import Sealed
from webhooks.engine.handshakes import Handshakes
from webhooks.engine.housekeeping import sweep
from webhooks.engine.trials import Trials
from webhooks.engine.wake import POLL
from webhooks.formats.signing import generate_secret
from webhooks.lifecycle import change_status, subscribe
from webhooks.models import (
    Delivery,
    DeliveryAttempt,
    DeliveryStats,
    Duty,
    Lane,
    SigningSecret,
    Subscription,
)
from webhooks.models.subscription import Handshake, Status
from webhooks.tasks import drain
from webhooks.transports.base import Request, Response, Transport

pytestmark = pytest.mark.django_db(transaction=True)


@dataclass(frozen=True)
class Asked:
    """One request, as the endpoint saw it."""

    method: str
    headers: dict[str, str]
    body: bytes

    @property
    def secret(self) -> str:
        return self.headers.get("x-hook-secret", "")


@dataclass(frozen=True)
class Said:
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


def echo(asked: Asked) -> Said:
    return Said(headers=(("X-Hook-Secret", asked.secret),))


def consent(origin: str = "*", rate: str | None = None) -> Callable[[Asked], Said]:
    headers = [("WebHook-Allowed-Origin", origin)]
    if rate is not None:
        headers.append(("WebHook-Allowed-Rate", rate))
    return lambda asked: Said(headers=tuple(headers))


def in_turn(*answers: Callable[[Asked], Said]) -> Callable[[Asked], Said]:
    """The first answer to the first request, and so on; the last one for ever."""
    left = list(answers)
    return lambda asked: (left.pop(0) if len(left) > 1 else left[0])(asked)


def fails(asked: Asked) -> Said:
    return Said(status=500)


def silent(asked: Asked) -> Said:
    """A 2xx that says nothing about the handshake."""
    return Said()


class Endpoint:
    """A subscriber's server that knows POST and OPTIONS, in threads of this process."""

    def __init__(self, answer: Callable[[Asked], Said] = silent) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        self.arrived = threading.Event()
        self.may_answer = threading.Event()
        self.may_answer.set()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1

            def do_POST(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = self.rfile.read(int(headers.get("content-length", 0)))
                asked = Asked(self.command, headers, body)
                endpoint.asked.append(asked)
                endpoint.arrived.set()
                endpoint.may_answer.wait(30)
                said = endpoint.answer(asked)
                try:
                    self.send_response(said.status)
                    for name, value in said.headers:
                        self.send_header(name, value)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    self.wfile.flush()
                except OSError:
                    self.close_connection = True

            do_OPTIONS = do_POST

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *args: Any) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/in"

    def close(self) -> None:
        self.may_answer.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    made = Endpoint()
    yield made
    made.close()


@pytest.fixture
def configure(settings: Any) -> Callable[..., None]:
    def set_keys(**keys: Any) -> None:
        settings.WEBHOOKS = {**settings.WEBHOOKS, **keys}

    return set_keys


def ask(endpoint: Endpoint, handshake: str = Handshake.HOOK_SECRET, **options: Any) -> Subscription:
    """A subscription that asks for a handshake."""
    options = {"requester": "app:a", "event_types": ["order.*"], **options}
    made, _ = subscribe(callback_url=endpoint.url, handshake=handshake, **options)
    assert made.status == Status.PENDING
    return made


def now_due() -> None:
    """The time for the next try has come."""
    Lane.objects.update(paused_until=db_now("default"))


def status_of(subscription: Subscription) -> tuple[str, str]:
    subscription.refresh_from_db()
    return subscription.status, subscription.status_reason


def attempts() -> list[tuple[int, str, int | None, str]]:
    rows = DeliveryAttempt.objects.order_by("pk")
    return list(rows.values_list("number", "trigger", "status_code", "error_code"))


CONFIRMED = ("subscribed", "handshake")
GIVEN_UP = ("unsubscribed", "handshake_failed")


class TestHookSecret:
    def test_the_echo_confirms_and_then_events_flow(self, endpoint: Endpoint) -> None:
        endpoint.answer = echo
        subscription = ask(endpoint)
        deliver()
        assert status_of(subscription) == CONFIRMED
        assert attempts() == [(1, "first", 200, "")]
        emit_orders(1)
        deliver()
        assert states() == {"delivered": 1}
        assert [bool(each.secret) for each in endpoint.asked] == [True, False]

    def test_what_is_sent_is_a_signed_ping(self, endpoint: Endpoint) -> None:
        secret = generate_secret()
        subscription = ask(
            endpoint, secret=secret, headers={"X-Mine": "1"}, basic_auth="user:password"
        )
        deliver()
        [asked] = endpoint.asked
        body = Webhook(secret).verify(asked.body, asked.headers)
        assert body["type"] == "webhooks.ping"
        assert body["data"] == {"subscription": subscription.pk}
        assert body["id"] == asked.headers["webhook-id"]
        assert asked.headers["x-mine"] == "1"
        assert asked.headers["authorization"] == "Basic dXNlcjpwYXNzd29yZA=="
        assert len(bytes.fromhex(asked.secret)) == 32
        attempt = DeliveryAttempt.objects.get()
        assert attempt.message_id == body["id"]
        assert attempt.message_id.startswith("msg_")
        assert attempt.subscription_id == subscription.pk
        assert attempt.event_count == 1

    def test_a_2xx_alone_confirms_nothing(self, endpoint: Endpoint) -> None:
        subscription = ask(endpoint)
        deliver()
        assert status_of(subscription)[0] == Status.PENDING
        assert attempts() == [(1, "first", 200, "handshake_refused")]
        assert "X-Hook-Secret" in DeliveryAttempt.objects.get().error_detail

    @pytest.mark.parametrize(
        "wrong", ["", "abc", "0" * 64, "{0}{0}", "\xff{0}", "{0}, {0}"], ids=repr
    )
    def test_another_echo_confirms_nothing(self, endpoint: Endpoint, wrong: str) -> None:
        endpoint.answer = lambda asked: Said(
            headers=(("X-Hook-Secret", wrong.format(asked.secret)),)
        )
        subscription = ask(endpoint)
        deliver()
        assert status_of(subscription)[0] == Status.PENDING
        assert attempts() == [(1, "first", 200, "handshake_refused")]

    def test_the_echo_of_an_earlier_try_confirms_nothing(self, endpoint: Endpoint) -> None:
        endpoint.answer = lambda asked: Said(
            headers=(
                ("X-Hook-Secret", endpoint.asked[0].secret if len(endpoint.asked) > 1 else ""),
            )
        )
        subscription = ask(endpoint)
        deliver()
        now_due()
        deliver()
        assert status_of(subscription)[0] == Status.PENDING
        assert endpoint.asked[0].secret != endpoint.asked[1].secret
        assert len({each.headers["webhook-id"] for each in endpoint.asked}) == 2

    def test_an_echo_with_an_error_confirms_nothing(self, endpoint: Endpoint) -> None:
        endpoint.answer = lambda asked: replace(echo(asked), status=400)
        subscription = ask(endpoint)
        deliver()
        assert status_of(subscription)[0] == Status.PENDING
        assert attempts() == [(1, "first", 400, "client_error")]

    def test_redirects_are_not_followed(self, endpoint: Endpoint, receiver: Receiver) -> None:
        endpoint.answer = lambda asked: Said(307, (("Location", receiver.url),))
        ask(endpoint)
        deliver()
        assert attempts() == [(1, "first", 307, "redirect")]
        assert receiver.posts == []

    def test_without_a_readable_secret_nothing_is_sent(
        self, endpoint: Endpoint, caplog: Any
    ) -> None:
        endpoint.answer = echo
        subscription = ask(endpoint)
        good = SigningSecret.objects.get().value
        SigningSecret.objects.update(value=Sealed("unreadable"))
        deliver()
        assert endpoint.asked == []
        assert attempts() == []
        assert status_of(subscription)[0] == Status.PENDING
        assert "cannot be signed for" in caplog.text
        SigningSecret.objects.update(value=good)
        now_due()
        deliver()
        assert status_of(subscription) == CONFIRMED

    def test_it_counts_in_no_statistics(self, endpoint: Endpoint) -> None:
        endpoint.answer = in_turn(fails, echo)
        ask(endpoint)
        deliver()
        now_due()
        deliver()
        assert len(attempts()) == 2
        assert not DeliveryStats.objects.exists()


class TestCloudEvents:
    def test_consent_for_everybody_confirms(self, endpoint: Endpoint, configure: Any) -> None:
        configure(BASE_URL="https://events.example.org:8443/hooks/")
        endpoint.answer = consent()
        subscription = ask(endpoint, Handshake.CLOUDEVENTS, headers={"X-Mine": "1"})
        deliver()
        assert status_of(subscription) == CONFIRMED
        [asked] = endpoint.asked
        assert (asked.method, asked.body) == ("OPTIONS", b"")
        assert asked.headers["webhook-request-origin"] == "events.example.org"
        assert asked.headers["webhook-request-rate"] == "120"
        assert asked.headers["x-mine"] == "1"
        assert "webhook-signature" not in asked.headers
        assert attempts() == [(1, "first", 200, "")]
        assert DeliveryAttempt.objects.get().message_id.startswith("msg_")

    @pytest.mark.parametrize("origin", ["events.example.org", "Events.Example.ORG", " * "])
    def test_consent_for_our_origin_confirms(
        self, endpoint: Endpoint, configure: Any, origin: str
    ) -> None:
        configure(BASE_URL="https://events.example.org")
        endpoint.answer = consent(origin)
        subscription = ask(endpoint, Handshake.CLOUDEVENTS)
        deliver()
        assert status_of(subscription) == CONFIRMED

    @pytest.mark.parametrize("origin", ["", "example.org", "*.example.org", "x-events.example.org"])
    def test_consent_for_others_does_not(
        self, endpoint: Endpoint, configure: Any, origin: str
    ) -> None:
        configure(BASE_URL="https://events.example.org")
        endpoint.answer = consent(origin, "*")
        subscription = ask(endpoint, Handshake.CLOUDEVENTS)
        deliver()
        assert status_of(subscription)[0] == Status.PENDING
        assert attempts() == [(1, "first", 200, "handshake_refused")]

    def test_the_status_alone_is_no_consent(self, endpoint: Endpoint) -> None:
        subscription = ask(endpoint, Handshake.CLOUDEVENTS)
        deliver()
        assert status_of(subscription)[0] == Status.PENDING
        assert attempts() == [(1, "first", 200, "handshake_refused")]

    def test_the_echo_of_the_other_handshake_is_no_consent(self, endpoint: Endpoint) -> None:
        endpoint.answer = echo
        subscription = ask(endpoint, Handshake.CLOUDEVENTS)
        deliver()
        assert status_of(subscription)[0] == Status.PENDING

    @pytest.mark.parametrize(
        ("own", "granted", "then"),
        [
            (None, "60", 60),
            (100, "60", 60),
            (30, "60", 30),
            (30, "*", 30),
            (None, "*", None),
            (None, None, None),
            (30, None, 30),
            (30, "0", 30),
            (30, "-5", 30),
            (30, "many", 30),
            (30, "1.5", 30),
            (30, "²", 30),
            (None, "9" * 40, 2**31 - 1),
        ],
    )
    def test_the_smaller_rate_holds(
        self, endpoint: Endpoint, own: int | None, granted: str | None, then: int | None
    ) -> None:
        endpoint.answer = consent("*", granted)
        subscription = ask(endpoint, Handshake.CLOUDEVENTS, rate_limit=own)
        deliver()
        assert status_of(subscription) == CONFIRMED
        assert subscription.rate_limit == then
        assert endpoint.asked[0].headers["webhook-request-rate"] == str(own or 120)

    def test_after_it_events_are_posted_as_usual(self, endpoint: Endpoint) -> None:
        endpoint.answer = consent()
        ask(endpoint, Handshake.CLOUDEVENTS)
        deliver()
        emit_orders(1)
        deliver()
        assert [each.method for each in endpoint.asked] == ["OPTIONS", "POST"]
        assert states() == {"delivered": 1}


BOTH = pytest.mark.parametrize(
    ("handshake", "proof"), [(Handshake.HOOK_SECRET, echo), (Handshake.CLOUDEVENTS, consent())]
)


@BOTH
class TestTrying:
    def test_a_failed_try_is_followed_by_another(
        self, endpoint: Endpoint, handshake: str, proof: Any
    ) -> None:
        endpoint.answer = in_turn(fails, proof)
        subscription = ask(endpoint, handshake)
        before = db_now("default")
        deliver()
        lane = Lane.objects.get()
        assert (lane.failures, lane.pause_reason) == (1, "handshake")
        assert lane.paused_until is not None
        assert timedelta(seconds=4) <= lane.paused_until - before < timedelta(seconds=15)
        deliver()
        assert len(endpoint.asked) == 1  # not yet
        now_due()
        deliver()
        assert status_of(subscription) == CONFIRMED
        assert attempts() == [(1, "first", 500, "server_error"), (2, "retry", 200, "")]
        lane.refresh_from_db()
        assert (lane.failures, lane.pause_reason) == (0, "")
        assert lane.paused_until is None
        assert not lane.held

    def test_a_worker_stays_for_a_retry_that_is_due_soon(
        self, endpoint: Endpoint, configure: Any, handshake: str, proof: Any
    ) -> None:
        configure(RETRY_SCHEDULE=(2.5,))
        endpoint.answer = in_turn(fails, proof)
        subscription = ask(endpoint, handshake)
        drain()
        assert status_of(subscription) == CONFIRMED
        retry = DeliveryAttempt.objects.get(number=2)
        assert timedelta(0) <= retry.started_at - retry.due_at < timedelta(seconds=1.5)

    def test_after_the_schedule_it_is_unsubscribed(
        self, endpoint: Endpoint, handshake: str, proof: Any
    ) -> None:
        endpoint.answer = silent
        subscription = ask(endpoint, handshake, retry_schedule=[1, 1])
        heard: list[tuple[str, str, str]] = []

        def hear(previous: str, status: str, reason: str, **kwargs: Any) -> None:
            heard.append((previous, status, reason))

        signals.subscription_status_changed.connect(hear)
        try:
            for _ in range(5):
                deliver()
                now_due()
        finally:
            signals.subscription_status_changed.disconnect(hear)
        assert status_of(subscription) == GIVEN_UP
        assert [number for number, *_ in attempts()] == [1, 2, 3]
        assert len(endpoint.asked) == 3
        assert heard == [("pending", *GIVEN_UP)]

    def test_an_endpoint_that_is_gone_is_not_asked_again(
        self, endpoint: Endpoint, handshake: str, proof: Any
    ) -> None:
        endpoint.answer = lambda asked: Said(status=410)
        subscription = ask(endpoint, handshake)
        deliver()
        assert status_of(subscription) == GIVEN_UP
        assert attempts() == [(1, "first", 410, "gone")]

    def test_retry_after_is_heard(self, endpoint: Endpoint, handshake: str, proof: Any) -> None:
        endpoint.answer = lambda asked: Said(503, (("Retry-After", "3600"),))
        ask(endpoint, handshake)
        deliver()
        paused_until = Lane.objects.get().paused_until
        assert paused_until is not None
        assert paused_until - db_now("default") > timedelta(minutes=59)

    def test_while_it_is_pending_nothing_else_is_sent(
        self, endpoint: Endpoint, handshake: str, proof: Any
    ) -> None:
        endpoint.answer = in_turn(fails, proof)
        subscription = ask(endpoint, handshake)
        emit_orders(3)
        deliver()
        assert len(endpoint.asked) == 1
        now_due()
        deliver()
        assert status_of(subscription) == CONFIRMED
        assert len(endpoint.asked) == 2
        assert not Delivery.objects.exists()

    def test_blocked_addresses_are_not_dialled(
        self, endpoint: Endpoint, configure: Any, handshake: str, proof: Any
    ) -> None:
        endpoint.answer = proof
        subscription = ask(endpoint, handshake)
        configure(ALLOWED_NETWORKS=[])
        deliver()
        assert endpoint.asked == []
        assert status_of(subscription)[0] == Status.PENDING
        attempt = DeliveryAttempt.objects.get()
        assert (attempt.status_code, attempt.error_code) == (None, "blocked_address")
        assert attempt.excerpt == ""
        assert "127.0.0.1" not in attempt.error_detail

    def test_one_that_was_left_by_its_worker_is_tried_again(
        self, endpoint: Endpoint, handshake: str, proof: Any
    ) -> None:
        endpoint.answer = proof
        subscription = ask(endpoint, handshake)
        lost = worker(Mute(concurrency=8))
        assert lost.look(8)
        deliver()
        assert endpoint.asked == []  # it may still be under way
        assert status_of(subscription)[0] == Status.PENDING
        now_due()
        deliver()
        assert status_of(subscription) == CONFIRMED

    def test_who_unsubscribes_meanwhile_stays_unsubscribed(
        self, endpoint: Endpoint, caplog: Any, handshake: str, proof: Any
    ) -> None:
        endpoint.answer = proof
        endpoint.may_answer.clear()
        subscription = ask(endpoint, handshake)
        with in_background(deliver):
            assert endpoint.arrived.wait(10)
            change_status(subscription, Status.UNSUBSCRIBED, reason="client")
            endpoint.may_answer.set()
        assert status_of(subscription) == ("unsubscribed", "client")
        assert attempts() == [(1, "first", 200, "")]
        assert not [each for each in caplog.records if each.levelno >= logging.ERROR]

    def test_one_that_is_deleted_meanwhile_leaves_no_trace_of_an_error(
        self, endpoint: Endpoint, caplog: Any, handshake: str, proof: Any
    ) -> None:
        endpoint.answer = proof
        endpoint.may_answer.clear()
        subscription = ask(endpoint, handshake)
        with in_background(deliver):
            assert endpoint.arrived.wait(10)
            subscription.delete()
            endpoint.may_answer.set()
        assert not Subscription.objects.exists()
        assert not [each for each in caplog.records if each.levelno >= logging.ERROR]

    def test_who_unsubscribes_before_it_is_asked_nothing(
        self, endpoint: Endpoint, handshake: str, proof: Any
    ) -> None:
        subscription = ask(endpoint, handshake)
        change_status(subscription, Status.UNSUBSCRIBED, reason="client")
        deliver()
        assert endpoint.asked == []

    def test_an_owner_who_is_entitled_no_longer_is_asked_nothing(
        self, endpoint: Endpoint, configure: Any, handshake: str, proof: Any
    ) -> None:
        subscription = ask(endpoint, handshake)
        configure(ENTITLEMENT="tests.engine.test_handshakes.nobody")
        deliver()
        assert endpoint.asked == []
        assert status_of(subscription) == ("unsubscribed", "entitlement_lost")

    def test_the_command_proves_it_before_it_leaves(
        self, endpoint: Endpoint, handshake: str, proof: Any
    ) -> None:
        endpoint.answer = proof
        subscription = ask(endpoint, handshake)
        process = start("webhooks_worker", "--until-idle")
        assert process.wait(60) == 0
        assert status_of(subscription) == CONFIRMED


def nobody(owner: Any) -> bool:
    return False


class Mute(Transport):
    """Sends nothing, and never answers."""

    def __init__(self, *, concurrency: int) -> None:
        super().__init__(concurrency=concurrency)
        self.started: list[Any] = []

    def start(self, tag: Hashable, request: Request) -> None:
        self.started.append(tag)

    def finished(self, timeout: float) -> list[tuple[Hashable, Response]]:
        return []

    def close(self) -> None:
        pass


def worker(transport: Transport) -> Trials:
    return Trials("default", uuid.uuid4(), Clock("default"), transport, [Handshakes()])


class TestBesideOthers:
    def test_a_worker_with_deliveries_under_way_looks_seldom(self) -> None:
        trials = worker(Mute(concurrency=32))
        with CaptureQueriesContext(connection) as captured:
            trials.look(31)
            began = time.monotonic()
            while time.monotonic() - began < 2 * POLL:
                trials.look(31)
        assert len(captured) == 1

    def test_an_idle_worker_looks_often(self) -> None:
        trials = worker(Mute(concurrency=32))
        with CaptureQueriesContext(connection) as captured:
            trials.look(32)
            time.sleep(1.1 * POLL)
            trials.look(32)
        assert len(captured) == 2

    def test_an_endpoint_that_hangs_holds_up_no_deliveries(
        self, endpoint: Endpoint, receiver: Receiver
    ) -> None:
        endpoint.answer = echo
        endpoint.may_answer.clear()
        subscription = ask(endpoint)
        subscribe(requester="app:b", callback_url=receiver.url, event_types=["order.*"])
        with in_background(deliver):
            assert endpoint.arrived.wait(10)
            emit_orders(50, "app:b")
            receiver.wait_for(50)
            assert status_of(subscription)[0] == Status.PENDING
            endpoint.may_answer.set()
        assert status_of(subscription) == CONFIRMED
        assert states() == {"delivered": 50}

    def test_a_slice_ends_although_an_endpoint_hangs_and_deliveries_go_on_meanwhile(
        self, endpoint: Endpoint, receiver: Receiver, configure: Any
    ) -> None:
        configure(DRAIN_SECONDS=1, TIMEOUT=6)
        endpoint.may_answer.clear()
        ask(endpoint)
        subscribe(requester="app:b", callback_url=receiver.url, event_types=["order.*"])
        Lane.objects.update(latency_ms=5)  # known to be fast
        with in_background(drain):
            assert endpoint.arrived.wait(10)
            threading.Event().wait(1.5)  # the slice is over; its grace is not
            emit_orders(5, "app:b")
            receiver.wait_for(5, timeout=3.5)
        assert attempts().count((1, "first", None, "timeout")) == 1

    def test_a_worker_that_waits_for_an_answer_is_not_idle(
        self, endpoint: Endpoint, receiver: Receiver, configure: Any
    ) -> None:
        configure(TIMEOUT=8)
        endpoint.may_answer.clear()
        ask(endpoint)
        subscribe(requester="app:b", callback_url=receiver.url, event_types=["order.*"])
        Duty.objects.ensure()
        assert Duty.objects.assume(Duty.Name.SITTER, uuid.uuid4(), seconds=60)  # others may go
        with in_background(drain):
            assert endpoint.arrived.wait(10)
            threading.Event().wait(1.5)  # longer than it lingers
            emit_orders(5, "app:b")
            receiver.wait_for(5, timeout=4)
            endpoint.may_answer.set()

    def test_no_two_workers_ask_at_once(self, endpoint: Endpoint) -> None:
        ask(endpoint)
        one, other = Mute(concurrency=32), Mute(concurrency=32)
        assert worker(one).look(32)
        assert not worker(other).look(32)
        assert (len(one.started), len(other.started)) == (1, 0)

    def test_who_leaves_between_the_look_and_the_claim_is_asked_nothing(
        self, endpoint: Endpoint
    ) -> None:
        subscription = ask(endpoint)
        mute = Mute(concurrency=32)
        change_status(subscription, Status.UNSUBSCRIBED, reason="client")
        worker(mute)._begin([subscription.pk])
        assert mute.started == []

    def test_a_process_that_was_stopped_after_its_claim_begins_nothing(
        self, endpoint: Endpoint, monkeypatch: Any
    ) -> None:
        subscription = ask(endpoint)
        mute = Mute(concurrency=32)
        monkeypatch.setattr("webhooks.engine.trials.STALE", 0.0)
        worker(mute)._begin([subscription.pk])
        assert mute.started == []
        assert Lane.objects.get().failures == 0

    def test_a_failure_that_comes_after_another_worker_took_over_changes_nothing(
        self, endpoint: Endpoint
    ) -> None:
        ask(endpoint)
        late, other = Mute(concurrency=32), Mute(concurrency=32)
        first = worker(late)
        first.look(32)
        now_due()
        worker(other).look(32)
        first.end(late.started[0], Response(status_code=410))
        assert attempts() == [(1, "first", 410, "gone")]
        assert Subscription.objects.get().status == Status.PENDING
        lane = Lane.objects.get()
        assert (lane.failures, lane.paused_until) == (0, other.started[0].claimed_until)

    def test_a_proof_counts_whenever_it_comes(self, endpoint: Endpoint) -> None:
        subscription = ask(endpoint)
        late, other = Mute(concurrency=32), Mute(concurrency=32)
        first, second = worker(late), worker(other)
        first.look(32)
        now_due()
        second.look(32)
        [begun] = late.started
        first.end(begun, Response(200, headers={"x-hook-secret": begun.expected}))
        assert status_of(subscription) == CONFIRMED
        second.end(other.started[0], Response(status_code=410))
        assert status_of(subscription) == CONFIRMED

    def test_the_proof_of_one_url_is_no_proof_of_another(self, endpoint: Endpoint) -> None:
        subscription = ask(endpoint)
        mute = Mute(concurrency=32)
        handshakes = worker(mute)
        handshakes.look(32)
        Subscription.objects.update(callback_url=endpoint.url + "/other")
        [begun] = mute.started
        handshakes.end(begun, Response(200, headers={"x-hook-secret": begun.expected}))
        assert status_of(subscription)[0] == Status.PENDING
        assert begun.expected not in repr(begun)

    def test_they_take_an_eighth_of_the_slots_and_one_requester_half_of_that(
        self, endpoint: Endpoint
    ) -> None:
        for requester in ("app:a", "app:a", "app:a", "app:a", "app:a", "app:b"):
            ask(endpoint, requester=requester)
        mute = Mute(concurrency=32)
        handshakes = worker(mute)
        for _ in range(5):
            assert handshakes.look(32)
        assert Counter(begun.requester for begun in mute.started) == {"app:a": 2, "app:b": 1}
        for requester in ("app:c", "app:d"):
            ask(endpoint, requester=requester)
        handshakes._next_look = 0
        for _ in range(5):
            assert handshakes.look(32)
        assert len(mute.started) == handshakes.in_flight == 4

    def test_without_a_free_slot_none_begins_and_nobody_takes_that_for_idleness(
        self, endpoint: Endpoint
    ) -> None:
        ask(endpoint)
        mute = Mute(concurrency=32)
        assert worker(mute).look(0)
        assert mute.started == []

    def test_more_than_fit_at_once_are_all_proven(self, endpoint: Endpoint, configure: Any) -> None:
        configure(CONCURRENCY=8)  # one at a time
        endpoint.answer = echo
        for _ in range(5):
            ask(endpoint)
        deliver()
        assert Subscription.objects.filter(status=Status.SUBSCRIBED).count() == 5
        assert len(endpoint.asked) == 5

    def test_an_answer_that_cannot_be_written_is_written_later(
        self, endpoint: Endpoint, monkeypatch: Any
    ) -> None:
        from django.db import IntegrityError

        from webhooks.engine import trials as module

        endpoint.answer = echo
        subscription = ask(endpoint)
        record: Any = vars(module)["record"]
        refused: list[int] = []

        def refuse_once(*args: Any, **kwargs: Any) -> Any:
            if not refused:
                refused.append(1)
                raise IntegrityError("no")
            return record(*args, **kwargs)

        monkeypatch.setattr(module, "record", refuse_once)
        deliver()
        assert refused
        assert status_of(subscription) == CONFIRMED
        assert len(endpoint.asked) == 1
        assert len(attempts()) == 1

    @pytest.mark.postgres
    def test_nobody_waits_for_a_lane_that_somebody_has_locked(self, endpoint: Endpoint) -> None:
        endpoint.answer = echo
        subscription = ask(endpoint)
        mute = Mute(concurrency=32)
        with transaction.atomic():
            Lane.objects.lock([subscription.pk])
            with in_background(lambda: worker(mute).look(32)) as looked:
                pass
            assert looked.result()  # it is still to be done
        assert mute.started == []
        deliver()
        assert status_of(subscription) == CONFIRMED


class TestWaking:
    def test_the_sweep_calls_for_a_worker_while_a_handshake_is_due_soon(
        self, endpoint: Endpoint
    ) -> None:
        assert not sweep("default")
        ask(endpoint)
        assert sweep("default")
        soon = db_now("default")
        Lane.objects.update(paused_until=soon + timedelta(seconds=60))
        assert sweep("default")
        Lane.objects.update(paused_until=soon + timedelta(hours=1))
        assert not sweep("default")

    def test_one_that_asks_for_no_handshake_wakes_nobody(self, endpoint: Endpoint) -> None:
        subscribe(
            requester="app:a",
            callback_url=endpoint.url,
            event_types=["order.*"],
            status=Status.PENDING,
        )
        assert not sweep("default")
        deliver()
        assert endpoint.asked == []

    def test_the_next_try_is_known(self, endpoint: Endpoint) -> None:
        handshakes = worker(Mute(concurrency=8))
        assert handshakes.next_at() is None
        ask(endpoint)
        later = db_now("default") + timedelta(hours=1)
        Lane.objects.update(paused_until=later)
        assert handshakes.next_at() == later
        ask(endpoint)  # never tried: at once
        at = handshakes.next_at()
        assert at is not None
        assert at < later
        assert handshakes.next_at() != later
