"""What a video costs besides the network: waiting, memory, and whether it is exact.

usage: python -m benchmarks.video [memory] [overlap] [frames CLIP]

memory: a clip in which every frame differs is upscaled by the command `upfrost video`,
and each of its processes is looked at twice a second. Resident memory counts pages that
processes share for each of them; anonymous memory is what a process has of its own.
Growth is from the fifth that follows the first 500 frames to the last fifth.

overlap: the wall time of `upfrost video`, with a device that only takes time, and works
on one frame after the other, so that either the device or ffmpeg is the slowest: over
the device's time, and over that of one ffmpeg that decodes, repeats samples, and
encodes with the same settings: of planes, as a network for luma has them, and by way of
RGB, with the conversions there and back that another network needs. Runs take turns;
medians.

frames: ten seconds of CLIP at 320×180, whether each frame in a lossless result is byte
for byte that of `upfrost upscale` for the decoded frame as PNG.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from PIL import Image

from benchmarks.report import RESULTS, Row, publish
from upfrost.gpu.device import DeviceInfo
from upfrost.gpu.frame import Frame, Samples
from upfrost.gpu.tiles import tiling
from upfrost.metrics.chart import line_chart
from upfrost.network.graph import Graph
from upfrost.network.modelfile import find_model, read_model
from upfrost.status import Status
from upfrost.video.color import conversion
from upfrost.video.ffmpeg import find_ffmpeg, last_error, probe, run_ffmpeg
from upfrost.video.formats import CODECS, encoder_arguments
from upfrost.video.upscale import VideoOptions, VideoRecord, upscale_video

T = TypeVar("T")

WARM_FRAMES = 500
ROLES = ("upfrost", "decoder", "encoder")
CLIP_SECONDS = 10
OVERLAP_FRAMES = 1440  # a minute, since each video begins and ends once


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help="memory, overlap, frames CLIP"
    )
    parser.add_argument("--frames", type=int, default=10_000, help="for memory")
    parser.add_argument("--size", default="32x18", help="of the clip, for memory")
    parser.add_argument("--model", default="realtime-x2", help="for memory")
    parser.add_argument(
        "--luma-model", default="live-x2-s-clean", help="for overlap, of planes"
    )
    parser.add_argument(
        "--rgb-model", default="cascade-x2", help="for frames, and overlap by RGB"
    )
    parser.add_argument("--clip", type=Path, help="for overlap, a real one")
    parser.add_argument(
        "--length", type=int, default=OVERLAP_FRAMES, help="frames, for overlap"
    )
    parser.add_argument(
        "--device",
        type=float,
        metavar="SECONDS",
        help="for overlap: the device's time for a frame, and it alone as the slowest; "
        "the table is of its own",
    )
    parser.add_argument("--runs", type=int, default=3, help="for overlap")
    parser.add_argument(
        "--codecs",
        nargs="+",
        default=["h264"],
        choices=list(CODECS),
        help="for overlap",
    )
    options = parser.parse_args()
    words = options.parts or ["memory", "overlap"]
    with tempfile.TemporaryDirectory() as name:
        while words:
            part = words.pop(0)
            if part == "memory":
                measure_memory(Path(name), options.frames, options.size, options.model)
            elif part == "overlap":
                measure_overlap(Path(name), options)
            elif part == "frames" and words:
                compare_frames(Path(name), Path(words.pop(0)), options.rgb_model)
            else:
                parser.error(f"there is no part {part!r} without more said")


# Memory


@dataclass(frozen=True)
class Sample:
    """One look at the processes: bytes by role, summed over those of a role."""

    moment: float
    resident: dict[str, int]
    anonymous: dict[str, int]


def measure_memory(folder: Path, frames: int, size: str, model: str) -> None:
    clip, target = folder / "noise.mkv", folder / "noise-x2.mp4"
    noise = f"testsrc2=s={size}:r=25,noise=alls=20:allf=t"
    ffmpeg(
        *("-f", "lavfi", "-i", noise, "-frames:v", frames),
        *("-pix_fmt", "yuv420p", "-c:v", "libx264", clip),
    )
    command = [
        *(sys.executable, "-m", "upfrost.cli.main", "video", str(clip), str(target)),
        *("--model", model, "--json", "--quiet"),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        samples: list[Sample] = []
        began = time.monotonic()
        while process.poll() is None:
            samples.append(_sample(process.pid, time.monotonic() - began))
            time.sleep(0.5)
        assert process.stdout is not None
        record = json.loads(process.stdout.read())
    # While frames are decoded; then the result is put together.
    samples = [sample for sample in samples if sample.resident["decoder"]]
    warm = samples[-1].moment * min(0.5, WARM_FRAMES / frames)
    kept = [sample for sample in samples if sample.moment >= warm]
    fifth = max(1, len(kept) // 5)
    rows: list[Row] = [
        _memory_row(role, kept[:fifth], kept[-fifth:]) for role in (*ROLES, "all")
    ]
    RESULTS.mkdir(exist_ok=True)
    series = {
        role: [(sample.moment, _of(sample.resident, role) / 1e6) for sample in samples]
        for role in (*ROLES, "all")
    }
    chart = line_chart("Resident memory, MB", "seconds", series)
    (RESULTS / "video-memory.svg").write_text(chart + "\n")
    spent = record["seconds"]
    publish(
        "video-memory",
        "A long video: memory of each process",
        rows,
        [
            f"{record['frames']} frames of {size} by {record['model']} on "
            f"{record['device']}, {record['frames_per_second']:.1f} frames/s; in the "
            f"network {spent['upscale']:.1f} s, waiting for frames "
            f"{spent['decode']:.1f} s, waiting to encode {spent['encode']:.1f} s.",
            "Means and maxima over the fifth of the time that follows the first "
            f"{WARM_FRAMES} frames, and over the last fifth.",
            "Memory over time: video-memory.svg.",
        ],
    )


def _memory_row(role: str, early: Sequence[Sample], late: Sequence[Sample]) -> Row:
    row: dict[str, str | int | float | None] = {"process": role}
    for kind in ("resident", "anonymous"):
        first, last = (
            [_of(getattr(sample, kind), role) / 1e6 for sample in part]
            for part in (early, late)
        )
        for name, measure in (("mean", statistics.mean), ("largest", max)):
            before, after = measure(first), measure(last)
            row[f"{kind}, {name}, MB"] = f"{before:.1f} → {after:.1f}"
            growth = 100 * (after / before - 1) if before else 0.0
            row[f"growth of {name} {kind}, %"] = round(growth, 2)
    return row


def _of(sizes: dict[str, int], role: str) -> int:
    return sum(sizes.values()) if role == "all" else sizes[role]


def _sample(process: int, moment: float) -> Sample:
    resident, anonymous = dict.fromkeys(ROLES, 0), dict.fromkeys(ROLES, 0)
    for number in (process, *_descendants(process)):
        try:
            words = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
            text = Path(f"/proc/{number}/smaps_rollup").read_text()
        except OSError:
            continue  # it has ended
        sizes = {
            line.split()[0].rstrip(":"): int(line.split()[1]) * 1024
            for line in text.splitlines()[1:]
        }
        role = (
            "decoder"
            if b"pipe:1" in words
            else "encoder"
            if b"pipe:0" in words
            else "upfrost"
        )
        resident[role] += sizes.get("Rss", 0)
        anonymous[role] += sizes.get("Anonymous", 0)
    return Sample(moment, resident, anonymous)


def _descendants(process: int) -> Iterator[int]:
    try:
        tasks = list(Path(f"/proc/{process}/task").iterdir())
        children = [
            int(child)
            for task in tasks
            for child in (task / "children").read_text().split()
        ]
    except OSError:
        return
    for child in children:
        yield child
        yield from _descendants(child)


# Overlap


class Pretender:
    """An upscaler's stand-in, whose device takes that many seconds for each frame.

    It works on one after the other, as a device does, while Python is free. A frame's
    samples are repeated when its result is asked for, as others are copied then.
    """

    def __init__(self, graph: Graph, seconds: float) -> None:
        self.graph = graph
        self.tiling = tiling(graph)
        self.precision = "fp16"
        self.tuned_kernels: dict[str, str] = {}
        self.device = DeviceInfo(
            index=0,
            name="pretended",
            driver="none",
            driver_version="0",
            api_version="1.0.0",
            kind="integrated",
            heap_bytes=1 << 30,
            max_buffer_bytes=1 << 30,
            max_workgroup=256,
            max_grid=(65535, 65535, 65535),
            max_shared_bytes=1 << 15,
        )
        self._seconds = seconds
        self._free = 0.0  # when the device has done all that it was given

    def start(self, picture: Samples) -> Pretended[Samples]:
        return Pretended(lambda: _repeated(picture, self.graph.scale), self._ready())

    def start_frame(self, frame: Frame) -> Pretended[Frame]:
        scale = self.graph.scale
        return Pretended(
            lambda: Frame(
                frame.format, tuple(_repeated(plane, scale) for plane in frame.planes)
            ),
            self._ready(),
        )

    def _ready(self) -> float:
        now = time.monotonic()
        self._free = max(self._free, now) + self._seconds
        return self._free


@dataclass(frozen=True)
class Pretended(Generic[T]):
    """A result that the device has at the moment `ready`."""

    make: Callable[[], T]
    ready: float

    def result(self) -> T:
        left = self.ready - time.monotonic()
        if left > 0:
            time.sleep(left)
        return self.make()


def _repeated(plane: Samples, scale: int) -> Samples:
    """(H, W) or (H, W, C), each sample `scale`² times."""
    height, width, *channels = plane.shape
    given = plane.reshape(height, width, -1)
    result = np.empty((height, scale, width, scale, given.shape[2]), plane.dtype)
    # Row by row and channel by channel, as NumPy is slow with three bytes a pixel.
    for channel in range(given.shape[2]):
        for column in range(scale):
            result[:, 0, :, column, channel] = given[..., channel]
    result[:, 1:] = result[:, :1]
    return result.reshape(height * scale, width * scale, *channels)


def of_rgb(name: str) -> Graph:
    """A network that frames reach as RGB; another one would measure another way."""
    graph = read_model(find_model(name))
    if graph.colour is not None:
        raise SystemExit(f"video: {name} is for {graph.colour}, not for RGB")
    return graph


def of_luma(name: str) -> Graph:
    """A network that planes reach as they are."""
    graph = read_model(find_model(name))
    if graph.colour is None:
        raise SystemExit(f"video: {name} is not for luma")
    return graph


def measure_overlap(folder: Path, options: argparse.Namespace) -> None:
    graph, by_luma = of_rgb(options.rgb_model), of_luma(options.luma_model)
    if graph.scale != by_luma.scale:
        raise SystemExit(f"video: {graph.name} and {by_luma.name} differ in scale")
    small, clip = folder / "small.mp4", options.clip
    source: list[str | Path] = ["-f", "lavfi", "-i", "testsrc2=s=640x360:r=24"]
    if clip is not None:
        source = ["-i", clip]
    ffmpeg(
        *(*source, "-vf", "scale=640:360,format=yuv420p", "-frames:v", options.length),
        *("-an", "-c:v", "libx264", "-crf", 20, small),
    )
    larger = f"scale=iw*{graph.scale}:ih*{graph.scale}:flags=neighbor"
    colors = conversion(probe(find_ffmpeg(), small))
    # In planes, since swscale is slow with three bytes a pixel.
    by_rgb = (colors.to_frames, "format=gbrp", larger, colors.from_rgb("yuv420p"))
    rows: list[Row] = []
    for codec in options.codecs:
        alone: list[Run] = []
        alone_by_rgb: list[Run] = []
        fast: list[Run] = []
        fast_by_rgb: list[Run] = []
        if options.device is not None:
            rows.append(_device_row(small, folder, codec, by_luma, options.device))
            continue
        for _ in range(options.runs):
            alone.append(_ffmpeg_alone(small, folder, codec, larger, options.length))
            fast.append(_through(small, folder, codec, Pretender(by_luma, 0.0)))
            alone_by_rgb.append(
                _ffmpeg_alone(small, folder, codec, ",".join(by_rgb), options.length)
            )
            fast_by_rgb.append(_through(small, folder, codec, Pretender(graph, 0.0)))
        rows.append(_overlap_row(codec, "ffmpeg, planes", fast, alone))
        rows.append(
            _overlap_row(codec, "ffmpeg, by way of RGB", fast_by_rgb, alone_by_rgb)
        )
        # Twice as slow as ffmpeg, so that the device is the slowest.
        seconds = 2 * statistics.median(run.wall for run in alone) / options.length
        rows.append(_device_row(small, folder, codec, by_luma, seconds))
    publish(
        "video-overlap" if options.device is None else "video-overlap-device",
        "A video: wall time over that of its slowest part",
        rows,
        [
            f"{clip.name if clip else 'testsrc2'}, 640×360 to 1280×720; medians of "
            f"{options.runs} runs that took turns, {os.cpu_count()} processors.",
            "ffmpeg alone: one ffmpeg that decodes, repeats samples and encodes with "
            "the same settings; by way of RGB, it converts colours there and back as "
            "upfrost does.",
            "The device is pretended: it takes its time, and no processor.",
            f"Load average {os.getloadavg()[0]:.1f} at the end.",
        ],
    )


@dataclass(frozen=True)
class Run:
    """Seconds of the clock, and of processors if they are known, for a video."""

    frames: int
    wall: float
    busy: float | None


def _device_row(
    source: Path, folder: Path, codec: str, graph: Graph, seconds: float
) -> Row:
    """With a device that takes so many seconds for a frame."""
    run = _through(source, folder, codec, Pretender(graph, seconds))
    device = Run(run.frames, seconds * run.frames, None)
    return _overlap_row(codec, "device", [run], [device])


def _overlap_row(
    codec: str, slowest: str, runs: Sequence[Run], alone: Sequence[Run]
) -> Row:
    ours, theirs = (statistics.median(r.wall for r in part) for part in (runs, alone))
    return {
        "encoder": codec,
        "slowest": slowest,
        "frames": runs[0].frames,
        "upfrost video, s": round(ours, 2),
        "the slowest alone, s": round(theirs, 2),
        "ratio": round(ours / theirs, 3),
        "processor time, s": _busy(runs),
        "alone: processor time, s": _busy(alone),
    }


def _busy(runs: Sequence[Run]) -> float | None:
    known = [run.busy for run in runs if run.busy is not None]
    return round(statistics.median(known), 2) if known else None


def _ffmpeg_alone(
    source: Path, folder: Path, codec: str, filters: str, frames: int
) -> Run:
    target = folder / "alone.mp4"
    arguments = encoder_arguments(CODECS[codec], None, None)
    began, busy = time.perf_counter(), _processor_time()
    ffmpeg("-i", source, "-vf", filters, *arguments, target)
    wall = time.perf_counter() - began
    return Run(frames, wall, _processor_time() - busy)


def _through(source: Path, folder: Path, codec: str, upscaler: Any) -> Run:
    target = folder / "through.mp4"
    record = VideoRecord(str(source), str(target))
    options = VideoOptions(codec=codec, overwrite=True)
    began, busy = time.perf_counter(), _processor_time()
    upscale_video(
        source, target, upscaler, options, Status(io.StringIO(), quiet=True), record
    )
    wall = time.perf_counter() - began
    assert record.computed_frames is not None
    return Run(record.computed_frames, wall, _processor_time() - busy)


def _processor_time() -> float:
    """Seconds of processor time of this process and all that it has waited for."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


# Frames


def compare_frames(folder: Path, clip: Path, model: str) -> None:
    of_rgb(model)
    small, large = folder / "clip.mp4", folder / "clip-x2.mkv"
    ffmpeg(
        *("-i", clip, "-t", CLIP_SECONDS, "-an", "-vf", "scale=320:180,format=yuv420p"),
        *("-c:v", "libx264", "-crf", 18, "-colorspace", "bt709"),
        *("-color_range", "tv", small),
    )
    _upfrost("video", small, large, "--codec", "ffv1", "-m", model)
    given, found, made = (folder / name for name in ("given", "found", "made"))
    for path in (given, found):
        path.mkdir()
    flags = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
    to_rgb = f"scale=in_color_matrix=bt709:in_range=tv:out_range=pc:flags={flags}"
    passed = ["-fps_mode", "passthrough", "-pix_fmt", "rgb24"]
    ffmpeg("-i", small, "-vf", to_rgb, *passed, given / "%06d.png")
    ffmpeg("-i", large, *passed, found / "%06d.png")
    _upfrost("upscale", given, "-o", made, "-m", model)
    pairs = [
        [np.asarray(Image.open(path)) for path in two]
        for two in zip(sorted(made.iterdir()), sorted(found.iterdir()), strict=True)
    ]
    publish(
        "video-frames",
        "Frames of a video against the picture path",
        [
            {
                "clip": clip.stem,
                "size": "320×180",
                "seconds": float(Fraction(CLIP_SECONDS)),
                "frames": len(pairs),
                "equal, byte for byte": sum(
                    one.tobytes() == other.tobytes() for one, other in pairs
                ),
                "bytes a frame": pairs[0][0].nbytes,
            }
        ],
    )


def _upfrost(*arguments: str | Path) -> None:
    command = [
        sys.executable,
        "-m",
        "upfrost.cli.main",
        *map(str, arguments),
        "--quiet",
    ]
    subprocess.run(command, check=True)


def ffmpeg(*arguments: str | int | Path) -> None:
    found = run_ffmpeg(find_ffmpeg(), ["-y", *map(str, arguments)])
    if found.returncode:
        raise SystemExit(last_error(found.stderr.decode(errors="replace").splitlines()))


if __name__ == "__main__":
    main()
