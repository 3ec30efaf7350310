"""Keep libraries' own messages from a terminal where one line says what is wrong."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_STDERR = 2


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing reaches stderr, neither Python's warnings nor what C code writes there.

    Of the whole process: for commands, not for libraries.
    """
    try:
        kept = os.dup(_STDERR)
    except OSError:  # closed: nothing can reach it
        yield
        return
    with suppress(OSError, ValueError):
        sys.stderr.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, _STDERR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(kept, _STDERR)
        os.close(nowhere)
        os.close(kept)
