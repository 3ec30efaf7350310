"""Modules of upfrost as processes of their own."""

from __future__ import annotations

import os
import sys


def command(module: str, *arguments: str) -> list[str]:
    """What runs a module as a program, by the Python that runs this one."""
    # Not what lies in the folder that one is in (-P), nor what a user installed for
    # programs without an environment (-s), unless that is on this program's path.
    return [sys.executable, "-P", "-s", "-m", module, *arguments]


def environment() -> dict[str, str]:
    """This process's, by which a child finds the modules that this one does.

    A program may have put upfrost on its path itself, as a package's does.
    """
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
