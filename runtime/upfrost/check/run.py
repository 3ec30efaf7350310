"""The whole check: its sections in their order, each whatever becomes of the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from upfrost import __version__
from upfrost.check import computing, devices, kernels, machine, models, speeds
from upfrost.check.jobs import OPENING, Request, Results, run_jobs
from upfrost.check.report import Report, Section
from upfrost.files import new_file

REPORT = "upfrost-report"
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What a check is asked for; `root` is where dev, etc, proc, sys and usr are."""

    device: int | str | None = None
    quick: bool = False
    root: Path = Path("/")


def check(
    options: Options,
    explain: Callable[[ImportError], str],
    *,
    begin: Progress = lambda _: None,
    progress: Progress = lambda _: None,
    say: Callable[[Section], None] = lambda _: None,
) -> Report:
    """Check everything. `explain` says what to do about a module that is not there.

    `begin` is told a section's title, `progress` what is under way in it, and `say`
    gets each section when it is done. Nothing that is found raises.
    """
    report = Report(__version__, time.strftime("%Y-%m-%d"), options.quick)
    for section in _sections(options, explain, begin, progress):
        report.sections.append(section)
        say(section)
    return report


def _sections(
    options: Options,
    explain: Callable[[ImportError], str],
    begin: Progress,
    progress: Progress,
) -> Iterator[Section]:
    """The report, section by section. Where one finds that there is no device, or that
    it does not compute, those that need it say so and are skipped."""
    begin(machine.TITLE)
    yield (about := _guarded(machine, lambda: machine.look(options.root)))

    def run(part: ModuleType, device: int | str | None) -> Results:
        request = Request(part.__name__, device, options.quick)
        return run_jobs(request, progress)

    begin(devices.TITLE)
    listed = run(devices, options.device)
    nodes = about.facts.get("nodes")
    mali = isinstance(nodes, list) and any(
        node["driver"] in machine.MALI_DRIVERS for node in nodes
    )
    wanted = options.device is not None
    section = _guarded(devices, lambda: devices.judge(listed, wanted=wanted, mali=mali))
    opening = listed.get(OPENING)
    if opening is not None and opening.module is not None:
        missing = ImportError(opening.failure, name=opening.module)
        section.findings = []
        section.add("wrong", opening.failure, explain(missing))
    yield section
    info = devices.chosen(listed)
    if info is None:
        yield from _skipped(
            computing, kernels, models, speeds, why="there is no device"
        )
        return
    index = info["index"]

    begin(computing.TITLE)
    computed = run(computing, index)
    yield _guarded(computing, lambda: computing.judge(computed))
    if not computing.is_alive(computed):
        yield from _skipped(kernels, models, speeds, why="the device does not compute")
        return

    begin(kernels.TITLE)
    tried = run(kernels, index)
    yield _guarded(kernels, lambda: kernels.judge(tried))

    begin(models.TITLE)
    upscaled = run(models, index)
    yield _guarded(models, lambda: models.judge(upscaled))

    begin(speeds.TITLE)
    timed = run(speeds, index)
    job = section.facts.get("job_seconds")
    yield _guarded(
        speeds,
        lambda: speeds.judge(timed, info, job if isinstance(job, float) else None),
    )


def _guarded(part: ModuleType, judge: Callable[[], Section]) -> Section:
    """A section, or what went wrong with it: no fault of a check ends the others."""
    try:
        return judge()
    except Exception as error:
        section = _empty(part)
        kind = type(error).__name__
        section.add("wrong", f"This part of the check failed: {kind}: {error}")
        return section


def _skipped(*parts: ModuleType, why: str) -> Iterator[Section]:
    for part in parts:
        section = _empty(part)
        section.add("skipped", f"Not tried: {why}")
        yield section


def _empty(part: ModuleType) -> Section:
    return Section(part.NAME, part.TITLE)


def write(report: Report, folder: Path) -> tuple[Path, Path]:
    """Write upfrost-report.json and .md, over those of an earlier check.

    Raises `OSError`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / f"{REPORT}.json", folder / f"{REPORT}.md"
    for path, text in zip(paths, (report.to_json(), report.to_markdown()), strict=True):
        with new_file(path, overwrite=True) as file:
            file.write(text.encode("utf-8"))
    return paths
