"""What becomes of each ATen operation: `HANDLERS`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import fx

from upfrost.network import graph as ops
from upfrost.network.graph import MAX_EXTENT, GraphError
from upfrost_exporter import lowering, sampling
from upfrost_exporter.builder import ExportError, GraphBuilder, Numbers
from upfrost_exporter.gelu import Erf
from upfrost_exporter.lowering import Moved, Partial
from upfrost_exporter.sampling import Arithmetic, Placed

_LARGEST = float(np.finfo(np.float32).max)


class UnknownOperationError(ExportError):
    """What stands in the way has no kernel, whatever the picture's size."""


@dataclass(frozen=True)
class Value:
    """A value of the graph being built."""

    name: str


@dataclass(frozen=True)
class Constant:
    """Numbers known at export."""

    name: str
    tensor: torch.Tensor

    @property
    def array(self) -> Numbers:
        result: Numbers = self.tensor.detach().double().numpy()
        return result


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
        self.operands: dict[str, Any] = dict(node.kwargs)
        if isinstance(node.target, torch._ops.OpOverload):
            schema = node.target._schema.arguments
            self.arguments = {
                argument.name: argument.default_value
                for argument in schema
                if argument.has_default_value()
            }
            positional = [a.name for a in schema if not a.kwarg_only]
            self.arguments |= dict(zip(positional, args, strict=False))
            self.operands |= dict(zip(positional, node.args, strict=False))
        else:
            self.arguments = {str(index): value for index, value in enumerate(args)}
        self.arguments |= kwargs
        # Channels of the result, where its shape does not say so.
        self.channels: int | None = None

    def __getitem__(self, argument: str) -> Any:
        return self.arguments[argument]

    def value(self, argument: str) -> str:
        """Name of the value given as `argument`."""
        found = self[argument]
        if isinstance(found, Partial):
            raise self.refuse(_PARTIAL, _WHOLE)
        if isinstance(found, Moved):
            raise self.refuse(
                f"{argument} has the shape {found.places.shape}, which is not "
                "(1, channels, height, width)",
                REPLACE,
            )
        if not isinstance(found, Value):
            raise self.refuse(
                f"{argument} is a constant, not a picture", "fold it into the weights"
            )
        return found.name

    def tensor(self, argument: str) -> str | None:
        """Name of the graph tensor that holds `argument`'s constant."""
        found = self[argument]
        if found is None:
            return None
        if not isinstance(found, Constant):
            raise self.refuse(
                f"{argument} is computed from the picture",
                "use a layer with fixed weights",
            )
        return self.builder.tensor(found.name, found.array)

    def array(self, argument: str) -> Numbers | None:
        """The numbers of a constant argument."""
        found = self[argument]
        return found.array if isinstance(found, Constant) else None

    def shape(self, which: int | None = None) -> Sequence[Any]:
        """Shape of the result, or of the operand at position `which`."""
        node = self.node if which is None else self.node.all_input_nodes[which]
        return tuple(node.meta["val"].shape)

    def add(self, kind: Any, inputs: Sequence[str], **attributes: Any) -> Value:
        return Value(self.builder.add(kind, self.label, inputs, **attributes))

    def refuse(self, reason: str, advice: str) -> ExportError:
        where = f"module {self.module!r}" if self.module else "the network's forward"
        source = _source_line(self.node)
        place = f"{where}, {source}" if source else where
        name = self.operation.removesuffix(".default")
        # What stops a transformer first is often a mere change of shape.
        if advice == REPLACE and _has_attention(self.node.graph):
            advice = _NO_ATTENTION
        what_to_do = f"; {advice}" if advice else ""
        return ExportError(f"cannot export {name} in {place}: {reason}{what_to_do}")


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


def advice(call: Call) -> str:
    if _ATTENTION in call.operation:
        return _NO_ATTENTION
    if re.search(r"_aa\.|antialias", call.operation):
        return "antialiased resizing: set antialias=False"
    return REPLACE


def _has_attention(graph: fx.Graph) -> bool:
    targets = " ".join(str(node.target) for node in graph.nodes)
    # A softmax alone may weigh channels.
    products = re.search(r"aten\.(matmul|bmm|einsum)", targets)
    return bool(_ATTENTION in targets or (products and "softmax" in targets))


Handler = Callable[[Call], Any]
REPLACE = (
    "replace it by convolutions, activations, sums, products, concatenation, pixel "
    "shuffle, pooling or interpolation"
)

_PARTIAL = "it works on a sum of pixels, or of rows or columns alone"
_UNBIASED = "it is unbiased over the picture, on whose size that depends"
_BIASED = "set correction=0 (unbiased=False), or divide by all pixels"
_WHOLE = "reduce rows and columns, or take a mean"
_NO_ATTENTION = (
    "attention and transformers are out of scope: choose a convolutional network"
)

_ATTENTION = "dot_product_attention"
_GRID_SAMPLER = "aten.grid_sampler.default"


def _conv2d(call: Call) -> Value:
    weight = call.tensor("weight")
    kernel = call.builder.tensors[str(weight)].shape[2:]
    dilation = _pair(call["dilation"])
    padding = call["padding"]
    if padding == "same":
        reach = [(taps - 1) * step for taps, step in zip(kernel, dilation, strict=True)]
        # torch puts the odd row or column at the end.
        top, left = (extent // 2 for extent in reach)
        around = (top, left, reach[0] - top, reach[1] - left)
    elif padding == "valid":
        around = (0, 0, 0, 0)
    else:
        around = _pair(padding) * 2
    return call.add(
        ops.Conv2d,
        [call.value("input")],
        weight=weight,
        bias=call.tensor("bias"),
        stride=_pair(call["stride"]),
        padding=around,
        dilation=dilation,
        groups=call["groups"],
    )


def _batch_norm(call: Call) -> list[Value]:
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
    return [Value(result)]


def _prelu(call: Call) -> Value:
    return call.add(ops.Prelu, [call.value("self")], slope=call.tensor("weight"))


def _clamp(call: Call) -> Value:
    low, high = (_bound(call, call.arguments.get(name)) for name in ("min", "max"))
    if low == 0 and high is None:
        return _relu(call)
    return call.add(
        ops.Clamp,
        [call.value("self")],
        low=-_LARGEST if low is None else low,
        high=_LARGEST if high is None else high,
    )


def _hardtanh(call: Call) -> Value:
    low, high = float(call["min_val"]), float(call["max_val"])
    return call.add(ops.Clamp, [call.value("self")], low=low, high=high)


def _bound(call: Call, given: Any) -> float | None:
    if given is None or isinstance(given, int | float):
        return None if given is None else float(given)
    if isinstance(given, Constant) and given.tensor.numel() == 1:
        return float(given.tensor)
    raise call.refuse("its bounds are not plain numbers", "clamp to constants")


def _relu(call: Call) -> Value:
    return call.add(ops.Relu, [call.value("self")])


def _add(call: Call, sign: int = 1) -> Value:
    alpha = sign * call.arguments.get("alpha", 1)
    first, second = call["self"], call["other"]
    if isinstance(first, Value) and isinstance(second, Value):
        if alpha != 1:
            second = _affine(call, second, scale=alpha)
        return call.add(ops.Add, _broadcast(call, first, second))
    if isinstance(first, Value):
        return _affine(call, first, shift=alpha * _per_channel(call, second))
    scaled = _affine(call, second, scale=alpha) if alpha != 1 else second
    return _affine(call, scaled, shift=_per_channel(call, first))


def _subtract(call: Call) -> Value:
    return _add(call, sign=-1)


def _subtract_from(call: Call) -> Value:
    call.arguments["self"], call.arguments["other"] = call["other"], call["self"]
    return _add(call, sign=-1)


def _multiply(call: Call) -> Value:
    first, second = call["self"], call["other"]
    if isinstance(first, Value) and isinstance(second, Value):
        return call.add(ops.Multiply, _broadcast(call, first, second))
    value, factor = (first, second) if isinstance(first, Value) else (second, first)
    return _affine(call, value, scale=_per_channel(call, factor))


def _divide(call: Call) -> Value:
    first, second = call["self"], call["other"]
    if isinstance(first, Partial):
        return _mean_of_sum(call, first, second)
    if not isinstance(second, Value):
        with np.errstate(divide="ignore"):
            return _affine(call, first, scale=1 / _per_channel(call, second))
    inverse = call.add(ops.Unary, [second.name], function="reciprocal")
    if isinstance(first, Value):
        return call.add(ops.Multiply, _broadcast(call, first, inverse))
    return _affine(call, inverse, scale=_per_channel(call, first))


def _mean_of_sum(call: Call, total: Partial, count: Any) -> Value:
    """A sum of all pixels by their number."""
    shape = call.builder.shapes[total.name]
    is_all = total.axes == {2, 3} and not total.is_mean
    if isinstance(count, Constant) and count.tensor.numel() == 1:
        count = count.tensor.item()
    pixels = shape.height * shape.width
    if is_all and int(count) == pixels - 1 > 1:
        raise call.refuse(_UNBIASED, _BIASED)
    if not is_all or int(count) != pixels:
        raise call.refuse(_PARTIAL, _WHOLE)
    return call.add(ops.GlobalMean, [total.name])


def _broadcast(call: Call, first: Value, second: Value) -> list[str]:
    """Both operands with the shape of the result.

    A channel may stand for all; and what is the same at every pixel, as a mean over the
    picture, may come from a value of another size.
    """
    values = first, second
    shapes = [call.builder.shapes[value.name] for value in values]
    channels = max(shape.channels for shape in shapes)
    pairs = zip(shapes, values, strict=True)
    heights = {shape.height: value.name for shape, value in pairs}
    # Where both are the same at every pixel, either size will do.
    known = [side for side in call.shape()[2:3] if isinstance(side, int)]
    height = known[0] if known and known[0] in heights else max(heights)
    names = []
    for value, shape in zip(values, shapes, strict=True):
        name = value.name
        if shape.channels == 1 < channels:
            name = lowering.pick_channels(
                call.builder, call.label, name, [0] * channels
            )
        like = heights[height]
        names.append(lowering.spread(call.builder, call.label, name, like))
    return names


def _negate(call: Call) -> Value:
    return _affine(call, call["self"], scale=-1)


def _affine(call: Call, value: Value, *, scale: Any = 1, shift: Any = 0) -> Value:
    channels = call.builder.shapes[value.name].channels
    needed = max(np.size(scale), np.size(shift))
    if channels == 1 < needed:
        name = lowering.pick_channels(
            call.builder, call.label, value.name, [0] * needed
        )
        value, channels = Value(name), needed
    both = (np.broadcast_to(np.float64(number), channels) for number in (scale, shift))
    return Value(call.builder.affine(call.label, value.name, *both))


def _per_channel(call: Call, constant: Any) -> Numbers:
    """A constant operand as one number, or as one for each channel."""
    if isinstance(constant, int | float):
        return np.array(float(constant))
    if isinstance(constant, Constant) and constant.tensor.numel() == 1:
        return constant.array.reshape(-1)
    if isinstance(constant, Constant):
        constant = _without_pixels(constant)
        shape = (1,) * (4 - constant.tensor.ndim) + tuple(constant.tensor.shape)
        channels = call.channels or int(call.shape()[1])
        is_pooled = _is_pooled(call, "self") or _is_pooled(call, "other")
        if len(call.shape()) != 4 and is_pooled:
            # One number for each channel, in some shape, as after pooling.
            shape = (1, constant.tensor.numel(), 1, 1)
        if shape[1] in (1, channels) and (shape[0], *shape[2:]) == (1, 1, 1):
            numbers: Numbers = constant.array.reshape(-1)
            return numbers
    raise call.refuse(
        "the constant is not one number for each channel",
        "give it the shape (1, channels, 1, 1)",
    )


def _without_pixels(constant: Constant) -> Constant:
    """A constant of a picture's size as one of a pixel, where all are alike."""
    tensor = constant.tensor
    if tensor.ndim < 3 or set(tensor.shape[-2:]) == {1} or not tensor.numel():
        return constant
    pixel = tensor[..., :1, :1]
    return Constant(constant.name, pixel) if bool((tensor == pixel).all()) else constant


def _unary(function: str) -> Callable[[Call], Value]:
    def handler(call: Call) -> Value:
        return call.add(ops.Unary, [call.value("self")], function=function)

    return handler


def _gelu(call: Call) -> Value:
    return _unary("gelu_tanh" if call["approximate"] == "tanh" else "gelu")(call)


def _elu(call: Call) -> Value:
    numbers = {name: float(call[name]) for name in ("scale", "input_scale")}
    alpha, value = float(call["alpha"]), call.value("self")
    return Value(lowering.elu(call.builder, call.label, value, alpha, **numbers))


def _selu(call: Call) -> Value:
    # As torch.nn.SELU has them.
    alpha, scale = 1.6732632423543772, 1.0507009873554805
    return Value(
        lowering.elu(call.builder, call.label, call.value("self"), alpha, scale=scale)
    )


def _celu(call: Call) -> Value:
    alpha, value = float(call["alpha"]), call.value("self")
    return Value(
        lowering.elu(call.builder, call.label, value, alpha, input_scale=1 / alpha)
    )


def _softplus(call: Call) -> Value:
    beta, value = float(call["beta"]), call.value("self")
    return Value(lowering.softplus(call.builder, call.label, value, beta))


def _log_sigmoid(call: Call) -> Value:
    value = call.value("self")
    return Value(lowering.softplus(call.builder, call.label, value, -1.0))


def _softmax(call: Call) -> Value:
    rank = len(call.shape(0))
    is_plain = rank == 4 or _is_pooled(call, "self")
    if call["dim"] % rank != 1 or not is_plain:
        raise call.refuse("it is over pixels, as in attention", _NO_ATTENTION)
    return Value(lowering.softmax(call.builder, call.label, call.value("self")))


def _compare(first: str, second: str, *, is_strict: bool) -> Handler:
    """1 where argument `first` is above `second` (or equal), 0 elsewhere."""

    def handler(call: Call) -> Value:
        upper, lower = (first, second) if is_strict else (second, first)
        call.arguments |= {"self": call[upper], "other": call[lower], "alpha": 1}
        more = _subtract(call).name
        found = lowering.is_above(call.builder, call.label, more)
        if is_strict:
            return Value(found)
        return _affine(call, Value(found), scale=-1, shift=1)

    return handler


def _where(call: Call) -> Value:
    condition, first, second = (call[name] for name in ("condition", "self", "other"))
    if isinstance(condition, Constant) and len(set(condition.array.flat)) == 1:
        chosen = first if condition.array.flat[0] else second
        if isinstance(chosen, Value):
            return chosen
    if not isinstance(condition, Value):
        raise call.refuse("it chooses pixels by their place", REPLACE)
    more = _where_difference(call, first, second)
    if not isinstance(more, Value):
        return _affine(call, condition, scale=more, shift=_per_channel(call, second))
    call.arguments |= {"self": condition, "other": more}
    chosen = _multiply(call)
    call.arguments |= {"self": chosen, "other": second, "alpha": 1}
    return _add(call)


def _where_difference(call: Call, first: Any, second: Any) -> Any:
    if not isinstance(first, Value) and not isinstance(second, Value):
        return _per_channel(call, first) - _per_channel(call, second)
    call.arguments |= {"self": first, "other": second, "alpha": 1}
    return _subtract(call)


def _full_like(call: Call) -> Value:
    fill = float(call["fill_value"])
    return _affine(call, Value(call.value("self")), scale=0, shift=fill)


def _sign(call: Call) -> Value:
    return Value(lowering.sign(call.builder, call.label, call.value("self")))


def _softshrink(call: Call) -> Value:
    """What is beyond ±lambd, by as much."""
    value, most = call.value("self"), float(call["lambd"])
    kept = call.add(ops.Clamp, [value], low=-most, high=most).name
    less = lowering.scaled(call.builder, call.label, kept, -1)
    return call.add(ops.Add, [value, less])


def _random_relu(call: Call) -> Value:
    """In evaluation, the mean of its slopes."""
    slope = (float(call["lower"]) + float(call["upper"])) / 2
    return call.add(ops.LeakyRelu, [call.value("self")], slope=slope)


def _softsign(call: Call) -> Value:
    value = call.value("self")
    size = call.builder.add(ops.Unary, call.label, [value], function="abs")
    more = lowering.scaled(call.builder, call.label, size, 1, 1)
    inverse = call.builder.add(ops.Unary, call.label, [more], function="reciprocal")
    return call.add(ops.Multiply, [value, inverse])


def _extreme(
    function: Callable[[GraphBuilder, str, str, str], str],
    bound: Callable[[GraphBuilder, str, str, Numbers], str],
) -> Callable[[Call], Value]:
    """The larger or the smaller of two values, or of one and constants."""

    def handler(call: Call) -> Value:
        first, second = call["self"], call["other"]
        if not isinstance(first, Value):
            first, second = second, first
        if not isinstance(second, Value):
            numbers = _per_channel(call, second)
            return Value(bound(call.builder, call.label, first.name, numbers))
        names = _broadcast(call, first, second)
        return Value(function(call.builder, call.label, *names))

    return handler


def _power(call: Call) -> Value:
    value, exponent = call.value("self"), call["exponent"]
    if exponent in (2, 3, 4):
        power = call.add(ops.Multiply, [value, value])
        if exponent == 2:
            return power
        return call.add(
            ops.Multiply, [power.name, value if exponent == 3 else power.name]
        )
    functions = {0.5: "sqrt", -0.5: "rsqrt", -1: "reciprocal"}
    if exponent not in functions:
        raise call.refuse(f"the exponent is {exponent}", "use a square or a root")
    return call.add(ops.Unary, [value], function=functions[exponent])


def _conv_transpose2d(call: Call) -> Value:
    weight, bias = call.array("weight"), call.array("bias")
    if weight is None:
        raise call.refuse("its weight is computed from the picture", REPLACE)
    padding = _pair(call["padding"])
    return Value(
        lowering.transposed_convolution(
            call.builder,
            call.label,
            call.value("input"),
            weight,
            bias,
            stride=_pair(call["stride"]),
            padding=padding * 2,
            output_padding=_pair(call["output_padding"]),
            dilation=_pair(call["dilation"]),
            groups=call["groups"],
        )
    )


def _pixel_unshuffle(call: Call) -> Value:
    factor = int(call["downscale_factor"])
    return Value(
        lowering.pixel_unshuffle(call.builder, call.label, call.value("self"), factor)
    )


def _pick(call: Call, value: str, picked: Sequence[int]) -> Value:
    return Value(lowering.pick_channels(call.builder, call.label, value, picked))


def _slice(call: Call) -> Value:
    value, axis, step = call.value("self"), call["dim"] % 4, call["step"]
    shape = call.builder.shapes[value]
    if axis == 1:
        return _pick(
            call, value, range(shape.channels)[call["start"] : call["end"] : step]
        )
    if not _differ(call.shape(), call.shape(0)):
        return _keep(call)
    if step != 1 and axis in (2, 3):
        return _every(call, value, axis, step)
    # What is cut off must not depend on the picture's size.
    start, *others = set(_probe(call["start"] or 0))
    before, after = (_probe(extents[axis]) for extents in (call.shape(0), call.shape()))
    lost = {whole - rest for whole, rest in zip(before, after, strict=True)}
    if axis == 0 or step != 1 or len(lost) != 1 or others:
        raise call.refuse("it cuts off what depends on the size", "cut a fixed margin")
    first = start if start >= 0 else before[0] + start
    margins = [0, 0, 0, 0]
    margins[axis - 2], margins[axis] = first, lost.pop() - first
    return call.add(ops.Crop, [value], margins=tuple(margins))


def _every(call: Call, value: str, axis: int, step: int) -> Value:
    """Every `step`-th row or column from one near the front, as wavelets take them."""
    before, after = _probe(call.shape(0)[axis]), _probe(call.shape()[axis])
    start = call["start"] or 0
    if (
        not isinstance(start, int)
        or start < 0
        or any(
            len(range(start, whole, step)) != rest
            for whole, rest in zip(before, after, strict=True)
        )
    ):
        raise call.refuse("it ends before the last row or column", "take all of them")
    margins, steps = [0, 0, 0, 0], [1, 1]
    margins[axis - 2], steps[axis - 2] = start, step
    if start:
        value = call.builder.add(ops.Crop, call.label, [value], margins=tuple(margins))
    return Value(
        lowering.pick_pixels(call.builder, call.label, value, (steps[0], steps[1]))
    )


def _split(call: Call) -> list[Value] | list[Moved]:
    given, rank = call["self"], len(call.shape(0))
    axis = call["dim"] % rank
    of = lowering.pixels(call.builder, given) if isinstance(given, Moved) else None
    if axis != 1 if isinstance(given, Value) else (of is None or axis != rank - 1):
        raise call.refuse("it splits rows or columns", "split channels")
    parts = call.node.meta["val"]
    ends = np.cumsum([int(part.shape[axis]) for part in parts])
    starts = [0, *ends[:-1]]
    picked = [
        _pick(call, given.name, range(start, end))
        for start, end in zip(starts, ends, strict=True)
    ]
    if of is None:
        return picked
    return [lowering.channels_behind(call.builder, each.name, of) for each in picked]


def _slice_scatter(call: Call) -> Value:
    """Channels of a value replaced by another value, as x[:, :n] = y is recorded."""
    return _replaced(call, slice(call["start"], call["end"], call["step"]))


def _select_scatter(call: Call) -> Value:
    """One channel replaced, as by x[:, n] = y."""
    return _replaced(call, call["index"])


def _replaced(call: Call, index: slice | int) -> Value:
    value, source, axis = call.value("self"), call["src"], call["dim"] % 4
    if axis != 1:
        raise call.refuse("it replaces rows or columns", "replace channels")
    if isinstance(source, Value):
        whole = lowering.places(call.builder, source.name)[None]
        source = Moved(source.name, whole)
    if not isinstance(source, Moved):
        raise call.refuse("it puts constants in", "join channels instead")
    places = lowering.places(call.builder, value)
    size = np.int32(places.size)
    places[index] = source.places[0] + size
    joined = call.builder.add(ops.Concat, call.label, [value, source.name])
    return Value(lowering.rearrange(call.builder, call.label, joined, places))


def _copy(call: Call) -> Value | Moved:
    if not isinstance(call["src"], Value | Moved):
        raise call.refuse("it puts constants in", "join channels instead")
    return call["src"]


def _pad(call: Call) -> Value:
    value, mode = call.value("self"), call["mode"]
    probes = [set(_probe(amount)) for amount in call["pad"]]
    if not all(len(probe) == 1 for probe in probes):
        raise call.refuse("it pads by what depends on the size", "pad a fixed margin")
    amounts = [probe.pop() for probe in probes]
    fill = float(call["value"] or 0)
    if any(amounts[4:]):
        if mode != "constant" or any(amounts[6:]):
            raise call.refuse(f"it pads channels in the mode {mode}", "pad with zeros")
        before, after = amounts[4:6]
        value = lowering.pad_channels(
            call.builder, call.label, value, before, after, fill
        )
    left, right, top, bottom = (*amounts[:4], 0, 0)[:4]
    around = (top, left, bottom, right)
    more, less = _at_least_zero(around), _at_least_zero([-each for each in around])
    if any(less):
        value = call.builder.add(ops.Crop, call.label, [value], margins=less)
    if not any(more):
        return Value(value)
    if mode == "constant":
        return Value(lowering.constant_pad(call.builder, call.label, value, more, fill))
    if mode not in ("reflect", "replicate"):
        raise call.refuse(f"it pads in the mode {mode}", "use reflect or replicate")
    return call.add(ops.Pad, [value], mode=mode, padding=more)


def _is_whole(call: Call, kernel: Sequence[Any]) -> bool:
    """Whether a window is the picture, as CBAM has it (arXiv:1807.06521)."""
    is_padded = any(call["padding"])
    return not is_padded and not _differ(kernel, call.shape(0)[2:])


def _max_pool2d(call: Call) -> Value:
    kernel = _pair(call["kernel_size"])
    if call["ceil_mode"] or set(_pair(call["dilation"])) != {1}:
        raise call.refuse("it is dilated or rounds up", "use neither")
    if _is_whole(call, kernel):
        return call.add(ops.GlobalMax, [call.value("self")])
    return call.add(
        ops.MaxPool2d,
        [call.value("self")],
        kernel=kernel,
        stride=_pair(call["stride"] or kernel),
        padding=_pair(call["padding"]) * 2,
    )


def _average_pool2d(call: Call) -> Value:
    kernel = _pair(call["kernel_size"])
    padding = _pair(call["padding"])
    if call["ceil_mode"] or call["divisor_override"]:
        raise call.refuse("it rounds up or divides by another number", "use neither")
    if _is_whole(call, kernel):
        return call.add(ops.GlobalMean, [call.value("self")])
    return Value(
        lowering.average_pool(
            call.builder,
            call.label,
            call.value("self"),
            kernel,
            _pair(call["stride"] or kernel),
            padding * 2,
            counts_padding=call["count_include_pad"],
        )
    )


def _adaptive_max_pool2d(call: Call) -> list[Value]:
    """The largest of each block, where blocks divide the picture evenly."""
    if _is_one_pixel(call):
        return [call.add(ops.GlobalMax, [call.value("self")])]
    kernel = _blocks(call, call.node.meta["val"][0].shape[2:])
    return [call.add(ops.MaxPool2d, [call.value("self")], kernel=kernel, stride=kernel)]


def _is_one_pixel(call: Call) -> bool:
    # Sides may be formulas, which have no hash.
    return all(set(_probe(side)) == {1} for side in call["output_size"])


def _blocks(call: Call, after: Sequence[Any]) -> tuple[int, int]:
    """Rows and columns of the blocks that a picture is divided into evenly."""
    before, factors = call.shape(0)[2:], []
    for whole, parts in zip(before, after, strict=True):
        pairs = zip(_probe(whole), _probe(parts), strict=True)
        factor, *others = {Fraction(*pair) for pair in pairs}
        if others or factor.denominator != 1:
            raise call.refuse("its blocks depend on the picture's size", REPLACE)
        factors.append(int(factor))
    return factors[0], factors[1]


def _adaptive_average_pool2d(call: Call) -> Value:
    """The mean of each block, where blocks divide the picture evenly."""
    if _is_one_pixel(call):
        return call.add(ops.GlobalMean, [call.value("self")])
    kernel = _blocks(call, call.shape()[2:])
    return Value(
        lowering.average_pool(
            call.builder, call.label, call.value("self"), kernel, kernel, (0, 0, 0, 0)
        )
    )


def _im2col(call: Call) -> Moved:
    name = lowering.windows(
        call.builder,
        call.label,
        call.value("self"),
        _pair(call["kernel_size"]),
        stride=_pair(call["stride"]),
        padding=_pair(call["padding"]),
        dilation=_pair(call["dilation"]),
    )
    places = lowering.places(call.builder, name)
    return Moved(name, places.reshape(1, len(places), -1))


def _of_moved(call: Call, *, is_mean: bool) -> Value | Moved | None:
    """A sum or mean of what has its axes in another order; None of anything else."""
    given, builder, label = call["self"], call.builder, call.label
    if not isinstance(given, Moved):
        return None
    axes = _listed(call)
    if is_mean and lowering.has_planes(builder, given, axes):
        return Value(lowering.global_mean(builder, label, given.name))
    found = lowering.summed(builder, label, given, axes, is_mean=is_mean)
    places = found.places
    if call.arguments.get("keepdim"):
        places = np.expand_dims(places, tuple(axes))
    return _placed_as(call, found.name, places)


def _listed(call: Call) -> list[int]:
    """The axes of a reduction, counted from the first on."""
    given, rank = call.arguments.get("dim"), len(call.shape(0))
    listed = [given] if isinstance(given, int) else given
    return sorted(axis % rank for axis in listed or range(rank))


def _mean(call: Call) -> Value | Partial | Moved:
    call.arguments.setdefault("dim", None)
    if (moved := _of_moved(call, is_mean=True)) is not None:
        return moved
    if (partial := _partial(call, is_mean=True)) is not None:
        return partial
    value = call.value("self")
    if _is_over_all(call):
        pixels = lowering.global_mean(call.builder, call.label, value)
        return Value(lowering.channel_mean(call.builder, call.label, pixels))
    if _axes(call, "a mean") == [1]:
        return Value(lowering.channel_mean(call.builder, call.label, value))
    return call.add(ops.GlobalMean, [value])


def _is_over_all(call: Call) -> bool:
    """Whether a reduction is over channels, rows and columns."""
    axes = call.arguments.get("dim")
    if axes is None or axes == []:
        return True
    rank = len(call.shape(0))
    listed = [axes] if isinstance(axes, int) else axes
    return rank == 4 and {0, *(axis % 4 for axis in listed)} == {0, 1, 2, 3}


def _sum(call: Call) -> Value | Partial | Moved:
    if (moved := _of_moved(call, is_mean=False)) is not None:
        return moved
    if (partial := _partial(call, is_mean=False)) is not None:
        return partial
    value = call.value("self")
    if _axes(call, "a sum") != [1]:
        raise call.refuse("it adds all pixels up", "take the mean")
    return Value(lowering.channel_sum(call.builder, call.label, value))


def _partial(call: Call, *, is_mean: bool) -> Value | Partial | None:
    """A sum or mean over rows, columns or both; None over other axes."""
    given, listed = call["self"], call["dim"]
    if listed is None:
        return None
    axes = [axis % 4 for axis in ([listed] if isinstance(listed, int) else listed)]
    is_picture = len(call.shape(0)) == 4 and isinstance(given, Value | Partial)
    if not is_picture or not call["keepdim"] or not {2, 3}.issuperset(axes):
        return None
    name = given.name if isinstance(given, Value) else given
    found = lowering.reduced(call.builder, call.label, name, axes, is_mean=is_mean)
    return Value(found) if isinstance(found, str) else found


def _largest(call: Call) -> Value:
    given = call["self"]
    if isinstance(given, Moved) and lowering.has_planes(
        call.builder, given, _listed(call)
    ):
        return Value(lowering.global_max(call.builder, call.label, given.name))
    return Value(_extreme_of(call, call.value("self"), "a maximum"))


def _extreme_of(call: Call, value: str, what: str) -> str:
    """The largest number of channels, of pixels, or of all."""
    builder, label, is_all = call.builder, call.label, _is_over_all(call)
    over_channels = is_all or _axes(call, what) == [1]
    if is_all or not over_channels:
        value = lowering.global_max(builder, label, value)
    return lowering.channel_max(builder, label, value) if over_channels else value


def _first_of_two(handler: Handler) -> Callable[[Call], list[Value]]:
    """What gives places, too, which nothing here can use."""
    return lambda call: [_reduction(handler)(call)]


def _smallest(call: Call) -> Value:
    less = lowering.scaled(call.builder, call.label, call.value("self"), -1)
    largest = _extreme_of(call, less, "a minimum")
    return Value(lowering.scaled(call.builder, call.label, largest, -1))


def _variance(call: Call) -> Value:
    """The mean square of what is left when the mean is taken away."""
    builder, label, value = call.builder, call.label, call.value("self")
    axes = [1, 2, 3] if _is_over_all(call) else _axes(call, "a variance")
    correction = call.arguments.get("correction", call.arguments.get("unbiased", 1))
    less_one = 1 if correction is None else int(correction)
    if less_one and axes != [1]:
        raise call.refuse(_UNBIASED, _BIASED)

    def mean(of: str) -> str:
        if axes != [1]:
            of = lowering.global_mean(builder, label, of)
        return of if axes == [2, 3] else lowering.channel_mean(builder, label, of)

    count, average = builder.shapes[value].channels, mean(value)
    if axes != [2, 3]:
        average = lowering.pick_channels(builder, label, average, [0] * count)
    less = lowering.scaled(builder, label, average, -1)
    centred = builder.add(ops.Add, label, [value, less])
    found = mean(builder.add(ops.Multiply, label, [centred, centred]))
    if less_one:
        found = lowering.scaled(builder, label, found, count / (count - less_one))
    return Value(found)


def _variance_and_mean(call: Call) -> list[Any]:
    return [_reduction(_variance)(call), _reduction(_mean)(call)]


def _vector_norm(call: Call) -> Value:
    """The root of a sum of squares of each pixel's channels."""
    value, kind = call.value("self"), call["ord"]
    if kind not in (1, 2) or _axes(call, "a norm") != [1]:
        raise call.refuse("it is no norm of channels", "take that, of order 1 or 2")
    if kind == 1:
        size = call.builder.add(ops.Unary, call.label, [value], function="abs")
        return Value(lowering.channel_sum(call.builder, call.label, size))
    square = call.builder.add(ops.Multiply, call.label, [value, value])
    total = lowering.channel_sum(call.builder, call.label, square)
    return call.add(ops.Unary, [total], function="sqrt")


def _deviation(call: Call) -> Value:
    return call.add(ops.Unary, [_variance(call).name], function="sqrt")


def _reduction(handler: Callable[[Call], Any]) -> Handler:
    """What reduces, whether or not it keeps the axis of the channels."""

    def reduce(call: Call) -> Any:
        result = handler(call)
        listed = call.arguments.get("dim")
        axes = [listed] if isinstance(listed, int) else listed
        keeps = call.arguments.get("keepdim", True)
        is_picture = isinstance(result, Value) and len(call.shape(0)) == 4
        if keeps or not is_picture or [axis % 4 for axis in axes or ()] != [1]:
            return result
        return Moved(result.name, lowering.places(call.builder, result.name))

    return reduce


def _axes(call: Call, what: str) -> list[int]:
    """The axes of a reduction: [1], or [2, 3]. Raises `ExportError` for others."""
    given, rank = call["dim"], len(call.shape(0))
    if given is None:
        raise call.refuse(f"it is {what} of all numbers", "of channels, or of pixels")
    axes = sorted(
        axis % rank for axis in ([given] if isinstance(given, int) else given)
    )
    if rank != 4 or axes not in ([1], [2, 3]):
        raise call.refuse(
            f"it is {what} over axes {axes} of {rank}",
            "reduce channels, or rows and columns together",
        )
    return axes


def _group_norm(call: Call) -> Value:
    return _normed(call, int(call["num_groups"]))


def _instance_norm(call: Call) -> Value:
    if not call["use_input_stats"]:
        raise call.refuse("it has running statistics", "use BatchNorm2d")
    return _normed(call, call.builder.shapes[call.value("input")].channels)


def _normed(call: Call, groups: int) -> Value:
    return Value(
        lowering.group_norm(
            call.builder,
            call.label,
            call.value("input"),
            groups,
            call.array("weight"),
            call.array("bias"),
            float(call["eps"]),
        )
    )


def _layer_norm(call: Call) -> Moved:
    """Over the last axis, where that is the channels."""
    given, last = call["input"], list(call["normalized_shape"])
    of = lowering.pixels(call.builder, given) if isinstance(given, Moved) else None
    if of is None or len(last) != 1:
        raise call.refuse(f"it normalises {last} numbers at a time", "of channels")
    kind = "rms" if "rms" in call.operation else "layer"
    epsilon = call["eps"]
    value = lowering.layer_norm(
        call.builder,
        call.label,
        given.name,
        call.array("weight"),
        call.array("bias") if kind == "layer" else None,
        float(np.finfo(np.float32).eps if epsilon is None else epsilon),
        kind=kind,
    )
    return lowering.channels_behind(call.builder, value, of)


def _repeat_interleave(call: Call) -> Value:
    value, axis = call.value("self"), call["dim"]
    if axis is None or axis % 4 == 0:
        raise call.refuse("it repeats all numbers", "repeat channels")
    if axis % 4 != 1:
        factors = [1, 1]
        factors[axis % 4 - 2] = call["repeats"]
        return Value(
            lowering.resize_by_axes(call.builder, call.label, value, "nearest", factors)
        )
    channels = np.arange(call.builder.shapes[value].channels)
    return _pick(call, value, channels.repeat(call["repeats"]).tolist())


def _repeat(call: Call) -> Value:
    repeats = list(call["repeats"])
    if len(repeats) != 4 or repeats[0] != 1 or repeats[2:] != [1, 1]:
        raise call.refuse("it repeats rows or columns", "repeat channels")
    value = call.value("self")
    channels = list(range(call.builder.shapes[value].channels))
    return _pick(call, value, channels * repeats[1])


def _tile(call: Call) -> Value:
    call.arguments["repeats"] = [1] * (4 - len(call["dims"])) + list(call["dims"])
    return _repeat(call)


def _expand(call: Call) -> Value | Moved | Placed:
    if isinstance(call["self"], Moved):
        sides = [int(side) for side in call.shape()]
        if math.prod(sides) > lowering.MAX_PLACES:
            raise call.refuse(f"it makes {math.prod(sides)} numbers", "")
        return _move(call, lambda places: np.broadcast_to(places, sides))
    value = call.value("self")
    shape, channels = call.builder.shapes[value], int(call.shape()[1])
    if shape.channels == 1 < channels:
        return _pick(call, value, [0] * channels)
    # What is the same at every pixel is so here already.
    if _is_pooled(call, "self") and shape.channels == channels:
        return _keep(call)
    return _keep_shape(call)


def _flip(call: Call) -> Value:
    if [axis % 4 for axis in call["dims"]] != [1]:
        raise call.refuse("it mirrors rows or columns", "flip channels")
    value = call.value("self")
    return _pick(call, value, range(call.builder.shapes[value].channels)[::-1])


def _index(call: Call) -> Value:
    indices, value = call["indices"], call.value("self")
    picked = indices[1] if len(indices) > 1 else None
    if len(indices) != 2 or indices[0] is not None or not isinstance(picked, Constant):
        raise call.refuse("it picks rows or columns", "pick channels")
    channels = range(call.builder.shapes[value].channels)
    return _pick(call, value, [channels[int(place)] for place in picked.tensor])


def _index_select(call: Call) -> Value:
    picked, value = call["index"], call.value("self")
    if call["dim"] % 4 != 1 or not isinstance(picked, Constant):
        raise call.refuse("it picks rows or columns", "pick channels")
    channels = range(call.builder.shapes[value].channels)
    return _pick(call, value, [channels[int(place)] for place in picked.tensor])


def _conv1d(call: Call) -> Value:
    """Of what is one number for each channel, along them or between them."""
    value, weight = call.value("input"), call.array("weight")
    length = _probe(call.shape(0)[2])
    if (
        weight is None
        or not _is_pooled(call, "input")
        or set(call["stride"]) != {1}
        or set(call["dilation"]) != {1}
        or call["groups"] != 1
    ):
        raise call.refuse("it is no layer on pooled channels", REPLACE)
    padding = call["padding"]
    if isinstance(padding, str):
        around = weight.shape[2] // 2 if padding == "same" else 0
    else:
        around = int(padding[0])
    if weight.shape[:2] == (1, 1):
        mixed = lowering.convolved_channels(
            call.builder, call.label, value, weight[0, 0], around
        )
        bias = call.array("bias")
    elif set(length) == {1} and weight.shape[2] == 2 * around + 1:
        mixed = lowering.mix_channels(
            call.builder, call.label, value, weight[:, :, around]
        )
        bias = call.array("bias")
    else:
        raise call.refuse("it is no layer on pooled channels", REPLACE)
    return Value(mixed) if bias is None else _affine(call, Value(mixed), shift=bias)


def _concat(call: Call) -> Value | Moved:
    if any(isinstance(part, Moved) for part in call["tensors"]):
        return _joined(call, np.concatenate)
    if call["dim"] % 4 != 1:
        raise call.refuse(f"it joins along dimension {call['dim']}", "join channels")
    parts = list(call["tensors"])
    values = [part for part in parts if isinstance(part, Value)]
    for place, part in enumerate(parts):
        if isinstance(part, Constant) and values:
            parts[place] = _as_value(call, part, values[0])
    if not all(isinstance(part, Value) for part in parts):
        raise call.refuse("one part is a constant", "join what the network computes")
    return call.add(ops.Concat, [part.name for part in parts])


def _as_value(call: Call, constant: Constant, like: Value) -> Value | Constant:
    """A constant whose pixels are alike as a value of another's size."""
    pixel = _without_pixels(constant).tensor
    shape = call.builder.shapes[like.name]
    whole = (1, pixel.shape[1] if pixel.ndim == 4 else 0, shape.height, shape.width)
    if tuple(constant.tensor.shape) != whole or tuple(pixel.shape[2:]) != (1, 1):
        return constant
    numbers = Constant(constant.name, pixel).array.reshape(-1)
    name = like.name
    return Value(lowering.constant_channels(call.builder, call.label, name, numbers))


def _stack(call: Call) -> Value | Moved:
    """Numbers that stand for a picture each, as channels; or a new axis."""
    parts = call["tensors"]
    shapes = [node.meta["val"].shape for node in call.node.all_input_nodes]
    if all(isinstance(part, Value) for part in parts) and all(
        _count(shape) == 1 for shape in shapes
    ):
        return call.add(ops.Concat, [part.name for part in parts])
    return _joined(call, np.stack)


def _joined(
    call: Call, function: Callable[[Sequence[npt.NDArray[Any]], int], Any]
) -> Value | Moved:
    """Numbers of several values side by side, whatever axes these have."""
    parts = list(call["tensors"])
    if not all(isinstance(part, Value | Moved) for part in parts):
        raise call.refuse("one part is a constant", "join what the network computes")
    places, start = [], 0
    for part in parts:
        whole = lowering.places(call.builder, part.name)
        own = part.places if isinstance(part, Moved) else whole[None]
        places.append(own + np.int32(start))
        start += whole.size
    joined = call.builder.add(ops.Concat, call.label, [part.name for part in parts])
    return _placed_as(call, joined, function(places, call["dim"]))


def _pixel_shuffle(call: Call) -> Value | Placed:
    given, factor = call["self"], call["upscale_factor"]
    if isinstance(given, Placed) and given.places.ndim == 4:
        return given.moved(lambda array: sampling.shuffled(array, factor))
    return call.add(
        ops.PixelShuffle, [call.value("self")], factor=call["upscale_factor"]
    )


def _grid_sample(call: Call) -> Value | Moved:
    modes = call["interpolation_mode"], call["padding_mode"]
    if modes != (0, 1):  # bilinear, border
        raise call.refuse(
            "it is not bilinear with edges replicated",
            'set mode="bilinear" and padding_mode="border"',
        )
    value, grid = call["input"], call["grid"]
    if isinstance(value, Value):
        value = Moved(value.name, lowering.places(call.builder, value.name)[None])
    if isinstance(grid, Moved):
        grid = sampling.placed(grid)
    if not isinstance(value, Moved) or not isinstance(grid, Placed):
        raise call.refuse(sampling.ANYWHERE, sampling.ADVICE)
    result = sampling.grid_sample(
        call.builder, call.label, value, grid, align_corners=call["align_corners"]
    )
    return Value(result.name) if len(result.places) == 1 else result


def among_placed(call: Call) -> Any:
    """An operation on the places of pixels; None for one that is on no such thing.

    They are met where a value is added to numbers that differ from pixel to pixel.
    """
    given = [call.arguments.get(name) for name in ("self", "other")]
    kind = _ARITHMETIC.get(call.operation)
    if call.operation == _GRID_SAMPLER:
        return _grid_sample(call)
    if not any(isinstance(each, Placed) for each in call.arguments.values()):
        numbers = next((each for each in given if isinstance(each, Constant)), None)
        is_place = numbers is not None and sampling.differs_by_pixel(numbers.array)
        if kind not in ("add", "subtract") or not is_place:
            return None
    elif call.operation in _OF_PLACES:
        return HANDLERS[call.operation](call)
    elif call.operation in _KEEPS_PLACES:
        return call["self"]
    if kind is None or call.arguments.get("alpha", 1) != 1:
        raise call.refuse(sampling.OF_PLACES, sampling.ADVICE)
    first, second = (_placed(call, each) for each in given)
    if call.operation == "aten.rsub.Scalar":
        first, second = second, first
    return sampling.combine(kind, first, second)


def _placed(call: Call, given: Any) -> Placed | Numbers:
    match given:
        case Value():
            whole = lowering.places(call.builder, given.name)[None]
            return sampling.placed(Moved(given.name, whole))
        case Moved():
            return sampling.placed(given)
        case Constant():
            return given.array
        case int() | float():
            return np.array(float(given))
        case Placed():
            return given
    raise call.refuse(sampling.OF_PLACES, sampling.ADVICE)


def _resize(mode: str) -> Handler:
    def handler(call: Call) -> Value:
        if call.arguments.get("align_corners"):
            raise call.refuse("align_corners is set", "use align_corners=False")
        by_axis = list(_ratios(call))
        ratios = set().union(*by_axis)
        if len(ratios) != 1:
            value = call.value("input")
            factors = [each.pop() for each in by_axis if len(each) == 1]
            is_whole = all(factor.denominator == 1 for factor in factors)
            # Of a trace for one size of picture, a size may look like two factors.
            if len(factors) == 2 and (is_whole or call["scale_factors"] is not None):
                return Value(
                    lowering.resize_by_axes(
                        call.builder, call.label, value, mode, factors
                    )
                )
            rows, columns = map(int, call.shape()[2:])
            return Value(
                lowering.resize_to(
                    call.builder, call.label, value, mode, (rows, columns)
                )
            )
        ratio = ratios.pop()
        return call.add(
            ops.Resize,
            [call.value("input")],
            mode=mode,
            ratio=(ratio.numerator, ratio.denominator),
        )

    return handler


def _resize_exact(call: Call) -> Value:
    """Of whole factors, what nearest gives; PyTorch's other one is off elsewhere."""
    if any(
        len(ratios) != 1 or next(iter(ratios)).denominator != 1
        for ratios in _ratios(call)
    ):
        raise call.refuse("nearest-exact by no whole factor", "use nearest")
    result: Value = _resize("nearest")(call)
    return result


def _ratios(call: Call) -> Iterator[set[Fraction]]:
    """Of height and of width; more than one where they depend on the picture's."""
    if call["scale_factors"] is not None:
        for factor in call["scale_factors"]:
            yield {Fraction(factor).limit_denominator(MAX_EXTENT)}
        return
    for after, before in zip(call.shape()[2:], call.shape(0)[2:], strict=True):
        pairs = zip(_probe(after), _probe(before), strict=True)
        yield {Fraction(*pair) for pair in pairs}


def _keep(call: Call) -> Value:
    """What changes nothing but, maybe, the place in memory."""
    return Value(call.value("self"))


def _keep_shape(call: Call) -> Value:
    if _differ(call.shape(), call.shape(0)) and not _is_one_each(call):
        raise call.refuse("it changes the shape", REPLACE)
    return _keep(call)


def _is_one_each(call: Call) -> bool:
    """Whether what it gives another shape has one number for each channel."""
    before, after = _count(call.shape(0)), _count(call.shape())
    return _is_pooled(call, "self") and before == after


def _is_pooled(call: Call, argument: str) -> bool:
    """Whether it is one number for each channel, in whatever shape the module has it.

    The graph has such a number at every pixel.
    """
    given, node = call.arguments.get(argument), call.operands.get(argument)
    if not isinstance(given, Value) or not isinstance(node, fx.Node):
        return False
    channels = call.builder.shapes[given.name].channels
    return _count(node.meta["val"].shape) == channels


def _reshape(call: Call) -> Value | Moved | Placed:
    is_same = not _differ(call.shape(), call.shape(0))
    if isinstance(call["self"], Value) and (is_same or _is_one_each(call)):
        return _keep(call)
    return _move(call, lambda places: places.reshape([int(n) for n in call.shape()]))


def _permute(call: Call) -> Value | Moved | Placed:
    return _move(call, lambda places: places.transpose(call["dims"]))


def _select(call: Call) -> Value | Moved | Placed:
    return _move(call, lambda places: places.take(call["index"], call["dim"]))


def _transpose(call: Call) -> Value | Moved | Placed:
    return _move(call, lambda places: places.swapaxes(call["dim0"], call["dim1"]))


def _move(
    call: Call, function: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
) -> Value | Moved | Placed:
    """Which numbers stand where after `function`, and a value if it can be one.

    So modules shuffle channels, and pixels without pixel_shuffle.
    """
    given = call["self"]
    if isinstance(given, Placed):
        return given.moved(function)
    if isinstance(given, Value) and _is_one_each(call):
        return given
    if isinstance(given, Partial):
        raise call.refuse(_PARTIAL, _WHOLE)
    if isinstance(given, Value):
        given = Moved(given.name, lowering.places(call.builder, given.name)[None])
    # Sizes that depend on the picture's, and numbers that stand for all pixels.
    if given.places.shape != call.shape(0):
        raise call.refuse("it changes the shape", REPLACE)
    return _placed_as(call, given.name, function(given.places))


def _placed_as(call: Call, name: str, places: npt.NDArray[np.int32]) -> Value | Moved:
    """A value with its numbers at `places`, as one of its own if it can be."""
    if places.ndim == 4 and len(places) == 1:
        with suppress(GraphError):
            return Value(lowering.rearrange(call.builder, call.label, name, places[0]))
    return Moved(name, places)


def _linear(call: Call) -> Value | Moved:
    """Of what is one number for each channel, or with channels as the last axis."""
    weight, bias, given = call.array("weight"), call.array("bias"), call["input"]
    of = lowering.pixels(call.builder, given) if isinstance(given, Moved) else None
    if weight is None or (of is None and not _is_pooled(call, "input")):
        raise call.refuse("it is no layer on channels", REPLACE)
    name = lowering.mix_channels(call.builder, call.label, given.name, weight)
    if bias is not None:
        name = call.builder.affine(call.label, name, np.ones(len(weight)), bias)
    if of is None:
        return Value(name)
    return lowering.channels_behind(call.builder, name, of)


def among_moved(call: Call, handler: Handler) -> Any:
    """An operation on values whose axes stand in another order.

    Pointwise ones do not mind; linear layers and layer normalisation work on the last.
    """
    if call.operation in LAST_AXIS or call.operation in _JOINS:
        return handler(call)
    found = [each for each in call.arguments.values() if isinstance(each, Moved)]
    first, *others = found
    is_plain = not any(isinstance(each, Value) for each in call.arguments.values())
    same = all(np.array_equal(other.places, first.places) for other in others)
    of = None if same else lowering.same_pixels(call.builder, found)
    fits = is_plain and (same or of is not None)
    if call.operation not in POINTWISE or not fits:
        raise call.refuse(
            "what it works on is not (1, channels, height, width)", REPLACE
        )
    call.channels = call.builder.shapes[first.name].channels
    for name, given in call.arguments.items():
        if isinstance(given, Moved):
            call.arguments[name] = Value(given.name)
        elif isinstance(given, Constant) and given.tensor.numel() > 1:
            numbers = lowering.unmoved(call.builder, given.array, first)
            call.arguments[name] = Constant(given.name, torch.from_numpy(numbers))
    result = handler(call).name
    if of is not None:
        return lowering.channels_behind(call.builder, result, of)
    return Moved(result, first.places)


def _convert(call: Call) -> Value:
    if call.node.meta["val"].dtype != torch.float32:
        raise call.refuse(
            f"it converts to {call.node.meta['val'].dtype}", "stay in float32"
        )
    return _keep(call)


def _type_as(call: Call) -> Any:
    # Everything is float32 here, constants too.
    return call["self"]


def _item(call: Call) -> Any:
    return call["0"][call["1"]]


def _at_least_zero(given: Sequence[int]) -> tuple[int, int, int, int]:
    top, left, bottom, right = (max(0, each) for each in given)
    return top, left, bottom, right


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


def _count(shape: Sequence[Any]) -> int:
    return math.prod(_probe(extent)[0] for extent in shape)


def _differ(first: Sequence[Any], second: Sequence[Any]) -> bool:
    return list(map(_probe, first)) != list(map(_probe, second))


# Those that torch says by others.
COMPOSED = {
    *("absolute", "addcdiv", "addcmul", "channel_shuffle", "clamp_max", "clamp_min"),
    *("concat", "concatenate", "divide", "frobenius_norm", "glu", "greater"),
    *("greater_equal", "hardshrink", "hstack", "lerp", "less", "less_equal"),
    *("masked_fill", "multiply", "native_channel_shuffle", "negative", "norm"),
    *("new_full", "new_ones", "new_zeros", "ones_like", "reflection_pad2d"),
    *("replication_pad2d", "special_expit", "square", "squeeze"),
    *("subtract", "threshold", "true_divide", "unbind", "zeros_like"),
}
# Those that also take what is between reshaping and transposing.
MOVES: Mapping[str, Handler] = {
    "aten.flatten.using_ints": _reshape,
    "aten.permute.default": _permute,
    "aten.reshape.default": _reshape,
    "aten.select.int": _select,
    "aten.squeeze.dim": _reshape,
    "aten.squeeze.dims": _reshape,
    "aten.transpose.int": _transpose,
    "aten.unflatten.int": _reshape,
    "aten.unsqueeze.default": _reshape,
    "aten.view.default": _reshape,
    "aten._unsafe_view.default": _reshape,
    "aten.clone.default": lambda call: call["self"],
    "aten.contiguous.default": lambda call: call["self"],
    "aten.copy.default": _copy,
    "aten.select_scatter.default": _select_scatter,
    "aten.slice_scatter.default": _slice_scatter,
}
# Those that the places of pixels may go through.
_ARITHMETIC: Mapping[str, Arithmetic] = {
    "aten.add.Tensor": "add",
    "aten.sub.Tensor": "subtract",
    "aten.rsub.Scalar": "subtract",
    "aten.mul.Tensor": "multiply",
    "aten.div.Tensor": "divide",
}
_KEEPS_PLACES = {
    *("aten.alias.default", "aten.clone.default", "aten.contiguous.default"),
    *("aten._to_copy.default", "aten.to.dtype", "aten.type_as.default"),
}
_PUTS_IN = {
    *("aten.copy.default", "aten.select_scatter.default"),
    "aten.slice_scatter.default",
}
_OF_PLACES = {
    "aten.pixel_shuffle.default",
    *MOVES.keys() - _KEEPS_PLACES - _PUTS_IN,
}
# Those that take values with their axes in another order, most of them where the
# channels are the last.
LAST_AXIS = (
    "aten.chunk.default",
    "aten.split.Tensor",
    "aten.split_with_sizes.default",
    "aten.layer_norm.default",
    "aten.linear.default",
    "aten.amax.default",
    "aten.expand.default",
    "aten.max.dim",
    "aten.mean.dim",
    "aten.rms_norm.default",
    "aten.sum.dim_IntList",
)
# Those that put values side by side.
_JOINS = ("aten.cat.default", "aten.stack.default")
# Each number by itself, so that it does not matter where it stands.
POINTWISE = {
    f"aten.{name}"
    for name in (
        *("abs.default", "add.Tensor", "alias.default", "celu.default"),
        *("clamp.default", "clamp_max.default", "clamp_min.default", "div.Tensor"),
        *("elu.default", "erf.default", "exp.default", "gelu.default"),
        *("hardsigmoid.default", "hardswish.default", "hardtanh.default"),
        "leaky_relu.default",
        *("mish.default", "mul.Tensor", "neg.default", "pow.Tensor_Scalar"),
        *("reciprocal.default", "relu.default", "relu6.default", "rsqrt.default"),
        *("rsub.Scalar", "selu.default", "sigmoid.default", "silu.default"),
        *("softplus.default", "sqrt.default", "sub.Tensor", "tanh.default"),
    )
}
# ATen operation → what it becomes.
HANDLERS: Mapping[str, Handler] = {
    "aten.conv2d.default": _conv2d,
    "aten.conv2d.padding": _conv2d,
    "aten.conv_transpose2d.input": _conv_transpose2d,
    "aten._native_batch_norm_legit_no_training.default": _batch_norm,
    "aten.relu.default": _relu,
    "aten.prelu.default": _prelu,
    "aten.leaky_relu.default": lambda call: call.add(
        ops.LeakyRelu, [call.value("self")], slope=float(call["negative_slope"])
    ),
    "aten.clamp.default": _clamp,
    "aten.clamp.Tensor": _clamp,
    "aten.clip.default": _clamp,
    "aten.clamp_min.default": _clamp,
    "aten.clamp_max.default": _clamp,
    "aten.hardtanh.default": _hardtanh,
    "aten.relu6.default": lambda call: call.add(
        ops.Clamp, [call.value("self")], low=0.0, high=6.0
    ),
    "aten.abs.default": _unary("abs"),
    "aten.elu.default": _elu,
    "aten.selu.default": _selu,
    "aten.celu.default": _celu,
    "aten.log_sigmoid.default": _log_sigmoid,
    "aten.maximum.default": _extreme(lowering.maximum, lowering.at_least),
    "aten.max.other": _extreme(lowering.maximum, lowering.at_least),
    "aten.minimum.default": _extreme(lowering.minimum, lowering.at_most),
    "aten.min.other": _extreme(lowering.minimum, lowering.at_most),
    "aten.conv1d.default": _conv1d,
    "aten.conv1d.padding": _conv1d,
    "aten.erf.default": lambda call: call.add(Erf, [call.value("self")]),
    "aten.exp.default": _unary("exp"),
    "aten.gelu.default": _gelu,
    "aten.hardsigmoid.default": _unary("hardsigmoid"),
    "aten.hardswish.default": _unary("hardswish"),
    "aten.mish.default": _unary("mish"),
    "aten.pow.Tensor_Scalar": _power,
    "aten.reciprocal.default": _unary("reciprocal"),
    "aten.rsqrt.default": _unary("rsqrt"),
    "aten.sigmoid.default": _unary("sigmoid"),
    "aten.silu.default": _unary("silu"),
    "aten.softmax.int": _softmax,
    "aten.softplus.default": _softplus,
    "aten.full_like.default": _full_like,
    "aten.sign.default": _sign,
    "aten.softshrink.default": _softshrink,
    "aten.rrelu.default": _random_relu,
    "aten.where.self": _where,
    "aten.where.ScalarSelf": _where,
    "aten.where.ScalarOther": _where,
    "aten.where.Scalar": _where,
    **{
        f"aten.{name}.{kind}": _compare(*order, is_strict=is_strict)
        for name, order, is_strict in (
            ("gt", ("self", "other"), True),
            ("lt", ("other", "self"), True),
            ("ge", ("self", "other"), False),
            ("le", ("other", "self"), False),
        )
        for kind in ("Scalar", "Tensor")
    },
    "aten.sqrt.default": _unary("sqrt"),
    "aten.tanh.default": _unary("tanh"),
    "aten.add.Tensor": _add,
    "aten.sub.Tensor": _subtract,
    "aten.rsub.Scalar": _subtract_from,
    "aten.mul.Tensor": _multiply,
    "aten.div.Tensor": _divide,
    "aten.neg.default": _negate,
    "aten.cat.default": _concat,
    "aten.stack.default": _stack,
    _GRID_SAMPLER: _grid_sample,
    "aten.pixel_shuffle.default": _pixel_shuffle,
    "aten.pixel_unshuffle.default": _pixel_unshuffle,
    "aten.pad.default": _pad,
    "aten.max_pool2d.default": _max_pool2d,
    "aten.avg_pool2d.default": _average_pool2d,
    "aten.adaptive_max_pool2d.default": _adaptive_max_pool2d,
    "aten.im2col.default": _im2col,
    "aten.adaptive_avg_pool2d.default": _adaptive_average_pool2d,
    "aten.mean.default": _reduction(_mean),
    "aten.mean.dim": _reduction(_mean),
    "aten.sum.dim_IntList": _reduction(_sum),
    "aten.amax.default": _reduction(_largest),
    "aten.amin.default": _reduction(_smallest),
    "aten.max.default": _largest,
    "aten.min.default": _smallest,
    "aten.max.dim": _first_of_two(_largest),
    "aten.min.dim": _first_of_two(_smallest),
    "aten.var.correction": _reduction(_variance),
    "aten.var.dim": _reduction(_variance),
    "aten.var_mean.correction": _variance_and_mean,
    "aten.var_mean.dim": _variance_and_mean,
    "aten.linalg_vector_norm.default": _reduction(_vector_norm),
    "aten.std.default": _deviation,
    "aten.var.default": _variance,
    "aten.std.dim": _reduction(_deviation),
    "aten.std.correction": _reduction(_deviation),
    "aten.group_norm.default": _group_norm,
    "aten.instance_norm.default": _instance_norm,
    "aten.layer_norm.default": _layer_norm,
    "aten.rms_norm.default": _layer_norm,
    "aten.flip.default": _flip,
    "aten.index.Tensor": _index,
    "aten.index_select.default": _index_select,
    "aten.tile.default": _tile,
    "aten.upsample_nearest2d.vec": _resize("nearest"),
    "aten._upsample_nearest_exact2d.vec": _resize_exact,
    "aten.upsample_bilinear2d.vec": _resize("bilinear"),
    "aten.upsample_bicubic2d.vec": _resize("bicubic"),
    "aten.alias.default": _keep,
    "aten.detach.default": _keep,
    "aten._to_copy.default": _convert,
    "aten.to.dtype": _convert,
    "aten.type_as.default": _type_as,
    **MOVES,
    "aten.linear.default": _linear,
    "aten.expand.default": _expand,
    "aten.slice.Tensor": _slice,
    "aten.split.Tensor": _split,
    "aten.split_with_sizes.default": _split,
    "aten.chunk.default": _split,
    "aten.repeat.default": _repeat,
    "aten.repeat_interleave.self_int": _repeat_interleave,
    "<built-in function getitem>": _item,
}
