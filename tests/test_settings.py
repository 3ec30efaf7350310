"""Tests start from the same settings, however they were started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

CHILD = """
import subprocess, sys
import tests.conftest
child = "import signal; print(repr(signal.getsignal(signal.Signals[sys.argv[1]])))"
code = f"import sys; {child}"
subprocess.run([sys.executable, "-c", code, sys.argv[1]], check=True)
"""


@pytest.mark.parametrize("name", ["HUP", "INT"])
def test_processes_of_tests_do_not_inherit_that_signals_are_ignored(name: str) -> None:
    """As under nohup, where tests that wait for a stopped process would hang."""
    done = subprocess.run(
        [
            *("bash", "-c", f"trap '' {name}; exec \"$@\"", "bash"),
            *(sys.executable, "-c", CHILD, f"SIG{name}"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "SIG_IGN" not in done.stdout
    assert done.stdout.strip(), done.stderr
