"""Plans: what is fused, what buffers cost, and that the result is the reference's."""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from tests import graphs
from tests.graphs import Builder
from upfrost.gpu import convolutions, dispatches
from upfrost.gpu.device import Device
from upfrost.gpu.dispatches import Precision, TensorView
from upfrost.gpu.families import (
    CPU,
    DISPATCH_SECONDS,
    FAMILIES,
    MALI,
    VALHALL,
    VARIANTS,
    Family,
)
from upfrost.gpu.frame import FrameFormat
from upfrost.gpu.plan import PICTURE_IN, PICTURE_OUT, compile_graph, make_plan
from upfrost.gpu.tiles import align, tiling
from upfrost.network import reference
from upfrost.network.graph import (
    INPUT,
    Add,
    Clamp,
    Concat,
    Graph,
    GraphError,
    Node,
    PixelShuffle,
    Relu,
)
from upfrost.network.modelfile import find_model, read_model


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("family", [MALI, VALHALL, CPU], ids=lambda family: family.name)
@pytest.mark.parametrize("convolutions", [1, 2, 3, 6, 17])
def test_a_plain_network_costs_a_dispatch_per_convolution_and_one(
    convolutions: int, family: Family, precision: Precision
) -> None:
    for scale in (1, 2, 3, 4):
        for channels in (1, 3):
            graph = graphs.plain_network(
                seed=0,
                layers=convolutions - 1,
                scale=scale,
                picture_channels=channels,
            )
            plan = make_plan(compile_graph(graph, family, precision), 20, 30)
            assert len(plan.dispatches) <= convolutions + 1


@pytest.mark.parametrize("channels", [4, 8, 12, 16])
@pytest.mark.parametrize("family", [MALI, VALHALL], ids=lambda family: family.name)
def test_a_network_for_luma_costs_a_dispatch_per_convolution_and_one_for_chroma(
    family: Family, channels: int
) -> None:
    graph = graphs.luma_network(seed=0, channels=channels, layers=5)
    plan = make_plan(
        compile_graph(graph, family, "fp16"), 20, 30, FrameFormat("420").chroma
    )
    assert len(plan.dispatches) == 6 + 1


@pytest.mark.parametrize("skip", [None, "picture", "nearest", "bilinear", "bicubic"])
def test_no_skip_of_the_picture_costs_a_dispatch(skip: str | None) -> None:
    graph = ends(Builder(seed=0), skip, 1 if skip == "picture" else 2, 3)
    plan = make_plan(compile_graph(graph, MALI, "fp16"), 20, 30)
    assert len(plan.dispatches) == 2 + 1


def ends(build: Builder, skip: str | None, scale: int, channels: int) -> Graph:
    """Two convolutions, a shuffle, and a skip of the picture or of a value."""
    first = build.add(Relu, build.conv(INPUT, channels, 4))
    value = build.conv(first, 4, channels * scale**2)
    if scale > 1:
        value = build.add(PixelShuffle, value, factor=scale)
    if skip == "picture":
        value = build.add(Add, INPUT, value)
    elif skip == "value":
        source = build.conv(first, 4, channels, kernel=1)
        value = build.add(Add, value, build.resize(source, "bilinear", scale))
    elif skip is not None:
        value = build.add(Add, value, build.resize(INPUT, skip, scale))
    return build.graph(value, scale, channels)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_every_end_of_a_network_gives_the_references_bytes(
    device: Device, scale: int, channels: int
) -> None:
    skips = [None, "nearest", "bilinear", "bicubic", "value"]
    for skip in [*skips, "picture"] if scale == 1 else skips:
        graph = ends(Builder(seed=1), skip, scale, channels)
        for size in [(1, 1), (3, 8), (9, 13)]:
            check_bytes(device, graph, CPU, seed=1, size=size)


def test_sums_of_bytes_that_fp16_cannot_hold_are_of_values_instead(
    device: Device,
) -> None:
    graph = graphs.plain_network(seed=4)
    name = graph.nodes[0].name + ".weight"
    tensors = {**graph.tensors, name: graph.tensors[name] * np.float32(200)}
    graph = dataclasses.replace(graph, tensors=tensors)
    program = compile_graph(graph, MALI, "fp16")
    plan = make_plan(program, 8, 8)
    assert plan.dispatches[0].label == "unpack"
    assert len(make_plan(compile_graph(graph, MALI, "fp32"), 8, 8).dispatches) == 4
    loaded = device.load(plan, inspect=True)
    loaded.run(np.full((8, 8, 3), 255, np.uint8))
    assert np.isfinite(loaded.value(program.steps[0].output)).all()


@pytest.mark.parametrize("layers", [4, 9])
def test_a_chain_needs_two_buffers_and_one_for_the_skip(layers: int) -> None:
    graph = graphs.plain_network(seed=0, layers=layers)
    plan = make_plan(compile_graph(graph, MALI, "fp16"), 20, 30)
    assert len(plan.buffer_bytes) == 2 + 2


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize(
    "graph",
    [
        read_model(find_model("cascade-x2")),
        *(graphs.random_network(seed, imported=seed % 2 == 1) for seed in range(12)),
    ],
    ids=lambda graph: graph.name,
)
def test_no_value_is_written_over_while_it_is_needed(
    graph: Graph, family: Family
) -> None:
    program = compile_graph(graph, family, "fp32")
    views = make_plan(program, 48, 48).views
    last_read = {name: len(program.steps) for name in program.tail.inputs}
    for index, step in reversed(list(enumerate(program.steps))):
        last_read = dict.fromkeys(step.inputs, index) | last_read
    held: dict[str, Held] = {}
    for index, step in enumerate(program.steps):
        if step is program.tail.step:
            continue
        mine = Held.of(views[step.output], index, last_read.get(step.output, index))
        if isinstance(step.node, Concat):
            # From here on, what was written in place is needed as a part of the whole.
            for name in step.inputs:
                if name in held and held[name].inside(mine):
                    mine = replace(mine, until=max(mine.until, held[name].until))
                    held[name] = replace(held[name], until=index - 1)
        held[step.output] = mine
    assert not any(a.clashes(b) for a, b in itertools.combinations(held.values(), 2))


@dataclasses.dataclass(frozen=True)
class Held:
    """Elements of a buffer, and the steps from the one that writes them on."""

    buffer: int
    first: int
    last: int
    since: int
    until: int

    @classmethod
    def of(cls, view: TensorView, since: int, until: int) -> Held:
        base = view.layout.base
        last = base + view.layout.slices * view.layout.plane - 1
        return cls(view.buffer, base, last, since, until)

    def inside(self, other: Held) -> bool:
        return (
            self.buffer == other.buffer
            and other.first <= self.first
            and self.last <= other.last
        )

    def clashes(self, other: Held) -> bool:
        """Whether both hold an element at a time."""
        return (
            self.buffer == other.buffer
            and max(self.first, other.first) <= min(self.last, other.last)
            and max(self.since, other.since) <= min(self.until, other.until)
        )


def test_values_use_slices_of_concatenations_that_are_not_yet_written() -> None:
    """Two layers' results, one after the other, where the third one's will be."""
    build = Builder(0)
    first = build.conv(INPUT, 3, 8)
    value = build.conv(build.conv(first, 8, 8), 8, 8)
    both = build.add(Concat, first, build.conv(value, 8, 8))
    graph = build.graph(build.conv(both, 16, 3), 1)
    plan = make_plan(compile_graph(graph, CPU, "fp32"), 20, 30)
    slices = {name: view.layout.slices for name, view in plan.views.items()}
    assert slices[both] == 4
    plane = plan.views[both].layout.plane
    held = sum(plan.buffer_bytes[2:]) / (16 * plane)
    assert 6 <= held < 7, "the concatenation, and one result beside it"


def test_weights_are_packed_once_for_every_tile_size() -> None:
    program = compile_graph(graphs.plain_network(seed=0), CPU, "fp32")
    small, large = make_plan(program, 8, 8), make_plan(program, 80, 80)
    for one, other in zip(small.dispatches, large.dispatches, strict=True):
        for mine, theirs in zip(one.buffers, other.buffers, strict=True):
            assert isinstance(mine, int) or mine is theirs


@pytest.mark.parametrize("layers", [4, 9])
def test_the_pipelines_of_equal_layers_do_not_grow_with_their_number(
    layers: int,
) -> None:
    graph = graphs.plain_network(seed=0, layers=layers)
    plan = make_plan(compile_graph(graph, MALI, "fp16"), 20, 30)
    # Pack, the first layer and the last; those between go to and fro between
    # two buffers.
    assert len({dispatch.pipeline for dispatch in plan.dispatches}) == 3 + 2


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("size", [(5, 7), (24, 32), (33, 41)], ids=str)
@pytest.mark.parametrize("margin", [0, 1, 5])
def test_a_3x3_convolution_reads_within_its_buffer(
    family: Family, size: tuple[int, int], margin: int
) -> None:
    """Whatever it pads, and whatever later layers want around its result."""
    build = Builder(0)
    value = build.conv(INPUT, 3, 6, kernel=3, padding=(0, 0, 0, 0))
    value = build.conv(value, 6, 6, kernel=1, padding=(3, 3, 3, 3))
    for _ in range(2):
        value = build.conv(value, 6, 6, kernel=3, padding=(0, 0, 0, 0))
    around = (margin,) * 4
    value = build.conv(value, 6, 3, kernel=2 * margin + 1, padding=around)
    plan = make_plan(compile_graph(build.graph(value, 1), family, "fp32"), *size)
    dispatches = [
        dispatch
        for dispatch in plan.dispatches
        if dispatch.shader.startswith("conv3x3")
    ]
    assert len(dispatches) >= 3
    for dispatch in dispatches:
        base, stride, plane, *_ = dispatch.push[:5]
        _, target_stride, target_plane, *_ = dispatch.push[5:10]
        is_bytes = "bytes" in dispatch.shader
        in_slices = 1 if is_bytes else dispatch.constants[0]
        # From (x - 1, y - 1) of the base to (x + 1, y + 1), of the last plane.
        rows = target_plane // target_stride
        last = base + (in_slices - 1) * plane + rows * stride + target_stride
        assert base - stride - 1 >= 0
        source = dispatch.buffers[0]
        assert isinstance(source, int)
        needed = 64 + 3 * last + 7 if is_bytes else 16 * (last + 1)
        assert needed <= plan.buffer_bytes[source]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("size", [(5, 7), (24, 32), (33, 41)], ids=str)
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_a_transposed_convolution_reads_within_its_buffer_and_reserves_no_more(
    family: Family, size: tuple[int, int], padding: int
) -> None:
    build = Builder(0)
    value = build.conv(INPUT, 3, 6, padding=(2 - padding,) * 4)
    convolution = build.conv(value, 6, 12, bias=False, padding=(padding,) * 4)
    weight = build.tensors[f"{convolution}.weight"].reshape(3, 2, 2, 6, 3, 3)
    for i, j in np.ndindex(2, 2):
        weight[:, i, j, :, 2 - 2 * i] = weight[:, i, j, :, :, 2 - 2 * j] = 0
    graph = build.graph(build.add(PixelShuffle, convolution, factor=2), 2)
    plan = make_plan(compile_graph(graph, family, "fp32"), *size)
    (dispatch,) = (
        dispatch
        for dispatch in plan.dispatches
        if dispatch.shader.startswith("deconv4x4")
    )
    base, stride, plane, _, rows = dispatch.push[:5]
    # From the base to the last tap of the last row and column that are clamped to.
    last = base + (dispatch.constants[0] - 1) * plane + (rows + 1) * stride + stride + 1
    source = dispatch.buffers[0]
    assert isinstance(source, int)
    assert base >= 0
    assert 16 * (last + 1) <= plan.buffer_bytes[source]
    for number, count in list(enumerate(plan.buffer_bytes))[2:]:
        layouts = [p.layout for p in plan.views.values() if p.buffer == number]
        values = max(layout.slices * layout.plane for layout in layouts)
        assert count == 16 * (values + 2 * layouts[0].base)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize(
    "skip", [None, "picture", "nearest", "bilinear", "bicubic", "value"]
)
@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5])
def test_the_last_kernel_reads_and_writes_within_its_buffers(
    family: Family, skip: str | None, factor: int
) -> None:
    """It works on four pixels of a row at a time, whatever the row's length."""
    if skip == "picture":
        factor = 1
    for channels in (1, 3):
        graph = ends(Builder(seed=1), skip, factor, channels)
        program = compile_graph(graph, family, "fp32")
        for height, width in itertools.product((1, 8, 11), (1, 7, 16, 31, 32, 33)):
            plan = make_plan(program, height, width)
            dispatch = plan.dispatches[-1]
            source = dispatch.buffers[0]
            assert isinstance(source, int)
            base, stride, plane, *_ = dispatch.push[:5]
            out_width, out_height, row_words = dispatch.push[10:]
            steps = -(-out_width // 4)
            plane_index = (channels * factor**2 - 1) // 4
            row, column = (out_height - 1) // factor, (4 * steps - 1) // factor
            last = base + plane_index * plane + row * stride + column
            assert column < stride
            assert 16 * (last + 1) <= plan.buffer_bytes[source]
            words = 16 + (out_height - 1) * row_words + steps * channels
            assert 4 * words <= plan.buffer_bytes[PICTURE_OUT]


@pytest.mark.parametrize("most", [1, 100, 2000, 10**6])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_weights_that_are_put_together_stay_the_same(
    monkeypatch: pytest.MonkeyPatch, most: int, precision: Precision
) -> None:
    monkeypatch.setattr(convolutions, "_SHARED_BYTES", most)
    rng = np.random.default_rng(0)
    size = 16 if precision == "fp32" else 8
    parts = {
        str(i): dispatches.BufferSlice(dispatches.Constant(words))
        for i, n in enumerate(rng.integers(1, 30, 9))
        for words in [rng.integers(0, 1 << 32, n * size // 4, dtype=np.uint32)]
    }
    shared = convolutions.share_constants(parts, size)
    assert list(shared) == list(parts)
    for name, part in parts.items():
        words, first = part.constant.words, shared[name].first * size // 4
        found = shared[name].constant.words
        assert np.array_equal(found[first : first + len(words)], words)
        assert found.nbytes <= max(most, words.nbytes)
    total = sum(part.constant.words.nbytes for part in parts.values())
    constants = {part.constant for part in shared.values()}
    assert sum(constant.words.nbytes for constant in constants) == total
    assert (len(constants) == 1) == (total <= most)


def test_fp16_takes_half_the_bytes_of_fp32() -> None:
    graph = graphs.plain_network(seed=0, channels=16)
    # Of kernels that both precisions have.
    direct = replace(VALHALL, conv3x3=VALHALL.conv3x3[1:])
    sizes = [
        sum(make_plan(compile_graph(graph, direct, p), 64, 64).buffer_bytes[2:])
        for p in ("fp16", "fp32")
    ]
    assert 2 * sizes[0] == sizes[1]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("imported", [False, True])
def test_random_networks_give_the_references_bytes(
    device: Device, seed: int, imported: bool
) -> None:
    """Fusion, buffers that are used again and copies leave the result as it is."""
    family = FAMILIES[seed % 2]
    check_bytes(device, graphs.random_network(seed, imported=imported), family, seed)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_network_of_imported_operations_gives_the_references_bytes(
    device: Device, seed: int, family: Family
) -> None:
    check_bytes(device, graphs.imported_operations(seed), family, seed)


def check_bytes(
    device: Device,
    graph: Graph,
    family: Family,
    seed: int,
    size: tuple[int, int] = (23, 14),
) -> None:
    rng = np.random.default_rng(seed)
    given = rng.integers(0, 256, (*size, graph.channels), dtype=np.uint8)
    picture = align(given, tiling(graph))
    plan = make_plan(compile_graph(graph, family, "fp32"), *picture.shape[:2])
    found = device.load(plan).run(picture).astype(float)
    unit = graph.value_range / 255
    planes = (picture.transpose(2, 0, 1) * unit).astype(np.float32)
    exact = np.clip(reference.run(graph, planes) / unit, 0, 255).transpose(1, 2, 0)
    # Half a step is the rounding's. fp32 sums in another order are off by 1e-5 of the
    # largest value, and may fall on the other side of a rounding.
    assert np.abs(found - exact).max() <= 0.5 + 0.01


@pytest.mark.parametrize("seed", range(8))
def test_buffers_hold_what_the_plan_says(device: Device, seed: int) -> None:
    """No kernel writes before or behind its buffer's planes."""
    graph = graphs.random_network(seed)
    plan = make_plan(compile_graph(graph, CPU, "fp32"), 64, 64)
    loaded = device.load(plan, inspect=True)
    loaded.run(np.full((64, 64, 3), 255, np.uint8))
    for name, place in plan.views.items():
        if place.buffer == PICTURE_IN:
            continue
        elements = plan.buffer_bytes[place.buffer] // 16
        end = place.layout.base + place.layout.slices * place.layout.plane
        assert end <= elements, name
    for number in range(2, len(plan.buffer_bytes)):
        words = loaded.words(number)
        front = min(
            place.layout.base for place in plan.views.values() if place.buffer == number
        )
        assert not words[: 4 * front].any()


@pytest.mark.parametrize("family", [MALI, VALHALL], ids=lambda family: family.name)
def test_no_workgroup_is_launched_for_a_margin_alone(family: Family) -> None:
    graph = graphs.luma_network(seed=0, channels=16, layers=5)
    plan = make_plan(compile_graph(graph, family, "fp16"), 48, 96)
    for dispatch in plan.dispatches:
        defines = VARIANTS[dispatch.shader].defines
        width = dispatch.grid[1] * defines["TILE_W"] * defines["GROUP_X"]
        height = dispatch.grid[2] * defines["TILE_H"] * defines["GROUP_Y"]
        assert (height, width) == (48, 96), dispatch.shader


@pytest.mark.parametrize("family", [MALI, VALHALL, CPU], ids=lambda family: family.name)
@pytest.mark.parametrize("size", [(24, 64), (25, 65)])
def test_margins_that_nobody_writes_stay_zeros(
    device: Device, family: Family, size: tuple[int, int]
) -> None:
    """Where a picture's last workgroups are full, and where they reach beyond it."""
    graph = graphs.plain_network(seed=6, layers=3)
    check_bytes(device, graph, family, seed=6, size=size)
    plan = make_plan(compile_graph(graph, family, "fp32"), *size)
    loaded = device.load(plan, inspect=True)
    loaded.run(np.full((*size, 3), 255, np.uint8))
    views = [view for view in plan.views.values() if view.buffer != PICTURE_IN]
    assert all(view.has_zeros for view in views)
    for view in views:
        layout = view.layout
        values = loaded.words(view.buffer).view(np.float32)
        planes = values[4 * layout.base :][: 4 * layout.slices * layout.plane]
        planes = planes.reshape(layout.slices, layout.rows, layout.stride, 4)
        assert planes[:, : size[0], : size[1]].any()
        assert not planes[:, size[0] :].any()
        assert not planes[:, :, size[1] :].any()


def test_a_buffer_of_values_of_several_sizes_has_its_margins_written(
    device: Device,
) -> None:
    """What one value has in the place of another one's margin."""
    build = Builder(seed=8)
    value = build.conv(INPUT, 3, 8)
    for _ in range(3):  # to a smaller size and back, in the same buffers
        value = build.conv(value, 8, 8)
        value = build.conv(value, 8, 32, kernel=2, stride=(2, 2), padding=(0, 0, 0, 0))
        value = build.conv(value, 32, 32)
        value = build.add(PixelShuffle, value, factor=2)
    graph = build.graph(build.conv(value, 8, 3), 1, 3)
    for family in FAMILIES:
        plan = make_plan(compile_graph(graph, family, "fp32"), 24, 64)
        sizes: dict[int, set[tuple[int, int]]] = {}
        for view in plan.views.values():
            layout = view.layout
            sizes.setdefault(view.buffer, set()).add((layout.height, layout.width))
        assert max(map(len, sizes.values())) == 2
        for view in plan.views.values():
            if view.buffer != PICTURE_IN:
                assert view.has_zeros == (len(sizes[view.buffer]) == 1)
        check_bytes(device, graph, family, seed=8, size=(24, 64))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unknown(Node):
    op = "unknown"


def test_an_operation_without_a_kernel_is_refused_by_name() -> None:
    graph = graphs.plain_network(seed=0)
    odd = Unknown(name="odd", inputs=(graph.output,))
    changed = dataclasses.replace(graph, nodes=(*graph.nodes, odd), output="odd")
    with pytest.raises(GraphError, match=r"'odd' \(unknown\).*no kernel"):
        compile_graph(changed, MALI, "fp16")


def test_weights_that_fp16_cannot_hold_are_refused() -> None:
    graph = graphs.plain_network(seed=0)
    name = next(name for name in graph.tensors if name.endswith("weight"))
    huge = {**graph.tensors, name: graph.tensors[name] * np.float32(1e9)}
    with pytest.raises(GraphError, match="too large for fp16"):
        compile_graph(dataclasses.replace(graph, tensors=huge), MALI, "fp16")


def test_a_clamp_narrower_than_the_bytes_is_kept(device: Device) -> None:
    build = Builder(seed=3)
    value = build.conv(INPUT, 3, 12)
    value = build.add(PixelShuffle, value, factor=2)
    value = build.add(Clamp, value, low=0.25, high=0.5)
    graph = build.graph(value, scale=2)
    picture = np.random.default_rng(3).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    found = device.load(make_plan(compile_graph(graph, CPU, "fp32"), 8, 8)).run(picture)
    assert (int(found.min()), int(found.max())) == (64, 128)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("seed", [0, 3, 5, 9])
def test_bands_of_rows_give_the_bits_of_one_dispatch(
    device: Device, seed: int, precision: Precision
) -> None:
    graph = graphs.random_network(seed)
    rng = np.random.default_rng(seed)
    given = rng.integers(0, 256, (45, 30, 3), dtype=np.uint8)
    picture = align(given, tiling(graph))
    results = []
    for macs_per_second in (CPU.macs_per_second, 1.0):
        family = dataclasses.replace(CPU, macs_per_second=macs_per_second)
        plan = make_plan(compile_graph(graph, family, precision), *picture.shape[:2])
        results.append((device.load(plan).run(picture).copy(), len(plan.dispatches)))
    assert results[1][1] > results[0][1], "there was more than one band"
    assert np.array_equal(results[0][0], results[1][0])


def test_no_dispatch_is_estimated_longer_than_the_bound() -> None:
    graph = graphs.plain_network(seed=0, channels=64)
    plan = make_plan(compile_graph(graph, MALI, "fp16"), 540, 240)
    most = MALI.macs_per_second * DISPATCH_SECONDS
    convolutions = [dispatch for dispatch in plan.dispatches if dispatch.macs]
    assert len(convolutions) > 3
    assert max(dispatch.macs for dispatch in convolutions) <= most
    assert plan.longest_dispatch <= DISPATCH_SECONDS
    shapes = [graph.tensors[name].shape for name in graph.tensors if "weight" in name]
    expected = sum(math.prod(shape) for shape in shapes) * 540 * 240
    assert sum(dispatch.macs for dispatch in convolutions) == expected
