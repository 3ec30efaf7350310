"""Winograd's method gives what the direct kernel gives, and its tiles have no seams.

The family's table chooses it, here for the device at hand, which need not be of that
family.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests import graphs
from tests.graphs import Builder
from upfrost.gpu import convolutions, tuning, winograd
from upfrost.gpu.device import Device, choose_device
from upfrost.gpu.dispatches import Precision
from upfrost.gpu.families import (
    CPU,
    DISPATCH_SECONDS,
    HALF_SUMS,
    MALI,
    VALHALL,
    VARIANTS,
    Family,
)
from upfrost.gpu.plan import PICTURE_IN, compile_graph, make_plan
from upfrost.gpu.tiles import align, smallest_side, tiling
from upfrost.gpu.upscaler import Upscaler
from upfrost.network import reference
from upfrost.network.graph import (
    INPUT,
    Add,
    Conv2d,
    Crop,
    Graph,
    GraphError,
    Multiply,
    Pad,
    PixelShuffle,
    Relu,
    Unary,
)
from upfrost.network.modelfile import find_model, read_model
from upfrost.video.frames import FrameUpscaler

# Each family that has it, from as few channels on, and without it.
FAMILIES = {
    family.name: replace(
        family,
        conv3x3=tuple(
            replace(kernel, least=16) if kernel.source == "winograd" else kernel
            for kernel in family.conv3x3
            if kernel.source != "conv3x3_half"
        ),
    )
    for family in (MALI, CPU)
}
DIRECT = {
    name: replace(family, conv3x3=family.conv3x3[1:])
    for name, family in FAMILIES.items()
}
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")
METHODS = [("mali", "fp32"), ("mali", "fp16"), ("cpu", "fp32")]


@pytest.fixture(params=METHODS, ids="-".join)
def method(request: pytest.FixtureRequest) -> tuple[str, Precision]:
    """A family, and a precision in which it has Winograd's method."""
    found: tuple[str, Precision] = request.param
    return found


@pytest.fixture
def family(method: tuple[str, Precision]) -> Family:
    return FAMILIES[method[0]]


@pytest.fixture
def direct(method: tuple[str, Precision]) -> Family:
    return DIRECT[method[0]]


@pytest.fixture
def precision(method: tuple[str, Precision]) -> Precision:
    return method[1]


def layer_graph(
    build: Builder, inner: int, outer: int, padding: tuple[int, int, int, int]
) -> tuple[Graph, str]:
    """Picture → rectified values → the 3×3 layer → three channels; and its name.

    The layer with another padding than one works on a larger picture, whose edge is cut
    off afterwards: the name is that of what is left.
    """
    same = padding == (1, 1, 1, 1)
    around = (0 if same else 2,) * 4
    value = build.conv(INPUT, 3, inner, kernel=1, padding=around)
    value = build.add(Relu, value)
    value = build.conv(value, inner, outer, padding=padding)
    if not same:
        top, left, bottom, right = padding
        margins = (1 + top, 1 + left, 1 + bottom, 1 + right)
        value = build.add(Crop, value, margins=margins)
    return build.graph(build.conv(value, outer, 3, kernel=1), 1), value


def values_of(
    device: Device,
    graph: Graph,
    name: str,
    family: Family,
    precision: Precision,
    picture: np.ndarray[Any, np.dtype[np.uint8]],
) -> np.ndarray[Any, np.dtype[np.float64]]:
    plan = make_plan(compile_graph(graph, family, precision), *picture.shape[:2])
    shaders = " ".join(dispatch.shader for dispatch in plan.dispatches)
    assert ("winograd_input" in shaders) == (family in FAMILIES.values())
    loaded = device.load(plan, inspect=True)
    assert loaded.allocated_bytes + sum(plan.buffer_bytes[:2]) == plan.bytes
    for _ in range(2):  # a second run finds what the first one left
        loaded.run(picture)
    return loaded.value(name).astype(float)


@pytest.mark.parametrize("size", [(1, 37), (6, 2), (40, 64)], ids=str)
@pytest.mark.parametrize(
    ("inner", "outer", "padding"),
    [
        (16, 16, (1, 1, 1, 1)),
        (40, 24, (1, 1, 1, 1)),
        (18, 33, (1, 1, 1, 1)),
        (18, 33, (0, 0, 0, 0)),
        (18, 33, (0, 2, 1, 1)),
        (18, 33, (2, 1, 2, 0)),
    ],
    ids=str,
)
def test_values_are_the_references(
    device: Device,
    family: Family,
    precision: Precision,
    inner: int,
    outer: int,
    padding: tuple[int, int, int, int],
    size: tuple[int, int],
) -> None:
    graph, name = layer_graph(Builder(seed=1), inner, outer, padding)
    picture = np.random.default_rng(2).integers(0, 256, (*size, 3), dtype=np.uint8)
    planes = (picture.transpose(2, 0, 1) / 255).astype(np.float32)
    expected = reference.evaluate(graph, planes)[name]
    found = values_of(device, graph, name, family, precision, picture)
    worst = np.abs(found - expected).max() / np.abs(expected).max()
    # As of the other kernels, in test_kernels.
    assert worst <= {"fp32": 1e-5, "fp16": 1e-2}[precision]


@pytest.mark.parametrize("channels", [16, 64])
@pytest.mark.parametrize("seed", range(2))
def test_the_error_is_bounded_by_that_of_the_direct_kernel(
    device: Device,
    family: Family,
    direct: Family,
    precision: Precision,
    channels: int,
    seed: int,
) -> None:
    """Root mean square, of one layer.

    F(2,3): in half precision weights and values are rounded once in both (2^-12 of each
    at most, in all). Here components are rounded as well: of the input, a sum of four
    values, of the weights, and the products. With a mean square error e of a rounding,
    the direct kernel has two of them and what its sums add, this method five.

    F(4,3): its transforms multiply by up to 5, 8 and back by 1/24, so that roundings of
    components that cancel stay: Lavin and Gray measure up to 20 times the direct error,
    single precision leaves room for it.
    """
    graph, name = layer_graph(Builder(seed), channels, channels, (1, 1, 1, 1))
    picture = np.random.default_rng(seed).integers(0, 256, (41, 53, 3), dtype=np.uint8)
    planes = (picture.transpose(2, 0, 1) / 255).astype(np.float32)
    expected = reference.evaluate(graph, planes)[name].astype(float)
    usual, mine = (
        values_of(device, graph, name, each, precision, picture)
        for each in (direct, family)
    )
    times = {2: 2, 4: 20}[family.conv3x3[0].tile.width]
    size = np.sqrt(np.mean(expected**2))
    errors = [np.sqrt(np.mean((v - expected) ** 2)) / size for v in (usual, mine)]
    bound = times * {"fp32": 1e-6, "fp16": 2e-3}[precision]
    assert errors[1] <= times * errors[0] <= bound
    # And no single value is far out: both are within this of the largest one.
    apart = np.abs(usual - mine).max() / np.abs(expected).max()
    assert apart <= bound


@pytest.mark.parametrize(
    "order",
    ["rectify", "add", "add rectify", "rectify add", "multiply", "tanh multiply"],
)
def test_epilogue(
    device: Device, family: Family, precision: Precision, order: str
) -> None:
    build = Builder(seed=6)
    value = build.conv(INPUT, 3, 17, kernel=1)
    found = build.conv(value, 17, 17)
    for part in order.split():
        match part:
            case "add":
                found = build.add(Add, value, found)
            case "multiply":
                found = build.add(Multiply, value, found)
            case "tanh":
                found = build.add(Unary, found, function="tanh")
            case _:
                found = build.prelu(found, 17)
    graph = build.graph(build.conv(found, 17, 3, kernel=1), 1)
    picture = np.random.default_rng(6).integers(0, 256, (19, 30, 3), dtype=np.uint8)
    program = compile_graph(graph, family, precision)
    block = family.conv3x3[0].tile.width
    sides = [step.winograd.side if step.winograd else 0 for step in program.steps]
    assert sides == [0, block, 0]
    loaded = device.load(make_plan(program, 19, 30), inspect=True)
    loaded.run(picture)
    planes = (picture.transpose(2, 0, 1) / 255).astype(np.float32)
    expected = reference.evaluate(graph, planes)[found]
    worst = np.abs(loaded.value(found) - expected).max() / np.abs(expected).max()
    assert worst <= {"fp32": 1e-5, "fp16": 1e-2}[precision]


# Which layers


def test_bifrosts_table_takes_it_from_16_channels_in_and_out_on() -> None:
    node = Conv2d(name="c", inputs=(INPUT,), weight="w", padding=(1, 1, 1, 1))
    for shape, wanted in (
        ((16, 16, 3, 3), True),
        ((48, 16, 3, 3), True),
        ((16, 20, 3, 3), True),
        ((12, 64, 3, 3), False),
        ((64, 3, 3, 3), False),
        ((16, 16, 1, 1), False),
        ((16, 16, 5, 5), False),
    ):
        for family in (MALI, VALHALL):
            for precision in PRECISIONS:
                found = convolutions.conv_kernel(node, shape, family, precision).source
                # Fewer inputs have a kernel that sums in half precision.
                taken = precision == "fp32" or shape[1] > HALF_SUMS
                assert (found == "winograd") == (wanted and family == MALI and taken)
    strided = replace(node, stride=(2, 2))
    found = convolutions.conv_kernel(strided, (16, 16, 3, 3), MALI, "fp16").source
    assert found == "conv"


def test_the_cpus_table_takes_it_from_32_channels_on_in_single_precision() -> None:
    node = Conv2d(name="c", inputs=(INPUT,), weight="w", padding=(1, 1, 1, 1))
    cases: list[tuple[int, Precision, bool]] = [
        (32, "fp32", True),
        (24, "fp32", False),
        (32, "fp16", False),
    ]
    for channels, precision, wanted in cases:
        shape = (channels, channels, 3, 3)
        found = convolutions.conv_kernel(node, shape, CPU, precision)
        assert (found.source == "winograd") == wanted


def test_a_layer_whose_result_nobody_reads_has_blocks_too() -> None:
    build = Builder(seed=0)
    value = build.conv(INPUT, 3, 32, kernel=1)
    build.conv(value, 32, 32)
    graph = build.graph(build.conv(value, 32, 3, kernel=1), 1)
    program = compile_graph(graph, CPU, "fp32")
    assert [step.winograd is not None for step in program.steps] == [False, True, False]
    assert len(make_plan(program, 8, 8).dispatches) == 1 + 3 + 1 + 1


def test_tuning_can_turn_it_off() -> None:
    node = Conv2d(name="c", inputs=(INPUT,), weight="w", padding=(1, 1, 1, 1))
    shape = (32, 32, 3, 3)
    direct = convolutions.conv_candidates(node, shape, MALI, "fp16")[1]
    tuned = replace(MALI, tuned={convolutions.layer_key(node, shape): direct.name})
    assert convolutions.conv_kernel(node, shape, tuned, "fp16") == direct


def test_weights_that_fp16_cannot_hold_once_transformed_are_refused() -> None:
    graph = graphs.plain_network(seed=0, channels=20)
    name = graph.nodes[2].name + ".weight"
    large = np.full_like(graph.tensors[name], 40_000)
    changed = replace(graph, tensors={**graph.tensors, name: large})
    compile_graph(changed, VALHALL, "fp16")
    with pytest.raises(GraphError, match="too large for fp16"):
        compile_graph(changed, MALI, "fp16")


def test_tuning_measures_it_against_the_direct_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tuning, "HEIGHT", 20)
    monkeypatch.setattr(tuning, "WIDTH", 30)
    monkeypatch.setattr(tuning, "ROUNDS", 1)
    mali = replace(choose_device(), name="Mali-G52 (Panfrost)", kind="integrated")
    assert mali.family == MALI
    device = Device(mali)
    graph = graphs.plain_network(seed=0, channels=16, layers=3)
    found = {each.layer: each for each in tuning.measure(graph, device, "fp16")}
    device.close()
    layer = found["3×3, 16 → 16"]
    assert list(layer.seconds) == [
        "conv3x3_half_1x12",
        "winograd_2x2",
        "conv3x3_1x6",
        "conv3x3_1x3",
    ]
    assert layer.macs == 16 * 16 * 9 * 20 * 30
    assert list(found["3×3, 3 → 16"].seconds) == ["conv3x3_1x6", "conv3x3_1x3"]


# Dispatches and buffers


def test_bands_of_rows_give_the_bits_of_one(
    device: Device, family: Family, precision: Precision
) -> None:
    build = Builder(seed=2)
    value = build.conv(INPUT, 3, 18, kernel=1)
    name = build.conv(build.conv(value, 18, 18), 18, 18)
    graph = build.graph(build.conv(name, 18, 3, kernel=1), 1)
    picture = np.random.default_rng(2).integers(0, 256, (77, 30, 3), dtype=np.uint8)
    results = []
    for bounded in (
        family,
        replace(family, macs_per_second=1.0),
        replace(family, scratch_bytes=1),
    ):
        plan = make_plan(compile_graph(graph, bounded, precision), 77, 30)
        loaded = device.load(plan, inspect=True)
        assert loaded.allocated_bytes + sum(plan.buffer_bytes[:2]) == plan.bytes
        loaded.run(picture)
        results.append((loaded.value(name), plan))
    (whole, plan), *others = results
    for values, banded in others:
        assert len(banded.dispatches) > len(plan.dispatches), "more than one band"
        assert np.array_equal(values, whole)
    # The last two buffers are for the transform domain, of fewer rows now.
    assert max(banded.buffer_bytes[-2:]) < min(plan.buffer_bytes[-2:])


def test_no_dispatch_is_estimated_longer_than_the_bound(
    family: Family, direct: Family, precision: Precision
) -> None:
    graph = graphs.plain_network(seed=0, channels=64, layers=3)
    plan = make_plan(compile_graph(graph, family, precision), 540, 240)
    whole = make_plan(compile_graph(graph, direct, precision), 540, 240)
    assert plan.longest_dispatch <= DISPATCH_SECONDS
    assert sum(c.macs for c in plan.dispatches) == sum(c.macs for c in whole.dispatches)
    for dispatch in plan.dispatches:
        if dispatch.shader.startswith("winograd"):
            # Of the largest band, not of the picture: a fifth of it is enough.
            tile = VARIANTS[dispatch.shader].defines
            group = tile["GROUP_X"] * tile["GROUP_Y"]
            if dispatch.shader.startswith("winograd_products"):
                group *= tile["TILE_W"] * tile["TILE_H"]  # components of blocks
                group //= winograd.elements(family.conv3x3[0].tile.width)
            blocks = 540 * 240 / family.conv3x3[0].tile.width ** 2
            assert np.prod(dispatch.grid) * group <= 2 * 64 // 4 * blocks / 5


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (24, 32), (33, 41)], ids=str)
@pytest.mark.parametrize("margin", [0, 1, 5])
def test_no_call_reads_or_writes_behind_its_buffers(
    family: Family, precision: Precision, size: tuple[int, int], margin: int
) -> None:
    """Whatever it pads, and whatever later layers want around its result."""
    build = Builder(0)
    value = build.conv(INPUT, 3, 16, kernel=1, padding=(3, 3, 3, 3))
    for _ in range(2):
        value = build.conv(value, 16, 20, padding=(0, 0, 0, 0))
        value = build.conv(value, 20, 16)
    value = build.add(Crop, value, margins=(1, 1, 1, 1))
    around = (margin,) * 4
    value = build.conv(value, 16, 3, kernel=2 * margin + 1, padding=around)
    family = replace(family, macs_per_second=3e6)
    program = compile_graph(build.graph(value, 1), family, precision)
    plan = make_plan(program, *size)
    element = 8 if precision == "fp16" else 16
    block = family.conv3x3[0].tile.width
    inputs = [c for c in plan.dispatches if c.shader.startswith("winograd_input")]
    assert len(inputs) >= 4
    for dispatch in inputs:
        base, stride, plane, *_ = dispatch.push[:5]
        _, columns, spread, _, rows = dispatch.push[5:]
        (in_slices,) = dispatch.constants
        assert base >= 0
        last = (in_slices - 1) * plane
        last += (block * rows + 1) * stride + block * columns + 1
        source, target = dispatch.buffers
        assert isinstance(source, int)
        assert isinstance(target, int)
        assert source != PICTURE_IN
        assert (base + last + 1) * element <= plan.buffer_bytes[source]
        assert rows * columns <= spread
        needed = winograd.elements(block) * in_slices * spread * element
        assert needed <= plan.buffer_bytes[target]
        following = plan.dispatches[plan.dispatches.index(dispatch) + 1]
        groups, parts, _ = following.grid
        assert following.constants[0] == in_slices
        places, slices = family.products.tile.coverage
        assert parts * places == spread
        assert groups * slices * spread * element <= plan.buffer_bytes[target + 1]


# Tiles


def strided_network(seed: int) -> Graph:
    """Layers at half, whole and three halves of the picture's resolution."""
    build = Builder(seed)
    value = build.conv(INPUT, 3, 16, kernel=4, stride=(2, 2), padding=(1, 1, 1, 1))
    value = build.add(Relu, build.conv(value, 16, 16))
    value = build.conv(value, 16, 4 * 16)
    value = build.add(PixelShuffle, value, factor=2)
    value = build.conv(value, 16, 16)
    value = build.resize(value, "bilinear", 3)
    value = build.conv(value, 16, 16)
    return build.graph(build.conv(value, 16, 3, kernel=1), 3)


NETWORKS = {
    "plain": graphs.plain_network(seed=1, layers=4, channels=17),
    "strided": strided_network(seed=2),
    "realtime-x4": read_model(find_model("realtime-x4")),
    "cascade-x4": read_model(find_model("cascade-x4")),
}


@pytest.mark.parametrize(
    ("name", "size", "extra"),
    [
        ("plain", (1, 1), 9),
        ("plain", (37, 61), 9),
        ("plain", (70, 45), 12),
        ("strided", (7, 79), 12),
        ("strided", (76, 45), 9),
        # Long enough for the halo of many layers of blocks of 4×4.
        ("realtime-x4", (13, 109), 9),
        ("cascade-x4", (8, 75), 9),
    ],
    ids=str,
)
def test_tiles_give_the_bits_of_the_whole(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    family: Family,
    precision: Precision,
    size: tuple[int, int],
    extra: int,
) -> None:
    monkeypatch.setattr("upfrost.gpu.upscaler.tuned_family", lambda *_: family)
    graph = NETWORKS[name]
    picture = np.random.default_rng(5).integers(0, 256, (*size, 3), dtype=np.uint8)
    with Upscaler(graph, precision=precision) as upscale:
        whole = upscale(picture)
        plan, rules = upscale.loaded_plan, upscale.tiling
        assert plan is not None
        assert "winograd_input" in " ".join(
            dispatch.shader for dispatch in plan.dispatches
        )
    height, width = align(picture, rules).shape[:2]
    side = smallest_side(rules) + extra
    with Upscaler(graph, precision=precision, tile=side) as upscale:
        tiled = upscale(picture)
        count = len(upscale.tiles(height, width, side))
    assert count > 1 or max(height, width) == 1
    assert np.array_equal(tiled, whole), f"tiles of {side}"


def test_no_value_of_a_tile_differs_beyond_the_halo(
    device: Device, family: Family, precision: Precision
) -> None:
    """Bit for bit, since bytes would hide most of it; nearer to the edges some do."""
    layers = 5
    build = Builder(seed=9)
    value = build.conv(INPUT, 3, 32, kernel=1)
    for _ in range(layers):
        value = build.add(Add, value, build.conv(value, 32, 32))
    graph = build.graph(build.conv(value, 32, 3, kernel=1), 1)
    rules = compile_graph(graph, family, precision).tiling
    reach = rules.halo[0]
    picture = np.random.default_rng(9).integers(0, 256, (72, 68, 3), dtype=np.uint8)
    top, left, bottom, right = (rules.step * n for n in (2, 1, 16, 15))
    whole, tile = (
        values_of(device, graph, value, family, precision, each)
        for each in (picture, picture[top:bottom, left:right])
    )

    def differs(margin: int) -> bool:
        """Whether a value of the tile does that is so far from its edges or further."""
        rows, columns = (
            slice(first + margin, last - margin)
            for first, last in ((top, bottom), (left, right))
        )
        height, width = tile.shape[1:]
        inner = tile[:, margin : height - margin, margin : width - margin]
        return not np.array_equal(inner, whole[:, rows, columns])

    assert reach == layers
    assert not differs(rules.step * -(-reach // rules.step))
    assert differs(layers - 1)


@pytest.mark.parametrize("extent", [61, 62])
@pytest.mark.parametrize("axis", [0, 1], ids=["rows", "columns"])
def test_what_is_beyond_the_picture_is_zero_for_every_block(
    device: Device, extent: int, axis: int
) -> None:
    """The far edge's values have the same bits whatever there is at the near edge.

    A block's elements there must not be of the next row's first pixels, or of the next
    plane's first rows. The layer does not pad, since a node before it has.
    """
    build = Builder(seed=8)
    value = build.add(Pad, INPUT, mode="replicate", padding=(1, 1, 1, 1))
    value = build.conv(value, 3, 32, kernel=1)
    value = build.conv(value, 32, 32, padding=(0, 0, 0, 0))
    graph = build.graph(build.conv(value, 32, 3, kernel=1), 1)
    size = (extent, 14) if axis == 0 else (14, extent)
    picture = np.random.default_rng(8).integers(0, 256, (*size, 3), dtype=np.uint8)
    other = picture.copy()
    other[(slice(None),) * axis + (slice(2),)] ^= 255
    found = [
        values_of(device, graph, value, FAMILIES["cpu"], "fp32", each)
        for each in (picture, other)
    ]
    far = (slice(None),) * (axis + 1) + (slice(24, None),)
    assert not np.array_equal(found[0], found[1])
    assert np.array_equal(found[0][far], found[1][far])


@pytest.mark.parametrize("box", [(0, 131, 36, 80), (33, 80, 36, 61)], ids=str)
def test_parts_of_a_frame_have_the_bits_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, box: tuple[int, int, int, int]
) -> None:
    """In half precision, where other roundings are seen in the bytes.

    The halo around these boxes begins at an odd column, and the part that is computed
    must not.
    """
    monkeypatch.setattr("upfrost.gpu.upscaler.tuned_family", lambda *_: MALI)
    top, bottom, left, right = box
    frame = np.zeros((131, 95, 3), np.uint8)
    shape = bottom - top, right - left, 3
    frame[top:bottom, left:right] = np.random.default_rng(7).integers(1, 256, shape)
    with Upscaler("realtime-x4", precision="fp16") as upscale:
        scale, rules = upscale.graph.scale, upscale.tiling
        frames = FrameUpscaler(
            lambda part: upscale.start(part).result, scale, rules, 131, 95
        )
        assert np.array_equal(frames.start(frame)(), upscale(frame))
        assert frames.counts.pixels < 131 * 95


def test_layers_at_half_the_resolution_want_tiles_at_multiples_of_two_blocks(
    family: Family, precision: Precision
) -> None:
    side = family.conv3x3[0].tile.width
    blocks = {
        name: compile_graph(graph, family, precision).tiling.step
        for name, graph in NETWORKS.items()
    }
    assert blocks["plain"] == blocks["realtime-x4"] == blocks["cascade-x4"] == side
    assert blocks["strided"] == 2 * side
    for graph in NETWORKS.values():
        assert compile_graph(graph, VALHALL, "fp16").tiling == tiling(graph)
