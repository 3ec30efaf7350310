"""Colour pictures through networks of three channels, or of one for the luma."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from upfrost.arrays import Bytes

if TYPE_CHECKING:
    from upfrost.gpu.upscaler import Upscaler


def upscale_channels(
    upscaler: Upscaler,
    rgb: Bytes,
    progress: Callable[[int, int], None] | None = None,
) -> Bytes:
    """RGB through a network of three channels, or of one: the luma.

    Then chroma is enlarged by bicubic, as networks of one channel expect.
    """
    if upscaler.graph.channels == 3:
        return upscaler(rgb, progress=progress)
    luma, blue, red = Image.fromarray(rgb).convert("YCbCr").split()
    large = Image.fromarray(
        upscaler(np.asarray(luma)[..., None], progress=progress)[..., 0]
    )
    chroma = (band.resize(large.size, Image.Resampling.BICUBIC) for band in (blue, red))
    return np.array(Image.merge("YCbCr", (large, *chroma)).convert("RGB"))
