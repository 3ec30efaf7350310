"""The page is read by people, the files by anybody: in columns, and without names."""

from __future__ import annotations

import json

import pytest

from upfrost.check.report import WIDTH, Finding, Report, Section, page, without_private

LONG = "a sentence that goes on and on " * 5


def section() -> Section:
    found = Section("machine", "The machine", facts={"clock": 10**9})
    found.add("good", "It is there")
    found.add("wrong", LONG, "do this")
    found.add("wrong", "And that", "do this")
    found.add("figure", f"{'layer':44} {'ms':>7} {'model':>7} {'GMAC/s':>6}")
    return found


def test_the_page_fits_a_terminal_and_says_once_what_to_do() -> None:
    lines = list(page(section()))
    assert max(map(len, lines)) <= WIDTH
    assert lines[1] == "  ok      It is there"
    assert sum("do this" in line for line in lines) == 1
    assert lines[-1].endswith("GMAC/s"), "columns are not wrapped"


def test_a_report_passes_when_nothing_is_wrong() -> None:
    report = Report("1.0", "2026-01-02", quick=False, sections=[section()])
    assert not report.passed
    assert report.verdict == "2 things are wrong"
    said = json.loads(report.to_json())
    assert said["passed"] is False
    assert said["sections"]["machine"]["facts"] == {"clock": 10**9}
    assert "**WRONG** And that" in report.to_markdown()
    noted = Section("machine", "The machine", [Finding("note", "No GPU")])
    assert Report("1.0", "2026-01-02", quick=False, sections=[noted]).passed


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("/home/eve/.cache/upfrost/x.json is damaged", "…/x.json is damaged"),
        ("in /home/eve", "in …"),
        ("open /dev/dri/renderD128", "open /dev/dri/renderD128"),
        ("sudo usermod -aG render eve, then", "sudo usermod -aG render $USER, then"),
        ("Linux 6.1-of-evehost and evehost", "Linux 6.1-of-HOST and HOST"),
        ("never say 5 GB/s or 1×1/2", "never say 5 GB/s or 1×1/2"),
    ],
)
def test_names_and_folders_are_taken_out(
    monkeypatch: pytest.MonkeyPatch, text: str, clean: str
) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "eve")
    monkeypatch.setattr("platform.node", lambda: "evehost")
    assert without_private({"a": [text], "n": 3}) == {"a": [clean], "n": 3}
