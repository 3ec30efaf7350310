"""Graphs into ONNX models, so that a network can leave upfrost again."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import singledispatch
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper
from onnx.numpy_helper import from_array

from upfrost import __version__
from upfrost.files import new_file
from upfrost.network import graph as ops
from upfrost.network.graph import INPUT, Graph, Node
from upfrost_exporter.builder import ExportError, unique_name

# The oldest that has the operations in this form, so that old runtimes read the file;
# and the oldest with GridSample.
OPSET, OPSET_OF_GRIDS = 13, 16
_IR_VERSION = 8
_OUTPUT = "output"


def write_onnx(graph: Graph, path: str | Path, *, overwrite: bool = True) -> None:
    """Write `graph` as the ONNX file that `to_onnx` describes, whole or not at all.

    Raises `ExportError` where it cannot be written, or exists and is not to be
    overwritten.
    """
    data = to_onnx(graph).SerializeToString()
    try:
        with new_file(Path(path), overwrite=overwrite) as file:
            file.write(data)
    except OSError as error:
        raise ExportError(f"{path}: cannot be written: {error.strerror}") from None


def to_onnx(graph: Graph) -> ModelProto:
    """The same network as an ONNX model, float32 from end to end.

    ``input`` is (1, channels, height, width) of any size, from 0 to the value range;
    ``output`` is `scale` times as large, and not clamped unless the network does it.
    fp16 weights stay fp16 in the file and are cast when they are used. Scale, value
    range, metadata and whether the channel is luma stand in the model's properties,
    where `read_onnx` finds them.
    """
    writer = _Writer(graph)
    for node in graph.nodes:
        _translate(node, writer)
    scaled = [f"{graph.scale}*{side}" for side in ("height", "width")]
    model = helper.make_model(
        helper.make_graph(
            writer.nodes,
            graph.name,
            [_picture(INPUT, graph.channels, ["height", "width"])],
            [_picture(_OUTPUT, graph.channels, scaled)],
            list(writer.constants.values()),
        ),
        producer_name="upfrost",
        producer_version=__version__,
        ir_version=_IR_VERSION,
        opset_imports=[helper.make_opsetid("", _opset(graph))],
    )
    properties = {
        "upfrost.scale": str(graph.scale),
        "upfrost.value_range": str(graph.value_range),
        "upfrost.metadata": json.dumps(graph.metadata, sort_keys=True),
    }
    if graph.colour is not None:
        properties["upfrost.colour"] = graph.colour
    helper.set_model_props(model, properties)
    onnx.checker.check_model(model, full_check=True)
    return model


def _opset(graph: Graph) -> int:
    has_grid = any(isinstance(node, ops.GridSample) for node in graph.nodes)
    return OPSET_OF_GRIDS if has_grid else OPSET


class _Writer:
    """The nodes and constants of an ONNX graph in the making."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}
        # Values and constants share one set of names in ONNX.
        self.taken = {INPUT, _OUTPUT}
        self._values = {INPUT: INPUT}
        self._tensors: dict[tuple[str, tuple[int, ...]], str] = {}

    def add(self, node: Node, kind: str, *constants: str, **attributes: Any) -> None:
        """Append an ONNX operation on the inputs of `node`, then on `constants`."""
        inputs = [*(self._values[value] for value in node.inputs), *constants]
        self.step(node, kind, inputs, is_end=True, **attributes)

    def step(
        self,
        node: Node,
        kind: str,
        inputs: Sequence[str],
        *,
        is_end: bool = False,
        **attributes: Any,
    ) -> str:
        """Append one ONNX operation of those that make up `node`, and name its value.

        The last one's is the value of `node`.
        """
        name = self.fresh(node.name if is_end else f"{node.name}.{kind}")
        if is_end:
            if node.name == self.graph.output:
                name = _OUTPUT
            self._values[node.name] = name
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def value(self, node: Node) -> str:
        """The name of the first input of `node`."""
        return self.values(node)[0]

    def values(self, node: Node) -> list[str]:
        """The names of the inputs of `node`."""
        return [self._values[value] for value in node.inputs]

    def constant(self, label: str, array: npt.NDArray[Any]) -> str:
        name = self.fresh(label)
        self.constants[name] = from_array(array, name)
        return name

    def tensor(self, name: str, shape: Sequence[int] | None = None) -> str:
        """A tensor of the graph as float32, in another shape if given."""
        array = self.graph.tensors[name]
        key = (name, tuple(array.shape if shape is None else shape))
        if key not in self._tensors:
            stored = self.constant(name, array.reshape(key[1]))
            if array.dtype == np.float16:
                half, stored = stored, self.fresh(f"{name}.float32")
                cast = helper.make_node("Cast", [half], [stored], to=TensorProto.FLOAT)
                self.nodes.append(cast)
            self._tensors[key] = stored
        return self._tensors[key]

    def fresh(self, label: str) -> str:
        name = unique_name(label, self.taken)
        self.taken.add(name)
        return name


@singledispatch
def _translate(node: Node, writer: _Writer) -> None:
    raise ExportError(
        f"node {node.name!r} of {writer.graph.name!r}: no ONNX form of {node.op}"
    )


@_translate.register
def _(node: ops.Conv2d, writer: _Writer) -> None:
    tensors = [writer.tensor(node.weight)]
    if node.bias is not None:
        tensors.append(writer.tensor(node.bias))
    writer.add(
        node,
        "Conv",
        *tensors,
        kernel_shape=writer.graph.tensors[node.weight].shape[2:],
        strides=node.stride,
        pads=node.padding,
        dilations=node.dilation,
        group=node.groups,
    )


@_translate.register
def _(node: ops.Relu, writer: _Writer) -> None:
    writer.add(node, "Relu")


@_translate.register
def _(node: ops.Prelu, writer: _Writer) -> None:
    writer.add(node, "PRelu", writer.tensor(node.slope, (-1, 1, 1)))


@_translate.register
def _(node: ops.LeakyRelu, writer: _Writer) -> None:
    writer.add(node, "LeakyRelu", alpha=node.slope)


@_translate.register
def _(node: ops.Clamp, writer: _Writer) -> None:
    bounds = [
        writer.constant(f"{node.name}.{side}", np.array(bound, np.float32))
        for side, bound in (("low", node.low), ("high", node.high))
    ]
    writer.add(node, "Clip", *bounds)


@_translate.register
def _(node: ops.Add, writer: _Writer) -> None:
    writer.add(node, "Add")


@_translate.register
def _(node: ops.Concat, writer: _Writer) -> None:
    writer.add(node, "Concat", axis=1)


@_translate.register
def _(node: ops.PixelShuffle, writer: _Writer) -> None:
    writer.add(node, "DepthToSpace", blocksize=node.factor, mode="CRD")


@_translate.register
def _(node: ops.Resize, writer: _Writer) -> None:
    ratio = _at_least(Fraction(*node.ratio))
    scales = np.array([1, 1, ratio, ratio], np.float32)
    writer.add(
        node,
        "Resize",
        "",  # no region of interest
        writer.constant(f"{node.name}.scales", scales),
        **_sampling(node.mode),
    )


def _sampling(mode: str) -> dict[str, Any]:
    """The attributes of Resize that make it PyTorch's."""
    modes = {"nearest": "nearest", "bilinear": "linear", "bicubic": "cubic"}
    return {
        "mode": modes[mode],
        "coordinate_transformation_mode": (
            "asymmetric" if mode == "nearest" else "half_pixel"
        ),
        "nearest_mode": "floor",
        "cubic_coeff_a": -0.75,
    }


@_translate.register
def _(node: ops.Unary, writer: _Writer) -> None:
    if node.function not in _FUNCTIONS:
        raise ExportError(f"node {node.name!r}: no ONNX form of {node.function}")
    steps = _FUNCTIONS[node.function]
    x = last = writer.value(node)
    for index, (kind, *operands) in enumerate(steps):
        names = []
        for operand in operands:
            if operand == "x":
                names.append(x)
            elif operand == "last":
                names.append(last)
            else:
                number = np.array(operand, np.float32)
                names.append(writer.constant(f"{node.name}.number", number))
        is_end = index == len(steps) - 1
        last = writer.step(node, str(kind), names, is_end=is_end)


@_translate.register
def _(node: ops.Multiply, writer: _Writer) -> None:
    writer.add(node, "Mul")


@_translate.register
def _(node: ops.Pad, writer: _Writer) -> None:
    top, left, bottom, right = node.padding
    pads = writer.constant(
        f"{node.name}.pads", np.array([0, 0, top, left, 0, 0, bottom, right])
    )
    mode = {"reflect": "reflect", "replicate": "edge"}[node.mode]
    writer.add(node, "Pad", pads, mode=mode)


@_translate.register
def _(node: ops.Crop, writer: _Writer) -> None:
    top, left, bottom, right = node.margins
    last = np.iinfo(np.int64).max
    limits = {
        "starts": [top, left],
        "ends": [-bottom or last, -right or last],
        "axes": [2, 3],
    }
    constants = [
        writer.constant(f"{node.name}.{key}", np.array(numbers, np.int64))
        for key, numbers in limits.items()
    ]
    writer.add(node, "Slice", *constants)


@_translate.register
def _(node: ops.MaxPool2d, writer: _Writer) -> None:
    writer.add(
        node,
        "MaxPool",
        kernel_shape=node.kernel,
        strides=node.stride,
        pads=node.padding,
    )


@_translate.register
def _(node: ops.GlobalMean, writer: _Writer) -> None:
    x = writer.value(node)
    mean = writer.step(node, "GlobalAveragePool", [x])
    shape = writer.step(node, "Shape", [x])
    writer.step(node, "Expand", [mean, shape], is_end=True)


@_translate.register
def _(node: ops.GlobalMax, writer: _Writer) -> None:
    x = writer.value(node)
    largest = writer.step(node, "GlobalMaxPool", [x])
    shape = writer.step(node, "Shape", [x])
    writer.step(node, "Expand", [largest, shape], is_end=True)


@_translate.register
def _(node: ops.ResizeTo, writer: _Writer) -> None:
    x, like = writer.values(node)
    ends = [
        writer.constant(f"{node.name}.{name}", np.array([place], np.int64))
        for name, place in (("first", 0), ("middle", 2), ("last", 4))
    ]
    sizes = [
        writer.step(node, "Slice", [writer.step(node, "Shape", [value]), *limits])
        for value, limits in ((x, ends[:2]), (like, ends[1:]))
    ]
    size = writer.step(node, "Concat", sizes, axis=0)
    writer.step(node, "Resize", [x, "", "", size], is_end=True, **_sampling(node.mode))


@_translate.register
def _(node: ops.LayerNorm, writer: _Writer) -> None:
    x = writer.value(node)
    if node.kind == "layer":
        mean = writer.step(node, "ReduceMean", [x], axes=[1], keepdims=1)
        x = writer.step(node, "Sub", [x, mean])
    square = writer.step(node, "Mul", [x, x])
    variance = writer.step(node, "ReduceMean", [square], axes=[1], keepdims=1)
    epsilon = writer.constant(
        f"{node.name}.epsilon", np.array(node.epsilon, np.float32)
    )
    deviation = writer.step(
        node, "Sqrt", [writer.step(node, "Add", [variance, epsilon])]
    )
    normed = writer.step(node, "Div", [x, deviation])
    scaled = writer.step(node, "Mul", [normed, writer.tensor(node.weight, (-1, 1, 1))])
    bias = writer.tensor(node.bias, (-1, 1, 1))
    writer.step(node, "Add", [scaled, bias], is_end=True)


@_translate.register
def _(node: ops.GridSample, writer: _Writer) -> None:
    x, moves = writer.values(node)

    def number(label: str, *values: float, kind: Any = np.float32) -> str:
        array = np.array(values if len(values) > 1 else values[0], kind)
        return writer.constant(f"{node.name}.{label}", array)

    def extents(of: str, label: str, *axes: int) -> str:
        places = number(label, *axes, kind=np.int64)
        return writer.step(node, "Gather", [writer.step(node, "Shape", [of]), places])

    def as_float(value: str) -> str:
        return writer.step(node, "Cast", [value], to=TensorProto.FLOAT)

    one, two = number("one", 1), number("two", 2)
    # The pixels' own places from -1 to 1: (2 · i + 1) / extent - 1.
    parts = []
    for axis, shape, only in ((3, (1, -1, 1), (1, 0)), (2, (-1, 1, 1), (0, 1))):
        extent = extents(moves, f"axis{axis}", axis)
        ends = number("first", 0, kind=np.int64), number("step", 1, kind=np.int64)
        count = as_float(writer.step(node, "Range", [ends[0], extent, ends[1]]))
        odd = writer.step(node, "Add", [writer.step(node, "Mul", [count, two]), one])
        unit = writer.step(node, "Div", [odd, as_float(extent)])
        line = writer.step(node, "Sub", [unit, one])
        wide = number(f"shape{axis}", *shape, kind=np.int64)
        line = writer.step(node, "Reshape", [line, wide])
        parts.append(writer.step(node, "Mul", [line, number(f"of{axis}", *only)]))
    own = writer.step(node, "Add", parts)
    # Moves in pixels of x, as (groups, rows, columns, 2).
    size = as_float(extents(x, "width_and_height", 3, 2))
    pixel = writer.step(node, "Div", [two, size])
    grouped = number("grouped", 2, node.groups, 0, 0, kind=np.int64)
    moves = writer.step(node, "Reshape", [moves, grouped])
    moves = writer.step(node, "Transpose", [moves], perm=[1, 2, 3, 0])
    moves = writer.step(node, "Mul", [moves, pixel])
    grid = writer.step(node, "Add", [moves, own])
    groups = number("groups", node.groups, -1, 0, 0, kind=np.int64)
    x = writer.step(node, "Reshape", [x, groups])
    found = writer.step(
        node, "GridSample", [x, grid], mode="bilinear", padding_mode="border"
    )
    joined = number("joined", 1, -1, 0, 0, kind=np.int64)
    writer.step(node, "Reshape", [found, joined], is_end=True)


# Steps of ONNX operations. ``x`` is the function's argument, ``last`` the step before.
_Steps = Sequence[tuple[str | float, ...]]
_SOFTPLUS: _Steps = [("Softplus", "x")]
_GATE: _Steps = [("Mul", "x", 1 / 6), ("Add", "last", 0.5), ("Clip", "last", 0.0, 1.0)]
_FUNCTIONS: Mapping[str, _Steps] = {
    "abs": [("Abs", "x")],
    "elu": [("Elu", "x")],
    "exp": [("Exp", "x")],
    "gelu": [
        ("Mul", "x", math.sqrt(0.5)),
        ("Erf", "last"),
        ("Add", "last", 1.0),
        ("Mul", "last", "x"),
        ("Mul", "last", 0.5),
    ],
    "gelu_tanh": [
        ("Mul", "x", "x"),
        ("Mul", "last", 0.044715),
        ("Add", "last", 1.0),
        ("Mul", "last", "x"),
        ("Mul", "last", math.sqrt(2 / math.pi)),
        ("Tanh", "last"),
        ("Add", "last", 1.0),
        ("Mul", "last", "x"),
        ("Mul", "last", 0.5),
    ],
    "hardsigmoid": _GATE,
    "hardswish": [*_GATE, ("Mul", "last", "x")],
    "mish": [*_SOFTPLUS, ("Tanh", "last"), ("Mul", "last", "x")],
    "reciprocal": [("Reciprocal", "x")],
    "rsqrt": [("Sqrt", "x"), ("Reciprocal", "last")],
    "sigmoid": [("Sigmoid", "x")],
    "silu": [("Sigmoid", "x"), ("Mul", "last", "x")],
    "softplus": _SOFTPLUS,
    "sqrt": [("Sqrt", "x")],
    "tanh": [("Tanh", "x")],
}


def _at_least(ratio: Fraction) -> np.float32:
    """The nearest float32 that is not below: runtimes floor the size they compute."""
    nearest = np.float32(ratio)
    if Fraction(float(nearest)) < ratio:
        nearest = np.nextafter(nearest, np.float32(np.inf))
    return nearest


def _picture(name: str, channels: int, sides: list[str]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, *sides])
