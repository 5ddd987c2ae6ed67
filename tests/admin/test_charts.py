"""Charts: where things are drawn, what they say, and that nothing in them is inline."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from django.template.loader import render_to_string
from django.utils import translation

import webhooks
from webhooks.admin import charts
from webhooks.admin.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Series, Step

EVIL = "<script>alert(1)</script>"
CSS = Path(webhooks.__file__).parent / "static/webhooks/admin/webhooks.css"


def drawn(chart: charts.Chart, **context: Any) -> str:
    return render_to_string("webhooks/charts/figure.html", {"chart": chart, **context})


def every_kind() -> list[charts.Chart]:
    names = ["a", "b", EVIL]
    series = Series(EVIL, [1, 2.5, 4], "good")
    return [
        charts.bars(EVIL, names, [series, Series("n", [1, 1, 1], "bad")], label=EVIL),
        charts.lines(EVIL, names, [series, Series("n", [None, 1, 1])], label=EVIL),
        charts.sparkline(EVIL, names, series, label=EVIL),
        charts.funnel(EVIL, [Step(EVIL, 10, EVIL), Step("b", 4, "4")], label=EVIL, figure=EVIL),
    ]


def test_stacked_bars_fill_the_chart_up_to_the_round_value_above() -> None:
    chart = charts.bars("t", ["a"], [Series("x", [60], "good"), Series("y", [40], "bad")])
    lower, upper = chart.marks
    assert (lower.tone, upper.tone) == ("good", "bad")
    room = HEIGHT - BOTTOM - TOP
    assert float(lower.height) == pytest.approx(room * 0.6, abs=0.1)
    assert float(upper.y) == pytest.approx(TOP, abs=0.1)
    assert float(upper.y) + float(upper.height) == pytest.approx(float(lower.y), abs=0.15)
    assert lower.title == "a: x 60"


def test_time_goes_from_left_to_right() -> None:
    chart = charts.bars("t", ["a", "b", "c"], [Series("x", [1, 1, 1])])
    places = [float(mark.x) for mark in chart.marks]
    assert places == sorted(places)
    assert places[0] > LEFT
    assert places[-1] + float(chart.marks[-1].width) < WIDTH - RIGHT
    assert 'direction="ltr"' in drawn(chart)


def test_a_gap_is_a_gap_and_a_lone_value_can_be_seen() -> None:
    chart = charts.lines("t", list("abcd"), [Series("x", [1, None, 3, None])])
    [mark] = chart.marks
    assert mark.path.count("M") == 2
    assert mark.path.count("L") >= 2


def test_a_series_without_values_is_not_drawn_but_stands_in_the_table() -> None:
    chart = charts.lines("t", ["a"], [Series("x", [None]), Series("y", [2])])
    assert [mark.title for mark in chart.marks] == ["y"]
    assert chart.rows == [("a", "–", "2")]  # noqa: RUF001


def test_nothing_is_drawn_of_nothing() -> None:
    chart = charts.bars("t", ["a", "b"], [Series("x", [0, 0])])
    assert chart.is_empty
    html = drawn(chart, empty="Nothing yet.")
    assert "Nothing yet." in html
    assert "<svg" not in html


@pytest.mark.parametrize("highest", [1, 3, 7, 10, 99, 101, 12_345, 0.4])
def test_the_grid_ends_at_a_round_value_above_all(highest: float) -> None:
    chart = charts.bars("t", ["a"], [Series("x", [highest])])
    assert 2 <= len(chart.y_ticks) <= 6
    assert float(chart.y_ticks[-1].at) == pytest.approx(TOP)
    assert float(chart.marks[0].y) >= TOP - 0.1
    if highest >= 1:
        assert all("." not in tick.text for tick in chart.y_ticks)  # no half of what is counted


def test_no_more_labels_than_fit() -> None:
    names = [str(i) for i in range(62)]
    chart = charts.bars("t", names, [Series("x", [1] * 62)])
    assert len(chart.x_ticks) <= charts.MOST_LABELS
    assert len(chart.rows) == 62


def test_a_funnel_is_as_long_as_its_share() -> None:
    chart = charts.funnel("t", [Step("a", 200, "200"), Step("b", 50, "50"), Step("c", 0, "0")])
    assert [float(mark.width) for mark in chart.marks] == [WIDTH, WIDTH / 4, 0]


@pytest.mark.parametrize(
    ("series", "told"),
    [(Series("x", [1]), "1 values for 2 labels"), (Series("x", [1, 2], "pink"), "is no tone")],
)
def test_what_cannot_be_drawn_is_refused(series: Series, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        charts.bars("t", ["a", "b"], [series])


def test_coordinates_have_a_point_in_every_language() -> None:
    with translation.override("de"):
        for chart in every_kind():
            html = drawn(chart)
            for value in re.findall(r' (?:x|y|x1|x2|y1|y2|width|height)="([^"]*)"', html):
                assert re.fullmatch(r"-?\d+(\.\d+)?", value), value
            for path in re.findall(r' d="([^"]*)"', html):
                assert re.fullmatch(r"[ML\d. -]+", path), path


def test_everything_is_escaped_and_nothing_is_inline() -> None:
    for chart in every_kind():
        html = drawn(chart)
        assert EVIL not in html
        assert "&lt;script&gt;" in html
        assert not re.search(r"<script|<style| style=| on\w+=", html)


def test_a_chart_has_a_name_and_its_figures_as_a_table() -> None:
    chart = charts.bars("Sent", ["a", "b"], [Series("x", [1500, 2])], label="Time")
    html = drawn(chart)
    assert f'aria-labelledby="{chart.id}"' in html
    assert f'<title id="{chart.id}">Sent</title>' in html
    assert re.findall(r"<th scope=\"col\">(.*?)</th>", html) == ["Time", "x"]
    assert re.findall(r"<td>(.*?)</td>", html) == ["1,500", "2"]
    assert drawn(charts.bars("Sent", ["a"], [Series("x", [1])])).count(chart.id) == 0


# Colours


ADMIN = {
    "light": {"--body-bg": "#ffffff", "--darkened-bg": "#f8f8f8"},
    "dark": {"--body-bg": "#121212", "--darkened-bg": "#212121"},
}


def themes() -> dict[str, list[dict[str, str]]]:
    """The colours that each theme defines: by default, by the system's wish, by the toggle."""
    css = CSS.read_text()

    def block(selector: str) -> dict[str, str]:
        start = css.index("{", css.index(selector))
        return dict(re.findall(r"(--wh-\w+):\s*(#\w{6})", css[start : css.index("}", start)]))

    media = css.index("@media (prefers-color-scheme: dark)")
    system = css[media : css.index('html[data-theme="dark"]')]
    return {
        "light": [block('html[data-theme="light"]')],
        "dark": [
            dict(re.findall(r"(--wh-\w+):\s*(#\w{6})", system)),
            block('html[data-theme="dark"]'),
        ],
    }


def contrast(one: str, other: str) -> float:
    """WCAG 2.1, section 1.4.3."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_tone_can_be_read_in_every_theme(theme: str) -> None:
    for colours in themes()[theme]:
        assert len(colours) == 6
        for name, colour in colours.items():
            for ground in ADMIN[theme].values():
                assert contrast(colour, ground) >= 4.5, (name, colour, ground)


def test_the_toggle_shows_what_the_system_would() -> None:
    by_system, by_toggle = themes()["dark"]
    assert by_system == by_toggle
    assert themes()["light"][0].keys() == by_toggle.keys()


def test_colours_stand_in_the_variables_alone_and_sides_are_logical() -> None:
    rules = re.sub(r"/\*.*?\*/", "", CSS.read_text(), flags=re.S)
    for line in rules.splitlines():
        if not line.strip().startswith("--wh-"):
            assert not re.search(r"#[0-9a-f]{3,6}\b|rgba?\(", line), line
        assert not re.search(r"(margin|padding|border)-(left|right)|text-align: (left|right)", line)
    for tone in charts.TONES:
        assert f".wh-tone-{tone} " in rules
