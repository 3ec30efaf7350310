"""Batches are pairs, drawn from sharp places of pictures that are not held out."""

from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from upfrost_training.data import (
    DataError,
    frame_luma,
    load_pairs,
    photographs,
    picture_files,
    read_rgb,
    sample,
    validation_crops,
    with_drawings,
)
from upfrost_training.resize import Picture, shrink


def textured(seed: int, height: int = 96, width: int = 120) -> Picture:
    """Noise: sharp, but not so strong that scaling must clamp."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(60, 190, size=(height // 2, width // 2, 3), dtype=np.uint8)
    return noise.repeat(2, axis=0).repeat(2, axis=1)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    for seed in range(3):
        Image.fromarray(textured(seed)).save(tmp_path / f"{seed}.png")
    return picture_files(tmp_path)


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("step", [0, 7])
def test_low_and_high_resolution_crops_belong_together(
    pictures: list[Path], scale: int, step: int
) -> None:
    pairs = load_pairs(photographs(pictures), scale, patch=16, threshold=4.0)
    low, high = sample(pairs, batch=12, seed=3, step=step)
    assert low.shape == (12, 16, 16, 3)
    assert high.shape == (12, 16 * scale, 16 * scale, 3)
    for lr, hr in zip(low, high, strict=True):
        inner = shrink(hr, scale)[2:-2, 2:-2].astype(int)
        # Rows and columns are rounded in turn, so a turned crop may differ by one.
        assert np.abs(inner - lr[2:-2, 2:-2]).max() <= 1


def test_drawings_have_their_share_of_the_crops(tmp_path: Path) -> None:
    # One is of even levels alone, the other of odd ones.
    for name, lowest in (("photograph", 0), ("drawing", 1)):
        (tmp_path / name).mkdir()
        levels = textured(1) // 2 * 2 + lowest
        Image.fromarray(levels.astype(np.uint8)).save(tmp_path / name / "p.png")
    photos, drawings = (
        load_pairs(photographs(picture_files(tmp_path / name)), 2, 16, 4.0)
        for name in ("photograph", "drawing")
    )
    for share in (0.0, 0.25, 1.0):
        both = with_drawings(photos, drawings, share)
        crops = [high for i in range(40) for high in sample(both, 16, 1, i)[1]]
        drawn = np.mean([bool(crop[0, 0, 0] & 1) for crop in crops])
        # Of 640 draws; four times their standard deviation.
        assert abs(drawn - share) <= 4 * np.sqrt(share * (1 - share) / 640)
        assert all(np.all(crop & 1 == crop[0, 0, 0] & 1) for crop in crops)


def test_luma_crops_are_the_planes_of_the_rgb_crops(pictures: list[Path]) -> None:
    rgb, luma = (
        load_pairs(photographs(pictures), 2, patch=16, threshold=4.0, colour=colour)
        for colour in ("rgb", "luma")
    )
    batches = (sample(p, batch=64, seed=1, step=2) for p in (rgb, luma))
    stretched = []
    for of_colour, planes in zip(*batches, strict=True):
        assert planes.shape == (*of_colour.shape[:3], 1)
        for crop, plane in zip(of_colour, planes, strict=True):
            as_it_is = frame_luma(crop)
            full_range = np.clip(np.rint((as_it_is - 16.0) * 255 / 219), 0, 255)
            stretched.append(not np.array_equal(as_it_is, plane))
            if stretched[-1]:
                np.testing.assert_array_equal(full_range, plane)
    # Small and large alike; of 64 by a coin's throw, within four standard deviations.
    assert stretched[:64] == stretched[64:]
    assert abs(sum(stretched[:64]) - 32) <= 16
    (crop, *_), (plain, *_) = (
        validation_crops(photographs(pictures), 2, side=32, colour=colour)
        for colour in ("luma", "rgb")
    )
    np.testing.assert_array_equal(crop.hr, frame_luma(plain.hr))
    np.testing.assert_array_equal(crop.lr, frame_luma(plain.lr))


def test_a_frame_s_luma_spans_the_video_range() -> None:
    picture = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0]]], np.uint8)
    np.testing.assert_array_equal(frame_luma(picture)[:, :, 0], [[16, 235, 81]])


def test_a_batch_depends_on_seed_and_step_alone(pictures: list[Path]) -> None:
    pairs = load_pairs(photographs(pictures), 2, patch=16, threshold=4.0)
    for a, b in zip(sample(pairs, 4, 1, 5), sample(pairs, 4, 1, 5), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(sample(pairs, 4, 1, 5)[0], sample(pairs, 4, 1, 6)[0])
    assert not np.array_equal(sample(pairs, 4, 1, 5)[0], sample(pairs, 4, 2, 5)[0])


def test_a_teacher_s_answers_are_a_share_of_what_is_learned(
    pictures: list[Path],
) -> None:
    def teacher(low: Picture) -> Picture:
        return low.repeat(2, axis=0).repeat(2, axis=1)

    plain = load_pairs(photographs(pictures), 2, patch=16, threshold=4.0)
    for share in (1.0, 0.25):
        pairs = load_pairs(
            *(photographs(pictures), 2, 16, 4.0),
            teacher=teacher,
            teacher_share=share,
        )
        # Where crops lie depends on the originals alone.
        np.testing.assert_array_equal(pairs.origins, plain.origins)
        for low, high, original in zip(pairs.lr, pairs.hr, plain.hr, strict=True):
            wanted = (1 - share) * original + share * teacher(low).astype(float)
            assert np.abs(high - wanted).max() <= 0.5  # rounded


def test_softened_pictures_are_soft_before_and_after(pictures: list[Path]) -> None:
    def detail(images: list[Picture]) -> list[float]:
        return [np.abs(np.diff(image.astype(float), axis=0)).mean() for image in images]

    plain = load_pairs(photographs(pictures), 2, patch=16, threshold=1.0, variants=8)
    pairs = load_pairs(
        *(photographs(pictures), 2, 16, 1.0), variants=8, softened_share=0.5
    )
    ratios = np.divide(detail(pairs.hr), detail(plain.hr))
    soft = ratios < 1.0
    # Of 24, each by a coin that the seed tosses: neither none nor all.
    assert 0 < soft.sum() < len(soft)
    assert (ratios[soft] < 0.9).all()
    for low, high in zip(pairs.lr, pairs.hr, strict=True):
        np.testing.assert_array_equal(low, shrink(high, 2))


def test_flat_places_are_left_out(tmp_path: Path) -> None:
    picture = np.full((128, 256, 3), 90, np.uint8)
    picture[:, 128:] = textured(0, 128, 128)
    Image.fromarray(picture).save(tmp_path / "half.png")
    pairs = load_pairs(photographs(picture_files(tmp_path)), 2, patch=16, threshold=4.0)
    assert pairs.origins[:, 2].min() * 2 + 32 > 128
    Image.fromarray(picture[:, :64]).save(tmp_path / "half.png")
    with pytest.raises(DataError, match="lower `sharpness`"):
        load_pairs(photographs(picture_files(tmp_path)), 2, patch=16, threshold=4.0)


def test_validation_takes_the_sharpest_squares(tmp_path: Path) -> None:
    picture = np.full((64, 128, 3), 90, np.uint8)
    picture[:, 64:] = textured(0, 64, 64)
    Image.fromarray(picture).save(tmp_path / "half.png")
    (crop,) = validation_crops(
        photographs(picture_files(tmp_path)), 2, side=64, per_piece=1
    )
    np.testing.assert_array_equal(crop.hr, picture[:, 64:])
    np.testing.assert_array_equal(crop.lr, shrink(picture, 2)[:, 32:])


@pytest.mark.parametrize(("scale", "side"), [(2, 64), (3, 63), (4, 64)])
def test_squares_of_validation_are_multiples_of_the_scale(
    tmp_path: Path, scale: int, side: int
) -> None:
    Image.fromarray(textured(0, 150, 150)).save(tmp_path / "a.png")
    crops = validation_crops(photographs(picture_files(tmp_path)), scale, side=64)
    assert len(crops) == 4
    for crop in crops:
        assert crop.hr.shape == (side, side, 3)
        assert crop.lr.shape == (side // scale, side // scale, 3)


def test_missing_and_broken_pictures_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        picture_files(tmp_path / "nothing")
    with pytest.raises(DataError, match="no picture found"):
        picture_files(tmp_path)
    (tmp_path / "a.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"a\.png: "):
        read_rgb(tmp_path / "a.png")


def test_pictures_are_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # a camera on its side
    Image.new("RGB", (8, 4)).save(tmp_path / "a.png", exif=exif)
    assert read_rgb(tmp_path / "a.png").shape == (8, 4, 3)


@pytest.mark.parametrize(
    ("wanted", "others"),
    [
        ("DIV2K_train_HR/0001.png", ["DIV2K_train_LR_bicubic/X2/0001x2.png"]),
        ("DIV2K_train_HR/0001.png", ["DIV2K_valid_HR/0801.png"]),
        ("Flickr2K_HR/000001.png", ["Flickr2K_LR_bicubic/X4/000001x4.png"]),
        ("OutdoorSceneTrain_v2/sky/1.png", ["OutdoorSceneTest300/OST_001.png"]),
        ("any/1.png", []),
    ],
)
def test_of_a_published_data_set_only_originals_for_training_are_taken(
    tmp_path: Path, wanted: str, others: list[str]
) -> None:
    for name in (wanted, *others):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert picture_files(tmp_path) == [tmp_path / wanted]


def thumbnail(picture: Picture) -> Picture:
    """16x16 means, which survive scaling and recompression."""
    small = Image.fromarray(picture).resize((16, 16), Image.Resampling.BOX)
    return np.asarray(small)


def test_no_evaluation_picture_is_trained_on(data: Path) -> None:
    trained = [thumbnail(read_rgb(p)) for p in picture_files(data / "wikipedia-photos")]
    for folder in ("Set5/x2", "Set14/x2"):
        for path in sorted((data / folder).glob("*_HR.png")):
            small = thumbnail(read_rgb(path)).astype(int)
            for other in trained:
                # Different photographs differ by 30 and more on average.
                assert np.abs(small - other).mean() > 10.0, path
