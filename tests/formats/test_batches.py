"""Batches and digests in the default format; what every format has in common, a host's own too."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from webhooks.formats import BatchRecord, EventRecord, Format, Window, get_format, known
from webhooks.formats.signing import decode_secret, generate_secret
from webhooks.receiving import verify

MOMENT = datetime(2027, 3, 4, tzinfo=UTC)
MESSAGE = "msg_" + "b" * 32
EVENTS = [EventRecord(f"evt_{i}", "push.sent", MOMENT, f'{{"n":{i}.0}}') for i in range(3)]
standard = get_format("standard")


class OneLine(Format):
    """A host's own format: as small as it may be."""

    name = "one-line"

    def content_type(self, *, batch: bool) -> str:
        return "text/plain"

    def body(self, event: EventRecord) -> bytes:
        return f"{event.type} {event.id}".encode()

    def batch_body(self, batch: BatchRecord) -> bytes:
        return b"\n".join(map(self.body, batch.events))


@pytest.fixture
def own_format(settings: Any) -> None:
    path = f"{__name__}.OneLine"
    settings.WEBHOOKS = settings.WEBHOOKS | {
        "FORMATS": {"one-line": path},
        "CLOUDEVENTS_SOURCE": "https://shop.example.com/",
    }


class TestStandardBatch:
    def test_its_exact_bytes(self) -> None:
        body = standard.batch_body(BatchRecord(MESSAGE, MOMENT, EVENTS[:2]))
        assert body.decode() == (
            f'{{"id":"{MESSAGE}","type":"batch","timestamp":"2027-03-04T00:00:00.000000Z",'
            f'"events":[{standard.body(EVENTS[0]).decode()},{standard.body(EVENTS[1]).decode()}]}}'
        )

    def test_a_digest_tells_its_window_page_and_counts(self) -> None:
        window = Window(MOMENT, MOMENT + timedelta(days=1), "daily")
        counts = {"push.sent": 2000, "push.clicked": 5}
        body = standard.batch_body(BatchRecord(MESSAGE, MOMENT, EVENTS, window, 2, 3, counts))
        read = json.loads(body)
        assert list(read) == [
            *("id", "type", "timestamp", "window", "page", "pages", "counts", "events")
        ]
        assert read["window"] == {
            "from": "2027-03-04T00:00:00.000000Z",
            "to": "2027-03-05T00:00:00.000000Z",
            "trigger": "daily",
        }
        assert (read["page"], read["pages"]) == (2, 3)
        assert read["counts"] == counts
        assert list(read["counts"]) == sorted(counts)  # the same bytes, however it was counted
        assert [each["id"] for each in read["events"]] == ["evt_0", "evt_1", "evt_2"]

    def test_a_batch_is_no_digest(self) -> None:
        read = json.loads(standard.batch_body(BatchRecord(MESSAGE, MOMENT, EVENTS)))
        assert list(read) == ["id", "type", "timestamp", "events"]

    def test_a_thin_event_has_its_url_as_data(self) -> None:
        link = "https://shop.example.com/webhooks/events/evt_0/"
        thin = EventRecord("evt_0", "push.sent", MOMENT, '{"n":0}', link=link)
        assert json.loads(standard.body(thin))["data"] == link
        batch = json.loads(standard.batch_body(BatchRecord(MESSAGE, MOMENT, [thin])))
        assert batch["events"][0]["data"] == link

    def test_receivers_verify_it(self) -> None:
        secret = generate_secret()
        body = standard.batch_body(BatchRecord(MESSAGE, MOMENT, EVENTS))
        headers = standard.headers(MESSAGE, 1, body, [decode_secret(secret)], batch=True)
        read = verify(body, headers, secret, tolerance=None)
        assert [each["data"] for each in read["events"]] == [{"n": 0.0}, {"n": 1.0}, {"n": 2.0}]


@pytest.mark.usefixtures("own_format")
class TestEveryFormat:
    """The contract, which the host's own formats keep as well."""

    @pytest.fixture(params=["standard", "cloudevents", "mandrill", "one-line"])
    def format_(self, request: Any, own_format: None) -> Format:
        return get_format(request.param)

    def test_it_is_known_by_its_name(self, format_: Format) -> None:
        assert format_.name in known()
        assert get_format(format_.name) is format_

    def test_the_same_records_make_the_same_bytes(self, format_: Format) -> None:
        assert format_.body(EVENTS[0]) == format_.body(EVENTS[0]) != format_.body(EVENTS[1])
        batch = BatchRecord(MESSAGE, MOMENT, EVENTS)
        assert format_.batch_body(batch) == format_.batch_body(BatchRecord(MESSAGE, MOMENT, EVENTS))

    def test_a_batch_is_no_longer_than_its_parts_say(self, format_: Format) -> None:
        def length(events: Sequence[EventRecord]) -> int:
            return len(format_.batch_body(BatchRecord(MESSAGE, MOMENT, events)))

        for count in range(1, 4):
            part = EVENTS[:count]
            assert length(part) <= length([]) + sum(map(format_.size, part))

    def test_id_time_and_signature_go_with_it(self, format_: Format) -> None:
        key = decode_secret(generate_secret())
        body = format_.body(EVENTS[0])
        headers = format_.headers("evt_0", 17, body, [key], url="https://hooks.example.com/")
        assert headers["webhook-id"] == "evt_0"
        assert headers["webhook-timestamp"] == "17"
        assert headers["webhook-signature"].startswith("v1,")
        assert headers["Content-Type"] == format_.content_type(batch=False)


@pytest.mark.usefixtures("own_format")
def test_an_unknown_format_names_those_that_are_known() -> None:
    with pytest.raises(LookupError, match="standard, cloudevents, mandrill, one-line"):
        get_format("soap")
