"""Upscales the example pictures and sets the result beside what plain filters give."""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from upfrost.gpu.device import DeviceError
from upfrost.gpu.upscaler import Upscaler
from upfrost.metrics.filters import SHOWN
from upfrost.network.graph import GraphError
from upfrost.network.modelfile import ModelFileError

REPOSITORY = Path(__file__).resolve().parent.parent
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}
CROP = (112, 84)  # width and height in pixels of the small picture
ZOOM = 2  # each pixel of a result becomes ZOOM × ZOOM in the comparison
LABEL_HEIGHT = 30
GAP = 6


def most_detailed(rgb: NDArray[np.uint8], width: int, height: int) -> tuple[int, int]:
    """Left and top of the `width` × `height` part with the strongest edges.

    `rgb` is (H, W, 3). Strength is the mean absolute Laplacian of the green channel.
    """
    green = rgb[..., 1].astype(np.float64)
    laplacian = np.zeros_like(green)
    laplacian[1:-1, 1:-1] = np.abs(
        4 * green[1:-1, 1:-1]
        - green[:-2, 1:-1]
        - green[2:, 1:-1]
        - green[1:-1, :-2]
        - green[1:-1, 2:]
    )
    sums = np.pad(laplacian.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    windows = (
        sums[height:, width:]
        - sums[:-height, width:]
        - sums[height:, :-width]
        + sums[:-height, :-width]
    )
    top, left = np.unravel_index(int(windows.argmax()), windows.shape)
    return int(left), int(top)


def side_by_side(
    small: NDArray[np.uint8], results: dict[str, Image.Image]
) -> Image.Image:
    """The same detail of every result, two in a row, each with its label above."""
    width, height = min(CROP[0], small.shape[1]), min(CROP[1], small.shape[0])
    left, top = most_detailed(small, width, height)
    scale = next(iter(results.values())).width // small.shape[1]
    box = tuple(scale * edge for edge in (left, top, left + width, top + height))
    cell = (width * scale * ZOOM, height * scale * ZOOM + LABEL_HEIGHT)
    rows = (len(results) + 1) // 2
    sheet = Image.new(
        "RGB", (2 * cell[0] + 3 * GAP, rows * (cell[1] + GAP) + GAP), "white"
    )
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(20)
    for index, (label, result) in enumerate(results.items()):
        x = GAP + (index % 2) * (cell[0] + GAP)
        y = GAP + (index // 2) * (cell[1] + GAP)
        draw.text((x + 2, y), label, fill="black", font=font)
        detail = result.resize(
            (cell[0], cell[1] - LABEL_HEIGHT), Image.Resampling.NEAREST, box
        )
        sheet.paste(detail, (x, y + LABEL_HEIGHT))
    return sheet


def demonstrate(source: Path, upscaler: Upscaler, model: str, folder: Path) -> float:
    """Write the results for one picture into `folder`; seconds of the network."""
    with Image.open(source) as opened:
        picture = opened.convert("RGB")
    small = np.asarray(picture)
    start = time.perf_counter()
    large = Image.fromarray(upscaler(small))
    seconds = time.perf_counter() - start
    results = {
        name: picture.resize(large.size, by.pillow) for name, by in SHOWN.items()
    } | {f"upfrost {model}": large}
    for name, result in results.items():
        kind = name.split()[0].lower()
        result.save(folder / f"{source.stem}-{kind}.png")
    side_by_side(small, results).save(folder / f"{source.stem}-compared.png")
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "-i", "--examples", type=Path, default=REPOSITORY / "examples", metavar="DIR"
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=REPOSITORY / "demo", metavar="DIR"
    )
    parser.add_argument("-m", "--model", default="realtime-x2")
    options = parser.parse_args()
    pictures = sorted(
        path for path in options.examples.iterdir() if path.suffix.lower() in SUFFIXES
    )
    if not pictures:
        print(f"demo: no pictures in {options.examples}", file=sys.stderr)
        return 1
    options.output.mkdir(parents=True, exist_ok=True)
    try:
        upscaler = Upscaler(options.model)
        print(f"Upscaling with {options.model} on {upscaler.device.name}", flush=True)
        for number, path in enumerate(pictures, 1):
            seconds = demonstrate(path, upscaler, options.model, options.output)
            with Image.open(path) as opened:
                width, height = opened.size
            print(
                f"  {number}/{len(pictures)} {path.name}, {width}×{height}: "
                f"{seconds:.2f} s",
                flush=True,
            )
    except (DeviceError, GraphError, ModelFileError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    print(f"The results are in {options.output}; begin with *-compared.png.")
    print("Your own pictures: .venv/bin/upfrost upscale PICTURE...")
    return 0


if __name__ == "__main__":
    sys.exit(main())
