"""MATLAB's imresize: bit for bit on the published pairs, and its rules."""

from pathlib import Path

import numpy as np
import pytest

from upfrost_training.data import read_rgb
from upfrost_training.resize import KERNELS, imresize, resize_taps, shrink


@pytest.mark.parametrize("folder", ["Set5/x2", "Set5/x4", "Set14/x2", "Set14/x4"])
def test_published_low_resolution_pictures_are_matched_bit_for_bit(
    data: Path, folder: str
) -> None:
    scale = int(folder[-1])
    for hr in sorted((data / folder).glob("*_HR.png")):
        expected = read_rgb(hr.with_name(hr.name.replace("_HR", "_LR")))
        np.testing.assert_array_equal(shrink(read_rgb(hr), scale), expected)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("size", "out"), [(1, 1), (7, 3), (8, 4), (9, 18), (5, 20)])
def test_weights_sum_to_one_and_stay_inside(kernel: str, size: int, out: int) -> None:
    index, weight = resize_taps(size, out, kernel)
    assert index.min() >= 0
    assert index.max() < size
    # A sum of at most twenty doubles near one.
    np.testing.assert_allclose(weight.sum(axis=1), 1.0, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("seed", range(3))
def test_a_constant_stays_constant_and_size_one_to_one_is_the_identity(
    kernel: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 20, size=2)
    flat = np.full((height, width, 3), rng.integers(256), np.uint8)
    assert np.all(imresize(flat, 13, 7, kernel) == flat[0, 0])
    picture = rng.integers(256, size=(height, width, 3), dtype=np.uint8)
    np.testing.assert_array_equal(imresize(picture, height, width, kernel), picture)


@pytest.mark.parametrize("scale", [2, 4])
def test_area_is_the_mean_of_blocks(scale: int) -> None:
    picture = np.random.default_rng(scale).random((12, 20))
    blocks = picture.reshape(12 // scale, scale, 20 // scale, scale).mean(axis=(1, 3))
    result = imresize(picture, 12 // scale, 20 // scale, "area")
    np.testing.assert_allclose(result, blocks, rtol=0, atol=1e-12)


def test_cubic_reproduces_a_straight_line_away_from_the_border() -> None:
    ramp = np.arange(40.0)[:, None]
    centres = (np.arange(20) + 0.5) * 2.0 - 0.5
    # Keys' kernel is exact for polynomials up to degree two.
    np.testing.assert_allclose(
        imresize(ramp, 20, 1)[4:-4, 0], centres[4:-4], rtol=0, atol=1e-12
    )


def test_bytes_are_rounded_and_clamped() -> None:
    edge = np.zeros((16, 16), np.uint8)
    edge[:, 8:] = 255
    larger = imresize(edge, 32, 32)
    assert larger.dtype == np.uint8
    assert larger.min() == 0
    assert larger.max() == 255
    assert imresize(edge.astype(float), 32, 32).max() > 255.0


def test_bad_requests_are_refused() -> None:
    picture = np.zeros((6, 7, 3), np.uint8)
    with pytest.raises(ValueError, match="not a multiple"):
        shrink(picture, 2)
    with pytest.raises(ValueError, match="unknown resize kernel 'lanczos'"):
        imresize(picture, 3, 3, "lanczos")
    with pytest.raises(ValueError, match="cannot resize"):
        imresize(picture, 0, 3)
