"""Bodies that strangers wrote: each gets a problem that says what is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api.conftest import Speaker
from tests.api.test_routes import problem
from webhooks.api import parsers
from webhooks.api.parsers import MAX_BYTES, MAX_DEPTH
from webhooks.models import Subscription

URL = "http://127.0.0.1:9/in"
NEW = {"callback_url": URL, "event_types": ["order.paid"]}


def body(inner: str) -> bytes:
    """A new subscription whose metadata hold this JSON text."""
    return (
        f'{{"callback_url": "{URL}", "event_types": ["order.paid"], "metadata": {{"a": {inner}}}}}'
    ).encode()


def nested(depth: int) -> bytes:
    return body("[" * (depth - 2) + "]" * (depth - 2))


REFUSED: dict[str, bytes] = {
    "nothing but space": b"  ",
    "cut off": b'{"a": ',
    "no JSON": b"callback_url=x",
    "single quotes": b"{'a': 1}",
    "a comma too many": b'{"a": 1,}',
    "two documents": b"{} {}",
    "a byte order mark": b"\xef\xbb\xbf{}",
    "a list": b"[]",
    "a text": b'"x"',
    "a number": b"5",
    "null": b"null",
    "a name twice": b'{"callback_url": "x", "callback_url": "y"}',
    "a name twice, escaped": b'{"a": 1, "\\u0061": 2}',
    "a name twice, deep": body('{"b": 1, "b": 1}'),
    "NaN": body("NaN"),
    "Infinity": body("Infinity"),
    "-Infinity": body("-Infinity"),
    "beyond a float": body("1e999"),
    "beyond a float, below": body("-1e999"),
    "beyond an int": body("1" * 5000),
    "NUL": body('"\\u0000"'),
    "NUL in a name": body('{"\\u0000": 1}'),
    "raw NUL": body('"\0"'),
    "a raw line break": body('"\n"'),
    "a lone surrogate": body('"\\ud800"'),
    "a lone low surrogate": body('"\\udfff"'),
    "surrogates the wrong way round": body('"\\udc00\\ud800"'),
    "a lone surrogate in a name": body('{"\\ud800": 1}'),
    "raw surrogate": b'{"a": "\xed\xa0\x80"}',
    "no UTF-8": b'{"a": "\xff"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "too deep": nested(MAX_DEPTH + 1),
    "too deep, in objects": body('{"a":' * MAX_DEPTH + "1" + "}" * MAX_DEPTH),
    "brackets": b"[" * 60_000,
    "braces": b'{"a":' * 12_000,
    "brackets that close": b"]" * 60_000,
    "quotes": b'"\\"' * 20_000,
    "backslashes": b'"' + b"\\" * 60_000,
}


@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_what_is_no_plain_json_object_is_400(raw: bytes, method: str, api: Speaker) -> None:
    path = "subscriptions/"
    if method != "POST":
        path = f"subscriptions/{api.subscribe()['id']}/"
    before = Subscription.objects.values().first()
    assert len(raw) < MAX_BYTES
    problem(api.send(method, path, raw=raw), 400)
    assert Subscription.objects.values().first() == before


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (nested(MAX_DEPTH), None),
        (body(r'"\ud83d\udca9"'), "💩"),
        (body('"[[[[[[[[[[[[[[[[[[[[[[[[[[[{"'), "[[[[[[[[[[[[[[[[[[[[[[[[[[[{"),
        (body(r'"\\\"[[[[[[[[[[[[[[[[[[[[[[[["'), '\\"[[[[[[[[[[[[[[[[[[[[[[[['),
        (body("-0.0"), -0.0),
        (body("1e-308"), 1e-308),
        (body('"\\u2028"'), "\u2028"),
    ],
)
def test_what_only_looks_strange_is_taken_as_it_is(raw: bytes, shown: Any, api: Speaker) -> None:
    answer = api.post("subscriptions/", raw=raw)
    assert answer.status_code == 201, answer.content
    if shown is not None:
        assert answer.json()["metadata"] == {"a": shown}
        read = api.get(f"subscriptions/{answer.json()['id']}/")
        assert read.json()["metadata"] == {"a": shown}


@pytest.mark.parametrize("size", [MAX_BYTES + 1, 1_000_000, 10_000_000])
def test_a_body_that_is_too_large_is_413(size: int, api: Speaker) -> None:
    raw = b"[" * size
    problem(api.post("subscriptions/", raw=raw), 413)
    # What is announced is believed before a byte is read.
    problem(api.post("subscriptions/", raw=b"{}", CONTENT_LENGTH=str(size)), 413)


def test_a_body_of_the_largest_size_is_read(api: Speaker) -> None:
    raw = body('""')
    raw += b" " * (MAX_BYTES - len(raw))
    assert len(raw) == MAX_BYTES
    assert api.post("subscriptions/", raw=raw).status_code == 201


def test_more_than_was_announced_is_not_read() -> None:
    class Stream:
        read_so_far = 0

        def read(self, size: int) -> bytes:
            self.read_so_far += size
            return b" " * size

    stream: Any = Stream()
    with pytest.raises(parsers.PayloadTooLarge):
        parsers.StrictJSONParser().parse(stream)
    assert stream.read_so_far == MAX_BYTES + 1


def test_a_hundred_thousand_brackets_do_no_harm() -> None:
    for raw in (b"[" * 100_000, b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 100_000):
        with pytest.raises(parsers.ParseError, match="levels deep"):
            parsers.read(raw)


@pytest.mark.parametrize(
    "kind",
    [
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain",
        "text/json",
        "application/xml",
        "application/jsonp",
        "",
        "x" * 300,
        "application/*",
        ";;;",
    ],
)
def test_anything_but_json_is_415(kind: str, api: Speaker) -> None:
    answer = api.post("subscriptions/", raw=json.dumps(NEW).encode(), content_type=kind)
    problem(answer, 415)


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON"])
def test_json_may_be_spelt_in_any_case(kind: str, api: Speaker) -> None:
    answer = api.post("subscriptions/", raw=json.dumps(NEW).encode(), content_type=kind)
    assert answer.status_code == 201


def test_no_body_is_an_empty_object(api: Speaker) -> None:
    errors = problem(api.post("subscriptions/"), 400)["errors"]
    assert set(errors) == {"callback_url", "event_types"}


@pytest.mark.parametrize(
    "accept",
    [
        *("application/json", "*/*", "application/*", "text/html, */*"),
        *("application/problem+json", "Application/Problem+JSON; q=0.9, text/html"),
    ],
)
def test_json_is_given_to_whoever_takes_it(accept: str, api: Speaker) -> None:
    assert api.get("subscriptions/", HTTP_ACCEPT=accept)["Content-Type"] == "application/json"
    assert api.get("schema/", HTTP_ACCEPT=accept)["Content-Type"] == "application/json"


def test_what_nobody_expected_is_a_problem_too(
    api: Speaker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: Any, **options: Any) -> None:
        raise RuntimeError("database password: hush")

    monkeypatch.setattr("webhooks.lifecycle.subscribe", broken)
    api.browser.raise_request_exception = False
    answer = api.post("subscriptions/", NEW)
    assert "hush" not in answer.content.decode()
    problem(answer, 500)
    assert "RuntimeError" in caplog.text


def test_a_host_that_is_not_allowed_is_a_problem_too(api: Speaker, settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["testserver"]
    settings.MIDDLEWARE = []
    answer = api.post("subscriptions/", NEW, HTTP_HOST="evil.example")
    assert answer.status_code == 400
    assert answer["Content-Type"] == "application/problem+json"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    [
        *("callback_url", "url", "event_types", "event", "status", "requester", "trigger", "hour"),
        *("format", "rate_limit", "ordered", "retry_schedule", "headers", "basic_auth", "secret"),
        *("contact_email", "description", "metadata", "handshake", "time_zone", "id"),
    ]
)
FUZZ = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@FUZZ
@given(asked=st.dictionaries(FIELDS | st.text(), VALUES, max_size=5))
def test_no_object_breaks_it(asked: dict[str, Any], api: Speaker) -> None:
    raw = json.dumps({**NEW, **asked}).encode("utf-8", "surrogatepass")
    for path, method in (("subscriptions/", "POST"), ("events/evt_1/", "GET")):
        answer = api.send(method, path, raw=raw)
        assert answer.status_code in (201, 400, 404), answer.content
        json.loads(answer.content)


@FUZZ
@given(raw=st.binary(max_size=200))
def test_no_bytes_break_it(raw: bytes, api: Speaker) -> None:
    answer = api.post("subscriptions/", raw=raw)
    problem(answer, 400)


@FUZZ
@given(name=st.text(max_size=20), value=st.text(max_size=20))
def test_no_query_breaks_it(name: str, value: str, api: Speaker) -> None:
    from urllib.parse import urlencode

    query = urlencode({name: value}, errors="surrogatepass")
    for path in ("subscriptions/", "events/", "deliveries/", "event-types/"):
        answer = api.get(f"{path}?{query}")
        assert answer.status_code in (200, 400)
        assert answer["Content-Type"] in ("application/json", "application/problem+json")


@FUZZ
@given(id=st.text(min_size=1, max_size=40))
def test_no_id_breaks_it(id: str, api: Speaker) -> None:
    from urllib.parse import quote

    quoted = quote(id, safe="", errors="surrogatepass")
    problem(api.get(f"subscriptions/{quoted}/"), 404)
