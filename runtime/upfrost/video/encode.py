"""Upscaled frames to segments: an encoder of its own for each, written by a thread.

Segments begin with a key frame and know nothing of each other, so that a run that was
stopped and went on gives the file of one that was not.
"""

from __future__ import annotations

import os
import queue
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Protocol

from upfrost.gpu.frame import Samples
from upfrost.text import printable
from upfrost.video.ffmpeg import (
    VideoError,
    ended_by,
    last_error,
    log_arguments,
    starting,
    widen,
)
from upfrost.video.job import Segment
from upfrost.video.matroska import frame_header, raw_video_header

BEHIND = 3  # frames that wait for the encoder
# Packets are told apart by their times in milliseconds; rounding takes up to one.
_APART = Fraction(2, 1000)  # seconds


@dataclass(frozen=True)
class Encoding:
    """All that an encoder is told. Sizes are of the upscaled frames."""

    width: int
    height: int
    pixel_aspect: Fraction | None
    frame_rate: Fraction | None
    time_base: Fraction
    filters: str
    arguments: tuple[str, ...]
    pixel_format: str
    fourcc: bytes  # of raw frames
    frame_bytes: int
    colour: bytes = b""  # what their header says besides, as Matroska's element

    @property
    def command(self) -> list[str]:
        """From raw frames on stdin to Matroska."""
        return [
            *("-f", "matroska", "-probesize", "32", "-analyzeduration", "0"),
            *("-i", "pipe:0", "-map", "0:v", "-vf", self.filters),
            *("-fps_mode", "passthrough", "-enc_time_base", _rational(self.time_base)),
            # bitexact: no random track number, so that all headers are the same.
            *(*self.arguments, "-fflags", "+bitexact", "-f", "matroska"),
        ]

    @property
    def header(self) -> bytes:
        return raw_video_header(
            *(self.width, self.height, self.pixel_aspect, self.frame_rate),
            *(self.fourcc, self.colour),
        )


def try_encoding(ffmpeg: str, encoding: Encoding) -> None:
    """Encode one frame, so that what cannot work fails before the work begins.

    Raises `VideoError`.
    """
    size = encoding.frame_bytes
    frame = encoding.header + frame_header(Fraction(0), size) + bytes(size)
    log_of_pipe = log_arguments(reads_pipe=True)
    with starting(ffmpeg):
        tried = subprocess.run(
            [ffmpeg, *log_of_pipe, *encoding.command, "-y", os.devnull],
            input=frame,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
        )
    if tried.returncode:
        log = tried.stderr.decode(errors="replace").splitlines()
        raise VideoError(
            f"ffmpeg cannot encode {encoding.width}×{encoding.height} frames with "
            f"{encoding.arguments[1]}: {last_error(log)}"
        )


class Segments(Protocol):
    """Where finished segments go: a `Job`, or who sends them to one."""

    def part_file(self, name: str) -> Path: ...

    def add(self, part: Path, segment: Segment) -> None: ...


class SegmentWriter:
    """Encodes frames in segments of `length` frames and adds them to the job."""

    def __init__(
        self, ffmpeg: str, job: Segments, encoding: Encoding, length: int
    ) -> None:
        self._ffmpeg = ffmpeg
        self._job = job
        self._encoding = encoding
        self._length = length
        self._queue: queue.Queue[_Item | None] = queue.Queue(BEHIND)
        self._error: BaseException | None = None
        self._stopped = False
        self._alive: set[subprocess.Popen[bytes]] = set()
        # One: while a segment is being finished, the next one is encoded.
        self._finisher = ThreadPoolExecutor(1)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(
        self, pts: int, duration: int | None, crc: int, picture: Sequence[Samples]
    ) -> None:
        """Hand over the next frame's planes. Raises what went wrong before it."""
        if self._error is not None:
            raise self._error
        self._queue.put(_Item(pts, duration, crc, picture))

    def finish(self) -> None:
        """Finish the last segment. Raises what went wrong."""
        self._queue.put(None)
        while self._thread.is_alive():
            self._thread.join(0.2)  # a signal is handled in between
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """End it all at once; segments that are not complete are lost."""
        self._stopped = True
        for process in tuple(self._alive):
            process.kill()
        while self._thread.is_alive():
            with suppress(queue.Full):
                self._queue.put_nowait(None)
            for process in tuple(self._alive):
                process.kill()
            self._thread.join(0.01)
        self._finisher.shutdown()

    def _run(self) -> None:
        finishing: Future[None] | None = None
        segment: _Encoder | None = None
        try:
            while not self._stopped and (item := self._queue.get()) is not None:
                segment = self._start()
                while item is not None:
                    segment.write(item)
                    if len(segment.items) == self._length or self._stopped:
                        break
                    item = self._queue.get()
                segment.end()
                if finishing is not None:
                    finishing.result()
                finishing = self._finisher.submit(self._finish, segment)
                segment = None
                if item is None:
                    break
            if finishing is not None:
                finishing.result()
        except BaseException as error:
            self._error = error
            if segment is not None:
                segment.discard()
            # Whoever puts something must not wait for ever.
            while not self._stopped and self._queue.get() is not None:
                pass

    def _start(self) -> _Encoder:
        part = self._job.part_file(os.urandom(4).hex())
        encoder = _Encoder(self._ffmpeg, self._encoding, part)
        self._alive.add(encoder.process)
        return encoder

    def _finish(self, encoder: _Encoder) -> None:
        try:
            encoder.wait()
        finally:
            self._alive.discard(encoder.process)
            encoder.discard()
        if self._stopped:
            return
        last = encoder.items[-1]
        self._job.add(
            encoder.part,
            Segment(
                tuple(item.pts for item in encoder.items),
                last.duration,
                tuple(item.crc for item in encoder.items),
            ),
        )


@dataclass(eq=False)
class _Item:
    pts: int
    duration: int | None
    crc: int
    picture: Sequence[Samples] | None


class _Encoder:
    """One encoder process that writes one segment."""

    def __init__(self, ffmpeg: str, encoding: Encoding, part: Path) -> None:
        self.part = part
        self.items: list[_Item] = []
        self._base = encoding.time_base
        self._end = Fraction(0)  # of the last frame, as the encoder is told
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        # -nostdin is for those who do not read from it.
        log_of_pipe = log_arguments("warning", reads_pipe=True)
        with starting(ffmpeg):
            self.process = subprocess.Popen(
                [ffmpeg, *log_of_pipe, *encoding.command, "-y", f"file:{part}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._log,
                process_group=0,
            )
        assert self.process.stdin is not None
        self._pipe = self.process.stdin
        widen(self._pipe)
        self._write([encoding.header])

    def write(self, item: _Item) -> None:
        assert item.picture is not None
        first = self.items[0].pts if self.items else item.pts
        moment = max((item.pts - first) * self._base, self._end)
        self._end = moment + _APART
        head = frame_header(moment, sum(plane.nbytes for plane in item.picture))
        self._write([head, *(plane.data.cast("B") for plane in item.picture)])
        item.picture = None
        self.items.append(item)

    def end(self) -> None:
        """No more frames."""
        with suppress(BrokenPipeError):  # what it did not take, it will say
            self._pipe.close()

    def wait(self) -> None:
        """Wait until the file is complete. Raises `VideoError`."""
        if self.process.wait():
            raise VideoError(self._reason())

    def discard(self) -> None:
        """End it if it goes on, and free what it holds."""
        self.process.kill()
        self.process.wait()
        self.end()
        self._log.close()

    def _write(self, parts: Iterable[bytes | memoryview]) -> None:
        try:
            for part in parts:
                self._pipe.write(part)
            self._pipe.flush()
        except BrokenPipeError:
            self.process.wait()
            raise VideoError(self._reason()) from None

    def _reason(self) -> str:
        by = ended_by(self.process.returncode)
        if by is not None:
            return f"the encoder was ended by {by}"
        self._log.seek(0)
        log = self._log.read().decode(errors="replace").splitlines()
        return f"the encoder failed: {printable(last_error(log))}"


def _rational(value: Fraction) -> str:
    return f"{value.numerator}:{value.denominator}"
