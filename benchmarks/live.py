"""Video that keeps up: frames a second on boards on paper, and the processor's part.

usage: python -m benchmarks.live [--panvk FOLDER] [--frames N]

Networks for luma of random weights, 3×3 layers with PReLU and a bilinear skip, by the
cost model of docs/mali.md, with chroma, a submission and the copies of a frame at
stated speeds. Then, measured here: processor time for each frame of `upfrost video`
outside the device, by luma and by RGB, with a device that takes no time.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import cast

import numpy as np

from benchmarks.mali_static import GPUS, Gpu, cost, with_panvk
from benchmarks.report import Row, publish
from upfrost.gpu.frame import Frame, FrameFormat
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
from upfrost.video.color import Conversion, conversion, fourcc, luma_conversion
from upfrost.video.decode import Decoder
from upfrost.video.ffmpeg import find_ffmpeg, probe, run_ffmpeg
from upfrost.video.frames import picture_box
from upfrost.video.matroska import RGB24, frame_header, raw_video_header

# Channels and inner layers.
NETWORKS = ((4, 3), (8, 2), (8, 4), (16, 4), (16, 9))
SIZES = ((360, 640), (540, 960), (1080, 1920))
# Bytes a second that a board's processor copies: to memory that it caches, and from
# memory that it does not, as Mali's is under kernels before 6.19 (measured by others on
# a Cortex-A53; the boards of today are faster).
CACHED, UNCACHED = 1.2e9, 0.18e9
SUBMISSION = 120e-6  # seconds, of Kompute on lavapipe


def network(channels: int, layers: int) -> Graph:
    """A network for luma that doubles, its weights random."""
    rng = np.random.default_rng(0)
    nodes: list[Node] = []
    tensors: dict[str, Tensor] = {}
    value, count = INPUT, 1
    for number in range(layers + 2):
        wanted = channels if number <= layers else 4
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
        PixelShuffle(name="shuffled", inputs=(value,), factor=2),
        Resize(name="skip", inputs=(INPUT,), mode="bilinear", ratio=(2, 1)),
        Add(name="result", inputs=("shuffled", "skip")),
    ]
    return Graph(
        name=f"1-{channels}-{layers}",
        scale=2,
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
    plan = make_plan(compile_graph(graph, gpu.family, "fp16"), *size, kind.chroma)
    seconds = {"chroma": 0.0, "network": 0.0}
    for dispatch in plan.dispatches:
        part = "chroma" if dispatch.shader == "chroma" else "network"
        seconds[part] += cost(panvk, dispatch, gpu).seconds
    given, result = kind.frame_bytes(*size), kind.frame_bytes(2 * height, 2 * width)
    copies = {speed: (given / CACHED + result / speed) for speed in (CACHED, UNCACHED)}
    device = sum(seconds.values()) + SUBMISSION
    return {
        "board": gpu.board,
        "network": graph.name,
        "from": f"{width}×{height}",
        "dispatches": len(plan.dispatches),
        "network ms": 1e3 * seconds["network"],
        "chroma ms": 1e3 * seconds["chroma"],
        "copies ms": 1e3 * copies[CACHED],
        "uncached": 1e3 * copies[UNCACHED],
        "frames/s": 1 / max(device, copies[CACHED]),
        "one by one": 1 / (device + copies[CACHED]),
        "uncached frames/s": 1 / max(device, copies[UNCACHED]),
    }


def processor_seconds() -> float:
    """Of this process and of those that it waited for."""
    both = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    used = [resource.getrusage(who) for who in both]
    return sum(each.ru_utime + each.ru_stime for each in used)


def convert_frames(
    ffmpeg: str, clip: Path, convert: Callable[..., Conversion], decode: bool
) -> float:
    """Processor seconds of a clip's frames through a device that takes no time.

    Decoder, conversion and copies as `upfrost video` has them, into an encoder that
    does nothing. Without `decode` all else than the decoder.
    """
    info = probe(ffmpeg, clip)
    colors = convert(info)
    kind, (height, width) = colors.kind, (info.height, info.width)
    began = processor_seconds()
    size = kind.frame_bytes(height, width) if kind else 3 * height * width
    if decode:
        decoder = Decoder(ffmpeg, info, colors.to_frames, None, size)
        frames = [frame.pixels for frame in decoder]
        decoder.close()
        return processor_seconds() - began
    large = (2 * height, 2 * width)
    pixel_format = colors.pixel_format
    filters = (
        colors.from_planes(pixel_format) if kind else colors.from_rgb(pixel_format)
    )
    encoder = subprocess.Popen(
        [
            *(ffmpeg, "-hide_banner", "-loglevel", "error", "-f", "matroska"),
            *("-i", "pipe:0", "-vf", filters, "-c:v", "wrapped_avframe"),
            *("-f", "null", "-"),
        ],
        stdin=subprocess.PIPE,
    )
    assert encoder.stdin is not None
    code = fourcc(kind) if kind else RGB24
    encoder.stdin.write(
        raw_video_header(large[1], large[0], None, info.frame_rate, code)
    )
    device_in = np.empty(size, np.uint8)
    device_out = np.full(4 * size, 128, np.uint8)
    frames = [np.full(size, 90, np.uint8)] * round(
        float((info.duration or 0) * (info.frame_rate or 0))
    )
    for number, pixels in enumerate(frames):
        picture_box(
            Frame.of_bytes(kind, height, width, pixels)
            if kind
            else pixels.reshape(height, width, 3)
        )
        device_in[...] = pixels
        result = device_out.copy()
        moment = number / (info.frame_rate or Fraction(25))
        encoder.stdin.write(frame_header(moment, result.nbytes))
        encoder.stdin.write(result.data)
    encoder.stdin.close()
    encoder.wait()
    return processor_seconds() - began


def processor_rows(frames: int) -> list[Row]:
    """By luma and by RGB, in one run."""
    ffmpeg = find_ffmpeg()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mkv"
        run_ffmpeg(
            ffmpeg,
            [
                *("-f", "lavfi", "-i", f"testsrc2=s=640x360:r=25:d={frames / 25}"),
                *("-pix_fmt", "yuv420p", "-c:v", "rawvideo", str(clip)),
            ],
        )
        ways = {"luma": luma_conversion, "RGB": conversion}
        for name, convert in ways.items():
            before = convert_frames(ffmpeg, clip, convert, True) / frames
            after = convert_frames(ffmpeg, clip, convert, False) / frames
            rows.append(
                {
                    "path": name,
                    "from the decoder ms": 1e3 * before,
                    "to the encoder ms": 1e3 * after,
                    "both ms": 1e3 * (before + after),
                }
            )
    total = [cast("float", row["both ms"]) for row in rows]
    return [
        {**row, "share of RGB": each / total[1]}
        for row, each in zip(rows, total, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--frames", type=int, default=250)
    arguments, panvk = with_panvk(parser, "live")
    publish(
        "live_cpu",
        "Processor time for each frame of 640×360 outside the device, by path",
        processor_rows(arguments.frames),
        [
            "A clip of raw frames and an encoder that does nothing: what is left is "
            "reading, conversion, pipes, copies to and from the device, which takes "
            "no time. User and system time of all processes.",
            f"{os.cpu_count()} processors, others may work on them; {arguments.frames} "
            "frames.",
        ],
    )
    publish(
        "live_boards",
        "Networks for luma on boards, ×2, by the cost model of docs/mali.md",
        [
            model_row(panvk, gpu, network(*of), size)
            for gpu in GPUS
            for of in NETWORKS
            for size in SIZES
        ],
        [
            "Not measured: no board was at hand. 4:2:0 of 8 bits, half precision; "
            "names: channels in, width, inner layers.",
            f"copies: of a frame in and out at {CACHED / 1e9:g} GB/s; uncached: "
            f"reading the result at {UNCACHED / 1e9:g} GB/s, as from memory that a "
            "processor does not cache",
            "frames/s: copies beside the device's work, with "
            f"{SUBMISSION * 1e6:g} µs for a submission; one by one: after it",
            "chroma: every access a cache line of its own, the worst case",
        ],
    )


if __name__ == "__main__":
    main()
