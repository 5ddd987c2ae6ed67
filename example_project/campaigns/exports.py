"""Figures as CSV (RFC 4180), written line by line as they are read."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

from django.db.models import QuerySet
from django.http import StreamingHttpResponse

from example_project.campaigns.models import Campaign, CampaignStats, DeliveryCount
from example_project.campaigns.models.stats import COUNTERS

#: Campaigns whose figures are read together.
CHUNK: Final = 500
#: A spreadsheet takes a cell that begins so for a formula (OWASP, "CSV Injection"); the last ones
#: are the first in full width, which some take for the same.
FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", *"\uff1d\uff0b\uff0d\uff20")


class _Line:
    """A file for ``csv.writer`` that gives each line back."""

    def write(self, text: str) -> str:
        return text


def cell(value: Any) -> Any:
    """A value as it is safe in a spreadsheet: a text that looks like a formula gets a ``'``."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, str) and value.lstrip(" ").startswith(FORMULA):
        return f"'{value}"
    return "" if value is None else value


def answer(name: str, rows: Iterable[Iterable[Any]]) -> StreamingHttpResponse:
    """The rows as a download of that name."""
    writer = csv.writer(_Line())
    lines: Iterator[str] = (writer.writerow([cell(each) for each in row]) for row in rows)
    return StreamingHttpResponse(
        lines,
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}.csv"'},
    )


def campaigns(found: QuerySet[Campaign]) -> Iterator[list[Any]]:
    """A heading, and a line for each campaign; two statements for each ``CHUNK`` of them."""
    yield [
        *("id", "name", "requester", "state", "audience"),
        *COUNTERS,
        *("webhook_backlog", "started_at", "ended_at", "webhooks_counted_at"),
    ]
    chunk: list[Campaign] = []
    for campaign in found.iterator(chunk_size=CHUNK):
        chunk.append(campaign)
        if len(chunk) == CHUNK:
            yield from _lines(chunk)
            chunk = []
    yield from _lines(chunk)


def hours(campaign: Campaign) -> Iterator[list[Any]]:
    """A heading, and a line for each hour in which something was recorded."""
    yield ["hour", *COUNTERS]
    for hour, totals in CampaignStats.objects.by_hour(campaign.pk).items():
        yield [hour, *(getattr(totals, name) for name in COUNTERS)]


def _lines(chunk: list[Campaign]) -> Iterator[list[Any]]:
    ids = [each.pk for each in chunk]
    totals = CampaignStats.objects.totals(ids)
    backlogs = DeliveryCount.objects.backlogs(ids)
    for each in chunk:
        yield [
            *(each.pk, each.name, each.requester, each.state, each.audience),
            *(getattr(totals[each.pk], name) for name in COUNTERS),
            *(backlogs.get(each.pk, 0), each.started_at, each.finished_at, each.counted_at),
        ]
