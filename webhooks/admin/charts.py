"""Charts as SVG that the server draws: bars, lines, a sparkline, a funnel.

Geometry is computed here, and templates put it into elements: no library, no script and no style
in the markup, so that pages keep a strict Content-Security-Policy and read without JavaScript.
Colours and strokes come from the style sheet, by the name of each series' tone. Each chart carries
its figures as a table for those who do not see it.

A chart goes into a page by ``{% include "webhooks/charts/figure.html" with chart=… %}``: with its
legend and table; by ``{% include chart.template %}`` alone where it stands in a line of text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from django.utils.formats import number_format

#: In units of the view box, which grows with the page.
WIDTH, HEIGHT = 640.0, 200.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 8.0, 12.0, 24.0
#: At most so many labels fit under a chart.
MOST_LABELS: Final = 8
#: Lines that a reader compares heights with.
GRID_LINES: Final = 4
#: The tones that the style sheet knows: good news, bad news, and neutral ones to tell apart.
TONES: Final = ("good", "bad", "first", "second", "third")

#: In place of a figure that there is not.
NOTHING: Final = "\N{EN DASH}"

_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Series:
    """name: as the legend says it. values: one for each label; None: nothing was measured.
    tone: one of ``TONES``."""

    name: str
    values: Sequence[float | None]
    tone: str = "first"


@dataclass(frozen=True, slots=True)
class Tick:
    """at: a coordinate, as a text: a template would give a number the comma of its language."""

    at: str
    text: str


@dataclass(frozen=True, slots=True)
class Mark:
    """One drawn thing: a rectangle, a path or a point. title: what a pointer over it shows."""

    tone: str
    title: str = ""
    x: str = ""
    y: str = ""
    width: str = ""
    height: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawn chart.

    id: unique in the process, for the title that names the picture. columns, rows: its figures as
    texts. marks: in the order in which they are drawn. legend: tone and name; empty for one series.
    """

    template: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    marks: Sequence[Mark]
    y_ticks: Sequence[Tick] = ()
    x_ticks: Sequence[Tick] = ()
    legend: Sequence[tuple[str, str]] = ()
    width: str = f"{WIDTH:g}"
    height: str = f"{HEIGHT:g}"
    left: str = f"{LEFT:g}"
    right: str = f"{WIDTH - RIGHT:g}"
    base: str = f"{HEIGHT - BOTTOM:g}"
    id: str = field(default_factory=lambda: f"webhooks-chart-{next(_numbers)}")

    @property
    def is_empty(self) -> bool:
        return not self.marks


def plain(value: float) -> str:
    """A number as people read it: no more digits than it needs."""
    digits = 0 if value == int(value) else 1 if abs(value) >= 10 else 2
    return number_format(value, decimal_pos=digits, use_l10n=True, force_grouping=True)


def bars(
    title: str,
    labels: Sequence[str],
    series: Sequence[Series],
    *,
    label: str = "",
    text: Callable[[float], str] = plain,
) -> Chart:
    """Stacked bars, one stack for each label.

    labels: along the time, in order. label: the heading of their column in the table. text: how a
    value reads. Raises ValueError where a series has not one value for each label.
    """
    _check(labels, series)
    totals = [sum(each.values[i] or 0 for each in series) for i in range(len(labels))]
    top, y_ticks = _scale(totals, text)
    step = (WIDTH - LEFT - RIGHT) / max(1, len(labels))
    marks = []
    for i, name in enumerate(labels):
        below = 0.0
        for each in series:
            value = each.values[i] or 0
            if not value:
                continue
            y = _y(below + value, top)
            marks.append(
                Mark(
                    each.tone,
                    f"{name}: {each.name} {text(value)}",
                    x=_n(LEFT + i * step + step * 0.1),
                    y=_n(y),
                    width=_n(step * 0.8),
                    height=_n(_y(below, top) - y),
                )
            )
            below += value
    return _chart("bars", title, labels, series, marks, y_ticks, label, text)


def lines(
    title: str,
    labels: Sequence[str],
    series: Sequence[Series],
    *,
    label: str = "",
    text: Callable[[float], str] = plain,
) -> Chart:
    """One line for each series; a value of None leaves a gap.

    Parameters and errors as for :func:`bars`.
    """
    _check(labels, series)
    known = [value for each in series for value in each.values if value is not None]
    top, y_ticks = _scale(known, text)
    marks = [
        Mark(each.tone, each.name, path=_path(each.values, top))
        for each in series
        if any(value is not None for value in each.values)
    ]
    return _chart("lines", title, labels, series, marks, y_ticks, label, text)


def sparkline(title: str, labels: Sequence[str], series: Series, *, label: str = "") -> Chart:
    """A line without axes, as small as a word. Parameters and errors as for :func:`bars`."""
    _check(labels, [series])
    known = [value for value in series.values if value is not None]
    top = max(known, default=0) or 1
    marks = [Mark(series.tone, series.name, path=_path(series.values, top))] if known else []
    return _chart("sparkline", title, labels, [series], marks, (), label, plain)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a funnel: its name, how many reached it, and that in words, with the rate and
    what it is a rate of (``25.4 % of delivered``)."""

    name: str
    value: int
    said: str


def funnel(title: str, steps: Sequence[Step], *, label: str = "", figure: str = "") -> Chart:
    """Bars from top to bottom, each as long as its share of the first.

    label, figure: the headings of the table's columns.
    """
    row = 44.0
    widest = max((step.value for step in steps), default=0)
    marks = []
    for i, step in enumerate(steps):
        length = WIDTH * step.value / widest if widest else 0.0
        marks.append(
            Mark(
                TONES[2 + min(i, 2)],
                f"{step.name}: {step.said}",
                y=_n(i * row + 18),
                # Some is not none: what there is can be seen.
                width=_n(max(length, 1.0 if step.value else 0.0)),
                height=_n(row - 22),
            )
        )
    return Chart(
        "webhooks/charts/funnel.svg",
        title,
        (label, figure),
        [(step.name, step.said) for step in steps],
        marks if widest else (),
        y_ticks=[Tick(_n(i * row + 13), f"{s.name}: {s.said}") for i, s in enumerate(steps)],
        height=_n(len(steps) * row),
    )


def _check(labels: Sequence[str], series: Sequence[Series]) -> None:
    for each in series:
        if len(each.values) != len(labels):
            raise ValueError(
                f"The series {each.name!r} has {len(each.values)} values for {len(labels)} labels."
            )
        if each.tone not in TONES:
            raise ValueError(f"{each.tone!r} is no tone. Use one of: {', '.join(TONES)}.")


def _chart(
    kind: str,
    title: str,
    labels: Sequence[str],
    series: Sequence[Series],
    marks: Sequence[Mark],
    y_ticks: Sequence[Tick],
    label: str,
    text: Callable[[float], str],
) -> Chart:
    rows = [
        (name, *(NOTHING if (v := each.values[i]) is None else text(v) for each in series))
        for i, name in enumerate(labels)
    ]
    return Chart(
        f"webhooks/charts/{kind}.svg",
        title,
        (label, *(each.name for each in series)),
        rows,
        marks,
        y_ticks,
        _x_ticks(labels),
        [(each.tone, each.name) for each in series] if len(series) > 1 else (),
    )


def _scale(values: Sequence[float], text: Callable[[float], str]) -> tuple[float, list[Tick]]:
    """The value at the top of the chart, a round one, and the lines of its grid."""
    highest = max(values, default=0) or 1
    rough = highest / GRID_LINES
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    if step < 10 and all(value == int(value) for value in values):
        step = math.ceil(step)  # there is no half of what is counted
    top = step * math.ceil(highest / step)
    ticks = [Tick(_n(_y(i * step, top)), text(i * step)) for i in range(round(top / step) + 1)]
    return top, ticks


def _x_ticks(labels: Sequence[str]) -> list[Tick]:
    every = max(1, math.ceil(len(labels) / MOST_LABELS))
    step = (WIDTH - LEFT - RIGHT) / max(1, len(labels))
    return [Tick(_n(LEFT + (i + 0.5) * step), labels[i]) for i in range(0, len(labels), every)]


def _path(values: Sequence[float | None], top: float) -> str:
    """Lines through the middle of each label's place; a lone value is a dash one can see."""
    step = (WIDTH - LEFT - RIGHT) / max(1, len(values))
    parts = []
    drawing = False
    for i, value in enumerate(values):
        if value is None:
            drawing = False
            continue
        x, y = LEFT + (i + 0.5) * step, _y(value, top)
        if drawing:
            parts.append(f"L{_n(x)} {_n(y)}")
        else:
            parts.append(f"M{_n(x - step / 4)} {_n(y)}L{_n(x)} {_n(y)}")
        if i + 1 == len(values) or values[i + 1] is None:
            parts.append(f"L{_n(x + step / 4)} {_n(y)}")
        drawing = True
    return "".join(parts)


def _y(value: float, top: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * value / top


def _n(value: float) -> str:
    """A coordinate: with a point, whatever the language of the page."""
    return f"{value:.1f}".rstrip("0").rstrip(".")
