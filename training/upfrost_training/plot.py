"""Draw a run's log as an SVG: loss and PSNR over steps."""

from pathlib import Path
from xml.sax.saxutils import escape

WIDTH, HEIGHT, MARGIN = 720, 300, 56
COLOURS = ("#1f6feb", "#c2410c", "#15803d", "#7c3aed")

Points = list[tuple[float, float]]


def draw_log(rows: list[dict[str, str]], title: str, path: Path) -> None:
    """Write two charts one above the other: the training loss, and every PSNR."""
    psnr = [k for k in (rows[-1] if rows else {}) if k == "psnr" or "/" in k]
    charts = [("loss", ["loss"]), ("Y-PSNR, dB", psnr)]
    total = HEIGHT * len(charts)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {total}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{MARGIN}" y="20" font-size="14">{escape(title)}</text>',
    ]
    for i, (label, columns) in enumerate(charts):
        series = {
            "held-out crops" if column == "psnr" else column: [
                (float(row["step"]), float(row[column]))
                for row in rows
                if row.get(column)
            ]
            for column in columns
        }
        parts.append(f'<g transform="translate(0 {HEIGHT * i})">')
        parts.extend(_chart(label, series))
        parts.append("</g>")
    path.write_text("\n".join([*parts, "</svg>", ""]), encoding="utf-8")


def _chart(label: str, series: dict[str, Points]) -> list[str]:
    points = [point for line in series.values() for point in line]
    if not points:
        return []
    right = max(x for x, _ in points) or 1.0
    low, high = min(y for _, y in points), max(y for _, y in points)
    span = (high - low) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            MARGIN + (WIDTH - 2 * MARGIN) * x / right,
            HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * (y - low) / span,
        )

    parts = [f'<text x="{MARGIN}" y="{MARGIN - 12}">{escape(label)}</text>']
    for fraction in (0.0, 0.25, 0.5, 0.75, 1.0):
        value = low + span * fraction
        x, y = place(0.0, value)
        end, _ = place(right, value)
        parts += [
            f'<path d="M{x:.1f} {y:.1f}H{end:.1f}" stroke="#ddd"/>',
            f'<text x="{x - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">'
            f"{value:.4g}</text>",
        ]
        x, y = place(right * fraction, low)
        parts.append(
            f'<text x="{x:.1f}" y="{y + 18:.1f}" text-anchor="middle">'
            f"{right * fraction:.0f}</text>"
        )
    for i, (name, line) in enumerate(series.items()):
        colour = COLOURS[i % len(COLOURS)]
        corners = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in line)
        parts += [
            f'<polyline points="{corners}" fill="none" stroke="{colour}"/>',
            f'<text x="{WIDTH - MARGIN}" y="{MARGIN - 12 + 14 * i}" fill="{colour}" '
            f'text-anchor="end">{escape(name)}</text>',
        ]
    return parts
