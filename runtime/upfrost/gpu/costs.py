"""How long a dispatch takes on two boards, by the model of docs/mali.md.

Computed, not measured: `TABLE` has the figures of each kernel, which
benchmarks/mali_costs.py takes from Mesa's compiler.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from upfrost.gpu.dispatches import Dispatch
from upfrost.gpu.families import MALI, VALHALL, VARIANTS, Family
from upfrost.gpu.traffic import convolution, traffic

if TYPE_CHECKING:
    from upfrost.gpu.plan import Plan

TABLE = Path(__file__).with_name("mali_costs.json")


@dataclass(frozen=True)
class Board:
    """A board of the model: its GPU as Vulkan names it. Sources: docs/mali.md."""

    gpu: str
    clock: float  # Hz
    bandwidth: float  # bytes/s of its memory
    family: Family  # the kernels that upfrost takes on it


BOARDS: Mapping[str, Board] = {
    "RK3588": Board("Mali-G610", 1e9, 25e9, VALHALL),
    "RK3568": Board("Mali-G52", 0.8e9, 8e9, MALI),
}


def board_of(device: str) -> str | None:
    """The board whose GPU has that name in Vulkan; None for one without figures."""
    for name, board in BOARDS.items():
        # Not Mali-G520, whose name begins like another's.
        if device.startswith(board.gpu) and not device[len(board.gpu) :][:1].isdigit():
            return name
    return None


def dispatch_seconds(board: str, dispatch: Dispatch) -> float | None:
    """Seconds of a dispatch on that board; None for a kernel without figures.

    What takes longer, computing or the memory: of kernels that are no convolutions the
    table has what takes longer already.
    """
    table = _table()[board]
    # A first layer of another kind than those of the table: one slice of values costs
    # about what the picture's bytes do.
    plain = dispatch.shader.replace("_bytes", "")
    found = table.get(dispatch.shader) or table.get(plain)
    if found is None:
        return None
    fixed, each = found
    computing = 1e-9 * math.prod(dispatch.grid) * (fixed + each * units(dispatch))
    return max(computing, (traffic(dispatch) or 0) / BOARDS[board].bandwidth)


def plan_seconds(board: str, plan: Plan) -> float:
    """Seconds of a plan on that board; of kernels without figures, the plan's own."""
    return sum(
        dispatch_seconds(board, dispatch) or estimate
        for dispatch, estimate in zip(
            plan.dispatches, plan.dispatch_seconds, strict=True
        )
    )


def units(dispatch: Dispatch) -> int:
    """What a workgroup's time grows with: slices that a convolution reads, samples of a
    pixel that a first layer reads or `pack` writes; where a kernel takes any number of
    taps, of each."""
    variant = VARIANTS[dispatch.shader]
    if variant.source == "pack":
        return 3 if dispatch.constants[0] & 255 == 3 else 1
    layer = convolution(dispatch)
    if layer is None:
        return 0
    if variant.source == "conv":
        return -(-layer.in_channels // 4) * math.prod(layer.taps)
    return layer.in_channels if "BYTES" in variant.defines else layer.in_channels // 4


@cache
def _table() -> Mapping[str, Mapping[str, tuple[float, float]]]:
    found: Mapping[str, Mapping[str, tuple[float, float]]] = json.loads(
        TABLE.read_text(encoding="utf-8")
    )
    return found
