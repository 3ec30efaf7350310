"""Operations that the graph does not have, as those that it has.

Each function appends to a builder and returns the name of the result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from upfrost.network.graph import (
    INPUT,
    MAX_EXTENT,
    Add,
    Clamp,
    Conv2d,
    Crop,
    GlobalMax,
    GlobalMean,
    GraphError,
    LayerNorm,
    Multiply,
    Pad,
    PixelShuffle,
    Relu,
    ResizeTo,
    Shape,
    Unary,
)
from upfrost_exporter.builder import ExportError, GraphBuilder, Numbers

_Pair = tuple[int, int]
STEEPNESS = 1024.0  # of one of the two steps of a jump


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

    Each phase of the result is a convolution of its own, with every stride-th tap (Shi
    et al. 2016, arXiv:1609.07009). `weight` is (in channels, out channels / groups,
    rows, columns); `padding` (top, left, bottom, right) is what is cut off the result.
    Of strides that differ the pixel shuffle is by their least common multiple, and the
    pixels that are too many are left out behind it.
    """
    factor = math.lcm(*stride)
    if not 1 <= factor <= MAX_EXTENT:
        raise GraphError(f"its strides are {stride}")
    apart = factor // stride[0], factor // stride[1]
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
    inputs, group_outputs = len(weight) // groups, weight.shape[1]
    by_group = weight.reshape(groups, inputs, *weight.shape[1:]).swapaxes(1, 2)
    phases = np.zeros(
        (groups, group_outputs, factor, factor, inputs, rows.size, columns.size)
    )
    for row, (row_phase, row_place) in enumerate(rows.taps):
        for column, (column_phase, column_place) in enumerate(columns.taps):
            phase = row_phase * apart[0], column_phase * apart[1]
            phases[:, :, *phase, :, row_place, column_place] = by_group[
                ..., row, column
            ]
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
    if apart != (1, 1):
        result = pick_pixels(builder, label, result, apart)
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


def pick_pixels(builder: GraphBuilder, label: str, value: str, steps: _Pair) -> str:
    """Every `steps`-th row and column, from the first on."""
    channels = builder.shapes[value].channels
    weight = builder.tensor(f"{label}.ones", np.ones((channels, 1, 1, 1)))
    return builder.add(
        Conv2d, label, [value], weight=weight, stride=steps, groups=channels
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


def channel_sum(builder: GraphBuilder, label: str, value: str) -> str:
    """Sum over the channels of each pixel: one channel."""
    count = builder.shapes[value].channels
    return mix_channels(builder, label, value, np.ones((1, count)))


def channel_max(builder: GraphBuilder, label: str, value: str) -> str:
    """The largest channel of each pixel: one channel, by halves."""
    while (count := builder.shapes[value].channels) > 1:
        half = -(-count // 2)
        first = pick_channels(builder, label, value, range(half))
        second = pick_channels(builder, label, value, range(count - half, count))
        value = maximum(builder, label, first, second)
    return value


def global_mean(builder: GraphBuilder, label: str, value: str) -> str:
    """Each channel's mean over the whole picture."""
    return builder.add(GlobalMean, label, [value])


def global_max(builder: GraphBuilder, label: str, value: str) -> str:
    """Each channel's largest number in the whole picture."""
    return builder.add(GlobalMax, label, [value])


def maximum(builder: GraphBuilder, label: str, first: str, second: str) -> str:
    """The larger of two values, number by number: a + max(b - a, 0)."""
    more = builder.add(Relu, label, [_difference(builder, label, second, first)])
    return builder.add(Add, label, [first, more])


def minimum(builder: GraphBuilder, label: str, first: str, second: str) -> str:
    """The smaller of two values, number by number: a - max(a - b, 0)."""
    less = builder.add(Relu, label, [_difference(builder, label, first, second)])
    return _difference(builder, label, first, less)


def at_least(builder: GraphBuilder, label: str, value: str, bounds: Numbers) -> str:
    """The larger of a value and of a number, or one for each channel."""
    if (bounds == bounds.flat[0]).all():
        most = float(np.finfo(np.float32).max)
        low = float(np.clip(bounds.flat[0], -most, most))
        return builder.add(Clamp, label, [value], low=low, high=most)
    channels = builder.shapes[value].channels
    ones = np.ones(channels)
    more = builder.affine(label, value, ones, -bounds)
    return builder.affine(label, builder.add(Relu, label, [more]), ones, bounds)


def at_most(builder: GraphBuilder, label: str, value: str, bounds: Numbers) -> str:
    """The smaller of a value and of a number, or one for each channel."""
    less = at_least(builder, label, scaled(builder, label, value, -1), -bounds)
    return scaled(builder, label, less, -1)


def _has_kernel(slope: float, shift: float) -> bool:
    """Whether a hard sigmoid is the one that upfrost computes by itself."""
    return abs(slope - 1 / 6) <= 1e-6 and shift == 0.5


def hard_sigmoid(
    builder: GraphBuilder, label: str, value: str, slope: float, shift: float
) -> str:
    """slope · x + shift between 0 and 1."""
    if _has_kernel(slope, shift):
        return builder.add(Unary, label, [value], function="hardsigmoid")
    line = scaled(builder, label, value, slope, shift)
    return builder.add(Clamp, label, [line], low=0.0, high=1.0)


def hard_swish(
    builder: GraphBuilder, label: str, value: str, slope: float, shift: float
) -> str:
    """x times its hard sigmoid."""
    if _has_kernel(slope, shift):
        return builder.add(Unary, label, [value], function="hardswish")
    gate = hard_sigmoid(builder, label, value, slope, shift)
    return builder.add(Multiply, label, [value, gate])


def _difference(builder: GraphBuilder, label: str, first: str, second: str) -> str:
    return builder.add(Add, label, [first, scaled(builder, label, second, -1)])


def log(builder: GraphBuilder, label: str, value: str) -> str:
    """Of a sigmoid alone, as LogSigmoid is written: -softplus(-x).

    Raises `GraphError` for any other value.
    """
    made = next((node for node in builder.nodes if node.name == value), None)
    if not isinstance(made, Unary) or made.function != "sigmoid":
        raise GraphError("it is the logarithm of what is no sigmoid")
    return softplus(builder, label, made.inputs[0], -1.0)


def softmax(builder: GraphBuilder, label: str, value: str) -> str:
    """exp(x) by its sum over the channels, of each pixel."""
    spread = [0] * builder.shapes[value].channels
    largest = pick_channels(builder, label, channel_max(builder, label, value), spread)
    less = _difference(builder, label, value, largest)
    powers = builder.add(Unary, label, [less], function="exp")
    total = channel_sum(builder, label, powers)
    inverse = builder.add(Unary, label, [total], function="reciprocal")
    factors = pick_channels(builder, label, inverse, spread)
    return builder.add(Multiply, label, [powers, factors])


def is_above(builder: GraphBuilder, label: str, value: str) -> str:
    """1 where x > 0, 0 elsewhere: a ramp as steep as single precision makes it.

    It rises over 2⁻²⁰, in two steps, so that half precision does not overflow.
    `check` knows it by these.
    """
    for factor in (STEEPNESS, STEEPNESS, 1.0):
        value = builder.add(Clamp, label, [value], low=0.0, high=1.0)
        value = scaled(builder, label, value, factor)
    return value


def sign(builder: GraphBuilder, label: str, value: str) -> str:
    """-1, 0 or 1."""
    above = is_above(builder, label, value)
    below = is_above(builder, label, scaled(builder, label, value, -1))
    return _difference(builder, label, above, below)


def choose(
    builder: GraphBuilder, label: str, condition: str, first: str, second: str
) -> str:
    """`first` where `condition` is 1, `second` where it is 0."""
    more = _difference(builder, label, first, second)
    chosen = builder.add(Multiply, label, [condition, more])
    return builder.add(Add, label, [second, chosen])


def resize_by_axes(
    builder: GraphBuilder, label: str, value: str, mode: str, factors: Sequence[Any]
) -> str:
    """Interpolation by whole factors that differ between height and width.

    A transposed convolution with a triangle for each pixel, or, for nearest, a
    rectangle. Raises `GraphError` for other factors and modes.
    """
    if mode not in ("nearest", "bilinear") or any(
        not 1 <= factor <= MAX_EXTENT or factor != int(factor) for factor in factors
    ):
        shown = " and ".join(str(Fraction(factor)) for factor in factors)
        raise GraphError(f"height and width are resized by {shown}, {mode}")
    channels = builder.shapes[value].channels
    stride = int(factors[0]), int(factors[1])
    kernels, cuts = [], []
    for factor in stride:
        if mode == "nearest" or factor == 1:
            kernels.append(np.ones(factor))
            cuts.append((0, 0))
            continue
        # Rows from that of pixel 0 on, and how near their centres are to its centre.
        places = np.arange(-factor, 2 * factor)
        near = 1 - np.abs((places + 0.5) / factor - 0.5)
        kernels.append(near[near > 0])
        before = factor // 2
        cuts.append((factor + before, len(kernels[-1]) - before))
    if any(map(any, cuts)):
        edge = [int(any(cut)) for cut in cuts]
        value = builder.add(
            Pad, label, [value], mode="replicate", padding=(*edge, *edge)
        )
    kernel = np.outer(*kernels)
    return transposed_convolution(
        builder,
        label,
        value,
        np.broadcast_to(kernel, (channels, 1, *kernel.shape)),
        None,
        stride=stride,
        padding=(cuts[0][0], cuts[1][0], cuts[0][1], cuts[1][1]),
        groups=channels,
    )


def same_padding(
    kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What TensorFlow's padding "same" adds to rows and columns that the strides
    divide: the smaller halves and the larger ones."""
    total = [
        max(0, (taps - 1) * step + 1 - apart)
        for taps, step, apart in zip(kernel, dilation, stride, strict=True)
    ]
    less = tuple(extent // 2 for extent in total)
    return less, tuple(map(int.__sub__, total, less))


def scaled(
    builder: GraphBuilder, label: str, value: str, scale: float, shift: float = 0.0
) -> str:
    """scale · x + shift."""
    if (scale, shift) == (1, 0):
        return value
    channels = builder.shapes[value].channels
    factors, offsets = np.full(channels, scale), np.full(channels, shift)
    return builder.affine(label, value, factors, offsets)


def elu(
    builder: GraphBuilder,
    label: str,
    value: str,
    alpha: float,
    *,
    scale: float = 1.0,
    input_scale: float = 1.0,
) -> str:
    """scale · x where x > 0, scale · α · (exp(input_scale · x) - 1) elsewhere.

    ELU (arXiv:1511.07289), SELU (arXiv:1706.02515) and CELU (arXiv:1704.07483).
    """
    if math.isclose(alpha * input_scale, 1):
        # As CELU's and ELU's with α = 1, that of a scaled value, scaled back.
        inner = scaled(builder, label, value, input_scale)
        bent = builder.add(Unary, label, [inner], function="elu")
        return scaled(builder, label, bent, scale / input_scale)
    above = builder.add(Relu, label, [value])
    most = float(np.finfo(np.float32).max)
    below = builder.add(Clamp, label, [value], low=-most, high=0.0)
    inner = scaled(builder, label, below, input_scale)
    bent = builder.add(Unary, label, [inner], function="elu")
    parts = [
        scaled(builder, label, above, scale),
        scaled(builder, label, bent, scale * alpha),
    ]
    return builder.add(Add, label, parts)


def softplus(builder: GraphBuilder, label: str, value: str, beta: float) -> str:
    """log(1 + exp(β · x)) / β."""
    inner = scaled(builder, label, value, beta)
    result = builder.add(Unary, label, [inner], function="softplus")
    return scaled(builder, label, result, 1 / beta)


def layer_norm(
    builder: GraphBuilder,
    label: str,
    value: str,
    weight: Numbers | None,
    bias: Numbers | None,
    epsilon: float,
    *,
    kind: str = "layer",
) -> str:
    """Each pixel's channels, normalised; `weight` and `bias` are of channels."""
    channels = builder.shapes[value].channels
    ones, zeros = np.ones(channels), np.zeros(channels)
    return builder.add(
        LayerNorm,
        label,
        [value],
        kind=kind,
        epsilon=epsilon,
        weight=builder.tensor(f"{label}.weight", ones if weight is None else weight),
        bias=builder.tensor(f"{label}.bias", zeros if bias is None else bias),
    )


def group_norm(
    builder: GraphBuilder,
    label: str,
    value: str,
    groups: int,
    weight: Numbers | None,
    bias: Numbers | None,
    epsilon: float,
) -> str:
    """Normalised by mean and variance of groups of channels over the whole picture.

    Wu and He 2018, arXiv:1803.08494; with a group for each channel, instance
    normalisation (arXiv:1607.08022).
    """
    channels = builder.shapes[value].channels
    size, rest = divmod(channels, groups)
    if rest:
        raise GraphError(f"{channels} channels do not divide into {groups} groups")
    mean_of_group = np.kron(np.eye(groups), np.full((size, size), 1 / size))

    def group_mean(of: str) -> str:
        whole = builder.add(GlobalMean, label, [of])
        if size == 1:
            return whole
        return mix_channels(builder, label, whole, mean_of_group)

    centred = _difference(builder, label, value, group_mean(value))
    variance = group_mean(builder.add(Multiply, label, [centred, centred]))
    shifted = scaled(builder, label, variance, 1, epsilon)
    inverse = builder.add(Unary, label, [shifted], function="rsqrt")
    normed = builder.add(Multiply, label, [centred, inverse])
    scale = np.ones(channels) if weight is None else weight
    shift = np.zeros(channels) if bias is None else bias
    return builder.affine(label, normed, scale, shift)


def convolved_channels(
    builder: GraphBuilder, label: str, value: str, kernel: Numbers, padding: int
) -> str:
    """A 1-D convolution along the channels of what is one number for each.

    As efficient channel attention does it (Wang et al. 2020, arXiv:1910.03151).
    Raises `GraphError` where that gives another number of channels.
    """
    channels = builder.shapes[value].channels
    if len(kernel) != 2 * padding + 1:
        raise GraphError(
            f"a kernel of {len(kernel)} with padding {padding} does not keep "
            f"{channels} channels"
        )
    places = np.arange(channels)
    taps = places - places[:, None] + padding  # of each output, by input
    inside = (taps >= 0) & (taps < len(kernel))
    matrix = np.where(inside, kernel[taps.clip(0, len(kernel) - 1)], 0.0)
    return mix_channels(builder, label, value, matrix)


def resize_to(
    builder: GraphBuilder, label: str, value: str, mode: str, size: _Pair
) -> str:
    """A value interpolated to `size`, (height, width), of a value that is there.

    Raises `GraphError` where there is none.
    """
    for other, shape in builder.shapes.items():
        if (shape.height, shape.width) == size:
            return builder.add(ResizeTo, label, [value, other], mode=mode)
    raise GraphError(f"it resizes to {size[1]}×{size[0]}, the size of no other value")


def spread(builder: GraphBuilder, label: str, value: str, like: str) -> str:
    """What is the same at every pixel, as a value of another's size."""
    shape, other = builder.shapes[value], builder.shapes[like]
    if (shape.height, shape.width) == (other.height, other.width):
        return value
    return builder.add(ResizeTo, label, [value, like], mode="nearest")


def scale_and_margin(picture: Shape, result: Shape) -> tuple[Fraction, int]:
    """The scale, and how many pixels on each side a network needs beyond the picture.

    The result of a network that pads nothing has scale · (side - 2 · margin) pixels,
    for two sides that differ. Of a square, nothing tells a margin from another scale.
    Raises `ExportError` where height and width are scaled by whole factors that differ.
    """
    (rows, above), (columns, beside) = (
        divmod(result.height, picture.height),
        divmod(result.width, picture.width),
    )
    if rows != columns and not (above or beside):
        raise ExportError(
            f"the network's result is {rows} times as high and {columns} times as wide "
            "as the picture: upfrost takes networks that scale both alike"
        )
    if picture.width == picture.height:
        return Fraction(result.height, picture.height), 0
    scale = Fraction(result.width - result.height, picture.width - picture.height)
    margin = (picture.height - result.height / scale) / 2 if scale > 0 else Fraction(0)
    if scale.denominator != 1 or margin.denominator != 1 or margin <= 0:
        return Fraction(result.height, picture.height), 0
    return scale, int(margin)


def padded_input(builder: GraphBuilder, margin: int) -> str:
    """The picture with its edges repeated by `margin`."""
    if not margin:
        return INPUT
    return builder.add(Pad, "pad", [INPUT], mode="replicate", padding=(margin,) * 4)


MAX_PLACES = 1 << 26


@dataclass(frozen=True)
class Moved:
    """A value as its source sees it between reshaping and transposing, in any shape.

    `places` has that shape, and says for each number its place in the value `name`,
    counted through channels, rows and columns.
    """

    name: str
    places: npt.NDArray[np.int32]


@dataclass(frozen=True)
class Pooled:
    """A value that is one number for each channel, and the shape its source gives it.

    The graph has that number at every pixel.
    """

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Partial:
    """A sum or mean over rows or columns, of which the graph has that over both alone.

    Contrast-aware channel attention (IMDN, arXiv:1909.11856) takes them one after the
    other, and divides by the number of pixels.
    """

    name: str
    axes: frozenset[int]  # 2 for rows, 3 for columns
    is_mean: bool


def reduced(
    builder: GraphBuilder,
    label: str,
    given: str | Partial,
    axes: Sequence[int],
    *,
    is_mean: bool,
) -> str | Partial:
    """A sum or mean over axes 2 and 3, as a value where that can be.

    Raises `GraphError` for a sum of means, and the like.
    """
    before = given if isinstance(given, Partial) else None
    name = given.name if isinstance(given, Partial) else given
    found = frozenset(axes) | (before.axes if before else frozenset())
    if before is not None and (before.is_mean != is_mean or before.axes & set(axes)):
        raise GraphError("it mixes sums and means of rows and columns")
    if is_mean and found == {2, 3}:
        return builder.add(GlobalMean, label, [name])
    return Partial(name, found, is_mean)


def summed(
    builder: GraphBuilder,
    label: str,
    given: Moved,
    axes: Sequence[int],
    *,
    is_mean: bool,
) -> Moved:
    """A sum or mean of numbers of the same pixels, as of stacked values or of channels
    that are the last axis; `axes` are gone.

    Raises `GraphError` where that is no sum of whole channels.
    """
    shape = builder.shapes[given.name]
    plane = shape.height * shape.width
    terms = np.moveaxis(given.places, axes, range(len(axes)))
    rest = terms.shape[len(axes) :]
    channel, pixel = np.divmod(terms.reshape(-1, math.prod(rest)), plane)
    # A channel of the result is known by that of its first term.
    _, first, result = np.unique(channel[0], return_index=True, return_inverse=True)
    added = channel[:, first]
    if not (pixel == pixel[0]).all() or not (added[:, result] == channel).all():
        raise GraphError("it adds up other numbers than those of whole channels")
    matrix = np.zeros((len(first), shape.channels))
    np.add.at(matrix, (np.arange(len(first)), added), 1 / len(added) if is_mean else 1)
    name = mix_channels(builder, label, given.name, matrix)
    return Moved(name, (result * plane + pixel[0]).astype(np.int32).reshape(rest))


def has_planes(builder: GraphBuilder, given: Moved, axes: Sequence[int]) -> bool:
    """Whether `axes` are all pixels of each channel, and the others the channels."""
    in_order = places(builder, given.name).reshape(
        builder.shapes[given.name].channels, -1
    )
    rows = np.moveaxis(given.places, axes, range(-len(axes), 0))
    rows = rows.reshape(-1, math.prod(rows.shape[-len(axes) :]))
    return rows.shape == in_order.shape and np.array_equal(np.sort(rows), in_order)


def pixels(builder: GraphBuilder, moved: Moved) -> npt.NDArray[np.int32] | None:
    """Which pixel each number belongs to, where the last axis is all channels.

    The result has 1 for that axis. None where it is not so.
    """
    shape = builder.shapes[moved.name]
    plane = shape.height * shape.width
    first = moved.places[..., :1]
    if moved.places.shape[-1:] != (shape.channels,) or first.max() >= plane:
        return None
    steps = np.arange(shape.channels, dtype=np.int32) * plane
    return first if np.array_equal(moved.places, first + steps) else None


def same_pixels(
    builder: GraphBuilder, values: Sequence[Moved]
) -> npt.NDArray[np.int32] | None:
    """What `pixels` gives for all of them, None where they differ in more than the
    number of channels."""
    first, *others = (pixels(builder, value) for value in values)
    if first is None or any(
        other is None or not np.array_equal(first, other) for other in others
    ):
        return None
    return first


def channels_behind(
    builder: GraphBuilder, name: str, of: npt.NDArray[np.int32]
) -> Moved:
    """A value with its channels as the last axis of pixels as `pixels` gives them."""
    shape = builder.shapes[name]
    steps = np.arange(shape.channels, dtype=np.int32) * (shape.height * shape.width)
    return Moved(name, of + steps)


def unmoved(
    builder: GraphBuilder, constant: npt.NDArray[Any], other: Moved
) -> npt.NDArray[Any]:
    """A constant that meets `other`, as it meets that value's channels.

    The shape is (1, channels, 1, 1), or (1, channels, height, width) where the constant
    differs between pixels. Raises `GraphError` where the two do not meet.
    """
    shape = builder.shapes[other.name]
    try:
        wide = np.broadcast_to(constant, other.places.shape)
    except ValueError:
        raise GraphError(f"the constant has shape {constant.shape}") from None
    flat = np.empty(wide.size, constant.dtype)
    flat[other.places.reshape(-1)] = wide.reshape(-1)
    planes = flat.reshape(1, shape.channels, shape.height, shape.width)
    by_channel = planes[:, :, :1, :1]
    return by_channel if (planes == by_channel).all() else planes


def places(builder: GraphBuilder, value: str) -> npt.NDArray[np.int32]:
    """The numbers of a value by their places, as `rearrange` takes them.

    Raises `GraphError` for more than fit into a quarter of a gigabyte.
    """
    shape = builder.shapes[value]
    sides = (shape.channels, shape.height, shape.width)
    if math.prod(sides) > MAX_PLACES:
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
    blocks, wanted = unshuffled(before, down), unshuffled(moved, up)
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


def unshuffled(numbers: npt.NDArray[Any], factor: int) -> npt.NDArray[Any]:
    """torch.nn.PixelUnshuffle of (channels, height, width)."""
    channels, height, width = numbers.shape
    rows, columns = height // factor, width // factor
    blocks = numbers.reshape(channels, rows, factor, columns, factor)
    return blocks.transpose(0, 2, 4, 1, 3).reshape(-1, rows, columns)


def constant_pad(
    builder: GraphBuilder,
    label: str,
    value: str,
    amounts: tuple[int, int, int, int],
    fill: float = 0.0,
) -> str:
    """A number around a value; `passes.fold_padding` may merge zeros.

    `amounts` are for top, left, bottom and right.
    """
    channels = builder.shapes[value].channels
    value = scaled(builder, label, value, 1, -fill)
    weight = builder.tensor(f"{label}.ones", np.ones((channels, 1, 1, 1)))
    padded = builder.add(
        Conv2d, label, [value], weight=weight, padding=amounts, groups=channels
    )
    return scaled(builder, label, padded, 1, fill)


def pad_channels(
    builder: GraphBuilder, label: str, value: str, before: int, after: int, fill: float
) -> str:
    """Channels of one number before and behind; fewer where an amount is negative."""
    count = builder.shapes[value].channels
    matrix = np.eye(count)[max(0, -before) : count - max(0, -after)]
    ends = max(0, before), max(0, after)
    rows = np.pad(matrix, (ends, (0, 0)))
    mixed = mix_channels(builder, label, value, rows)
    if not fill:
        return mixed
    shift = np.pad(np.zeros(len(matrix)), ends, constant_values=fill)
    return builder.affine(label, mixed, np.ones(len(rows)), shift)


def constant_channels(
    builder: GraphBuilder, label: str, like: str, numbers: Numbers
) -> str:
    """A channel of each number alone, with another value's height and width."""
    nothing = np.zeros((len(numbers), builder.shapes[like].channels))
    blank = mix_channels(builder, label, like, nothing)
    return builder.affine(label, blank, np.ones(len(numbers)), numbers)


def windows(
    builder: GraphBuilder,
    label: str,
    value: str,
    kernel: _Pair,
    *,
    stride: _Pair,
    padding: _Pair,
    dilation: _Pair,
) -> str:
    """torch.nn.Unfold's numbers of each window, as channels."""
    channels, taps = builder.shapes[value].channels, math.prod(kernel)
    pick = np.eye(taps).reshape(taps, 1, *kernel)
    weight = builder.tensor(f"{label}.pick", np.tile(pick, (channels, 1, 1, 1)))
    return builder.add(
        Conv2d,
        label,
        [value],
        weight=weight,
        stride=stride,
        padding=padding * 2,
        dilation=dilation,
        groups=channels,
    )


def is_circular(builder: GraphBuilder, joined: Sequence[str]) -> bool:
    """Whether rows or columns are joined to what they were cut from.

    So exporters write padding by a picture's opposite edges.
    """
    return any(
        isinstance(node, Crop) and {node.name, *node.inputs} <= set(joined)
        for node in builder.nodes
    )


def average_pool(
    builder: GraphBuilder,
    label: str,
    value: str,
    kernel: _Pair,
    stride: _Pair,
    padding: tuple[int, int, int, int],
    *,
    counts_padding: bool = True,
) -> str:
    """Means of windows; zeros beyond the edges count, or they do not."""
    channels = builder.shapes[value].channels
    if not counts_padding and any(padding):
        # By the share of each window that is inside, as the mean of ones tells it.
        none = mix_channels(builder, label, value, np.zeros((1, channels)))
        ones = scaled(builder, label, none, 1, 1)
        inside = average_pool(builder, label, ones, kernel, stride, padding)
        inverse = builder.add(Unary, label, [inside], function="reciprocal")
        mean = average_pool(builder, label, value, kernel, stride, padding)
        factors = pick_channels(builder, label, inverse, [0] * channels)
        return builder.add(Multiply, label, [mean, factors])
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
