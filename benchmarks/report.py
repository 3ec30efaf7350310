"""Tables of the benchmarks: printed, and written as Markdown and JSON."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from upfrost import __version__

RESULTS = Path(__file__).parent / "results"
Row = Mapping[str, str | int | float | None]


def publish(
    name: str, title: str, rows: Sequence[Row], notes: Sequence[str] = ()
) -> None:
    """Print a table and write it to results/NAME.md and results/NAME.json.

    Columns are the first row's keys, in their order. The command, the versions and the
    machine are written beside it.
    """
    show(rows)
    facts = provenance()
    write_json(name, {"title": title, **facts, "notes": list(notes), "rows": [*rows]})
    markdown = [
        f"# {title}",
        "",
        *table(rows),
        "",
        *(f"- {note}" for note in notes),
        f"- `{facts['command']}`, upfrost {__version__}, Python {facts['python']}, "
        f"{facts['machine']}",
        "",
    ]
    (RESULTS / f"{name}.md").write_text("\n".join(markdown))


def show(rows: Sequence[Row]) -> None:
    """Print a table. Columns are the first row's keys, in their order."""
    columns, cells = _cells(rows)
    widths = [
        max(len(line[i]) for line in [columns, *cells]) for i in range(len(columns))
    ]
    for line in [columns, ["-" * width for width in widths], *cells]:
        print(
            "  ".join(
                cell.rjust(width) for cell, width in zip(line, widths, strict=True)
            )
        )


def table(rows: Sequence[Row]) -> list[str]:
    """Lines of a Markdown table. Columns are the first row's keys, in their order."""
    columns, cells = _cells(rows)
    return [
        "| " + " | ".join(columns) + " |",
        "|" + " ---: |" * len(columns),
        *("| " + " | ".join(line) + " |" for line in cells),
    ]


def provenance() -> dict[str, str]:
    """The command, the versions and the machine."""
    program = Path(sys.argv[0]).stem
    return {
        "command": shlex.join(["python", "-m", f"benchmarks.{program}", *sys.argv[1:]]),
        "upfrost": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {_processor()}",
    }


def write_json(name: str, content: Mapping[str, object]) -> None:
    """Write results/NAME.json."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(content, indent=1, ensure_ascii=False)
    (RESULTS / f"{name}.json").write_text(text + "\n")


def _cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    columns = list(rows[0])
    return columns, [[_cell(row[column]) for column in columns] for row in rows]


def _cell(value: str | int | float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model")):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown processor"
