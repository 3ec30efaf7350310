"""The cost model knows the boards that it was made for, and no others."""

from __future__ import annotations

import pytest

from tests import graphs
from upfrost.gpu.budget import band_seconds, choose_bands, waited_seconds
from upfrost.gpu.costs import BOARDS, board_of
from upfrost.gpu.frame import FrameFormat
from upfrost.gpu.plan import compile_graph
from upfrost.gpu.tiles import bands
from upfrost.network.graph import Window
from upfrost.network.modelfile import find_model, read_model


@pytest.mark.parametrize(
    ("device", "board"),
    [
        ("Mali-G610", "RK3588"),
        ("Mali-G610 MC4", "RK3588"),
        ("Mali-G52 r1 (Panfrost)", "RK3568"),
        ("Mali-G520", None),
        ("Mali-G57", None),
        ("llvmpipe (LLVM 15.0.6, 256 bits)", None),
    ],
)
def test_the_board_of_a_device(device: str, board: str | None) -> None:
    assert board_of(device) == board


def test_a_frame_that_takes_the_copies_as_long_as_the_device_goes_in_bands() -> None:
    """2160p of size s at 30 frames a second on RK3588, each frame waited for."""
    program = compile_graph(
        read_model(find_model("live-x2-s")), BOARDS["RK3588"].family, "fp16"
    )
    chroma = FrameFormat("420").chroma
    grid = choose_bands(program, 1080, 1920, chroma, "RK3588")
    whole = bands(program.tiling, 1080, 1920, 1)
    assert len(whole) == 1
    assert len(grid) > 1
    banded, at_once = (
        band_seconds(program, each, chroma, "RK3588") for each in (grid, whole)
    )
    assert banded < 1 / 30 < at_once


def test_a_frame_that_the_device_works_on_for_long_stays_whole() -> None:
    board = BOARDS["RK3568"]
    program = compile_graph(read_model(find_model("live-x2-l")), board.family, "fp16")
    chroma = FrameFormat("420").chroma
    assert len(choose_bands(program, 540, 960, chroma, "RK3568")) == 1


@pytest.mark.parametrize(
    ("device", "copies", "count", "wanted"),
    [
        (8.0, 4.0, 1, 12.0),
        (8.0, 4.0, 4, 9.0),  # a band's copies at the beginning and at the end
        (1.0, 8.0, 4, 8.0),  # the copies are the longer ones
    ],
)
def test_copies_lie_beside_the_work_on_other_bands(
    device: float, copies: float, count: int, wanted: float
) -> None:
    assert waited_seconds(device, copies, count) == wanted


@pytest.mark.parametrize("height", [33, 64, 200])
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_bands_give_every_row_once(height: int, count: int) -> None:
    tiling = compile_graph(
        graphs.luma_network(4), BOARDS["RK3588"].family, "fp16"
    ).tiling
    grid = bands(tiling, height, 50, count)
    rows = [row for tile in grid for row in range(*_ends(tile.kept_rows))]
    assert rows == list(range(height))
    assert 1 <= len(grid) <= count
    assert (len(grid) == count) or height < 64
    for tile in grid:
        assert _ends(tile.columns) == (0, 50)
        assert _ends(tile.rows)[0] in (0, tile.kept_rows.start - tiling.halo[0])


def _ends(window: Window) -> tuple[int, int]:
    return window.start, window.stop
