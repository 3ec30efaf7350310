"""Would 3×3 layers be faster by Winograd's method? By Mali's compiler and cost model.

usage: python -m benchmarks.winograd [--panvk FOLDER]

shaders/candidates holds F(2×2, 3×3) and F(4×4, 3×3) as three shaders that are not in
use: a transform of the input, products, a transform of the result. They are compiled as
mali_static compiles the kernels in use, and what a layer costs is set against the
direct kernel. A second table says what the methods do to numbers in half precision.
Needs pyshaderc.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import tempfile
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
    Count,
    Gpu,
    compiled_file,
    cost,
    count,
    layer_calls,
    with_panvk,
)
from benchmarks.report import Row, publish
from upfrost.kernels import Precision, Variant

Matrix = npt.NDArray[np.float64]
# Tiles and output quads that an invocation multiplies; the best that does not spill is
# taken.
PRODUCT_TILES = ((6, 1), (5, 1), (4, 1), (3, 2), (2, 2))
GROUP = 64


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
    def tiles(self) -> int:
        return -(-HEIGHT // self.m) * -(-WIDTH // self.m)


METHODS = (
    Method(
        2,
        np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1.0]]),
        np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]),
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
        np.array(
            [
                [1 / 4, 0, 0],
                [-1 / 6, -1 / 6, -1 / 6],
                [-1 / 6, 1 / 6, -1 / 6],
                [1 / 24, 1 / 12, 1 / 6],
                [1 / 24, -1 / 12, 1 / 6],
                [0, 0, 1],
            ]
        ),
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

    slots: float
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
    """SPIR-V of a candidate."""
    variant = Variant(source, f"candidates/{source}", dict(defines))
    spirv: bytes = build_script().compile_variant(variant)
    return spirv


def stage(
    panvk: Path,
    gpu: Gpu,
    source: str,
    defines: dict[str, int],
    *,
    trips: int,
    invocations: float,
    spans: tuple[float, float],
    traffic: float,
    constants: tuple[int, ...] = (),
) -> Stage:
    """Cost of a dispatch. `spans` are the bytes from one invocation's element to the
    next one's, of loads and of stores, which a warp's cache lines follow from."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{source}.spv"
        path.write_bytes(built(source, tuple(defines.items())))
        code = compiled_file(panvk, path, constants, gpu.name)
    times = [1] * len(code.slots)
    for first, last in code.loops:
        for slot in range(first, last + 1):
            times[slot] *= trips
    total = count(code, 0, len(code.slots) - 1, times)
    lines = warp_lines(code_accesses(code.slots, times), spans, gpu)
    clocks = {
        "issue": total.slots / gpu.lanes,
        "SFU": sfu(total, gpu),
        "cache": lines / gpu.warp,
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


def sfu(total: Count, gpu: Gpu) -> float:
    return 0 if gpu.name == "g52" else total.sfu / (gpu.lanes / 4)


def code_accesses(
    slots: tuple[tuple[object, ...], ...], times: list[int]
) -> tuple[float, float]:
    """Loads and stores that an invocation issues."""
    loads = stores = 0.0
    for slot, number in zip(slots, times, strict=True):
        for operation in slot:
            name = str(getattr(operation, "name", ""))
            if getattr(operation, "bytes", 0):
                stores += number * name.startswith("STORE")
                loads += number * (not name.startswith("STORE"))
    return loads, stores


def warp_lines(
    accesses: tuple[float, float], spans: tuple[float, float], gpu: Gpu
) -> float:
    """Cache lines of a warp: of those that its span covers, begun anywhere."""
    columns = min(16, gpu.warp)
    rows = gpu.warp / columns
    return sum(
        number * rows * min(columns, 1 + (columns - 1) * span / LINE)
        for number, span in zip(accesses, spans, strict=True)
    )


def winograd(
    panvk: Path, gpu: Gpu, method: Method, channels: int, precision: Precision
) -> tuple[list[Stage], tuple[int, int]]:
    """The three stages of a layer of `channels` in and out."""
    quad = 8 if precision == "fp16" else 16
    quads = channels // 4
    plane = HEIGHT * WIDTH * quads * quad
    spread = method.tiles * method.components * quads * quad
    half = {"FP16": 1} if precision == "fp16" else {}
    defines = {"M": method.m, "GROUP_X": 16, "GROUP_Y": 4, **half}
    items = {(2, "fp16"): 1, (2, "fp32"): 2, (4, "fp16"): 2, (4, "fp32"): 4}
    parts = method.tiles * quads * items[method.m, precision]
    inner = stage(
        panvk,
        gpu,
        "winograd_input",
        defines,
        trips=1,
        invocations=parts,
        spans=(method.m * quad, quad),
        traffic=plane + spread,
    )
    outer = stage(
        panvk,
        gpu,
        "winograd_output",
        defines,
        trips=1,
        invocations=parts,
        spans=(quad, method.m * quad),
        traffic=spread + plane,
    )
    products = {
        (tiles, out): stage(
            panvk,
            gpu,
            "winograd_product",
            {"TILES": tiles, "QUADS": out, **half},
            trips=quads // 4,
            invocations=method.tiles * method.components * quads / (tiles * out),
            # Of the loads those of weights are one line; the rest is a tile's each.
            spans=(quad * tiles / (tiles + 4 * out), quad),
            traffic=2 * spread,
            constants=(quads,),
        )
        for tiles, out in PRODUCT_TILES
    }
    whole = {tile: each for tile, each in products.items() if not each.spills}
    best = min(whole, key=lambda tile: whole[tile].seconds)
    return [inner, whole[best], outer], best


def row(
    panvk: Path, gpu: Gpu, method: Method, channels: int, precision: Precision
) -> Row:
    stages, tile = winograd(panvk, gpu, method, channels, precision)
    calls = layer_calls(gpu.family, 3, channels, precision)
    direct = sum(cost(panvk, call, gpu).seconds for call in calls)
    seconds = sum(each.seconds for each in stages)
    return {
        "GPU": gpu.name,
        "method": f"F({method.m},3)",
        "precision": precision,
        "channels": channels,
        "slots": ", ".join(f"{each.slots:.0f}" for each in stages),
        "tiles × quads": f"{tile[0]}×{tile[1]}",
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


def in_blocks(values: Matrix, weights: Matrix, quads: int) -> Matrix:
    """Σ weights (O, I, T) · values (I, T, P): half-precision sums of `quads` quads of
    inputs, added up in single precision."""
    block = 4 * quads
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
            "the result; these shaders are candidates, not in use",
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
