"""The catalogue, as far as the client's scopes go."""

from __future__ import annotations

from collections.abc import Sequence

from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from webhooks import catalog
from webhooks.api.operations import operation
from webhooks.api.pagination import Cursor, Source
from webhooks.api.serializers.events import EventTypeQuery, EventTypeSerializer, SampleSerializer
from webhooks.api.views.base import APIView
from webhooks.catalog import EventType
from webhooks.samples import samples


class _Visible(APIView):
    def event_type(self, name: str) -> EventType:
        """The entry of this name. Raises NotFound, the same for what the scopes do not show."""
        for entry in catalog.visible(self.client.scopes):
            if entry.name == name:
                return entry
        raise NotFound


class EventTypesView(_Visible):
    """The event types."""

    @operation(answer=EventTypeSerializer, query=EventTypeQuery, page=True)
    def get(self, request: Request) -> Response:
        """List the event types that you may subscribe to, by name."""
        entries = catalog.visible(self.client.scopes)

        def read(cursor: Cursor | None, limit: int) -> Sequence[EventType]:
            if cursor is None:
                return entries[:limit]
            if cursor.backwards:
                return [each for each in reversed(entries) if each.name < cursor.key][:limit]
            return [each for each in entries if each.name > cursor.key][:limit]

        return self.page(Source(read, lambda entry: entry.name, lambda text: text or None))


class EventTypeView(_Visible):
    """One event type."""

    @operation(answer=EventTypeSerializer)
    def get(self, request: Request, name: str) -> Response:
        """Read an event type, with the JSON Schema of its data."""
        return self.answer(self.event_type(name))


class SamplesView(_Visible):
    """Samples of an event type."""

    @operation(answer=SampleSerializer, many=True)
    def get(self, request: Request, name: str) -> Response:
        """Read one to three samples, in the shape in which they are delivered.

        They are your newest events of the type; if there are fewer, an example is among them.
        """
        return self.answer(samples(self.event_type(name), self.client))
