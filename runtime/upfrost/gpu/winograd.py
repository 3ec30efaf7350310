"""3×3 convolutions by Winograd's method, F(2×2, 3×3) or F(4×4, 3×3): three dispatches.

A block of 2×2 pixels takes 16 products of each pair of channels instead of 36, one of
4×4 takes 36 instead of 144: of transform-domain elements, sums of the pixels that a
block reads with sums of the weights. The input is transformed to elements, a batched
GEMM multiplies them, one matrix for each element, and the products are transformed to
pixels. Lavin and Gray, "Fast algorithms for convolutional neural networks", 2016,
arXiv:1509.09308.

A pixel's rounding depends on its place in its block. With blocks of 2×2 it depends on
no pixels but those that the convolution reads; with blocks of 4×4 on more, since what
cancels leaves its rounding behind: on all pixels at the block's own places, and for the
block's first and last rows and columns on what lies beside them
(`graph.required_window`). So tiles begin at whole blocks and have a halo of so much
(`tiles.tiling`), what a block reads beyond the picture is zero (`extent`), and a
pixel's bits do not depend on its tile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from upfrost.gpu import convolutions
from upfrost.gpu.convolutions import Convolution, PackedConv
from upfrost.gpu.dispatches import BufferSlice, Dispatch, Layout, Precision, slices
from upfrost.gpu.families import Family, RegisterTile
from upfrost.network.graph import Blocks, Conv2d, Tensor

# By the pixels of a block's side, what makes transform-domain elements of weights.
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


def elements(block: int) -> int:
    """How many transform-domain elements a block of `block` × `block` pixels has."""
    return (block + 2) ** 2


def extent(node: Conv2d, blocks: Blocks, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of a source's plane that a result of `height` × `width` is from.

    With those zeros beyond the picture that a block reads together with its pixels. The
    block's last row and column count for its last pixels alone: those are either
    the result's, whose taps are the padding's affair, or nobody's.
    """
    side, lead = blocks.side, blocks.lead
    if not blocks.mixes:
        return 0, 0
    top, left, _, _ = node.padding
    rows, columns = (
        -(-(extent + lead) // side) * side - lead + 1 for extent in (height, width)
    )
    return rows - top, columns - left


def pack(
    node: Conv2d,
    weight: Tensor,
    bias: Tensor | None,
    slopes: Tensor | None,
    family: Family,
    precision: Precision,
) -> PackedConv:
    """The transformed weights, a matrix for each transform-domain element.

    [element], then as `convolutions.pack_conv`; computed in double precision and
    rounded once. Output slices are as many as the products' kernel wants, with zeros.
    Raises `GraphError` for weights that half precision cannot hold.
    """
    block = _tile(node, weight.shape, family, precision).width
    out_channels, in_channels = weight.shape[:2]
    spread = WEIGHTS[block] @ weight.astype(np.float64) @ WEIGHTS[block].T
    out_slices, in_slices = (
        _out_slices(out_channels, family),
        slices(in_channels),
    )
    packed = np.zeros((elements(block), 4 * out_slices, 4 * in_slices))
    packed[:, :out_channels, :in_channels] = spread.reshape(
        out_channels, in_channels, elements(block)
    ).transpose(2, 0, 1)
    by_element = packed.reshape(elements(block), out_slices, 4, in_slices, 4)
    return PackedConv(
        BufferSlice(
            convolutions.rounded(node, by_element.transpose(0, 1, 3, 4, 2), precision)
        ),
        convolutions.pack_parameters(out_channels, bias, slopes),
        in_slices,
        float(np.abs(weight).sum(axis=(1, 2, 3)).max()),
    )


def scratch_bytes(
    node: Conv2d,
    shape: Sequence[int],
    layout: Layout,
    family: Family,
    precision: Precision,
) -> tuple[int, int]:
    """Bytes of the buffers for the transformed input and for the products."""
    tile = _tile(node, shape, family, precision)
    most = _most_rows(shape, layout, tile, family, precision)
    rows = convolutions.largest_band(family, shape, tile, layout, most)
    plane = _plane(rows, layout, tile, family) * _block_bytes(tile, precision)
    return slices(shape[1]) * plane, _out_slices(shape[0], family) * plane


def conv(convolution: Convolution) -> list[Dispatch]:
    """The dispatches of a convolution with its epilogue.

    They are bands of rows, as `convolutions.conv`'s: as many rows as the direct
    convolution might compute, which takes longer than each of the three, and as the
    family's `scratch_bytes` are for.
    """
    family, shape, layout = (
        convolution.family,
        convolution.shape,
        convolution.target.layout,
    )
    tile = convolution.kernel.tile
    most = _most_rows(shape, layout, tile, family, convolution.precision)
    return [
        dispatch
        for first, rows in convolutions.bands(
            family, shape, tile, layout, layout.rows, most
        )
        for dispatch in _band(convolution, first, rows)
    ]


def _band(whole: Convolution, first: int, rows: int) -> list[Dispatch]:
    """The dispatches of a band of `rows` of blocks, of which `first` are before it."""
    # Of the rows that the first blocks begin before, the first band has those that are
    # not there, which are written as the plane's last; another has those before it.
    lead = whole.lead
    before = min(lead, first)
    band = whole.rows_from(first - before, first - before)
    shape, packed, family = band.shape, band.packed, band.family
    tile, layout, source = band.kernel.tile, band.target.layout, band.source.layout
    block = tile.width
    columns, lines = layout.stride // block, rows // block
    blocks = (columns // tile.group[0], lines // tile.group[1])
    plane = _plane(rows, layout, tile, family)
    spread = Layout(0, columns, plane, columns, lines, shape[1])
    out_slices = _out_slices(shape[0], family)
    products = replace(spread, channels=4 * out_slices)
    # A block begins where its first pixel's first tap reads.
    top, left = (amount + lead for amount in band.node.padding[:2])
    corner = source.base - (top - before) * source.stride - left
    # Invocations of an element, as winograd_input.comp says.
    items = 1 if band.precision == "fp16" else 2
    gemm = family.products
    places, at_once = gemm.tile.coverage
    return [
        Dispatch(
            shader=f"winograd_input_{tile.label}-{band.precision}",
            label=band.node.name,
            buffers=(band.source.buffer, band.scratch[0]),
            grid=(items * blocks[0], blocks[1], spread.slices),
            constants=(spread.slices,),
            push=(*replace(source, base=corner).words, *spread.words),
        ),
        Dispatch(
            shader=f"{gemm.name}-{band.precision}",
            label=band.node.name,
            buffers=(*band.scratch, packed.weights.constant),
            grid=(elements(block) * out_slices // at_once, plane // places, 1),
            constants=(spread.slices, out_slices),
            push=(plane, packed.weights.first),
            # Those that it stands for, so that speeds can be compared.
            macs=math.prod(shape)
            * layout.width
            * min(rows, whole.target.layout.height - first),
        ),
        Dispatch(
            shader=f"winograd_output_{tile.label}-{band.precision}",
            label=band.node.name,
            buffers=(
                band.scratch[1],
                band.target.buffer,
                packed.weights.constant,
                packed.parameters.constant,
                band.residual.buffer,
            ),
            grid=(slices(shape[0]), *blocks),
            constants=(out_slices, *band.epilogue.constants),
            push=(
                *products.words,
                *layout.words,
                band.residual.layout.base,
                packed.weights.first,
                packed.parameters.first,
                *((lead, lead - before) if Blocks(block).mixes else ()),
            ),
        ),
    ]


def _tile(
    node: Conv2d, shape: Sequence[int], family: Family, precision: Precision
) -> RegisterTile:
    """The register tile, whose sides are a block's."""
    return convolutions.conv_kernel(node, shape, family, precision).tile


def _most_rows(
    shape: Sequence[int],
    layout: Layout,
    tile: RegisterTile,
    family: Family,
    precision: Precision,
) -> int:
    """Rows of a band for which `scratch_bytes` of the family do, at least one block's.

    The last band may have a few more, those of the margin.
    """
    most = max(slices(shape[1]), _out_slices(shape[0], family))
    block_row = most * layout.stride // tile.width * _block_bytes(tile, precision)
    return max(1, family.scratch_bytes // block_row) * tile.height


def _block_bytes(tile: RegisterTile, precision: Precision) -> int:
    """Bytes of the transform-domain elements of a slice's block."""
    return elements(tile.width) * (8 if precision == "fp16" else 16)


def _out_slices(channels: int, family: Family) -> int:
    step = family.products.tile.height
    return -(-slices(channels) // step) * step


def _plane(rows: int, layout: Layout, tile: RegisterTile, family: Family) -> int:
    """Elements of a plane of blocks, one for each block of `rows` rows, rounded up."""
    step = family.products.tile.coverage[0]
    blocks = rows // tile.height * (layout.stride // tile.width)
    return -(-blocks // step) * step
