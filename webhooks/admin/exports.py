"""Files of any length: rows are written as they are read, so memory does not grow with them."""

from __future__ import annotations

import csv
import json
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, StreamingHttpResponse

TYPES: Final = {"csv": "text/csv; charset=utf-8", "ndjson": "application/x-ndjson"}
#: What makes a spreadsheet take a text for a formula (OWASP, CSV injection).
FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")

Row = Mapping[str, Any]


class _Echo:
    """A file for ``csv.writer`` that hands back what is written."""

    def write(self, text: str) -> str:
        return text


def streamed(
    request: HttpRequest,
    form: str,
    name: str,
    columns: Sequence[str],
    chunks: Iterable[Iterable[Row]],
) -> StreamingHttpResponse:
    """An attachment ``<name>.<form>``. form: of ``TYPES``. chunks: rows that are read together."""
    lines = _csv(columns, chunks) if form == "csv" else _ndjson(chunks)
    # Under ASGI, Django would first read a plain iterator to its end.
    content = _awaited(lines) if isinstance(request, ASGIRequest) else lines
    answer = StreamingHttpResponse(content, content_type=TYPES[form])
    answer["Content-Disposition"] = f'attachment; filename="{name}.{form}"'
    answer["X-Content-Type-Options"] = "nosniff"
    return answer


def _csv(columns: Sequence[str], chunks: Iterable[Iterable[Row]]) -> Iterator[str]:
    writer = csv.writer(_Echo())
    yield writer.writerow(columns)
    for rows in chunks:
        yield "".join(writer.writerow([_cell(row[name]) for name in columns]) for row in rows)


def _cell(value: Any) -> Any:
    """A value as no spreadsheet takes it for a formula."""
    if isinstance(value, str) and value.startswith(FORMULA):
        return f"'{value}"
    return value


def _ndjson(chunks: Iterable[Iterable[Row]]) -> Iterator[str]:
    for rows in chunks:
        yield "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


async def _awaited(lines: Iterator[str]) -> AsyncIterator[str]:
    end = object()
    following = sync_to_async(lambda: next(lines, end))
    while (line := await following()) is not end:
        yield str(line)
