"""The constants of a board come out of what it measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import boards, report
from upfrost.check import speeds
from upfrost.check.jobs import Result
from upfrost.check.report import Report, Section
from upfrost.gpu.costs import BOARDS

SUBMISSION, SLOWNESS, BYTE = 150e-6, 1.25, 1 / 200e6
DEVICE = {
    "name": "Mali-G610",
    "driver_info": "Mesa 25.0.7",
    "driver_version": "25.0.7",
}


def seconds(submissions: int, modelled: float, copied: int = 0) -> float:
    return SUBMISSION * submissions + SLOWNESS * modelled + BYTE * copied


def layer(modelled: float | None, submissions: int = 1) -> dict[str, Any]:
    return {
        "layer": "3×3, 8 → 8",
        "shaders": ["conv3x3_half_1x12-fp16"],
        "dispatches": 1,
        "submissions": submissions,
        "macs": 10**8,
        "planned": 0.01,
        "modelled": modelled,
        "seconds": seconds(submissions, modelled or 0.0),
    }


def results(**changes: object) -> dict[str, Result]:
    """What a board would measure whose constants are those above."""
    layers = [layer(0.0004), layer(0.002), layer(0.007, 2), layer(None)]
    frame = {
        "model": "live",
        "precision": "fp16",
        "height": 360,
        "width": 640,
        "scale": 2,
        "frames": 30,
        "submissions": 1,
        "modelled": 0.004,
        "bytes": 1_728_000,
        "seconds": seconds(1, 0.004, 1_728_000),
    }
    model = {
        "model": "live",
        "precision": "fp16",
        "board": "RK3588",
        "height": 180,
        "width": 320,
        "rows": layers,
    }
    copies = {"to": 2e9, "from": 2e8, "own": 8e9, "cached": False, "coherent": True}
    return {
        "copies": Result(facts=copies),
        "a submission": Result(facts={"submission": 1e-4, "dispatch": 2e-6}),
        "layers of live": Result(facts=model | changes),
        "frames of live": Result(facts=frame),
    }


def written(folder: Path, found: dict[str, Result]) -> Path:
    """A report as `upfrost check` writes it."""
    machine = Section("machine", "The machine", facts={"board": "Radxa ROCK 5B"})
    devices = Section("devices", "The device", facts={"device": DEVICE})
    measured = speeds.judge(found, DEVICE, 5.0)
    report = Report("1", "2026-01-02", False, [machine, devices, measured])
    path = folder / "rock.json"
    path.write_text(report.to_json(), encoding="utf-8")
    return path


def test_the_constants_of_a_board_are_found(tmp_path: Path) -> None:
    row = boards.board_row(boards.read_report(written(tmp_path, results())))
    assert row["board"] == "Radxa ROCK 5B"
    assert row["fit: submission, µs"] == pytest.approx(150)
    assert row["fit: copies, MB/s"] == pytest.approx(200)
    assert row["fit: clock, GHz"] == pytest.approx(
        BOARDS["RK3588"].clock / 1e9 / SLOWNESS
    )
    assert row["fit's error, %"] == pytest.approx(0, abs=1e-6)
    assert row["copies to it, MB/s"] == pytest.approx(2000)
    assert row["cached"] == "no"


def test_layers_stand_beside_the_model(tmp_path: Path) -> None:
    rows = boards.layer_rows(boards.read_report(written(tmp_path, results())))
    assert len(rows) == 4, "one that the model does not know is left out"
    for row in rows:
        assert row["fitted"] == pytest.approx(row["measured, ms"])


def test_no_constant_is_negative() -> None:
    """Layers that are quicker than their submission would have to be less than none."""
    rows = [
        boards.Measured("m", "fp16", "layer", modelled - 5e-5, 1, modelled)
        for modelled in (0.001, 0.002, 0.004)
    ]
    fitted = boards.fit(rows)
    assert fitted is not None
    assert fitted.submission == 0
    assert 0.9 < fitted.slowness < 1
    assert boards.fit(rows[:2]) is None


def test_a_device_without_a_model_keeps_what_it_measured(tmp_path: Path) -> None:
    found = results(board=None, rows=[layer(None)])
    del found["frames of live"]
    row = boards.board_row(boards.read_report(written(tmp_path, found)))
    assert row["submission, µs"] == pytest.approx(100)
    assert row["fit: clock, GHz"] is None


def test_rows_of_boards_that_are_awaited_have_the_same_columns() -> None:
    row = boards.awaited_row("RK3568")
    assert row["GPU"] == "Mali-G52"
    assert row["fit: clock, GHz"] is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "is no JSON"),
        (json.dumps({"format": "other", "version": 1}), "is no upfrost-report"),
        (json.dumps({"format": "upfrost-report", "version": 1}), "lacks"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=problem):
        boards.read_report(path)


def test_a_named_report_is_shown_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, folder = written(tmp_path, results()), tmp_path / "results"
    monkeypatch.setattr(report, "RESULTS", folder)
    monkeypatch.setattr(sys, "argv", ["boards.py", str(path)])
    boards.main()
    shown = capsys.readouterr().out
    assert DEVICE["name"] in shown
    assert "a frame of 640×360" in shown
    assert not folder.exists()
