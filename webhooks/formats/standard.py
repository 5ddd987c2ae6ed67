"""The default format: Standard Webhooks 1.0.0.

The body is ``{"id", "type", "timestamp", "data"}``; three headers carry the id, the time of the
attempt and the signatures. https://www.standardwebhooks.com
"""

from __future__ import annotations

from webhooks.formats.base import (
    BATCH_TYPE,
    BatchRecord,
    EventRecord,
    Format,
    data_text,
    json_text,
    utc_text,
)


class StandardFormat(Format):
    """``standard``: JSON body, HMAC-SHA256 signature under every live secret.

    Several events travel as ``{"id", "type": "batch", "timestamp", "events": [...]}``; a digest
    adds ``window``, ``page``, ``pages`` and ``counts``.
    """

    name = "standard"

    def content_type(self, *, batch: bool) -> str:
        return "application/json"

    def body(self, event: EventRecord) -> bytes:
        return _object(event).encode()

    def batch_body(self, batch: BatchRecord) -> bytes:
        events = ",".join(map(_object, batch.events))
        digest = "".join(
            f"{json_text(name)}:{json_text(value)}," for name, value in batch.digest().items()
        )
        return (
            f'{{"id":{json_text(batch.id)},"type":"{BATCH_TYPE}",'
            f'"timestamp":"{utc_text(batch.created_at)}",{digest}"events":[{events}]}}'
        ).encode()


def _object(event: EventRecord) -> str:
    return (
        f'{{"id":{json_text(event.id)},"type":{json_text(event.type)},'
        f'"timestamp":"{utc_text(event.occurred_at)}","data":{data_text(event)}}}'
    )
