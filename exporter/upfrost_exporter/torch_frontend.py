"""PyTorch modules into graphs, by way of torch.export's operations.

torch.export runs the module once on stand-ins for tensors and notes every ATen
operation, whatever Python spelled it: a layer, a function, a method or an operator.
What depends on weights only is computed here by torch itself, so re-parameterised and
normalised weights arrive as plain numbers.
"""

from __future__ import annotations

import copy
import dataclasses
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import fx, nn
from torch._decomp import core_aten_decompositions
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind

from upfrost import __version__
from upfrost.network.graph import INPUT, Colour, Graph, GraphError
from upfrost.network.modelfile import write_model
from upfrost.network.reference import Array
from upfrost_exporter import passes
from upfrost_exporter.builder import (
    DEEP_EXAMPLE,
    EXAMPLE,
    ExportError,
    GraphBuilder,
)
from upfrost_exporter.check import Report, SizeDependenceError, verify, verify_large
from upfrost_exporter.gelu import fold_gelu
from upfrost_exporter.lowering import (
    Moved,
    Partial,
    scale_and_margin,
)
from upfrost_exporter.sampling import Placed
from upfrost_exporter.settling import fused, unwrapped
from upfrost_exporter.torch_operations import (
    COMPOSED,
    HANDLERS,
    MOVES,
    REPLACE,
    Call,
    Constant,
    UnknownOperationError,
    Value,
    advice,
    among_moved,
    among_placed,
)

# A side that may be of any length; torch 2.6 has it and does not declare it.
_FREE: Any = cast(Any, Dim).AUTO
_Precision = Literal["fp32", "fp16"]
_GENERATOR = f"upfrost {__version__}, torch {torch.__version__}"


def export_module(
    module: nn.Module,
    path: str | Path,
    *,
    name: str,
    scale: int,
    channels: int = 3,
    value_range: float = 1.0,
    metadata: Mapping[str, object] | None = None,
    precision: _Precision = "fp32",
    colour: Colour | None = None,
) -> Graph:
    """Write `module` as a weight file, checked against the module itself.

    `module` maps float32 (1, channels, H, W) from 0 to `value_range` to
    (1, channels, H · scale, W · scale). It is taken in evaluation mode, unchanged.
    `metadata` is what docs/format.md recommends; ``generator`` is filled in.
    With `precision` fp16 the checked weights are rounded before they are written.
    `colour` "luma" says that the one channel is luma as video has it
    (docs/format.md), which videos then give as it is; without it, it is grey.
    Raises `ExportError` for what cannot be carried, and where the graph's result in
    the NumPy reference differs from the module's by more than 1e-4 of the range, and
    `ModelFileError` for what a file cannot hold, as a scale of 2.0 or metadata that are
    not JSON's, and where it cannot be written.
    """
    if precision not in get_args(_Precision):
        raise ExportError(f"precision is {precision!r}; weight files have fp32 or fp16")
    if colour is not None and channels != 1:
        raise ExportError(f"a network for {colour} has 1 channel, not {channels}")
    graph = trace_module(
        module,
        name=name,
        scale=scale,
        channels=channels,
        value_range=value_range,
        metadata=metadata,
    )
    graph = dataclasses.replace(graph, colour=colour)
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
    report: Report | None = None,
) -> Graph:
    """The graph that `export_module` writes, in fp32. Raises `ExportError` as it does.

    A module that pads nothing, as waifu2x's, gives less than `scale` times the picture:
    it gets the picture with its edges repeated by as much. Of a module that
    torch.compile or DataParallel has wrapped, the network inside is taken.
    """
    _check_module(module)
    module = fused(unwrapped(module))

    def trace(of: nn.Module) -> Graph:
        return _trace(of, name, scale, channels, value_range, metadata, report)

    try:
        return trace(module)
    except _WrongScaleError as error:
        if error.scale != scale or not error.margin:
            raise
        return trace(_Padded(module, error.margin))


def _check_module(module: Any) -> None:
    """Refuse what is no network with numbers. Raises `ExportError`."""
    if isinstance(module, Mapping):
        raise ExportError(
            "these are a network's tensors alone: give the module, after "
            "module.load_state_dict(...) of them"
        )
    if not isinstance(module, nn.Module):
        raise ExportError(
            f"the network is {type(module).__name__}, not a torch.nn.Module: give the "
            "module, or one whose forward calls the function"
        )
    # torch.export's own advice is a converter inside torch.
    if isinstance(unwrapped(module), torch.jit.ScriptModule):
        raise ExportError(
            "the network is a TorchScript program: give the module that it was made "
            "from, or export it as ONNX and give that file to 'upfrost export'"
        )
    tensors = (*module.named_parameters(), *module.named_buffers())
    for name, tensor in tensors:
        if tensor.is_meta:
            raise ExportError(
                f"{name!r} is on the meta device, which holds no numbers: load the "
                "weights, as by module.load_state_dict(..., assign=True)"
            )


class _Padded(nn.Module):
    """A network on the picture with its edges repeated by `margin`."""

    def __init__(self, network: nn.Module, margin: int) -> None:
        super().__init__()
        self.network = network
        self.margin = margin

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        larger = nn.functional.pad(x, (self.margin,) * 4, mode="replicate")
        result: torch.Tensor = self.network(larger)
        return result


def _trace(
    module: nn.Module,
    name: str,
    scale: int,
    channels: int,
    value_range: float,
    metadata: Mapping[str, object] | None,
    report: Report | None,
) -> Graph:
    with _in_evaluation(module) as prepared:

        def source(picture: Array) -> Array:
            # A copy, since some networks work on their input in place.
            given = torch.from_numpy(picture.copy())
            try:
                with torch.no_grad():
                    result: Array = _only(prepared(given[None]))[0].numpy()
            # Whatever a module raises for a size that it does not take.
            except Exception as error:
                height, width = picture.shape[1:]
                raise ExportError(
                    f"{type(module).__name__} cannot run on a {width}×{height} "
                    f"picture: {_first_line(error)}"
                ) from None
            return result

        def translated(program: ExportedProgram, size: tuple[int, int]) -> Graph:
            translation = _Translation(program, channels, size)
            _check_scale(translation, scale)
            graph = translation.builder.graph(
                translation.output,
                name=name,
                scale=scale,
                value_range=value_range,
                metadata={"generator": _GENERATOR, **(metadata or {})},
            )
            return passes.clean(graph)

        def again(height: int, width: int) -> Graph:
            size = height, width
            return translated(_record(prepared, channels, None, size), size)

        def traced(example: tuple[int, int], sizes: dict[int, Any] | None) -> Graph:
            program = _record(prepared, channels, sizes, example)
            samples = _samples_grids(program)
            if sizes and samples:
                raise _GridError("grids are followed for pictures of one size")
            graph = translated(program, example)
            graph = verify(graph, source, report=report)
            if not samples:
                verify_large(graph, source, again)
            return graph

        def traced_small() -> Graph:
            # For pictures of one size that is far faster, and some networks compute
            # sizes in ways that only numbers can follow. That what holds for one size
            # holds for others is what `verify` shows.
            try:
                return traced(EXAMPLE, None)
            except (_WrongScaleError, UnknownOperationError, SizeDependenceError):
                raise
            except ExportError as first:
                # Sizes as formulas tell what depends on the picture's.
                with suppress(_WrongScaleError, _GridError, UnknownOperationError):
                    return traced(EXAMPLE, {2: _FREE, 3: _FREE})
                raise first from None

        try:
            return traced_small()
        except (UnknownOperationError, SizeDependenceError):
            raise
        except ExportError as first:
            if isinstance(first, _WrongScaleError) and not first.may_be_size(scale):
                raise
            with suppress(ExportError):
                return traced(DEEP_EXAMPLE, None)
            raise


def _only(result: Any) -> torch.Tensor:
    """What is alone in a tuple or list, as some networks return their picture."""
    if isinstance(result, list | tuple) and len(result) == 1:
        (result,) = result
    if not isinstance(result, torch.Tensor):
        raise TypeError(f"it returns {type(result).__name__}, not a tensor")
    return result


class _WrongScaleError(ExportError):
    """The network is as it should be, its caller is not, or it pads nothing."""

    def __init__(self, message: str, scale: Fraction, margin: int) -> None:
        super().__init__(message)
        self.scale = scale
        self.margin = margin

    def may_be_size(self, asked: int) -> bool:
        """Whether the picture may be one whose sides the network rounds.

        Then its result is no whole times as large, or as it were without paddings.
        """
        if self.margin:
            return self.scale != asked
        return self.scale.denominator != 1


class _GridError(ExportError):
    """A grid is made of the picture's size, which has to be a number."""


def _samples_grids(program: ExportedProgram) -> bool:
    return any("grid_sampler" in str(node.target) for node in program.graph.nodes)


def _check_scale(translation: _Translation, scale: int) -> None:
    shapes = translation.builder.shapes
    picture, result = shapes[INPUT], shapes[translation.output]
    found, margin = scale_and_margin(picture, result)
    if found != scale or margin:
        raise _WrongScaleError(
            f"the network's result is {found} times as large as the picture, "
            f"not {scale}",
            found,
            margin,
        )


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
    # A program that torch.export recorded stays in the mode it was recorded in.
    with suppress(NotImplementedError):
        module.eval()
    try:
        yield module
    finally:
        for part, mode in modes:
            part.training = mode


def _record(
    module: nn.Module,
    channels: int,
    sizes: dict[int, Any] | None,
    size: tuple[int, int],
) -> ExportedProgram:
    """The module's operations, for pictures of any size or of the example's alone."""
    example = torch.zeros(1, channels, *size)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            # Not strict, which PyTorch 2.6 still is when nothing is said, and which
            # ends when the same code has been recorded eight times.
            program = torch.export.export(
                module, (example,), dynamic_shapes=(sizes,), strict=False
            )
            # Operations in place become plain ones.
            plain: ExportedProgram = program.run_decompositions(_taken_apart())
            return plain
    # torch.export raises many kinds, its own and whatever the module itself raises.
    except Exception as error:
        reason = _first_line(error)
        if "data-dependent" in reason:
            reason = (
                "what it computes depends on what it sees, as in a choice of experts; "
                "choose a network that does the same for every picture"
            )
        if "fake tensor" in reason:
            reason = (
                "it keeps a tensor that it computes in forward (self.weight = ...); "
                "compute that before, and keep it as a buffer"
            )
        # PyTorch 2.6 says the latter.
        if "Guard failed" in reason or "Expected input at *args" in reason:
            reason = (
                "it is a program that was recorded for pictures of one size; give the "
                "module itself, or record it with dynamic_shapes"
            )
        raise ExportError(
            f"torch.export cannot record {type(module).__name__} on a "
            f"{size[1]}×{size[0]} picture: {reason}"
        ) from error


@cache
def _taken_apart() -> dict[Any, Callable[..., Any]]:
    """What torch makes of operations that are made of others."""
    table: Any = core_aten_decompositions()
    return {
        operation: function
        for operation, function in table.items()
        if str(operation) not in HANDLERS
        and str(operation).removeprefix("aten.").split(".")[0] in COMPOSED
    }


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip() if lines else type(error).__name__


def _same(node: fx.Node) -> fx.Node | None:
    """The node whose value is this one's, where this takes or replaces all of an axis.

    Up to 2.6, PyTorch records x[:, :2] with such a slice for the first axis.
    """
    sources = {
        torch.ops.aten.slice.Tensor: 0,
        torch.ops.aten.slice_scatter.default: 1,
    }
    source = sources.get(cast(Any, node.target))
    if source is None:
        return None
    behind_axis = node.args[source + 2 :]
    given = dict(zip(("start", "end", "step"), behind_axis, strict=False))
    is_all = (
        given.get("start") in (None, 0)
        and given.get("end") in (None, sys.maxsize)
        and given.get("step", 1) == 1
    )
    return cast(fx.Node, node.args[source]) if is_all else None


class _Translation:
    """Walks a recorded program and builds its graph; `output` names the result."""

    def __init__(
        self, program: ExportedProgram, channels: int, size: tuple[int, int]
    ) -> None:
        self.builder = GraphBuilder(channels, *size)
        self._known: dict[fx.Node, Any] = {}
        names = _constants(program)
        self._samples = _samples_grids(program)
        for node in program.graph.nodes:
            if node.op == "placeholder":
                self._known[node] = names.get(node.name, Value(INPUT))
            elif node.op == "call_function":
                same = _same(node)
                self._known[node] = self._known[same] if same else self._call(node)
        outputs = program.graph_signature.user_outputs
        self.output = self._result(outputs)
        fold_gelu(self.builder, self.output)

    def _call(self, node: fx.Node) -> Any:
        call = Call(self.builder, node, *self._resolve(node))
        operands = [self._known[other] for other in node.all_input_nodes]
        values = Value | Moved | Partial | Placed
        if any(isinstance(operand, values) for operand in operands):
            if not isinstance(node.meta.get("val"), torch.Tensor | list | tuple):
                return node.meta.get("val")  # a size of a value
            handler = HANDLERS.get(call.operation)
            if handler is None:
                raise UnknownOperationError(
                    str(call.refuse("upfrost has no such operation", advice(call)))
                )
            is_moved = any(isinstance(operand, Moved) for operand in operands)
            try:
                if self._samples and (found := among_placed(call)) is not None:
                    return found
                if is_moved and call.operation not in MOVES:
                    return among_moved(call, handler)
                return handler(call)
            except ExportError:
                raise
            except GraphError as error:
                raise call.refuse(str(error), "") from error
            # Of arguments that the operation may have, and that are not known.
            except (ArithmeticError, LookupError, TypeError, ValueError) as error:
                raise call.refuse(
                    f"upfrost does not know it in this form ({_first_line(error)})",
                    REPLACE,
                ) from error
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
            return known.tensor if isinstance(known, Constant) else known

        args, kwargs = self._resolve(node, plain)
        if not callable(node.target):
            raise call.refuse("it is no function", "")
        with torch.no_grad():
            result = node.target(*args, **kwargs)
        if isinstance(result, torch.Tensor):
            return Constant(call.label, result)
        if isinstance(result, list | tuple):
            return [
                Constant(f"{call.label}.{index}", part)
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

    def _result(self, outputs: Sequence[Any]) -> str:
        by_name = {node.name: value for node, value in self._known.items()}
        found = [by_name.get(name) for name in outputs]
        if len(found) == 1 and isinstance(found[0], Moved):
            raise ExportError(
                f"the network's result has the shape {found[0].places.shape}, which is "
                "no picture: it must be (1, channels, height, width)"
            )
        if len(found) != 1 or not isinstance(found[0], Value):
            raise ExportError(
                "the network must return one picture, computed from its input; it "
                f"returns {len(outputs)} values: wrap it in a module that picks one"
            )
        return found[0].name


def _constants(program: ExportedProgram) -> dict[str, Constant]:
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
            found[spec.arg.name] = Constant(spec.target, tensor)
    return found
