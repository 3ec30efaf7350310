"""Many pictures: which file becomes which, one after the other, past the bad ones."""

from __future__ import annotations

import contextlib
import glob
import logging
import os
import re
import time
import traceback
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from upfrost.arrays import Bytes
from upfrost.errors import UpfrostError, UsageError
from upfrost.files import ExistsError, TargetError, check_file
from upfrost.image import streams
from upfrost.image.images import (
    FORMAT_NAMES,
    FORMAT_OF_SUFFIX,
    Format,
    PictureError,
    check_writable,
    output_format,
    read_header,
    read_picture,
    reason_of,
    sniff_format,
    upscale_picture,
    write_picture,
)
from upfrost.image.record import Record
from upfrost.status import Status
from upfrost.text import printable

if TYPE_CHECKING:
    from upfrost.gpu.upscaler import Upscaler

MUCH_OVERHEAD = 4.0  # pixels computed for each of the picture
_RESULT = re.compile(r"(.+)-x\d+")


@dataclass(frozen=True)
class Job:
    """One picture to upscale."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Failure:
    """An input that came to nothing, with one line that says why."""

    source: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """All that a command line asks for. `failures` are inputs without a picture."""

    jobs: tuple[Job, ...]
    failures: tuple[Failure, ...] = ()
    folders: tuple[Path, ...] = ()  # to be made before the first job, and never again


@dataclass(frozen=True)
class Options:
    """How pictures are read and written."""

    quality: int | None
    max_pixels: int
    existing: Literal["refuse", "replace", "skip"]


@dataclass
class PictureRecord(Record):
    """What `--json` says of one picture."""

    format: str | None = None
    tile_size: tuple[int, int] | None = None
    tiles: int | None = None
    overhead: float | None = None  # pixels computed for each of the picture
    seam: int | None = None  # the largest difference at one, if tiles are not exact
    device_bytes: int | None = None
    streamed: bool | None = None  # row by row, since it is too large for memory


def plan_batch(
    inputs: Sequence[str],
    output: str | None,
    scale: int,
    *,
    wanted: Format | None = None,
    recursive: bool = False,
) -> Plan:
    """Which pictures `inputs` (files, folders, globs) name, and what each becomes.

    Raises `UsageError` where two pictures would become one file, or a result would
    take the place of a picture that is read.
    """
    for name in (*inputs, *([] if output is None else [output])):
        if name in ("", "-"):
            # The folder at hand, and a folder of that name, if it were taken as a path.
            what = "an empty name" if not name else "- (standard input or output)"
            raise UsageError(f"{what}: name a file or a folder")
    folder, file = _split_output(inputs, output, wanted)
    found: list[tuple[Path, Path]] = []  # the picture, its folder under OUT
    failures: list[Failure] = []
    for name in inputs:
        try:
            found += _find(name, recursive, folder)
        except OSError as error:
            failures.append(Failure(name, f"{printable(name)}: {reason_of(error)}"))
        except PictureError as error:
            failures.append(Failure(name, str(error)))
    if file is not None and len(found) > 1:
        raise UsageError(
            f"-o {printable(file)} names a file, but {len(found)} pictures are to be "
            "upscaled; name a folder"
        )
    sources: dict[Path, Path] = {}  # by what it really is
    targets: dict[Path, Path] = {}
    jobs: list[Job] = []
    for source, below in found:
        real = _real(source)
        target = file
        if target is None:
            name = f"{source.stem}-x{scale}{_suffix(source, wanted)}"
            target = source.with_name(name) if folder is None else folder / below / name
        other = targets.setdefault(_real(target), real)
        if other != real:
            raise UsageError(
                f"{printable(sources[other])} and {printable(source)} would both "
                f"become {printable(target)}; upscale them one by one, with -o"
            )
        if real not in sources:
            sources[real] = source
            jobs.append(Job(source, target))
    for real in targets:
        if real in sources:
            raise UsageError(
                f"a result would replace {printable(sources[real])}, which is one of "
                "the pictures to upscale; name another place with -o"
            )
    folders = () if folder is None else {job.target.parent: None for job in jobs}
    return Plan(tuple(jobs), tuple(failures), tuple(folders))


def run_batch(
    plan: Plan,
    upscaler: Upscaler,
    options: Options,
    status: Status,
    emit: Callable[[PictureRecord], None],
) -> int:
    """Upscale every picture, say what happened to each, return how many failed.

    `emit` gets one record for each input. A device that was lost ends the batch.
    """
    from upfrost.gpu.device import DeviceError, DeviceLostError

    report = Report(plan, status, emit)
    lost = False
    for number, job in enumerate(plan.jobs, start=1):
        record = PictureRecord(str(job.source), str(job.target))
        if lost:
            report.not_tried(record)
            continue
        try:
            status.begin(f"[{number}/{len(plan.jobs)}] {printable(job.source)}")
            upscale_job(job, upscaler, options, status, record)
        except DeviceLostError as error:
            record.error = f"{printable(job.source)}: {error}"
            lost = True
        except DeviceError as error:
            record.error = reason(job, error)
        report.add(record, number)
    return report.end()


class Report:
    """Says what became of each picture of a batch.

    `emit` gets one record for each input. Folders of the results are made.
    """

    def __init__(
        self, plan: Plan, status: Status, emit: Callable[[PictureRecord], None]
    ) -> None:
        self._plan = plan
        self._status = status
        self._emit = emit
        self._failed: list[str] = []
        for folder in plan.folders:
            # What cannot be made is reported with the pictures that want to go there.
            with contextlib.suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)
        for failure in plan.failures:
            self._failed.append(failure.source)
            status.warn(f"upfrost: {failure.reason}")
            emit(PictureRecord(failure.source, "", error=failure.reason))

    def add(self, record: PictureRecord, number: int) -> None:
        """Say what became of picture `number` of the plan, from 1 on."""
        status = self._status
        if record.error is not None:
            self._failed.append(record.input)
            status.warn(f"upfrost: {record.error}")
        elif record.status == "skipped":
            status.say(f"{printable(record.output)}: exists already, skipped")
        else:
            status.say(_summary(record, number, len(self._plan.jobs)))
        for note in record.notes:
            status.warn(f"upfrost: {printable(record.input)}: {note}")
        self._emit(record)

    def not_tried(self, record: PictureRecord) -> None:
        """Say of a picture that nothing was done with it."""
        self._failed.append(record.input)
        record.error = "not tried, since the device was lost"
        self._emit(record)

    def end(self) -> int:
        """Say which pictures failed; how many they are."""
        self._status.clear()
        failed, total = self._failed, len(self._plan.jobs) + len(self._plan.failures)
        if failed and total > 1:
            shown = ", ".join(printable(name) for name in failed[:5])
            more = f" and {len(failed) - 5} more" if len(failed) > 5 else ""
            self._status.warn(
                f"upfrost: {len(failed)} of {total} failed: {shown}{more}"
            )
        return len(failed)


def upscale_job(
    job: Job,
    upscaler: Upscaler,
    options: Options,
    status: Status,
    record: PictureRecord,
) -> None:
    """Upscale a picture. What is wrong with it is in the record.

    Raises `DeviceError`: another device may do better.
    """
    from upfrost.gpu.device import DeviceError

    try:
        _run(job, upscaler, options, status, record)
        record.status = "done"
    except DeviceError:
        raise
    except Exception as error:
        note_failure(job, options, record, error)


def note_failure(
    job: Job, options: Options, record: PictureRecord, error: Exception
) -> None:
    """Say in the record why a picture was not upscaled, or that it need not be."""
    if not isinstance(error, ExistsError):
        record.error = reason(job, error)
    elif options.existing == "skip":
        record.status = "skipped"
    else:
        record.error = str(error)


def _run(
    job: Job,
    upscaler: Upscaler,
    options: Options,
    status: Status,
    record: PictureRecord,
) -> None:
    scale = upscaler.graph.scale
    record.describe(upscaler)
    check_file(job.target, overwrite=options.existing == "replace")

    def advance(done: int, tiles: int) -> None:
        plan = upscaler.loaded_plan
        if plan is not None and record.tiles is None:
            record.tiles = tiles
            record.tile_size = (plan.width, plan.height)
            record.device_bytes = plan.bytes
            record.overhead = round(upscaler.overhead, 4)
            if upscaler.overhead > MUCH_OVERHEAD:
                status.warn(
                    f"upfrost: {printable(job.source)}: tiles overlap so far that "
                    f"{upscaler.overhead:.1f} times the picture is computed; a larger "
                    "--memory or --tile, or a smaller --halo, takes less time"
                )
        status.advance(done, tiles)

    def expect(size: tuple[int, int]) -> int:
        width, height = record.input_size = size
        record.output_size = (width * scale, height * scale)
        check_writable(job.target, *record.output_size)
        pixels = width * height * scale * scale
        status.expect(pixels)
        return pixels

    _upscale(job, upscaler, options, record, expect, advance)
    record.seam = upscaler.seam
    if record.seam is not None:
        record.notes.append(
            f"tiles with a halo of {max(upscaler.tiling.halo)} pixels: at their seams "
            f"results differ by up to {record.seam} of 255 levels"
        )


def _upscale(
    job: Job,
    upscaler: Upscaler,
    options: Options,
    record: PictureRecord,
    expect: Callable[[tuple[int, int]], int],
    advance: Callable[[int, int], None],
) -> None:
    graph, overwrite = upscaler.graph, options.existing == "replace"
    header = read_header(job.source, max_pixels=options.max_pixels)
    record.format = output_format(job.target).name
    record.streamed = streams.should_stream(header, job.target, expect(header.size))
    if record.streamed:
        with _heard(record.notes):
            times, notes = streams.upscale_stream(
                job.source,
                job.target,
                header,
                upscaler,
                quality=options.quality,
                overwrite=overwrite,
                progress=advance,
            )
        for phase in ("read", "upscale", "write"):
            record.seconds[phase] = round(getattr(times, phase), 6)
        record.notes += notes
        return
    with _timed(record, "read"):
        picture = read_picture(job.source, max_pixels=options.max_pixels)
    record.notes += picture.notes
    expect(picture.size)

    def through_network(pixels: Bytes) -> Bytes:
        return upscaler(pixels, advance)

    with _timed(record, "upscale"), _heard(record.notes):
        result = upscale_picture(picture, through_network, graph.scale)
    with _timed(record, "write"):
        record.notes += write_picture(
            job.target, result, quality=options.quality, overwrite=overwrite
        )


def reason(job: Job, error: Exception) -> str:
    """One line for whatever went wrong."""
    if os.environ.get("UPFROST_TRACEBACK"):
        traceback.print_exception(error)
    if isinstance(error, (PictureError, TargetError)):
        return str(error)
    source = printable(job.source)
    if isinstance(error, UpfrostError):
        return f"{source}: {printable(str(error))}"
    if isinstance(error, OSError) and error.strerror:
        return f"{source}: {error.strerror}"
    if isinstance(error, MemoryError):
        return f"{source}: not enough memory for a picture of this size"
    return (
        f"{source}: {type(error).__name__}: {printable(str(error))} "
        "(UPFROST_TRACEBACK=1 shows where)"
    )


class _Listener(logging.Handler):
    """Collects what the library logs as notes of a picture."""

    def __init__(self, notes: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._notes = notes

    def emit(self, record: logging.LogRecord) -> None:
        self._notes.append(printable(record.getMessage()))


@contextlib.contextmanager
def _heard(notes: list[str]) -> Iterator[None]:
    logger, listener = logging.getLogger("upfrost"), _Listener(notes)
    logger.addHandler(listener)
    try:
        yield
    finally:
        logger.removeHandler(listener)


def _summary(record: Record, number: int, total: int) -> str:
    count = f"[{number}/{total}] " if total > 1 else ""
    assert record.input_size is not None
    assert record.output_size is not None
    before, after = record.input_size, record.output_size
    return (
        f"{count}{printable(record.output)}: {before[0]}×{before[1]} → "
        f"{after[0]}×{after[1]}, {sum(record.seconds.values()):.2f} s"
    )


@contextlib.contextmanager
def _timed(record: Record, phase: str) -> Iterator[None]:
    began = time.perf_counter()
    try:
        yield
    finally:
        record.seconds[phase] = round(time.perf_counter() - began, 6)


def _split_output(
    inputs: Sequence[str], output: str | None, wanted: Format | None
) -> tuple[Path | None, Path | None]:
    """The folder and the file that `-o` names: one of them, or none."""
    if output is None:
        return None, None
    path = Path(output)
    suffix = path.suffix.lower()
    if output.endswith("/") or path.is_dir() or not suffix:
        return path, None
    if suffix in FORMAT_OF_SUFFIX:
        if wanted is not None and FORMAT_OF_SUFFIX[suffix] != wanted:
            raise UsageError(
                f"-o {printable(path)} and --format {wanted.name.lower()} "
                "contradict each other"
            )
        return None, path
    if len(inputs) == 1 and not Path(inputs[0]).is_dir():
        raise UsageError(
            f"-o {printable(path)}: the name does not end in that of {FORMAT_NAMES}; "
            "if it is a folder, end it in /"
        )
    return path, None


def _find(name: str, recursive: bool, output: Path | None) -> list[tuple[Path, Path]]:
    """Pictures that an input names, each with where it stands below a folder."""
    path = Path(name)
    if path.is_dir():
        found = [
            (picture, picture.parent.relative_to(path))
            for picture in _walk(path, recursive, output)
        ]
        if not found:
            hint = "" if recursive else "; -r looks into the folders below it"
            raise PictureError(
                f"{printable(name)}: no {FORMAT_NAMES} picture in this folder{hint}"
            )
        return found
    if not os.path.lexists(path) and glob.has_magic(name):
        matches = sorted(glob.glob(name, recursive=True))  # noqa: PTH207
        pictures = [(p, Path()) for m in matches if not (p := Path(m)).is_dir()]
        if not pictures:
            raise PictureError(f"{printable(name)}: no file matches")
        return pictures
    return [(path, Path())]


def _walk(folder: Path, recursive: bool, output: Path | None) -> Iterator[Path]:
    """Pictures in a folder by name, without earlier results and hidden ones."""

    def complain(error: OSError) -> None:
        raise error

    skipped = None if output is None else _real(output)
    found: list[Path] = []  # below the folder
    for root, folders, files in os.walk(folder, onerror=complain):
        here = Path(root)
        folders[:] = sorted(
            name
            for name in folders
            if recursive and not name.startswith(".") and _real(here / name) != skipped
        )
        paths = (Path(name) for name in sorted(files) if not name.startswith("."))
        found += (
            here.relative_to(folder) / path
            for path in paths
            if path.suffix.lower() in FORMAT_OF_SUFFIX
        )
    known = {(path.parent.parts, path.stem) for path in found}
    return (folder / path for path in found if not _is_result(path, known))


def _is_result(path: Path, known: Set[tuple[tuple[str, ...], str]]) -> bool:
    """Whether a picture is what another one became, beside it or below an OUT folder.

    `known` are the folders and stems of all.
    """
    earlier = _RESULT.fullmatch(path.stem)
    if earlier is None:
        return False
    folders = path.parent.parts
    return any(
        (folders[depth:], earlier[1]) in known for depth in range(len(folders) + 1)
    )


def _suffix(source: Path, wanted: Format | None) -> str:
    if wanted is not None:
        return wanted.suffixes[0]
    if source.suffix.lower() in FORMAT_OF_SUFFIX:
        return source.suffix
    known = sniff_format(source)
    return known.suffixes[0] if known is not None else ".png"


def _real(path: Path) -> Path:
    """`path` without links; where they go round in a circle, as it stands."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path.absolute()
