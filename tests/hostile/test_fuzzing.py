"""Whatever strangers write, the small functions that read it answer, or raise what they document.

The examples are the same in every run. ``WEBHOOKS_FUZZ_EXAMPLES=20000`` tries so many new ones.
"""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import idna
import pytest
from django.core.exceptions import ValidationError
from django.test import override_settings
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from rest_framework.exceptions import ParseError
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from tests.transports import posting
from tests.transports.posting import TRANSPORTS, post, transport_named
from tests.transports.zone import PUBLIC
from webhooks.api import parsers
from webhooks.engine.outcome import retry_after
from webhooks.exceptions import BlockedAddress, InvalidSecret, InvalidSignature
from webhooks.formats.signing import generate_secret, sign
from webhooks.headers import DENIED, DENIED_PREFIXES, check_basic_auth, check_headers
from webhooks.receiving import verify
from webhooks.transports import addresses
from webhooks.transports.base import Transport
from webhooks.transports.requests import RESERVED_HEADERS
from webhooks.transports.sockets import PlainSocket

EXAMPLES = int(os.environ.get("WEBHOOKS_FUZZ_EXAMPLES", "0"))


def fuzz(examples: int) -> hypothesis_settings:
    return hypothesis_settings(
        max_examples=EXAMPLES or examples,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


# URLs

DIGITS = st.sampled_from([*"0123456789", "\uff11", "\u0661", "\u00b2", "\u2460", "0x", "%31"])
DOTS = st.sampled_from([".", ".", ".", "..", "\u3002", "\uff0e", "\uff61", "%2e", ""])
LABELS = st.sampled_from(
    [
        *(
            "example",
            "com",
            "hooks",
            "localhost",
            "xn--mnchen-3ya",
            "m\xfcnchen",
            "fa\xdf",
            "\u200b",
        ),
        *("\u24d4\u24e7", "\uff45x", "xn--", "xn--a", "-a", "a-", "_a", "a" * 64, "\u043f\u0440"),
        *("0x7f", "127", "1", "0", "017", "2130706433", "169", "254", "internal", "local", "A.B"),
        *("\u1e9e", "\u0130", "a\u0301", "\u00ad", "\u2024", "\u2100", "\u0660", "test"),
    ]
)
NAMES = st.lists(st.one_of(LABELS, st.text(max_size=4)), min_size=1, max_size=5).flatmap(
    lambda labels: st.lists(DOTS, min_size=len(labels), max_size=len(labels)).map(
        lambda dots: "".join(a + b for a, b in zip(labels, dots, strict=True))
    )
)
LITERALS = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda ip: f"[{ip}]"),
    st.ip_addresses(v=6).map(lambda ip: f"[{ip.exploded}]".upper()),
    st.ip_addresses(v=4).map(lambda ip: f"[::ffff:{ip}]"),
    st.ip_addresses(v=4).map(lambda ip: str(int(ip))),
    st.ip_addresses(v=4).map(lambda ip: ".".join(oct(part) for part in ip.packed)),
    st.lists(st.one_of(DIGITS, DOTS), max_size=12).map("".join),
    st.text(alphabet="0123456789abcdef:.%[]", max_size=20).map(lambda text: f"[{text}]"),
)
AUTHORITIES = st.tuples(
    st.sampled_from(["", "", "", "a@", "a:b@", "@", "a%40b@", "a@b@", "hooks.example.com:80@"]),
    st.one_of(NAMES, LITERALS, st.text(max_size=12), st.just("hooks.example.com")),
    st.sampled_from(
        ["", "", ":", ":443", ":0443", ":0", ":65536", ":x", ":80:80", ":\uff18", ":+1"]
    ),
).map("".join)
SCHEMES = st.sampled_from(
    [
        "https://",
        "http://",
        "HTTPS://",
        "https:/",
        "https:///",
        "//",
        "https:",
        "ftp://",
        " https://",
    ]
)
RESTS = st.one_of(
    st.sampled_from(
        ["", "/", "?", "#", "\\", ";", "/@b/", "?@b", "/%2f", "\\@b/", "/a/../b", "?#@b"]
    ),
    st.text(max_size=10).map("/".__add__),
    st.text(max_size=10),
)
STRUCTURED = st.tuples(SCHEMES, AUTHORITIES, RESTS).map("".join)


TABLE = [
    line.split("\t")[0]
    for line in (Path(posting.__file__).parent / "callback_urls.tsv")
    .read_text("utf-8")
    .splitlines()
    if line and not line.startswith("#")
]


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A row of the table of callback URLs, with some characters put in, out or elsewhere."""
    url: str = draw(st.sampled_from(TABLE))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(url)))
        put = draw(st.one_of(st.text(max_size=2), st.sampled_from("@:/\\?#.[]%\t\n \u3002")))
        url = url[:place] + put + url[place + draw(st.integers(0, 2)) :]
    return url


#: Odd in one place at most, so that many of them pass.
LIKELY = st.tuples(
    st.sampled_from(["https://", "http://", "http://", "HTTP://", "hTTp://"]),
    st.one_of(
        LITERALS,
        st.ip_addresses(v=4, network="11.0.0.0/8").map(str),
        st.ip_addresses(v=6, network="2606:4700::/32").map(lambda ip: f"[{ip.exploded}]".upper()),
        st.text(alphabet="abXYz019-_.", max_size=12).map("a{}b.com".format),
        st.lists(LABELS, min_size=1, max_size=2).map(lambda each: ".".join([*each, "example"])),
        st.lists(LABELS, max_size=1).map(lambda each: ".".join(["a", *each, "com."])),
        st.text(alphabet=st.characters(categories=["L", "N", "Mn"]), max_size=4).map(
            lambda text: f"{text}.example"
        ),
    ),
    st.sampled_from(["", "", ":", ":8443", ":0443", ":1", ":65535"]),
    st.one_of(
        st.sampled_from(["", "/", "?a=@b", "/@b:c/..;d?"]), st.text(max_size=6).map("/".__add__)
    ),
).map("".join)
URLS = st.one_of(st.text(max_size=40), mutated(), STRUCTURED, STRUCTURED)
ANYWHERE = {"ALLOW_HTTP": True, "ALLOWED_PORTS": "any", "ALLOWED_NETWORKS": ["127.0.0.0/8"]}


@pytest.fixture
def anywhere() -> Iterator[None]:
    """Any port, http as well; loopback is where the tests' server stands."""
    with override_settings(WEBHOOKS=ANYWHERE):
        yield


class Dialled:
    """What was looked up, and which address was dialled; every connection leads to one server."""

    def __init__(self, server: tuple[str, int]) -> None:
        self.server = server
        self.asked: list[str] = []
        self.addresses: list[tuple[str, int]] = []

    def look_up(self, host: str, port: int, *args: Any, **options: Any) -> list[Any]:
        self.asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (PUBLIC, port))]

    def connect(self, sock: PlainSocket, sockaddr: tuple[Any, ...]) -> None:
        self.addresses.append(sockaddr[:2])
        host, port = self.server
        ipv6 = sock.family == socket.AF_INET6
        socket.socket.connect(sock, (f"::ffff:{host}", port, 0, 0) if ipv6 else (host, port))

    def forget(self) -> None:
        self.asked.clear()
        self.addresses.clear()


class Server:
    """Answers 200 to each request, one connection for each; keeps the heads as they came."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                connection.settimeout(5)
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        came = b""
        while b"\r\n\r\n" not in came:
            part = connection.recv(65536)
            came += part
            if not part or came[:1] == b"\x16":  # a TLS handshake, which this is no partner for
                return
        self.heads.append(came.split(b"\r\n\r\n")[0])
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    def close(self) -> None:
        # close() alone does not wake a thread in accept().
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def dialled(server: Server, monkeypatch: pytest.MonkeyPatch) -> Dialled:
    record = Dialled(server.address)
    monkeypatch.setattr(socket, "getaddrinfo", record.look_up)
    monkeypatch.setattr(PlainSocket, "connect", lambda sock, to: record.connect(sock, to))
    return record


@pytest.fixture(params=TRANSPORTS, ids=lambda path: path.rsplit(".", 1)[1])
def transport(request: pytest.FixtureRequest) -> Iterator[Transport]:
    made = transport_named(request.param)(concurrency=1)
    yield made
    made.close()


def judged(url: str) -> addresses.Target | None:
    """What the judge makes of a URL; None: refused. Any other error is the test's."""
    try:
        return addresses.judge(url)
    except BlockedAddress:
        return None


@fuzz(300)
@given(url=URLS)
@example(url="https://[::ffff:127.0.0.1%25eth0]/")
@example(url="https://\u2100.example/")
@example(url="http://\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3/")
@example(url="https://xn--\ud800/")
def test_the_judge_of_urls_answers_or_refuses(url: str, dialled: Dialled) -> None:
    for policy in ({}, ANYWHERE, {"ALLOWED_NETWORKS": ["::/0", "0.0.0.0/0"]}):
        with override_settings(WEBHOOKS=policy):
            target = judged(url)
            for resolve in (True, False):
                with suppress(BlockedAddress):
                    addresses.check_url(url, resolve=resolve)
                    assert target is not None


def test_what_is_accepted_has_the_same_host_to_other_parsers(anywhere: None) -> None:
    accepted = []

    @fuzz(300)
    @given(url=st.one_of(LIKELY, LIKELY, URLS))
    @example(url="https://fa\xdf.example/")
    @example(url="https://fa\xdf.xn--a.example/")
    @example(url="https://hooks.example.com:/")
    @example(url="https://hooks.example.com?@b")
    def compare(url: str) -> None:
        target = judged(url)
        if target is None:
            return
        accepted.append(url)
        parts = urlsplit(url)
        assert parts.hostname is not None
        host = target.host.strip("[]")
        if not parts.hostname.isascii():  # as browsers read it (UTS 46)
            labels = [
                each if each.isascii() else idna.encode(each, uts46=True).decode()
                for each in parts.hostname.split(".")
            ]
            assert host == ".".join(labels)
        elif ":" in host:
            assert ip_address(host) == ip_address(parts.hostname)
        else:
            assert host == parts.hostname
        assert (parts.port or {"http": 80, "https": 443}[target.scheme]) == target.port
        assert parts.username is None

    compare()
    assert len(accepted) > 25


def test_what_is_judged_is_what_is_dialled(
    anywhere: None, transport: Transport, dialled: Dialled, server: Server
) -> None:
    reached = []

    @fuzz(250)
    @given(url=st.one_of(LIKELY, LIKELY, URLS))
    @example(url="http://hooks.example.com./a?b")
    @example(url="http://[::FFFF:11.0.0.1]:8080/")
    @example(url="http://HOOKS.example.com:80/")
    @example(url="http://m\xfcnchen.example/\xfc?\xfc")
    def send(url: str) -> None:
        target = judged(url)
        if target is None:
            return
        dialled.forget()
        server.heads.clear()
        response = post(transport, url)
        host = target.host.strip("[]")
        literal = addresses.parse_address(host)
        assert dialled.asked == ([] if literal else [host])
        if not dialled.addresses:  # a private name, which may lead into our own networks alone
            assert response.error_code == "blocked_address"
            return
        assert dialled.addresses == [(str(literal or PUBLIC), target.port)]
        if target.scheme == "https":  # the server does not speak it
            assert response.status_code is None
            return
        assert response.status_code == 200, response
        reached.append(url)
        [head] = server.heads
        request_line, *lines = head.decode("latin-1").split("\r\n")
        assert request_line == f"POST {target.path} HTTP/1.1"
        [sent] = [line[6:] for line in lines if line.lower().startswith("host: ")]
        name = re.sub(r":[0-9]+$", "", sent)
        if literal:  # libcurl writes an address in its shortest form
            assert addresses.parse_address(name.strip("[]")) == literal
        else:
            assert name.rstrip(".") == target.host.rstrip(".")

    send()
    assert len(reached) > 15


# Headers

TOKENS = st.text(alphabet="!#$%&'*+.^_`|~09AZaz-", min_size=1, max_size=8)
HEADER_NAMES = st.one_of(
    TOKENS.map("X-".__add__),
    st.text(max_size=8),
    st.sampled_from(
        [*sorted(DENIED), "Accept", "accept-encoding", "User-Agent", "Host ", "A:", ""]
    ),
    st.sampled_from(DENIED_PREFIXES).flatmap(lambda prefix: TOKENS.map(prefix.__add__)),
)
HEADER_VALUES = st.one_of(
    st.text(alphabet=st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20),
    st.text(max_size=8),
    st.sampled_from(["a\r\nB: c", "a\n b", "a\r", "\x00", " a", "a ", "\t", "\x85", "a\x0bb", ""]),
)


def sent_lines(server: Server) -> list[tuple[str, str]]:
    """The header lines of the one request that came; the bytes are split at CR LF alone."""
    [head] = server.heads
    lines = head.split(b"\r\n")[1:]
    return [
        (name.decode("latin-1"), value.decode("latin-1").strip(" \t"))
        for name, _, value in (line.partition(b":") for line in lines)
    ]


@fuzz(100)
@given(headers=st.dictionaries(HEADER_NAMES, HEADER_VALUES, max_size=4))
@pytest.mark.usefixtures("anywhere")
def test_a_header_that_is_accepted_goes_out_as_one_line(
    headers: dict[str, str], transport: Transport, dialled: Dialled, server: Server
) -> None:
    try:
        check_headers(headers)
    except ValidationError:
        return
    server.heads.clear()
    response = post(transport, "http://hooks.example.com/", headers=headers, body=b"{}")
    assert response.status_code == 200, response
    lines = sent_lines(server)
    for name, value in headers.items():
        assert [line for line in lines if line[0].lower() == name.lower()] == [(name, value)]
    names = {name.lower() for name, _ in lines}
    assert names <= {name.lower() for name in headers} | RESERVED_HEADERS | {
        *("accept-encoding", "user-agent"),
    }


@fuzz(100)
@given(
    headers=st.dictionaries(
        HEADER_NAMES,
        st.one_of(HEADER_VALUES, st.binary(max_size=9).map(lambda raw: raw.decode("latin-1"))),
        max_size=3,
    )
)
@example(headers={"X-A": ""})
@example(headers={"X-A": "\x85"})
@example(headers={"X-A": "\xe9\t\xe9"})
@example(headers={"X-A": "a", "x-a": "b"})
@pytest.mark.usefixtures("anywhere")
def test_the_transport_sends_a_header_as_one_line_or_nothing(
    headers: dict[str, str], transport: Transport, dialled: Dialled, server: Server
) -> None:
    dialled.forget()
    server.heads.clear()
    response = post(transport, "http://hooks.example.com/", headers=headers, body=b"{}")
    if response.error_code == "invalid_request":
        assert dialled.addresses == []
        return
    assert response.status_code == 200, response
    lines = sent_lines(server)
    replaced = {"accept-encoding", "user-agent"}
    for name, value in headers.items():
        if name.lower() not in replaced:
            assert lines.count((name, value.strip(" \t"))) == 1
    custom = [name for name in headers if name.lower() not in replaced]
    own = [line for line in lines if line[0] not in custom]
    assert {name.lower() for name, _ in own} <= RESERVED_HEADERS | replaced


@fuzz(200)
@given(value=st.one_of(st.text(), st.none(), st.integers(), st.binary(), st.lists(st.text())))
def test_basic_auth_and_headers_that_are_none_are_refused_in_words(value: Any) -> None:
    for check in (check_basic_auth, check_headers):
        with suppress(ValidationError):
            check(value)
            assert isinstance(value, str)
            assert value.isascii()
            assert value.isprintable()
    with suppress(ValidationError):
        check_headers({"X-A": value, value if isinstance(value, str) else 7: "a"})


# Signatures

SECRET = generate_secret()
IDS = st.text(alphabet="abz019_-", min_size=1, max_size=12)
OBJECTS = st.dictionaries(
    st.text(max_size=4), st.one_of(st.integers(), st.text(max_size=6), st.none()), max_size=3
)
SIGNED = st.tuples(IDS, OBJECTS.map(lambda each: json.dumps(each).encode()))
ANY_VALUE = st.one_of(
    st.text(max_size=20),
    st.binary(max_size=20),
    st.integers(),
    st.none(),
    st.just(lambda: None),
    st.sampled_from(
        ["v1,", "v1,AAAA", "v1", ",", " ", "v1,\ud800", "1" * 40, "1.5", "\u0661", "v1,="]
    ),
)
ANY_NAME = st.one_of(
    st.sampled_from(
        [
            *("webhook-id", "webhook-timestamp", "webhook-signature", "WEBHOOK-ID"),
            *("HTTP_WEBHOOK_ID", "webhook_timestamp", "http-webhook-signature"),
        ]
    ),
    st.text(max_size=6),
    st.integers(),
    st.binary(max_size=4),
)
ANY_SECRET = st.one_of(
    st.just(SECRET),
    st.text(max_size=12),
    st.text(max_size=40).map("whsec_".__add__),
    st.binary(max_size=50).map(lambda key: "whsec_" + base64.b64encode(key).decode()),
    st.none(),
    st.binary(max_size=9),
    st.lists(st.one_of(st.just(SECRET), st.text(max_size=9), st.none(), st.integers()), max_size=3),
)


def signed(message_id: str, body: bytes, secrets: list[str] | None = None) -> dict[str, str]:
    now = int(time.time())
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(now),
        "webhook-signature": sign(secrets or [SECRET], message_id, now, body),
    }


def theirs(body: bytes, headers: dict[str, str]) -> bool:
    """Whether the reference library takes the message."""
    try:
        Webhook(SECRET).verify(body, headers)
    except (WebhookVerificationError, ValueError):
        return False
    return True


def ours(body: bytes, headers: dict[str, str]) -> bool:
    try:
        verify(body, headers, SECRET)
    except InvalidSignature:
        return False
    return True


@fuzz(300)
@given(
    body=st.one_of(st.binary(max_size=40), st.text(max_size=20)),
    headers=st.dictionaries(ANY_NAME, ANY_VALUE, max_size=6),
    secret=ANY_SECRET,
    genuine=st.booleans(),
    tolerance=st.sampled_from([None, 0, 300, -1]),
)
@example(body=b"{}", headers={}, secret=None, genuine=True, tolerance=300)
@example(body="\ud800", headers={}, secret=SECRET, genuine=True, tolerance=None)
@example(body=b"[" * 100_000, headers={}, secret=SECRET, genuine=True, tolerance=None)
@example(body=b"1" * 5000, headers={}, secret=SECRET, genuine=True, tolerance=None)
def test_verifying_answers_with_an_object_or_refuses(
    body: bytes | str, headers: dict[Any, Any], secret: Any, genuine: bool, tolerance: int | None
) -> None:
    raw = body.encode("utf-8", "replace") if isinstance(body, str) else body
    given_headers = {**headers, **(signed("evt_1", raw) if genuine else {})}
    with suppress(InvalidSignature, InvalidSecret):
        assert isinstance(verify(body, given_headers, secret, tolerance), dict)


@fuzz(200)
@given(message=SIGNED, secrets=st.integers(1, 3))
def test_what_is_signed_is_verified_by_both(message: tuple[str, bytes], secrets: int) -> None:
    message_id, body = message
    others = [generate_secret() for _ in range(secrets - 1)]
    headers = signed(message_id, body, [*others, SECRET])
    assert verify(body, headers, SECRET) == json.loads(body)
    assert theirs(body, headers)
    with pytest.raises(InvalidSignature):
        verify(body, headers, generate_secret())


@fuzz(300)
@given(
    message=SIGNED,
    part=st.sampled_from(["body", "webhook-id", "webhook-timestamp", "signature"]),
    place=st.integers(0, 10_000),
)
def test_one_flipped_bit_is_never_verified_by_either(
    message: tuple[str, bytes], part: str, place: int
) -> None:
    message_id, body = message
    headers = signed(message_id, body)

    def flip(raw: bytes) -> bytes:
        at, bit = divmod(place % (len(raw) * 8), 8)
        return raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :]

    if part == "body":
        body = flip(body)
    elif part == "signature":
        digest = base64.b64decode(headers["webhook-signature"][3:])
        headers["webhook-signature"] = "v1," + base64.b64encode(flip(digest)).decode()
    else:
        headers[part] = flip(headers[part].encode()).decode("latin-1")
    assert not ours(body, headers)
    assert not theirs(body, headers)


@fuzz(200)
@given(
    message=SIGNED,
    extra=st.lists(
        st.sampled_from(
            ["v1,AAAA", "v2,x", "v1a,AAAA", "v1," + base64.b64encode(b"k" * 32).decode()]
        ),
        max_size=3,
    ),
    keep=st.booleans(),
)
def test_both_give_the_same_verdict_on_lists_of_signatures(
    message: tuple[str, bytes], extra: list[str], keep: bool
) -> None:
    message_id, body = message
    headers = signed(message_id, body)
    own = [headers["webhook-signature"]] if keep else []
    headers["webhook-signature"] = " ".join([*extra, *own])
    assert ours(body, headers) is theirs(body, headers) is keep


# JSON

JSON_VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(),
        st.integers().map(lambda n: 7**n if 0 < n < 2000 else n),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)
JSON_TOKENS = st.lists(
    st.sampled_from(
        [
            *("{", "}", "[", "]", ":", ",", '"', '"a"', '"b":', "1", "-", "0", ".5", "e9", "1e999"),
            *(
                "null",
                "true",
                "NaN",
                "Infinity",
                "-Infinity",
                "\\u0000",
                "\\ud800",
                '"\\',
                " ",
                "\n",
            ),
            *("\ufeff", "[" * 21, "9" * 400, '"\\u0061":', "'", "//"),
        ]
    ),
    max_size=14,
).map("".join)
DOCUMENTS = st.one_of(
    st.binary(max_size=60),
    JSON_TOKENS.map(str.encode),
    JSON_VALUES.map(lambda value: json.dumps(value).encode()),
    JSON_VALUES.map(
        lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    ),
)


@fuzz(300)
@given(raw=DOCUMENTS)
@example(raw=b"[" * 100_000)
@example(raw=b"1" * 5000)
@example(raw=b'{"a":-1e309}')
@example(raw=b'"\\ud83d\\udca9"')
@example(raw=b"-0")
def test_json_is_read_as_json_loads_reads_it_or_refused(raw: bytes) -> None:
    try:
        value = parsers.read(raw)
    except ParseError:
        return
    assert repr(value) == repr(json.loads(raw))  # repr: -0.0 and 0, 1 and True differ
    json.dumps(value, allow_nan=False, ensure_ascii=False).encode()


# Retry-After

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DATE_PARTS = st.sampled_from(
    [
        *(
            "Fri",
            ",",
            " ",
            "02",
            "Jan",
            "2026",
            "03:04:06",
            "GMT",
            "+0000",
            "-9999",
            "+2460",
            "0001",
        ),
        *(
            "9999",
            "31",
            "Feb",
            "99:99:99",
            ":",
            ".",
            "-",
            "/",
            "EST",
            "00",
            "999999999",
            "\u0661",
            "t",
        ),
    ]
)


@fuzz(400)
@given(
    text=st.one_of(
        st.text(max_size=20),
        st.lists(DATE_PARTS, max_size=9).map(" ".join),
        st.lists(DATE_PARTS, max_size=9).map("".join),
        st.integers().map(str),
        st.datetimes().map(lambda moment: moment.strftime("%a, %d %b %Y %H:%M:%S GMT")),
        st.text(alphabet="0123456789+-.e", max_size=400),
    )
)
@example(text="9" * 5000)
@example(text="Fri, 31 Dec 9999 23:59:59 -9999")
@example(text="Mon, 01 Jan 0001 00:00:00 +2359")
@example(text="\u00b2")
def test_retry_after_is_some_seconds_of_a_day_or_nothing(text: str) -> None:
    seconds = retry_after(text, NOW)
    assert seconds is None or 0 <= seconds <= 86_400
