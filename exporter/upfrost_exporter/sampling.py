"""Grids of grid_sample, as DySample makes them (Liu et al. 2023, arXiv:2308.15085).

A grid is the pixels' own places, which are numbers once the picture's size is known,
and what the network adds to them. Front ends carry such sums as `Placed` from where the
two meet to where the grid is used. The graph has what the network adds alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from upfrost.network.graph import GraphError, GridSample, PixelShuffle
from upfrost_exporter import lowering
from upfrost_exporter.builder import GraphBuilder
from upfrost_exporter.lowering import Moved

_Numbers = npt.NDArray[np.float64]
Arithmetic = Literal["add", "subtract", "multiply", "divide"]

# Of numbers with a scale and a shift each.
_MOST_NUMBERS = 1 << 24
# Of a pixel; grids are computed in single precision.
_TOLERANCE = 1e-2

ANYWHERE = (
    "its grid is not that of the pixels themselves, moved by what the network "
    "computes; or it was recorded for pictures of another size, as by PyTorch's "
    "exporter without dynamo=True"
)
OF_PLACES = "it works on the places of pixels, from which upfrost makes grids alone"
ADVICE = "use grid_sample as DySample does"


@dataclass(frozen=True)
class Placed:
    """scale · x + shift, in any shape, where both may differ from pixel to pixel.

    `places` says of which number of the value `name` each is made, as in `Moved`.
    """

    name: str
    places: npt.NDArray[np.int32]
    scale: _Numbers
    shift: _Numbers

    def moved(self, function: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> Placed:
        """With numbers at other places, as reshaping and transposing leave them."""
        return Placed(
            self.name,
            function(self.places),
            function(self.scale),
            function(self.shift),
        )


def combine(
    kind: Arithmetic,
    first: Placed | npt.NDArray[Any],
    second: Placed | npt.NDArray[Any],
) -> Placed:
    """A sum, difference, product or quotient with numbers that are known.

    Raises `GraphError` for any other, and for shapes that do not fit.
    """
    if isinstance(first, Placed) and isinstance(second, np.ndarray):
        given, numbers = first, second.astype(np.float64)
        if kind == "divide":
            with np.errstate(divide="ignore"):
                kind, numbers = "multiply", 1 / numbers
        elif kind == "subtract":
            kind, numbers = "add", -numbers
    elif isinstance(second, Placed) and isinstance(first, np.ndarray):
        given, numbers = second, first.astype(np.float64)
        if kind == "subtract":
            kind, given = "add", combine("multiply", second, np.array(-1.0))
    else:
        raise GraphError(OF_PLACES)
    if kind not in ("add", "multiply"):
        raise GraphError(OF_PLACES)
    try:
        shape = np.broadcast_shapes(given.places.shape, numbers.shape)
    except ValueError as error:
        raise GraphError(str(error)) from None
    if math.prod(shape) > _MOST_NUMBERS:
        raise GraphError(
            f"it is made of {math.prod(shape)} numbers, which are too many"
        )
    wide = given.moved(lambda array: np.broadcast_to(array, shape))
    if kind == "add":
        return Placed(wide.name, wide.places, wide.scale, wide.shift + numbers)
    return Placed(wide.name, wide.places, wide.scale * numbers, wide.shift * numbers)


def placed(given: Moved) -> Placed:
    """A value in any shape, to which places will be added."""
    if given.places.size > _MOST_NUMBERS:
        raise GraphError(
            f"it is made of {given.places.size} numbers, which are too many"
        )
    ones = np.ones(given.places.shape)
    return Placed(given.name, given.places, ones, np.zeros_like(ones))


def differs_by_pixel(numbers: npt.NDArray[Any]) -> bool:
    """Whether a constant has several rows or columns, as places of pixels have."""
    return numbers.ndim >= 2 and numbers.size > 1 and numbers.shape[-2:] != (1, 1)


def shuffled(array: npt.NDArray[Any], factor: int) -> npt.NDArray[Any]:
    """torch.nn.PixelShuffle of (1, channels, height, width)."""
    _, channels, height, width = array.shape
    blocks = array.reshape(-1, factor, factor, height, width)
    return blocks.transpose(0, 3, 1, 4, 2).reshape(
        1, channels // factor**2, height * factor, width * factor
    )


def grid_sample(
    builder: GraphBuilder,
    label: str,
    value: Moved,
    grid: Placed,
    *,
    align_corners: bool,
) -> Moved:
    """torch.nn.functional.grid_sample, bilinear, with edges replicated.

    `value` is (groups, channels, height, width), `grid` (groups, rows, columns, 2), x
    before y. Raises `GraphError` for a grid of other places than the pixels' own, moved
    by a value of the graph.
    """
    if value.places.ndim != 4 or grid.places.ndim != 4:
        raise GraphError("its inputs have not four dimensions")
    groups, channels, height, width = value.places.shape
    rows, columns = grid.places.shape[1:3]
    factor, rest = divmod(rows, height)
    if grid.places.shape != (groups, rows, columns, 2) or rest:
        raise GraphError(f"its grid has the shape {grid.places.shape}")
    if columns != factor * width or not factor:
        raise GraphError(f"its grid is {columns}×{rows} for {width}×{height} pixels")
    # From -1 … 1 to pixels.
    extents = np.array([width, height], np.float64)
    half = (extents - 1) / 2 if align_corners else extents / 2
    first = half if align_corners else half - 0.5
    scale, shift = grid.scale * half, grid.shift * half + first
    centres = [(np.arange(count) + 0.5) / factor - 0.5 for count in (columns, rows)]
    shift = shift - np.stack(np.meshgrid(*centres), axis=-1)

    whole = Placed(grid.name, grid.places, scale, shift).moved(
        lambda array: array.transpose(3, 0, 1, 2).reshape(-1, rows, columns)
    )
    side = 1
    if not _is_by_channel(whole):
        # DySample adds and shuffles where each pixel inside the first input's begins.
        side = factor
        whole = whole.moved(lambda array: lowering.unshuffled(array, factor))
    if not _is_by_channel(whole):
        raise GraphError(ANYWHERE)
    moves = lowering.rearrange(builder, label, whole.name, whole.places)
    by_channel = _medians(whole.scale), _medians(whole.shift)
    moves = builder.affine(label, moves, *by_channel)
    if side > 1:
        moves = builder.add(PixelShuffle, label, [moves], factor=side)
    flat = value.places.reshape(groups * channels, height, width)
    source = lowering.rearrange(builder, label, value.name, flat)
    name = builder.add(GridSample, label, [source, moves], factor=factor, groups=groups)
    result = lowering.places(builder, name)
    return Moved(name, result.reshape(groups, channels, rows, columns))


def _is_by_channel(given: Placed) -> bool:
    """Whether scale and shift of each channel are the same at every pixel."""
    return all(
        bool(np.abs(each - _medians(each)[:, None, None]).max() <= _TOLERANCE)
        for each in (given.scale, given.shift)
    )


def _medians(planes: _Numbers) -> _Numbers:
    result: _Numbers = np.median(planes, axis=(1, 2))
    return result
