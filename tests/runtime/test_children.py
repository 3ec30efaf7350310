"""Modules as processes of their own, of a program that found upfrost by itself."""

import subprocess
import sys
from pathlib import Path

import upfrost

PROGRAM = """
import subprocess, sys
sys.path.insert(0, sys.argv[1])
from upfrost import children
sys.exit(subprocess.run(
    children.command("upfrost.cli.main", "info", "live-x2-xs"),
    env=children.environment(),
).returncode)
"""


def test_a_child_finds_what_its_program_found(tmp_path: Path) -> None:
    """As the Debian package's command does: isolated, modules in a folder apart.

    What lies in the folder that one is in is not taken for upfrost.
    """
    (tmp_path / "upfrost.py").write_text("raise SystemExit(3)\n")
    runtime = str(Path(upfrost.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-I", "-c", PROGRAM, runtime],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "live-x2-xs" in done.stdout
