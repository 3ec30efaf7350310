"""Run an exported graph against its source, and refuse it when they differ."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from upfrost.network import reference
from upfrost.network.graph import (
    Clamp,
    Conv2d,
    Graph,
    GraphError,
    Node,
    alignment,
    infer_shapes,
)
from upfrost.network.reference import Array
from upfrost_exporter.builder import ExportError
from upfrost_exporter.lowering import STEEPNESS

TOLERANCE = 1e-4
# Called with the largest difference that was found, as a share of the value range.
Report = Callable[[float], None]
Source = Callable[[Array], Array]
# Larger than what networks mirror at the edges.
SIZES = ((40, 56), (51, 43))
# Of a picture as networks get them: multiples of 64, and far from the sizes above.
LARGE = 1088, 1920
FP16_MOST = float(np.finfo(np.float16).max)
# Winograd's method adds four values before it multiplies.
_WINOGRAD_SUM = 4
# Pictures of other contents may lead to values so much larger than the check's.
_HEADROOM = 2
# Of a check at a size that the source asks for: numbers of all values together, and
# multiplications, so that half a gigabyte and some seconds suffice.
_MOST_NUMBERS = 1 << 27
_MOST_MACS = 1 << 35
# Of sums of products in single precision, as a share of the largest of their numbers;
# a ramp rises over 10⁻⁶.
_ROUNDING = 4e-6
_MOST_BESIDE_JUMPS = 0.01


class SizeDependenceError(ExportError):
    """The network does otherwise with a large picture: no other way of following it
    mends that."""


def verify(
    graph: Graph,
    source: Source,
    *,
    report: Report | None = None,
    sizes: Sequence[tuple[int, int]] | None = None,
    seed: int = 0,
) -> Graph:
    """Refuse a graph that differs from its source; raises `ExportError`.

    `source` maps (channels, height, width) float32 to the network's output. Both get
    seeded random pictures of the given heights and widths, by default of two sizes
    that the graph takes, one of them odd multiples of its alignment. A difference is a
    share of the value range, and at most `TOLERANCE`; `report` gets the largest.
    Results beyond the value range (as of untrained networks) raise the scale of the
    comparison to the largest. Where a number stands so near a jump (of ``where``, a
    comparison or a threshold) that rounding alone says which side it is on, the result
    may be that of either side, in at most a hundredth of its numbers.

    Returns the graph, marked as `mark_precision` does.
    """
    random = np.random.default_rng(seed)
    worst = 0.0
    for number, (height, width) in enumerate(sizes or _sizes(alignment(graph))):
        picture = random.random((graph.channels, height, width), np.float32)
        # Values are largest where all is bright.
        picture[:, : height // 2, : width // 2] = 1
        picture[:, height // 2 :, width // 2 :] = 0
        picture *= np.float32(graph.value_range)
        expected = source(picture)
        with np.errstate(all="ignore"):
            values = _evaluated(graph, picture)
        found = values[graph.output]
        if expected.shape != found.shape:
            raise ExportError(
                f"for a picture of {width}×{height} the source gives an array of shape "
                f"{expected.shape}, the exported graph {found.shape}"
            )
        with np.errstate(all="ignore"):
            scale = max(graph.value_range, float(np.abs(expected).max()))
            off = np.abs(found - expected) / scale
            difference = float(off.max())
        jumps = _jumps(graph)
        if jumps and difference > TOLERANCE:
            spread = _spread_beside_jumps(graph, jumps, picture, values) / scale
            beside = spread > TOLERANCE
            difference = float(np.maximum(off - spread, 0).max())
            if beside.mean() > _MOST_BESIDE_JUMPS:
                raise ExportError(
                    f"the network jumps at {jumps[0]!r} (a comparison, where or "
                    f"threshold), and {beside.mean():.1%} of its result depends on "
                    "which side of that rounding puts a number: it cannot be compared"
                )
        # Written so that NaN is refused too.
        if not difference <= TOLERANCE:
            question = ": does the network depend on the picture's size?"
            raise ExportError(
                f"the exported graph differs from its source by {difference:.2e} of "
                f"the value range (allowed: {TOLERANCE}) on a random {width}×{height} "
                f"picture, seed {seed}{question if number else ''}"
            )
        worst = max(worst, difference)
        graph = mark_precision(graph, values)
    if report is not None:
        report(worst)
    return graph


def verify_large(
    graph: Graph, source: Source, again: Callable[[int, int], Graph]
) -> None:
    """Refuse a network that does otherwise with large pictures than with small ones.

    `graph` is that of a small picture; `again` makes that of one of a height and width.
    A network may choose by the picture's size, or pool over so many pixels and no more:
    then the two differ, though `verify` found nothing at small sizes. Nothing is
    computed, so that large networks can be looked at, too; where there is no such
    graph, `source` is compared at half that size, or less where that is much work.
    Raises `SizeDependenceError`.
    """
    try:
        other = again(*LARGE)
    except ExportError:
        try:
            verify(graph, source, sizes=[_largest_size(graph)])
        except ExportError as error:
            raise SizeDependenceError(
                f"{error}: does the network depend on the picture's size?"
            ) from None
        return
    if graph.nodes == other.nodes and all(
        np.array_equal(tensor, other.tensors[name])
        for name, tensor in graph.tensors.items()
    ):
        return
    pairs = zip(graph.nodes, other.nodes, strict=False)
    found = next((small.name for small, large in pairs if small != large), graph.output)
    height, width = LARGE
    raise SizeDependenceError(
        f"with a picture of {width}×{height} the network does otherwise at {found!r} "
        "than with a small one: it chooses by the picture's size; give a network that "
        "does the same for all"
    )


def _largest_size(graph: Graph) -> tuple[int, int]:
    """Half of `LARGE`, or half of that as often as a check takes too much."""
    step = alignment(graph)
    rows, columns = (extent // 2 // step for extent in LARGE)
    while min(rows, columns) > 1 and not fits_full_size(
        graph, rows * step, columns * step
    ):
        rows, columns = rows // 2, columns // 2
    return rows * step, columns * step


def _evaluated(graph: Graph, picture: Array) -> dict[str, Array]:
    try:
        return reference.evaluate(graph, picture)
    except GraphError as error:
        height, width = picture.shape[1:]
        raise ExportError(
            f"the exported graph takes no picture of {width}×{height}: {error}"
        ) from None


def mark_precision(graph: Graph, values: Mapping[str, Array]) -> Graph:
    """The graph, its metadata asking for fp32 where fp16 cannot hold its values.

    `values` are all values for a picture, as `reference.evaluate` gives them. Half
    precision ends at 65504, a fourth of that for what Winograd's method may read; a
    value of the check must stay below half of its bound. Under ``precision_reason``
    stands which value is the first that does not.
    """
    if "precision" in graph.metadata:
        return graph
    reason = _overflow(graph, values)
    if reason is None:
        return graph
    asked = {"precision": "fp32", "precision_reason": reason}
    return dataclasses.replace(graph, metadata={**graph.metadata, **asked})


def fits_full_size(graph: Graph, height: int, width: int) -> bool:
    """Whether a check at that size stays within its memory and time."""
    shapes = infer_shapes(graph, height, width)
    numbers = sum(math.prod(dataclasses.astuple(shape)) for shape in shapes.values())
    macs = sum(node.macs(shapes[node.name], graph.tensors) for node in graph.nodes)
    return numbers <= _MOST_NUMBERS and macs <= _MOST_MACS


def _sizes(step: int) -> list[tuple[int, int]]:
    """Sizes of pictures whose sides are multiples of `step`.

    Odd ones among them: a network may round up to more than it halves.
    """
    sizes = []
    for number, size in enumerate(SIZES):
        rows, columns = (math.ceil(extent / step) | number for extent in size)
        # Of large steps, too, a mix-up of both shows, and what depends on the size.
        if rows == columns:
            rows, columns = (rows + 2, columns) if number else (rows, columns + 1)
        sizes.append((rows * step, columns * step))
    return sizes


def _jumps(graph: Graph) -> list[str]:
    """The values at which `lowering.is_above` begins its ramps."""
    nodes = {node.name: node for node in graph.nodes}

    def is_step(node: Node | None) -> bool:
        return (
            isinstance(node, Conv2d)
            and node.bias is None
            and graph.tensors[node.weight].shape == (node.groups, 1, 1, 1)
            and bool((graph.tensors[node.weight] == STEEPNESS).all())
        )

    found = []
    for node in graph.nodes:
        start = nodes.get(node.inputs[0])
        if not (is_step(node) and isinstance(start, Clamp)):
            continue
        if not is_step(nodes.get(start.inputs[0])):
            found.append(start.name)
    return found


def _spread_beside_jumps(
    graph: Graph, jumps: Sequence[str], picture: Array, values: Mapping[str, Array]
) -> Array:
    """How much each number of the result changes where all that is compared is larger,
    and smaller, by what rounding may do to it."""
    results = [values[graph.output]]
    for sign in (1, -1):
        nodes: list[Node] = []
        tensors = dict(graph.tensors)
        for node in graph.nodes:
            if node.name in jumps:
                (given,) = node.inputs
                shape = values[given].shape
                most = max(1.0, float(np.abs(values[given]).max()))
                one, shift = f"{node.name}.one", f"{node.name}.shift"
                tensors[one] = np.ones((shape[0], 1, 1, 1), np.float32)
                tensors[shift] = np.full(shape[0], sign * most * _ROUNDING, np.float32)
                nodes.append(
                    Conv2d(
                        name=f"{node.name}.shifted",
                        inputs=(given,),
                        weight=one,
                        bias=shift,
                        groups=shape[0],
                    )
                )
                node = dataclasses.replace(node, inputs=(nodes[-1].name,))
            nodes.append(node)
        shifted = dataclasses.replace(graph, nodes=tuple(nodes), tensors=tensors)
        with np.errstate(all="ignore"):
            results.append(reference.run(shifted, picture))
    spread: Array = np.max(results, axis=0) - np.min(results, axis=0)
    return spread


def _overflow(graph: Graph, values: Mapping[str, Array]) -> str | None:
    transformed = {
        node.inputs[0]
        for node in graph.nodes
        if isinstance(node, Conv2d)
        and graph.tensors[node.weight].shape[2:] == (3, 3)
        and (node.stride, node.groups) == ((1, 1), 1)
    }
    for name, tensor in graph.tensors.items():
        largest = float(np.abs(tensor).max())
        if largest > FP16_MOST:
            return f"tensor {name!r} holds {largest:.6g}, fp16 ends at 65504"
    for name, value in values.items():
        most = FP16_MOST / (_WINOGRAD_SUM if name in transformed else 1)
        largest = float(np.abs(value).max())
        if largest * _HEADROOM > most:
            return f"{name!r} reaches {largest:.6g}, fp16 holds {most:.6g} there"
    return None
