"""What becomes of each ncnn layer: `HANDLERS`.

Parameter numbers: docs/developer-guide/operators.md of https://github.com/Tencent/ncnn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from upfrost.network import graph as ops
from upfrost.network.graph import MAX_CHANNELS, MAX_EXTENT, Shape
from upfrost_exporter import lowering
from upfrost_exporter.builder import GraphBuilder, Numbers
from upfrost_exporter.ncnn_file import Floats, Layer, Weights

# Stand for "as wide as needed" in paddings and "from the second input" in sizes.
_SAME_UPPER, _SAME_LOWER, _DYNAMIC = -233, -234, -233


@dataclass(frozen=True)
class Call:
    """One layer on values of the graph being built."""

    builder: GraphBuilder
    layer: Layer
    values: Sequence[str]
    weights: Weights
    uniform: set[str]

    @property
    def shape(self) -> Shape:
        return self.builder.shapes[self.values[0]]

    def add(self, kind: Any, *inputs: str, **attributes: Any) -> str:
        return self.builder.add(
            kind, self.layer.name, inputs or self.values, **attributes
        )

    def tensor(self, suffix: str, array: Numbers) -> str:
        return self.builder.tensor(f"{self.layer.name}.{suffix}", array)

    def affine(self, value: str, scale: Numbers | float, shift: Numbers | float) -> str:
        channels = self.builder.shapes[value].channels
        both = (np.broadcast_to(np.float64(each), channels) for each in (scale, shift))
        return self.builder.affine(self.layer.name, value, *both)


Handler = Callable[[Call], str | list[str]]


def advice(kind: str) -> str:
    if kind in ("Softmax", "MultiHeadAttention", "SDPA"):
        return "attention is out of scope: choose a convolutional network"
    return "use a model made of convolutions, interpolation and pixel shuffle"


@dataclass(frozen=True)
class _Kernel:
    """What a convolution and a transposed one have in common."""

    weight: Floats  # (out channels, in channels / groups, rows, columns)
    bias: Floats | None
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


def _kernel(call: Call) -> _Kernel:
    layer = call.layer
    if layer.integer(8, 0):
        raise layer.refuse("it is quantised to int8", "use the fp32 or fp16 model")
    outputs, count = layer.integer(0, 0), layer.integer(6, 0)
    width = layer.integer(1, 0)
    kernel = (layer.integer(11, width), width)
    groups = layer.integer(7, 1) if layer.kind.endswith("DepthWise") else 1
    inputs = call.shape.channels
    if not (
        1 <= outputs <= MAX_CHANNELS
        and all(1 <= extent <= MAX_EXTENT for extent in kernel)
        and 1 <= groups <= inputs
        and inputs % groups == outputs % groups == 0
        and count == outputs * (inputs // groups) * kernel[0] * kernel[1]
    ):
        raise layer.refuse(
            f"{count} weights do not make {outputs} × {inputs} channels in {groups} "
            f"groups with a {kernel[0]}×{kernel[1]} kernel",
            "",
        )
    weight = call.weights.tagged(count, layer)
    bias = call.weights.plain(outputs, layer) if layer.integer(5, 0) else None
    return _Kernel(
        weight=weight.reshape(outputs, inputs // groups, *kernel),
        bias=bias,
        kernel=kernel,
        stride=(layer.integer(13, layer.integer(3, 1)), layer.integer(3, 1)),
        dilation=(layer.integer(12, layer.integer(2, 1)), layer.integer(2, 1)),
        groups=groups,
    )


def _convolution(call: Call) -> str:
    layer = call.layer
    if layer.integer(19, 0):
        raise layer.refuse("its weights are computed", "use fixed weights")
    if layer.number(18, 0) != 0:
        raise layer.refuse("it pads with a number that is not 0", "pad with zeros")
    given = _kernel(call)
    value = call.add(
        ops.Conv2d,
        weight=call.tensor("weight", given.weight),
        bias=None if given.bias is None else call.tensor("bias", given.bias),
        stride=given.stride,
        padding=_padding(layer, given.kernel, given.stride, given.dilation),
        dilation=given.dilation,
        groups=given.groups,
    )
    return _activate(call, value)


def _deconvolution(call: Call) -> str:
    layer = call.layer
    if layer.integer(28, 0) or layer.integer(20, 0) or layer.integer(21, 0):
        raise layer.refuse("its weights or size are computed", "use fixed ones")
    given = _kernel(call)
    left = layer.integer(4, 0)
    if left < 0:
        raise layer.refuse("padding 'same'", "give the padding in pixels")
    top = layer.integer(14, left)
    right, bottom = layer.integer(15, left), layer.integer(16, top)
    outputs, inputs, *kernel = given.weight.shape
    by_group = given.weight.reshape(given.groups, -1, inputs, *kernel).swapaxes(1, 2)
    value = lowering.transposed_convolution(
        call.builder,
        layer.name,
        call.values[0],
        by_group.reshape(-1, outputs // given.groups, *kernel),
        given.bias,
        stride=given.stride,
        padding=(top, left, bottom, right),
        output_padding=(layer.integer(19, 0), layer.integer(18, 0)),
        dilation=given.dilation,
        groups=given.groups,
    )
    return _activate(call, value)


def _inner_product(call: Call) -> str:
    layer = call.layer
    if call.values[0] not in call.uniform:
        raise layer.refuse("it multiplies a whole picture", "use layers of fixed reach")
    outputs, count = layer.integer(0, 0), layer.integer(2, 0)
    if layer.integer(8, 0) or count != outputs * call.shape.channels:
        raise layer.refuse(
            f"{count} weights do not make {outputs} × {call.shape.channels} channels",
            "",
        )
    weight = call.weights.tagged(count, layer).reshape(outputs, -1, 1, 1)
    bias = call.weights.plain(outputs, layer) if layer.integer(1, 0) else None
    value = call.add(
        ops.Conv2d,
        weight=call.tensor("weight", weight),
        bias=None if bias is None else call.tensor("bias", bias),
    )
    return _mark(call, _activate(call, value))


def _pooling(call: Call) -> str:
    layer = call.layer
    is_mean = layer.integer(0, 0) == 1
    if layer.integer(4, 0):
        return _mark(call, call.add(ops.GlobalMean if is_mean else ops.GlobalMax))
    width = layer.integer(1, 0)
    kernel = (layer.integer(11, width), width)
    stride = (layer.integer(12, layer.integer(2, 1)), layer.integer(2, 1))
    pads = [layer.integer(key, 0) for key in (3, 13, 14, 15)]
    if any(pads) or layer.integer(7, 0):
        raise layer.refuse("it pads, or makes a grid", "pool without padding")
    if layer.integer(5, 0) != 1 and kernel != stride:
        raise layer.refuse("it rounds the size up", "round it down (pad mode 1)")
    if is_mean:
        return lowering.average_pool(
            call.builder, layer.name, call.values[0], kernel, stride, (0, 0, 0, 0)
        )
    return call.add(ops.MaxPool2d, kernel=kernel, stride=stride)


def _mark(call: Call, value: str) -> str:
    call.uniform.add(value)
    return value


def _padding(
    layer: Layer,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
) -> tuple[int, int, int, int]:
    left = layer.integer(4, 0)
    top = layer.integer(14, left)
    right, bottom = layer.integer(15, left), layer.integer(16, top)
    if left not in (_SAME_UPPER, _SAME_LOWER):
        return (top, left, bottom, right)
    if stride != (1, 1):
        raise layer.refuse("padding 'same' with strides", "give the padding in pixels")
    reach = [(taps - 1) * step for taps, step in zip(kernel, dilation, strict=True)]
    less = [extent // 2 for extent in reach]
    more = [extent - half for extent, half in zip(reach, less, strict=True)]
    upper, lower = (less, more) if left == _SAME_UPPER else (more, less)
    return (upper[0], upper[1], lower[0], lower[1])


def _activate(call: Call, value: str) -> str:
    """The activation that ncnn's optimiser put into a layer."""
    kind, numbers = call.layer.integer(9, 0), call.layer.numbers(10)
    needed = {0: 0, 1: 0, 2: 1, 3: 2, 4: 0, 5: 0, 6: 2}.get(kind)
    if needed is None or len(numbers) < needed:
        raise call.layer.refuse(
            f"activation {kind} is unknown to upfrost", advice("Activation")
        )
    if kind == 1:
        return call.add(ops.Relu, value)
    if kind == 2:
        return call.add(ops.LeakyRelu, value, slope=numbers[0])
    if kind == 3:
        return call.add(ops.Clamp, value, low=numbers[0], high=numbers[1])
    if kind == 6:
        return _hard(call, "hardswish", value, numbers[0], numbers[1])
    functions = {4: "sigmoid", 5: "mish"}
    return call.add(ops.Unary, value, function=functions[kind]) if kind else value


def _function(function: str) -> Handler:
    def handler(call: Call) -> str:
        return call.add(ops.Unary, function=function)

    return handler


def _hard(call: Call, function: str, value: str, slope: float, shift: float) -> str:
    if abs(slope - 1 / 6) > 1e-6 or shift != 0.5:
        raise call.layer.refuse(
            f"its slope and shift are {slope} and {shift}", "use 1/6 and 1/2"
        )
    return call.add(ops.Unary, value, function=function)


def _hardswish(call: Call) -> str:
    slope, shift = call.layer.number(0, 0.2), call.layer.number(1, 0.5)
    return _hard(call, "hardswish", call.values[0], slope, shift)


def _hardsigmoid(call: Call) -> str:
    slope, shift = call.layer.number(0, 0.2), call.layer.number(1, 0.5)
    return _hard(call, "hardsigmoid", call.values[0], slope, shift)


def _elu(call: Call) -> str:
    alpha = call.layer.number(0, 0.1)
    return lowering.elu(call.builder, call.layer.name, call.values[0], alpha)


def _celu(call: Call) -> str:
    alpha = call.layer.number(0, 1.0)
    if alpha <= 0:
        raise call.layer.refuse(f"its alpha is {alpha}", "use one above 0")
    return lowering.elu(
        call.builder, call.layer.name, call.values[0], alpha, input_scale=1 / alpha
    )


def _selu(call: Call) -> str:
    alpha, scale = call.layer.number(0, 1.67326324), call.layer.number(1, 1.050700987)
    return lowering.elu(
        call.builder, call.layer.name, call.values[0], alpha, scale=scale
    )


def _group_norm(call: Call) -> str:
    """Of groups of channels; of each channel for InstanceNorm."""
    layer, by_channel = call.layer, call.layer.kind == "InstanceNorm"
    channels = _channels(call, layer.integer(0 if by_channel else 1, 0))
    groups = channels if by_channel else layer.integer(0, 1)
    if not 1 <= groups <= channels:
        raise layer.refuse(f"{groups} groups of {channels} channels", "")
    weight = bias = None
    if layer.integer(2 if by_channel else 3, 1):
        weight, bias = (
            call.weights.plain(channels, layer).astype(np.float64) for _ in range(2)
        )
    epsilon = layer.number(1 if by_channel else 2, 0.001)
    return lowering.group_norm(
        call.builder, layer.name, call.values[0], groups, weight, bias, epsilon
    )


def _gelu(call: Call) -> str:
    return call.add(
        ops.Unary, function="gelu_tanh" if call.layer.integer(0, 0) else "gelu"
    )


def _prelu(call: Call) -> str:
    count = call.layer.integer(0, 0)
    if count not in (1, call.shape.channels):
        raise call.layer.refuse(
            f"{count} slopes for {call.shape.channels} channels", ""
        )
    slopes = call.weights.plain(count, call.layer)
    return call.add(ops.Prelu, slope=call.tensor("slope", slopes))


def _relu(call: Call) -> str:
    slope = call.layer.number(0, 0)
    return call.add(ops.LeakyRelu, slope=slope) if slope else call.add(ops.Relu)


def _clip(call: Call) -> str:
    largest = float(np.finfo(np.float32).max)
    bounds = call.layer.number(0, -largest), call.layer.number(1, largest)
    low, high = (min(max(bound, -largest), largest) for bound in bounds)
    return call.add(ops.Clamp, low=low, high=high)


def _batch_norm(call: Call) -> str:
    channels = _channels(call, call.layer.integer(0, 0))
    weight, mean, variance, bias = (
        call.weights.plain(channels, call.layer).astype(np.float64) for _ in range(4)
    )
    return call.builder.batch_norm(
        call.layer.name,
        call.values[0],
        mean=mean,
        variance=variance,
        epsilon=call.layer.number(1, 0),
        weight=weight,
        bias=bias,
    )


def _scale(call: Call) -> str:
    count = call.layer.integer(0, 0)
    if count == _DYNAMIC:
        return call.add(ops.Multiply)
    channels = _channels(call, count)
    factors = call.weights.plain(channels, call.layer)
    has_bias = call.layer.integer(1, 0)
    offsets = call.weights.plain(channels, call.layer) if has_bias else 0.0
    return call.affine(call.values[0], factors, offsets)


def _bias(call: Call) -> str:
    channels = _channels(call, call.layer.integer(0, 0))
    return call.affine(call.values[0], 1, call.weights.plain(channels, call.layer))


def _channels(call: Call, count: int) -> int:
    if count != call.shape.channels:
        raise call.layer.refuse(
            f"{count} numbers for {call.shape.channels} channels", ""
        )
    return count


def _binary(call: Call) -> str:
    kind = call.layer.integer(0, 0)
    if call.layer.integer(1, 0):
        return _with_scalar(call, kind, call.layer.number(2, 0))
    first, second = _two(call)
    if kind == 1:
        second = call.affine(second, -1, 0)
    elif kind == 7:
        first = call.affine(first, -1, 0)
    elif kind == 2:
        return call.add(ops.Multiply, first, second)
    elif kind in (4, 5):
        extreme = lowering.maximum if kind == 4 else lowering.minimum
        return extreme(call.builder, call.layer.name, first, second)
    elif kind != 0:
        raise call.layer.refuse(
            f"operation {kind} on two values", advice(call.layer.kind)
        )
    return call.add(ops.Add, first, second)


def _with_scalar(call: Call, kind: int, number: float) -> str:
    value = call.values[0]
    if kind in (0, 1):
        return call.affine(value, 1, number if kind == 0 else -number)
    if kind == 2 or (kind == 3 and number):
        return call.affine(value, number if kind == 2 else 1 / number, 0)
    if kind == 7:
        return call.affine(value, -1, number)
    raise call.layer.refuse(f"operation {kind} with {number}", advice(call.layer.kind))


def _eltwise(call: Call) -> str:
    kind = call.layer.integer(0, 0)
    if kind not in (0, 1):
        raise call.layer.refuse("it is no sum and no product", advice("Eltwise"))
    factors = (call.layer.numbers(1) if kind else ()) or (1.0,) * len(call.values)
    if len(factors) != len(call.values):
        raise call.layer.refuse(f"{len(factors)} factors", "")
    total, *others = (
        value if factor == 1 else call.affine(value, factor, 0)
        for value, factor in zip(call.values, factors, strict=True)
    )
    for value in others:
        total = call.add(ops.Add if kind else ops.Multiply, total, value)
    return total


def _slice(call: Call) -> list[str]:
    if call.layer.integer(1, 0) not in (0, -3):
        raise call.layer.refuse("it splits rows or columns", "split channels")
    sizes = [int(size) for size in call.layer.numbers(0)]
    channels = call.shape.channels
    parts, start = [], 0
    for place, size in enumerate(sizes):
        left = len(sizes) - place
        width = (channels - start) // left if size == _DYNAMIC else size
        if not 0 < width <= channels - start:
            raise call.layer.refuse(f"sizes {sizes} of {channels} channels", "")
        parts.append(
            lowering.pick_channels(
                call.builder,
                call.layer.name,
                call.values[0],
                range(start, start + width),
            )
        )
        start += width
    return parts


def _crop(call: Call) -> str:
    layer, shape = call.layer, call.shape
    if len(call.values) == 2:
        left, top = layer.integer(0, 0), layer.integer(1, 0)
        small = call.builder.shapes[call.values[1]]
        sides = (top, left, small.height, small.width)
        if layer.integer(2, 0) or small.channels != shape.channels:
            raise layer.refuse("it crops channels", "crop rows and columns")
    elif layer.numbers(9):
        sides = _listed_crop(call)
    else:
        raise layer.refuse("it crops to a fixed size", "crop by margins")
    top, left, height, width = sides
    margins = (top, left, shape.height - top - height, shape.width - left - width)
    return call.add(ops.Crop, call.values[0], margins=margins)


def _listed_crop(call: Call) -> tuple[int, int, int, int]:
    """Top, left, height and width of a crop that lists starts, ends and axes."""
    starts, ends, axes = (
        [int(n) for n in call.layer.numbers(key)] for key in (9, 10, 11)
    )
    axes = axes or list(range(len(starts)))
    if not len(starts) == len(ends) == len(axes):
        raise call.layer.refuse("its lists differ in length", "")
    extents = [call.shape.channels, call.shape.height, call.shape.width]
    first, last = [0, 0, 0], list(extents)
    for start, end, axis in zip(starts, ends, axes, strict=True):
        extent = extents[axis % 3]
        first[axis % 3] = start if start >= 0 else extent + start
        # An end beyond the edge is the edge; one from the back depends on no size.
        last[axis % 3] = min(end, extent) if end > 0 else extent + end
    if (first[0], last[0]) != (0, extents[0]):
        raise call.layer.refuse("it crops channels", "crop rows and columns")
    return first[1], first[2], last[1] - first[1], last[2] - first[2]


def _pad(call: Call) -> str:
    layer = call.layer
    top, bottom, left, right = (layer.integer(key, 0) for key in range(4))
    kind, around = layer.integer(4, 0), (top, left, bottom, right)
    if layer.integer(7, 0) or layer.integer(8, 0) or layer.number(5, 0):
        raise layer.refuse("it pads channels, or with a number that is not 0", "")
    if kind == 0:
        return lowering.zero_pad(call.builder, layer.name, call.values[0], around)
    modes = {1: "replicate", 2: "reflect"}
    if kind not in modes:
        raise layer.refuse(f"padding of type {kind}", "use type 0, 1 or 2")
    return call.add(ops.Pad, mode=modes[kind], padding=around)


def _reorg(call: Call) -> str:
    if call.layer.integer(1, 0):
        raise call.layer.refuse("its channels are in another order", "use mode 0")
    factor = call.layer.integer(0, 1)
    return lowering.pixel_unshuffle(
        call.builder, call.layer.name, call.values[0], factor
    )


def _two(call: Call) -> tuple[str, str]:
    if len(call.values) != 2:
        raise call.layer.refuse(f"it has {len(call.values)} inputs, not two", "")
    return call.values[0], call.values[1]


def _concat(call: Call) -> str:
    if call.layer.integer(0, 0) not in (0, -3):
        raise call.layer.refuse("it joins rows or columns", "join channels")
    return call.add(ops.Concat)


def _pixel_shuffle(call: Call) -> str:
    if call.layer.integer(1, 0):
        raise call.layer.refuse("its channels are in another order", "use mode 0")
    return call.add(ops.PixelShuffle, factor=call.layer.integer(0, 1))


def _interp(call: Call) -> str:
    layer = call.layer
    mode = {1: "nearest", 2: "bilinear", 3: "bicubic"}.get(layer.integer(0, 0))
    if mode is None or layer.integer(6, 0) or layer.integer(5, 0):
        raise layer.refuse(
            "it aligns corners, takes its size from a value, or has an unknown mode",
            "interpolate by a constant factor with align_corners=False",
        )
    if layer.integer(3, 0) or layer.integer(4, 0):
        raise layer.refuse("it resizes to a fixed size", "resize by a factor")
    rows, columns = (
        Fraction(layer.number(key, 1)).limit_denominator(MAX_EXTENT) for key in (1, 2)
    )
    if rows != columns:
        raise layer.refuse("height and width are scaled differently", "")
    return call.add(ops.Resize, mode=mode, ratio=(rows.numerator, rows.denominator))


def _keep(call: Call) -> str:
    return call.values[0]


def _dropout(call: Call) -> str:
    return call.affine(call.values[0], call.layer.number(0, 1), 0)


def _unary(call: Call) -> str:
    kind = call.layer.integer(0, 0)
    functions = {
        0: "abs",
        5: "sqrt",
        6: "rsqrt",
        7: "exp",
        15: "reciprocal",
        16: "tanh",
    }
    if kind == 1:
        return call.affine(call.values[0], -1, 0)
    if kind == 4:
        return call.add(ops.Multiply, *call.values, *call.values)
    if kind not in functions:
        raise call.layer.refuse(f"function {kind}", advice(call.layer.kind))
    return call.add(ops.Unary, function=functions[kind])


# ncnn layer → what becomes of it.
HANDLERS: Mapping[str, Handler] = {
    "Convolution": _convolution,
    "ConvolutionDepthWise": _convolution,
    "Deconvolution": _deconvolution,
    "DeconvolutionDepthWise": _deconvolution,
    "InnerProduct": _inner_product,
    "Pooling": _pooling,
    "Crop": _crop,
    "Padding": _pad,
    "Slice": _slice,
    "Reorg": _reorg,
    "AbsVal": _function("abs"),
    "CELU": _celu,
    "ELU": _elu,
    "SELU": _selu,
    "GELU": _gelu,
    "HardSigmoid": _hardsigmoid,
    "HardSwish": _hardswish,
    "Mish": _function("mish"),
    "Sigmoid": _function("sigmoid"),
    "Softplus": _function("softplus"),
    "Swish": _function("silu"),
    "TanH": _function("tanh"),
    "PReLU": _prelu,
    "ReLU": _relu,
    "Clip": _clip,
    "BatchNorm": _batch_norm,
    "GroupNorm": _group_norm,
    "InstanceNorm": _group_norm,
    "Scale": _scale,
    "Bias": _bias,
    "BinaryOp": _binary,
    "Eltwise": _eltwise,
    "UnaryOp": _unary,
    "Concat": _concat,
    "PixelShuffle": _pixel_shuffle,
    "Interp": _interp,
    "Split": _keep,
    "Noop": _keep,
    "Dropout": _dropout,
}
