"""Quantised ONNX models as the float networks that they stand for.

Three forms of them are known, as ONNX Runtime's tools write them: QDQ, where
QuantizeLinear and DequantizeLinear stand between float operations; QOperator, whose
operations take integers with their scales and zero points
(https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md); and the
dynamic one, where scales are found while the network runs. The float network rounds
nothing and scales nothing back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from upfrost_exporter.builder import ExportError
from upfrost_exporter.onnx_operations import tensor_array

_Floats = npt.NDArray[np.float64]
# Where a model's properties say what it was.
QUANTISED = "upfrost.quantised"
_NOTE = "int8, read as the float network that it stands for"
# Of ONNX Runtime's own operations.
_OWN_DOMAIN = "com.microsoft"


def dequantised(model: ModelProto) -> ModelProto:
    """The model with floats wherever integers stand for them.

    Raises `ExportError` for constants that are damaged or missing.
    """
    reader = _Reader(model)
    kept: list[NodeProto] = []
    for node in model.graph.node:
        translate = _HANDLERS.get(node.op_type)
        known = node.domain in ("", "ai.onnx", _OWN_DOMAIN)
        kept += translate(reader, node) if translate and known else [node]
    if kept != list(model.graph.node):
        del model.graph.node[:]
        model.graph.node.extend(kept)
        del model.graph.value_info[:]
        model.metadata_props.add(key=QUANTISED, value=_NOTE)
    return model


class _Reader:
    """The constants of a model, and those that take their place."""

    def __init__(self, model: ModelProto) -> None:
        self._graph = model.graph
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Constant" and node.attribute[0].HasField("t"):
                self._constants[node.output[0]] = node.attribute[0].t
        self.pictures = {
            given.name
            for given in model.graph.input
            if given.name not in self._constants
        }

    def constant(self, node: NodeProto, index: int) -> TensorProto | None:
        """The constant that input `index` is; None where it is left out."""
        name = node.input[index] if index < len(node.input) else ""
        if name and name not in self._constants:
            raise ExportError(
                f"{node.op_type} {node.name!r}: input {index + 1} is no constant"
            )
        return self._constants.get(name)

    def store(self, name: str, array: _Floats) -> str:
        tensor = numpy_helper.from_array(np.asarray(array, np.float32), name)
        self._graph.initializer.append(tensor)
        return name

    def operand(
        self, node: NodeProto, index: int, scale: int, zero: int, axis: int = 1
    ) -> str:
        """Name of input `index` in floats; `scale` and `zero` are the inputs with its
        scale and zero point, one or one for each place along `axis`."""
        name = str(node.input[index])
        if name not in self._constants:
            return name
        offset = self.constant(node, zero)
        offsets = np.zeros(1) if offset is None else _numbers(offset)
        numbers = _numbers(self._constants[name])
        along = _along(axis, numbers.ndim)
        floats = (numbers - along(offsets)) * along(self.scale(node, scale))
        return self.store(f"{node.output[0]}.{index}", floats)

    def scale(self, node: NodeProto, index: int) -> _Floats:
        found = self.constant(node, index)
        if found is None:
            raise ExportError(f"{node.op_type} {node.name!r}: no scale")
        return _numbers(found)

    def bias(self, node: NodeProto, index: int, factor: float = 1.0) -> list[str]:
        """Name of a bias in steps of the scales of inputs 2 and 5; none, if none."""
        found = self.constant(node, index)
        if found is None:
            return []
        steps = factor * self.scale(node, 1) * self.scale(node, 4)
        return [self.store(f"{node.output[0]}.bias", _numbers(found) * steps)]


def _numbers(tensor: TensorProto) -> _Floats:
    return tensor_array(tensor).astype(np.float64)


def _along(axis: int, rank: int) -> Callable[[_Floats], _Floats]:
    """A function that lays one number for each place along `axis` that way."""

    def lay(given: _Floats) -> _Floats:
        if given.size == 1:
            return given.reshape(())
        sides = [1] * rank
        sides[axis] = -1
        return given.reshape(sides)

    return lay


_Handler = Callable[[_Reader, NodeProto], Sequence[NodeProto]]


def _is_relu(zero: TensorProto | None) -> bool:
    """Whether the least integer stands for 0: tools leave ReLU to it."""
    least = np.array(0, np.uint8) if zero is None else tensor_array(zero)
    return bool(np.all(least == np.iinfo(least.dtype).min))


def _quantize(reader: _Reader, node: NodeProto) -> list[NodeProto]:
    # A picture has no numbers below 0.
    bends = node.input[0] not in reader.pictures and _is_relu(reader.constant(node, 2))
    kind = "Relu" if bends else "Identity"
    return [helper.make_node(kind, node.input[:1], node.output[:1], node.name)]


def _dequantize(reader: _Reader, node: NodeProto) -> list[NodeProto]:
    axis = next((each.i for each in node.attribute if each.name == "axis"), 1)
    given = reader.operand(node, 0, 1, 2, axis)
    return [helper.make_node("Identity", [given], node.output[:1], node.name)]


def _as_float(node: NodeProto, kind: str, inputs: Sequence[str]) -> NodeProto:
    made = helper.make_node(kind, inputs, node.output[:1], node.name)
    for each in node.attribute:
        if each.name != "channels_last":
            made.attribute.append(each)
        elif each.i:
            raise ExportError(
                f"{node.op_type} {node.name!r}: its channels come last; use the float "
                "model"
            )
    return made


def _result(
    node: NodeProto, kind: str, inputs: Sequence[str], zero: TensorProto | None
) -> list[NodeProto]:
    """The operation on floats, and the ReLU that its rounding does."""
    made = _as_float(node, kind, inputs)
    if not _is_relu(zero):
        return [made]
    made.output[0] += ".signed"
    name = f"{node.name}.relu" if node.name else ""
    return [made, helper.make_node("Relu", made.output, node.output[:1], name)]


def _convolution(reader: _Reader, node: NodeProto) -> list[NodeProto]:
    inputs = [reader.operand(node, 0, 1, 2), reader.operand(node, 3, 4, 5, axis=0)]
    zero = reader.constant(node, 7)
    return _result(node, "Conv", [*inputs, *reader.bias(node, 8)], zero)


def _pairwise(kind: str) -> _Handler:
    """QLinearAdd and the like: two values, each with scale and zero point."""

    def handler(reader: _Reader, node: NodeProto) -> list[NodeProto]:
        inputs = [reader.operand(node, 0, 1, 2, -1), reader.operand(node, 3, 4, 5, -1)]
        return _result(node, kind, inputs, reader.constant(node, 7))

    return handler


def _single(kind: str) -> _Handler:
    """QLinearSigmoid and the like: a value with scale and zero point."""

    def handler(reader: _Reader, node: NodeProto) -> list[NodeProto]:
        zero = reader.constant(node, 4)
        return _result(node, kind, [reader.operand(node, 0, 1, 2)], zero)

    return handler


def _concat(reader: _Reader, node: NodeProto) -> list[NodeProto]:
    parts = range(2, len(node.input), 3)
    inputs = [reader.operand(node, at, at + 1, at + 2) for at in parts]
    return _result(node, "Concat", inputs, reader.constant(node, 1))


def _gemm(reader: _Reader, node: NodeProto) -> list[NodeProto]:
    given = {each.name: each for each in node.attribute}
    by_rows = "transB" in given and given["transB"].i
    alpha = given["alpha"].f if "alpha" in given else 1.0
    weight = reader.operand(node, 3, 4, 5, axis=0 if by_rows else 1)
    inputs = [reader.operand(node, 0, 1, 2), weight, *reader.bias(node, 6, alpha)]
    # Without scale and zero point the result is in floats already.
    if len(node.input) > 8:
        return _result(node, "Gemm", inputs, reader.constant(node, 8))
    return [_as_float(node, "Gemm", inputs)]


def _dynamic_quantize(reader: _Reader, node: NodeProto) -> list[NodeProto]:
    """Integers, scale and zero point are the value itself, 1 and 0."""
    for name, number in zip(node.output[1:], (1.0, 0.0), strict=False):
        reader.store(name, np.array(number))
    return [helper.make_node("Identity", node.input[:1], node.output[:1], node.name)]


def _integer(kind: str, axis: int) -> _Handler:
    """ConvInteger and MatMulInteger, whose results are scaled behind them."""

    def handler(reader: _Reader, node: NodeProto) -> list[NodeProto]:
        weight, zero = reader.constant(node, 1), reader.constant(node, 3)
        if weight is None:
            raise ExportError(f"{node.op_type} {node.name!r}: no weight")
        numbers = _numbers(weight)
        if zero is not None:
            numbers = numbers - _along(axis, numbers.ndim)(_numbers(zero))
        inputs = [node.input[0], reader.store(f"{node.output[0]}.weight", numbers)]
        return [_as_float(node, kind, inputs)]

    return handler


# Operation → its float one.
_HANDLERS: Mapping[str, _Handler] = {
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "QLinearConv": _convolution,
    "QLinearMatMul": _pairwise("MatMul"),
    "QLinearAdd": _pairwise("Add"),
    "QLinearMul": _pairwise("Mul"),
    "QLinearConcat": _concat,
    "QLinearLeakyRelu": _single("LeakyRelu"),
    "QLinearSigmoid": _single("Sigmoid"),
    "QLinearAveragePool": _single("AveragePool"),
    "QLinearGlobalAveragePool": _single("GlobalAveragePool"),
    "QLinearReduceMean": _single("ReduceMean"),
    "QLinearSoftmax": _single("Softmax"),
    "QGemm": _gemm,
    "DynamicQuantizeLinear": _dynamic_quantize,
    "ConvInteger": _integer("Conv", 0),
    "MatMulInteger": _integer("MatMul", -1),
}
