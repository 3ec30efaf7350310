"""Tables are printed, and written as JSON and Markdown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import report

ROWS: list[report.Row] = [
    {"runtime": "one", "s": 1.23456, "remark": None},
    {"runtime": "another", "s": None, "remark": "no result within 9 s"},
]


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "results"
    monkeypatch.setattr(report, "RESULTS", folder)
    monkeypatch.setattr("sys.argv", ["/somewhere/peers.py", "--rounds", "2"])
    return folder


@pytest.mark.usefixtures("results")
def test_the_printed_table_is_aligned(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report.publish("name", "Title", ROWS)
    assert capsys.readouterr().out.splitlines() == [
        "runtime     s                remark",
        "-------  ----  --------------------",
        "    one  1.23                     –",
        "another     –  no result within 9 s",
    ]


def test_json_holds_the_numbers_as_they_are(results: Path) -> None:
    report.publish("name", "Title", ROWS, ["a note"])
    found = json.loads((results / "name.json").read_text())
    assert found["rows"] == ROWS
    assert found["title"] == "Title"
    assert found["notes"] == ["a note"]
    assert found["command"] == "python -m benchmarks.peers --rounds 2"


def test_markdown_has_a_row_for_each_and_the_command(results: Path) -> None:
    report.publish("name", "Title", ROWS, ["a note"])
    lines = (results / "name.md").read_text().splitlines()
    assert lines[:7] == [
        "# Title",
        "",
        "| runtime | s | remark |",
        "| ---: | ---: | ---: |",
        "| one | 1.23 | – |",
        "| another | – | no result within 9 s |",
        "",
    ]
    assert "- a note" in lines
    assert any("`python -m benchmarks.peers --rounds 2`" in line for line in lines)
