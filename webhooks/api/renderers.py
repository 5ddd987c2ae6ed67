"""How answers are written: JSON in UTF-8, without regard to the host's settings for it."""

from __future__ import annotations

from rest_framework import renderers


class JSONRenderer(renderers.JSONRenderer):
    """Compact JSON; NaN and infinities are an error, since they are no JSON."""

    ensure_ascii = False
    compact = True
    strict = True
