"""What using a network will cost: memory of its smallest tile, and time on two boards.

Times are computed, not measured: by the model of docs/mali.md, whose figures for each
kernel benchmarks/mali_costs.py keeps in `TABLE`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from upfrost.gpu.budget import MOST_MEMORY
from upfrost.gpu.dispatches import Dispatch, Precision
from upfrost.gpu.families import MALI, VALHALL, VARIANTS, Family
from upfrost.gpu.plan import compile_graph, make_plan
from upfrost.gpu.tiles import smallest_side
from upfrost.network.graph import Graph, alignment

TABLE = Path(__file__).with_name("mali_costs.json")
# Board → the kernels that upfrost takes on it.
BOARDS: Mapping[str, Family] = {"RK3588": VALHALL, "RK3568": MALI}
HEIGHT, WIDTH = 1080, 1920


@dataclass(frozen=True)
class SmallestTile:
    """The side of the smallest tile that is bit for bit the whole, in pixels; bytes."""

    side: int
    bytes: int

    @property
    def fits(self) -> bool:
        """Whether the memory that upfrost takes when nothing is said suffices."""
        return self.bytes <= MOST_MEMORY


@dataclass(frozen=True)
class Estimate:
    """Seconds for a picture of 1920×1080 pixels, and which layers take how much."""

    board: str
    seconds: float
    layers: tuple[tuple[str, float], ...]  # label, share; the longest first
    unknown: tuple[str, ...]  # kernels without figures, which are left out


def precision_of(graph: Graph) -> Precision:
    """What a GPU takes for the network when nothing is said."""
    return "fp32" if graph.metadata.get("precision") == "fp32" else "fp16"


def smallest_tile(graph: Graph, precision: Precision) -> SmallestTile | None:
    """None for a network that looks at the whole picture."""
    program = compile_graph(graph, VALHALL, precision)
    if program.tiling.needs_whole_picture:
        return None
    side = smallest_side(program.tiling)
    return SmallestTile(side, make_plan(program, side, side).bytes)


def whole_picture_bytes(graph: Graph, precision: Precision) -> int:
    """Bytes for a picture of 1920×1080 pixels in one piece."""
    return make_plan(compile_graph(graph, VALHALL, precision), *_size(graph)).bytes


def estimate(graph: Graph, board: str, precision: Precision) -> Estimate:
    """How long a picture of 1920×1080 pixels takes, tiles' edges not counted."""
    table = _table()[board]
    plan = make_plan(compile_graph(graph, BOARDS[board], precision), *_size(graph))
    seconds: dict[str, float] = {}
    unknown = set()
    for dispatch in plan.dispatches:
        # Of a first layer without figures of its own: one slice of values costs about
        # what the picture's bytes do.
        plain = dispatch.shader.replace("_bytes", "")
        found = table.get(dispatch.shader) or table.get(plain)
        if found is None:
            unknown.add(dispatch.shader)
            continue
        fixed, each = found
        groups = math.prod(dispatch.grid)
        took = 1e-9 * groups * (fixed + each * units(dispatch))
        seconds[dispatch.label] = seconds.get(dispatch.label, 0.0) + took
    total = sum(seconds.values())
    longest = sorted(seconds.items(), key=lambda layer: -layer[1])
    layers = tuple((label, part / total) for label, part in longest)
    return Estimate(board, total, layers, tuple(sorted(unknown)))


def units(dispatch: Dispatch) -> int:
    """What a workgroup's time grows with: slices that it reads, by taps where the
    kernel takes any number of them."""
    variant = VARIANTS[dispatch.shader]
    slices = 1 if "BYTES" in variant.defines else dispatch.constants[0]
    match variant.source:
        case "conv":
            return slices * math.prod(dispatch.constants[5:7])
        case "conv3x3" | "conv3x3_half" | "conv1x1":
            return slices
        case "conv3x3_luma2" | "conv3x3_luma3":
            return slices
        case "deconv4x4" | "winograd_products":
            return slices
    return 0


def _size(graph: Graph) -> tuple[int, int]:
    step = alignment(graph)
    return -(-HEIGHT // step) * step, -(-WIDTH // step) * step


@cache
def _table() -> Mapping[str, Mapping[str, tuple[float, float]]]:
    found: Mapping[str, Mapping[str, tuple[float, float]]] = json.loads(
        TABLE.read_text(encoding="utf-8")
    )
    return found
