"""What tiles cost: pixels that are computed for each of a picture's.

usage: python -m benchmarks.tiles

Of the bundled networks, for pictures of more than four megapixels, by the plan alone:
no device is asked. A kind of device decides the kernels, and these what a tile takes of
the memory and where it may begin.
"""

from __future__ import annotations

import argparse

from benchmarks.report import Row, publish
from upfrost.gpu.budget import MOST_MEMORY, Budget, choose_grid
from upfrost.gpu.dispatches import Precision
from upfrost.gpu.families import CPU, MALI, VALHALL, Family
from upfrost.gpu.plan import Program, compile_graph, for_rgb
from upfrost.network.graph import Graph
from upfrost.network.modelfile import find_model, read_model

MODELS = (
    "live-x2-m",
    "realtime-x2",
    "realtime-x4",
    "cascade-x2",
    "cascade-x4",
)
DEVICES: tuple[tuple[str, Family, Precision], ...] = (
    ("Bifrost", MALI, "fp16"),
    ("Valhall", VALHALL, "fp16"),
    ("CPU", CPU, "fp16"),
    ("CPU", CPU, "fp32"),
)
PICTURES = ((2304, 1824), (4000, 3000), (30_000, 3000))
BUFFER = 128 << 20  # what lavapipe binds at most


def program(graph: Graph, family: Family, precision: Precision) -> Program:
    """What upscales a photograph."""
    compiled = compile_graph(graph, family, precision)
    return for_rgb(compiled) if graph.channels == 1 else compiled


def row(kind: str, found: Program, size: tuple[int, int]) -> Row:
    width, height = size
    grid = choose_grid(found, height, width, Budget(MOST_MEMORY, BUFFER))
    return {
        "model": found.graph.name,
        "device": f"{kind}, {found.precision}",
        "picture": f"{width}×{height}",
        "halo": max(found.tiling.halo),
        "tiles": len(grid),
        "of": f"{grid.width}×{grid.height}",
        "overhead": grid.overhead,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.parse_args()
    rows = []
    for name in MODELS:
        graph = read_model(find_model(name))
        for kind, family, precision in DEVICES:
            found = program(graph, family, precision)
            rows += [row(kind, found, size) for size in PICTURES]
    publish(
        "tiles",
        "Tiles: pixels computed for each of a picture's",
        rows,
        [
            f"by the plan alone, in {MOST_MEMORY >> 20} MiB, of which no buffer has "
            f"more than {BUFFER >> 20}",
        ],
    )


if __name__ == "__main__":
    main()
