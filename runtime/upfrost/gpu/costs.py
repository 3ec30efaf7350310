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

if TYPE_CHECKING:
    from upfrost.gpu.plan import Plan

TABLE = Path(__file__).with_name("mali_costs.json")


@dataclass(frozen=True)
class Board:
    """A board of the model: its GPU as Vulkan names it, and that GPU's clock in Hz."""

    gpu: str
    clock: float
    family: Family  # the kernels that upfrost takes on it


BOARDS: Mapping[str, Board] = {
    "RK3588": Board("Mali-G610", 1e9, VALHALL),
    "RK3568": Board("Mali-G52", 0.8e9, MALI),
}


def board_of(device: str) -> str | None:
    """The board whose GPU has that name in Vulkan; None for one without figures."""
    for name, board in BOARDS.items():
        # Not Mali-G520, whose name begins like another's.
        if device.startswith(board.gpu) and not device[len(board.gpu) :][:1].isdigit():
            return name
    return None


def dispatch_seconds(board: str, dispatch: Dispatch) -> float | None:
    """Seconds of a dispatch on that board; None for a kernel without figures."""
    table = _table()[board]
    # Of a first layer without figures of its own: one slice of values costs about
    # what the picture's bytes do.
    plain = dispatch.shader.replace("_bytes", "")
    found = table.get(dispatch.shader) or table.get(plain)
    if found is None:
        return None
    fixed, each = found
    return 1e-9 * math.prod(dispatch.grid) * (fixed + each * units(dispatch))


def plan_seconds(board: str, plan: Plan) -> float:
    """Seconds of a plan on that board; of kernels without figures, the plan's own."""
    return sum(
        dispatch_seconds(board, dispatch) or estimate
        for dispatch, estimate in zip(
            plan.dispatches, plan.dispatch_seconds, strict=True
        )
    )


def units(dispatch: Dispatch) -> int:
    """What a workgroup's time grows with: slices that it reads, by taps where the
    kernel takes any number of them."""
    variant = VARIANTS[dispatch.shader]
    slices = 1 if "BYTES" in variant.defines else dispatch.constants[0]
    match variant.source:
        case "conv":
            return slices * math.prod(dispatch.constants[5:7])
        case "conv3x3" | "conv3x3_half" | "conv1x1":
            return slices
        case "conv3x3_luma2" | "conv3x3_luma3":
            return slices
        case "deconv4x4" | "winograd_products":
            return slices
    return 0


@cache
def _table() -> Mapping[str, Mapping[str, tuple[float, float]]]:
    found: Mapping[str, Mapping[str, tuple[float, float]]] = json.loads(
        TABLE.read_text(encoding="utf-8")
    )
    return found
