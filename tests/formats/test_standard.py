"""The default format: its exact bytes, its headers, and how a format is found."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone

import pytest
import standardwebhooks
from hypothesis import given
from hypothesis import strategies as st

from webhooks.exceptions import InvalidSecret
from webhooks.formats import EventRecord, get_format
from webhooks.formats.signing import decode_secret, generate_secret

OCCURRED_AT = datetime(2027, 3, 4, 5, 6, 7, 89, tzinfo=UTC)
EVENT = EventRecord(
    id="evt_" + "a" * 32,
    type="push.clicked",
    occurred_at=OCCURRED_AT,
    data='{"b":1,"a":"\u00e9"}',
    subject="campaign:7",
    requester="app:abc",
)
standard = get_format("standard")


class TestBody:
    def test_its_exact_bytes(self) -> None:
        expected = (
            '{"id":"evt_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","type":"push.clicked",'
            '"timestamp":"2027-03-04T05:06:07.000089Z","data":{"b":1,"a":"\u00e9"}}'
        )
        assert standard.body(EVENT) == expected.encode()

    def test_the_frozen_text_goes_in_as_it_is(self) -> None:
        data = '{"amount":1.10,"big":1e3,"twice":"\\u00e9"}'
        event = EventRecord("evt_1", "push.sent", OCCURRED_AT, data)
        assert standard.body(event).endswith(f'"data":{data}}}'.encode())

    def test_a_time_in_another_zone_is_told_in_utc(self) -> None:
        zone = timezone(timedelta(hours=5, minutes=30))
        moment = OCCURRED_AT.replace(microsecond=0).astimezone(zone)
        event = EventRecord("evt_1", "push.sent", moment, "{}")
        assert json.loads(standard.body(event))["timestamp"] == "2027-03-04T05:06:07.000000Z"

    def test_a_naive_time_is_refused(self) -> None:
        event = EventRecord("evt_1", "push.sent", OCCURRED_AT.replace(tzinfo=None), "{}")
        with pytest.raises(ValueError, match="must be aware"):
            standard.body(event)

    @given(
        st.text(st.characters(exclude_categories=["Cs"])),
        st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers()),
        st.datetimes(timezones=st.just(UTC)),
    )
    def test_it_is_always_json_with_these_four_keys(
        self, name: str, data: dict[str, int], moment: datetime
    ) -> None:
        event = EventRecord(name, name, moment, json.dumps(data))
        body = standard.body(event)
        read = json.loads(body)
        assert list(read) == ["id", "type", "timestamp", "data"]
        assert (read["id"], read["type"], read["data"]) == (name, name, data)
        assert datetime.fromisoformat(read["timestamp"]) == moment
        assert len(read["timestamp"]) == len("2027-03-04T05:06:07.000089Z")
        assert standard.body(event) == body


class TestHeaders:
    def test_they_carry_id_time_and_a_signature_for_each_key(self) -> None:
        secrets = [generate_secret(), generate_secret()]
        body = standard.body(EVENT)
        now = int(datetime.now(UTC).timestamp())
        headers = standard.headers(EVENT.id, now, body, [decode_secret(text) for text in secrets])
        assert set(headers) == {
            "Content-Type",
            "webhook-id",
            "webhook-timestamp",
            "webhook-signature",
        }
        assert headers["Content-Type"] == "application/json"
        assert headers["webhook-id"] == EVENT.id
        assert headers["webhook-timestamp"] == str(now)
        assert len(headers["webhook-signature"].split(" ")) == 2
        for secret in secrets:
            assert standardwebhooks.Webhook(secret).verify(body, headers) == json.loads(body)

    def test_nothing_is_sent_unsigned(self) -> None:
        with pytest.raises(InvalidSecret):
            standard.headers(EVENT.id, 1, b"{}", [])


class TestRegistry:
    def test_standard_is_found_by_its_name(self) -> None:
        assert standard.name == "standard"

    def test_an_unknown_name_is_answered_with_the_known_ones(self) -> None:
        with pytest.raises(LookupError, match=r"'xml' is no webhook format.*standard"):
            get_format("xml")

    def test_formats_import_no_models(self) -> None:
        code = "import sys, webhooks.formats, webhooks.receiving; print('django' in sys.modules)"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "False"
