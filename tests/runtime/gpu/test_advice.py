"""Advice names what is in the way on the machine at hand, and no more."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from upfrost.gpu.advice import gpu_advice

BIFROST = "PAN_I_WANT_A_BROKEN_VULKAN_DRIVER"


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VK_DRIVER_FILES", "VK_ICD_FILENAMES", BIFROST):
        monkeypatch.delenv(name, raising=False)


def board(root: Path, driver: str | None, release: str) -> Path:
    (root / "etc").mkdir()
    (root / "etc/os-release").write_text(release)
    if driver:
        (root / "dev/dri").mkdir(parents=True)
        (root / "dev/dri/renderD128").touch()
        (root / "drivers" / driver).mkdir(parents=True)
        device = root / "sys/class/drm/renderD128/device"
        device.mkdir(parents=True)
        (device / "driver").symlink_to(root / "drivers" / driver)
    return root


DEBIAN_12 = 'ID=debian\nVERSION_CODENAME=bookworm\nVERSION_ID="12"\n'
DEBIAN_13 = 'ID=debian\nVERSION_CODENAME=trixie\nVERSION_ID="13"\n'


def test_no_kernel_driver(tmp_path: Path) -> None:
    lines = gpu_advice(board(tmp_path, None, DEBIAN_13))
    assert "no /dev/dri/renderD128" in lines[0]
    assert "panfrost" in lines[0]
    assert "panthor" in lines[0]


@pytest.mark.parametrize("driver", [None, "rockchip-drm"])
def test_a_kernel_of_a_boards_maker(tmp_path: Path, driver: str | None) -> None:
    """With such, no driver of Mesa's helps; it may have a node for the display."""
    closed = board(tmp_path, driver, DEBIAN_12) / "dev/mali0"
    closed.parent.mkdir(exist_ok=True)
    closed.touch()
    lines = gpu_advice(tmp_path)
    assert "/dev/mali0" in lines[0]
    assert "Armbian's 'current'" in lines[0]
    assert not any("no /dev/dri/renderD128" in line for line in lines)


def test_debian_13_needs_its_own_package(tmp_path: Path) -> None:
    (line,) = gpu_advice(board(tmp_path, "panthor", DEBIAN_13))
    assert line == (
        "The kernel drives it by panthor; Mesa's Vulkan driver for it: "
        "sudo apt install mesa-vulkan-drivers."
    )


def test_debian_12_needs_the_backport(tmp_path: Path) -> None:
    (line,) = gpu_advice(board(tmp_path, "panthor", DEBIAN_12))
    assert "-t bookworm-backports mesa-vulkan-drivers" in line


@pytest.mark.parametrize("release", [DEBIAN_12, DEBIAN_13, "ID=armbian\n"])
def test_what_is_installed_is_not_advised(tmp_path: Path, release: str) -> None:
    drivers = board(tmp_path, "panthor", release) / "usr/share/vulkan/icd.d"
    drivers.mkdir(parents=True)
    (drivers / "panfrost_icd.aarch64.json").touch()
    (line,) = gpu_advice(tmp_path)
    assert line.endswith(
        "is installed (/usr/share/vulkan/icd.d/panfrost_icd.aarch64.json)."
    )
    assert "apt install" not in line


def test_a_package_that_has_no_driver_for_mali_is_not_advised(tmp_path: Path) -> None:
    """As on x86-64, where Debian's build is without it."""
    packages = board(tmp_path, None, DEBIAN_13) / "var/lib/dpkg/info"
    packages.mkdir(parents=True)
    (packages / "mesa-vulkan-drivers:amd64.list").touch()
    lines = gpu_advice(tmp_path)
    assert any("has no driver for Mali" in line for line in lines)
    assert not any("apt install" in line for line in lines)


def test_debian_12_needs_the_backport_beside_its_own(tmp_path: Path) -> None:
    packages = board(tmp_path, "panthor", DEBIAN_12) / "var/lib/dpkg/info"
    packages.mkdir(parents=True)
    (packages / "mesa-vulkan-drivers:arm64.list").touch()
    (line,) = gpu_advice(tmp_path)
    assert "-t bookworm-backports mesa-vulkan-drivers" in line


def test_another_system_gets_both(tmp_path: Path) -> None:
    (line,) = gpu_advice(board(tmp_path, "panthor", "ID=armbian\n"))
    assert "on Debian 13" in line
    assert "bookworm-backports" in line


def test_no_release_file(tmp_path: Path) -> None:
    assert gpu_advice(tmp_path)


@pytest.mark.parametrize("value", [None, "1", "0"])
def test_bifrost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    if value is not None:
        monkeypatch.setenv(BIFROST, value)
    line = gpu_advice(board(tmp_path, "panfrost", DEBIAN_13))[-1]
    assert BIFROST in line
    assert ("Unset it" in line) == (value == "0")


def test_a_node_that_may_not_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board(tmp_path, "panthor", DEBIAN_13)
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr("upfrost.gpu.advice._group", lambda _: "render")
    line = gpu_advice(tmp_path)[0]
    assert "renderD128" in line
    assert "sudo usermod -aG render " in line


def test_a_group_without_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(number: int) -> None:
        raise KeyError(number)

    board(tmp_path, "panthor", DEBIAN_13)
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr("grp.getgrgid", unknown)
    monkeypatch.setattr("getpass.getuser", lambda: unknown(0))
    line = gpu_advice(tmp_path)[0]
    assert f"-aG {tmp_path.stat().st_gid} $USER" in line


def test_a_driver_list_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VK_DRIVER_FILES", "/one.json")
    assert "/one.json" in gpu_advice(board(tmp_path, "panthor", DEBIAN_13))[0]
