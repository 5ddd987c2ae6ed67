"""CloudEvents 1.0: structured mode for one event, the JSON batch format for several.

https://github.com/cloudevents/spec: spec.md, formats/json-format.md, http-protocol-binding.md and
extensions/dataref.md. Signed with the headers of Standard Webhooks.
"""

from __future__ import annotations

from webhooks.formats.base import (
    DIGEST_TYPE,
    BatchRecord,
    EventRecord,
    Format,
    json_text,
    utc_text,
)

NO_SOURCE = (
    "CloudEvents need a source. Set WEBHOOKS['CLOUDEVENTS_SOURCE'] to a URI that stands for this "
    "service, e.g. 'https://example.com/'."
)


class CloudEventsFormat(Format):
    """``cloudevents``: ``source`` is the setting ``CLOUDEVENTS_SOURCE``.

    A thin payload has a ``dataref`` in place of ``data``. A batch has no envelope, so a digest of
    figures alone is one event of type ``webhooks.digest``.
    """

    name = "cloudevents"

    def content_type(self, *, batch: bool) -> str:
        kind = "cloudevents-batch" if batch else "cloudevents"
        return f"application/{kind}+json; charset=UTF-8"

    def body(self, event: EventRecord) -> bytes:
        return _object(event).encode()

    def batch_body(self, batch: BatchRecord) -> bytes:
        events = list(batch.events)
        if not events and batch.counts:
            events.append(
                EventRecord(
                    id=batch.id,
                    type=DIGEST_TYPE,
                    occurred_at=batch.created_at,
                    data=json_text(batch.digest()),
                )
            )
        return f"[{','.join(map(_object, events))}]".encode()


def source() -> str:
    """The setting. Raises ImproperlyConfigured without one: a CloudEvent needs it."""
    # Not above: who only verifies signatures needs no Django.
    from django.core.exceptions import ImproperlyConfigured

    from webhooks.conf import settings

    if not settings.CLOUDEVENTS_SOURCE:
        raise ImproperlyConfigured(NO_SOURCE)
    return str(settings.CLOUDEVENTS_SOURCE)


def _object(event: EventRecord) -> str:
    attributes = {
        "specversion": "1.0",
        "id": event.id,
        "source": source(),
        "type": event.type,
        "time": utc_text(event.occurred_at),
    }
    if event.subject:
        attributes["subject"] = event.subject
    attributes["datacontenttype"] = "application/json"
    if event.link:
        return json_text(attributes | {"dataref": event.link})
    return f'{json_text(attributes)[:-1]},"data":{event.data}}}'
