"""The finished file: the segments as one stream, and all else that the source holds."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from upfrost.text import printable
from upfrost.video.ffmpeg import (
    LOG,
    Stream,
    VideoError,
    VideoInfo,
    cannot_run,
    last_error,
    run_ffmpeg,
    seconds,
)
from upfrost.video.formats import Container
from upfrost.video.job import Job, Segment
from upfrost.video.matroska import Packet, frame_header, read_packets, stream_header


@dataclass(frozen=True)
class OtherStreams:
    """How the streams that are not upscaled get into the result."""

    arguments: tuple[str, ...]  # -map, -c, -map_metadata; the source is input number 1
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """What the finished file is, beside the segments with its frames.

    `origin` is the time, by the source's clock, that becomes 0; `duration` is in
    seconds, None for all that follows.
    """

    info: VideoInfo
    container: Container
    codec: str
    origin: Fraction
    duration: Fraction | None
    others: OtherStreams


def plan_other_streams(
    ffmpeg: str, info: VideoInfo, container: Container, folder: Path
) -> OtherStreams:
    """Find out, by trying, what the container takes as it is and what not."""
    arguments: list[str] = []
    notes: list[str] = []
    others = [stream for stream in info.streams if stream != info.video]
    wanted = [s for s in others if s.kind in ("audio", "subtitle", "attachment")]
    wanted += [s for s in others if s.attached_picture]
    copied = [(stream, "copy") for stream in wanted]
    all_fit = bool(wanted) and _fits(ffmpeg, info, container, copied, folder)
    output = 1  # stream 0 is the video
    for stream in others:
        tries = ["copy"] if stream in wanted else []
        if not all_fit and stream.kind == "audio":
            tries += container.audio
        if not all_fit and stream.kind == "subtitle":
            tries += container.subtitles
        for codec in tries:
            if all_fit or _fits(ffmpeg, info, container, [(stream, codec)], folder):
                arguments += ["-map", f"1:{stream.index}", f"-c:{output}", codec]
                about = (f"-map_metadata:s:{output}", f"1:s:{stream.index}")
                arguments += about
                output += 1
                if codec != "copy":
                    notes.append(
                        f"stream {stream.index} ({stream.kind}, {stream.codec}) "
                        f"becomes {codec}, since the container cannot hold it"
                    )
                break
        else:
            notes.append(
                f"stream {stream.index} ({stream.kind}, {stream.codec}) is left out"
            )
    return OtherStreams(tuple(arguments), tuple(notes))


def _fits(
    ffmpeg: str,
    info: VideoInfo,
    container: Container,
    streams: Sequence[tuple[Stream, str]],
    folder: Path,
) -> bool:
    maps = [
        word
        for output, (stream, codec) in enumerate(streams)
        for word in ("-map", f"0:{stream.index}", f"-c:{output}", codec)
    ]
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".part") as file:
        tried = run_ffmpeg(
            ffmpeg,
            [
                *("-t", "2", "-i", f"file:{info.path}", *maps),
                *("-f", container.name, "-y", f"file:{file.name}"),
            ],
        )
    return tried.returncode == 0


def write_result(ffmpeg: str, job: Job, result: Result, part: Path) -> None:
    """Write the complete video to `part`. Raises `VideoError`."""
    info, container, others = result.info, result.container, result.others
    earliest = job.segment(0).times[0] * info.time_base
    # Matroska's times begin at 0; the source's need not.
    shift = Fraction(max(0, -(earliest // 1)))
    begin = result.origin - info.start
    cut = [*(["-ss", seconds(begin)] if begin else [])]
    cut += ["-t", seconds(result.duration)] if result.duration is not None else []
    special: list[str] = []
    if container.is_mp4:
        special += ["-video_track_timescale", str(info.time_base.denominator)]
        special += ["-tag:v", "hvc1"] if result.codec == "h265" else []
    # A cut leaves out sound before it; else what comes before 0 primes the decoder.
    cut_sound = ["-copypriorss", "0"] if begin else []
    command = [
        *(ffmpeg, *LOG[:1], *LOG[2:-1], "level+warning", "-copyts"),
        *("-itsoffset", seconds(-shift), "-f", "matroska", "-i", "pipe:0"),
        *(*cut, "-i", f"file:{info.path}"),
        *("-map", "0:v", "-c:0", "copy", *others.arguments),
        *("-map_metadata", "1", "-map_metadata:s:0", f"1:s:{info.video.index}"),
        *("-map_chapters", "1", "-metadata:s:0", "encoder="),
        *("-disposition:0", "default", *special, *cut_sound, *container.options),
        *("-output_ts_offset", seconds(-result.origin)),
        *("-f", container.name, "-y", f"file:{part}"),
    ]
    with tempfile.TemporaryFile() as log:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stderr=log, process_group=0
            )
        except OSError as error:
            raise cannot_run(ffmpeg, error) from error
        assert process.stdin is not None
        try:
            with suppress(BrokenPipeError), process.stdin as pipe:
                for piece in _stream(job, info.time_base, shift):
                    pipe.write(piece)
            failed = process.wait() != 0
        finally:
            process.kill()
            process.wait()
        if failed:
            log.seek(0)
            lines = log.read().decode(errors="replace").splitlines()
            raise VideoError(
                f"{printable(part)}: cannot be written: {last_error(lines)}"
            )


def _stream(job: Job, base: Fraction, shift: Fraction) -> Iterator[bytes]:
    """All segments as one Matroska stream, every frame at its own time again."""
    first_tracks = b""
    for number in range(job.segments):
        segment = job.segment(number)
        path = job.segment_file(number)
        tracks, packets = read_packets(path)
        if not number:
            first_tracks = tracks
            yield stream_header(tracks)
        elif tracks != first_tracks:
            raise VideoError(
                f"{printable(path)}: was encoded otherwise than the first segment; "
                "begin anew with --overwrite"
            )
        if len(packets) != len(segment.times):
            raise VideoError(
                f"{printable(path)}: holds {len(packets)} frames, not "
                f"{len(segment.times)}; begin anew with --overwrite"
            )
        is_end = number == job.segments - 1
        with path.open("rb") as file:
            for packet, pts in _retimed(packets, segment):
                last = is_end and pts == segment.times[-1]
                duration = segment.last_duration if last else None
                yield frame_header(
                    pts * base + shift,
                    packet.size,
                    keyframe=packet.keyframe,
                    duration=None if duration is None else duration * base,
                )
                file.seek(packet.offset)
                yield file.read(packet.size)


def _retimed(
    packets: Sequence[Packet], segment: Segment
) -> Iterator[tuple[Packet, int]]:
    """Packets in the order of decoding, with the times of the frames they hold.

    Matroska rounds to milliseconds; the order in which frames are shown is left.
    """
    shown = sorted(range(len(packets)), key=lambda n: packets[n].timestamp)
    times = dict(zip(shown, segment.times, strict=True))
    for number, packet in enumerate(packets):
        yield packet, times[number]
