"""A device that never answers ends the command, with one line that says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# PyDLL keeps Python's lock during the call, as Kompute does.
STUCK = """
import ctypes, sys
from upfrost.gpu.watchdog import Watchdog
with Watchdog("upfrost: the device does not answer") as watch:
    with watch(60):
        pass
    with watch(0.2):
        ctypes.PyDLL(None).sleep(int(sys.argv[1]))
print("went on")
"""


def run(seconds: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", STUCK, str(seconds)],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
        cwd=Path(__file__).parent,
    )


def test_a_wait_without_end_is_ended_and_explained() -> None:
    result = run(100)
    assert result.returncode == 1
    assert result.stderr == "upfrost: the device does not answer\n"
    assert result.stdout == ""


def test_what_ends_in_time_is_left_alone() -> None:
    result = run(0)
    assert (result.returncode, result.stdout, result.stderr) == (0, "went on\n", "")
