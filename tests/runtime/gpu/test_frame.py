"""Frames of video on the device, against the NumPy reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest

from tests import graphs
from upfrost import Upscaler
from upfrost.errors import UsageError
from upfrost.gpu import upscaler
from upfrost.gpu.device import NotFiniteError
from upfrost.gpu.dispatches import Precision
from upfrost.gpu.families import MALI
from upfrost.gpu.frame import (
    ChromaFormat,
    Frame,
    FrameFormat,
    Siting,
    Subsampling,
    turned,
)
from upfrost.gpu.plan import Program
from upfrost.gpu.tiles import TileGrid, bands, frame_tiling, smallest_side
from upfrost.network import reference
from upfrost.network.graph import INPUT, Conv2d, Graph, PixelShuffle

FORMATS = {
    "I420": FrameFormat("420"),
    "NV12": FrameFormat("420", interleaved=True, siting="centre"),
    "Y42B": FrameFormat("422", range="full"),
    "Y444": FrameFormat("444"),
    "I420_10LE": FrameFormat("420", bits=10, siting="top-left"),
    "P010_10LE": FrameFormat("420", interleaved=True, bits=10, shift=6),
    "I422_10LE": FrameFormat("422", bits=10),
    "GRAY8": FrameFormat("400", range="full"),
}


@pytest.fixture(scope="module")
def upscale() -> Iterator[Upscaler]:
    with Upscaler(graphs.luma_network(1), precision="fp32") as upscaler:
        yield upscaler


def noise(kind: FrameFormat, height: int, width: int, seed: int = 1) -> Frame:
    """Samples over the whole range, smooth enough for a network to do something."""
    rng = np.random.default_rng(seed)
    frame = Frame.empty(kind, height, width)
    for plane in frame.planes:
        wave = np.sin(np.arange(plane.shape[1]) / 3)[:, *[None] * (plane.ndim - 2)]
        values = 0.5 + 0.4 * wave + rng.uniform(-0.2, 0.2, plane.shape)
        most = (1 << kind.bits) - 1
        plane[...] = (values.clip(0, 1) * most).astype(np.uint16) << kind.shift
    return frame


def expected(graph: Graph, frame: Frame) -> list[npt.NDArray[Any]]:
    """The planes of the reference's result."""
    kind, samples = frame.format, frame.format.samples
    bounds = samples.low, samples.high
    planes = [
        reference.upscale_luma(graph, frame.planes[0] >> kind.shift, kind.bits, *bounds)
    ]
    chroma = kind.chroma
    for plane, result in zip(
        frame.planes[1:],
        kind.shapes(frame.height * graph.scale, frame.width * graph.scale)[1:],
        strict=True,
    ):
        assert chroma is not None
        parts = [
            reference.upscale_chroma(
                part >> kind.shift,
                graph.scale,
                chroma.ratio[::-1],
                (chroma.offset[1] / 2, chroma.offset[0] / 2),
                (chroma.result_offset[1] / 2, chroma.result_offset[0] / 2),
                *bounds,
            )
            for part in (np.moveaxis(plane, 2, 0) if plane.ndim == 3 else [plane])
        ]
        whole = np.stack(parts, 2) if plane.ndim == 3 else parts[0]
        planes.append(whole[: result[0], : result[1]])
    return planes


def difference(frame: Frame, planes: list[npt.NDArray[Any]]) -> int:
    """The largest, in steps of a sample."""
    return max(
        int(np.abs((one >> frame.format.shift).astype(int) - other).max())
        for one, other in zip(frame.planes, planes, strict=True)
    )


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("size", [(17, 30), (12, 21)], ids=str)
def test_a_frame_is_within_a_step_of_the_reference(
    upscale: Upscaler, name: str, size: tuple[int, int]
) -> None:
    frame = noise(FORMATS[name], *size)
    result = upscale.frame(frame)
    assert result.format == frame.format
    assert difference(result, expected(upscale.graph, frame)) <= 1


@pytest.mark.parametrize("bits", [8, 10, 12])
def test_white_of_full_range_stays_white(bits: int) -> None:
    """The models that ship end in a clamp, to less than the highest sample."""
    most = (1 << bits) - 1
    kind = FrameFormat("400", bits=bits, range="full")
    frame = Frame(kind, (np.full((9, 14), most, kind.dtype),))
    frame.planes[0][:, ::3] = most - 8
    with Upscaler("live-x2-xs", precision="fp32") as upscale:
        result = upscale.frame(frame)
        assert difference(result, expected(upscale.graph, frame)) <= 1
    assert result.planes[0].max() == most


@pytest.mark.parametrize("name", ["I420", "P010_10LE"])
def test_half_precision_is_50_db_from_single(name: str) -> None:
    graph = graphs.luma_network(2)
    frame = noise(FORMATS[name], 40, 40)
    results = []
    precisions: tuple[Precision, ...] = ("fp32", "fp16")
    for precision in precisions:
        with Upscaler(graph, precision=precision) as upscale:
            results.append(upscale.frame(frame).planes[0].astype(float))
    most = ((1 << frame.format.bits) - 1) << frame.format.shift
    error = np.mean((results[0] - results[1]) ** 2)
    assert 10 * np.log10(most**2 / error) >= 50


@pytest.mark.parametrize("scale", [2, 3])
@pytest.mark.parametrize("name", ["I420", "P010_10LE"])
def test_a_gpus_kernels_are_50_db_from_the_reference_and_make_no_seams(
    monkeypatch: pytest.MonkeyPatch, name: str, scale: int
) -> None:
    """Their last convolution writes samples itself, also in bands of rows."""
    graph = graphs.luma_network(2, layers=1, scale=scale)
    frame = noise(FORMATS[name], 41, 63)
    slow = replace(MALI, macs_per_second=20 * 63 * 8 * 9 * scale**2 * 10.0)
    results = []
    for family, tile in ((MALI, None), (slow, None), (MALI, 24)):
        monkeypatch.setattr(upscaler, "tuned_family", lambda *_, it=family: it)
        with Upscaler(graph, precision="fp16", tile=tile) as upscale:
            plan = upscale.plan(upscale.tiles(41, 63, tile))
            shaders = [dispatch.shader for dispatch in plan.dispatches]
            assert shaders[-1].startswith(f"conv3x3_luma{scale}_")
            assert shaders.count(shaders[-1]) == (2 if family is slow else 1)
            results.append(upscale.frame(frame))
    for result in results[1:]:
        for one, other in zip(results[0].planes, result.planes, strict=True):
            np.testing.assert_array_equal(one, other)
    luma = expected(graph, frame)[0].astype(float)
    error = np.mean(((results[0].planes[0] >> frame.format.shift) - luma) ** 2)
    assert 20 * np.log10((1 << frame.format.bits) - 1) - 10 * np.log10(error) >= 50


@pytest.mark.parametrize("scale", [2, 3])
def test_a_gpus_kernels_report_a_result_that_is_not_finite(
    monkeypatch: pytest.MonkeyPatch, scale: int
) -> None:
    graph = graphs.luma_network(2, layers=1, scale=scale)
    last = graph.nodes[2]
    assert isinstance(last, Conv2d)
    weight = graph.tensors[last.weight]
    huge = {last.weight: np.full_like(weight, 6e4)}
    overflowing = replace(graph, tensors={**graph.tensors, **huge})
    monkeypatch.setattr(upscaler, "tuned_family", lambda *_: MALI)
    frame = noise(FORMATS["I420"], 20, 24)
    with (
        Upscaler(overflowing, precision="fp16") as upscale,
        pytest.raises(NotFiniteError, match="too large for fp16"),
    ):
        upscale.frame(frame)


@pytest.mark.parametrize("scale", [1, 3, 4])
def test_any_scale(scale: int) -> None:
    graph = graphs.luma_network(3, layers=1, scale=scale)
    with Upscaler(graph, precision="fp32") as upscale:
        for name in ("I420", "NV12", "P010_10LE"):
            frame = noise(FORMATS[name], 10, 14)
            assert difference(upscale.frame(frame), expected(graph, frame)) <= 1


@pytest.mark.parametrize(
    ("name", "precision"),
    [("I420", "fp32"), ("NV12", "fp16"), ("I422_10LE", "fp16"), ("P010_10LE", "fp32")],
)
def test_tiles_give_the_bits_of_the_whole(name: str, precision: Precision) -> None:
    graph = graphs.luma_network(4)
    frame = noise(FORMATS[name], 41, 63)
    results = []
    for tile in (None, 24):
        with Upscaler(graph, precision=precision, tile=tile) as upscale:
            tiling = frame_tiling(upscale.tiling, frame.format.chroma)
            assert smallest_side(tiling) <= 24
            count = len(upscale.tiles(41, 63, tile, frame.format))
            assert (count > 1) == (tile is not None)
            results.append(upscale.frame(frame))
    for one, other in zip(results[0].planes, results[1].planes, strict=True):
        np.testing.assert_array_equal(one, other)


def test_bands_on_a_board_give_the_bits_of_the_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A frame that is waited for goes in bands where the board's model says so; not one
    of several on their way, and not where edges of bands would be seen."""
    frame = noise(FORMATS["P010_10LE"], 90, 30)
    asked = []

    def three(
        program: Program, height: int, width: int, chroma: ChromaFormat, board: str
    ) -> TileGrid:
        asked.append(board)
        return bands(frame_tiling(program.tiling, chroma), height, width, 3)

    monkeypatch.setattr("upfrost.gpu.upscaler.choose_bands", three)
    with Upscaler(graphs.luma_network(4)) as upscale:
        whole = upscale.frame(frame)
        assert upscale.overhead == 1
        assert not asked
    monkeypatch.setattr("upfrost.gpu.upscaler.board_of", lambda _: "RK3588")
    with Upscaler(graphs.luma_network(4)) as upscale:
        done: list[tuple[int, int]] = []
        banded = upscale.frame(frame, lambda *tiles: done.append(tiles))
        assert done == [(1, 3), (2, 3), (3, 3)]
        assert asked == ["RK3588"]
        upscale.frame(frame)
        assert len(asked) == 1  # frames are alike
        started = upscale.start_frame(frame).result()
        assert upscale.overhead == 1
    for result in (banded, started):
        for one, other in zip(result.planes, whole.planes, strict=True):
            np.testing.assert_array_equal(one, other)
    for halo, tile in ((2, None), (None, 40)):
        with Upscaler(graphs.luma_network(4), halo=halo, tile=tile) as upscale:
            upscale.frame(frame)
    assert len(asked) == 1


def test_a_network_with_strides_takes_odd_frames() -> None:
    build = graphs.Builder(5)
    half = build.conv(INPUT, 1, 8, kernel=2, stride=(2, 2), padding=(0, 0, 0, 0))
    value = build.conv(build.prelu(half, 8), 8, 16)
    value = build.add(PixelShuffle, value, factor=4)
    graph = build.graph(value, 2, 1, colour="luma")
    frame = noise(FORMATS["I420"], 13, 19)
    padded = Frame.empty(frame.format, 14, 20)
    for plane, given in zip(padded.planes, frame.planes, strict=True):
        more = [
            (0, new - old) for new, old in zip(plane.shape, given.shape, strict=True)
        ]
        plane[...] = np.pad(given, more, mode="edge")
    with Upscaler(graph, precision="fp32") as upscale:
        found = upscale.frame(frame)
    planes = [
        plane[: target.shape[0], : target.shape[1]]
        for plane, target in zip(expected(graph, padded), found.planes, strict=True)
    ]
    assert difference(found, planes) <= 1


def ramp(kind: FrameFormat, axis: int, size: tuple[int, int], scale: int) -> Frame:
    """A frame whose chroma says where it lies: 8 steps for each row or column of luma
    of a frame a `scale`-th as large, from the middle of the first one on."""
    frame = Frame.empty(kind, *size)
    chroma = kind.chroma
    assert chroma is not None
    frame.planes[0][...] = 512
    for plane in frame.planes[1:]:
        ratio, offset = chroma.ratio[1 - axis], chroma.offset[1 - axis]
        luma = np.arange(plane.shape[axis]) * ratio + offset / 2
        values = 160 + 8 * ((luma + 0.5) / scale - 0.5)
        plane[...] = values.reshape((-1, 1) if axis == 0 else (1, -1))
    return frame


@pytest.mark.parametrize("siting", get_args(Siting))
@pytest.mark.parametrize("subsampling", ["420", "422", "444"])
def test_chroma_of_a_ramp_lies_where_its_siting_says(
    upscale: Upscaler, subsampling: Subsampling, siting: Siting
) -> None:
    """A cubic continues a ramp exactly: the result is the ramp of a frame of twice the
    size. A siting that is not heeded moves it by two or four steps."""
    kind = FrameFormat(subsampling, siting=siting, bits=10)
    for axis in (0, 1):
        found = upscale.frame(ramp(kind, axis, (16, 24), 1))
        wanted = ramp(kind, axis, (32, 48), 2)
        for plane, other in zip(found.planes[1:], wanted.planes[1:], strict=True):
            # But for the edges, which are replicated.
            inside = np.s_[6:-6, 6:-6]
            np.testing.assert_array_equal(plane[inside], other[inside])


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("siting", get_args(Siting))
def test_chroma_is_moved_to_where_the_result_shall_have_it(
    scale: int, siting: Siting
) -> None:
    given = FrameFormat("420", siting=siting, bits=10, result_siting="left")
    graph = graphs.luma_network(1, scale=scale)
    with Upscaler(graph, precision="fp32", tile=16) as upscale:
        for axis in (0, 1):
            found = upscale.frame(ramp(given, axis, (32, 48), 1))
            assert found.format == FrameFormat("420", bits=10)
            wanted = ramp(found.format, axis, (32 * scale, 48 * scale), scale)
            for plane, other in zip(found.planes[1:], wanted.planes[1:], strict=True):
                inside = np.s_[3 * scale : -3 * scale, 3 * scale : -3 * scale]
                # Where a value lies between two samples either is right.
                close = np.abs(plane[inside].astype(int) - other[inside]) <= 1
                assert close.all()


def test_sitings_turn_with_the_frame() -> None:
    assert [turned("left", 90 * i) for i in range(-1, 4)] == [
        *("bottom", "left", "top", "right", "bottom"),
    ]
    assert turned("top-left", 90) == "top-right"
    assert turned("centre", 270) == "centre"


def test_planes_that_cannot_be_written_are_refused_before_work(
    upscale: Upscaler,
) -> None:
    frame = noise(FrameFormat("420"), 8, 8)
    into = Frame.empty(frame.format, 16, 16)
    into.planes[1].flags.writeable = False
    with pytest.raises(UsageError, match="planes are read-only"):
        upscale.frame(frame, into=into)


def test_a_frame_of_another_shape_or_type_is_refused() -> None:
    kind = FrameFormat("420")
    luma, chroma = np.zeros((5, 7), np.uint8), np.zeros((3, 4), np.uint8)
    Frame(kind, (luma, chroma, chroma))
    with pytest.raises(UsageError, match=r"planes of 420 for 7×5 pixels have shapes"):
        Frame(kind, (luma, chroma, np.zeros((2, 4), np.uint8)))
    with pytest.raises(UsageError, match="samples of 8 bits are uint8, found uint16"):
        Frame(kind, (luma, chroma, chroma.astype(np.uint16)))
    with pytest.raises(UsageError, match="8 to 16 bits"):
        FrameFormat("420", bits=12, shift=6)
    with (
        Upscaler(graphs.plain_network(0)) as upscale,
        pytest.raises(ValueError, match="need a network of one channel"),
    ):
        upscale.frame(Frame(kind, (luma, chroma, chroma)))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"siting": "center"},
            r"left, centre, .*; found 'center', which is 'centre' here",
        ),
        ({"siting": "topleft"}, "found 'topleft', which is 'top-left' here"),
        ({"siting": "middle"}, "bottom-right; found 'middle'$"),
        ({"result_siting": "bottomleft"}, "which is 'bottom-left' here"),
        ({"range": "tv"}, "range is limited, full; found 'tv', which is 'limited'"),
        ({"range": "pc"}, "found 'pc', which is 'full' here"),
        ({"range": None}, "range is limited, full; found None$"),
        ({"subsampling": "411"}, "is 400, 420, 422, 444; found '411'$"),
        ({"subsampling": "421"}, "is 400, 420, 422, 444; found '421'$"),
        ({"subsampling": "4:2:0"}, "found '4:2:0', which is '420' here"),
        ({"subsampling": 420}, "found 420, which is '420' here"),
        ({"interleaved": "no"}, "interleaved is True or False; found 'no'"),
        ({"bits": "10"}, "bits is a whole number; found '10'"),
        ({"bits": 10.5}, "bits is a whole number; found 10.5"),
        ({"bits": 7}, "8 to 16 bits within a 16-bit word, found 7"),
        ({"bits": 17}, "8 to 16 bits"),
        ({"bits": 10, "shift": -1}, "found 10 from bit -1 on"),
        ({"bits": 10, "shift": 6.0}, "shift is a whole number; found 6.0"),
        ({"shift": 1}, "samples of 8 bits are bytes, and have no shift"),
    ],
    ids=str,
)
def test_what_is_no_format_is_refused_with_the_word_that_was_meant(
    given: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        FrameFormat(**given)
    assert "\n" not in str(refused.value)


def test_numpys_numbers_are_numbers() -> None:
    bits: Any = np.int64(10)
    assert FrameFormat(bits=bits, shift=6).samples == FORMATS["P010_10LE"].samples


def test_what_is_no_frame_is_refused(upscale: Upscaler) -> None:
    picture: Any = np.zeros((4, 6, 3), np.uint8)
    kind: Any = "420"
    frame = noise(FORMATS["GRAY8"], 4, 6)
    for upscale_it in (upscale.frame, upscale.start_frame):
        with pytest.raises(UsageError, match="a frame is a Frame of planes, found nda"):
            upscale_it(picture)
    with pytest.raises(UsageError, match="a frame is a Frame of planes, found nda"):
        upscale.frame(frame, into=picture)
    with pytest.raises(UsageError, match="format is a FrameFormat; found '420'"):
        Frame(kind, frame.planes)
    with pytest.raises(UsageError, match="planes are a tuple of arrays, found ndarray"):
        Frame(frame.format, picture)
    with pytest.raises(UsageError, match="a plane is an array, found list"):
        Frame(frame.format, (frame.planes[0].tolist(),))


def test_a_result_can_be_written_into_a_frame_that_is_there(upscale: Upscaler) -> None:
    frame = noise(FORMATS["I420"], 12, 20)
    into = Frame.empty(frame.format, 24, 40)
    assert upscale.frame(frame, into=into) is into
    for one, other in zip(into.planes, upscale.frame(frame).planes, strict=True):
        np.testing.assert_array_equal(one, other)
    small = Frame.empty(frame.format, 24, 38)
    with pytest.raises(UsageError, match=r"the result is a frame of 40×24 .* 38×24"):
        upscale.frame(frame, into=small)
