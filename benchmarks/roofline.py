"""Each layer's speed, against what two micro-kernels reach on the same device.

usage: python -m benchmarks.roofline [--device N|NAME] [--model MODEL]
       [--precision fp32|fp16] [--size WIDTHxHEIGHT] [--runs N]

One micro-kernel does nothing but multiply and add, in the precision that is asked for;
the other copies memory. They and the layers take turns in one process, and the median
of their runs is taken, so that what else the machine does falls on all alike. Times are
those of submissions that are waited for, as upfrost makes them. Needs pyshaderc.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable

import kp
import numpy as np
import pyshaderc

from benchmarks.mali_static import convolution, convolution_traffic
from benchmarks.report import Row, publish
from upfrost.device import Device, choose_device
from upfrost.kernels import Call
from upfrost.modelfile import find_model, read_model
from upfrost.plan import compile_graph, make_plan

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
COPY_BYTES = 64 * 2**20

Action = Callable[[], None]


def compiled(source: str, precision: str) -> bytes:
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
    label: str, calls: list[Call], taken: float, fma: float, copy: float
) -> Row:
    macs = sum(call.macs for call in calls)
    moved = sum(
        convolution_traffic(layer, call)
        for call in calls
        if (layer := convolution(call)) is not None
    )
    return {
        "layer": label,
        "kernel": calls[0].shader,
        "calls": len(calls),
        "ms": 1e3 * taken,
        "GMAC/s": macs / taken / 1e9 if macs else None,
        "% of FMA": round(100 * macs / taken / fma, 1) if macs else None,
        "GB/s": moved / taken / 1e9 if moved else None,
        "% of copy": round(100 * moved / taken / copy, 1) if moved else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device")
    parser.add_argument("--model", default="realtime-x2")
    parser.add_argument("--precision", choices=["fp32", "fp16"], default="fp32")
    parser.add_argument("--size", default="320x180", help="default: %(default)s")
    parser.add_argument("--runs", type=int, default=7, help="default: %(default)s")
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    info = choose_device(arguments.device)
    graph = read_model(find_model(arguments.model))
    plan = make_plan(
        compile_graph(graph, info.family, arguments.precision), height, width
    )
    device = Device(info)
    loaded = device.load(plan)
    manager = kp.Manager(info.index)
    fma_action, fma_macs = fma_kernel(manager, arguments.precision)
    copy_action, copy_bytes = copy_kernel(manager)
    loaded.run(np.zeros((height, width, graph.channels), np.uint8))

    layers: dict[str, list[int]] = defaultdict(list)
    for number, call in enumerate(plan.calls):
        layers[call.label].append(number)

    def layer_action(numbers: list[int]) -> Action:
        def action() -> None:
            for number in numbers:
                loaded.submissions[number].eval()

        return action

    taken = seconds(
        {
            "FMA": fma_action,
            "copy": copy_action,
            **{f"layer {name}": layer_action(each) for name, each in layers.items()},
        },
        arguments.runs,
    )
    fma, copy = fma_macs / taken["FMA"], copy_bytes / taken["copy"]
    rows = [
        layer_row(
            name,
            [plan.calls[number] for number in numbers],
            taken[f"layer {name}"],
            fma,
            copy,
        )
        for name, numbers in layers.items()
    ]
    total = sum(taken[f"layer {name}"] for name in layers)
    rows.append(layer_row("all", list(plan.calls), total, fma, copy))
    publish(
        "roofline",
        f"{graph.name}, {width}×{height}, {arguments.precision}, on {info.name}",
        rows,
        [
            f"micro-kernels: {fma / 1e9:.3g} GMAC/s, {copy / 1e9:.3g} GB/s read and "
            "written",
            f"medians of {arguments.runs} runs; GB/s of convolutions: each value "
            "fetched once",
        ],
    )
    device.close()


if __name__ == "__main__":
    main()
