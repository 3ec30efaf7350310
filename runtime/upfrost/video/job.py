"""The work on one video as files beside it, so that it can go on after an end.

The folder ``OUT.upfrost`` holds ``job.json``, what was asked for, and for each segment
a Matroska file and, written last, a JSON file with its frames' times. A segment counts
when both are there and the Matroska file is as long as it was, and for a run that goes
on, when its bytes are what they were. Whatever happens to the process or the power,
files that have their names are complete.

Whether the result may replace a file of its name was asked of the run that began;
others go by that.

A folder without a finished segment is worth nothing: it goes with the run that made it,
and one that a killed run left is no obstacle.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import re
import zlib
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from upfrost.files import new_file
from upfrost.text import printable
from upfrost.video.ffmpeg import VideoError

_FORMAT = 1
_ASKED = "job.json"
_REPLACES = "replaces"
RESULT = "result"  # the part that becomes the finished file
_OURS = re.compile(r"lock|job\.json|\d{6}\.(mkv|json)|.+\.part")


@dataclass(frozen=True)
class Segment:
    """A finished segment: its frames' times, and sums over their decoded pixels."""

    times: tuple[int, ...]  # in units of the video's time base
    last_duration: int | None
    sums: tuple[int, ...]  # CRC-32 of each frame as it was decoded


class Job:
    """A job's folder, open and locked.

    What segments hold stays in their files: a long video has many frames.
    """

    def __init__(
        self,
        folder: Path,
        lock: IO[bytes],
        segments: int = 0,
        frames: int = 0,
        *,
        replaces: bool = False,
    ) -> None:
        self.folder = folder
        self.replaces = replaces  # whether the result may take a file's place
        self.segments = segments  # that are finished
        self.frames = frames  # in them
        self._lock = lock

    def segment(self, number: int) -> Segment:
        """What is in that segment. Raises `VideoError` where this cannot be read."""
        found = _read_segment(self.folder, number)
        if found is None:
            path = printable(self.segment_file(number))
            raise VideoError(f"{path}: was removed or changed meanwhile")
        return found

    def segment_file(self, number: int) -> Path:
        return self.folder / f"{number:06d}.mkv"

    def part_file(self, name: str) -> Path:
        """A name for something unfinished: not that of another, killed run."""
        return self.folder / f"{os.getpid()}-{name}.part"

    def add(self, part: Path, segment: Segment) -> None:
        """Make a finished file the next segment."""
        number = self.segments
        with part.open("rb") as file:
            os.fsync(file.fileno())
            size = os.fstat(file.fileno()).st_size
        content = {"size": size, "crc": _crc(part), **dataclasses.asdict(segment)}
        part.replace(self.segment_file(number))
        _write_json(self.folder / f"{number:06d}.json", content)
        self.segments += 1
        self.frames += len(segment.times)

    def reject(self, number: int) -> None:
        """Forget that segment, which is damaged, and those after it."""
        for later in range(self.segments - 1, number - 1, -1):
            (self.folder / f"{later:06d}.json").unlink(missing_ok=True)
        self.segments = number

    def close(self) -> None:
        """Remove what is unfinished, or all if there is no more than that.

        Then others may have the folder.
        """
        if not self.segments:
            self.remove()
        for part in self.folder.glob("*.part"):
            part.unlink(missing_ok=True)
        self._lock.close()

    def remove(self) -> None:
        """Remove the folder, before `close` lets others have it: its work is done."""
        with suppress(OSError):
            _remove(self.folder)


def job_folder(target: Path) -> Path:
    return target.with_name(f"{target.name}.upfrost")


def is_unfinished(target: Path) -> bool:
    """Whether a run that was stopped left work to go on with."""
    return (job_folder(target) / _ASKED).exists()


def remove_published(target: Path) -> bool:
    """Whether `target` is what a run made that was ended before it tidied up.

    What it left is removed then.
    """
    folder = job_folder(target)
    try:
        made = target.stat()
        parts = [part.stat() for part in folder.glob(f"*-{RESULT}.part")]
        if not any(os.path.samestat(made, part) for part in parts):
            return False
        _remove(folder)
    except OSError:
        return False
    return True


def open_job(
    target: Path, asked: dict[str, Any], *, resume: bool, overwrite: bool
) -> Job:
    """The job for `target`: a new one, or with `resume` the one that is there.

    `asked` is all that decides what the result is, as JSON can hold it. Raises
    `VideoError` when there is one and neither is given, when it was begun with
    something else, and while another process works on it.
    """
    folder, name = job_folder(target), printable(target)
    try:
        folder.mkdir(exist_ok=True)
        lock = (folder / "lock").open("wb")
    except FileExistsError:
        raise VideoError(
            f"{printable(folder)}: a file, where a folder of this name is to hold what "
            "is done; move it away"
        ) from None
    except OSError as error:
        raise VideoError(f"{printable(folder)}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise VideoError(f"{name}: another process is working on it") from None
    try:
        asked = json.loads(json.dumps({"format": _FORMAT, **asked}))
        # A finished run that was killed while it tidied up has no such file any more.
        is_begun = (folder / _ASKED).exists() and _read_segment(folder, 0) is not None
        begun = _read_json(folder / _ASKED)
        replaces = overwrite or (resume and begun is not None and _replaces(begun))
        if overwrite or not is_begun:
            _empty(folder)
            _write_json(folder / _ASKED, {**asked, _REPLACES: replaces})
            return Job(folder, lock, replaces=replaces)
        if not resume:
            raise VideoError(
                f"{name}: an unfinished run is there; --resume goes on with it, "
                "--overwrite begins anew"
            )
        if begun is None:
            raise VideoError(
                f"{printable(folder / _ASKED)}: is damaged, so nobody knows how the "
                "segments beside it were made; --overwrite begins anew without them"
            )
        begun.pop(_REPLACES, None)
        # The input first: what follows from another one is no setting.
        for key in sorted(begun.keys() | asked.keys(), key=lambda k: (k != "input", k)):
            if begun.get(key) != asked.get(key):
                raise VideoError(
                    f"{name}: was begun with another {key} "
                    f"({_difference(begun.get(key), asked.get(key))}); resume it with "
                    "the same, or begin anew with --overwrite"
                )
        job = Job(folder, lock, replaces=replaces)
        while (found := _read_segment(folder, job.segments, whole=True)) is not None:
            job.segments += 1
            job.frames += len(found.times)
        _empty(folder, keep=job.segments)
        return job
    except OSError as error:
        lock.close()
        raise VideoError(f"{printable(folder)}: {error.strerror}") from error
    except BaseException:
        lock.close()
        raise


def _read_segment(folder: Path, number: int, *, whole: bool = False) -> Segment | None:
    """A finished segment; None when it is not there or damaged.

    With `whole` every byte of its frames is looked at, and not their number alone.
    """
    found = _read_json(folder / f"{number:06d}.json")
    if found is None:
        return None
    try:
        path = folder / f"{number:06d}.mkv"
        if path.stat().st_size != found["size"]:
            return None
        if whole and _crc(path) != found["crc"]:
            return None
        return Segment(
            tuple(map(int, found["times"])),
            found["last_duration"],
            tuple(map(int, found["sums"])),
        )
    except (OSError, KeyError, TypeError, ValueError):
        return None


def _crc(path: Path) -> int:
    """CRC-32 of a file's bytes."""
    found = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found = zlib.crc32(block, found)
    return found


def _difference(before: object, now: object) -> str:
    """What of a setting is another one, as a person may know it."""
    if not isinstance(before, list) or not isinstance(now, list):
        return printable(f"{before}, not {now}")
    if len(before) == len(now):
        # An option's name stands before its value.
        said = [
            f"{f'{option} ' if str(option).startswith('-') else ''}{one}, not {other}"
            for option, one, other in zip(["", *now], before, now, strict=False)
            if one != other
        ]
        return printable(said[0])
    only = [
        " ".join(str(word) for word in words if word not in others) or "nothing"
        for words, others in ((before, now), (now, before))
    ]
    return printable(f"{only[0]}, not {only[1]}")


def _replaces(begun: dict[str, Any]) -> bool:
    return begun.get(_REPLACES) is True


def _remove(folder: Path) -> None:
    # First what makes it an unfinished run, for one that is killed here.
    (folder / _ASKED).unlink(missing_ok=True)
    _empty(folder, 0, kept=())
    folder.rmdir()  # unless there are files that are not ours


def _empty(
    folder: Path, keep: int = 0, kept: Collection[str] = ("lock", _ASKED)
) -> None:
    """Remove what a job put there, but for `kept` and that many segments."""
    stays = {f"{n:06d}.{kind}" for n in range(keep) for kind in ("mkv", "json")}
    for path in folder.iterdir():
        if _OURS.fullmatch(path.name) and path.name not in stays.union(kept):
            path.unlink(missing_ok=True)


def _read_json(path: Path) -> dict[str, Any] | None:
    """What a file says; None when it is missing or damaged."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with new_file(path, overwrite=True) as file:
        file.write(json.dumps(content).encode())
