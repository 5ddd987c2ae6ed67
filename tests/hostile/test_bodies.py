"""Requests that strangers wrote, to every route of the API: a problem in JSON, and nothing done.

They go through the WSGI handler itself, as a server calls it, so that what is announced and what
comes may differ; under pytest-django's client they could not.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, models
from django.utils import timezone

from tests.api.conftest import Speaker, _service, api, speak, stranger  # noqa: F401
from tests.api.test_routes import ROUTES, Route
from tests.world import emit_orders, fan_out_all
from webhooks.api.parsers import MAX_BYTES, MAX_DEPTH
from webhooks.models import Delivery, DeliveryAttempt, Replay, SigningSecret, Subscription

pytestmark = pytest.mark.django_db

TAKING = [route for route in ROUTES if route.operation.body]
LISTS = [route for route in ROUTES if route.pages]
NOT_JSON = (
    *("text/plain", "text/html", "application/xml", "application/*", "application/json5", ";"),
    *(
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "multipart/form-data",
    ),
    *("application/x-www-form-urlencoded; charset=utf-16", "a" * 5000, "application/json\xe9", ""),
)
FORM = b'--x\r\nContent-Disposition: form-data; name="callback_url"\r\n\r\nhttp://x/\r\n--x--\r\n'


def inside(text: str) -> bytes:
    """A JSON object that holds this text as a value, wherever it is sent."""
    return f'{{"metadata": {text}, "description": {text}}}'.encode()


REFUSED: dict[str, bytes] = {
    "empty of all but space": b" \r\n\t",
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": "{}".encode("utf-16"),
    "UTF-32": "{}".encode("utf-32"),
    "no UTF-8": b'{"a": "\xff\xfe"}',
    "an overlong NUL": b'{"a": "\xc0\x80"}',
    "a list": b"[]",
    "a list of objects": b"[{}]",
    "a text": b'"{}"',
    "null": b"null",
    "true": b"true",
    "a number": b"0",
    "two documents": b"{}{}",
    "one for each line": b"{}\n{}",
    "cut off": b'{"description": "abc',
    "cut off in an escape": b'{"description": "\\u00',
    "a comment": b"{/* */}",
    "a name twice": b'{"description": "a", "description": "b"}',
    "a name twice, escaped": b'{"description": "a", "descriptio\\u006e": "b"}',
    "NaN": inside("NaN"),
    "Infinity": inside("-Infinity"),
    "1e999": inside("1e999"),
    "-1e999": inside("[-1e999]"),
    "an integer of 5,001 digits": inside("1" + "0" * 5000),
    "an integer beyond a float": inside("1" + "0" * 309),
    "a negative one": inside("-1" + "0" * 5000),
    "a float of 60,000 digits": inside("0.1e" + "9" * 20_000),
    "NUL": inside('"\\u0000"'),
    "a lone surrogate": inside('"\\ud800"'),
    "a lone surrogate as name": b'{"\\udc00": 1}',
    "a level too deep": inside("[" * MAX_DEPTH + "]" * MAX_DEPTH),
    "brackets": b"[" * 60_000,
    "brackets in an object": b'{"metadata":' + b"[" * 60_000,
    "objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "brackets the wrong way round": b"]" * 30_000 + b"[" * 30_000,
    "a very long name": b'{"' + b"a" * 60_000 + b'": 1}',
    "four thousand names": json.dumps(dict.fromkeys(map(str, range(4000)))).encode(),
    "a form": b"callback_url=http%3A%2F%2Fx&event_types=*",
    "compressed": gzip.compress(b"{}"),
    "HTML": b"<script>alert(1)</script>",
}
#: Of any size: only the first 64 KiB are looked at.
TOO_LARGE: dict[str, bytes] = {
    "brackets": b"[" * 100_000,
    "brackets that close": b"[" * 100_000 + b"]" * 100_000,
    "a text": b'{"description": "' + b"a" * MAX_BYTES + b'"}',
    "space": b"{}" + b" " * MAX_BYTES,
}


class Answer:
    def __init__(self, status: str, headers: list[tuple[str, str]], content: bytes) -> None:
        self.status = int(status.split()[0])
        self.headers = {name.lower(): value for name, value in headers}
        self.content = content

    def problem(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/problem+json", self.content
        found: dict[str, Any] = json.loads(self.content)
        assert found["status"] == self.status
        assert found["title"]
        assert found["detail"]
        return found


class Stream(io.BytesIO):
    """A socket's input. broken: the client goes away in the middle."""

    def __init__(self, content: bytes, broken: bool) -> None:
        super().__init__(content)
        self.broken = broken

    def read(self, size: int | None = -1, /) -> bytes:
        if self.broken:
            raise ConnectionResetError("gone")
        return super().read(size)

    def readline(self, size: int | None = -1, /) -> bytes:
        return self.read(size)


@contextmanager
def one_connection() -> Iterator[None]:
    """A request's end closes no connection: the test's transaction is in it."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    try:
        yield
    finally:
        for signal in (request_started, request_finished):
            signal.connect(close_old_connections)


class Wire:
    """Sends requests to the handler, as a server would, and the things that they are about."""

    def __init__(self, speaker: Speaker, ids: dict[str, list[str]]) -> None:
        self.speaker = speaker
        self.ids = ids

    def path(self, route: Route) -> str:
        return "/webhooks/" + route.filled(*self.ids.get(route.path.split("/")[0], []))

    def send(
        self,
        route: Route,
        raw: bytes = b"",
        *,
        query: str = "",
        length: str | None = "",
        broken: bool = False,
        **environ: Any,
    ) -> Answer:
        """length: what is announced; "": the truth; None: nothing."""
        environ = {
            "REQUEST_METHOD": route.method,
            "PATH_INFO": self.path(route),
            "SCRIPT_NAME": "",
            "QUERY_STRING": query,
            "SERVER_NAME": "testserver",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "CONTENT_TYPE": "application/json",
            "HTTP_AUTHORIZATION": f"Bearer {self.speaker.token}",
            "wsgi.input": Stream(raw, broken),
            "wsgi.errors": io.StringIO(),
            "wsgi.url_scheme": "http",
            **environ,
        }
        if length is not None:
            environ["CONTENT_LENGTH"] = length or str(len(raw))
        told: list[Any] = []

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> None:
            told.extend((status, headers))

        with one_connection():
            body: Any = WSGIHandler()(environ, start)
            content = b"".join(body)
            body.close()
        return Answer(*told, content)

    def refused(self, status: int, raw: bytes, **options: Any) -> list[Answer]:
        """What every route that takes a body says to this one; nothing is changed by any."""
        before = rows()
        answers = [self.send(route, raw, **options) for route in TAKING]
        for route, answer in zip(TAKING, answers, strict=True):
            assert answer.status == status, (route, answer.content)
            answer.problem()
        assert rows() == before
        return answers


def rows() -> list[Any]:
    """Everything that a request could have changed."""
    kept: tuple[type[models.Model], ...] = (
        *(Subscription, SigningSecret, Delivery, DeliveryAttempt, Replay),
    )
    return [list(each._default_manager.order_by("pk").values()) for each in kept]


@pytest.fixture
def wire(api: Speaker) -> Wire:  # noqa: F811
    subscription = Subscription.objects.get(pk=api.subscribe()["id"])
    [event] = emit_orders(1, api.requester)
    fan_out_all()
    replay = Replay.objects.create(
        subscription=subscription,
        from_at=timezone.now() - timedelta(hours=1),
        to_at=timezone.now(),
        states=["dead"],
    )
    return Wire(
        api,
        {
            "subscriptions": [subscription.pk, replay.pk],
            "events": [event.pk],
            "deliveries": [Delivery.objects.get().pk],
            "event-types": ["order.paid"],
        },
    )


def test_there_are_routes_with_bodies() -> None:
    assert {route.method for route in TAKING} == {"POST", "PUT", "PATCH"}
    assert len(TAKING) >= 10
    assert all(route.operation.body for route in ROUTES if route.method not in ("GET", "DELETE"))


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_plain_json_object_is_400(what: str, wire: Wire) -> None:
    assert len(REFUSED[what]) <= MAX_BYTES
    answers = wire.refused(400, REFUSED[what])
    assert all(len(each.content) < 8_000 for each in answers)


@pytest.mark.parametrize("what", TOO_LARGE)
def test_what_is_too_large_is_413(what: str, wire: Wire) -> None:
    wire.refused(413, TOO_LARGE[what])


def test_what_is_not_called_json_is_415(wire: Wire) -> None:
    for kind in NOT_JSON:
        for raw in (b"{}", FORM):
            wire.refused(415, raw, CONTENT_TYPE=kind)


def test_json_in_another_charset_is_415(wire: Wire) -> None:
    for charset in ("latin-1", "utf-16", "utf-7", "base64", "nonsense", "idna"):
        wire.refused(415, b"{}", CONTENT_TYPE=f"application/json; charset={charset}")


def test_a_compressed_body_is_415(wire: Wire) -> None:
    for coding in ("gzip", "br", "deflate, gzip", "x" * 3000):
        for raw in (gzip.compress(b"{}"), b"{}"):
            wire.refused(415, raw, HTTP_CONTENT_ENCODING=coding)


def test_a_body_without_a_length_is_not_taken_for_none(wire: Wire) -> None:
    for length in (None, "abc", "-1", "1e3", "\xb2", "1" + "0" * 5000):
        answers = wire.refused(400, b"{}", length=length, HTTP_TRANSFER_ENCODING="chunked")
        assert all("Content-Length" in each.problem()["detail"] for each in answers)


def test_a_body_that_breaks_off_is_400(wire: Wire) -> None:
    for length in ("4000", "65536"):
        wire.refused(400, b'{"description": "abc', length=length)
        wire.refused(400, b"{}", length=length, broken=True)


def test_more_than_was_announced_is_no_part_of_the_body(wire: Wire) -> None:
    answers = wire.refused(400, b'{"nonsense": 1}', length="5")
    assert all("errors" not in each.problem() for each in answers)  # it was not read to the end


def test_a_length_beyond_the_limit_is_believed(wire: Wire) -> None:
    for length in ("65537", "9" * 18):
        wire.refused(413, b"{}", length=length)


def test_a_body_where_none_is_taken_is_not_looked_at(wire: Wire) -> None:
    for route in (each for each in ROUTES if each.method in ("GET", "DELETE")):
        expected = 204 if route.method == "DELETE" else 200
        for raw in (b"[" * 100_000, b"\xff", b'{"limit": 0}', FORM):
            for kind in ("application/json", "multipart/form-data; boundary=x", "text/plain"):
                assert wire.send(route, raw, CONTENT_TYPE=kind).status == expected, route
        for length in ("99999999", "-1", "abc", "\xb2"):
            assert wire.send(route, b"{}", length=length, broken=True).status == expected, route


QUERIES = (
    *("%00", "a%00b=1", "cursor=%00", "limit=%00", "limit=" + "9" * 5000, "limit=-1", "limit=1e3"),
    *("limit=%d9%a1", "limit=%C2%B2", "limit=1&limit=2", "cursor=a&cursor=b", "limit[]=1"),
    *("status=%ff%fe", "%ff=%ff", "cursor=%ED%A0%80", "cursor=\xff", "=", "&&&", "?", "a;b=1"),
    *("from=99999999999999999999", "from=" + "9" * 400, "from=-1", "from=NaN", "from=1e999"),
    *("to=0001-01-01T00:00:00Z", "to=9999-12-31T23:59:59-23:59", "from=2026-02-30T00:00:00Z"),
    *("subscription=%00", "subscription=sub_" + "f" * 32, "type=%0a", "type=" + "a" * 5000),
    *("&".join(f"a{n}=1" for n in range(1500)), "status=subscribed%00", "event_type=*%00"),
    *("requester=app:other", "callback_url=" + "%F0%9F%92%A9" * 100, "pretty=1&format=html"),
)


def test_no_query_fails(wire: Wire) -> None:
    # What ends a subscription comes last, for most of the others need a live one.
    for route in sorted(ROUTES, key=lambda each: each.method == "DELETE"):
        for query in QUERIES:
            answer = wire.send(route, b"{}" if route.operation.body else b"", query=query)
            assert answer.status in (200, 202, 204, 400), (route, query, answer.content)
            if answer.status == 400:
                answer.problem()


def forged() -> list[str]:
    """Cursors that nobody was given."""
    keys = (
        *("", "0", "-1", "9" * 500, "\0", "\ud800", "x' OR 1=1 --", "[]", "None", "sub_"),
        *(f"{prefix}_{'0' * 32}" for prefix in ("sub", "evt", "dlv", "att", "rpl", "xxx")),
        *(f"{prefix}_{'F' * 32}" for prefix in ("sub", "evt", "dlv", "att", "rpl")),
        *("order.paid", "order.paid\n", "%", "2026-01-01T00:00:00Z", "sub_" + "\u0660" * 32),
    )
    texts = [f"{sign}{key}" for key in keys for sign in ("", "+", "-")]
    encoded = [
        base64.urlsafe_b64encode(text.encode("utf-8", "surrogatepass")).decode().rstrip("=")
        for text in texts
    ]
    return [*encoded, "=", "====", "a", "\xe9", "A" * 513, "%2B", "_-_-", "é" * 10, " "]


def test_no_forged_cursor_fails_or_shows_more(wire: Wire) -> None:
    for route in LISTS:
        own = json.loads(wire.send(route).content)["results"]
        for cursor in forged():
            answer = wire.send(route, query=f"cursor={quote(cursor, safe='')}")
            assert answer.status in (200, 400), (route, cursor, answer.content)
            if answer.status == 400:
                answer.problem()
            else:
                assert all(each in own for each in json.loads(answer.content)["results"])
