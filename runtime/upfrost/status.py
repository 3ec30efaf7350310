"""What a long run shows on stderr: one living line on a terminal, plain lines else."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable
from typing import TextIO

PLAIN_INTERVAL = 10.0  # seconds between two lines about one picture or video
LIVE_INTERVAL = 0.1
SILENCE = 5.0  # seconds without a first result, after which it is said why
COMPILING = "the driver may be compiling kernels, which it then keeps"


class Status:
    """Progress of one run on a stream.

    Errors and warnings are always shown; progress is not when `quiet`. When nothing is
    done `silence` seconds after the first thing was begun, a line says why: on one
    machine a driver can take a minute to compile the kernels, and the program sees none
    of it.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
        silence: float = SILENCE,
    ) -> None:
        self._stream = stream
        self._quiet = quiet
        self._live = (
            not quiet and stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        )
        self._clock = clock
        self._label = ""
        self._pixels = 0
        self._began = self._shown = 0.0
        self._drawn = False
        self._silence = silence
        self._explanation: threading.Timer | None = None
        self._anything_done = False

    def begin(self, label: str, why: str = COMPILING) -> None:
        """Start on something with that name; `why` nothing may be done for a while."""
        self._label = label
        self.expect(0)
        self._draw(label)
        self._end_explanation()
        if not (self._quiet or self._anything_done):
            timer = threading.Timer(self._silence, self.show, [why])
            timer.daemon = True
            timer.start()
            self._explanation = timer

    def expect(self, pixels: int) -> None:
        """Start counting tiles of a result that has that many pixels."""
        self._pixels = pixels
        self._began = self._shown = self._clock()

    def advance(self, done: int, total: int) -> None:
        """Say that `done` of `total` tiles are done."""
        self.count(done, total)
        if not done or not self.is_due():
            return
        seconds = max(self._clock() - self._began, 1e-9)
        rate = self._pixels * done / total / seconds / 1e6
        rest = seconds * (total - done) / done
        text = (
            f"{100 * done // total:3d} %, {done} of {total} tiles, "
            f"{speed(rate)} Mpixel/s, {duration(rest)} left"
        )
        self.show(text)

    def count(self, done: int, total: int | None) -> None:
        """Nothing; who shows progress elsewhere than on a stream overrides it.

        Of a picture it is tiles that are done, of a video frames. How many there are
        in all is not always known.
        """

    def is_due(self) -> bool:
        """Whether it is time for another line of progress. Asked when there is some."""
        self._anything_done = True
        self._end_explanation()
        interval = LIVE_INTERVAL if self._live else PLAIN_INTERVAL
        return self._clock() - self._shown >= interval

    def show(self, text: str) -> None:
        """Say how far it is with what `begin` named."""
        self._shown = self._clock()
        if self._live:
            self._draw(self._label, text)
        else:
            self.say(f"{self._label}: {text.lstrip()}")

    def say(self, text: str) -> None:
        """A line of progress that stays."""
        if not self._quiet:
            self.warn(text)

    def warn(self, text: str) -> None:
        """A line that stays, quiet or not."""
        self.clear()
        self._write(text + "\n")

    def clear(self) -> None:
        """Take the living line away."""
        self._end_explanation()
        if self._drawn:
            self._write("\r\x1b[K")
            self._drawn = False

    def _end_explanation(self) -> None:
        """Not said any more from here on, nor being said."""
        timer = self._explanation
        if timer is not None and timer is not threading.current_thread():
            self._explanation = None
            timer.cancel()
            timer.join()

    def _draw(self, label: str, text: str = "") -> None:
        if not self._live:
            return
        # One column stays free: a full line would wrap on some terminals.
        width = shutil.get_terminal_size().columns - 1
        room = width - len(text) - 2 if text else width
        if len(label) > room:
            label = "…" + label[len(label) - room + 1 :] if room > 4 else ""
        line = f"{label}: {text}" if label and text else label or text
        self._write(f"\r\x1b[K{line[:width]}")
        self._drawn = True

    def _write(self, text: str) -> None:
        # A closed terminal is no reason to lose the work.
        with contextlib.suppress(OSError):
            self._stream.write(text)
            self._stream.flush()


def speed(rate: float) -> str:
    """A speed with two decimals, or more where these would show nothing of it."""
    return f"{rate:.2f}" if rate >= 0.1 or rate == 0 else f"{rate:.2g}"


def duration(seconds: float) -> str:
    """Minutes and seconds, with hours where there are some: ``1:02:03``."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d}"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
