"""How much is seen of tiles whose halo is smaller than the network's."""

from __future__ import annotations

import numpy as np

from upfrost.arrays import Bytes
from upfrost.gpu.tiles import Tile


class Seams:
    """The largest difference between what two tiles make of the pixels at their seam.

    Both compute the picture's last pixel before the seam and the first one after it;
    with the whole halo they agree. Tiles come by rows, as `TileGrid` gives them.
    """

    def __init__(self, scale: int) -> None:
        self._scale = scale
        self._right: Bytes | None = None
        self._below: dict[int, Bytes] = {}  # by a tile's first column
        self.largest: int | None = None  # of 255; None without a seam

    def add(self, tile: Tile, output: Bytes) -> None:
        """Compare a tile's result, (sH, sW, C), with that of those before it."""
        scale = self._scale
        top, left = tile.rows.start, tile.columns.start
        rows = slice(
            (tile.kept_rows.start - top) * scale, (tile.kept_rows.stop - top) * scale
        )
        columns = slice(
            (tile.kept_columns.start - left) * scale,
            (tile.kept_columns.stop - left) * scale,
        )
        if tile.kept_columns.start:
            self._compare(self._right, output[rows, self._beside(columns.start)])
        self._right = output[rows, self._beside(columns.stop)].copy()
        if tile.kept_rows.start:
            above = self._below.get(left)
            self._compare(above, output[self._beside(rows.start), columns])
        self._below[left] = output[self._beside(rows.stop), columns].copy()

    def _beside(self, place: int) -> slice:
        """A pixel's results on either side of a seam."""
        return slice(max(place - self._scale, 0), place + self._scale)

    def _compare(self, one: Bytes | None, other: Bytes) -> None:
        if one is not None:
            apart = int(np.abs(one.astype(np.int16) - other).max())
            self.largest = max(self.largest or 0, apart)
