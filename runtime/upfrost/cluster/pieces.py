"""A video cut at its key frames: a segment's compressed packets, to be decoded alone.

The packets are those of the source. They go into Matroska with times in nanoseconds,
so that a frame has the tick it has in the source, whatever that one's time base is. A
piece begins at a key frame before its segment, early enough that at least one frame of
the segment before comes out again, by which a cut is found that decodes otherwise than
the whole video does.
"""

from __future__ import annotations

import heapq
import os
import queue
import re
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from io import BufferedReader
from typing import IO, cast

from upfrost.video.decode import MARGIN
from upfrost.video.ffmpeg import (
    LOG,
    FfmpegMissingError,
    VideoError,
    VideoInfo,
    last_error,
    seconds,
    source_arguments,
    starting,
    widen,
)
from upfrost.video.matroska import (
    MatroskaError,
    frame_header,
    read_stream,
    stream_header,
)
from upfrost.video.upscale import Work

# A frame is shown at most 16 frames later than it is decoded (H.264 and H.265, A.4).
_REORDER = 32
_MOST_BEFORE = 1000  # frames that are decoded in vain for a segment
_TIME_BASE = re.compile(rb"#tb 0: (\d+)/(\d+)$")
_DISCARD = 4  # AV_PKT_FLAG_DISCARD: to be decoded, not to be shown
_KEY = 1


class CutError(VideoError):
    """A video that cannot be cut so that its pieces surely decode as the whole does."""


@dataclass(frozen=True)
class Packet:
    """A compressed frame. Times are in units of the source's time base."""

    index: int  # in the order of decoding
    pts: int
    duration: int
    keyframe: bool
    shown: bool
    data: bytes


@dataclass(frozen=True)
class Piece:
    """What one segment is made of. `times` are those of its frames, and no others."""

    number: int
    times: tuple[int, ...]
    origin: int  # the time that is 0 in the piece
    # Frames from here to the first of `times` were in earlier segments, too.
    compared_from: int | None
    data: bytes


@dataclass(frozen=True)
class Part:
    """Which frames are wanted: those of a part of the video that are not done yet."""

    begin: Fraction | None  # by the source's clock, in seconds
    end: Fraction | None
    after: int | None  # the last frame that is done
    base: Fraction

    def begun(self, pts: int) -> bool:
        if self.after is not None:
            return pts > self.after
        # Half a unit: what was asked for in decimals need not fall on a frame.
        return self.begin is None or pts * self.base > self.begin - self.base / 2

    def ended(self, pts: int) -> bool:
        return self.end is not None and pts * self.base >= self.end


def cut(work: Work, first: int, after: int | None) -> Iterator[Piece]:
    """The pieces of all segments from number `first` on, one after the other.

    `after` is the time of the last frame that is done. Raises `CutError` where a cut
    would not surely do; the pieces before are good.
    """
    info = work.info
    beginning = work.begin if work.begin > info.start else None
    position = beginning if after is None else after * info.time_base
    if position is not None and not info.seekable:
        raise CutError("it cannot be decoded from its middle")
    part = Part(beginning, work.end, after, info.time_base)
    # A picture that is made of fields is made of its neighbours, too.
    context = 2 if "bwdif" in work.conversion.to_frames else 0
    source = PacketSource(work.ffmpeg, info, position)
    try:
        yield from _Cutter(part, work.segment_frames, context).pieces(source, first)
    except MatroskaError as error:
        raise CutError(f"{error}") from error
    finally:
        source.close()


class _Cutter:
    """Packets in the order of decoding in, pieces of `length` frames out."""

    def __init__(self, part: Part, length: int, context: int) -> None:
        self._part = part
        self._length = length
        self._context = context
        self._packets: list[Packet] = []  # that may be needed yet
        self._later: list[tuple[int, int, Packet]] = []  # frames of unknown order
        self._frames: list[Packet] = []  # in the order in which they are shown
        self._start: int | None = None  # of the next segment, among these
        self._ended = False

    def pieces(self, source: PacketSource, number: int) -> Iterator[Piece]:
        for packet in source:
            self._packets.append(packet)
            if packet.shown:
                heapq.heappush(self._later, (packet.pts, packet.index, packet))
            if len(self._later) > _REORDER:
                self._show(heapq.heappop(self._later)[2])
            if self._start is None or self._ended:
                self._forget()
            while self._is_whole():
                yield self._piece(number, source.tracks, self._length)
                number += 1
            if self._ended and not self._remaining():
                return
        while self._later:
            self._show(heapq.heappop(self._later)[2])
        while left := self._remaining():
            yield self._piece(number, source.tracks, min(left, self._length))
            number += 1

    def _show(self, packet: Packet) -> None:
        if self._frames and packet.pts <= self._frames[-1].pts:
            raise CutError("its frames' times are not in order")
        if self._start is None and self._part.begun(packet.pts):
            self._start = len(self._frames)
        self._frames.append(packet)
        self._ended = self._part.ended(packet.pts)

    def _remaining(self) -> int:
        """How many frames that are wanted are in no piece yet."""
        if self._start is None:
            return 0
        if not self._ended:
            return len(self._frames) - self._start
        frames = self._frames[self._start :]
        return sum(not self._part.ended(frame.pts) for frame in frames)

    def _is_whole(self) -> bool:
        """Whether all that the next segment needs is there."""
        if self._start is None:
            return False
        left = self._remaining()
        after = len(self._frames) - self._start - min(left, self._length)
        return after >= self._context and (
            left >= self._length or (self._ended and left > 0)
        )

    def _piece(self, number: int, tracks: bytes, length: int) -> Piece:
        assert self._start is not None
        length = min(length, self._remaining())
        stop = self._start + length
        needed = self._frames[
            max(0, self._start - 1 - self._context) : stop + self._context
        ]
        wanted = self._frames[self._start : stop]
        has_lead = self._start > 0
        lead = self._start - 1 - self._context
        begin = (
            self._key(needed[0].pts, min(p.index for p in needed)) if lead >= 0 else 0
        )
        if begin is None:
            raise CutError("there is no key frame before a segment")
        last = max(packet.index for packet in needed)
        packets = [p for p in self._packets[begin:] if p.index <= last]
        if sum(p.pts < wanted[0].pts for p in packets) > _MOST_BEFORE:
            raise CutError("its key frames lie too far apart")
        origin = min(packet.pts for packet in packets)
        compared_from = None
        if has_lead:
            # With fields, the first picture had other neighbours.
            compared_from = packets[0].pts + min(1, self._context)
        piece = Piece(
            number,
            tuple(packet.pts for packet in wanted),
            origin,
            compared_from,
            stream_header(tracks) + b"".join(self._blocks(packets, origin)),
        )
        self._start = stop
        self._forget()
        return piece

    def _blocks(self, packets: Iterable[Packet], origin: int) -> Iterator[bytes]:
        base = self._part.base
        for packet in packets:
            yield frame_header(
                (packet.pts - origin) * base,
                len(packet.data),
                keyframe=packet.keyframe,
                duration=packet.duration * base if packet.duration > 0 else None,
            )
            yield packet.data

    def _key(self, pts: int, index: int) -> int | None:
        """The last key frame, among the packets, from which that one is decoded."""
        if self._packets and self._packets[0].index == 0:
            found: int | None = 0  # the beginning of the video
        else:
            found = None
        for place, packet in enumerate(self._packets):
            if packet.index > index:
                break
            if packet.keyframe and packet.shown and packet.pts <= pts:
                found = place
        return found

    def _forget(self) -> None:
        """Let go of what no piece will need."""
        start = len(self._frames) if self._start is None else self._start
        lead = start - 1 - self._context
        if lead <= 0:
            return
        ahead = [p.index for p in self._frames[lead:]]
        ahead += [index for _, index, _ in self._later]
        place = self._key(self._frames[lead].pts, min(ahead))
        if place:
            del self._packets[:place]
        del self._frames[:lead]
        if self._start is not None:
            self._start -= lead


class PacketSource:
    """An ffmpeg that copies the video's packets, from a key frame before `position`.

    Iterate over it once; `tracks` is there with the first packet.
    """

    def __init__(self, ffmpeg: str, info: VideoInfo, position: Fraction | None) -> None:
        self.tracks = b""
        self._base = info.time_base
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        begin = Fraction(0) if position is None else position - info.start - MARGIN
        seek = ["-ss", seconds(begin)] if begin > 0 else []
        reading, writing = os.pipe()
        copy = [
            *("-map", f"0:{info.video.index}", "-c", "copy", "-copyinkf"),
            *("-map_metadata", "-1", "-map_chapters", "-1", "-flush_packets", "1"),
        ]
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            with starting(ffmpeg):
                self._process = subprocess.Popen(
                    [
                        *(ffmpeg, *LOG, "-copyts", *seek),
                        *source_arguments(info.path),
                        *(*copy, "-fflags", "+bitexact", "-f", "matroska", "pipe:1"),
                        *(*copy, "-f", "framecrc", f"pipe:{writing}"),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=self._log,
                    pass_fds=[writing],
                    process_group=0,
                )
        except FfmpegMissingError:
            os.close(reading)
            self._log.close()
            raise
        finally:
            os.close(writing)
        assert self._process.stdout is not None
        self._pipe = cast("BufferedReader", self._process.stdout)
        widen(self._pipe)
        self._thread = threading.Thread(target=self._follow, args=[reading])
        self._thread.daemon = True
        self._thread.start()

    def __iter__(self) -> Iterator[Packet]:
        stream = read_stream(self._pipe)
        self.tracks = next(stream, b"")
        scale = Fraction(1)
        for index, data in enumerate(stream):
            while (line := self._lines.get()) is not None and line.startswith(b"#"):
                if found := _TIME_BASE.match(line.strip()):
                    scale = Fraction(int(found[1]), int(found[2])) / self._base
            if line is None:
                raise CutError("its packets are not those of the list")
            yield _packet(index, line, scale, data)
        if self._process.wait() or self._lines.get() is not None:
            self._log.seek(0)
            log = self._log.read().decode(errors="replace").split("\n")
            raise CutError(last_error(log))

    def close(self) -> None:
        """End the process, whatever it is at."""
        self._process.kill()
        self._process.wait()
        self._pipe.close()
        self._thread.join()
        self._log.close()

    def _follow(self, number: int) -> None:
        with open(number, "rb") as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put(None)


def _packet(index: int, line: bytes, scale: Fraction, data: bytes) -> Packet:
    """A line of the muxer `framecrc`: stream, dts, pts, duration, size, sum, flags."""
    fields = [field.strip() for field in line.split(b",")]
    flags = _KEY
    for field in fields[6:]:
        if field.startswith(b"F="):
            flags = int(field[2:], 16)
    try:
        pts, duration = (int(field) * scale for field in fields[2:4])
    except ValueError:
        raise CutError("its packets have no times") from None
    if pts.denominator != 1 or pts < -(1 << 62):
        raise CutError("its packets have no times in its time base")
    return Packet(
        index, int(pts), round(duration), bool(flags & _KEY), not flags & _DISCARD, data
    )
