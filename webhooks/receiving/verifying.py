"""Is this message authentic, and what does it say? Standard Webhooks 1.0.0, and nothing of Django.

Every message of a sender that follows Standard Webhooks is verified, and the packages
``standardwebhooks`` and ``svix`` verify ours.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from webhooks.exceptions import InvalidSecret, InvalidSignature
from webhooks.formats.signing import any_matches, decode_secret, digests

#: Seconds that a message may be old, or early.
DEFAULT_TOLERANCE: Final = 300
TIMESTAMP: Final = re.compile(r"0|[1-9][0-9]{0,11}")


def verify(
    body: bytes | str,
    headers: Mapping[str, Any],
    secret: str | Sequence[str],
    tolerance: int | None = DEFAULT_TOLERANCE,
) -> dict[str, Any]:
    """The message's JSON object, if one of the secrets signed it.

    body: the raw request body, before anything parsed it.
    headers: the request's headers in any case; ``request.headers`` and ``request.META`` will do.
    secret: ``whsec_...``, or several of them while a rotation lasts.
    tolerance: seconds that the message's timestamp may differ from now; None: any age.

    Raises InvalidSignature for whatever is wrong with the message, InvalidSecret for a malformed
    secret. Remember the ``webhook-id`` for a while to notice a message that comes twice.
    """
    # None is what a setting that was forgotten gives: no secret, and no TypeError.
    secrets = [secret] if secret is None or isinstance(secret, str) else list(secret)
    keys = [decode_secret(text) for text in secrets]
    raw = _raw(body)
    message_id = header(headers, "webhook-id")
    timestamp = _timestamp(header(headers, "webhook-timestamp"), tolerance)
    signatures = header(headers, "webhook-signature")
    try:
        expected = digests(keys, message_id, timestamp, raw)
    except InvalidSecret:  # not one secret was given
        raise
    except ValueError as error:
        raise InvalidSignature("The webhook-id is none that a sender may use.") from error
    if not any_matches(expected, signatures):
        raise InvalidSignature(
            "No signature matches. Check the secret, and pass the raw body as it was received."
        )
    return _json_object(raw)


def _raw(body: bytes | str) -> bytes:
    try:
        return body.encode() if isinstance(body, str) else bytes(body)
    except UnicodeEncodeError:
        raise InvalidSignature("The body is no UTF-8 text. Pass the raw bytes.") from None


def header(headers: Mapping[str, Any], name: str) -> str:
    """The value of a header that occurs once, whatever its case or its WSGI spelling.

    name: in lower case. Raises InvalidSignature where it is missing or has several values.
    """
    values = {
        value.decode("latin-1") if isinstance(value, bytes) else str(value)
        for key, value in headers.items()
        if isinstance(key, str) and key.lower().replace("_", "-").removeprefix("http-") == name
    }
    if len(values) != 1:
        found = "occurs with several values" if values else "is missing"
        raise InvalidSignature(f"The header {name} {found}.")
    return values.pop()


def _timestamp(text: str, tolerance: int | None) -> int:
    if not TIMESTAMP.fullmatch(text):
        raise InvalidSignature("The webhook-timestamp is no number of seconds.")
    timestamp = int(text)
    if tolerance is not None:
        age = time.time() - timestamp
        if age > tolerance:
            raise InvalidSignature(f"The message is older than {tolerance} seconds.")
        if age < -tolerance:
            raise InvalidSignature("The message's time lies in the future. Check both clocks.")
    return timestamp


def _json_object(raw: bytes) -> dict[str, Any]:
    try:
        message = json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise InvalidSignature("The signed body is no JSON.") from None
    if not isinstance(message, dict):
        raise InvalidSignature("The signed body is no JSON object.")
    return message


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON.")
