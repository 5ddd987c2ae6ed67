"""Rows, policy and name servers of ``callback_urls.tsv``: no test asks the real ones."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

TABLE = Path(__file__).with_name("callback_urls.tsv")
POLICY = {
    "ALLOW_HTTP": True,
    "ALLOWED_PORTS": (80, 443, 8080, 8443),
    "DENIED_HOSTS": ("hook.self.example.com",),
}
PUBLIC = "93.184.216.34"
ZONE = {
    "hooks.example.com": [PUBLIC],
    "hooks_x.example.com": [PUBLIC],
    "a.b.c.d.e.example.com": [PUBLIC],
    "127.0.0.1.example.com": [PUBLIC],
    "localhost.example.com": [PUBLIC],
    "hook.self.example.com": [PUBLIC],
    "xn--mnchen-3ya.example": [PUBLIC],
    "xn--80ak6aa92e.com": [PUBLIC],
    "v6.example.com": ["2606:4700::1111"],
    "dual.example.com": [PUBLIC, "2606:4700::1111"],
    "priv.example.com": ["10.1.2.3"],
    "cname.example.com": ["169.254.169.254"],
    "metadata.google.internal": ["169.254.169.254"],
    "mixed.example.com": [PUBLIC, "10.0.0.5"],
    "mixed6.example.com": [PUBLIC, "::1"],
    "mapped.example.com": ["::ffff:169.254.169.254"],
    "nat64.example.com": ["64:ff9b::a9fe:a9fe"],
    "scoped.example.com": ["fe80::1%eth0"],
    "127.0.0.1.nip.example": ["127.0.0.1"],
    "localhost": ["127.0.0.1"],
    "dual-localhost": ["127.0.0.1", "::1"],
    "intranet": [PUBLIC],
    "printer.local": ["127.0.0.9"],
}


#: What the C library takes for an IPv4 address: up to four numbers, octal and hexadecimal too.
NUMBERS = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+)){0,3}\.?", re.IGNORECASE)


@dataclass(frozen=True)
class Row:
    """A line of the table. accept: its verdict. why: what it stands for."""

    url: str
    accept: bool
    why: str


def rows() -> list[Row]:
    found = []
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") or not line:
            continue
        url, verdict, why = line.split("\t")
        if why.startswith("["):
            for escape, character in (("\\t", "\t"), ("\\r", "\r"), ("\\n", "\n"), ("\\0", "\0")):
                url = url.replace(escape, character)
        assert verdict in ("accept", "reject"), line
        found.append(Row(url, verdict == "accept", why))
    return found


def each_row() -> Any:
    """Parametrises a test with ``row``."""
    cases = [
        pytest.param(row, id=f"{'accept' if row.accept else 'reject'}-{row.why}") for row in rows()
    ]
    return pytest.mark.parametrize("row", cases)


class Resolver:
    """Stands in for ``getaddrinfo``: answers from ``ZONE``, counts what it is asked.

    As the C library does, it takes numbers for addresses.
    """

    def __init__(self, **zone: list[str]) -> None:
        self.asked: list[str] = []
        self.zone = {**ZONE, **zone}

    def __call__(self, host: str, port: int, *args: Any, **kwargs: Any) -> list[Any]:
        self.asked.append(host)
        if NUMBERS.fullmatch(host):
            return [self.answer(socket.inet_ntoa(socket.inet_aton(host.rstrip("."))), port)]
        ips = self.zone.get(host.rstrip(".").lower())
        if ips is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [self.answer(ip, port) for ip in ips]

    @staticmethod
    def answer(ip: str, port: int) -> Any:
        if ":" in ip:
            return (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (ip, port, 0, 0))
        return (socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port))
