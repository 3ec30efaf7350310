"""The validation layer, with its synchronization check, finds nothing wrong.

What it may say of half precision is in docs/vulkan.md.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.graphs import one_of_each_structure
from upfrost.gpu.device import choose_device

LAYER = "VK_LAYER_KHRONOS_validation"
LAYER_FILES = [
    Path(folder, "vulkan/explicit_layer.d/VkLayer_khronos_validation.json")
    for folder in ("/usr/share", "/usr/local/share", "/etc")
]
pytestmark = pytest.mark.skipif(
    not any(file.exists() for file in LAYER_FILES),
    reason="the package vulkan-validationlayers is not installed",
)

# What the layer says of half precision on a device without the features, which computes
# it all the same.
WITHOUT_FEATURE = {
    "VUID-VkShaderModuleCreateInfo-pCode-01091",
    "VUID-RuntimeSpirv-uniformAndStorageBuffer16BitAccess-06332",
    "VUID-RuntimeSpirv-storageBuffer16BitAccess-06331",
}

UPSCALE = """
import sys
import numpy as np
from upfrost.gpu import families, upscaler
from upfrost.gpu.frame import Frame, FrameFormat
from upfrost.gpu.upscaler import Upscaler
from upfrost.gpu.tiles import smallest_side
model, precision, *family = sys.argv[1:]
if family:
    upscaler.tuned_family = lambda *_: getattr(families, *family)
with Upscaler(model, precision=precision) as upscale:
    side = smallest_side(upscale.tiling)
    if upscale.graph.colour == "luma":
        upscale.frame(Frame.empty(FrameFormat("420"), 20, 24))
# One row of tiles, as all have the same dispatches; and not the height of a deep
# network's halo, which a CPU computes slowly.
height, width = min(side, 40), side + 5
with Upscaler(model, precision=precision, tile=side) as upscale:
    assert len(upscale.tiles(height, width, side)) > 2  # both slots, and one again
    upscale(np.zeros((height, width, upscale.graph.channels), np.uint8))
"""

# Two dispatches, the second reading what the first wrote, in one submission.
CHAINED = """
import sys
import kp
from tests.runtime.gpu.chains import copy, tensors
manager = kp.Manager(0)
there = tensors(manager, 3, 16)
sequence = manager.sequence().record(copy(manager, there[:2], 16))
sequence.record(copy(manager, there[1:], 16), barrier=sys.argv[1] == "ordered")
sequence.eval()
"""


def half_precision() -> set[str]:
    """What the layer may say of half precision on the device that is chosen."""
    return set() if choose_device().has_float16 else WITHOUT_FEATURE


def messages(program: str, *arguments: str) -> set[str]:
    """Names of what the layer reports while `program` runs."""
    result = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={
            **os.environ,
            "VK_INSTANCE_LAYERS": LAYER,
            "VK_LAYER_ENABLES": (
                "VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT"
            ),
            # Layers of 1.4 look at what shaders access only if they are told to.
            "VK_KHRONOS_VALIDATION_SYNCVAL_SHADER_ACCESSES_HEURISTIC": "true",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    text = result.stdout + result.stderr
    return set(re.findall(r"\b((?:VUID|SYNC|UNASSIGNED|BestPractices)-[\w-]+)", text))


def test_the_layer_sees_a_hazard_where_the_barrier_is_left_out() -> None:
    assert any(name.startswith("SYNC-") for name in messages(CHAINED, "unordered"))
    assert messages(CHAINED, "ordered") == set()


@pytest.mark.parametrize("model", one_of_each_structure())
def test_fp32_is_clean(model: str) -> None:
    assert messages(UPSCALE, model, "fp32") == set()


@pytest.mark.parametrize("model", one_of_each_structure())
def test_fp16_is_clean_but_for_the_features(model: str) -> None:
    assert messages(UPSCALE, model, "fp16") <= half_precision()


def test_the_kernels_of_bifrost_are_clean() -> None:
    """Which are others than those of the device at hand."""
    assert messages(UPSCALE, "realtime-x2", "fp32", "MALI") == set()
    assert messages(UPSCALE, "realtime-x2", "fp16", "MALI") <= half_precision()
