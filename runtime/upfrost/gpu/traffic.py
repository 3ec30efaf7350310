"""Bytes that a dispatch moves from and to memory, by the model of docs/mali.md."""

from __future__ import annotations

import math
from dataclasses import dataclass

from upfrost.gpu.dispatches import Dispatch
from upfrost.gpu.families import VARIANTS

LUMA = ("conv3x3_luma2", "conv3x3_luma3")
TRANSFORMS = ("winograd_input", "winograd_output")
# Of convolutions whose windows the source fixes, rows and columns.
_TAPS = {
    "conv3x3": (3, 3),
    "conv3x3_half": (3, 3),
    **dict.fromkeys(LUMA, (3, 3)),
    "conv3x3_cpu": (3, 3),
    "conv1x1": (1, 1),
    "deconv4x4": (2, 2),
    "winograd_products": (1, 1),
}


@dataclass(frozen=True)
class Convolution:
    """What a convolution's dispatch says of its work."""

    in_channels: int  # that one output slice reads
    element_bytes: float  # of four of them, or of a pixel of the picture
    taps: tuple[int, int]
    tile: tuple[int, int]  # pixels wide, high
    group: tuple[int, int]

    @property
    def macs(self) -> int:
        """Multiplications of one invocation."""
        return 4 * self.in_channels * math.prod(self.taps) * math.prod(self.tile)


def convolution(dispatch: Dispatch) -> Convolution | None:
    """None if the dispatch is none."""
    variant = VARIANTS[dispatch.shader]
    if "TILE_W" not in variant.defines or variant.source in TRANSFORMS:
        return None
    of_bytes = "BYTES" in variant.defines
    in_slices = 1 if of_bytes else dispatch.constants[0]
    pixel_bytes = dispatch.constants[0] & 255
    taps = _TAPS.get(variant.source)
    if taps is None:
        taps = dispatch.constants[5], dispatch.constants[6]
    tile = variant.defines["TILE_W"], variant.defines["TILE_H"]
    if variant.source == "winograd_products":
        # Elements of an invocation are as far apart as a workgroup is wide.
        tile = 1, math.prod(tile)
    group = variant.defines["GROUP_X"], variant.defines["GROUP_Y"]
    return Convolution(
        (3 if pixel_bytes == 3 else 1) if of_bytes else 4 * in_slices,
        pixel_bytes if of_bytes else element_bytes(dispatch),
        taps,
        tile,
        group,
    )


def traffic(dispatch: Dispatch) -> float | None:
    """Bytes that a convolution or a part of one moves; None for other dispatches."""
    if is_transform(dispatch):
        return _transform_traffic(dispatch)
    layer = convolution(dispatch)
    return None if layer is None else _convolution_traffic(layer, dispatch)


def is_transform(dispatch: Dispatch) -> bool:
    """Whether it is one of Winograd's method."""
    return VARIANTS[dispatch.shader].source in TRANSFORMS


def transform_group(dispatch: Dispatch) -> tuple[int, int]:
    """Invocations of a workgroup in x and y."""
    defines = VARIANTS[dispatch.shader].defines
    return defines["GROUP_X"], defines["GROUP_Y"]


def _transform_traffic(dispatch: Dispatch) -> float:
    """Bytes from and to memory: each value once, but for rows around a workgroup."""
    group = transform_group(dispatch)
    size = element_bytes(dispatch)
    if "input" in dispatch.shader:
        x, y, slices = dispatch.grid
        rows = 2 * y * group[1] + 2 * y
        columns = x * group[0] // (size // 8)
    else:
        slices, x, y = dispatch.grid
        rows = 2 * y * group[1] * (2 if dispatch.constants[1] else 1)
        columns = x * group[0]
    return float(slices * size * columns * (2 * rows + 16 * y * group[1]))


def element_bytes(dispatch: Dispatch) -> int:
    """Bytes of an element: four channels of a pixel."""
    return 8 if dispatch.shader.endswith("fp16") else 16


def _convolution_traffic(layer: Convolution, dispatch: Dispatch) -> float:
    """Bytes from and to memory: each value once, but for the rows around a workgroup.

    Workgroups of one place's output slices follow each other: their input is cached.
    """
    width, height = layer.tile
    columns = dispatch.grid[1] * layer.group[0] * width
    rows = dispatch.grid[2] * layer.group[1] * height
    halo = dispatch.grid[2] * (layer.taps[0] - 1)
    out_slices, groups = dispatch.grid[0], 1
    if VARIANTS[dispatch.shader].source in LUMA:
        # Each pixel is read once more as a sample, and becomes four or nine.
        samples = 1 + (4 if dispatch.grid[0] == 1 else 9)
        sample_bytes = samples * (2 if dispatch.constants[1] & 255 == 2 else 1)
        in_bytes = _in_bytes(layer, 1, rows + halo)
        return float(columns * (in_bytes + sample_bytes * rows))
    if VARIANTS[dispatch.shader].source == "winograd_products":
        groups = dispatch.grid[0] // dispatch.constants[1]
    elif dispatch.constants[1]:  # adds or multiplies another value
        out_slices *= 2
    in_bytes = _in_bytes(layer, groups, rows + halo)
    return float(columns * (in_bytes + element_bytes(dispatch) * out_slices * rows))


def _in_bytes(layer: Convolution, groups: int, rows: int) -> float:
    """Bytes of a column of the input."""
    return groups * -(-layer.in_channels // 4) * layer.element_bytes * rows
