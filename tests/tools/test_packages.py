"""The scripts of the packages say what they want where they cannot work."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def run(folder: Path, script: str, **commands: str) -> subprocess.CompletedProcess[str]:
    """A script in a tree without packages; `commands` stand in for the system's."""
    shutil.copytree(ROOT / "tools", folder / "tools")
    for name, text in commands.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    return subprocess.run(
        [folder / "tools" / script],
        env=os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("script", ["packages-test.sh", "arm64-test.sh"])
def test_without_packages_it_says_what_builds_them(tmp_path: Path, script: str) -> None:
    done = run(tmp_path, script)
    assert done.returncode == 1
    assert "no packages in dist/; make packages builds them" in done.stderr


def test_packages_are_built_on_one_kind_of_machine(tmp_path: Path) -> None:
    done = run(tmp_path, "packages.sh", dpkg="echo riscv64")
    assert done.returncode == 1
    assert "packages are built on amd64" in done.stderr
    assert not (tmp_path / "dist").exists()
