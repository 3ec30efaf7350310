"""The command `upfrost check` on real drivers: what is wrong is found and named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import upfrost
from tests.runtime.gpu import faults
from upfrost.check import computing, devices, kernels, run
from upfrost.check.jobs import Request, Results, run_jobs
from upfrost.check.report import WIDTH
from upfrost.cli import main as cli
from upfrost.gpu.device import choose_device

PANVK = os.environ.get("UPFROST_PANVK")
RUNTIME = Path(upfrost.__file__).parent
FADD, FSUB = 129, 131  # SPIR-V's numbers of instructions


def check(
    folder: Path, *arguments: str, **environment: str
) -> tuple[int, str, dict[str, Any]]:
    """The exit code, the page and the report of a quick check."""
    found = subprocess.run(
        [
            *(sys.executable, "-m", "upfrost.cli.main", "check", "--quick", "-q"),
            *("-o", str(folder), *arguments),
        ],
        env=os.environ | {"COLUMNS": "80"} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert found.stderr == ""
    assert "Traceback" not in found.stdout
    assert max(map(len, found.stdout.splitlines())) <= max(WIDTH, len(str(folder)) * 3)
    report: dict[str, Any] = json.loads((folder / "upfrost-report.json").read_text())
    assert report["passed"] == (found.returncode == 0)
    return found.returncode, found.stdout, report


def test_this_device_passes(tmp_path: Path) -> None:
    code, page, report = check(tmp_path)
    assert code == 0, page
    assert "In all: all holds." in page
    assert list(report["sections"]) == [
        "machine",
        "devices",
        "computing",
        "kernels",
        "models",
        "speeds",
    ]
    speeds = report["sections"]["speeds"]["facts"]
    assert speeds["copies"]["to"] > 0
    assert speeds["frames"][0]["seconds"] > 0
    both = (tmp_path / "upfrost-report.md").read_text() + json.dumps(report)
    for private in (str(tmp_path), str(Path.home() / ".cache"), str(RUNTIME)):
        assert private not in both


def test_a_report_that_cannot_be_written_is_found_before_the_work(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(run, "check", None)
    (tmp_path / "file").touch()
    assert cli.main(["check", "-o", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err.endswith("file: is not a folder\n")


@pytest.mark.skipif(PANVK is None, reason="UPFROST_PANVK names no dead GPU's driver")
def test_a_driver_that_does_nothing(tmp_path: Path) -> None:
    assert PANVK is not None
    driver = str(Path(PANVK, "panfrost_icd.json"))
    code, page, report = check(
        tmp_path,
        PAN_GPU_ID="a867",
        VK_DRIVER_FILES=driver,
        VK_ICD_FILENAMES=driver,
        LD_PRELOAD=str(Path(PANVK, "libpanfrost_noop_drm_shim.so")),
    )
    assert code == 1
    assert "It computes nothing" in page
    assert "In all: 1 thing is wrong." in page
    for part in ("kernels", "models", "speeds"):
        (finding,) = report["sections"][part]["findings"]
        assert finding["state"] == "skipped"


def test_a_driver_without_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in faults.environment(half=False).items():
        monkeypatch.setenv(name, value)
    results = run_jobs(Request(devices.__name__, "0"))
    section = devices.judge(results, wanted=True, mali=False)
    assert not section.wrong
    assert section.facts["fp16"] is False
    assert any("No half precision" in each.text for each in section.findings)
    info = replace(choose_device("0"), kind="cpu", has_float16=False)
    assert kernels.precisions(info, quick=False) == ("fp32",)


def test_a_kernel_that_was_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its additions are subtractions: valid SPIR-V, and wrong."""
    kernel = "conv1x1_4x1_bytes-fp32"
    assert not choose_device().is_gpu, "another kernel on a GPU"
    shutil.copytree(
        RUNTIME, tmp_path / "upfrost", ignore=shutil.ignore_patterns("__pycache__")
    )
    path = tmp_path / "upfrost/gpu/spirv" / f"{kernel}.spv"
    words = np.fromfile(path, np.uint32)
    place, changed = 5, 0  # behind the header
    while place < len(words):
        length, operation = divmod(int(words[place]), 1 << 16)
        if operation == FADD:
            words[place] = length << 16 | FSUB
            changed += 1
        place += length
    assert changed
    words.tofile(path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    section = kernels.judge(run_jobs(Request(kernels.__name__, None, quick=True)))
    (wrong,) = section.wrong
    assert wrong.text.startswith(f"{kernel} is wrong: ")
    assert any(each.state == "good" for each in section.findings)


def test_another_build_of_kompute_is_named(tmp_path: Path) -> None:
    (tmp_path / "kp.py").write_text("__version__ = '0.9.0'\n")
    rest = os.environ.get("PYTHONPATH", "")
    code, page, _ = check(tmp_path, PYTHONPATH=f"{tmp_path}:{rest}")
    assert code == 1
    assert "kp 0.9.0 is installed" in page
    assert "→ it is Kompute's binding" in page
    assert "Not tried: there is no device" in page


def test_a_part_that_fails_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a machine whose GPU nobody may open, besides."""

    def short(request: Request, *_: object) -> Results:
        parts = (devices.__name__, computing.__name__)
        return run_jobs(request) if request.part in parts else {}

    def broken(*_: object) -> None:
        raise ZeroDivisionError("by nothing")

    (tmp_path / "dev/dri").mkdir(parents=True)
    (tmp_path / "dev/dri/renderD128").touch()
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(run, "run_jobs", short)
    monkeypatch.setattr("upfrost.check.kernels.judge", broken)
    report = run.check(run.Options(quick=True, root=tmp_path), str)
    assert [section.name for section in report.sections if section.wrong] == [
        "machine",
        "kernels",
    ]
    assert [each.text for each in report.wrong] == [
        "/dev/dri/renderD128, driven by an unknown driver: you may not open it",
        "This part of the check failed: ZeroDivisionError: by nothing",
    ]
