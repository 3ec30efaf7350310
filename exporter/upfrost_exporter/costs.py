"""What using a network will cost: memory of its smallest tile, and time on two boards.

Times are computed, not measured: by the model of docs/mali.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from upfrost.gpu.budget import MOST_MEMORY
from upfrost.gpu.costs import BOARDS, dispatch_seconds
from upfrost.gpu.dispatches import Precision
from upfrost.gpu.families import VALHALL
from upfrost.gpu.plan import compile_graph, make_plan
from upfrost.gpu.tiles import smallest_side
from upfrost.network.graph import Graph, alignment

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
    program = compile_graph(graph, BOARDS[board].family, precision)
    seconds: dict[str, float] = {}
    unknown = set()
    for dispatch in make_plan(program, *_size(graph)).dispatches:
        took = dispatch_seconds(board, dispatch)
        if took is None:
            unknown.add(dispatch.shader)
        else:
            seconds[dispatch.label] = seconds.get(dispatch.label, 0.0) + took
    total = sum(seconds.values())
    longest = sorted(seconds.items(), key=lambda layer: -layer[1])
    layers = tuple((label, part / total) for label, part in longest)
    return Estimate(board, total, layers, tuple(sorted(unknown)))


def _size(graph: Graph) -> tuple[int, int]:
    step = alignment(graph)
    return -(-HEIGHT // step) * step, -(-WIDTH // step) * step
