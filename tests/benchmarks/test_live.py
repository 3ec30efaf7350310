"""Programs that need Mali's compiler ask for it, and others do not."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from benchmarks import live


@pytest.fixture(autouse=True)
def _no_panvk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UPFROST_PANVK", raising=False)


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What `live` would have measured: for boards, their folder."""
    done: list[object] = []
    monkeypatch.setattr(live, "publish_processor", lambda *_: done.append("cpu"))
    monkeypatch.setattr(live, "publish_boards", done.append)
    return done


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["live", *arguments])
    live.main()


def test_the_processor_s_part_needs_no_mali_compiler(
    monkeypatch: pytest.MonkeyPatch, parts: list[object]
) -> None:
    run(monkeypatch, "--only", "cpu")
    assert parts == ["cpu"]


@pytest.mark.parametrize("arguments", [(), ("--only", "boards")], ids=str)
def test_boards_need_it_and_nothing_is_measured_before_it_is_named(
    monkeypatch: pytest.MonkeyPatch, parts: list[object], arguments: tuple[str, ...]
) -> None:
    with pytest.raises(SystemExit, match=r"--panvk FOLDER, or UPFROST_PANVK"):
        run(monkeypatch, *arguments)
    assert parts == []


def test_the_folder_is_an_option_or_an_environment_variable(
    monkeypatch: pytest.MonkeyPatch, parts: list[object]
) -> None:
    run(monkeypatch, "--panvk", "one")
    monkeypatch.setenv("UPFROST_PANVK", "other")
    run(monkeypatch, "--only", "boards")
    assert parts == ["cpu", Path("one"), Path("other")]


@pytest.mark.parametrize(
    "name",
    ["frontier", "live", "mali_costs", "mali_ncnn", "mali_static", "winograd"],
)
def test_help_says_how_the_folder_can_be_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit):
        importlib.import_module(f"benchmarks.{name}").main()
    said = " ".join(capsys.readouterr().out.split())
    assert "--panvk FOLDER" in said
    assert "UPFROST_PANVK serves, too" in said
