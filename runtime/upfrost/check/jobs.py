"""Jobs on the device, in processes of their own: a driver may end the one it is in.

A part of the check gives a list of named jobs; `run_jobs` has a child do them, and
starts another one for what is left when a job ended it or never came back.

``python -m upfrost.check.jobs REQUEST`` is that child.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, BinaryIO

from upfrost import children

SILENCE = 150.0  # seconds for a job: a driver may compile for a minute
MOST_DEATHS = 6  # of children, after which the rest is left
OPENING = ""  # the name of what is done before the first job

Facts = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """Something to find out, and what is known of it even if it ends the process."""

    work: Callable[[], Facts]
    about: Facts = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """Which part of the check (a module that has `jobs`), on which device.

    `done` are the jobs that need no more be done.
    """

    part: str
    device: int | str | None
    quick: bool = False
    done: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """What a job found, or why it failed. `module` is one that could not be imported.

    `about` is the job's, and `ended` says that the child did not survive it.
    """

    facts: Facts | None = None
    about: Facts = field(default_factory=dict)
    failure: str = ""
    module: str | None = None
    ended: bool = False


Results = Mapping[str, Result]


def run_jobs(
    request: Request,
    progress: Callable[[str], None] = lambda _: None,
    *,
    silence: float = SILENCE,
) -> Results:
    """Have every job done, each for `silence` seconds at most; what it found, by name.

    What failed before the first job is under the name `OPENING`.
    """
    results: dict[str, Result] = {}
    names: list[str] = []
    while sum(result.ended for result in results.values()) < MOST_DEATHS:
        asked = replace(request, done=tuple(results))
        if _one_child(asked, names, results, progress, silence) or OPENING in results:
            break
    left = Result(failure=f"not tried: {MOST_DEATHS} others ended their process")
    return {**results, **{name: left for name in names if name not in results}}


def opened(results: Results) -> tuple[str, Results]:
    """Why no more jobs could begin, if that was so, and the jobs' results."""
    failure = results[OPENING].failure if OPENING in results else ""
    return failure, {name: each for name, each in results.items() if name != OPENING}


def _one_child(
    request: Request,
    names: list[str],
    results: dict[str, Result],
    progress: Callable[[str], None],
    silence: float,
) -> bool:
    """Whether the child did all that was left.

    `names` gets those of all jobs, `results` what it did.
    """
    reading, writing = os.pipe()
    loud = bool(os.environ.get("UPFROST_TRACEBACK"))
    child = subprocess.Popen(
        children.command(
            "upfrost.check.jobs", json.dumps(asdict(request)), str(writing)
        ),
        env=children.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # where drivers talk
        stderr=None if loud else subprocess.DEVNULL,
        pass_fds=[writing],
    )
    os.close(writing)
    under_way = OPENING
    about: Facts = {}
    answered = True
    try:
        with os.fdopen(reading, "rb") as stream:
            for line in _lines(stream, silence):
                if line is None:
                    answered = False
                    break
                told = json.loads(line)
                if told["event"] == "end":
                    return True
                if told["event"] == "jobs":
                    names[:] = told["names"]
                elif told["event"] == "begin":
                    under_way, about = told["name"], told["about"]
                    progress(under_way)
                else:
                    result = Result(**told["result"])
                    results[told["name"]] = replace(result, about=about)
                    under_way, about = OPENING, {}
    finally:
        # It has told all, or it hangs, or whoever asked was stopped.
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(2 if answered else 0)
        child.kill()
        # At once, but on a busy machine, and where it hangs in the kernel.
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(30)
    why = (
        _death(child.returncode)
        if answered
        else f"it gave no answer for {silence:.0f} s and was stopped"
    )
    if under_way or not results.keys() - set(request.done):
        results[under_way] = Result(failure=why, about=about, ended=True)
    return False


def _lines(stream: BinaryIO, silence: float) -> Iterable[bytes | None]:
    """Lines as they come; None, and no more, after `silence` seconds without one."""
    kept = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            if not selector.select(silence):
                yield None
                return
            part = os.read(stream.fileno(), 1 << 16)
            if not part:
                return
            *whole, kept = (kept + part).split(b"\n")
            yield from whole


def _death(code: int | None) -> str:
    if code is None:
        return "its process cannot be ended: the kernel's driver holds it"
    if code < 0:
        return f"the driver ended the process ({signal.Signals(-code).name})"
    return f"the process ended with code {code}"


def main(words: str, descriptor: str) -> None:
    """The child: do the jobs, write a line before and after each."""
    asked = json.loads(words)
    request = Request(**{**asked, "done": tuple(asked["done"])})
    with os.fdopen(int(descriptor), "w", encoding="utf-8") as stream:

        def tell(event: str, name: str = "", **more: object) -> None:
            stream.write(json.dumps({"event": event, "name": name, **more}) + "\n")
            stream.flush()

        def tell_result(name: str, result: Result) -> None:
            tell("result", name, result=asdict(result))

        try:
            from upfrost.gpu.binding import DeviceLostError

            module = importlib.import_module(request.part)
            jobs: Mapping[str, Job] = module.jobs(request)
        except Exception as error:
            tell_result(OPENING, _failure(error))
            return
        tell("jobs", names=list(jobs))
        for name, job in jobs.items():
            if name in request.done:
                continue
            tell("begin", name, about=job.about)
            try:
                tell_result(name, Result(facts=job.work()))
            except DeviceLostError as error:
                # What follows may find the device well again, in another process.
                tell_result(name, replace(_failure(error), ended=True))
                os._exit(0)
            except Exception as error:
                tell_result(name, _failure(error))
        tell("end")
        # A driver's last rites are not what is checked here.
        os._exit(0)


def _failure(error: Exception) -> Result:
    from upfrost.errors import UpfrostError

    if os.environ.get("UPFROST_TRACEBACK"):
        import traceback

        traceback.print_exception(error)
    kind = "" if isinstance(error, UpfrostError) else f"{type(error).__name__}: "
    module = error.name if isinstance(error, ImportError) else None
    return Result(failure=kind + " ".join(str(error).split()), module=module)


if __name__ == "__main__":
    main(*sys.argv[1:])
