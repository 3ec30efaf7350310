"""What ncnn's 3×3 convolution costs a Mali, by the same compiler and cost model.

usage: python -m benchmarks.mali_ncnn [--panvk FOLDER]

ncnn computes such a layer by Winograd's F(4,3): a transform of the input, products, a
transform of the result. Its shaders are compiled by the driver of mali_static, which
prints what it makes of them. Where the model needs an assumption, it
is made in ncnn's favour: every access but a spill reads and writes whole cache lines,
and no value is fetched twice. A spilled register lies in its own line for each lane.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.mali_static import (
    GPUS,
    HEIGHT,
    LINE,
    WIDTH,
    Gpu,
    cost,
    layer_dispatches,
    parse_bifrost,
    parse_valhall,
    with_panvk,
)
from benchmarks.report import Row, publish
from upfrost.gpu.families import MALI

QUAD = 8  # bytes of four channels in half precision
# What the driver says of a shader: issue slots, loads and stores, spills, fills.
STATISTICS = {
    "g52": r"^SHADER-DB: .* (\d+) tuples,.* ([\d.]+) ldst,.* (\d+):(\d+) spills",
    "g610": r"^SHADER-DB: .*?: (\d+) inst,.* ([\d.]+) ls,.* (\d+):(\d+) spills",
}
# ncnn makes its pipelines when it loads a model. What it does after that is nothing
# here, since the driver's kernel side is a stand-in.
_CHILD = """
import sys
import ncnn
import numpy as np

channels = int(sys.argv[1])
with open("a.param", "w") as file:
    file.write(
        "7767517\\n2 2\\nInput a 0 1 a\\n"
        f"Convolution c 1 1 a b 0={channels} 1=3 4=1 5=1 6={channels ** 2 * 9}\\n"
    )
weights = np.random.default_rng(0).standard_normal(channels**2 * 9)
with open("a.bin", "wb") as file:
    file.write(bytes(4))
    file.write(weights.astype(np.float32).tobytes())
    file.write(bytes(4 * channels))
net = ncnn.Net()
net.opt.use_vulkan_compute = True
net.load_param("a.param")
net.load_model("a.bin")
sys.stdout.flush()
"""


@dataclass(frozen=True)
class Shader:
    """One of ncnn's shaders: what an invocation issues, loops as often as they run."""

    slots: float
    bytes: float  # loaded and stored, but for spills and fills
    spills: int  # and fills


def ncnn_shaders(panvk: Path, channels: int, gpu: Gpu) -> list[Shader]:
    """Input transform, products and output transform of F(4,3)."""
    with tempfile.TemporaryDirectory() as folder:
        script = f'. {panvk}/env.sh {gpu.name}; exec "$0" -c "$1" {channels}'
        said = subprocess.run(
            ["bash", "-c", script, sys.executable, _CHILD],
            capture_output=True,
            cwd=folder,
            env={**os.environ, "BIFROST_MESA_DEBUG": "shaderdb,shaders"},
            text=True,
            errors="replace",
            check=False,
        )
    statistics = re.findall(STATISTICS[gpu.name], said.stderr, re.M)
    listings = said.stdout.split("shader: MESA_SHADER_COMPUTE")[1:]
    if len(statistics) < 6 or len(listings) != len(statistics):
        sys.exit(f"mali_ncnn: ncnn made no pipelines\n{said.stderr[-1000:]}")
    # The last six pipelines: F(4,3)'s three, then F(2,3)'s.
    return [
        shader_of(
            gpu,
            listing,
            int(slots),
            float(accesses),
            int(spills) + int(fills),
            channels,
        )
        for listing, (slots, accesses, spills, fills) in list(
            zip(listings, statistics, strict=True)
        )[-6:-3]
    ]


def shader_of(
    gpu: Gpu, listing: str, slots: int, accesses: float, spills: int, channels: int
) -> Shader:
    """A shader by its statistics, and by its listing if it has a loop."""
    # The listing comes last, after the compiler's own form of the shader.
    if gpu.name == "g52":
        text = listing[listing.rindex("clause_0:") :]
        code, loops = parse_bifrost(text)
        # Many of its accesses there are of one half-precision number.
        spilled = re.findall(r"(?:LOAD|STORE)\.i(\d+)[.\w]*\.tl\b", text)
        moved = sum(o.bytes for slot in code for o in slot)
        moved -= sum(map(int, spilled)) // 8
    else:
        lines = re.findall(r"^   [A-Z][A-Z0-9_]+[. ].*$", listing, re.M)[-slots:]
        code, loops = parse_valhall("\n".join(lines))
        moved = int(accesses - spills) * QUAD
    if len(code) != slots:
        raise ValueError(f"{len(code)} slots in a listing, the compiler says {slots}")
    for first, last in loops:
        inside = [operation for slot in code[first : last + 1] for operation in slot]
        macs = sum(operation.macs for operation in inside)
        if macs:
            # Four products of four channels by four a turn, that is of an input slice.
            turns = 64 * channels // 4 // macs
            slots += (turns - 1) * (last + 1 - first)
            moved += (turns - 1) * QUAD * sum(o.bytes > 0 for o in inside)
    return Shader(slots, moved, spills)


def ncnn_seconds(shaders: list[Shader], channels: int, gpu: Gpu) -> list[float]:
    """The three dispatches of a layer of `channels` in and out."""
    slices = channels // 4
    pixels = HEIGHT * WIDTH
    tiles = pixels / 16
    # An invocation transforms one slice of a tile, or multiplies four of 36 places.
    invocations = [tiles * slices, tiles * 36 / 4 * slices, tiles * slices]
    plain, spread = pixels * slices * QUAD, tiles * 36 * slices * QUAD
    traffic = [plain + spread, 2 * spread, spread + plain]
    seconds = []
    for shader, number, moved in zip(shaders, invocations, traffic, strict=True):
        lines = shader.bytes * gpu.warp / LINE
        lines += shader.spills * gpu.warp
        clocks = max(shader.slots / gpu.lanes, lines / gpu.warp)
        compute = clocks * number / gpu.cores / gpu.clock
        seconds.append(max(compute, moved / gpu.bandwidth))
    return seconds


def row(panvk: Path, channels: int, gpu: Gpu) -> Row:
    shaders = ncnn_shaders(panvk, channels, gpu)
    seconds = ncnn_seconds(shaders, channels, gpu)
    without = [Shader(s.slots - s.spills, s.bytes, 0) for s in shaders]
    free = ncnn_seconds(without, channels, gpu)
    # As the table of kernels chooses.
    dispatches = layer_dispatches(
        gpu.family, 2 if gpu.family == MALI else 3, channels, "fp16"
    )
    ours = sum(cost(panvk, dispatch, gpu).seconds for dispatch in dispatches)
    return {
        "board": gpu.board,
        "channels": channels,
        "slots": ", ".join(f"{shader.slots:.0f}" for shader in shaders),
        "spills and fills": ", ".join(str(shader.spills) for shader in shaders),
        "ncnn ms": 1e3 * sum(seconds),
        "of each": ", ".join(f"{1e3 * part:.1f}" for part in seconds),
        "if spills were free": 1e3 * sum(free),
        "upfrost ms": 1e3 * ours,
        "ratio": ours / sum(seconds),
        "ratio if free": ours / sum(free),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    _, panvk = with_panvk(parser, "mali_ncnn")
    publish(
        "mali_ncnn",
        f"A 3×3 layer of {WIDTH}×{HEIGHT} pixels, fp16, by cost model",
        [row(panvk, channels, gpu) for gpu in GPUS for channels in (16, 32, 64)],
        [
            "slots, spills and fills, ms of each: ncnn's input transform, products and "
            "output transform",
            "Not measured: by the cost model of docs/mali.md",
        ],
    )


if __name__ == "__main__":
    main()
