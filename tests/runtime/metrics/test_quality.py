"""Released models measure what they say, and half precision loses next to nothing.

PyTorch measures them all, in a fraction of the time that the kernels take on a CPU;
gpu/test_upscaler.py shows that these give the same bytes. The Vulkan path measures one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.torch_graph import TorchGraph, torch_bytes
from upfrost import Upscaler
from upfrost.gpu.families import MALI
from upfrost.network.graph import Graph
from upfrost.network.modelfile import bundled_models, find_model, read_model
from upfrost_training.evaluate import bicubic, evaluate_folder, write_pairs

DATA = os.environ.get("UPFROST_DATA")
pytestmark = pytest.mark.skipif(
    not DATA, reason="UPFROST_DATA names no folder with Set5 and Set14"
)

# Vulkan drivers may round differently than the one that the figures were taken on.
DECIBELS = 0.01


@pytest.fixture(scope="module")
def set5(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Set5's pairs by scale; those of ×3 are made of the originals of ×2."""

    @cache
    def pairs(scale: int) -> Path:
        folder = Path(str(DATA), "Set5", f"x{scale}")
        if folder.exists():
            return folder
        made = tmp_path_factory.mktemp("Set5") / f"x{scale}"
        write_pairs(Path(str(DATA), "Set5", "x2"), made, scale)
        return made

    return pairs


def stated_psnr(graph: Graph) -> float:
    """Set5's Y-PSNR in decibels, as the model's file has it."""
    quality = graph.metadata["quality"]
    assert isinstance(quality, dict)
    stated: float = quality["Set5"]["psnr_y"]
    return stated


@pytest.mark.parametrize("model", sorted(bundled_models()))
def test_quality_is_what_the_model_file_says(
    model: str, set5: Callable[[int], Path]
) -> None:
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
    monkeypatch: pytest.MonkeyPatch, set5: Callable[[int], Path]
) -> None:
    """In half precision by Bifrost's kernels, whose sums are in it too."""
    graph = read_model(find_model("realtime-x2"))
    assert graph.colour == "luma"
    with Upscaler(graph, precision="fp32") as upscale:
        single = evaluate_folder(set5(2), upscale, 2, "luma").psnr
    monkeypatch.setattr("upfrost.gpu.upscaler.tuned_family", lambda *_: MALI)
    with Upscaler(graph, precision="fp16") as upscale:
        half = evaluate_folder(set5(2), upscale, 2, "luma").psnr
    assert single == pytest.approx(stated_psnr(graph), abs=DECIBELS)
    assert half >= single - 0.02
    assert half >= evaluate_folder(set5(2), bicubic(2), 2, "luma").psnr + 2
