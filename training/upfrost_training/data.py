"""Training pictures in memory: sharp places, random crops, held-out crops.

A piece is what is degraded together: frames (N, H, W, 3), one for a photograph. What
comes out has C channels: three, or luma's one.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from upfrost.errors import UpfrostError
from upfrost.image.images import PictureError, read_picture
from upfrost.metrics.quality import luma
from upfrost_training.degradations import (
    Degradation,
    Frames,
    blur,
    check_degradations,
    degrade,
)
from upfrost_training.resize import Picture

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
# Where published data sets keep the pictures to train on: DIV2K (Agustsson and Timofte,
# 2017), Flickr2K (Lim et al., 2017) and OST (Wang et al., 2018). Beside them lie small
# versions, which must not be taken for originals, and pictures for validation and test.
LAYOUTS = ("DIV2K_train_HR", "Flickr2K_HR", "OutdoorSceneTrain_v2")
BICUBIC = (Degradation("bicubic"),)
VALIDATED = 256  # pixels a side of what is validated on
LUMA = np.array((0.299, 0.587, 0.114), dtype=np.float32)


class DataError(UpfrostError, ValueError):
    """Training or evaluation data that is missing or not what it should be."""


@dataclass(frozen=True)
class Pairs:
    """High- and low-resolution pictures, and where crops may start.

    `hr` and `lr` hold (sH, sW, C) and (H, W, C) uint8 arrays. `origins` is (n, 3):
    picture number, top and left of an LR crop of `patch` pixels, on a grid of `stride`.
    The last `drawn` of them lie in drawings, which have `drawings_share` of the crops.
    """

    scale: int
    patch: int
    stride: int
    hr: list[Picture]
    lr: list[Picture]
    origins: NDArray[np.int32]
    drawn: int = 0
    drawings_share: float = 0.0


@dataclass(frozen=True)
class Crop:
    """One validation pair, uint8 (H, W, C) and (sH, sW, C)."""

    lr: Picture
    hr: Picture


def picture_files(folder: Path) -> list[Path]:
    """All picture files under `folder`, sorted, so that numbering is stable.

    Of a data set as it is published, only the pictures to train on: see `LAYOUTS`.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of pictures")
    parts = [folder / name for name in LAYOUTS if (folder / name).is_dir()]
    files = sorted(
        path
        for part in parts or [folder]
        for path in part.rglob("*")
        if path.suffix.lower() in PICTURE_SUFFIXES
    )
    if not files:
        raise DataError(f"{folder}: no picture found ({', '.join(PICTURE_SUFFIXES)})")
    return files


def find_folder(roots: list[Path], name: str) -> Path | None:
    """The folder `name` under the first of `roots` that has it."""
    return next((root / name for root in roots if (root / name).is_dir()), None)


def listed_pictures(roots: list[Path], names: Iterable[str]) -> list[Path]:
    """The picture files of the folders of these names, of each the first under `roots`.

    Raises DataError for a folder that none has.
    """
    files: list[Path] = []
    for name in names:
        found = find_folder(roots, name)
        if found is None:
            raise DataError(
                f"no folder {name} under {', '.join(map(str, roots))}: say with --data "
                "where it is"
            )
        files.extend(picture_files(found))
    return files


def read_rgb(path: Path) -> Picture:
    """A picture file as uint8 (H, W, 3), upright, on white; grey is repeated."""
    try:
        return read_picture(path).on_white
    except PictureError as error:
        raise DataError(str(error)) from error


def crop_to_multiple(image: Frames, multiple: int) -> Frames:
    """Cut right and bottom of (…, H, W, 3) so that both sides are multiples."""
    height, width = (n - n % multiple for n in image.shape[-3:-1])
    return np.ascontiguousarray(image[..., :height, :width, :])


def frame_luma(picture: Picture) -> Picture:
    """The Y plane, uint8 (H, W, 1), that a video's frame has for an RGB (H, W, 3).

    BT.601 in the video range, 16 to 235, rounded: what a luma network sees of a
    frame, which it is given as it is, whatever its range and matrix.
    """
    rounded: Picture = np.floor(luma(picture) + 0.5).astype(np.uint8)[:, :, None]
    return rounded


# Levels of luma in the video range, to those of the full range.
_FULL_RANGE = np.clip(
    np.floor((np.arange(256) - 16) * (255 / 219) + 0.5), 0, 255
).astype(np.uint8)


def in_colour(picture: Picture, colour: str) -> Picture:
    """An RGB picture (H, W, 3) as it is, or as (H, W, 1) where `colour` is luma."""
    return frame_luma(picture) if colour == "luma" else picture


def laplacian_sums(image: Picture) -> NDArray[np.float64]:
    """Summed-area table, (H+1, W+1), of |Laplacian| of luma in 8-bit units."""
    luma = image.astype(np.float32) @ LUMA
    padded = np.pad(luma, 1, mode="edge")
    laplacian = np.abs(
        padded[:-2, 1:-1]
        + padded[2:, 1:-1]
        + padded[1:-1, :-2]
        + padded[1:-1, 2:]
        - 4.0 * luma
    )
    table = np.zeros((luma.shape[0] + 1, luma.shape[1] + 1))
    table[1:, 1:] = laplacian.cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
    return table


def sharpness(
    table: NDArray[np.float64], top: NDArray[np.int_], left: NDArray[np.int_], side: int
) -> NDArray[np.float64]:
    """Mean |Laplacian| of the squares of `side` pixels at (top, left)."""
    bottom, right = top + side, left + side
    total = table[bottom, right] - table[top, right] - table[bottom, left]
    return (total + table[top, left]) / side**2


def sharp_origins(
    hr: Picture, scale: int, patch: int, stride: int, threshold: float
) -> NDArray[np.int32]:
    """LR crop origins, (n, 2), whose HR crop's mean |Laplacian| passes `threshold`."""
    height, width = hr.shape[0] // scale, hr.shape[1] // scale
    tops = np.arange(0, height - patch + 1, stride)
    lefts = np.arange(0, width - patch + 1, stride)
    if not len(tops) or not len(lefts):
        return np.zeros((0, 2), dtype=np.int32)
    top, left = (a.ravel() for a in np.meshgrid(tops, lefts, indexing="ij"))
    keep = (
        sharpness(laplacian_sums(hr), top * scale, left * scale, patch * scale)
        > threshold
    )
    return np.stack([top[keep], left[keep]], axis=1).astype(np.int32)


def photographs(files: list[Path]) -> Iterator[Frames]:
    """Pictures as pieces of one frame, read one after the other."""
    return (read_rgb(path)[None] for path in files)


def taught(original: Picture, answer: Picture, share: float) -> Picture:
    """What is to be learned, uint8 (sH, sW, C), of an original and a teacher's answer.

    What cannot be foreseen from the small picture is noise in the gradient; a teacher
    does not know it either (Hinton et al., "Distilling the knowledge in a neural
    network", 2015, arXiv:1503.02531).
    """
    mixed = (1.0 - share) * original.astype(np.float32) + share * answer
    rounded: Picture = np.floor(mixed + 0.5).astype(np.uint8)
    return rounded


# The range of the blur of softened pictures: the Gaussian's sigma in pixels.
SOFTENED = (0.5, 1.6)


def softened(frames: Frames, share: float, rng: np.random.Generator) -> Frames:
    """Frames (N, H, W, 3) as they are, or, this share of the times, blurred alike."""
    if share == 0.0 or rng.random() >= share:
        return frames
    sigma = rng.uniform(*SOFTENED)
    return np.stack([blur(frame, sigma, rng) for frame in frames])


def load_pairs(
    pieces: Iterable[Frames],
    scale: int,
    patch: int,
    threshold: float,
    degradations: tuple[Degradation, ...] = BICUBIC,
    variants: int = 1,
    seed: int = 0,
    colour: str = "rgb",
    teacher: Callable[[Picture], Picture] | None = None,
    teacher_share: float = 0.0,
    softened_share: float = 0.0,
) -> Pairs:
    """Make LR partners of pictures or runs of frames, and find where crops may start.

    Each piece is degraded `variants` times, differently where chance is involved. A
    teacher takes (H, W, 3) and gives (sH, sW, C); its share of what is learned is
    `teacher_share`. `softened_share` of the variants are blurred by SOFTENED before all
    else, so what is to be learned is, too.
    """
    check_degradations(degradations)
    stride = 8
    hrs: list[Picture] = []
    lrs: list[Picture] = []
    origins: list[NDArray[np.int32]] = []
    count = 0
    for piece_number, piece in enumerate(pieces):
        count += 1
        whole = crop_to_multiple(piece, scale)
        sharp = [sharp_origins(f, scale, patch, stride, threshold) for f in whole]
        for variant in range(variants):
            rng = np.random.default_rng((seed, piece_number, variant))
            frames = softened(whole, softened_share, rng)
            places = sharp
            if frames is not whole:
                places = [
                    sharp_origins(f, scale, patch, stride, threshold) for f in frames
                ]
            if not any(map(len, places)):
                continue
            for frame, low, found in zip(
                frames, degrade(frames, scale, degradations, rng), places, strict=True
            ):
                number = np.full((len(found), 1), len(hrs), dtype=np.int32)
                origins.append(np.concatenate([number, found], axis=1))
                high = in_colour(frame, colour)
                if teacher is not None:
                    high = taught(high, teacher(low), teacher_share)
                hrs.append(high)
                lrs.append(in_colour(low, colour))
    if not count:
        raise DataError("no picture or video to train on: name some in `folders`")
    if not hrs:
        raise DataError(
            f"no picture has a {patch * scale}-pixel crop sharper than {threshold}: "
            "lower `sharpness` or `patch`, or add pictures"
        )
    return Pairs(scale, patch, stride, hrs, lrs, np.concatenate(origins))


def with_drawings(photos: Pairs, drawings: Pairs, share: float) -> Pairs:
    """Pairs of photographs and of drawings, of which a crop is chosen by `share`."""
    moved = drawings.origins + np.array((len(photos.hr), 0, 0), dtype=np.int32)
    return replace(
        photos,
        hr=photos.hr + drawings.hr,
        lr=photos.lr + drawings.lr,
        origins=np.concatenate([photos.origins, moved]),
        drawn=len(moved),
        drawings_share=share,
    )


def validation_crops(
    pieces: Iterable[Frames],
    scale: int,
    side: int = VALIDATED,
    per_piece: int = 4,
    degradations: tuple[Degradation, ...] = BICUBIC,
    colour: str = "rgb",
) -> list[Crop]:
    """The sharpest squares of each piece's middle frame.

    They have `side` HR pixels, less what is left when it is divided by `scale`.
    """
    side -= side % scale
    crops: list[Crop] = []
    for number, piece in enumerate(pieces):
        frames = crop_to_multiple(piece, scale)
        if min(frames.shape[1:3]) < side:
            continue
        rng = np.random.default_rng(number)
        middle = len(frames) // 2
        low, hr = degrade(frames, scale, degradations, rng)[middle], frames[middle]
        tops = np.arange(0, hr.shape[0] - side + 1, side)
        lefts = np.arange(0, hr.shape[1] - side + 1, side)
        top, left = (a.ravel() for a in np.meshgrid(tops, lefts, indexing="ij"))
        measured = sharpness(laplacian_sums(hr), top, left, side)
        low, hr = in_colour(low, colour), in_colour(hr, colour)
        for i in np.argsort(-measured, kind="stable")[:per_piece]:
            crops.append(_crop_pair(low, hr, int(top[i]), int(left[i]), side))
    return crops


def _crop_pair(low: Picture, hr: Picture, top: int, left: int, side: int) -> Crop:
    scale = hr.shape[0] // low.shape[0]
    y, x, low_side = top // scale, left // scale, side // scale
    return Crop(
        np.ascontiguousarray(low[y : y + low_side, x : x + low_side]),
        np.ascontiguousarray(hr[top : top + side, left : left + side]),
    )


def sample(
    pairs: Pairs, batch: int, seed: int, step: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One batch: LR (B, P, P, C) and HR (B, sP, sP, C), flipped and turned at random.

    Every other crop of luma, at random, is brought to the full range: a network gets
    planes as they are, and what it never saw below 16 may become anything.
    It depends on seed and step alone, so a run that was killed and resumed sees the
    data that an unbroken run sees.
    """
    rng = np.random.default_rng((seed, step))
    patch, scale = pairs.patch, pairs.scale
    photographed = len(pairs.origins) - pairs.drawn
    places = rng.integers(photographed, size=batch)
    if pairs.drawn:
        drawn = rng.random(batch) < pairs.drawings_share
        places[drawn] = photographed + rng.integers(pairs.drawn, size=drawn.sum())
    chosen = pairs.origins[places]
    jitter = rng.integers(pairs.stride, size=(batch, 2))
    symmetry = rng.integers(8, size=batch)
    channels = pairs.hr[0].shape[2]
    stretched = rng.integers(2, size=batch) if channels == 1 else np.zeros(batch)
    lr = np.empty((batch, patch, patch, channels), np.uint8)
    hr = np.empty((batch, patch * scale, patch * scale, channels), np.uint8)
    for i, (number, top, left) in enumerate(chosen):
        low, high = pairs.lr[number], pairs.hr[number]
        y = min(int(top + jitter[i, 0]), low.shape[0] - patch)
        x = min(int(left + jitter[i, 1]), low.shape[1] - patch)
        turned = low[y : y + patch, x : x + patch]
        y, x, side = y * scale, x * scale, patch * scale
        turned_high = high[y : y + side, x : x + side]
        if symmetry[i] >= 4:
            turned, turned_high = turned[:, ::-1], turned_high[:, ::-1]
        lr[i] = np.rot90(turned, symmetry[i] % 4)
        hr[i] = np.rot90(turned_high, symmetry[i] % 4)
        if stretched[i]:
            lr[i], hr[i] = _FULL_RANGE[lr[i]], _FULL_RANGE[hr[i]]
    return lr, hr
