"""What stands between a program and the GPU is found without Vulkan, and named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from upfrost.check import machine
from upfrost.check.report import Section

DEBIAN_13 = 'ID=debian\nVERSION_CODENAME=trixie\nPRETTY_NAME="Debian 13"\n'
MESA = """\
Package: libc6
Status: install ok installed
Version: 2.41-12

Package: mesa-vulkan-drivers
Status: install ok installed
Version: 25.0.7-2
"""


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in machine.VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """A board on which all is as it should be."""
    texts = {
        "etc/os-release": DEBIAN_13,
        "dev/dri/renderD128": "",
        "proc/device-tree/model": "Radxa ROCK 5B\0",
        "proc/device-tree/serial-number": "c0ffee\0",
        "proc/cpuinfo": "model name : Cortex-A76\nSerial : c0ffee\n",
        "proc/meminfo": "MemTotal:        8000000 kB\n",
        "sys/class/devfreq/fb000000.gpu/max_freq": "1000000000\n",
        "sys/class/devfreq/fb000000.gpu/governor": "simple_ondemand\n",
        "usr/share/vulkan/icd.d/panfrost_icd.aarch64.json": "{}",
        "var/lib/dpkg/status": MESA,
    }
    for name, text in texts.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    drives(tmp_path, "panthor")
    return tmp_path


def drives(root: Path, driver: str) -> None:
    (root / "drivers" / driver).mkdir(parents=True)
    link = root / "sys/class/drm/renderD128/device/driver"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(root / "drivers" / driver)


def the_wrong(section: Section) -> tuple[str, str]:
    (found,) = section.wrong
    return found.text, found.advice or ""


def test_a_board_that_is_as_it_should_be(board: Path) -> None:
    section = machine.look(board)
    assert [each.state for each in section.findings] == ["good"] * 3
    said = " ".join(each.text for each in section.findings)
    for part in ("Debian 13, Radxa ROCK 5B", "panthor", "Mesa 25.0.7-2, with PanVK"):
        assert part in said
    assert section.facts["gpu_clocks"] == [
        {"max_freq": 10**9, "governor": "simple_ondemand"}
    ]
    assert section.facts["processor"] == "Cortex-A76"
    assert section.facts["memory_bytes"] == 8_192_000_000
    assert "c0ffee" not in str(section), "a serial number"


def test_a_node_without_permission(
    board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr("upfrost.gpu.advice._group", lambda _: "render")
    text, advice = the_wrong(machine.look(board))
    assert text == "/dev/dri/renderD128, driven by panthor: you may not open it"
    assert "sudo usermod -aG render $USER" in advice


def test_a_mesa_without_panvk(board: Path) -> None:
    (board / "usr/share/vulkan/icd.d/panfrost_icd.aarch64.json").unlink()
    (board / "var/lib/dpkg/status").unlink()
    text, advice = the_wrong(machine.look(board))
    assert "without PanVK" in text
    assert "sudo apt install mesa-vulkan-drivers" in advice


def test_arms_closed_driver(board: Path) -> None:
    (board / "dev/dri/renderD128").unlink()
    (board / "dev/mali0").touch()
    text, advice = the_wrong(machine.look(board))
    assert "closed driver" in text
    assert "panthor" in advice


def test_a_mali_that_is_too_old(board: Path) -> None:
    drives(board, "lima")
    text, _ = the_wrong(machine.look(board))
    assert "no Vulkan" in text


def test_an_empty_machine_has_nothing_wrong(tmp_path: Path) -> None:
    section = machine.look(tmp_path)
    assert not section.wrong
    assert any("drives no GPU" in each.text for each in section.findings)
