"""What a killed process leaves is removed, and nothing that is another's."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from upfrost import files
from upfrost.files import ExistsError, TargetError, check_file, new_file

WRITER = """
import sys
from pathlib import Path
from upfrost.files import new_file
with new_file(Path(sys.argv[1])) as file:
    print("writing", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def first_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has written nothing yet."""
    monkeypatch.setattr(files, "_swept", set())


@contextmanager
def writer(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is in the middle of writing `path`."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        yield process


def parts(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob(".upfrost-*.part"))


def write(path: Path) -> None:
    with new_file(path) as file:
        file.write(b"new")


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    with writer(tmp_path / "a") as process:
        process.kill()
    assert len(parts(tmp_path)) == 1
    write(tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_what_another_process_is_writing_stays(tmp_path: Path) -> None:
    with writer(tmp_path / "a") as process:
        (before,) = parts(tmp_path)
        write(tmp_path / "b")
        assert parts(tmp_path) == [before]
        process.communicate()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_only_files_are_removed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.touch()
    (tmp_path / ".upfrost-1.part").mkdir()
    (tmp_path / ".upfrost-2.part").symlink_to(kept)
    os.mkfifo(tmp_path / ".upfrost-3.part")
    (tmp_path / "4.part").touch()
    before = sorted(tmp_path.iterdir())
    write(tmp_path / "new")
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "new"])


def test_a_file_that_is_removed_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = files._lock
    removed: list[Path] = []

    def too_late(number: int, *, wait: bool) -> bool:
        if not removed:
            removed.extend(tmp_path.glob(".upfrost-*.part"))
            removed[0].unlink()
        return lock(number, wait=wait)

    monkeypatch.setattr(files, "_lock", too_late)
    write(tmp_path / "a")
    assert removed
    assert (tmp_path / "a").read_bytes() == b"new"


def test_nothing_is_removed_where_there_are_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object) -> None:
        raise OSError("no locks here")

    monkeypatch.setattr(fcntl, "flock", unknown)
    (tmp_path / ".upfrost-1.part").touch()
    write(tmp_path / "a")
    assert parts(tmp_path) == [".upfrost-1.part"]


def test_a_link_to_no_file_yet_is_followed(tmp_path: Path) -> None:
    link = tmp_path / "link.png"
    link.symlink_to(tmp_path / "new.png")
    check_file(link)
    link.unlink()
    link.symlink_to(tmp_path / "none" / "new.png")
    with pytest.raises(TargetError, match="none: no such folder"):
        check_file(link)


def test_where_no_file_can_be_made_is_found_before_the_work(tmp_path: Path) -> None:
    there = tmp_path / "a.png"
    there.touch()
    loop = tmp_path / "loop.png"
    loop.symlink_to(loop)
    with pytest.raises(ExistsError, match=r"a\.png: exists already; --overwrite"):
        check_file(there)
    check_file(there, overwrite=True)
    with pytest.raises(TargetError, match="would replace a file that is read"):
        check_file(tmp_path / "." / "a.png", overwrite=True, read=[there])
    with pytest.raises(TargetError, match="is a folder"):
        check_file(tmp_path, overwrite=True)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(TargetError, match=r"pipe\.png: is no file that could be"):
        check_file(tmp_path / "pipe.png", overwrite=True)
    with pytest.raises(TargetError, match=r"a\.png: is not a folder"):
        check_file(there / "b.png")
    with pytest.raises(TargetError, match="symbolic links"):
        check_file(loop)
    with pytest.raises(TargetError, match="File name too long"):
        check_file(tmp_path / ("n" * 300))
