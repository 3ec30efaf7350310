"""Released models measure what they say, and half precision loses next to nothing.

PyTorch measures them all, in a fraction of the time that the kernels take on a CPU;
gpu/test_upscaler.py shows that these give the same bytes. The Vulkan path measures one.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.torch_graph import TorchGraph, torch_bytes
from upfrost import Upscaler
from upfrost.gpu.families import MALI
from upfrost.network.graph import Graph
from upfrost.network.modelfile import bundled_models, find_model, read_model
from upfrost_training.evaluate import bicubic, evaluate_folder

DATA = os.environ.get("UPFROST_DATA")
pytestmark = pytest.mark.skipif(
    not DATA, reason="UPFROST_DATA names no folder with Set5 and Set14"
)

# Vulkan drivers may round differently than the one that the figures were taken on.
DECIBELS = 0.01


def set5(scale: int) -> Path:
    return Path(str(DATA), "Set5", f"x{scale}")


def stated_psnr(graph: Graph) -> float:
    """Set5's Y-PSNR in decibels, as the model's file has it."""
    quality = graph.metadata["quality"]
    assert isinstance(quality, dict)
    stated: float = quality["Set5"]["psnr_y"]
    return stated


@pytest.mark.parametrize("model", sorted(bundled_models()))
def test_quality_is_what_the_model_file_says(model: str) -> None:
    graph = read_model(bundled_models()[model])
    module = TorchGraph(graph)
    found = evaluate_folder(
        set5(graph.scale),
        lambda picture: torch_bytes(module, picture),
        graph.scale,
        graph.colour or "rgb",
    )
    assert found.psnr == pytest.approx(stated_psnr(graph), abs=DECIBELS)


def test_realtime_x2_beats_bicubic_by_two_decibels_in_half_precision_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In half precision by Bifrost's kernels, whose sums are in it too."""
    graph = read_model(find_model("realtime-x2"))
    with Upscaler(graph, precision="fp32") as upscale:
        single = evaluate_folder(set5(2), upscale, 2).psnr
    monkeypatch.setattr("upfrost.gpu.upscaler.tuned_family", lambda *_: MALI)
    with Upscaler(graph, precision="fp16") as upscale:
        half = evaluate_folder(set5(2), upscale, 2).psnr
    assert single == pytest.approx(stated_psnr(graph), abs=DECIBELS)
    assert half >= single - 0.02
    assert half >= evaluate_folder(set5(2), bicubic(2), 2).psnr + 2
