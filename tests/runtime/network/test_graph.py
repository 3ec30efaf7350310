"""A graph's shapes, tile geometry and cost are those of the network it describes.

The oracle is PyTorch in float64, run by the few lines of `run` below. What an output
pixel depends on is found by brute force: a NaN in the input reaches exactly the
outputs that read it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as nn

from tests.graphs import (
    Builder,
    every_operation,
    imported_operations,
    plain_network,
    random_network,
)
from upfrost.network import reference
from upfrost.network.graph import (
    INPUT,
    MAX_NODES,
    MAX_SIZE,
    OPERATIONS,
    Add,
    Blocks,
    Clamp,
    Concat,
    Conv2d,
    Crop,
    Graph,
    GraphError,
    LayerNorm,
    LeakyRelu,
    MaxPool2d,
    Node,
    Pad,
    PixelShuffle,
    Prelu,
    Relu,
    Resize,
    ResizeTo,
    Shape,
    Tensor,
    Window,
    alignment,
    halo,
    infer_shapes,
    macs_per_output_pixel,
    parameter_count,
    receptive_field,
    required_window,
    scales,
    stagger,
    tensor_fields,
    tensor_names,
)

SEEDS = range(24)


def run(graph: Graph, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
    """Every value of `graph` for `pictures`, (N, channels, height, width)."""
    weights = {
        name: torch.from_numpy(tensor.astype(np.float64))
        for name, tensor in graph.tensors.items()
    }
    values = {INPUT: pictures}
    for node in graph.nodes:
        x = values[node.inputs[0]]
        match node:
            case Conv2d():
                top, left, bottom, right = node.padding
                bias = None if node.bias is None else weights[node.bias]
                y = nn.conv2d(
                    nn.pad(x, (left, right, top, bottom)),
                    weights[node.weight],
                    bias,
                    stride=node.stride,
                    dilation=node.dilation,
                    groups=node.groups,
                )
            case Relu():
                y = nn.relu(x)
            case Prelu():
                y = nn.prelu(x, weights[node.slope])
            case LeakyRelu():
                y = nn.leaky_relu(x, node.slope)
            case Clamp():
                y = torch.clamp(x, node.low, node.high)
            case Add():
                if x.shape != values[node.inputs[1]].shape:
                    raise RuntimeError("PyTorch would broadcast")
                y = x + values[node.inputs[1]]
            case Concat():
                y = torch.cat([values[name] for name in node.inputs], dim=1)
            case PixelShuffle():
                y = nn.pixel_shuffle(x, node.factor)
            case Resize():
                y = nn.interpolate(
                    x,
                    scale_factor=node.ratio[0] / node.ratio[1],
                    mode=node.mode,
                    align_corners=None if node.mode == "nearest" else False,
                )
            case _:
                raise NotImplementedError(node.op)
        values[node.name] = y
    return values


def noise(seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def dependencies(
    graph: Graph, axis: int, size: int, probe: float = torch.nan
) -> npt.NDArray[np.bool_]:
    """Whether output row i changes with input row j, (scale · size, size); or columns.

    Where `probe`, put in place of a row, is NaN, also taps of weight zero count.
    """
    # Wide enough that a kernel of even size, dilated, reads more than padding.
    other = 8 * alignment(graph)
    pictures = noise(0, 1, graph.channels, size, other).repeat(size, 1, 1, 1)
    changed = pictures.clone()
    changed[torch.arange(size), :, torch.arange(size), :] = probe
    if axis == 1:
        pictures, changed = pictures.transpose(2, 3), changed.transpose(2, 3)
    differs = run(graph, changed)[graph.output] != run(graph, pictures)[graph.output]
    reached = differs.any(dim=1).any(dim=2 if axis == 0 else 1)
    found: npt.NDArray[np.bool_] = reached.numpy().T
    return found


@functools.cache
def example(seed: int) -> Graph:
    """`plain_network` and `every_operation` first, then random networks."""
    if seed < 2:
        return (plain_network, every_operation)[seed](seed)
    return random_network(seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_shapes_are_pytorchs_for_any_size(seed: int) -> None:
    graph = example(seed)
    sizes = np.random.default_rng(seed).integers(1, 40, (6, 2))
    for height, width in sizes:
        try:
            shapes = infer_shapes(graph, int(height), int(width))
        except GraphError:
            with pytest.raises(RuntimeError):
                run(graph, noise(seed, 1, 3, height, width))
            continue
        values = run(graph, noise(seed, 1, 3, height, width))
        found = {name: Shape(*value.shape[1:]) for name, value in values.items()}
        assert found == shapes


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("axis", [0, 1])
def test_halo_is_exactly_what_outputs_read(seed: int, axis: int) -> None:
    graph = example(seed)
    step, reach = alignment(graph), halo(graph)[axis]
    inner = -(-reach // step) * step  # blocks from here on are clear of the edges
    size = 2 * inner + 3 * step
    reads = dependencies(graph, axis, size)
    furthest = 0
    for start in range(0, size, step):
        block = reads[start * graph.scale : (start + step) * graph.scale]
        rows = np.flatnonzero(block.any(axis=0))
        assert rows[0] >= start - reach
        assert rows[-1] < start + step + reach
        if inner <= start <= size - inner - step:
            furthest = max(furthest, start - rows[0], rows[-1] - start - step + 1)
    assert furthest == reach


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("axis", [0, 1])
def test_required_window_is_what_any_block_reads(seed: int, axis: int) -> None:
    graph = example(seed)
    step, reach = alignment(graph), halo(graph)[axis]
    size = (2 * -(-reach // step) + 3) * step
    reads = dependencies(graph, axis, size)
    # At the edges a resize reads the outermost row twice, the second time with weight
    # zero, where PyTorch takes the next row: that is no dependency.
    changes = dependencies(graph, axis, size, probe=100.0)
    rng = np.random.default_rng(seed)
    for _ in range(20):
        start, stop = sorted(rng.choice(size * graph.scale + 1, 2, replace=False))
        window = required_window(graph, Window(int(start), int(stop)), axis)
        rows = np.flatnonzero(changes[start:stop].any(axis=0))
        assert all(window.start <= row < window.stop for row in rows)
        if window.start >= 0 and window.stop <= size:
            rows = np.flatnonzero(reads[start:stop].any(axis=0))
            assert (rows[0], rows[-1] + 1) == (window.start, window.stop)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_tile_with_its_halo_gives_the_pictures_result(seed: int) -> None:
    """Any tile that begins at a multiple of the alignment, away from the edges.

    Tolerance: float64 sums of another order, on values of about one.
    """
    graph = example(seed)
    step, scale = alignment(graph), graph.scale
    margins = [-(-reach // step) * step for reach in halo(graph)]
    height, width = (2 * margin + 4 * step for margin in margins)
    picture = noise(seed, 1, 3, height, width)
    whole = run(graph, picture)[graph.output]
    for place in (0, 1, 2):
        top, left = place * step, (2 - place) * step
        bottom = top + 2 * margins[0] + 2 * step
        right = left + 2 * margins[1] + 2 * step
        tile = run(graph, picture[..., top:bottom, left:right])[graph.output]
        rows = slice(margins[0] * scale, (margins[0] + 2 * step) * scale)
        columns = slice(margins[1] * scale, (margins[1] + 2 * step) * scale)
        expected = whole[..., top * scale :, left * scale :][..., rows, columns]
        torch.testing.assert_close(
            tile[..., rows, columns], expected, rtol=1e-10, atol=1e-10
        )


@pytest.mark.parametrize("layers", range(1, 9))
def test_staggered_blocks_depend_on_what_their_layers_read(layers: int) -> None:
    """And on more, where all of them begin at the same places."""
    build, value = Builder(0), INPUT
    for _ in range(layers):
        value = build.conv(value, 3, 3)
    graph = build.graph(value, scale=1)
    sides = {node.name: 4 for node in graph.nodes}
    staggered = stagger(graph, 4, sides)
    assert halo(graph, 4, staggered) == halo(graph) == (layers, layers)
    alike = {name: Blocks(side) for name, side in sides.items()}
    wider = halo(graph, 4, alike)
    assert (wider > (layers, layers)) == (layers > 1)


def test_a_tile_between_aligned_places_would_be_wrong() -> None:
    """So that the alignment of a network with strides is not larger than it must be."""
    build = Builder(0)
    half = build.conv(INPUT, 3, 3, stride=(2, 2), padding=(1, 1, 1, 1))
    graph = build.graph(build.resize(half, "nearest", 2), scale=1)
    assert alignment(graph) == 2
    picture = noise(0, 1, 3, 32, 32)
    whole = run(graph, picture)[graph.output]
    shifted = run(graph, picture[..., 1:-1, 1:-1])[graph.output]
    assert not torch.allclose(shifted[..., 8:16, 8:16], whole[..., 9:17, 9:17])


@pytest.mark.parametrize(
    ("layers", "kernel", "dilation", "expected"),
    [
        (0, 1, 1, 1),
        (1, 3, 1, 3),
        (4, 3, 1, 9),
        (2, 5, 1, 9),
        (3, 3, 2, 13),
        (1, 1, 1, 1),
    ],
)
def test_receptive_field_of_stacked_convolutions(
    layers: int, kernel: int, dilation: int, expected: int
) -> None:
    build, value = Builder(0), INPUT
    for _ in range(layers):
        value = build.conv(value, 3, 3, kernel, dilation=(dilation, dilation))
    graph = build.graph(build.add(Relu, value), scale=1)
    assert receptive_field(graph) == (expected, expected)
    assert halo(graph) == (expected // 2, expected // 2)


def test_receptive_field_has_a_height_and_a_width() -> None:
    build = Builder(0)
    value = build.conv(INPUT, 3, 3, kernel=(1, 7))
    assert receptive_field(build.graph(value, scale=1)) == (1, 7)
    assert halo(build.graph(value, scale=1)) == (0, 3)


def test_espcn_costs_what_is_published() -> None:
    """ESPCN ×2: 11.0 GMAC for a 1080p result on one channel."""
    build = Builder(0)
    value = build.conv(INPUT, 1, 64, kernel=5)
    value = build.conv(value, 64, 32)
    value = build.conv(value, 32, 4)
    value = build.add(PixelShuffle, value, factor=2)
    graph = build.graph(value, scale=2, channels=1)
    gigamacs = macs_per_output_pixel(graph) * 1920 * 1080 / 1e9
    assert gigamacs == pytest.approx(11.0, abs=0.05)
    assert parameter_count(graph) == 25 * 64 + 64 + 9 * 64 * 32 + 32 + 9 * 32 * 4 + 4


def test_macs_follow_groups_and_strides() -> None:
    build = Builder(0)
    wide = build.conv(INPUT, 3, 8, kernel=1)  # 24 multiplications a pixel
    half = build.conv(
        wide, 8, 8, groups=4, stride=(2, 2), padding=(1, 1, 1, 1)
    )  # 9 · 2 · 8 = 144 at a quarter of the pixels
    back = build.resize(half, "nearest", 2)
    graph = build.graph(build.conv(back, 8, 3, kernel=1, bias=False), scale=1)
    assert macs_per_output_pixel(graph) == 24 + 144 / 4 + 24


def test_macs_of_a_network_of_large_scales() -> None:
    build = Builder(0)
    value = build.resize(INPUT, "nearest", Fraction(1, 64))
    value = build.resize(value, "nearest", 64)
    value = build.resize(value, "nearest", 64)
    value = build.resize(value, "nearest", Fraction(1, 64))
    graph = build.graph(build.conv(value, 3, 3, kernel=1), scale=1)
    assert macs_per_output_pixel(graph) == 9


def test_scales_and_alignment_of_fractions() -> None:
    build = Builder(0)
    value = build.resize(INPUT, "bilinear", Fraction(3, 2))
    other = build.conv(INPUT, 3, 3, stride=(1, 3), padding=(1, 0, 1, 0))
    other = build.resize(other, "nearest", Fraction(3, 2))
    value = build.resize(value, "bilinear", Fraction(2, 3))
    graph = build.graph(value, scale=1)
    assert scales(graph, 0)[other] == Fraction(3, 2)
    assert scales(graph, 1)[other] == Fraction(1, 2)
    assert alignment(graph) == 6


@pytest.mark.parametrize("seed", range(24, 100))
def test_random_networks_are_valid(seed: int) -> None:
    graph = random_network(seed)
    assert macs_per_output_pixel(graph) >= 0
    assert alignment(graph) <= 64


def test_the_examples_hold_every_operation() -> None:
    """Tests of files, kernels and plans use them: a new operation must be in one."""
    nodes = [*every_operation(0).nodes, *imported_operations(0).nodes]
    assert {node.op for node in nodes} == set(OPERATIONS)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(
    "node",
    [
        Pad(name="n", inputs=(INPUT,), mode="reflect", padding=(5, 2, 3, 4)),
        Pad(name="n", inputs=(INPUT,), mode="replicate", padding=(5, 2, 3, 4)),
        Crop(name="n", inputs=(INPUT,), margins=(2, 0, 3, 1)),
        MaxPool2d(
            name="n",
            inputs=(INPUT,),
            kernel=(3, 4),
            stride=(2, 3),
            padding=(1, 3, 0, 1),
        ),
    ],
    ids=["reflect", "replicate", "crop", "pool"],
)
def test_windows_of_pads_crops_and_pools_hold_what_they_read(
    node: Node, axis: int
) -> None:
    value = np.random.default_rng(0).random((1, 24, 24), np.float32)
    expected = reference.apply(node, [value], {})
    for row in range(24):
        changed = value.copy()
        np.moveaxis(changed, axis + 1, 0)[row] += 1
        differs = reference.apply(node, [changed], {}) != expected
        for place in np.flatnonzero(differs.any(axis=(0, 2 - axis))):
            window = node.input_window(Window(int(place), int(place) + 1), axis, {})
            # Beyond the edge, a copy of it is read.
            start = min(window.start, 23) if node.op == "pad" else window.start
            stop = max(window.stop, 1) if node.op == "pad" else window.stop
            assert start <= row < stop


def test_a_mean_over_the_picture_needs_all_of_it() -> None:
    reach = halo(imported_operations(0))
    assert min(reach) > MAX_SIZE


def test_what_is_only_resized_to_another_value_aligns_no_tiles() -> None:
    build = Builder(0)
    coarse = build.add(MaxPool2d, INPUT, kernel=(7, 7), stride=(5, 5))
    finer = build.add(ResizeTo, coarse, INPUT, mode="bilinear")
    graph = build.graph(build.add(Add, finer, INPUT), scale=1)
    assert scales(graph, 0) == {
        INPUT: 1,
        coarse: Fraction(1, 5),
        finer: 1,
        graph.output: 1,
    }
    assert alignment(graph) == 1
    assert min(halo(graph)) > MAX_SIZE
    # No multiple of anything.
    assert infer_shapes(graph, 23, 31)[graph.output] == Shape(3, 23, 31)
    pooled = build.add(MaxPool2d, INPUT, kernel=(5, 5), stride=(5, 5))
    back = build.resize(pooled, "nearest", 5)
    assert alignment(build.graph(build.add(Add, back, graph.output), scale=1)) == 5


def test_tensor_attributes_are_found_by_their_annotation() -> None:
    assert tensor_fields(Conv2d) == ("weight", "bias")
    assert tensor_fields(Relu) == ()
    conv = Conv2d(name="a", inputs=(INPUT,), weight="w")
    assert tensor_names(conv) == ("w",)


def conv_graph(
    weight: tuple[int, ...] = (3, 3, 3, 3),
    dtype: npt.DTypeLike = np.float32,
    tensors: dict[str, Tensor] | None = None,
    **attributes: object,
) -> Graph:
    """One convolution that keeps the size, with what a test changes."""
    node: dict[str, object] = {
        "name": "conv",
        "inputs": (INPUT,),
        "weight": "w",
        "padding": (1, 1, 1, 1),
        **attributes,
    }
    return Graph(
        name="one",
        scale=1,
        channels=3,
        nodes=(Conv2d(**node),),  # type: ignore[arg-type]
        output="conv",
        tensors=tensors or {"w": np.ones(weight, dtype)},
    )


def unpadded_and_padded(operation: type[Node]) -> Graph:
    """A value two pixels smaller than the picture, joined with the picture."""
    build = Builder(0)
    smaller = build.conv(INPUT, 3, 3, padding=(0, 0, 0, 0))
    return build.graph(build.add(operation, INPUT, smaller), scale=1)


def relu(name: str, source: str = INPUT) -> Relu:
    return Relu(name=name, inputs=(source,))


def chain(*nodes: object, output: str = "last", **fields: object) -> Graph:
    """A graph of `nodes`, which have no tensors."""
    arguments: dict[str, object] = {"name": "g", "scale": 1, "channels": 3, **fields}
    return Graph(nodes=nodes, output=output, tensors={}, **arguments)  # type: ignore[arg-type]


def norm_graph(count: int, epsilon: float) -> Graph:
    """A layer normalisation with `count` weights."""
    node = LayerNorm(
        name="norm",
        inputs=(INPUT,),
        kind="layer",
        epsilon=epsilon,
        weight="w",
        bias="w",
    )
    return Graph(
        name="one",
        scale=1,
        channels=3,
        nodes=(node,),
        output="norm",
        tensors={"w": np.ones(count, np.float32)},
    )


def test_what_the_table_of_wrong_graphs_changes_is_right() -> None:
    conv_graph()
    norm_graph(3, 0.0)
    chain(relu("last"))


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "name": (lambda: chain(relu("last"), name="../x"), "graph name '../x'"),
    "name with a line feed": (lambda: chain(relu("last"), name="x\n"), "graph name"),
    "long name": (lambda: chain(relu("last"), name="x" * 129), "graph name"),
    "hidden name": (lambda: chain(relu("last"), name=".x"), "graph name"),
    "scale": (lambda: chain(relu("last"), scale=0), "scale must be 1 to 16"),
    "negative scale": (lambda: chain(relu("last"), scale=-2), "scale must be"),
    "other scale": (lambda: chain(relu("last"), scale=2), "1 times as large"),
    "channels": (lambda: chain(relu("last"), channels=4), "channels must be 1 or 3"),
    "colour": (
        lambda: chain(relu("last"), channels=1, colour="chroma"),
        "colour must be 'luma' or None, found 'chroma'",
    ),
    "luma of three channels": (
        lambda: chain(relu("last"), channels=3, colour="luma"),
        "a network for luma has 1 channel, found 3",
    ),
    "range": (lambda: chain(relu("last"), value_range=2.0), "value range must be"),
    "no nodes": (lambda: chain(), "1 to 4096 nodes, found 0"),
    "many nodes": (
        lambda: chain(*(relu(f"n{i}") for i in range(MAX_NODES + 1))),
        "found 4097",
    ),
    "node name": (lambda: chain(relu("a/b")), "node name 'a/b'"),
    "node called input": (lambda: chain(relu(INPUT)), "another value has this name"),
    "same name": (lambda: chain(relu("a"), relu("a")), "another value has this name"),
    "unknown input": (lambda: chain(relu("last", "x")), "'x' is not an earlier"),
    "own input": (lambda: chain(relu("last", "last")), "'last' is not an earlier"),
    "cycle": (
        lambda: chain(relu("a", "last"), relu("last", "a")),
        "'last' is not an earlier",
    ),
    "no input": (
        lambda: chain(Relu(name="last", inputs=())),
        "takes 1 to 1 inputs, found 0",
    ),
    "two inputs": (
        lambda: chain(Relu(name="last", inputs=(INPUT, INPUT))),
        "takes 1 to 1 inputs, found 2",
    ),
    "unknown output": (lambda: chain(relu("a")), "output 'last' is not a node"),
    "input as output": (
        lambda: chain(relu("a"), output=INPUT),
        "output 'input' is not a node",
    ),
    "unknown tensor": (lambda: conv_graph(bias="b"), "there is no tensor 'b'"),
    "unused tensor": (
        lambda: dataclasses.replace(
            chain(relu("last")), tensors={"w": np.ones(3, np.float32)}
        ),
        "tensor 'w' is used by no node",
    ),
    "dtype": (lambda: conv_graph(dtype=np.float64), "tensor 'w' is float64"),
    "big-endian": (lambda: conv_graph(dtype=">f4"), "tensor 'w' is >f4"),
    "integers": (lambda: conv_graph(dtype=np.int32), "tensor 'w' is int32"),
    "empty tensor": (lambda: conv_graph((3, 0, 3, 3)), "tensor 'w' is empty"),
    "NaN": (
        lambda: conv_graph(tensors={"w": np.full((3, 3, 3, 3), np.nan, np.float32)}),
        "not finite",
    ),
    "infinity at the end of a large tensor": (
        lambda: conv_graph(
            tensors={"w": np.array([0.0] * 1_000_000 + [np.inf], np.float32)}
        ),
        "not finite",
    ),
    "dimensions": (lambda: conv_graph((3, 3, 3)), "4 dimensions, found 3"),
    "input channels": (lambda: conv_graph((3, 4, 3, 3)), "expects 4 input channels"),
    "output channels": (lambda: conv_graph((4, 3, 3, 3)), "expected 3 channels of"),
    "groups": (lambda: conv_graph((3, 3, 3, 3), groups=2), "do not divide"),
    "no groups": (lambda: conv_graph(groups=0), "groups must be 1 to"),
    "negative stride": (lambda: conv_graph(stride=(1, -1)), "stride must be 1 to 64"),
    "huge stride": (lambda: conv_graph(stride=(1, 2**70)), "stride must be 1 to 64"),
    "no dilation": (lambda: conv_graph(dilation=(0, 1)), "dilation must be 1 to 64"),
    "negative padding": (
        lambda: conv_graph(padding=(-1, 1, 1, 1)),
        "padding must be 0 to 64",
    ),
    "huge kernel": (lambda: conv_graph((3, 3, 65, 1)), "kernel size must be 1 to 64"),
    "no padding": (lambda: conv_graph(padding=(0, 0, 0, 0)), "expected 3 channels of"),
    "bias": (
        lambda: conv_graph(
            bias="b",
            tensors={
                "w": np.ones((3, 3, 3, 3), np.float32),
                "b": np.ones(4, np.float32),
            },
        ),
        "bias must have shape \\(3,\\)",
    ),
    "slope": (
        lambda: Graph(
            name="g",
            scale=1,
            channels=3,
            nodes=(Prelu(name="last", inputs=(INPUT,), slope="s"),),
            output="last",
            tensors={"s": np.ones(2, np.float32)},
        ),
        "slope must have shape",
    ),
    "a slope beyond single precision": (
        lambda: chain(LeakyRelu(name="last", inputs=(INPUT,), slope=1e39)),
        r"slope is 1e\+39; single precision holds up to 3\.403e\+38",
    ),
    "infinite slope": (
        lambda: chain(LeakyRelu(name="last", inputs=(INPUT,), slope=float("inf"))),
        "slope is inf",
    ),
    "clamp": (
        lambda: chain(Clamp(name="last", inputs=(INPUT,), low=1.0, high=0.0)),
        "low 1.0 is above high 0.0",
    ),
    "add": (
        lambda: chain(
            Resize(name="a", inputs=(INPUT,), mode="nearest", ratio=(2, 1)),
            Add(name="last", inputs=(INPUT, "a")),
        ),
        "inputs differ in scale",
    ),
    "add of other channels": (
        lambda: chain(
            Concat(name="a", inputs=(INPUT, INPUT)),
            Add(name="last", inputs=(INPUT, "a")),
        ),
        "inputs differ in shape",
    ),
    "concat of other sizes": (
        lambda: unpadded_and_padded(Concat),
        "inputs differ in height or width: \\(62, 62\\) and \\(64, 64\\)",
    ),
    "add of other sizes": (
        lambda: unpadded_and_padded(Add),
        "inputs differ in shape",
    ),
    "shuffle": (
        lambda: chain(PixelShuffle(name="last", inputs=(INPUT,), factor=2), scale=2),
        "3 channels do not divide",
    ),
    "no shuffle": (
        lambda: chain(PixelShuffle(name="last", inputs=(INPUT,), factor=0)),
        "factor must be 1 to 64",
    ),
    "ratio": (
        lambda: chain(
            Resize(name="last", inputs=(INPUT,), mode="nearest", ratio=(2, 2))
        ),
        "not in lowest terms",
    ),
    "no ratio": (
        lambda: chain(
            Resize(name="last", inputs=(INPUT,), mode="nearest", ratio=(1, 0))
        ),
        "ratio must be 1 to 64",
    ),
    "a scale out of bounds": (
        lambda: chain(
            Resize(name="a", inputs=(INPUT,), mode="nearest", ratio=(64, 1)),
            Resize(name="last", inputs=("a",), mode="nearest", ratio=(2, 1)),
        ),
        "a scale of 128 is out of bounds",
    ),
    "an alignment out of bounds": (
        lambda: chain(
            Resize(name="a", inputs=(INPUT,), mode="nearest", ratio=(1, 7)),
            Resize(name="b", inputs=(INPUT,), mode="nearest", ratio=(1, 11)),
            relu("last"),
        ),
        "tiles of 77 pixels",
    ),
    "norm of other channels": (
        lambda: norm_graph(4, 0.1),
        r"weight and bias must have shape \(3,\), found \(4,\)",
    ),
    "negative epsilon": (
        lambda: norm_graph(3, -0.1),
        "epsilon -0.1 is below 0",
    ),
    "too many channels": (
        lambda: chain(
            Concat(name="a", inputs=(INPUT,) * 64),
            Concat(name="b", inputs=("a",) * 64),
            relu("last"),
        ),
        "12288 channels; at most 4096",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_graph_cannot_be_made(case: str) -> None:
    make, reason = WRONG[case]
    with pytest.raises(GraphError, match=reason):
        make()
