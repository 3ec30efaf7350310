"""3×3 convolutions by Winograd's method, F(2×2, 3×3) or F(4×4, 3×3), in three calls.

A block of 2×2 pixels takes 16 products of each pair of channels instead of 36, one of
4×4 takes 36 instead of 144: of components, sums of the pixels that a block reads with
sums of the weights. The input is transformed to components, these are multiplied by a
1×1 convolution of a group each, and the products are transformed to pixels. Lavin and
Gray, "Fast algorithms for convolutional neural networks", 2016, arXiv:1509.09308.

A pixel's rounding depends on its place in its block. With blocks of 2×2 it depends on
no pixels but those that the convolution reads; with blocks of 4×4 on all that the block
reads, since what cancels leaves its rounding behind. So tiles begin at whole blocks and
have a halo of whole blocks (`tiles.tiling`), and a pixel's bits do not depend on its
tile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from upfrost.gpu import kernels
from upfrost.gpu.kernels import (
    Call,
    Epilogue,
    Family,
    Layout,
    PackedConv,
    Part,
    Place,
    Precision,
    RegisterTile,
)
from upfrost.network.graph import Conv2d, Tensor

# By the pixels of a block's side, what makes components of weights.
WEIGHTS = {
    2: np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]),
    4: np.array(
        [
            [1 / 4, 0, 0],
            [-1 / 6, -1 / 6, -1 / 6],
            [-1 / 6, 1 / 6, -1 / 6],
            [1 / 24, 1 / 12, 1 / 6],
            [1 / 24, -1 / 12, 1 / 6],
            [0, 0, 1],
        ]
    ),
}


def components(block: int) -> int:
    """Of a block of `block` × `block` pixels."""
    return (block + 2) ** 2


def mixes(block: int) -> bool:
    """Whether a pixel's rounding depends on all that its block reads."""
    return block > 2


def pack(
    node: Conv2d,
    weight: Tensor,
    bias: Tensor | None,
    slopes: Tensor | None,
    family: Family,
    precision: Precision,
) -> PackedConv:
    """The transformed weights as those of a 1×1 convolution with a group a component.

    [component], then as `kernels.pack_conv`; computed in double precision and rounded
    once. Output quads are as many as the products' kernel wants, with zeros. Raises
    `GraphError` for those that half precision cannot hold.
    """
    block = _tile(node, weight.shape, family, precision).width
    out_channels, in_channels = weight.shape[:2]
    spread = WEIGHTS[block] @ weight.astype(np.float64) @ WEIGHTS[block].T
    out_quads, in_quads = _out_quads(out_channels, family), kernels.quads(in_channels)
    packed = np.zeros((components(block), 4 * out_quads, 4 * in_quads))
    packed[:, :out_channels, :in_channels] = spread.reshape(
        out_channels, in_channels, components(block)
    ).transpose(2, 0, 1)
    quads = packed.reshape(components(block), out_quads, 4, in_quads, 4)
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
    tile = _tile(node, shape, family, precision)
    rows = max(rows for _, rows in kernels.bands(family, shape, tile, layout))
    element = 8 if precision == "fp16" else 16
    plane = components(tile.width) * _plane(rows, layout, tile, family) * element
    return kernels.quads(shape[1]) * plane, _out_quads(shape[0], family) * plane


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
    tile = _tile(node, shape, family, precision)
    return [
        call
        for first, rows in kernels.bands(family, shape, tile, target.layout)
        for call in _band(
            node,
            shape,
            packed,
            source.below(first),
            target.below(first),
            epilogue.below(first),
            rows,
            tile,
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
    tile: RegisterTile,
    family: Family,
    precision: Precision,
    scratch: Sequence[int],
) -> list[Call]:
    layout, block = target.layout, tile.width
    columns, lines = layout.stride // block, rows // block
    blocks = (columns // tile.group[0], lines // tile.group[1])
    plane = _plane(rows, layout, tile, family)
    spread = Layout(0, columns, plane, columns, lines, shape[1])
    out_quads = _out_quads(shape[0], family)
    products = replace(spread, channels=4 * out_quads)
    # The block of the first pixel begins where its first tap reads.
    corner = source.layout.base
    corner -= node.padding[0] * source.layout.stride + node.padding[1]
    given = replace(source.layout, base=corner)
    other = epilogue.other or target
    items = 1 if precision == "fp16" else 2  # of a quad, as winograd_input.comp says
    multiply = family.products
    places, quads = multiply.tile.coverage
    return [
        Call(
            shader=f"winograd_input_{tile.label}-{precision}",
            label=node.name,
            buffers=(source.buffer, scratch[0]),
            grid=(items * blocks[0], blocks[1], spread.quads),
            constants=(spread.quads,),
            push=(*given.words, *spread.words),
        ),
        Call(
            shader=f"{multiply.name}-{precision}",
            label=node.name,
            buffers=(*scratch, packed.weights.constant),
            grid=(components(block) * out_quads // quads, plane // places, 1),
            constants=(spread.quads, out_quads),
            push=(plane, packed.weights.first),
            # Those that it stands for, so that speeds can be compared.
            macs=math.prod(shape) * layout.width * min(rows, layout.height),
        ),
        Call(
            shader=f"winograd_output_{tile.label}-{precision}",
            label=node.name,
            buffers=(
                scratch[1],
                target.buffer,
                packed.weights.constant,
                packed.parameters.constant,
                other.buffer,
            ),
            grid=(kernels.quads(shape[0]), *blocks),
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


def _tile(
    node: Conv2d, shape: Sequence[int], family: Family, precision: Precision
) -> RegisterTile:
    """Its sides are a block's."""
    return kernels.conv_kernel(node, shape, family, precision).tile


def _out_quads(channels: int, family: Family) -> int:
    step = family.products.tile.height
    return -(-kernels.quads(channels) // step) * step


def _plane(rows: int, layout: Layout, tile: RegisterTile, family: Family) -> int:
    """Elements of a plane of blocks, one for each block of `rows` rows, rounded up."""
    step = family.products.tile.coverage[0]
    blocks = rows // tile.height * (layout.stride // tile.width)
    return -(-blocks // step) * step
