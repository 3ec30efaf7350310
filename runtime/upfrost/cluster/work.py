"""What a worker does: says what it is, and upscales a segment or a picture.

Dask calls these functions by their names in the worker's process, in threads of its
own. The device is for one of them at a time; while one encodes what is left, the next
one decodes ahead.
"""

from __future__ import annotations

import hashlib
import io
import os
import platform
import tempfile
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from upfrost import __version__
from upfrost.errors import UpfrostError
from upfrost.gpu.device import DeviceError
from upfrost.gpu.upscaler import Upscaler
from upfrost.image import batch
from upfrost.network.modelfile import bundled_models, read_model
from upfrost.status import Status
from upfrost.video.decode import Decoder, Frame
from upfrost.video.encode import SegmentWriter
from upfrost.video.ffmpeg import VideoError, ffmpeg_version, find_ffmpeg
from upfrost.video.frames import Counts
from upfrost.video.job import Segment
from upfrost.video.upscale import Clock, Work, frame_upscaler, upscaled, write_frame

_MODELS_KEPT = 4
_CANCELLED_KEPT = 1000  # tokens: far more than a worker has pieces at a time


class CancelledError(UpfrostError):
    """Work that nobody waits for any more."""


@dataclass(frozen=True)
class Wanted:
    """What the device is to be opened with; a model by its file's SHA-256."""

    model: str
    device: str | None
    precision: str
    tile: int | None
    memory: int | None
    halo: int | None


@dataclass(frozen=True)
class SegmentOrder:
    """A segment to be made of a piece. Times are in units of the source's time base."""

    wanted: Wanted
    work: Work
    times: tuple[int, ...]
    origin: int = 0  # the time that is 0 in the piece
    compared_from: int | None = None  # `lead` is of frames from here on
    # Of frames without times of their own, that were decoded before: how long the last
    # one is shown, and the CRC-32 of each.
    decoded: bool = False
    last_duration: int | None = None
    sums: tuple[int, ...] | None = None


@dataclass(frozen=True)
class MadeSegment:
    """A finished segment: the encoder's file, and all that is to be checked of it."""

    data: bytes
    sha256: str
    segment: Segment
    lead: tuple[tuple[int, int], ...]  # times and CRC-32 of frames before it
    errors: tuple[str, ...]
    sizes: frozenset[tuple[int, int]]
    formats: frozenset[str]
    interlaced: int
    counts: Counts


@dataclass(frozen=True)
class Unlike:
    """A piece whose frames are not those that it was cut for."""

    reason: str


@dataclass(frozen=True)
class PictureOrder:
    """A picture to be upscaled; names are those of its files, without folders."""

    wanted: Wanted
    source: str
    target: str
    options: batch.Options


@dataclass(frozen=True)
class MadePicture:
    """A picture's file, or None where it cannot be upscaled, and what is said of it."""

    data: bytes | None
    sha256: str
    record: batch.PictureRecord


class _Machine:
    """The device of this process, with the model that was asked for last."""

    def __init__(self) -> None:
        self.cancelled: deque[str] = deque(maxlen=_CANCELLED_KEPT)
        self._turn = threading.Lock()
        self._models: dict[str, bytes] = {}
        self._opened: tuple[Wanted, Upscaler] | None = None

    def keep(self, model: bytes) -> None:
        while len(self._models) >= _MODELS_KEPT:
            del self._models[next(iter(self._models))]
        self._models[hashlib.sha256(model).hexdigest()] = model

    def has(self, sha256: str) -> bool:
        if sha256 not in self._models:
            for path in bundled_models().values():
                data = path.read_bytes()
                if hashlib.sha256(data).hexdigest() == sha256:
                    self.keep(data)
        return sha256 in self._models

    @contextmanager
    def upscaler(self, wanted: Wanted, token: str = "") -> Iterator[Upscaler]:
        """The device, for whoever has it now. An error of its own closes it."""
        with self._turn:
            self.check(token)
            try:
                yield self._open(wanted)
            except DeviceError:
                self._close()
                raise

    def check(self, token: str) -> None:
        """Raise `CancelledError` where nobody waits for that work any more."""
        if token in self.cancelled:
            raise CancelledError("nobody waits for it any more")

    def _open(self, wanted: Wanted) -> Upscaler:
        if self._opened is not None and self._opened[0] == wanted:
            return self._opened[1]
        self._close()
        if not self.has(wanted.model):
            raise UpfrostError("the model is not here; the worker was started anew")
        with _workshop() as folder:
            path = folder / "model.upf"
            path.write_bytes(self._models[wanted.model])
            graph = read_model(path)
        self._opened = wanted, open_upscaler(graph, wanted)
        return self._opened[1]

    def _close(self) -> None:
        if self._opened is not None:
            self._opened[1].close()
            self._opened = None


_machine = _Machine()


def open_upscaler(graph: Any, wanted: Wanted) -> Upscaler:
    """The device with a model on it."""
    return Upscaler(
        graph,
        device=wanted.device,
        precision=wanted.precision,  # type: ignore[arg-type]  # checked by it
        tile=wanted.tile,
        memory=wanted.memory,
        halo=wanted.halo,
    )


def introduce(asked: dict[str, Any], model: bytes | None) -> dict[str, Any]:
    """What this worker is, with the model that is asked for; opens the device.

    To another version only plain values go. Without `model`, a worker that has none of
    that checksum says that it lacks it.
    """
    from distributed import get_worker

    here = get_worker()
    answer: dict[str, Any] = {
        "upfrost": __version__,
        "host": platform.node(),
        # The address, unless somebody gave it another one.
        "name": None if here.name == here.address else str(here.name),
        "nanny": here.nanny,
        "processors": len(os.sched_getaffinity(0)),
        "ffmpeg": None,
    }
    if asked["upfrost"] != __version__:
        return answer
    if asked["video"]:
        answer["ffmpeg"] = ffmpeg_version(find_ffmpeg())
    wanted = Wanted(**asked["wanted"])
    if model is not None:
        _machine.keep(model)
    if not _machine.has(wanted.model):
        return answer | {"lacks": wanted.model}
    with _machine.upscaler(wanted) as upscaler:
        return answer | {
            "device": upscaler.device,
            "precision": upscaler.precision,
            "tuned": upscaler.tuned_kernels,
        }


def cancel(token: str) -> None:
    """Say that nobody waits for that work any more."""
    _machine.cancelled.append(token)


def upscale_segment(
    token: str, order: SegmentOrder, data: bytes
) -> MadeSegment | Unlike:
    """Decode a piece, upscale its frames, encode them; `cancel` knows it by `token`.

    Raises `VideoError`, or what the upscaler raises.
    """
    work = replace(order.work, ffmpeg=find_ffmpeg())
    with _workshop() as folder:
        path = folder / "piece.mkv"
        path.write_bytes(data)
        decoder = _decoder(work, path)
        try:
            return _make_segment(token, order, work, decoder, folder)
        except UnlikeError as error:
            return Unlike(str(error))
        finally:
            decoder.close()


def decode_piece(
    order: SegmentOrder, path: Path
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Times and CRC-32 of the frames before a segment, and of its own.

    Raises `UnlikeError` where they are not those that the piece was cut for.
    """
    decoder = _decoder(order.work, path)
    try:
        frames = _Frames(order, decoder)
        own = [(frame.pts, zlib.crc32(frame.pixels.data)) for frame in frames]
        return frames.lead, own
    finally:
        decoder.close()


def _decoder(work: Work, path: Path) -> Decoder:
    """What decodes a piece as the whole video is decoded."""
    info, kind = work.info, work.conversion.kind
    video = replace(info.video, index=0)
    return Decoder(
        work.ffmpeg,
        replace(info, path=path, video=video, start=Fraction(0)),
        work.conversion.to_frames,
        frame_bytes=kind.frame_bytes(info.height, info.width) if kind else None,
    )


class UnlikeError(Exception):
    """Frames that are not those that a piece was cut for."""


def _make_segment(
    token: str, order: SegmentOrder, work: Work, decoder: Decoder, folder: Path
) -> MadeSegment:
    frames = _Frames(order, decoder)
    finished = OneSegment(lambda name: folder / f"{name}.part")
    # One frame more than there are: one segment, whatever comes.
    writer = SegmentWriter(work.ffmpeg, finished, work.encoding, len(order.times) + 1)
    try:
        with _machine.upscaler(order.wanted, token) as upscaler:
            through = frame_upscaler(work, upscaler)
            for frame, large in upscaled(frames, through, work, Clock()):
                _machine.check(token)
                write_frame(writer, frame, large)
        writer.finish()
    finally:
        writer.close()
    part, segment = finished.result()
    made = part.read_bytes()
    return MadeSegment(
        data=made,
        sha256=hashlib.sha256(made).hexdigest(),
        segment=segment,
        lead=tuple(frames.lead),
        errors=tuple(decoder.errors[frames.errors_before :]),
        sizes=frozenset(decoder.sizes),
        formats=frozenset(decoder.formats),
        interlaced=min(decoder.interlaced, len(segment.times)),
        counts=through.counts,
    )


class _Frames:
    """The frames that a piece was cut for, at the source's times.

    Raises `UnlikeError` where they are others.
    """

    def __init__(self, order: SegmentOrder, decoder: Decoder) -> None:
        self.lead: list[tuple[int, int]] = []
        self.errors_before = 0  # of frames that are not the segment's
        self._order = order
        self._decoder = decoder

    def __iter__(self) -> Iterator[Frame]:
        order = self._order
        times, first, done = order.times, order.compared_from, 0
        for frame in self._decoder:
            if done == len(times):
                break
            if order.decoded:
                frame = replace(frame, pts=times[done], duration=order.last_duration)
            pts = frame.pts + order.origin
            if pts < times[0]:
                if first is not None and pts >= first:
                    self.lead.append((pts, zlib.crc32(frame.pixels.data)))
                self.errors_before = self._decoder.error_count
                continue
            if pts != times[done]:
                raise UnlikeError(f"a frame at {pts} in place of {times[done]}")
            done += 1
            yield replace(frame, pts=pts)
        if done < len(times):
            raise UnlikeError(f"{done} frames in place of {len(times)}")


class OneSegment:
    """Takes the one segment that a `SegmentWriter` makes, in a file of that name."""

    def __init__(self, part_file: Callable[[str], Path]) -> None:
        self.part_file = part_file
        self._result: tuple[Path, Segment] | None = None

    def add(self, part: Path, segment: Segment) -> None:
        self._result = part, segment

    def result(self) -> tuple[Path, Segment]:
        if self._result is None:
            raise VideoError("the encoder made no segment")
        return self._result


def upscale_picture(token: str, order: PictureOrder, data: bytes) -> MadePicture:
    """Upscale a picture's file; what is wrong with it is in the record.

    Raises `DeviceError`: another worker may do better.
    """
    with _workshop() as folder:
        # Under its own name, which decides what it is taken for.
        (folder / "in").mkdir()
        (folder / "out").mkdir()
        job = batch.Job(folder / "in" / order.source, folder / "out" / order.target)
        job.source.write_bytes(data)
        record = batch.PictureRecord(str(job.source), str(job.target))
        with _machine.upscaler(order.wanted, token) as upscaler:
            quiet = Status(io.StringIO(), quiet=True)
            batch.upscale_job(job, upscaler, order.options, quiet, record)
        made = job.target.read_bytes() if record.error is None else None
    return MadePicture(made, hashlib.sha256(made or b"").hexdigest(), record)


@contextmanager
def _workshop() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(
        prefix="upfrost-", dir=_folder(), ignore_cleanup_errors=True
    ) as name:
        yield Path(name)


def _folder() -> str | None:
    """The worker's own folder, which Dask removes also after a kill."""
    from distributed import get_worker

    try:
        return str(get_worker().local_directory)
    except ValueError:
        return None
