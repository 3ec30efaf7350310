"""The shaders: what each is called with, how its weights are packed, its grid.

`VARIANTS` lists every compiled shader: a source in shaders/, and what it is compiled
with. A function per shader turns an operation on values into a `Call`, which is data:
the plan collects calls, the device dispatches them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from upfrost.network.graph import Conv2d, Crop, MaxPool2d, Pad, Resize, Tensor

Precision = Literal["fp16", "fp32"]
# What an epilogue does with a second value: before or after the activation.
Merge = Literal["add_before", "add_after", "multiply_before", "multiply_after"]
Words = npt.NDArray[np.uint32]

SPIRV_FOLDER = Path(__file__).parent / "spirv"
HEADER_BYTES = 64  # before the rows of a picture in host memory; holds the token
MODES = {"nearest": 1, "bilinear": 2, "bicubic": 3}
# Numbers of what shaders/epilogue.glsl can do.
_OTHERS = {"add_before": 1, "add_after": 2, "multiply_before": 3, "multiply_after": 4}
_ACTIVATIONS = {
    "rectify": 1,
    "abs": 2,
    "elu": 3,
    "exp": 4,
    "gelu": 5,
    "gelu_tanh": 6,
    "hardsigmoid": 7,
    "hardswish": 8,
    "mish": 9,
    "reciprocal": 10,
    "rsqrt": 11,
    "sigmoid": 12,
    "silu": 13,
    "softplus": 14,
    "sqrt": 15,
    "tanh": 16,
}
_UNBOUNDED = 3.0e38
_SHARED_BYTES = 32 << 20  # most of a constant that several layers share
_BANDS = 64  # of rows, whose sums make a mean; BANDS of shaders/bands.glsl
DISPATCH_SECONDS = 0.1  # a Mali job is ended after about half a second


@dataclass(frozen=True)
class RegisterTile:
    """Pixels of one output quad that an invocation computes."""

    width: int
    height: int
    group: tuple[int, int]  # invocations of a workgroup in x and y

    @property
    def coverage(self) -> tuple[int, int]:
        """Pixels that a workgroup computes in x and y."""
        return self.width * self.group[0], self.height * self.group[1]

    @property
    def label(self) -> str:
        return f"{self.width}x{self.height}"

    @property
    def defines(self) -> dict[str, int]:
        return {
            "TILE_W": self.width,
            "TILE_H": self.height,
            "GROUP_X": self.group[0],
            "GROUP_Y": self.group[1],
        }


@dataclass(frozen=True)
class ConvKernel:
    """A convolution's shader source, and the register tile that it is compiled for."""

    source: str
    tile: RegisterTile
    least: int = 1  # channels in and out that it takes
    precisions: tuple[Precision, ...] = ("fp32", "fp16")

    @property
    def name(self) -> str:
        return f"{self.source}_{self.tile.label}"


@dataclass(frozen=True)
class Family:
    """Which kernels suit a kind of device, by the convolution's shape.

    The first kernel for whose `least` a layer has channels enough is taken; the others
    are what `upfrost tune` measures against it. `tuned` names those that won, by
    `layer_key`.
    """

    name: str
    conv3x3: tuple[ConvKernel, ...]
    conv1x1: tuple[ConvKernel, ...]
    deconv4x4: ConvKernel  # transposed, stride 2 (`deconv4x4_phases`)
    conv: tuple[ConvKernel, ...]  # anything else
    products: ConvKernel  # of Winograd's components, by elements and output quads
    macs_per_second: float  # of convolutions, the slowest member's, to be safe
    tuned: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def kernels(self) -> tuple[ConvKernel, ...]:
        return (
            *self.conv3x3,
            *self.conv1x1,
            self.deconv4x4,
            *self.conv,
            self.products,
        )


# Mali: a column of six pixels has the fewest instructions per product that stay within
# 64 registers, and 16 invocations of a row read whole cache lines (docs/mali.md).
# Four for the transposed convolution, which needs registers for two places; its
# workgroups of 16 × 3 cover, in the output, as many rows as those of the others.
# CPU: wide tiles load less, and wider ones than this take seconds to compile.
# A family's tiles have small common multiples: planes are padded to the least of them.
# Bifrost computes slowly for the memory it has: Winograd's method (`winograd`) wins
# there from 16 channels on, by docs/mali.md's figures; its workgroups cover what those
# of the direct kernel do.
_DIRECT_3X3 = (
    ConvKernel("conv3x3", RegisterTile(1, 6, (16, 4))),
    ConvKernel("conv3x3", RegisterTile(1, 3, (16, 4))),
)
MALI = Family(
    "mali",
    conv3x3=(
        ConvKernel("winograd", RegisterTile(2, 2, (8, 12)), least=16),
        *_DIRECT_3X3,
    ),
    conv1x1=(
        ConvKernel("conv1x1", RegisterTile(1, 6, (16, 4))),
        ConvKernel("conv1x1", RegisterTile(1, 3, (16, 4))),
    ),
    deconv4x4=ConvKernel("deconv4x4", RegisterTile(1, 4, (16, 3))),
    conv=(
        ConvKernel("conv", RegisterTile(1, 4, (16, 4))),
        ConvKernel("conv", RegisterTile(1, 2, (16, 4))),
    ),
    products=ConvKernel("winograd_products", RegisterTile(6, 1, (64, 1))),
    macs_per_second=4e9,  # a sixth of what Mali-G52's arithmetic could do in fp16
)
CPU = Family(
    "cpu",
    conv3x3=(
        ConvKernel(
            "winograd", RegisterTile(4, 4, (8, 1)), least=32, precisions=("fp32",)
        ),
        ConvKernel("conv3x3_cpu", RegisterTile(2, 6, (8, 1))),
        ConvKernel("conv3x3_cpu", RegisterTile(4, 2, (8, 1))),
        ConvKernel("conv3x3", RegisterTile(1, 6, (16, 4))),
    ),
    conv1x1=(
        ConvKernel("conv1x1", RegisterTile(4, 1, (8, 1))),
        ConvKernel("conv1x1", RegisterTile(4, 2, (8, 1))),
        ConvKernel("conv1x1", RegisterTile(1, 6, (16, 4))),
    ),
    deconv4x4=ConvKernel("deconv4x4", RegisterTile(1, 4, (16, 3))),
    conv=(
        ConvKernel("conv", RegisterTile(4, 1, (8, 1))),
        ConvKernel("conv", RegisterTile(4, 2, (8, 1))),
        ConvKernel("conv", RegisterTile(1, 4, (16, 4))),
    ),
    products=ConvKernel("winograd_products", RegisterTile(8, 2, (8, 1))),
    # Two cores of a server. Nothing ends what takes a slower CPU longer, and dispatches
    # for which 2e9 is enough cost a deep network a sixth of its time in submissions.
    macs_per_second=8e9,
)
# Valhall GPUs and larger ones: the same kernels but Winograd's, which lose there, and
# more work in a dispatch. The smallest of them, Mali-G310 with one core, has about a
# tenth of the arithmetic of the Mali-G610 that docs/mali.md estimates 160 GMAC/s and
# more for.
VALHALL = replace(MALI, name="valhall", conv3x3=_DIRECT_3X3, macs_per_second=16e9)
FAMILIES = (MALI, CPU)


@dataclass(frozen=True)
class Variant:
    """One SPIR-V file: a shader source and the macros that it is compiled with."""

    name: str
    source: str
    defines: Mapping[str, int] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return SPIRV_FOLDER / f"{self.name}.spv"


def _variants() -> dict[str, Variant]:
    plain = (
        "unpack",
        "pack",
        "pixel_shuffle",
        "resize",
        "elementwise",
        "gather",
        "pad",
        "max_pool",
        "band_sums",
        "mean",
    )
    both: tuple[Precision, ...] = ("fp32", "fp16")
    shaders = [(Variant(name, name), both) for name in plain]
    for family in FAMILIES:
        for kernel in family.kernels:
            defines = kernel.tile.defines
            if kernel.source == "winograd":
                for name in ("winograd_input", "winograd_output"):
                    shader = Variant(f"{name}_{kernel.tile.label}", name, defines)
                    shaders.append((shader, kernel.precisions))
                continue
            shader = Variant(kernel.name, kernel.source, defines)
            shaders.append((shader, kernel.precisions))
            if kernel in (family.deconv4x4, family.products):
                continue
            reader = Variant(
                f"{kernel.name}_bytes", kernel.source, {**defines, "BYTES": 1}
            )
            shaders.append((reader, kernel.precisions))
    variants = [Variant("clear", "clear")]
    for shader, precisions in shaders:
        for precision in precisions:
            half = {"FP16": 1} if precision == "fp16" else {}
            variants.append(
                Variant(
                    f"{shader.name}-{precision}",
                    shader.source,
                    {**shader.defines, **half},
                )
            )
    return {variant.name: variant for variant in variants}


VARIANTS: Mapping[str, Variant] = _variants()


@dataclass(frozen=True)
class Layout:
    """Where a value lies in its buffer, in quads (see shaders/upfrost.glsl)."""

    base: int
    stride: int
    plane: int
    width: int
    height: int
    channels: int

    @property
    def quads(self) -> int:
        return quads(self.channels)

    @property
    def rows(self) -> int:
        return self.plane // self.stride

    @property
    def words(self) -> tuple[int, ...]:
        """As a kernel takes it among its push constants."""
        return (self.base, self.stride, self.plane, self.width, self.height)

    def below(self, row: int) -> Layout:
        """Of the rows from `row` on."""
        return replace(
            self, base=self.base + row * self.stride, height=self.height - row
        )

    def behind(self, first_channel: int) -> Layout:
        """Of a value whose first channel is `first_channel` of this one."""
        return replace(self, base=self.base + first_channel // 4 * self.plane)


@dataclass(frozen=True, eq=False)
class Constant:
    """Weights as a kernel reads them; compared by identity."""

    words: Words


@dataclass(frozen=True)
class Part:
    """Of a constant, from element `first` on: a quad of weights, a vec4 else."""

    constant: Constant
    first: int = 0


@dataclass(frozen=True)
class Call:
    """One dispatch. `buffers` are numbers of the plan's buffers, or data of its own."""

    shader: str
    label: str
    buffers: tuple[int | Constant, ...]
    grid: tuple[int, int, int]  # workgroups
    constants: tuple[int, ...]  # specialization constants as 32-bit words
    push: tuple[int, ...]
    macs: int = 0

    @property
    def pipeline(self) -> Call:
        """What is the same in calls that can share a pipeline."""
        return replace(self, push=(), label="", macs=0)


@dataclass(frozen=True)
class Place:
    """A value's buffer, by the plan's number, and its layout there."""

    buffer: int
    layout: Layout
    first_row: int = 0  # of the plane, at the layout's base

    @property
    def rows(self) -> int:
        """Rows of the plane from the first one on, margin included."""
        return self.layout.rows - self.first_row

    def below(self, row: int) -> Place:
        """Of the rows from `row` on."""
        return Place(self.buffer, self.layout.below(row), self.first_row + row)


@dataclass(frozen=True)
class Epilogue:
    """What follows a kernel's value: another one, an activation, a clamp.

    `activation` is ``rectify``, whose slopes are with the packed weights, or a function
    of `graph.Unary`.
    """

    other: Place | None = None
    merge: Merge = "add_before"
    activation: str | None = None
    low: float = -_UNBOUNDED
    high: float = _UNBOUNDED

    @property
    def constants(self) -> tuple[int, ...]:
        """As shaders/epilogue.glsl takes them."""
        return (
            _OTHERS[self.merge] if self.other else 0,
            _ACTIVATIONS[self.activation] if self.activation else 0,
            float_word(self.low),
            float_word(self.high),
        )

    def below(self, row: int) -> Epilogue:
        """For the rows from `row` on."""
        return replace(self, other=self.other.below(row)) if self.other else self


def quads(channels: int) -> int:
    """Planes of four that hold `channels`."""
    return -(-channels // 4)


def float_word(value: float) -> int:
    """The 32 bits of a single-precision number."""
    return int(np.float32(value).view(np.uint32))


def row_words(width: int, channels: int) -> int:
    """32-bit words of one row of a picture in host memory."""
    return -(-width // 4) * channels


def result_bytes(width: int, height: int, channels: int) -> int:
    """Bytes of the picture that goes out, header included."""
    return HEADER_BYTES + 4 * row_words(width, channels) * height


def given_bytes(layout: Layout, behind: int) -> int:
    """Bytes of the picture that comes in, which is laid out as a value is.

    `behind` pixels may be read behind its plane.
    """
    # A word more, since a pixel's bytes are looked for in two.
    pixels = layout.base + layout.plane + behind
    return HEADER_BYTES + -(-layout.channels * pixels // 4) * 4 + 4


def unpack(
    given: Place, target: Place, value_range: float, precision: Precision
) -> Call:
    """The picture's bytes → values, for all but convolutions, which read bytes."""
    layout = target.layout
    return Call(
        shader=f"unpack-{precision}",
        label="unpack",
        buffers=(given.buffer, target.buffer),
        grid=_grid(layout.stride, layout.rows, 1),
        constants=(layout.channels, float_word(value_range / 255)),
        push=(*given.layout.words, *layout.words),
    )


def pack(
    source: Place,
    pictures: tuple[int, int],
    size: tuple[int, int],
    channels: int,
    *,
    factor: int,
    skip: Place | None,
    mode: str | None,
    ratio: tuple[int, int],
    value_range: float,
    precision: Precision,
) -> Call:
    """The network's last value → bytes of the picture `pictures[1]`, `size` = (H, W).

    Pixel shuffle by `factor`; `skip`, interpolated by `mode` and `ratio`, is added: a
    value or the picture `pictures[0]` itself, whose token goes over to `pictures[1]`.
    """
    height, width = size
    added = skip or source
    return Call(
        shader=f"pack-{precision}",
        label="pack",
        buffers=(source.buffer, pictures[1], pictures[0], added.buffer),
        grid=_grid(-(-width // 4), height, 1),
        constants=(
            channels,
            float_word(255 / value_range),
            factor,
            MODES[mode] if mode else 0,
            *ratio,
            int(added.buffer == pictures[0]),
        ),
        push=(
            *source.layout.words,
            *added.layout.words,
            width,
            height,
            row_words(width, channels),
        ),
    )


@dataclass(frozen=True)
class PackedConv:
    """A convolution's weights as the kernels read them, whatever the tile size."""

    weights: Part
    parameters: Part
    in_quads: int  # input quads that one output quad reads
    largest_sum: float  # of the absolute weights of an output channel


def pack_conv(
    node: Conv2d,
    weight: Tensor,
    bias: Tensor | None,
    slopes: Tensor | None,
    precision: Precision,
) -> PackedConv:
    """OIHW weights in the order in which the convolutions read them.

    [output quad][input quad][tap][input channel of the quad][output channel of the
    quad]; channels that are not there, or of another group, have zeros. Raises
    `GraphError` for weights that half precision cannot hold.
    """
    out_channels, group_in, rows, columns = weight.shape
    group_out = out_channels // node.groups
    spans = []
    for quad in range(quads(out_channels)):
        last_channel = min(4 * quad + 3, out_channels - 1)
        first = 4 * quad // group_out * group_in
        last = last_channel // group_out * group_in + group_in - 1
        spans.append((first // 4, last // 4))
    in_quads = max(last - first + 1 for first, last in spans)
    source_quads = quads(group_in * node.groups)
    firsts = [min(first, source_quads - in_quads) for first, _ in spans]
    packed = np.zeros((len(firsts), in_quads, rows * columns, 4, 4), np.float32)
    for channel in range(out_channels):
        quad = channel // 4
        first = channel // group_out * group_in
        lane = np.arange(first, first + group_in) - 4 * firsts[quad]
        packed[quad, lane // 4, :, lane % 4, channel % 4] = weight[channel].reshape(
            group_in, rows * columns
        )
    return PackedConv(
        Part(rounded(node, packed, precision)),
        pack_parameters(out_channels, bias, slopes, firsts),
        in_quads,
        float(np.abs(weight).sum(axis=(1, 2, 3)).max()),
    )


def rounded(
    node: Conv2d, weights: npt.NDArray[np.floating], precision: Precision
) -> Constant:
    """Weights as elements of `precision`. Raises `GraphError` where it has none."""
    if precision == "fp16" and np.abs(weights).max() > np.finfo(np.float16).max:
        raise node.fail("weights are too large for fp16; use fp32")
    dtype = np.float16 if precision == "fp16" else np.float32
    return Constant(weights.astype(dtype).reshape(-1).view(np.uint32))


def deconv4x4_phases(node: Conv2d, weight: Tensor) -> Tensor | None:
    """A 3×3 convolution before a shuffle by two, as the 2×2 convolution of each phase.

    That is what becomes of a transposed 4×4 convolution of stride 2: each phase of the
    output, channel 4·c + 2·i + j of the convolution, has taps in rows i and i + 1 and
    columns j and j + 1 alone. (phases, C, in channels, 2, 2), or None for any other
    convolution.
    """
    if weight.shape[2:] != (3, 3) or len(weight) % 4 or not _is_plain(node):
        return None
    by_phase = weight.reshape(-1, 2, 2, *weight.shape[1:])
    phases = np.empty_like(weight, shape=(4, *weight[::4, :, :2, :2].shape))
    for phase, (i, j) in enumerate(np.ndindex(2, 2)):
        phases[phase] = by_phase[:, i, j, :, i : i + 2, j : j + 2]
    if np.count_nonzero(phases) != np.count_nonzero(weight):
        return None
    return phases


def pack_deconv4x4(
    node: Conv2d,
    weight: Tensor,
    bias: Tensor | None,
    slopes: Tensor | None,
    precision: Precision,
) -> PackedConv:
    """The phases' weights in the order in which the kernel reads them.

    [output quad][phase], then as `pack_conv`; `slopes` are the output's. Raises
    `ValueError` for a convolution that is not a transposed one.
    """
    phases = deconv4x4_phases(node, weight)
    if phases is None:
        raise ValueError(f"{node.name} is not a transposed 4×4 convolution")
    channels = phases.shape[1]
    packed = [pack_conv(node, phase, None, None, precision) for phase in phases]
    words = [
        each.weights.constant.words.reshape(quads(channels), -1) for each in packed
    ]
    return PackedConv(
        Part(Constant(np.stack(words, axis=1).reshape(-1))),
        pack_parameters(channels, None if bias is None else bias[::4], slopes),
        packed[0].in_quads,
        max(each.largest_sum for each in packed),
    )


def pack_parameters(
    out_channels: int,
    bias: Tensor | None,
    slopes: Tensor | None,
    firsts: Sequence[int] = (),
) -> Part:
    """Per output quad three vec4: biases, slopes, and the first input quad."""
    packed = np.zeros((3, 4 * quads(out_channels)), np.float32)
    if bias is not None:
        packed[0, :out_channels] = bias
    if slopes is not None:
        packed[1, :out_channels] = slopes
    if firsts:
        packed[2] = np.repeat(np.asarray(firsts, np.float32), 4)
    by_quad = packed.reshape(3, -1, 4).transpose(1, 0, 2)
    words = np.ascontiguousarray(by_quad).reshape(-1).view(np.uint32)
    return Part(Constant(words))


def share_constants(parts: Mapping[str, Part], element_bytes: int) -> dict[str, Part]:
    """The same parts, of few constants.

    Layers that bind the same buffers can share a pipeline, and making one takes a
    driver's time. `element_bytes` is that of an element: 16, of half precision 8.
    """
    shared: dict[str, Part] = {}
    waiting: list[tuple[str, Part]] = []

    def flush() -> None:
        words = [part.constant.words for _, part in waiting]
        firsts = np.cumsum([0, *(each.nbytes for each in words)]) // element_bytes
        constant = Constant(np.concatenate(words))
        for (name, _), first in zip(waiting, firsts[:-1], strict=True):
            shared[name] = Part(constant, int(first))
        waiting.clear()

    size = 0
    for name, part in parts.items():
        size += part.constant.words.nbytes
        if waiting and size > _SHARED_BYTES:
            flush()
            size = part.constant.words.nbytes
        waiting.append((name, part))
    if waiting:
        flush()
    return shared


def conv(
    node: Conv2d,
    shape: Sequence[int],
    packed: PackedConv,
    source: Place,
    target: Place,
    epilogue: Epilogue,
    family: Family,
    precision: Precision,
    unit: float | None = None,
) -> list[Call]:
    """A convolution by weights of `shape` (OIHW), with its epilogue.

    Of the picture's bytes, if `unit` says what a step of a byte stands for.

    Calls of bands of rows, none of them longer than `DISPATCH_SECONDS` by the family's
    estimate, since a driver ends what takes too long.
    """
    kernel = conv_kernel(node, shape, family, precision)
    return [
        _conv_band(
            node,
            shape,
            packed,
            source.below(first * node.stride[0]),
            target.below(first),
            epilogue.below(first),
            rows,
            kernel,
            precision,
            unit,
        )
        for first, rows in bands(family, shape, kernel.tile, target.layout)
    ]


def bands(
    family: Family, shape: Sequence[int], tile: RegisterTile, layout: Layout
) -> list[tuple[int, int]]:
    """Bands of rows, (first, rows), in which to compute a value by OIHW weights.

    The last one has the margin's rows, which cost as much as others, but hold at most a
    few tiles.
    """
    step = _band_rows(family, math.prod(shape) * layout.width, tile.coverage[1])
    return [
        (first, step if first + step < layout.height else layout.rows - first)
        for first in range(0, layout.height, step)
    ]


def _band_rows(family: Family, macs_per_row: int, height: int) -> int:
    """Rows of a dispatch, a multiple of a workgroup's `height`."""
    most = family.macs_per_second * DISPATCH_SECONDS / macs_per_row
    return max(1, int(most / height)) * height


def _conv_band(
    node: Conv2d,
    shape: Sequence[int],
    packed: PackedConv,
    source: Place,
    target: Place,
    epilogue: Epilogue,
    rows: int,
    kernel: ConvKernel,
    precision: Precision,
    unit: float | None,
) -> Call:
    layout = target.layout
    tile = kernel.tile
    other = epilogue.other or target
    first = packed.in_quads if unit is None else source.layout.channels
    constants = [first, *epilogue.constants]
    layout_in = replace(source.layout, height=source.rows)
    if kernel.source == "conv":
        constants += [*shape[2:], *node.stride, *node.dilation, *node.padding[:2]]
    elif tuple(shape[2:]) == (3, 3):
        # Those kernels pad by one; another padding is another corner to begin at.
        down, right = (1 - amount for amount in node.padding[:2])
        base = layout_in.base + down * layout_in.stride + right
        layout_in = replace(layout_in, base=base)
    return Call(
        shader=f"{kernel.name}{'' if unit is None else '_bytes'}-{precision}",
        label=node.name,
        buffers=(
            source.buffer,
            target.buffer,
            packed.weights.constant,
            packed.parameters.constant,
            other.buffer,
        ),
        grid=(
            quads(shape[0]),
            -(-layout.stride // tile.coverage[0]),
            -(-rows // tile.coverage[1]),
        ),
        constants=tuple(constants),
        push=(
            *layout_in.words,
            *layout.words,
            other.layout.base,
            packed.weights.first,
            packed.parameters.first,
            *(() if unit is None else (float_word(unit),)),
        ),
        macs=math.prod(shape) * layout.width * min(rows, layout.height),
    )


def reach_behind(node: Conv2d, source: Layout, target: Layout) -> int:
    """Quads that a 3×3 convolution of any padding may read behind the last plane.

    The grid covers the target's margins, whose pixels become zeros whatever they read.
    """
    last_row = target.rows + 1 - node.padding[0]
    last_column = target.stride + 1 - node.padding[1]
    return last_row * source.stride + last_column + 1 - source.plane


def conv_kernel(
    node: Conv2d, shape: Sequence[int], family: Family, precision: Precision
) -> ConvKernel:
    """The kernel with which a family computes a convolution by weights of `shape`."""
    candidates = conv_candidates(node, shape, family, precision)
    wanted = family.tuned.get(layer_key(node, shape))
    return next((each for each in candidates if each.name == wanted), candidates[0])


def conv_candidates(
    node: Conv2d, shape: Sequence[int], family: Family, precision: Precision
) -> tuple[ConvKernel, ...]:
    """The kernels of a family that can compute it, the usual choice first."""
    rows, columns = shape[2:]
    plain = _is_plain(node)
    kernels = family.conv
    if plain and (rows, columns) == (3, 3):
        kernels = family.conv3x3
    elif plain and (rows, columns) == (1, 1) and node.padding == (0, 0, 0, 0):
        kernels = family.conv1x1
    return tuple(
        kernel
        for kernel in kernels
        if min(shape[:2]) >= kernel.least and precision in kernel.precisions
    )


def layer_key(node: Conv2d, shape: Sequence[int]) -> str:
    """What of a convolution decides which kernel is fastest, for people to read."""
    rows, columns = shape[2:]
    key = f"{rows}×{columns}, {shape[1] * node.groups} → {shape[0]}"
    if node.groups > 1:
        key += f", groups {node.groups}"
    if node.stride != (1, 1):
        key += ", stride {}×{}".format(*node.stride)
    if node.dilation != (1, 1):
        key += ", dilation {}×{}".format(*node.dilation)
    if node.padding != (rows // 2, columns // 2) * 2:
        key += ", padding {} {} {} {}".format(*node.padding)
    return key


def _is_plain(node: Conv2d) -> bool:
    return node.stride == (1, 1) and node.dilation == (1, 1) and node.groups == 1


def deconv4x4(
    node: Conv2d,
    channels: int,
    packed: PackedConv,
    source: Place,
    target: Place,
    epilogue: Epilogue,
    family: Family,
    precision: Precision,
) -> list[Call]:
    """A transposed 4×4 convolution to `channels` channels of twice the size.

    Calls of bands of rows, as `conv`'s.
    """
    layout = target.layout
    kernel = family.deconv4x4
    width, height = kernel.tile.coverage
    macs_per_row = 64 * packed.in_quads * channels * source.layout.width
    step = _band_rows(family, macs_per_row, height)
    # Of the input that the first pixel's first tap reads.
    corner = source.layout.base
    corner -= node.padding[0] * source.layout.stride + node.padding[1]
    calls = []
    for first in range(0, -(-layout.height // 2), step):
        here = replace(source, layout=replace(source.layout, base=corner)).below(first)
        there = target.below(2 * first)
        end = epilogue.below(2 * first)
        last = 2 * (first + step) >= layout.height
        rows = -(-there.rows // 2) if last else step
        calls.append(
            Call(
                shader=f"{kernel.name}-{precision}",
                label=node.name,
                buffers=(
                    here.buffer,
                    there.buffer,
                    packed.weights.constant,
                    packed.parameters.constant,
                    (end.other or there).buffer,
                ),
                grid=(
                    4 * quads(channels),
                    -(-layout.stride // (2 * width)),
                    -(-rows // height),
                ),
                constants=(packed.in_quads, *end.constants),
                push=(
                    *replace(here.layout, height=here.rows).words,
                    *there.layout.words,
                    (end.other or there).layout.base,
                    packed.weights.first,
                    packed.parameters.first,
                ),
                macs=macs_per_row * min(rows, here.layout.height),
            )
        )
    return calls


def resize(
    node: Resize,
    source: Place,
    target: Place,
    precision: Precision,
) -> Call:
    """Interpolation of a value."""
    return Call(
        shader=f"resize-{precision}",
        label=node.name,
        buffers=(source.buffer, target.buffer),
        grid=_grid(target.layout.stride, target.layout.rows, target.layout.quads),
        constants=(MODES[node.mode], *node.ratio),
        push=(*source.layout.words, *target.layout.words),
    )


def pixel_shuffle(
    label: str,
    factor: int,
    source: Place,
    target: Place,
    precision: Precision,
) -> Call:
    """Channels to pixels."""
    return Call(
        shader=f"pixel_shuffle-{precision}",
        label=label,
        buffers=(source.buffer, target.buffer),
        grid=_grid(target.layout.stride, target.layout.rows, target.layout.quads),
        constants=(factor, target.layout.channels),
        push=(*source.layout.words, *target.layout.words),
    )


def elementwise(
    label: str,
    parameters: Part,
    source: Place,
    target: Place,
    epilogue: Epilogue,
    precision: Precision,
) -> Call:
    """A value with an epilogue, where no convolution could take it.

    `parameters` holds the rectifier's slopes.
    """
    other = epilogue.other or source
    return Call(
        shader=f"elementwise-{precision}",
        label=label,
        buffers=(source.buffer, target.buffer, parameters.constant, other.buffer),
        grid=_grid(target.layout.stride, target.layout.rows, target.layout.quads),
        constants=(target.layout.channels, *epilogue.constants),
        push=(
            *source.layout.words,
            *target.layout.words,
            other.layout.base,
            parameters.first,
        ),
    )


def gather(
    label: str,
    source: Place,
    target: Place,
    first: int,
    precision: Precision,
) -> Call:
    """Copies a value's channels to channel `first` and on of another."""
    channels = source.layout.channels
    return Call(
        shader=f"gather-{precision}",
        label=label,
        buffers=(source.buffer, target.buffer),
        grid=_grid(
            target.layout.stride,
            target.layout.rows,
            quads(first + channels) - first // 4,
        ),
        constants=(first, channels),
        push=(*source.layout.words, *target.layout.words),
    )


def pad(node: Pad | Crop, source: Place, target: Place, precision: Precision) -> Call:
    """A value with more rows and columns around it, or with fewer."""
    if isinstance(node, Pad):
        top, left = node.padding[:2]
    else:
        top, left = -node.margins[0], -node.margins[1]
    reflect = isinstance(node, Pad) and node.mode == "reflect"
    return Call(
        shader=f"pad-{precision}",
        label=node.name,
        buffers=(source.buffer, target.buffer),
        grid=_grid(target.layout.stride, target.layout.rows, target.layout.quads),
        constants=(int(reflect), top & 0xFFFFFFFF, left & 0xFFFFFFFF),
        push=(*source.layout.words, *target.layout.words),
    )


def max_pool(
    node: MaxPool2d, source: Place, target: Place, precision: Precision
) -> Call:
    """The largest number of each window."""
    return Call(
        shader=f"max_pool-{precision}",
        label=node.name,
        buffers=(source.buffer, target.buffer),
        grid=_grid(target.layout.stride, target.layout.rows, target.layout.quads),
        constants=(*node.kernel, *node.stride, *node.padding[:2]),
        push=(*source.layout.words, *target.layout.words),
    )


def sums_bytes(channels: int) -> int:
    """Bytes of the buffer for the sums of a mean over the whole picture."""
    return quads(channels) * _BANDS * 16


def global_mean(
    label: str, source: Place, target: Place, sums: int, precision: Precision
) -> list[Call]:
    """Each channel's mean, by way of sums of bands of rows in the buffer `sums`."""
    layout = target.layout
    return [
        Call(
            shader=f"band_sums-{precision}",
            label=label,
            buffers=(source.buffer, sums),
            grid=(_BANDS, 1, layout.quads),
            constants=(),
            push=source.layout.words,
        ),
        Call(
            shader=f"mean-{precision}",
            label=label,
            buffers=(sums, target.buffer),
            grid=(-(-layout.stride // _BANDS), -(-layout.rows // 16), layout.quads),
            constants=(),
            push=layout.words,
        ),
    ]


def clear(buffer: int, words: int) -> Call:
    """Zeros at the beginning of a buffer."""
    return Call(
        shader="clear",
        label="clear",
        buffers=(buffer,),
        grid=(-(-words // 64), 1, 1),
        constants=(),
        push=(words,),
    )


def alignment(coverages: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """Multiples to which rows and planes are padded, so that grids fit exactly."""
    coverage = list(coverages) or [(8, 8)]
    return math.lcm(*(x for x, _ in coverage)), math.lcm(*(y for _, y in coverage))


def _grid(columns: int, rows: int, planes: int) -> tuple[int, int, int]:
    return -(-columns // 8), -(-rows // 8), planes
