"""Finding ffmpeg, and asking it what a video file holds."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import IO, Literal

from upfrost.errors import UpfrostError, UsageError
from upfrost.image.images import sniff_format
from upfrost.text import printable
from upfrost.video.metadata import Chapter, Metadata, parse_metadata

PROBE_FRAMES = 16


def log_arguments(
    level: Literal["verbose", "info", "warning"] = "info", *, reads_pipe: bool = False
) -> tuple[str, ...]:
    """The arguments for a log that is to be parsed, of `level` and worse.

    Each line says how bad it is: "[mp4 @ 0x55…] [error] moov atom not found". With
    `reads_pipe`, an input comes through standard input.
    """
    closed = () if reads_pipe else ("-nostdin",)
    return ("-hide_banner", *closed, "-nostats", "-loglevel", f"level+{level}")


LOG = log_arguments()
# "  Stream #0:0(eng): Video: hevc (Main 10), yuv420p10le(tv, bt709, topleft), 96x64 …"
_SITING = re.compile(
    r" *Stream #\d+:(\d+).*: Video: .*\([^()]*\b"
    r"(left|center|topleft|top|bottomleft|bottom)\)"
)
_STREAM_LINE = re.compile(r" *Stream #\d+:(\d+)")
_ROTATION = re.compile(r" *display ?matrix: rotation of (-?[\d.]+) degrees", re.I)
_SHOWINFO = re.compile(r"\[(Parsed_)?showinfo[@_]")
_FRAME = re.compile(
    r"n: *\d+ pts: *(?P<pts>\S+) pts_time:\S+ (?:.*?duration: *(?P<duration>\d+) )?"
    r".*?fmt:(?P<format>\S+) (?:cl:(?P<siting>\S+) )?.*?sar:(?P<sar>\d+/\d+)"
    r" s:(?P<width>\d+)x(?P<height>\d+) i:(?P<interlaced>\w)"
)
_CONFIG = re.compile(r"config in time_base: (\d+)/(\d+), frame_rate: (\d+)/(\d+)")
# A warning of rotations by other than right angles does not end its line, and takes the
# beginning of the next.
_CALL_FOR_SAMPLES = re.compile(r"If you want to help, upload .*\)config in ")
_COLORS = re.compile(
    r"color_range:(\S+) color_space:(\S+) color_primaries:(\S+) color_trc:(\S+)"
)
_POINT = r"\(\s*([\d.]+)[, ]+([\d.]+)\s*\)"
_MASTERING = re.compile(
    rf"has_primaries:1 .*?r{_POINT} g{_POINT} b{_POINT} wp{_POINT}"
    r".*?min_luminance=([\d.]+), max_luminance=([\d.]+)"
)
_LIGHT = re.compile(r"MaxCLL=(\d+), MaxFALL=(\d+)")
_DOLBY_VISION = re.compile(
    r" +DOVI configuration record: .*?profile: (\d+),.*?compatibility id: (\d+)"
)
_CAPTIONS = re.compile(
    rf"{_SHOWINFO.pattern}.* side data - .*closed captions", re.IGNORECASE
)
# HDR10+ (SMPTE ST 2094-40) and HDR Vivid (CUVA 005.1), as versions of ffmpeg call them.
_DYNAMIC = re.compile(
    rf"{_SHOWINFO.pattern}.* side data - .*(HDR10\+|HDR Dynamic|Vivid)", re.IGNORECASE
)
# As ffmpeg's muxer `framecrc` describes streams.
_STREAM = re.compile(rb"#(media_type|codec_id) (\d+): (\w+)$")
# Its complaints of a stream that is there: "sample rate not set".
_UNKNOWN_STREAM = re.compile("not set|incorrect codec parameters")
_MOST_STREAMS = 1000
# Tags are indented further than these lines.
_INPUT = re.compile(r"Input #0, (\S+), from ")
_DURATION = re.compile(r"  Duration: (\S+), (?:start: (\S+),)?")
# Files that name others, by what they begin with.
_PLAYLIST = re.compile(
    rb"(\xef\xbb\xbf)?\s*(#EXTM3U|ffconcat version|v=0\r?\n|RTSPtext|"
    rb"(<\?xml.*)?<(MPD|CompositionPlaylist|SmoothStreamingMedia)[\s>])",
    re.DOTALL,
)
_LEVEL = re.compile(r"^(?:\[[^\]]* @ 0x[0-9a-f]+\] )*\[(\w+)\] ?")

StreamKind = Literal["video", "audio", "subtitle", "attachment", "data"]


class VideoError(UpfrostError, ValueError):
    """A video that cannot be read, upscaled or written; one line says why."""


class VideoUsageError(VideoError, UsageError):
    """What is asked of a video cannot be, whatever the video is."""


class FfmpegMissingError(VideoError):
    """There is no ffmpeg to call."""


@dataclass(frozen=True)
class Stream:
    """One stream of a file. `index` is its number in the file."""

    index: int
    kind: StreamKind
    codec: str
    attached_picture: bool = False
    tags: dict[str, str] = field(default_factory=dict)


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
    tags: dict[str, str] = field(default_factory=dict)
    chapters: tuple[Chapter, ...] = ()
    # Of chroma, by ffmpeg's names, before the decoder turned the frames.
    siting: str | None = None
    rotation: int = 0  # how it turned them: degrees clockwise, a multiple of 90
    mastering: Mastering | None = None
    light: tuple[int, int] | None = None  # MaxCLL and MaxFALL, cd/m²
    # Profile, and with what its base layer is compatible: 0 for nothing.
    dolby_vision: tuple[int, int] | None = None
    has_captions: bool = False  # CEA-608 or 708, in frames
    has_dynamic_metadata: bool = False  # of HDR, in frames

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
        if not ffmpeg_version(found).startswith("ffmpeg"):
            raise FfmpegMissingError(
                f"{printable(named)}: is not ffmpeg; name another program with "
                "--ffmpeg or UPFROST_FFMPEG"
            )
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
    ffmpeg: str, arguments: Sequence[str]
) -> subprocess.CompletedProcess[bytes]:
    """Run to the end; the log is in `stderr`.

    Raises `FfmpegMissingError`.
    """
    with starting(ffmpeg):
        return subprocess.run(
            [ffmpeg, *LOG, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )


def ffmpeg_version(ffmpeg: str) -> str:
    """The first line of what it says of itself."""
    return (
        run_ffmpeg(ffmpeg, ["-version"]).stdout.split(b"\n")[0].decode(errors="replace")
    )


def widen(pipe: IO[bytes]) -> None:
    """Let more than the usual 64 KiB wait in a pipe, where the system allows it."""
    with suppress(OSError, AttributeError):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 1 << 20)


@contextmanager
def starting(ffmpeg: str) -> Iterator[None]:
    """A block that starts the program. Raises `FfmpegMissingError` where it cannot."""
    try:
        yield
    except OSError as error:
        raise FfmpegMissingError(
            f"{printable(ffmpeg)} does not run: {error.strerror}"
        ) from error


def source_arguments(path: Path) -> list[str]:
    """The arguments that make a file, and no other file or address, an input."""
    arguments = ["-protocol_whitelist", "file"]
    if "%" in str(path) and sniff_format(path) is not None:
        # Otherwise the name would be a pattern for a sequence of pictures.
        arguments += ["-f", "image2", "-pattern_type", "none"]
    return [*arguments, "-i", f"file:{path}"]


def ended_by(code: int) -> str | None:
    """The signal that ended a process with that return code, if one did."""
    if code >= 0:
        return None
    try:
        return signal.Signals(-code).name
    except ValueError:  # a real-time signal, which has no name
        return f"signal {-code}"


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
    found = _FRAME.search(text) if _SHOWINFO.match(text) else None
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


def parse_colors(text: str) -> Colors | None:
    """`showinfo`'s line about a frame's colours; None for any other line."""
    found = _COLORS.search(text) if _SHOWINFO.match(text) else None
    if found is None:
        return None
    unknown = ("unknown", "unspecified", "reserved")
    return Colors(*(None if x in unknown else x for x in found.groups()))


def parse_time_base(text: str) -> tuple[Fraction, Fraction | None] | None:
    """`showinfo`'s line about its input: time base and frame rate."""
    is_showinfo = _SHOWINFO.match(text) or _CALL_FOR_SAMPLES.match(text)
    found = _CONFIG.search(text) if is_showinfo else None
    if found is None:
        return None
    base = _ratio(found[1], found[2])
    return None if base is None else (base, _ratio(found[3], found[4]))


def probe(ffmpeg: str, path: Path, start: Fraction = Fraction(0)) -> VideoInfo:
    """What `path` holds, from its header and its first frames after `start` seconds.

    Raises `VideoError` for what is no video, holds none, or cannot be decoded.
    """
    name = printable(path)
    _check_file(path)
    seek = ["-ss", seconds(start)] if start else []
    # Times of the output in microseconds: by its own clock, which counts frames at an
    # even rate, those of a variable rate could coincide, and ffmpeg would complain.
    filters = [
        *("-vf", "showinfo@first=checksum=0", "-frames:v", str(PROBE_FRAMES)),
        *("-fps_mode", "passthrough", "-enc_time_base", "1:1000000"),
    ]
    header, streams, metadata = _describe(ffmpeg, path)
    pictures = [s for s in streams if s.kind == "video" and not s.attached_picture]
    if not streams:
        raise VideoError(f"{name}: not a video, or damaged ({last_error(header)})")
    if not pictures:
        raise VideoError(f"{name}: there is no video in it")
    video = pictures[0]
    total, begin = _times(header)
    if total is not None and start >= total:
        raise VideoError(f"{name}: ends before {float(start):g} s")
    if total is not None and total > begin > 0 and _is_matroska(header):
        # What writers of Matroska call the duration is the time at which it ends.
        total -= begin
    source = [*source_arguments(path), "-map", f"0:{video.index}", *filters]
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
        tags=metadata.tags,
        chapters=metadata.chapters,
        siting=first.siting or _siting(header, video.index),
        rotation=_rotation(header, video.index),
        mastering=_mastering(log),
        light=_light(log),
        dolby_vision=_dolby_vision(header),
        has_captions=any(map(_CAPTIONS.match, log)),
        has_dynamic_metadata=any(map(_DYNAMIC.match, log)),
    )


def seconds(time: Fraction) -> str:
    """A time for ffmpeg's command line: to the microsecond, as it counts."""
    micros = round(time * 1_000_000)
    sign, micros = ("-", -micros) if micros < 0 else ("", micros)
    return f"{sign}{micros // 1_000_000}.{micros % 1_000_000:06d}"


def _check_file(path: Path) -> None:
    """Raises `VideoError` for what cannot be a video, said better than ffmpeg would."""
    name = printable(path)
    try:
        about = path.stat()
        if stat.S_ISDIR(about.st_mode):
            raise VideoError(f"{name}: is a folder, not a video")
        if not stat.S_ISREG(about.st_mode) and not stat.S_ISBLK(about.st_mode):
            raise VideoError(
                f"{name}: is not a file; a video is read more than once, so save it as "
                "one first"
            )
        if stat.S_ISREG(about.st_mode) and not about.st_size:
            raise VideoError(f"{name}: the file is empty")
        with path.open("rb") as file:
            beginning = file.read(4096)
    except OSError as error:
        raise VideoError(f"{name}: {error.strerror}") from error
    if _PLAYLIST.match(beginning):
        raise VideoError(f"{name}: is a playlist; name the videos that it names")


def _log(ffmpeg: str, arguments: Sequence[str]) -> list[str]:
    found = run_ffmpeg(ffmpeg, arguments)
    # Not splitlines, which takes some characters of tags for ends of lines.
    return found.stderr.decode(errors="replace").split("\n")


def read_metadata(ffmpeg: str, path: Path) -> Metadata:
    """A file's own tags and its chapters, by its own clock; none of what is no file."""
    return _metadata(ffmpeg, path, 0)[0]


def _describe(
    ffmpeg: str, path: Path
) -> tuple[list[str], tuple[Stream, ...], Metadata]:
    """The log of opening a file, its streams, none where it has none, and its tags.

    What the log says of streams is for people; what muxers write about them is not.
    """
    log, found = _streams(ffmpeg, path, "0")
    if not found:
        found = list(_streams_one_by_one(ffmpeg, path))
    if not found:
        return log, (), Metadata()
    of_file, *of_streams = _metadata(ffmpeg, path, len(found))
    described = tuple(
        Stream(
            index,
            kind,
            codec,
            kind == "video" and _is_attached(ffmpeg, path, index),
            of_streams[index].tags,
        )
        for index, (kind, codec) in enumerate(found)
    )
    return log, described, of_file


def _metadata(ffmpeg: str, path: Path, streams: int) -> list[Metadata]:
    """What the file says of itself, then what it says of each stream.

    A stream's tags are written as if they were the file's, since for its own place a
    muxer would want the stream, and read the whole file for it.
    """
    with tempfile.TemporaryDirectory() as name:
        texts = [Path(name) / f"{number}" for number in range(streams + 1)]
        arguments = ["-copyts", *source_arguments(path)]
        arguments += ["-f", "ffmetadata", f"file:{texts[0]}"]
        for index, text in enumerate(texts[1:]):
            tags = ["-map_metadata", f"0:s:{index}", "-map_chapters", "-1"]
            arguments += [*tags, "-f", "ffmetadata", f"file:{text}"]
        run_ffmpeg(ffmpeg, arguments)
        return [
            parse_metadata(text.read_bytes().decode("utf-8", "surrogateescape"))
            if text.exists()
            else Metadata()
            for text in texts
        ]


def _streams(
    ffmpeg: str, path: Path, wanted: str
) -> tuple[list[str], list[tuple[StreamKind, str]]]:
    """The log, and kind and codec of the streams that `-map wanted` gives.

    The process is ended at the first packet: for those of subtitles, which are rare, it
    would read the whole file.
    """
    arguments = [
        *(*source_arguments(path), "-map", wanted, "-copy_unknown", "-c", "copy"),
        *("-max_interleave_delta", "1", "-flush_packets", "1"),
        *("-f", "framecrc", "pipe:1"),
    ]
    with tempfile.TemporaryFile() as log:
        with starting(ffmpeg):
            process = subprocess.Popen(
                # Verbose, since older ones say nowhere else where chroma lies.
                [ffmpeg, *log_arguments("verbose"), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        with process:
            assert process.stdout is not None
            about: dict[int, dict[bytes, str]] = {}
            for line in process.stdout:
                if not line.startswith(b"#"):
                    break
                if found := _STREAM.match(line):
                    said = about.setdefault(int(found[2]), {})
                    said[found[1]] = found[3].decode()
            process.kill()
        log.seek(0)
        lines = log.read().decode(errors="replace").split("\n")
    kinds: dict[str, StreamKind] = {
        kind: kind for kind in ("video", "audio", "subtitle", "attachment")
    }
    return lines, [
        (kinds.get(said[b"media_type"], "data"), said.get(b"codec_id", "none"))
        for _, said in sorted(about.items())
    ]


def _streams_one_by_one(ffmpeg: str, path: Path) -> Iterator[tuple[StreamKind, str]]:
    """Kinds and codecs where ffmpeg cannot make out all streams.

    Those of which not even the kind is known are data.
    """
    for index in range(_MOST_STREAMS):
        log, found = _streams(ffmpeg, path, f"0:{index}")
        if any("matches no streams" in line for line in log):
            return
        if not found and not any(map(_UNKNOWN_STREAM.search, log)):
            return
        yield found[0] if found else ("data", "none")


def _is_attached(ffmpeg: str, path: Path, index: int) -> bool:
    """Whether a stream of pictures is a cover: left when V, true videos, are left out.

    Without a stream left, ffmpeg fails.
    """
    wanted = ["-map", f"0:{index}", "-map", "-0:V?", "-c", "copy", "-t", "0"]
    source = source_arguments(path)
    return not run_ffmpeg(ffmpeg, [*source, *wanted, "-f", "null", "-"]).returncode


def _is_matroska(header: Iterable[str]) -> bool:
    inputs = (_INPUT.match(split_level(line)[1]) for line in header)
    return any(found and "matroska" in found[1] for found in inputs)


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
    return next((found for line in log if (found := parse_colors(line))), Colors())


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


def _siting(header: Iterable[str], index: int) -> str | None:
    for line in header:
        found = _SITING.match(split_level(line)[1])
        if found and int(found[1]) == index:
            return found[2]
    return None


def _rotation(header: Iterable[str], index: int) -> int:
    """Degrees clockwise by which a decoder turns that stream's frames.

    By other angles than right ones frames are computed anew, chroma where its tag says.
    """
    current = None
    for line in header:
        text = split_level(line)[1]
        if stream := _STREAM_LINE.match(text):
            current = int(stream[1])
        elif current == index and (found := _ROTATION.match(text)):
            degrees = -round(float(found[1])) % 360
            return degrees if degrees % 90 == 0 else 0
    return 0


def _dolby_vision(header: Iterable[str]) -> tuple[int, int] | None:
    for line in header:
        found = _DOLBY_VISION.match(split_level(line)[1])
        if found:
            return int(found[1]), int(found[2])
    return None


def _ratio(numerator: str, denominator: str) -> Fraction | None:
    if not int(numerator) or not int(denominator):
        return None
    return Fraction(int(numerator), int(denominator))
