"""The tile grid: halo, overlap, memory budget, order.

A picture that is too large for the device is cut into tiles of one size, so that
buffers and pipelines are made once. A tile is a window of the picture, its edges the
picture's wherever it touches them: the network pads there as it does for the whole
picture. Results nearer than the halo to any other edge of a tile are not used. So the
result is bit for bit that of the whole picture in one tile.

Of the sizes that fit the device and host memory, the one is chosen for which the fewest
pixels are computed.

Kernels that work in blocks of pixels round by a pixel's place in its block, some by
more than the pixel is computed from: then tiles begin at whole blocks, and have a wider
halo.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from upfrost.arrays import Bytes
from upfrost.errors import UsageError
from upfrost.gpu.frame import ChromaFormat
from upfrost.network.graph import (
    MAX_SIZE,
    NO_BLOCKS,
    Blocks,
    Graph,
    Window,
    alignment,
    halo,
    scales,
)

CHROMA_HALO = 2  # rows and columns of chroma around those that a result lies on
# Of a row of tiles' results, which a streamed picture holds in host memory;
BAND_BYTES = 96 << 20
# and of a picture so wide that it would take more than this times its pixels of work.
WIDE_BAND_BYTES = 512 << 20
MOST_OVERHEAD = 1.15

# Windows of one axis, and what is kept of each.
_Windows = tuple[tuple[Window, Window], ...]


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
    windows: tuple[_Windows, _Windows]

    @property
    def overhead(self) -> float:
        """Pixels that are computed for each pixel of the picture, at least 1."""
        height, width = (windows[-1][0].stop for windows in self.windows)
        return len(self) * self.height * self.width / (height * width)

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


def tiling(graph: Graph, blocks: Mapping[str, Blocks] = NO_BLOCKS) -> Tiling:
    """The tiling of a network that computes the values named in `blocks` in blocks.

    A pixel's rounding depends on its place in its block, and on what `required_window`
    says.
    """
    step = tile_step(graph, {name: each.side for name, each in blocks.items()})
    return Tiling(alignment(graph), step, halo(graph, step, blocks))


def tile_step(graph: Graph, sides: Mapping[str, int]) -> int:
    """Pixels between places at which a tile may begin, by the sides of its blocks."""
    by_axis = [scales(graph, axis) for axis in (0, 1)]
    return math.lcm(
        alignment(graph),
        *(
            (scale[name] / side).denominator
            for scale in by_axis
            for name, side in sides.items()
        ),
    )


def frame_tiling(tiling: Tiling, chroma: ChromaFormat | None) -> Tiling:
    """The tiling of frames whose luma has `tiling`: whole samples of chroma as well."""
    if chroma is None:
        return tiling
    rows, columns = chroma.ratio[::-1]
    return Tiling(
        tiling.alignment,
        math.lcm(tiling.step, rows, columns),
        (
            max(tiling.halo[0], CHROMA_HALO * rows),
            max(tiling.halo[1], CHROMA_HALO * columns),
        ),
    )


def with_halo(tiling: Tiling, pixels: int | None) -> Tiling:
    """A tiling whose halo has so many pixels at most, though tiles then have seams."""
    if pixels is None:
        return tiling
    rows, columns = (min(reach, pixels) for reach in tiling.halo)
    return replace(tiling, halo=(rows, columns))


def tile_grid(tiling: Tiling, height: int, width: int, side: int) -> TileGrid:
    """Tiles of at most `side` × `side` pixels for a picture of `height` × `width`.

    Both are multiples of the graph's `alignment` (see `align`). Raises `ValueError`
    where `side` leaves nothing between the halos.
    """
    if side < max(height, width) and tiling.needs_whole_picture:
        raise UsageError(
            f"this network looks at the whole picture: {width}×{height} pixels cannot "
            f"be cut into tiles of {side}, unless seams are allowed (upfrost upscale "
            "--halo 32)"
        )
    for extent, reach in zip((height, width), tiling.halo, strict=True):
        if side < min(extent, _shortest(extent, reach, tiling.step)):
            # Not what this axis of this picture needs: the next would need more.
            raise UsageError(
                f"a tile of {side} pixels is too small for this network: "
                f"at least {smallest_side(tiling)} are needed"
            )
    return _grid(
        _cut(height, side, tiling.halo[0], tiling.step),
        _cut(width, side, tiling.halo[1], tiling.step),
    )


def bands(tiling: Tiling, height: int, width: int, count: int) -> TileGrid:
    """Tiles as wide as the picture, `count` of them or as many as are high enough."""
    reach = _round_up(tiling.halo[0], tiling.step)
    rest = height % tiling.step
    inner = height - rest - 2 * reach
    advance = _round_up(max(-(-inner // count), 1), tiling.step)
    return _grid(
        _cut(height, advance + 2 * reach + rest, tiling.halo[0], tiling.step),
        _cut(width, width, tiling.halo[1], tiling.step),
    )


def align(picture: Bytes, tiling: Tiling) -> Bytes:
    """`picture` (H, W, C), its last row and column repeated until strides fit."""
    step = tiling.alignment
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


def cheapest_grid(
    tiling: Tiling,
    height: int,
    width: int,
    fits: Callable[[int, int], bool],
    row_bytes: int = 0,
) -> TileGrid:
    """The tiles with the least overhead of those whose size `fits` (H, W) accepts.

    A smaller tile than one that fits must fit as well. `row_bytes` are those of a
    picture row's results in host memory, of which a row of tiles takes `BAND_BYTES` at
    most, or what the smallest does. Where nothing fits, the smallest tiles come back.
    """
    rows, columns = (
        _cuts(extent, reach, tiling.step)
        for extent, reach in zip((height, width), tiling.halo, strict=True)
    )
    best = rows[-1], columns[-1]
    if not fits(best[0].length, best[1].length):
        return _grid(*best)
    for band_bytes in (BAND_BYTES, WIDE_BAND_BYTES):
        low = [cut for cut in rows if cut.length * row_bytes <= band_bytes]
        best = _cheapest(low or rows[-1:], columns, fits)
        if _work(best) <= MOST_OVERHEAD * height * width:
            break
    return _grid(*best)


def _cheapest(
    rows: Sequence[_Cut],
    columns: Sequence[_Cut],
    fits: Callable[[int, int], bool],
) -> tuple[_Cut, _Cut]:
    """The cheapest tiles that fit, of ever shorter cuts; the shortest of all do.

    To ask whether a tile fits takes milliseconds for a small network and a tenth of a
    second for a large one, so few are asked for: the lower tiles are, the wider.
    """
    narrowest = len(columns) - 1
    first = bisect_left(
        rows, True, key=lambda cut: fits(cut.length, columns[narrowest].length)
    )
    best = rows[-1], columns[-1]
    for row in rows[first:]:
        if row.length * row.count * columns[0].extent >= _work(best):
            break  # and so are all that follow
        while narrowest and fits(row.length, columns[narrowest - 1].length):
            narrowest -= 1
        best = min(best, (row, columns[narrowest]), key=_work)
    return best


@dataclass(frozen=True)
class _Cut:
    """How one axis is cut: `count` windows of `length`, `advance` apart."""

    extent: int
    reach: int  # of the halo, in whole steps
    length: int
    advance: int
    count: int

    @property
    def windows(self) -> _Windows:
        starts = [
            min(i * self.advance, self.extent - self.length) for i in range(self.count)
        ]
        edges = [0, *(start + self.reach for start in starts[1:]), self.extent]
        return tuple(
            (Window(start, start + self.length), Window(edges[i], edges[i + 1]))
            for i, start in enumerate(starts)
        )


def _cut(extent: int, side: int, reach: int, step: int) -> _Cut:
    """Windows of at most `side`, which is no less than `_shortest`.

    They begin at multiples of `step`, where strides, interpolation phases and blocks
    are those of the whole picture, and have one length, which is shortened to what
    their number needs.
    """
    reach = _round_up(reach, step)
    if side >= extent:
        return _Cut(extent, reach, extent, extent, 1)
    # By which each window is longer, so that the last one begins at a multiple as well.
    rest = extent % step
    usable = (side - rest) // step * step - 2 * reach
    inner = extent - rest - 2 * reach
    count = max(2, -(-inner // usable))
    advance = min(usable, _round_up(-(-inner // count), step))
    return _Cut(extent, reach, advance + 2 * reach + rest, advance, count)


def _cuts(extent: int, reach: int, step: int) -> list[_Cut]:
    """From one window for all of an axis to the shortest, a seventh shorter each."""
    cuts = [_cut(extent, extent, reach, step)]
    smallest = _shortest(extent, reach, step)
    side = extent
    while side > smallest:
        side = smallest + (side - smallest) * 6 // 7
        cut = _cut(extent, side, reach, step)
        if cut.length < cuts[-1].length:
            cuts.append(cut)
    return cuts


def _shortest(extent: int, reach: int, step: int) -> int:
    """The shortest window of an axis that leaves a step between its halos."""
    return 2 * _round_up(reach, step) + step + extent % step


def _grid(rows: _Cut, columns: _Cut) -> TileGrid:
    return TileGrid(rows.length, columns.length, (rows.windows, columns.windows))


def _work(pair: tuple[_Cut, _Cut]) -> int:
    """Pixels that are computed."""
    rows, columns = pair
    return rows.count * rows.length * columns.count * columns.length


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
