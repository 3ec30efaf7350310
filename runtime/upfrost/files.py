"""Files that are there as a whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

# Files that are being written, for whoever has to end the process without unwinding.
_unfinished: set[Path] = set()


def remove_unfinished() -> None:
    """Remove the temporary files of every write that is under way."""
    for temporary in tuple(_unfinished):
        temporary.unlink(missing_ok=True)


@contextmanager
def new_path(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """An empty file to write that gets the name `path` only when all of it is on disk.

    A symbolic link at `path` is followed. On any exception the file is removed. Raises
    `FileExistsError` when `path` exists and `overwrite` is not given, whoever made it
    and whenever, `IsADirectoryError` when it is a folder, and other `OSError`.
    """
    target = path.resolve()
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not overwrite and target.exists():
        raise _exists(path)
    temporary = target.parent / f".upfrost-{secrets.token_hex(8)}.part"
    _unfinished.add(temporary)
    try:
        # Not by tempfile, whose files only their owner may read.
        temporary.touch(exist_ok=False)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        if overwrite:
            temporary.replace(target)
        else:
            _publish(temporary, target, path)
        _sync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)
        _unfinished.discard(temporary)


@contextmanager
def new_file(path: Path, *, overwrite: bool = False) -> Iterator[BinaryIO]:
    """The file of `new_path`, open for writing."""
    with (
        new_path(path, overwrite=overwrite) as temporary,
        temporary.open("wb") as file,
    ):
        yield file


def _publish(temporary: Path, target: Path, path: Path) -> None:
    """Give `temporary` the name `target`, unless another process was faster."""
    try:
        target.hardlink_to(temporary)
    except FileExistsError:
        raise _exists(path) from None
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        # FAT and some network file systems know no second name.
        if target.exists():
            raise _exists(path) from None
        temporary.replace(target)


def _sync_folder(folder: Path) -> None:
    """Bring the new name to disk as well, where the file system knows how."""
    try:
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return
    try:
        os.fsync(number)
    except OSError:
        pass
    finally:
        os.close(number)


def _exists(path: Path) -> FileExistsError:
    return FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
