"""What the comparison of shaders for players reads out of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.players import Way, shape

from tests.graphs import luma_network
from upfrost_exporter.mpv import Form, write_shader

# Three layers of 1, 8 and 8 channels, the last one four.
LAYERS = luma_network(0, channels=8, layers=2)


@pytest.mark.parametrize(
    ("form", "passes", "reads"),
    [
        # Each of two slices reads nine pixels; the last pass, four times as large, a
        # value and four pixels.
        ("fragment", 6, 2 * 9 + 2 * 18 + 18 + 4 * 5),
        # What slices have in common is read once, and the skip's nine pixels.
        ("compute", 3, 9 + 18 + 18 + 9),
    ],
)
def test_reads_are_counted_for_each_small_pixel(
    form: Form, passes: int, reads: int, tmp_path: Path
) -> None:
    path = tmp_path / "network.glsl"
    write_shader(LAYERS, path, form)
    assert shape(Way("network", path)) == {"passes": passes, "reads": reads}


def test_the_player_s_own_filters_have_no_shape() -> None:
    assert shape(Way("bilinear", None)) == {"passes": None, "reads": None}
