"""The page of networks that upfrost takes leaves none of spandrel's out."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from benchmarks import compatibility


def test_every_architecture_of_spandrel_is_listed_once() -> None:
    spec = importlib.util.find_spec("spandrel")
    if spec is None or spec.origin is None:
        pytest.skip("pip install --no-deps spandrel")
    folder = Path(spec.origin).parent / "architectures"
    there = sorted(path.parent.name for path in folder.glob("[A-Z]*/__init__.py"))
    tried = (*compatibility.SUPER_RESOLUTION, *compatibility.RESTORATION)
    listed = [module for module, *_ in tried]
    for names in compatibility.OUT_OF_SCOPE.values():
        listed += names
    assert sorted(listed) == there
