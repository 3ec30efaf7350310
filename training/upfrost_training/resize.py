"""Scale pictures as MATLAB's `imresize` does, antialiased when shrinking.

The super-resolution field makes its low-resolution pictures with this function, so
figures compare only when every detail of it is followed: the kernel is widened by the
factor when shrinking, the edge pixel is repeated outside the picture, weights are
normalised per output pixel, rows are scaled before columns, and a uint8 picture is
rounded to uint8 between the two passes. So written, it gives the LR pictures of the
usual Set5 and Set14 pairs bit for bit. (MATLAB's newer releases mirror at the border
instead; the published pairs do not.)
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Picture = NDArray[np.uint8]


def cubic(x: FloatArray) -> FloatArray:
    """Keys' cubic convolution kernel with a = -0.5, support [-2, 2].

    R. Keys, "Cubic convolution interpolation for digital image processing", 1981.
    """
    d = np.abs(x)
    near = 1.5 * d**3 - 2.5 * d**2 + 1.0
    far = -0.5 * d**3 + 2.5 * d**2 - 4.0 * d + 2.0
    return np.where(d <= 1.0, near, np.where(d <= 2.0, far, 0.0))


def triangle(x: FloatArray) -> FloatArray:
    """The bilinear kernel, support [-1, 1]."""
    return np.maximum(1.0 - np.abs(x), 0.0)


def box(x: FloatArray) -> FloatArray:
    """The area kernel, support [-0.5, 0.5)."""
    return ((x >= -0.5) & (x < 0.5)).astype(np.float64)


KERNELS: dict[str, tuple[Callable[[FloatArray], FloatArray], float]] = {
    "bicubic": (cubic, 4.0),
    "bilinear": (triangle, 2.0),
    "area": (box, 1.0),
}


@cache
def resize_taps(
    size: int, out_size: int, kernel: str = "bicubic"
) -> tuple[NDArray[np.intp], FloatArray]:
    """Source positions and weights, both (out_size, taps), of one axis."""
    function, width = KERNELS[kernel]
    scale = out_size / size
    shrink = min(scale, 1.0)
    width /= shrink
    # Centres in MATLAB's pixel coordinates, then moved to count from zero.
    centre = (np.arange(out_size) + 0.5) / scale - 0.5
    left = np.floor(centre - width / 2.0).astype(np.intp) + 1
    # Two more taps than the width: which of them carry weight depends on rounding.
    taps = int(np.ceil(width)) + 2
    index = left[:, None] - 1 + np.arange(taps)[None, :]
    weight = shrink * function(shrink * (centre[:, None] - index))
    weight /= weight.sum(axis=1, keepdims=True)
    used = np.any(weight != 0.0, axis=0)
    return np.clip(index[:, used], 0, size - 1), weight[:, used]


def _resize_rows(image: NDArray[Any], out_size: int, kernel: str) -> NDArray[Any]:
    index, weight = resize_taps(image.shape[0], out_size, kernel)
    total = np.zeros((out_size, *image.shape[1:]), dtype=np.float64)
    shape = (-1,) + (1,) * (image.ndim - 1)
    for tap in range(index.shape[1]):
        total += weight[:, tap].reshape(shape) * image[index[:, tap]]
    if image.dtype == np.uint8:
        # Half away from zero, as MATLAB rounds; the values are clamped to be >= 0.
        return np.floor(np.clip(total, 0.0, 255.0) + 0.5).astype(np.uint8)
    return total


def imresize(
    image: NDArray[Any], height: int, width: int, kernel: str = "bicubic"
) -> NDArray[Any]:
    """Scale `image` (H, W) or (H, W, C) to (height, width) by MATLAB's rule.

    uint8 in gives uint8 out; any other type gives float64, neither rounded nor
    clamped. `kernel` is one of `KERNELS`.
    """
    if kernel not in KERNELS:
        raise ValueError(
            f"unknown resize kernel {kernel!r}: use one of {', '.join(KERNELS)}"
        )
    if image.ndim not in (2, 3) or min(image.shape) < 1 or min(height, width) < 1:
        raise ValueError(
            f"cannot resize an array of shape {image.shape} to {height}x{width}"
        )

    def rows(array: NDArray[Any]) -> NDArray[Any]:
        return _resize_rows(array, height, kernel)

    def columns(array: NDArray[Any]) -> NDArray[Any]:
        return _resize_rows(array.swapaxes(0, 1), width, kernel).swapaxes(0, 1)

    # MATLAB scales first the axis that shrinks most; at equal factors, the rows.
    if height / image.shape[0] <= width / image.shape[1]:
        return np.ascontiguousarray(columns(rows(image)))
    return np.ascontiguousarray(rows(columns(image)))


def shrink(image: Picture, scale: int, kernel: str = "bicubic") -> Picture:
    """The low-resolution partner of `image`, whose sides are multiples of `scale`."""
    height, width = image.shape[:2]
    if height % scale or width % scale:
        raise ValueError(f"{width}x{height} is not a multiple of the scale {scale}")
    result: Picture = imresize(image, height // scale, width // scale, kernel)
    return result
