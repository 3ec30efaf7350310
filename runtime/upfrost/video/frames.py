"""Frames of a video through the network, each once, and no more of it than is needed.

A frame that equals the last one is not computed again, and neither are black bars: what
the network makes of black is computed once, with the picture's edges as they are, and
the part with a picture in it with enough black around it. So every result is bit for
bit that of the whole frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

import numpy as np

from upfrost.arrays import Bytes
from upfrost.gpu.frame import Frame, Samples
from upfrost.gpu.tiles import Tiling

Picture = Bytes | Frame  # RGB (H, W, 3), or planes
T = TypeVar("T", bound=Picture)
Box = tuple[int, int, int, int]  # top, bottom, left, right in pixels of the frame

# A smaller box means other buffers and pipelines on the device, so it is only taken
# when it would have served for so many frames and saves so much of the area.
PATIENCE = 250
WORTH = 0.1
_FEW_ROWS = 16  # from one to the next of those that are compared first


@dataclass
class Counts:
    """Frames by what was done with them; `pixels` of frames went to the device."""

    frames: int = 0
    computed: int = 0
    duplicate: int = 0
    black: int = 0
    pixels: int = 0


class FrameUpscaler(Generic[T]):
    """Upscales the frames of one video, one after the other.

    `upscale` takes RGB (H, W, 3) to (sH, sW, 3), `scale` times the size, or a frame
    of planes to one of them, and `tiling` is what parts of a frame have to be like for
    it. Results are read-only: a frame that comes again gets the same one.
    """

    def __init__(
        self,
        upscale: Callable[[T], T],
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
        self._of_black: T | None = None
        self._box: Box | None = None  # the part that is computed
        self._needed: Box | None = None  # what the last frames would have needed
        self._served = 0
        self._last: tuple[T, T] | None = None

    def __call__(self, frame: T) -> T:
        """The result for a frame, which must not be changed afterwards."""
        self.counts.frames += 1
        if self._last is not None and _equal(self._last[0], frame):
            self.counts.duplicate += 1
            return self._last[1]
        result = self._result(frame)
        for plane in _planes(result):
            plane.flags.writeable = False
        self._last = (frame, result)
        return result

    def _result(self, frame: T) -> T:
        box = picture_box(frame)
        if box is None:
            self.counts.black += 1
            return self._black(frame)
        self.counts.computed += 1
        box = self._choose(box)
        rows, kept_rows = self._window(box[0], box[1], axis=0)
        columns, kept_columns = self._window(box[2], box[3], axis=1)
        size = rows.stop - rows.start, columns.stop - columns.start
        self.counts.pixels += size[0] * size[1]
        if size == self._size:
            return _map(np.ascontiguousarray, self._upscale(frame))
        crops = [
            np.ascontiguousarray(plane[_part(rows, y), _part(columns, x)])
            for plane, (y, x) in zip(_planes(frame), _ratios(frame), strict=True)
        ]
        computed = self._upscale(_like(frame, crops))
        result = _map(np.copy, self._black(frame))
        for target, source, (y, x) in zip(
            _planes(result), _planes(computed), _ratios(frame), strict=True
        ):
            target[
                _part(self._scaled(kept_rows), y), _part(self._scaled(kept_columns), x)
            ] = source[
                _part(self._scaled(kept_rows, rows.start), y),
                _part(self._scaled(kept_columns, columns.start), x),
            ]
        return result

    def _black(self, frame: T) -> T:
        """What the network makes of a black frame like `frame`."""
        if self._of_black is None:
            planes = [
                np.full_like(plane, value)
                for plane, value in zip(_planes(frame), _blacks(frame), strict=True)
            ]
            upscaled = self._upscale(_like(frame, planes))
            self._of_black = _map(np.ascontiguousarray, upscaled)
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


def picture_box(frame: Picture) -> Box | None:
    """The smallest box around all that is not black; None for a black frame.

    Around a frame's planes it is in pixels of luma.
    """
    box = None
    height, width = _planes(frame)[0].shape[:2]
    for plane, black, (y, x) in zip(
        _planes(frame), _blacks(frame), _ratios(frame), strict=True
    ):
        found = _plane_box(plane, black)
        if found is not None:
            top, bottom, left, right = found
            mine = top * y, min(bottom * y, height), left * x, min(right * x, width)
            box = mine if box is None else _union(box, mine)
    return box


def _plane_box(plane: Samples, black: int) -> Box | None:
    top = _first(plane, black)
    if top is None:
        return None
    bottom = plane.shape[0] - (_first(plane[::-1], black) or 0)
    middle = plane[top:bottom].swapaxes(0, 1)
    left = _first(middle, black) or 0
    right = plane.shape[1] - (_first(middle[::-1], black) or 0)
    return top, bottom, left, right


def _first(lines: Samples, black: int) -> int | None:
    """The number of the first line that is not all black."""
    for number, line in enumerate(lines):
        if line.any() if black == 0 else (line != black).any():
            return number
    return None


def _equal(one: Picture, other: Picture) -> bool:
    """Whether two pictures of a kind are the same.

    Most differ nearly everywhere: a few rows tell, and the rest is not read.
    """
    planes = list(zip(_planes(one), _planes(other), strict=True))
    return all(
        np.array_equal(mine[::step], its[::step])
        for step in (_FEW_ROWS, 1)
        for mine, its in planes
    )


def _planes(picture: Picture) -> tuple[Samples, ...]:
    return picture.planes if isinstance(picture, Frame) else (picture,)


def _ratios(picture: Picture) -> tuple[tuple[int, int], ...]:
    """Rows and columns of a picture for each of its planes'."""
    return picture.format.ratios if isinstance(picture, Frame) else ((1, 1),)


def _blacks(picture: Picture) -> tuple[int, ...]:
    """What black is in each plane."""
    if not isinstance(picture, Frame):
        return (0,)
    kind = picture.format
    step = 1 << kind.bits - 8 + kind.shift
    luma = 16 * step if kind.range == "limited" else 0
    return (luma, *(128 * step for _ in kind.ratios[1:]))


def _like(picture: T, planes: Sequence[Samples]) -> T:
    """A picture of the same kind, of other planes."""
    if isinstance(picture, Frame):
        return cast("T", Frame(picture.format, tuple(planes)))
    (plane,) = planes
    return cast("T", plane)


def _map(change: Callable[[Samples], Samples], picture: T) -> T:
    return _like(picture, [change(plane) for plane in _planes(picture)])


def _part(window: slice, ratio: int) -> slice:
    """A window of luma in a plane with a sample for each `ratio` of it."""
    return slice(window.start // ratio, -(-window.stop // ratio))


def _union(one: Box, other: Box) -> Box:
    return (
        min(one[0], other[0]),
        max(one[1], other[1]),
        min(one[2], other[2]),
        max(one[3], other[3]),
    )


def _area(box: Box) -> int:
    return (box[1] - box[0]) * (box[3] - box[2])
