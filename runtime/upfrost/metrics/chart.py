"""Charts of lines as SVG text, for pages that need nothing else.

Lines and their names have classes, ``series-0`` and so on, the lines behind them
``grid``: a page's style can give them colours that suit a dark background.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 720, 300
# On a telephone as wide as the text there: letters keep their size.
NARROW = 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 30, 44
_LETTER, _LINE = 7, 17  # width and height of a letter, about
# Told apart by most colour-blind people: Okabe and Ito.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def line_chart(
    title: str,
    x_label: str,
    series: Mapping[str, Points],
    *,
    marks: bool = False,
    width: int = WIDTH,
) -> str:
    """One line for each of `series`; with `marks`, a dot at each point."""
    points = [point for line in series.values() for point in line]
    if not points:
        raise ValueError("a chart needs points")
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    low, high = min(y for _, y in points), max(y for _, y in points)
    across, up = (right - left) or 1.0, (high - low) or 1.0
    legend, rows = _legend(series, width)
    top = _TOP + _LINE * rows

    def place(x: float, y: float) -> str:
        column = _LEFT + (width - _LEFT - _RIGHT) * (x - left) / across
        row = HEIGHT - _BOTTOM - (HEIGHT - top - _BOTTOM) * (y - low) / up
        return f"{column:.1f} {row:.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" '
        f'role="img" aria-label="{escape(title)}: {escape(", ".join(series))}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="{_LEFT}" y="18" font-size="14">{escape(title)}</text>',
    ]
    for step in range(5):
        value = low + up * step / 4
        column, row = place(left, value).split()
        parts.append(
            f'<path d="M{column} {row}H{width - _RIGHT}" stroke="#ddd" class="grid"/>'
            f'<text x="{_LEFT - 6}" y="{float(row) + 4:.1f}" text-anchor="end">'
            f"{value:.4g}</text>"
        )
        value = left + across * step / 4
        column, _ = place(value, low).split()
        anchor = "end" if step == 4 else "middle"
        parts.append(
            f'<text x="{column}" y="{HEIGHT - _BOTTOM + 16}" text-anchor="{anchor}">'
            f"{value:.4g}</text>"
        )
    parts.append(
        f'<text x="{(_LEFT + width) / 2}" y="{HEIGHT - 8}" text-anchor="middle">'
        f"{escape(x_label)}</text>"
    )
    for number, line in enumerate(series.values()):
        color = COLORS[number % len(COLORS)]
        path = "L".join(place(x, y) for x, y in line)
        parts.append(f'<path d="M{path}" fill="none" {_ink(number, "stroke")}/>')
        if marks:
            for x, y in line:
                column, row = place(x, y).split()
                parts.append(f'<circle cx="{column}" cy="{row}" r="3" fill="{color}"/>')
    return "".join([*parts, *legend, "</svg>"])


def _legend(series: Mapping[str, Points], width: int) -> tuple[list[str], int]:
    """The names below the title, side by side as far as they go, and how many rows."""
    column, row = _LEFT, 1
    room = (width - _LEFT - _RIGHT) // _LETTER
    parts: list[str] = []
    for number, name in enumerate(series):
        shown = name if len(name) <= room else name[: room - 1] + "…"
        length = _LETTER * len(shown)
        if column > _LEFT and column + length > width - _RIGHT:
            column, row = _LEFT, row + 1
        parts.append(
            f'<text x="{column}" y="{18 + _LINE * row}" {_ink(number, "fill")}>'
            f"{escape(shown)}</text>"
        )
        column += length + 2 * _LETTER
    return parts, row


def _ink(number: int, attribute: str) -> str:
    """The attributes that give a line or its name its colour."""
    color = COLORS[number % len(COLORS)]
    return f'{attribute}="{color}" class="series-{number % len(COLORS)}"'


def above_one_another(charts: Sequence[str]) -> str:
    """Charts of `line_chart` in one SVG, the first at the top."""
    height = HEIGHT * max(1, len(charts))
    placed = [
        chart.replace("<svg ", f'<svg y="{HEIGHT * i}" height="{HEIGHT}" ', 1)
        for i, chart in enumerate(charts)
    ]
    return "".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}">',
            *placed,
            "</svg>",
        ]
    )
