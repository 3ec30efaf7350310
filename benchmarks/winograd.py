"""Are 3×3 layers faster by Winograd's method? By Mali's compiler and cost model.

usage: python -m benchmarks.winograd [--panvk FOLDER]

F(2×2, 3×3) is what the runtime uses on Bifrost, F(4×4, 3×3) on CPU devices alone: its
transforms are compiled for Mali's workgroups here, as mali_static compiles the kernels
in use, and what a layer costs is set against the direct kernel. A second table says
what the methods do to numbers in half precision. Needs pyshaderc.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt

from benchmarks.mali_static import (
    GPUS,
    HEIGHT,
    LINE,
    PRECISIONS,
    WIDTH,
    WINOGRAD,
    Count,
    Gpu,
    Operation,
    compiled,
    compiled_file,
    cost,
    count,
    executions,
    layer_dispatches,
    with_panvk,
)
from benchmarks.report import Row, publish
from upfrost.gpu.dispatches import Dispatch, Precision
from upfrost.gpu.families import RegisterTile, Variant
from upfrost.gpu.winograd import WEIGHTS

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Method:
    """F(m×m, 3×3): Lavin and Gray 2016, arXiv:1509.09308."""

    m: int
    inputs: Matrix  # transform of a tile's rows or columns
    weights: Matrix
    outputs: Matrix

    @property
    def components(self) -> int:
        return (self.m + 2) ** 2

    @property
    def blocks(self) -> int:
        return -(-HEIGHT // self.m) * -(-WIDTH // self.m)


METHODS = (
    Method(
        2,
        np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1.0]]),
        WEIGHTS[2],
        np.array([[1, 1, 1, 0], [0, 1, -1, -1.0]]),
    ),
    Method(
        4,
        np.array(
            [
                [4, 0, -5, 0, 1, 0],
                [0, -4, -4, 1, 1, 0],
                [0, 4, -4, -1, 1, 0],
                [0, -2, -1, 2, 1, 0],
                [0, 2, -1, -2, 1, 0],
                [0, 4, 0, -5, 0, 1.0],
            ]
        ),
        WEIGHTS[4],
        np.array(
            [
                [1, 1, 1, 1, 1, 0],
                [0, 1, -1, 2, -2, 0],
                [0, 1, 1, 4, 4, 0],
                [0, 1, -1, 8, -8, 1.0],
            ]
        ),
    ),
)


@dataclass(frozen=True)
class Stage:
    """One of the three dispatches: what an invocation issues, and how it is bound."""

    slots: float  # of one invocation
    spills: int
    seconds: float
    bound: str


@cache
def build_script() -> ModuleType:
    """shaders/build.py, which is a program and in no package."""
    path = Path(__file__).parents[1] / "shaders" / "build.py"
    spec = importlib.util.spec_from_file_location("build_shaders", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def built(source: str, defines: tuple[tuple[str, int], ...]) -> bytes:
    """SPIR-V of a variant that is not in use."""
    variant = Variant(source, source, dict(defines))
    spirv: bytes = build_script().compile_variant(variant)
    return spirv


def candidate_stage(
    panvk: Path,
    gpu: Gpu,
    source: str,
    defines: dict[str, int],
    constants: tuple[int, ...],
    *,
    invocations: float,
    spans: tuple[float, float],
    traffic: float,
) -> Stage:
    """Cost of a dispatch. `spans` are the bytes from one invocation's element to the
    next one's, of loads and of stores, which a warp's cache lines follow from."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{source}.spv"
        path.write_bytes(built(source, tuple(defines.items())))
        code = compiled_file(panvk, path, constants, gpu.name)
    times = [1] * len(code.slots)
    total = count(code, 0, len(code.slots) - 1, times)
    clocks = {
        "issue": total.slots / gpu.lanes,
        "SFU": sfu(total, gpu),
        "cache": warp_lines(accesses(code.slots), spans, gpu) / gpu.warp,
    }
    bound = max(clocks, key=lambda name: clocks[name])
    compute = clocks[bound] * invocations / gpu.cores / gpu.clock
    memory = traffic / gpu.bandwidth
    return Stage(
        total.slots,
        code.spills + code.fills,
        max(compute, memory),
        "memory" if memory > compute else bound,
    )


def used_stages(panvk: Path, gpu: Gpu, dispatches: Sequence[Dispatch]) -> list[Stage]:
    """The stages of kernels in use, one for each shader, of all its dispatches."""
    stages = []
    for shader in dict.fromkeys(dispatch.shader for dispatch in dispatches):
        mine = [dispatch for dispatch in dispatches if dispatch.shader == shader]
        code = compiled(panvk, shader, mine[0].constants, gpu.name)
        times = executions(code, mine[0])
        costs = [cost(panvk, dispatch, gpu) for dispatch in mine]
        stages.append(
            Stage(
                sum(times),
                code.spills + code.fills,
                sum(each.seconds for each in costs),
                costs[0].bound,
            )
        )
    return stages


def sfu(total: Count, gpu: Gpu) -> float:
    return 0 if gpu.name == "g52" else total.sfu / (gpu.lanes / 4)


def accesses(slots: tuple[tuple[Operation, ...], ...]) -> tuple[float, float]:
    """Loads and stores that an invocation issues."""
    names = [o.name for slot in slots for o in slot if o.bytes]
    stores = sum(name.startswith("STORE") for name in names)
    return len(names) - stores, stores


def warp_lines(
    numbers: tuple[float, float], spans: tuple[float, float], gpu: Gpu
) -> float:
    """Cache lines of a warp: of those that its span covers, begun anywhere."""
    columns = min(16, gpu.warp)
    rows = gpu.warp / columns
    return sum(
        number * rows * min(columns, 1 + (columns - 1) * span / LINE)
        for number, span in zip(numbers, spans, strict=True)
    )


def candidate_stages(
    panvk: Path, gpu: Gpu, channels: int, precision: Precision
) -> list[Stage]:
    """The three stages of a layer of `channels` in and out by F(4,3), whose products
    are those of the kernel in use."""
    method = METHODS[1]
    size = 8 if precision == "fp16" else 16
    slices = channels // 4
    plane = HEIGHT * WIDTH * slices * size
    spread = method.blocks * method.components * slices * size
    half = {"FP16": 1} if precision == "fp16" else {}
    tile = RegisterTile(method.m, method.m, (16, 4))
    defines = {**tile.defines, **half}
    # Invocations of an element, as winograd_input.comp says.
    items = 1 if half else 2
    multiply = gpu.family.products
    places = multiply.tile.coverage[0]
    products = Dispatch(
        shader=f"{multiply.name}-{precision}",
        label="products",
        buffers=(),
        grid=(method.components * slices, -(-method.blocks // places), 1),
        constants=(slices, slices),
        push=(),
    )
    inner, outer = (
        candidate_stage(
            panvk,
            gpu,
            f"winograd_{name}",
            defines,
            constants,
            invocations=method.blocks * slices * parts,
            spans=spans,
            traffic=plane + spread,
        )
        for name, constants, parts, spans in (
            ("input", (slices,), items, (method.m * size / items, size / items)),
            ("output", (slices, 0, 1), 1, (size, method.m * size)),
        )
    )
    return [inner, *used_stages(panvk, gpu, [products]), outer]


def row(
    panvk: Path, gpu: Gpu, method: Method, channels: int, precision: Precision
) -> Row:
    if method.m == WINOGRAD.tile.width:
        dispatches = layer_dispatches(gpu.family, 2, channels, precision)
        stages = used_stages(panvk, gpu, dispatches)
    else:
        stages = candidate_stages(panvk, gpu, channels, precision)
    dispatches = layer_dispatches(gpu.family, 3, channels, precision)
    direct = sum(cost(panvk, dispatch, gpu).seconds for dispatch in dispatches)
    seconds = sum(each.seconds for each in stages)
    return {
        "GPU": gpu.name,
        "method": f"F({method.m},3)",
        "precision": precision,
        "channels": channels,
        "slots": ", ".join(f"{each.slots:.0f}" for each in stages),
        "spills": sum(each.spills for each in stages),
        "of each, ms": ", ".join(f"{1e3 * each.seconds:.1f}" for each in stages),
        "bound": ", ".join(each.bound for each in stages),
        "ms": 1e3 * seconds,
        "direct ms": 1e3 * direct,
        "ratio": seconds / direct,
    }


def errors(channels: int, seed: int = 0) -> Row:
    """Root mean square errors of a layer in half precision, of the result's own."""
    rng = np.random.default_rng(seed)
    side = 24
    # Features after a rectifier, and weights that keep their variance.
    values = np.maximum(rng.standard_normal((channels, side + 2, side + 2)), 0)
    weights = rng.standard_normal((channels, channels, 3, 3))
    weights *= math.sqrt(2 / (9 * channels))
    values, weights = halved(values), halved(weights)
    windows = np.lib.stride_tricks.sliding_window_view(values, (3, 3), (1, 2))
    exact = np.einsum("ihwrs,oirs->ohw", windows, weights, optimize=True)
    direct = in_blocks(
        windows.transpose(0, 3, 4, 1, 2).reshape(channels, 9, -1),
        weights.reshape(channels, channels, 9),
        1,
    ).reshape(exact.shape)
    found: dict[str, float] = {
        "channels": channels,
        "direct": error(halved(direct), exact),
    }
    for method in METHODS:
        m, n = method.m, method.m + 2
        tiles = np.lib.stride_tricks.sliding_window_view(values, (n, n), (1, 2))
        tiles = tiles[:, ::m, ::m]
        spread = method.inputs @ tiles @ method.inputs.T
        kernels = method.weights @ weights @ method.weights.T
        count = tiles.shape[1] * tiles.shape[2]
        components = [
            in_blocks(
                halved(spread).reshape(channels, count, n * n)[:, None, :, place],
                halved(kernels).reshape(channels, channels, n * n)[:, :, place, None],
                4,
            )
            for place in range(n * n)
        ]
        product = halved(np.stack(components, axis=-1))
        product = product.reshape(channels, *tiles.shape[1:3], n, n)
        result = halved(method.outputs @ product @ method.outputs.T)
        result = result.transpose(0, 1, 3, 2, 4).reshape(exact.shape)
        found[f"F({m},3)"] = error(result, exact)
    return found


def in_blocks(values: Matrix, weights: Matrix, slices: int) -> Matrix:
    """Σ weights (O, I, T) · values (I, T, P): half-precision sums of `slices` slices of
    inputs, added up in single precision."""
    block = 4 * slices
    total = np.zeros((len(weights), values.shape[2]))
    for first in range(0, len(values), block):
        part = np.zeros_like(total)
        for channel in range(first, min(first + block, len(values))):
            for tap in range(values.shape[1]):
                product = weights[:, channel, tap, None] * values[channel, tap]
                part = halved(part + product)
        total += part
    return total


def halved(values: Matrix) -> Matrix:
    """Rounded to half precision."""
    return values.astype(np.float16).astype(np.float64)


def error(found: Matrix, exact: Matrix) -> float:
    return float(np.sqrt(np.mean((found - exact) ** 2) / np.mean(exact**2)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    _, panvk = with_panvk(parser, "winograd")
    publish(
        "mali_winograd",
        f"3×3 layers of {WIDTH}×{HEIGHT} pixels by Winograd's method, by cost model",
        [
            row(panvk, gpu, method, channels, precision)
            for gpu in GPUS
            for method in METHODS
            for precision in PRECISIONS
            for channels in (16, 32, 64)
        ],
        [
            "slots, ms, bound of each: transform of the input, products, transform of "
            "the result",
            "F(2,3) is in use on g52; F(4,3) on CPU devices alone",
            "ms: by the cost model of docs/mali.md, not measured",
        ],
    )
    publish(
        "mali_winograd_errors",
        "Relative errors of a 3×3 layer in half precision, root mean square",
        [errors(channels) for channels in (16, 32, 64)],
        ["Random features after a rectifier, random weights; computed by NumPy"],
    )


if __name__ == "__main__":
    main()
