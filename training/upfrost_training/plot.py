"""Draw a run's log as an SVG: loss and PSNR over steps."""

from pathlib import Path

from upfrost.metrics.chart import above_one_another, line_chart


def draw_log(rows: list[dict[str, str]], title: str, path: Path) -> None:
    """Write two charts one above the other: the training loss, and every PSNR."""
    psnr = [k for k in (rows[-1] if rows else {}) if k == "psnr" or "/" in k]
    charts = []
    for label, columns in (("loss", ["loss"]), ("Y-PSNR, dB", psnr)):
        series = {
            "held-out crops" if column == "psnr" else column: [
                (float(row["step"]), float(row[column]))
                for row in rows
                if row.get(column)
            ]
            for column in columns
        }
        if any(series.values()):
            charts.append(line_chart(f"{title}: {label}", "step", series))
    path.write_text(above_one_another(charts) + "\n", encoding="utf-8")
