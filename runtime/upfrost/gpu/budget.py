"""How much of a device a picture may take, and the tiles that this allows."""

from __future__ import annotations

from dataclasses import dataclass

from upfrost.gpu.costs import plan_seconds
from upfrost.gpu.families import DISPATCH_SECONDS
from upfrost.gpu.frame import ChromaFormat
from upfrost.gpu.plan import (
    PICTURE_IN,
    PICTURE_OUT,
    Footprint,
    Program,
    footprint,
    make_plan,
)
from upfrost.gpu.tiles import TileGrid, bands, cheapest_grid, frame_tiling
from upfrost.network.graph import MAX_SIZE

HEAP_SHARE = 4  # the budget is a fourth of the heap, if none is given,
MOST_MEMORY = 384 << 20  # and no more than this, with which tiles cost next to nothing

# What a board's processor copies in a second, of memory that it caches, and what
# handing work to the device takes (docs/mali.md).
COPY_BYTES = 1.2e9
SUBMISSION_SECONDS = 120e-6
MOST_BANDS = 8
WORTHWHILE = 0.95  # of a frame's time, which bands must stay below


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


def choose_bands(
    program: Program, height: int, width: int, chroma: ChromaFormat | None, board: str
) -> TileGrid:
    """The bands of a frame that take it through that board soonest.

    Whoever waits for a frame waits for its copies, too: of bands, those of one lie
    beside the device's work on the next. The whole frame where little is gained.
    """
    tiling = frame_tiling(program.tiling, chroma)
    seconds = {}
    for count in range(1, MOST_BANDS + 1):
        grid = bands(tiling, height, width, count)
        seconds[grid] = band_seconds(program, grid, chroma, board)
    whole = next(iter(seconds))
    best = min(seconds, key=seconds.__getitem__)
    return best if seconds[best] < WORTHWHILE * seconds[whole] else whole


def band_seconds(
    program: Program, grid: TileGrid, chroma: ChromaFormat | None, board: str
) -> float:
    """Seconds of a frame in bands, by the model of docs/mali.md."""
    count = len(grid)
    plan = make_plan(program, grid.height, grid.width, chroma)
    device = count * (plan_seconds(board, plan) + SUBMISSION_SECONDS)
    moved = plan.buffer_bytes[PICTURE_IN] + plan.buffer_bytes[PICTURE_OUT]
    return waited_seconds(device, count * moved / COPY_BYTES, count)


def waited_seconds(device: float, copies: float, count: int) -> float:
    """Seconds from a frame's first copy to its last one, in `count` bands.

    The device's work and the copies take so many seconds in all. The first band's
    samples are copied before the device begins, the last one's result when it has
    ended; what is copied between lies beside its work.
    """
    return copies / count + max(device, copies * (count - 1) / count)
