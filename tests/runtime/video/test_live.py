"""Which live model keeps up, by times that are made up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests import graphs
from upfrost.errors import UsageError
from upfrost.network.modelfile import write_model
from upfrost.video import live
from upfrost.video.live import LATEST, MOST_PATIENCE, PATIENCE, WINDOW, Cuts, Pace

BUDGET = 0.04


def test_candidates_are_found_by_name_and_ordered_by_their_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    channels = {
        "live-x2-large": 16,
        "live-x2-m": 8,
        "live-x2-m-clean": 8,
        "live-x2-tiny-clean": 4,
        "live-x3-s": 4,
        "film-x2": 4,
    }
    models = {}
    for name, width in channels.items():
        models[name] = tmp_path / f"{name}.upf"
        write_model(models[name], graphs.luma_network(1, channels=width, layers=1))
    monkeypatch.setattr(live, "bundled_models", lambda: models)
    # Of the stream's model and its clean sibling, the stream's alone.
    names = ["live-x2-tiny-clean", "live-x2-m", "live-x2-large"]
    assert list(live.live_models(2)) == names
    assert list(live.live_models(3)) == ["live-x3-s"]
    with pytest.raises(UsageError, match=r"no live model enlarges ×4; .* ×2, ×3"):
        live.live_models(4)


def feed(pace: Pace, seconds: float, frames: int, late: float = 0.0) -> None:
    for _ in range(frames):
        pace.frame(seconds, late)


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [([0.01, 0.02, 0.029], 2), ([0.01, 0.02, 0.031], 1), ([0.1, 0.2, 0.4], 0)],
)
def test_the_largest_that_fits_begins(seconds: Sequence[float], chosen: int) -> None:
    pace = Pace(seconds, BUDGET)
    assert pace.current == pace.wanted == chosen
    assert not pace.may_change(cut=True)


def test_a_model_that_is_slow_makes_way_at_a_cut_or_soon() -> None:
    pace = Pace([0.01, 0.02, 0.025], BUDGET)
    feed(pace, 0.05, WINDOW - 1)
    assert pace.wanted == 2  # a few frames may be slow
    feed(pace, 0.05, 1)
    # Twice as slow as it was: the next one would take as long as a frame may.
    assert (pace.current, pace.wanted) == (2, 0)
    assert pace.may_change(cut=True)
    assert not pace.may_change(cut=False)
    feed(pace, 0.05, round(LATEST / BUDGET))
    assert pace.may_change(cut=False)
    pace.change()
    assert pace.current == pace.wanted == 0


def test_a_hiccup_that_ends_before_a_cut_changes_nothing() -> None:
    pace = Pace([0.01, 0.02], BUDGET)
    feed(pace, 0.05, WINDOW)
    assert pace.wanted == 0
    feed(pace, 0.02, WINDOW)
    assert pace.wanted == 1


def test_frames_that_are_ever_later_ask_for_a_smaller_model() -> None:
    pace = Pace([0.01, 0.02], BUDGET)
    feed(pace, 0.02, 3 * WINDOW, late=BUDGET / 2)
    assert pace.wanted == 1
    for number in range(WINDOW + 1):
        pace.frame(0.02, 0.1 + 0.01 * number)
    assert pace.wanted == 0


def test_frames_that_catch_up_do_not() -> None:
    pace = Pace([0.01, 0.02], BUDGET)
    for number in range(10 * WINDOW):
        pace.frame(0.02, 5 - 0.01 * number)
    assert pace.wanted == 1


def test_what_takes_next_to_no_time_does_not_make_frames_late() -> None:
    pace = Pace([0.001, 0.002], BUDGET)
    feed(pace, 0.002, 3 * WINDOW, late=1.0)
    assert pace.wanted == 1


def test_room_for_a_larger_model_has_to_last_and_waits_for_a_cut() -> None:
    pace = Pace([0.01, 0.05], BUDGET)
    feed(pace, 0.01, 1000)
    assert pace.wanted == 0  # as slow as it was measured
    feed(pace, 0.004, round(PATIENCE / BUDGET))
    assert pace.wanted == 0
    feed(pace, 0.004, 2 * WINDOW)
    assert pace.wanted == 1
    feed(pace, 0.004, 1000)
    assert not pace.may_change(cut=False)
    assert pace.may_change(cut=True)
    feed(pace, 0.01, WINDOW)
    assert pace.wanted == 0  # meanwhile there is no room


def test_a_model_that_could_not_be_kept_is_tried_ever_later() -> None:
    pace = Pace([0.01, 0.05], BUDGET)
    waits = []
    for _ in range(9):
        frames = 0
        while pace.wanted == 0:
            pace.frame(0.002)
            frames += 1
        waits.append(frames * BUDGET)
        pace.change()
        feed(pace, 0.05, WINDOW)
        assert pace.wanted == 0
        pace.change()
    first = PATIENCE + WINDOW * BUDGET
    expected = [min(first + (2**n - 1) * PATIENCE, MOST_PATIENCE + 1) for n in range(9)]
    np.testing.assert_allclose(waits, expected, atol=1.0)


def test_a_cut_is_told_from_motion_and_from_noise() -> None:
    rng = np.random.default_rng(3)
    scenes = rng.integers(16, 236, (2, 200, 200)).astype(float)
    # Smooth pictures, so that motion by a pixel is a small difference.
    scenes = np.repeat(np.repeat(scenes[:, ::25, ::25], 25, axis=1), 25, axis=2)
    cuts = Cuts()
    found = []
    for number in range(12):
        scene = np.roll(scenes[number // 6], number, axis=1)
        noisy = scene + rng.normal(0, 4, scene.shape)
        found.append(cuts(noisy.clip(0, 255).astype(np.uint8), 255))
    assert found == [number == 6 for number in range(12)]
    noise = Cuts()
    assert not any(
        noise(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8), 255) for _ in range(9)
    )
