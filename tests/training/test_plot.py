"""A run's log becomes a well-formed drawing."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from upfrost.metrics.chart import HEIGHT
from upfrost_training.plot import draw_log

ROWS = [
    {"step": "10", "loss": "0.5", "psnr": "30.0"},
    {"step": "20", "loss": "0.4", "psnr": "31.0", "Set5/x2": "33.0"},
    {"step": "30", "loss": "0.3", "psnr": "32.0", "Set5/x2": "34.0"},
]
_SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("count", range(4))
def test_logs_of_any_length_are_drawn(tmp_path: Path, count: int) -> None:
    draw_log(ROWS[:count], "a < b", tmp_path / "log.svg")
    root = ElementTree.parse(tmp_path / "log.svg").getroot()
    charts = root.findall(f"{_SVG}svg")
    assert [chart.get("y") for chart in charts] == ["0", str(HEIGHT)][: 2 * bool(count)]
    texts = [text.text for text in root.iter(f"{_SVG}text")]
    assert ("held-out crops" in texts) == (count > 0)
    assert ("Set5/x2" in texts) == (count > 1)
