"""ONNX models into graphs.

`HANDLERS` says what becomes of each operation. What depends on constants and on the
picture's size only, as the targets of resizes do, is computed here for one size of
picture; that it holds for others is what the check against ONNX Runtime shows.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from upfrost import __version__
from upfrost.graph import (
    INPUT,
    MAX_EXTENT,
    MAX_NODES,
    Add,
    Clamp,
    Concat,
    Conv2d,
    Crop,
    GlobalMean,
    Graph,
    GraphError,
    LeakyRelu,
    MaxPool2d,
    Multiply,
    Pad,
    PixelShuffle,
    Prelu,
    Relu,
    Resize,
    Shape,
    Unary,
)
from upfrost.reference import Array
from upfrost_exporter import lowering, passes
from upfrost_exporter.builder import (
    EXAMPLE_HEIGHT,
    EXAMPLE_WIDTH,
    ExportError,
    GraphBuilder,
    Numbers,
    unique_name,
)
from upfrost_exporter.check import SIZES, Report, verify

_Constant = npt.NDArray[Any]
_LARGEST = float(np.finfo(np.float32).max)
_MAX_CONSTANT = 1 << 26
_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE)


def read_onnx(
    path: str | Path,
    *,
    name: str | None = None,
    value_range: float | None = None,
    metadata: Mapping[str, object] | None = None,
    report: Report | None = None,
) -> Graph:
    """The network in an ONNX file, checked against ONNX Runtime.

    The model maps float32 (1, channels, height, width), 1 or 3 channels, fixed or free
    height and width, to the same times an integer scale. `value_range`, 1 unless the
    file was written by upfrost, is the network's value for a full-scale pixel.
    Raises `ExportError` for a damaged file, for what cannot be carried, naming the
    first operation in the way, and for results that differ.
    """
    model = _load(Path(path))
    properties = {entry.key: entry.value for entry in model.metadata_props}
    if value_range is None:
        value_range = _number(properties.get("upfrost.value_range", "1"))
    # PyTorch calls every network main_graph.
    own_name = model.graph.name if model.producer_name == "upfrost" else ""
    translation = _Translation(model)
    picture, result = (
        translation.builder.shapes[value] for value in (INPUT, translation.output)
    )
    graph = translation.builder.graph(
        translation.output,
        name=name or unique_name(own_name or Path(path).stem, ()),
        scale=max(1, round(result.height / picture.height)),
        value_range=value_range,
        metadata={
            "source": Path(path).name,
            **_json_object(properties.get("upfrost.metadata", "{}")),
            "generator": f"upfrost {__version__}, onnx {onnx.__version__}",
            **(metadata or {}),
        },
    )
    graph = passes.clean(graph)
    # A model for one size of picture is compared at that size.
    sizes = [(picture.height, picture.width)] if translation.is_fixed else SIZES
    verify(graph, _runtime(model), sizes=sizes, report=report)
    return graph


def _load(path: Path) -> ModelProto:
    try:
        model = onnx.load_model(str(path))
        onnx.checker.check_model(model)
    except OSError as error:
        raise ExportError(f"{path}: cannot be read: {error.strerror}") from None
    # protobuf and the checker raise kinds of their own.
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ExportError(f"{path}: not a valid ONNX model: {reason}") from None
    if len(model.graph.node) > 16 * MAX_NODES:
        raise ExportError(f"{path}: {len(model.graph.node)} operations are too many")
    return model


def _runtime(model: ModelProto) -> Callable[[Array], Array]:
    """The model in ONNX Runtime, on the CPU."""
    try:
        import onnxruntime
    except ImportError:
        raise ExportError(
            "the check needs ONNX Runtime: pip install onnxruntime"
        ) from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # Fusions would only make the comparison less exact.
    options.graph_optimization_level = (
        onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    )
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, ["CPUExecutionProvider"]
        )
    except Exception as error:
        raise ExportError(f"ONNX Runtime refuses the model: {_line(error)}") from None
    name = session.get_inputs()[0].name

    def run(picture: Array) -> Array:
        try:
            result: Array = session.run(None, {name: picture[None]})[0][0]
        except Exception as error:
            height, width = picture.shape[1:]
            raise ExportError(
                f"ONNX Runtime cannot run the model on {width}×{height} pixels: "
                f"{_line(error)}"
            ) from None
        return result

    return run


class _Translation:
    """Walks a model and builds its graph; `output` names the result."""

    def __init__(self, model: ModelProto) -> None:
        initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        inputs = [
            given for given in model.graph.input if given.name not in initializers
        ]
        if len(inputs) != 1 or len(model.graph.output) != 1:
            raise ExportError(
                f"the model has {len(inputs)} inputs and {len(model.graph.output)} "
                "outputs: upfrost takes one picture and gives one"
            )
        channels, height, width = _picture_size(inputs[0])
        self.is_fixed = height is not None or width is not None
        self.builder = GraphBuilder(
            channels, height or EXAMPLE_HEIGHT, width or EXAMPLE_WIDTH
        )
        # By ONNX name: a value of the graph (its name there), or a constant.
        self._known: dict[str, str | _Constant | None] = {"": None}
        for tensor in initializers.values():
            self._known[tensor.name] = numpy_helper.to_array(tensor)
        self._known[inputs[0].name] = INPUT
        self._opset = next(
            (entry.version for entry in model.opset_import if not entry.domain), 1
        )
        for index, node in enumerate(_with_gelu(model)):
            place = f"operation {index + 1} of {len(model.graph.node)}"
            call = Call(self.builder, node, self._inputs(node), self._opset, place)
            results = self._call(call)
            self._known.update(zip(node.output, results, strict=False))
        output = self._known[model.graph.output[0].name]
        if not isinstance(output, str):
            raise ExportError("the model's output does not depend on its input")
        self.output = output

    def _inputs(self, node: NodeProto) -> list[str | _Constant | None]:
        try:
            return [self._known[name] for name in node.input]
        except KeyError as error:
            raise ExportError(
                f"{node.op_type} {node.name!r} reads {error.args[0]!r}, "
                "which comes from no earlier operation"
            ) from None

    def _call(self, call: Call) -> Sequence[str | _Constant]:
        kind = call.node.op_type
        if call.node.domain not in ("", "ai.onnx"):
            raise call.refuse(f"it belongs to {call.node.domain!r}", _REPLACE)
        if kind == "Shape" and isinstance(call.inputs[0], str):
            shape = self.builder.shapes[call.inputs[0]]
            extents = np.array([1, shape.channels, shape.height, shape.width])
            first, last = call.get("start", 0), call.get("end", 4)
            return [extents[first:last]]
        if not any(isinstance(given, str) for given in call.inputs):
            return _compute(call)
        handler = HANDLERS.get(kind)
        if handler is None:
            raise call.refuse("upfrost has no such operation", _advice(kind))
        try:
            results = handler(call)
            return [results] if isinstance(results, str) else results
        except GraphError as error:
            raise call.refuse(str(error), "") from None


class Call:
    """One operation with its inputs: names of values, or constants."""

    def __init__(
        self,
        builder: GraphBuilder,
        node: NodeProto,
        inputs: list[str | _Constant | None],
        opset: int,
        place: str,
    ) -> None:
        self.builder = builder
        self.node = node
        self.inputs = inputs
        self.opset = opset
        self._place = place
        self._attributes = {
            attribute.name: helper.get_attribute_value(attribute)
            for attribute in node.attribute
        }
        # PyTorch writes /body/body.0/Conv.
        self.label = (node.name or node.output[0]).strip("/").replace("/", ".")

    def get(self, attribute: str, default: Any = None) -> Any:
        found = self._attributes.get(attribute, default)
        return found.decode() if isinstance(found, bytes) else found

    def value(self, index: int = 0) -> str:
        """Name of the value that input `index` is."""
        found = self.inputs[index]
        if not isinstance(found, str):
            raise self.refuse(f"input {index + 1} is a constant", _REPLACE)
        return found

    def constant(self, index: int) -> _Constant | None:
        """The constant that input `index` is, None where it is left out."""
        found = self.inputs[index] if index < len(self.inputs) else None
        if isinstance(found, str):
            raise self.refuse(
                f"input {index + 1} is computed from the picture", "make it a constant"
            )
        return found

    def required(self, index: int) -> _Constant:
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
        what_to_do = f"; {advice}" if advice else ""
        return ExportError(
            f"cannot import {self.node.op_type}{name} ({self._place}): "
            f"{reason}{what_to_do}"
        )


Handler = Callable[[Call], str | list[str]]


def _with_gelu(model: ModelProto) -> list[NodeProto]:
    """The model's operations; those that make up a GELU by ``Erf`` as one ``Gelu``.

    So PyTorch writes it below operation set 20: x / √2, Erf, + 1, · x, · 0.5, the last
    two in any order.
    """
    nodes = list(model.graph.node)
    scalars: dict[str, float] = {}
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) == 1:
            scalars[tensor.name] = float(numpy_helper.to_array(tensor).reshape(()))
    for node in nodes:
        for attribute in node.attribute:
            is_value = node.op_type == "Constant" and attribute.name == "value"
            if is_value and math.prod(attribute.t.dims) == 1:
                value = numpy_helper.to_array(attribute.t)
                scalars[node.output[0]] = float(value.reshape(()))
    readers: dict[str, list[NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    producers = {name: node for node in nodes for name in node.output}

    def other(node: NodeProto | None, kind: str, name: str) -> str | None:
        """What `node` combines `name` with, if it is of that kind."""
        if node is None or node.op_type != kind or len(node.input) != 2:
            return None
        first, second = map(str, node.input)
        return second if first == name else first

    def is_near(name: str | None, number: float) -> bool:
        return name in scalars and abs(scalars[name] - number) < 1e-3

    for erf in [node for node in nodes if node.op_type == "Erf"]:
        scaled = producers.get(erf.input[0])
        if scaled is None or len(scaled.input) != 2:
            continue
        root = {"Div": math.sqrt(2), "Mul": math.sqrt(0.5)}.get(scaled.op_type, 0.0)
        x, factor = scaled.input
        chain, at = [erf], erf.output[0]
        for kind in ("Add", "Mul", "Mul"):
            following = readers.get(at, [])
            if len(following) != 1 or other(following[0], kind, at) is None:
                break
            chain.append(following[0])
            at = following[0].output[0]
        partners = [
            other(second, second.op_type, first.output[0])
            for first, second in itertools.pairwise(chain)
        ]
        if not (
            is_near(factor, root)
            and len(partners) == 3
            and is_near(partners[0], 1)
            and x in partners[1:]
            and any(is_near(partner, 0.5) for partner in partners[1:])
        ):
            continue
        gelu = helper.make_node("Gelu", [x], [at], erf.name)
        nodes[nodes.index(chain[-1])] = gelu
        for each in chain[:-1]:
            nodes.remove(each)
    return nodes


def _picture_size(given: Any) -> tuple[int, int | None, int | None]:
    """Channels, and height and width where the model fixes them."""
    kind = given.type.tensor_type
    sides: list[int | None] = [side.dim_value or None for side in kind.shape.dim]
    if kind.elem_type != TensorProto.FLOAT:
        raise ExportError(
            f"input {given.name!r} is "
            f"{TensorProto.DataType.Name(kind.elem_type).lower()}, not float: export "
            "the model in float32; the weight file can round its weights to fp16"
        )
    if len(sides) != 4 or sides[0] not in (None, 1) or sides[1] not in (1, 3):
        shown = [side or "?" for side in sides]
        raise ExportError(
            f"input {given.name!r} has shape {shown}: upfrost takes "
            "(1, channels, height, width) with 1 or 3 channels"
        )
    return int(sides[1] or 0), sides[2], sides[3]


# What is computed here when all inputs are constants. None makes a tensor much larger
# than its inputs, but for those in `_SHAPED`, whose size is looked at first.
_SHAPED = {"ConstantOfShape": 0, "Expand": 1}
_FOLDED = {
    *_SHAPED,
    *("Constant", "Identity", "Cast", "Shape", "Size"),
    *("Gather", "Concat", "Slice", "Split", "Squeeze", "Unsqueeze", "Reshape"),
    *("Transpose", "Flatten", "Add", "Sub", "Mul", "Div", "Mod", "Neg", "Abs"),
    *("Floor", "Ceil", "Round", "Sqrt", "Reciprocal", "Pow", "Exp", "Min", "Max"),
    *("ReduceProd", "ReduceSum", "ReduceMean", "Equal", "Where", "Not", "And"),
}


def _compute(call: Call) -> Sequence[_Constant]:
    """The results of an operation on constants."""
    kind = call.node.op_type
    if kind not in _FOLDED:
        raise call.refuse("it works on constants only", "simplify the model (onnxsim)")
    if kind in _SHAPED:
        size = math.prod(int(side) for side in call.required(_SHAPED[kind]))
        if not 0 <= size <= _MAX_CONSTANT:
            raise call.refuse(f"it makes {size} numbers", "")
    inputs = {
        name: given
        for name, given in zip(call.node.input, call.inputs, strict=True)
        if given is not None
    }
    graph = helper.make_graph(
        [call.node],
        "constant",
        [helper.make_value_info(name, onnx.TypeProto()) for name in inputs],
        [helper.make_value_info(name, onnx.TypeProto()) for name in call.node.output],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", call.opset)]
    )
    try:
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(model).run(None, inputs)
    except Exception as error:
        raise call.refuse(f"it cannot be computed: {_line(error)}", "") from None
    return [np.asarray(result) for result in results]


_REPLACE = (
    "replace it by convolutions, activations, sums, products, Concat, DepthToSpace, "
    "pooling or Resize"
)


def _advice(kind: str) -> str:
    if kind in ("Softmax", "MatMul", "Gemm", "LayerNormalization", "Einsum"):
        return "attention is out of scope: choose a convolutional network"
    if kind.startswith(("GlobalMax", "Reduce", "Instance", "Group")):
        return "it looks at the whole picture, which a tile cannot: train without it"
    if kind == "Transpose":
        return "upfrost takes channels first (NCHW): export the model so"
    return _REPLACE


def _conv(call: Call) -> str:
    weight = call.required(1)
    if weight.ndim != 4:
        raise call.refuse(f"its weight has {weight.ndim} dimensions", "use 2D layers")
    strides = _pair(call.get("strides", (1, 1)))
    dilations = _pair(call.get("dilations", (1, 1)))
    return call.add(
        Conv2d,
        [call.value()],
        weight=call.tensor(1),
        bias=call.tensor(2),
        stride=strides,
        padding=_padding(call, weight.shape[2:], strides, dilations),
        dilation=dilations,
        groups=call.get("group", 1),
    )


def _padding(
    call: Call, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[int, ...]:
    """Top, left, bottom, right."""
    automatic = call.get("auto_pad", "NOTSET")
    if automatic == "NOTSET":
        return tuple(call.get("pads", (0, 0, 0, 0)))
    if automatic == "VALID":
        return (0, 0, 0, 0)
    if tuple(strides) != (1, 1):
        raise call.refuse("auto_pad with strides", "export with explicit pads")
    reach = [(taps - 1) * step for taps, step in zip(kernel, dilations, strict=True)]
    less = [extent // 2 for extent in reach]
    more = [extent - half for extent, half in zip(reach, less, strict=True)]
    return (*less, *more) if automatic == "SAME_UPPER" else (*more, *less)


def _batch_norm(call: Call) -> str:
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
    return call.add(Relu, [call.value()])


def _leaky_relu(call: Call) -> str:
    return call.add(LeakyRelu, [call.value()], slope=float(call.get("alpha", 0.01)))


def _prelu(call: Call) -> str:
    slopes = _per_channel(call, call.required(1), call.shape())
    name = call.builder.tensor(call.node.input[1], slopes)
    return call.add(Prelu, [call.value()], slope=name)


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
        Clamp,
        [call.value()],
        low=-_LARGEST if low is None else max(low, -_LARGEST),
        high=_LARGEST if high is None else min(high, _LARGEST),
    )


def _add(call: Call, sign: int = 1) -> str:
    first, second = call.inputs
    if isinstance(first, str) and isinstance(second, str):
        if sign != 1:
            second = _affine(call, second, scale=np.array(sign))
        return call.add(Add, _broadcast(call, first, second))
    if isinstance(first, str):
        return _affine(call, first, shift=sign * _operand(call, 1))
    return _affine(call, call.value(1), scale=np.array(sign), shift=_operand(call, 0))


def _subtract(call: Call) -> str:
    return _add(call, sign=-1)


def _multiply(call: Call) -> str:
    first, second = call.inputs
    if isinstance(first, str) and isinstance(second, str):
        return call.add(Multiply, _broadcast(call, first, second))
    at = 0 if isinstance(first, str) else 1
    return _affine(call, call.value(at), scale=_operand(call, 1 - at))


def _divide(call: Call) -> str:
    first, second = call.inputs
    if not isinstance(second, str):
        with np.errstate(divide="ignore"):
            return _affine(call, call.value(), scale=1 / _operand(call, 1))
    inverse = call.add(Unary, [second], function="reciprocal")
    if isinstance(first, str):
        return call.add(Multiply, _broadcast(call, first, inverse))
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


def _per_channel(call: Call, given: _Constant, shape: Shape) -> Numbers:
    sides = (1,) * (4 - given.ndim) + given.shape
    if len(sides) != 4 or sides[1] not in (1, shape.channels) or given.size != sides[1]:
        raise call.refuse(
            f"the constant has shape {given.shape}, not one number for each channel",
            "give it the shape (1, channels, 1, 1)",
        )
    return given.astype(np.float64).reshape(-1)


def _unary(function: str) -> Handler:
    return lambda call: call.add(Unary, [call.value()], function=function)


def _gelu(call: Call) -> str:
    is_tanh = call.get("approximate", "none") == "tanh"
    function = "gelu_tanh" if is_tanh else "gelu"
    return call.add(Unary, [call.value()], function=function)


def _elu(call: Call) -> str:
    if call.get("alpha", 1.0) != 1:
        raise call.refuse("its alpha is not 1", "use alpha=1")
    return call.add(Unary, [call.value()], function="elu")


def _hardsigmoid(call: Call) -> str:
    slope, shift = call.get("alpha", 0.2), call.get("beta", 0.5)
    if abs(slope - 1 / 6) > 1e-6 or shift != 0.5:
        raise call.refuse(
            f"its slope and shift are {slope}, {shift}", "use 1/6 and 1/2"
        )
    return call.add(Unary, [call.value()], function="hardsigmoid")


def _power(call: Call) -> str:
    exponents = call.required(1).reshape(-1)
    exponent = float(exponents[0]) if exponents.size == 1 else math.nan
    functions = {0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"}
    if exponent == 2:
        return call.add(Multiply, [call.value(), call.value()])
    if exponent not in functions:
        raise call.refuse(f"the exponent is {exponents}", "use a square or a root")
    return call.add(Unary, [call.value()], function=functions[exponent])


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
    starts, ends = (_numbers(call, name, i) for i, name in ((1, "starts"), (2, "ends")))
    if starts is None or ends is None:
        raise call.refuse("its limits are missing", "")
    axes = _numbers(call, "axes", 3) or list(range(len(starts)))
    steps = (_numbers(call, "steps", 4) if call.opset >= 10 else None) or [1] * len(
        axes
    )
    shape = call.shape()
    extents = [1, shape.channels, shape.height, shape.width]
    kept = [range(extent) for extent in extents]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        kept[axis % 4] = kept[axis % 4][start:end:step]
    if len(kept[0]) != 1 or any(each.step != 1 for each in kept[2:]) or not all(kept):
        raise call.refuse("it leaves out rows between others", "cut fixed margins")
    value = lowering.pick_channels(call.builder, call.label, call.value(), kept[1])
    rows, columns = kept[2:]
    margins = (
        rows.start,
        columns.start,
        shape.height - rows.stop,
        shape.width - columns.stop,
    )
    return call.add(Crop, [value], margins=margins) if any(margins) else value


def _split(call: Call) -> list[str]:
    if call.get("axis", 0) % 4 != 1:
        raise call.refuse("it splits rows or columns", "split channels")
    channels, count = call.shape().channels, len(call.node.output)
    sizes = _numbers(call, "split", 1)
    if sizes is None:
        width = -(-channels // count)
        sizes = [min(width, channels - width * place) for place in range(count)]
    if len(sizes) != count or sum(sizes) != channels or min(sizes) < 1:
        raise call.refuse(f"sizes {sizes} of {channels} channels", "")
    ends = np.cumsum(sizes).tolist()
    return [
        lowering.pick_channels(
            call.builder, call.label, call.value(), range(end - size, end)
        )
        for size, end in zip(sizes, ends, strict=True)
    ]


def _max_pool(call: Call) -> str:
    kernel = _pair(call.get("kernel_shape"))
    if (
        call.get("ceil_mode", 0)
        or call.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
        or set(call.get("dilations", (1, 1))) != {1}
        or len(call.node.output) != 1
    ):
        raise call.refuse("it is dilated, rounds up or pads by itself", _REPLACE)
    return call.add(
        MaxPool2d,
        [call.value()],
        kernel=kernel,
        stride=_pair(call.get("strides", (1, 1))),
        padding=tuple(call.get("pads", (0, 0, 0, 0))),
    )


def _average_pool(call: Call) -> str:
    top, left, bottom, right = call.get("pads", (0, 0, 0, 0))
    around = (top, left, bottom, right)
    if (
        call.get("ceil_mode", 0)
        or call.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
        or set(call.get("dilations", (1, 1))) != {1}
        or (any(around) and not call.get("count_include_pad", 0))
    ):
        raise call.refuse("it leaves out the padding, or rounds up", _REPLACE)
    return lowering.average_pool(
        call.builder,
        call.label,
        call.value(),
        _pair(call.get("kernel_shape")),
        _pair(call.get("strides", (1, 1))),
        around,
    )


def _global_mean(call: Call) -> str:
    return call.add(GlobalMean, [call.value()])


def _reduce_mean(call: Call) -> str:
    axes = sorted(axis % 4 for axis in _numbers(call, "axes", 1) or ())
    if not call.get("keepdims", 1) or axes not in ([1], [2, 3]):
        raise call.refuse(f"it is a mean over axes {axes}", "keep the dimensions")
    if axes == [1]:
        return lowering.channel_mean(call.builder, call.label, call.value())
    return _global_mean(call)


def _expand(call: Call) -> str:
    """One channel for all, or one number for all pixels, which it is here already."""
    shape, target = call.shape(), [int(n) for n in call.required(1).reshape(-1)]
    channels = target[-3] if len(target) >= 3 else 1
    if shape.channels == 1 < channels:
        return lowering.pick_channels(
            call.builder, call.label, call.value(), [0] * channels
        )
    if channels not in (1, shape.channels):
        raise call.refuse(f"it repeats {shape.channels} channels", _REPLACE)
    return call.value()


def _concat(call: Call) -> str:
    if call.get("axis") % 4 != 1:
        raise call.refuse(f"it joins along axis {call.get('axis')}", "join channels")
    return call.add(Concat, [call.value(index) for index in range(len(call.inputs))])


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
    return call.add(PixelShuffle, [value], factor=factor)


def _resize(call: Call) -> str:
    mode = {"nearest": "nearest", "linear": "bilinear", "cubic": "bicubic"}.get(
        call.get("mode", "nearest")
    )
    is_upsample = call.node.op_type == "Upsample"
    coordinates = call.get(
        "coordinate_transformation_mode", "asymmetric" if is_upsample else "half_pixel"
    )
    rounding = call.get(
        "nearest_mode", "floor" if is_upsample else "round_prefer_floor"
    )
    ratio = _ratio(call)
    half_pixel = coordinates in ("half_pixel", "pytorch_half_pixel")
    if mode == "nearest":
        as_floor = coordinates == "asymmetric" and rounding == "floor"
        # Between two pixels of a whole ratio, half pixels never round to another.
        as_round = half_pixel and rounding.startswith("round")
        fits = as_floor or (as_round and ratio.denominator == 1)
    elif mode == "bicubic":
        fits = (
            half_pixel
            and call.get("cubic_coeff_a", -0.75) == -0.75
            and not call.get("exclude_outside", 0)
        )
    else:
        fits = half_pixel
    if mode is None or not fits or call.get("antialias", 0):
        raise call.refuse(
            f"mode {call.get('mode')}, coordinates {coordinates}, rounding {rounding} "
            "are not PyTorch's",
            "export it with align_corners=False and without antialiasing",
        )
    return call.add(
        Resize,
        [call.value()],
        mode=mode,
        ratio=(ratio.numerator, ratio.denominator),
    )


def _ratio(call: Call) -> Fraction:
    """How many times larger a resize makes height and width."""
    found = set(_ratios(call))
    if len(found) != 1:
        raise call.refuse("height and width are scaled differently", "scale both alike")
    return found.pop()


def _ratios(call: Call) -> Iterator[Fraction]:
    sizes = call.constant(3) if call.node.op_type == "Resize" else None
    if sizes is not None and sizes.size == 4:
        shape = call.shape()
        if int(sizes[1]) != shape.channels:
            raise call.refuse("it resizes channels", _REPLACE)
        yield Fraction(int(sizes[2]), shape.height)
        yield Fraction(int(sizes[3]), shape.width)
        return
    last = 2 if call.node.op_type == "Resize" and call.opset >= 11 else 1
    scales = call.constant(last)
    if scales is None:
        scales = np.array(call.get("scales", ()))
    if scales.size != 4 or tuple(scales[:2]) != (1, 1) or not (scales[2:] > 0).all():
        raise call.refuse("its scales are not those of height and width", _REPLACE)
    for scale in scales[2:]:
        yield Fraction(float(scale)).limit_denominator(MAX_EXTENT)


def _keep(call: Call) -> str:
    return call.value()


def _cast(call: Call) -> str:
    if call.get("to") not in _FLOATS:
        kind = TensorProto.DataType.Name(call.get("to")).lower()
        raise call.refuse(f"it converts to {kind}", "export the model in float32")
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
    if sides[0] or sides[1] or sides[4] or sides[5]:
        raise call.refuse("it pads channels", _REPLACE)
    around = [sides[2], sides[3], sides[6], sides[7]]
    top, left, bottom, right = (max(0, side) for side in around)
    value = call.value()
    if min(around) < 0:
        margins = tuple(max(0, -side) for side in around)
        value = call.add(Crop, [value], margins=margins)
    if not max(around) > 0:
        return value
    mode = call.get("mode", "constant")
    if mode == "constant":
        fill = call.constant(2) if call.opset >= 11 else np.array(call.get("value", 0))
        if fill is not None and np.any(fill):
            raise call.refuse("it pads with a number that is not 0", "pad with zeros")
        amounts = (top, left, bottom, right)
        return lowering.zero_pad(call.builder, call.label, value, amounts)
    modes = {"reflect": "reflect", "edge": "replicate"}
    if mode not in modes:
        raise call.refuse(f"it pads in the mode {mode}", "use reflect or edge")
    return call.add(Pad, [value], mode=modes[mode], padding=(top, left, bottom, right))


def _reshape(call: Call) -> str:
    shape = call.shape()
    target = [int(extent) for extent in call.required(1).reshape(-1)]
    same = [1, shape.channels, shape.height, shape.width]
    if len(target) != 4 or any(
        extent not in (-1, 0, known) for extent, known in zip(target, same, strict=True)
    ):
        raise call.refuse(f"it changes the shape to {target}", _REPLACE)
    return call.value()


def _pair(given: Sequence[int]) -> tuple[int, int]:
    first, second = given
    return first, second


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ExportError(f"upfrost.value_range is {text[:40]!r}, no number") from None


def _json_object(text: str) -> Mapping[str, object]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ExportError("upfrost.metadata in the model is no JSON object")
    return found


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


# ONNX operation → what it becomes.
HANDLERS: Mapping[str, Handler] = {
    "Conv": _conv,
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
    "Elu": _elu,
    "Exp": _unary("exp"),
    "Gelu": _gelu,
    "HardSigmoid": _hardsigmoid,
    "HardSwish": _unary("hardswish"),
    "Mish": _unary("mish"),
    "Reciprocal": _unary("reciprocal"),
    "Sigmoid": _unary("sigmoid"),
    "Softplus": _unary("softplus"),
    "Sqrt": _unary("sqrt"),
    "Tanh": _unary("tanh"),
    "ConvTranspose": _conv_transpose,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_mean,
    "ReduceMean": _reduce_mean,
    "Expand": _expand,
    "Slice": _slice,
    "Split": _split,
    "SpaceToDepth": _space_to_depth,
    "Concat": _concat,
    "DepthToSpace": _depth_to_space,
    "Resize": _resize,
    "Upsample": _resize,
    "Identity": _keep,
    "Dropout": _keep,
    "Cast": _cast,
    "Pad": _pad,
    "Reshape": _reshape,
}
