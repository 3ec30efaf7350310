"""Y-PSNR and SSIM by the super-resolution field's convention, over folders of pairs."""

from contextlib import ExitStack
from pathlib import Path

from PIL import Image

from upfrost.files import check_folder
from upfrost.metrics.evaluate import Enlarge as Upscale
from upfrost.metrics.evaluate import PairQuality, enlarged_pairs, evaluate_pairs
from upfrost.metrics.quality import luma, y_psnr, y_ssim
from upfrost.text import printable
from upfrost_training.data import (
    DataError,
    crop_to_multiple,
    in_colour,
    picture_files,
    read_rgb,
)
from upfrost_training.resize import Picture, imresize, shrink

__all__ = [
    "PairQuality",
    "Upscale",
    "bicubic",
    "check_no_pairs",
    "check_pairs",
    "evaluate_folder",
    "luma",
    "save_pair",
    "write_pairs",
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


def check_pairs(folder: Path, scale: int) -> None:
    """Find out whether `evaluate_folder` can read a folder's pairs. Raises as it does.

    It reads them as that does, which takes a small part of the time of upscaling them.
    """
    for _ in enlarged_pairs(folder, {}, scale):
        pass


def check_no_pairs(folder: Path) -> None:
    """Raise DataError where a folder for pairs holds some: they might be originals."""
    check_folder(folder)
    if held := next(iter(sorted(folder.glob("*_[HL]R.png"))), None):
        raise DataError(
            f"{printable(held)}: exists already; name a new folder for the pairs"
        )


def write_pairs(pictures: Path, output: Path, scale: int) -> int:
    """Write pairs by the field's convention, as `evaluate_folder` reads them.

    Of each picture under `pictures`, of a folder of pairs each original, the right and
    the bottom are cut off so that both sides are multiples of `scale`; its partner is
    MATLAB's bicubic. Returns their number. Raises DataError for a folder without any,
    for a picture that is damaged or too small, where `output` holds pairs: they might
    be the originals, and where it is among the pictures: the next call would take them
    for some. Of pairs that are not all written, none stays.
    """
    check_no_pairs(output)
    if output.resolve().is_relative_to(pictures.resolve()):
        raise DataError(
            f"{printable(output)}: lies in the pictures' folder; name another for the "
            "pairs"
        )
    files = [f for f in picture_files(pictures) if not f.stem.endswith("_LR")]
    output.mkdir(parents=True, exist_ok=True)
    # Where it fails no pair stays: it would be in the way of the same command.
    with ExitStack() as undo:
        for number, file in enumerate(files, start=1):
            picture = read_rgb(file)
            height, width = picture.shape[:2]
            if min(height, width) < scale:
                raise DataError(
                    f"{printable(file)}: {width}×{height} pixels are too few to be "
                    f"made small by {scale}; take the picture away"
                )
            original = crop_to_multiple(picture, scale)
            for path in _pair_paths(output, number):
                undo.callback(path.unlink, missing_ok=True)
            save_pair(output, number, original, shrink(original, scale))
        undo.pop_all()
    return len(files)


def save_pair(folder: Path, number: int, original: Picture, small: Picture) -> None:
    """Write a pair as 001_HR.png and 001_LR.png of that number."""
    paths = _pair_paths(folder, number)
    for path, picture in zip(paths, (original, small), strict=True):
        Image.fromarray(picture).save(path)


def _pair_paths(folder: Path, number: int) -> tuple[Path, Path]:
    return folder / f"{number:03}_HR.png", folder / f"{number:03}_LR.png"


def bicubic(scale: int) -> Upscale:
    """The baseline that published tables start from."""

    def upscale(image: Picture) -> Picture:
        height, width = image.shape[:2]
        result: Picture = imresize(image, height * scale, width * scale)
        return result

    return upscale
