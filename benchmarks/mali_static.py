"""What Mesa's own Mali compiler makes of every kernel, and a cost model on top of it.

usage: python -m benchmarks.mali_static [--panvk FOLDER] [--model MODEL ...]

FOLDER holds Mesa's PanVK driver, a stand-in for its kernel driver and the program
`mali-stats`; without the option the environment variable UPFROST_PANVK names it. No
Mali is needed: nothing runs. The compiler's assembly is parsed, loops are counted as
often as they run, and docs/mali.md says how cycles become milliseconds.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks.report import Row, publish
from upfrost.gpu import convolutions, dispatches, operations, winograd
from upfrost.gpu.costs import BOARDS
from upfrost.gpu.dispatches import Dispatch, Epilogue, Layout, Precision, TensorView
from upfrost.gpu.families import MALI, VALHALL, VARIANTS, Family
from upfrost.gpu.plan import compile_graph, make_plan
from upfrost.gpu.traffic import (
    LUMA,
    Convolution,
    convolution,
    element_bytes,
    is_transform,
    traffic,
    transform_group,
)
from upfrost.network.graph import INPUT, Conv2d
from upfrost.network.modelfile import bundled_models, find_model, read_model

HEIGHT, WIDTH = 540, 960
LINE = 64  # bytes of a cache line
# Kernels without convolutions, with the specialization constants of a usual use.
OTHERS: dict[str, tuple[int, ...]] = {
    "unpack": (3,),
    "pack": (3, dispatches.float_word(255.0), 2, operations.MODES["bilinear"], 2, 1, 1),
    "chroma": (1, 1, 0, 2, 2, 2, 0, 1),
    "luma_of_rgb": (dispatches.float_word(16.0), dispatches.float_word(219 / 255)),
    "rgb_by_luma": (dispatches.float_word(16.0), dispatches.float_word(219 / 255), 2),
    "pixel_shuffle": (2, 3),
    "resize": (operations.MODES["bicubic"], 2, 1),
    "elementwise": (7, 1, 1),
    "pad": (0, 1, 1),
    "max_pool": (2, 2, 2, 2),
    "gather": (2, 16),
    "band_sums": (0,),
    "mean": (0,),
    "layer_norm": (64, 1, dispatches.float_word(1e-6)),
    "resize_to": (operations.MODES["bilinear"],),
    "grid_sample": (2, 4, 4),
}
UNROLLED = ("conv3x3_half", *LUMA)
OTHER_TRIPS = 4  # of a loop in them: over pixels or lanes
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")
# Layers of the tables, by the number that `layer_dispatches` takes.
LAYERS = {
    3: "3×3",
    2: "3×3 by Winograd",
    1: "1×1",
    5: "5×5",
    4: "4×4 ↑2",
    0: "3×3 of bytes",
}
WINOGRAD = next(kernel for kernel in MALI.conv3x3 if kernel.source == "winograd")
RECTIFIED = Epilogue(activation="rectify")


@dataclass(frozen=True)
class Gpu:
    """A GPU on a board. Sources of the figures: docs/mali.md."""

    name: str  # as mali-stats takes it
    board: str
    cores: int
    lanes: int  # invocations that a core advances by one instruction a clock
    warp: int

    @property
    def clock(self) -> float:
        """In Hz."""
        return BOARDS[self.board].clock

    @property
    def bandwidth(self) -> float:
        """Of the board's memory, in bytes/s."""
        return BOARDS[self.board].bandwidth

    @property
    def family(self) -> Family:
        """The kernels that the runtime uses on it."""
        return BOARDS[self.board].family


GPUS = (Gpu("g52", "RK3568", 1, 16, 8), Gpu("g610", "RK3588", 4, 64, 16))

# Valhall's units; what is in none of them is a conversion or integer arithmetic. The
# compiler's own statistics give the same sums (`check_units`).
_FMA_UNIT = ("FMA", "FADD", "FADD_IMM")
_SFU_UNIT = (
    *("LSHIFT_OR", "RSHIFT_OR", "LSHIFT_AND", "RSHIFT_AND", "LSHIFT_XOR"),
    *("ARSHIFT_OR", "IMUL", "FRCP", "FRSQ"),
)
_MEMORY = ("LD_", "LOAD", "STORE", "LEA_")


@dataclass(frozen=True)
class Operation:
    """One instruction: FMA.v2f16 has the name FMA, the type v2f16."""

    name: str
    type: str

    @property
    def macs(self) -> int:
        return 0 if self.name != "FMA" else 2 if self.type == "v2f16" else 1

    @property
    def bytes(self) -> int:
        """That one invocation loads or stores."""
        if not self.name.startswith(("LD_", "LOAD", "STORE")):
            return 0
        return int(self.type.removeprefix("i")) // 8


@dataclass(frozen=True)
class Code:
    """A compiled shader as issue slots, and its loops as (first, last) slot.

    A slot is an instruction on Valhall; on Bifrost a pair of them, one for each unit.
    """

    slots: tuple[tuple[Operation, ...], ...]
    loops: tuple[tuple[int, int], ...]  # outer ones first
    threads: int  # 2: full occupancy, at most 32 registers; 1: half
    spills: int
    fills: int


@dataclass(frozen=True)
class Count:
    """What one invocation issues, in all or in a stretch of code."""

    slots: float
    macs: float
    fma: float  # by unit, on Valhall
    sfu: float
    memory: float
    accesses: float  # loads and stores
    bytes: float

    @property
    def conversions(self) -> float:
        return self.slots - self.fma - self.sfu - self.memory


@cache
def compiled(panvk: Path, shader: str, constants: tuple[int, ...], gpu: str) -> Code:
    """Compile one shader with its specialization constants."""
    code = compiled_file(panvk, VARIANTS[shader].path, constants, gpu)
    if VARIANTS[shader].source in UNROLLED:
        # A loop in it makes the margin's zeros. Few columns of pixels reach into the
        # margin, so one turn for each is more than the mean.
        code = replace(code, loops=())
    return code


def compiled_file(
    panvk: Path, spirv: Path, constants: tuple[int, ...], gpu: str
) -> Code:
    """Compile a file with its specialization constants."""
    specialization = [
        word
        for index, value in enumerate(constants)
        for word in ("--spec", f"{index}={value}")
    ]
    with tempfile.TemporaryDirectory() as folder:
        listing = Path(folder) / "listing"
        command = [str(panvk / "mali-stats"), "--json", "--asm", str(listing)]
        command += [*specialization, str(spirv), gpu]
        said = subprocess.run(command, capture_output=True, text=True, check=True)
        text = listing.read_text()
    statistics = json.loads(said.stdout)
    slots, loops = parse_bifrost(text) if gpu == "g52" else parse_valhall(text)
    code = Code(
        slots,
        loops,
        statistics["threads"],
        statistics["spills"],
        statistics["fills"],
    )
    if gpu != "g52":
        check_units(spirv.name, code, statistics)
    return code


def check_units(shader: str, code: Code, statistics: dict[str, float]) -> None:
    """Raise if instructions by unit are not what the compiler says."""
    found = count(code, 0, len(code.slots) - 1, [1] * len(code.slots))
    expected = (64 * statistics["fma"], 16 * statistics["sfu"], statistics["ls"])
    if (found.fma, found.sfu, found.memory) != expected:
        raise ValueError(f"{shader}: units {found}, the compiler says {expected}")


Listing = tuple[tuple[tuple[Operation, ...], ...], tuple[tuple[int, int], ...]]


def parse_valhall(text: str) -> Listing:
    """Slots and loops of a listing: a loop ends with a branch to an earlier line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    loops = []
    for number, line in enumerate(lines):
        branch = re.search(r"^BRANCHZ.*offset:(-\d+)$", line)
        if branch:
            loops.append((number + 1 + int(branch.group(1)), number))
    return tuple((_operation(line),) for line in lines), _nested(loops)


def parse_bifrost(text: str) -> Listing:
    """Slots and loops of a listing of tuples: "*" is one unit, "+" the other."""
    slots: list[tuple[Operation, ...]] = []
    first_slot: dict[str, int] = {}
    loops = []
    for line in map(str.strip, text.splitlines()):
        if line.startswith("clause_"):
            first_slot[line.rstrip(":")] = len(slots)
        elif line.startswith("*"):
            slots.append((_operation(line[1:]),))
        elif line.startswith("+"):
            slots[-1] += (_operation(line[1:]),)
            target = line.rsplit(" ", 1)[-1]
            if target in first_slot:
                loops.append((first_slot[target], len(slots) - 1))
    return tuple(slots), _nested(loops)


def _operation(line: str) -> Operation:
    name, _, rest = line.split()[0].partition(".")
    return Operation(name, rest.split(".")[0])


def _nested(loops: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Outer loops first; of loops that begin together (`continue`) the longest."""
    longest = dict(sorted(loops, key=lambda loop: loop[1]))
    return tuple(sorted(longest.items()))


def count(code: Code, first: int, last: int, times: Sequence[int]) -> Count:
    """Sums over slots `first` to `last`; slot i is issued `times[i]` times."""
    issued = [
        (times[i], operation)
        for i in range(first, last + 1)
        for operation in code.slots[i]
    ]
    return Count(
        slots=sum(times[first : last + 1]),
        macs=sum(n * o.macs for n, o in issued),
        fma=sum(n * (o.name in _FMA_UNIT) for n, o in issued),
        sfu=sum(n * (o.name in _SFU_UNIT) for n, o in issued),
        memory=sum(n * o.name.startswith(_MEMORY) for n, o in issued),
        accesses=sum(n * (o.bytes > 0) for n, o in issued),
        bytes=sum(n * o.bytes for n, o in issued),
    )


def loop_trips(dispatch: Dispatch) -> list[int]:
    """How often the loops in a convolution's source run, outer ones first."""
    variant = VARIANTS[dispatch.shader]
    in_slices = 1 if "BYTES" in variant.defines else dispatch.constants[0]
    if variant.source in UNROLLED:
        return []
    is_half = "FP16" in variant.defines
    if variant.source == "conv1x1" or (
        variant.source == "winograd_products" and is_half
    ):
        block = 4 if in_slices % 4 == 0 else 2 if in_slices % 2 == 0 else 1
        return [in_slices // block]
    if variant.source == "conv":
        rows, columns = dispatch.constants[5:7]
        block = next(n for n in (7, 5, 3, 2, 1) if columns % n == 0)
        return [in_slices, rows, columns // block]
    return [in_slices]


def executions(code: Code, dispatch: Dispatch) -> list[int]:
    """How often an invocation issues each slot."""
    times = [1] * len(code.slots)
    layer = convolution(dispatch)
    trips = loop_trips(dispatch) if layer else [OTHER_TRIPS] * len(code.loops)
    # Loops of one turn may be gone, and inner ones unrolled.
    while len(trips) > len(code.loops):
        trips.remove(1) if 1 in trips else trips.pop()
    if len(code.loops) > len(trips):
        raise ValueError(f"{len(code.loops)} loops, at most {len(trips)} expected")
    for (first, last), trip in zip(code.loops, trips, strict=True):
        for slot in range(first, last + 1):
            times[slot] *= trip
    if layer and code.loops:
        found = count(code, *code.loops[0], times).macs
        if found != layer.macs:
            raise ValueError(f"{found} products in loops, {layer.macs} expected")
    return times


@dataclass(frozen=True)
class Cost:
    """A dispatch by the model of docs/mali.md: clocks of a core, then seconds."""

    issue: float  # clocks an invocation
    sfu: float
    cache: float
    compute: float  # seconds
    memory: float

    @property
    def seconds(self) -> float:
        return max(self.compute, self.memory)

    @property
    def bound(self) -> str:
        if self.memory > self.compute:
            return "memory"
        clocks = {"issue": self.issue, "SFU": self.sfu, "cache": self.cache}
        return max(clocks, key=lambda name: clocks[name])


def cost(panvk: Path, dispatch: Dispatch, gpu: Gpu) -> Cost:
    layer = convolution(dispatch)
    code = compiled(panvk, dispatch.shader, dispatch.constants, gpu.name)
    total = count(code, 0, len(code.slots) - 1, executions(code, dispatch))
    if is_transform(dispatch):
        lines = transform_lines(total, dispatch, gpu)
        group = math.prod(transform_group(dispatch))
    elif layer is None:
        # Every access a line of its own, which is the worst case.
        lines = total.accesses * gpu.warp
        group = 64
    else:
        lines = convolution_lines(layer, total, dispatch, gpu)
        group = math.prod(layer.group)
    issue = total.slots / gpu.lanes
    sfu = 0 if gpu.name == "g52" else total.sfu / (gpu.lanes / 4)
    cache_clocks = lines / gpu.warp
    invocations = math.prod(dispatch.grid) * group
    moved = traffic(dispatch)
    if moved is None:
        moved = total.bytes * invocations
    clocks = max(issue, sfu, cache_clocks) * invocations / gpu.cores
    return Cost(issue, sfu, cache_clocks, clocks / gpu.clock, moved / gpu.bandwidth)


def transform_lines(total: Count, dispatch: Dispatch, gpu: Gpu) -> float:
    """Cache lines that a warp's loads and stores touch, as `convolution_lines`."""
    columns, _ = transform_group(dispatch)
    size = element_bytes(dispatch)
    if "input" in dispatch.shader:
        # Neighbours read every other pixel. In single precision two share a slice.
        stores, spans = 16, (16, 8)
    else:
        stores, spans = 4, (size, 2 * size)
    return sum(
        number * gpu.warp / columns * (1 + (columns - 1) * span / LINE)
        for number, span in zip((total.accesses - stores, stores), spans, strict=True)
    )


def convolution_lines(
    layer: Convolution, total: Count, dispatch: Dispatch, gpu: Gpu
) -> float:
    """Cache lines that a warp's loads and stores touch."""
    size = element_bytes(dispatch)
    columns = min(layer.group[0], gpu.warp)
    span = ((columns - 1) * layer.tile[0] + 1) * size
    # A span that begins anywhere touches one line more than it fills, at most.
    lines = gpu.warp / columns * (1 + (span - size) / LINE)
    # A slice of weights, one line for all, serves four products of each pixel.
    weights = layer.macs / 4 / (layer.tile[0] * layer.tile[1])
    return weights + (total.accesses - weights) * lines


def direct_family(family: Family) -> Family:
    """The family without Winograd's method."""
    return replace(family, conv3x3=VALHALL.conv3x3)


def layer_dispatches(
    family: Family, kernel: int, channels: int, precision: Precision
) -> list[Dispatch]:
    """A layer of as many channels in as out on `HEIGHT` × `WIDTH` pixels.

    A `kernel` of four stands for the transposed convolution of stride 2, of two for
    the 3×3 convolution by Winograd's method, which else is computed directly, of zero
    for that of the picture's bytes.
    """
    if kernel == 4:
        return deconv4x4_dispatches(family, channels, precision)
    by_winograd = kernel == 2
    if by_winograd:
        kernel = 3
        family = replace(family, conv3x3=(WINOGRAD,))
    else:
        family = direct_family(family)
    unit = None if kernel else 1 / 255
    kernel = kernel or 3
    shape = (channels, channels if unit is None else 3, kernel, kernel)
    padding = (kernel // 2,) * 4
    node = Conv2d(name=f"conv{kernel}", inputs=(INPUT,), weight="w", padding=padding)
    tile = convolutions.conv_kernel(node, shape, family, precision).tile
    target, source = (view_of(count, 1, tile.coverage) for count in shape[:2])
    weights = np.zeros(shape, np.float32)
    slopes = np.zeros(channels, np.float32)
    if by_winograd:
        packed = winograd.pack(node, weights, None, slopes, family, precision)
    else:
        packed = convolutions.pack_conv(node, weights, None, slopes, precision)
    compute = winograd.conv if by_winograd else convolutions.conv
    return compute(
        convolutions.Convolution(
            node,
            shape,
            packed,
            source,
            target,
            RECTIFIED,
            family,
            precision,
            unit,
            3,
            scratch=(0, 0),
        )
    )


def deconv4x4_dispatches(
    family: Family, channels: int, precision: Precision
) -> list[Dispatch]:
    node = Conv2d(name="up", inputs=(INPUT,), weight="w", padding=(1, 1, 1, 1))
    width, height = family.deconv4x4.tile.coverage
    source, target = (
        view_of(channels, scale, (2 * width, 2 * height)) for scale in (1, 2)
    )
    weights = np.zeros((4 * channels, channels, 3, 3), np.float32)
    slopes = np.zeros(channels, np.float32)
    packed = convolutions.pack_deconv4x4(node, weights, None, slopes, precision)
    return convolutions.deconv4x4(
        convolutions.Convolution(
            node,
            weights.shape,
            packed,
            source,
            target,
            RECTIFIED,
            family,
            precision,
        )
    )


def view_of(channels: int, scale: int, coverage: tuple[int, int]) -> TensorView:
    """The view of a value of `scale` times the picture's size."""
    columns, rows = dispatches.alignment([coverage])
    width, height = scale * WIDTH, scale * HEIGHT
    stride = -(-(width + 2) // columns) * columns
    plane = -(-(height + 2) // rows) * rows * stride
    layout = Layout(0, stride, plane, width, height, channels)
    return TensorView(0, layout, has_zeros=True)


def layer_rows(
    panvk: Path, gpu: Gpu, kernel: int, channels: int, precision: Precision
) -> list[Row]:
    """A row for each shader that a layer takes."""
    by_shader: dict[str, list[Dispatch]] = {}
    for dispatch in layer_dispatches(gpu.family, kernel, channels, precision):
        by_shader.setdefault(dispatch.shader, []).append(dispatch)
    return [
        shader_row(panvk, gpu, f"{LAYERS[kernel]}, {channels}", dispatches)
        for dispatches in by_shader.values()
    ]


def shader_row(
    panvk: Path, gpu: Gpu, label: str, dispatches: Sequence[Dispatch]
) -> Row:
    """What dispatches of one shader cost."""
    dispatch = dispatches[0]
    code = compiled(panvk, dispatch.shader, dispatch.constants, gpu.name)
    inner = code.loops[-1] if code.loops else (0, len(code.slots) - 1)
    loop = count(code, *inner, [1] * len(code.slots))
    costs = [cost(panvk, each, gpu) for each in dispatches]
    valhall = gpu.name != "g52"
    # Those of a transform are its epilogue's.
    useful = () if is_transform(dispatch) else code.slots[inner[0] : inner[1] + 1]
    fmas = sum(o.macs > 0 for slot in useful for o in slot)
    seconds = sum(each.seconds for each in costs)
    macs = sum(each.macs for each in dispatches)
    return {
        "GPU": gpu.name,
        "kernel": dispatch.shader,
        "layer": label,
        "spills:fills": f"{code.spills}:{code.fills}",
        "threads": {1: "half", 2: "full"}[code.threads],
        "loop": int(loop.slots),
        "useful %": round(100 * fmas / loop.slots, 1),
        "FMA": loop.fma / 64 if valhall else None,
        "CVT": loop.conversions / 64 if valhall else None,
        "SFU": loop.sfu / 16 if valhall else None,
        "arith": None if valhall else loop.slots / 24,
        "LS": int(loop.memory),
        "arith/MAC": loop.slots / 24 / loop.macs * 36 if fmas and not valhall else None,
        "clocks/pixel": sum(c.seconds for c in costs)
        * gpu.clock
        * gpu.cores
        / (WIDTH * HEIGHT),
        "ms": 1e3 * seconds,
        "GMAC/s": macs / seconds / 1e9 if macs else None,
        "bound": costs[0].bound,
    }


def other_row(panvk: Path, gpu: Gpu, shader: str, constants: tuple[int, ...]) -> Row:
    code = compiled(panvk, shader, constants, gpu.name)
    total = count(code, 0, len(code.slots) - 1, [1] * len(code.slots))
    return {
        "GPU": gpu.name,
        "kernel": shader,
        "spills:fills": f"{code.spills}:{code.fills}",
        "threads": {1: "half", 2: "full"}[code.threads],
        "slots": int(total.slots),
        "loops": len(code.loops),
        "loads and stores": int(total.accesses),
    }


def model_row(panvk: Path, gpu: Gpu, name: str, precision: Precision) -> Row:
    graph = read_model(find_model(name))
    plan, direct = (
        make_plan(compile_graph(graph, family, precision), HEIGHT, WIDTH)
        for family in (gpu.family, direct_family(gpu.family))
    )
    costs = [cost(panvk, dispatch, gpu) for dispatch in plan.dispatches]
    seconds = sum(each.seconds for each in costs)
    direct_seconds = sum(
        cost(panvk, dispatch, gpu).seconds for dispatch in direct.dispatches
    )
    convolutions = sum(
        each.seconds
        for dispatch, each in zip(plan.dispatches, costs, strict=True)
        if convolution(dispatch) or is_transform(dispatch)
    )
    return {
        "board": gpu.board,
        "model": name,
        "precision": precision,
        "dispatches": len(plan.dispatches),
        "GMAC": sum(dispatch.macs for dispatch in plan.dispatches) / 1e9,
        "ms": 1e3 * seconds,
        "all direct ms": 1e3 * direct_seconds,
        "convolutions %": round(100 * convolutions / seconds, 1),
        "GMAC/s": sum(dispatch.macs for dispatch in plan.dispatches) / seconds / 1e9,
    }


def add_panvk(parser: argparse.ArgumentParser) -> None:
    """Let the folder with mali-stats be named."""
    parser.add_argument(
        "--panvk",
        type=Path,
        metavar="FOLDER",
        default=os.environ.get("UPFROST_PANVK") or None,
        help="with mali-stats (docs/mali.md says how it is made); the environment "
        "variable UPFROST_PANVK serves, too",
    )


def panvk_of(arguments: argparse.Namespace, program: str) -> Path:
    """The folder with mali-stats, without which the program ends."""
    if arguments.panvk is None:
        sys.exit(
            f"{program}: name the folder with mali-stats: --panvk FOLDER, or "
            "UPFROST_PANVK"
        )
    return Path(arguments.panvk)


def with_panvk(
    parser: argparse.ArgumentParser, program: str
) -> tuple[argparse.Namespace, Path]:
    """The arguments of a program that cannot do without mali-stats, and its folder."""
    add_panvk(parser)
    arguments = parser.parse_args()
    return arguments, panvk_of(arguments, program)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", action="append", help="default: all that ship")
    arguments, panvk = with_panvk(parser, "mali_static")
    publish(
        "mali_static",
        f"Convolutions by Mesa's Mali compiler, {WIDTH}×{HEIGHT} pixels",
        [
            row
            for gpu in GPUS
            for precision in PRECISIONS
            for kernel in LAYERS
            # In use only there.
            if kernel != 2 or gpu.family == MALI
            for channels in (*((4, 8, 12) if kernel in (3, 0) else ()), 16, 32, 64)
            for row in layer_rows(panvk, gpu, kernel, channels, precision)
        ],
        [
            "loop: issue slots of one turn of the inner loop (instructions on g610, "
            "pairs on g52); useful: slots that hold an FMA of the convolution",
            "FMA, CVT, SFU, arith: clocks of a turn by unit, as Mesa counts them; LS: "
            "loads and stores",
            "arith/MAC: g52's clocks per pixel, output channel and input slice of a "
            "3×3 layer",
            "4×4 ↑2: the transposed convolution of stride 2; pixels are the input's",
            "3×3 of bytes: a first layer, of three channels; it has no loop",
            "3×3 by Winograd: three dispatches, the transforms without a loop; GMAC/s: "
            "of products, and of the direct convolution's number of them",
            "ms: by the cost model of docs/mali.md, not measured",
        ],
    )
    publish(
        "mali_others",
        "The other kernels by Mesa's Mali compiler",
        [
            other_row(panvk, gpu, shader, constants)
            for gpu in GPUS
            for precision in PRECISIONS
            for name, constants in OTHERS.items()
            # Bytes to bytes are the same in both.
            if (shader := name if name in VARIANTS else f"{name}-{precision}")
            and (name not in VARIANTS or precision == "fp16")
        ],
        ["slots: of one invocation, loops counted once"],
    )
    publish(
        "mali_models",
        f"Models by the cost model of docs/mali.md, {WIDTH}×{HEIGHT} pixels in",
        [
            model_row(panvk, gpu, name, precision)
            for gpu in GPUS
            for name in arguments.model or sorted(bundled_models())
            for precision in PRECISIONS
        ],
        [
            "Not measured: no board was at hand. Submissions and copies are not in it.",
            "all direct ms: without Winograd's method",
        ],
    )


if __name__ == "__main__":
    main()
