"""What tiles cost: pixels that are computed for each of a picture's.

usage: python -m benchmarks.tiles

Of the bundled networks, for pictures of more than four megapixels, by the plan alone:
no device is asked. A kind of device decides the kernels, and these the halo: a
convolution by Winograd's F(4×4, 3×3) rounds by all that its block reads, and a layer
adds up to a whole block to the halo in place of one pixel.
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
PICTURES = ((2304, 1824), (4000, 3000))
# What lavapipe binds at most, and as much as anyone asks for.
BUFFERS = (128 << 20, 1 << 40)
BUDGETS = (MOST_MEMORY, 1 << 30, 2 << 30)


def program(graph: Graph, family: Family, precision: Precision) -> Program:
    """What upscales a photograph."""
    compiled = compile_graph(graph, family, precision)
    return for_rgb(compiled) if graph.channels == 1 else compiled


def row(
    kind: str, found: Program, size: tuple[int, int], memory: int, buffer: int
) -> Row:
    width, height = size
    grid = choose_grid(found, height, width, Budget(memory, buffer))
    return {
        "model": found.graph.name,
        "device": f"{kind}, {found.precision}",
        "picture": f"{width}×{height}",
        "memory, MiB": memory >> 20,
        "buffers to, MiB": buffer >> 20 if buffer < BUFFERS[1] else None,
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
            rows += [
                row(kind, found, size, MOST_MEMORY, BUFFERS[0]) for size in PICTURES
            ]
            if rows[-1]["overhead"] > 1.15:  # type: ignore[operator]
                rows += [
                    row(kind, found, PICTURES[0], memory, BUFFERS[1])
                    for memory in BUDGETS
                ]
    publish(
        "tiles",
        "Tiles: pixels computed for each of a picture's",
        rows,
        [
            "By the plan alone. Where it is more than 1.15, also with more memory than "
            "the default, and buffers of any size.",
        ],
    )


if __name__ == "__main__":
    main()
