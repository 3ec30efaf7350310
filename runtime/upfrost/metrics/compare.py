"""A page that shows pictures or videos against each other, with their metrics.

The page of one picture is one file that needs nothing else: all versions are in it as
PNG. Several pictures, and videos that a browser may play, are files beside it, of
which a browser loads what is looked at.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
from PIL import Image

from upfrost import files
from upfrost.arrays import Bytes
from upfrost.errors import UsageError
from upfrost.files import new_file
from upfrost.image.images import FORMAT_OF_SUFFIX, read_picture, sniff_format
from upfrost.metrics.chart import NARROW, line_chart
from upfrost.metrics.filters import SHOWN
from upfrost.metrics.quality import (
    BEST_PSNR,
    SSIM_SIDE,
    FloatArray,
    y_psnr,
    y_ssim,
)
from upfrost.metrics.vmaf import VideoQuality, measure_video
from upfrost.text import printable
from upfrost.video.color import conversion, refuse_hdr
from upfrost.video.decode import Decoder, Frame
from upfrost.video.ffmpeg import VideoError, VideoInfo, find_ffmpeg, probe

PAGE = "index.html"
_METRICS = (
    {"key": "psnr", "label": "Y-PSNR, dB", "digits": 2},
    {"key": "ssim", "label": "SSIM", "digits": 4},
    {"key": "vmaf", "label": "VMAF, all frames", "digits": 1},
)
_RESULT = re.compile(r"(.+)-x\d+")  # what `upfrost upscale` calls its results
# What pictures are told apart by: a side in pixels, and the mean squared difference
# that versions of one have at most, as a share of the larger variance. An eighth as a
# JPEG of quality 10, or 0.7 of the brightness, makes 0.13; the nearest two of 68
# photographs are 0.48 apart, and the median of all is 1.5.
_LOOK_SIDE, _LOOK_SHARE = 16, 0.25
# What files beside a page may be called, how a page of ours begins, and how it goes on:
# with those of them that are its own.
_PICTURES = "pictures"
_PICTURE, _VIDEO = re.compile(r"\d{5,}\.png"), re.compile(r"video-\d+(\.[^.]*)?")
_TITLE = b"<title>upfrost compare</title>"
_FILES = re.compile(rb'<meta name="files" content="([^"]*)">')


class CompareError(UsageError):
    """Files that cannot be compared; one line says why."""


@dataclass(frozen=True, eq=False)
class Network:
    """What upscales: (H, W, 3) to (sH, sW, 3)."""

    name: str
    scale: int
    upscale: Callable[[Bytes], Bytes]


@dataclass(eq=False)
class Layer:
    """One version of a picture. Metrics are against the original."""

    name: str
    pixels: Bytes
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(eq=False)
class Shot:
    """A picture, or a moment of a video, in all its versions of one size."""

    name: str
    layers: list[Layer]
    left: str
    right: str
    original: str | None = None  # which layer the others are measured against


def compare(
    inputs: Sequence[Path],
    network: Network,
    *,
    shrink: bool = False,
    moments: int = 4,
    ffmpeg: str | None = None,
) -> tuple[list[Shot], dict[str, VideoQuality]]:
    """All versions of what `inputs` show, and the quality of videos by their names.

    The first of the largest inputs is the original; where there is one of them, and
    not the first input, it is a result, and there is no original. What is smaller is
    enlarged by nearest, bilinear, Lanczos and, where its scale is that, the network; so
    is a single input. With `shrink`, the first input is the original and is made
    smaller first. Raises `CompareError`, `PictureError` or `VideoError`.
    """
    videos = [path for path in inputs if is_video(path)]
    if not videos:
        return [compare_pictures(inputs, network, shrink=shrink)], {}
    if len(videos) != len(inputs):
        raise CompareError("compare pictures with pictures, and videos with videos")
    program = find_ffmpeg(ffmpeg)
    infos = [probe(program, path) for path in inputs]
    for info in infos:
        refuse_hdr(info)
    lengths = [info.duration for info in infos if info.duration is not None]
    length = min(lengths, default=Fraction(0))
    shots = []
    shown: list[int] = []
    for number in range(moments if length else 1):
        moment = length * (2 * number + 1) / (2 * moments)
        frames = [_frame(program, info, moment) for info in infos]
        if shown == [frame.pts for frame in frames]:
            continue  # a short video has fewer frames than moments
        shown = [frame.pts for frame in frames]
        names = [info.path.name for info in infos]
        named = [(n, f.pixels) for n, f in zip(names, frames, strict=True)]
        shots.append(_shot(f"{float(moment):.2f} s", named, network, shrink))
    quality: dict[str, VideoQuality] = {}
    original = max(infos, key=lambda info: info.width * info.height)
    if not shrink:
        for info in infos:
            same_size = (info.width, info.height) == (original.width, original.height)
            if info is not original and same_size:
                measured = measure_video(program, original.path, info.path)
                quality[info.path.name] = measured
    for shot in shots:
        for layer in shot.layers:
            if layer.name in quality:
                layer.metrics["vmaf"] = quality[layer.name].mean("vmaf")
    return shots, quality


def is_video(path: Path) -> bool:
    """Whether a file is to be read as a video: neither content nor name is a picture's.

    One that only its name makes a picture is damaged, and reading it says so.
    """
    return sniff_format(path) is None and path.suffix.lower() not in FORMAT_OF_SUFFIX


def group_pictures(folders: Sequence[Path]) -> list[list[Path]]:
    """The pictures of all folders, those together that are versions of one picture.

    These have one name but for the suffix, and for the ``-x2`` that results are given
    when that leaves another picture's name. Raises `CompareError` without any picture.
    """
    found = [
        path
        for folder in folders
        for path in sorted(folder.iterdir(), key=lambda path: (len(path.stem), path))
        if path.suffix.lower() in FORMAT_OF_SUFFIX and not path.name.startswith(".")
    ]
    if not found:
        raise CompareError(f"{printable(folders[0])}: no picture in this folder")
    stems = {path.stem for path in found}
    groups: dict[str, list[Path]] = {}
    for path in found:
        result = _RESULT.fullmatch(path.stem)
        stem = result[1] if result and result[1] in stems else path.stem
        groups.setdefault(stem, []).append(path)
    return [groups[stem] for stem in sorted(groups)]


def group_by_content(paths: Sequence[Path]) -> list[list[Path]]:
    """The pictures of a list, those together that are versions of one picture.

    These have one shape and look alike from afar, whatever their names and sizes.
    Raises `PictureError`.
    """
    groups: list[tuple[tuple[int, ...], FloatArray, list[Path]]] = []
    for path in paths:
        pixels = read_picture(path).on_white
        look = _look(pixels)
        for shape, other, group in groups:
            if _is_shape(pixels.shape, shape) and _is_alike(look, other):
                group.append(path)
                break
        else:
            groups.append((pixels.shape, look, [path]))
    return [group for _, _, group in groups]


def _look(pixels: Bytes) -> FloatArray:
    """A picture from afar: what its luma is above its mean, (16, 16)."""
    small = Image.fromarray(pixels).convert("L")
    sides = (_LOOK_SIDE, _LOOK_SIDE)
    values = np.asarray(small.resize(sides, Image.Resampling.BOX), np.float64)
    look: FloatArray = values - values.mean()
    return look


def _is_alike(a: FloatArray, b: FloatArray) -> bool:
    most = max(np.square(a).sum(), np.square(b).sum())
    return bool(np.square(a - b).sum() <= _LOOK_SHARE * most)


def _is_shape(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether pictures have one shape, but for what sides are rounded by."""
    return abs(a[0] * b[1] / (a[1] * b[0]) - 1) <= 0.02


def compare_pictures(
    paths: Sequence[Path], network: Network, *, shrink: bool = False
) -> Shot:
    """All versions of one picture, on white; see `compare`."""
    labels = [path.name for path in paths]
    if len({*labels}) < len(labels):
        # Of one name in several folders: which is which, the folders say.
        labels = [f"{path.absolute().parent.name}/{path.name}" for path in paths]
    pictures = [read_picture(path).on_white for path in paths]
    return _shot(paths[0].name, [*zip(labels, pictures, strict=True)], network, shrink)


def check_folder(folder: Path, inputs: Sequence[Path]) -> None:
    """Raises `UsageError` where a page in `folder` would replace what is not its own.

    That is a page that is not ours, a file of such a name as its own have that an
    earlier page there does not name, or an input. So it does where nothing can be
    written.
    """
    files.check_folder(folder)
    if not folder.is_dir():
        return
    page, pictures = folder / PAGE, folder / _PICTURES
    own = _own_files(page)
    if own is None and os.path.lexists(page):
        raise CompareError(
            f"{printable(page)}: is in the way, and not a page of upfrost compare; "
            "name another folder for the page"
        )
    if os.path.lexists(pictures) and not pictures.is_dir():
        raise CompareError(
            f"{printable(pictures)}: is in the way, and not a folder; name another "
            "folder for the page"
        )
    there = _files_beside(page)
    for path in there:
        if path.relative_to(folder).as_posix() not in (own or ()):
            raise CompareError(
                f"{printable(path)}: is in the way, and not of an earlier page there; "
                "remove it, or name another folder for the page"
            )
    replaced = {entry.resolve() for entry in (page, *there)}
    for path in inputs:
        if path.resolve() in replaced:
            raise CompareError(
                f"{printable(path)}: would be replaced by the page's own; name another "
                "folder for the page"
            )


def _files_beside(page: Path) -> list[Path]:
    """What has such a name as a page's own files have."""
    videos = (path for path in page.parent.iterdir() if _VIDEO.fullmatch(path.name))
    folder = page.parent / _PICTURES
    pictures = folder.iterdir() if folder.is_dir() else ()
    return sorted([*videos, *(p for p in pictures if _PICTURE.fullmatch(p.name))])


def _own_files(page: Path) -> set[str] | None:
    """The files beside it that a page names as its own; None where it is not ours."""
    try:
        with page.open("rb") as file:
            lines = file.readlines(1024)  # whole lines, the last one as well
            if not any(_TITLE in line for line in lines):
                return None
            found = _FILES.search(b"".join([*lines, file.readline()]))
    except OSError:
        return None
    return {unquote(name.decode()) for name in found[1].split()} if found else set()


def write_page(
    folder: Path,
    shots: Iterable[Shot],
    quality: dict[str, VideoQuality],
    *,
    videos: Sequence[Path] = (),
    embed: bool = True,
) -> Path:
    """Write the page into `folder`, which is made if need be; its path.

    `videos` are offered as moving pictures. Without `embed`, pictures become files
    beside the page, as `shots` brings them: only one is in memory at a time. The page
    names all files beside it that are its own, and those that an earlier page named
    are removed: see `check_folder`. Where it fails, the earlier page is as it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / PAGE
    earlier = _own_files(page) or set()
    with _PictureFiles(folder / _PICTURES) as files_beside:
        place = _data_url if embed else files_beside
        shown = [_shot_data(shot, place) for shot in shots]
        keys = {key for shot in shown for layer in shot["layers"] for key in layer}
        data: dict[str, Any] = {
            "metrics": [metric for metric in _METRICS if metric["key"] in keys],
            "charts": _charts(quality),
            "shots": shown,
            "moving": _moving(folder, videos) if len(videos) > 1 else None,
        }
        own = [
            *(layer["src"] for shot in shown for layer in shot["layers"] if not embed),
            *(video["src"] for video in (data["moving"] or {"videos": ()})["videos"]),
        ]
        # A name with "</script>" or "<!--" would change what the page's script is.
        text = json.dumps(data).replace("<", "\\u003c")
        html = (
            _resource("compare.html")
            .replace("/*STYLE*/", _resource("viewer.css"))
            .replace("/*VIEWER*/", _resource("viewer.js"))
            .replace("/*FILES*/", " ".join(own))
            .replace("/*DATA*/", text)
        )
        with new_file(page, overwrite=True) as file:
            file.write(html.encode())
    for path in _files_beside(page):
        name = path.relative_to(folder).as_posix()
        if name in earlier and quote(name) not in own:
            path.unlink()
    return page


def _charts(quality: dict[str, VideoQuality]) -> list[str]:
    """A chart of each metric over the frames, with a line for each video."""
    charts = []
    for metric, label in (("vmaf", "VMAF"), ("psnr", "PSNR, dB"), ("ssim", "SSIM")):
        lines = {
            name: list(enumerate(getattr(values, metric)))
            for name, values in quality.items()
        }
        if lines:
            title = f"{label} of each frame"
            charts.append(line_chart(title, "frame", lines, width=NARROW))
    return charts


def _shot(
    name: str, named: list[tuple[str, Bytes]], network: Network, shrink: bool
) -> Shot:
    if shrink:
        first_name, first = named[0]
        whole = _divisible(first_name, first, network.scale)
        height, width = (side // network.scale for side in whole.shape[:2])
        image = Image.fromarray(whole)
        small = image.resize((width, height), Image.Resampling.BICUBIC)
        rest = [(n, _divisible(n, p, network.scale)) for n, p in named[1:]]
        named = [(first_name, whole), *rest, (f"{first_name} ÷ {network.scale}",
                 np.asarray(small))]  # fmt: skip
    size = max((pixels.shape for _, pixels in named), key=lambda s: s[0] * s[1])
    if len(named) == 1:
        pixels = named[0][1]
        size = (pixels.shape[0] * network.scale, pixels.shape[1] * network.scale, 3)
    layers: list[Layer] = []
    full: list[Layer] = []  # the inputs of that size
    for label, pixels in named:
        if pixels.shape == size:
            full.append(Layer(label, pixels))
            layers.append(full[-1])
        else:
            several = sum(other.shape != size for _, other in named) > 1
            layers += _enlarged(label, pixels, size, network, several)
    labels = [layer.name for layer in layers]
    if len(set(labels)) != len(labels):
        for number, layer in enumerate(layers, start=1):
            layer.name = f"{number}: {layer.name}"
    begins = full[:1] == layers[:1]
    original = full[0] if full and (begins or len(full) > 1) else None
    if original is not None:
        _measure(layers, original, size[0] // min(p.shape[0] for _, p in named))
    # What a user brings to be looked at, or else what the network makes.
    results = full[1:] if begins else full
    results = results or [la for la in layers if la.name.endswith(network.name)]
    right = results[-1] if results else layers[-1]
    lanczos = [layer for layer in layers if "Lanczos" in layer.name]
    left = lanczos[0] if lanczos else layers[0]
    against = None if original is None else original.name
    return Shot(name, layers, left.name, right.name, against)


def _enlarged(
    label: str,
    pixels: Bytes,
    size: tuple[int, ...],
    network: Network,
    several: bool,
) -> list[Layer]:
    rows, columns = size[0] / pixels.shape[0], size[1] / pixels.shape[1]
    if not _is_shape(pixels.shape, size):
        raise CompareError(
            f"{printable(label)}: {pixels.shape[1]}×{pixels.shape[0]} and "
            f"{size[1]}×{size[0]} pixels are not the same picture in two sizes; "
            "compare them by themselves, on a page each"
        )
    prefix = f"{label}: " if several else ""
    image = Image.fromarray(pixels)
    layers = [
        Layer(prefix + name, np.asarray(image.resize((size[1], size[0]), by.pillow)))
        for name, by in SHOWN.items()
    ]
    if rows == columns == network.scale:
        layers.append(Layer(prefix + network.name, network.upscale(pixels)))
    return layers


def _measure(layers: list[Layer], original: Layer, border: int) -> None:
    height, width, _ = original.pixels.shape
    if min(height, width) < SSIM_SIDE + 2 * border:
        return
    for layer in layers:
        if layer is not original:
            psnr = y_psnr(layer.pixels, original.pixels, border)
            layer.metrics["psnr"] = min(psnr, BEST_PSNR)
            layer.metrics["ssim"] = y_ssim(layer.pixels, original.pixels, border)


def _divisible(label: str, pixels: Bytes, scale: int) -> Bytes:
    height, width = (side // scale * scale for side in pixels.shape[:2])
    if not height or not width:
        raise CompareError(
            f"{printable(label)}: {pixels.shape[1]}×{pixels.shape[0]} pixels cannot be "
            f"made smaller by {scale}"
        )
    return pixels[:height, :width]


def _frame(ffmpeg: str, info: VideoInfo, moment: Fraction) -> Frame:
    """The frame that is shown at that time from the beginning; the first, before it."""
    filters, moment = conversion(info).to_frames, info.start + moment
    for position in (moment, None):
        decoder = Decoder(ffmpeg, info, filters, position)
        shown: Frame | None = None
        try:
            for frame in decoder:
                if shown is not None and frame.pts * info.time_base > moment:
                    break
                shown = frame
        finally:
            decoder.close()
        is_late = shown is None or shown.pts * info.time_base > moment
        # Not every file can be decoded from its middle.
        if shown is not None and (position is None or not (is_late or decoder.errors)):
            pixels = shown.pixels.reshape(info.height, info.width, 3)
            return dataclasses.replace(shown, pixels=pixels)
    raise VideoError(
        f"{printable(info.path)}: no frame at {float(moment):.2f} s "
        f"({decoder.errors[0] if decoder.errors else 'it ends before'})"
    )


def _shot_data(shot: Shot, place: Callable[[Bytes], str]) -> dict[str, Any]:
    """What the page is told of it; `place` says where it finds pixels."""
    height, width, _ = shot.layers[0].pixels.shape
    return {
        "name": shot.name,
        "width": width,
        "height": height,
        "left": shot.left,
        "right": shot.right,
        "original": shot.original,
        "layers": [
            {"name": layer.name, "src": place(layer.pixels), **layer.metrics}
            for layer in shot.layers
        ],
    }


def _png(pixels: Bytes) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _data_url(pixels: Bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(_png(pixels)).decode()


class _PictureFiles:
    """Numbered files in a folder beside the page, beside those of an earlier page.

    They are removed where its context ends by an error.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        self._written: list[Path] = []

    def __enter__(self) -> _PictureFiles:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            for path in self._written:
                path.unlink(missing_ok=True)
            with suppress(OSError):  # there is none, or it holds others
                self._folder.rmdir()

    def __call__(self, pixels: Bytes) -> str:
        self._folder.mkdir(exist_ok=True)
        path = self._next()
        while os.path.lexists(path):
            path = self._next()
        self._written.append(path)
        with new_file(path) as file:
            file.write(_png(pixels))
        return f"{self._folder.name}/{path.name}"

    def _next(self) -> Path:
        self._number += 1
        return self._folder / f"{self._number:05d}.png"


def _moving(folder: Path, videos: Sequence[Path]) -> dict[str, Any]:
    """What the page is told of videos, each under a second name beside it.

    Their own names stay out of addresses: they may hold what means something there.
    """
    told = []
    for number, video in enumerate(videos, start=1):
        path = folder / f"video-{number}{video.suffix.lower()}"
        path.unlink(missing_ok=True)
        try:
            os.link(video, path)
        except OSError:  # on another file system, or one that knows no second names
            shutil.copyfile(video, path)
        told.append({"name": video.name, "plain": video.name, "src": quote(path.name)})
    return {"videos": told, "left": videos[0].name, "right": videos[-1].name}


def _resource(name: str) -> str:
    return resources.files("upfrost.metrics").joinpath(name).read_text("utf-8")
