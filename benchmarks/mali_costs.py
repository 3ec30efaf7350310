"""What a workgroup of each kernel costs on two boards, by the model of docs/mali.md.

    python -m benchmarks.mali_costs --panvk FOLDER

writes runtime/upfrost/gpu/mali_costs.json, by which `upfrost export` estimates how long
a network takes where no Mali compiler is at hand, and `upfrost check` says how long a
kernel should take: nanoseconds of a workgroup, and nanoseconds more for each input
slice (of a first layer, channel; of the general convolution, also tap) that it reads.
Of convolutions it is the time of computing alone, since what memory takes is known of
each dispatch (`upfrost.gpu.traffic`).
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from tests.graphs import luma_network

from benchmarks.mali_static import (
    GPUS,
    HEIGHT,
    LAYERS,
    OTHERS,
    PRECISIONS,
    WIDTH,
    WINOGRAD,
    Gpu,
    cost,
    layer_dispatches,
    with_panvk,
)
from upfrost.gpu.costs import TABLE, units
from upfrost.gpu.dispatches import Dispatch, Precision
from upfrost.gpu.families import MALI, VARIANTS, Family
from upfrost.gpu.frame import FrameFormat
from upfrost.gpu.plan import compile_graph, make_plan
from upfrost.gpu.traffic import traffic

CHANNELS = (4, 16, 32, 64)
# Widths of networks for luma: first layers read samples, last ones write them.
LUMA_CHANNELS = (4, 16)
# Workgroups in x and y, and slices, of a kernel that is no convolution.
GRID = (120, 68, 4)


def layers(family: Family, precision: Precision) -> Iterator[Dispatch]:
    """Layers of usual widths, and those of networks for luma."""
    for kernel in LAYERS:
        if kernel == 2 and family != MALI:
            continue  # in use only there
        least = WINOGRAD.least if kernel == 2 else 1
        for channels in (count for count in CHANNELS if count >= least):
            yield from layer_dispatches(family, kernel, channels, precision)
    for scale, channels in product((2, 3), LUMA_CHANNELS):
        graph = luma_network(0, channels, scale=scale)
        plan = make_plan(compile_graph(graph, family, precision), HEIGHT, WIDTH)
        yield from (each for each in plan.dispatches if traffic(each) is not None)


def others(family: Family, precision: Precision) -> Iterator[Dispatch]:
    """Uses of kernels that are no convolutions; chroma's is of 4:2:0."""
    for name, constants in OTHERS.items():
        if name not in VARIANTS:  # that are of frames' colours
            yield Dispatch(f"{name}-{precision}", name, (), GRID, constants, ())
    grey = (1, *OTHERS["pack"][1:])
    yield Dispatch(f"pack-{precision}", "pack", (), GRID, grey, ())
    network = compile_graph(luma_network(0, 4), family, precision)
    plan = make_plan(network, HEIGHT, WIDTH, FrameFormat("420").chroma)
    yield from (each for each in plan.dispatches if each.shader == "chroma")


def workgroup_costs(
    panvk: Path, gpu: Gpu, precision: Precision
) -> Iterator[tuple[str, float, float]]:
    """Shaders, the fixed nanoseconds of a workgroup and those of each unit."""
    found: dict[str, dict[int, float]] = {}
    for dispatch in (*layers(gpu.family, precision), *others(gpu.family, precision)):
        took = cost(panvk, dispatch, gpu)
        seconds = took.seconds if traffic(dispatch) is None else took.compute
        by_units = found.setdefault(dispatch.shader, {})
        by_units[units(dispatch)] = 1e9 * seconds / math.prod(dispatch.grid)
    for shader, by_units in found.items():
        (few, cheap), (many, dear) = min(by_units.items()), max(by_units.items())
        slope = (dear - cheap) / (many - few) if many > few else 0.0
        yield shader, cheap - slope * few, slope


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    _, panvk = with_panvk(parser, "mali_costs")
    table = {
        gpu.board: {
            shader: [float(f"{each:.4g}") for each in (fixed, slope)]
            for precision in PRECISIONS
            for shader, fixed, slope in workgroup_costs(panvk, gpu, precision)
        }
        for gpu in GPUS
    }
    rows = [
        f'  "{board}": {{\n'
        + ",\n".join(
            f"    {json.dumps(shader)}: {json.dumps(numbers)}"
            for shader, numbers in sorted(shaders.items())
        )
        + "\n  }"
        for board, shaders in table.items()
    ]
    TABLE.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
