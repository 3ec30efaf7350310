"""What a workgroup of each kernel costs on two boards, by the model of docs/mali.md.

    python -m benchmarks.mali_costs --panvk FOLDER

writes runtime/upfrost/gpu/mali_costs.json, by which `upfrost export` estimates how long
a network takes where no Mali compiler is at hand, and `upfrost check` says how long a
kernel should take: nanoseconds of a workgroup, and nanoseconds more for each input
slice (of the general convolution, and tap) that it reads.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path

from tests.graphs import luma_network

from benchmarks.mali_static import (
    GPUS,
    HEIGHT,
    LAYERS,
    LUMA,
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
from upfrost.gpu.families import MALI, VARIANTS
from upfrost.gpu.frame import FrameFormat
from upfrost.gpu.plan import compile_graph, make_plan

CHANNELS = (4, 16, 32, 64)
SMALL = 4  # slices of the widest layer that kernels for small networks compute
# Widths of networks for luma whose last convolution writes samples.
LUMA_CHANNELS = (4, 16)
# Workgroups in x and y, and slices, of a kernel that is no convolution.
GRID = (120, 68, 4)


def layer_costs(
    panvk: Path, gpu: Gpu, precision: Precision
) -> Iterator[tuple[str, float, float]]:
    """Shaders of convolutions, their fixed cost and that of each unit."""
    for kernel in LAYERS:
        if kernel == 2 and gpu.family != MALI:
            continue  # in use only there
        found: dict[str, dict[int, float]] = {}
        least = WINOGRAD.least if kernel == 2 else 1
        for channels in (count for count in CHANNELS if count >= least):
            for dispatch in layer_dispatches(gpu.family, kernel, channels, precision):
                seconds = cost(panvk, dispatch, gpu).seconds
                each = seconds / math.prod(dispatch.grid)
                found.setdefault(dispatch.shader, {})[units(dispatch)] = each
        for shader, by_units in found.items():
            if max(by_units) > SMALL:  # few slices are bound by something else
                by_units = {n: each for n, each in by_units.items() if n >= SMALL}
            (few, cheap), (many, dear) = min(by_units.items()), max(by_units.items())
            slope = (dear - cheap) / (many - few) if many > few else 0.0
            yield shader, cheap - slope * few, slope


def luma_costs(
    panvk: Path, gpu: Gpu, precision: Precision
) -> Iterator[tuple[str, float, float]]:
    """Shaders that write enlarged luma, their fixed costs and those of each slice."""
    for scale in (2, 3):
        found: dict[int, float] = {}
        for channels in LUMA_CHANNELS:
            graph = luma_network(0, channels, scale=scale)
            network = compile_graph(graph, gpu.family, precision)
            dispatch = make_plan(network, HEIGHT, WIDTH).dispatches[-1]
            if VARIANTS[dispatch.shader].source in LUMA:
                seconds = cost(panvk, dispatch, gpu).seconds
                found[units(dispatch)] = seconds / math.prod(dispatch.grid)
        if found:
            (few, cheap), (many, dear) = min(found.items()), max(found.items())
            slope = (dear - cheap) / (many - few)
            yield dispatch.shader, cheap - slope * few, slope


def chroma_costs(
    panvk: Path, gpu: Gpu, precision: Precision
) -> Iterator[tuple[str, float, float]]:
    """What enlarges chroma, of 8 bits and 4:2:0, which is the same in any precision."""
    network = compile_graph(luma_network(0, 4), gpu.family, precision)
    plan = make_plan(network, HEIGHT, WIDTH, FrameFormat("420").chroma)
    (dispatch,) = (each for each in plan.dispatches if each.shader == "chroma")
    seconds = cost(panvk, dispatch, gpu).seconds
    yield dispatch.shader, seconds / math.prod(dispatch.grid), 0.0


def other_costs(
    panvk: Path, gpu: Gpu, precision: Precision
) -> Iterator[tuple[str, float, float]]:
    for name, constants in OTHERS.items():
        if name in VARIANTS:  # of frames' colours, which no network computes
            continue
        dispatch = Dispatch(f"{name}-{precision}", name, (), GRID, constants, ())
        seconds = cost(panvk, dispatch, gpu).seconds
        yield dispatch.shader, seconds / math.prod(GRID), 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    _, panvk = with_panvk(parser, "mali_costs")
    table = {
        gpu.board: {
            shader: [float(f"{1e9 * each:.4g}") for each in (fixed, slope)]
            for precision in PRECISIONS
            for costs in (layer_costs, luma_costs, chroma_costs, other_costs)
            for shader, fixed, slope in costs(panvk, gpu, precision)
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
