"""Dispatches as data: a shader, its buffers and constants, and how values lie in them.

The plan collects dispatches, the device records them; nothing here knows of either.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

Precision = Literal["fp16", "fp32"]
# What an epilogue does with a second value: before or after the activation.
Merge = Literal["add_before", "add_after", "multiply_before", "multiply_after"]
Words = npt.NDArray[np.uint32]
HEADER_BYTES = 64  # before the rows of a picture in host memory; holds the token
# Numbers of what shaders/epilogue.glsl can do.
_OTHERS = {"add_before": 1, "add_after": 2, "multiply_before": 3, "multiply_after": 4}
_ACTIVATIONS = {
    "rectify": 1,
    "abs": 2,
    "elu": 3,
    "exp": 4,
    "gelu": 5,
    "gelu_tanh": 6,
    "hardsigmoid": 7,
    "hardswish": 8,
    "mish": 9,
    "reciprocal": 10,
    "rsqrt": 11,
    "sigmoid": 12,
    "silu": 13,
    "softplus": 14,
    "sqrt": 15,
    "tanh": 16,
}
_UNBOUNDED = 3.0e38


@dataclass(frozen=True)
class Layout:
    """Where a value lies in its buffer, in elements of four channels.

    A *slice* is a plane of such elements, as TensorFlow Lite's PHWC4 has them; see
    shaders/upfrost.glsl.
    """

    base: int
    stride: int
    plane: int
    width: int
    height: int
    channels: int

    @property
    def slices(self) -> int:
        return slices(self.channels)

    @property
    def rows(self) -> int:
        return self.plane // self.stride

    @property
    def words(self) -> tuple[int, ...]:
        """The layout as a kernel takes it among its push constants."""
        return (self.base, self.stride, self.plane, self.width, self.height)

    def same_rows(self, other: Layout) -> bool:
        """Whether planes of both are alike, so that one's margin is the other's."""
        return replace(self, channels=other.channels) == other

    def rows_from(self, row: int) -> Layout:
        """The layout of the rows from `row` on."""
        return replace(
            self, base=self.base + row * self.stride, height=self.height - row
        )

    def channels_from(self, first_channel: int) -> Layout:
        """The layout of a value whose first channel is `first_channel` of this one."""
        return replace(self, base=self.base + first_channel // 4 * self.plane)


@dataclass(frozen=True, eq=False)
class Constant:
    """Weights as a kernel reads them; compared by identity."""

    words: Words


@dataclass(frozen=True)
class BufferSlice:
    """The range of a constant from element `first` on.

    An element is four weights, of parameters a vec4.
    """

    constant: Constant
    first: int = 0


@dataclass(frozen=True)
class Dispatch:
    """A kernel's launch. `buffers` are numbers of the plan's buffers, or constants."""

    shader: str
    label: str
    buffers: tuple[int | Constant, ...]
    grid: tuple[int, int, int]  # workgroups
    constants: tuple[int, ...]  # specialization constants as 32-bit words
    push: tuple[int, ...]
    macs: int = 0

    @property
    def pipeline(self) -> Dispatch:
        """The dispatch without what those that share a pipeline may differ in."""
        return replace(self, push=(), label="", macs=0)


@dataclass(frozen=True)
class TensorView:
    """A value's buffer, by the plan's number, and its layout there.

    With `has_zeros` the margin is zeros before anything is written: only values that
    lie alike share the buffer.
    """

    buffer: int
    layout: Layout
    first_row: int = 0  # of the plane, at the layout's base
    has_zeros: bool = False

    @property
    def rows(self) -> int:
        """Rows of the plane from the first one on, margin included."""
        return self.layout.rows - self.first_row

    @property
    def written(self) -> tuple[int, int]:
        """Columns and rows that whoever writes the value must cover."""
        if self.has_zeros:
            return self.layout.width, self.layout.height
        return self.layout.stride, self.rows

    def rows_from(self, row: int) -> TensorView:
        """The view of the rows from `row` on."""
        return replace(
            self, layout=self.layout.rows_from(row), first_row=self.first_row + row
        )


@dataclass(frozen=True)
class Epilogue:
    """What follows a kernel's value: another one, an activation, a clamp.

    `activation` is ``rectify``, whose slopes are with the packed weights, or a function
    of `graph.Unary`.
    """

    other: TensorView | None = None
    merge: Merge = "add_before"
    activation: str | None = None
    low: float = -_UNBOUNDED
    high: float = _UNBOUNDED

    @property
    def constants(self) -> tuple[int, ...]:
        """The epilogue as shaders/epilogue.glsl takes it."""
        return (
            _OTHERS[self.merge] if self.other else 0,
            _ACTIVATIONS[self.activation] if self.activation else 0,
            float_word(self.low),
            float_word(self.high),
        )

    def rows_from(self, row: int) -> Epilogue:
        """The epilogue of the rows from `row` on."""
        return replace(self, other=self.other.rows_from(row)) if self.other else self


def slices(channels: int) -> int:
    """How many slices of four hold `channels`."""
    return -(-channels // 4)


def float_word(value: float) -> int:
    """The 32 bits of a single-precision number."""
    return int(np.float32(value).view(np.uint32))


def row_words(width: int, pixel_bytes: int) -> int:
    """32-bit words of one row of a picture in host memory."""
    return -(-width // 4) * pixel_bytes


def result_bytes(width: int, height: int, pixel_bytes: int) -> int:
    """Bytes of the picture that goes out, header included."""
    return HEADER_BYTES + 4 * row_words(width, pixel_bytes) * height


def given_bytes(layout: Layout, pixel_bytes: int, overread: int) -> int:
    """Bytes of the picture that comes in, which is laid out as a value is.

    `overread` pixels may be read after the end of its plane.
    """
    # A word more, since a pixel's bytes are looked for in two.
    pixels = layout.base + layout.plane + overread
    return HEADER_BYTES + -(-pixel_bytes * pixels // 4) * 4 + 4


def alignment(coverages: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """Multiples to which rows and planes are padded, so that grids fit exactly."""
    coverage = list(coverages) or [(8, 8)]
    return math.lcm(*(x for x, _ in coverage)), math.lcm(*(y for _, y in coverage))


def grid_of(columns: int, rows: int, planes: int) -> tuple[int, int, int]:
    """Workgroups of 8×8 that cover `columns` × `rows` pixels of `planes` slices."""
    return -(-columns // 8), -(-rows // 8), planes
