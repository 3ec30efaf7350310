"""The finished file: the segments as one stream, and all else that the source holds."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from upfrost.text import printable
from upfrost.video.ffmpeg import (
    Stream,
    VideoError,
    VideoInfo,
    last_error,
    log_arguments,
    read_metadata,
    run_ffmpeg,
    seconds,
    source_arguments,
    starting,
)
from upfrost.video.formats import Container
from upfrost.video.job import Job, Segment
from upfrost.video.matroska import (
    MatroskaError,
    Packet,
    frame_header,
    read_packets,
    stream_header,
)
from upfrost.video.metadata import chapters_between, format_chapters

# What mkvmerge counts in a stream, and what a container says of itself: untrue of
# another file. https://mkvtoolnix.download/doc/mkvmerge.html, "track statistics tags".
_STATISTICS = re.compile(
    r"(BPS|DURATION|NUMBER_OF_FRAMES|NUMBER_OF_BYTES|_STATISTICS_\w+)(-\w+)?",
    re.IGNORECASE,
)
_OF_CONTAINER = ("major_brand", "minor_version", "compatible_brands")
_MOST_NAMED = 8
# Keys such as com.apple.quicktime.make and com.android.version.
_REVERSE_DOMAIN = re.compile(r"[a-z]+\.\w+\.")
_LANGUAGE = re.compile(r"-[a-z]{3}$")
_COVERS = {"mjpeg": ("cover.jpg", "image/jpeg"), "png": ("cover.png", "image/png")}


@dataclass(frozen=True)
class OtherStreams:
    """How the streams that are not upscaled get into the result.

    Input 1 is the source, cut as the video is, and input 3, if there is one, all of it.
    """

    arguments: tuple[str, ...]  # -map, -c, -map_metadata, …
    notes: tuple[str, ...] = ()
    converted_sound: tuple[int, ...] = ()  # numbers in the result
    subtitles: tuple[int, ...] = ()
    needs_whole_source: bool = False


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

    @property
    def end(self) -> Fraction | None:
        """By the source's clock, None for its end."""
        return None if self.duration is None else self.origin + self.duration


def plan_other_streams(
    ffmpeg: str, info: VideoInfo, container: Container, job: Job, *, begins_later: bool
) -> OtherStreams:
    """Find out, by trying, what the container takes as it is and what not.

    `begins_later` says that the result does not begin where the source does.
    """
    others = [stream for stream in info.streams if stream != info.video]
    covers = [stream for stream in others if stream.attached_picture]
    plan = _Plan()
    kinds = {"audio", "subtitle", "attachment"}
    if container.name == "webm":  # whose writer drops them without a word
        kinds.remove("attachment")
    wanted = [stream for stream in others if stream.kind in kinds]
    copied = [(stream, "copy") for stream in wanted]
    all_fit = bool(wanted) and _fits(ffmpeg, info, container, copied, job)
    for stream in others:
        if stream in covers or _is_told_otherwise(ffmpeg, info, stream):
            continue
        tries = ["copy"] if stream in wanted else []
        if not all_fit and stream.kind == "audio":
            tries += container.audio
        if not all_fit and stream.kind == "subtitle":
            tries += container.subtitles
        fit = (
            codec
            for codec in tries
            if all_fit or _fits(ffmpeg, info, container, [(stream, codec)], job)
        )
        plan.add(stream, next(fit, None))
    has_cover = False
    for stream in covers:
        added = _cover_arguments(ffmpeg, info, container, job, stream, plan.streams)
        has_cover |= plan.add_cover(stream, added)
    plan.arguments += _without_statistics(info.video, 0)
    # The result is opaque, whatever lay beside the source's frames.
    plan.arguments += ["-metadata:s:0", "alpha_mode="]
    said = info.tags | info.video.tags
    if begins_later and any(key.lower() == "timecode" for key in said):
        plan.arguments += ["-metadata", "timecode=", "-metadata:s:0", "timecode="]
        plan.notes.append("the timecode is left out: it is the source's first frame's")
    has_keys = any(map(_REVERSE_DOMAIN.match, info.tags))
    # ffmpeg writes either such keys or a cover.
    if container.is_mp4 and has_keys and not has_cover:
        plan.arguments += ["-movflags", "+use_metadata_tags"]
    needs_source = container.is_mp4 and has_cover
    return OtherStreams(
        tuple(plan.arguments),
        tuple(plan.notes),
        tuple(plan.converted_sound),
        tuple(plan.subtitles),
        needs_source,
    )


class _Plan:
    """Arguments and notes for one stream after the other."""

    def __init__(self) -> None:
        self.streams = 1  # number 0 is the video
        self.arguments: list[str] = []
        self.notes: list[str] = []
        self.converted_sound: list[int] = []
        self.subtitles: list[int] = []

    def add(self, stream: Stream, codec: str | None) -> None:
        """Take that stream, copied or encoded; without a codec leave it out."""
        about = f"stream {stream.index} ({stream.kind}, {stream.codec})"
        if codec is None:
            self.notes.append(f"{about} is left out")
            return
        number = self.streams
        self.arguments += ["-map", f"1:{stream.index}", f"-c:{number}", codec]
        self.arguments += [f"-map_metadata:s:{number}", f"1:s:{stream.index}"]
        self.arguments += _without_statistics(stream, number)
        self.streams += 1
        self.subtitles += [number] if stream.kind == "subtitle" else []
        if codec != "copy":
            self.converted_sound += [number] if stream.kind == "audio" else []
            self.notes.append(
                f"{about} becomes {codec}, since the container cannot hold it"
            )

    def add_cover(self, stream: Stream, arguments: Sequence[str]) -> bool:
        """Take a cover by these arguments; whether there are any."""
        if not arguments:
            self.notes.append(f"stream {stream.index} (cover) is left out")
            return False
        self.arguments += arguments
        self.streams += 1
        return True


def lost_tags(ffmpeg: str, info: VideoInfo, path: Path) -> list[str]:
    """Notes about what the source says of itself and the result at `path` does not."""
    kept = {key.lower() for key in read_metadata(ffmpeg, path).tags}
    kept |= {*_OF_CONTAINER, "encoder", "timecode", "duration"}
    # What is said in one language is also there without it.
    lost = [k for k in info.tags if not {k.lower(), _LANGUAGE.sub("", k)} & kept]
    if not lost:
        return []
    named = printable(", ".join(lost[:_MOST_NAMED]))
    more = f" and {len(lost) - _MOST_NAMED} more" if len(lost) > _MOST_NAMED else ""
    return [f"the container has no place for some metadata: {named}{more}"]


def _is_told_otherwise(ffmpeg: str, info: VideoInfo, stream: Stream) -> bool:
    """Whether all that a stream of data says gets into the result without it.

    In MP4 and QuickTime files, chapters and a timecode are such streams, too.
    """
    if stream.kind != "data":
        return False
    timecode = stream.tags.get("timecode")
    if timecode is not None and timecode == info.video.tags.get("timecode"):
        return True
    if not info.chapters or stream.codec != "bin_data":
        return False
    # A chapter's title after its length; or no packet, since the demuxer took them all.
    one = ["-map", f"0:{stream.index}", "-c", "copy", "-frames:d", "1"]
    found = run_ffmpeg(
        ffmpeg, [*source_arguments(info.path), *one, "-f", "data", "pipe:1"]
    )
    length, text = int.from_bytes(found.stdout[:2]), found.stdout[2:]
    titles = {chapter.tags.get("title", "") for chapter in info.chapters}
    return text[:length].decode("utf-8", "surrogateescape") in titles | {""}


def _without_statistics(stream: Stream, output: int) -> list[str]:
    counted = (key for key in stream.tags if _STATISTICS.fullmatch(key))
    return [word for key in counted for word in (f"-metadata:s:{output}", f"{key}=")]


def _cover_arguments(
    ffmpeg: str,
    info: VideoInfo,
    container: Container,
    job: Job,
    stream: Stream,
    output: int,
) -> list[str]:
    """How a cover becomes stream number `output`; empty where it cannot.

    In Matroska it is an attachment: as a stream it would be a second video.
    """
    if container.is_mp4:
        if not _fits(ffmpeg, info, container, [(stream, "copy")], job):
            return []
        return [
            *("-map", f"3:{stream.index}", f"-c:{output}", "copy"),
            *(f"-disposition:{output}", "attached_pic"),
        ]
    known = stream.tags.get("filename"), stream.tags.get("mimetype")
    usual = _COVERS.get(stream.codec, (None, None))
    name, mime = known[0] or usual[0], known[1] or usual[1]
    if container.name != "matroska" or name is None or mime is None:
        return []
    file = job.part_file(f"cover-{stream.index}")
    copy = ["-map", f"0:{stream.index}", "-c", "copy", "-frames:v", "1"]
    made = run_ffmpeg(
        ffmpeg,
        [*source_arguments(info.path), *copy, "-f", "data", "-y", f"file:{file}"],
    )
    if made.returncode or not file.stat().st_size:
        return []
    about = (f"-metadata:s:{output}", f"mimetype={mime}")
    return ["-attach", f"file:{file}", *about, about[0], f"filename={name}"]


def _fits(
    ffmpeg: str,
    info: VideoInfo,
    container: Container,
    streams: Sequence[tuple[Stream, str]],
    job: Job,
) -> bool:
    maps: list[str] = []
    for output, (stream, codec) in enumerate(streams):
        maps += ["-map", f"0:{stream.index}", f"-c:{output}", codec]
        if stream.attached_picture:
            maps += [f"-disposition:{output}", "attached_pic"]
    with tempfile.NamedTemporaryFile(dir=job.folder, suffix=".part") as file:
        tried = run_ffmpeg(
            ffmpeg,
            [
                *("-t", "2", *source_arguments(info.path), *maps),
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
    chapters = job.part_file("chapters")
    chapters.write_text(
        format_chapters(chapters_between(info.chapters, result.origin, result.end)),
        *("utf-8", "surrogateescape"),
    )
    before, after = _cut(result)
    whole = source_arguments(info.path) if others.needs_whole_source else []
    brands = [w for key in _OF_CONTAINER for w in ("-metadata", f"{key}=")]
    command = [
        *(ffmpeg, *log_arguments("warning", reads_pipe=True), "-copyts"),
        *("-itsoffset", seconds(-shift), "-f", "matroska", "-i", "pipe:0"),
        *(*before, *source_arguments(info.path)),
        *("-f", "ffmetadata", "-i", f"file:{chapters}", *whole),
        *("-map", "0:v", "-c:0", "copy", *container.options, *others.arguments),
        *("-map_metadata", "1", "-map_metadata:s:0", f"1:s:{info.video.index}"),
        *("-map_chapters", "2", *brands, "-metadata:s:0", "encoder="),
        *("-disposition:0", "default", *after),
        *("-output_ts_offset", seconds(-result.origin)),
        # Otherwise Matroska's track numbers are random: the same frames, another file.
        *("-fflags", "+bitexact", "-f", container.name, "-y", f"file:{part}"),
    ]
    _feed(command, _stream(job, info.time_base, shift), part)


def _cut(result: Result) -> tuple[list[str], list[str]]:
    """What tells ffmpeg which part of the source is the result, and of its container.

    Arguments for before the source's file, and for the output.
    """
    info, others = result.info, result.others
    begins_later = result.origin != info.start
    before: list[str] = []
    after: list[str] = []
    trim: list[str] = []
    if begins_later:
        # By the source's own clock: with times relative to its beginning, ffmpeg leaves
        # out copied sound before the cut only in files that begin at 0. Of sound that
        # is converted, it must then leave that to a filter.
        before = ["-noaccurate_seek", "-seek_timestamp", "1", "-ss"]
        before += [seconds(result.origin)]
        trim += [f"start={seconds(result.origin)}"]
    if result.end is not None:
        # With -copyts, the time by the output's clock before it is moved.
        after += ["-t", seconds(result.end)]
        trim += [f"end={seconds(result.end)}"]
    if trim:
        for number in others.converted_sound:
            after += [f"-filter:{number}", f"atrim={':'.join(trim)}"]
    if result.container.is_mp4:
        after += ["-video_track_timescale", str(info.time_base.denominator)]
        after += ["-tag:v", "hvc1"] if result.codec == "h265" else []
        # One that is on screen at the cut would come with a time before 0, which moves
        # those after it. Not elsewhere: Matroska's writer then moves all alike, and
        # ffmpeg 5 tells the filter another unit of time there than the packets have.
        for number in others.subtitles if begins_later else ():
            early = f"lt(pts*tb\\,{seconds(result.origin)})"
            after += [f"-bsf:{number}", f"noise=amount=0:drop={early}"]
    # A cut leaves out sound before it; else what comes before 0 primes the decoder.
    after += ["-copypriorss", "0"] if begins_later else []
    return before, after


def _feed(command: Sequence[str], stream: Iterable[bytes], part: Path) -> None:
    """Run an ffmpeg that reads `stream` and writes `part`. Raises `VideoError`."""
    with tempfile.TemporaryFile() as log:
        with starting(command[0]):
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stderr=log, process_group=0
            )
        assert process.stdin is not None
        try:
            with suppress(BrokenPipeError), process.stdin as pipe:
                for piece in stream:
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
        try:
            tracks, packets = read_packets(path)
            if len(packets) != len(segment.times):
                raise MatroskaError(
                    f"holds {len(packets)} frames, not {len(segment.times)}"
                )
        except MatroskaError as error:
            job.reject(number)
            raise VideoError(f"{printable(path)}: is damaged ({error})") from error
        if not number:
            first_tracks = tracks
            yield stream_header(tracks)
        elif tracks != first_tracks:
            raise VideoError(
                f"{printable(path)}: was encoded otherwise than the first segment; "
                "begin anew with --overwrite"
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
