"""What `benchmarks.photographs` is told wrongly, it says in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from benchmarks.photographs import (
    MARGIN,
    RECIPES,
    Place,
    enlarged,
    parse_place,
    write_pairs,
)
from PIL import Image

from benchmarks import photographs
from upfrost.arrays import Bytes
from upfrost_training.data import DataError


def test_a_place_is_a_corner_or_the_middle() -> None:
    assert parse_place("a@b.jpg") == Place(Path("a@b.jpg"))
    assert parse_place("a@b.jpg@4,10") == Place(Path("a@b.jpg"), (4, 10))


def counted(path: Path, height: int, width: int) -> Bytes:
    """A picture whose first two channels say where each pixel lies."""
    rows, columns = np.mgrid[0:height, 0:width]
    pixels = np.stack([rows, columns, rows * 0], -1).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.mark.parametrize(
    ("corner", "found"), [((0, 0), (0, 0)), ((60, 90), (60, 90)), (None, (40, 60))]
)
def test_the_crop_lies_where_it_is_asked_for(
    tmp_path: Path, corner: tuple[int, int] | None, found: tuple[int, int]
) -> None:
    path = tmp_path / "photo.png"
    pixels = counted(path, 160, 200)
    seen: list[tuple[int, ...]] = []

    def twice(small: Bytes) -> Bytes:
        seen.append(small.shape)
        return small.repeat(2, axis=0).repeat(2, axis=1)

    crop = enlarged(Place(path, corner), 2, twice)
    top, left = found
    np.testing.assert_array_equal(
        crop[::2, ::2], pixels[top : top + 80, left : left + 80]
    )
    # With what networks see around it, as far as there is any.
    assert seen[0][0] == 80 + min(top, MARGIN) + min(160 - 80 - top, MARGIN)


def test_a_place_outside_the_picture_is_refused(tmp_path: Path) -> None:
    counted(tmp_path / "photo.png", 100, 100)
    for corner in ((21, 0), (0, 5000)):
        with pytest.raises(DataError, match=r"100×100 pixels hold no 80×80 at"):
            enlarged(Place(tmp_path / "photo.png", corner), 2, lambda same: same)


def test_pairs_of_an_earlier_run_are_not_measured_again(tmp_path: Path) -> None:
    picture = np.zeros((48, 48, 3), np.uint8)
    write_pairs(tmp_path / "x4", [picture, picture], 4, RECIPES["day"])
    assert len([*(tmp_path / "x4").glob("*_LR.png")]) == 2
    with pytest.raises(DataError, match="exists already"):
        write_pairs(tmp_path / "x4", [picture], 4, RECIPES["day"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["s.webp", "--real", "none.jpg"], "none.jpg: No such file or directory"),
        (["s.txt", "--real", "p.png"], "name the sheet as a picture"),
        (["none/s.webp", "--real", "p.png"], "none: no such folder"),
        (["s.webp", "--real", "p.png", "-m", "photo-x2", "photo-x4"], "of one scale"),
        (["pairs", "--data", "none"], "wikipedia-photos under none"),
    ],
)
def test_errors_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    counted(tmp_path / "p.png", 100, 100)
    monkeypatch.setattr("sys.argv", ["photographs", *words])
    with pytest.raises(SystemExit) as stopped:
        photographs.main()
    message = str(stopped.value)
    assert said in message
    assert "\n" not in message
