"""Every kernel computes what the NumPy reference computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest

from tests.graphs import Builder
from upfrost.gpu import families
from upfrost.gpu.device import Device
from upfrost.gpu.dispatches import Precision
from upfrost.gpu.families import CPU, FAMILIES, MALI, VALHALL, Family
from upfrost.gpu.plan import compile_graph, make_plan
from upfrost.network import reference
from upfrost.network.graph import (
    INPUT,
    Add,
    Clamp,
    Concat,
    Crop,
    GlobalMax,
    GlobalMean,
    Graph,
    GridSample,
    LeakyRelu,
    MaxPool2d,
    Multiply,
    Pad,
    PixelShuffle,
    Relu,
    ResizeTo,
    Unary,
)

# fp32: sums of a few hundred products differ by their order alone.
# fp16: values and weights carry 11 bits (5e-4 each); products are summed over one
# block of four input channels, up to 100 taps here, and errors of random sign add up
# to a few units of the largest value's last place.
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")
TOLERANCE = {"fp32": 1e-5, "fp16": 1e-2}
# A row that ends within a register tile, less than one, and whole workgroups.
SIZES = [(1, 37), (5, 2), (40, 64)]
# Kernels without register tiles are the same in every family, whose layouts differ.
CASES: list[tuple[Family, Precision, tuple[int, int]]] = [
    (family, precision, size)
    for family, precision in zip(FAMILIES, PRECISIONS, strict=True)
    for size in SIZES
]
each_case = pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case[0].name}-{case[1]}-{case[2]}"
)


def check(
    device: Device,
    graph: Graph,
    size: tuple[int, int],
    family: Family,
    precision: Precision,
    seed: int,
) -> None:
    """The value ``probe``, by the kernels and by the reference, on a random picture."""
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (*size, graph.channels), dtype=np.uint8)
    unit = (picture.transpose(2, 0, 1) / 255).astype(np.float32) * graph.value_range
    expected = reference.evaluate(graph, unit.astype(np.float32))["probe"]
    plan = make_plan(compile_graph(graph, family, precision), *size)
    loaded = device.load(plan, inspect=True)
    # Twice: a second run finds what the first one left in the buffers.
    for _ in range(2):
        loaded.run(picture)
        found = loaded.value("probe")
        assert found.shape == expected.shape
        scale = np.abs(expected).max()
        worst = np.abs(found - expected).max() / scale
        assert worst <= TOLERANCE[precision], f"seed {seed}: off by {worst:.2e}"


def check_case(
    device: Device,
    graph: Graph,
    case: tuple[Family, Precision, tuple[int, int]],
    seed: int,
) -> None:
    family, precision, size = case
    check(device, graph, size, family, precision, seed)


def probe_graph(
    build: Builder,
    make: Callable[[str], tuple[str, int]],
    channels: int,
    scale: int = 1,
) -> Graph:
    """Picture → `channels` channels → what `make` adds → three channels."""
    lifted = build.conv(INPUT, 3, channels, kernel=1)
    value, out_channels = make(lifted)
    build.nodes = [
        replace(
            node,
            name="probe" if node.name == value else node.name,
            inputs=tuple("probe" if n == value else n for n in node.inputs),
        )
        for node in build.nodes
    ]
    return build.graph(build.conv("probe", out_channels, 3, kernel=1), scale)


@pytest.fixture(params=FAMILIES, ids=lambda family: family.name)
def family(request: pytest.FixtureRequest) -> Family:
    found: Family = request.param
    return found


@pytest.fixture(params=["fp32", "fp16"])
def precision(request: pytest.FixtureRequest) -> Precision:
    found: Precision = request.param
    return found


CONVOLUTIONS = {
    "3x3": {"kernel": 3},
    "3x3 without bias": {"kernel": 3, "bias": False},
    "1x1": {"kernel": 1},
    "5x5": {"kernel": 5},
    "1x7": {"kernel": (1, 7)},
    "even": {"kernel": (2, 4)},
    "dilated": {"kernel": 3, "dilation": (2, 3)},
    "no padding": {"kernel": 1, "padding": (0, 0, 0, 0)},
    "groups of 3": {"kernel": 3, "groups": 2},
    "depthwise": {"kernel": 3, "groups": 6},
}


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("attributes", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_convolution(
    device: Device,
    family: Family,
    precision: Precision,
    attributes: dict[str, Any],
    size: tuple[int, int],
) -> None:
    build = Builder(seed=1)
    graph = probe_graph(
        build, lambda value: (build.conv(value, 6, 12, **attributes), 12), 6
    )
    check(device, graph, size, family, precision, seed=2)


OF_THE_PICTURE = {
    "3x3": {"kernel": 3},
    "1x1": {"kernel": 1},
    "2x5": {"kernel": (2, 5)},
    "uneven": {"kernel": 3, "padding": (0, 2, 2, 0)},
    "dilated": {"kernel": 3, "dilation": (2, 1)},
    "stride 2": {"kernel": 4, "stride": (2, 2), "padding": (1, 1, 1, 1)},
    "depthwise": {"kernel": 3, "depthwise": True},
}


@pytest.mark.parametrize("size", [(2, 38), (34, 62)], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("attributes", OF_THE_PICTURE.values(), ids=OF_THE_PICTURE)
def test_convolution_of_the_pictures_bytes(
    device: Device,
    family: Family,
    precision: Precision,
    attributes: dict[str, Any],
    channels: int,
    size: tuple[int, int],
) -> None:
    build = Builder(seed=24)
    attributes = dict(attributes)
    if attributes.pop("depthwise", False):
        attributes["groups"] = channels
    value = build.conv(INPUT, channels, 6, **attributes)
    build.nodes[0] = replace(build.nodes[0], name="probe")
    value = build.conv("probe", 6, 4 * channels, kernel=1)
    scale = 1 if "stride" in attributes else 2
    value = build.add(PixelShuffle, value, factor=2)
    graph = build.graph(value, scale, channels)
    assert not compile_graph(graph, family, precision).unpacks
    check(device, graph, size, family, precision, seed=24)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    "padding", [(0, 0, 0, 0), (2, 2, 2, 2), (0, 2, 1, 1), (1, 1, 2, 0)], ids=str
)
def test_3x3_of_any_padding(
    device: Device,
    family: Family,
    precision: Precision,
    padding: tuple[int, int, int, int],
    size: tuple[int, int],
) -> None:
    """As in networks that shrink the picture layer by layer, from a larger one."""
    build = Builder(seed=1)

    def make(value: str) -> tuple[str, int]:
        wide = build.conv(value, 6, 6, kernel=1, padding=(2, 2, 2, 2))
        narrow = build.conv(wide, 6, 12, kernel=3, padding=padding)
        top, left, bottom, right = padding
        margins = (1 + top, 1 + left, 1 + bottom, 1 + right)
        return build.add(Crop, narrow, margins=margins), 12

    graph = probe_graph(build, make, 6)
    check(device, graph, size, family, precision, seed=2)


def test_sums_in_half_precision_are_within_twice_the_error_of_those_in_single(
    device: Device,
) -> None:
    """Root mean square, of a layer of as many channels as the kernel takes: the bound
    that Winograd's method is held to, too."""
    build = Builder(7)
    graph = probe_graph(build, lambda value: (build.conv(value, 16, 16), 16), 16)
    assert MALI.conv3x3[0].most == 16
    direct = replace(VALHALL, conv3x3=VALHALL.conv3x3[1:])
    rng = np.random.default_rng(7)
    picture = rng.integers(0, 256, (24, 32, graph.channels), dtype=np.uint8)
    unit = (picture.transpose(2, 0, 1) / 255).astype(np.float32)
    expected = reference.evaluate(graph, unit)["probe"]
    errors = []
    for family in (VALHALL, direct):
        plan = make_plan(compile_graph(graph, family, "fp16"), 24, 32)
        loaded = device.load(plan, inspect=True)
        loaded.run(picture)
        errors.append(np.sqrt(np.mean((loaded.value("probe") - expected) ** 2)))
    assert errors[0] <= 2 * errors[1], errors


@pytest.mark.parametrize(("inner", "outer"), [(1, 1), (4, 16), (7, 9), (16, 32)])
def test_3x3_channel_counts(
    device: Device, family: Family, precision: Precision, inner: int, outer: int
) -> None:
    build = Builder(seed := 3)
    graph = probe_graph(
        build, lambda value: (build.conv(value, inner, outer), outer), inner
    )
    check(device, graph, (9, 21), family, precision, seed)


@pytest.mark.parametrize("groups", [2, 3, 4])
def test_groups_that_are_whole_slices_and_not(
    device: Device, family: Family, precision: Precision, groups: int
) -> None:
    build = Builder(seed=5)
    graph = probe_graph(
        build,
        lambda value: (build.conv(value, 24, 36, kernel=1, groups=groups), 36),
        24,
    )
    check(device, graph, (6, 11), family, precision, seed=5)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize(
    "order",
    [
        "rectify",
        "add",
        "add rectify",
        "rectify add",
        "multiply",
        "multiply rectify",
        "rectify multiply",
    ],
)
def test_epilogue(
    device: Device, family: Family, precision: Precision, kernel: int, order: str
) -> None:
    build = Builder(seed=6)

    def make(value: str) -> tuple[str, int]:
        found = build.conv(value, 5, 5, kernel)
        for part in order.split():
            if part == "add":
                found = build.add(Add, value, found)
            elif part == "multiply":
                found = build.add(Multiply, value, found)
            else:
                found = build.prelu(found, 5)
        return build.add(Clamp, found, low=-0.5, high=0.6), 5

    graph = probe_graph(build, make, 5)
    program = compile_graph(graph, family, precision)
    assert len(program.steps) == 3, "the epilogue took every operation"
    check(device, graph, (7, 19), family, precision, seed=6)


@each_case
@pytest.mark.parametrize(
    "operation", ["relu", "leaky", "prelu", "clamp", "add", "multiply"]
)
def test_elementwise(
    device: Device,
    operation: str,
    case: tuple[Family, Precision, tuple[int, int]],
) -> None:
    """Of a value that others need too, so that no epilogue takes it."""
    build = Builder(seed=7)

    def make(value: str) -> tuple[str, int]:
        kept = build.conv(value, 7, 7, kernel=1)
        match operation:
            case "relu":
                found = build.add(Relu, kept)
            case "leaky":
                found = build.add(LeakyRelu, kept, slope=0.2)
            case "prelu":
                found = build.prelu(kept, 7)
            case "clamp":
                found = build.add(Clamp, kept, low=-0.1, high=0.3)
            case "multiply":
                found = build.add(Multiply, kept, value)
            case _:
                found = build.add(Add, kept, kept)
        return build.add(Concat, found, kept), 14

    graph = probe_graph(build, make, 7)
    check_case(device, graph, case, seed=7)


FUNCTIONS = get_args(get_type_hints(Unary)["function"])
ONLY_POSITIVE = ("reciprocal", "rsqrt", "sqrt")


@pytest.mark.parametrize("function", FUNCTIONS)
def test_unary(device: Device, precision: Precision, function: str) -> None:
    build = Builder(seed=15)

    def make(value: str) -> tuple[str, int]:
        kept = build.conv(value, 7, 7, kernel=1)
        # The smaller a number, the more its reciprocal makes of its rounding.
        low = 0.25 if function in ONLY_POSITIVE else -9.0
        kept = build.add(Clamp, kept, low=low, high=9.0)
        return build.add(Concat, build.add(Unary, kept, function=function), kept), 14

    check(device, probe_graph(build, make, 7), (7, 19), CPU, precision, seed=15)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_unary_in_an_epilogue(device: Device, family: Family, function: str) -> None:
    build = Builder(seed=16)

    def make(value: str) -> tuple[str, int]:
        found = build.conv(value, 5, 5)
        if function in ONLY_POSITIVE:
            found = build.add(Clamp, found, low=0.125, high=9.0)
        found = build.add(Unary, found, function=function)
        return build.add(Add, found, value), 5

    graph = probe_graph(build, make, 5)
    steps = compile_graph(graph, family, "fp32").steps
    assert len(steps) == (4 if function in ONLY_POSITIVE else 3)
    check(device, graph, (7, 19), family, "fp32", seed=16)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_functions_far_from_0(device: Device, function: str) -> None:
    """Powers of e overflow where a function does not.

    Inputs are whole numbers, which the kernels have exactly: the error is the
    function's.
    """
    build = Builder(seed=17)
    wide = build.conv(INPUT, 3, 4, kernel=1, bias=False)
    weight = build.tensors[f"{wide}.weight"]
    build.tensors[f"{wide}.weight"] = np.rint(3 * weight)
    low = 1.0 if function in ONLY_POSITIVE else -1e9
    value = build.add(Clamp, wide, low=low, high=60.0 if function == "exp" else 1e9)
    value = build.add(Unary, value, function=function, name="probe")
    graph = build.graph(build.conv(value, 4, 3, kernel=1), 1, value_range=255.0)
    check(device, graph, (9, 9), CPU, "fp32", seed=17)


@pytest.mark.parametrize("function", ["reciprocal", "rsqrt", "exp"])
def test_lanes_without_a_channel_stay_finite(
    device: Device, family: Family, precision: Precision, function: str
) -> None:
    """Their weights are 0, but 0 times infinity is not."""
    build = Builder(seed=18)

    def make(value: str) -> tuple[str, int]:
        found = build.add(Clamp, build.conv(value, 5, 5), low=0.5, high=2.0)
        found = build.add(Unary, found, function=function)
        return build.conv(found, 5, 6), 6

    check(device, probe_graph(build, make, 5), (6, 9), family, precision, seed=18)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_pad(
    device: Device, precision: Precision, mode: str, size: tuple[int, int]
) -> None:
    build = Builder(seed=19)
    most = [extent - 1 if mode == "reflect" else 62 for extent in (*size, *size)]
    padding = tuple(map(min, (7, 2, 1, 62), most))

    added = padding[0] + padding[2], padding[1] + padding[3]

    def make(value: str) -> tuple[str, int]:
        larger = build.add(Pad, value, mode=mode, padding=padding)
        # The corners above and below are seen, each at the picture's size.
        margins = ((*added, 0, 0), (0, 0, *added))
        corners = [build.add(Crop, larger, margins=each) for each in margins]
        return build.add(Concat, *corners), 12

    check(device, probe_graph(build, make, 6), size, CPU, precision, seed=19)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_crop(device: Device, precision: Precision, size: tuple[int, int]) -> None:
    build = Builder(seed=20)
    margins = (3, 0, 2, 9)

    def make(value: str) -> tuple[str, int]:
        larger = build.add(Pad, value, mode="replicate", padding=(1, 4, 4, 5))
        return build.add(Crop, larger, margins=margins), 6

    check(device, probe_graph(build, make, 6), size, CPU, precision, seed=20)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    ("kernel", "padding"),
    [((3, 3), (1, 1, 1, 1)), ((1, 4), (0, 0, 0, 3)), ((2, 5), (1, 4, 0, 0))],
)
def test_max_pool(
    device: Device,
    precision: Precision,
    kernel: tuple[int, int],
    padding: tuple[int, int, int, int],
    size: tuple[int, int],
) -> None:
    build = Builder(seed=21)

    def make(value: str) -> tuple[str, int]:
        return build.add(
            MaxPool2d, value, kernel=kernel, stride=(1, 1), padding=padding
        ), 6

    check(device, probe_graph(build, make, 6), size, CPU, precision, seed=21)


@pytest.mark.parametrize("size", [(6, 6), (18, 66)], ids=str)
@pytest.mark.parametrize("stride", [2, 3])
def test_max_pool_with_strides(
    device: Device, precision: Precision, stride: int, size: tuple[int, int]
) -> None:
    build = Builder(seed=22)

    def make(value: str) -> tuple[str, int]:
        rest = stride - 3, stride - 4
        padding = (-min(rest[0], 0), -min(rest[1], 0), 0, 0)
        pooled = build.add(
            MaxPool2d,
            value,
            kernel=(3, 4),
            stride=(stride, stride),
            padding=padding,
        )
        return build.resize(pooled, "nearest", stride), 6

    check(device, probe_graph(build, make, 6), size, CPU, precision, seed=22)


@pytest.mark.parametrize("size", [*SIZES, (63, 65), (200, 130)], ids=str)
def test_global_mean(
    device: Device, precision: Precision, size: tuple[int, int]
) -> None:
    build = Builder(seed=23)

    def make(value: str) -> tuple[str, int]:
        first = build.add(GlobalMean, value)
        return build.add(GlobalMean, build.conv(first, 10, 3)), 3

    graph = probe_graph(build, make, 10)
    check(device, graph, size, CPU, precision, seed=23)


@pytest.mark.parametrize("size", [(9, 5), (63, 65)], ids=str)
def test_global_max(
    device: Device, precision: Precision, size: tuple[int, int]
) -> None:
    build = Builder(seed=24)

    def make(value: str) -> tuple[str, int]:
        # All below zero, which must not win.
        less = build.add(Clamp, value, low=-9.0, high=-0.25)
        first = build.add(GlobalMax, less)
        return build.add(GlobalMax, build.conv(first, 10, 3, kernel=1)), 3

    graph = probe_graph(build, make, 10)
    check(device, graph, size, CPU, precision, seed=24)


@pytest.mark.parametrize("size", [(9, 5), (20, 33)], ids=str)
@pytest.mark.parametrize("kind", ["layer", "rms"])
@pytest.mark.parametrize("channels", [3, 8, 10])
def test_layer_norm(
    device: Device,
    precision: Precision,
    channels: int,
    kind: str,
    size: tuple[int, int],
) -> None:
    build = Builder(seed=25)
    graph = probe_graph(
        build,
        lambda value: (build.layer_norm(value, channels, kind), channels),
        channels,
    )
    check(device, graph, size, CPU, precision, seed=25)


@pytest.mark.parametrize("size", [(23, 31), (40, 17)], ids=str)
@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_resize_to_the_size_of_another_value(
    device: Device, precision: Precision, mode: str, size: tuple[int, int]
) -> None:
    build = Builder(seed=26)

    def make(value: str) -> tuple[str, int]:
        coarse = build.add(MaxPool2d, value, kernel=(7, 7), stride=(3, 3))
        return build.add(ResizeTo, coarse, value, mode=mode), 6

    check(device, probe_graph(build, make, 6), size, CPU, precision, seed=26)


@pytest.mark.parametrize("size", [(3, 5), (20, 33)], ids=str)
@pytest.mark.parametrize(
    ("factor", "groups", "channels"), [(1, 1, 6), (2, 3, 5), (2, 4, 4), (3, 2, 8)]
)
def test_grid_sample(
    device: Device,
    precision: Precision,
    factor: int,
    groups: int,
    channels: int,
    size: tuple[int, int],
) -> None:
    build = Builder(seed=27)

    def make(value: str) -> tuple[str, int]:
        # Rounded to fp16, places move by a thousandth of a pixel at the most.
        count = groups * channels
        offsets = build.conv(value, count, 2 * groups * factor**2, kernel=1)
        steps = build.add(Clamp, offsets, low=-2.5, high=2.25)
        moves = build.add(PixelShuffle, steps, factor=factor)
        return build.add(GridSample, value, moves, factor=factor, groups=groups), count

    graph = probe_graph(build, make, groups * channels, scale=factor)
    check(device, graph, size, CPU, precision, seed=27)


@each_case
@pytest.mark.parametrize("counts", [(4, 4), (8, 3), (3, 8), (5, 1, 6), (1, 1, 1)])
def test_concatenation(
    device: Device,
    counts: tuple[int, ...],
    case: tuple[Family, Precision, tuple[int, int]],
) -> None:
    build = Builder(seed=8)

    def make(value: str) -> tuple[str, int]:
        pieces = [build.conv(value, 6, count) for count in counts]
        return build.add(Concat, *pieces), sum(counts)

    check_case(device, probe_graph(build, make, 6), case, seed=8)


def test_nested_concatenations_cost_no_copy(
    device: Device, family: Family, precision: Precision
) -> None:
    build = Builder(seed=9)

    def make(value: str) -> tuple[str, int]:
        joined, count = value, 8
        for _ in range(3):
            grown = build.conv(joined, count, 8)
            joined, count = build.add(Concat, joined, grown), count + 8
        return joined, count

    graph = probe_graph(build, make, 8)
    plan = make_plan(compile_graph(graph, family, precision), 12, 20)
    assert not [
        dispatch for dispatch in plan.dispatches if dispatch.shader.startswith("gather")
    ]
    check(device, graph, (12, 20), family, precision, seed=9)


@pytest.mark.parametrize("swapped", [False, True])
def test_concatenation_in_another_order_than_computed(
    device: Device, family: Family, precision: Precision, swapped: bool
) -> None:
    """A piece that is read before the piece above it is written must see zeros."""
    build = Builder(seed=10)

    def make(value: str) -> tuple[str, int]:
        first = build.conv(value, 6, 4)
        second = build.conv(first, 4, 4)
        pieces = (second, first) if swapped else (first, second)
        return build.add(Concat, *pieces), 8

    check(device, probe_graph(build, make, 6), (9, 9), family, precision, seed=10)


@each_case
@pytest.mark.parametrize(("factor", "channels"), [(2, 3), (3, 1), (4, 3), (2, 5)])
def test_pixel_shuffle(
    device: Device,
    factor: int,
    channels: int,
    case: tuple[Family, Precision, tuple[int, int]],
) -> None:
    build = Builder(seed=11)
    inner = channels * factor**2

    def make(value: str) -> tuple[str, int]:
        return build.add(PixelShuffle, value, factor=factor), channels

    graph = probe_graph(build, make, inner, scale=factor)
    check_case(device, graph, case, seed=11)


@each_case
@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("ratio", [2, 3, 4])
def test_resize(
    device: Device,
    mode: str,
    ratio: int,
    case: tuple[Family, Precision, tuple[int, int]],
) -> None:
    build = Builder(seed=12)

    def make(value: str) -> tuple[str, int]:
        return build.resize(value, mode, ratio), 5

    graph = probe_graph(build, make, 5, scale=ratio)
    check_case(device, graph, case, seed=12)


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("ratio", [(1, 2), (2, 3), (3, 2)], ids=str)
def test_resize_by_a_fraction(
    device: Device,
    precision: Precision,
    mode: str,
    ratio: tuple[int, int],
) -> None:
    """As networks end that were trained for a larger scale."""
    build = Builder(seed=22)

    def make(value: str) -> tuple[str, int]:
        before = build.resize(value, "nearest", Fraction(*ratio[::-1]))
        return build.resize(before, mode, Fraction(*ratio)), 5

    graph = probe_graph(build, make, 5)
    check(device, graph, (24, 36), CPU, precision, seed=22)


def test_stride_and_back(device: Device, family: Family, precision: Precision) -> None:
    build = Builder(seed=13)

    def make(value: str) -> tuple[str, int]:
        half = build.conv(value, 6, 8, stride=(2, 2), padding=(1, 1, 1, 1))
        return build.add(PixelShuffle, half, factor=2), 2

    graph = probe_graph(build, make, 6)
    check(device, graph, (18, 34), family, precision, seed=13)


def test_value_range_255(device: Device, family: Family, precision: Precision) -> None:
    build = Builder(seed=14)
    graph = probe_graph(build, lambda value: (build.conv(value, 4, 4), 4), 4)
    check(device, replace(graph, value_range=255.0), (5, 6), family, precision, seed=14)


def test_every_shader_is_listed_once() -> None:
    paths = [variant.path for variant in families.VARIANTS.values()]
    assert len(set(paths)) == len(paths)
    assert all(path.is_file() for path in paths)
