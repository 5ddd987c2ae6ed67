"""Mandrill: the form, and the signature over URL and fields."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from urllib.parse import parse_qs

import pytest

from webhooks.exceptions import InvalidSignature
from webhooks.formats import BatchRecord, EventRecord, Window, get_format
from webhooks.formats.mandrill import signature
from webhooks.formats.signing import decode_secret, generate_secret
from webhooks.receiving import verify

MOMENT = datetime(2027, 3, 4, 5, 6, 7, 89, tzinfo=UTC)
MESSAGE = "msg_" + "b" * 32
URL = "https://user:pass@hooks.example.com/in?x=1"
mandrill = get_format("mandrill")


def event(pk: str = "evt_1", data: str = '{"a":"\u00e9&=+ %"}') -> EventRecord:
    return EventRecord(pk, "push.clicked", MOMENT, data)


def items(body: bytes) -> list[dict[str, object]]:
    fields = parse_qs(body.decode("ascii"), keep_blank_values=True, strict_parsing=True)
    assert list(fields) == ["mandrill_events"]
    [value] = fields["mandrill_events"]
    found: list[dict[str, object]] = json.loads(value)
    return found


@pytest.mark.parametrize(
    ("key", "url", "value", "expected"),
    [
        (
            "TEST_WEBHOOK_KEY",
            "http://username:password@testserver/anymail/mandrill/",
            '[{"event": "send"}]',
            "QUXzqdBD/L/blycKYMxJ4PJv7ek=",
        ),
        ("test-webhook", "https://example.com/hook", "[]", "q1iFfhUSFU7Unr1lnKqKA1TGkbM="),
    ],
)
def test_signature_vectors(key: str, url: str, value: str, expected: str) -> None:
    assert signature(key, url, {"mandrill_events": value}) == expected


def test_fields_are_signed_in_the_order_of_their_names() -> None:
    assert signature("k", "u", {"b": "2", "a": "1"}) == signature("k", "ua1b2", {})


def test_one_event_is_an_array_of_one() -> None:
    assert items(mandrill.body(event())) == [
        {"event": "push.clicked", "_id": "evt_1", "ts": 1804136767, "data": {"a": "\u00e9&=+ %"}}
    ]
    assert mandrill.content_type(batch=False) == "application/x-www-form-urlencoded"


def test_a_batch_is_an_array_of_all() -> None:
    body = mandrill.batch_body(BatchRecord(MESSAGE, MOMENT, [event("evt_1"), event("evt_2", "[]")]))
    assert [each["_id"] for each in items(body)] == ["evt_1", "evt_2"]


def test_a_digest_of_figures_is_one_item() -> None:
    window = Window(MOMENT, MOMENT, "daily")
    batch = BatchRecord(MESSAGE, MOMENT, [], window, counts={"push.sent": 2})
    [item] = items(mandrill.batch_body(batch))
    assert item["event"] == "webhooks.digest"
    assert item["_id"] == MESSAGE
    assert item["data"]["counts"] == {"push.sent": 2}  # type: ignore[index]


def test_the_newest_secret_signs_url_and_fields() -> None:
    secrets = [generate_secret(), generate_secret()]
    body = mandrill.body(event())
    [value] = parse_qs(body.decode())["mandrill_events"]
    headers = mandrill.headers("evt_1", 1, body, list(map(decode_secret, secrets)), url=URL)
    assert headers["X-Mandrill-Signature"] == signature(secrets[0], URL, {"mandrill_events": value})


def test_the_standard_headers_cover_the_same_bytes() -> None:
    secret = generate_secret()
    body = mandrill.body(event())
    now = int(datetime.now(UTC).timestamp())
    headers = mandrill.headers("evt_1", now, body, [decode_secret(secret)], url=URL)
    assert headers["webhook-id"] == "evt_1"
    with pytest.raises(InvalidSignature, match="no JSON"):  # signed well: that is looked at first
        verify(body, headers, secret)


def test_a_thin_item_has_its_url_as_data() -> None:
    record = EventRecord("evt_1", "push.sent", MOMENT, '{"a":1}', link="https://x.example/e/1/")
    [item] = items(mandrill.body(record))
    assert item["data"] == "https://x.example/e/1/"


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(ValueError, match="aware"):
        mandrill.body(EventRecord("evt_1", "push.sent", MOMENT.replace(tzinfo=None), "{}"))
