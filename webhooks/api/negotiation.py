"""Which form an answer has: what ``Accept`` asks for, and nothing else."""

from __future__ import annotations

from typing import Any

from rest_framework.exceptions import NotAcceptable
from rest_framework.negotiation import DefaultContentNegotiation

from webhooks.api.problems import MEDIA_TYPE


class _NoOverride:
    #: No ``?format=``: the host's setting does not count here.
    URL_FORMAT_OVERRIDE = None


class Negotiation(DefaultContentNegotiation):
    """By the ``Accept`` header alone (RFC 9110, section 12.5.1)."""

    settings: Any = _NoOverride

    def select_renderer(
        self, request: Any, renderers: Any, format_suffix: str | None = None
    ) -> tuple[Any, str]:
        """The renderer that is asked for; JSON for whoever names the form of problems alone."""
        try:
            chosen: tuple[Any, str] = super().select_renderer(request, renderers, format_suffix)
        except NotAcceptable:
            asked = {each.split(";")[0].strip().lower() for each in self.get_accept_list(request)}
            if MEDIA_TYPE not in asked:
                raise
            return renderers[0], renderers[0].media_type  # every view's first one writes JSON
        return chosen

    def select_parser(self, request: Any, parsers: Any) -> Any:
        """The parser of exactly this type; a body of ``application/*`` is of no type at all."""
        kind = request.content_type.split(";")[0].strip().lower()
        return next((parser for parser in parsers if parser.media_type == kind), None)
