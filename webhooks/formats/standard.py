"""The default format: Standard Webhooks 1.0.0.

The body is ``{"id", "type", "timestamp", "data"}``; three headers carry the id, the time of the
attempt and the signatures. https://www.standardwebhooks.com
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from webhooks.formats.base import EventRecord, Format, utc_text
from webhooks.formats.signing import sign_with_keys


class StandardFormat(Format):
    """``standard``: JSON body, HMAC-SHA256 signature under every live secret."""

    name = "standard"
    content_type = "application/json"

    def body(self, event: EventRecord) -> bytes:
        # Composed around the frozen text: parsing and dumping it again could change its bytes
        # (number forms, key order), and costs more than all the rest.
        return (
            f'{{"id":{_string(event.id)},"type":{_string(event.type)},'
            f'"timestamp":"{utc_text(event.occurred_at)}","data":{event.data}}}'
        ).encode()

    def headers(
        self, message_id: str, timestamp: int, body: bytes, keys: Sequence[bytes]
    ) -> dict[str, str]:
        return {
            "Content-Type": self.content_type,
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign_with_keys(keys, message_id, timestamp, body),
        }


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
