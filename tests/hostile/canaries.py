"""Secrets that must be found nowhere, and the ways in which a text may be written."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, quote_plus

from django.db import connection

#: How a finding is told: where, and the name of the canary.
Finding = tuple[str, str]


def spellings(secret: str) -> set[bytes]:
    """A secret as it may stand in a text: plain, percent-encoded, in hexadecimal, in base64.

    A signing secret is also its key.
    """
    found: set[bytes] = set()
    raw = [secret.encode()]
    if secret.startswith("whsec_"):
        encoded = secret.removeprefix("whsec_")
        raw += [encoded.encode(), base64.b64decode(encoded)]
    for each in raw:
        found |= {each, quote(each).encode(), quote_plus(each).encode()}
        found |= {each.hex().encode(), each.hex().upper().encode(), repr(each)[2:-1].encode()}
        found |= set(_in_base64(each))
    return found


def _in_base64(secret: bytes) -> Iterator[bytes]:
    """What base64 of any longer text with the secret in it must contain, in both alphabets."""
    for before in range(3):
        padded = bytes(before) + secret
        encoded = base64.b64encode(padded + bytes(-len(padded) % 3))
        # Characters at both ends depend on the neighbours.
        begin = -(-before * 8 // 6)
        inner = encoded[begin : len(padded) * 8 // 6]
        yield inner
        yield inner.translate(bytes.maketrans(b"+/", b"-_"))


def search(where: str, text: bytes, canaries: dict[str, str]) -> list[Finding]:
    """Which canaries, in whichever spelling, are in a text."""
    return [
        (where, name)
        for name, secret in canaries.items()
        if any(spelling in text for spelling in spellings(secret))
    ]


def tables() -> Iterator[tuple[str, bytes]]:
    """Every row of every table, as text."""
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
            for row in cursor.fetchall():
                yield table, b"\x1f".join(_as_bytes(value) for value in row)


def _as_bytes(value: Any) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    return str(value).encode()


@contextmanager
def overheard(host: str, port: int) -> Iterator[bytearray]:
    """All commands that a Redis server is given meanwhile, as MONITOR shows them."""
    said = bytearray()
    line = socket.create_connection((host, port), timeout=30)
    line.sendall(b"MONITOR\r\n")
    assert line.recv(5) == b"+OK\r\n"

    def listen() -> None:
        try:
            while part := line.recv(65536):
                said.extend(part)
        except OSError:
            pass

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield said
    finally:
        line.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        line.close()
