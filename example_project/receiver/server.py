"""The HTTP side of the subscriber: read, verify, de-duplicate, dispatch, answer.

One thread for each connection, keep-alive, and every answer leaves in one send: the receiver must
be able to take more than the sender under test can give.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TextIO

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from example_project.receiver import page
from example_project.receiver.ledger import Ledger
from example_project.receiver.temper import Answer, Temper
from webhooks.receiving import Handlers, Message, echo_hook_secret

#: Larger bodies are refused unread; the largest batch of the sender is 768 KiB.
MAX_BODY_BYTES = 1024 * 1024
#: Seconds in the ``Retry-After`` of a 429.
RETRY_AFTER = 1
SIGNED_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")


class Receiver(ThreadingHTTPServer):
    """The server, its ledger and its temper."""

    daemon_threads = True
    # A hanging request must not keep the process from ending.
    block_on_close = False
    request_queue_size = 1024

    def __init__(
        self,
        address: tuple[str, int] | socket.socket,
        secrets: Sequence[str],
        *,
        temper: Temper,
        hang_seconds: float = 30.0,
        log: TextIO | None = None,
    ) -> None:
        """address: where to listen (port 0: any free one), or a socket that listens already.
        secrets: signing secrets (``whsec_…``); a message is authentic under any of them.
        hang_seconds: a hanging request is left so long without an answer, then dropped.
        log: gets one JSON line for each POST.
        """
        if isinstance(address, socket.socket):
            super().__init__(address.getsockname(), Handler, bind_and_activate=False)
            self.socket.close()
            self.socket = address
            self.server_name, self.server_port = address.getsockname()[:2]
        else:
            super().__init__(address, Handler)
        self.ledger = Ledger()
        self.handlers = Handlers()
        self.handlers.on("*", "batch")(self.ledger.note)
        self.temper = temper
        self.hang_seconds = hang_seconds
        self.stopping = threading.Event()
        self._verifiers = [Webhook(secret) for secret in secrets]
        self._log = log
        self._log_lock = threading.Lock()

    def verify(self, body: bytes, headers: dict[str, str]) -> Any:
        """The parsed body. Raises ValueError if it is not authentic under any of the secrets."""
        for verifier in self._verifiers:
            try:
                return verifier.verify(body, headers)
            except WebhookVerificationError:
                continue
        raise ValueError("no secret verifies this message")

    def log(self, **fields: object) -> None:
        """Write one line to the log, where there is one."""
        if self._log is not None:
            line = json.dumps({"at": time.time(), **fields})
            with self._log_lock:
                print(line, file=self._log)

    def handle_error(self, request: object, client_address: object) -> None:
        # A sender that hangs up (it gave up waiting, or was killed) is no fault of ours.
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Receiver

    def do_POST(self) -> None:
        body = self._body()
        if body is None:
            return
        server = self.server
        message_id = self.headers.get("webhook-id", "")
        try:
            payload = server.verify(
                body, {name: self.headers.get(name, "") for name in SIGNED_HEADERS}
            )
        except ValueError:
            # Also: a signature that is not base64, a body that is not JSON.
            server.ledger.rejected()
            server.log(id=message_id, answer=400)
            self._answer(HTTPStatus.BAD_REQUEST)
            return
        message = Message.of(message_id, payload, body)
        seen = server.ledger.verified(message_id, message.type, body)
        answer = server.temper.answer(message_id, seen)
        if answer is Answer.ACCEPT:
            server.handlers.dispatch(message, server.ledger)
        else:
            server.ledger.refuse(answer.value)
        server.log(id=message_id, type=message.type, seen=seen, answer=answer.value)
        if answer is Answer.ACCEPT:
            # The sender's question whether this endpoint wants its messages: it does.
            self._answer(HTTPStatus.NO_CONTENT, echo_hook_secret(self.headers))
        elif answer is Answer.FAIL:
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR)
        elif answer is Answer.RATE_LIMIT:
            self._answer(HTTPStatus.TOO_MANY_REQUESTS, {"Retry-After": str(RETRY_AFTER)})
        else:
            server.stopping.wait(server.hang_seconds)
            self.close_connection = True

    def do_GET(self) -> None:
        if self.path == "/figures":
            content = json.dumps(self.server.ledger.figures()).encode() + b"\n"
            self._answer(HTTPStatus.OK, {"Content-Type": "application/json"}, content)
        elif self.path == "/messages":
            self._stream_messages()
        elif self.path == "/digests":
            told = self.server.ledger.comparison().as_json().encode() + b"\n"
            self._answer(HTTPStatus.OK, {"Content-Type": "application/json"}, told)
        elif self.path == "/":
            ledger = self.server.ledger
            content = page.html(ledger.figures(), ledger.comparison()).encode()
            self._answer(HTTPStatus.OK, page.HEADERS, content)
        elif self.path == "/style.css":
            headers = {"Content-Type": "text/css; charset=utf-8"}
            self._answer(HTTPStatus.OK, headers, page.STYLE.encode())
        else:
            self._answer(HTTPStatus.NOT_FOUND)

    def _stream_messages(self) -> None:
        # Of unknown length, so the end of the connection is the end of the body.
        self.send_response_only(HTTPStatus.OK)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        for lines in self.server.ledger.lines():
            self.wfile.write(lines)

    def _body(self) -> bytes | None:
        """The request's body; None when it was refused, and then the connection ends."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            self.close_connection = True
            self._answer(HTTPStatus.LENGTH_REQUIRED)
        elif int(length) > MAX_BODY_BYTES:
            self.close_connection = True
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        else:
            body = self.rfile.read(int(length))
            if len(body) == int(length):
                return body
            # The sender hung up in the middle.
            self.close_connection = True
        return None

    def _answer(
        self, status: HTTPStatus, headers: dict[str, str] | None = None, content: bytes = b""
    ) -> None:
        lines = [f"HTTP/1.1 {status.value} {status.phrase}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if status != HTTPStatus.NO_CONTENT:
            lines.append(f"Content-Length: {len(content)}")
        if self.close_connection:
            lines.append("Connection: close")
        self.wfile.write("\r\n".join([*lines, "", ""]).encode() + content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: requests are told in ``--log``."""
