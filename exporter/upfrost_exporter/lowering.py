"""Operations that the graph does not have, as those that it has.

Each function appends to a builder and returns the name of the result. All are exact:
they only place the same numbers elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from upfrost.graph import Conv2d, Crop, GraphError, PixelShuffle
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
