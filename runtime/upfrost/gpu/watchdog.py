"""Ending a process whose device never answers."""

from __future__ import annotations

import faulthandler
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Watch = Callable[[float], AbstractContextManager[object]]
# A call is estimated at a tenth of a second at most, and Mali's kernel driver ends it
# after half a second.
SECONDS_A_CALL = 2.0
_TELL = 'read -r _ && printf "%s\\n" "$1" >&2'


class Watchdog:
    """Ends this process, exit code 1, when what it watches takes too long.

    Kompute waits for the device in C++ and holds Python's lock meanwhile: neither a
    signal handler nor another thread of Python's gets to run, and only the kernel
    could stop the wait. So the standard library's watchdog in C ends the process, and
    a child of ours, which hears of it, says why in one line.

    For a command's own process; a library must not end its caller's.
    """

    def __init__(self, message: str) -> None:
        self._message = message
        self._child: subprocess.Popen[bytes] | None = None

    @contextmanager
    def __call__(self, seconds: float) -> Iterator[None]:
        """A context that has `seconds` to be left."""
        if self._child is None:
            # It ends with us: its input does.
            self._child = subprocess.Popen(
                ["/bin/sh", "-c", _TELL, "sh", self._message],
                stdin=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for us, not for it
            )
        heard = self._child.stdin
        if heard is not None:
            faulthandler.dump_traceback_later(seconds, exit=True, file=heard.fileno())
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()

    def close(self) -> None:
        """Let the child go; it says nothing."""
        if self._child is not None:
            self._child.communicate()
            self._child = None

    def __enter__(self) -> Watchdog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
