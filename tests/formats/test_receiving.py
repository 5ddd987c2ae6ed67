"""verify(): what subscribers written in Python call."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from django.test import RequestFactory
from hypothesis import given
from hypothesis import strategies as st

from webhooks import receiving
from webhooks.exceptions import InvalidSecret
from webhooks.formats import signing
from webhooks.formats.signing import generate_secret, sign
from webhooks.receiving import InvalidSignature, verify

SECRET = generate_secret()
BODY = b'{"id":"evt_1","data":{"a":"\xc3\xa9"}}'


def headers(
    body: bytes = BODY, *, secrets: list[str] | None = None, age: int = 0, **changes: str
) -> dict[str, str]:
    now = int(time.time()) - age
    made = {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(now),
        "webhook-signature": sign(secrets or [SECRET], "evt_1", now, body),
    }
    return made | {name.replace("_", "-"): value for name, value in changes.items()}


class TestAuthenticMessages:
    def test_the_json_object_comes_back(self) -> None:
        assert verify(BODY, headers(), SECRET) == {"id": "evt_1", "data": {"a": "\xe9"}}

    @pytest.mark.parametrize("body", [BODY.decode(), bytearray(BODY), memoryview(BODY)])
    def test_the_body_may_be_text_or_any_bytes(self, body: Any) -> None:
        assert verify(body, headers(), SECRET)["id"] == "evt_1"

    @pytest.mark.parametrize("spelling", [str.upper, str.title, str.swapcase])
    def test_header_names_may_have_any_case(self, spelling: Any) -> None:
        given_headers = {spelling(name): value for name, value in headers().items()}
        assert verify(BODY, given_headers, SECRET)["id"] == "evt_1"

    def test_the_headers_of_a_django_request_will_do(self) -> None:
        request = RequestFactory().post(
            "/", BODY, content_type="application/json", headers=headers()
        )
        assert verify(request.body, request.headers, SECRET)["id"] == "evt_1"
        assert verify(request.body, request.META, SECRET)["id"] == "evt_1"

    def test_while_a_rotation_lasts_either_side_may_know_both_secrets(self) -> None:
        new = generate_secret()
        assert verify(BODY, headers(secrets=[new, SECRET]), SECRET)
        assert verify(BODY, headers(secrets=[SECRET]), [new, SECRET])

    def test_signatures_of_unknown_versions_are_skipped(self) -> None:
        signed = headers()
        signed["webhook-signature"] = "v1a,AAAA v9,x " + signed["webhook-signature"]
        assert verify(BODY, signed, SECRET)

    @pytest.mark.parametrize("age", [295, -295])
    def test_five_minutes_either_way_are_tolerated(self, age: int) -> None:
        assert verify(BODY, headers(age=age), SECRET)

    def test_any_age_when_asked(self) -> None:
        assert verify(BODY, headers(age=10**8), SECRET, tolerance=None)


class TestRefusedMessages:
    @pytest.mark.parametrize(
        ("age", "words"), [(310, "older than 300 seconds"), (-310, "lies in the future")]
    )
    def test_too_old_or_too_early(self, age: int, words: str) -> None:
        with pytest.raises(InvalidSignature, match=words):
            verify(BODY, headers(age=age), SECRET)

    def test_the_tolerance_is_the_callers(self) -> None:
        with pytest.raises(InvalidSignature, match="older than 10 seconds"):
            verify(BODY, headers(age=20), SECRET, tolerance=10)

    def test_another_body_secret_or_id(self) -> None:
        for body, given_headers, secret in (
            (BODY + b" ", headers(), SECRET),
            (BODY, headers(), generate_secret()),
            (BODY, headers(webhook_id="evt_2"), SECRET),
            (BODY, headers() | {"webhook-timestamp": str(int(time.time()) + 7)}, SECRET),
        ):
            with pytest.raises(InvalidSignature, match="No signature matches"):
                verify(body, given_headers, secret)

    @pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
    def test_a_missing_header_is_named(self, name: str) -> None:
        given_headers = headers()
        del given_headers[name]
        with pytest.raises(InvalidSignature, match=f"{name} is missing"):
            verify(BODY, given_headers, SECRET)

    def test_a_header_with_two_values(self) -> None:
        with pytest.raises(InvalidSignature, match="several values"):
            verify(BODY, headers() | {"Webhook-Id": "evt_2"}, SECRET)

    @pytest.mark.parametrize(
        "text", ["", "now", "1e9", "+1", " 1", "01", "1.5", "\u0661", "9" * 9999]
    )
    def test_a_timestamp_that_is_no_plain_number(self, text: str) -> None:
        with pytest.raises(InvalidSignature, match="no number of seconds"):
            verify(BODY, headers(webhook_timestamp=text), SECRET, tolerance=None)

    @pytest.mark.parametrize("message_id", ["", "a.b", "\xe9"])
    def test_an_id_that_no_sender_may_use(self, message_id: str) -> None:
        with pytest.raises(InvalidSignature, match="webhook-id"):
            verify(BODY, headers(webhook_id=message_id), SECRET)

    @pytest.mark.parametrize(
        "body", [b"", b"[]", b'"a"', b"null", b"{", b"\xff{}", b'{"a":NaN}', b"[" * 200_000]
    )
    def test_a_signed_body_that_is_no_json_object(self, body: bytes) -> None:
        with pytest.raises(InvalidSignature, match="no JSON"):
            verify(body, headers(body), SECRET)

    def test_text_that_has_no_bytes(self) -> None:
        with pytest.raises(InvalidSignature, match="UTF-8"):
            verify("\ud800", headers(), SECRET)

    @pytest.mark.parametrize("secret", ["hush", "", [], ["whsec_short"]])
    def test_a_secret_that_is_none_is_the_callers_mistake(self, secret: Any) -> None:
        with pytest.raises(InvalidSecret):
            verify(BODY, headers(), secret)

    def test_the_comparison_takes_constant_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        compared: list[int] = []
        original = signing.hmac.compare_digest

        def compare(first: bytes, second: bytes) -> bool:
            compared.append(len(second))
            return original(first, second)

        monkeypatch.setattr(signing.hmac, "compare_digest", compare)
        verify(BODY, headers(secrets=[SECRET, generate_secret()]), SECRET)
        assert compared == [32, 32]  # a match does not end the search


class TestFuzz:
    @given(
        st.binary() | st.text(),
        st.dictionaries(
            st.sampled_from(
                ["webhook-id", "webhook-timestamp", "webhook-signature", "Webhook-Id", "x"]
            ),
            st.text()
            | st.binary()
            | st.sampled_from(["0", "1614265330", "v1,", "v1,AAAA", "v1 v1"]),
        ),
        st.none() | st.integers(0, 10),
    )
    def test_whatever_comes_in_is_refused_with_one_kind_of_error(
        self, body: Any, given_headers: dict[str, Any], tolerance: int | None
    ) -> None:
        with pytest.raises(receiving.InvalidSignature):
            verify(body, given_headers, SECRET, tolerance)

    @given(st.integers(0, len(BODY) * 8 - 1))
    def test_one_flipped_bit_is_noticed(self, bit: int) -> None:
        forged = bytearray(BODY)
        forged[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(InvalidSignature):
            verify(bytes(forged), headers(), SECRET)

    @given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers()))
    def test_every_signed_object_comes_back(self, value: dict[str, int]) -> None:
        body = json.dumps(value).encode()
        assert verify(body, headers(body), SECRET) == value
