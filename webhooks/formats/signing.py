"""Signing secrets and signatures of Standard Webhooks 1.0.0.

Signed is ``{id}.{timestamp}.{raw body}`` with HMAC-SHA256; a signature is ``v1,`` and its standard
base64. A secret is ``whsec_`` and the standard base64 of the key. Nothing here stores a secret,
and no error repeats one.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets as random
from collections.abc import Iterable, Sequence
from typing import Final

from webhooks.exceptions import InvalidSecret

PREFIX: Final = "whsec_"
SIGNATURE_VERSION: Final = "v1"
#: Bytes of a key: what we make, and what an imported one may have.
GENERATED_KEY_BYTES: Final = 32
MIN_KEY_BYTES: Final = 24
MAX_KEY_BYTES: Final = 64


def generate_secret() -> str:
    """A new secret: ``whsec_`` and the standard base64 of 32 random bytes."""
    return encode_secret(random.token_bytes(GENERATED_KEY_BYTES))


def decode_secret(text: str) -> bytes:
    """The key behind a secret.

    text: ``whsec_`` and canonical standard base64 (RFC 4648 section 4, with padding) of 24 to 64
        bytes. The url-safe alphabet is refused: some verifiers decode it wrongly, without error.

    Raises InvalidSecret, whose message never holds the secret.
    """
    if not isinstance(text, str) or not text.startswith(PREFIX):
        raise InvalidSecret(f"A signing secret begins with {PREFIX!r}. Add the prefix.")
    encoded = text.removeprefix(PREFIX)
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key or base64.b64encode(key).decode("ascii") != encoded:
        raise InvalidSecret(
            f"After {PREFIX!r} a signing secret is standard base64 (A-Z a-z 0-9 + /) with "
            "its padding and without white space. Encode the key again."
        )
    if not MIN_KEY_BYTES <= len(key) <= MAX_KEY_BYTES:
        raise InvalidSecret(
            f"A signing secret holds {MIN_KEY_BYTES} to {MAX_KEY_BYTES} bytes, this one "
            f"{len(key)}. Generate a new one."
        )
    return key


def encode_secret(key: bytes) -> str:
    """The secret's text, of which there is one only: what ``decode_secret`` took."""
    return PREFIX + base64.b64encode(key).decode("ascii")


def sign(secrets: Sequence[str], message_id: str, timestamp: int, body: bytes) -> str:
    """The ``webhook-signature`` header for one message.

    secrets: every live secret, newest first; each one signs.
    message_id: the ``webhook-id``. timestamp: unix seconds of this attempt.
    body: the raw bytes that are sent.

    Raises InvalidSecret for a malformed secret or none, ValueError for an id that cannot be signed.
    """
    if isinstance(secrets, str):
        # A string is a sequence of strings, too: each letter would be taken for a secret.
        secrets = [secrets]
    keys = [decode_secret(secret) for secret in secrets]
    return sign_with_keys(keys, message_id, timestamp, body)


def sign_with_keys(keys: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """As ``sign``, with decoded keys: for whoever signs many messages with the same secrets."""
    return " ".join(
        f"{SIGNATURE_VERSION},{base64.b64encode(digest).decode('ascii')}"
        for digest in digests(keys, message_id, timestamp, body)
    )


def digests(keys: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> list[bytes]:
    """The HMAC-SHA256 of a message under each key, in their order.

    Raises InvalidSecret when there is no key, for nothing is ever sent unsigned; ValueError for an
    id that is empty, holds a ``.`` (the signed text would be ambiguous) or cannot be a header.
    """
    if not keys:
        raise InvalidSecret("There is no signing secret. Create one: nothing is sent unsigned.")
    if (
        not message_id
        or "." in message_id
        or not message_id.isascii()
        or not message_id.isprintable()
    ):
        raise ValueError("A message id is non-empty printable ASCII without '.'.")
    signed = b"%b.%d.%b" % (message_id.encode("ascii"), timestamp, body)
    return [hmac.digest(key, signed, "sha256") for key in keys]


def any_matches(expected: Iterable[bytes], signature_header: str) -> bool:
    """Does a ``webhook-signature`` header hold one of the expected digests?

    Versions other than ``v1`` and whatever is no strict base64 are skipped. Each comparison takes
    constant time.
    """
    expected = list(expected)
    found = False
    for item in signature_header.split(" "):
        version, _, encoded = item.partition(",")
        if version != SIGNATURE_VERSION:
            continue
        try:
            given = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            continue
        for digest in expected:
            found |= hmac.compare_digest(digest, given)
    return found
