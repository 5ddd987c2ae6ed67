"""A receiver that costs as little as possible, in a process of its own.

Raw HTTP/1.1 over asyncio: keep-alive, ``Content-Length`` bodies, every POST answered 200 at once.
It notes when the first byte of each POST came, and verifies nothing. A general web server would
cost more than the senders that are measured against it.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Protocol(asyncio.Protocol):
    #: webhook-id -> when its first byte came first; shared by all connections.
    arrivals: dict[str, float] = {}
    posts = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.buffer = b""
        self.began = 0.0

    def data_received(self, data: bytes) -> None:
        if not self.buffer:
            self.began = time.monotonic()
        self.buffer += data
        while True:
            head, found, rest = self.buffer.partition(b"\r\n\r\n")
            if not found:
                return
            length = 0
            webhook_id = ""
            for line in head.split(b"\r\n")[1:]:
                name, _, value = line.partition(b":")
                name = name.lower()
                if name == b"content-length":
                    length = int(value)
                elif name == b"webhook-id":
                    webhook_id = value.strip().decode()
            if len(rest) < length:
                return
            self.buffer = rest[length:]
            self.answer(head, webhook_id)

    def answer(self, head: bytes, webhook_id: str) -> None:
        kind = type(self)
        if head.startswith(b"POST"):
            kind.posts += 1
            kind.arrivals.setdefault(webhook_id, self.began)
            self.transport.write(ANSWER)
            return
        body = json.dumps({"posts": kind.posts, "arrivals": kind.arrivals}).encode()
        if head.startswith(b"DELETE"):
            kind.posts = 0
            kind.arrivals = {}
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


async def serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Protocol, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    # The parent's end of this pipe closes when it ends, however it ends.
    await loop.run_in_executor(None, sys.stdin.read)


class Receiver:
    """The receiver's process, as a benchmark sees it."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}/in"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)

    def arrivals(self) -> dict[str, float]:
        """webhook-id -> seconds of the monotonic clock, which all processes of a machine share."""
        found: dict[str, float] = self._ask("GET")["arrivals"]
        return found

    def forget(self) -> int:
        """Begin anew; returns how many POSTs came until now."""
        return int(self._ask("DELETE")["posts"])

    def _ask(self, method: str) -> dict[str, Any]:
        request = urllib.request.Request(self.url, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=10) as answer:
            told: dict[str, Any] = json.load(answer)
            return told


if __name__ == "__main__":
    asyncio.run(serve())
