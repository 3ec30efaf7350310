"""Videos in and out: decode, upscale and encode at the same time, in segments.

The decoder and the encoders are processes of their own; threads carry frames between
them and this process, which has the device. See `job` for how a run that was
stopped goes on.
"""

from __future__ import annotations

import functools
import hashlib
import os
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from upfrost import __version__
from upfrost.files import ExistsError, check_file, publish
from upfrost.gpu.execution import IN_FLIGHT
from upfrost.gpu.frame import FULL_CHROMA, ChromaFormat, FrameFormat, Samples
from upfrost.gpu.frame import Frame as PlaneFrame
from upfrost.gpu.tiles import frame_tiling
from upfrost.image.record import Computer, Record
from upfrost.status import Status, duration
from upfrost.text import printable
from upfrost.video.color import (
    Conversion,
    conversion,
    fourcc,
    has_luma,
    lost_in_result,
    luma_conversion,
    refuse_hdr,
)
from upfrost.video.decode import Decoder, Frame
from upfrost.video.encode import Encoding, SegmentWriter, try_encoding
from upfrost.video.ffmpeg import (
    VideoError,
    VideoInfo,
    VideoUsageError,
    ffmpeg_version,
    find_ffmpeg,
    probe,
)
from upfrost.video.formats import (
    CODECS,
    CONTAINERS,
    Codec,
    Container,
    encoder_arguments,
)
from upfrost.video.frames import Counts, FrameUpscaler, Later, Picture
from upfrost.video.job import (
    RESULT,
    Job,
    is_unfinished,
    open_job,
    remove_published,
)
from upfrost.video.matroska import RGB24, colour
from upfrost.video.mux import (
    OtherStreams,
    Result,
    lost_tags,
    plan_other_streams,
    write_result,
)

if TYPE_CHECKING:
    from upfrost.gpu.upscaler import Upscaler
    from upfrost.network.graph import Graph

_SHORT = Fraction(1)  # seconds that may be missing at a file's end


@dataclass(frozen=True)
class VideoOptions:
    """What a user may choose. Times are seconds from the video's beginning."""

    codec: str | None = None
    crf: int | None = None
    preset: str | None = None
    start: Fraction = Fraction(0)
    duration: Fraction | None = None
    deinterlace: Literal["auto", "always", "never"] = "auto"
    tone_map: bool = False
    segment: Fraction | None = None  # None: as is good for the codec
    ffmpeg: str | None = None
    resume: bool = False
    overwrite: bool = False


@dataclass
class VideoRecord(Record):
    """What `--json` says of a video."""

    codec: str | None = None
    path: str | None = None  # which way frames go: luma or RGB, and of how many bits
    frames: int | None = None  # in the result
    resumed_frames: int | None = None  # of these, made by earlier runs
    computed_frames: int | None = None  # by this run, as are the next three
    duplicate_frames: int | None = None
    black_frames: int | None = None
    computed_share: float | None = None  # of the computed frames' pixels; rest: bars
    frames_per_second: float | None = None
    speed: float | None = None  # seconds of video in a second
    # Of a cluster: what each worker did, and how fast; bytes of pieces and segments.
    workers: dict[str, dict[str, float]] | None = None
    sent_bytes: int | None = None
    received_bytes: int | None = None


@dataclass(frozen=True)
class Work:
    """Everything about one video that is settled before its first frame."""

    ffmpeg: str
    info: VideoInfo
    conversion: Conversion
    encoding: Encoding
    container: Container
    codec: Codec
    segment_frames: int
    begin: Fraction  # by the source's clock
    end: Fraction | None

    @property
    def expected_frames(self) -> int | None:
        """About how many frames the result has; None where nothing tells."""
        end, rate = self.end, self.info.frame_rate
        if self.info.duration is not None:
            last = self.info.start + self.info.duration
            end = last if end is None else min(end, last)
        return max(1, round((end - self.begin) * rate)) if end and rate else None

    def result(self, others: OtherStreams) -> Result:
        length = None if self.end is None else self.end - self.begin
        codec = self.codec.name
        return Result(self.info, self.container, codec, self.begin, length, others)


# Raises what is wrong with the output that is asked for, as soon as that is known.
Check = Callable[[], object]
# Adds the segments that are missing to a job, and says in the record how.
MakeSegments = Callable[[Work, Job, Check, Status, VideoRecord], None]


def upscale_video(
    source: Path,
    target: Path,
    upscaler: Upscaler,
    options: VideoOptions,
    status: Status,
    record: VideoRecord,
) -> None:
    """Upscale `source` to `target`; fills in `record`.

    Raises `VideoError`, or what the upscaler raises. Finished segments then stay
    beside `target` for a run with `resume`.
    """
    upscale_by_segments(
        source,
        target,
        upscaler,
        options,
        status,
        record,
        lambda work, job, *told: _upscale_frames(work, job, upscaler, *told),
    )


def upscale_by_segments(
    source: Path,
    target: Path,
    computer: Computer,
    options: VideoOptions,
    status: Status,
    record: VideoRecord,
    make_segments: MakeSegments,
) -> None:
    """`upscale_video`, whoever makes the segments by what `computer` says of itself."""
    began = time.perf_counter()
    name = printable(target)
    container = _container(target)
    if target.is_symlink():
        target = target.resolve()  # followed, as where pictures are written
    if _is_complete(source, target, options):
        record.status = "skipped"
        status.say(f"{name}: is there, and no unfinished run beside it")
        return
    ffmpeg = find_ffmpeg(options.ffmpeg)
    work = plan_work(ffmpeg, source, container, computer.graph, options)
    record.input_size = (work.info.width, work.info.height)
    record.output_size = (work.encoding.width, work.encoding.height)
    record.codec = work.codec.name
    record.path = work.conversion.path
    record.describe(computer)
    status.say(
        f"{name}: {computer.graph.name} by {record.path}; {work.codec.name}, "
        f"{work.encoding.pixel_format}"
    )
    job = open_job(
        target,
        _asked(work, computer, options),
        resume=options.resume,
        overwrite=options.overwrite,
    )
    try:
        if not job.replaces and target.exists():
            raise _taken(name)
        note(work.conversion.notes, source, status, record)
        record.resumed_frames = job.frames
        with ThreadPoolExecutor(1) as beside:
            trying = beside.submit(_try_output, work, job, bool(options.start))

            @functools.cache
            def others() -> OtherStreams:
                tried = trying.result()
                note(tried.notes, source, status, record)
                return tried

            make_segments(work, job, others, status, record)
            if not job.segments:
                raise VideoError(f"{printable(source)}: there is no frame to upscale")
            result = work.result(others())
        _finish(work, job, result, target, status, record)
    except OSError as error:
        raise VideoError(f"{name}: {error.strerror}{_go_on(job)}") from error
    except VideoError as error:
        raise VideoError(
            f"{name}: {_without(str(error), name)}{_go_on(job)}"
        ) from error
    # A signal, or the upscaler's own, which says more than a VideoError would.
    except BaseException:
        if job.segments:
            status.warn(f"upfrost: {name}: {job.frames} frames are done{_go_on(job)}")
        raise
    finally:
        job.close()
    record.seconds["all"] = round(time.perf_counter() - began, 6)
    record.status = "done"


def _is_complete(source: Path, target: Path, options: VideoOptions) -> bool:
    """Whether an earlier run has made all of it, as a run with `resume` takes it.

    Raises `TargetError` where the result may not be written.
    """
    try:
        check_file(target, overwrite=options.overwrite, read=(source,))
    except ExistsError:
        if not options.resume:
            raise
        return remove_published(target) or not is_unfinished(target)
    return False


def _finish(
    work: Work,
    job: Job,
    result: Result,
    target: Path,
    status: Status,
    record: VideoRecord,
) -> None:
    """Make one file of the segments, under its name once it is whole on disk."""
    began = time.perf_counter()
    part = job.part_file(RESULT)
    write_result(work.ffmpeg, job, result, part)
    lost = lost_tags(work.ffmpeg, work.info, part)
    lost += lost_in_result(work.ffmpeg, work.conversion, part)
    note(lost, work.info.path, status, record)
    with part.open("rb") as file:
        os.fsync(file.fileno())
    if job.replaces:
        part.replace(target)
    else:
        try:
            publish(part, target, target)
        except FileExistsError:
            raise _taken(printable(target)) from None
    job.remove()
    record.frames = job.frames
    record.seconds["mux"] = round(time.perf_counter() - began, 6)


def _taken(name: str) -> VideoError:
    """What is said of a file that came to be where the result is to go."""
    return VideoError(
        f"{name}: exists, was not there when the run began, and is left alone; move it "
        "away"
    )


def _try_output(work: Work, job: Job, begins_later: bool) -> OtherStreams:
    """Whether the encoder and the container take what they are to be given.

    What cannot work is to fail before the work begins. Meanwhile the decoder starts,
    and the device has the first frames.
    """
    try_encoding(work.ffmpeg, work.encoding)
    return plan_other_streams(
        *(work.ffmpeg, work.info, work.container, job), begins_later=begins_later
    )


def note(
    notes: Sequence[str], source: Path, status: Status, record: VideoRecord
) -> None:
    """Say what a user may want to know of a source."""
    for text in notes:
        status.warn(f"upfrost: {printable(source)}: {text}")
    record.notes += notes


def _go_on(job: Job) -> str:
    """What to do about an error, if there is anything to go on with."""
    return "; --resume goes on from there" if job.segments else ""


def _without(text: str, name: str) -> str:
    return text.removeprefix(f"{name}: ")


def _container(target: Path) -> Container:
    try:
        return CONTAINERS[target.suffix.lower()]
    except KeyError:
        raise VideoUsageError(
            f"{printable(target)}: the name does not end in .mkv, .mp4, .m4v, .mov or "
            ".webm"
        ) from None


def plan_work(
    ffmpeg: str,
    source: Path,
    container: Container,
    graph: Graph,
    options: VideoOptions,
) -> Work:
    """Settle what is done with a video. Raises `VideoError` for what cannot be."""
    codec = CODECS[options.codec or container.codecs[0]]
    if codec.name not in container.codecs:
        raise VideoUsageError(
            f"a {container.name} file holds {', '.join(container.codecs)}, "
            f"not {codec.name}"
        )
    _check_options(codec, options)
    info = probe(ffmpeg, source, options.start)
    by_luma = graph.colour == "luma" and has_luma(info)
    if not by_luma and not options.tone_map:
        advice = "upfrost video --tone-map makes it an ordinary (BT.709) picture, "
        if has_luma(info):
            advice += "a model for luma takes it as it is"
        else:
            advice += "and of YCbCr in place of RGB a model for luma takes it as it is"
        refuse_hdr(info, advice)
    convert = luma_conversion if by_luma else conversion
    colors = convert(info, deinterlace=options.deinterlace, tone_map=options.tone_map)
    scale = graph.scale
    width, height = info.width * scale, info.height * scale
    kind = colors.kind
    if kind is None and codec.lossless_rgb:
        pixel_format = "gbrp"
    else:
        pixel_format = colors.encoded_format(codec)
        colors = _with_losses(colors, codec)
    _check_size(codec, pixel_format, width, height)
    filters = (colors.from_planes if kind else colors.from_rgb)(pixel_format)
    if info.pixel_aspect:
        filters += f",setsar={info.pixel_aspect}"
    encoding = Encoding(
        width=width,
        height=height,
        pixel_aspect=info.pixel_aspect,
        frame_rate=info.frame_rate,
        time_base=info.time_base,
        filters=filters,
        arguments=(
            *encoder_arguments(codec, options.crf, options.preset, colors),
            # Encoders that ffmpeg takes for such of limited range would get that.
            *(("-color_range", str(colors.colors.range)) if kind else ()),
        ),
        pixel_format=pixel_format,
        fourcc=fourcc(kind) if kind else RGB24,
        frame_bytes=kind.frame_bytes(height, width) if kind else 3 * width * height,
        colour=colour(colors.mastering, colors.light),
    )
    begin = info.start + options.start
    return Work(
        ffmpeg=ffmpeg,
        info=info,
        conversion=colors,
        encoding=encoding,
        container=container,
        codec=codec,
        segment_frames=max(
            8, round((info.frame_rate or 25) * (options.segment or codec.segment))
        ),
        begin=begin,
        end=None if options.duration is None else begin + options.duration,
    )


def _check_options(codec: Codec, options: VideoOptions) -> None:
    """Refuse what that encoder would ignore, or complain of without a reason."""
    if options.crf is not None and codec.crf is None:
        raise VideoUsageError(f"{codec.name} is lossless: --crf means nothing to it")
    if options.crf is not None and options.crf > codec.most_crf:
        # x264 would take its largest for it without a word, and x265 give no reason.
        raise VideoUsageError(
            f"--crf {options.crf}: {codec.name} takes 0 to {codec.most_crf}"
        )
    if options.preset is not None and codec.presets is None:
        raise VideoUsageError(f"--preset means nothing to {codec.name}")
    is_number = options.preset is not None and options.preset.lstrip("-").isdecimal()
    if options.preset is not None and is_number != (codec.presets == "numbers"):
        takes = "a name, as slow" if is_number else "a number, slowest at 0"
        raise VideoUsageError(
            f"--preset {printable(options.preset)}: {codec.name} takes {takes}"
        )
    if options.segment == 0:
        raise VideoUsageError("a segment of 0 s has no frame")
    if options.duration == 0:
        raise VideoUsageError("a duration of 0 s leaves no frame to upscale")


def _check_size(codec: Codec, pixel_format: str, width: int, height: int) -> None:
    """Refuse odd sides that the encoder does not take, as a model by 3 makes."""
    is_420, is_422 = "420" in pixel_format, "422" in pixel_format
    if codec.even and ((is_420 and height % 2) or ((is_420 or is_422) and width % 2)):
        others = [each.name for each in CODECS.values() if not each.even]
        raise VideoError(
            f"{codec.name} takes no frames of {width}×{height} in {pixel_format}, "
            f"whose sides have to be even; {', '.join(others)} do (--codec), and a "
            "model by 2 makes even sides"
        )


def _with_losses(colors: Conversion, codec: Codec) -> Conversion:
    """`colors`, with notes of what the encoder cannot keep."""
    notes, siting = list(colors.notes), colors.siting
    if codec.nearest(colors.subsampling) != colors.subsampling:
        siting = None  # it is where the conversion puts it
    if codec.nearest(colors.subsampling) < colors.subsampling:
        kept = ":".join(codec.nearest(colors.subsampling))
        notes.append(f"{codec.name}: chroma reduced to {kept}")
    if colors.kind and codec.bits < colors.kind.bits:
        notes.append(f"{codec.name}: reduced to {codec.bits} bits a sample")
    return replace(colors, notes=tuple(notes), siting=siting)


def _asked(work: Work, computer: Computer, options: VideoOptions) -> dict[str, object]:
    """All that decides what the frames of the result are."""
    about = work.info.path.stat()
    device = computer.device
    return {
        "input": [work.info.path.name, about.st_size, about.st_mtime_ns],
        "model": f"{computer.graph.name} {_fingerprint(computer.graph)}",
        "device": device.name,
        "driver": [device.driver, device.driver_version, device.api_version],
        "precision": computer.precision,
        # Kernels of other versions, or that 'upfrost tune' chose, may round otherwise.
        "upfrost": __version__,
        "tuning": computer.tuned_kernels,
        "ffmpeg": ffmpeg_version(work.ffmpeg),
        "start": str(options.start),
        "duration": str(options.duration),
        "segment length": work.segment_frames,
        "conversion": work.conversion.to_frames,
        "encoding": [work.encoding.filters, *work.encoding.arguments],
        "container": work.container.name,
    }


def _fingerprint(graph: Graph) -> str:
    digest = hashlib.sha256()
    digest.update(repr((graph.nodes, graph.output, graph.value_range)).encode())
    for name, tensor in sorted(graph.tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()[:16]


def _upscale_frames(
    work: Work,
    job: Job,
    upscaler: Upscaler,
    check: Check,
    status: Status,
    record: VideoRecord,
) -> None:
    """Decode what is not yet done, upscale it, encode it as segments.

    Before the first frame's result is waited for, `check` raises what must not begin.
    """
    clock = Clock()
    frames = frame_upscaler(work, upscaler)
    progress = _Progress(work, record, status)
    writer = SegmentWriter(work.ffmpeg, job, work.encoding, work.segment_frames)
    source = Source(work, job)
    began = time.perf_counter()
    try:
        for done, (frame, large) in enumerate(
            upscaled(source, frames, work, clock, check), start=1
        ):
            write_frame(writer, frame, large)
            progress.advance(done)
            clock.lap("encode")
        writer.finish()
        clock.lap("encode")
    finally:
        source.close()
        writer.close()
        status.clear()
        account(record, work, frames.counts, time.perf_counter() - began)
        record.seconds |= {key: round(value, 6) for key, value in clock.spent.items()}
    check_source(work, source, status, record)


class Clock:
    """How long each phase of the work on frames took, in seconds."""

    def __init__(self) -> None:
        self.spent = {"decode": 0.0, "upscale": 0.0, "encode": 0.0}
        self._mark = time.perf_counter()

    def lap(self, phase: str) -> None:
        """Say that all since the last lap was `phase`."""
        now = time.perf_counter()
        self.spent[phase] += now - self._mark
        self._mark = now


def frame_upscaler(work: Work, upscaler: Upscaler) -> FrameUpscaler[Picture]:
    """What upscales that video's frames."""

    def begin(frame: Picture) -> Later[Picture]:
        if isinstance(frame, PlaneFrame):
            return upscaler.start_frame(frame).result
        return upscaler.start(frame).result

    return FrameUpscaler(
        begin,
        upscaler.graph.scale,
        frame_tiling(upscaler.tiling, _chroma(work.conversion.kind, upscaler)),
        work.info.height,
        work.info.width,
    )


def upscaled(
    source: Iterable[Frame],
    frames: FrameUpscaler[Picture],
    work: Work,
    clock: Clock,
    check: Check = lambda: None,
) -> Iterator[tuple[Frame, Picture]]:
    """Each decoded frame, with what it became.

    While the device works on one frame, the last one's bytes are read, and whoever
    asks for them writes the next one's. `check` is called before any is waited for.
    """
    height, width, kind = work.info.height, work.info.width, work.conversion.kind
    waiting: deque[tuple[Frame, Later[Picture]]] = deque()

    def first() -> tuple[Frame, Picture]:
        check()
        frame, result = waiting.popleft()
        large = result()
        clock.lap("upscale")
        return frame, large

    for frame in source:
        clock.lap("decode")
        result = frames.start(
            PlaneFrame.of_bytes(kind, height, width, frame.pixels)
            if kind
            else frame.pixels.reshape(height, width, 3)
        )
        waiting.append((frame, result))
        clock.lap("upscale")
        if len(waiting) == IN_FLIGHT:
            yield first()
    while waiting:
        yield first()


def write_frame(writer: SegmentWriter, frame: Frame, large: Picture) -> None:
    """Hand what became of a frame to the encoder."""
    planes: tuple[Samples, ...] = (
        large.planes if isinstance(large, PlaneFrame) else (large,)
    )
    writer.put(frame.pts, frame.duration, zlib.crc32(frame.pixels.data), planes)


def _chroma(kind: FrameFormat | None, upscaler: Upscaler) -> ChromaFormat | None:
    """How colours lie that are enlarged beside the network's luma, if they are."""
    if kind is not None:
        return kind.chroma
    return FULL_CHROMA if upscaler.graph.channels == 1 else None


def account(record: VideoRecord, work: Work, counts: Counts, wall: float) -> None:
    """Say what was done in that many seconds."""
    record.computed_frames = counts.computed
    record.duplicate_frames = counts.duplicate
    record.black_frames = counts.black
    area = work.info.width * work.info.height * counts.computed
    record.computed_share = round(counts.pixels / area, 4) if area else None
    record.frames_per_second = round(counts.frames / wall, 3)
    if work.info.frame_rate:
        record.speed = round(counts.frames / wall / float(work.info.frame_rate), 4)


class Decoded(Protocol):
    """What came to light while a video was decoded."""

    @property
    def errors(self) -> list[str]: ...

    @property
    def error_count(self) -> int: ...

    @property
    def last(self) -> int | None: ...  # the last frame's time

    @property
    def sizes(self) -> set[tuple[int, int]]: ...

    @property
    def formats(self) -> set[str]: ...

    @property
    def interlaced(self) -> int: ...  # frames


def check_source(
    work: Work, source: Decoded, status: Status, record: VideoRecord
) -> None:
    """Say what was wrong with the input; what could be decoded is kept."""
    notes: list[str] = []
    info = work.info
    if source.errors:
        more = f" and {source.error_count - 1} more" if source.error_count > 1 else ""
        notes.append(
            f"damaged: {source.errors[0]}{more}; what could be decoded is kept"
        )
    expected = None if info.duration is None else info.start + info.duration
    if work.end is not None:
        expected = work.end if expected is None else min(expected, work.end)
    if expected is not None and source.last is not None:
        missing = expected - (source.last + 1) * info.time_base
        step = 1 / info.frame_rate if info.frame_rate else Fraction(0)
        if missing > _SHORT + step:
            notes.append(
                f"the video ends {float(missing):.1f} s before the file's length: cut "
                "short, or it is shorter than the sound"
            )
    if len(source.sizes) > 1:
        notes.append("frames of several sizes, brought to that of the first")
    if len(source.formats) > 1:
        notes.append(
            f"frames of several formats ({'; '.join(sorted(source.formats))}), all "
            "taken for the first's: cut it where they change (--start, --duration)"
        )
    if (
        source.interlaced
        and not info.interlaced
        and "bwdif" not in (work.conversion.to_frames)
    ):
        notes.append(
            f"{source.interlaced} frames are interlaced; --deinterlace always "
            "makes pictures of them"
        )
    note(notes, info.path, status, record)


class Source:
    """The frames that are not done yet, wherever an earlier run ended."""

    def __init__(self, work: Work, job: Job) -> None:
        self.last: int | None = None
        self._work = work
        self._job = job
        self._decoder: Decoder | None = None
        is_cut = work.begin > work.info.start
        self._beginning = work.begin if is_cut else None

    @property
    def errors(self) -> list[str]:
        return self._decoder.errors if self._decoder else []

    @property
    def error_count(self) -> int:
        return self._decoder.error_count if self._decoder else 0

    @property
    def interlaced(self) -> int:
        return self._decoder.interlaced if self._decoder else 0

    @property
    def sizes(self) -> set[tuple[int, int]]:
        return self._decoder.sizes if self._decoder else set()

    @property
    def formats(self) -> set[str]:
        return self._decoder.formats if self._decoder else set()

    def __iter__(self) -> Iterator[Frame]:
        for frame in self._wanted():
            self.last = frame.pts
            yield frame

    def close(self) -> None:
        if self._decoder is not None:
            self._decoder.close()

    def _wanted(self) -> Iterator[Frame]:
        count = self._job.segments
        if not count:
            yield from self._decode(self._beginning)
            return
        # Seeking is quick, but not every file can be decoded from its middle with the
        # same result: frames that were decoded before must come out again.
        position = self._job.segment(count - 1).times[0] * self._work.info.time_base
        frames = iter(self._decode(position))
        if self._same(frames, count - 1):
            yield from frames
            return
        self.close()
        frames = iter(self._decode(self._beginning))
        if not self._same(frames, 0):
            raise VideoError(
                "the input is not decoded as it was before; begin anew with --overwrite"
            )
        yield from frames

    def _same(self, frames: Iterator[Frame], first: int) -> bool:
        """Whether the next frames are those of the segments from `first` on.

        Earlier frames are passed over.
        """
        begun = False
        for pts, crc in self._expected(first):
            frame = next(frames, None)
            while not begun and frame is not None and frame.pts < pts:
                frame = next(frames, None)
            if frame is None or frame.pts != pts:
                return False
            if zlib.crc32(frame.pixels.data) != crc:
                return False
            self.last = pts
            begun = True
        return True

    def _expected(self, first: int) -> Iterator[tuple[int, int]]:
        for number in range(first, self._job.segments):
            segment = self._job.segment(number)
            yield from zip(segment.times, segment.sums, strict=True)

    def _decode(self, position: Fraction | None) -> Iterator[Frame]:
        """Frames from `position` on that lie in the part that was asked for."""
        work = self._work
        base = work.info.time_base
        # Some files mark frames as key frames that are none.
        seek = position if work.info.seekable else None
        kind, info = work.conversion.kind, work.info
        size = kind.frame_bytes(info.height, info.width) if kind else None
        self._decoder = Decoder(
            work.ffmpeg, info, work.conversion.to_frames, seek, size
        )
        for frame in self._decoder:
            moment = frame.pts * base
            if work.end is not None and moment >= work.end:
                return
            # Half a unit: what was asked for in decimals need not fall on a frame.
            if position is None or moment > work.begin - base / 2:
                yield frame


class _Progress:
    """Frames, rate, speed and time left, on the status line."""

    def __init__(self, work: Work, record: VideoRecord, status: Status) -> None:
        self._status = status
        self._rate = work.info.frame_rate
        self._done = record.resumed_frames or 0
        self._total = work.expected_frames
        self._began = time.monotonic()
        status.begin(printable(work.info.path))

    def advance(self, frames: int) -> None:
        self._status.count(self._done + frames, self._total)
        if not self._status.is_due():
            return
        seconds = max(time.monotonic() - self._began, 1e-9)
        rate = frames / seconds
        done = self._done + frames
        total = f" of {max(self._total, done)}" if self._total else ""
        text = f"frame {done}{total}, {rate:.2f} frames/s"
        if self._rate:
            text += f", {rate / float(self._rate):.2f}× real time"
        if self._total and rate:
            text += f", {duration(max(0, self._total - done) / rate)} left"
        self._status.show(text)
