"""A video upscaled by a cluster: its segments made by workers, filed as one machine's.

The client cuts pieces, one at a time and only as fast as workers take them, and adds
the segments that come back to the job in their order. So a run goes on, and its file is
written, as on one machine, whoever began it.

A cut is believed when it is proven. The first segment's frames are decoded here as
well, from the source, and each later piece begins so early that frames of the segment
before come out again: all of them must have the pixels they had. Where they have not,
or a video cannot be cut, frames are decoded here and sent without loss.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path

from upfrost.cluster import dispatch
from upfrost.cluster.connection import Cluster
from upfrost.cluster.dispatch import BadResultError, Dispatcher, Worker
from upfrost.cluster.pieces import CutError, cut
from upfrost.cluster.progress import WAITING, Speeds
from upfrost.cluster.work import (
    MadeSegment,
    OneSegment,
    SegmentOrder,
    Unlike,
    UnlikeError,
    decode_piece,
    upscale_segment,
)
from upfrost.status import Status
from upfrost.text import printable
from upfrost.video.color import fourcc, planar
from upfrost.video.decode import Frame
from upfrost.video.encode import Encoding, SegmentWriter
from upfrost.video.ffmpeg import VideoError
from upfrost.video.frames import Counts
from upfrost.video.job import Job, Segment
from upfrost.video.matroska import RGB24, MatroskaError, read_packets
from upfrost.video.upscale import (
    Check,
    Source,
    VideoOptions,
    VideoRecord,
    Work,
    account,
    check_source,
    note,
    upscale_by_segments,
    write_frame,
)

_MOST_ERRORS = 20
_KNOWN = 4000  # frames whose sums are remembered, to prove cuts by


def upscale_video(
    source: Path,
    target: Path,
    cluster: Cluster,
    options: VideoOptions,
    status: Status,
    record: VideoRecord,
) -> None:
    """`upfrost.video.upscale.upscale_video`, by the workers of a cluster.

    Raises `ClusterError`, too.
    """

    def make_segments(
        work: Work, job: Job, check: Check, status: Status, record: VideoRecord
    ) -> None:
        check()
        maker = _Maker(cluster, work, job, status, record)
        try:
            maker.make()
        finally:
            maker.tell()

    upscale_by_segments(
        source, target, cluster.fleet, options, status, record, make_segments
    )


@dataclass
class _Decoded:
    """What workers found while they decoded (`upfrost.video.upscale.Decoded`)."""

    last: int | None = None
    errors: list[str] = field(default_factory=list)
    error_count: int = 0
    interlaced: int = 0
    sizes: set[tuple[int, int]] = field(default_factory=set)
    formats: set[str] = field(default_factory=set)


@dataclass(eq=False)
class _Ready:
    """A segment that came back, and waits for those before it."""

    part: Path
    made: MadeSegment
    order: SegmentOrder
    piece: Path
    worker: Worker


class _Maker:
    """Makes the segments that a job lacks."""

    def __init__(
        self,
        cluster: Cluster,
        work: Work,
        job: Job,
        status: Status,
        record: VideoRecord,
    ) -> None:
        self._cluster = cluster
        self._work = work
        self._job = job
        self._status = status
        self._record = record
        self._ready: dict[int, _Ready] = {}
        self._known: dict[int, int] = {}  # sums of the last frames, by time
        self._decoded = _Decoded()
        self._counts = Counts()
        self._tracks = b""
        self._sent = self._received = 0  # bytes
        self._dispatcher: Dispatcher | None = None
        self._speeds = Speeds("frame", "frames/s", 1, work.expected_frames, status)
        self._speeds.resume(job.frames)
        self._began = time.perf_counter()

    def make(self) -> None:
        self._status.begin(printable(self._work.info.path), WAITING)
        if self._job.segments:
            self._remember()
        try:
            self._run(self._cut())
        except CutError as error:
            reason = f"cannot be cut ({error}): frames are decoded here and sent whole"
            note([reason], self._work.info.path, self._status, self._record)
            source = Source(self._work, self._job)
            try:
                self._run(self._decode(source))
            finally:
                source.close()
                self._decoded.errors += source.errors
                self._decoded.error_count += source.error_count
                self._decoded.interlaced += source.interlaced
                self._decoded.sizes |= source.sizes
                self._decoded.formats |= source.formats
        check_source(self._work, self._decoded, self._status, self._record)

    def tell(self) -> None:
        """Say in the record what was done."""
        self._status.clear()
        account(
            self._record,
            self._work,
            self._counts,
            time.perf_counter() - self._began,
        )
        self._record.workers = self._speeds.by_worker()
        self._record.sent_bytes = self._sent
        self._record.received_bytes = self._received
        self._record.notes += self._speeds.failed
        self._speeds.tell()

    def _run(self, pieces: Generator[dispatch.Piece]) -> None:
        dispatcher = Dispatcher(
            self._cluster.connection,
            upscale_segment,
            lambda text: self._status.warn(f"upfrost: {text}"),
            self._speeds.tick,
        )
        self._dispatcher = dispatcher
        try:
            self._cluster.run(dispatcher.run(pieces, self._accept))
        finally:
            self._speeds.add(dispatcher)
            self._sent += dispatcher.sent
            for ready in self._ready.values():
                ready.part.unlink(missing_ok=True)
            self._ready.clear()
            pieces.close()

    def _remember(self) -> None:
        """Take up what earlier runs made."""
        job = self._job
        first = max(0, job.segments - 1 - _KNOWN // self._work.segment_frames)
        for number in range(first, job.segments):
            segment = job.segment(number)
            self._learn(segment)
        try:
            self._tracks, _ = read_packets(job.segment_file(0))
        except MatroskaError as error:
            raise VideoError(f"{error}") from error

    def _learn(self, segment: Segment) -> None:
        self._known.update(zip(segment.times, segment.sums, strict=True))
        for pts in list(self._known)[: max(0, len(self._known) - _KNOWN)]:
            del self._known[pts]
        self._decoded.last = segment.times[-1]

    # Pieces

    def _cut(self) -> Generator[dispatch.Piece]:
        for piece in cut(self._work, self._job.segments, self._decoded.last):
            order = SegmentOrder(
                wanted=self._cluster.connection.wanted,
                work=self._work,
                times=piece.times,
                origin=piece.origin,
                compared_from=piece.compared_from,
            )
            path = self._job.part_file(f"piece-{piece.number}")
            path.write_bytes(piece.data)
            yield dispatch.Piece(piece.number, len(piece.times), order, path)

    def _decode(self, source: Source) -> Generator[dispatch.Piece]:
        """Frames that were decoded here, without loss."""
        work, number = self._work, self._job.segments
        kind, info = work.conversion.kind, work.info
        # Both ways nothing is rounded: FFV1 knows RGB as bgr0.
        sent = planar(kind.subsampling, kind.bits) if kind else "bgr0"
        taken = sent if kind else "rgb24"
        lossless = Encoding(
            width=info.width,
            height=info.height,
            pixel_aspect=None,
            frame_rate=info.frame_rate,
            time_base=info.time_base,
            filters=f"format={sent}",
            arguments=("-c:v", "ffv1", "-level", "3", "-g", "1"),
            pixel_format=sent,
            fourcc=fourcc(kind) if kind else RGB24,
            frame_bytes=kind.frame_bytes(info.height, info.width)
            if kind
            else 3 * info.width * info.height,
        )
        to_frames = f"format={taken},settb={info.time_base}"
        there = replace(
            work,
            conversion=replace(work.conversion, to_frames=to_frames),
        )
        frames = iter(source)
        while group := self._write_lossless(
            islice(frames, work.segment_frames), lossless, number
        ):
            path, segment = group
            order = SegmentOrder(
                wanted=self._cluster.connection.wanted,
                work=there,
                times=segment.times,
                decoded=True,
                last_duration=segment.last_duration,
                sums=segment.sums,
            )
            yield dispatch.Piece(number, len(segment.times), order, path)
            number += 1

    def _write_lossless(
        self, frames: Iterator[Frame], lossless: Encoding, number: int
    ) -> tuple[Path, Segment] | None:
        first = next(frames, None)
        if first is None:
            return None
        sent = OneSegment(self._job.part_file)
        writer = SegmentWriter(
            self._work.ffmpeg, sent, lossless, self._work.segment_frames + 1
        )
        try:
            for frame in chain([first], frames):
                write_frame(writer, frame, frame.pixels)
            writer.finish()
        finally:
            writer.close()
        part, segment = sent.result()
        return part.replace(self._job.part_file(f"piece-{number}")), segment

    # Results

    async def _accept(
        self, piece: dispatch.Piece, result: MadeSegment | Unlike, worker: Worker
    ) -> None:
        """Take a segment in, and file all that is there in its turn."""
        order: SegmentOrder = piece.order
        if isinstance(result, Unlike):
            if not order.decoded:
                await self._prove_cut(order, piece.path, None)
            raise BadResultError(f"it decoded {result.reason}")
        self._received += len(result.data)
        if hashlib.sha256(result.data).hexdigest() != result.sha256:
            raise BadResultError("what came back has another checksum")
        if result.segment.times != order.times:
            raise BadResultError("what came back has other frames")
        if order.sums is not None and result.segment.sums != order.sums:
            raise BadResultError("it decoded other frames than were sent")
        part = self._job.part_file(f"made-{piece.number}")
        await asyncio.to_thread(part.write_bytes, result.data)
        self._check_file(part, len(order.times))
        made = replace(result, data=b"")
        self._ready[piece.number] = _Ready(part, made, order, piece.path, worker)
        await self._file()

    def _check_file(self, part: Path, frames: int) -> None:
        try:
            tracks, packets = read_packets(part)
        except MatroskaError as error:
            part.unlink()
            raise BadResultError(f"what came back is damaged ({error})") from error
        if len(packets) != frames:
            part.unlink()
            raise BadResultError(f"{len(packets)} frames in place of {frames}")
        self._tracks = self._tracks or tracks
        if tracks != self._tracks:
            part.unlink()
            raise BadResultError("it encodes otherwise than the worker before it")

    async def _file(self) -> None:
        """Add to the job what may be added: segments whose frames are proven."""
        assert self._dispatcher is not None
        job = self._job
        while (ready := self._ready.pop(job.segments, None)) is not None:
            number = job.segments
            if not await self._is_proven(ready):
                await self._prove_cut(ready.order, ready.piece, ready.made)
                ready.part.unlink()
                self._dispatcher.again(
                    number, ready.worker, "it decoded other frames than were there"
                )
                return
            await asyncio.to_thread(job.add, ready.part, ready.made.segment)
            self._dispatcher.finish(number)
            self._learn(ready.made.segment)
            self._count(ready)

    async def _is_proven(self, ready: _Ready) -> bool:
        """Whether a segment's frames are those that the whole video has there."""
        segment = ready.made.segment
        if ready.order.decoded:
            return True  # they are compared with those that were sent
        if not self._job.segments:
            first = await asyncio.to_thread(self._first_frames)
            return first == list(zip(segment.times, segment.sums, strict=True))
        again = [(pts, crc) for pts, crc in ready.made.lead if pts in self._known]
        return bool(again) and all(self._known[pts] == crc for pts, crc in again)

    def _first_frames(self) -> list[tuple[int, int]]:
        source = Source(self._work, self._job)
        try:
            return [
                (frame.pts, zlib.crc32(frame.pixels.data))
                for frame in islice(source, self._work.segment_frames)
            ]
        finally:
            source.close()

    async def _prove_cut(
        self, order: SegmentOrder, piece: Path, made: MadeSegment | None
    ) -> None:
        """Find out who is to blame for other frames than were expected.

        Raises `CutError` where the piece decodes so here, too: then it is the cut.
        """
        try:
            lead, own = await asyncio.to_thread(decode_piece, order, piece)
        except UnlikeError as error:
            raise CutError(f"its pieces have {error}") from error
        if made is None:
            return
        segment = made.segment
        same = own == list(zip(segment.times, segment.sums, strict=True))
        if same and lead == list(made.lead):
            raise CutError("its pieces decode otherwise than the whole")

    def _count(self, ready: _Ready) -> None:
        made, counts, decoded = ready.made, self._counts, self._decoded
        for name in vars(counts):
            setattr(counts, name, getattr(counts, name) + getattr(made.counts, name))
        frames = len(made.segment.times)
        self._speeds.done(frames, frames)
        if ready.order.decoded:
            return
        decoded.errors += made.errors[: _MOST_ERRORS - len(decoded.errors)]
        decoded.error_count += len(made.errors)
        decoded.interlaced += made.interlaced
        decoded.sizes |= made.sizes
        decoded.formats |= made.formats
