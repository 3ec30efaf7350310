"""The network as data: nodes, shape inference, receptive field, validation.

A `Graph` is a list of nodes in topological order. Each node writes one value, which
carries the node's name; the picture itself is the value ``input``. A value is a stack
of channel planes, (channels, height, width). A `Graph` that exists is valid: the
constructor checks every reference, attribute, channel count and weight.

An operation is one class below, listed in `OPERATIONS`. It says how its output's shape
follows from its inputs' and which rows and columns of an input an output needs.
"""

# ruff: noqa: ARG002 - operations share the signatures of Node, few need all of them.

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt

from upfrost.errors import UpfrostError

Tensor = npt.NDArray[np.float16] | npt.NDArray[np.float32]
Tensors = Mapping[str, Tensor]

# Marks an attribute that names a tensor of the graph.
TensorName = Annotated[str, "tensor"]

INPUT = "input"
MAX_SCALE = 16
MAX_NODES = 4096
MAX_CHANNELS = 4096
MAX_EXTENT = 64  # kernel size, stride, dilation, padding, scale factors
MAX_SIZE = 1 << 20  # rows or columns of a value
# What a network's one channel may be marked as.
Colour = Literal["luma"]
WHOLE = 1 << 30  # beyond every edge: what looks at the whole picture needs so much
_LARGEST = float(np.finfo(np.float32).max)
_PIECE = 1 << 18  # weights looked at in one go
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]|\.(?!\.)){0,127}")


class GraphError(UpfrostError, ValueError):
    """A graph that cannot be right; the message names the node and the reason."""


@dataclass(frozen=True)
class Shape:
    """Extent of a value."""

    channels: int
    height: int
    width: int

    def __str__(self) -> str:
        plural = "" if self.channels == 1 else "s"
        return f"{self.channels} channel{plural} of {self.width}×{self.height}"


@dataclass(frozen=True)
class Window:
    """Rows (or columns) `start` to `stop - 1` of a value, along one axis."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start

    def union(self, other: Window) -> Window:
        return Window(min(self.start, other.start), max(self.stop, other.stop))


@dataclass(frozen=True)
class Blocks:
    """How Winograd's method cuts rows and columns of a value into blocks of `side`.

    The first block begins `lead` pixels before the value's first one.
    """

    side: int
    lead: int = 0

    @property
    def mixes(self) -> bool:
        """Whether a pixel's rounding depends on more than the convolution reads."""
        return self.side > 2

    def window(self, wanted: Window) -> Window:
        """What has to be computed directly to depend on as much as `wanted` does.

        By the method's matrices, a block's first row alone depends on the first row
        that the block reads, and its last row on the last; all of its rows depend, if
        only in their rounding, on those between.
        """
        start, stop = wanted.start, wanted.stop
        before, after = (start + self.lead) % self.side, -(stop + self.lead) % self.side
        return Window(
            start - before + 1 if before else start, stop + after - 1 if after else stop
        )


NO_BLOCKS: Mapping[str, Blocks] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Node:
    """One operation on earlier values. `name` is also the name of its output."""

    name: str
    inputs: tuple[str, ...]

    op: ClassVar[str]
    min_inputs: ClassVar[int] = 1
    max_inputs: ClassVar[int] = 1

    def check(self, tensors: Tensors) -> None:
        """Raise `GraphError` for attributes or tensors that cannot be right."""

    def output_shape(self, inputs: Sequence[Shape], tensors: Tensors) -> Shape:
        """Shape of the output. Raises `GraphError` where the inputs do not fit."""
        return inputs[0]

    def scale(self, axis: int) -> Fraction:
        """Output rows per input row (axis 0) or columns per column (axis 1)."""
        return Fraction(1)

    def output_scale(self, inputs: Sequence[Fraction], axis: int) -> Fraction:
        """Output rows (or columns) per one of the picture's, of which each input has so
        many. Raises `GraphError` where these do not fit."""
        if len(set(inputs)) != 1:
            raise self.fail("inputs differ in scale")
        return inputs[0] * self.scale(axis)

    def input_window(self, window: Window, axis: int, tensors: Tensors) -> Window:
        """Rows (axis 0) or columns (axis 1) of each input that `window` needs."""
        return window

    def macs(self, output: Shape, tensors: Tensors) -> int:
        """Multiplications of convolutions for an output of this shape."""
        return 0

    def fail(self, reason: str) -> GraphError:
        return GraphError(f"node {self.name!r} ({self.op}): {reason}")


@dataclass(frozen=True, kw_only=True)
class Conv2d(Node):
    """Cross-correlation with zero padding, as torch.nn.Conv2d."""

    weight: TensorName  # (out channels, in channels / groups, rows, columns)
    bias: TensorName | None = None  # (out channels,)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, left, bottom, right
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    op = "conv2d"

    def check(self, tensors: Tensors) -> None:
        weight = tensors[self.weight]
        if weight.ndim != 4:
            raise self.fail(f"weight must have 4 dimensions, found {weight.ndim}")
        out_channels = weight.shape[0]
        _require_range(self, "groups", (self.groups,), 1, MAX_CHANNELS)
        _require_range(self, "stride", self.stride, 1, MAX_EXTENT)
        _require_range(self, "dilation", self.dilation, 1, MAX_EXTENT)
        _require_range(self, "padding", self.padding, 0, MAX_EXTENT)
        _require_range(self, "kernel size", weight.shape[2:], 1, MAX_EXTENT)
        if out_channels % self.groups:
            raise self.fail(
                f"{out_channels} output channels do not divide into "
                f"{self.groups} groups"
            )
        if self.bias is not None and tensors[self.bias].shape != (out_channels,):
            raise self.fail(
                f"bias must have shape ({out_channels},), "
                f"found {tensors[self.bias].shape}"
            )

    def output_shape(self, inputs: Sequence[Shape], tensors: Tensors) -> Shape:
        out_channels, group_channels, *kernel = tensors[self.weight].shape
        expected = group_channels * self.groups
        if inputs[0].channels != expected:
            raise self.fail(
                f"expects {expected} input channels, found {inputs[0].channels}"
            )
        size = _slide(self, inputs[0], kernel, self.dilation)
        return Shape(out_channels, *size)

    def scale(self, axis: int) -> Fraction:
        return Fraction(1, self.stride[axis])

    def input_window(self, window: Window, axis: int, tensors: Tensors) -> Window:
        reach = (tensors[self.weight].shape[2 + axis] - 1) * self.dilation[axis]
        first = window.start * self.stride[axis] - self.padding[axis]
        last = (window.stop - 1) * self.stride[axis] - self.padding[axis]
        return Window(first, last + reach + 1)

    def macs(self, output: Shape, tensors: Tensors) -> int:
        return tensors[self.weight].size * output.height * output.width


@dataclass(frozen=True, kw_only=True)
class Relu(Node):
    """max(x, 0)."""

    op = "relu"


@dataclass(frozen=True, kw_only=True)
class Prelu(Node):
    """x where x > 0, slope · x elsewhere (He et al. 2015, arXiv:1502.01852)."""

    slope: TensorName  # (channels,) or (1,)

    op = "prelu"

    def output_shape(self, inputs: Sequence[Shape], tensors: Tensors) -> Shape:
        shape = tensors[self.slope].shape
        if shape not in ((1,), (inputs[0].channels,)):
            raise self.fail(
                f"slope must have shape (1,) or ({inputs[0].channels},), found {shape}"
            )
        return inputs[0]


@dataclass(frozen=True, kw_only=True)
class LeakyRelu(Node):
    """x where x > 0, slope · x elsewhere."""

    slope: float

    op = "leaky_relu"


@dataclass(frozen=True, kw_only=True)
class Clamp(Node):
    """min(max(x, low), high)."""

    low: float
    high: float

    op = "clamp"

    def check(self, tensors: Tensors) -> None:
        if self.low > self.high:
            raise self.fail(f"low {self.low} is above high {self.high}")

    def holds(self, value_range: float) -> bool:
        """Whether it changes nothing that is from 0 to `value_range`."""
        return self.low <= 0 and self.high >= value_range


@dataclass(frozen=True, kw_only=True)
class _Pairwise(Node):
    """What Add and Multiply have in common."""

    min_inputs = 2
    max_inputs = 2

    def output_shape(self, inputs: Sequence[Shape], tensors: Tensors) -> Shape:
        if inputs[0] != inputs[1]:
            raise self.fail(f"inputs differ in shape: {inputs[0]} and {inputs[1]}")
        return inputs[0]


@dataclass(frozen=True, kw_only=True)
class Add(_Pairwise):
    """Sum of two values of one shape."""

    op = "add"


@dataclass(frozen=True, kw_only=True)
class Concat(Node):
    """Channels of the inputs, one after the other."""

    op = "concat"
    max_inputs = 64

    def output_shape(self, inputs: Sequence[Shape], tensors: Tensors) -> Shape:
        sizes = sorted({(shape.height, shape.width) for shape in inputs})
        if len(sizes) != 1:
            raise self.fail(
                f"inputs differ in height or width: {sizes[0]} and {sizes[1]}"
            )
        channels = sum(shape.channels for shape in inputs)
        return dataclasses.replace(inputs[0], channels=channels)


@dataclass(frozen=True, kw_only=True)
class PixelShuffle(Node):
    """Channel c·r² + i·r + j becomes pixel (i, j) of each r × r block of channel c.

    Shi et al. 2016, arXiv:1609.05158; the order of torch.nn.PixelShuffle.
    """

    factor: int

    op = "pixel_shuffle"

    def check(self, tensors: Tensors) -> None:
        _require_range(self, "factor", (self.factor,), 1, MAX_EXTENT)

    def output_shape(self, inputs: Sequence[Shape], tensors: Tensors) -> Shape:
        channels, rest = divmod(inputs[0].channels, self.factor**2)
        if rest:
            raise self.fail(
                f"{inputs[0].channels} channels do not divide by factor² "
                f"= {self.factor**2}"
            )
        return Shape(
            channels, inputs[0].height * self.factor, inputs[0].width * self.factor
        )

    def scale(self, axis: int) -> Fraction:
        return Fraction(self.factor)

    def input_window(self, window: Window, axis: int, tensors: Tensors) -> Window:
        return Window(window.start // self.factor, -(-window.stop // self.factor))


@dataclass(frozen=True, kw_only=True)
class Resize(Node):
    """Interpolation by a ratio, as torch.nn.functional.interpolate does it.

    ``nearest`` takes input floor(i / ratio); ``bilinear`` and ``bicubic`` (a = -0.75)
    sample at (i + 0.5) / ratio - 0.5 (``align_corners=False``), edges replicated, no
    antialiasing.
    """

    mode: Literal["nearest", "bilinear", "bicubic"]
    ratio: tuple[int, int]  # numerator, denominator of output size / input size

    op = "resize"

    def check(self, tensors: Tensors) -> None:
        _require_range(self, "ratio", self.ratio, 1, MAX_EXTENT)
        if math.gcd(*self.ratio) != 1:
            raise self.fail(f"ratio {self.ratio} is not in lowest terms")

    def output_shape(self, inputs: Sequence[Shape], tensors: Tensors) -> Shape:
        numerator, denominator = self.ratio
        height = inputs[0].height * numerator // denominator
        width = inputs[0].width * numerator // denominator
        if not height or not width:
            raise self.fail(f"an input of {inputs[0]} leaves no pixel")
        return Shape(inputs[0].channels, height, width)

    def scale(self, axis: int) -> Fraction:
        return Fraction(*self.ratio)

    def input_window(self, window: Window, axis: int, tensors: Tensors) -> Window:
        first, last = self.source(window.start), self.source(window.stop - 1)
        before, after = {"nearest": (0, 0), "bilinear": (0, 1), "bicubic": (1, 2)}[
            self.mode
        ]
        return Window(first - before, last + after + 1)

    def source(self, position: int) -> int:
        """The input row at or before the point that output row `position` samples."""
        numerator, denominator = self.ratio
        if self.mode == "nearest":
            return position * denominator // numerator
        return ((2 * position + 1) * denominator - numerator) // (2 * numerator)


@dataclass(frozen=True, kw_only=True)
class Unary(Node):
    """A function of each number, as PyTorch's of that name."""

    function: Literal[
        "abs",
        "elu",  # alpha = 1
        "exp",
        "gelu",  # by the error function
        "gelu_tanh",
        "hardsigmoid",
        "hardswish",
        "mish",
        "reciprocal",
        "rsqrt",
        "sigmoid",
        "silu",
        "softplus",  # beta = 1
        "sqrt",
        "tanh",
    ]

    op = "unary"


@dataclass(frozen=True, kw_only=True)
class Multiply(_Pairwise):
    """Product of two values of one shape, number by number."""

    op = "multiply"


@dataclass(frozen=True, kw_only=True)
class Pad(Node):
    """More rows and columns: copies of the edge, or the picture mirrored in it.

    ``reflect`` does not repeat the edge itself, as torch.nn.ReflectionPad2d.
    """

    mode: Literal["reflect", "replicate"]
    padding: tuple[int, int, int, int]  # top, left, bottom, right

    op = "pad"

    def check(self, tensors: Tensors) -> None:
        _require_range(self, "padding", self.padding, 0, MAX_EXTENT)

    def output_shape(self, inputs: Sequence[Shape], tensors: Tensors) -> Shape:
        top, left, bottom, right = self.padding
        height, width = inputs[0].height, inputs[0].width
        if self.mode == "reflect" and (
            max(top, bottom) >= height or max(left, right) >= width
        ):
            raise self.fail(f"padding {self.padding} does not fit into {inputs[0]}")
        return Shape(inputs[0].channels, height + top + bottom, width + left + right)

    def input_window(self, window: Window, axis: int, tensors: Tensors) -> Window:
        before, after = self.padding[axis], self.padding[axis + 2]
        inside = Window(window.start - before, window.stop - before)
        if self.mode == "replicate":
            return inside
        # A row as far beyond the edge as it can be reads one as far inside.
        return Window(inside.start - 2 * after, inside.stop + 2 * before)


@dataclass(frozen=True, kw_only=True)
class Crop(Node):
    """Fewer rows and columns."""

    margins: tuple[int, int, int, int]  # top, left, bottom, right

    op = "crop"

    def check(self, tensors: Tensors) -> None:
        _require_range(self, "margins", self.margins, 0, MAX_EXTENT)

    def output_shape(self, inputs: Sequence[Shape], tensors: Tensors) -> Shape:
        top, left, bottom, right = self.margins
        height = inputs[0].height - top - bottom
        width = inputs[0].width - left - right
        if height < 1 or width < 1:
            raise self.fail(f"margins {self.margins} leave nothing of {inputs[0]}")
        return Shape(inputs[0].channels, height, width)

    def input_window(self, window: Window, axis: int, tensors: Tensors) -> Window:
        before = self.margins[axis]
        return Window(window.start + before, window.stop + before)


@dataclass(frozen=True, kw_only=True)
class MaxPool2d(Node):
    """Largest number of each window; what pads it is smaller than all numbers."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, left, bottom, right

    op = "max_pool2d"

    def check(self, tensors: Tensors) -> None:
        _require_range(self, "kernel", self.kernel, 1, MAX_EXTENT)
        _require_range(self, "stride", self.stride, 1, MAX_EXTENT)
        _require_range(self, "padding", self.padding, 0, MAX_EXTENT)
        if any(self.padding[side] >= self.kernel[side % 2] for side in range(4)):
            raise self.fail(f"padding {self.padding} hides a whole kernel")

    def output_shape(self, inputs: Sequence[Shape], tensors: Tensors) -> Shape:
        return Shape(inputs[0].channels, *_slide(self, inputs[0], self.kernel))

    def scale(self, axis: int) -> Fraction:
        return Fraction(1, self.stride[axis])

    def input_window(self, window: Window, axis: int, tensors: Tensors) -> Window:
        first = window.start * self.stride[axis] - self.padding[axis]
        last = (window.stop - 1) * self.stride[axis] - self.padding[axis]
        return Window(first, last + self.kernel[axis])


@dataclass(frozen=True, kw_only=True)
class _Global(Node):
    """What looks at the whole picture.

    A tile cannot compute it: the window it needs has no end.
    """

    def input_window(self, window: Window, axis: int, tensors: Tensors) -> Window:
        return Window(-WHOLE, WHOLE)


@dataclass(frozen=True, kw_only=True)
class GlobalMean(_Global):
    """Each channel's mean over the whole picture, at every pixel.

    It has the input's shape, so that what follows is an ordinary operation.
    """

    op = "global_mean"


@dataclass(frozen=True, kw_only=True)
class GlobalMax(_Global):
    """Each channel's largest number, at every pixel of a value of the input's shape."""

    op = "global_max"


@dataclass(frozen=True, kw_only=True)
class ResizeTo(_Global):
    """The first input interpolated to the height and width of the second.

    As `Resize` does it, by the ratio of the two sizes. That depends on the picture's
    size where pooling without padding came before, as in enhanced spatial attention
    (Liu et al. 2020, arXiv:2009.11551): where a row lies then does too.
    """

    mode: Literal["nearest", "bilinear", "bicubic"]

    op = "resize_to"
    min_inputs = 2
    max_inputs = 2

    def output_shape(self, inputs: Sequence[Shape], tensors: Tensors) -> Shape:
        return dataclasses.replace(inputs[1], channels=inputs[0].channels)

    def output_scale(self, inputs: Sequence[Fraction], axis: int) -> Fraction:
        return inputs[1]


@dataclass(frozen=True, kw_only=True)
class GridSample(_Global):
    """The first input, `factor` times as large, taken from where the second says.

    Each pixel of the result takes the first input where bilinear `Resize` by `factor`
    would, moved by as many of that input's pixels as the second has at the pixel:
    columns for each of `groups` of channels, then rows for each. Bilinear, edges
    replicated, as torch.nn.functional.grid_sample with ``padding_mode="border"``. So
    DySample upsamples (Liu et al. 2023, arXiv:2308.15085). Nothing bounds how far
    pixels are taken from.
    """

    factor: int
    groups: int

    op = "grid_sample"
    min_inputs = 2
    max_inputs = 2

    def check(self, tensors: Tensors) -> None:
        _require_range(self, "factor", (self.factor,), 1, MAX_EXTENT)
        _require_range(self, "groups", (self.groups,), 1, MAX_CHANNELS)

    def output_shape(self, inputs: Sequence[Shape], tensors: Tensors) -> Shape:
        value, moves = inputs
        if value.channels % self.groups:
            raise self.fail(
                f"{value.channels} channels do not divide into {self.groups} groups"
            )
        expected = Shape(
            2 * self.groups, value.height * self.factor, value.width * self.factor
        )
        if moves != expected:
            raise self.fail(f"the second input is {moves}, expected {expected}")
        return dataclasses.replace(moves, channels=value.channels)

    def output_scale(self, inputs: Sequence[Fraction], axis: int) -> Fraction:
        if inputs[0] * self.factor != inputs[1]:
            raise self.fail(
                f"inputs of scale {inputs[0]} and {inputs[1]} differ by another factor "
                f"than {self.factor}"
            )
        return inputs[1]


@dataclass(frozen=True, kw_only=True)
class LayerNorm(Node):
    """Each pixel's channels, normalised: weight · (x - mean) / √(variance + ε) + bias.

    ``layer`` is Ba et al. 2016, arXiv:1607.06450, over the channels of a pixel;
    ``rms`` (Zhang and Sennrich 2019, arXiv:1910.07467) takes the mean for 0.
    """

    kind: Literal["layer", "rms"]
    epsilon: float
    weight: TensorName  # (channels,)
    bias: TensorName  # (channels,)

    op = "layer_norm"

    def check(self, tensors: Tensors) -> None:
        if self.epsilon < 0:
            raise self.fail(f"epsilon {self.epsilon} is below 0")

    def output_shape(self, inputs: Sequence[Shape], tensors: Tensors) -> Shape:
        for name in (self.weight, self.bias):
            if tensors[name].shape != (inputs[0].channels,):
                raise self.fail(
                    f"weight and bias must have shape ({inputs[0].channels},), "
                    f"found {tensors[name].shape}"
                )
        return inputs[0]


OPERATIONS: Mapping[str, type[Node]] = MappingProxyType(
    {
        cls.op: cls
        for cls in (
            Conv2d,
            Relu,
            Prelu,
            LeakyRelu,
            Clamp,
            Add,
            Concat,
            PixelShuffle,
            Resize,
            Unary,
            Multiply,
            Pad,
            Crop,
            MaxPool2d,
            GlobalMean,
            GlobalMax,
            ResizeTo,
            LayerNorm,
            GridSample,
        )
    }
)


@dataclass(frozen=True)
class Graph:
    """A network: `channels` picture channels in, as many out, `scale` times larger.

    `value_range` is the network's value for a full-scale pixel, 1 or 255. `colour` says
    what the one channel is, where it is more than a grey picture: ``luma``, a picture's
    Y′ as video carries it, foot and headroom included (docs/format.md).
    Raises `GraphError` when anything in it cannot be right.
    """

    name: str
    scale: int
    channels: int
    nodes: tuple[Node, ...]
    output: str
    tensors: Tensors
    value_range: float = 1.0
    metadata: Mapping[str, object] = field(default_factory=dict)
    colour: Colour | None = None

    def __post_init__(self) -> None:
        _validate(self)


def tensor_fields(node: Node | type[Node]) -> tuple[str, ...]:
    """Names of the attributes of `node` that name a tensor."""
    return tuple(
        field.name
        for field in dataclasses.fields(node)
        if str(field.type).startswith("TensorName")
    )


def tensor_names(node: Node) -> tuple[str, ...]:
    """Names of the tensors that `node` uses."""
    names = (getattr(node, attribute) for attribute in tensor_fields(node))
    return tuple(name for name in names if name is not None)


def infer_shapes(graph: Graph, height: int, width: int) -> dict[str, Shape]:
    """Shape of every value for a picture of `height` × `width` pixels.

    Raises `GraphError` where the picture is too small for the network.
    """
    shapes = {INPUT: Shape(graph.channels, height, width)}
    for node in graph.nodes:
        inputs = [shapes[name] for name in node.inputs]
        shape = node.output_shape(inputs, graph.tensors)
        if shape.channels > MAX_CHANNELS:
            raise node.fail(f"{shape.channels} channels; at most {MAX_CHANNELS}")
        if max(shape.height, shape.width) > MAX_SIZE * graph.scale:
            raise node.fail(f"an output of {shape.width}×{shape.height} is too large")
        shapes[node.name] = shape
    return shapes


def scales(graph: Graph, axis: int) -> dict[str, Fraction]:
    """Rows (axis 0) or columns (axis 1) of every value per one of the picture's."""
    result = {INPUT: Fraction(1)}
    for node in graph.nodes:
        scale = node.output_scale([result[name] for name in node.inputs], axis)
        if max(scale.numerator, scale.denominator) > MAX_EXTENT:
            raise node.fail(f"a scale of {scale} is out of bounds")
        result[node.name] = scale
    return result


def alignment(graph: Graph) -> int:
    """Pixels between places at which a tile may begin.

    A tile that begins at a multiple of this finds every value's grid, strides and
    interpolation phases where the whole picture has them. What is only interpolated to
    another value's size has no grid of its own.
    """
    on_grid, read = {graph.output}, set[str]()
    for node in reversed(graph.nodes):
        if node.name in on_grid or node.name not in read:
            on_grid.add(node.name)
            on_grid.update(node.inputs[isinstance(node, ResizeTo) :])
        read.update(node.inputs)
    return math.lcm(
        *(
            scale.denominator
            for axis in (0, 1)
            for name, scale in scales(graph, axis).items()
            if name in on_grid
        )
    )


def required_window(
    graph: Graph, output: Window, axis: int, blocks: Mapping[str, Blocks] = NO_BLOCKS
) -> Window:
    """Rows (or columns) of the picture that rows `output` of the result depend on.

    May reach over the picture's edges, where the network pads. The values named in
    `blocks` are computed in those.
    """
    windows = {graph.output: output}
    for node in reversed(graph.nodes):
        if node.name in windows:
            _need(graph, node, axis, windows, blocks.get(node.name))
    return windows.get(INPUT, Window(0, 1))


def stagger(graph: Graph, step: int, sides: Mapping[str, int]) -> dict[str, Blocks]:
    """Blocks of these sides for the values named, so that tiles need a small halo.

    As for `halo`, with `step` a multiple of every block. A layer whose blocks begin
    where those of the layer before it do reads parts of those, and depends on the rest;
    so of even leads each has the one with which it depends on least. Of 3×3 layers in a
    row they begin by turns at whole blocks and in their middle, two layers each, and
    none depends on more than it is computed from.
    """
    whole = Window(0, step * graph.scale)
    by_axis = [{graph.output: whole} for _ in range(2)]
    blocks = {name: Blocks(side) for name, side in sides.items()}
    for node in reversed(graph.nodes):
        if node.name not in by_axis[0]:
            continue
        if node.name in sides:
            wanted = [windows[node.name] for windows in by_axis]
            side = sides[node.name]
            blocks[node.name] = min(
                (Blocks(side, lead) for lead in range(0, side, 2)),
                key=lambda found: sum(found.window(each).length for each in wanted),
            )
        for axis, windows in enumerate(by_axis):
            _need(graph, node, axis, windows, blocks.get(node.name))
    return blocks


def _need(
    graph: Graph,
    node: Node,
    axis: int,
    windows: dict[str, Window],
    blocks: Blocks | None,
) -> None:
    """Add to the windows of a node's inputs what its own, in `windows`, depends on."""
    window = windows[node.name]
    if blocks:
        window = blocks.window(window)
    needed = node.input_window(window, axis, graph.tensors)
    for name in node.inputs:
        known = windows.get(name)
        windows[name] = needed.union(known) if known else needed


def halo(
    graph: Graph, step: int | None = None, blocks: Mapping[str, Blocks] = NO_BLOCKS
) -> tuple[int, int]:
    """Rows and columns that a tile needs around the pixels it gives results for.

    Exact for any that begin and end at a multiple of `step`, by default `alignment`.
    `blocks` as for `required_window`.
    """
    step = step or alignment(graph)
    reach = []
    for axis in (0, 1):
        window = required_window(graph, Window(0, step * graph.scale), axis, blocks)
        reach.append(max(0, -window.start, window.stop - step))
    return reach[0], reach[1]


def receptive_field(graph: Graph) -> tuple[int, int]:
    """Height and width of the input region that one input pixel's results depend on."""
    rows, columns = (
        required_window(graph, Window(0, graph.scale), axis) for axis in (0, 1)
    )
    return rows.stop - rows.start, columns.stop - columns.start


def parameter_count(graph: Graph) -> int:
    """Number of weights, biases and slopes."""
    return sum(tensor.size for tensor in graph.tensors.values())


def macs_per_output_pixel(graph: Graph) -> float:
    """Multiplications of the convolutions per pixel of the result.

    Counted on a large picture, so that edges of unpadded convolutions do not matter.
    """
    step = alignment(graph)
    size = step * max(64, 1024 // step)
    shapes = infer_shapes(graph, size, size)
    total = sum(node.macs(shapes[node.name], graph.tensors) for node in graph.nodes)
    return total / (shapes[graph.output].height * shapes[graph.output].width)


def _slide(
    node: Conv2d | MaxPool2d,
    shape: Shape,
    kernel: Sequence[int],
    dilation: Sequence[int] = (1, 1),
) -> tuple[int, int]:
    """Height and width of what a kernel gives that slides over a padded value."""
    size = []
    for axis, extent in enumerate((shape.height, shape.width)):
        reach = (kernel[axis] - 1) * dilation[axis]
        padded = extent + node.padding[axis] + node.padding[axis + 2]
        if padded <= reach:
            raise node.fail(
                f"the kernel reaches over {reach + 1} pixels, "
                f"the padded input has {padded}"
            )
        size.append((padded - reach - 1) // node.stride[axis] + 1)
    return size[0], size[1]


def _require_range(
    node: Node, what: str, values: Sequence[int], low: int, high: int
) -> None:
    if not all(low <= value <= high for value in values):
        found = values[0] if len(values) == 1 else tuple(values)
        raise node.fail(f"{what} must be {low} to {high}, found {found}")


def check_name(kind: str, name: str) -> None:
    """Refuse a name that could be taken for a path, or is empty or too long."""
    if not _NAME.fullmatch(name):
        raise GraphError(
            f"{kind} name {name[:140]!r} is not 1 to 128 letters, digits and _ - ."
        )


def _validate(graph: Graph) -> None:
    check_name("graph", graph.name)
    if not 1 <= graph.scale <= MAX_SCALE:
        raise GraphError(f"scale must be 1 to {MAX_SCALE}, found {graph.scale}")
    if graph.channels not in (1, 3):
        raise GraphError(f"channels must be 1 or 3, found {graph.channels}")
    if graph.colour not in (None, *get_args(Colour)):
        raise GraphError(f"colour must be 'luma' or None, found {graph.colour!r}")
    if graph.colour is not None and graph.channels != 1:
        raise GraphError(
            f"a network for {graph.colour} has 1 channel, found {graph.channels}"
        )
    if graph.value_range not in (1.0, 255.0):
        raise GraphError(f"value range must be 1 or 255, found {graph.value_range}")
    if not 1 <= len(graph.nodes) <= MAX_NODES:
        raise GraphError(
            f"a graph has 1 to {MAX_NODES} nodes, found {len(graph.nodes)}"
        )
    _validate_tensors(graph.tensors)
    known = {INPUT}
    used: set[str] = set()
    for node in graph.nodes:
        check_name("node", node.name)
        if node.name in known:
            raise node.fail("another value has this name")
        if not node.min_inputs <= len(node.inputs) <= node.max_inputs:
            raise node.fail(
                f"takes {node.min_inputs} to {node.max_inputs} inputs, "
                f"found {len(node.inputs)}"
            )
        for name in node.inputs:
            if name not in known:
                raise node.fail(f"input {name!r} is not an earlier value")
        for name in tensor_names(node):
            if name not in graph.tensors:
                raise node.fail(f"there is no tensor {name!r}")
            used.add(name)
        for attribute in dataclasses.fields(node):
            value = getattr(node, attribute.name)
            # Kernels take them in single precision, whatever that of the weights.
            if isinstance(value, float) and not abs(value) <= _LARGEST:
                raise node.fail(
                    f"{attribute.name} is {value}; single precision holds up to "
                    f"{_LARGEST:.4g}"
                )
        node.check(graph.tensors)
        known.add(node.name)
    if graph.output not in known - {INPUT}:
        raise GraphError(f"output {graph.output!r} is not a node of the graph")
    if unused := sorted(set(graph.tensors) - used):
        raise GraphError(f"tensor {unused[0]!r} is used by no node")
    _validate_output(graph)


def _validate_tensors(tensors: Tensors) -> None:
    for name, tensor in tensors.items():
        check_name("tensor", name)
        if tensor.dtype not in (np.float16, np.float32):
            raise GraphError(f"tensor {name!r} is {tensor.dtype}, not fp16 or fp32")
        if not tensor.size:
            raise GraphError(f"tensor {name!r} is empty")
        flat = tensor.reshape(-1)
        # In pieces: a mask of a whole tensor takes up to half of its memory.
        pieces = (flat[start : start + _PIECE] for start in range(0, flat.size, _PIECE))
        if not all(np.isfinite(piece).all() for piece in pieces):
            raise GraphError(f"tensor {name!r} holds a value that is not finite")


def _validate_output(graph: Graph) -> None:
    if alignment(graph) > MAX_EXTENT:
        raise GraphError(f"strides ask for tiles of {alignment(graph)} pixels")
    for axis in (0, 1):
        if scales(graph, axis)[graph.output] != graph.scale:
            raise GraphError(
                f"the output is {scales(graph, axis)[graph.output]} times as large "
                f"as the picture, the graph says {graph.scale}"
            )
    size = 64 * alignment(graph)
    shape = infer_shapes(graph, size, size)[graph.output]
    expected = Shape(graph.channels, size * graph.scale, size * graph.scale)
    if shape != expected:
        raise GraphError(
            f"the output for a {size}×{size} picture is {shape}, expected {expected}"
        )
