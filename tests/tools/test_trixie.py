"""tools/trixie.sh says what it wants where it cannot make a chroot."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools/trixie.sh"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def run(folder: Path, **commands: str) -> subprocess.CompletedProcess[str]:
    """The script where these commands are all that there is, beside a shell's own."""
    path = folder / "commands"
    path.mkdir()
    for name in ("bash", "dirname", "grep", "head", "mkdir", "sed", "sort", "touch"):
        (path / name).symlink_to(shutil.which(name) or "")
    for name, text in commands.items():
        program = path / name.replace("_", "-")
        program.write_text(f"#!/bin/bash\n{text}\n")
        program.chmod(0o755)
    chroot = folder / "chroot"
    return subprocess.run(
        [shutil.which("bash") or "", SCRIPT],
        env={"PATH": str(path), "HOME": str(folder), "UPFROST_TRIXIE": str(chroot)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@as_root
def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "chroot/.thesis"
    precious.parent.mkdir()
    precious.touch()
    done = run(
        tmp_path,
        apt_get="echo 'Debian|Debian|ARCHIVE'",
        debootstrap="exit 1",
        tail="",
        rm=f'exec {shutil.which("rm")} "$@"',
    )
    assert done.returncode == 1
    assert "chroot holds other things than a chroot" in done.stderr
    assert precious.exists()


@as_root
def test_without_debootstrap(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 1
    assert "apt-get install debootstrap" in done.stderr


@as_root
@pytest.mark.parametrize("known", ["", "echo 'Ubuntu|Ubuntu|ARCHIVE'"])
def test_without_an_archive_of_debian(tmp_path: Path, known: str) -> None:
    done = run(tmp_path, debootstrap="", apt_get=known)
    assert done.returncode == 1
    assert "apt knows no archive of Debian" in done.stderr
    assert "UPFROST_DEBIAN_ARCHIVE" in done.stderr


@as_root
def test_a_failure_of_debootstrap_is_shown(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        apt_get="echo 'Debian|Debian|ARCHIVE'",
        debootstrap='echo "no such suite: $*"; exit 1',
        tail='while read -r line; do echo "$line"; done <"${@: -1}"',
        rm="",
    )
    assert done.returncode == 1
    assert "no such suite" in done.stderr
    assert "trixie" in done.stderr
    assert "ARCHIVE" in done.stderr
