"""How good a model is: pairs of pictures, and videos made small and large again.

Beside the model, what every player and browser can do: nearest, bilinear, bicubic and
Lanczos.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from upfrost.arrays import Bytes
from upfrost.image.images import FORMAT_OF_SUFFIX, PictureError, read_picture
from upfrost.metrics.filters import FILTERS
from upfrost.metrics.niqe import niqe
from upfrost.metrics.quality import BEST_PSNR, SSIM_SIDE, detail, y_psnr, y_ssim
from upfrost.metrics.vmaf import VideoQuality, measure_video
from upfrost.status import Status
from upfrost.text import printable
from upfrost.video.color import refuse_hdr
from upfrost.video.ffmpeg import (
    VideoError,
    last_error,
    probe,
    run_ffmpeg,
    seconds,
    source_arguments,
)
from upfrost.video.upscale import VideoOptions, VideoRecord, upscale_video

if TYPE_CHECKING:
    from upfrost.gpu.upscaler import Upscaler


# uint8 (H, W, 3) → uint8 (scale · H, scale · W, 3)
Enlarge = Callable[[Bytes], Bytes]
# What the originals are called among the ways to enlarge.
ORIGINAL = "original"


@dataclass(frozen=True)
class PairQuality:
    """Means over pairs of pictures, by the field's convention (see `quality`)."""

    pictures: int
    psnr: float
    ssim: float


@dataclass(frozen=True)
class Texture:
    """How rich and how natural results look; None where no picture can tell."""

    # The median over the pictures of `quality.detail`, and the mean NIQE.
    detail: float | None
    niqe: float | None
    niqe_pictures: int  # that have one


def evaluate_pairs(
    folder: Path, ways: Mapping[str, Enlarge], scale: int
) -> dict[str, PairQuality]:
    """Quality of each way to enlarge `*_LR.png` to its `*_HR.png`, by the way's name.

    Raises `PictureError` for a folder without pairs and for sizes that do not fit, or
    are too small to be measured.
    """
    return measure_pairs(enlarged_pairs(folder, ways, scale), scale)[0]


def measure_pairs(
    pairs: Iterable[EnlargedPair], scale: int, *, texture: bool = False
) -> tuple[dict[str, PairQuality], dict[str, Texture]]:
    """Quality of each way, and where it is asked for, texture of each and "original".

    Texture takes longer than all else.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    details: dict[str, list[float]] = {}
    natural: dict[str, list[float]] = {}
    for pair in pairs:
        for name, large in pair.enlarged.items():
            values = (
                min(y_psnr(large, pair.original, scale), BEST_PSNR),
                y_ssim(large, pair.original, scale),
            )
            found.setdefault(name, []).append(values)
        if texture:
            shown = {ORIGINAL: pair.original, **pair.enlarged}
            # A picture too small for NIQE, or of one level, has none, and where an
            # original has no detail, nothing has a share of it. What has not is left
            # out of all ways alike: all means are of the same pictures.
            with suppress(ValueError):
                _note(natural, {name: niqe(picture) for name, picture in shown.items()})
            with suppress(ValueError):
                _note(
                    details, {n: detail(p, shown[ORIGINAL]) for n, p in shown.items()}
                )
    quality = {
        name: PairQuality(len(values), *map(float, np.mean(values, axis=0)))
        for name, values in found.items()
    }
    return quality, {
        name: Texture(
            float(np.median(details[name])) if details.get(name) else None,
            float(np.mean(natural[name])) if natural.get(name) else None,
            len(natural.get(name, ())),
        )
        for name in (*found, ORIGINAL)
        if texture
    }


def _note(noted: dict[str, list[float]], found: Mapping[str, float]) -> None:
    for name, value in found.items():
        noted.setdefault(name, []).append(value)


@dataclass(frozen=True)
class EnlargedPair:
    """An original, and its small partner enlarged in each way, all uint8 (H, W, 3).

    What is transparent lies on white. `notes` say what their files had besides.
    """

    path: Path
    original: Bytes
    enlarged: dict[str, Bytes]
    notes: frozenset[str] = frozenset()


def enlarged_pairs(
    folder: Path, ways: Mapping[str, Enlarge], scale: int
) -> Iterator[EnlargedPair]:
    """The pairs of a folder, one after the other. Raises as `evaluate_pairs` does."""
    originals = sorted(
        path
        for path in folder.glob("*_HR.*")
        if path.suffix.lower() in FORMAT_OF_SUFFIX and not path.name.startswith(".")
    )
    if not originals:
        raise PictureError(
            f"{printable(folder)}: no pairs named 001_HR.png, 001_LR.png"
        )
    for path in originals:
        partner = path.with_name(path.name.replace("_HR.", "_LR."))
        read = read_picture(path), read_picture(partner)
        seen = [each.on_white for each in read]
        original, small = seen
        notes = {note for each in read for note in each.pixel_notes}
        if any(one is not each.rgb for one, each in zip(seen, read, strict=True)):
            notes.add("transparent, and measured on white")
        height, width, _ = original.shape
        if (small.shape[0] * scale, small.shape[1] * scale) != (height, width):
            raise PictureError(
                f"{printable(partner)}: {small.shape[1]}×{small.shape[0]} pixels are "
                f"not those of {printable(path.name)}, {width}×{height}, by the "
                f"model's scale of {scale}"
            )
        if min(height, width) < SSIM_SIDE + 2 * scale:
            raise PictureError(
                f"{printable(path)}: {width}×{height} pixels are too few to be "
                f"measured; sides are {SSIM_SIDE + 2 * scale} or more: move the pair "
                "elsewhere"
            )
        enlarged = {name: enlarge(small) for name, enlarge in ways.items()}
        yield EnlargedPair(path, original, enlarged, frozenset(notes))


def evaluate_video(
    ffmpeg: str,
    path: Path,
    upscaler: Upscaler,
    *,
    start: Fraction = Fraction(0),
    frames: int = 48,
) -> dict[str, VideoQuality]:
    """Quality of each way to enlarge a video that was made small by bicubic.

    Raises `VideoError`, also for HDR and for what is too small.
    """
    scale = upscaler.graph.scale
    info = probe(ffmpeg, path, start)
    refuse_hdr(info)
    if min(info.width, info.height) < 2 * scale:
        raise VideoError(
            f"{printable(path)}: {info.width}×{info.height} pixels are too few to be "
            f"made small by {scale}; sides are {2 * scale} or more"
        )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        original, small, large = (
            folder / f"{part}.mkv" for part in ("original", "small", "large")
        )
        # For the output: not every file can be decoded from its middle.
        cut = ["-ss", seconds(start)] if start else []
        whole = f"crop=iw-mod(iw\\,{2 * scale}):ih-mod(ih\\,{2 * scale}),format=yuv420p"
        count = ["-frames:v", str(frames)]
        first = f"0:{info.video.index}"
        _convert(ffmpeg, path, whole, original, *cut, *count, stream=first)
        _convert(ffmpeg, original, f"scale=iw/{scale}:ih/{scale}:flags=bicubic", small)
        found = {}
        for way, by in FILTERS.items():
            size = f"scale=iw*{scale}:ih*{scale}:flags={by.ffmpeg}+accurate_rnd"
            _convert(ffmpeg, small, size, large)
            found[way] = measure_video(ffmpeg, original, large)
        upscale_lossless(ffmpeg, small, large, upscaler)
        found[upscaler.graph.name] = measure_video(ffmpeg, original, large)
    return found


def upscale_lossless(
    ffmpeg: str, source: Path, target: Path, upscaler: Upscaler
) -> None:
    """Upscale a video to one that loses nothing more, in silence, for measuring.

    `target` is replaced. Raises `VideoError`.
    """
    upscale_video(
        source,
        target,
        upscaler,
        VideoOptions(codec="ffv1", overwrite=True, ffmpeg=ffmpeg),
        Status(io.StringIO(), quiet=True),
        VideoRecord(str(source), str(target)),
    )


def all_ways(upscaler: Upscaler) -> dict[str, Enlarge]:
    """The filters and the model by their names, the model last."""
    scale = upscaler.graph.scale

    def by_filter(resampling: Image.Resampling) -> Enlarge:
        def enlarge(small: Bytes) -> Bytes:
            size = small.shape[1] * scale, small.shape[0] * scale
            return np.asarray(Image.fromarray(small).resize(size, resampling))

        return enlarge

    ways = {name: by_filter(by.pillow) for name, by in FILTERS.items()}
    ways[upscaler.graph.name] = upscaler
    return ways


def _convert(
    ffmpeg: str,
    source: Path,
    filters: str,
    target: Path,
    *output: str,
    stream: str = "0:v:0",
) -> None:
    lossless = ["-map", stream, "-vf", filters, *output, "-c:v", "ffv1"]
    arguments = [*source_arguments(source), *lossless, "-y", f"file:{target}"]
    found = run_ffmpeg(ffmpeg, arguments)
    if found.returncode:
        log = found.stderr.decode(errors="replace").split("\n")
        name = printable(source)
        raise VideoError(f"{name}: {last_error(log).removeprefix(f'file:{name}: ')}")
