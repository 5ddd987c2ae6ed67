"""Samples of an event type, in the shape in which it is delivered.

Tools such as Zapier show them while somebody builds on the subscription, before anything happened.
"""

from __future__ import annotations

import json
from typing import Any

from webhooks.access import Client
from webhooks.catalog import EventType
from webhooks.conf import settings
from webhooks.documentation.schemas import documented_message
from webhooks.formats import get_format
from webhooks.models import Event

#: So many of a requester's newest events are looked through for some of the type: no index has
#: the type, and a requester may have millions.
WITHIN = 500


def samples(event_type: EventType, client: Client, limit: int = 3) -> list[dict[str, Any]]:
    """Up to ``limit`` bodies as the standard format makes them, one at least.

    The newest events of the type that were addressed to the client's requester, or to everyone;
    then, if there are fewer, the example of the catalogue.
    """
    found = [_body(event) for event in _newest(event_type, client.requester, limit)]
    if len(found) < limit:
        found.append(documented_message(event_type))
    return found


def _newest(event_type: EventType, requester: str, limit: int) -> list[Event]:
    events = Event.objects.using(settings.database)
    whose = {requester, ""} if event_type.audience == "everyone" else {requester}
    ids: list[tuple[int | None, str]] = []
    for each in whose:
        # One statement for each, so that each walks the index (requester, seq).
        latest = events.filter(requester=each, seq__isnull=False).order_by("-seq")
        ids += [
            (seq, pk)
            for seq, pk, type_ in latest.values_list("seq", "pk", "type")[:WITHIN]
            if type_ == event_type.name
        ]
    newest = sorted(ids, key=lambda each: each[0] or 0, reverse=True)
    wanted = [pk for _seq, pk in newest[:limit]]
    return list(events.filter(pk__any=wanted).order_by("-seq")) if wanted else []


def _body(event: Event) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(get_format("standard").body(event.as_record()))
    return body
