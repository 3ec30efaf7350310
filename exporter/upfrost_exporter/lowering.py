"""Operations that the graph does not have, as those that it has.

Each function appends to a builder and returns the name of the result. All are exact:
they only place the same numbers elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from upfrost.network.graph import Conv2d, Crop, GraphError, PixelShuffle
from upfrost_exporter.builder import GraphBuilder, Numbers

_Pair = tuple[int, int]


def transposed_convolution(
    builder: GraphBuilder,
    label: str,
    value: str,
    weight: Numbers,
    bias: Numbers | None,
    *,
    stride: _Pair,
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    output_padding: _Pair = (0, 0),
    dilation: _Pair = (1, 1),
    groups: int = 1,
) -> str:
    """torch.nn.ConvTranspose2d as a convolution and a pixel shuffle.

    Each of the stride² phases of the result is a convolution of its own, with every
    stride-th tap (Shi et al. 2016, arXiv:1609.07009). `weight` is (in channels, out
    channels / groups, rows, columns); `padding` (top, left, bottom, right) is what is
    cut off the result. Raises `GraphError` for strides that differ.
    """
    factor = stride[0]
    rows, columns = (
        _phases(
            weight.shape[2 + axis],
            stride[axis],
            (padding[axis], padding[axis + 2]),
            output_padding[axis],
            dilation[axis],
        )
        for axis in (0, 1)
    )
    if stride[1] != factor:
        raise GraphError(f"the strides {stride} differ")
    inputs, group_outputs = len(weight) // groups, weight.shape[1]
    by_group = weight.reshape(groups, inputs, *weight.shape[1:]).swapaxes(1, 2)
    phases = np.zeros(
        (groups, group_outputs, factor, factor, inputs, rows.size, columns.size)
    )
    for row, (row_phase, row_place) in enumerate(rows.taps):
        for column, (column_phase, column_place) in enumerate(columns.taps):
            phases[:, :, row_phase, column_phase, :, row_place, column_place] = (
                by_group[..., row, column]
            )
    result = builder.add(
        Conv2d,
        label,
        [value],
        weight=builder.tensor(
            f"{label}.weight", phases.reshape(-1, inputs, rows.size, columns.size)
        ),
        bias=None
        if bias is None
        else builder.tensor(f"{label}.bias", bias.repeat(factor**2)),
        padding=(rows.before, columns.before, rows.after, columns.after),
        groups=groups,
    )
    if factor > 1:
        result = builder.add(PixelShuffle, f"{label}.shuffle", [result], factor=factor)
    if rows.surplus or columns.surplus:
        margins = (0, 0, rows.surplus, columns.surplus)
        result = builder.add(Crop, f"{label}.crop", [result], margins=margins)
    return result


def pixel_unshuffle(builder: GraphBuilder, label: str, value: str, factor: int) -> str:
    """torch.nn.PixelUnshuffle as a strided depthwise convolution that picks pixels."""
    channels = builder.shapes[value].channels
    pick = np.eye(factor**2).reshape(factor**2, 1, factor, factor)
    weight = builder.tensor(f"{label}.pick", np.tile(pick, (channels, 1, 1, 1)))
    return builder.add(
        Conv2d, label, [value], weight=weight, stride=(factor, factor), groups=channels
    )


def mix_channels(builder: GraphBuilder, label: str, value: str, matrix: Numbers) -> str:
    """Channels as sums of channels; `matrix` is (out channels, in channels)."""
    weight = builder.tensor(f"{label}.mix", matrix[:, :, None, None])
    return builder.add(Conv2d, label, [value], weight=weight)


def pick_channels(
    builder: GraphBuilder, label: str, value: str, picked: Sequence[int]
) -> str:
    """Channels `picked`, in that order, any number of times each."""
    count = builder.shapes[value].channels
    if list(picked) == list(range(count)):
        return value
    return mix_channels(builder, label, value, np.eye(count)[list(picked)])


def channel_mean(builder: GraphBuilder, label: str, value: str) -> str:
    """Mean over the channels of each pixel: one channel."""
    count = builder.shapes[value].channels
    return mix_channels(builder, label, value, np.full((1, count), 1 / count))


_MAX_PLACES = 1 << 26


def places(builder: GraphBuilder, value: str) -> npt.NDArray[np.int32]:
    """The numbers of a value by their places, as `rearrange` takes them.

    Raises `GraphError` for more than fit into a quarter of a gigabyte.
    """
    shape = builder.shapes[value]
    sides = (shape.channels, shape.height, shape.width)
    if math.prod(sides) > _MAX_PLACES:
        raise GraphError(f"it moves {math.prod(sides)} numbers, which are too many")
    return np.arange(math.prod(sides), dtype=np.int32).reshape(sides)


def rearrange(
    builder: GraphBuilder, label: str, value: str, moved: npt.NDArray[np.int32]
) -> str:
    """A value whose numbers change places, as reshaping and transposing make them.

    `moved` is (channels, height, width): for each number of the result, its place in
    `value`, counted through channels, rows and columns. Pixel shuffle, its inverse and
    channels in another order are found. Raises `GraphError` for anything else.
    """
    before = places(builder, value)
    up, down = _times(moved.shape, before.shape), _times(before.shape, moved.shape)
    if not (up or down):
        raise GraphError(f"it makes {moved.shape} numbers of {before.shape}")
    # One of the two is 1, or both.
    up, down = max(up, 1), max(down, 1)
    blocks, wanted = _unshuffled(before, down), _unshuffled(moved, up)
    # A channel is known by its first number.
    picked = np.searchsorted(blocks[:, 0, 0], wanted[:, 0, 0])
    if not np.array_equal(blocks[picked.clip(max=len(blocks) - 1)], wanted):
        raise GraphError("it mixes rows, columns and channels")
    if down > 1:
        value = pixel_unshuffle(builder, label, value, down)
    value = pick_channels(builder, label, value, picked.tolist())
    if up > 1:
        value = builder.add(PixelShuffle, label, [value], factor=up)
    return value


def _times(size: Sequence[int], other: Sequence[int]) -> int:
    """How many times larger `size` is than `other` in rows and columns; 0 if uneven."""
    factor, rest = divmod(size[1], other[1])
    return factor if not rest and size[2] == factor * other[2] else 0


def _unshuffled(numbers: npt.NDArray[Any], factor: int) -> npt.NDArray[Any]:
    """torch.nn.PixelUnshuffle of (channels, height, width)."""
    channels, height, width = numbers.shape
    rows, columns = height // factor, width // factor
    blocks = numbers.reshape(channels, rows, factor, columns, factor)
    return blocks.transpose(0, 2, 4, 1, 3).reshape(-1, rows, columns)


def zero_pad(
    builder: GraphBuilder, label: str, value: str, amounts: tuple[int, int, int, int]
) -> str:
    """Zeros at top, left, bottom and right; `passes.fold_padding` may merge them."""
    channels = builder.shapes[value].channels
    weight = builder.tensor(f"{label}.ones", np.ones((channels, 1, 1, 1)))
    return builder.add(
        Conv2d, label, [value], weight=weight, padding=amounts, groups=channels
    )


def average_pool(
    builder: GraphBuilder,
    label: str,
    value: str,
    kernel: _Pair,
    stride: _Pair,
    padding: tuple[int, int, int, int],
) -> str:
    """Means of windows; zeros beyond the edges count."""
    channels = builder.shapes[value].channels
    area = kernel[0] * kernel[1]
    weight = builder.tensor(f"{label}.mean", np.full((channels, 1, *kernel), 1 / area))
    return builder.add(
        Conv2d,
        label,
        [value],
        weight=weight,
        stride=stride,
        padding=padding,
        groups=channels,
    )


@dataclass(frozen=True)
class _Phases:
    """One axis of a transposed convolution as a convolution per phase.

    For each tap, the phase it belongs to and its place in that phase's kernel; zeros
    before and after the value; and what the result has too much, at its end.
    """

    taps: tuple[_Pair, ...]
    size: int
    before: int
    after: int
    surplus: int


def _phases(
    kernel: int, stride: int, padding: _Pair, output_padding: int, dilation: int
) -> _Phases:
    reach = (kernel - 1) * dilation + 1
    # Rows of the result, beyond stride · rows of the input.
    beyond = reach + output_padding - sum(padding) - stride
    surplus = -beyond % stride
    # Tap k of row i of the input lands on row i·stride - padding + k·dilation: row q
    # of phase r reads row q + offset.
    found = []
    for tap in range(kernel):
        phase = (tap * dilation - padding[0]) % stride
        found.append((phase, (phase + padding[0] - tap * dilation) // stride))
    first = min(0, *(offset for _, offset in found))
    size = max(offset for _, offset in found) - first + 1
    after = (beyond + surplus) // stride + size - 1 + first
    if after < 0:
        # A wider kernel reads the rows that must not count, and weighs them 0.
        size, after = size - after, 0
    return _Phases(
        taps=tuple((phase, offset - first) for phase, offset in found),
        size=size,
        before=-first,
        after=after,
        surplus=surplus,
    )
