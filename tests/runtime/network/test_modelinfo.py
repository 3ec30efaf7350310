"""What is said of a model's quality is what was kept of it."""

from __future__ import annotations

from dataclasses import replace

from upfrost.network.modelfile import bundled_models
from upfrost.network.modelinfo import model_info, quality_lines, rounded


def test_figures_are_kept_and_said_with_the_decimals_of_their_metric() -> None:
    means = rounded({"psnr_y": 37.0249, "ssim": 0.957968, "vmaf": 93.04})
    assert means == {"psnr_y": 37.02, "ssim": 0.958, "vmaf": 93.0}
    info = model_info(next(iter(bundled_models().values())))
    quality = {"Set5": means, "mine": {"lpips_alex": 0.1}, "none": None}
    assert list(quality_lines(replace(info, quality=quality))) == [
        "Set5: Y-PSNR 37.02 dB, SSIM 0.9580, VMAF 93.0",
        "mine: lpips alex 0.1",
    ]
