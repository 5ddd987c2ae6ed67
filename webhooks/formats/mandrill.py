"""The format of Mandrill's webhooks: a form with one field, and a signature over URL and fields.

https://mailchimp.com/developer/transactional/guides/track-respond-activity-webhooks/ (section on
authenticating webhook requests). The headers of Standard Webhooks go with it as well: the id to
tell duplicates by, and a signature that also covers the time.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import parse_qsl, quote_plus

from webhooks.formats.base import (
    DIGEST_TYPE,
    BatchRecord,
    EventRecord,
    Format,
    data_text,
    json_text,
    unix_seconds,
)
from webhooks.formats.signing import encode_secret

FIELD: Final = "mandrill_events"


class MandrillFormat(Format):
    """``mandrill``: each event is ``{"event", "_id", "ts", "data"}`` in an array, also if alone.

    Mandrill has one signature, so the newest secret alone makes it: whoever rotates sets the new
    secret at the receiver first. A digest of figures alone is one item of type ``webhooks.digest``.
    """

    name = "mandrill"
    growth = 3.0  # percent-encoded

    def content_type(self, *, batch: bool) -> str:
        return "application/x-www-form-urlencoded"

    def body(self, event: EventRecord) -> bytes:
        return _form([event])

    def batch_body(self, batch: BatchRecord) -> bytes:
        events = list(batch.events)
        if not events and batch.counts:
            digest = json_text(batch.digest())
            events.append(EventRecord(batch.id, DIGEST_TYPE, batch.created_at, digest))
        return _form(events)

    def headers(
        self,
        message_id: str,
        timestamp: int,
        body: bytes,
        keys: Sequence[bytes],
        *,
        url: str = "",
        batch: bool = False,
    ) -> dict[str, str]:
        headers = super().headers(message_id, timestamp, body, keys, url=url, batch=batch)
        fields = dict(parse_qsl(body.decode("ascii"), keep_blank_values=True))
        return headers | {"X-Mandrill-Signature": signature(encode_secret(keys[0]), url, fields)}


def signature(key: str, url: str, fields: Mapping[str, str]) -> str:
    """``X-Mandrill-Signature``: base64 of HMAC-SHA1 over the URL and the POST's fields.

    key: the secret's text, as it was given to the subscriber. url: the exact callback URL, with
    ``user:password@`` before the host where there is basic authentication. fields: decoded.
    """
    signed = url + "".join(name + fields[name] for name in sorted(fields))
    return base64.b64encode(hmac.digest(key.encode(), signed.encode(), "sha1")).decode("ascii")


def _form(events: Sequence[EventRecord]) -> bytes:
    array = f"[{','.join(map(_object, events))}]"
    return f"{FIELD}={quote_plus(array)}".encode("ascii")


def _object(event: EventRecord) -> str:
    return (
        f'{{"event":{json_text(event.type)},"_id":{json_text(event.id)},'
        f'"ts":{unix_seconds(event.occurred_at)},"data":{data_text(event)}}}'
    )
