"""Y-PSNR and SSIM by the super-resolution field's convention, over folders of pairs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from upfrost.metrics.quality import luma, y_psnr, y_ssim
from upfrost_training.data import DataError, in_colour, read_rgb
from upfrost_training.resize import Picture, imresize

Upscale = Callable[[Picture], Picture]

__all__ = [
    "Quality",
    "Upscale",
    "bicubic",
    "evaluate_folder",
    "luma",
    "pair_files",
    "y_psnr",
    "y_ssim",
]


@dataclass(frozen=True)
class Quality:
    """Means over a folder of pairs: dB, and SSIM in [-1, 1]."""

    pictures: int
    psnr: float
    ssim: float


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


def evaluate_folder(
    folder: Path, upscale: Upscale, scale: int, colour: str = "rgb"
) -> Quality:
    """Upscale every LR picture of `folder` and compare it with its HR partner.

    `upscale` takes uint8 (H, W, 3) and gives uint8 (sH, sW, 3). Where `colour` is luma,
    it takes and gives Y planes (H, W, 1) of the video range; they are compared with
    the partner's Y before rounding, as those of an RGB result are.
    """
    psnrs: list[float] = []
    ssims: list[float] = []
    for hr_file, lr_file in pair_files(folder):
        hr, result = read_rgb(hr_file), upscale(in_colour(read_rgb(lr_file), colour))
        if result.shape[:2] != hr.shape[:2]:
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
