"""Released models measure what they say, through the Vulkan path."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from upfrost import Upscaler
from upfrost.network.modelfile import bundled_models, read_model
from upfrost_training.evaluate import bicubic, evaluate_folder

DATA = os.environ.get("UPFROST_DATA")
pytestmark = pytest.mark.skipif(
    not DATA, reason="UPFROST_DATA names no folder with Set5 and Set14"
)

# Vulkan drivers may round differently than the one that the figures were taken on.
DECIBELS = 0.01


@pytest.mark.parametrize("model", sorted(bundled_models()))
def test_quality_is_what_the_model_file_says(model: str) -> None:
    assert DATA is not None
    graph = read_model(bundled_models()[model])
    quality = graph.metadata["quality"]
    assert isinstance(quality, dict)
    folder = Path(DATA, "Set5", f"x{graph.scale}")
    with Upscaler(graph, precision="fp32") as upscale:
        colour = graph.colour or "rgb"
        found = evaluate_folder(folder, upscale, graph.scale, colour)
    assert found.psnr == pytest.approx(quality["Set5"]["psnr_y"], abs=DECIBELS)


def test_realtime_x2_beats_bicubic_by_two_decibels() -> None:
    assert DATA is not None
    folder = Path(DATA, "Set5", "x2")
    with Upscaler("realtime-x2") as upscale:
        found = evaluate_folder(folder, upscale, 2)
    assert found.psnr >= evaluate_folder(folder, bicubic(2), 2).psnr + 2


def test_fp16_loses_little() -> None:
    assert DATA is not None
    folder = Path(DATA, "Set5", "x2")
    found = []
    for precision in ("fp32", "fp16"):
        with Upscaler("realtime-x2", precision=precision) as upscale:
            found.append(evaluate_folder(folder, upscale, 2).psnr)
    assert found[1] >= found[0] - 0.02
