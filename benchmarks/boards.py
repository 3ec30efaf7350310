"""What boards measured beside what the model of docs/mali.md says, from their reports.

usage: python -m benchmarks.boards [REPORT.json ...]

REPORT.json is what `upfrost check` writes, and is shown; without one, those of
benchmarks/reports/ are read, and the tables in results/ written anew. The model's
constants are fitted to each: seconds of a layer are

    submission · submissions + (the model's clock / clock) · modelled

and those of a frame, bytes / copies more. Least squares of relative errors, and none of
the constants is negative.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import Row, publish, show
from upfrost.check.report import FORMAT, VERSION
from upfrost.gpu.costs import BOARDS

REPORTS = Path(__file__).with_name("reports")


@dataclass(frozen=True)
class Measured:
    """Seconds of a layer, or of a frame whose `bytes` were copied."""

    model: str
    precision: str
    what: str
    seconds: float
    submissions: int
    modelled: float
    bytes: int = 0


@dataclass(frozen=True)
class Fit:
    """Constants of the model for a board, and how well they explain its seconds."""

    submission: float  # seconds
    slowness: float  # of the GPU, 1 at the model's clock
    byte: float  # seconds of a byte that is copied
    error: float  # root mean square, of the seconds measured

    def seconds(self, row: Measured) -> float:
        """What the model says with these constants."""
        return (
            self.submission * row.submissions
            + self.slowness * row.modelled
            + self.byte * row.bytes
        )


@dataclass(frozen=True)
class Board:
    """A report: whose it is, what it measured, what of that the model knows."""

    label: str
    gpu: str
    model: str | None  # the board of `BOARDS`
    driver: str
    copies: Mapping[str, Any]
    submission: Mapping[str, Any]
    rows: tuple[Measured, ...]


def read_report(path: Path) -> Board:
    """Raises `ValueError`, whose message says what is wrong with the file."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        if (said["format"], said["version"]) != (FORMAT, VERSION):
            raise ValueError(f"is no {FORMAT} of version {VERSION}")
        facts = {name: part["facts"] for name, part in said["sections"].items()}
        device, speeds = facts["devices"]["device"], facts["speeds"]
        layers = speeds.get("layers", [])
        return Board(
            label=facts["machine"]["board"] or path.stem,
            gpu=device["name"],
            model=next((each["board"] for each in layers), None),
            driver=device["driver_info"] or device["driver_version"],
            copies=speeds.get("copies", {}),
            submission=speeds.get("submission", {}),
            rows=(*_layers(layers), *_frames(speeds.get("frames", []))),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"lacks something that reports have: {error}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is no JSON: {error}") from None


def _layers(models: Sequence[Mapping[str, Any]]) -> list[Measured]:
    return [
        Measured(
            model["model"],
            model["precision"],
            f"{row['layer']}, {' '.join(row['shaders'])}",
            row["seconds"],
            row["submissions"],
            row["modelled"],
        )
        for model in models
        for row in model["rows"]
        if row["modelled"] is not None
    ]


def _frames(frames: Sequence[Mapping[str, Any]]) -> list[Measured]:
    return [
        Measured(
            frame["model"],
            frame["precision"],
            f"a frame of {frame['width']}×{frame['height']}",
            frame["seconds"],
            frame["submissions"],
            frame["modelled"],
            frame["bytes"],
        )
        for frame in frames
        if frame["modelled"] is not None
    ]


def fit(rows: Sequence[Measured]) -> Fit | None:
    """The constants that explain `rows` best; None where there are too few."""
    if len(rows) < 3:
        return None
    seconds = np.array([row.seconds for row in rows])
    # Of relative errors, or the longest layer would be all that counts.
    terms = np.array([[row.submissions, row.modelled, row.bytes] for row in rows])
    terms = terms / seconds[:, None]
    free = [number for number in range(3) if terms[:, number].any()]
    found = np.zeros(3)
    while free:
        # Bytes and seconds are far apart: columns of one size, for the solver.
        sizes = np.linalg.norm(terms[:, free], axis=0)
        solved, *_ = np.linalg.lstsq(terms[:, free] / sizes, np.ones(len(rows)))
        if (solved >= 0).all():
            found[free] = solved / sizes
            break
        del free[int(np.argmin(solved))]
    error = float(np.sqrt(np.mean(np.square(terms @ found - 1))))
    submission, slowness, byte = map(float, found)
    return Fit(submission, slowness, byte, error)


def board_row(board: Board) -> Row:
    """What a board measured of itself, and the constants that fit."""
    fitted = fit(board.rows) if board.model else None
    clock = BOARDS[board.model].clock / 1e9 if board.model else None
    return {
        "board": board.label,
        "GPU": board.gpu,
        "Mesa": board.driver,
        "copies to it, MB/s": _scaled(board.copies.get("to"), 1e-6),
        "from it, MB/s": _scaled(board.copies.get("from"), 1e-6),
        "cached": {True: "yes", False: "no"}.get(board.copies.get("cached", "")),
        "submission, µs": _scaled(board.submission.get("submission"), 1e6),
        "fit: submission, µs": 1e6 * fitted.submission if fitted else None,
        "fit: copies, MB/s": 1e-6 / fitted.byte if fitted and fitted.byte else None,
        "fit: clock, GHz": clock / fitted.slowness
        if clock and fitted and fitted.slowness
        else None,
        "model's clock": clock,
        "fit's error, %": 100 * fitted.error if fitted else None,
    }


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def awaited_row(name: str) -> Row:
    """A board that nobody has measured yet."""
    model = BOARDS[name]
    row = dict.fromkeys(board_row(Board(name, "", None, "", {}, {}, ())))
    return row | {
        "board": name,
        "GPU": model.gpu,
        "model's clock": model.clock / 1e9,
    }


def layer_rows(board: Board) -> list[Row]:
    """Measured, modelled, and modelled with the constants that fit, in milliseconds."""
    fitted = fit(board.rows)
    return [
        {
            "board": board.label,
            "model": row.model,
            "precision": row.precision,
            "what": row.what,
            "measured, ms": 1e3 * row.seconds,
            "modelled": 1e3 * row.modelled,
            "fitted": 1e3 * fitted.seconds(row) if fitted else None,
            "measured/modelled": row.seconds / row.modelled,
        }
        for row in board.rows
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "reports",
        nargs="*",
        type=Path,
        metavar="REPORT.json",
        help="to be shown (default: write results/ of those in benchmarks/reports/)",
    )
    named = parser.parse_args().reports
    boards = []
    for path in named or sorted(REPORTS.glob("*.json")):
        try:
            boards.append(read_report(path))
        except (OSError, ValueError) as error:
            sys.exit(f"boards: {path.name} {error}")
    layers = [row for board in boards for row in layer_rows(board)]
    if named:
        show([board_row(board) for board in boards])
        if layers:
            print()
            show(layers)
        return
    measured = {board.model for board in boards}
    publish(
        "boards",
        "Boards, by the reports of 'upfrost check'",
        [
            *map(board_row, boards),
            *(awaited_row(name) for name in BOARDS if name not in measured),
        ],
        [
            "copies to and from memory that the GPU sees, and a submission of next to "
            "nothing: measured by themselves",
            "fit: what explains layers and frames best, with the error that is left "
            "(root mean square); clock: at which the model would be right",
            "a row of dashes is a board that nobody has sent a report of",
        ],
    )
    if layers:
        publish(
            "boards_layers",
            "Layers and frames on boards, beside the model of docs/mali.md",
            layers,
            ["fitted: by the constants of boards.md"],
        )


if __name__ == "__main__":
    main()
