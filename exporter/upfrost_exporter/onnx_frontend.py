"""ONNX models into graphs.

What depends on constants and on the picture's size only, as the targets of resizes do,
is computed here for one size of picture; that it holds for others is what the check
against ONNX Runtime shows.
"""

from __future__ import annotations

import graphlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from upfrost import __version__
from upfrost.network.graph import INPUT, Colour, Graph, GraphError
from upfrost.network.reference import Array
from upfrost_exporter import lowering, passes
from upfrost_exporter.builder import (
    DEEP_EXAMPLE,
    EXAMPLE,
    ExportError,
    GraphBuilder,
    check_is_network,
    line,
    unique_name,
    whole_scale,
)
from upfrost_exporter.check import (
    Report,
    SizeDependenceError,
    Source,
    fits_full_size,
    verify,
    verify_large,
)
from upfrost_exporter.gelu import fold_gelu
from upfrost_exporter.lowering import Moved, Partial, Pooled
from upfrost_exporter.onnx_functions import (
    MAX_OPERATIONS,
    every_graph,
    every_operation,
    inlined,
    reads,
)
from upfrost_exporter.onnx_operations import (
    KNOWN_DOMAINS,
    MALFORMED,
    Call,
    Constant,
    Given,
    Result,
    advice,
    channels_last,
    tensor_array,
    translate,
)
from upfrost_exporter.onnx_quantised import QUANTISED, dequantised
from upfrost_exporter.sampling import Placed

# Numbers that one operation may make of constants, and products that take as long.
_MAX_WORK, _PRODUCTS = 1 << 26, 8
# Height and width that nobody exports for: a grid that was recorded for pictures of one
# size does not fit them.
_UNUSUAL = 80, 112


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
    height and width, to the same times an integer scale. A model that pads nothing
    gets the picture with its edges repeated by what it takes away. `value_range`, 1
    unless the file was written by upfrost, is the network's value for a full-scale
    pixel. Only such a file says that its channel is luma.
    Raises `ExportError` for a damaged file, for what cannot be carried, naming the
    first operation in the way, and for results that differ.
    """
    model = _load(Path(path))

    def imported(example: tuple[int, int]) -> Graph:
        return _imported(
            model, Path(path), example, name, value_range, metadata, report
        )

    _, *sides, _ = _picture_size(_only_input(model), model)
    try:
        return imported(EXAMPLE)
    except SizeDependenceError:
        raise
    except (ExportError, GraphError):
        if sides == [None, None] and not _samples_grids(model):
            with suppress(ExportError, GraphError):
                return imported(DEEP_EXAMPLE)
        raise


def _imported(
    model: ModelProto,
    path: Path,
    example: tuple[int, int],
    name: str | None,
    value_range: float | None,
    metadata: Mapping[str, object] | None,
    report: Report | None,
) -> Graph:
    """The network, of which pictures of `example`, height and width, are followed."""
    properties = {entry.key: entry.value for entry in model.metadata_props}
    if value_range is None:
        value_range = _number(properties.get("upfrost.value_range", "1"))
    # PyTorch calls every network main_graph.
    own_name = model.graph.name if model.producer_name == "upfrost" else ""
    translation = _Translation(model, example)
    shapes = translation.builder.shapes
    scale, margin = lowering.scale_and_margin(shapes[INPUT], shapes[translation.output])
    if margin:
        translation = _Translation(model, example, margin)
    picture = translation.builder.shapes[INPUT]

    def finished(translation: _Translation) -> Graph:
        graph = translation.builder.graph(
            translation.output,
            name=name or unique_name(own_name or path.stem, ()),
            scale=whole_scale(scale),
            value_range=value_range,
            metadata={
                "source": path.name,
                **({"quantised": note} if (note := properties.get(QUANTISED)) else {}),
                **_json_object(properties.get("upfrost.metadata", "{}")),
                "generator": f"upfrost {__version__}, onnx {onnx.__version__}",
                **(metadata or {}),
            },
            colour=_colour(properties.get("upfrost.colour")),
        )
        return passes.clean(graph)

    graph = finished(translation)

    def source(of: ModelProto) -> Source:
        runtime = _runtime(of, *translation.is_last)
        around = ((0, 0), (margin, margin), (margin, margin))
        return lambda given: runtime(np.pad(given, around, "edge"))

    free = _with_free_sides(model) if translation.is_fixed else model
    try:
        graph = verify(graph, source(free), report=report)
    except ExportError as error:
        if not translation.is_fixed:
            raise
        size = picture.height, picture.width
        if not fits_full_size(graph, *size):
            raise ExportError(
                f"the model is for {size[1]}×{size[0]} pixels alone, which is too much "
                f"to compare, and at a smaller size: {error}; export it with free "
                "height and width"
            ) from None
        return verify(graph, source(model), sizes=[size], report=report)
    if not translation.is_fixed and not translation.samples:
        verify_large(
            graph,
            source(model),
            lambda *size: finished(_Translation(model, size, margin)),
        )
    return graph


def _load(path: Path) -> ModelProto:
    check_is_network(path)
    try:
        model = onnx.load_model(str(path))
        _sort(model)
        onnx.checker.check_model(model)
    except OSError as error:
        raise ExportError(f"{path}: cannot be read: {error.strerror}") from None
    # protobuf and the checker raise kinds of their own.
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ExportError(f"{path}: not a valid ONNX model: {reason}") from None
    count = sum(1 for _ in every_operation(model.graph))
    if count > MAX_OPERATIONS:
        raise ExportError(f"{path}: {count} operations are too many")
    try:
        return _from_the_front(_in_float32(dequantised(inlined(model))))
    except ExportError:
        raise
    # The library that puts functions in raises kinds of its own.
    except (*MALFORMED, RuntimeError) as error:
        raise ExportError(f"{path}: it is malformed: {line(error)}") from None


def _sort(model: ModelProto) -> None:
    """Put each operation after those whose results it reads, as ONNX wants it.

    Converters do not always: ONNX Runtime's to float16 appends its casts.
    """
    nodes = list(model.graph.node)
    producers = {name: at for at, node in enumerate(nodes) for name in node.output}
    needs = {
        at: {producers[name] for name in reads(node) if name in producers}
        for at, node in enumerate(nodes)
    }
    if all(max(found, default=-1) < at for at, found in needs.items()):
        return
    try:
        order = list(graphlib.TopologicalSorter(needs).static_order())
    except graphlib.CycleError:
        return  # the checker refuses it
    del model.graph.node[:]
    model.graph.node.extend(nodes[at] for at in order)


def _in_float32(model: ModelProto) -> ModelProto:
    """The model with float32 wherever it has float16.

    The same numbers, computed more exactly: a runtime that rounds every result to
    float16 is off by more than what tells a right graph from a wrong one.
    """

    def widen(tensor: TensorProto) -> None:
        if tensor.data_type == TensorProto.FLOAT16:
            wide = tensor_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))

    for graph in every_graph(model.graph):
        for tensor in graph.initializer:
            widen(tensor)
    for node in every_operation(model.graph):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                widen(attribute.t)
            # The type that Cast converts to.
            if attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
    for graph in every_graph(model.graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
                value.type.tensor_type.elem_type = TensorProto.FLOAT
    return model


def _from_the_front(model: ModelProto) -> ModelProto:
    """The model whose Resizes count their axes from the first on.

    At an axis counted from the last on, as ONNX allows, ONNX Runtime 1.21 (Debian 13's)
    writes where it may not, and the process ends some time later.
    """
    for node in every_operation(model.graph):
        for attribute in node.attribute:
            if node.op_type == "Resize" and attribute.name == "axes":
                attribute.ints[:] = [axis % 4 for axis in attribute.ints]
    return model


def _with_free_sides(model: ModelProto) -> ModelProto:
    """The model for pictures of any height and width, if it takes them."""
    free = ModelProto()
    free.CopyFrom(model)
    del free.graph.value_info[:]
    for value in (*free.graph.input, *free.graph.output):
        for side in value.type.tensor_type.shape.dim[1:]:
            if side.dim_value not in (1, 3):
                side.Clear()
    return free


def _runtime(
    model: ModelProto, last_in: bool, last_out: bool
) -> Callable[[Array], Array]:
    """The model in ONNX Runtime, on the CPU; channels may be the last axis there."""
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
        raise ExportError(f"ONNX Runtime refuses the model: {line(error)}") from None
    name = session.get_inputs()[0].name

    def run(picture: Array) -> Array:
        given = picture.transpose(1, 2, 0) if last_in else picture
        try:
            result: Array = session.run(None, {name: given[None]})[0][0]
        except Exception as error:
            height, width = picture.shape[1:]
            raise ExportError(
                f"ONNX Runtime cannot run the model on {width}×{height} pixels: "
                f"{line(error)}"
            ) from None
        return result.transpose(2, 0, 1) if last_out else result

    return run


class _Translation:
    """Walks a model and builds its graph; `output` names the result."""

    def __init__(
        self,
        model: ModelProto,
        example: tuple[int, int],
        margin: int = 0,
    ) -> None:
        initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        given = _only_input(model)
        channels, height, width, is_last = _picture_size(given, model)
        self.is_fixed = height is not None or width is not None
        samples = _samples_grids(model)
        if samples:
            example = _UNUSUAL
        self.builder = GraphBuilder(
            channels,
            height - 2 * margin if height else example[0],
            width - 2 * margin if width else example[1],
        )
        # By ONNX name: a value of the graph (its name there), or a constant.
        self._known: dict[str, Given] = {"": None}
        for tensor in initializers.values():
            self._known[tensor.name] = tensor_array(tensor)
        picture = lowering.padded_input(self.builder, margin)
        self._known[given.name] = (
            channels_last(self.builder, picture) if is_last else picture
        )
        self._opset = next(
            (entry.version for entry in model.opset_import if not entry.domain), 1
        )
        self._attends, self.samples = _has_attention(model), samples
        self._walk(model.graph.node, f"of {len(model.graph.node)}")
        output = self._known[model.graph.output[0].name]
        last = isinstance(output, Moved) and channels_last(self.builder, output.name)
        if isinstance(output, Moved) and last:
            if not np.array_equal(output.places, last.places):
                raise ExportError(
                    f"the model's output has the shape {output.places.shape}: upfrost "
                    "takes models that give a picture"
                )
            output = output.name
        if isinstance(output, Pooled | Partial):
            raise ExportError(
                "the model's output is a number for each channel, or row, or column: "
                "upfrost takes models that give a picture"
            )
        if not isinstance(output, str):
            raise ExportError("the model's output does not depend on its input")
        fold_gelu(self.builder, output)
        self.output = output
        # Whether channels are the last axis of the input, and of the output.
        self.is_last = is_last, bool(last)

    def _walk(self, nodes: Sequence[NodeProto], among: str) -> None:
        for index, node in enumerate(nodes):
            place = f"operation {index + 1} {among}"
            given = self.builder, node, self._inputs(node), self._opset, place
            call = Call(*given, attends=self._attends, samples=self.samples)
            try:
                is_choice = node.op_type == "If" and not node.domain
                results = self._branch(call) if is_choice else self._call(call)
            except (ExportError, GraphError):
                raise
            except MALFORMED as error:
                raise call.refuse(f"it is malformed: {line(error)}", "") from None
            self._known.update(zip(node.output, results, strict=False))

    def _branch(self, call: Call) -> Sequence[Given]:
        """What an If chooses, where that is the same for every picture."""
        condition = call.inputs[0]
        if not isinstance(condition, np.ndarray) or condition.size != 1:
            raise call.refuse(
                "it chooses by what it sees",
                "choose a network that does the same for every picture",
            )
        branch = call.get("then_branch" if condition.all() else "else_branch")
        for tensor in branch.initializer:
            self._known[tensor.name] = tensor_array(tensor)
        self._walk(branch.node, f"of {len(branch.node)} inside {call.place}")
        return [self._known[result.name] for result in branch.output]

    def _inputs(self, node: NodeProto) -> list[Given]:
        try:
            return [self._known[name] for name in node.input]
        except KeyError as error:
            raise ExportError(
                f"{node.op_type} {node.name!r} reads {error.args[0]!r}, "
                "which comes from no earlier operation"
            ) from None

    def _call(self, call: Call) -> Sequence[Given]:
        kind = call.node.op_type
        domain = call.node.domain
        is_known = kind in KNOWN_DOMAINS.get(domain, ())
        if domain not in ("", "ai.onnx") and not is_known:
            raise call.refuse(f"it belongs to {domain!r}", advice(kind, domain))
        if kind == "Shape" and isinstance(call.inputs[0], str):
            shape = self.builder.shapes[call.inputs[0]]
            extents = np.array([1, shape.channels, shape.height, shape.width])
            first, last = call.get("start", 0), call.get("end", 4)
            return [extents[first:last]]
        if kind == "Shape" and isinstance(call.inputs[0], Moved | Placed):
            extents = np.array(call.inputs[0].places.shape)
            return [extents[call.get("start", 0) : call.get("end", len(extents))]]
        if kind == "Shape" and isinstance(call.inputs[0], Pooled):
            extents = np.array(call.inputs[0].shape)
            return [extents[call.get("start", 0) : call.get("end", len(extents))]]
        if kind == "CastLike" and isinstance(call.inputs[0], np.ndarray):
            other = call.inputs[1]
            # Values are float32 here.
            wanted = other.dtype if isinstance(other, np.ndarray) else np.float32
            return [call.inputs[0].astype(wanted)]
        if not any(isinstance(given, Result) for given in call.inputs):
            return _compute(call)
        try:
            return translate(call)
        except GraphError as error:
            raise call.refuse(str(error), "") from None


def _samples_grids(model: ModelProto) -> bool:
    return any(node.op_type == "GridSample" for node in every_operation(model.graph))


def _has_attention(model: ModelProto) -> bool:
    """Whether a softmax stands beside products of two computed values."""
    kinds = {node.op_type for node in model.graph.node}
    if kinds & {"Attention", "MultiHeadAttention"}:
        return True
    constants = {"", *(tensor.name for tensor in model.graph.initializer)}
    multiplies = False
    for node in model.graph.node:
        if constants.issuperset(node.input):
            constants.update(node.output)
        elif node.op_type in ("MatMul", "Einsum"):
            multiplies |= constants.isdisjoint(node.input)
    return multiplies and "Softmax" in kinds


def _free_channels(name: str, model: ModelProto) -> int | None:
    """What the first convolution takes, where the model does not say."""
    shapes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Conv" and node.input[0] == name:
            weight = shapes.get(node.input[1], ())
            return weight[1] if len(weight) == 4 else None
    return None


def _only_input(model: ModelProto) -> Any:
    """The model's picture. Raises `ExportError` where there are several, or results."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs = [given for given in model.graph.input if given.name not in initializers]
    outputs = model.graph.output
    if len(inputs) != 1 or len(outputs) != 1:
        counts = f"{len(inputs)} inputs and {len(outputs)} outputs"
        names = ", ".join(repr(each.name) for each in [*inputs, *outputs][:6])
        raise ExportError(
            f"the model has {counts} ({names}): upfrost takes one picture and gives "
            "one; export it with the others as constants, or without them"
        )
    return inputs[0]


def _picture_size(
    given: Any, model: ModelProto
) -> tuple[int, int | None, int | None, bool]:
    """Channels, height and width where the model fixes them, and whether channels are
    the last axis."""
    kind = given.type.tensor_type
    sides: list[int | None] = [side.dim_value or None for side in kind.shape.dim]
    if kind.elem_type != TensorProto.FLOAT:
        raise ExportError(
            f"input {given.name!r} is "
            f"{TensorProto.DataType.Name(kind.elem_type).lower()}, not float or "
            "float16: export the model in float32"
        )
    if len(sides) == 4 and sides[1] is None and sides[3] not in (1, 3):
        sides[1] = _free_channels(given.name, model)
    if len(sides) == 4 and sides[0] in (None, 1):
        if sides[1] in (1, 3):
            return int(sides[1] or 0), sides[2], sides[3], False
        if sides[3] in (1, 3):
            return int(sides[3] or 0), sides[1], sides[2], True
    shown = [side or "?" for side in sides]
    is_free = len(sides) == 4 and sides[1] is None
    raise ExportError(
        f"input {given.name!r} has shape {shown}: upfrost takes (1, channels, height, "
        "width) or (1, height, width, channels), with 1 or 3 channels"
        f"{': fix the channels when you export it' if is_free else ''}"
    )


# What is computed here when all inputs are constants. None makes a tensor much larger
# than its inputs, or takes long, but for those in `_WORK`, whose work is looked at
# first.
_FOLDED = {
    *("Constant", "Identity", "Cast", "Shape", "Size"),
    *("Gather", "Concat", "Slice", "Split", "Squeeze", "Unsqueeze", "Reshape"),
    *("Transpose", "Flatten", "Add", "Sub", "Mul", "Div", "Mod", "Neg", "Abs"),
    *("Floor", "Ceil", "Round", "Sqrt", "Reciprocal", "Pow", "Exp", "Min", "Max"),
    *("ReduceProd", "ReduceSum", "ReduceMean", "Equal", "Where", "Not", "And"),
    *("Greater", "Less", "GreaterOrEqual", "LessOrEqual", "Or", "Sign", "CastLike"),
    *("ReduceL1", "ReduceL2", "ReduceMax", "ReduceMin", "ScatterElements"),
    *("ScatterND", "Sigmoid", "Softmax", "Softplus", "Tanh"),
}


def _count_of(index: int) -> Callable[[Call], int]:
    """The numbers of a shape that is an input."""
    return lambda call: math.prod(int(side) for side in call.required(index))


def _range_work(call: Call) -> int:
    start, stop, step = (float(call.required(index).item()) for index in range(3))
    return max(0, math.ceil((stop - start) / step))


def _tile_work(call: Call) -> int:
    return int(call.required(0).size) * math.prod(map(int, call.required(1)))


def _pad_work(call: Call) -> int:
    around = max(map(abs, map(int, call.required(1))), default=0)
    return math.prod(int(side) + 2 * around for side in call.required(0).shape)


def _product_work(call: Call) -> int:
    first, second = call.required(0), call.required(1)
    inner = int(second.shape[-1 if call.get("transB", 0) else -min(2, second.ndim)])
    products = int(first.size) * int(second.size) // max(1, inner)
    return products // min(_PRODUCTS, max(1, inner))


def _conv_work(call: Call) -> int:
    given, weight = call.required(0), call.required(1)
    around = sum(abs(int(side)) for side in call.get("pads", ()))
    places = math.prod(int(side) + around for side in given.shape[2:])
    products = len(given) * places * int(weight.size)
    return products // min(_PRODUCTS, max(1, len(weight)))


# Of what works on constants, as re-parameterised weights, how much it does.
_WORK: Mapping[str, Callable[[Call], int]] = {
    "ConstantOfShape": _count_of(0),
    "Conv": _conv_work,
    "Expand": _count_of(1),
    "Gemm": _product_work,
    "MatMul": _product_work,
    "Pad": _pad_work,
    "Range": _range_work,
    "Tile": _tile_work,
}


def _compute(call: Call) -> Sequence[Constant]:
    """The results of an operation on constants."""
    kind = call.node.op_type
    if kind not in _FOLDED | _WORK.keys():
        raise call.refuse("it works on constants only", "simplify the model (onnxsim)")
    if kind in _WORK:
        work = _WORK[kind](call)
        if not 0 <= work <= _MAX_WORK:
            raise call.refuse(f"it makes {work} numbers of constants", "")
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
        raise call.refuse(f"it cannot be computed: {line(error)}", "") from None
    return [np.asarray(result) for result in results]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ExportError(f"upfrost.value_range is {text[:40]!r}, no number") from None


def _colour(text: str | None) -> Colour | None:
    if text not in (None, *get_args(Colour)):
        raise ExportError(f"upfrost.colour is {text!r:.40}, which is none")
    return cast(Colour | None, text)


def _json_object(text: str) -> Mapping[str, object]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ExportError("upfrost.metadata in the model is no JSON object")
    return found
