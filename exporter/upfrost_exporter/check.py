"""Run an exported graph against its source, and refuse it when they differ."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from upfrost.network import reference
from upfrost.network.graph import Conv2d, Graph, alignment, infer_shapes
from upfrost.network.reference import Array
from upfrost_exporter.builder import ExportError

TOLERANCE = 1e-4
# Called with the largest difference that was found, as a share of the value range.
Report = Callable[[float], None]
Source = Callable[[Array], Array]
# Larger than what networks mirror at the edges.
SIZES = ((40, 56), (51, 43))
FP16_MOST = float(np.finfo(np.float16).max)
# Winograd's method adds four values before it multiplies.
_WINOGRAD_SUM = 4
# Pictures of other contents may lead to values so much larger than the check's.
_HEADROOM = 2
# Of a check at a size that the source asks for: numbers of all values together, and
# multiplications, so that half a gigabyte and some seconds suffice.
_MOST_NUMBERS = 1 << 27
_MOST_MACS = 1 << 35


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
    comparison to the largest.

    Returns the graph, marked as `mark_precision` does.
    """
    random = np.random.default_rng(seed)
    worst = 0.0
    for height, width in sizes or _sizes(alignment(graph)):
        picture = random.random((graph.channels, height, width), np.float32)
        # Values are largest where all is bright.
        picture[:, : height // 2, : width // 2] = 1
        picture[:, height // 2 :, width // 2 :] = 0
        picture *= np.float32(graph.value_range)
        expected = source(picture)
        with np.errstate(all="ignore"):
            values = reference.evaluate(graph, picture)
        found = values[graph.output]
        if expected.shape != found.shape:
            raise ExportError(
                f"for a picture of {width}×{height} the source gives an array of shape "
                f"{expected.shape}, the exported graph {found.shape}"
            )
        with np.errstate(all="ignore"):
            scale = max(graph.value_range, float(np.abs(expected).max()))
            difference = float(np.abs(found - expected).max()) / scale
        # Written so that NaN is refused too.
        if not difference <= TOLERANCE:
            raise ExportError(
                f"the exported graph differs from its source by {difference:.2e} of "
                f"the value range (allowed: {TOLERANCE}) on a random {width}×{height} "
                f"picture, seed {seed}: does the network depend on the picture's size?"
            )
        worst = max(worst, difference)
        graph = mark_precision(graph, values)
    if report is not None:
        report(worst)
    return graph


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
        sizes.append((rows * step, columns * step))
    return sizes


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
