"""How models take photographs as they come: blurred, noisy, out of a JPEG.

usage: python -m benchmarks.photographs PAIRS --data FOLDER [-m MODEL ...]
       python -m benchmarks.photographs SHEET.webp --real PHOTO.jpg[@TOP,LEFT] ...

The first form makes pairs and measures on them. The pictures are the photographs of
examples/, and those under --data that training holds out for validation; of each, the
middle. Each is blurred, made small by one of three kernels, given a sensor's noise and
stored as a JPEG of quality 30, 50, 70 or 90; how much of what, `RECIPES` says, for
pictures taken by day and by night, the same on every machine. PAIRS/day-x4 then holds
001_HR.png, 001_LR.png, … for `upfrost eval`, too. Y-PSNR, SSIM and VMAF as
`benchmarks.quality` has them.

The second form draws crops of real photographs, which have no original, by Lanczos and
by each model, at their own size enlarged. A place is the crop's upper left corner;
without one it is the middle of the photograph.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from benchmarks.contact import EXAMPLES, ROOT, SIDE, sheet, ways_of
from benchmarks.quality import measure
from benchmarks.report import Row, publish
from upfrost.arrays import Bytes
from upfrost.errors import UpfrostError
from upfrost.files import check_file
from upfrost.image.images import FORMAT_OF_SUFFIX
from upfrost.metrics.evaluate import Enlarge
from upfrost.network.modelfile import find_model, read_model
from upfrost.video.ffmpeg import find_ffmpeg
from upfrost_training.config import read_config
from upfrost_training.data import DataError, listed_pictures, read_rgb
from upfrost_training.degradations import Degradation, degrade
from upfrost_training.evaluate import check_no_pairs, save_pair
from upfrost_training.loop import held_out

# Its folders are those that all networks for photographs are trained on.
CONFIG = ROOT / "training/configs/photo-x4.toml"
Recipe = tuple[float, str, float, int]
LARGEST = 384  # pixels, of a pair's original
DRAWN = ("cascade-x4", "photo-x4")
MODELS = (*DRAWN, "photo-x2")
# Of examples/, those that are photographs.
SHOWN = ("bee.png", "bridge.png", "citrus.png", "dogs.png")
# Blur of the optics in pixels of the original at ×4, the kernel, noise in 8-bit units,
# and the JPEG's quality. By night sensors are read at a high gain.
RECIPES = {
    "day": (
        (2.0, "bicubic", 2.0, 90),
        (1.0, "area", 4.0, 70),
        (2.5, "bilinear", 6.0, 50),
        (1.5, "bicubic", 3.0, 30),
    ),
    "night": (
        (1.5, "bicubic", 12.0, 90),
        (2.0, "area", 16.0, 70),
        (1.0, "bilinear", 20.0, 50),
        (2.5, "bicubic", 10.0, 30),
    ),
}
QUALITY = 90  # of the sheet
# Around a crop of a real photograph, so that networks see all that they look at.
MARGIN = 32


@dataclass(frozen=True)
class Place:
    """A crop of a photograph, `SIDE` pixels once it is enlarged.

    Where `corner`, (top, left), is None it is the middle.
    """

    path: Path
    corner: tuple[int, int] | None = None


def main() -> None:
    """Measure on pairs, or draw a sheet of real photographs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path, metavar="PAIRS|SHEET.webp")
    parser.add_argument("--data", type=Path, action="append", metavar="FOLDER")
    parser.add_argument("--real", nargs="+", type=parse_place, metavar="PHOTO[@Y,X]")
    parser.add_argument("-m", "--models", nargs="+", metavar="MODEL")
    options = parser.parse_args()
    try:
        if options.real:
            draw_real(options.output, options.real, options.models or DRAWN)
        elif options.data:
            measure_pairs(options.output, options.data, options.models or MODELS)
        else:
            parser.error("give --data to measure on pairs, or --real to draw a sheet")
    except (UpfrostError, OSError) as error:
        sys.exit(f"benchmarks.photographs: {error}")


def parse_place(text: str) -> Place:
    """`PHOTO` or `PHOTO@TOP,LEFT`, in pixels of it; without a place, the middle."""
    found = re.fullmatch(r"(.+)@(\d+),(\d+)", text)
    if found is None:
        return Place(Path(text))
    return Place(Path(found[1]), (int(found[2]), int(found[3])))


def originals(data: Sequence[Path]) -> list[Bytes]:
    """The middles of pictures that no training has seen."""
    settings = read_config(CONFIG).data
    files = listed_pictures([*data], settings.folders)
    unseen = [f for number, f in enumerate(files) if held_out(number, settings)]
    return [middle(read_rgb(f)) for f in [*(EXAMPLES / s for s in SHOWN), *unseen]]


def middle(picture: Bytes) -> Bytes:
    """The middle of a picture, LARGEST pixels at most, sides multiples of 12."""
    height, width = (min(side, LARGEST) // 12 * 12 for side in picture.shape[:2])
    top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    return np.ascontiguousarray(picture[top : top + height, left : left + width])


def write_pairs(
    folder: Path, pictures: Sequence[Bytes], scale: int, recipes: Sequence[Recipe]
) -> None:
    """Write each picture's pair, by one recipe after the other.

    Raises DataError for a folder that holds pairs: they would be measured, too.
    """
    check_no_pairs(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pictures):
        blur, kernel, noise, quality = recipes[number % len(recipes)]
        steps = (
            Degradation("blur", (blur * scale / 4,) * 2),
            Degradation(kernel),
            Degradation("grain", (noise, noise)),
            Degradation("jpeg", (quality, quality)),
        )
        low = degrade(picture[None], scale, steps, np.random.default_rng(number))[0]
        save_pair(folder, number + 1, picture, low)


def measure_pairs(output: Path, data: Sequence[Path], models: Sequence[str]) -> None:
    """Make the pairs and publish what each model does with them."""
    pictures = originals(data)
    by_scale: dict[int, list[str]] = {}
    for model in models:
        by_scale.setdefault(read_model(find_model(model)).scale, []).append(model)
    rows: list[Row] = []
    for (scale, names), (light, recipes) in product(
        sorted(by_scale.items()), RECIPES.items()
    ):
        folder = output / f"{light}-x{scale}"
        write_pairs(folder, pictures, scale, recipes)
        with ExitStack() as stack:
            ways = ways_of(names, stack)
            for way, quality in measure(folder, ways, scale, find_ffmpeg()).items():
                rows.append(
                    {
                        "": way,
                        "scale": f"×{scale}",
                        "light": light,
                        "Y-PSNR, dB": f"{quality['psnr_y']:.2f}",
                        "SSIM": f"{quality['ssim']:.4f}",
                        "VMAF": f"{quality['vmaf']:.1f}",
                    }
                )
    publish(
        "photographs",
        "Photographs that were blurred, noisy and JPEGs, enlarged",
        rows,
        [
            f"{len(pictures)} pictures that no model was trained on, "
            f"{LARGEST} pixels at most.",
            "Blur (pixels at ×4), kernel, noise (8-bit units), JPEG quality, by turns; "
            + "; ".join(
                f"{light}: {', '.join(' '.join(map(str, each)) for each in recipes)}"
                for light, recipes in RECIPES.items()
            )
            + ".",
        ],
    )


def draw_real(output: Path, places: Sequence[Place], models: Sequence[str]) -> None:
    """Draw the crops by Lanczos and by each model.

    Raises DataError for models of several scales, and for a place outside its picture.
    """
    check_file(output, overwrite=True)
    if output.suffix.lower() not in FORMAT_OF_SUFFIX:
        raise DataError(f"{output}: name the sheet as a picture, sheet.webp")
    scales = {read_model(find_model(model)).scale for model in models}
    if len(scales) > 1:
        raise DataError(
            f"{', '.join(models)}: enlarge by {', '.join(map(str, sorted(scales)))}; "
            "name models of one scale with -m"
        )
    (scale,) = scales
    with ExitStack() as stack:
        columns = {
            name: [enlarged(place, scale, enlarge) for place in places]
            for name, enlarge in ways_of(models, stack).items()
        }
    sheet(columns).save(output, quality=QUALITY)
    print(f"{output}: {output.stat().st_size // 1024} KiB")


def enlarged(place: Place, scale: int, enlarge: Enlarge) -> Bytes:
    """The place's crop, enlarged with its margin."""
    picture = read_rgb(place.path)
    side = SIDE // scale
    height, width = picture.shape[:2]
    corner = place.corner or ((height - side) // 2, (width - side) // 2)
    if not (0 <= corner[0] <= height - side and 0 <= corner[1] <= width - side):
        raise DataError(
            f"{place.path}: {width}×{height} pixels hold no {side}×{side} at "
            f"{corner[0]},{corner[1]}"
        )
    rows, columns = (
        slice(max(0, start - MARGIN), min(start + side + MARGIN, end))
        for start, end in zip(corner, picture.shape, strict=False)
    )
    large = enlarge(np.ascontiguousarray(picture[rows, columns]))
    top, left = (
        (start - begun.start) * scale
        for start, begun in zip(corner, (rows, columns), strict=True)
    )
    return large[top : top + SIDE, left : left + SIDE]


if __name__ == "__main__":
    main()
