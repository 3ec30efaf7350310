"""Measuring the texture that a network makes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import texture
from upfrost_training.config import read_config


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photographs, of which one is held out, and pairs of two sets."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(3)
    for name in ("photos", "Set5/x4", "Set14/x4"):
        (root / name).mkdir(parents=True)
    for number in range(12):
        # Noise on the left; what is flat on the right has no detail to be added to.
        picture = rng.integers(0, 256, (256, 512, 3), dtype=np.uint8)
        picture[:, 256:] = 99
        whole = Image.fromarray(picture)
        whole.save(root / f"photos/{number:02d}.png")
        small = whole.resize((128, 64), Image.Resampling.BOX)
        for name in ("Set5/x4", "Set14/x4"):
            if number < 2:
                whole.save(root / name / f"{number:03d}_HR.png")
                small.save(root / name / f"{number:03d}_LR.png")
    return root


def test_repeated_pixels_and_dots_are_told_apart(data: Path) -> None:
    config = read_config(texture.CONFIG)
    config = replace(config, data=replace(config.data, folders=("photos",)))

    def repeated(small: np.ndarray) -> np.ndarray:
        return small.repeat(4, axis=0).repeat(4, axis=1)

    def dotted(small: np.ndarray) -> np.ndarray:
        large = repeated(small).astype(int)
        large[1::4, 1::4] += 20
        return large.clip(0, 255).astype(np.uint8)

    folders = texture.set_folders([data])
    crops = texture.held_out_crops(config, [data])
    plain, dots = (texture.measured(way, folders, crops) for way in (repeated, dotted))
    assert list(plain) == list(dots)
    # What lies beside the noise is flat, too, and gets a little of it.
    assert float(str(plain["dots"])) < 0.05
    # A dot of 20 levels is -4, 1, 1, 1 and 1 times as much in the second derivative.
    assert float(str(dots["dots"])) > 1.0
    assert float(str(dots["detail there"])) > float(str(plain["detail there"]))
    assert float(str(dots["Set5, dB"])) < float(str(plain["Set5, dB"]))
    # Both have all their edges at the same places of the grid.
    assert float(str(plain["uneven"])) > 0.1


def test_a_missing_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no Set5/x4 under --data"):
        texture.set_folders([tmp_path])
