"""Convolutions as dispatches: which kernel, how its weights are packed, its grid."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from upfrost.gpu.dispatches import (
    BufferSlice,
    Constant,
    Dispatch,
    Epilogue,
    Layout,
    Precision,
    TensorView,
    float_word,
    slices,
)
from upfrost.gpu.families import DISPATCH_SECONDS, ConvKernel, Family, RegisterTile
from upfrost.gpu.frame import SampleFormat
from upfrost.network.graph import MAX_SIZE, Conv2d, Tensor

_SHARED_BYTES = 32 << 20  # most of a constant that several layers share


@dataclass(frozen=True)
class PackedConv:
    """A convolution's weights as the kernels read them, whatever the tile size."""

    weights: BufferSlice
    parameters: BufferSlice
    in_slices: int  # input slices that one output slice reads
    largest_sum: float  # of the absolute weights of an output channel


def pack_conv(
    node: Conv2d,
    weight: Tensor,
    bias: Tensor | None,
    slopes: Tensor | None,
    precision: Precision,
) -> PackedConv:
    """OIHW weights in the order in which the convolutions read them.

    [output slice][input slice][tap][input channel of the slice][output channel of the
    slice]; channels that are not there, or of another group, have zeros. Raises
    `GraphError` for weights that half precision cannot hold.
    """
    out_channels, group_in, rows, columns = weight.shape
    group_out = out_channels // node.groups
    spans = []
    for channel in range(0, out_channels, 4):
        last_channel = min(channel + 3, out_channels - 1)
        first = channel // group_out * group_in
        last = last_channel // group_out * group_in + group_in - 1
        spans.append((first // 4, last // 4))
    in_slices = max(last - first + 1 for first, last in spans)
    source_slices = slices(group_in * node.groups)
    firsts = [min(first, source_slices - in_slices) for first, _ in spans]
    packed = np.zeros((len(firsts), in_slices, rows * columns, 4, 4), np.float32)
    for channel in range(out_channels):
        out = channel // 4
        first = channel // group_out * group_in
        lane = np.arange(first, first + group_in) - 4 * firsts[out]
        packed[out, lane // 4, :, lane % 4, channel % 4] = weight[channel].reshape(
            group_in, rows * columns
        )
    return PackedConv(
        BufferSlice(rounded(node, packed, precision)),
        pack_parameters(out_channels, bias, slopes, firsts),
        in_slices,
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
    if weight.shape[2:] != (3, 3) or len(weight) % 4 or not is_plain(node):
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

    [output slice][phase], then as `pack_conv`; `slopes` are the output's. Raises
    `ValueError` for a convolution that is not a transposed one.
    """
    phases = deconv4x4_phases(node, weight)
    if phases is None:
        raise ValueError(f"{node.name} is not a transposed 4×4 convolution")
    channels = phases.shape[1]
    packed = [pack_conv(node, phase, None, None, precision) for phase in phases]
    words = [
        each.weights.constant.words.reshape(slices(channels), -1) for each in packed
    ]
    return PackedConv(
        BufferSlice(Constant(np.stack(words, axis=1).reshape(-1))),
        pack_parameters(channels, None if bias is None else bias[::4], slopes),
        packed[0].in_slices,
        max(each.largest_sum for each in packed),
    )


def pack_parameters(
    out_channels: int,
    bias: Tensor | None,
    slopes: Tensor | None,
    firsts: Sequence[int] = (),
) -> BufferSlice:
    """Per output slice three vec4: biases, slopes, and the first input slice."""
    packed = np.zeros((3, 4 * slices(out_channels)), np.float32)
    if bias is not None:
        packed[0, :out_channels] = bias
    if slopes is not None:
        packed[1, :out_channels] = slopes
    if firsts:
        packed[2] = np.repeat(np.asarray(firsts, np.float32), 4)
    by_slice = packed.reshape(3, -1, 4).transpose(1, 0, 2)
    words = np.ascontiguousarray(by_slice).reshape(-1).view(np.uint32)
    return BufferSlice(Constant(words))


def share_constants(
    parts: Mapping[str, BufferSlice], element_bytes: int
) -> dict[str, BufferSlice]:
    """The same parts, of few constants.

    Layers that bind the same buffers can share a pipeline, and making one takes a
    driver's time. `element_bytes` is that of an element: 16, of half precision 8.
    """
    shared: dict[str, BufferSlice] = {}
    waiting: list[tuple[str, BufferSlice]] = []

    def flush() -> None:
        words = [part.constant.words for _, part in waiting]
        firsts = np.cumsum([0, *(each.nbytes for each in words)]) // element_bytes
        constant = Constant(np.concatenate(words))
        for (name, _), first in zip(waiting, firsts[:-1], strict=True):
            shared[name] = BufferSlice(constant, int(first))
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


@dataclass(frozen=True)
class Convolution:
    """A convolution to dispatch: its weights, its values, what computes it."""

    node: Conv2d
    shape: tuple[int, ...]  # of the weights, OIHW
    packed: PackedConv
    source: TensorView
    target: TensorView
    epilogue: Epilogue
    family: Family
    precision: Precision
    unit: float | None = None  # what a step of a sample stands for, if it reads those
    pixel_format: int = 0  # of them, as `SampleFormat.pixel_format`
    scratch: tuple[
        int, ...
    ] = ()  # buffers of its own, as `winograd.scratch_bytes` asks
    lead: int = 0  # pixels before the first one with which Winograd's blocks begin

    @property
    def kernel(self) -> ConvKernel:
        """The kernel of the family that computes it."""
        return conv_kernel(self.node, self.shape, self.family, self.precision)

    @property
    def residual(self) -> TensorView:
        """The epilogue's other value; where there is none, one to bind in its place."""
        return self.epilogue.other or self.target

    @property
    def buffers(self) -> tuple[int | Constant, ...]:
        """What a direct or transposed convolution's kernel binds, in its order."""
        return (
            self.source.buffer,
            self.target.buffer,
            self.packed.weights.constant,
            self.packed.parameters.constant,
            self.residual.buffer,
        )

    @property
    def offsets(self) -> tuple[int, int, int]:
        """Where residual, weights and parameters begin in their buffers."""
        return (
            self.residual.layout.base,
            self.packed.weights.first,
            self.packed.parameters.first,
        )

    def rows_from(self, row: int, source_row: int) -> Convolution:
        """The convolution of the rows from `row` on, read from `source_row` on."""
        return replace(
            self,
            source=self.source.rows_from(source_row),
            target=self.target.rows_from(row),
            epilogue=self.epilogue.rows_from(row),
        )


def conv(convolution: Convolution) -> list[Dispatch]:
    """The dispatches of a direct convolution with its epilogue.

    They are bands of rows, none of them longer than `DISPATCH_SECONDS` by the family's
    estimate, since a driver ends what takes too long.
    """
    stride = convolution.node.stride[0]
    target, tile = convolution.target, convolution.kernel.tile
    _, end = target.written
    return [
        _conv_band(convolution.rows_from(first, first * stride), rows)
        for first, rows in bands(
            convolution.family, convolution.shape, tile, target.layout, end
        )
    ]


def bands(
    family: Family,
    shape: Sequence[int],
    tile: RegisterTile,
    layout: Layout,
    end: int,
    most: int = MAX_SIZE,
) -> list[tuple[int, int]]:
    """Bands of rows, (first, rows), in which to compute a value by OIHW weights.

    They have `most` rows at most, or those of one row of workgroups. The last one goes
    on to row `end`, and so may have the margin's rows, which cost as much as others,
    but hold at most a few tiles.
    """
    step = _band_rows(family, math.prod(shape) * layout.width, tile.coverage[1], most)
    return [
        (first, step if first + step < layout.height else end - first)
        for first in range(0, layout.height, step)
    ]


def largest_band(
    family: Family,
    shape: Sequence[int],
    tile: RegisterTile,
    layout: Layout,
    most: int = MAX_SIZE,
) -> int:
    """Rows of the largest of those bands."""
    step = _band_rows(family, math.prod(shape) * layout.width, tile.coverage[1], most)
    last = (layout.height - 1) // step * step
    return max(step if last else 0, layout.rows - last)


def shortest_band_macs(
    node: Conv2d,
    shape: Sequence[int],
    source: Layout,
    target: Layout,
    family: Family,
    precision: Precision,
    *,
    deconv4x4: bool = False,
) -> int:
    """Products of the shortest band of a convolution: one row of workgroups."""
    if deconv4x4:
        rows = min(family.deconv4x4.tile.coverage[1], source.height)
        return rows * _deconv4x4_row_macs(slices(shape[1]), source, target)
    tile = conv_kernel(node, shape, family, precision).tile
    return math.prod(shape) * target.width * min(tile.coverage[1], target.height)


def _deconv4x4_row_macs(in_slices: int, source: Layout, target: Layout) -> int:
    return 64 * in_slices * target.channels * source.width


def _band_rows(
    family: Family, macs_per_row: int, height: int, most: int = MAX_SIZE
) -> int:
    """Rows of a dispatch, a multiple of a workgroup's `height`; `most` are wanted."""
    rows = min(family.macs_per_second * DISPATCH_SECONDS / macs_per_row, most)
    return max(1, int(rows / height)) * height


def _conv_band(band: Convolution, rows: int) -> Dispatch:
    node, shape, kernel = band.node, band.shape, band.kernel
    source, target = band.source, band.target.layout
    columns, _ = band.target.written
    reads_bytes = band.unit is not None
    reads = band.pixel_format if reads_bytes else band.packed.in_slices
    constants = [reads, *band.epilogue.constants]
    layout_in = replace(source.layout, height=source.rows)
    if kernel.source == "conv":
        constants += [*shape[2:], *node.stride, *node.dilation, *node.padding[:2]]
    elif shape[2:] == (3, 3):
        # Those kernels pad by one; another padding is another corner to begin at.
        down, right = (1 - amount for amount in node.padding[:2])
        base = layout_in.base + down * layout_in.stride + right
        layout_in = replace(layout_in, base=base)
    return Dispatch(
        shader=f"{kernel.name}{'_bytes' if reads_bytes else ''}-{band.precision}",
        label=node.name,
        buffers=band.buffers,
        grid=(
            slices(shape[0]),
            -(-columns // kernel.tile.coverage[0]),
            -(-rows // kernel.tile.coverage[1]),
        ),
        constants=tuple(constants),
        push=(
            *layout_in.words,
            *target.words,
            *band.offsets,
            *(() if band.unit is None else (float_word(band.unit),)),
        ),
        macs=math.prod(shape) * target.width * min(rows, target.height),
    )


def luma_rows(factor: int, values: Tensor) -> Tensor:
    """Weights or biases of a last layer, by the rows of the blocks that it makes.

    By 2, a block is an output slice, (4, …). By 3 or more, each row of a block begins
    one: (factor², …) → (4 · factor, …).
    """
    if factor == 2:
        return values
    rows = values.reshape(factor, factor, *values.shape[1:])
    padded = np.zeros((factor, 4, *values.shape[1:]), values.dtype)
    padded[:, :factor] = rows
    return padded.reshape(-1, *values.shape[1:])


def luma(
    convolution: Convolution,
    given: TensorView,
    result_words: int,
    samples: SampleFormat,
    value_range: float,
    *,
    factor: int,
    skip: bool,
) -> list[Dispatch]:
    """The dispatches of a last 3×3 convolution that writes enlarged luma.

    Pixel shuffle by `factor`; with `skip` the picture itself, bilinear, is added.
    `given` is the picture's view, `target` the samples' buffer with the layout of the
    value that nobody writes, `result_words` the words of a row of samples. The weights
    are packed by `luma_rows`.
    """
    whole, kernel = convolution, convolution.family.luma_kernel(factor)
    if kernel is None:
        raise ValueError(
            f"the family {whole.family.name} has no kernel for luma by {factor}"
        )
    layout = whole.target.layout
    parts = bands(whole.family, whole.shape, kernel.tile, layout, layout.height)
    steps = samples.full_scale / value_range
    dispatches = []
    for first, rows in parts:
        source = whole.source.rows_from(first).layout
        corner = (1 - whole.node.padding[0]) * source.stride + 1 - whole.node.padding[1]
        dispatches.append(
            Dispatch(
                shader=f"{kernel.name}-{whole.precision}",
                label=whole.node.name,
                buffers=(
                    whole.source.buffer,
                    whole.target.buffer,
                    whole.packed.weights.constant,
                    whole.packed.parameters.constant,
                    given.buffer,
                ),
                grid=(
                    1 if factor == 2 else factor,
                    -(-layout.width // kernel.tile.coverage[0]),
                    -(-rows // kernel.tile.coverage[1]),
                ),
                constants=(
                    whole.packed.in_slices,
                    samples.pixel_format(1),
                    float_word(steps),
                    int(skip),
                    float_word(samples.low),
                    float_word(samples.high),
                ),
                push=(
                    *replace(source, base=source.base + corner).words,
                    *(first, 2 * result_words, 0, layout.width, layout.height),
                    given.layout.base,
                    whole.packed.weights.first,
                    whole.packed.parameters.first,
                    int(first == parts[-1][0]),
                ),
                macs=math.prod(whole.shape)
                * layout.width
                * min(rows, layout.height - first),
            )
        )
    return dispatches


def overread(node: Conv2d, source: Layout, target: Layout) -> int:
    """Elements that a 3×3 convolution of any padding may read after the last slice.

    The grid may cover the target's margins, which become zeros whatever they read.
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
    plain = is_plain(node)
    kernels = family.conv
    if plain and (rows, columns) == (3, 3):
        kernels = family.conv3x3
    elif plain and (rows, columns) == (1, 1) and node.padding == (0, 0, 0, 0):
        kernels = family.conv1x1
    return tuple(
        kernel
        for kernel in kernels
        if min(shape[:2]) >= kernel.least
        and shape[1] <= kernel.most
        and (kernel.rgb or shape[1] != 3)
        and precision in kernel.precisions
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


def is_plain(node: Conv2d) -> bool:
    """Whether it has neither stride nor dilation nor groups."""
    return node.stride == (1, 1) and node.dilation == (1, 1) and node.groups == 1


def deconv4x4(convolution: Convolution) -> list[Dispatch]:
    """The dispatches of a transposed 4×4 convolution to a value of twice the size.

    They are bands of rows, as `conv`'s.
    """
    whole = convolution
    layout, source = whole.target.layout, whole.source.layout
    tile = whole.family.deconv4x4.tile
    macs_per_row = _deconv4x4_row_macs(whole.packed.in_slices, source, layout)
    step = _band_rows(whole.family, macs_per_row, tile.coverage[1])
    # The place in the input that the first pixel's first tap reads.
    corner = source.base
    corner -= whole.node.padding[0] * source.stride + whole.node.padding[1]
    whole = replace(
        whole, source=replace(whole.source, layout=replace(source, base=corner))
    )
    dispatches = []
    for first in range(0, -(-layout.height // 2), step):
        band = whole.rows_from(2 * first, first)
        last = 2 * (first + step) >= layout.height
        rows = -(-band.target.rows // 2) if last else step
        dispatches.append(_deconv4x4_band(band, rows, macs_per_row))
    return dispatches


def _deconv4x4_band(band: Convolution, rows: int, macs_per_row: int) -> Dispatch:
    kernel = band.family.deconv4x4
    width, height = kernel.tile.coverage
    source, target = band.source, band.target.layout
    return Dispatch(
        shader=f"{kernel.name}-{band.precision}",
        label=band.node.name,
        buffers=band.buffers,
        grid=(
            4 * target.slices,
            -(-target.stride // (2 * width)),
            -(-rows // height),
        ),
        constants=(band.packed.in_slices, *band.epilogue.constants),
        push=(
            *replace(source.layout, height=source.rows).words,
            *target.words,
            *band.offsets,
        ),
        macs=macs_per_row * min(rows, source.layout.height),
    )
