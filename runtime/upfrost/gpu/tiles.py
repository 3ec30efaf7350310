"""The tile grid: halo, overlap, memory budget, order.

A picture that is too large for the device is cut into tiles of one size, so that
buffers and pipelines are made once. A tile is a window of the picture, its edges the
picture's wherever it touches them: the network pads there as it does for the whole
picture. Results nearer than the halo to any other edge of a tile are not used. So the
result is bit for bit that of the whole picture in one tile.

Kernels that work in blocks of pixels round by a pixel's place in its block, some by all
that the block reads: then tiles begin at whole blocks, and have a wider halo.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from upfrost.arrays import Bytes
from upfrost.network.graph import (
    MAX_SIZE,
    NO_BLOCKS,
    Graph,
    Window,
    alignment,
    halo,
    scales,
)

# Bytes that a device's tiles take when no budget is given: larger ones save next to
# nothing.
MOST_MEMORY = 256 << 20


@dataclass(frozen=True)
class Tile:
    """A window of the picture, and the part of it whose results are used.

    Rows and columns of the picture that is upscaled.
    """

    rows: Window
    columns: Window
    kept_rows: Window
    kept_columns: Window


@dataclass(frozen=True)
class TileGrid:
    """All tiles of a picture, by rows: `windows[axis]` are (window, kept) pairs."""

    height: int  # of a tile
    width: int
    windows: tuple[tuple[tuple[Window, Window], ...], tuple[tuple[Window, Window], ...]]

    def __len__(self) -> int:
        return len(self.windows[0]) * len(self.windows[1])

    def __iter__(self) -> Iterator[Tile]:
        for rows, kept_rows in self.windows[0]:
            for columns, kept_columns in self.windows[1]:
                yield Tile(rows, columns, kept_rows, kept_columns)


@dataclass(frozen=True)
class Tiling:
    """What tiles of a network have to be like, in pixels of the picture."""

    alignment: int  # of the picture's sides
    step: int  # a tile begins at multiples of it
    halo: tuple[int, int]  # rows and columns

    @property
    def needs_whole_picture(self) -> bool:
        """Whether no tile can do, since each result depends on every pixel."""
        return max(self.halo) > MAX_SIZE


def tiling(
    graph: Graph, blocks: Mapping[str, int] = NO_BLOCKS, *, mixed: bool = False
) -> Tiling:
    """The tiling of a network that computes the values named in `blocks` in blocks.

    A pixel's rounding depends on its place in its block; with `mixed` on all that any
    pixel of the block depends on.
    """
    by_axis = [scales(graph, axis) for axis in (0, 1)]
    multiple = alignment(graph)
    step = math.lcm(
        multiple,
        *(
            (scale[name] / side).denominator
            for scale in by_axis
            for name, side in blocks.items()
        ),
    )
    return Tiling(multiple, step, halo(graph, step, blocks if mixed else NO_BLOCKS))


def tile_grid(tiling: Tiling, height: int, width: int, side: int) -> TileGrid:
    """Tiles of at most `side` × `side` pixels for a picture of `height` × `width`.

    Both are multiples of the graph's `alignment` (see `align`). Raises `ValueError`
    where `side` leaves nothing between the halos.
    """
    if side < max(height, width) and tiling.needs_whole_picture:
        raise ValueError(
            f"this network looks at the whole picture: {width}×{height} pixels cannot "
            f"be cut into tiles of {side}"
        )
    rows = _windows(height, side, tiling.halo[0], tiling.step)
    columns = _windows(width, side, tiling.halo[1], tiling.step)
    return TileGrid(_length(rows), _length(columns), (rows, columns))


def align(picture: Bytes, graph: Graph) -> Bytes:
    """`picture` (H, W, C), its last row and column repeated until strides fit."""
    step = alignment(graph)
    rows, columns = (-extent % step for extent in picture.shape[:2])
    if not rows and not columns:
        return picture
    return np.pad(picture, ((0, rows), (0, columns), (0, 0)), mode="edge")


def smallest_side(tiling: Tiling) -> int:
    """The smallest tile that gives results for a pixel far from the edges.

    Of a picture of any size.
    """
    step = tiling.step
    rest = step - tiling.alignment  # at most, of the picture's extent
    return max(2 * _round_up(reach, step) + step + rest for reach in tiling.halo)


def largest_side(
    fits: Callable[[int, int], bool], height: int, width: int, smallest: int
) -> int:
    """The largest side whose tiles, cut to the picture, `fits` (H, W) accepts.

    `smallest` is tried last and returned even where it does not fit.
    """
    low, high = smallest, max(height, width, smallest)
    if fits(min(high, height), min(high, width)):
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if fits(min(middle, height), min(middle, width)):
            low = middle
        else:
            high = middle
    return low


def _windows(
    extent: int, side: int, reach: int, step: int
) -> tuple[tuple[Window, Window], ...]:
    """Windows of one axis and what is kept of each.

    Windows begin at multiples of `step`, where strides, interpolation phases and blocks
    are those of the whole picture, and have one length, which is shortened to what
    their number needs.
    """
    if side >= extent:
        whole = Window(0, extent)
        return ((whole, whole),)
    reach = _round_up(reach, step)
    # By which each window is longer, so that the last one begins at a multiple as well.
    rest = extent % step
    usable = (side - rest) // step * step - 2 * reach
    if usable < step:
        raise ValueError(
            f"a tile of {side} pixels is too small for this network: "
            f"at least {2 * reach + step + rest} are needed"
        )
    inner = extent - rest - 2 * reach
    count = max(2, -(-inner // usable))
    advance = min(usable, _round_up(-(-inner // count), step))
    length = advance + 2 * reach + rest
    starts = [min(i * advance, extent - length) for i in range(count)]
    edges = [0, *(start + reach for start in starts[1:]), extent]
    return tuple(
        (Window(start, start + length), Window(edges[i], edges[i + 1]))
        for i, start in enumerate(starts)
    )


def _length(windows: tuple[tuple[Window, Window], ...]) -> int:
    first = windows[0][0]
    return first.stop - first.start


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
