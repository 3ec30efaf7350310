"""The thread that does one job after the other, each in a process of its own."""

from __future__ import annotations

import json
import logging
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from upfrost import children
from upfrost.serve.choices import CHOICES
from upfrost.serve.jobs import Job, Store
from upfrost.serve.speeds import Speeds
from upfrost.video.ffmpeg import ended_by

COMMAND = children.command("upfrost.serve.work")
_PATIENCE = 5.0  # seconds for a process to end when it is told to

_log = logging.getLogger("upfrost")


class Worker:
    """Does a store's jobs. `problem` says why nothing can be computed, if it is so."""

    def __init__(
        self,
        store: Store,
        speeds: Speeds,
        *,
        command: Sequence[str] = COMMAND,
        arguments: Sequence[str] = (),
    ) -> None:
        self.problem: str | None = None
        self._store = store
        self._speeds = speeds
        self._command = [*command, *arguments]
        self._guard = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._current: str | None = None
        self._unwanted: str | None = None  # the current job, if it is to be removed
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End what is being done; it goes on when a store is opened again."""
        with self._guard:
            self._stopping = True
            self._end_process()
        self._store.wake()
        self._thread.join(_PATIENCE)

    def attend(self) -> None:
        """End a measurement, since a job waits; it is made again later."""
        with self._guard:
            if self._current is None:
                self._end_process()

    def remove(self, key: str) -> None:
        """Remove a job; one that is being done is ended first."""
        with self._guard:
            if self._current == key:
                self._unwanted = key
                self._end_process()
                return
        self._store.remove(key)

    def _end_process(self) -> None:
        if self._process is not None:
            self._process.terminate()

    def _run(self) -> None:
        unknown = [c.model for c in CHOICES if self._speeds.rate(c.model) is None]
        while not self._stopping:
            job = self._store.take(0.0 if unknown else 60.0)
            try:
                if job is not None:
                    self._do(job)
                elif unknown and self._measure(unknown[0]):
                    unknown.pop(0)
                elif not self._store.is_waiting():
                    unknown.clear()
            except Exception as error:
                # One job's misfortune must not end the thread.
                _log.exception("job %s", job and job.id)
                unknown.clear()
                if job is not None:
                    said = f"{type(error).__name__}: {error}"
                    self._store.change(job.id, state="failed", error=said)

    def _measure(self, model: str) -> bool:
        """Measure a model's speed, as long as nothing else is to be done."""
        for told in self._lines(["--measure", model], None):
            if "rate" in told:
                self.problem = None
                self._speeds.learn(told["device"], model, told["rate"], first=True)
                return True
            self.problem = told.get("error")
        return False

    def _do(self, job: Job) -> None:
        began = time.monotonic()
        last: dict[str, Any] = {}
        first: float | None = None  # share of the work that earlier runs did
        for last in self._lines([str(self._store.job_folder(job.id))], job.id):
            if "share" not in last:
                continue
            values = {"share": last["share"], "left": last["left"]}
            first = last["share"] if first is None else first
            if job.kind == "video" and job.attempts and last["share"] > first:
                # However often a film is interrupted: it has come further.
                job = replace(job, attempts=0)
                values["attempts"] = 0
            self._store.change(job.id, **values)
        with self._guard:
            unwanted = self._unwanted == job.id
            self._current = self._unwanted = None
        if unwanted:
            self._store.remove(job.id)
        elif self._stopping and not last.keys() & {"done", "error"}:
            self._store.change(job.id, state="queued", attempts=0, share=0.0, left=None)
        elif "done" in last:
            self._finish(job, last["done"], time.monotonic() - began)
        else:
            error = last.get("error") or self._how_it_ended()
            self._store.change(
                job.id, state="failed", error=error, share=0.0, left=None
            )

    def _finish(self, job: Job, told: dict[str, Any], seconds: float) -> None:
        if told.get("work") and told.get("pixels"):
            self._speeds.learn(told["device"], job.model, told["pixels"] / told["work"])
        sizes = {
            key: tuple(told[key])
            for key in ("input_size", "output_size")
            if told.get(key) is not None
        }
        self._store.change(
            job.id,
            state="done",
            share=1.0,
            left=None,
            device=told["device"],
            notes=tuple(told["notes"]),
            seconds=round(seconds, 3),
            **sizes,
        )

    def _how_it_ended(self) -> str:
        process = self._process
        code = 0 if process is None else process.returncode
        how = ended_by(code) or f"exit code {code}"
        return f"the process that worked on it ended ({how}); try it again"

    def _lines(self, arguments: list[str], key: str | None) -> Iterator[dict[str, Any]]:
        """What a process says, until it has ended."""
        with self._guard:
            if self._stopping or (key is None and self._store.is_waiting()):
                return
            process = subprocess.Popen(
                [*self._command, *arguments],
                env=children.environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                encoding="utf-8",
                process_group=0,  # Ctrl-C is for the process that handles it
            )
            self._process, self._current = process, key
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            for line in process.stdout:
                with suppress(ValueError):
                    told = json.loads(line)
                    if isinstance(told, dict):
                        yield told
        finally:
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdin.close()
            process.stdout.close()
