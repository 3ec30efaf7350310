"""How much of a device a picture may take, and the tiles that this allows."""

from __future__ import annotations

from dataclasses import dataclass

from upfrost.gpu.families import DISPATCH_SECONDS
from upfrost.gpu.frame import ChromaFormat
from upfrost.gpu.plan import Footprint, Program, footprint
from upfrost.gpu.tiles import TileGrid, cheapest_grid, frame_tiling
from upfrost.network.graph import MAX_SIZE

HEAP_SHARE = 4  # the budget is a fourth of the heap, if none is given,
MOST_MEMORY = 256 << 20  # and no more than this, with which tiles cost next to nothing


@dataclass(frozen=True)
class Budget:
    """Bytes of a device that tiles may take in all, and in one buffer."""

    memory: int
    buffer: int

    def allows(self, needed: Footprint) -> bool:
        """Whether a tile keeps to it, and no driver ends its work as hung."""
        return (
            needed.bytes <= self.memory
            and max(needed.buffer_bytes) <= self.buffer
            and needed.longest_dispatch <= DISPATCH_SECONDS
        )


def choose_grid(
    program: Program,
    height: int,
    width: int,
    budget: Budget,
    chroma: ChromaFormat | None = None,
) -> TileGrid:
    """The tiles with the least overhead for a picture of `height` × `width`.

    They are a frame's with `chroma`. The smallest ones where none keep to the budget.
    """

    def fits(tile_height: int, tile_width: int) -> bool:
        if max(tile_height, tile_width) > MAX_SIZE:
            return False
        return budget.allows(footprint(program, tile_height, tile_width, chroma))

    graph = program.graph
    # A frame's result is in memory as a whole, whatever its tiles.
    channels = 3 if program.of_rgb else graph.channels
    row_bytes = 0 if chroma else width * graph.scale**2 * channels
    tiling = frame_tiling(program.tiling, chroma)
    return cheapest_grid(tiling, height, width, fits, row_bytes)
