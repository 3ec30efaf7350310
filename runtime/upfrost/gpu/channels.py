"""Colour pictures through networks of three channels, or of one for the luma."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from upfrost.arrays import Bytes
from upfrost.gpu.frame import Frame, FrameFormat

if TYPE_CHECKING:
    from upfrost.gpu.upscaler import Upscaler

# BT.601, which networks for luma are trained by (docs/format.md).
_RED, _GREEN, _BLUE = 0.299, 0.587, 0.114
# Samples between those of 8 bits: of 219 steps of limited range alone, 256 greys would
# not come back.
_BITS = 12
_STEPS = 1 << _BITS - 8
_ROWS = 256  # that are converted at a time, so that numbers of 32 bits take no memory


def upscale_channels(
    upscaler: Upscaler,
    rgb: Bytes,
    progress: Callable[[int, int], None] | None = None,
) -> Bytes:
    """RGB through a network of three channels, or of one: the luma.

    Then chroma is enlarged by Catmull-Rom's cubic, and grey stays exactly grey.
    """
    if upscaler.graph.channels == 3:
        return upscaler(rgb, progress=progress)
    limited = upscaler.graph.colour == "luma"
    return _to_rgb(upscaler.frame(_to_frame(rgb, limited=limited), progress))


def start_channels(upscaler: Upscaler, rgb: Bytes) -> Callable[[], Bytes]:
    """Hands it to the device; what is returned waits for the result."""
    if upscaler.graph.channels == 3:
        return upscaler.start(rgb).result
    limited = upscaler.graph.colour == "luma"
    frame = upscaler.start_frame(_to_frame(rgb, limited=limited))
    return lambda: _to_rgb(frame.result())


def _to_frame(rgb: Bytes, *, limited: bool) -> Frame:
    """Luma and chroma of a picture, chroma as large as luma.

    A network for luma takes limited range; one for grey takes grey as it is.
    """
    kind = FrameFormat("444", bits=_BITS, range="limited" if limited else "full")
    frame = Frame.empty(kind, *rgb.shape[:2])
    for first in range(0, len(rgb), _ROWS):
        rows = np.s_[first : first + _ROWS]
        part = rgb[rows].astype(np.float32)
        luma = _RED * part[..., 0] + _GREEN * part[..., 1] + _BLUE * part[..., 2]
        foot, luma_gain, chroma_gain = _range(kind)
        values = (
            foot + luma_gain * luma,
            128 + chroma_gain * (part[..., 2] - luma) / (2 - 2 * _BLUE),
            128 + chroma_gain * (part[..., 0] - luma) / (2 - 2 * _RED),
        )
        for plane, value in zip(frame.planes, values, strict=True):
            plane[rows] = np.floor(_STEPS * value + 0.5)
    return frame


def _to_rgb(frame: Frame) -> Bytes:
    """What `_to_frame` makes a frame of."""
    rgb = np.empty((frame.height, frame.width, 3), np.uint8)
    foot, luma_gain, chroma_gain = _range(frame.format)
    for first in range(0, len(rgb), _ROWS):
        rows = np.s_[first : first + _ROWS]
        luma, blue, red = (
            plane[rows].astype(np.float32) / _STEPS for plane in frame.planes
        )
        luma = (luma - foot) / luma_gain
        red = (red - 128) * ((2 - 2 * _RED) / chroma_gain)
        blue = (blue - 128) * ((2 - 2 * _BLUE) / chroma_gain)
        green = -(_RED * red + _BLUE * blue) / _GREEN
        for channel, difference in enumerate((red, green, blue)):
            rgb[rows, :, channel] = _rounded(luma + difference)
    return rgb


def _range(kind: FrameFormat) -> tuple[float, float, float]:
    """Black's luma, and steps of luma and of chroma for each of a channel of RGB."""
    if kind.range == "full":
        return 0.0, 1.0, 1.0
    return 16.0, 219 / 255, 224 / 255


def _rounded(values: npt.NDArray[np.float32]) -> Bytes:
    return np.floor(values.clip(0, 255) + 0.5).astype(np.uint8)
