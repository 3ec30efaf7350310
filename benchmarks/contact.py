"""Contact sheets: the same crops by Lanczos, by models, and as they were.

usage: python -m benchmarks.contact

Of the pictures of examples/, which no model was trained on, each is halved or quartered
by bicubic (MATLAB's) and enlarged on this Vulkan device. The sheets in docs/images are
written anew.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from upfrost import Upscaler
from upfrost.arrays import Bytes
from upfrost.metrics.evaluate import Enlarge, all_ways
from upfrost_training.data import read_rgb
from upfrost_training.resize import shrink

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
SIDE = 160
# Pixels around a crop, so that each network sees all that it looks at.
MARGIN = 128
HEAD = 18
QUALITY = 92
SHEETS = {
    2: ("live-x2-m-clean", "realtime-x2", "cascade-x2", "photo-x2"),
    4: ("realtime-x4", "cascade-x4", "cascade-x4-gan", "photo-x4"),
}


@dataclass(frozen=True)
class Crop:
    """A square of `SIDE` pixels of a picture, from `top` and `left` on."""

    picture: str
    top: int
    left: int


# Fur, a face, foliage, brick, night, text; at multiples of every scale.
CROPS = (
    Crop("bee.png", 60, 60),
    Crop("astronaut.png", 20, 100),
    Crop("grass.png", 64, 64),
    Crop("bridge.png", 60, 80),
    Crop("bridge.png", 100, 264),
    Crop("map.png", 20, 100),
)


def main() -> None:
    """Write the sheets."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    pictures = [read_rgb(EXAMPLES / crop.picture) for crop in CROPS]
    for scale, models in SHEETS.items():
        columns: dict[str, list[Bytes]] = {}
        with ExitStack() as stack:
            for name, enlarge in ways_of(models, stack).items():
                columns[name] = [
                    enlarged(crop, picture, scale, enlarge)
                    for crop, picture in zip(CROPS, pictures, strict=True)
                ]
        columns["original"] = [
            enlarged(crop, picture, 1, lambda same: same)
            for crop, picture in zip(CROPS, pictures, strict=True)
        ]
        path = ROOT / f"docs/images/contact-x{scale}.webp"
        sheet(columns).save(path, quality=QUALITY)
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1024} KiB")


def ways_of(models: Sequence[str], stack: ExitStack) -> dict[str, Enlarge]:
    """Lanczos and each model, all of one scale; `stack` closes them."""
    ways: dict[str, Enlarge] = {}
    for model in models:
        upscaler = stack.enter_context(Upscaler(model))
        every = all_ways(upscaler)
        ways |= {name: every[name] for name in ("Lanczos", upscaler.graph.name)}
    return ways


def enlarged(crop: Crop, picture: Bytes, scale: int, enlarge: Enlarge) -> Bytes:
    """The crop of (H, W, 3) made small by bicubic and large again, with its margin."""
    rows, columns = (
        slice(max(0, start - MARGIN), (min(start + SIDE + MARGIN, end)) // 4 * 4)
        for start, end in zip((crop.top, crop.left), picture.shape, strict=False)
    )
    around = np.ascontiguousarray(picture[rows, columns])
    large = enlarge(shrink(around, scale) if scale > 1 else around)
    top, left = crop.top - rows.start, crop.left - columns.start
    return large[top : top + SIDE, left : left + SIDE]


def sheet(columns: Mapping[str, Sequence[Bytes]]) -> Image.Image:
    """A column for each way, its name above; a row for each crop."""
    rows = len(next(iter(columns.values())))
    whole = Image.new("RGB", (len(columns) * SIDE, HEAD + rows * SIDE), "white")
    draw = ImageDraw.Draw(whole)
    font = ImageFont.load_default(size=12)
    for number, (name, crops) in enumerate(columns.items()):
        draw.text((number * SIDE + 4, 2), name, fill="black", font=font)
        for row, crop in enumerate(crops):
            place = number * SIDE, HEAD + row * SIDE
            whole.paste(Image.fromarray(np.ascontiguousarray(crop)), place)
    return whole


if __name__ == "__main__":
    main()
