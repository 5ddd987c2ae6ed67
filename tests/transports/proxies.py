"""A real HTTP proxy on loopback that opens tunnels (``CONNECT``), or refuses to."""

from __future__ import annotations

import contextlib
import socket
import threading

from tests.transports.receivers import Receiver, normal

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


class Proxy(Receiver):
    """``with Proxy() as proxy:`` then set ``EGRESS_PROXY`` to ``proxy.url``.

    answer: what it says to a CONNECT; only after 200 is anything passed on.
    """

    def __init__(self, answer: bytes = ESTABLISHED) -> None:
        super().__init__(normal, greet=self._tunnel)
        self.answer = answer
        #: The head of each request, as it came.
        self.heads: list[str] = []

    @property
    def goals(self) -> list[str]:
        """What it was asked to reach."""
        return [head.split(" ")[1] for head in self.heads]

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def _tunnel(self, client: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = client.recv(1)
            if not byte:
                return
            head += byte
        self.heads.append(head.decode("latin-1"))
        if b" 200 " not in self.answer:
            client.sendall(self.answer)
            return
        host, _, port = self.goals[-1].rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port))) as receiver:
            client.sendall(self.answer)
            back = threading.Thread(target=_pass, args=(receiver, client), daemon=True)
            back.start()
            _pass(client, receiver)
            back.join(5)


def _pass(source: socket.socket, goal: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            goal.sendall(data)
    with contextlib.suppress(OSError):
        goal.shutdown(socket.SHUT_WR)
