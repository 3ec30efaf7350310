"""The process that does one job: ``python -m upfrost.serve.work JOB``.

A process of its own, since a driver can take its process along, and since what is
ended can be removed. It prints JSON, an object on a line: ``{"share", "left"}`` while
it works, and at its end ``{"done"}`` with what became of the job, or ``{"error"}``. It
ends with its parent, whose end of its stdin closes then.

``python -m upfrost.serve.work --measure MODEL`` prints how fast a model is.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from upfrost.errors import UpfrostError
from upfrost.gpu.upscaler import Upscaler
from upfrost.image import batch
from upfrost.image.images import MAX_PIXELS, read_picture
from upfrost.serve.jobs import PREVIEW, Job, is_full, read_job
from upfrost.serve.uploads import without_path
from upfrost.status import Status
from upfrost.video import upscale as video
from upfrost.video.ffmpeg import VideoError

INTERVAL = 0.5  # seconds between two lines about progress
_MEASURED = 192  # pixels a side
_PREVIEW_SIDE = 4096


class _Reporter(Status):
    """Progress as lines for the process that started this one."""

    def __init__(self) -> None:
        super().__init__(io.StringIO(), quiet=True)
        self._first: tuple[float, int] | None = None
        self._told = 0.0

    def count(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        if self._first is None:
            # What an earlier run did says nothing about this one's speed, and neither
            # does the first tile, for which kernels are compiled.
            self._first = now, done
        if now - self._told < INTERVAL or not total:
            return
        self._told = now
        began, before = self._first
        left = None
        if done > before:
            left = (now - began) / (done - before) * max(0, total - done)
        say(share=min(1.0, done / total), left=left)


def say(**values: Any) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def main(arguments: list[str] | None = None) -> int:
    """Do what the arguments say; the exit code is 0 also for a job that fails."""
    parser = argparse.ArgumentParser(prog="upfrost.serve.work")
    parser.add_argument("job", nargs="?")
    parser.add_argument("--measure", metavar="MODEL")
    parser.add_argument("--device")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--memory", type=int)
    parser.add_argument("--ffmpeg")
    options = parser.parse_args(arguments)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if options.measure:
        _measure(options)
        return 0
    folder = Path(options.job)
    job = read_job(folder)
    if job is None:
        say(error="its description cannot be read")
        return 0
    try:
        record = (_picture if job.kind == "picture" else _video)(folder, job, options)
    except UpfrostError as error:
        say(error=without_path(str(error), folder / "input"))
    except OSError as error:
        full = "the disk is full; make room, then try again"
        say(error=full if is_full(error) else f"{error.strerror}")
    except MemoryError:
        say(error="not enough memory")
    else:
        say(done=record)
    return 0


def open_upscaler(model: str, options: argparse.Namespace) -> Upscaler:
    """The upscaler of a bundled model, for the caller to close.

    Raises what `Upscaler` does.
    """
    return Upscaler(
        model,
        device=options.device,
        precision=options.precision,
        memory=options.memory,
    )


def _picture(folder: Path, job: Job, options: argparse.Namespace) -> dict[str, Any]:
    source, target = folder / "input", folder / f"result{job.result_suffix}"
    records: list[batch.PictureRecord] = []
    _write_preview(source, folder / PREVIEW, job)
    with open_upscaler(job.model, options) as upscaler:
        batch.run_batch(
            batch.Plan((batch.Job(source, target),)),
            upscaler,
            batch.Options(quality=None, max_pixels=MAX_PIXELS, existing="skip"),
            _Reporter(),
            records.append,
        )
        (record,) = records
        if record.error is not None:
            raise UpfrostError(record.error)
    return _told(record) | {"work": record.seconds.get("upscale")}


def _video(folder: Path, job: Job, options: argparse.Namespace) -> dict[str, Any]:
    source, target = folder / "input", folder / f"result{job.result_suffix}"
    record = video.VideoRecord(str(source), str(target))
    settings = video.VideoOptions(ffmpeg=options.ffmpeg, resume=True)
    with open_upscaler(job.model, options) as upscaler:
        try:
            video.upscale_video(source, target, upscaler, settings, _Reporter(), record)
        except VideoError as error:
            if "begun with another" not in str(error):
                raise
            # Another version or device than before: nobody is there to be asked.
            settings = video.VideoOptions(ffmpeg=options.ffmpeg, overwrite=True)
            record = video.VideoRecord(str(source), str(target))
            video.upscale_video(source, target, upscaler, settings, _Reporter(), record)
        record.describe(upscaler)
    told = _told(record)
    if record.frames_per_second and record.output_size:
        width, height = record.output_size
        told["work"] = 1 / record.frames_per_second
        told["pixels"] = width * height
    return told


def _told(record: batch.PictureRecord | video.VideoRecord) -> dict[str, Any]:
    size = record.output_size
    return {
        "input_size": record.input_size,
        "output_size": size,
        "device": record.device,
        "notes": [without_path(note, Path(record.input)) for note in record.notes],
        "pixels": None if size is None else size[0] * size[1],
    }


def _write_preview(source: Path, preview: Path, job: Job) -> None:
    if job.input_suffix != ".tif" or preview.exists():
        return
    picture = read_picture(source, max_pixels=MAX_PIXELS)
    image = Image.fromarray(picture.rgb)
    image.thumbnail((_PREVIEW_SIDE, _PREVIEW_SIDE))
    image.save(preview, quality=95)


def _measure(options: argparse.Namespace) -> None:
    """Say how many pixels of results a model computes in a second."""
    pixels = np.random.default_rng(7).integers(
        0, 256, (_MEASURED, _MEASURED, 3), dtype=np.uint8
    )
    try:
        with open_upscaler(options.measure, options) as upscaler:
            upscaler(pixels[:32, :32])  # kernels are compiled
            upscaler(pixels)
            began = time.perf_counter()
            result = upscaler(pixels)
            seconds = time.perf_counter() - began
            device = upscaler.device
    except UpfrostError as error:
        say(error=str(error))
    else:
        rate = result.shape[0] * result.shape[1] / max(seconds, 1e-6)
        say(rate=rate, device=device.name, is_gpu=device.is_gpu)


def _end_with_parent() -> None:
    """A parent that was killed takes this process along: another one will go on."""
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
