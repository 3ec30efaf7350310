"""Y-PSNR and SSIM by the super-resolution field's convention, over folders of pairs."""

from pathlib import Path

from upfrost.metrics.evaluate import Enlarge as Upscale
from upfrost.metrics.evaluate import PairQuality, evaluate_pairs
from upfrost.metrics.quality import luma, y_psnr, y_ssim
from upfrost_training.data import in_colour
from upfrost_training.resize import Picture, imresize

__all__ = [
    "PairQuality",
    "Upscale",
    "bicubic",
    "evaluate_folder",
    "luma",
    "y_psnr",
    "y_ssim",
]


def evaluate_folder(
    folder: Path, upscale: Upscale, scale: int, colour: str = "rgb"
) -> PairQuality:
    """Upscale every LR picture of `folder` and compare it with its HR partner.

    `upscale` takes uint8 (H, W, 3) and gives uint8 (sH, sW, 3). Where `colour` is luma,
    it takes and gives Y planes (H, W, 1) of the video range; they are compared with
    the partner's Y before rounding, as those of an RGB result are. Raises
    `PictureError`.
    """

    def enlarge(small: Picture) -> Picture:
        return upscale(in_colour(small, colour))

    return evaluate_pairs(folder, {"upscale": enlarge}, scale)["upscale"]


def bicubic(scale: int) -> Upscale:
    """The baseline that published tables start from."""

    def upscale(image: Picture) -> Picture:
        height, width = image.shape[:2]
        result: Picture = imresize(image, height * scale, width * scale)
        return result

    return upscale
