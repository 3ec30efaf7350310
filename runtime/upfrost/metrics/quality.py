"""Y-PSNR and SSIM of two pictures by the super-resolution field's convention, and the
decimals that models carry them with.

BT.601 luma in the video range (16 to 235), computed from 8-bit pictures and not
rounded; a border of `scale` pixels is left out. SSIM as in Wang et al., "Image quality
assessment: from error visibility to structural similarity", 2004: 11×11 Gaussian
window of sigma 1.5, valid positions only.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from upfrost.arrays import Bytes

FloatArray = npt.NDArray[np.float64]
# Of SSIM's window, so of the smallest picture that has one.
SSIM_SIDE = 11
# What equal pictures are said to have in dB: JSON knows no infinity, nor do means.
BEST_PSNR = 99.0


def luma(image: Bytes) -> FloatArray:
    """BT.601 Y in [16, 235] of uint8 (H, W, 3) or grey (H, W).

    A Y plane as a video's frame has it, (H, W, 1), is Y already.
    """
    if image.ndim == 3 and image.shape[2] == 1:
        return image[:, :, 0].astype(np.float64)
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    weights = np.array((65.481, 128.553, 24.966)) / 255.0
    y: FloatArray = image.astype(np.float64) @ weights + 16.0
    return y


def _cut(y: FloatArray, border: int) -> FloatArray:
    return y[border : y.shape[0] - border, border : y.shape[1] - border]


def _check(a: Bytes, b: Bytes) -> None:
    if a.shape[:2] != b.shape[:2]:
        raise ValueError(f"pictures of different shapes: {a.shape} and {b.shape}")


def y_psnr(a: Bytes, b: Bytes, border: int) -> float:
    """PSNR in dB between the lumas of two uint8 pictures, without `border` pixels."""
    _check(a, b)
    error = float(np.mean(np.square(_cut(luma(a), border) - _cut(luma(b), border))))
    return float("inf") if error == 0.0 else 10.0 * float(np.log10(255.0**2 / error))


def blur(y: FloatArray, window: FloatArray) -> FloatArray:
    """(H, W) by the window in both directions, where the window lies inside."""
    rows = np.lib.stride_tricks.sliding_window_view(y, len(window), axis=0) @ window
    out: FloatArray = (
        np.lib.stride_tricks.sliding_window_view(rows, len(window), axis=1) @ window
    )
    return out


def y_ssim(a: Bytes, b: Bytes, border: int) -> float:
    """Mean SSIM between the lumas of two uint8 pictures, without `border` pixels."""
    _check(a, b)
    x, y = _cut(luma(a), border), _cut(luma(b), border)
    if min(x.shape) < SSIM_SIDE:
        raise ValueError(
            f"SSIM needs at least {SSIM_SIDE}x{SSIM_SIDE} pixels inside the border: "
            f"{x.shape}"
        )
    window = np.exp(-((np.arange(SSIM_SIDE) - SSIM_SIDE // 2.0) ** 2) / (2.0 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * 255.0) ** 2, (0.03 * 255.0) ** 2
    mean_x, mean_y = blur(x, window), blur(y, window)
    var_x = blur(x * x, window) - mean_x**2
    var_y = blur(y * y, window) - mean_y**2
    covariance = blur(x * y, window) - mean_x * mean_y
    similarity = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    )
    return float(similarity.mean())


def detail(image: Bytes, original: Bytes) -> float:
    """The variance of the Laplacian of a picture's luma over its original's.

    1 where it is as rich in fine detail; near 0 where it is soft. Noise counts as
    detail. Raises ValueError where the original has none, or for other shapes.
    """
    _check(image, original)
    found, wanted = (
        _laplacian_variance(luma(picture)) for picture in (image, original)
    )
    if not wanted:
        raise ValueError("the original is of one colour: it has no detail to compare")
    return found / wanted


def _laplacian_variance(y: FloatArray) -> float:
    laplacian = (
        y[:-2, 1:-1] + y[2:, 1:-1] + y[1:-1, :-2] + y[1:-1, 2:] - 4 * y[1:-1, 1:-1]
    )
    return float(laplacian.var())
