"""The quality of videos: what must be perfect is, and worse is less."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.runtime.clips import FFMPEG, HDR, frames, make_clip, needs_vmaf
from upfrost.metrics.quality import y_psnr
from upfrost.metrics.vmaf import measure_video
from upfrost.video.ffmpeg import VideoError

SIZE = (192, 108)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "original.mkv"
    return make_clip(path, "-crf", "0", size="192x108", seconds=0.5)


@needs_vmaf
def test_the_same_video_is_perfect(original: Path) -> None:
    quality = measure_video(FFMPEG, original, original)
    assert len(quality.vmaf) == len(quality.psnr) == len(quality.ssim) == 12
    assert min(quality.vmaf) > 95  # a still first frame does not reach 100
    assert min(quality.psnr) >= 60  # libvmaf's limit for eight bits
    assert min(quality.ssim) > 0.9999


@needs_vmaf
def test_lower_rates_are_worse_in_every_metric(tmp_path: Path, original: Path) -> None:
    found = []
    for crf in ("20", "30", "45"):
        worse = tmp_path / f"{crf}.mp4"
        make_clip(worse, "-crf", crf, size="192x108", seconds=0.5)
        found.append(measure_video(FFMPEG, original, worse).means())
    for metric in ("vmaf", "psnr", "ssim"):
        assert found[0][metric] > found[1][metric] > found[2][metric]


@needs_vmaf
def test_psnr_is_that_of_luma(tmp_path: Path, original: Path) -> None:
    worse = make_clip(tmp_path / "worse.mp4", "-crf", "40", size="192x108", seconds=0.5)
    quality = measure_video(FFMPEG, original, worse)
    pairs = zip(frames(original, SIZE), frames(worse, SIZE), strict=True)
    ours = [y_psnr(one, other, 0) for one, other in pairs]
    # Ours goes by RGB, which rounds, and clips at colours that RGB does not have.
    assert np.abs(np.array(ours) - quality.psnr).max() < 1.0


@needs_vmaf
def test_a_smaller_video_is_enlarged(tmp_path: Path, original: Path) -> None:
    small = make_clip(tmp_path / "small.mp4", size="96x54", seconds=0.5)
    assert 0 < measure_video(FFMPEG, original, small).mean("vmaf") < 95


@needs_vmaf
def test_frames_of_another_rate_are_not_paired_by_their_number(
    tmp_path: Path, original: Path
) -> None:
    other = make_clip(tmp_path / "other.mkv", size="192x108", seconds=0.5, rate=12)
    with pytest.raises(VideoError, match=r"number 2 comes after 0\.08\d s, not 0\.04"):
        measure_video(FFMPEG, original, other)


@needs_vmaf
def test_what_is_shorter_is_compared_as_far_as_it_goes(
    tmp_path: Path, original: Path
) -> None:
    # In a container with other rounding.
    short = make_clip(tmp_path / "short.mp4", size="192x108", seconds=0.25)
    assert len(measure_video(FFMPEG, original, short).vmaf) == 6


def test_hdr_is_not_measured(tmp_path: Path, original: Path) -> None:
    hdr = make_clip(tmp_path / "hdr.mp4", size="192x108", seconds=0.2, filters=HDR)
    with pytest.raises(VideoError, match="HDR"):
        measure_video(FFMPEG, hdr, original)


def test_what_cannot_be_measured_gets_one_line(tmp_path: Path, original: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(VideoError, match="not a video"):
        measure_video(FFMPEG, original, tmp_path / "text.mp4")
