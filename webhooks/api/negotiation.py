"""Which form an answer has: what ``Accept`` asks for, and nothing else."""

from __future__ import annotations

from typing import Any

from rest_framework.negotiation import DefaultContentNegotiation


class _NoOverride:
    #: No ``?format=``: the host's setting does not count here.
    URL_FORMAT_OVERRIDE = None


class Negotiation(DefaultContentNegotiation):
    """By the ``Accept`` header alone (RFC 9110, section 12.5.1)."""

    settings: Any = _NoOverride

    def select_parser(self, request: Any, parsers: Any) -> Any:
        """The parser of exactly this type; a body of ``application/*`` is of no type at all."""
        kind = request.content_type.split(";")[0].strip().lower()
        return next((parser for parser in parsers if parser.media_type == kind), None)
