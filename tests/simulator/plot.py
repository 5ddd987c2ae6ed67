"""A plot as an SVG file, without any library."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 720, 240, 64, 36, 44
COLOURS = ("#1f6feb", "#d1242f")

Points = Sequence[tuple[float, float]]


def panel(title: str, x_label: str, series: Sequence[tuple[str, Points]], top: int) -> str:
    """One diagram: lines through points, each with its name."""
    right = max((x for _name, points in series for x, _y in points), default=1.0) or 1.0
    high = max((y for _name, points in series for _x, y in points), default=1.0) or 1.0
    width, height = WIDTH - LEFT - 24, HEIGHT - TOP - BOTTOM

    def place(x: float, y: float) -> str:
        return f"{LEFT + width * x / right:.1f},{top + TOP + height * (1 - y / high):.1f}"

    base = top + TOP + height
    parts = [
        f'<text x="{LEFT}" y="{top + 20}" font-weight="bold">{escape(title)}</text>',
        f'<path d="M{LEFT} {top + TOP}V{base}H{LEFT + width}" stroke="#57606a" fill="none"/>',
    ]
    for share in (0, 0.5, 1):
        y, x = top + TOP + height * (1 - share), LEFT + width * share
        parts.append(
            f'<text x="{LEFT - 6}" y="{y + 4:.0f}" text-anchor="end">{high * share:,.4g}</text>'
        )
        parts.append(
            f'<text x="{x:.0f}" y="{base + 16}" text-anchor="middle">{right * share:,.4g}</text>'
        )
    parts.append(
        f'<text x="{LEFT + width}" y="{base + 34}" text-anchor="end">{escape(x_label)}</text>'
    )
    for number, (name, points) in enumerate(series):
        colour = COLOURS[number % len(COLOURS)]
        line = " ".join(place(x, y) for x, y in points)
        parts.append(f'<polyline points="{line}" stroke="{colour}" fill="none"/>')
        parts.append(
            f'<text x="{LEFT + 200 * number}" y="{base + 34}" fill="{colour}">{escape(name)}</text>'
        )
    return "\n".join(parts)


def svg(*panels: tuple[str, str, Sequence[tuple[str, Points]]]) -> str:
    """Diagrams one below the other; each of a title, the name of its x axis, and its lines."""
    drawn = [panel(*each, top=HEIGHT * number) for number, each in enumerate(panels)]
    height = HEIGHT * len(panels)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="sans-serif" font-size="12" fill="#1f2328">\n'
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>\n'
        + "\n".join(drawn)
        + "\n</svg>\n"
    )
