"""ncnn models, a text `.param` with its `.bin`, into graphs.

The format: https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure and
the layers' parameter numbers, docs/developer-guide/operators.md there. Layers are
listed in order, weights follow each other in the order of the layers.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from upfrost import __version__
from upfrost.graph import (
    INPUT,
    MAX_CHANNELS,
    MAX_EXTENT,
    MAX_NODES,
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
    Shape,
)
from upfrost.reference import Array
from upfrost_exporter import passes
from upfrost_exporter.builder import ExportError, GraphBuilder, Numbers, unique_name
from upfrost_exporter.check import verify

_Floats = npt.NDArray[np.float32]

_MAGIC = "7767517"
_MAX_TEXT = 4 << 20
_MAX_WEIGHTS = 1 << 29
_HALF, _FLOAT, _INT8 = 0x01306B47, 0x0002C056, 0x000D4B38
# Stand for "as wide as needed" in paddings and "from the second input" in sizes.
_SAME_UPPER, _SAME_LOWER, _DYNAMIC = -233, -234, -233


def read_ncnn(
    param: str | Path,
    weights: str | Path | None = None,
    *,
    name: str | None = None,
    channels: int = 3,
    value_range: float = 1.0,
    metadata: Mapping[str, object] | None = None,
) -> Graph:
    """The network in an ncnn pair, checked against ncnn itself on the CPU.

    `weights` is the `.bin` beside `param` unless it is given. The network maps
    `channels` × height × width from 0 to `value_range` to the same times an integer
    scale. Raises `ExportError` for a damaged file, for what cannot be carried, naming
    the first layer in the way, and for results that differ.
    """
    param = Path(param)
    weights = param.with_suffix(".bin") if weights is None else Path(weights)
    layers = _parse(_read(param, _MAX_TEXT), param)
    reader = _Weights(_read(weights, _MAX_WEIGHTS), weights)
    translation = _Translation(layers, reader, channels)
    picture, result = (
        translation.builder.shapes[value] for value in (INPUT, translation.output)
    )
    graph = translation.builder.graph(
        translation.output,
        name=name or unique_name(param.stem, ()),
        scale=max(1, round(result.height / picture.height)),
        value_range=value_range,
        metadata={
            "source": param.name,
            "generator": f"upfrost {__version__}",
            **(metadata or {}),
        },
    )
    graph = passes.clean(graph)
    names = (translation.input_blob, translation.output_blob)
    verify(graph, _runtime(param, weights, *names))
    return graph


@dataclass(frozen=True)
class Layer:
    """One line of the `.param` file. Parameters are numbers or lists of numbers."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: Mapping[int, float | tuple[float, ...]]
    place: str

    def integer(self, key: int, default: int) -> int:
        found = self.number(key, default)
        if found != int(found):
            raise self.refuse(f"parameter {key} is {found}, no integer", "")
        return int(found)

    def number(self, key: int, default: float) -> float:
        found = self.parameters.get(key, default)
        if isinstance(found, tuple):
            raise self.refuse(f"parameter {key} is a list", "")
        return found

    def numbers(self, key: int) -> tuple[float, ...]:
        found = self.parameters.get(key, ())
        return found if isinstance(found, tuple) else (found,)

    def refuse(self, reason: str, advice: str) -> ExportError:
        what_to_do = f"; {advice}" if advice else ""
        return ExportError(
            f"cannot import {self.kind} {self.name!r} ({self.place}): "
            f"{reason}{what_to_do}"
        )


class _Weights:
    """The `.bin` file, read from front to back."""

    def __init__(self, data: bytes, path: Path) -> None:
        self._data = memoryview(data)
        self._path = path
        self._at = 0

    def tagged(self, count: int, layer: Layer) -> _Floats:
        """Numbers behind a tag that says how they are stored."""
        (tag,) = struct.unpack("<I", self._take(4, layer))
        if tag == _HALF:
            # Padded to whole words.
            data = self._take((2 * count + 3) // 4 * 4, layer)
            return np.frombuffer(data, "<f2", count).astype(np.float32)
        if tag in (0, _FLOAT):
            return self.plain(count, layer)
        if tag == _INT8:
            raise layer.refuse("its weights are int8", "use the fp32 or fp16 model")
        # Any other tag: a table of 256 numbers, then a byte for each weight.
        table = np.frombuffer(self._take(1024, layer), "<f4").astype(np.float32)
        places = np.frombuffer(self._take((count + 3) // 4 * 4, layer), np.uint8, count)
        return table[places]

    def plain(self, count: int, layer: Layer) -> _Floats:
        """Numbers stored as float32, without a tag."""
        return np.frombuffer(self._take(4 * count, layer), "<f4").astype(np.float32)

    def end(self) -> None:
        if rest := len(self._data) - self._at:
            raise ExportError(
                f"{self._path}: {rest} bytes are left over: it belongs to another "
                ".param file"
            )

    def _take(self, count: int, layer: Layer) -> memoryview:
        if not 0 <= count <= len(self._data) - self._at:
            raise ExportError(
                f"{self._path}: ends in the weights of {layer.kind} {layer.name!r}: it "
                "is cut short, or belongs to another .param file"
            )
        self._at += count
        return self._data[self._at - count : self._at]


class _Translation:
    """Walks the layers and builds the graph; `output` names the result."""

    def __init__(
        self, layers: Sequence[Layer], weights: _Weights, channels: int
    ) -> None:
        self.builder = GraphBuilder(channels)
        self._values: dict[str, str] = {}
        inputs = [layer for layer in layers if layer.kind == "Input"]
        if len(inputs) != 1 or len(inputs[0].outputs) != 1:
            raise ExportError(f"the network has {len(inputs)} inputs, not one")
        self.input_blob = inputs[0].outputs[0]
        for layer in layers:
            if layer.kind == "Input":
                self._values[self.input_blob] = INPUT
                continue
            for blob in layer.inputs:
                if blob not in self._values:
                    raise layer.refuse(f"no earlier layer gives its input {blob!r}", "")
            handler = HANDLERS.get(layer.kind)
            if handler is None:
                raise layer.refuse("upfrost has no such operation", _advice(layer.kind))
            values = [self._values[blob] for blob in layer.inputs]
            try:
                result = handler(Call(self.builder, layer, values, weights))
            except GraphError as error:
                raise layer.refuse(str(error), "") from None
            self._values.update(dict.fromkeys(layer.outputs, result))
        weights.end()
        read = {blob for layer in layers for blob in layer.inputs}
        loose = [blob for blob in self._values if blob not in read]
        if len(loose) != 1:
            raise ExportError(f"the network has {len(loose)} outputs, not one")
        self.output_blob = loose[0]
        self.output = self._values[loose[0]]


@dataclass(frozen=True)
class Call:
    """One layer on values of the graph being built."""

    builder: GraphBuilder
    layer: Layer
    values: Sequence[str]
    weights: _Weights

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


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise ExportError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > limit:
        raise ExportError(f"{path}: larger than {limit} bytes")
    return data


def _parse(data: bytes, path: Path) -> list[Layer]:
    try:
        lines = data.decode("ascii").split("\n")
    except UnicodeDecodeError:
        lines = []
    if not lines or lines[0].strip() != _MAGIC:
        raise ExportError(
            f"{path}: not an ncnn text .param file: its first line must be {_MAGIC}"
        )
    rows = [(number, line.split()) for number, line in enumerate(lines, 1)]
    rows = [(number, words) for number, words in rows[1:] if words]
    try:
        count, _ = (int(word) for word in rows[0][1])
    except (IndexError, ValueError):
        raise ExportError(f"{path}: line 2 must be two counts") from None
    if len(rows) - 1 != count:
        raise ExportError(
            f"{path}: line 2 says {count} layers, the file has {len(rows) - 1}"
        )
    if count > 16 * MAX_NODES:
        raise ExportError(f"{path}: {count} layers are too many")
    layers, known = [], set[str]()
    for number, words in rows[1:]:
        try:
            layer = _parse_layer(words, number)
        except (ValueError, IndexError, OverflowError):
            raise ExportError(f"{path}: line {number} is malformed") from None
        for blob in layer.outputs:
            if blob in known:
                raise ExportError(f"{path}: line {number} gives {blob!r} once more")
            known.add(blob)
        layers.append(layer)
    return layers


def _parse_layer(words: list[str], number: int) -> Layer:
    kind, name, *rest = words
    ends = int(rest[0]), int(rest[1])
    if min(ends) < 0 or len(rest) < 2 + sum(ends):
        raise ValueError(number)
    first = 2 + ends[0]
    parameters: dict[int, float | tuple[float, ...]] = {}
    for word in rest[first + ends[1] :]:
        key_text, _, text = word.partition("=")
        key = int(key_text)
        if key <= -23300:
            length, *values = text.split(",")
            if int(length) != len(values):
                raise ValueError(number)
            parameters[-23300 - key] = tuple(_finite(value) for value in values)
        else:
            parameters[key] = _finite(text)
    return Layer(
        kind=kind,
        name=name,
        inputs=tuple(rest[2:first]),
        outputs=tuple(rest[first : first + ends[1]]),
        parameters=parameters,
        place=f"line {number}",
    )


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _advice(kind: str) -> str:
    if kind in ("Softmax", "MatMul", "Gemm", "LayerNorm", "MultiHeadAttention"):
        return "attention is out of scope: choose a convolutional network"
    if kind in ("Pooling", "InnerProduct", "Reduction", "InstanceNorm", "GroupNorm"):
        return "it looks at the whole picture, which a tile cannot: use a model without"
    return "use a model made of convolutions, interpolation and pixel shuffle"


def _convolution(call: Call) -> str:
    layer = call.layer
    if layer.integer(8, 0):
        raise layer.refuse("it is quantised to int8", "use the fp32 or fp16 model")
    if layer.integer(19, 0):
        raise layer.refuse("its weights are computed", "use fixed weights")
    outputs, count = layer.integer(0, 0), layer.integer(6, 0)
    width = layer.integer(1, 0)
    kernel = (layer.integer(11, width), width)
    groups = layer.integer(7, 1) if layer.kind == "ConvolutionDepthWise" else 1
    inputs = call.shape.channels
    if not (
        1 <= outputs <= MAX_CHANNELS
        and all(1 <= extent <= MAX_EXTENT for extent in kernel)
        and 1 <= groups <= inputs
        and inputs % groups == 0
        and count == outputs * (inputs // groups) * kernel[0] * kernel[1]
    ):
        raise layer.refuse(
            f"{count} weights do not make {outputs} × {inputs} channels in {groups} "
            f"groups with a {kernel[0]}×{kernel[1]} kernel",
            "",
        )
    weight = call.weights.tagged(count, layer)
    bias = call.weights.plain(outputs, layer) if layer.integer(5, 0) else None
    dilation = (layer.integer(12, layer.integer(2, 1)), layer.integer(2, 1))
    stride = (layer.integer(13, layer.integer(3, 1)), layer.integer(3, 1))
    if layer.number(18, 0) != 0:
        raise layer.refuse("it pads with a number that is not 0", "pad with zeros")
    shape = (outputs, inputs // groups, *kernel)
    value = call.add(
        Conv2d,
        weight=call.tensor("weight", weight.reshape(shape)),
        bias=None if bias is None else call.tensor("bias", bias),
        stride=stride,
        padding=_padding(layer, kernel, stride, dilation),
        dilation=dilation,
        groups=groups,
    )
    return _activate(call, value)


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
    needed = {0: 0, 1: 0, 2: 1, 3: 2}.get(kind)
    if needed is None or len(numbers) < needed:
        raise call.layer.refuse(
            f"activation {kind} is unknown to upfrost",
            "use a model with ReLU, LeakyReLU, PReLU or Clip",
        )
    if kind == 1:
        return call.add(Relu, value)
    if kind == 2:
        return call.add(LeakyRelu, value, slope=numbers[0])
    if kind == 3:
        return call.add(Clamp, value, low=numbers[0], high=numbers[1])
    return value


def _prelu(call: Call) -> str:
    count = call.layer.integer(0, 0)
    if count not in (1, call.shape.channels):
        raise call.layer.refuse(
            f"{count} slopes for {call.shape.channels} channels", ""
        )
    slopes = call.weights.plain(count, call.layer)
    return call.add(Prelu, slope=call.tensor("slope", slopes))


def _relu(call: Call) -> str:
    slope = call.layer.number(0, 0)
    return call.add(LeakyRelu, slope=slope) if slope else call.add(Relu)


def _clip(call: Call) -> str:
    largest = float(np.finfo(np.float32).max)
    bounds = call.layer.number(0, -largest), call.layer.number(1, largest)
    low, high = (min(max(bound, -largest), largest) for bound in bounds)
    return call.add(Clamp, low=low, high=high)


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
        raise call.layer.refuse(
            "its factors are computed from the picture", _advice("Pooling")
        )
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
    elif kind != 0:
        raise call.layer.refuse(
            f"operation {kind} on two values", _advice(call.layer.kind)
        )
    return call.add(Add, first, second)


def _with_scalar(call: Call, kind: int, number: float) -> str:
    value = call.values[0]
    if kind in (0, 1):
        return call.affine(value, 1, number if kind == 0 else -number)
    if kind == 2 or (kind == 3 and number):
        return call.affine(value, number if kind == 2 else 1 / number, 0)
    if kind == 7:
        return call.affine(value, -1, number)
    raise call.layer.refuse(f"operation {kind} with {number}", _advice(call.layer.kind))


def _eltwise(call: Call) -> str:
    if call.layer.integer(0, 0) != 1:
        raise call.layer.refuse("it is no sum", _advice(call.layer.kind))
    factors = call.layer.numbers(1) or (1.0,) * len(call.values)
    if len(factors) != len(call.values):
        raise call.layer.refuse(f"{len(factors)} factors", "")
    total, *others = (
        value if factor == 1 else call.affine(value, factor, 0)
        for value, factor in zip(call.values, factors, strict=True)
    )
    for value in others:
        total = call.add(Add, total, value)
    return total


def _two(call: Call) -> tuple[str, str]:
    if len(call.values) != 2:
        raise call.layer.refuse(f"it has {len(call.values)} inputs, not two", "")
    return call.values[0], call.values[1]


def _concat(call: Call) -> str:
    if call.layer.integer(0, 0) not in (0, -3):
        raise call.layer.refuse("it joins rows or columns", "join channels")
    return call.add(Concat)


def _pixel_shuffle(call: Call) -> str:
    if call.layer.integer(1, 0):
        raise call.layer.refuse("its channels are in another order", "use mode 0")
    return call.add(PixelShuffle, factor=call.layer.integer(0, 1))


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
    return call.add(Resize, mode=mode, ratio=(rows.numerator, rows.denominator))


def _keep(call: Call) -> str:
    return call.values[0]


def _dropout(call: Call) -> str:
    return call.affine(call.values[0], call.layer.number(0, 1), 0)


def _unary(call: Call) -> str:
    if call.layer.integer(0, 0) != 1:
        raise call.layer.refuse(
            f"function {call.layer.integer(0, 0)}", _advice(call.layer.kind)
        )
    return call.affine(call.values[0], -1, 0)


def _runtime(
    param: Path, weights: Path, input_blob: str, output_blob: str
) -> Callable[[Array], Array]:
    """The network in ncnn on the CPU, in float32 and without approximations."""
    try:
        import ncnn
    except ImportError:
        raise ExportError("the check needs ncnn: pip install ncnn") from None
    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = 1
    # They would make float32 results less exact.
    for approximation in (
        "use_winograd_convolution",
        "use_fp16_packed",
        "use_fp16_storage",
        "use_fp16_arithmetic",
        "use_bf16_storage",
    ):
        setattr(net.opt, approximation, False)
    if net.load_param(str(param)) or net.load_model(str(weights)):
        raise ExportError(f"{param}: ncnn refuses the model")

    def run(picture: Array) -> Array:
        extractor = net.create_extractor()
        extractor.input(input_blob, ncnn.Mat(np.ascontiguousarray(picture)).clone())
        status, result = extractor.extract(output_blob)
        if status:
            raise ExportError(f"{param}: ncnn cannot run the model")
        return np.array(result)

    return run


Handler = Callable[[Call], str]

# ncnn layer → what becomes of it.
HANDLERS: Mapping[str, Handler] = {
    "Convolution": _convolution,
    "ConvolutionDepthWise": _convolution,
    "PReLU": _prelu,
    "ReLU": _relu,
    "Clip": _clip,
    "BatchNorm": _batch_norm,
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
