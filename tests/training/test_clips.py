"""Runs of frames come from inside scenes, unmixed."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from upfrost.video.ffmpeg import VideoError
from upfrost_training.clips import choose_runs, read_runs, scene_starts
from upfrost_training.data import DataError


def test_cuts_are_found_and_motion_is_not() -> None:
    rng = np.random.default_rng(0)
    scenes = rng.integers(256, size=(3, 18, 32), dtype=np.uint8)
    slow = scenes.repeat(10, axis=0).astype(int)
    slow += np.tile(np.arange(10), 3)[:, None, None]
    assert scene_starts(slow.clip(0, 255).astype(np.uint8)) == [0, 10, 20]


def test_the_ffmpeg_that_the_user_names_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPFROST_FFMPEG", str(tmp_path / "mine"))
    (tmp_path / "clip.mkv").touch()
    with pytest.raises(VideoError, match="mine: no such program"):
        read_runs(tmp_path / "clip.mkv", length=2, count=1)


def test_runs_stay_in_their_scene() -> None:
    starts = [0, 10, 14, 40]
    runs = choose_runs(starts, 60, length=5, count=100)
    assert runs == [(0, 4), (5, 9), (14, 18), (27, 31), (40, 44), (50, 54)]
    assert choose_runs(starts, 60, length=5, count=2) == [(0, 4), (50, 54)]
    assert choose_runs(starts, 60, length=30, count=9) == []


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Two scenes of flat grey, 12 frames each, 64x36, losslessly stored."""
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    levels = np.repeat(np.array([40, 200], np.uint8), 12)
    frames = np.broadcast_to(levels[:, None, None, None], (24, 36, 64, 3))
    raw, path = tmp_path / "frames.rgb", tmp_path / "clip.mkv"
    raw.write_bytes(np.ascontiguousarray(frames).tobytes())
    command = [ffmpeg, "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24"]
    command += ["-s", "64x36", "-i", str(raw), "-c:v", "ffv1", str(path)]
    subprocess.run(command, check=True)
    return path


@pytest.mark.parametrize("shrink_by", [1, 2])
def test_runs_of_a_file_are_decoded(video: Path, shrink_by: int) -> None:
    runs = read_runs(video, length=4, count=8, shrink_by=shrink_by)
    assert len(runs) == 4
    for run, level in zip(runs, (40, 40, 200, 200), strict=True):
        assert run.shape == (4, 36 // shrink_by, 64 // shrink_by, 3)
        # ffmpeg scales in YUV, whose rounding costs up to two steps.
        assert np.abs(run.astype(int) - level).max() <= 2


def test_many_runs_of_a_file_are_decoded(tmp_path: Path) -> None:
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    levels = np.tile(np.array([20, 220], np.uint8), 150).repeat(2)
    frames = np.broadcast_to(levels[:, None, None, None], (600, 4, 4, 3))
    raw, path = tmp_path / "frames.rgb", tmp_path / "clip.mkv"
    raw.write_bytes(np.ascontiguousarray(frames).tobytes())
    command = [ffmpeg, "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24"]
    command += ["-s", "4x4", "-i", str(raw), "-c:v", "ffv1", str(path)]
    subprocess.run(command, check=True)
    assert len(read_runs(path, length=2, count=1000)) == 300


def test_files_without_runs_are_refused(video: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no scene of 13 frames"):
        read_runs(video, length=13, count=1)
    with pytest.raises(DataError, match="no such video"):
        read_runs(tmp_path / "nothing.mp4", length=2, count=1)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video")
    with pytest.raises(DataError, match=r"broken\.mp4: cannot be read as a video"):
        read_runs(broken, length=2, count=1)
