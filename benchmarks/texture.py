"""What the texture of a second stage is like, and what it costs.

usage: python -m benchmarks.texture MODEL [MODEL ...] --data FOLDER [--data FOLDER ...]

The folders hold what training/configs/cascade-x4.toml names. A model is the name of a
bundled one or a .upf file, quadruples, and goes through Vulkan. Beside Set5 and Set14,
crops of 256 pixels of the photographs that are held out of training are measured: they
were chosen for their detail, and are sharper than Set14.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.report import Row, publish
from upfrost import Upscaler
from upfrost.arrays import Bytes
from upfrost.metrics.evaluate import (
    Enlarge,
    EnlargedPair,
    enlarged_pairs,
    measure_pairs,
)
from upfrost_training.adversary import roughness, unevenness
from upfrost_training.config import Config, read_config
from upfrost_training.data import (
    Crop,
    find_folder,
    listed_pictures,
    photographs,
    validation_crops,
)
from upfrost_training.loop import held_out
from upfrost_training.losses import RGB_TO_YCC

SCALE = 4
SETS = ("Set5", "Set14")
CONFIG = Path(__file__).parents[1] / "training" / "configs" / "cascade-x4.toml"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--data", type=Path, action="append", required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folders = set_folders(arguments.data)
    crops = held_out_crops(read_config(CONFIG), arguments.data)
    rows: list[Row] = []
    for model in arguments.models:
        with Upscaler(model) as upscaler:
            if upscaler.graph.scale != SCALE:
                parser.error(f"{model} does not enlarge ×{SCALE}")
            row = measured(upscaler, folders, crops)
            rows.append({"": upscaler.graph.name, **row})
    publish(
        "texture",
        "Texture that a network makes, ×4",
        rows,
        [
            "dB: Y-PSNR; detail: variance of the Laplacian as a share of the "
            "original's, median; NIQE: mean over the pictures that are large enough",
            "uneven: how much detail differs between the 16 places in the small "
            "picture's grid (`upfrost_training.adversary.unevenness`), mean over Set14",
            "dots: second derivatives beyond the original's where that is flat, in "
            "levels of 255 (`upfrost_training.adversary.roughness`), mean over the "
            "held-out crops",
            "colour: by how many levels R, G and B of a result differ for one pixel in "
            "a thousand, where the crop was made grey, mean over the held-out crops",
        ],
    )


def set_folders(roots: list[Path]) -> dict[str, Path]:
    """Where the pairs of the sets are."""
    found: dict[str, Path] = {}
    for name in SETS:
        folder = find_folder(roots, f"{name}/x{SCALE}")
        if folder is None:
            raise SystemExit(f"texture: no {name}/x{SCALE} under --data")
        found[name] = folder
    return found


def held_out_crops(config: Config, roots: list[Path]) -> list[Crop]:
    """What a run of `config` is validated on."""
    files = listed_pictures(roots, config.data.folders)
    unseen = [f for i, f in enumerate(files) if held_out(i, config.data)]
    return validation_crops(photographs(unseen), SCALE)


def measured(enlarge: Enlarge, folders: dict[str, Path], crops: list[Crop]) -> Row:
    """The row of a way to enlarge."""
    row: dict[str, str | int | float | None] = {}
    for name, folder in folders.items():
        pairs = list(enlarged_pairs(folder, {"": enlarge}, SCALE))
        quality, texture = measure_pairs(pairs, SCALE, texture=name == SETS[-1])
        row[f"{name}, dB"] = f"{quality[''].psnr:.2f}"
    row["detail"] = f"{texture[''].detail:.3f}"
    row["NIQE"] = f"{texture[''].niqe:.2f}"
    row["uneven"] = mean(pairs, lambda made, _: float(unevenness(made, SCALE)))
    unseen = [EnlargedPair(Path(), c.hr, {"": enlarge(c.lr)}) for c in crops]
    quality, texture = measure_pairs(unseen, SCALE, texture=True)
    row["held out, dB"] = f"{quality[''].psnr:.2f}"
    row["detail there"] = f"{texture[''].detail:.3f}"
    row["dots"] = mean(unseen, lambda made, real: 255 * float(roughness(made, real)))
    row["colour"] = f"{statistics.mean(_colour(enlarge, c.lr) for c in crops):.1f}"
    return row


def _colour(enlarge: Enlarge, picture: Bytes) -> float:
    """How far apart R, G and B of a result are, of a picture that has no colours."""
    grey = np.rint(picture @ np.array(RGB_TO_YCC[0])).astype(np.uint8)
    result = enlarge(np.repeat(grey[..., None], 3, axis=2))
    return float(np.quantile(np.ptp(result, axis=2), 0.999))


def mean(pairs: list[EnlargedPair], judge: Callable[[Tensor, Tensor], float]) -> str:
    """The mean of what is said of the enlarged pictures, beside their originals."""
    values = [judge(_tensor(p.enlarged[""]), _tensor(p.original)) for p in pairs]
    return f"{statistics.mean(values):.3f}"


def _tensor(picture: Bytes) -> Tensor:
    """(1, 3, H, W) in [0, 1], of whole blocks of the small picture's pixels."""
    height, width = (side - side % SCALE for side in picture.shape[:2])
    return torch.tensor(picture[:height, :width]).permute(2, 0, 1)[None] / 255


if __name__ == "__main__":
    main()
