"""The subscriber's own dashboard: one page, without a script, that renews itself."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from html import escape
from typing import Final

from example_project.receiver.digests import Comparison, Window

HEADERS: Final = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'self'",
    "Cache-Control": "no-store",
}
STYLE: Final = """\
:root { color-scheme: light dark; --line: #767676; --good: #1a7431; --differs: #875400; }
@media (prefers-color-scheme: dark) { :root { --good: #4ac26b; --differs: #e3b341; } }
body { font: 1rem/1.5 system-ui, sans-serif; margin: 1rem auto; max-inline-size: 52rem;
  padding-inline: 1rem; }
h1 { font-size: 1.5rem; }
h2 { font-size: 1.2rem; margin-block: 1.5rem 0.3rem; }
h3 { font-size: 1rem; margin-block: 1rem 0.3rem; }
table { border-collapse: collapse; inline-size: 100%; }
th, td { border-block-end: 1px solid var(--line); padding: 0.25rem 0.5rem; text-align: start; }
td { text-align: end; font-variant-numeric: tabular-nums; }
thead th:not(:first-child) { text-align: end; }
.good { color: var(--good); font-weight: 600; }
.differs { color: var(--differs); font-weight: 600; }
.scroll { overflow-x: auto; }
"""
_PAGE: Final = """\
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>A webhook subscriber</title>
<meta name="viewport" content="width=device-width"><meta http-equiv="refresh" content="15">
<link rel="stylesheet" href="/style.css"></head><body><main>
<h1>A webhook subscriber</h1>
<p>Receiving since {since}. All that is counted here was signed by the sender; {rejected} POSTs with
a wrong signature were rejected.</p>
<h2>Events, by type</h2>
{singles}
<h2>Digests beside single events</h2>
{digests}
</main></body></html>
"""


def html(figures: Mapping[str, object], comparison: Comparison) -> str:
    """The page. figures: those of the ledger."""
    by_type = figures["by_type"]
    assert isinstance(by_type, Mapping)
    counts = [(name, f"{count:,}") for name, count in by_type.items() if name != "batch"]
    return _PAGE.format(
        since=_time(comparison.began_at),
        rejected=f"{figures['rejected']:,}",
        singles=_table(("Type", "Events"), counts) if counts else "<p>None yet.</p>",
        digests=_digests(comparison),
    )


def _digests(comparison: Comparison) -> str:
    if comparison.together is None:
        return "<p>No digest has come yet: one comes when its window has ended.</p>"
    parts = []
    if len(comparison.windows) > 1:
        parts.append(_window("All of them together", comparison.together))
    for window in comparison.windows:
        title = f"{_time(window.begin)} to {_time(window.end)}, {escape(window.trigger)}"
        parts.append(_window(title, window))
    parts.append(
        "<p>An event belongs to the digest of the window in which the sender took it up, within "
        "about a second: what happened in a window's last second may be in the next digest. The "
        "differences of two neighbours then cancel each other.</p>"
    )
    return "".join(parts)


def _window(title: str, window: Window) -> str:
    if window.agrees:
        said = '<p class="good">✓ Digest and single events agree.</p>'
    elif not window.is_whole:
        said = (
            '<p class="differs">≠ The window began before this receiver did: it has not seen all '
            "of its single events.</p>"
        )
    else:
        said = '<p class="differs">≠ Digest and single events differ.</p>'
    rows = [
        (line.type, f"{line.told:,}", f"{line.counted:,}", f"{line.difference:+,}")
        for line in window.lines
    ]
    head = ("Type", "By the digest", "Single events", "Difference")
    return f"<h3>{title}</h3>{said}{_table(head, rows)}"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    names = "".join(f'<th scope="col">{escape(each)}</th>' for each in head)
    lines = "".join(
        f'<tr><th scope="row">{escape(first)}</th>'
        + "".join(f"<td>{escape(each)}</td>" for each in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="group"><table><thead><tr>{names}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
