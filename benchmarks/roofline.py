"""Each layer's speed, against what two micro-kernels reach on the same device.

usage: python -m benchmarks.roofline [--device N|NAME] [--model MODEL]
       [--precision fp32|fp16] [--size WIDTHxHEIGHT] [--runs N] [--pipelines]

One micro-kernel does nothing but multiply and add, in the precision that is asked for;
the other copies memory. They and the layers take turns in one process, and the median
of their runs is taken, so that what else the machine does falls on all alike. Times are
those of submissions that are waited for, as upfrost makes them. What `Upscaler` takes
for a picture besides is a note below the table. Needs pyshaderc.

With --pipelines the one table is how long a network's pipelines take to make while
Mesa's cache is empty. Mesa compiles in part when a shader first runs, so that what the
first run takes longer than the second counts, too.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence

import kp
import numpy as np

from benchmarks.mali_static import PRECISIONS
from benchmarks.report import Row, publish
from upfrost.arrays import Bytes
from upfrost.gpu.device import Device, DeviceInfo, choose_device
from upfrost.gpu.dispatches import Dispatch, Precision
from upfrost.gpu.plan import compile_graph, make_plan
from upfrost.gpu.traffic import traffic
from upfrost.gpu.upscaler import Upscaler
from upfrost.network.graph import Graph, alignment
from upfrost.network.modelfile import bundled_models, find_model, read_model

# 16 vectors of four, so that none waits for its own last sum; weights that a compiler
# cannot fold, since they come from memory.
FMA = """#version 450
#ifdef FP16
#extension GL_AMD_gpu_shader_half_float : require
#define Quad f16vec4
#else
#define Quad vec4
#endif
layout(local_size_x = 64) in;
layout(binding = 0) buffer Data { Quad data[]; };
void main()
{
    Quad factor = data[0], sum[16];
    for (int i = 0; i < 16; i++)
        sum[i] = data[i];
    for (int turn = 0; turn < TURNS; turn++)
        for (int i = 0; i < 16; i++)
            sum[i] = sum[i] * factor + factor;
    for (int i = 1; i < 16; i++)
        sum[0] += sum[i];
    data[16 + gl_GlobalInvocationID.x] = sum[0];
}
"""
COPY = """#version 450
layout(local_size_x = 64) in;
layout(binding = 0) readonly buffer Source { vec4 source[]; };
layout(binding = 1) writeonly buffer Target { vec4 target[]; };
void main()
{
    target[gl_GlobalInvocationID.x] = source[gl_GlobalInvocationID.x];
}
"""
FMA_GROUPS, FMA_TURNS = 256, 256
SMALL = 36, 64  # (H, W) of the picture with which pipelines are made
COPY_BYTES = 64 * 2**20

Action = Callable[[], object]


def compiled(source: str, precision: str) -> bytes:
    import pyshaderc  # not there where only upfrost's runtime is

    version, rest = source.split("\n", 1)
    macros = f"#define TURNS {FMA_TURNS}\n"
    if precision == "fp16":
        macros += "#define FP16\n"
    spirv: bytes = pyshaderc.compile_into_spirv(
        f"{version}\n{macros}{rest}".encode(), "comp", "micro.comp", optimization="zero"
    )
    return spirv


def fma_kernel(manager: kp.Manager, precision: str) -> tuple[Action, float]:
    """A submission, and the products that it computes."""
    invocations = 64 * FMA_GROUPS
    elements = np.zeros(4 * (16 + invocations), np.float32)
    tensor = manager.tensor_t(elements, kp.TensorTypes.device)
    spirv = compiled(FMA, precision)
    algorithm = manager.algorithm([tensor], spirv, [FMA_GROUPS, 1, 1], [], [])
    sequence = manager.sequence().record(kp.OpAlgoDispatch(algorithm))
    return lambda: sequence.eval(), 64.0 * FMA_TURNS * invocations


def copy_kernel(manager: kp.Manager) -> tuple[Action, float]:
    """A submission, and the bytes that it reads and writes."""
    words = np.zeros(COPY_BYTES // 4, np.float32)
    tensors = [manager.tensor_t(words, kp.TensorTypes.device) for _ in range(2)]
    grid = [COPY_BYTES // 16 // 64, 1, 1]
    algorithm = manager.algorithm(tensors, compiled(COPY, "fp32"), grid, [], [])
    sequence = manager.sequence().record(kp.OpAlgoDispatch(algorithm))
    return lambda: sequence.eval(), 2.0 * COPY_BYTES


def seconds(actions: dict[str, Action], runs: int) -> dict[str, float]:
    """The median time of each action, which take turns; the first turn warms up."""
    times: dict[str, list[float]] = defaultdict(list)
    for run in range(runs + 1):
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            if run:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in times.items()}


def layer_row(
    label: str, dispatches: list[Dispatch], taken: float, fma: float, copy: float
) -> Row:
    macs = sum(dispatch.macs for dispatch in dispatches)
    moved = sum(traffic(dispatch) or 0 for dispatch in dispatches)
    return {
        "layer": label,
        "kernel": dispatches[0].shader,
        "dispatches": len(dispatches),
        "ms": 1e3 * taken,
        "GMAC/s": macs / taken / 1e9 if macs else None,
        "% of FMA": round(100 * macs / taken / fma, 1) if macs else None,
        "GB/s": moved / taken / 1e9 if moved else None,
        "% of copy": round(100 * moved / taken / copy, 1) if moved else None,
    }


def outside(upscaler: Upscaler, picture: Bytes, runs: int) -> tuple[float, float]:
    """The seconds of a call of `upscaler` in which the device had nothing to do.

    Of a picture that is one tile; and their share of the call. Medians of `runs`.
    """
    upscaler(picture)
    (loaded,) = upscaler._loaded.values()
    (slot,) = loaded._slots
    found = []
    for _ in range(runs):
        start = time.perf_counter()
        upscaler(picture)
        total = time.perf_counter() - start
        rest = total - slot.busy
        found.append((rest, rest / total))
    rests, shares = zip(*found, strict=True)
    return statistics.median(rests), statistics.median(shares)


def pipelines_row(info: DeviceInfo, graph: Graph, precision: Precision) -> Row:
    """What a new network costs before its first result."""
    program = compile_graph(graph, info.family, precision)
    height, width = (-(-side // alignment(graph)) * alignment(graph) for side in SMALL)
    plan = make_plan(program, height, width)
    picture = np.zeros((height, width, graph.channels), np.uint8)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["MESA_SHADER_CACHE_DIR"] = cache
        device = Device(info)
        marks = [(time.perf_counter(), time.process_time())]
        loaded = device.load(plan)
        for _ in range(2):
            marks.append((time.perf_counter(), time.process_time()))
            loaded.run(picture)
        marks.append((time.perf_counter(), time.process_time()))
        device.close()
    wall, processor = (
        [after - before for before, after in itertools.pairwise(each)]
        for each in zip(*marks, strict=True)
    )
    return {
        "model": graph.name,
        "precision": precision,
        "pipelines": len(
            {
                (each.shader, each.constants, len(each.buffers), len(each.push))
                for each in (*plan.setup, *plan.dispatches)
            }
        ),
        "dispatches": len(plan.dispatches),
        "s": wall[0] + wall[1] - wall[2],
        "of processors": processor[0] + processor[1] - processor[2],
    }


def pipelines(info: DeviceInfo, models: Sequence[str]) -> None:
    publish(
        "pipelines",
        f"Making the pipelines of a network while the cache is empty, on {info.name}, "
        f"Vulkan {info.api_version}",
        [
            pipelines_row(info, read_model(find_model(name)), precision)
            for name in models
            for precision in PRECISIONS
        ],
        [
            "s: by the clock; of processors: the seconds that the process computed, "
            "which other processes disturb less",
            f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors",
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device")
    parser.add_argument("--model", default=None, help="default: realtime-x2")
    parser.add_argument("--precision", choices=["fp32", "fp16"], default="fp32")
    parser.add_argument("--size", default="320x180", help="default: %(default)s")
    parser.add_argument("--runs", type=int, default=7, help="default: %(default)s")
    parser.add_argument(
        "--pipelines", action="store_true", help="of MODEL, or of all that ship"
    )
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    info = choose_device(arguments.device)
    if arguments.pipelines:
        chosen = [arguments.model] if arguments.model else sorted(bundled_models())
        pipelines(info, chosen)
        return
    graph = read_model(find_model(arguments.model or "realtime-x2"))
    plan = make_plan(
        compile_graph(graph, info.family, arguments.precision), height, width
    )
    device = Device(info)
    loaded = device.load(plan)
    manager = kp.Manager(info.index)
    fma_action, fma_macs = fma_kernel(manager, arguments.precision)
    copy_action, copy_bytes = copy_kernel(manager)
    loaded.run(np.zeros((height, width, graph.channels), np.uint8))

    layers: dict[str, list[Dispatch]] = defaultdict(list)
    for dispatch in plan.dispatches:
        layers[dispatch.label].append(dispatch)

    taken = seconds(
        {
            "FMA": fma_action,
            "copy": copy_action,
            **{f"layer {name}": loaded.layer(name) for name in layers},
        },
        arguments.runs,
    )
    fma, copy = fma_macs / taken["FMA"], copy_bytes / taken["copy"]
    rows = [
        layer_row(
            name,
            dispatches,
            taken[f"layer {name}"],
            fma,
            copy,
        )
        for name, dispatches in layers.items()
    ]
    picture = np.zeros((height, width, graph.channels), np.uint8)
    with Upscaler(graph, device=info.index, precision=arguments.precision) as upscaler:
        rest, share = outside(upscaler, picture, arguments.runs)
    total = sum(taken[f"layer {name}"] for name in layers)
    rows.append(layer_row("all", list(plan.dispatches), total, fma, copy))
    publish(
        "roofline",
        f"{graph.name}, {width}×{height}, {arguments.precision}, on {info.name}",
        rows,
        [
            f"micro-kernels: {fma / 1e9:.3g} GMAC/s, {copy / 1e9:.3g} GB/s read and "
            "written",
            f"medians of {arguments.runs} runs; GB/s of convolutions: each value "
            "fetched once",
            f"of a call of Upscaler, which copies into and out of the device's memory, "
            f"{1e3 * rest:.1f} ms, {share:.2%}, are outside of submissions",
        ],
    )
    device.close()


if __name__ == "__main__":
    main()
