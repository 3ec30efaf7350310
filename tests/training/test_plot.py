"""A run's log becomes a well-formed drawing."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from upfrost_training.plot import draw_log

ROWS = [
    {"step": "10", "loss": "0.5", "psnr": "30.0"},
    {"step": "20", "loss": "0.4", "psnr": "31.0", "Set5/x2": "33.0"},
    {"step": "30", "loss": "0.3", "psnr": "32.0", "Set5/x2": "34.0"},
]


@pytest.mark.parametrize("count", range(4))
def test_logs_of_any_length_are_drawn(tmp_path: Path, count: int) -> None:
    draw_log(ROWS[:count], "a < b", tmp_path / "log.svg")
    root = ElementTree.parse(tmp_path / "log.svg").getroot()
    lines = root.findall(".//{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == (0, 2, 3, 3)[count]
    assert all(line.get("points") for line in lines)


def test_higher_values_stand_higher(tmp_path: Path) -> None:
    draw_log(ROWS, "run", tmp_path / "log.svg")
    root = ElementTree.parse(tmp_path / "log.svg").getroot()
    loss, psnr = root.findall(".//{http://www.w3.org/2000/svg}polyline")[:2]
    for line, rises in ((loss, False), (psnr, True)):
        heights = [float(p.split(",")[1]) for p in line.get("points", "").split()]
        assert heights == sorted(heights, reverse=rises)
