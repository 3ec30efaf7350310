"""The check between an exported graph and its source refuses what differs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.graphs import every_operation, plain_network
from upfrost.network import reference
from upfrost.network.graph import (
    INPUT,
    Add,
    Conv2d,
    GlobalMean,
    Graph,
    MaxPool2d,
    Multiply,
    Node,
    Resize,
)
from upfrost.network.reference import Array
from upfrost_exporter import lowering
from upfrost_exporter.builder import ExportError, GraphBuilder
from upfrost_exporter.check import TOLERANCE, verify


@pytest.mark.parametrize("make", [plain_network, every_operation])
def test_a_graph_equals_itself(make: object) -> None:
    assert callable(make)
    graph = make(0)
    found: list[float] = []
    verify(graph, lambda picture: reference.run(graph, picture), report=found.append)
    assert found == [0]


def test_a_difference_above_the_tolerance_is_refused() -> None:
    graph = plain_network(0)

    def wrong(picture: Array) -> Array:
        result = reference.run(graph, picture)
        result[0, 0, 0] += 5 * TOLERANCE
        return result

    with pytest.raises(ExportError, match=r"differs from its source by .*seed 0"):
        verify(graph, wrong)


def test_another_shape_is_refused() -> None:
    graph = plain_network(0)
    with pytest.raises(ExportError, match=r"source gives an array of shape \(1, 2\)"):
        verify(graph, lambda _: np.zeros((1, 2), np.float32))


def test_a_graph_that_does_not_take_the_size_is_refused() -> None:
    build = GraphBuilder(3)
    weight = build.tensor("w", np.ones((3, 3, 41, 41)))
    large = build.add(Conv2d, "large", [INPUT], weight=weight)
    mean = build.add(GlobalMean, "mean", [large])
    everywhere = lowering.spread(build, "spread", mean, INPUT)
    output = build.add(Multiply, "product", [INPUT, everywhere])
    graph = build.graph(output, name="n", scale=1, value_range=1.0, metadata={})
    with pytest.raises(ExportError, match="takes no picture of 56×40: node 'large'"):
        verify(graph, lambda picture: picture)


def test_sizes_are_odd_multiples_too() -> None:
    """A network that rounds up to 4 and halves once is right at each multiple of 4."""
    build = GraphBuilder(3)
    halved = build.add(MaxPool2d, "pool", [INPUT], kernel=(2, 2), stride=(2, 2))
    output = build.add(Resize, "up", [halved], mode="nearest", ratio=(2, 1))
    graph = build.graph(output, name="n", scale=1, value_range=1.0, metadata={})
    seen: list[tuple[int, ...]] = []

    def source(picture: Array) -> Array:
        seen.append(picture.shape[1:])
        result = reference.run(graph, picture)
        return result + np.float32(any(side % 4 for side in picture.shape[1:]))

    with pytest.raises(ExportError, match="does the network depend on the picture's"):
        verify(graph, source)
    assert not any(side % 4 for side in seen[0])
    assert all(side % 4 == 2 for side in seen[1])


def affine_then(factor: float, *kinds: tuple[type[Node], dict[str, object]]) -> Graph:
    """The picture times `factor`, and operations on that one after the other."""
    build = GraphBuilder(3)
    value = build.affine("scaled", INPUT, np.full(3, factor), np.zeros(3))
    for kind, attributes in kinds:
        inputs = [value] * kind.min_inputs
        value = build.add(kind, kind.op, inputs, **attributes)
    return build.graph(value, name="n", scale=1, value_range=1.0, metadata={})


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (affine_then(180), None),
        (affine_then(180, (Multiply, {})), None),
        (
            affine_then(300, (Multiply, {})),
            "'multiply' reaches 90000, fp16 holds 65504 there",
        ),
        (affine_then(4e4), "'scaled' reaches 40000, fp16 holds 65504 there"),
        (affine_then(7e4), "tensor 'scaled.scale' holds 70000, fp16 ends at 65504"),
    ],
    ids=["small", "squared", "squared-large", "near", "weight"],
)
def test_values_that_half_precision_cannot_hold_are_marked(
    graph: Graph, reason: str | None
) -> None:
    marked = verify(graph, lambda picture: reference.run(graph, picture))
    assert marked.metadata.get("precision_reason") == reason
    assert marked.metadata.get("precision") == (reason and "fp32")


def test_what_winograd_s_method_reads_must_be_smaller_by_four() -> None:
    build = GraphBuilder(3)
    value = build.affine("scaled", INPUT, np.full(3, 9e3), np.zeros(3))
    weight = build.tensor("w", np.full((3, 3, 3, 3), 1e-4))
    value = build.add(Conv2d, "conv", [value], weight=weight, padding=(1, 1, 1, 1))
    graph = build.graph(value, name="n", scale=1, value_range=1.0, metadata={})
    marked = verify(graph, lambda picture: reference.run(graph, picture))
    assert marked.metadata["precision_reason"] == (
        "'scaled' reaches 9000, fp16 holds 16376 there"
    )


def test_results_that_are_not_numbers_are_refused() -> None:
    graph = plain_network(0)

    def broken(picture: Array) -> Array:
        return reference.run(graph, picture) * np.float32(np.nan)

    with pytest.raises(ExportError, match="differs from its source by nan"):
        verify(graph, broken)


def jumping(at: float) -> Graph:
    """A thousandth of the picture, and 1 where that is above `at`."""
    build = GraphBuilder(3)
    small = build.affine("small", INPUT, np.full(3, 1e-3), np.zeros(3))
    more = lowering.scaled(build, "more", small, 1, -at)
    above = lowering.is_above(build, "above", more)
    output = build.add(Add, "sum", [small, above])
    return build.graph(output, name="n", scale=1, value_range=1.0, metadata={})


def test_a_number_beside_a_jump_may_be_on_either_side() -> None:
    graph = jumping(5e-4)
    found: list[float] = []

    def source(shift: float, error: float = 0.0) -> Callable[[Array], Array]:
        def run(picture: Array) -> Array:
            small = picture * np.float32(1e-3)
            result = small + (small + np.float32(shift) > 5e-4).astype(np.float32)
            result[0, 0, 0] += np.float32(error)
            return result

        return run

    # As if sums had been added up in another order.
    picture = np.random.default_rng(0).random((3, 40, 56), np.float32)
    moved = source(1e-6)(picture) != source(0.0)(picture)
    assert 0 < moved.mean() < 0.01, "seed 0"
    verify(graph, source(1e-6), report=found.append)
    assert found[0] <= TOLERANCE
    with pytest.raises(ExportError, match="differs from its source by"):
        verify(graph, source(1e-6, error=5 * TOLERANCE))
    with pytest.raises(ExportError, match=r"differs from its source by 9\.99"):
        verify(graph, source(2e-5))


def test_a_result_that_hangs_on_rounding_is_refused_with_the_reason() -> None:
    """What the picture's brightest is compared with itself."""
    graph = jumping(1e-3)  # a quarter of the picture is 1
    with pytest.raises(ExportError, match=r"the network jumps at 'above.*25\.\d% of"):
        verify(graph, lambda picture: reference.run(graph, picture) + (picture == 1))


def test_a_network_that_halves_six_times_is_checked_at_two_sizes() -> None:
    """Of which neither is a square, where a mix-up of both sides would not show."""
    build = GraphBuilder(3, 64, 128)
    small = build.add(MaxPool2d, "pool", [INPUT], kernel=(64, 64), stride=(64, 64))
    output = build.add(Resize, "up", [small], mode="nearest", ratio=(64, 1))
    graph = build.graph(output, name="n", scale=1, value_range=1.0, metadata={})
    seen: set[tuple[int, ...]] = set()

    def source(picture: Array) -> Array:
        seen.add(picture.shape[1:])
        return reference.run(graph, picture)

    verify(graph, source)
    assert len(seen) == 2
    assert all(height != width for height, width in seen)
