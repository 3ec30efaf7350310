"""Run an exported graph against its source, and refuse it when they differ."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from upfrost.network import reference
from upfrost.network.graph import Graph, alignment
from upfrost.network.reference import Array
from upfrost_exporter.builder import ExportError

TOLERANCE = 1e-4
# Called with the largest difference that was found, as a share of the value range.
Report = Callable[[float], None]
# Larger than what networks mirror at the edges.
SIZES = ((40, 56), (51, 43))


def verify(
    graph: Graph,
    source: Callable[[Array], Array],
    *,
    report: Report | None = None,
    sizes: Sequence[tuple[int, int]] = SIZES,
    seed: int = 0,
) -> None:
    """Refuse a graph that differs from its source; raises `ExportError`.

    `source` maps (channels, height, width) float32 to the network's output. Both get
    seeded random pictures of the given heights and widths, rounded up to what the
    graph takes. A difference is a share of the value range, and at most `TOLERANCE`;
    `report` gets the largest. Results beyond the value range
    (as of untrained networks) raise the scale of the comparison to the largest.
    """
    step = alignment(graph)
    random = np.random.default_rng(seed)
    worst = 0.0
    for size in sizes:
        height, width = (math.ceil(extent / step) * step for extent in size)
        picture = graph.value_range * random.random(
            (graph.channels, height, width), np.float32
        )
        expected, found = source(picture), reference.run(graph, picture)
        if expected.shape != found.shape:
            raise ExportError(
                f"for a picture of {width}×{height} the source gives an array of shape "
                f"{expected.shape}, the exported graph {found.shape}"
            )
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
    if report is not None:
        report(worst)
