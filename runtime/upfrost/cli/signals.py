"""Ending the process soon and tidily when it is told to stop."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

GRACE = 1.0  # seconds that unwinding may take
_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """A signal that ends the process; `code` is the exit code that says which."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number


@contextmanager
def prompt_stop(clean_up: Callable[[], None]) -> Iterator[None]:
    """In its block SIGINT, SIGTERM and SIGHUP raise `Stopped` in the main thread.

    Python raises between two of its own instructions, so a library's long call delays
    it. When the block is not left within `GRACE` seconds of the signal, `clean_up` is
    called from another thread and the process ends. Signals that were ignored (nohup,
    a shell's background job) stay ignored. For the main thread only.
    """

    stopping = False

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal stopping
        # A second signal must not interrupt what the first one's cleaning up does.
        if not stopping:
            stopping = True
            raise Stopped(number)

    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    left = threading.Event()

    def watch() -> None:
        for number in iter(lambda: os.read(reading, 1)[0], 0):
            if number in taken:
                if not left.wait(GRACE):
                    clean_up()
                    os._exit(128 + number)
                break

    taken = {
        number: signal.signal(number, stop)
        for number in _STOPS
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    previous = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    watcher = threading.Thread(target=watch, name="prompt stop", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        left.set()
        signal.set_wakeup_fd(previous)
        for number, handler in taken.items():
            signal.signal(number, handler)
        os.write(writing, b"\0")
        watcher.join()
        os.close(reading)
        os.close(writing)
