"""A video's frames as raw bytes with exact timestamps, read ahead by a thread."""

from __future__ import annotations

import queue
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from io import BufferedReader
from typing import IO, cast

import numpy as np

from upfrost.arrays import Bytes
from upfrost.text import printable
from upfrost.video.ffmpeg import (
    LOG,
    FrameLine,
    VideoError,
    VideoInfo,
    ended_by,
    parse_colors,
    parse_frame,
    seconds,
    source_arguments,
    split_level,
    starting,
    widen,
)

AHEAD = 3  # frames that are decoded before they are asked for
MARGIN = Fraction(1)  # seconds that seeking goes back further than it must
_KEPT_ERRORS = 20
_END = None


@dataclass(frozen=True, eq=False)
class Frame:
    """A decoded frame: its bytes, and its time in units of the time base."""

    pts: int
    duration: int | None
    pixels: Bytes


class Decoder:
    """An ffmpeg that decodes, from `position` seconds of the file's clock on.

    Frames are what `filters` make of them, flat: H·W·3 bytes of RGB, or `frame_bytes`
    of planes.

    Iterate over it once. `errors` holds what ffmpeg complained about, up to then. A
    decoder that does not come to the file's end raises `VideoError`: its frames are
    not all that could be decoded.
    """

    def __init__(
        self,
        ffmpeg: str,
        info: VideoInfo,
        filters: str,
        position: Fraction | None = None,
        frame_bytes: int | None = None,
    ) -> None:
        self.errors: list[str] = []
        self.error_count = 0
        self.interlaced = 0
        self.sizes: set[tuple[int, int]] = set()
        self.formats: set[str] = set()  # with range and matrix: "yuv420p, tv, bt709"
        self._info = info
        self._frame_bytes = frame_bytes or info.height * info.width * 3
        self._lines: queue.SimpleQueue[FrameLine | None] = queue.SimpleQueue()
        self._frames: queue.Queue[Frame | BaseException | None] = queue.Queue(AHEAD)
        self._closed = False
        self._interrupted = False  # by a signal that ffmpeg ended of its own accord for
        # -ss counts from the beginning of the file, -copyts leaves times alone.
        begin = Fraction(0) if position is None else position - info.start - MARGIN
        seek = ["-ss", seconds(begin)] if begin > 0 else []
        source = [*seek, *source_arguments(info.path)]
        base = info.time_base
        output = [
            *("-map", f"0:{info.video.index}", "-vf"),
            f"showinfo@given=checksum=0,{filters},showinfo@made=checksum=0",
            # An output that counted frames at an even rate would complain of others.
            *("-fps_mode", "passthrough"),
            *("-enc_time_base", f"{base.numerator}:{base.denominator}"),
            *("-f", "rawvideo", "pipe:1"),
        ]
        with starting(ffmpeg):
            self._process = subprocess.Popen(
                [ffmpeg, *LOG, "-copyts", *source, *output],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                process_group=0,  # Ctrl-C is for the process that handles it
            )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._pipe = cast("BufferedReader", self._process.stdout)
        widen(self._pipe)
        self._threads = [
            threading.Thread(target=self._follow, args=[self._process.stderr]),
            threading.Thread(target=self._read),
        ]
        for thread in self._threads:
            thread.daemon = True
            thread.start()

    def __iter__(self) -> Iterator[Frame]:
        while (item := self._frames.get()) is not _END:
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        """End the process and the threads, whatever they are at."""
        self._closed = True
        self._process.kill()
        self._process.wait()
        for thread in self._threads:
            while thread.is_alive():
                with suppress(queue.Empty):
                    self._frames.get_nowait()
                thread.join(0.01)
        self._pipe.close()

    def _follow(self, log: IO[bytes]) -> None:
        """Read the log: lines of `showinfo` for each frame, and errors."""
        pixel_format = ""
        with log:
            for raw in log:
                line = raw.decode(errors="replace").rstrip()
                if line.startswith("[showinfo@made "):
                    frame = parse_frame(line)
                    if frame is not None:
                        self._lines.put(frame)
                    continue
                if line.startswith("[showinfo@given "):
                    frame = parse_frame(line)
                    if frame is not None:
                        self.interlaced += frame.interlaced
                        self.sizes.add((frame.width, frame.height))
                        pixel_format = frame.pixel_format
                    elif colors := parse_colors(line):
                        known = filter(None, (colors.range, colors.matrix))
                        self.formats.add(", ".join((pixel_format, *known)))
                    continue
                level, text = split_level(line)
                if text.startswith("Exiting normally, received signal"):
                    self._interrupted = True
                if level in ("error", "fatal", "panic"):
                    self.error_count += 1
                    if len(self.errors) < _KEPT_ERRORS:
                        text = re.sub(r"^\[[^\]]*\] ", "", text)
                        self.errors.append(printable(text.strip()))
        self._lines.put(_END)

    def _read(self) -> None:
        last: int | None = None
        base, rate = self._info.time_base, self._info.frame_rate
        step = max(1, round(1 / rate / base)) if rate else 1
        try:
            while (pixels := self._next_pixels()) is not None:
                line = self._lines.get()
                if line is _END:
                    break
                pts = line.pts
                if pts is None:
                    # Raw streams say no times: count.
                    pts = 0 if last is None else last + step
                elif last is not None and pts <= last:
                    pts = last + 1  # damaged files go back; nothing can encode that
                last = pts
                self._frames.put(Frame(pts, line.duration, pixels))
            code = self._process.wait()
            self._threads[0].join()
            if not self._closed:
                self._check_end(code)
        except BaseException as error:
            self._frames.put(error)
        else:
            self._frames.put(_END)

    def _check_end(self, code: int) -> None:
        """Raise `VideoError` unless the process came to the end of what there is."""
        name = printable(self._info.path)
        if ended_by(code) or self._interrupted:
            by = ended_by(code) or "a signal"
            why = " (is there enough memory?)" if by == "SIGKILL" else ""
            raise VideoError(f"{name}: the decoder was ended by {by}{why}")
        if any("Cannot allocate memory" in error for error in self.errors):
            raise VideoError(f"{name}: the decoder ran out of memory")
        if code and not self.errors:
            raise VideoError(f"{name}: the decoder failed with code {code}")

    def _next_pixels(self) -> Bytes | None:
        """A whole frame, None at the end."""
        pixels = np.empty(self._frame_bytes, np.uint8)
        whole = not self._closed and self._pipe.readinto(pixels.data) == pixels.size
        return pixels if whole else None
