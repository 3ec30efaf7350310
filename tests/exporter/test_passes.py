"""Every clean-up pass does its work and leaves the result as it was."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from tests.graphs import (
    Builder,
    assert_same_graph,
    every_operation,
    plain_network,
    random_network,
)
from upfrost.network import reference
from upfrost.network.graph import (
    INPUT,
    Add,
    Clamp,
    Concat,
    Conv2d,
    Graph,
    GridSample,
    LayerNorm,
    LeakyRelu,
    Multiply,
    Node,
    PixelShuffle,
    Relu,
    Unary,
    alignment,
    infer_shapes,
)
from upfrost_exporter import lowering, passes
from upfrost_exporter.builder import ExportError, GraphBuilder

# Folding changes the order of a few roundings of float32.
TOLERANCE = 1e-5


def assert_same_result(before: Graph, after: Graph, tolerance: float = 0.0) -> None:
    side = 8 * alignment(before)
    picture = np.random.default_rng(7).random((3, side, side + side), np.float32)
    expected, found = (reference.run(graph, picture) for graph in (before, after))
    assert np.abs(found - expected).max() <= tolerance * max(1, np.abs(expected).max())


def operations(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


def affine(build: Builder, source: str, channels: int, bias: bool = True) -> str:
    return build.conv(source, channels, channels, 1, bias, groups=channels)


def test_dead_nodes_and_their_tensors_go() -> None:
    build = Builder(0)
    dead = build.conv(INPUT, 3, 5)
    build.prelu(dead, 5)
    before = build.graph(build.conv(INPUT, 3, 3), scale=1)
    after = passes.remove_dead_nodes(before)
    assert operations(after) == ["conv2d"]
    assert len(after.tensors) == 2
    assert_same_result(before, after)


def test_each_node_is_looked_at_once_however_many_fold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build = Builder(0)
    last = build.conv(INPUT, 3, 3)
    for _ in range(40):
        last = affine(build, last, 3)
    before = build.graph(last, scale=1)
    renamed: list[str] = []
    rename = passes._rename_inputs

    def counting(node: Node, names: Mapping[str, str]) -> Node:
        renamed.append(node.name)
        return rename(node, names)

    monkeypatch.setattr(passes, "_rename_inputs", counting)
    after = passes.fold_affine(before)
    assert operations(after) == ["conv2d"]
    assert len(renamed) == len(before.nodes)
    assert_same_result(before, after, TOLERANCE)


@pytest.mark.parametrize("kind", ["layer", "rms"])
@pytest.mark.parametrize("epsilon", [1e-6, 1e-5])
@pytest.mark.parametrize("root", ["rsqrt", "sqrt"])
def test_layer_normalisation_is_found_however_it_is_spelled(
    kind: str, epsilon: float, root: str
) -> None:
    build, channels = GraphBuilder(3), 6
    weight = build.tensor("w", np.random.default_rng(0).random((channels, 3, 1, 1)))
    x = value = build.add(Conv2d, "first", [INPUT], weight=weight)

    def for_all(one: str) -> str:
        return lowering.pick_channels(build, "all", one, [0] * channels)

    if kind == "layer":
        mean = lowering.channel_mean(build, "mean", x)
        less = lowering.scaled(build, "less", mean, -1)
        value = build.add(Add, "centred", [x, for_all(less)])
    square = build.add(Multiply, "square", [value, value])
    variance = lowering.channel_mean(build, "variance", square)
    shifted = lowering.scaled(build, "shifted", variance, 1, epsilon)
    inverse = build.add(Unary, "root", [shifted], function=root)
    if root == "sqrt":
        inverse = build.add(Unary, "inverse", [inverse], function="reciprocal")
    value = build.add(Multiply, "normed", [value, for_all(inverse)])
    value = build.affine("gain", value, np.arange(channels) / 4, np.zeros(channels))
    value = build.affine("offset", value, np.ones(channels), np.arange(channels) - 2.0)
    last = build.tensor("last", np.random.default_rng(1).random((3, channels, 3, 3)))
    value = build.add(Conv2d, "end", [value], weight=last, padding=(1, 1, 1, 1))
    before = build.graph(value, name="n", scale=1, value_range=1.0, metadata={})
    after = passes.clean(before)
    assert operations(after) == ["conv2d", "layer_norm", "conv2d"]
    norm = after.nodes[1]
    assert isinstance(norm, LayerNorm)
    assert norm.kind == kind
    assert norm.epsilon == float(np.float32(epsilon))
    # Sums over channels in another order, amplified by small deviations.
    assert_same_result(before, after, 1e-4)


def test_other_products_are_no_normalisation() -> None:
    build = GraphBuilder(3)
    square = build.add(Multiply, "square", [INPUT, INPUT])
    shifted = lowering.scaled(build, "shifted", square, 1, 1e-6)
    root = build.add(Unary, "root", [shifted], function="rsqrt")
    product = build.add(Multiply, "product", [INPUT, root])
    before = build.graph(product, name="n", scale=1, value_range=1.0, metadata={})
    assert operations(passes.fuse_layer_norm(before)) == operations(before)


def test_identities_go() -> None:
    build = Builder(0)
    value = build.resize(INPUT, "bicubic", 1)
    value = build.add(PixelShuffle, value, factor=1)
    value = build.conv(value, 3, 3)
    value = build.add(LeakyRelu, value, slope=1.0)
    value = build.add(Concat, value)
    build.tensors["ones"] = np.ones((3, 1, 1, 1), np.float32)
    value = build.add(Conv2d, value, weight="ones", groups=3)
    before = build.graph(value, scale=1)
    after = passes.remove_identities(before)
    assert operations(after) == ["conv2d"]
    assert after.nodes[0].inputs == (INPUT,)
    assert after.output == after.nodes[0].name
    assert_same_result(before, after)


def test_what_only_looks_like_an_identity_stays() -> None:
    build = Builder(0)
    value = build.resize(INPUT, "nearest", 2)
    value = build.add(Concat, value, value)
    value = build.add(LeakyRelu, value, slope=0.5)
    value = build.conv(value, 6, 3, 1)
    before = build.graph(value, scale=2)
    assert_same_graph(passes.remove_identities(before), before)


def test_a_network_that_is_an_identity_keeps_a_node() -> None:
    build = Builder(0)
    value = build.resize(INPUT, "bilinear", 1)
    before = build.graph(build.add(Concat, value), scale=1)
    after = passes.remove_identities(before)
    assert operations(after) == ["concat"]
    assert_same_result(before, after)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "plain"])
@pytest.mark.parametrize("groups", [1, 2])
def test_scale_and_shift_fold_into_the_convolution_before(
    groups: int, bias: bool
) -> None:
    build = Builder(1)
    value = build.conv(INPUT, 3, 6)
    value = build.conv(value, 6, 8, bias=bias, groups=groups)
    value = affine(build, value, 8)
    value = affine(build, value, 8)
    value = build.add(Relu, value)
    before = build.graph(build.conv(value, 8, 3), scale=1)
    after = passes.fold_affine(before)
    assert operations(after) == ["conv2d", "conv2d", "relu", "conv2d"]
    assert_same_result(before, after, TOLERANCE)


@pytest.mark.parametrize("groups", [1, 3])
def test_scale_and_shift_fold_into_an_unpadded_convolution_behind(groups: int) -> None:
    build = Builder(2)
    value = build.conv(affine(build, INPUT, 3), 3, 6, 1, groups=groups)
    before = build.graph(build.conv(value, 6, 3), scale=1)
    after = passes.fold_affine(before)
    assert operations(after) == ["conv2d", "conv2d"]
    assert_same_result(before, after, TOLERANCE)


def test_a_shift_does_not_fold_across_zero_padding() -> None:
    build = Builder(3)
    before = build.graph(build.conv(affine(build, INPUT, 3), 3, 3), scale=1)
    assert_same_graph(passes.fold_affine(before), before)


def test_a_scale_folds_across_zero_padding() -> None:
    build = Builder(4)
    value = affine(build, INPUT, 3, bias=False)
    before = build.graph(build.conv(value, 3, 3), scale=1)
    after = passes.fold_affine(before)
    assert operations(after) == ["conv2d"]
    assert_same_result(before, after, TOLERANCE)


def test_a_value_with_two_readers_is_kept() -> None:
    build = Builder(5)
    first = build.conv(INPUT, 3, 3)
    scaled = affine(build, first, 3)
    joined = build.add(Concat, first, scaled)
    before = build.graph(build.conv(joined, 6, 3), scale=1)
    assert_same_graph(passes.fold_affine(before), before)


def test_a_convolution_of_one_pixel_folds_where_that_is_cheaper() -> None:
    build = Builder(7)
    value = build.conv(INPUT, 3, 16, (3, 5))
    value = build.conv(value, 16, 8, 1, bias=False)
    value = build.conv(value, 8, 24, 1)
    # Not worth it: 3×3×24×24 products against 3×3×24×4 and 4×24.
    value = build.conv(build.conv(value, 24, 4), 4, 24, 1)
    before = build.graph(build.conv(value, 24, 3), scale=1)
    after = passes.fold_pointwise(before)
    assert operations(before).count("conv2d") - operations(after).count("conv2d") == 1
    assert_same_result(before, after, TOLERANCE)


def test_fewer_channels_are_sampled_where_that_gives_the_same() -> None:
    build = Builder(9)
    value = build.conv(INPUT, 3, 24)
    moves = build.conv(value, 24, 6, 1)
    large = build.add(GridSample, value, moves, factor=1, groups=3)
    before = build.graph(build.conv(large, 24, 3, 1), scale=1)
    after = passes.sample_fewer_channels(before)
    assert operations(after) == [*["conv2d"] * 3, "grid_sample", "conv2d"]
    shapes = infer_shapes(after, 8, 8)
    assert shapes[large].channels == 12  # four of each group, not eight
    assert_same_result(before, after, TOLERANCE)
    assert_same_graph(passes.sample_fewer_channels(after), after)


def test_zeros_around_a_value_fold_into_the_convolution_behind() -> None:
    build = Builder(8)
    build.tensors["ones"] = np.ones((3, 1, 1, 1), np.float32)
    padded = build.add(Conv2d, INPUT, weight="ones", groups=3, padding=(2, 1, 0, 3))
    value = build.conv(padded, 3, 3, 5, padding=(0, 0, 2, 0))
    before = build.graph(build.add(Relu, value), scale=1)
    after = passes.fold_padding(before)
    assert operations(after) == ["conv2d", "relu"]
    assert_same_result(before, after)


def test_shared_weights_that_fold_differently_become_two() -> None:
    build = Builder(6)
    first = build.conv(INPUT, 3, 3)
    weight = build.tensors[f"{first}.weight"]
    second = build.add(
        Conv2d, affine(build, first, 3), weight=f"{first}.weight", padding=(1, 1, 1, 1)
    )
    before = build.graph(affine(build, second, 3), scale=1)
    after = passes.fold_affine(before)
    assert operations(after) == ["conv2d", "conv2d"]
    former, latter = (
        after.tensors[node.weight] for node in after.nodes if isinstance(node, Conv2d)
    )
    assert not np.array_equal(former, latter)
    np.testing.assert_array_equal(build.tensors[f"{first}.weight"], weight)
    assert_same_result(before, after, TOLERANCE)


@pytest.mark.parametrize("seed", range(20), ids=lambda seed: f"seed{seed}")
def test_cleaning_a_random_network_keeps_its_result(seed: int) -> None:
    before = random_network(seed)
    assert_same_result(before, passes.clean(before), TOLERANCE)


def test_cleaning_twice_changes_nothing_more() -> None:
    once = passes.clean(every_operation(0))
    assert_same_graph(passes.clean(once), once)


def test_rounding_gives_the_nearest_half_precision_numbers() -> None:
    before = plain_network(0)
    after = passes.round_tensors(before)
    for name, tensor in before.tensors.items():
        assert after.tensors[name].dtype == np.float16
        np.testing.assert_array_equal(after.tensors[name], tensor.astype(np.float16))


def test_rounding_refuses_what_half_precision_cannot_hold() -> None:
    build = Builder(0)
    output = build.conv(INPUT, 3, 3)
    build.tensors[f"{output}.bias"] = np.array([0, 7e4, 0], np.float32)
    with pytest.raises(ExportError, match=r"bias' holds 70000, fp16 ends at 65504"):
        passes.round_tensors(build.graph(output, scale=1))


def test_a_clamp_is_no_identity() -> None:
    build = Builder(0)
    value = build.add(Clamp, build.conv(INPUT, 3, 3), low=0.0, high=1.0)
    before = build.graph(value, scale=1)
    assert operations(passes.clean(before)) == ["conv2d", "clamp"]
