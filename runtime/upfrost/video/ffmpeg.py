"""Finding ffmpeg, and asking it what a video file holds."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

from upfrost.errors import UpfrostError
from upfrost.text import printable

PROBE_FRAMES = 16
# Each line of the log says how bad it is: "[mp4 @ 0x55…] [error] moov atom not found".
LOG = ("-hide_banner", "-nostdin", "-nostats", "-loglevel", "level+info")
_FRAME = re.compile(
    r"n: *\d+ pts: *(?P<pts>\S+) pts_time:\S+ (?:.*?duration: *(?P<duration>\d+) )?"
    r".*?fmt:(?P<format>\S+) (?:cl:(?P<siting>\S+) )?.*?sar:(?P<sar>\d+/\d+)"
    r" s:(?P<width>\d+)x(?P<height>\d+) i:(?P<interlaced>\w)"
)
_CONFIG = re.compile(r"config in time_base: (\d+)/(\d+), frame_rate: (\d+)/(\d+)")
_COLORS = re.compile(
    r"color_range:(\S+) color_space:(\S+) color_primaries:(\S+) color_trc:(\S+)"
)
_POINT = r"\(\s*([\d.]+)[, ]+([\d.]+)\s*\)"
_MASTERING = re.compile(
    rf"has_primaries:1 .*?r{_POINT} g{_POINT} b{_POINT} wp{_POINT}"
    r".*?min_luminance=([\d.]+), max_luminance=([\d.]+)"
)
_LIGHT = re.compile(r"MaxCLL=(\d+), MaxFALL=(\d+)")
_STREAM = re.compile(r"\s*Stream #0:(\d+)\S*: (\w+): (\w+)(.*)")
_DURATION = re.compile(r"\s*Duration: (\S+), (?:start: (\S+),)?")
_LEVEL = re.compile(r"^(?:\[[^\]]* @ 0x[0-9a-f]+\] )*\[(\w+)\] ?")

StreamKind = Literal["video", "audio", "subtitle", "attachment", "data"]


class VideoError(UpfrostError, ValueError):
    """A video that cannot be read, upscaled or written; one line says why."""


class FfmpegMissingError(VideoError):
    """There is no ffmpeg to call."""


@dataclass(frozen=True)
class Stream:
    """One stream of a file. `index` is its number in the file."""

    index: int
    kind: StreamKind
    codec: str
    attached_picture: bool = False


@dataclass(frozen=True)
class Colors:
    """A video's colour tags, by ffmpeg's names; None where the file says nothing."""

    range: str | None = None
    matrix: str | None = None
    primaries: str | None = None
    transfer: str | None = None


@dataclass(frozen=True)
class Mastering:
    """The display that an HDR video was made on (SMPTE ST 2086): CIE x and y of its
    primaries and its white, and its luminance in cd/m²."""

    red: tuple[float, float]
    green: tuple[float, float]
    blue: tuple[float, float]
    white: tuple[float, float]
    least: float
    most: float


@dataclass(frozen=True)
class VideoInfo:
    """A file's first video stream, as it is decoded: rotated, at its own timestamps.

    Times are seconds by the file's own clock, which begins at `start`.
    """

    path: Path
    streams: tuple[Stream, ...]
    video: Stream
    width: int
    height: int
    pixel_format: str
    pixel_aspect: Fraction | None
    colors: Colors
    time_base: Fraction
    frame_rate: Fraction | None  # None when it varies or is not known
    interlaced: bool
    start: Fraction
    duration: Fraction | None  # of the whole file
    seekable: bool  # False where decoding failed when it began at `probe`'s `start`
    siting: str | None = None  # of chroma, by ffmpeg's names
    mastering: Mastering | None = None
    light: tuple[int, int] | None = None  # MaxCLL and MaxFALL, cd/m²

    @property
    def is_hdr(self) -> bool:
        return self.colors.transfer in ("smpte2084", "arib-std-b67")


@dataclass(frozen=True)
class FrameLine:
    """What the log says of one decoded frame."""

    pts: int | None
    duration: int | None
    width: int
    height: int
    pixel_format: str
    pixel_aspect: Fraction | None
    interlaced: bool
    siting: str | None = None


def find_ffmpeg(wanted: str | None = None) -> str:
    """The ffmpeg to call: `wanted`, $UPFROST_FFMPEG, imageio-ffmpeg's, the system's.

    Raises `FfmpegMissingError`, which says how to get one.
    """
    named = wanted or os.environ.get("UPFROST_FFMPEG")
    if named:
        found = shutil.which(named)
        if found is None:
            raise FfmpegMissingError(f"{printable(named)}: no such program")
        return found
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        # Without the package, or with one that holds no program for this machine.
        found = shutil.which("ffmpeg")
    if found is None:
        raise FfmpegMissingError(
            "there is no ffmpeg; pip install imageio-ffmpeg brings one, or name "
            "yours with --ffmpeg or UPFROST_FFMPEG"
        )
    return found


def run_ffmpeg(
    ffmpeg: str, arguments: Sequence[str], folder: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run to the end, in `folder`; the log is in `stderr`.

    Raises `FfmpegMissingError`.
    """
    try:
        return subprocess.run(
            [ffmpeg, *LOG, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            cwd=folder,
        )
    except OSError as error:
        raise cannot_run(ffmpeg, error) from error


def cannot_run(ffmpeg: str, error: OSError) -> FfmpegMissingError:
    """The error for a program that does not start."""
    return FfmpegMissingError(f"{printable(ffmpeg)} does not run: {error.strerror}")


def split_level(line: str) -> tuple[str, str]:
    """A line of the log: how bad it is, and what it says."""
    found = _LEVEL.match(line)
    return (found[1], line[found.end() :]) if found else ("", line)


def has_errors(log: Iterable[str]) -> bool:
    """Whether the log of a run complains of anything."""
    return any(split_level(line)[0] in ("error", "fatal", "panic") for line in log)


def last_error(log: Iterable[str]) -> str:
    """The most telling line of a failed run's log."""
    errors = [
        text for level, text in map(split_level, log) if level in ("error", "fatal")
    ]
    # The last lines only say that something went wrong further up.
    vague = (
        *("Conversion failed", "Error opening", "Nothing was written", "Task "),
        *("At least one output", "Terminating"),
    )
    telling = [line for line in errors if line and not line.startswith(vague)]
    chosen = telling or errors
    return printable(chosen[0].strip()) if chosen else "it gave no reason"


def parse_frame(text: str) -> FrameLine | None:
    """A line of the filter `showinfo` about a frame; None for any other line."""
    found = _FRAME.search(text)
    if found is None:
        return None
    return FrameLine(
        pts=None if found["pts"] == "NOPTS" else int(found["pts"]),
        duration=int(found["duration"]) if found["duration"] else None,
        width=int(found["width"]),
        height=int(found["height"]),
        pixel_format=found["format"],
        pixel_aspect=_ratio(*found["sar"].split("/")),
        interlaced=found["interlaced"] in ("T", "B"),
        siting=None if found["siting"] == "unspecified" else found["siting"],
    )


def parse_time_base(text: str) -> tuple[Fraction, Fraction | None] | None:
    """`showinfo`'s line about its input: time base and frame rate."""
    found = _CONFIG.search(text)
    if found is None:
        return None
    base = _ratio(found[1], found[2])
    return None if base is None else (base, _ratio(found[3], found[4]))


def probe(ffmpeg: str, path: Path, start: Fraction = Fraction(0)) -> VideoInfo:
    """What `path` holds, from its header and its first frames after `start` seconds.

    Raises `VideoError` for what is no video, holds none, or cannot be decoded.
    """
    name = printable(path)
    try:
        if path.is_dir():
            raise VideoError(f"{name}: is a folder, not a video")
        if not path.stat().st_size:
            raise VideoError(f"{name}: the file is empty")
    except OSError as error:
        raise VideoError(f"{name}: {error.strerror}") from error
    seek = ["-ss", seconds(start)] if start else []
    filters = ["-vf", "showinfo=checksum=0", "-frames:v", str(PROBE_FRAMES)]
    # Without an output, ffmpeg says what the input is, and that it wants an output.
    header = _log(ffmpeg, ["-i", f"file:{path}"])
    streams = tuple(_streams(header))
    pictures = [s for s in streams if s.kind == "video" and not s.attached_picture]
    if not streams:
        raise VideoError(f"{name}: not a video, or damaged ({last_error(header)})")
    if not pictures:
        raise VideoError(f"{name}: there is no video in it")
    video = pictures[0]
    total, begin = _times(header)
    if total is not None and start >= total:
        raise VideoError(f"{name}: ends before {float(start):g} s")
    source = ["-i", f"file:{path}", "-map", f"0:{video.index}", *filters]
    log = _log(ffmpeg, [*seek, *source, "-f", "null", "-"])
    seekable = not seek or (any(map(parse_frame, log)) and not has_errors(log))
    if not seekable:
        log = _log(ffmpeg, [*source, "-f", "null", "-"])
    frames = [frame for line in log if (frame := parse_frame(line))]
    bases = [found for line in log if (found := parse_time_base(line))]
    if not frames or not bases:
        raise VideoError(f"{name}: no frame can be decoded ({last_error(log)})")
    first = frames[0]
    base, rate = bases[0]
    return VideoInfo(
        path=path,
        streams=streams,
        video=video,
        width=first.width,
        height=first.height,
        pixel_format=first.pixel_format,
        pixel_aspect=first.pixel_aspect,
        colors=_colors(log),
        time_base=base,
        frame_rate=rate,
        interlaced=any(frame.interlaced for frame in frames),
        start=begin,
        duration=total,
        seekable=seekable,
        siting=first.siting,
        mastering=_mastering(log),
        light=_light(log),
    )


def seconds(time: Fraction) -> str:
    """A time for ffmpeg's command line: to the microsecond, as it counts."""
    micros = round(time * 1_000_000)
    sign, micros = ("-", -micros) if micros < 0 else ("", micros)
    return f"{sign}{micros // 1_000_000}.{micros % 1_000_000:06d}"


def _log(ffmpeg: str, arguments: Sequence[str]) -> list[str]:
    found = run_ffmpeg(ffmpeg, arguments)
    return found.stderr.decode(errors="replace").splitlines()


def _streams(header: Iterable[str]) -> Iterable[Stream]:
    kinds: dict[str, StreamKind] = {
        "Video": "video",
        "Audio": "audio",
        "Subtitle": "subtitle",
        "Attachment": "attachment",
    }
    for line in header:
        _, text = split_level(line)
        if text.startswith("Output #"):
            return
        found = _STREAM.match(text)
        if found:
            yield Stream(
                index=int(found[1]),
                kind=kinds.get(found[2], "data"),
                codec=found[3],
                attached_picture="(attached pic)" in found[4],
            )


def _times(header: Iterable[str]) -> tuple[Fraction | None, Fraction]:
    """Duration and start time of a file, from its header."""
    for line in header:
        found = _DURATION.match(split_level(line)[1])
        if found:
            start = Fraction(found[2]) if found[2] else Fraction(0)
            if found[1] == "N/A":
                return None, start
            hours, minutes, rest = found[1].split(":")
            return int(hours) * 3600 + int(minutes) * 60 + Fraction(rest), start
    return None, Fraction(0)


def _colors(log: Iterable[str]) -> Colors:
    for line in log:
        found = _COLORS.search(line)
        if found:
            unknown = ("unknown", "unspecified", "reserved")
            return Colors(*(None if x in unknown else x for x in found.groups()))
    return Colors()


def _mastering(log: Iterable[str]) -> Mastering | None:
    for line in log:
        found = _MASTERING.search(line)
        if found:
            numbers = [float(text) for text in found.groups()]
            red, green, blue, white = zip(numbers[:8:2], numbers[1:8:2], strict=True)
            return Mastering(red, green, blue, white, numbers[8], numbers[9])
    return None


def _light(log: Iterable[str]) -> tuple[int, int] | None:
    for line in log:
        found = _LIGHT.search(line)
        if found:
            return int(found[1]), int(found[2])
    return None


def _ratio(numerator: str, denominator: str) -> Fraction | None:
    if not int(numerator) or not int(denominator):
        return None
    return Fraction(int(numerator), int(denominator))
