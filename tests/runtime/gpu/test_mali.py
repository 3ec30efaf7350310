"""Every shader in use on Mali stays within its registers, by Mesa's own compiler.

A spill is a load and a store of a slow memory in the inner loop: no shader may have one
on any of the two architectures. Needs a folder with Mesa's PanVK driver and the program
`mali-stats` (CONTRIBUTING.md), named by the environment variable UPFROST_PANVK.
"""

from __future__ import annotations

import functools
import io
import json
import os
import runpy
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from upfrost.gpu.families import CPU, MALI, VARIANTS

PANVK = os.environ.get("UPFROST_PANVK")
pytestmark = pytest.mark.skipif(
    not PANVK, reason="UPFROST_PANVK names no folder with mali-stats"
)

# Specialization constants by shader source: the costliest of each kind, and for the
# convolutions what changes the inner loop.
# Second value added before or after the activation or multiplied, and the activation:
# rectifier, GELU, Mish.
_EPILOGUES = [(0, 0), (1, 1), (2, 1), (2, 5), (4, 9)]


def _loops(*slices: int) -> list[tuple[int, ...]]:
    """Numbers of input slices, and each epilogue behind the largest of them.

    For kernels whose loop over slices stays one: what is behind it does not change with
    its length.
    """
    *fewer, most = slices
    return [*((count, 0, 0) for count in fewer), *((most, *end) for end in _EPILOGUES)]


CONSTANTS: dict[str, list[tuple[int, ...]]] = {
    "clear": [()],
    "unpack": [(1,), (3,), (0x602,)],
    # pixel, bits of 255.0, factor, skip, ratio, skip of the picture
    "pack": [
        *(
            (3, 0x437F0000, factor, skip, factor, 1, given)
            for factor in (1, 2, 3, 4)
            for skip in range(4)
            for given in ((0, 1) if skip else (0,))
        ),
        *((pixel, 0x437F0000, 2, 2, 2, 1, 1) for pixel in (1, 0x602)),
    ],
    # components, bytes and lowest bit of a sample, scale, luma for each and offset
    "chroma": [
        (components, *sample, scale, 2, 2, 0, 1)
        for components in (1, 2)
        for sample in ((1, 0), (2, 6))
        for scale in (1, 2, 3, 4)
    ],
    # bits of 16.0 and of 219 / 255, scale
    "luma_of_rgb": [(0x41800000, 0x3F5BDBDC)],
    "rgb_by_luma": [(0x41800000, 0x3F5BDBDC, scale) for scale in (1, 2, 3, 4)],
    "pixel_shuffle": [(2, 3), (3, 16)],
    "resize": [(1, 2, 1), (2, 3, 2), (3, 4, 1)],
    "elementwise": [(7, *end) for end in [*_EPILOGUES, *((3, a) for a in range(17))]],
    "pad": [(0, 1, 1), (1, 3, 2)],
    "max_pool": [(3, 3, 2, 2, 1, 1), (9, 9, 1, 1, 4, 4)],
    "band_sums": [(0,), (1,)],
    "mean": [(0,), (1,)],
    # channels, whether the mean counts, bits of 1e-6
    "layer_norm": [(c, kind, 0x358637BD) for c in (6, 64) for kind in (0, 1)],
    "resize_to": [(1,), (2,), (3,)],
    # factor, groups, channels of each
    "grid_sample": [(2, 1, 10), (2, 4, 16), (4, 4, 3)],
    "gather": [(0, 16), (3, 18)],
    "conv3x3_half": _loops(1, 2, 3, 4),
    # input slices, pixel, bits of 255.0, skip
    **{
        f"conv3x3_luma{factor}": [
            (slices, pixel, 0x437F0000, 1) for slices in (1, 4) for pixel in (1, 0x602)
        ]
        for factor in (2, 3)
    },
    "conv3x3": _loops(1, 4, 16),
    "deconv4x4": _loops(1, 4, 16),
    # A single slice leaves no loop.
    "conv1x1": [*((1, *end) for end in _EPILOGUES), *_loops(6, 16)],
    "winograd_products": [(slices, slices) for slices in (4, 5, 6, 16)],
    "winograd_input": [(slices,) for slices in (4, 8, 16)],
    "winograd_output": [(16, *end) for end in _EPILOGUES],
    "conv": [
        (16, 1, 1, 0xFF61B1E6, 0x7F61B1E6, *size)  # clamp at ∓3e38
        # rows, columns, strides, dilations, paddings
        for size in [
            (1, 1, 1, 1, 1, 1, 0, 0),
            (1, 5, 1, 1, 1, 1, 0, 2),
            (3, 3, 1, 1, 2, 2, 2, 2),
            (3, 3, 2, 2, 1, 1, 1, 1),
            (5, 5, 1, 1, 1, 1, 2, 2),
            (7, 7, 1, 1, 1, 1, 3, 3),
            (9, 9, 1, 1, 1, 1, 4, 4),
        ]
    ],
}


def shaders_in_use() -> dict[str, list[Path]]:
    """Files of the variants that a plan for a Mali may name, by what they share.

    That is the source of the shader, and whether it reads bytes.
    """
    elsewhere = {kernel.name for kernel in CPU.kernels}
    elsewhere -= {kernel.name for kernel in MALI.kernels}
    found: dict[str, list[Path]] = {}
    for name, variant in VARIANTS.items():
        shader = name.removesuffix("-fp16").removesuffix("-fp32")
        kernel = shader.removesuffix("_bytes")
        if kernel not in elsewhere:
            group = variant.source + ("_bytes" if kernel != shader else "")
            found.setdefault(group, []).append(variant.path)
    return found


def constants_of(group: str) -> list[tuple[int, ...]]:
    """The constants that `group` of shaders is compiled with."""
    source = group.removesuffix("_bytes")
    if source == group:
        return CONSTANTS[source]
    # A pixel's format in place of slices. Kernels that take no RGB read luma.
    pixel = 1 if source == "conv3x3_half" else 3
    return list(dict.fromkeys((pixel, *rest) for _, *rest in CONSTANTS[source]))


@functools.cache
def mali_stats_main() -> Callable[[], None]:
    """What `mali-stats` runs.

    In this process, since Python takes longer to start than most shaders to compile.
    """
    main: Callable[[], None] = runpy.run_path(f"{PANVK}/mali-stats")["main"]
    return main


def mali_stats(
    files: Sequence[Path], constants: Sequence[int], gpu: str
) -> list[dict[str, Any]]:
    """What Mesa's compiler says of each file."""
    specialization = [
        word
        for index, value in enumerate(constants)
        for word in ("--spec", f"{index}={value}")
    ]
    printed = io.StringIO()
    arguments = ["mali-stats", "--json", *specialization, *map(str, files), gpu]
    with patch.object(sys, "argv", arguments), redirect_stdout(printed):
        mali_stats_main()()
    return [json.loads(line) for line in printed.getvalue().splitlines()]


SHADERS = shaders_in_use()


@pytest.mark.parametrize("gpu", ["g52", "g610"])
@pytest.mark.parametrize("group", SHADERS)
def test_no_shader_spills(group: str, gpu: str) -> None:
    for constants in constants_of(group):
        rows = mali_stats(SHADERS[group], constants, gpu)
        assert len(rows) == len(SHADERS[group])
        for row in rows:
            found = (row["spills"], row["fills"])
            assert found == (0, 0), f"{row['file']}, constants {constants}: {found}"
