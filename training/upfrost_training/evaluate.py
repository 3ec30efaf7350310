"""Y-PSNR and SSIM by the super-resolution field's convention, over folders of pairs.

BT.601 luma in the video range (16 to 235), computed from 8-bit pictures and not
rounded; a border of `scale` pixels is left out. SSIM as in Wang et al., "Image quality
assessment: from error visibility to structural similarity", 2004: 11x11 Gaussian
window of sigma 1.5, valid positions only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from upfrost_training.data import DataError, read_rgb
from upfrost_training.resize import Picture, imresize

FloatArray = NDArray[np.float64]
Upscale = Callable[[Picture], Picture]


@dataclass(frozen=True)
class Quality:
    """Means over a folder of pairs: dB, and SSIM in [-1, 1]."""

    pictures: int
    psnr: float
    ssim: float


def luma(image: Picture) -> FloatArray:
    """BT.601 Y in [16, 235] of uint8 (H, W, 3) or grey (H, W)."""
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    weights = np.array((65.481, 128.553, 24.966)) / 255.0
    y: FloatArray = image.astype(np.float64) @ weights + 16.0
    return y


def _cut(y: FloatArray, border: int) -> FloatArray:
    return y[border : y.shape[0] - border, border : y.shape[1] - border]


def _checked(a: Picture, b: Picture) -> None:
    if a.shape != b.shape:
        raise ValueError(f"pictures of different shapes: {a.shape} and {b.shape}")


def y_psnr(a: Picture, b: Picture, border: int) -> float:
    """PSNR in dB between the lumas of two uint8 pictures, without `border` pixels."""
    _checked(a, b)
    error = float(np.mean(np.square(_cut(luma(a), border) - _cut(luma(b), border))))
    return float("inf") if error == 0.0 else 10.0 * float(np.log10(255.0**2 / error))


def _blur(y: FloatArray, window: FloatArray) -> FloatArray:
    rows = np.lib.stride_tricks.sliding_window_view(y, len(window), axis=0) @ window
    out: FloatArray = (
        np.lib.stride_tricks.sliding_window_view(rows, len(window), axis=1) @ window
    )
    return out


def y_ssim(a: Picture, b: Picture, border: int) -> float:
    """Mean SSIM between the lumas of two uint8 pictures, without `border` pixels."""
    _checked(a, b)
    x, y = _cut(luma(a), border), _cut(luma(b), border)
    if min(x.shape) < 11:
        raise ValueError(
            f"SSIM needs at least 11x11 pixels inside the border: {x.shape}"
        )
    window = np.exp(-(np.arange(-5.0, 6.0) ** 2) / (2.0 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * 255.0) ** 2, (0.03 * 255.0) ** 2
    mean_x, mean_y = _blur(x, window), _blur(y, window)
    var_x = _blur(x * x, window) - mean_x**2
    var_y = _blur(y * y, window) - mean_y**2
    covariance = _blur(x * y, window) - mean_x * mean_y
    similarity = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    )
    return float(similarity.mean())


def pair_files(folder: Path) -> list[tuple[Path, Path]]:
    """(HR, LR) files of a folder laid out as `001_HR.png`, `001_LR.png`."""
    pairs = [
        (hr, hr.with_name(hr.name.replace("_HR", "_LR")))
        for hr in sorted(folder.glob("*_HR.*"))
    ]
    if not pairs:
        raise DataError(f"{folder}: no pairs named like 001_HR.png and 001_LR.png")
    for _, lr in pairs:
        if not lr.is_file():
            raise DataError(f"{lr}: missing partner of an HR picture")
    return pairs


def evaluate_folder(folder: Path, upscale: Upscale, scale: int) -> Quality:
    """Upscale every LR picture of `folder` and compare it with its HR partner.

    `upscale` takes uint8 (H, W, 3) and gives uint8 (sH, sW, 3).
    """
    psnrs: list[float] = []
    ssims: list[float] = []
    for hr_file, lr_file in pair_files(folder):
        hr, result = read_rgb(hr_file), upscale(read_rgb(lr_file))
        if result.shape != hr.shape:
            raise DataError(
                f"{lr_file}: upscaled to {result.shape[1]}x{result.shape[0]}, but its "
                f"HR partner is {hr.shape[1]}x{hr.shape[0]}: wrong scale?"
            )
        psnrs.append(y_psnr(result, hr, scale))
        ssims.append(y_ssim(result, hr, scale))
    return Quality(len(psnrs), float(np.mean(psnrs)), float(np.mean(ssims)))


def bicubic(scale: int) -> Upscale:
    """The baseline that published tables start from."""

    def upscale(image: Picture) -> Picture:
        height, width = image.shape[:2]
        result: Picture = imresize(image, height * scale, width * scale)
        return result

    return upscale
