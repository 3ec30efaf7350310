"""What becomes of each ncnn layer: `HANDLERS`.

Parameter numbers: docs/developer-guide/operators.md of https://github.com/Tencent/ncnn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from upfrost.network import graph as ops
from upfrost.network.graph import MAX_CHANNELS, MAX_EXTENT, GraphError, Shape
from upfrost_exporter import lowering, sampling
from upfrost_exporter.builder import GraphBuilder, Numbers
from upfrost_exporter.lowering import Moved, Pooled
from upfrost_exporter.ncnn_expression import evaluate
from upfrost_exporter.ncnn_file import Floats, Layer, Weights
from upfrost_exporter.sampling import Arithmetic, Placed

# Stand for "as wide as needed" in paddings and "from the second input" in sizes.
_SAME_UPPER, _SAME_LOWER, _DYNAMIC = -233, -234, -233
# Where a Reshape's parameter for the batch's axis is left out.
_NO_BATCH = 233

# A value of the graph, one in another shape, one number for each channel, a constant.
Given = str | Moved | Pooled | Placed | npt.NDArray[Any]


@dataclass(frozen=True)
class Call:
    """One layer on values of the graph being built."""

    builder: GraphBuilder
    layer: Layer
    values: Sequence[Given]
    weights: Weights
    samples: bool = False  # whether the network has a GridSample

    @property
    def names(self) -> Sequence[str]:
        """The values' names in the graph."""
        names = []
        for given in self.values:
            if isinstance(given, np.ndarray):
                raise self.layer.refuse("an input of it is a constant", ADVICE)
            if isinstance(given, Placed):
                raise self.layer.refuse(sampling.OF_PLACES, sampling.ADVICE)
            if not isinstance(given, str):
                raise self.layer.refuse(
                    f"its input has the shape {shape_of(self.builder, given)}, which "
                    "is not (channels, height, width)",
                    ADVICE,
                )
            names.append(given)
        return names

    @property
    def shape(self) -> Shape:
        return self.builder.shapes[self.names[0]]

    def on(self, values: Sequence[Given]) -> Call:
        """The same layer on other values."""
        return Call(self.builder, self.layer, values, self.weights, self.samples)

    def add(self, kind: Any, *inputs: str, **attributes: Any) -> str:
        return self.builder.add(
            kind, self.layer.name, inputs or self.names, **attributes
        )

    def tensor(self, suffix: str, array: Numbers) -> str:
        return self.builder.tensor(f"{self.layer.name}.{suffix}", array)

    def affine(self, value: str, scale: Numbers | float, shift: Numbers | float) -> str:
        channels = self.builder.shapes[value].channels
        both = (np.broadcast_to(np.float64(each), channels) for each in (scale, shift))
        return self.builder.affine(self.layer.name, value, *both)


Handler = Callable[[Call], Given | list[Given]]
ADVICE = "use a model made of convolutions, interpolation and pixel shuffle"
_INT8 = "it is quantised to int8", "use the fp32 or fp16 model"
_NO_ATTENTION = "attention is out of scope: choose a convolutional network"


def advice(kind: str) -> str:
    if kind in ("MatMul", "MultiHeadAttention", "SDPA"):
        return _NO_ATTENTION
    # pnnx leaves what it cannot translate, as torch.var or Tensor.expand_as.
    if "." in kind:
        return "pnnx found none for it: export the network as ONNX"
    return ADVICE


def shape_of(builder: GraphBuilder, given: Given) -> tuple[int, ...]:
    """The shape that ncnn gives a value, the outermost axis first."""
    if isinstance(given, str):
        shape = builder.shapes[given]
        return (shape.channels, shape.height, shape.width)
    if isinstance(given, Moved | Placed):
        return given.places.shape
    return given.shape


def translate(call: Call) -> Sequence[Given]:
    """What becomes of a layer. Raises `ExportError` or `GraphError`."""
    kind = call.layer.kind
    handler = HANDLERS.get(kind)
    if not call.values and kind != "MemoryData":
        raise call.layer.refuse("it has no input", "")
    if call.samples and (of_places := _among_placed(call)) is not None:
        results: Given | list[Given] = of_places
    elif kind in _KEPT:
        results = call.values[0]
    elif kind in _MOVES:
        results = _move(call)
    elif kind in ("Quantize", "Requantize", "Dequantize"):
        raise call.layer.refuse(*_INT8)
    elif handler is None:
        raise call.layer.refuse("upfrost has no such operation", advice(kind))
    elif any(isinstance(given, Moved) for given in call.values):
        results = handler(call) if kind in _LAST_AXIS else _among_moved(call)
    elif any(isinstance(given, Pooled) for given in call.values):
        results = _among_pooled(call)
    else:
        results = handler(call)
    if isinstance(results, list):
        return results
    return [results] * len(call.layer.outputs)


def _among_placed(call: Call) -> Given | None:
    """A layer on the places of pixels; None for one that is on no such thing.

    They are met where a value is added to numbers that differ from pixel to pixel.
    """
    layer, kind, values = call.layer, call.layer.kind, list(call.values)
    if kind == "GridSample":
        return _grid_sample(call)
    arithmetic = _ARITHMETIC.get(layer.integer(0, 0)) if kind == "BinaryOp" else None
    first = next((each for each in values if isinstance(each, Placed)), None)
    if first is None:
        numbers = [each for each in values if isinstance(each, np.ndarray)]
        is_sum = arithmetic is not None and arithmetic[0] in ("add", "subtract")
        is_one = len(values) == 2 and len(numbers) == 1
        if not (is_sum and is_one and sampling.differs_by_pixel(numbers[0])):
            return None
    elif values[0] is first and kind in _KEPT:
        return first
    elif values[0] is first and kind in _MOVES:
        return first.moved(lambda array: _moved(call, array))
    elif kind == "PixelShuffle" and first.places.ndim == 3 and not layer.integer(1, 0):
        factor = layer.integer(0, 1)
        return first.moved(lambda array: sampling.shuffled(array[None], factor)[0])
    if arithmetic is None:
        raise layer.refuse(sampling.OF_PLACES, sampling.ADVICE)
    if layer.integer(1, 0):
        values.append(np.array(layer.number(2, 0)))
    operands = [_placed(call, each) for each in values]
    if len(operands) != 2:
        raise layer.refuse(f"it has {len(operands)} inputs", "")
    name, is_swapped = arithmetic
    return sampling.combine(name, *(operands[::-1] if is_swapped else operands))


# BinaryOp's operations, and whether the second is the left one.
_ARITHMETIC: Mapping[int, tuple[Arithmetic, bool]] = {
    0: ("add", False),
    1: ("subtract", False),
    2: ("multiply", False),
    3: ("divide", False),
    7: ("subtract", True),
    8: ("divide", True),
}


def _placed(call: Call, given: Given) -> Placed | npt.NDArray[Any]:
    if isinstance(given, str):
        given = Moved(given, lowering.places(call.builder, given))
    if isinstance(given, Moved):
        return sampling.placed(given)
    if isinstance(given, Placed | np.ndarray):
        return given
    raise call.layer.refuse(sampling.OF_PLACES, sampling.ADVICE)


def _grid_sample(call: Call) -> str | Moved:
    layer = call.layer
    if (layer.integer(0, 1), layer.integer(1, 1)) != (1, 2):
        raise layer.refuse(
            "it is not bilinear with edges replicated", "set its numbers 0=1 1=2"
        )
    if len(call.values) != 2:
        raise layer.refuse(f"it has {len(call.values)} inputs", "")
    value, grid = call.values
    if isinstance(value, str):
        value = Moved(value, lowering.places(call.builder, value))
    if isinstance(grid, Moved):
        grid = sampling.placed(grid)
    if not isinstance(value, Moved) or not isinstance(grid, Placed):
        raise layer.refuse(sampling.ANYWHERE, sampling.ADVICE)
    is_one = value.places.ndim == 3
    if is_one:
        value = Moved(value.name, value.places[None])
        grid = grid.moved(lambda array: array[None])
    if layer.integer(3, 0) and grid.places.ndim == 4:
        grid = grid.moved(lambda array: np.moveaxis(array, 1, -1))
    aligned = bool(layer.integer(2, 0))
    result = sampling.grid_sample(
        call.builder, layer.name, value, grid, align_corners=aligned
    )
    return result.name if is_one else result


def _move(call: Call) -> Given:
    """Permute, Reshape and the like: which numbers stand where.

    A value again, where it can be one.
    """
    given = call.values[0]
    if isinstance(given, np.ndarray):
        return _MOVES[call.layer.kind](call, given)
    if isinstance(given, Pooled):
        numbers = np.zeros(given.shape, np.int32)
        return Pooled(given.name, _moved(call, numbers).shape)
    if isinstance(given, str):
        given = Moved(given, lowering.places(call.builder, given))
    places = _moved(call, given.places)
    if places.ndim == 3:
        with suppress(GraphError):
            return lowering.rearrange(call.builder, call.layer.name, given.name, places)
    return Moved(given.name, places)


def _moved(call: Call, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    try:
        return _MOVES[call.layer.kind](call, array)
    # What numpy says to a shape or an order of axes that cannot be.
    except (IndexError, ValueError) as error:
        raise call.layer.refuse(
            f"it cannot change the shape {array.shape}: {error}", ADVICE
        ) from None


# Axes in ncnn's order, by the number of an order: for three of them, and for four.
_ORDERS = ("whc", "hwc", "wch", "cwh", "hcw", "chw")
_ORDERS_OF_FOUR = (
    *("whdc", "hwdc", "wdhc", "dwhc", "hdwc", "dhwc", "whcd", "hwcd", "wchd", "cwhd"),
    *("hcwd", "chwd", "wdch", "dwch", "wcdh", "cwdh", "dcwh", "cdwh", "hdcw", "dhcw"),
    *("hcdw", "chdw", "dchw", "cdhw"),
)
_AXES = {1: "w", 2: "hw", 3: "chw", 4: "cdhw"}


def _permute(call: Call, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    orders = {2: ("wh", "hw"), 3: _ORDERS, 4: _ORDERS_OF_FOUR}.get(array.ndim, ("w",))
    order = call.layer.integer(0, 0)
    if not 0 <= order < len(orders):
        raise ValueError(f"order {order} is unknown")
    before = _AXES[array.ndim]
    return array.transpose([before.index(axis) for axis in reversed(orders[order])])


def _reshape(call: Call, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    layer = call.layer
    if text := layer.text(6):
        sizes = evaluate(text, [_extents(call, given) for given in call.values])
    else:
        given = [layer.integer(key, _DYNAMIC) for key in (0, 1, 11, 2)]
        if given[3] == _DYNAMIC or given[1] == _DYNAMIC:
            given[2] = _DYNAMIC
        sizes = [size for size in given if size != _DYNAMIC]
    # A batch of 1 behind the others.
    has_batch = layer.integer(13, _NO_BATCH) != _NO_BATCH and len(sizes) > 1
    if has_batch and sizes[-1] == 1:
        sizes.pop()
    if 0 in sizes:
        extents = dict(zip(_AXES[array.ndim], array.shape, strict=True))
        axes = reversed(_AXES[len(sizes)])
        sizes = [
            size or extents.get(axis, 1) for size, axis in zip(sizes, axes, strict=True)
        ]
    if not 1 <= len(sizes) <= len(_AXES):
        raise ValueError(f"{len(sizes)} sizes")
    return array.reshape(sizes[::-1])


def _extents(call: Call, given: Given) -> dict[str, int]:
    shape = shape_of(call.builder, given)
    ones = dict.fromkeys("whdcn", 1)
    return ones | dict(zip(_AXES[len(shape)], shape, strict=True))


def _squeeze(call: Call, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    axes = [int(axis) for axis in call.layer.numbers(3)]
    if not axes:
        flags = zip("whdc", (0, 1, 11, 2), strict=True)
        named = [axis for axis, key in flags if call.layer.integer(key, 0)]
        before = _AXES[array.ndim]
        axes = [before.index(axis) for axis in named if axis in before]
    axes = [axis for axis in axes if array.shape[axis] == 1]
    return array.squeeze(tuple(axes)) if len(axes) < array.ndim else array.reshape(1)


def _expand_dims(call: Call, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    axes = tuple(int(axis) for axis in call.layer.numbers(3))
    if array.ndim + len(axes) > len(_AXES):
        raise ValueError(f"{array.ndim + len(axes)} axes")
    return np.expand_dims(array, axes)


def _flatten(call: Call, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    del call
    return array.reshape(-1)


_MOVES: Mapping[str, Callable[[Call, npt.NDArray[Any]], npt.NDArray[Any]]] = {
    "ExpandDims": _expand_dims,
    "Flatten": _flatten,
    "Permute": _permute,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
}
# What gives its input on, whatever that is.
_KEPT = {"Split", "Noop"}
# Those that work on the last axis, where that is the channels.
_LAST_AXIS = {"Gemm", "InnerProduct", "LayerNorm", "RMSNorm"}
# Each number by itself, so that it does not matter where it stands.
_POINTWISE = {
    *("AbsVal", "BinaryOp", "CELU", "Clip", "Dropout", "ELU", "Eltwise", "GELU"),
    *("HardSigmoid", "HardSwish", "Mish", "ReLU", "SELU", "Sigmoid", "Softplus"),
    *("Swish", "TanH", "UnaryOp"),
}
# Of those with numbers for each channel, which are the outermost axis.
_BY_CHANNEL = {"BatchNorm", "Bias", "PReLU", "Scale"}


def _among_moved(call: Call) -> Moved:
    """A layer on values whose axes stand in another order."""
    first, *others = [given for given in call.values if isinstance(given, Moved)]
    same = all(np.array_equal(other.places, first.places) for other in others)
    whole = [given for given in call.values if isinstance(given, str | Pooled)]
    if call.layer.kind not in _POINTWISE or whole or not same:
        raise call.layer.refuse(
            f"its input has the shape {first.places.shape}, which is not (channels, "
            "height, width)",
            ADVICE,
        )
    handler = HANDLERS[call.layer.kind]
    values = [
        given.name
        if isinstance(given, Moved)
        else lowering.unmoved(call.builder, given, first)[0]
        for given in call.values
        if isinstance(given, Moved | np.ndarray)
    ]
    return Moved(str(handler(call.on(values))), first.places)


def _among_pooled(call: Call) -> Given | list[Given]:
    """A layer on what is one number for each channel, maybe with whole values."""
    kind = call.layer.kind
    first = next(given for given in call.values if isinstance(given, Pooled))
    if (special := _OF_POOLED.get(kind)) is not None:
        return special(call, first)
    whole = next((given for given in call.values if isinstance(given, str)), None)
    mixed = whole is not None
    values: list[Given] = []
    for given in call.values:
        if isinstance(given, Pooled):
            count = given.shape[0]
            is_plain = given.shape in ((count,), (count, 1), (count, 1, 1))
            if not is_plain and (mixed or kind not in _POINTWISE):
                raise call.layer.refuse(f"an input has the shape {given.shape}", ADVICE)
            name = given.name
            if whole is not None:
                name = lowering.spread(call.builder, call.layer.name, name, whole)
            values.append(name)
        elif isinstance(given, np.ndarray) and given.size > 1:
            values.append(given.reshape(-1, 1, 1))
        else:
            values.append(given)
    results = HANDLERS[kind](call.on(values))
    if mixed:
        return results
    if kind in _POINTWISE or kind in _BY_CHANNEL:
        return Pooled(str(results), first.shape)
    tail = first.shape[1:]
    names = results if isinstance(results, list) else [results]
    return [
        Pooled(str(name), (call.builder.shapes[str(name)].channels, *tail))
        for name in names
    ]


def _pooled_product(call: Call, given: Pooled) -> Pooled:
    name = _linear(call, given.name)
    return Pooled(name, (call.builder.shapes[name].channels,))


def _pooled_gemm(call: Call, given: Pooled) -> Pooled:
    name = _gemm_of(call, given.name)
    return Pooled(name, (*given.shape[:-1], call.builder.shapes[name].channels))


def _pooled_convolution(call: Call, given: Pooled) -> Pooled:
    """A 1-D convolution, along channels or between them."""
    layer = call.layer
    outputs, taps, count = (layer.integer(key, 0) for key in (0, 1, 6))
    padding = layer.integer(4, 0)
    if (
        len(given.shape) != 2
        or outputs < 1
        or taps < 1
        or count != outputs * taps * given.shape[0]
        or {layer.integer(2, 1), layer.integer(3, 1)} != {1}
        or layer.integer(15, padding) != padding
        or layer.integer(19, 0)
    ):
        raise layer.refuse("it is no layer on pooled channels", ADVICE)
    numbers = call.weights.tagged(count, layer).astype(np.float64)
    weight = numbers.reshape(outputs, given.shape[0], taps)
    bias = call.weights.plain(outputs, layer) if layer.integer(5, 0) else None
    if weight.shape[:2] == (1, 1):
        name = lowering.convolved_channels(
            call.builder, layer.name, given.name, weight[0, 0], padding
        )
        shape = given.shape
    elif given.shape[1] == 1 and taps == 2 * padding + 1:
        name = lowering.mix_channels(
            call.builder, layer.name, given.name, weight[:, :, padding]
        )
        shape = (outputs, 1)
    else:
        raise layer.refuse("it is no layer on pooled channels", ADVICE)
    if bias is not None:
        name = call.affine(name, 1, bias.astype(np.float64))
    return Pooled(_activate(call.on([name]), name), shape)


def _pooled_softmax(call: Call, given: Pooled) -> Pooled:
    axis = call.layer.integer(0, 0)
    if given.shape[axis] != math.prod(given.shape):
        raise call.layer.refuse("it is not over channels", ADVICE)
    name = lowering.softmax(call.builder, call.layer.name, given.name)
    return Pooled(name, given.shape)


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
        raise layer.refuse(*_INT8)
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
        call.names[0],
        by_group.reshape(-1, outputs // given.groups, *kernel),
        given.bias,
        stride=given.stride,
        padding=(top, left, bottom, right),
        output_padding=(layer.integer(19, 0), layer.integer(18, 0)),
        dilation=given.dilation,
        groups=given.groups,
    )
    return _activate(call, value)


def _inner_product(call: Call) -> Moved:
    """A linear layer with the channels as the last of two axes."""
    return _on_channels(call, _linear)


def _on_channels(call: Call, compute: Callable[[Call, str], str]) -> Moved:
    """What `compute` makes of a value's channels, as the last of two axes again."""
    given, of = _channels_last(call, "it multiplies a whole picture")
    if given.places.ndim != 2:
        raise call.layer.refuse("it multiplies a whole picture", ADVICE)
    name = compute(call, given.name)
    return lowering.channels_behind(call.builder, name, of)


def _channels_last(call: Call, reason: str) -> tuple[Moved, npt.NDArray[np.int32]]:
    """The value, and its pixels as `lowering.pixels` gives them."""
    given = call.values[0]
    of = lowering.pixels(call.builder, given) if isinstance(given, Moved) else None
    if not isinstance(given, Moved) or of is None:
        raise call.layer.refuse(reason, "use layers of fixed reach")
    return given, of


def _linear(call: Call, name: str) -> str:
    """InnerProduct on the channels of a value."""
    layer = call.layer
    channels = call.builder.shapes[name].channels
    outputs, count = layer.integer(0, 0), layer.integer(2, 0)
    if layer.integer(8, 0):
        raise layer.refuse(*_INT8)
    if count != outputs * channels or outputs < 1:
        raise layer.refuse(
            f"{count} weights do not make {outputs} × {channels} channels",
            "",
        )
    weight = call.weights.tagged(count, layer).reshape(outputs, -1, 1, 1)
    bias = call.weights.plain(outputs, layer) if layer.integer(1, 0) else None
    value = call.add(
        ops.Conv2d,
        name,
        weight=call.tensor("weight", weight),
        bias=None if bias is None else call.tensor("bias", bias),
    )
    return _activate(call, value)


def _gemm(call: Call) -> Moved:
    return _on_channels(call, _gemm_of)


def _gemm_of(call: Call, name: str) -> str:
    """A linear layer on channels, as pnnx writes it: alpha · (x · Bᵀ + beta · C)."""
    layer = call.layer
    channels = call.builder.shapes[name].channels
    outputs, inputs = layer.integer(8, 0), layer.integer(9, 0)
    by_rows, shape = layer.integer(3, 0), layer.integer(10, 0)
    # -1: of no shape, however constant it is said to be.
    has_bias = layer.integer(6, 0) and shape != -1
    if (
        len(call.values) != 1
        or any(layer.integer(key, 0) for key in (2, 4, 11, 13, 14, 18))
        or layer.integer(5, 0) != 1
        or inputs != channels
        or not 1 <= outputs <= MAX_CHANNELS
        or (has_bias and shape not in (0, 4))
    ):
        raise layer.refuse("it is no layer on channels", ADVICE)
    weight = call.weights.tagged(outputs * inputs, layer)
    sides = (outputs, inputs) if by_rows else (inputs, outputs)
    alpha, beta = layer.number(0, 1.0), layer.number(1, 1.0)
    matrix = alpha * weight.reshape(sides).astype(np.float64)
    name = lowering.mix_channels(
        call.builder, layer.name, name, matrix if by_rows else matrix.T
    )
    if not has_bias:
        return name
    count = outputs if shape == 4 else 1
    bias = call.weights.tagged(count, layer).astype(np.float64)
    return call.affine(name, 1, alpha * beta * bias)


def _layer_norm(call: Call) -> Moved:
    layer = call.layer
    kind = "rms" if layer.kind == "RMSNorm" else "layer"
    given, of = _channels_last(call, "it is not over channels")
    channels = _channels_of(
        layer, layer.integer(0, 0), call.builder.shapes[given.name].channels
    )
    weight = bias = None
    if layer.integer(2, 1):
        weight = call.weights.plain(channels, layer).astype(np.float64)
        if kind == "layer":
            bias = call.weights.plain(channels, layer).astype(np.float64)
    name = lowering.layer_norm(
        call.builder,
        layer.name,
        given.name,
        weight,
        bias,
        layer.number(1, 0.001),
        kind=kind,
    )
    return lowering.channels_behind(call.builder, name, of)


def _no_layer(call: Call) -> str:
    raise call.layer.refuse("it is no layer on pooled channels", ADVICE)


def _softmax(call: Call) -> str:
    if call.layer.integer(0, 0) not in (0, -3):
        raise call.layer.refuse("it is over pixels, as in attention", _NO_ATTENTION)
    return lowering.softmax(call.builder, call.layer.name, call.names[0])


def _memory_data(call: Call) -> npt.NDArray[np.float32]:
    layer = call.layer
    sizes = [layer.integer(key, 0) for key in (2, 11, 1, 0)]
    shape = tuple(size for size in sizes if size)
    if min(sizes) < 0 or not shape:
        raise layer.refuse(f"its shape is {sizes}", "")
    count = math.prod(shape)
    read = call.weights.plain if layer.integer(21, 1) else call.weights.tagged
    return read(count, layer).reshape(shape)


def _flip(call: Call) -> str:
    axes = [int(axis) for axis in call.layer.numbers(0)]
    if axes not in ([0], [-3]):
        raise call.layer.refuse("it mirrors rows or columns", "flip channels")
    picked = range(call.shape.channels)[::-1]
    return lowering.pick_channels(call.builder, call.layer.name, call.names[0], picked)


def _shuffle_channel(call: Call) -> str:
    channels, groups = call.shape.channels, call.layer.integer(0, 1)
    if groups < 1 or channels % groups:
        raise call.layer.refuse(f"{channels} channels, {groups} groups", "")
    if call.layer.integer(1, 0):
        groups = channels // groups
    picked = np.arange(channels).reshape(groups, -1).T.reshape(-1).tolist()
    return lowering.pick_channels(call.builder, call.layer.name, call.names[0], picked)


def _tile(call: Call) -> str:
    layer = call.layer
    repeats = [int(number) for number in layer.numbers(2)] or (
        [layer.integer(1, 1), 1, 1] if layer.integer(0, 0) in (0, -3) else []
    )
    channels = call.shape.channels
    times = repeats[0] if len(repeats) == 3 and repeats[1:] == [1, 1] else 0
    if not 1 <= times <= MAX_CHANNELS // channels:
        raise layer.refuse("it repeats rows or columns", "repeat channels")
    return lowering.pick_channels(
        call.builder, layer.name, call.names[0], [*range(channels)] * times
    )


def _pooling(call: Call) -> str | Pooled:
    layer = call.layer
    is_mean = layer.integer(0, 0) == 1
    if layer.integer(4, 0):
        value = call.add(ops.GlobalMean if is_mean else ops.GlobalMax)
        return Pooled(value, (call.shape.channels,))
    width = layer.integer(1, 0)
    kernel = (layer.integer(11, width), width)
    stride = (layer.integer(12, layer.integer(2, 1)), layer.integer(2, 1))
    left = layer.integer(3, 0)
    top = layer.integer(13, left)
    around = (top, left, layer.integer(15, top), layer.integer(14, left))
    if layer.integer(7, 0):
        raise layer.refuse("it makes a grid", "pool by a fixed kernel")
    is_exact = kernel == stride and not any(around)
    if layer.integer(5, 0) != 1 and not is_exact:
        raise layer.refuse("it rounds the size up", "round it down (pad mode 1)")
    if is_mean:
        return lowering.average_pool(
            call.builder,
            layer.name,
            call.names[0],
            kernel,
            stride,
            around,
            counts_padding=bool(layer.integer(6, 0)),
        )
    return call.add(ops.MaxPool2d, kernel=kernel, stride=stride, padding=around)


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
    less, more = lowering.same_padding(kernel, stride, dilation)
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
        return lowering.hard_swish(
            call.builder, call.layer.name, value, numbers[0], numbers[1]
        )
    functions = {4: "sigmoid", 5: "mish"}
    return call.add(ops.Unary, value, function=functions[kind]) if kind else value


def _function(function: str) -> Handler:
    def handler(call: Call) -> str:
        return call.add(ops.Unary, function=function)

    return handler


def _hardswish(call: Call) -> str:
    slope, shift = call.layer.number(0, 0.2), call.layer.number(1, 0.5)
    return lowering.hard_swish(
        call.builder, call.layer.name, call.names[0], slope, shift
    )


def _hardsigmoid(call: Call) -> str:
    slope, shift = call.layer.number(0, 0.2), call.layer.number(1, 0.5)
    return lowering.hard_sigmoid(
        call.builder, call.layer.name, call.names[0], slope, shift
    )


def _power_of(call: Call) -> str:
    """(shift + scale · x) to a power, as Caffe has it."""
    power, scale, shift = (
        call.layer.number(key, default) for key, default in enumerate((1.0, 1.0, 0.0))
    )
    inner = call.affine(call.names[0], scale, shift)
    if power == 1:
        return inner
    return _with_numbers(call.on([inner]), 6, np.array(power))


def _exponential(call: Call) -> str:
    base, scale, shift = (
        call.layer.number(key, default) for key, default in enumerate((-1.0, 1.0, 0.0))
    )
    if base != -1 and base <= 0:
        raise call.layer.refuse(f"its base is {base}", "")
    factor = 1.0 if base == -1 else math.log(base)
    inner = call.affine(call.names[0], scale * factor, shift * factor)
    return call.add(ops.Unary, inner, function="exp")


def _elu(call: Call) -> str:
    alpha = call.layer.number(0, 0.1)
    return lowering.elu(call.builder, call.layer.name, call.names[0], alpha)


def _celu(call: Call) -> str:
    alpha = call.layer.number(0, 1.0)
    if alpha <= 0:
        raise call.layer.refuse(f"its alpha is {alpha}", "use one above 0")
    return lowering.elu(
        call.builder, call.layer.name, call.names[0], alpha, input_scale=1 / alpha
    )


def _selu(call: Call) -> str:
    alpha, scale = call.layer.number(0, 1.67326324), call.layer.number(1, 1.050700987)
    return lowering.elu(
        call.builder, call.layer.name, call.names[0], alpha, scale=scale
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
        call.builder, layer.name, call.names[0], groups, weight, bias, epsilon
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
        call.names[0],
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
    return call.affine(call.names[0], factors, offsets)


def _bias(call: Call) -> str:
    channels = _channels(call, call.layer.integer(0, 0))
    return call.affine(call.names[0], 1, call.weights.plain(channels, call.layer))


def _channels(call: Call, count: int) -> int:
    return _channels_of(call.layer, count, call.shape.channels)


def _channels_of(layer: Layer, count: int, channels: int) -> int:
    if count != channels:
        raise layer.refuse(f"{count} numbers for {channels} channels", "")
    return count


# The operation with its two operands the other way round.
_SWAPPED = {0: 0, 1: 7, 2: 2, 3: 8, 4: 4, 5: 5, 7: 1, 8: 3}


def _binary(call: Call) -> str:
    kind = call.layer.integer(0, 0)
    if call.layer.integer(1, 0):
        return _with_numbers(call, kind, np.array(call.layer.number(2, 0)))
    first, second = _two(call)
    if isinstance(first, np.ndarray) and not isinstance(second, np.ndarray):
        return _with_numbers(call.on([second]), _SWAPPED.get(kind, -1), first)
    if isinstance(second, np.ndarray):
        return _with_numbers(call.on([first]), kind, second)
    first, second = _alike(call, *call.names)
    if kind == 1:
        second = call.affine(second, -1, 0)
    elif kind == 7:
        first = call.affine(first, -1, 0)
    elif kind == 2:
        return call.add(ops.Multiply, first, second)
    elif kind in (3, 8):
        upper, lower = (first, second) if kind == 3 else (second, first)
        inverse = call.add(ops.Unary, lower, function="reciprocal")
        return call.add(ops.Multiply, upper, inverse)
    elif kind in (4, 5):
        extreme = lowering.maximum if kind == 4 else lowering.minimum
        return extreme(call.builder, call.layer.name, first, second)
    elif kind != 0:
        raise call.layer.refuse(
            f"operation {kind} on two values", advice(call.layer.kind)
        )
    return call.add(ops.Add, first, second)


def _alike(call: Call, first: str, second: str) -> tuple[str, str]:
    """Both values with the channels of the larger, as one channel may stand for all."""
    counts = [call.builder.shapes[value].channels for value in (first, second)]
    one, other = (
        lowering.pick_channels(call.builder, call.layer.name, value, [0] * max(counts))
        if count == 1
        else value
        for value, count in zip((first, second), counts, strict=True)
    )
    return one, other


def _with_numbers(call: Call, kind: int, given: npt.NDArray[Any]) -> str:
    """An operation on a value and one number, or one for each channel."""
    layer, value = call.layer, call.names[0]
    channels = call.shape.channels
    if given.shape not in ((channels,), (channels, 1, 1)) and given.size != 1:
        raise layer.refuse(
            f"the constant has the shape {given.shape}, not one number for each "
            "channel",
            ADVICE,
        )
    numbers = given.astype(np.float64).reshape(-1)
    first = float(numbers[0])
    is_one = bool((numbers == first).all())
    if kind in (0, 1):
        return call.affine(value, 1, numbers if kind == 0 else -numbers)
    if kind == 2 or (kind == 3 and numbers.all()):
        return call.affine(value, numbers if kind == 2 else 1 / numbers, 0)
    if kind == 7:
        return call.affine(value, -1, numbers)
    if kind == 8:
        inverse = call.add(ops.Unary, value, function="reciprocal")
        return call.affine(inverse, numbers, 0)
    if kind in (4, 5):
        bound = lowering.at_least if kind == 4 else lowering.at_most
        return bound(call.builder, layer.name, value, numbers)
    functions = {0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"}
    if kind == 6 and is_one and first in (2, 3, 4):
        power = call.add(ops.Multiply, value, value)
        if first == 2:
            return power
        return call.add(ops.Multiply, power, value if first == 3 else power)
    if kind == 6 and is_one and first in functions:
        return call.add(ops.Unary, value, function=functions[first])
    raise layer.refuse(f"operation {kind} with {first:g}", advice(layer.kind))


def _reduction(call: Call) -> str | Pooled:
    """A mean, sum or maximum over channels, or over the whole picture."""
    layer, builder, value = call.layer, call.builder, call.names[0]
    keeps = layer.integer(4, 0)
    axes = sorted(int(axis) % 3 for axis in layer.numbers(3))
    kind, is_plain = layer.integer(0, 0), layer.number(2, 1.0) == 1
    channels = {
        0: lowering.channel_sum,
        3: lowering.channel_mean,
        4: lowering.channel_max,
    }
    if is_plain and axes == [0] and keeps and kind in channels:
        return channels[kind](builder, layer.name, value)
    if is_plain and axes == [1, 2] and kind in (3, 4):
        name = call.add(ops.GlobalMean if kind == 3 else ops.GlobalMax)
        count = call.shape.channels
        return Pooled(name, (count, 1, 1) if keeps else (count,))
    raise layer.refuse(
        f"operation {kind} over axes {axes}",
        "reduce channels, or take pixels' mean or maximum",
    )


def _eltwise(call: Call) -> str:
    kind = call.layer.integer(0, 0)
    if kind not in (0, 1, 2):
        raise call.layer.refuse(f"operation {kind}", advice("Eltwise"))
    factors = (call.layer.numbers(1) if kind == 1 else ()) or (1.0,) * len(call.names)
    if len(factors) != len(call.names):
        raise call.layer.refuse(f"{len(factors)} factors", "")
    total, *others = (
        value if factor == 1 else call.affine(value, factor, 0)
        for value, factor in zip(call.names, factors, strict=True)
    )
    for value in others:
        if kind == 2:
            total = lowering.maximum(call.builder, call.layer.name, total, value)
        else:
            total = call.add(ops.Add if kind else ops.Multiply, total, value)
    return total


def _slice(call: Call) -> list[Given]:
    if call.layer.integer(1, 0) not in (0, -3):
        raise call.layer.refuse("it splits rows or columns", "split channels")
    sizes = [int(size) for size in call.layer.numbers(0)]
    channels = call.shape.channels
    parts: list[Given] = []
    start = 0
    for place, size in enumerate(sizes):
        left = len(sizes) - place
        width = (channels - start) // left if size == _DYNAMIC else size
        if not 0 < width <= channels - start:
            raise call.layer.refuse(f"sizes {sizes} of {channels} channels", "")
        parts.append(
            lowering.pick_channels(
                call.builder,
                call.layer.name,
                call.names[0],
                range(start, start + width),
            )
        )
        start += width
    return parts


def _crop(call: Call) -> str:
    layer, shape, value = call.layer, call.shape, call.names[0]
    if len(call.values) == 2:
        left, top = layer.integer(0, 0), layer.integer(1, 0)
        small = call.builder.shapes[call.names[1]]
        if layer.integer(2, 0) or small.channels != shape.channels:
            raise layer.refuse("it crops channels", "crop rows and columns")
        rows, columns = range(top, top + small.height), range(left, left + small.width)
    elif layer.numbers(9):
        channels, rows, columns = _listed_crop(call)
        value = lowering.pick_channels(call.builder, layer.name, value, channels)
    else:
        channels, rows, columns = _cut(call)
        value = lowering.pick_channels(call.builder, layer.name, value, channels)
    margins = (
        rows.start,
        columns.start,
        shape.height - rows.stop,
        shape.width - columns.stop,
    )
    return call.add(ops.Crop, value, margins=margins) if any(margins) else value


def _cut(call: Call) -> list[range]:
    """Channels, rows and columns of a crop by offsets from the front and the back."""
    layer, shape = call.layer, call.shape
    axes = (
        (shape.channels, 2, 5, 8),
        (shape.height, 1, 4, 7),
        (shape.width, 0, 3, 6),
    )
    kept = []
    for axis, (extent, front, size, back) in enumerate(axes):
        start, count = layer.integer(front, 0), layer.integer(size, 0)
        stop = extent - layer.integer(back, 0)
        if count != _DYNAMIC:
            # The number of channels does not depend on the picture's size.
            if axis or count < 1:
                raise layer.refuse("it crops to a fixed size", "crop by margins")
            stop = min(stop, start + count)
        kept.append(range(start, stop))
    if not all(kept) or min(part.start for part in kept) < 0:
        raise layer.refuse("it keeps nothing", "")
    return kept


def _listed_crop(call: Call) -> list[range]:
    """Channels, rows and columns of a crop that lists starts, ends and axes."""
    starts, ends, axes = (
        [int(n) for n in call.layer.numbers(key)] for key in (9, 10, 11)
    )
    axes = axes or list(range(len(starts)))
    if not len(starts) == len(ends) == len(axes):
        raise call.layer.refuse("its lists differ in length", "")
    extents = [call.shape.channels, call.shape.height, call.shape.width]
    kept = [range(extent) for extent in extents]
    for start, end, axis in zip(starts, ends, axes, strict=True):
        extent = extents[axis % 3]
        start = 0 if start == _DYNAMIC else start
        end = extent if end == _DYNAMIC else end
        # An end beyond the edge is the edge; one from the back depends on no size.
        last = min(end, extent) if end > 0 else extent + end
        kept[axis % 3] = range(start if start >= 0 else extent + start, last)
    if not all(kept) or min(part.start for part in kept) < 0:
        raise call.layer.refuse("it keeps nothing", "")
    return kept


def _pad(call: Call) -> str:
    layer = call.layer
    top, bottom, left, right = (layer.integer(key, 0) for key in range(4))
    kind, around = layer.integer(4, 0), (top, left, bottom, right)
    before, after, fill = layer.integer(7, 0), layer.integer(8, 0), layer.number(5, 0)
    if layer.integer(6, 0) or (kind and (before or after)):
        raise layer.refuse("each channel has its own padding", "pad all alike")
    if kind == 0:
        value = call.names[0]
        if before or after:
            value = lowering.pad_channels(
                call.builder, layer.name, value, before, after, fill
            )
        return lowering.constant_pad(call.builder, layer.name, value, around, fill)
    modes = {1: "replicate", 2: "reflect"}
    if kind not in modes:
        raise layer.refuse(f"padding of type {kind}", "use type 0, 1 or 2")
    return call.add(ops.Pad, mode=modes[kind], padding=around)


def _reorg(call: Call) -> str:
    factor, channels = call.layer.integer(0, 1), call.shape.channels
    value = lowering.pixel_unshuffle(
        call.builder, call.layer.name, call.names[0], factor
    )
    if not call.layer.integer(1, 0):
        return value
    # The channels of each block's first pixel, then those of its second.
    order = np.arange(channels * factor**2).reshape(channels, -1).T.ravel()
    return lowering.pick_channels(call.builder, call.layer.name, value, order.tolist())


def _two(call: Call) -> tuple[Given, Given]:
    if len(call.values) != 2:
        raise call.layer.refuse(f"it has {len(call.values)} inputs, not two", "")
    return call.values[0], call.values[1]


def _concat(call: Call) -> str:
    if call.layer.integer(0, 0) not in (0, -3):
        raise call.layer.refuse("it joins rows or columns", "join channels")
    return call.add(ops.Concat)


def _pixel_shuffle(call: Call) -> str:
    factor, value, count = call.layer.integer(0, 1), call.names[0], call.shape.channels
    is_divided = 1 <= factor <= MAX_EXTENT and count % factor**2 == 0
    if call.layer.integer(1, 0) and is_divided:
        # The channels of each block's first pixel come first, then its second's.
        order = np.arange(count).reshape(factor**2, -1).T.ravel()
        value = lowering.pick_channels(
            call.builder, call.layer.name, value, order.tolist()
        )
    return call.add(ops.PixelShuffle, value, factor=factor)


def _interp(call: Call) -> str:
    layer = call.layer
    mode = {1: "nearest", 2: "bilinear", 3: "bicubic"}.get(layer.integer(0, 0))
    if mode is None or layer.integer(6, 0):
        raise layer.refuse(
            "it aligns corners, or has an unknown mode",
            "interpolate by a constant factor with align_corners=False",
        )
    if layer.integer(3, 0) or layer.integer(4, 0):
        raise layer.refuse("it resizes to a fixed size", "resize by a factor")
    value, shape, size = call.names[0], call.shape, _target(call)
    if size is None:
        rows, columns = (
            Fraction(layer.number(key, 1)).limit_denominator(MAX_EXTENT)
            for key in (1, 2)
        )
    else:
        rows, columns = Fraction(size[0], shape.height), Fraction(size[1], shape.width)
    if rows == columns:
        ratio = rows.numerator, rows.denominator
        return call.add(ops.Resize, value, mode=mode, ratio=ratio)
    if size is None:
        factors = rows, columns
        return lowering.resize_by_axes(call.builder, layer.name, value, mode, factors)
    return lowering.resize_to(call.builder, layer.name, value, mode, size)


def _target(call: Call) -> tuple[int, int] | None:
    """Height and width of the result, where they follow from values' sizes."""
    if text := call.layer.text(9):
        sizes = evaluate(text, [_extents(call, given) for given in call.values])
        if len(sizes) != 2 or min(sizes) < 1:
            raise call.layer.refuse(f"it resizes to {sizes}", "")
        return sizes[1], sizes[0]
    if len(call.values) == 1:
        return None
    other = call.builder.shapes[call.names[1]]
    return other.height, other.width


def _dropout(call: Call) -> str:
    return call.affine(call.names[0], call.layer.number(0, 1), 0)


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
        return call.affine(call.names[0], -1, 0)
    if kind == 8:
        return lowering.log(call.builder, call.layer.name, call.names[0])
    if kind == 4:
        return call.add(ops.Multiply, call.names[0], call.names[0])
    if kind not in functions:
        raise call.layer.refuse(f"function {kind}", advice(call.layer.kind))
    return call.add(ops.Unary, function=functions[kind])


# ncnn layer → what becomes of it.
HANDLERS: Mapping[str, Handler] = {
    "Convolution": _convolution,
    "ConvolutionDepthWise": _convolution,
    "Deconvolution": _deconvolution,
    "DeconvolutionDepthWise": _deconvolution,
    "Convolution1D": _no_layer,
    "Gemm": _gemm,
    "InnerProduct": _inner_product,
    "MemoryData": _memory_data,
    "Flip": _flip,
    "ShuffleChannel": _shuffle_channel,
    "Tile": _tile,
    "Softmax": _softmax,
    "LayerNorm": _layer_norm,
    "RMSNorm": _layer_norm,
    "Pooling": _pooling,
    "Crop": _crop,
    "Padding": _pad,
    "Slice": _slice,
    "Reorg": _reorg,
    "AbsVal": _function("abs"),
    "CELU": _celu,
    "BNLL": _function("softplus"),
    "ELU": _elu,
    "Exp": _exponential,
    "Power": _power_of,
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
    "Reduction": _reduction,
    "UnaryOp": _unary,
    "Concat": _concat,
    "PixelShuffle": _pixel_shuffle,
    "Interp": _interp,
    "Dropout": _dropout,
}
_OF_POOLED: Mapping[str, Callable[[Call, Pooled], Pooled]] = {
    "Convolution1D": _pooled_convolution,
    "Gemm": _pooled_gemm,
    "InnerProduct": _pooled_product,
    "Softmax": _pooled_softmax,
}
