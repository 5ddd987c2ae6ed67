"""A receiver that costs as little as possible, in a process of its own.

Raw HTTP/1.1 over asyncio: keep-alive, ``Content-Length`` bodies, every POST answered 200: at once,
after so many milliseconds (``/after/100``), or never (``/hang``). It notes when the first byte of
each POST came, and verifies nothing. Where speed alone is measured, nginx stands in for it if there
is one: it costs less still.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.benchmarks.harness import ROOT, other_cores, pin

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
            path = head.split(b" ", 2)[1]
            if path.startswith(b"/after/"):
                wait = int(path[7:]) / 1000
                asyncio.get_running_loop().call_later(wait, self.transport.write, ANSWER)
            elif path != b"/hang":
                self.transport.write(ANSWER)
            return
        body = json.dumps({"posts": kind.posts, "arrivals": kind.arrivals}).encode()
        if head.startswith(b"DELETE"):
            kind.posts = 0
            kind.arrivals = {}
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


async def serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Protocol, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    # The parent's end of this pipe closes when it ends, however it ends.
    await loop.run_in_executor(None, sys.stdin.read)


class Receiver:
    """The receiver's process, as a benchmark sees it."""

    kind = "tests/benchmarks/receiver.py"

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        assert self._process.stdout is not None
        pin(self._process.pid, other_cores())
        self.root = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        self.url = f"{self.root}/in"
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

    def posts(self) -> int:
        """How many POSTs came since it was told to forget."""
        return int(self._ask("GET")["posts"])

    def forget(self) -> int:
        """Begin anew; returns how many POSTs came until now."""
        return int(self._ask("DELETE")["posts"])

    def _ask(self, method: str) -> dict[str, Any]:
        request = urllib.request.Request(self.url, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=10) as answer:
            told: dict[str, Any] = json.load(answer)
            return told


class Nginx:
    """nginx with one process, keep-alive, and a small answer to everything."""

    kind = "nginx"

    def __init__(self, binary: str) -> None:
        self._binary = binary

    def __enter__(self) -> Self:
        self._place = tempfile.TemporaryDirectory(prefix="webhooks-nginx-")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/in"
        place = Path(self._place.name)
        (place / "nginx.conf").write_text(CONFIGURATION.format(place=place, port=port))
        self._process = subprocess.Popen(
            [self._binary, "-c", str(place / "nginx.conf"), "-e", str(place / "error.log")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        pin(self._process.pid, other_cores())
        until = time.monotonic() + 5
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                if self._process.poll() is not None or time.monotonic() > until:
                    self.__exit__()
                    raise
                time.sleep(0.05)
            else:
                return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._place.cleanup()


#: No master process, so that what was started is what serves; a connection lasts as long as it may.
CONFIGURATION = """\
daemon off;
master_process off;
pid {place}/pid;
error_log {place}/error.log crit;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    client_body_temp_path {place}/body;
    proxy_temp_path {place}/proxy;
    fastcgi_temp_path {place}/fastcgi;
    uwsgi_temp_path {place}/uwsgi;
    scgi_temp_path {place}/scgi;
    client_max_body_size 1m;
    keepalive_timeout 600s;
    keepalive_requests 100000000;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{ return 200 "ok"; }}
    }}
}}
"""


@contextmanager
def fastest() -> Iterator[Nginx | Receiver]:
    """nginx where it is installed and starts, else the small one; it tells by its ``kind``."""
    binary = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if binary:
        nginx = Nginx(binary)
        try:
            nginx.__enter__()
        except OSError:
            pass
        else:
            try:
                yield nginx
            finally:
                nginx.__exit__()
            return
    with Receiver() as receiver:
        yield receiver


if __name__ == "__main__":
    asyncio.run(serve())
