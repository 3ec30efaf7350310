"""What becomes of each ONNX operation: `HANDLERS`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper, numpy_helper

from upfrost.network import graph as ops
from upfrost.network.graph import MAX_EXTENT, GraphError, Shape
from upfrost_exporter import lowering, sampling
from upfrost_exporter.builder import ExportError, GraphBuilder, Numbers, line
from upfrost_exporter.gelu import Erf
from upfrost_exporter.lowering import Moved, Partial, Pooled
from upfrost_exporter.sampling import Arithmetic, Placed

Constant = npt.NDArray[Any]
# What attributes and constants that no operation has lead to.
MALFORMED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
_LARGEST = float(np.finfo(np.float32).max)
_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE)


@dataclass(frozen=True)
class Parts:
    """What SplitToSequence gives, of which SequenceAt takes one."""

    names: tuple[str, ...]


Given = str | Moved | Pooled | Partial | Placed | Parts | Constant | None


def tensor_array(tensor: TensorProto) -> Constant:
    """A tensor's numbers. Raises `ExportError` for one that is damaged."""
    try:
        return numpy_helper.to_array(tensor)
    except MALFORMED as error:
        raise ExportError(
            f"tensor {tensor.name[:140]!r} is damaged: {line(error)}"
        ) from None


class Call:
    """One operation with its inputs: names of values, moved values, or constants."""

    def __init__(
        self,
        builder: GraphBuilder,
        node: NodeProto,
        inputs: Sequence[Given],
        opset: int,
        place: str,
        *,
        attends: bool = False,
        samples: bool = False,
    ) -> None:
        self.builder = builder
        self.node = node
        self.inputs = inputs
        self.opset = opset
        self.place = place
        # Whether the model has attention, or GridSample, somewhere.
        self.attends = attends
        self.samples = samples
        try:
            self._attributes = {
                attribute.name: helper.get_attribute_value(attribute)
                for attribute in node.attribute
            }
        # Of a kind that is not the one it says.
        except (AttributeError, TypeError, ValueError):
            raise self.refuse("an attribute of it is malformed", "") from None
        # PyTorch writes /body/body.0/Conv.
        label: str | bytes = node.name or node.output[0]
        if isinstance(label, bytes):  # of a damaged file: it is no UTF-8
            label = label.decode(errors="replace")
        self.label = label.strip("/").replace("/", ".")

    def on(self, inputs: Sequence[Given]) -> Call:
        """The same operation with other inputs."""
        given = self.builder, self.node, inputs, self.opset, self.place
        return Call(*given, attends=self.attends, samples=self.samples)

    def get(self, attribute: str, default: Any = None) -> Any:
        found = self._attributes.get(attribute, default)
        return found.decode() if isinstance(found, bytes) else found

    def value(self, index: int = 0) -> str:
        """Name of the value that input `index` is."""
        found = self.inputs[index]
        if isinstance(found, Moved):
            raise self.refuse(
                f"input {index + 1} has the shape {found.places.shape}, which is not "
                "(1, channels, height, width)",
                _CHANNELS_FIRST if found.places.ndim == 4 else _FOUR_AXES,
            )
        if isinstance(found, Partial):
            raise self.refuse(
                f"input {index + 1} is a sum of pixels, or of rows or columns alone",
                "reduce both, or take a mean",
            )
        if isinstance(found, Placed):
            raise self.refuse(sampling.OF_PLACES, sampling.ADVICE)
        if not isinstance(found, str):
            raise self.refuse(f"input {index + 1} is a constant", REPLACE)
        return found

    def constant(self, index: int) -> Constant | None:
        """The constant that input `index` is, None where it is left out."""
        found = self.inputs[index] if index < len(self.inputs) else None
        if isinstance(found, Result):
            raise self.refuse(
                f"input {index + 1} is computed from the picture", "make it a constant"
            )
        return found

    def required(self, index: int) -> Constant:
        found = self.constant(index)
        if found is None:
            raise self.refuse(f"input {index + 1} is missing", "")
        return found

    def tensor(self, index: int) -> str | None:
        """Name of the graph tensor with the numbers of input `index`."""
        found = self.constant(index)
        if found is None:
            return None
        return self.builder.tensor(self.node.input[index], found)

    def shape(self, index: int = 0) -> Shape:
        return self.builder.shapes[self.value(index)]

    def add(self, kind: Any, inputs: Sequence[str], **attributes: Any) -> str:
        return self.builder.add(kind, self.label, inputs, **attributes)

    def refuse(self, reason: str, advice: str) -> ExportError:
        name = f" {self.node.name!r}" if self.node.name else ""
        # What stops a transformer first is often a mere change of shape.
        if self.attends and advice in (REPLACE, _CHANNELS_FIRST, _FOUR_AXES):
            advice = _NO_ATTENTION
        what_to_do = f"; {advice}" if advice else ""
        return ExportError(
            f"cannot import {self.node.op_type}{name} ({self.place}): "
            f"{reason}{what_to_do}"
        )


Result = str | Moved | Pooled | Partial | Placed | Parts
Handler = Callable[[Call], Result | Sequence[Result]]


def translate(call: Call) -> Sequence[Result]:
    """What becomes of an operation on values. Raises `ExportError` or `GraphError`."""
    kind = call.node.op_type
    if call.samples and (of_places := _among_placed(call)) is not None:
        return [of_places]
    if any(isinstance(given, Pooled) for given in call.inputs):
        return _among_pooled(call)
    if kind in ("Dropout", "Identity") and isinstance(call.inputs[0], Partial):
        return [call.inputs[0]]
    is_moved = any(isinstance(given, Moved) for given in call.inputs)
    if kind in _MOVES or (is_moved and kind in _MOVES_OF_MOVED):
        return [_move(call)]
    handler = HANDLERS.get(kind)
    if handler is None:
        raise call.refuse("upfrost has no such operation", advice(kind))
    if is_moved and kind not in _LAST_AXIS:
        return [_among_moved(call)]
    return _results(handler(call))


def _results(given: Result | Sequence[Result]) -> Sequence[Result]:
    return [given] if isinstance(given, Result) else given


def channels_last(builder: GraphBuilder, name: str) -> Moved:
    """A value as TensorFlow has it."""
    return Moved(name, lowering.places(builder, name)[None].transpose(0, 2, 3, 1))


def _move(call: Call) -> str | Moved:
    """Reshape and Transpose: which numbers stand where, and a value if it can be one.

    So pixel shuffle is written by converters that do not know DepthToSpace: split the
    channels, transpose, join.
    """
    if isinstance(call.inputs[0], Partial):
        call.value()  # refuses it
    given = _whole(call, call.inputs[0])
    if given is None:
        raise call.refuse("its first input is a constant", REPLACE)
    return _placed_as(call, given.name, _rearranged(call, given.places))


def _placed_as(call: Call, name: str, places: npt.NDArray[np.int32]) -> str | Moved:
    """A value with its numbers at `places`, as one of its own if it can be."""
    if places.ndim == 4 and len(places) == 1:
        with suppress(GraphError):
            return lowering.rearrange(call.builder, call.label, name, places[0])
    return Moved(name, places)


def _scatter(call: Call) -> str | Moved:
    """Some numbers of a value replaced by another's, as x[:, :n] = y is recorded."""
    value, update = (_whole(call, call.inputs[index]) for index in (0, 2))
    if call.get("reduction", "none") != "none" or not (value and update):
        raise call.refuse("it adds numbers up, or puts constants in", REPLACE)
    indices = np.moveaxis(call.required(1).astype(np.int64), -1, 0)
    joined = call.add(ops.Concat, [value.name, update.name])
    places, own = value.places.copy(), lowering.places(call.builder, value.name)
    places[tuple(indices)] = update.places + np.int32(own.size)
    return _placed_as(call, joined, places)


def _whole(call: Call, given: Given) -> Moved | None:
    if isinstance(given, str):
        return Moved(given, lowering.places(call.builder, given)[None])
    return given if isinstance(given, Moved) else None


def _among_placed(call: Call) -> Result | None:
    """An operation on the places of pixels; None for one that is on no such thing.

    They are met where a value is added to numbers that differ from pixel to pixel.
    """
    kind, given = call.node.op_type, call.inputs
    if kind == "GridSample":
        return _grid_sample(call)
    arithmetic = _ARITHMETIC.get(kind)
    first = next((each for each in given if isinstance(each, Placed)), None)
    if first is None:
        values = [each for each in given if isinstance(each, str | Moved)]
        numbers = [each for each in given if isinstance(each, np.ndarray)]
        is_sum = arithmetic in ("add", "subtract") and len(values) == len(numbers) == 1
        if not is_sum or not sampling.differs_by_pixel(numbers[0]):
            return None
    elif given[0] is first and kind in _KEEP_PLACES:
        return first
    elif given[0] is first and kind in _MOVES | _MOVES_OF_MOVED:
        return first.moved(lambda array: _rearranged(call, array))
    elif kind == "DepthToSpace" and first.places.ndim == 4:
        return first.moved(lambda array: _blocks_to_pixels(call, array))
    elif kind == "Neg":
        return sampling.combine("multiply", first, np.array(-1.0))
    if arithmetic is None:
        raise call.refuse(sampling.OF_PLACES, sampling.ADVICE)
    return sampling.combine(arithmetic, *(_placed(call, each) for each in given))


_ARITHMETIC: Mapping[str, Arithmetic] = {
    "Add": "add",
    "Sub": "subtract",
    "Mul": "multiply",
    "Div": "divide",
}
_KEEP_PLACES = {"Cast", "Identity", "Dropout"}


def _placed(call: Call, given: Given) -> Placed | Constant:
    if isinstance(given, str):
        given = Moved(given, lowering.places(call.builder, given)[None])
    if isinstance(given, Moved):
        return sampling.placed(given)
    if isinstance(given, Placed | np.ndarray):
        return given
    raise call.refuse(sampling.OF_PLACES, sampling.ADVICE)


def _blocks_to_pixels(call: Call, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """DepthToSpace of any numbers."""
    factor = int(call.get("blocksize", 0))
    if not 1 <= factor <= MAX_EXTENT or array.shape[1] % factor**2:
        raise call.refuse(f"blocksize is {factor}", "")
    if call.get("mode", "DCR") == "DCR":
        blocks = array.reshape(len(array), factor**2, -1, *array.shape[2:])
        array = blocks.swapaxes(1, 2).reshape(array.shape)
    return sampling.shuffled(array, factor)


def _grid_sample(call: Call) -> str | Moved:
    mode, padding = call.get("mode", "bilinear"), call.get("padding_mode", "zeros")
    if mode not in ("bilinear", "linear") or padding != "border":
        raise call.refuse(
            f"its mode is {mode}, its padding {padding}",
            "sample bilinearly, with padding_mode border",
        )
    value, grid = call.inputs[:2]
    if isinstance(value, str):
        value = Moved(value, lowering.places(call.builder, value)[None])
    if isinstance(grid, Moved):
        grid = sampling.placed(grid)
    if not isinstance(value, Moved) or not isinstance(grid, Placed):
        raise call.refuse(sampling.ANYWHERE, sampling.ADVICE)
    aligned = bool(call.get("align_corners", 0))
    result = sampling.grid_sample(
        call.builder, call.label, value, grid, align_corners=aligned
    )
    return result.name if len(result.places) == 1 else result


_MOVES = {
    *("Flatten", "Gather", "GatherND", "Reshape", "Squeeze", "Tile", "Transpose"),
    "Unsqueeze",
}
_MOVES_OF_MOVED = {"Expand", "Slice"}


def _rearranged(call: Call, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """What an operation that only moves numbers makes of an array."""
    kind, rank = call.node.op_type, array.ndim
    given = call.get("perm")
    try:
        match kind:
            case "Transpose":
                return array.transpose(given)
            case "Flatten":
                axis = call.get("axis", 1) % (rank + 1)
                return array.reshape(math.prod(array.shape[:axis]), -1)
            case "Squeeze" | "Unsqueeze":
                axes = _numbers(call, "axes", 1)
                given = tuple(axes) if axes is not None else None
                if kind == "Squeeze":
                    return np.squeeze(array, given)
                return np.expand_dims(array, given or ())
            case "Slice":
                return array[_slices(call, array.shape)]
            case "GatherND" if not call.get("batch_dims", 0):
                indices = tuple(np.moveaxis(call.required(1).astype(np.int64), -1, 0))
                kept = math.prod(array.shape[len(indices) :])
                if indices[0].size * kept <= lowering.MAX_PLACES:
                    picked: npt.NDArray[Any] = array[indices]
                    return picked
        given = [int(side) for side in call.required(1).reshape(-1)]
        if kind == "Reshape":
            if not call.get("allowzero", 0):
                sides = dict(enumerate(array.shape))
                given = [side or sides.get(axis, 0) for axis, side in enumerate(given)]
            return array.reshape(given)
        size = array.size
        if kind == "Gather":
            axis = call.get("axis", 0) % rank
            if size // array.shape[axis] * len(given) <= lowering.MAX_PLACES:
                return np.take(array, call.required(1).astype(np.int64), axis)
        elif kind == "Tile":
            if min(given) > 0 and size * math.prod(given) <= lowering.MAX_PLACES:
                return np.tile(array, given)
        else:
            shape = np.broadcast_shapes(array.shape, tuple(given))
            if math.prod(shape) <= lowering.MAX_PLACES:
                return np.broadcast_to(array, shape)
    # What numpy says to a shape or an order of axes that cannot be.
    except (ValueError, OverflowError, IndexError, TypeError):
        pass
    raise call.refuse(f"it changes the shape {array.shape} to {given}", REPLACE)


def _slices(call: Call, shape: Sequence[int]) -> tuple[slice, ...]:
    starts, ends = (_numbers(call, name, i) for i, name in ((1, "starts"), (2, "ends")))
    if starts is None or ends is None:
        raise call.refuse("its limits are missing", "")
    axes = _numbers(call, "axes", 3) or list(range(len(starts)))
    steps = (_numbers(call, "steps", 4) if call.opset >= 10 else None) or [1] * len(
        axes
    )
    kept = [slice(None)] * len(shape)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        # One to the front from the back ends before the first.
        is_all = step < 0 and end < -shape[axis % len(shape)]
        kept[axis % len(shape)] = slice(start, None if is_all else end, step)
    return tuple(kept)


def _among_pooled(call: Call) -> Sequence[Result]:
    """An operation on what is one number for each channel, maybe with whole values."""
    kind = call.node.op_type
    first = next(given for given in call.inputs if isinstance(given, Pooled))
    if kind in _MOVES and call.inputs[0] is first:
        shape = _rearranged(call, np.zeros(first.shape, np.int32)).shape
        if math.prod(shape) == math.prod(first.shape):
            return [Pooled(first.name, shape)]
        raise call.refuse(f"it changes the shape {first.shape} to {shape}", REPLACE)
    mixed = any(isinstance(given, str | Moved) for given in call.inputs)
    plain_shape = (1, math.prod(first.shape), 1, 1)
    meets_all = (1,) * (4 - len(first.shape)) + first.shape == plain_shape
    if (mixed or kind == "Expand") and not meets_all:
        raise call.refuse(f"an input has the shape {first.shape}", REPLACE)
    if kind == "Div":
        _check_divisor(call, first)
    handler = _OF_POOLED.get(kind)
    if handler is not None and first.shape != plain_shape:
        return [handler(call, first)]
    inputs: list[Given] = []
    whole = next((given for given in call.inputs if isinstance(given, str)), None)
    for given in call.inputs:
        if isinstance(given, Pooled):
            given = given.name
            if whole is not None:
                given = lowering.spread(call.builder, call.label, given, whole)
        elif isinstance(given, np.ndarray) and kind in _POINTWISE and not mixed:
            # Of as many numbers as there are channels, wherever these stand.
            given = given.reshape(1, -1, 1, 1) if given.size > 1 else given
        inputs.append(given)
    results = translate(call.on(inputs))
    if mixed or kind in ("Expand", "Resize", "Upsample"):
        return results
    if first.shape == plain_shape:
        return [
            Pooled(each, (1, call.builder.shapes[each].channels, 1, 1))
            if isinstance(each, str)
            else each
            for each in results
        ]
    if kind not in _POINTWISE:
        raise call.refuse(f"its input has the shape {first.shape}", REPLACE)
    return [Pooled(str(each), first.shape) for each in results]


def _check_divisor(call: Call, given: Pooled | Partial) -> None:
    """Refuse what a variance is divided by that has one degree of freedom less."""
    shape, divisor = call.builder.shapes[given.name], call.inputs[1]
    count = shape.height * shape.width
    if not isinstance(divisor, np.ndarray) or divisor.size != 1:
        return
    if float(divisor.item()) == count - 1 > 1:
        raise call.refuse(
            f"it divides by the {count} pixels less 1, as an unbiased variance does, "
            "which depends on the picture's size",
            "set correction=0 (unbiased=False), or divide by all pixels",
        )


def _pooled_product(call: Call, given: Pooled) -> Pooled:
    """Gemm and MatMul: a linear layer on channels."""
    rows = math.prod(given.shape[:-1])
    name = _linear(call, given.name) if rows == 1 else None
    if call.inputs[0] is not given or name is None:
        raise call.refuse("it is no layer on channels", REPLACE)
    return Pooled(name, (*given.shape[:-1], call.builder.shapes[name].channels))


def _linear(call: Call, value: str) -> str | None:
    """Gemm or MatMul with a value's channels; None where they do not fit."""
    matrix, bias = call.required(1).astype(np.float64), call.constant(2)
    if call.get("transB", 0):
        matrix = matrix.T
    channels = call.builder.shapes[value].channels
    if call.get("transA", 0) or matrix.ndim != 2 or len(matrix) != channels:
        return None
    weight = call.get("alpha", 1.0) * matrix.T
    name = lowering.mix_channels(call.builder, call.label, value, weight)
    if bias is None:
        return name
    offsets = call.get("beta", 1.0) * bias.astype(np.float64).reshape(-1)
    return _affine(call, name, shift=offsets)


def _pooled_convolution(call: Call, given: Pooled) -> Pooled:
    """A 1-D convolution, along channels or between them."""
    weight = call.required(1).astype(np.float64)
    padding = call.get("pads", (0, 0))
    if (
        weight.ndim != 3
        or len(given.shape) != 3
        or set(call.get("strides", (1,))) != {1}
        or set(call.get("dilations", (1,))) != {1}
        or call.get("group", 1) != 1
        or len(set(padding)) != 1
        or call.get("auto_pad", "NOTSET") != "NOTSET"
    ):
        raise call.refuse("it is no layer on pooled channels", REPLACE)
    if weight.shape[:2] == (1, 1) and given.shape[1] == 1:
        name = lowering.convolved_channels(
            call.builder, call.label, given.name, weight[0, 0], int(padding[0])
        )
        shape = given.shape
    elif given.shape[2] == 1 and weight.shape[2] == 2 * int(padding[0]) + 1:
        middle = weight[:, :, int(padding[0])]
        name = lowering.mix_channels(call.builder, call.label, given.name, middle)
        shape = (1, len(weight), 1)
    else:
        raise call.refuse("it is no layer on pooled channels", REPLACE)
    bias = call.constant(2)
    if bias is not None:
        channels = call.builder.shapes[name].channels
        offsets = np.broadcast_to(bias.astype(np.float64), channels)
        name = call.builder.affine(call.label, name, np.ones(channels), offsets)
    return Pooled(name, shape)


def _pooled_norm(call: Call, given: Pooled) -> Pooled:
    if math.prod(given.shape[1:2]) != math.prod(given.shape):
        raise call.refuse("it does not normalise channels", REPLACE)
    return Pooled(_batch_norm(call.on([given.name, *call.inputs[1:]])), given.shape)


def _pooled_softmax(call: Call, given: Pooled) -> Pooled:
    axis = call.get("axis", -1 if call.opset >= 13 else 1)
    if given.shape[axis] != math.prod(given.shape):
        raise call.refuse("it is not over channels", REPLACE)
    return Pooled(lowering.softmax(call.builder, call.label, given.name), given.shape)


_OF_POOLED: Mapping[str, Callable[[Call, Pooled], Pooled]] = {
    "BatchNormalization": _pooled_norm,
    "Conv": _pooled_convolution,
    "Gemm": _pooled_product,
    "MatMul": _pooled_product,
    "Softmax": _pooled_softmax,
}
# Those that take values with their axes in another order, as most do only where the
# channels are the last.
_LAST_AXIS = {
    *("Gemm", "InstanceNormalization", "LayerNormalization", "MatMul"),
    *("ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"),
    *("ScatterND", "Softmax"),
}
# Each number by itself, so that it does not matter where it stands.
_POINTWISE = {
    *("Abs", "Add", "Cast", "Celu", "Clip", "Div", "Dropout", "Elu", "Erf"),
    *("Exp", "Gelu"),
    *("HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Max", "Min", "Mish"),
    *("Mul", "Neg", "PRelu", "Pow", "QuickGelu", "Reciprocal", "Relu", "Selu"),
    "Sigmoid",
    *("Softplus", "Softsign", "Sqrt", "Sub", "Tanh"),
}


def _among_moved(call: Call) -> Moved:
    """An operation on values whose axes stand in another order, as TensorFlow's."""
    first, *others = [given for given in call.inputs if isinstance(given, Moved)]
    if call.node.op_type == "Concat" and len(call.inputs) == 1 + len(others):
        return _concat_moved(call, [first, *others])
    same = all(np.array_equal(other.places, first.places) for other in others)
    of = None if same else lowering.same_pixels(call.builder, [first, *others])
    is_plain = not any(isinstance(given, str) for given in call.inputs)
    fits = is_plain and (same or of is not None)
    if call.node.op_type not in _POINTWISE or not fits:
        call.value(list(call.inputs).index(first))  # refuses it
    inputs = [
        given.name if isinstance(given, Moved) else _unmoved(call, given, first)
        for given in call.inputs
    ]
    (result,) = translate(call.on(inputs))
    if of is not None:
        return lowering.channels_behind(call.builder, str(result), of)
    return Moved(str(result), first.places)


def _unmoved(call: Call, given: Given, other: Moved) -> Given:
    """A constant that meets `other`, as it meets that value's channels."""
    if not isinstance(given, np.ndarray) or given.size == 1:
        return given
    return lowering.unmoved(call.builder, given, other)


def _concat_moved(call: Call, parts: Sequence[Moved]) -> Moved:
    joined = call.add(ops.Concat, [part.name for part in parts])
    places, start = [], 0
    for part in parts:
        places.append(part.places + np.int32(start))
        start += part.places.size
    try:
        return Moved(joined, np.concatenate(places, int(call.get("axis"))))
    except ValueError as error:
        raise call.refuse(str(error), "") from None


REPLACE = (
    "replace it by convolutions, activations, sums, products, Concat, DepthToSpace, "
    "pooling or Resize"
)


_CHANNELS_FIRST = "upfrost takes channels first (NCHW): export the model so"
_FOUR_AXES = (
    "keep to those four axes there: use 2D layers, and join or split channels instead "
    "of stacking"
)
_NO_ATTENTION = "attention is out of scope: choose a convolutional network"


# Of ONNX Runtime's own operations, by their domain.
KNOWN_DOMAINS: Mapping[str, frozenset[str]] = {
    "com.microsoft": frozenset({"FusedConv", "Gelu", "QuickGelu"}),
}


def advice(kind: str, domain: str = "") -> str:
    if kind.startswith("QLinear") or kind.endswith("Integer"):
        return "use the float model"
    if domain.startswith(("com.microsoft", "com.ms.")):
        return "give the model as it was before ONNX Runtime optimised it"
    if kind == "Attention":
        return _NO_ATTENTION
    return REPLACE


def _conv(call: Call) -> str:
    weight = call.required(1)
    if weight.ndim != 4:
        raise call.refuse(f"its weight has {weight.ndim} dimensions", "use 2D layers")
    strides = _pair(call.get("strides", (1, 1)))
    dilations = _pair(call.get("dilations", (1, 1)))
    return call.add(
        ops.Conv2d,
        [call.value()],
        weight=call.tensor(1),
        bias=call.tensor(2),
        stride=strides,
        padding=_padding(call, weight.shape[2:], strides, dilations),
        dilation=dilations,
        groups=call.get("group", 1),
    )


def _fused_conv(call: Call) -> str:
    """A convolution with a sum and an activation, as ONNX Runtime's optimiser has it.

    https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
    """
    value = _conv(call)
    if call.inputs[3:] and call.inputs[3] is not None:
        value = call.add(ops.Add, [value, call.value(3)])
    kind, numbers = call.get("activation", ""), call.get("activation_params", ())
    match kind, *map(float, numbers):
        case ["" | "Relu"]:
            return call.add(ops.Relu, [value]) if kind else value
        case ["LeakyRelu", slope]:
            return call.add(ops.LeakyRelu, [value], slope=slope)
        case ["Clip", low, high]:
            return call.add(ops.Clamp, [value], low=low, high=high)
        case ["HardSigmoid", slope, shift]:
            return lowering.hard_sigmoid(call.builder, call.label, value, slope, shift)
        case ["Sigmoid" | "Tanh"]:
            return call.add(ops.Unary, [value], function=kind.lower())
    raise call.refuse(f"its activation is {kind} with {len(numbers)} numbers", REPLACE)


def _padding(
    call: Call, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[int, ...]:
    """Top, left, bottom, right."""
    automatic = call.get("auto_pad", "NOTSET")
    if automatic == "NOTSET":
        top, left, bottom, right = call.get("pads", (0, 0, 0, 0))
        return (top, left, bottom, right)
    if automatic == "VALID":
        return (0, 0, 0, 0)
    shape = call.shape()
    if shape.height % strides[0] or shape.width % strides[1]:
        raise call.refuse(
            f"its strides do not divide the {shape.width}×{shape.height} pixels that "
            "it pads by itself",
            "export with explicit pads",
        )
    less, more = lowering.same_padding(kernel, strides, dilations)
    return (*less, *more) if automatic == "SAME_UPPER" else (*more, *less)


def _batch_norm(call: Call) -> str:
    if call.get("training_mode", 0):
        raise call.refuse(
            "it normalises by the picture's own mean and variance, as in training",
            "export the model in evaluation mode, by eval()",
        )
    weight, bias, mean, variance = (call.required(index) for index in range(1, 5))
    return call.builder.batch_norm(
        call.label,
        call.value(),
        mean=mean.astype(np.float64),
        variance=variance.astype(np.float64),
        epsilon=call.get("epsilon", 1e-5),
        weight=weight.astype(np.float64),
        bias=bias.astype(np.float64),
    )


def _relu(call: Call) -> str:
    return call.add(ops.Relu, [call.value()])


def _leaky_relu(call: Call) -> str:
    return call.add(ops.LeakyRelu, [call.value()], slope=float(call.get("alpha", 0.01)))


def _prelu(call: Call) -> str:
    slopes = _per_channel(call, call.required(1), call.shape())
    name = call.builder.tensor(call.node.input[1], slopes)
    return call.add(ops.Prelu, [call.value()], slope=name)


def _clip(call: Call) -> str:
    bounds = [call.get("min"), call.get("max")]
    for index in (1, 2):
        given = call.constant(index)
        if given is not None:
            bounds[index - 1] = float(given.reshape(-1)[0])
    low, high = bounds
    if low == 0 and (high is None or high >= _LARGEST):
        return _relu(call)
    return call.add(
        ops.Clamp,
        [call.value()],
        low=-_LARGEST if low is None else max(low, -_LARGEST),
        high=_LARGEST if high is None else min(high, _LARGEST),
    )


def _add(call: Call, sign: int = 1) -> str:
    first, second = call.inputs
    if isinstance(first, str) and isinstance(second, str):
        if sign != 1:
            second = _affine(call, second, scale=np.array(sign))
        return call.add(ops.Add, _broadcast(call, first, second))
    if isinstance(first, str):
        return _affine(call, first, shift=sign * _operand(call, 1))
    return _affine(call, call.value(1), scale=np.array(sign), shift=_operand(call, 0))


def _subtract(call: Call) -> str:
    return _add(call, sign=-1)


def _multiply(call: Call) -> str:
    first, second = call.inputs
    if isinstance(first, str) and isinstance(second, str):
        return call.add(ops.Multiply, _broadcast(call, first, second))
    at = 0 if isinstance(first, str) else 1
    return _affine(call, call.value(at), scale=_operand(call, 1 - at))


def _mean_of_sum(call: Call, total: Partial, count: Constant) -> Pooled:
    """A sum of all pixels by their number."""
    _check_divisor(call, total)
    shape = call.builder.shapes[total.name]
    is_all = total.axes == {2, 3} and not total.is_mean and count.size == 1
    if not is_all or float(count.reshape(-1)[0]) != shape.height * shape.width:
        call.value()  # refuses it
    mean = call.add(ops.GlobalMean, [total.name])
    return Pooled(mean, (1, shape.channels, 1, 1))


def _divide(call: Call) -> str | Pooled:
    first, second = call.inputs
    if isinstance(first, Partial):
        return _mean_of_sum(call, first, call.required(1))
    if not isinstance(second, str):
        with np.errstate(divide="ignore"):
            return _affine(call, call.value(), scale=1 / _operand(call, 1))
    inverse = call.add(ops.Unary, [second], function="reciprocal")
    if isinstance(first, str):
        return call.add(ops.Multiply, _broadcast(call, first, inverse))
    return _affine(call, inverse, scale=_operand(call, 0))


def _broadcast(call: Call, *values: str) -> list[str]:
    """Both operands with the channels of the result, as a channel may stand for all."""
    counts = [call.builder.shapes[value].channels for value in values]
    return [
        lowering.pick_channels(call.builder, call.label, value, [0] * max(counts))
        if count == 1
        else value
        for value, count in zip(values, counts, strict=True)
    ]


def _negate(call: Call) -> str:
    return _affine(call, call.value(), scale=np.array(-1))


def _affine(
    call: Call,
    value: str,
    *,
    scale: Numbers | None = None,
    shift: Numbers | None = None,
) -> str:
    channels = call.builder.shapes[value].channels
    factors, offsets = (
        np.broadcast_to(np.float64(default) if given is None else given, channels)
        for given, default in ((scale, 1), (shift, 0))
    )
    return call.builder.affine(call.label, value, factors, offsets)


def _operand(call: Call, index: int) -> Numbers:
    """A constant operand as one number or one for each channel."""
    return _per_channel(call, call.required(index), call.shape(1 - index))


def _per_channel(call: Call, given: Constant, shape: Shape) -> Numbers:
    given = _without_pixels(given)
    sides = (1,) * (4 - given.ndim) + given.shape
    if len(sides) != 4 or sides[1] not in (1, shape.channels) or given.size != sides[1]:
        raise call.refuse(
            f"the constant has shape {given.shape}, not one number for each channel",
            "give it the shape (1, channels, 1, 1)",
        )
    return given.astype(np.float64).reshape(-1)


def _without_pixels(given: Constant) -> Constant:
    """A constant of a picture's size as one of a pixel, where all are alike."""
    if given.ndim < 3 or given.shape[-2:] == (1, 1) or not given.size:
        return given
    pixel = given[..., :1, :1]
    return pixel if (given == pixel).all() else given


def _unary(function: str) -> Handler:
    return lambda call: call.add(ops.Unary, [call.value()], function=function)


def _gelu(call: Call) -> str:
    is_tanh = call.get("approximate", "none") == "tanh"
    function = "gelu_tanh" if is_tanh else "gelu"
    return call.add(ops.Unary, [call.value()], function=function)


def _erf(call: Call) -> str:
    return call.add(Erf, [call.value()])


def _quick_gelu(call: Call) -> str:
    value = call.value()
    inner = lowering.scaled(call.builder, call.label, value, call.get("alpha", 1.702))
    gate = call.add(ops.Unary, [inner], function="sigmoid")
    return call.add(ops.Multiply, [value, gate])


def _elu(call: Call) -> str:
    alpha = float(call.get("alpha", 1.0))
    return lowering.elu(call.builder, call.label, call.value(), alpha)


def _selu(call: Call) -> str:
    # As torch.nn.SELU has them.
    alpha = float(call.get("alpha", 1.6732632423543772))
    scale = float(call.get("gamma", 1.0507009873554805))
    return lowering.elu(call.builder, call.label, call.value(), alpha, scale=scale)


def _celu(call: Call) -> str:
    alpha = float(call.get("alpha", 1.0))
    return lowering.elu(
        call.builder, call.label, call.value(), alpha, input_scale=1 / alpha
    )


def _softsign(call: Call) -> str:
    value = call.value()
    size = call.add(ops.Unary, [value], function="abs")
    more = lowering.scaled(call.builder, call.label, size, 1, 1)
    inverse = call.add(ops.Unary, [more], function="reciprocal")
    return call.add(ops.Multiply, [value, inverse])


def _log(call: Call) -> str:
    return lowering.log(call.builder, call.label, call.value())


def _sign(call: Call) -> str:
    return lowering.sign(call.builder, call.label, call.value())


def _softmax(call: Call) -> str | Moved:
    given = call.inputs[0]
    axis = call.get("axis", -1 if call.opset >= 13 else 1)
    if isinstance(given, Moved):
        # Where channels are the last axis, as PyTorch writes it below set 13.
        of = lowering.pixels(call.builder, given)
        if of is not None and axis % given.places.ndim == given.places.ndim - 1:
            name = lowering.softmax(call.builder, call.label, given.name)
            return Moved(name, given.places)
    if not isinstance(given, str) or axis % 4 != 1:
        raise call.refuse("it is over pixels, as in attention", _NO_ATTENTION)
    return lowering.softmax(call.builder, call.label, given)


def _compare(first: int, second: int, *, is_strict: bool) -> Handler:
    """1 where input `first` is above `second` (or equal), 0 elsewhere."""

    def handler(call: Call) -> str:
        upper, lower = (first, second) if is_strict else (second, first)
        swapped = [call.inputs[upper], call.inputs[lower]]
        more = _subtract(call.on(swapped))
        found = lowering.is_above(call.builder, call.label, more)
        if is_strict:
            return found
        return lowering.scaled(call.builder, call.label, found, -1, 1)

    return handler


def _not(call: Call) -> str:
    return lowering.scaled(call.builder, call.label, call.value(), -1, 1)


def _where(call: Call) -> str:
    condition, first, second = call.inputs
    if (
        isinstance(condition, np.ndarray)
        and condition.size
        and (condition.all() or not condition.any())
    ):
        return call.value(1 if condition.all() else 2)
    if not isinstance(condition, str):
        raise call.refuse("it chooses pixels by their place", REPLACE)
    if isinstance(first, str) or isinstance(second, str):
        more: Given = _subtract(call.on([first, second]))
    else:
        more = call.required(1).astype(np.float64) - call.required(2)
    chosen = _multiply(call.on([condition, more]))
    return _add(call.on([chosen, second]))


def _extreme(
    function: Callable[[GraphBuilder, str, str, str], str],
    bound: Callable[[GraphBuilder, str, str, Numbers], str],
) -> Handler:
    """The largest or the smallest of several values, number by number."""

    def handler(call: Call) -> str:
        places = range(len(call.inputs))
        first = next(at for at in places if isinstance(call.inputs[at], str))
        result = call.value(first)
        for index in places:
            if isinstance(call.inputs[index], np.ndarray):
                shape = call.builder.shapes[result]
                numbers = _per_channel(call, call.required(index), shape)
                result = bound(call.builder, call.label, result, numbers)
        for index in places[first + 1 :]:
            if isinstance(call.inputs[index], np.ndarray):
                continue
            both = _broadcast(call, result, call.value(index))
            result = function(call.builder, call.label, *both)
        return result

    return handler


def _hardsigmoid(call: Call) -> str:
    slope, shift = call.get("alpha", 0.2), call.get("beta", 0.5)
    return lowering.hard_sigmoid(
        call.builder, call.label, call.value(), float(slope), float(shift)
    )


def _power(call: Call) -> str:
    exponents = call.required(1).reshape(-1)
    exponent = float(exponents[0]) if exponents.size == 1 else math.nan
    functions = {0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"}
    if exponent in (2, 3, 4):
        value = call.value()
        power = call.add(ops.Multiply, [value, value])
        if exponent == 2:
            return power
        return call.add(ops.Multiply, [power, value if exponent == 3 else power])
    if exponent not in functions:
        raise call.refuse(f"the exponent is {exponents}", "use a square or a root")
    return call.add(ops.Unary, [call.value()], function=functions[exponent])


def _conv_transpose(call: Call) -> str:
    weight = call.required(1)
    if weight.ndim != 4 or call.get("auto_pad", "NOTSET") != "NOTSET":
        raise call.refuse("it is not 2D, or pads by itself", "give explicit pads")
    if call.get("output_shape") is not None:
        raise call.refuse("its output_shape is fixed", "give explicit pads")
    top, left, bottom, right = call.get("pads", (0, 0, 0, 0))
    bias = call.constant(2)
    return lowering.transposed_convolution(
        call.builder,
        call.label,
        call.value(),
        weight.astype(np.float64),
        None if bias is None else bias.astype(np.float64),
        stride=_pair(call.get("strides", (1, 1))),
        padding=(top, left, bottom, right),
        output_padding=_pair(call.get("output_padding", (0, 0))),
        dilation=_pair(call.get("dilations", (1, 1))),
        groups=int(call.get("group", 1)),
    )


def _space_to_depth(call: Call) -> str:
    factor, channels = int(call.get("blocksize", 0)), call.shape().channels
    if not 1 <= factor <= MAX_EXTENT:
        raise call.refuse(f"blocksize is {factor}", "")
    value = lowering.pixel_unshuffle(call.builder, call.label, call.value(), factor)
    # Channels come last in the blocks there, first in pixel unshuffle.
    order = np.arange(channels * factor**2).reshape(channels, -1).T.ravel()
    return lowering.pick_channels(call.builder, call.label, value, order.tolist())


def _numbers(call: Call, name: str, index: int) -> list[int] | None:
    """A list that is an attribute in older operation sets and an input in newer."""
    found = call.get(name)
    if found is None:
        constant = call.constant(index)
        found = None if constant is None else constant.reshape(-1)
    return None if found is None else [int(number) for number in found]


def _slice(call: Call) -> str:
    shape = call.shape()
    extents = [1, shape.channels, shape.height, shape.width]
    kept = [
        range(extent)[part]
        for extent, part in zip(extents, _slices(call, extents), strict=True)
    ]
    rows, columns = kept[2:]
    steps = rows.step, columns.step
    if len(kept[0]) != 1 or min(steps) < 1 or not all(kept):
        raise call.refuse("it mirrors rows or columns", "cut fixed margins")
    value = lowering.pick_channels(call.builder, call.label, call.value(), kept[1])
    if steps != (1, 1):
        # Those between the last one that is taken and the end do not matter.
        near = [
            extent - each.stop < 1 or extent - 1 - each[-1] < each.step
            for extent, each in zip(extents[2:], (rows, columns), strict=True)
        ]
        if not all(near):
            raise call.refuse("it ends before the last rows", "take all of them")
        if rows.start or columns.start:
            margins = (rows.start, columns.start, 0, 0)
            value = call.add(ops.Crop, [value], margins=margins)
        return lowering.pick_pixels(call.builder, call.label, value, steps)
    margins = (
        rows.start,
        columns.start,
        shape.height - rows.stop,
        shape.width - columns.stop,
    )
    return call.add(ops.Crop, [value], margins=margins) if any(margins) else value


def _split(call: Call) -> list[str]:
    if call.get("axis", 0) % 4 != 1:
        raise call.refuse("it splits rows or columns", "split channels")
    channels, count = call.shape().channels, len(call.node.output)
    sizes = _numbers(call, "split", 1)
    if sizes is None:
        sizes = _even(channels, -(-channels // count))
    return _split_by(call, sizes, count)


def _split_to_sequence(call: Call) -> Parts:
    if call.get("axis", 0) % 4 != 1 or call.constant(1) is None:
        raise call.refuse("it splits rows or columns, or by one", "split channels")
    sizes = _numbers(call, "split", 1) or []
    if call.required(1).ndim == 0:
        sizes = _even(call.shape().channels, sizes[0])
    return Parts(tuple(_split_by(call, sizes, len(sizes))))


def _sequence_at(call: Call) -> str:
    parts = call.inputs[0]
    if not isinstance(parts, Parts):
        raise call.refuse("it takes no part of a split", REPLACE)
    return parts.names[int(call.required(1).item())]


def _even(channels: int, width: int) -> list[int]:
    """Sizes of parts of `width` channels, the last maybe smaller."""
    return [min(width, channels - first) for first in range(0, channels, width)]


def _split_by(call: Call, sizes: Sequence[int], count: int) -> list[str]:
    channels = call.shape().channels
    if len(sizes) != count or sum(sizes) != channels or min(sizes) < 1:
        raise call.refuse(f"sizes {sizes} of {channels} channels", "")
    ends = np.cumsum(sizes).tolist()
    return [
        lowering.pick_channels(
            call.builder, call.label, call.value(), range(end - size, end)
        )
        for size, end in zip(sizes, ends, strict=True)
    ]


def _is_whole(call: Call, kernel: tuple[int, int]) -> bool:
    """Whether a window is the picture, as models for one size of it may have it."""
    shape = call.shape()
    return kernel == (shape.height, shape.width) and not any(call.get("pads", ()))


def _check_window(call: Call) -> None:
    """Refuse pooling that upfrost has not. Raises `ExportError`."""
    if call.get("ceil_mode", 0):
        raise call.refuse("it rounds sizes up", "export it with ceil_mode=False")
    if call.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise call.refuse("it pads by itself", "export with explicit pads")
    if set(call.get("dilations", (1, 1))) != {1}:
        raise call.refuse("it is dilated", "use dilation=1")


def _max_pool(call: Call) -> str | Pooled:
    kernel = _pair(call.get("kernel_shape"))
    _check_window(call)
    if len(call.node.output) != 1:
        raise call.refuse(
            "it gives the places of what is largest", "use the values alone"
        )
    if _is_whole(call, kernel):
        return _pooled(call, ops.GlobalMax)
    return call.add(
        ops.MaxPool2d,
        [call.value()],
        kernel=kernel,
        stride=_pair(call.get("strides", (1, 1))),
        padding=_padding(call, kernel, (1, 1), (1, 1)),
    )


def _average_pool(call: Call) -> str | Pooled:
    kernel = _pair(call.get("kernel_shape"))
    top, left, bottom, right = call.get("pads", (0, 0, 0, 0))
    around = (top, left, bottom, right)
    _check_window(call)
    if _is_whole(call, kernel):
        return _pooled(call, ops.GlobalMean)
    return lowering.average_pool(
        call.builder,
        call.label,
        call.value(),
        kernel,
        _pair(call.get("strides", (1, 1))),
        around,
        counts_padding=bool(call.get("count_include_pad", 0)),
    )


def _global(kind: type[ops.Node]) -> Handler:
    return lambda call: _pooled(call, kind)


def _pooled(call: Call, kind: type[ops.Node]) -> Pooled:
    channels = call.shape().channels
    return Pooled(call.add(kind, [call.value()]), (1, channels, 1, 1))


_Reduction = Callable[[GraphBuilder, str, str], str]


def _reduce(
    over_channels: _Reduction | None,
    over_pixels: _Reduction | None,
    *,
    is_mean: bool | None = None,
) -> Handler:
    """A mean, sum or maximum over channels, or over the whole picture."""

    def handler(call: Call) -> Result:
        given, keeps = call.inputs[0], bool(call.get("keepdims", 1))
        builder, label = call.builder, call.label
        if isinstance(given, Moved):
            return _reduce_moved(call, given, over_channels, over_pixels, is_mean)
        axes = _axes(call, 4)
        by_steps = isinstance(given, Partial) or axes in ([2], [3])
        if (by_steps or axes == [2, 3]) and keeps and is_mean is not None:
            of = given if isinstance(given, Partial) else call.value()
            found = lowering.reduced(builder, label, of, axes, is_mean=is_mean)
            if isinstance(found, Partial):
                return found
            return Pooled(found, (1, builder.shapes[found].channels, 1, 1))
        if axes == [1] and over_channels is not None:
            value = over_channels(builder, label, call.value())
            return value if keeps else Moved(value, lowering.places(builder, value))
        # The first axis is the picture itself.
        is_all = {0, *axes} == {0, 1, 2, 3}
        if over_pixels is not None and (axes == [2, 3] or (is_all and over_channels)):
            value = over_pixels(builder, label, call.value())
            if is_all and over_channels is not None:
                value = over_channels(builder, label, value)
            return Pooled(
                value, _reduced((1, call.shape().channels, 1, 1), axes, keeps)
            )
        advice = "reduce channels, or take pixels' mean or maximum"
        raise call.refuse(
            f"it is {'' if keeps else 'without keepdims '}over axes {axes}",
            advice if keeps else f"keep the dimensions; {advice}",
        )

    return handler


def _reduce_moved(
    call: Call,
    given: Moved,
    over_channels: _Reduction | None,
    over_pixels: _Reduction | None,
    is_mean: bool | None,
) -> Result:
    """A reduction of what has its axes in another order."""
    builder, label, rank = call.builder, call.label, given.places.ndim
    keeps, axes = bool(call.get("keepdims", 1)), _axes(call, rank)
    if over_pixels is not None and lowering.has_planes(builder, given, axes):
        value = over_pixels(builder, label, given.name)
        return Pooled(value, _reduced(given.places.shape, axes, keeps))
    if is_mean is not None:
        moved = lowering.summed(builder, label, given, axes, is_mean=is_mean)
        kept = np.expand_dims(moved.places, tuple(axes)) if keeps else moved.places
        return _placed_as(call, moved.name, kept)
    of = lowering.pixels(builder, given)
    if over_channels is None or of is None or axes != [rank - 1]:
        raise call.refuse(f"it is over axes {axes} of {rank}", "reduce channels")
    value = over_channels(builder, label, given.name)
    moved = lowering.channels_behind(builder, value, of)
    return moved if keeps else Moved(value, moved.places[..., 0])


def _axes(call: Call, rank: int) -> list[int]:
    """The axes of a reduction, counted from the first on; none named are all."""
    listed = _numbers(call, "axes", 1)
    if not listed and call.get("noop_with_empty_axes", 0):
        raise call.refuse("it is over no axes", "leave it out")
    return sorted(axis % rank for axis in listed or range(rank))


def _reduced(shape: Sequence[int], axes: Sequence[int], keeps: bool) -> tuple[int, ...]:
    sides = [1 if axis in axes else side for axis, side in enumerate(shape)]
    return tuple(side for axis, side in enumerate(sides) if keeps or axis not in axes)


def _smallest(call: Call) -> Result:
    """The largest of what is negated, negated."""
    given, *more = call.inputs
    value = given.name if isinstance(given, Moved) else call.value()
    less = lowering.scaled(call.builder, call.label, value, -1)
    turned = replace(given, name=less) if isinstance(given, Moved) else less
    found = _reduce(lowering.channel_max, lowering.global_max)(call.on([turned, *more]))
    if isinstance(found, Moved | Pooled):
        name = lowering.scaled(call.builder, call.label, found.name, -1)
        return replace(found, name=name)
    return lowering.scaled(call.builder, call.label, str(found), -1)


def _size_sum(builder: GraphBuilder, label: str, value: str) -> str:
    sizes = builder.add(ops.Unary, label, [value], function="abs")
    return lowering.channel_sum(builder, label, sizes)


def _channel_norm(builder: GraphBuilder, label: str, value: str) -> str:
    square = builder.add(ops.Multiply, label, [value, value])
    total = lowering.channel_sum(builder, label, square)
    return builder.add(ops.Unary, label, [total], function="sqrt")


def _layer_norm(call: Call) -> Moved:
    given, weight, bias = call.inputs[0], call.required(1), call.constant(2)
    of = lowering.pixels(call.builder, given) if isinstance(given, Moved) else None
    if not isinstance(given, Moved) or of is None or weight.ndim != 1:
        raise call.refuse("it is not over channels", "normalise the channels alone")
    name = lowering.layer_norm(
        call.builder,
        call.label,
        given.name,
        weight.astype(np.float64),
        None if bias is None else bias.astype(np.float64),
        float(call.get("epsilon", 1e-5)),
    )
    return lowering.channels_behind(call.builder, name, of)


def _matmul(call: Call) -> Moved:
    """Gemm and MatMul: a linear layer at every pixel, where channels are the last."""
    given, second = call.inputs[:2]
    if not isinstance(second, np.ndarray):
        raise call.refuse("it multiplies two values, as attention does", _NO_ATTENTION)
    of = lowering.pixels(call.builder, given) if isinstance(given, Moved) else None
    name = None
    if isinstance(given, Moved) and of is not None:
        name = _linear(call, given.name)
    if of is None or name is None:
        raise call.refuse("it is no layer on channels", REPLACE)
    return lowering.channels_behind(call.builder, name, of)


def _instance_norm(call: Call) -> Result:
    """Of each channel, or of groups of channels that stand in a row."""
    given = call.inputs[0]
    weight, bias = (call.required(index).astype(np.float64) for index in (1, 2))
    epsilon, groups = float(call.get("epsilon", 1e-5)), len(weight)
    if not isinstance(given, Moved):
        return lowering.group_norm(
            call.builder, call.label, call.value(), groups, weight, bias, epsilon
        )
    channels = call.builder.shapes[given.name].channels
    in_order = np.arange(given.places.size, dtype=np.int32)
    is_grouped = given.places.shape[:2] == (1, groups) and channels % groups == 0
    if not is_grouped or not np.array_equal(given.places.reshape(-1), in_order):
        raise call.refuse("it normalises no group of channels", REPLACE)
    name = lowering.group_norm(
        call.builder,
        call.label,
        given.name,
        groups,
        weight.repeat(channels // groups),
        bias.repeat(channels // groups),
        epsilon,
    )
    return Moved(name, given.places)


def _group_norm(call: Call) -> str:
    weight, bias = (call.required(index).astype(np.float64) for index in (1, 2))
    groups, channels = int(call.get("num_groups", 1)), call.shape().channels
    return lowering.group_norm(
        call.builder,
        call.label,
        call.value(),
        groups,
        # One for each group before operation set 21.
        weight.repeat(channels // len(weight)),
        bias.repeat(channels // len(bias)),
        float(call.get("epsilon", 1e-5)),
    )


def _expand(call: Call) -> str:
    """One channel for all, or one number for all pixels, which it is here already."""
    shape, target = call.shape(), [int(n) for n in call.required(1).reshape(-1)]
    channels = target[-3] if len(target) >= 3 else 1
    if shape.channels == 1 < channels:
        return lowering.pick_channels(
            call.builder, call.label, call.value(), [0] * channels
        )
    if channels not in (1, shape.channels):
        raise call.refuse(f"it repeats {shape.channels} channels", REPLACE)
    return call.value()


def _filled(call: Call, given: Constant) -> str | None:
    """A constant whose pixels are alike as a value; None of any other."""
    like = next(each for each in call.inputs if isinstance(each, str))
    shape, pixel = call.builder.shapes[like], given[..., :1, :1]
    fits = given.ndim == 4 and given.shape[2:] == (shape.height, shape.width)
    if not fits or len(given) != 1 or not (given == pixel).all():
        return None
    numbers = pixel.astype(np.float64).reshape(-1)
    return lowering.constant_channels(call.builder, call.label, like, numbers)


def _concat(call: Call) -> str:
    parts = []
    for index, given in enumerate(call.inputs):
        filled = _filled(call, given) if isinstance(given, np.ndarray) else None
        parts.append(filled or call.value(index))
    if call.get("axis") % 4 != 1:
        if lowering.is_circular(call.builder, parts):
            raise call.refuse("its padding is circular", "use reflect or replicate")
        raise call.refuse(f"it joins along axis {call.get('axis')}", "join channels")
    return call.add(ops.Concat, parts)


def _depth_to_space(call: Call) -> str:
    factor = int(call.get("blocksize", 0))
    value = call.value()
    if not 1 <= factor <= MAX_EXTENT:
        raise call.refuse(f"blocksize is {factor}", "")
    channels, rest = divmod(call.shape().channels, factor**2)
    if call.get("mode", "DCR") == "DCR" and not rest and channels > 1:
        # Channels come last in the blocks there, first in pixel shuffle.
        order = np.arange(channels * factor**2).reshape(factor**2, channels).T.ravel()
        value = lowering.pick_channels(call.builder, call.label, value, order.tolist())
    return call.add(ops.PixelShuffle, [value], factor=factor)


def _resize(call: Call) -> str:
    mode = {"nearest": "nearest", "linear": "bilinear", "cubic": "bicubic"}.get(
        call.get("mode", "nearest")
    )
    # Resize of operation set 10 is Upsample by another name.
    is_old = call.node.op_type == "Upsample" or call.opset < 11
    coordinates = call.get(
        "coordinate_transformation_mode", "asymmetric" if is_old else "half_pixel"
    )
    rounding = call.get("nearest_mode", "floor" if is_old else "round_prefer_floor")
    ratios = list(_ratios(call))
    ratio = ratios[0]
    half_pixel = coordinates in ("half_pixel", "pytorch_half_pixel")
    if mode == "nearest":
        as_floor = coordinates == "asymmetric" and rounding == "floor"
        # Between two pixels of a whole ratio, half pixels never round to another.
        as_round = half_pixel and rounding.startswith("round")
        is_whole = all(each.denominator == 1 for each in ratios)
        fits = as_floor or (as_round and is_whole)
    elif mode == "bicubic":
        fits = (
            half_pixel
            and call.get("cubic_coeff_a", -0.75) == -0.75
            and not call.get("exclude_outside", 0)
        )
    else:
        fits = half_pixel
    if mode is None or not fits or call.get("antialias", 0):
        advice = "export it with align_corners=False and without antialiasing"
        if is_old and mode != "nearest":
            # Below set 11 coordinates cannot be said, and PyTorch's are not those.
            advice = "export it with opset_version=11 or newer"
        raise call.refuse(
            f"upfrost has no mode {call.get('mode')} with coordinates {coordinates}, "
            f"rounding {rounding}",
            advice,
        )
    sizes = _sizes(call)
    if len(set(ratios)) == 1:
        pair = (ratio.numerator, ratio.denominator)
        return call.add(ops.Resize, [call.value()], mode=mode, ratio=pair)
    if sizes is not None:
        size = int(sizes[2]), int(sizes[3])
        with suppress(GraphError):
            return lowering.resize_to(
                call.builder, call.label, call.value(), mode, size
            )
    return lowering.resize_by_axes(call.builder, call.label, call.value(), mode, ratios)


def _of_axes(call: Call, given: Constant, others: Sequence[int]) -> Constant:
    """Numbers for all four axes: those given, and the others' own."""
    axes = [axis % 4 for axis in call.get("axes", range(4))]
    if given.size != len(axes):
        return given
    every = np.array(others, given.dtype)
    every[axes] = given.reshape(-1)
    return every


def _sizes(call: Call) -> Constant | None:
    """The sides that a Resize asks for, of all four axes."""
    sizes = call.constant(3) if call.node.op_type == "Resize" else None
    if sizes is None or not sizes.size:
        return None
    if call.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise call.refuse("it keeps the aspect ratio", "give it scales")
    shape = call.shape()
    return _of_axes(call, sizes, (1, shape.channels, shape.height, shape.width))


def _ratios(call: Call) -> Iterator[Fraction]:
    sizes = _sizes(call)
    if sizes is not None and sizes.size == 4:
        shape = call.shape()
        if int(sizes[1]) != shape.channels:
            raise call.refuse("it resizes channels", REPLACE)
        yield Fraction(int(sizes[2]), shape.height)
        yield Fraction(int(sizes[3]), shape.width)
        return
    last = 2 if call.node.op_type == "Resize" and call.opset >= 11 else 1
    scales = call.constant(last)
    if scales is None:
        scales = np.array(call.get("scales", ()))
    scales = _of_axes(call, scales, (1, 1, 1, 1))
    if scales.size != 4 or tuple(scales[:2]) != (1, 1) or not (scales[2:] > 0).all():
        raise call.refuse("its scales are not those of height and width", REPLACE)
    for scale in scales[2:]:
        yield Fraction(float(scale)).limit_denominator(MAX_EXTENT)


def _keep(call: Call) -> str:
    return call.value()


def _cast(call: Call) -> str:
    if call.get("to") not in _FLOATS:
        kind = TensorProto.DataType.Name(call.get("to")).lower()
        raise call.refuse(f"it converts to {kind}", "export the model in float32")
    return call.value()


def _cast_like(call: Call) -> str:
    other = call.inputs[1]
    if isinstance(other, np.ndarray) and other.dtype not in (np.float32, np.float64):
        raise call.refuse(f"it converts to {other.dtype}", "stay in float32")
    return call.value()


def _pad(call: Call) -> str:
    pads = _numbers(call, "pads", 1) or []
    axes = _numbers(call, "axes", 3) if call.opset >= 18 else None
    axes = [axis % 4 for axis in axes or range(4)]
    if len(pads) != 2 * len(axes):
        raise call.refuse(f"{len(pads)} pads", "")
    sides = dict.fromkeys(range(8), 0)
    for place, axis in enumerate(axes):
        sides[axis], sides[axis + 4] = pads[place], pads[place + len(axes)]
    mode = call.get("mode", "constant")
    given = call.constant(2) if call.opset >= 11 else np.array(call.get("value", 0))
    fill = float(given.reshape(-1)[0]) if given is not None and given.size else 0.0
    value = call.value()
    if sides[1] or sides[5]:
        if mode != "constant":
            raise call.refuse(f"it pads channels in the mode {mode}", "pad with zeros")
        value = lowering.pad_channels(
            call.builder, call.label, value, sides[1], sides[5], fill
        )
    if sides[0] or sides[4]:
        raise call.refuse("it pads pictures with pictures", REPLACE)
    around = [sides[2], sides[3], sides[6], sides[7]]
    top, left, bottom, right = (max(0, side) for side in around)
    if min(around) < 0:
        margins = tuple(max(0, -side) for side in around)
        value = call.add(ops.Crop, [value], margins=margins)
    if not max(around) > 0:
        return value
    if mode == "constant":
        amounts = (top, left, bottom, right)
        return lowering.constant_pad(call.builder, call.label, value, amounts, fill)
    modes = {"reflect": "reflect", "edge": "replicate"}
    if mode not in modes:
        raise call.refuse(f"it pads in the mode {mode}", "use reflect or edge")
    return call.add(
        ops.Pad, [value], mode=modes[mode], padding=(top, left, bottom, right)
    )


def _pair(given: Sequence[int]) -> tuple[int, int]:
    first, second = given
    return first, second


# ONNX operation → what it becomes.
HANDLERS: Mapping[str, Handler] = {
    "Conv": _conv,
    "FusedConv": _fused_conv,
    "BatchNormalization": _batch_norm,
    "Relu": _relu,
    "LeakyRelu": _leaky_relu,
    "PRelu": _prelu,
    "Clip": _clip,
    "Add": _add,
    "Sub": _subtract,
    "Mul": _multiply,
    "Div": _divide,
    "Neg": _negate,
    "Pow": _power,
    "Abs": _unary("abs"),
    "And": _multiply,
    "Celu": _celu,
    "Elu": _elu,
    "Erf": _erf,
    "Exp": _unary("exp"),
    "Gelu": _gelu,
    "QuickGelu": _quick_gelu,
    "Greater": _compare(0, 1, is_strict=True),
    "GreaterOrEqual": _compare(0, 1, is_strict=False),
    "HardSigmoid": _hardsigmoid,
    "HardSwish": _unary("hardswish"),
    "Less": _compare(1, 0, is_strict=True),
    "LessOrEqual": _compare(1, 0, is_strict=False),
    "Log": _log,
    "Max": _extreme(lowering.maximum, lowering.at_least),
    "Min": _extreme(lowering.minimum, lowering.at_most),
    "Mish": _unary("mish"),
    "Not": _not,
    "Reciprocal": _unary("reciprocal"),
    "Selu": _selu,
    "Sigmoid": _unary("sigmoid"),
    "Sign": _sign,
    "Softmax": _softmax,
    "Softplus": _unary("softplus"),
    "Softsign": _softsign,
    "Sqrt": _unary("sqrt"),
    "Tanh": _unary("tanh"),
    "Where": _where,
    "ConvTranspose": _conv_transpose,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global(ops.GlobalMean),
    "GlobalMaxPool": _global(ops.GlobalMax),
    "ReduceMean": _reduce(lowering.channel_mean, lowering.global_mean, is_mean=True),
    "ReduceMax": _reduce(lowering.channel_max, lowering.global_max),
    "ReduceMin": _smallest,
    "ReduceL1": _reduce(_size_sum, None),
    "ReduceSum": _reduce(lowering.channel_sum, None, is_mean=False),
    "ReduceL2": _reduce(_channel_norm, None),
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "Gemm": _matmul,
    "MatMul": _matmul,
    "Expand": _expand,
    "Slice": _slice,
    "ScatterND": _scatter,
    "SequenceAt": _sequence_at,
    "Split": _split,
    "SplitToSequence": _split_to_sequence,
    "SpaceToDepth": _space_to_depth,
    "Concat": _concat,
    "DepthToSpace": _depth_to_space,
    "Resize": _resize,
    "Upsample": _resize,
    "Identity": _keep,
    "Dropout": _keep,
    "Cast": _cast,
    "CastLike": _cast_like,
    "Pad": _pad,
}
