"""Pictures upscaled by a cluster: a file goes to a worker, and its result comes back.

What becomes of a picture is what `upfrost.image.batch` makes of it on one machine.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from upfrost.cluster import dispatch
from upfrost.cluster.connection import Cluster
from upfrost.cluster.dispatch import BadResultError, Dispatcher, Worker
from upfrost.cluster.progress import WAITING, Speeds
from upfrost.cluster.work import MadePicture, PictureOrder, upscale_picture
from upfrost.files import check_file, new_file
from upfrost.image.batch import (
    Job,
    Options,
    PictureRecord,
    Plan,
    Report,
    note_failure,
    reason,
)
from upfrost.image.images import read_header
from upfrost.status import Status
from upfrost.text import printable


def run_batch(
    plan: Plan,
    cluster: Cluster,
    options: Options,
    status: Status,
    emit: Callable[[PictureRecord], None],
) -> int:
    """`upfrost.image.batch.run_batch`, by the workers of a cluster.

    Pictures are told of as they come back. Raises `ClusterError`.
    """
    return _Batch(plan, cluster, options, status, emit).run()


class _Batch:
    def __init__(
        self,
        plan: Plan,
        cluster: Cluster,
        options: Options,
        status: Status,
        emit: Callable[[PictureRecord], None],
    ) -> None:
        self._jobs = plan.jobs
        self._cluster = cluster
        self._options = options
        self._status = status
        self._report = Report(plan, status, emit)
        self._speeds = Speeds("picture", "Mpixel/s", 1e6, len(plan.jobs), status)
        self._dispatcher = Dispatcher(
            cluster.connection,
            upscale_picture,
            lambda text: status.warn(f"upfrost: {text}"),
            self._speeds.tick,
        )

    def run(self) -> int:
        self._status.begin(f"{len(self._jobs)} pictures", WAITING)
        try:
            self._cluster.run(self._dispatcher.run(self._pieces(), self._accept))
        finally:
            self._status.clear()
            self._speeds.add(self._dispatcher)
            self._speeds.tell()
        return self._report.end()

    def _pieces(self) -> Iterator[dispatch.Piece]:
        for number, job in enumerate(self._jobs):
            record = PictureRecord(str(job.source), str(job.target))
            options = self._options
            try:
                check_file(job.target, overwrite=options.existing == "replace")
                size = read_header(job.source, max_pixels=options.max_pixels).size
            except Exception as error:
                note_failure(job, options, record, error)
                self._tell(record, number)
            else:
                order = PictureOrder(
                    self._cluster.connection.wanted,
                    job.source.name,
                    job.target.name,
                    options,
                )
                pixels = size[0] * size[1]
                yield dispatch.Piece(number, pixels, order, job.source, kept=True)

    async def _accept(
        self, piece: dispatch.Piece, made: MadePicture, worker: Worker
    ) -> None:
        del worker
        if hashlib.sha256(made.data or b"").hexdigest() != made.sha256:
            raise BadResultError("what came back has another checksum")
        job = self._jobs[piece.number]
        record = _at_home(made.record, job)
        if made.data is not None:
            try:
                await asyncio.to_thread(self._write, job.target, made.data)
            except OSError as error:
                record.error, record.status = reason(job, error), "failed"
        self._dispatcher.finish(piece.number)
        self._speeds.done(0, piece.size)
        self._tell(record, piece.number)

    def _write(self, target: Path, data: bytes) -> None:
        overwrite = self._options.existing == "replace"
        with new_file(target, overwrite=overwrite) as file:
            file.write(data)

    def _tell(self, record: PictureRecord, number: int) -> None:
        self._speeds.done(1, 0)
        self._report.add(record, number + 1)


def _at_home(record: PictureRecord, job: Job) -> PictureRecord:
    """What a worker says of its files, said of this machine's."""

    def home(text: str) -> str:
        for there, here in ((record.input, job.source), (record.output, job.target)):
            text = text.replace(printable(there), printable(here))
        return text

    notes = [home(text) for text in record.notes]
    error = None if record.error is None else home(record.error)
    record.notes, record.error = notes, error
    record.input, record.output = str(job.source), str(job.target)
    return record
