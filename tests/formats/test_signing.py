"""Secrets and signatures: the published vector, and the two verifiers that subscribers use."""

from __future__ import annotations

import base64
import json
import time

import pytest
import standardwebhooks
import svix.webhooks
from hypothesis import given
from hypothesis import strategies as st

from webhooks.exceptions import InvalidSecret
from webhooks.formats.signing import (
    any_matches,
    decode_secret,
    digests,
    generate_secret,
    sign,
    sign_with_keys,
)

#: Vector V1 of Standard Webhooks.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGE_ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
TIMESTAMP = 1614265330
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def secret_of(size: int) -> str:
    return "whsec_" + base64.b64encode(bytes(range(size))).decode()


class TestSigning:
    def test_the_published_vector(self) -> None:
        assert sign([SECRET], MESSAGE_ID, TIMESTAMP, BODY) == SIGNATURE

    def test_decoded_keys_sign_the_same(self) -> None:
        keys = [decode_secret(SECRET)]
        assert sign_with_keys(keys, MESSAGE_ID, TIMESTAMP, BODY) == SIGNATURE

    def test_every_secret_signs_in_its_order_with_one_space_between(self) -> None:
        other = generate_secret()
        signature = sign([other, SECRET], MESSAGE_ID, TIMESTAMP, BODY)
        first, second = signature.split(" ")
        assert second == SIGNATURE
        assert first == sign([other], MESSAGE_ID, TIMESTAMP, BODY)
        assert first != second

    def test_one_secret_may_be_given_alone(self) -> None:
        assert sign(SECRET, MESSAGE_ID, TIMESTAMP, BODY) == SIGNATURE

    def test_nothing_is_signed_without_a_secret(self) -> None:
        with pytest.raises(InvalidSecret, match="no signing secret"):
            sign([], MESSAGE_ID, TIMESTAMP, BODY)

    @pytest.mark.parametrize("message_id", ["", "a.b", "a\nb", "caf\xe9"])
    def test_an_id_that_would_be_ambiguous_or_no_header_is_refused(self, message_id: str) -> None:
        with pytest.raises(ValueError, match=r"without '\.'"):
            sign([SECRET], message_id, TIMESTAMP, BODY)

    @pytest.mark.parametrize(
        "library",
        [standardwebhooks.Webhook, svix.webhooks.Webhook],
        ids=["standardwebhooks", "svix"],
    )
    @given(body=st.dictionaries(st.text(), st.text() | st.integers()))
    def test_the_common_libraries_verify_it_under_each_secret(
        self, library: type, body: dict[str, object]
    ) -> None:
        raw = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        now = int(time.time())
        secrets = [generate_secret(), generate_secret()]
        headers = {
            "webhook-id": "evt_1",
            "webhook-timestamp": str(now),
            "webhook-signature": sign(secrets, "evt_1", now, raw),
        }
        for secret in secrets:
            library(secret).verify(raw, headers)  # raises unless the signature matches

    @pytest.mark.parametrize("library", [standardwebhooks.Webhook, svix.webhooks.Webhook])
    def test_the_common_libraries_refuse_another_body(self, library: type) -> None:
        now = int(time.time())
        headers = {
            "webhook-id": "evt_1",
            "webhook-timestamp": str(now),
            "webhook-signature": sign([SECRET], "evt_1", now, b"{}"),
        }
        with pytest.raises(Exception, match="signature"):
            library(SECRET).verify(b'{"a":1}', headers)


class TestSecrets:
    def test_a_generated_one_is_32_random_bytes(self) -> None:
        first, second = generate_secret(), generate_secret()
        assert first != second
        assert first.startswith("whsec_")
        assert len(decode_secret(first)) == 32

    @pytest.mark.parametrize("size", [24, 32, 64])
    def test_imported_ones_may_have_24_to_64_bytes(self, size: int) -> None:
        assert decode_secret(secret_of(size)) == bytes(range(size))

    @pytest.mark.parametrize("size", [1, 23, 65])
    def test_no_fewer_and_no_more(self, size: int) -> None:
        with pytest.raises(InvalidSecret, match=f"24 to 64 bytes, this one {size}"):
            decode_secret(secret_of(size))

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "whsec_",
            SECRET.removeprefix("whsec_"),
            "whsk_" + SECRET.removeprefix("whsec_"),
            SECRET + "\n",
            " " + SECRET,
            SECRET[:-1],
            SECRET + "=",
            SECRET[:10] + "\n" + SECRET[10:],
            SECRET[:10] + "-_" + SECRET[12:],
            secret_of(32)[:-2] + "9=",  # bits beyond the last byte
            secret_of(32).rstrip("="),
            "whsec_\xe9" + SECRET[7:],
        ],
    )
    def test_anything_but_canonical_standard_base64_is_refused_without_repeating_it(
        self, text: str
    ) -> None:
        with pytest.raises(InvalidSecret) as caught:
            decode_secret(text)
        assert SECRET[8:] not in str(caught.value)

    @given(st.binary(min_size=24, max_size=64))
    def test_every_key_survives_the_way_there_and_back(self, key: bytes) -> None:
        assert decode_secret("whsec_" + base64.b64encode(key).decode()) == key


class TestMatching:
    EXPECTED = digests([decode_secret(SECRET)], MESSAGE_ID, TIMESTAMP, BODY)

    @pytest.mark.parametrize(
        "header",
        [
            SIGNATURE,
            f"v1a,AAAA {SIGNATURE}",
            f"v1,AAAA v1,!!! v2 {SIGNATURE} v1,",
        ],
    )
    def test_one_good_signature_among_others_is_enough(self, header: str) -> None:
        assert any_matches(self.EXPECTED, header)

    @pytest.mark.parametrize(
        "header",
        [
            "",
            "v1",
            "v1,",
            SIGNATURE.removeprefix("v1,"),
            SIGNATURE.replace("v1,", "v1a,"),
            SIGNATURE.replace("v1,", "v2,"),
            SIGNATURE.replace("v1,", "V1,"),
            SIGNATURE[:-4],
            SIGNATURE + "A",
            f"v1a,x,{SIGNATURE}",
        ],
    )
    def test_what_is_no_v1_signature_of_ours_is_skipped(self, header: str) -> None:
        assert not any_matches(self.EXPECTED, header)
