"""PyTorch modules into graphs, by way of torch.export's operations.

torch.export runs the module once on stand-ins for tensors and notes every ATen
operation, whatever Python spelled it: a layer, a function, a method or an operator.
`HANDLERS` says what becomes of each. What depends on weights only is computed here by
torch itself, so re-parameterised and normalised weights arrive as plain numbers.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import fx, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind

from upfrost import __version__
from upfrost.graph import (
    INPUT,
    MAX_EXTENT,
    Add,
    Clamp,
    Concat,
    Conv2d,
    Graph,
    GraphError,
    LeakyRelu,
    PixelShuffle,
    Prelu,
    Relu,
    Resize,
)
from upfrost.modelfile import write_model
from upfrost.reference import Array
from upfrost_exporter import passes
from upfrost_exporter.builder import (
    EXAMPLE_HEIGHT,
    EXAMPLE_WIDTH,
    ExportError,
    GraphBuilder,
    Numbers,
)
from upfrost_exporter.check import verify

_GENERATOR = f"upfrost {__version__}, torch {torch.__version__}"
_LARGEST = float(np.finfo(np.float32).max)


def export_module(
    module: nn.Module,
    path: str | Path,
    *,
    name: str,
    scale: int,
    channels: int = 3,
    value_range: float = 1.0,
    metadata: Mapping[str, object] | None = None,
    precision: Literal["fp32", "fp16"] = "fp32",
) -> Graph:
    """Write `module` as a weight file, checked against the module itself.

    `module` maps float32 (1, channels, H, W) from 0 to `value_range` to
    (1, channels, H · scale, W · scale). It is taken in evaluation mode, unchanged.
    `metadata` is what docs/format.md recommends; ``generator`` is filled in.
    With `precision` fp16 the checked weights are rounded before they are written.
    Raises `ExportError` for what cannot be carried, and where the graph's result in
    the NumPy reference differs from the module's by more than 1e-4 of the range.
    """
    graph = trace_module(
        module,
        name=name,
        scale=scale,
        channels=channels,
        value_range=value_range,
        metadata=metadata,
    )
    if precision == "fp16":
        graph = passes.round_tensors(graph)
    write_model(path, graph)
    return graph


def trace_module(
    module: nn.Module,
    *,
    name: str,
    scale: int,
    channels: int = 3,
    value_range: float = 1.0,
    metadata: Mapping[str, object] | None = None,
) -> Graph:
    """The graph that `export_module` writes, in fp32. Raises the same errors."""
    with _in_evaluation(module) as prepared:
        program = _record(prepared, channels)
        translation = _Translation(program, channels)
        graph = translation.builder.graph(
            translation.output,
            name=name,
            scale=scale,
            value_range=value_range,
            metadata={"generator": _GENERATOR, **(metadata or {})},
        )
        graph = passes.clean(graph)

        def source(picture: Array) -> Array:
            with torch.no_grad():
                result: Array = prepared(torch.from_numpy(picture)[None])[0].numpy()
            return result

        verify(graph, source)
    return graph


@contextmanager
def _in_evaluation(module: nn.Module) -> Iterator[nn.Module]:
    """The module, or its copy as fp32 on the CPU, in evaluation mode for a while."""
    numbers = [*module.parameters(), *module.buffers()]
    if any(
        tensor.device.type != "cpu"
        or (tensor.is_floating_point() and tensor.dtype != torch.float32)
        for tensor in numbers
    ):
        module = copy.deepcopy(module).cpu().float()
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield module
    finally:
        for part, mode in modes:
            part.training = mode


def _record(module: nn.Module, channels: int) -> ExportedProgram:
    example = torch.zeros(1, channels, EXAMPLE_HEIGHT, EXAMPLE_WIDTH)
    sizes = ({2: Dim.AUTO, 3: Dim.AUTO},)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.export.export(module, (example,), dynamic_shapes=sizes)
            # Operations in place become plain ones; none is taken apart.
            plain: ExportedProgram = program.run_decompositions({})
            return plain
    # torch.export raises many kinds, its own and whatever the module itself raises.
    except Exception as error:
        lines = [line for line in str(error).strip().splitlines() if line.strip()]
        reason = lines[0].strip() if lines else type(error).__name__
        raise ExportError(
            f"torch.export cannot record {type(module).__name__} on a "
            f"{EXAMPLE_WIDTH}×{EXAMPLE_HEIGHT} picture: {reason}"
        ) from error


@dataclass(frozen=True)
class _Value:
    """A value of the graph being built."""

    name: str


@dataclass(frozen=True)
class _Constant:
    """Numbers known at export."""

    name: str
    tensor: torch.Tensor

    @property
    def array(self) -> Numbers:
        result: Numbers = self.tensor.detach().double().numpy()
        return result


class _Translation:
    """Walks a recorded program and builds its graph; `output` names the result."""

    def __init__(self, program: ExportedProgram, channels: int) -> None:
        self.builder = GraphBuilder(channels)
        self._known: dict[fx.Node, Any] = {}
        names = _constants(program)
        for node in program.graph.nodes:
            if node.op == "placeholder":
                self._known[node] = names.get(node.name, _Value(INPUT))
            elif node.op == "call_function":
                self._known[node] = self._call(node)
            elif node.op == "output":
                self.output = self._result(node)

    def _call(self, node: fx.Node) -> Any:
        call = Call(self.builder, node, *self._resolve(node))
        operands = [self._known[other] for other in node.all_input_nodes]
        if any(isinstance(operand, _Value) for operand in operands):
            if not isinstance(node.meta.get("val"), torch.Tensor | list | tuple):
                return node.meta.get("val")  # a size of a value
            handler = HANDLERS.get(call.operation)
            if handler is None:
                raise call.refuse("upfrost has no such operation", _advice(call))
            try:
                return handler(call)
            except GraphError as error:
                raise call.refuse(str(error), "") from error
        if any(isinstance(operand, torch.SymInt) for operand in operands):
            if isinstance(node.meta.get("val"), torch.Tensor):
                raise call.refuse(
                    "it makes numbers that depend on the picture's size",
                    "let the network work on pixels alone",
                )
            return node.meta.get("val")
        return self._compute(node, call)

    def _compute(self, node: fx.Node, call: Call) -> Any:
        def plain(other: fx.Node) -> Any:
            known = self._known[other]
            return known.tensor if isinstance(known, _Constant) else known

        args, kwargs = self._resolve(node, plain)
        if not callable(node.target):
            raise call.refuse("it is no function", "")
        with torch.no_grad():
            result = node.target(*args, **kwargs)
        if isinstance(result, torch.Tensor):
            return _Constant(call.label, result)
        if isinstance(result, list | tuple):
            return [
                _Constant(f"{call.label}.{index}", part)
                for index, part in enumerate(result)
            ]
        return result

    def _resolve(
        self, node: fx.Node, known: Callable[[fx.Node], Any] | None = None
    ) -> tuple[list[Any], dict[str, Any]]:
        known = known or self._known.__getitem__
        args: Any = fx.node.map_arg(node.args, known)
        kwargs: Any = fx.node.map_arg(node.kwargs, known)
        return list(args), dict(kwargs)

    def _result(self, node: fx.Node) -> str:
        found = self._resolve(node)[0][0]
        if isinstance(found, list | tuple) and len(found) == 1:
            found = found[0]
        if not isinstance(found, _Value):
            raise ExportError(
                "the network must return one picture, computed from its input; it "
                f"returns {len(node.all_input_nodes)} values: wrap it in a module that "
                "picks one"
            )
        return found.name


class Call:
    """One recorded operation, with its arguments by their names in ATen's schema."""

    def __init__(
        self,
        builder: GraphBuilder,
        node: fx.Node,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> None:
        self.builder = builder
        self.node = node
        self.operation = str(node.target)
        self.module, is_layer = _module_path(node)
        kind = self.operation.removeprefix("aten.").split(".")[0].strip("_")
        self.label = self.module if is_layer else f"{self.module}.{kind}"
        self.arguments: dict[str, Any] = {}
        if isinstance(node.target, torch._ops.OpOverload):
            schema = node.target._schema.arguments
            self.arguments = {
                argument.name: argument.default_value
                for argument in schema
                if argument.has_default_value()
            }
            positional = [a.name for a in schema if not a.kwarg_only]
            self.arguments |= dict(zip(positional, args, strict=False))
        else:
            self.arguments = {str(index): value for index, value in enumerate(args)}
        self.arguments |= kwargs

    def __getitem__(self, argument: str) -> Any:
        return self.arguments[argument]

    def value(self, argument: str) -> str:
        """Name of the value given as `argument`."""
        found = self[argument]
        if not isinstance(found, _Value):
            raise self.refuse(
                f"{argument} is a constant, not a picture", "fold it into the weights"
            )
        return found.name

    def tensor(self, argument: str) -> str | None:
        """Name of the graph tensor that holds `argument`'s constant."""
        found = self[argument]
        if found is None:
            return None
        if not isinstance(found, _Constant):
            raise self.refuse(
                f"{argument} is computed from the picture",
                "use a layer with fixed weights",
            )
        return self.builder.tensor(found.name, found.array)

    def array(self, argument: str) -> Numbers | None:
        """The numbers of a constant argument."""
        found = self[argument]
        return found.array if isinstance(found, _Constant) else None

    def shape(self, which: int | None = None) -> Sequence[Any]:
        """Shape of the result, or of the operand at position `which`."""
        node = self.node if which is None else self.node.all_input_nodes[which]
        return tuple(node.meta["val"].shape)

    def add(self, kind: Any, inputs: Sequence[str], **attributes: Any) -> _Value:
        return _Value(self.builder.add(kind, self.label, inputs, **attributes))

    def refuse(self, reason: str, advice: str) -> ExportError:
        where = f"module {self.module!r}" if self.module else "the network's forward"
        source = _source_line(self.node)
        place = f"{where}, {source}" if source else where
        name = self.operation.removesuffix(".default")
        what_to_do = f"; {advice}" if advice else ""
        return ExportError(f"cannot export {name} in {place}: {reason}{what_to_do}")


def _constants(program: ExportedProgram) -> dict[str, _Constant]:
    """Parameters, buffers and other tensors by the placeholder that stands for them."""
    found = {}
    for spec in program.graph_signature.input_specs:
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER) and spec.target:
            tensor = program.state_dict.get(spec.target)
            if tensor is None:  # a buffer that is not saved with the module
                tensor = program.constants[spec.target]
        elif spec.kind == InputKind.CONSTANT_TENSOR and spec.target:
            tensor = program.constants[spec.target]
        else:
            continue
        if isinstance(tensor, torch.Tensor):
            found[spec.arg.name] = _Constant(spec.target, tensor)
    return found


def _module_path(node: fx.Node) -> tuple[str, bool]:
    """Path of the module that made the operation, as in ``body.3.attention``.

    Also says whether that is one of torch's own layers, which makes one operation.
    """
    stack = list(node.meta.get("nn_module_stack", {}).values())
    path, kind = map(str, stack[-1]) if stack else ("", "")
    return re.sub(r"@\d+", "", path), kind.startswith("torch.nn.")


def _source_line(node: fx.Node) -> str:
    """File, line and text of the model's own code that made the operation."""
    frames = re.findall(
        r'File "([^"]+)", line (\d+), in \w+\n\s*(.+)',
        node.meta.get("stack_trace") or "",
    )
    library = str(Path(torch.__file__).parent)
    own = [frame for frame in frames if not frame[0].startswith(library)]
    if not own:
        return ""
    file, line, text = own[-1]
    return f"{Path(file).name} line {line}: `{text.strip()}`"


def _advice(call: Call) -> str:
    for pattern, advice in _ADVICE:
        if re.search(pattern, call.operation):
            return advice
    return _REPLACE


_REPLACE = (
    "replace it by convolutions, ReLU, LeakyReLU, PReLU, clamp, sums, products with "
    "constants, concatenation, pixel shuffle or interpolation"
)
_ADVICE = (
    (
        r"softmax|matmul|bmm|attention|linear|layer_norm|addmm|einsum",
        "attention and transformers are out of scope: choose a convolutional network",
    ),
    (
        r"mean|adaptive|group_norm|instance_norm|var",
        "it looks at the whole picture, which a tile cannot: train without it",
    ),
    (r"_aa\.|antialias", "antialiased resizing: set antialias=False"),
    (r"conv_transpose", "use a convolution followed by pixel shuffle"),
)


def _conv2d(call: Call) -> _Value:
    weight = call.tensor("weight")
    kernel = call.builder.tensors[str(weight)].shape[2:]
    dilation = _pair(call["dilation"])
    padding = call["padding"]
    if padding == "same":
        reach = [(taps - 1) * step for taps, step in zip(kernel, dilation, strict=True)]
        # torch puts the odd row or column behind.
        top, left = (extent // 2 for extent in reach)
        around = (top, left, reach[0] - top, reach[1] - left)
    elif padding == "valid":
        around = (0, 0, 0, 0)
    else:
        around = _pair(padding) * 2
    return call.add(
        Conv2d,
        [call.value("input")],
        weight=weight,
        bias=call.tensor("bias"),
        stride=_pair(call["stride"]),
        padding=around,
        dilation=dilation,
        groups=call["groups"],
    )


def _batch_norm(call: Call) -> list[_Value]:
    mean, variance = call.array("running_mean"), call.array("running_var")
    if mean is None or variance is None:
        raise call.refuse(
            "it has no running statistics", "set track_running_stats=True and train"
        )
    result = call.builder.batch_norm(
        call.label,
        call.value("input"),
        mean=mean,
        variance=variance,
        epsilon=call["eps"],
        weight=call.array("weight"),
        bias=call.array("bias"),
    )
    return [_Value(result)]


def _prelu(call: Call) -> _Value:
    return call.add(Prelu, [call.value("self")], slope=call.tensor("weight"))


def _clamp(call: Call) -> _Value:
    low, high = (_bound(call, call.arguments.get(name)) for name in ("min", "max"))
    if low == 0 and high is None:
        return _relu(call)
    return call.add(
        Clamp,
        [call.value("self")],
        low=-_LARGEST if low is None else low,
        high=_LARGEST if high is None else high,
    )


def _hardtanh(call: Call) -> _Value:
    low, high = float(call["min_val"]), float(call["max_val"])
    return call.add(Clamp, [call.value("self")], low=low, high=high)


def _bound(call: Call, given: Any) -> float | None:
    if given is None or isinstance(given, int | float):
        return None if given is None else float(given)
    if isinstance(given, _Constant) and given.tensor.numel() == 1:
        return float(given.tensor)
    raise call.refuse("its bounds are not plain numbers", "clamp to constants")


def _relu(call: Call) -> _Value:
    return call.add(Relu, [call.value("self")])


def _add(call: Call, sign: int = 1) -> _Value:
    alpha = sign * call.arguments.get("alpha", 1)
    first, second = call["self"], call["other"]
    if isinstance(first, _Value) and isinstance(second, _Value):
        if _differ(call.shape(0), call.shape(-1)):
            raise call.refuse("it adds values of different shapes", "make them equal")
        if alpha != 1:
            second = _affine(call, second, scale=alpha)
        return call.add(Add, [first.name, second.name])
    if isinstance(first, _Value):
        return _affine(call, first, shift=alpha * _per_channel(call, second))
    scaled = _affine(call, second, scale=alpha) if alpha != 1 else second
    return _affine(call, scaled, shift=_per_channel(call, first))


def _subtract(call: Call) -> _Value:
    return _add(call, sign=-1)


def _subtract_from(call: Call) -> _Value:
    call.arguments["self"], call.arguments["other"] = call["other"], call["self"]
    return _add(call, sign=-1)


def _multiply(call: Call) -> _Value:
    first, second = call["self"], call["other"]
    if isinstance(first, _Value) and isinstance(second, _Value):
        raise call.refuse("both factors are computed from the picture", _REPLACE)
    value, factor = (first, second) if isinstance(first, _Value) else (second, first)
    return _affine(call, value, scale=_per_channel(call, factor))


def _divide(call: Call) -> _Value:
    if not isinstance(call["self"], _Value) or isinstance(call["other"], _Value):
        raise call.refuse("the divisor is computed from the picture", _REPLACE)
    with np.errstate(divide="ignore"):
        inverse = 1 / _per_channel(call, call["other"])
    return _affine(call, call["self"], scale=inverse)


def _negate(call: Call) -> _Value:
    return _affine(call, call["self"], scale=-1)


def _affine(call: Call, value: _Value, *, scale: Any = 1, shift: Any = 0) -> _Value:
    channels = int(call.shape()[1])
    both = (np.broadcast_to(np.float64(number), channels) for number in (scale, shift))
    return _Value(call.builder.affine(call.label, value.name, *both))


def _per_channel(call: Call, constant: Any) -> Numbers:
    """A constant operand as one number, or as one for each channel."""
    if isinstance(constant, int | float):
        return np.array(float(constant))
    if isinstance(constant, _Constant):
        shape = (1,) * (4 - constant.tensor.ndim) + tuple(constant.tensor.shape)
        channels = int(call.shape()[1])
        if shape[1] in (1, channels) and (shape[0], *shape[2:]) == (1, 1, 1):
            return constant.array.reshape(-1)
    raise call.refuse(
        "the constant is not one number for each channel",
        "give it the shape (1, channels, 1, 1)",
    )


def _concat(call: Call) -> _Value:
    if call["dim"] % 4 != 1:
        raise call.refuse(f"it joins along dimension {call['dim']}", "join channels")
    parts = call["tensors"]
    if not all(isinstance(part, _Value) for part in parts):
        raise call.refuse("one part is a constant", "join what the network computes")
    return call.add(Concat, [part.name for part in parts])


def _pixel_shuffle(call: Call) -> _Value:
    return call.add(PixelShuffle, [call.value("self")], factor=call["upscale_factor"])


def _resize(mode: str) -> Callable[[Call], _Value]:
    def handler(call: Call) -> _Value:
        if call.arguments.get("align_corners"):
            raise call.refuse("align_corners is set", "use align_corners=False")
        ratios = set(_ratios(call))
        if len(ratios) != 1:
            raise call.refuse(
                "height and width are scaled differently", "scale both alike"
            )
        ratio = ratios.pop()
        return call.add(
            Resize,
            [call.value("input")],
            mode=mode,
            ratio=(ratio.numerator, ratio.denominator),
        )

    return handler


def _ratios(call: Call) -> Iterator[Fraction]:
    if call["scale_factors"] is not None:
        for factor in call["scale_factors"]:
            yield Fraction(factor).limit_denominator(MAX_EXTENT)
        return
    for after, before in zip(call.shape()[2:], call.shape(0)[2:], strict=True):
        pairs = zip(_probe(after), _probe(before), strict=True)
        ratio, *others = {Fraction(*pair) for pair in pairs}
        if others:
            raise call.refuse(
                f"it resizes {before} pixels to {after}", "resize by a constant factor"
            )
        yield ratio


def _keep(call: Call) -> _Value:
    """What changes nothing but, maybe, the place in memory."""
    return _Value(call.value("self"))


def _keep_shape(call: Call) -> _Value:
    if _differ(call.shape(), call.shape(0)):
        raise call.refuse("it changes the shape", _REPLACE)
    return _keep(call)


def _convert(call: Call) -> _Value:
    if call.node.meta["val"].dtype != torch.float32:
        raise call.refuse(
            f"it converts to {call.node.meta['val'].dtype}", "stay in float32"
        )
    return _keep(call)


def _item(call: Call) -> Any:
    return call["0"][call["1"]]


def _pair(given: Sequence[int]) -> tuple[int, int]:
    first, *rest = given
    return (first, rest[0] if rest else first)


def _probe(extent: Any) -> tuple[int, ...]:
    """Rows or columns of a value when the picture has 960 and when it has 1440."""
    if not isinstance(extent, torch.SymInt):
        return int(extent), int(extent)
    formula = extent.node.expr
    return tuple(
        int(formula.subs(dict.fromkeys(formula.free_symbols, size)))
        for size in (960, 1440)
    )


def _differ(first: Sequence[Any], second: Sequence[Any]) -> bool:
    return list(map(_probe, first)) != list(map(_probe, second))


Handler = Callable[[Call], Any]

# ATen operation → what it becomes.
HANDLERS: Mapping[str, Handler] = {
    "aten.conv2d.default": _conv2d,
    "aten.conv2d.padding": _conv2d,
    "aten._native_batch_norm_legit_no_training.default": _batch_norm,
    "aten.relu.default": _relu,
    "aten.prelu.default": _prelu,
    "aten.leaky_relu.default": lambda call: call.add(
        LeakyRelu, [call.value("self")], slope=float(call["negative_slope"])
    ),
    "aten.clamp.default": _clamp,
    "aten.clamp.Tensor": _clamp,
    "aten.clip.default": _clamp,
    "aten.clamp_min.default": _clamp,
    "aten.clamp_max.default": _clamp,
    "aten.hardtanh.default": _hardtanh,
    "aten.relu6.default": lambda call: call.add(
        Clamp, [call.value("self")], low=0.0, high=6.0
    ),
    "aten.add.Tensor": _add,
    "aten.sub.Tensor": _subtract,
    "aten.rsub.Scalar": _subtract_from,
    "aten.mul.Tensor": _multiply,
    "aten.div.Tensor": _divide,
    "aten.neg.default": _negate,
    "aten.cat.default": _concat,
    "aten.pixel_shuffle.default": _pixel_shuffle,
    "aten.upsample_nearest2d.vec": _resize("nearest"),
    "aten.upsample_bilinear2d.vec": _resize("bilinear"),
    "aten.upsample_bicubic2d.vec": _resize("bicubic"),
    "aten.clone.default": _keep,
    "aten.alias.default": _keep,
    "aten.detach.default": _keep,
    "aten.contiguous.default": _keep,
    "aten._to_copy.default": _convert,
    "aten.to.dtype": _convert,
    "aten.view.default": _keep_shape,
    "aten.reshape.default": _keep_shape,
    "aten.expand.default": _keep_shape,
    "aten.slice.Tensor": _keep_shape,
    "<built-in function getitem>": _item,
}
