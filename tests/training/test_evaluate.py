"""The metrics give the published figures, and what can be computed by hand."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from upfrost.image.images import PictureError
from upfrost_training.cli import main
from upfrost_training.data import frame_luma, read_rgb
from upfrost_training.evaluate import (
    bicubic,
    evaluate_folder,
    luma,
    y_psnr,
    y_ssim,
)
from upfrost_training.resize import Picture, shrink


@pytest.mark.parametrize(
    ("folder", "psnr", "ssim"),
    [
        # Y-PSNR as the data's README states it; SSIM as published for bicubic
        # (0.9299, 0.8104, 0.8688, 0.7027), made with other copies of the pictures.
        ("Set5/x2", 33.68, 0.9299),
        ("Set5/x4", 28.43, 0.8104),
        ("Set14/x2", 30.33, 0.8688),
        ("Set14/x4", 26.09, 0.7027),
    ],
)
def test_bicubic_has_the_published_quality(
    data: Path, folder: str, psnr: float, ssim: float
) -> None:
    scale = int(folder[-1])
    quality = evaluate_folder(data / folder, bicubic(scale), scale)
    assert quality.psnr == pytest.approx(psnr, abs=0.01)
    assert quality.ssim == pytest.approx(ssim, abs=0.0025)


def test_luma_spans_the_video_range() -> None:
    picture = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0]]], np.uint8)
    np.testing.assert_allclose(luma(picture), [[16.0, 235.0, 81.481]], atol=1e-9)


def test_a_y_plane_is_compared_as_it_is(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    hr = rng.integers(256, size=(32, 32, 3), dtype=np.uint8)
    Image.fromarray(hr).save(tmp_path / "1_HR.png")
    Image.fromarray(hr[::2, ::2]).save(tmp_path / "1_LR.png")

    def two_too_bright(plane: Picture) -> Picture:
        np.testing.assert_array_equal(plane, frame_luma(hr[::2, ::2]))
        return frame_luma(hr) + np.uint8(2)

    quality = evaluate_folder(tmp_path, two_too_bright, 2, "luma")
    # The plane is rounded, its partner is not: at most 0.5 more or less.
    assert 20 * np.log10(255 / 2.5) < quality.psnr < 20 * np.log10(255 / 1.5)
    mean_square = 4.0 + 1.0 / 12.0  # of a uniform rounding error
    assert quality.psnr == pytest.approx(10 * np.log10(255**2 / mean_square), abs=0.1)


def test_psnr_of_a_known_difference() -> None:
    a = np.full((20, 20, 3), 100, np.uint8)
    b = a + np.uint8(10)
    difference = 10.0 * 219.0 / 255.0
    expected = 20.0 * np.log10(255.0 / difference)
    assert y_psnr(a, b, 2) == pytest.approx(expected, abs=1e-9)
    assert y_psnr(a, a, 2) == float("inf")


def test_the_border_is_left_out() -> None:
    a = np.zeros((20, 20, 3), np.uint8)
    b = a.copy()
    b[:2], b[-2:], b[:, :2], b[:, -2:] = 255, 255, 255, 255
    assert y_psnr(a, b, 2) == float("inf")
    assert y_psnr(a, b, 1) < 20.0


@pytest.mark.parametrize("seed", range(3))
def test_ssim_is_one_for_equals_and_known_for_constants(seed: int) -> None:
    rng = np.random.default_rng(seed)
    picture = rng.integers(256, size=(24, 30, 3), dtype=np.uint8)
    assert y_ssim(picture, picture, 2) == pytest.approx(1.0, abs=1e-9)
    a, b = (np.full_like(picture, value) for value in rng.integers(256, size=2))
    x, y, c1 = luma(a)[0, 0], luma(b)[0, 0], (0.01 * 255.0) ** 2
    # Variances cancel to rounding of squares near 6e4, against c2 = 58.5.
    expected = (2 * x * y + c1) / (x**2 + y**2 + c1)
    assert y_ssim(a, b, 2) == pytest.approx(expected, abs=1e-8)


def test_noise_lowers_both() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(100, 150, size=(40, 40, 3), dtype=np.uint8)
    little = picture + rng.integers(5, size=picture.shape, dtype=np.uint8)
    much = picture + rng.integers(50, size=picture.shape, dtype=np.uint8)
    assert y_psnr(picture, little, 2) > y_psnr(picture, much, 2)
    assert y_ssim(picture, little, 2) > y_ssim(picture, much, 2)


def test_pairs_are_written_as_they_are_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for name in ("b_HR.png", "b_LR.png", "c.png"):
        noise = rng.integers(256, size=(50, 67, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "in" / name)
    words = ["pairs", str(tmp_path / "in"), str(tmp_path / "out"), "--scale", "3"]
    assert main(words) == 0
    written = {f.name: read_rgb(f) for f in (tmp_path / "out").iterdir()}
    assert {name: picture.shape for name, picture in written.items()} == {
        "001_HR.png": (48, 66, 3),
        "001_LR.png": (16, 22, 3),
        "002_HR.png": (48, 66, 3),
        "002_LR.png": (16, 22, 3),
    }
    original = read_rgb(tmp_path / "in" / "c.png")[:48, :66]
    np.testing.assert_array_equal(written["002_HR.png"], original)
    np.testing.assert_array_equal(written["002_LR.png"], shrink(original, 3))
    assert evaluate_folder(tmp_path / "out", bicubic(3), 3).pictures == 2


def test_pairs_replace_no_originals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    original = tmp_path / "001_HR.png"
    Image.new("RGB", (41, 41)).save(original)
    before = original.read_bytes()
    assert main(["pairs", str(tmp_path), str(tmp_path), "--scale", "2"]) == 1
    assert "001_HR.png: exists already; name a new" in capsys.readouterr().err
    assert original.read_bytes() == before


def test_pairs_are_not_written_among_the_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (41, 41)).save(tmp_path / "a.png")
    for output in (tmp_path, tmp_path / "pairs"):
        assert main(["pairs", str(tmp_path), str(output), "--scale", "2"]) == 1
        assert "lies in the pictures' folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("name", ["file", "file/out"])
@pytest.mark.parametrize(
    "words", ["pairs . {} --scale 2", "data {}", "train tiny.toml --run {}"]
)
def test_a_file_is_no_folder_to_write_to(
    tmp_path: Path,
    words: str,
    name: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_bytes(b"mine")
    Path("tiny.toml").write_text('name = "tiny"\nkind = "plain"\n')
    Image.new("RGB", (40, 40)).save("a.png")
    assert main(words.format(name).split()) == 1
    assert capsys.readouterr().err == "upfrost-train: file: is not a folder\n"
    assert Path("file").read_bytes() == b"mine"


@pytest.mark.parametrize("scale", [2, 3])
def test_a_picture_that_has_no_partner_is_named_and_no_pairs_stay(
    tmp_path: Path, scale: int, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    words = ["pairs", str(tmp_path / "in"), str(output), "--scale", str(scale)]
    (tmp_path / "in").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "in/1.png")
    bad = tmp_path / "in/2.png"

    Image.new("RGB", (40, scale - 1)).save(bad)
    assert main(words) == 1
    said = f"{bad}: 40×{scale - 1} pixels are too few to be made small by {scale}"
    assert said in capsys.readouterr().err
    assert not list(output.iterdir())

    rng = np.random.default_rng(0)
    noise = rng.integers(256, size=(40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(bad)
    bad.write_bytes(bad.read_bytes()[:1000])
    assert main(words) == 1
    assert f"{bad}: " in capsys.readouterr().err
    assert not list(output.iterdir())

    bad.unlink()
    assert main(words) == 0
    assert {path.name for path in output.iterdir()} == {"001_HR.png", "001_LR.png"}


def test_folders_that_are_not_pairs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="no pairs"):
        evaluate_folder(tmp_path, bicubic(2), 2)
    Image.new("RGB", (32, 32)).save(tmp_path / "1_HR.png")
    with pytest.raises(PictureError, match=r"1_LR\.png: No such file"):
        evaluate_folder(tmp_path, bicubic(2), 2)
    Image.new("RGB", (16, 16)).save(tmp_path / "1_LR.png")
    with pytest.raises(PictureError, match=r"by the model.s scale of 4"):
        evaluate_folder(tmp_path, bicubic(4), 4)
