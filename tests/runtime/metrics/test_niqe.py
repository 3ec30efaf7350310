"""NIQE and the share of detail: they order pictures as eyes do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from upfrost.arrays import Bytes
from upfrost.metrics.niqe import BLOCK, niqe
from upfrost.metrics.quality import detail

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture(scope="module")
def photograph() -> Bytes:
    """A sharp one: halved, so that no camera's interpolation is left."""
    path = max(EXAMPLES.glob("*.png"), key=lambda path: path.stat().st_size)
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB").resize((384, 288)))


def softened(picture: Bytes, factor: int = 3) -> Bytes:
    height, width, _ = picture.shape
    small = Image.fromarray(picture).resize((width // factor, height // factor))
    return np.asarray(small.resize((width, height)))


def test_what_is_soft_or_noisy_is_less_natural(photograph: Bytes) -> None:
    noise = np.random.default_rng(1).normal(0, 25, photograph.shape)
    noisy = np.clip(photograph + noise, 0, 255).astype(np.uint8)
    best = niqe(photograph)
    assert best < niqe(softened(photograph, 2)) < niqe(softened(photograph, 4))
    assert best < niqe(noisy)


def test_niqe_looks_at_luma_alone(photograph: Bytes) -> None:
    grey = np.asarray(Image.fromarray(photograph).convert("L"))
    # Rounded to whole greys, luma differs by up to half a level.
    assert niqe(grey) == pytest.approx(niqe(photograph), abs=0.3)


def test_flat_and_small_pictures_have_no_figure() -> None:
    flat = np.full((BLOCK, 2 * BLOCK), 128, np.uint8)
    with pytest.raises(ValueError, match="of one level"):
        niqe(flat)
    flat[0, 0] = 129  # hardly any structure, and a figure
    assert np.isfinite(niqe(flat))
    with pytest.raises(ValueError, match="at least 192x96 pixels: 191x191"):
        niqe(np.zeros((191, 191), np.uint8))


def test_detail_is_the_originals_share(photograph: Bytes) -> None:
    assert detail(photograph, photograph) == 1.0
    assert 0.0 < detail(softened(photograph), photograph) < 0.2
    # Half the contrast: a fourth of the variance, but for rounding.
    half = (photograph // 2).astype(np.uint8)
    assert detail(half, photograph) == pytest.approx(0.25, rel=0.02)
    with pytest.raises(ValueError, match="of one colour"):
        detail(photograph, np.zeros_like(photograph))
