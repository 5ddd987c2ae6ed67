"""CloudEvents: structured and batch, as the CloudEvents SDK and Standard Webhooks read them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
import standardwebhooks
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event
from cloudevents.core.formats.json import JSONFormat
from django.core.exceptions import ImproperlyConfigured

from webhooks.formats import BatchRecord, EventRecord, Window, get_format
from webhooks.formats.signing import decode_secret, generate_secret

SOURCE = "https://shop.example.com/"
MOMENT = datetime(2027, 3, 4, 5, 6, 7, 89, tzinfo=UTC)
EVENT = EventRecord(
    id="evt_" + "a" * 32,
    type="push.clicked",
    occurred_at=MOMENT,
    data='{"price":1.10,"name":"\u00e9"}',
    subject="campaign:7",
)
MESSAGE = "msg_" + "b" * 32

cloudevents = get_format("cloudevents")


@pytest.fixture(autouse=True)
def source(settings: Any) -> None:
    settings.WEBHOOKS = settings.WEBHOOKS | {"CLOUDEVENTS_SOURCE": SOURCE}


def parse(body: bytes, headers: dict[str, str] | None = None) -> Any:
    headers = headers or {"content-type": cloudevents.content_type(batch=False)}
    return from_structured_event(HTTPMessage(headers=headers, body=body))


class TestOneEvent:
    def test_its_exact_bytes(self) -> None:
        expected = (
            '{"specversion":"1.0","id":"evt_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",'
            '"source":"https://shop.example.com/","type":"push.clicked",'
            '"time":"2027-03-04T05:06:07.000089Z","subject":"campaign:7",'
            '"datacontenttype":"application/json","data":{"price":1.10,"name":"\u00e9"}}'
        )
        assert cloudevents.body(EVENT) == expected.encode()

    def test_the_sdk_reads_it(self) -> None:
        event = parse(cloudevents.body(EVENT))
        assert event.get_id() == EVENT.id
        assert event.get_source() == SOURCE
        assert event.get_type() == "push.clicked"
        assert event.get_subject() == "campaign:7"
        assert event.get_time() == MOMENT
        assert event.get_data() == {"price": 1.1, "name": "\u00e9"}

    def test_an_event_without_subject_has_none(self) -> None:
        body = cloudevents.body(EventRecord("evt_1", "push.sent", MOMENT, "{}"))
        assert "subject" not in json.loads(body)
        assert parse(body).get_subject() is None

    def test_a_thin_one_tells_where_its_data_is(self) -> None:
        link = "https://shop.example.com/webhooks/events/evt_1/"
        body = cloudevents.body(EventRecord("evt_1", "push.sent", MOMENT, '{"a":1}', link=link))
        assert "data" not in json.loads(body)
        event = parse(body)
        assert event.get_extension("dataref") == link

    def test_it_is_signed_like_a_standard_webhook(self) -> None:
        secret = generate_secret()
        body = cloudevents.body(EVENT)
        now = int(datetime.now(UTC).timestamp())
        headers = cloudevents.headers(EVENT.id, now, body, [decode_secret(secret)])
        assert headers["Content-Type"] == "application/cloudevents+json; charset=UTF-8"
        read = standardwebhooks.Webhook(secret).verify(body, headers)
        assert read["type"] == "push.clicked"

    def test_without_a_source_there_is_no_event(self, settings: Any) -> None:
        settings.WEBHOOKS = settings.WEBHOOKS | {"CLOUDEVENTS_SOURCE": ""}
        with pytest.raises(ImproperlyConfigured, match="CLOUDEVENTS_SOURCE"):
            cloudevents.body(EVENT)


class TestBatch:
    def test_the_sdk_reads_each_of_its_events(self) -> None:
        other = EventRecord("evt_2", "push.sent", MOMENT, "[1,2]")
        body = cloudevents.batch_body(BatchRecord(MESSAGE, MOMENT, [EVENT, other]))
        assert cloudevents.content_type(batch=True) == (
            "application/cloudevents-batch+json; charset=UTF-8"
        )
        events = [parse(json.dumps(each).encode()) for each in json.loads(body)]
        assert [event.get_id() for event in events] == [EVENT.id, "evt_2"]
        assert [event.get_data() for event in events] == [{"price": 1.1, "name": "\u00e9"}, [1, 2]]
        assert body.decode() == f"[{cloudevents.body(EVENT).decode()},{_text(other)}]"

    def test_a_digest_of_figures_is_one_event(self) -> None:
        window = Window(MOMENT, MOMENT, "daily")
        counts = {"push.sent": 3, "push.clicked": 1}
        body = cloudevents.batch_body(BatchRecord(MESSAGE, MOMENT, [], window, counts=counts))
        [item] = json.loads(body)
        event = JSONFormat().read(None, json.dumps(item))
        assert event.get_type() == "webhooks.digest"
        assert event.get_id() == MESSAGE
        assert event.get_data()["counts"] == {"push.clicked": 1, "push.sent": 3}
        assert event.get_data()["window"]["trigger"] == "daily"

    def test_a_window_without_events_is_an_empty_array(self) -> None:
        window = Window(MOMENT, MOMENT, "daily")
        assert cloudevents.batch_body(BatchRecord(MESSAGE, MOMENT, [], window, counts={})) == b"[]"


def _text(event: EventRecord) -> str:
    return cloudevents.body(event).decode()
