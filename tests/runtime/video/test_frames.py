"""Frames through the network: what is not computed is the same as if it were."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tests import graphs
from upfrost import Upscaler
from upfrost.arrays import Bytes
from upfrost.gpu.frame import Frame, FrameFormat, Subsampling
from upfrost.gpu.tiles import frame_tiling, tiling
from upfrost.video import frames as module
from upfrost.video.frames import FrameUpscaler, Later, picture_box


@pytest.fixture(scope="module")
def upscaler() -> Iterator[Upscaler]:
    # With strides and odd ratios, so that windows must begin where they may.
    with Upscaler(graphs.every_operation(seed=4), precision="fp32") as opened:
        yield opened


@pytest.fixture(scope="module")
def luma() -> Iterator[Upscaler]:
    with Upscaler(graphs.luma_network(4, layers=1), precision="fp32") as opened:
        yield opened


def framed(seed: int, height: int, width: int, box: module.Box) -> Bytes:
    """Black with noise in a box."""
    rng = np.random.default_rng(seed)
    frame = np.zeros((height, width, 3), np.uint8)
    top, bottom, left, right = box
    shape = (bottom - top, right - left, 3)
    frame[top:bottom, left:right] = rng.integers(1, 256, shape)
    return frame


@pytest.mark.parametrize(
    "box",
    [
        (40, 90, 0, 96),  # letterbox
        (0, 130, 37, 60),  # pillarbox
        (33, 80, 30, 61),  # both
        (0, 20, 0, 96),  # only below
        (90, 130, 60, 96),  # a corner
        (64, 65, 48, 49),  # one pixel
    ],
)
def test_results_with_bars_are_bit_for_bit_those_of_the_whole_frame(
    upscaler: Upscaler, box: module.Box
) -> None:
    # An odd height, which is no multiple of the network's alignment.
    frame = framed(8, 131, 96, box)
    through = FrameUpscaler(
        begun_by(upscaler), upscaler.graph.scale, upscaler.tiling, 131, 96
    )
    np.testing.assert_array_equal(through.start(frame)(), upscaler(frame))


def test_bars_that_come_and_go_change_nothing(
    upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 4)
    boxes = [(30, 90, 0, 96)] * 2 + [(0, 96, 0, 96)] * 2 + [(48, 80, 10, 80)] * 10
    through = FrameUpscaler(
        begun_by(upscaler), upscaler.graph.scale, upscaler.tiling, 96, 96
    )
    for seed, box in enumerate(boxes):
        frame = framed(seed, 96, 96, box)
        np.testing.assert_array_equal(
            through.start(frame)(), upscaler(frame), str(seed)
        )
    counts = through.counts
    assert counts.computed == len(boxes)
    # The last frames are computed in part again.
    before = counts.pixels
    through.start(framed(99, 96, 96, boxes[-1]))()
    assert counts.pixels - before < 96 * 96


@pytest.mark.parametrize("name", ["420", "422", "444"])
@pytest.mark.parametrize("box", [(20, 41, 0, 57), (0, 61, 21, 40), (30, 31, 28, 29)])
def test_frames_of_planes_with_bars_are_those_of_the_whole_frame(
    luma: Upscaler, name: Subsampling, box: module.Box
) -> None:
    """In the picture, in luma or in chroma alone; of odd sides."""
    kind = FrameFormat(name, bits=10)
    whole = Frame.empty(kind, 61, 57)
    for number, plane in enumerate(whole.planes):
        y, x = kind.ratios[number]
        plane[...] = 64 if number == 0 else 512
        if number != 1:
            part = np.s_[box[0] // y : box[1] // y + 1, box[2] // x : box[3] // x + 1]
            rng = np.random.default_rng(number)
            plane[part] = rng.integers(64, 900, plane[part].shape)
    tiling = frame_tiling(luma.tiling, kind.chroma)
    through = FrameUpscaler(
        lambda part: luma.start_frame(part).result, 2, tiling, 61, 57
    )
    found, expected = through.start(whole)(), luma.frame(whole)
    assert through.counts.pixels < 61 * 57
    for one, other in zip(found.planes, expected.planes, strict=True):
        np.testing.assert_array_equal(one, other)
    assert through.start(whole)() is found


def begun_by(upscaler: Upscaler) -> Callable[[Bytes], Later[Bytes]]:
    return lambda frame: upscaler.start(frame).result


def larger(frame: Bytes) -> Bytes:
    return frame.repeat(2, axis=0).repeat(2, axis=1)


def count_calls() -> tuple[list[tuple[int, ...]], Callable[[Bytes], Later[Bytes]]]:
    calls: list[tuple[int, ...]] = []

    def begin(frame: Bytes) -> Later[Bytes]:
        calls.append(frame.shape)
        return lambda: larger(frame)

    return calls, begin


def test_equal_frames_are_computed_once() -> None:
    graph = graphs.plain_network(seed=1)
    calls, begin = count_calls()
    through = FrameUpscaler(begin, graph.scale, tiling(graph), 20, 30)
    one, other = framed(1, 20, 30, (0, 20, 0, 30)), framed(2, 20, 30, (0, 20, 0, 30))
    # All are begun before the first one is asked for.
    begun = [through.start(frame.copy()) for frame in (one, one, one, other, one)]
    results = [result() for result in begun]
    assert len(calls) == 3
    counts = through.counts
    assert (counts.frames, counts.computed, counts.duplicate) == (5, 3, 2)
    for result, frame in zip(results, (one, one, one, other, one), strict=True):
        np.testing.assert_array_equal(result, larger(frame))


def test_black_frames_are_computed_once() -> None:
    graph = graphs.plain_network(seed=1)
    calls, begin = count_calls()
    through = FrameUpscaler(begin, graph.scale, tiling(graph), 20, 30)
    black, other = framed(1, 20, 30, (0, 0, 0, 0)), framed(2, 20, 30, (0, 20, 0, 30))
    for frame in (black, other, black, other, black):
        np.testing.assert_array_equal(through.start(frame)(), larger(frame))
    assert through.counts.black == 3
    assert len(calls) == 3


def test_a_result_cannot_be_changed_by_whoever_gets_it() -> None:
    graph = graphs.plain_network(seed=1)
    through = FrameUpscaler(count_calls()[1], graph.scale, tiling(graph), 20, 30)
    result = through.start(framed(2, 20, 30, (0, 20, 0, 30)))()
    with pytest.raises(ValueError, match="read-only"):
        result[0, 0] = 0


@pytest.mark.parametrize("seed", range(20))
def test_the_box_is_the_smallest_around_what_is_not_black(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frame = np.zeros((17, 23, 3), np.uint8)
    for _ in range(rng.integers(0, 4)):
        frame[rng.integers(17), rng.integers(23), rng.integers(3)] = 1
    rows, columns, _ = frame.nonzero()
    expected = None
    if rows.size:
        top, left = int(rows.min()), int(columns.min())
        expected = (top, int(rows.max()) + 1, left, int(columns.max()) + 1)
    assert picture_box(frame) == expected
