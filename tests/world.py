"""The world a test lives in: real receivers on loopback, subscriptions, and real processes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from django.db import connection, connections

from webhooks import emit_many
from webhooks.clock import db_now
from webhooks.engine.fanout import fan_out
from webhooks.engine.worker import work
from webhooks.models import Delivery, Duty, Event, Lane, Subscription

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Received:
    """One POST, as a receiver saw it. at: unix seconds."""

    id: str
    headers: dict[str, str]
    body: bytes
    at: float
    path: str = ""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    """What a receiver says. after: seconds to wait before the answer."""

    status: int = 200
    headers: dict[str, str] | None = None
    body: bytes = b"ok"
    after: float = 0.0


class Receiver:
    """A subscriber's server on loopback, in threads of this process.

    ``answer`` is an Answer, or a function of the Received that returns one.
    """

    def __init__(self, answer: Answer | Callable[[Received], Answer] | None = None) -> None:
        self.answer = answer or Answer()
        self.posts: list[Received] = []
        self.arrived = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # headers and body leave together
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                webhook_id = headers.get("webhook-id", "")
                post = Received(webhook_id, headers, body, time.time(), self.path)
                with receiver.arrived:
                    receiver.posts.append(post)
                    receiver.arrived.notify_all()
                answer = receiver.answer(post) if callable(receiver.answer) else receiver.answer
                if answer.after:
                    receiver.closing.wait(answer.after)
                try:
                    self.send_response(answer.status)
                    for name, value in (answer.headers or {}).items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(answer.body)))
                    self.end_headers()
                    self.wfile.write(answer.body)
                    self.wfile.flush()
                except OSError:
                    self.close_connection = True

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False
            request_queue_size = 256

            def handle_error(self, *args: Any) -> None:
                pass  # a sender that was killed leaves broken pipes

        self.closing = threading.Event()
        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/in"

    @property
    def ids(self) -> Counter[str]:
        """How often each webhook-id came."""
        with self.arrived:
            return Counter(post.id for post in self.posts)

    @property
    def duplicates(self) -> int:
        return sum(self.ids.values()) - len(self.ids)

    def bodies_of(self, webhook_id: str) -> set[str]:
        """The digests of all bodies that came under an id: one, unless a promise is broken."""
        with self.arrived:
            return {
                hashlib.sha256(post.body).hexdigest()
                for post in self.posts
                if post.id == webhook_id
            }

    def wait_for(self, posts: int, timeout: float = 20.0) -> None:
        """Wait until so many POSTs came. Fails the test when they do not."""
        with self.arrived:
            came = self.arrived.wait_for(lambda: len(self.posts) >= posts, timeout)
        assert came, f"{len(self.posts)} of {posts} POSTs came within {timeout} s"

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


def until(condition: Callable[[], bool], timeout: float = 20.0, what: str = "it") -> None:
    """Wait until a condition holds. Fails the test when it does not."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {timeout} s"
        time.sleep(0.05)


def start(
    *arguments: str,
    settings: dict[str, Any] | None = None,
    module: str = "django",
    log: Path | None = None,
    **environ: str,
) -> Any:
    """Start a manage command as a process of its own, on this test's database.

    settings: keys of WEBHOOKS to override there. module: run another module with ``python -m``.
    log: a file to which its errors are added. The caller ends it, by its pid.
    """
    env = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "WEBHOOKS_TEST_DB_NAME": str(connection.settings_dict["NAME"]),
        "WEBHOOKS_TEST_SETTINGS": json.dumps(settings or {}),
        "PYTHONPATH": str(ROOT),
        **environ,
    }
    with open(log or os.devnull, "ab") as errors:
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", module, *arguments],
            env=env,
            cwd=ROOT,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=None if os.environ.get("WEBHOOKS_TEST_VERBOSE") and not log else errors,
        )


def subscribe(
    receiver: Receiver,
    requester: str = "app:a",
    event_types: Iterable[str] = ("order.*",),
    **options: Any,
) -> Subscription:
    """A live subscription at a receiver; ``secret`` may be among the options."""
    subscription, _secret = Subscription.objects.subscribe(
        requester=requester, callback_url=receiver.url, event_types=list(event_types), **options
    )
    return subscription


def emit_orders(count: int, requester: str = "app:a", data: Any = None) -> list[Event]:
    """So many ``order.paid`` events for a requester, in one transaction."""
    return emit_many(
        "order.paid",
        [{"data": data or {"order": i}, "requester": requester} for i in range(count)],
    )


def deliver() -> None:
    """Drain in this process until nothing is due; retries that are due later stay."""
    Duty.objects.ensure()
    work(seconds=None, slots=None, until_idle=True, should_stop=lambda: False)


def end_rests() -> None:
    """As if the rests of all lanes were over: of parked ones, until the next probe."""
    now = db_now("default")
    resting = Lane.objects.filter(token=None, paused_until__gt=now, claim_at__isnull=False)
    for lane in resting:
        lane.claim_at = min(lane.claim_at or now, now)
        lane.paused_until = now
        lane.save(update_fields=["claim_at", "paused_until"])


def fan_out_all() -> int:
    """Fan out until the outbox is empty; in how many transactions."""
    Duty.objects.ensure()
    transactions = 1
    while fan_out("default").more:
        transactions += 1
    return transactions


def without_breaker(monkeypatch: Any) -> None:
    """Let every due delivery be tried, however many fail: for tests of what follows from that."""
    monkeypatch.setattr("webhooks.engine.pacing.FAILURES_IN_A_ROW", 10**6)
    monkeypatch.setattr("webhooks.engine.pacing.ENOUGH_RECENT", 10**6)


def states() -> Counter[str]:
    """How many deliveries there are in each state."""
    return Counter(Delivery.objects.values_list("state", flat=True))


@contextmanager
def in_background(work: Callable[..., Any], *arguments: Any) -> Iterator[Future[Any]]:
    """Run ``work`` in a thread with a database connection of its own; its error fails the test."""

    def run() -> Any:
        try:
            return work(*arguments)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(run)
        yield future
    future.result()
