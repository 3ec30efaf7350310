"""3×3 convolutions by Winograd's method, F(2×2, 3×3), in three calls.

Blocks of 2×2 pixels take 16 products of each pair of channels instead of 36: of
components, sums of the 4×4 pixels that a block reads with sums of the weights. The
input is transformed to components, these are multiplied by a 1×1 convolution of 16
groups, and the products are transformed to pixels. Lavin and Gray, "Fast algorithms for
convolutional neural networks", 2016, arXiv:1509.09308.

A pixel's rounding depends on its place in its block, but on no pixels other than those
that the convolution reads. So with tiles that begin at whole blocks, its bits do not
depend on the tile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from upfrost import kernels
from upfrost.graph import Conv2d, Tensor
from upfrost.kernels import (
    Call,
    Epilogue,
    Family,
    Layout,
    PackedConv,
    Part,
    Place,
    Precision,
)

BLOCK = 2  # pixels of its side
COMPONENTS = (BLOCK + 2) ** 2
_WEIGHTS = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])


def pack(
    node: Conv2d,
    weight: Tensor,
    bias: Tensor | None,
    slopes: Tensor | None,
    precision: Precision,
) -> PackedConv:
    """The transformed weights as those of 16 groups of a 1×1 convolution.

    [component], then as `kernels.pack_conv`; computed in double precision and rounded
    once. Raises `GraphError` for those that half precision cannot hold.
    """
    out_channels, in_channels = weight.shape[:2]
    components = _WEIGHTS @ weight.astype(np.float64) @ _WEIGHTS.T
    out_quads, in_quads = map(kernels.quads, (out_channels, in_channels))
    packed = np.zeros((COMPONENTS, 4 * out_quads, 4 * in_quads))
    packed[:, :out_channels, :in_channels] = components.reshape(
        out_channels, in_channels, COMPONENTS
    ).transpose(2, 0, 1)
    quads = packed.reshape(COMPONENTS, out_quads, 4, in_quads, 4)
    return PackedConv(
        Part(kernels.rounded(node, quads.transpose(0, 1, 3, 4, 2), precision)),
        kernels.pack_parameters(out_channels, bias, slopes),
        in_quads,
        float(np.abs(weight).sum(axis=(1, 2, 3)).max()),
    )


def scratch_bytes(
    node: Conv2d,
    shape: Sequence[int],
    layout: Layout,
    family: Family,
    precision: Precision,
) -> tuple[int, int]:
    """Bytes of the buffers for the components and for their products."""
    rows = max(rows for _, rows in _bands(node, shape, layout, family))
    element = 8 if precision == "fp16" else 16
    components, products = (
        COMPONENTS * kernels.quads(channels) * _plane(rows, layout, family) * element
        for channels in (shape[1], shape[0])
    )
    return components, products


def conv(
    node: Conv2d,
    shape: Sequence[int],
    packed: PackedConv,
    source: Place,
    target: Place,
    epilogue: Epilogue,
    family: Family,
    precision: Precision,
    scratch: Sequence[int],
) -> list[Call]:
    """A convolution by weights of `shape` (OIHW), with its epilogue.

    `scratch` are buffers as `scratch_bytes` wants them. Calls of bands of rows, as
    `kernels.conv`'s: so many rows as the direct convolution might compute, which takes
    longer than each of the three.
    """
    return [
        call
        for first, rows in _bands(node, shape, target.layout, family)
        for call in _band(
            node,
            shape,
            packed,
            source.below(first),
            target.below(first),
            epilogue.below(first),
            rows,
            family,
            precision,
            scratch,
        )
    ]


def _band(
    node: Conv2d,
    shape: Sequence[int],
    packed: PackedConv,
    source: Place,
    target: Place,
    epilogue: Epilogue,
    rows: int,
    family: Family,
    precision: Precision,
    scratch: Sequence[int],
) -> list[Call]:
    layout = target.layout
    group = kernels.conv_kernel(node, shape, family).tile.group
    columns, lines = layout.stride // BLOCK, rows // BLOCK
    blocks = (columns // group[0], lines // group[1])
    plane = _plane(rows, layout, family)
    components = Layout(0, columns, plane, columns, lines, shape[1])
    products = replace(components, channels=shape[0])
    # The block of the first pixel begins where its first tap reads.
    corner = source.layout.base
    corner -= node.padding[0] * source.layout.stride + node.padding[1]
    given = replace(source.layout, base=corner)
    other = epilogue.other or target
    in_quads, out_quads = components.quads, products.quads
    items = 1 if precision == "fp16" else 2  # of a quad, as winograd_input.comp says
    multiply = family.conv1x1[0]
    width = multiply.tile.coverage[0]
    # Any shape of a plane does for products: one that the kernel covers exactly.
    linear = replace(components, stride=width, width=width, height=plane // width)
    return [
        Call(
            shader=f"winograd_input-{precision}",
            label=node.name,
            buffers=(source.buffer, scratch[0]),
            grid=(items * blocks[0], blocks[1], in_quads),
            constants=(in_quads,),
            push=(*given.words, *components.words),
        ),
        Call(
            shader=f"{multiply.name}-{precision}",
            label=node.name,
            buffers=(
                *scratch,
                packed.weights.constant,
                packed.parameters.constant,
                scratch[1],
            ),
            grid=(
                COMPONENTS * out_quads,
                1,
                linear.height // multiply.tile.coverage[1],
            ),
            constants=(in_quads, *Epilogue().constants, out_quads),
            push=(
                *linear.words,
                *linear.words,
                0,
                packed.weights.first,
                packed.parameters.first,
            ),
            # Those that it stands for, so that speeds can be compared.
            macs=math.prod(shape) * layout.width * min(rows, layout.height),
        ),
        Call(
            shader=f"winograd_output-{precision}",
            label=node.name,
            buffers=(
                scratch[1],
                target.buffer,
                packed.weights.constant,
                packed.parameters.constant,
                other.buffer,
            ),
            grid=(out_quads, *blocks),
            constants=(out_quads, *epilogue.constants),
            push=(
                *products.words,
                *layout.words,
                other.layout.base,
                packed.weights.first,
                packed.parameters.first,
            ),
        ),
    ]


def _bands(
    node: Conv2d, shape: Sequence[int], layout: Layout, family: Family
) -> list[tuple[int, int]]:
    tile = kernels.conv_kernel(node, shape, family).tile
    return kernels.bands(family, shape, tile, layout)


def _plane(rows: int, layout: Layout, family: Family) -> int:
    """Elements of a plane of blocks, one for each block of `rows` rows, rounded up."""
    width, height = family.conv1x1[0].tile.coverage
    blocks = rows // BLOCK * (layout.stride // BLOCK)
    return -(-blocks // (width * height)) * width * height
