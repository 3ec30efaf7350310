"""`upfrost eval`: pairs of pictures and videos, each way beside the model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.runtime.clips import HDR, make_clip, needs_vmaf
from upfrost.cli import main as cli
from upfrost.metrics.quality import BEST_PSNR, detail, y_psnr


def pair(folder: Path, height: int, width: int) -> None:
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [np.sin(rows / n) * np.cos(columns / (n + 3)) for n in (3, 4, 5)]
    large = Image.fromarray((128 + 100 * np.stack(waves, -1)).astype(np.uint8))
    large.save(folder / "001_HR.png")
    half = large.resize((width // 2, height // 2), Image.Resampling.BICUBIC)
    half.save(folder / "001_LR.png")


def test_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair(tmp_path, 40, 60)
    assert cli.main(["eval", "realtime-x2", str(tmp_path), "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    means = result["means"]
    filters = ["nearest", "bilinear", "bicubic", "Lanczos"]
    assert list(means) == [*filters, "realtime-x2", "original"]
    assert means["original"] == {"psnr": None, "ssim": None, "niqe": None, "detail": 1}
    small, large = (
        Image.open(tmp_path / f"001_{kind}.png").convert("RGB") for kind in ("LR", "HR")
    )
    ours = np.asarray(small.resize(large.size, Image.Resampling.LANCZOS))
    expected = y_psnr(ours, np.asarray(large), 2)
    assert means["Lanczos"]["psnr"] == pytest.approx(expected)
    expected = detail(ours, np.asarray(large))
    assert means["Lanczos"]["detail"] == pytest.approx(expected)
    assert means["nearest"]["psnr"] < means["realtime-x2"]["psnr"]


def test_a_flat_picture_spoils_no_mean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair(tmp_path, 96, 192)
    (tmp_path / "._001_HR.png").write_bytes(b"what a Mac leaves beside pictures")
    (tmp_path / "001_HR.txt").write_text("notes")
    found = []
    for _ in range(2):
        assert cli.main(["eval", "realtime-x2", str(tmp_path), "--json"]) == 0
        out, err = capsys.readouterr()
        assert "Infinity" not in out
        found.append(json.loads(out)[0]["means"])
        counts = json.loads(out)[0]["pictures"]
        # Of the second one there is no NIQE.
        assert counts == {"psnr": len(found), "niqe": 1}
        assert ("NIQE is of 1 of 2 pictures" in err) == (len(found) == 2)
        for name, side in (("002_HR.png", 192), ("002_LR.png", 96)):
            Image.new("RGB", (side, side), (9, 9, 9)).save(tmp_path / name)
    alone, beside = found
    for way, means in alone.items():
        assert means["niqe"] == beside[way]["niqe"]
        assert means["detail"] == beside[way]["detail"]
    # Of a flat picture's exact copy, which has the highest figure.
    assert beside["Lanczos"]["psnr"] == (alone["Lanczos"]["psnr"] + BEST_PSNR) / 2


def test_what_is_not_measured_of_a_picture_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Colours under transparent pixels, and the lower half of 16 bits."""
    pair(tmp_path, 40, 60)
    large = Image.open(tmp_path / "001_HR.png").convert("RGBA")
    large.putalpha(Image.new("L", large.size, 0))
    large.save(tmp_path / "001_HR.png")
    deep = np.full((20, 30), 65535, np.uint16)
    Image.fromarray(deep).save(tmp_path / "001_LR.png")
    assert cli.main(["eval", "realtime-x2", str(tmp_path), "--json"]) == 0
    out, err = capsys.readouterr()
    assert "transparent, and measured on white (of 1 pairs)" in err
    assert "16 bits a channel reduced to 8 (of 1 pairs)" in err
    # White against white.
    assert json.loads(out)[0]["means"]["nearest"]["psnr"] == BEST_PSNR


@pytest.mark.parametrize(
    ("large", "small", "said"),
    [
        ((14, 40), (7, 20), "001_HR.png: 14×40 pixels are too few to be measured"),
        ((40, 41), (20, 20), "001_LR.png: 20×20 pixels are not those of 001_HR.png"),
    ],
)
def test_sizes_that_cannot_be_measured_are_named(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    large: tuple[int, int],
    small: tuple[int, int],
    said: str,
) -> None:
    for name, size in (("001_HR.png", large), ("001_LR.png", small)):
        Image.new("RGB", size).save(tmp_path / name)
    words = ["eval", "realtime-x2", str(tmp_path), "--device", "0"]
    assert cli.main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


@pytest.mark.parametrize(
    ("plot", "said"),
    [
        (".", "is a folder"),
        ("none/plot.svg", "none: no such folder"),
        ("clip.mp4", "clip.mp4: would replace a file that is read; name another one"),
        ("plot.png", "plot.png: it is an SVG, so the name ends in .svg"),
    ],
)
def test_a_plot_that_cannot_be_written_is_found_before_the_work(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    plot: str,
    said: str,
) -> None:
    monkeypatch.setattr("upfrost.metrics.evaluate.evaluate_video", None)
    clip = tmp_path / "clip.mp4"
    clip.touch()
    words = ["eval", "realtime-x2", str(clip), "--plot", str(tmp_path / plot)]
    assert cli.main([*words, "--overwrite"]) == 2
    assert capsys.readouterr().err.endswith(f"{said}\n")


@needs_vmaf
def test_a_video_with_a_plot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", size="98x54", seconds=0.5)
    plot = tmp_path / "plot.svg"
    words = ["eval", "realtime-x2", str(clip), "--frames", "5", "--plot", str(plot)]
    assert cli.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["VMAF", "PSNR", "SSIM"]
    assert [line.split()[0] for line in lines[2:]] == [
        *("nearest", "bilinear", "bicubic", "Lanczos", "realtime-x2")
    ]
    assert plot.read_text().startswith("<svg")
    plot.write_text("mine")
    assert cli.main(words) == 2
    assert "plot.svg: exists already" in capsys.readouterr().err
    assert plot.read_text() == "mine"
    assert cli.main([*words, "--overwrite"]) == 0
    assert plot.read_text().startswith("<svg")


@pytest.mark.parametrize(
    ("others", "code", "reason"),
    [
        ([".", "--device", "0"], 1, "no pairs named 001_HR.png"),
        (["missing.mp4"], 2, "upfrost: missing.mp4: No such file or directory"),
        (
            ["no-clip.mp4", "--device", "0"],
            1,
            "upfrost: no-clip.mp4: not a video, or damaged (moov atom not found)",
        ),
        ([".", "--tile", "7"], 2, "--tile 7 is too small for realtime-x2: at least"),
        ([".", "--plot", "x.svg"], 2, "--plot draws one video"),
    ],
)
def test_errors_are_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    others: list[str],
    code: int,
    reason: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("no-clip.mp4").write_text("text")
    assert cli.main(["eval", "realtime-x2", *others]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert reason in line


def test_hdr_is_refused_without_advice_that_this_command_cannot_take(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = make_clip(tmp_path / "hdr.mp4", seconds=0.2, filters=HDR)
    assert cli.main(["eval", "realtime-x2", str(clip), "--device", "0"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "hdr.mp4: HDR (smpte2084)" in line
    assert "--tone-map" not in line


def test_a_video_too_small_to_be_made_smaller_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = make_clip(
        tmp_path / "line.mkv",
        *("-pix_fmt", "gray", "-c:v", "ffv1"),
        filters="crop=64:1:exact=1,format=gray,crop=64:1",
        seconds=0.1,
    )
    assert cli.main(["eval", "realtime-x2", str(line), "--device", "0"]) != 0
    said = "line.mkv: 64×1 pixels are too few to be made small by 2; sides are 4 or"
    assert said in capsys.readouterr().err
