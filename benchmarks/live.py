"""Video that keeps up: frames a second on boards on paper, and the processor's part.

usage: python -m benchmarks.live [--panvk FOLDER] [--frames N] [--rounds N]
                                 [--only cpu|boards]

Networks for luma of random weights, 3×3 layers with PReLU and a bilinear skip, by the
cost model of docs/mali.md, with chroma, a submission and the copies of a frame at
stated speeds; FOLDER, as in `benchmarks.mali_static`, is needed for these alone. Then,
measured here: processor time for each frame of `upfrost video` and of the GStreamer
element (`make gstreamer`; UPFROST_GSTREAMER names another place of it) outside the
device, by luma and by RGB, with a device that takes no time.
"""

from __future__ import annotations

import argparse
import io
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import cast
from unittest import mock

import numpy as np

from benchmarks.idle import idle_device, processor_seconds
from benchmarks.mali_static import GPUS, Gpu, add_panvk, cost, panvk_of
from benchmarks.report import Row, publish
from upfrost import Upscaler
from upfrost.gpu.budget import (
    COPY_BYTES,
    SUBMISSION_SECONDS,
    choose_bands,
    waited_seconds,
)
from upfrost.gpu.families import VARIANTS
from upfrost.gpu.frame import FrameFormat
from upfrost.gpu.plan import compile_graph, make_plan
from upfrost.network.graph import (
    INPUT,
    Add,
    Conv2d,
    Graph,
    Node,
    PixelShuffle,
    Prelu,
    Resize,
    Tensor,
)
from upfrost.status import Status
from upfrost.video import upscale
from upfrost.video.encode import Encoding
from upfrost.video.ffmpeg import find_ffmpeg, run_ffmpeg
from upfrost.video.job import Job, Segment

# Channels, inner layers, scale.
NETWORKS = (
    *((4, 3, 2), (8, 2, 2), (8, 4, 2), (12, 7, 2)),
    *((16, 4, 2), (16, 9, 2), (16, 11, 2)),
    (8, 4, 3),
)
SIZES = ((360, 640), (540, 960), (1080, 1920))
# Bytes a second that a board's processor copies from memory that it does not cache, as
# Mali's is under kernels before 6.19 (measured by others on a Cortex-A53; the boards of
# today are faster). `COPY_BYTES` is of memory that it does.
UNCACHED = 0.18e9
# By path; what they compute does not matter.
MODELS = {"luma": "live-x2-s-clean", "RGB": "cascade-x2"}
SHORT = 100  # frames of the run that is subtracted: a segment


def network(channels: int, layers: int, scale: int = 2) -> Graph:
    """A network for luma, its weights random."""
    rng = np.random.default_rng(0)
    nodes: list[Node] = []
    tensors: dict[str, Tensor] = {}
    value, count = INPUT, 1
    for number in range(layers + 2):
        wanted = channels if number <= layers else scale**2
        name = f"conv{number}"
        tensors[f"{name}.w"] = rng.normal(0, 0.1, (wanted, count, 3, 3)).astype("f4")
        tensors[f"{name}.b"] = np.zeros(wanted, np.float32)
        nodes.append(
            Conv2d(
                name=name,
                inputs=(value,),
                weight=f"{name}.w",
                bias=f"{name}.b",
                padding=(1, 1, 1, 1),
            )
        )
        value, count = name, wanted
        if number <= layers:
            tensors[f"{name}.s"] = np.full(channels, 0.1, np.float32)
            value = f"prelu{number}"
            nodes.append(Prelu(name=value, inputs=(name,), slope=f"{name}.s"))
    nodes += [
        PixelShuffle(name="shuffled", inputs=(value,), factor=scale),
        Resize(name="skip", inputs=(INPUT,), mode="bilinear", ratio=(scale, 1)),
        Add(name="result", inputs=("shuffled", "skip")),
    ]
    return Graph(
        name=f"1-{channels}-{layers}",
        scale=scale,
        channels=1,
        nodes=tuple(nodes),
        output="result",
        tensors=tensors,
        colour="luma",
    )


def model_row(panvk: Path, gpu: Gpu, graph: Graph, size: tuple[int, int]) -> Row:
    """A network on a board on paper."""
    kind = FrameFormat("420")
    height, width = size
    program = compile_graph(graph, gpu.family, "fp16")
    plan = make_plan(program, *size, kind.chroma)
    seconds = {"chroma": 0.0, "network": 0.0}
    for dispatch in plan.dispatches:
        part = "chroma" if dispatch.shader == "chroma" else "network"
        seconds[part] += cost(panvk, dispatch, gpu).seconds
    # The last layer and `pack`, where it could not write samples itself.
    packing = make_plan(
        compile_graph(graph, replace(gpu.family, luma=()), "fp16"), *size
    )
    by_pack = sum(cost(panvk, dispatch, gpu).seconds for dispatch in packing.dispatches)
    scale = graph.scale
    given = kind.frame_bytes(*size)
    result = kind.frame_bytes(scale * height, scale * width)
    copies = (given + result) / COPY_BYTES
    uncached = given / COPY_BYTES + result / UNCACHED
    device = sum(seconds.values()) + SUBMISSION_SECONDS
    grid = choose_bands(program, *size, kind.chroma, gpu.board)
    band = make_plan(program, grid.height, grid.width, kind.chroma)
    banded = len(grid) * (
        sum(cost(panvk, dispatch, gpu).seconds for dispatch in band.dispatches)
        + SUBMISSION_SECONDS
    )
    return {
        "board": gpu.board,
        "network": graph.name,
        "scale": f"×{scale}",
        "from": f"{width}×{height}",
        "dispatches": len(plan.dispatches),
        "network ms": 1e3 * seconds["network"],
        "with pack ms": 1e3 * by_pack,
        "chroma ms": 1e3 * seconds["chroma"],
        "copies ms": 1e3 * copies,
        "uncached": 1e3 * uncached,
        "frames/s": 1 / max(device, copies),
        "bands": len(grid),
        "one by one": 1 / waited_seconds(banded, grid.overhead * copies, len(grid)),
        "whole": 1 / (device + copies),
        "uncached frames/s": 1 / max(device, uncached),
    }


def fused_row(panvk: Path, gpu: Gpu, channels: int, size: tuple[int, int]) -> Row:
    """Two inner layers of a network, and the least that one dispatch of both takes.

    It would compute the first layer for its workgroup's pixels and those around them,
    and read and write what one layer does. Values between the two would go through
    shared memory, which is ordinary memory there: instructions stay what they are.
    """
    plan = make_plan(compile_graph(network(channels, 2), gpu.family, "fp16"), *size)
    bands = [dispatch for dispatch in plan.dispatches if dispatch.label == "conv1"]
    costs = [cost(panvk, band, gpu) for band in bands]
    compute, memory = (
        sum(getattr(each, part) for each in costs) for part in ("compute", "memory")
    )
    variant = VARIANTS[bands[0].shader].defines
    width = variant["TILE_W"] * variant["GROUP_X"]
    height = variant["TILE_H"] * variant["GROUP_Y"]
    again = (width + 2) * (height + 2) / (width * height)
    fused = max((1 + again) * compute, memory)
    two = 2 * max(compute, memory)
    return {
        "board": gpu.board,
        "channels": channels,
        "from": f"{size[1]}×{size[0]}",
        "compute ms": 1e3 * compute,
        "memory ms": 1e3 * memory,
        "two layers ms": 1e3 * two,
        "fused, at least ms": 1e3 * fused,
        "share": fused / two,
    }


def video_seconds(
    ffmpeg: str, clip: Path, model: str, segment: Fraction | None
) -> float:
    """Processor seconds of `upfrost video` on a clip, encoders that do nothing.

    One is started for each `segment` seconds, or as often as is usual.
    """
    began = processor_seconds()
    with ExitStack() as stack:
        stack.enter_context(idle_device())
        for owner, name, new in (
            (Encoding, "command", property(_null_command)),
            (Job, "add", _count_segment),
            (upscale, "try_encoding", lambda *_: None),
            (upscale, "write_result", lambda *arguments: arguments[3].touch()),
            (upscale, "lost_tags", lambda *_: []),
        ):
            stack.enter_context(mock.patch.object(owner, name, new))
        target = clip.with_name(f"{model}.mkv")
        with Upscaler(model) as upscaler:
            upscale.upscale_video(
                clip,
                target,
                upscaler,
                upscale.VideoOptions(ffmpeg=ffmpeg, overwrite=True, segment=segment),
                Status(io.StringIO()),
                upscale.VideoRecord(str(clip), str(target)),
            )
    return processor_seconds() - began


def _null_command(encoding: Encoding) -> list[str]:
    """Frames through the encoder's filters, to nowhere."""
    return [
        *("-f", "matroska", "-probesize", "32", "-analyzeduration", "0"),
        *("-i", "pipe:0", "-map", "0:v", "-vf", encoding.filters),
        *("-fps_mode", "passthrough", "-c:v", "wrapped_avframe", "-f", "null"),
    ]


def _count_segment(job: Job, part: Path, segment: Segment) -> None:  # noqa: ARG001
    job.segments += 1
    job.frames += len(segment.times)


def video_row(path: str, frames: int, segment: Fraction | None = None) -> Row:
    """`upfrost video`: the difference between a long and a short clip."""
    ffmpeg = find_ffmpeg()
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for length in (SHORT, SHORT, SHORT + frames):  # the first for caches
            clip = Path(folder) / f"{length}.mkv"
            duration = length / 25
            run_ffmpeg(
                ffmpeg,
                [
                    *("-f", "lavfi", "-i", f"testsrc2=s=640x360:r=25:d={duration}"),
                    *("-pix_fmt", "yuv420p", "-c:v", "rawvideo", "-y", str(clip)),
                ],
            )
            seconds.append(video_seconds(ffmpeg, clip, MODELS[path], segment))
    return {
        "program": "upfrost video" + ("" if segment is None else ", one encoder"),
        "path": path,
        "ms": 1e3 * (seconds[2] - seconds[1]) / frames,
    }


def element_row(path: str, frames: int) -> Row:
    """The GStreamer element, what converts for it counted in."""
    setup = Path(os.environ.get("UPFROST_GSTREAMER", ".venv-gstreamer"))
    element = f"upfrostscale model={MODELS[path]}"
    if path == "RGB":
        convert = "videoconvert ! video/x-raw,format={}"
        element = f"{convert.format('RGB')} ! {element} ! {convert.format('I420')}"
    pipeline = (
        "videotestsrc num-buffers=1 ! video/x-raw,format=I420,width=640,height=360,"
        f"framerate=25/1 ! imagefreeze num-buffers=FRAMES ! {element} ! fakesink"
    )
    words = ["python", "-m", "benchmarks.live_element", str(frames), pipeline]
    done = subprocess.run(
        [
            "bash",
            "-c",
            f". {shlex.quote(str(setup))}/gstreamer.sh && {shlex.join(words)}",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"live: the GStreamer element (make gstreamer): {done.stderr}")
    return {
        "program": "upfrostscale",
        "path": path,
        "ms": 1e3 * float(done.stdout.split()[-1]),
    }


def processor_rows(frames: int, rounds: int) -> list[Row]:
    """By luma and by RGB in turns, the median of some rounds."""
    rows: list[Row] = []
    one_encoder = partial(video_row, segment=Fraction(SHORT + frames))
    for measure in (video_row, one_encoder, element_row):
        by_path: dict[str, list[Row]] = {path: [] for path in MODELS}
        for _ in range(rounds):
            for path, found in by_path.items():
                found.append(measure(path, frames))
        medians = {
            path: statistics.median(cast("float", row["ms"]) for row in found)
            for path, found in by_path.items()
        }
        rows += [
            {
                **found[0],
                "ms": medians[path],
                "share of RGB": medians[path] / medians["RGB"],
            }
            for path, found in by_path.items()
        ]
    return rows


def publish_processor(frames: int, rounds: int) -> None:
    publish(
        "live_cpu",
        "Processor time for each frame of 640×360 outside the device, by path",
        processor_rows(frames, rounds),
        [
            "User and system time of all processes, with a device that takes no time: "
            "copies to and from its buffers are in it. By luma: "
            f"{MODELS['luma']}, planes as they are; by RGB: {MODELS['RGB']}, with the "
            "conversions that it needs.",
            "upfrost video: a clip of raw frames, and encoders that do nothing: one "
            "for each segment of four seconds, as usual, or one for all, without what "
            "their starts take. upfrostscale: I420 in and out.",
            f"{os.cpu_count()} processors, others may work on them; the difference "
            f"between {SHORT + frames} frames and {SHORT}, the median of "
            f"{rounds} rounds.",
        ],
    )


def publish_boards(panvk: Path) -> None:
    publish(
        "live_boards",
        "Networks for luma on boards, by the cost model of docs/mali.md",
        [
            model_row(panvk, gpu, network(*of), size)
            for gpu in GPUS
            for of in NETWORKS
            for size in SIZES
        ],
        [
            "Not measured: no board was at hand. 4:2:0 of 8 bits, half precision; "
            "names: channels in, width, inner layers.",
            f"copies: of a frame in and out at {COPY_BYTES / 1e9:g} GB/s; uncached: "
            f"reading the result at {UNCACHED / 1e9:g} GB/s, as from memory that a "
            "processor does not cache",
            "frames/s: copies beside the device's work, with "
            f"{SUBMISSION_SECONDS * 1e6:g} µs for a submission; one by one: where each "
            "frame is waited for, in so many bands, whose copies lie beside the work "
            "on the next; whole: in one",
            "chroma: every access a cache line of its own, the worst case",
            "with pack: the network, if its last layer did not write samples itself",
        ],
    )
    publish(
        "live_fused",
        "Two inner layers in one dispatch, by the cost model of docs/mali.md",
        [
            fused_row(panvk, gpu, channels, size)
            for gpu, size in zip(GPUS, (SIZES[0], SIZES[2]), strict=True)
            for channels in (4, 8, 12, 16)
        ],
        [
            "An estimate, of a kernel that was not written. Half precision; compute "
            "and memory: of one layer, of which the larger counts",
            "fused, at least: the first layer's pixels around a workgroup computed "
            "again, values between the layers for the instructions that they cost now",
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--frames", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("cpu", "boards"))
    add_panvk(parser)
    arguments = parser.parse_args()
    # Asked for before minutes of measuring.
    panvk = None if arguments.only == "cpu" else panvk_of(arguments, "live")
    if arguments.only != "boards":
        publish_processor(arguments.frames, arguments.rounds)
    if panvk is not None:
        publish_boards(panvk)


if __name__ == "__main__":
    main()
