"""One table for people, one JSON object for programs."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from typing import Any


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1)]


def show(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print an aligned table of rows that have the same columns."""
    columns = list(rows[0])
    texts = [columns, *([_text(row[column]) for column in columns] for row in rows)]
    widths = [max(len(line[place]) for line in texts) for place in range(len(columns))]
    words = [all(isinstance(row[column], str) for row in rows) for column in columns]
    print(f"{title}; Python {platform.python_version()}, {platform.machine()}")
    for line in texts:
        cells = [
            cell.ljust(width) if is_words else cell.rjust(width)
            for cell, width, is_words in zip(line, widths, words, strict=True)
        ]
        print("  ".join(cells).rstrip())


def show_json(figures: Any) -> None:
    """Print the figures as the last line, for programs."""
    print(json.dumps(figures))


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
