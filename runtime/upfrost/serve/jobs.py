"""Jobs as folders on disk, so that nothing is lost with the process or the power.

``FOLDER/jobs/ID/`` holds ``job.json``, the upload as ``input`` and what becomes of it
as ``result.png`` or the like. What is there under these names is whole: uploads grow in
``FOLDER/uploads/`` and become part of a job by a rename. The names that users' files
have are text in ``job.json`` and nothing else.
"""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import json
import logging
import os
import re
import secrets
import shutil
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from upfrost.errors import UsageError
from upfrost.files import new_file
from upfrost.serve.choices import Kind
from upfrost.text import printable

State = Literal["queued", "running", "done", "failed"]
# A file that takes the machine down with it must not do so for ever.
MOST_ATTEMPTS = 5
PREVIEW = "preview.jpg"  # what browsers show of an upload that they do not know
_NOT_KEPT = ("share", "left")
# What is removed at a start, by the names that `new_upload`, `add` and `remove` give.
_UPLOAD = re.compile(r"[0-9a-f]{32}\.part")
_UNFINISHED = re.compile(r"[0-9a-f]{32}\.tmp")

_log = logging.getLogger("upfrost")


class QueueFullError(UsageError):
    """There are as many jobs as there may be."""


class FolderError(UsageError):
    """A folder that cannot be used."""


@dataclass(frozen=True)
class Job:
    """One upload and what becomes of it. Sizes are width and height in pixels."""

    id: str
    number: int  # grows with each job
    name: str  # what the upload was called
    kind: Kind
    bytes: int
    input_suffix: str  # of a picture's format; a video's is empty
    result_suffix: str
    model: str
    created: float  # seconds since 1970
    state: State = "queued"
    attempts: int = 0
    error: str | None = None
    notes: tuple[str, ...] = ()
    input_size: tuple[int, int] | None = None
    output_size: tuple[int, int] | None = None
    device: str | None = None
    seconds: float | None = None  # that it took
    share: float = 0.0  # of the work that is done; not kept on disk, nor is the next
    left: float | None = None  # seconds


class Store:
    """All jobs of a folder, for this process alone. Methods may be called by threads.

    Raises `FolderError` when the folder cannot be used, or another process uses it.
    """

    def __init__(self, folder: Path, most: int = 200) -> None:
        self.folder = folder
        self.most = most
        self.version = 0  # grows with every change
        self._jobs: dict[str, Job] = {}
        self._changed = threading.Condition()
        try:
            for part in (folder, folder / "jobs", folder / "uploads"):
                part.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = (folder / "lock").open("ab")
        except OSError as error:
            raise FolderError(f"{printable(folder)}: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise FolderError(
                f"{printable(folder)}: another upfrost serve works here; "
                "name another --folder"
            ) from None
        with self._changed:
            self._load()

    def close(self) -> None:
        """Let others have the folder."""
        self._lock.close()

    def jobs(self) -> list[Job]:
        """All, the oldest first."""
        with self._changed:
            return sorted(self._jobs.values(), key=lambda job: job.number)

    def get(self, key: str) -> Job | None:
        with self._changed:
            return self._jobs.get(key)

    def new_upload(self) -> Path:
        """A name for a file that grows. Raises `QueueFullError`."""
        with self._changed:
            self._check_room()
        return self.folder / "uploads" / f"{secrets.token_hex(16)}.part"

    def add(self, upload: Path, job: Job) -> Job:
        """Make a complete upload a job. `upload` is gone then. Raises `OSError`."""
        with self._changed:
            self._check_room()
            numbers = (known.number for known in self._jobs.values())
            job = replace(job, number=max(numbers, default=0) + 1)
            making = self.folder / "jobs" / f"{job.id}.tmp"
            making.mkdir(mode=0o700)
            try:
                _write(making, job)
                upload.rename(making / "input")
                making.rename(self.job_folder(job.id))
            except BaseException:
                shutil.rmtree(making, ignore_errors=True)
                raise
            _sync(self.folder / "jobs")
            self._set(job)
            return job

    def take(self, patience: float) -> Job | None:
        """The oldest job that waits, which is running from now on; None if none comes.

        The caller waits for at most `patience` seconds.
        """
        with self._changed:
            waiting = self._next() or (self._changed.wait(patience) and self._next())
            if not waiting:
                return None
            job = replace(
                waiting, state="running", attempts=waiting.attempts + 1, error=None
            )
            self._keep(job)
            return job

    def is_waiting(self) -> bool:
        """Whether there is a job to take."""
        with self._changed:
            return self._next() is not None

    def change(self, key: str, **values: Any) -> Job | None:
        """Give a job other values; None if it is gone."""
        with self._changed:
            job = self._jobs.get(key)
            if job is not None:
                job = replace(job, **values)
                if values.keys() <= set(_NOT_KEPT):
                    self._set(job)
                else:
                    self._keep(job)
            return job

    def remove(self, key: str) -> None:
        """Forget a job and its files."""
        with self._changed:
            if self._jobs.pop(key, None) is None:
                return
            self.version += 1
            gone = self.folder / "jobs" / f"{key}.tmp"
            with suppress(OSError):
                # First by its name: what is left of it at a kill is removed later.
                self.job_folder(key).rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def wake(self) -> None:
        """End what `take` waits for."""
        with self._changed:
            self._changed.notify_all()

    def job_folder(self, key: str) -> Path:
        return self.folder / "jobs" / key

    def input_path(self, job: Job) -> Path:
        return self.job_folder(job.id) / "input"

    def result_path(self, job: Job) -> Path:
        return self.job_folder(job.id) / f"result{job.result_suffix}"

    def free_bytes(self) -> int:
        """What the disk has left for this user."""
        about = os.statvfs(self.folder)
        return about.f_bavail * about.f_frsize

    def _next(self) -> Job | None:
        waiting = [job for job in self._jobs.values() if job.state == "queued"]
        return min(waiting, key=lambda job: job.number, default=None)

    def _check_room(self) -> None:
        if len(self._jobs) >= self.most:
            raise QueueFullError(
                f"there are {self.most} jobs already; remove some of them first"
            )

    def _set(self, job: Job) -> None:
        self._jobs[job.id] = job
        self.version += 1
        self._changed.notify_all()

    def _keep(self, job: Job) -> None:
        # On a full disk it goes on in memory. After a restart the job is done again,
        # which finds what is there already.
        with suppress(OSError):
            _write(self.job_folder(job.id), job)
        self._set(job)

    def _load(self) -> None:
        """Read what there is; remove what a killed process had begun.

        A user may have named a folder with an `uploads` or `jobs` of his own in it.
        """
        for part in (self.folder / "uploads").iterdir():
            if _UPLOAD.fullmatch(part.name):
                part.unlink(missing_ok=True)
        for folder in (self.folder / "jobs").iterdir():
            if _UNFINISHED.fullmatch(folder.name):
                shutil.rmtree(folder, ignore_errors=True)
                continue
            job = read_job(folder)
            if job is None:
                _log.warning("%s: is no job, and left alone", printable(folder))
                continue
            if job.state == "running":
                job = replace(job, state="queued")
                if job.attempts >= MOST_ATTEMPTS:
                    error = f"upfrost ended {job.attempts} times while it worked on it"
                    job = replace(job, state="failed", error=error)
            self._set(job)


def new_job(name: str, kind: Kind, model: str, suffix: str, **values: Any) -> Job:
    """A job that waits, with an identifier that nobody can guess."""
    return Job(
        id=secrets.token_hex(16),
        number=0,
        name=name,
        kind=kind,
        model=model,
        result_suffix=suffix,
        created=time.time(),
        **values,
    )


def read_job(folder: Path) -> Job | None:
    """What ``job.json`` says; None when it says nothing that makes sense."""
    try:
        told = json.loads((folder / "job.json").read_bytes())
        for key in ("input_size", "output_size", "notes"):
            if told[key] is not None:
                told[key] = tuple(told[key])
        known = {field.name for field in dataclasses.fields(Job)}
        job = Job(**{key: told[key] for key in told.keys() & known})
        return job if job.id == folder.name else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(folder: Path, job: Job) -> None:
    told = dataclasses.asdict(job)
    for key in _NOT_KEPT:
        del told[key]
    with new_file(folder / "job.json", overwrite=True) as file:
        file.write(json.dumps(told).encode())


def _sync(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def is_full(error: OSError) -> bool:
    """Whether a disk or a quota has no room left."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
