"""Picture files larger than memory: rows in, rows out, by libvips.

Pillow holds whole pictures. libvips decodes and encodes row by row, but draws its input
itself; so rows are handed to it through a pipe, as a PNG without compression.
pyvips is an optional dependency.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from upfrost.arrays import Bytes
from upfrost.image.images import (
    DEFAULT_QUALITY,
    Format,
    Header,
    PictureError,
    exif_for_size,
    new_picture_path,
    output_format,
)
from upfrost.network.graph import alignment
from upfrost.text import printable

if TYPE_CHECKING:
    from upfrost.gpu.upscaler import Upscaler

# A result of more pixels than this is written row by row: it would take ten bytes for
# each, counting what Pillow and NumPy hold of it.
STREAM_ABOVE = 16_000_000
# The same where streaming loses the EXIF data; more would take a gigabyte.
STREAM_WITHOUT_EXIF_ABOVE = 100_000_000
_PNG_GREY, _PNG_RGB = 0, 2
_ROWS_AT_ONCE = 64


@dataclass
class Times:
    """Seconds spent in each phase of a picture."""

    read: float = 0.0
    upscale: float = 0.0
    write: float = 0.0
    _began: float = field(default_factory=time.perf_counter)

    def lap(self) -> float:
        """Seconds since the last one."""
        now = time.perf_counter()
        seconds, self._began = now - self._began, now
        return seconds


def should_stream(header: Header, target: Path, pixels: int) -> bool:
    """Whether a picture whose result has so many pixels had better go row by row."""
    loses_exif = _loses_exif(header, target)
    above = STREAM_WITHOUT_EXIF_ABOVE if loses_exif else STREAM_ABOVE
    return pixels > above and can_stream(header, target)


def can_stream(header: Header, target: Path) -> bool:
    """Whether the picture can go through a network row by row."""
    return (
        header.sequential
        and output_format(target).name in ("PNG", "TIFF", "JPEG")
        and importlib.util.find_spec("pyvips") is not None
    )


def _loses_exif(header: Header, target: Path) -> bool:
    return bool(header.exif) and output_format(target).name == "TIFF"


def upscale_stream(
    source: Path,
    target: Path,
    header: Header,
    upscaler: Upscaler,
    *,
    quality: int | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Times, tuple[str, ...]]:
    """Upscale a file to a file, a few rows of tiles in memory at a time.

    The pixels are those of `read_picture`, the upscaler and `write_picture`. Returns
    where the time went and what got lost, as notes. Raises `PictureError` and what
    the upscaler raises; then there is no file.
    """
    scale = upscaler.graph.scale
    step = alignment(upscaler.graph)
    width, height = header.size
    aligned = (width + -width % step, height + -height % step)
    entry = output_format(target)
    notes = list(header.notes)
    if _loses_exif(header, target):
        notes.append("the EXIF data is left out: a TIFF of this size is streamed")
    times = Times()
    rows = _Rows(source, header, aligned[0])

    def read(start: int, stop: int) -> Bytes:
        times.upscale += times.lap()
        band = rows.read(start, stop)
        times.read += times.lap()
        return band

    with new_picture_path(target, overwrite=overwrite) as temporary:
        save = functools.partial(
            _save, temporary, entry, header, (width * scale, height * scale), quality
        )
        with _sink(target, save, width * scale, height * scale, header.grey) as put:

            def write(band: Bytes) -> None:
                times.upscale += times.lap()
                put(band)
                times.write += times.lap()

            upscaler.stream(aligned[1], aligned[0], read, write, progress, channels=3)
            times.upscale += times.lap()
        times.write += times.lap()
    return times, tuple(notes)


class _Rows:
    """The rows of a picture file, from top to bottom, as RGB."""

    def __init__(self, path: Path, header: Header, width: int) -> None:
        self._path, self._header, self._width = path, header, width
        self._first = 0
        self._rows: Bytes = np.empty((0, width, 3), np.uint8)
        vips = _vips()
        loaders = {
            "PNG": vips.Image.pngload,
            "TIFF": vips.Image.tiffload,
            "JPEG": vips.Image.jpegload,
        }
        with self._errors():
            self._image = loaders[header.format](
                str(path), access="sequential", fail_on="truncated"
            )
            self._region = vips.Region.new(self._image)
        found = (self._image.width, self._image.height)
        kinds = {"uchar": np.uint8, "ushort": np.uint16}
        if found != header.size or self._image.bands != (1 if header.grey else 3):
            raise PictureError(f"{printable(path)}: changed while it was read")
        self._type = kinds[self._image.format]

    def read(self, start: int, stop: int) -> Bytes:
        """Rows `start` to `stop`; below the picture's last row, that one again."""
        if start > self._first:
            # A copy, so that the rows above are given back.
            self._rows = self._rows[start - self._first :].copy()
            self._first = start
        last = self._first + len(self._rows)
        if stop > last:
            height = self._header.size[1]
            fresh = [self._rows]
            if last < height:
                fresh.append(self._fetch(last, min(stop, height)))
            if stop > height:
                fresh.append(np.repeat(fresh[-1][-1:], stop - max(last, height), 0))
            self._rows = np.concatenate(fresh)
        return self._rows[: stop - start]

    def _fetch(self, start: int, stop: int) -> Bytes:
        width = self._header.size[0]
        with self._errors():
            data = self._region.fetch(0, start, width, stop - start)
        values = np.frombuffer(data, self._type).reshape(stop - start, width, -1)
        if self._type is np.uint16:
            # As Pillow does: grey is rounded, of colours the upper byte is taken.
            wide = values.astype(np.uint32)
            values = (wide * 255 + 32767) // 65535 if self._header.grey else wide >> 8
        rgb = np.broadcast_to(values.astype(np.uint8), (*values.shape[:2], 3))
        return np.pad(rgb, ((0, 0), (0, self._width - width), (0, 0)), mode="edge")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except _vips().Error as error:
            reason = _one_line(error)
            raise PictureError(
                f"{printable(self._path)}: damaged or cut short ({reason})"
            ) from error


class _EncodingError(Exception):
    """The thread that encodes has failed."""


@contextmanager
def _sink(
    path: Path, save: Callable[[int], None], width: int, height: int, grey: bool
) -> Iterator[Callable[[Bytes], None]]:
    """Takes RGB rows for `save`, which reads a PNG from a descriptor in a thread.

    Rows and columns beyond the picture are cut off. Raises `PictureError` for what
    `save` raises.
    """
    reading, writing = os.pipe()
    failure: list[str] = []

    def run() -> None:
        try:
            save(reading)
        except BaseException as error:
            failure.append(_one_line(error))
        # Whoever writes must not wait for ever on a full pipe.
        while os.read(reading, 1 << 16):
            pass
        os.close(reading)

    thread = threading.Thread(target=run, name="encode", daemon=True)
    thread.start()
    deflate = zlib.compressobj(0)
    filled = 0

    def send(data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(writing, rest) :]

    def chunk(kind: bytes, data: bytes) -> None:
        send(struct.pack(">I", len(data)) + kind)
        send(data)
        send(struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))

    def put(band: Bytes) -> None:
        nonlocal filled
        if failure:
            raise _EncodingError
        band = band[: height - filled, :width]
        filled += len(band)
        for top in range(0, len(band), _ROWS_AT_ONCE):
            rows = band[top : top + _ROWS_AT_ONCE]
            if grey:
                image = Image.fromarray(np.ascontiguousarray(rows)).convert("L")
                rows = np.asarray(image)
            flat = rows.reshape(len(rows), -1)
            # PNG, 9.2: each row begins with its filter, here none.
            chunk(b"IDAT", deflate.compress(np.pad(flat, ((0, 0), (1, 0))).tobytes()))

    try:
        color_type = _PNG_GREY if grey else _PNG_RGB
        send(b"\x89PNG\r\n\x1a\n")
        chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, color_type, 0, 0, 0))
        yield put
        chunk(b"IDAT", deflate.flush())
        chunk(b"IEND", b"")
    except _EncodingError:
        pass
    finally:
        os.close(writing)
        thread.join()
    if failure:
        raise PictureError(f"{printable(path)}: cannot be written: {failure[0]}")


def _save(
    path: Path,
    entry: Format,
    header: Header,
    size: tuple[int, int],
    quality: int | None,
    descriptor: int,
) -> None:
    """Write the PNG that comes through `descriptor` in the format of `entry`."""
    vips = _vips()
    source = vips.Source.new_from_descriptor(descriptor)
    image = vips.Image.new_from_source(
        source, "", access="sequential", fail_on="truncated"
    )
    x, y = header.dpi or (72.0, 72.0)
    image = image.copy(xres=x / 25.4, yres=y / 25.4)
    blob = vips.GValue.blob_type
    if header.icc_profile:
        image.set_type(blob, "icc-profile-data", header.icc_profile)
    if header.xmp:
        image.set_type(blob, "xmp-data", header.xmp)
    if header.exif and entry.name != "TIFF":
        exif = exif_for_size(header.exif, size).tobytes()
        image.set_type(blob, "exif-data", exif)
    if entry.name == "PNG":
        image.pngsave(str(path), compression=6)
    elif entry.name == "JPEG":
        image.jpegsave(str(path), Q=quality or DEFAULT_QUALITY, subsample_mode="off")
    else:
        image.tiffsave(
            str(path),
            compression="deflate",
            predictor="horizontal",
            resunit="inch",
            # Offsets in a TIFF of the usual kind have 32 bits.
            bigtiff=size[0] * size[1] * image.bands >= 1 << 32,
        )


@functools.cache
def _vips() -> Any:
    import pyvips

    # Its cache of operations would keep rows of earlier pictures.
    pyvips.cache_set_max(0)
    # What it warns of is raised as well, since `fail_on` is given.
    logging.getLogger("pyvips").setLevel(logging.CRITICAL)
    return pyvips


def _one_line(error: BaseException) -> str:
    """The last and most particular line of libvips's errors."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return printable(lines[-1]) if lines else type(error).__name__
