"""NIQE: how natural a picture looks, judged without its original. Lower is better.

Mittal, Soundararajan and Bovik, "Making a 'Completely Blind' Image Quality Analyzer",
IEEE Signal Processing Letters, 2013. A picture's luma is normalised by the mean and
deviation around each pixel; what is left of natural pictures follows generalised
Gaussians, whose parameters in blocks of 96 pixels, at full and at half size, are
compared with those of pristine photographs.

The pristine parameters (niqe.npy: 36 means, then the upper triangle of their
covariance, float32) are fitted by tools/niqe.py on the free photographs that the models
are trained on. Other programs carry other ones, and their figures differ by as much:
compare only figures of one program.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from upfrost.arrays import Bytes
from upfrost.metrics.quality import FloatArray, blur, luma

BLOCK = 96
# Of each scale: two of the pixels, four of each product with a neighbour.
FEATURES = 18
# Down, right, and the two diagonals.
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
# Of the window that pixels are normalised in; its sigma is a sixth of its side.
WINDOW = 7


def niqe(image: Bytes) -> float:
    """NIQE of uint8 (H, W, 3) or grey (H, W).

    Raises ValueError for a picture of less than two blocks: parameters of a single one
    have no covariance. So it does for one of a single level, which has no structure to
    judge.
    """
    y = luma(image)
    rows, columns = (side // BLOCK for side in y.shape)
    if rows * columns < 2:
        raise ValueError(
            f"NIQE needs at least {2 * BLOCK}x{BLOCK} pixels: {y.shape[1]}x{y.shape[0]}"
        )
    if y.min() == y.max():
        raise ValueError("the picture is of one level and has no NIQE")
    found, _ = block_parameters(y)
    mean, covariance = _pristine()
    apart = found.mean(axis=0) - mean
    spread = (np.cov(found, rowvar=False) + covariance) / 2
    return float(np.sqrt(apart @ np.linalg.pinv(spread) @ apart))


def block_parameters(y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The parameters (blocks, 36) of luma (H, W), and each block's mean deviation."""
    rows, columns = (side // BLOCK for side in y.shape)
    y = y[: rows * BLOCK, : columns * BLOCK]
    half = Image.fromarray(y.astype(np.float32)).resize(
        (columns * BLOCK // 2, rows * BLOCK // 2), Image.Resampling.BICUBIC
    )
    normalised, deviation = _normalised(y)
    small, _ = _normalised(np.asarray(half, np.float64))
    found = [_features(block) for block in _blocks(normalised, BLOCK)]
    found_small = [_features(block) for block in _blocks(small, BLOCK // 2)]
    return (
        np.concatenate([found, found_small], axis=1),
        _blocks(deviation, BLOCK).mean(axis=(1, 2)),
    )


@cache
def _pristine() -> tuple[FloatArray, FloatArray]:
    """Mean (36,) and covariance (36, 36) of photographs that nothing was done to."""
    numbers = np.load(Path(__file__).with_name("niqe.npy")).astype(np.float64)
    count = 2 * FEATURES
    covariance = np.zeros((count, count))
    covariance[np.triu_indices(count)] = numbers[count:]
    covariance += np.triu(covariance, 1).T
    return numbers[:count], covariance


def _normalised(y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Each pixel less the mean around it, over the deviation and one; that."""
    around = np.arange(WINDOW) - WINDOW // 2
    window = np.exp(-(around**2) / (2 * (WINDOW / 6) ** 2))
    window /= window.sum()
    padded = np.pad(y, WINDOW // 2, mode="edge")
    mean = blur(padded, window)
    deviation = np.sqrt(np.abs(blur(padded**2, window) - mean**2))
    return (y - mean) / (deviation + 1), deviation


def _blocks(values: FloatArray, side: int) -> FloatArray:
    """(H, W) as (blocks, side, side)."""
    rows, columns = (length // side for length in values.shape)
    blocks = values.reshape(rows, side, columns, side).swapaxes(1, 2)
    return blocks.reshape(-1, side, side)


def _features(block: FloatArray) -> list[float]:
    shape, left, right = _asymmetric_gaussian(block)
    found = [shape, (left + right) / 2]
    for shift in NEIGHBOURS:
        product = block * np.roll(block, shift, axis=(0, 1))
        shape, left, right = _asymmetric_gaussian(product)
        mean = (right - left) * math.gamma(2 / shape) / math.gamma(1 / shape)
        found += [shape, mean, left, right]
    return found


@cache
def _shapes() -> tuple[FloatArray, FloatArray]:
    """Shapes of a generalised Gaussian, and (E|x|)² / E x² of each."""
    shapes = np.arange(0.2, 10, 0.001)
    ratios = [
        math.gamma(2 / s) ** 2 / (math.gamma(1 / s) * math.gamma(3 / s)) for s in shapes
    ]
    return shapes, np.array(ratios)


def _asymmetric_gaussian(values: FloatArray) -> tuple[float, float, float]:
    """Shape, left and right scale of the asymmetric generalised Gaussian by moments.

    Lasmar, Stitou and Berthoumieu, "Multiscale skewed heavy tailed model for texture
    analysis", 2009.
    """
    below, above = values[values < 0], values[values > 0]
    # A block without structure: any shape will do, and its scales are zero.
    left = math.sqrt(np.mean(below**2)) if below.size else 0.0
    right = math.sqrt(np.mean(above**2)) if above.size else 0.0
    square = float(np.mean(values**2))
    shapes, ratios = _shapes()
    if not square or not right:
        return float(shapes[-1]), 0.0, 0.0
    skew = left / right
    ratio = float(np.mean(np.abs(values))) ** 2 / square
    ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shape = float(shapes[np.argmin((ratios - ratio) ** 2)])
    scale = math.sqrt(math.gamma(1 / shape) / math.gamma(3 / shape))
    return shape, left * scale, right * scale
