"""Half precision is tried once where a driver does not say whether it computes it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from upfrost.gpu.device import DeviceInfo, choose_device
from upfrost.gpu.halfprecision import faster_precision


@pytest.fixture
def silent_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> DeviceInfo:
    """A GPU whose features say nothing of half precision; nothing is kept of it."""
    monkeypatch.setenv("UPFROST_CACHE", str(tmp_path))
    return replace(choose_device(), kind="integrated", has_float16=False)


def children(
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    environments: list[Mapping[str, str]] | None = None,
) -> list[str]:
    """The child processes that are asked for; each ends with that code."""
    asked: list[str] = []

    def run(
        command: list[str], *, env: Mapping[str, str], **_: object
    ) -> subprocess.CompletedProcess[str]:
        asked.append(command[-1])
        if environments is not None:
            environments.append(env)
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(subprocess, "run", run)
    return asked


def test_a_child_tries_on_the_device(silent_gpu: DeviceInfo) -> None:
    assert faster_precision(silent_gpu) == "fp16"


def test_the_child_finds_upfrost_where_its_parent_did(
    silent_gpu: DeviceInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debian's package has it in a folder that only the command puts on its path."""
    environments: list[Mapping[str, str]] = []
    children(monkeypatch, 0, environments)
    monkeypatch.setattr(sys, "path", ["/usr/lib/upfrost", *sys.path])
    assert faster_precision(silent_gpu) == "fp16"
    (environment,) = environments
    assert environment["PYTHONPATH"].split(os.pathsep)[0] == "/usr/lib/upfrost"


def test_a_driver_that_ends_the_process_is_asked_once(
    silent_gpu: DeviceInfo,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked = children(monkeypatch, -4)  # SIGILL
    with caplog.at_level(logging.WARNING):
        assert faster_precision(silent_gpu) == "fp32"
        assert faster_precision(silent_gpu) == "fp32"
    assert asked == [str(silent_gpu.index)]
    assert "does not compile half precision" in caplog.text
    newer = replace(silent_gpu, driver_version="99.0.0")
    assert faster_precision(newer) == "fp32"
    assert len(asked) == 2, "another driver is another question"


def test_whoever_says_it_is_not_asked(
    silent_gpu: DeviceInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = children(monkeypatch, -4)
    assert faster_precision(replace(silent_gpu, has_float16=True)) == "fp16"
    assert faster_precision(replace(silent_gpu, kind="cpu")) == "fp32"
    assert asked == []
