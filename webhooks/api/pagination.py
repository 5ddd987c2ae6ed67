"""Pages of long lists, by key: each page begins beyond the last row of the one before.

So a page costs the same wherever it lies, and rows that come in meanwhile shift nothing. A cursor
is opaque to clients; it holds a key and a direction, and shows nothing that is not theirs.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode

from django.db.models import QuerySet
from django.utils.encoding import escape_uri_path
from django.utils.translation import gettext as _
from rest_framework.exceptions import ValidationError

DEFAULT_LIMIT, MAX_LIMIT = 50, 100

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a page begins. key: of the row just before it. backwards: read towards the start."""

    key: Any
    backwards: bool = False


@dataclass(frozen=True, slots=True)
class Source(Generic[Row]):
    """A long list that can be read from any place.

    read: at most so many rows beyond a cursor (None: from the start), nearest first.
    key: of a row. parse: a key from its text; None: it is none.
    """

    read: Callable[[Cursor | None, int], Sequence[Row]]
    key: Callable[[Row], Any]
    parse: Callable[[str], Any]


def keyset(
    rows: QuerySet[Any], field: str, parse: Callable[[str], Any], *, descending: bool
) -> Source[Any]:
    """The rows of a queryset, by a unique field that has an index."""

    def read(cursor: Cursor | None, limit: int) -> Sequence[Any]:
        return list(beyond(rows, field, cursor, descending=descending)[:limit])

    return Source(read, lambda row: getattr(row, field), parse)


def beyond(
    rows: QuerySet[Any], field: str, cursor: Cursor | None, *, descending: bool
) -> QuerySet[Any]:
    """The rows beyond a cursor, nearest first."""
    down = descending
    if cursor is not None:
        down = descending != cursor.backwards
        rows = rows.filter(**{f"{field}__{'lt' if down else 'gt'}": cursor.key})
    return rows.order_by(f"-{field}" if down else field)


def page(
    request: Any,
    source: Source[Any],
    parameters: dict[str, Any],
    show: Callable[[Sequence[Any]], Any],
) -> dict[str, Any]:
    """``{next, previous, results}``; ``next`` and ``previous`` are URLs, or None at an end.

    parameters: the validated query, with ``cursor`` and ``limit``. Raises ValidationError for a
    cursor that none of our links holds.
    """
    cursor = _decode(parameters["cursor"], source) if parameters.get("cursor") else None
    limit = parameters.get("limit") or DEFAULT_LIMIT
    rows = list(source.read(cursor, limit + 1))
    more = len(rows) > limit
    rows = rows[:limit]
    backwards = cursor is not None and cursor.backwards
    if backwards:
        rows.reverse()
    before = more if backwards else cursor is not None
    after = backwards or more

    def link(row: Any, back: bool) -> str:
        return _link(request, encode(Cursor(source.key(row), back)))

    return {
        "next": link(rows[-1], False) if rows and after else None,
        "previous": link(rows[0], True) if rows and before else None,
        "results": show(rows),
    }


def _link(request: Any, cursor: str) -> str:
    query = request.query_params.dict() | {"cursor": cursor}
    url: str = request.build_absolute_uri(f"{escape_uri_path(request.path)}?{urlencode(query)}")
    return url


def encode(cursor: Cursor) -> str:
    text = f"{'-' if cursor.backwards else '+'}{cursor.key}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode(text: str, source: Source[Any]) -> Cursor:
    try:
        padded = text + "=" * (-len(text) % 4)
        decoded = base64.b64decode(padded, altchars="-_", validate=True).decode()
    except (binascii.Error, ValueError):
        decoded = ""
    key = source.parse(decoded[1:]) if decoded[:1] in ("+", "-") else None
    if key is None:
        raise ValidationError(
            {"cursor": [_("This is no cursor of this list. Take “next” from a page of it.")]}
        )
    return Cursor(key, decoded[0] == "-")
