"""Frames of a video through the network, each once, and no more of it than is needed.

A frame that equals the last one is not computed again, and neither are black bars: what
the network makes of black is computed once, with the picture's edges as they are, and
the part with a picture in it with enough black around it. So every result is bit for
bit that of the whole frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from upfrost.arrays import Bytes
from upfrost.gpu.tiles import Tiling

Box = tuple[int, int, int, int]  # top, bottom, left, right in pixels of the frame

# A smaller box means other buffers and pipelines on the device, so it is only taken
# when it would have served for so many frames and saves so much of the area.
PATIENCE = 250
WORTH = 0.1


@dataclass
class Counts:
    """Frames by what was done with them; `pixels` of frames went to the device."""

    frames: int = 0
    computed: int = 0
    duplicate: int = 0
    black: int = 0
    pixels: int = 0


class FrameUpscaler:
    """Upscales the frames of one video, one after the other.

    `upscale` takes (H, W, 3) to (sH, sW, 3), `scale` times the size, and `tiling` is
    what parts of a frame have to be like for it. Results are read-only: a frame that
    comes again gets the same array.
    """

    def __init__(
        self,
        upscale: Callable[[Bytes], Bytes],
        scale: int,
        tiling: Tiling,
        height: int,
        width: int,
    ) -> None:
        self.counts = Counts()
        self._upscale = upscale
        self._scale = scale
        self._size = (height, width)
        self._tiling = tiling
        self._of_black: Bytes | None = None
        self._box: Box | None = None  # the part that is computed
        self._needed: Box | None = None  # what the last frames would have needed
        self._served = 0
        self._last: tuple[Bytes, Bytes] | None = None

    def __call__(self, frame: Bytes) -> Bytes:
        """The result for uint8 (H, W, 3), which must not be changed afterwards."""
        self.counts.frames += 1
        if self._last is not None and np.array_equal(self._last[0], frame):
            self.counts.duplicate += 1
            return self._last[1]
        result = self._result(frame)
        result.flags.writeable = False
        self._last = (frame, result)
        return result

    def _result(self, frame: Bytes) -> Bytes:
        box = picture_box(frame)
        if box is None:
            self.counts.black += 1
            return self._black()
        self.counts.computed += 1
        box = self._choose(box)
        rows, kept_rows = self._window(box[0], box[1], axis=0)
        columns, kept_columns = self._window(box[2], box[3], axis=1)
        crop = frame[rows, columns]
        self.counts.pixels += crop.shape[0] * crop.shape[1]
        if crop.shape == frame.shape:
            return np.ascontiguousarray(self._upscale(frame))
        computed = self._upscale(np.ascontiguousarray(crop))
        result = self._black().copy()
        result[self._scaled(kept_rows), self._scaled(kept_columns)] = computed[
            self._scaled(kept_rows, rows.start),
            self._scaled(kept_columns, columns.start),
        ]
        return result

    def _black(self) -> Bytes:
        if self._of_black is None:
            frame = np.zeros((*self._size, 3), np.uint8)
            self._of_black = np.ascontiguousarray(self._upscale(frame))
        return self._of_black

    def _choose(self, box: Box) -> Box:
        """The box to compute for a frame that needs `box`; changes it rarely."""
        if self._box is None:
            self._box = self._snap(box)
        elif _union(self._box, box) != self._box:
            self._box = self._snap(_union(self._box, box))
            self._needed, self._served = None, 0
        self._needed = box if self._needed is None else _union(self._needed, box)
        self._served += 1
        if self._served >= PATIENCE:
            smaller = self._snap(self._needed)
            if _area(smaller) < (1 - WORTH) * _area(self._box):
                self._box = smaller
            self._needed, self._served = None, 0
        return _union(self._box, box)

    def _snap(self, box: Box) -> Box:
        """`box` enlarged to a coarse grid, so that it need not grow row by row."""
        bounds = []
        for axis, (first, last) in enumerate((box[:2], box[2:])):
            extent = self._size[axis]
            grid = max(1, extent // 16)
            bounds += [first // grid * grid, min(extent, -(-last // grid) * grid)]
        return bounds[0], bounds[1], bounds[2], bounds[3]

    def _window(self, first: int, last: int, axis: int) -> tuple[slice, slice]:
        """What to compute for pixels first … last, and which results to keep.

        Results differ from those of black as far as the halo reaches beyond the
        picture; to compute those, another halo is needed around them.
        """
        extent, reach = self._size[axis], self._tiling.halo[axis]
        step = self._tiling.step
        kept_first = max(0, first - reach) // step * step
        kept_last = min(extent, -(-(last + reach) // step) * step)
        start = max(0, kept_first - reach) // step * step
        stop = min(extent, -(-(kept_last + reach) // step) * step)
        return slice(start, stop), slice(kept_first, kept_last)

    def _scaled(self, part: slice, origin: int = 0) -> slice:
        return slice(
            (part.start - origin) * self._scale, (part.stop - origin) * self._scale
        )


def picture_box(frame: Bytes) -> Box | None:
    """The smallest box around all that is not black; None for a black frame."""
    top = _first(frame)
    if top is None:
        return None
    bottom = frame.shape[0] - (_first(frame[::-1]) or 0)
    middle = frame[top:bottom].transpose(1, 0, 2)
    left = _first(middle) or 0
    right = frame.shape[1] - (_first(middle[::-1]) or 0)
    return top, bottom, left, right


def _first(lines: Bytes) -> int | None:
    """The number of the first line that is not all zero."""
    for number, line in enumerate(lines):
        if line.any():
            return number
    return None


def _union(one: Box, other: Box) -> Box:
    return (
        min(one[0], other[0]),
        max(one[1], other[1]),
        min(one[2], other[2]),
        max(one[3], other[3]),
    )


def _area(box: Box) -> int:
    return (box[1] - box[0]) * (box[3] - box[2])
