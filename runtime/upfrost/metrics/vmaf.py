"""VMAF, PSNR and SSIM of a video against its original, by ffmpeg's libvmaf.

Z. Li et al., "Toward a practical perceptual video quality metric", 2016. The ffmpeg
that imageio-ffmpeg brings has libvmaf and its models; Debian's has not.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from upfrost.text import printable
from upfrost.video.color import refuse_hdr
from upfrost.video.ffmpeg import (
    LOG,
    VideoError,
    last_error,
    parse_frame,
    probe,
    source_arguments,
    starting,
)

# Distances between frames differ by containers' rounding to milliseconds, or as those
# of 24 and 25 frames a second do, at which the same frames may be shown.
_ROUNDED = Fraction(2, 1000)  # seconds
_SAME = Fraction(1, 10)
_SHOWN = re.compile(r"\[showinfo@(\w+) ")
_METRICS = {"vmaf": "vmaf", "psnr": "psnr_y", "ssim": "float_ssim"}


@dataclass(frozen=True)
class VideoQuality:
    """Values of each frame, and their means. PSNR is that of luma, in dB."""

    vmaf: tuple[float, ...]
    psnr: tuple[float, ...]
    ssim: tuple[float, ...]

    def mean(self, metric: str) -> float:
        """The mean of vmaf, psnr or ssim over all frames."""
        values: tuple[float, ...] = getattr(self, metric)
        return sum(values) / len(values)

    def means(self) -> dict[str, float]:
        return {metric: self.mean(metric) for metric in _METRICS}


def measure_video(ffmpeg: str, original: Path, result: Path) -> VideoQuality:
    """Compare the videos frame by frame, in their order, until the shorter one ends.

    A smaller result is enlarged by bicubic, as VMAF's authors do. Raises `VideoError`,
    also for HDR, which these metrics do not know, and for videos whose frames come at
    other distances: those are not the same frames.
    """
    first, second = probe(ffmpeg, original), probe(ffmpeg, result)
    for info in (first, second):
        refuse_hdr(info)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "vmaf.json"
        # Frames are paired by number: their times may differ by a container's rounding.
        paired = "settb=1/1000,setpts=N,format=yuv420p"
        large = f"scale={first.width}:{first.height}:flags=bicubic"
        graph = (
            f"[0:{second.video.index}]showinfo@result=checksum=0,{large},{paired}[a];"
            f"[1:{first.video.index}]showinfo@original=checksum=0,{paired}[b];"
            f"[a][b]libvmaf=log_fmt=json:log_path={log.name}:n_threads=2"
            ":feature=name=psnr|name=float_ssim:shortest=1"
        )
        sources = [
            *source_arguments(result.resolve()),
            *source_arguments(original.resolve()),
        ]
        run = _Run(ffmpeg, [*sources, "-lavfi", graph, "-f", "null", "-"], folder)
        if run.code or not log.exists():
            missing = any("No such filter: 'libvmaf'" in line for line in run.log)
            raise VideoError(
                "this ffmpeg has no libvmaf; pip install imageio-ffmpeg brings one"
                if missing
                else f"{printable(result)}: not measured: {last_error(run.log)}"
            )
        frames = [frame["metrics"] for frame in json.loads(log.read_bytes())["frames"]]
    if not frames:
        raise VideoError(f"{printable(result)}: no frame to measure")
    pairs = zip(
        run.intervals("result", second.time_base),
        run.intervals("original", first.time_base),
        strict=False,
    )
    for number, (ours, theirs) in enumerate(pairs, start=2):
        if abs(ours - theirs) > max(_ROUNDED, max(ours, theirs) * _SAME):
            raise VideoError(
                f"{printable(result)}: not the frames of {printable(original)}: number "
                f"{number} comes after {float(ours):.3f} s, not {float(theirs):.3f} s"
            )
    return VideoQuality(
        **{
            name: tuple(float(frame[key]) for frame in frames)
            for name, key in _METRICS.items()
        }
    )


class _Run:
    """A run of ffmpeg: its return code, its log, and the times of frames in it.

    The frames are those that filters `showinfo` saw, by the filters' names; each has
    lines of the log, which are not kept.
    """

    def __init__(self, ffmpeg: str, arguments: Sequence[str], folder: str) -> None:
        self.log: list[str] = []
        self._times: dict[str, list[int | None]] = {}
        with starting(ffmpeg):
            process = subprocess.Popen(
                [ffmpeg, *LOG, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                cwd=folder,
            )
        with process:
            assert process.stderr is not None
            for raw in process.stderr:
                line = raw.decode(errors="replace").rstrip("\n")
                if shown := _SHOWN.match(line):
                    self._read(shown[1], line)
                else:
                    self.log.append(line)
        self.code = process.returncode

    def intervals(self, name: str, time_base: Fraction) -> Iterator[Fraction]:
        """Seconds between the frames that the filter of that name saw, by its clock.

        They end at a frame that has no time, as in raw streams.
        """
        for before, after in itertools.pairwise(self._times.get(name, [])):
            if before is None or after is None:
                return
            yield (after - before) * time_base

    def _read(self, name: str, line: str) -> None:
        if frame := parse_frame(line):
            self._times.setdefault(name, []).append(frame.pts)
