"""Files that are there as a whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from upfrost.errors import UsageError
from upfrost.text import printable

# Files that are being written, for whoever has to end the process without unwinding.
_unfinished: set[Path] = set()
_swept: set[Path] = set()  # folders without files that a killed process left


class TargetError(UsageError):
    """Where a file cannot be made; the message names it."""


class ExistsError(TargetError):
    """A file that is in the way of a new one."""


def exists_already(path: Path) -> str:
    """What a command says of a file that it was not asked to replace."""
    return f"{printable(path)}: exists already; --overwrite replaces it"


def check_folder(folder: Path) -> None:
    """Find out before the work whether files can be made in a folder, or in a new one.

    Raises `TargetError`.
    """
    there = folder
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise TargetError(f"{printable(there)}: is not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise TargetError(f"{printable(there)}: you may not write into this folder")


def check_file(
    path: Path, *, overwrite: bool = False, read: Iterable[Path] = ()
) -> None:
    """Find out before the work whether a file can be made at `path`.

    It replaces none that is `read`, whoever asks for it. Raises `ExistsError` where
    there is a file, and `TargetError`.
    """
    try:
        there = path.stat()  # of what a link leads to, which is where the file goes
    except (FileNotFoundError, NotADirectoryError):
        there = None
    except OSError as error:
        raise TargetError(f"{printable(path)}: {error.strerror}") from error
    if any(path.resolve() == each.resolve() for each in read):
        raise TargetError(
            f"{printable(path)}: would replace a file that is read; name another one"
        )
    if there is not None and stat.S_ISDIR(there.st_mode):
        raise TargetError(f"{printable(path)}: is a folder")
    if there is not None and overwrite and not stat.S_ISREG(there.st_mode):
        raise TargetError(
            f"{printable(path)}: is no file that could be replaced (a pipe or a device)"
        )
    if there is not None and not overwrite:
        raise ExistsError(exists_already(path))
    folder = path.resolve().parent if path.is_symlink() else path.parent
    if not folder.exists():
        raise TargetError(f"{printable(folder)}: no such folder")
    check_folder(folder)


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
    if target.parent not in _swept:
        _swept.add(target.parent)
        _remove_abandoned(target.parent)
    temporary = target.parent / f".upfrost-{secrets.token_hex(8)}.part"
    _unfinished.add(temporary)
    try:
        with _new_and_locked(temporary):
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            if overwrite:
                temporary.replace(target)
            else:
                publish(temporary, target, path)
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


@contextmanager
def _new_and_locked(path: Path) -> Iterator[None]:
    """Make a file that others know to be ours, by its lock, while the context lasts.

    Another process may look at the file before it is locked, take it for one that was
    left behind, and remove it: then there is another one.
    """
    while True:
        # Not by tempfile, whose files only their owner may read.
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            _lock(number, wait=True)
            if os.fstat(number).st_nlink:
                yield
                return
        finally:
            os.close(number)


def _remove_abandoned(folder: Path) -> None:
    """Remove the temporary files of processes that were killed, and no others."""
    for path in folder.glob(".upfrost-*.part"):
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            number = os.open(path, flags)
        except OSError:  # gone already, a link, or another user's
            continue
        try:
            regular = stat.S_ISREG(os.fstat(number).st_mode)
            if regular and _lock(number, wait=False):
                path.unlink(missing_ok=True)
        except OSError:
            pass
        finally:
            os.close(number)


def _lock(number: int, *, wait: bool) -> bool:
    """Whether the file is locked now. The lock goes with the process that has it.

    A file system without locks has none to give, to nobody: nothing is removed there.
    """
    try:
        fcntl.flock(number, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def publish(temporary: Path, target: Path, path: Path) -> None:
    """Give `temporary` the name `target`, unless another process was faster.

    It keeps its own name, too, where the file system knows second names. Raises
    `FileExistsError`, which names `path`, and other `OSError`.
    """
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
