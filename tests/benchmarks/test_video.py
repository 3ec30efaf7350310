"""What is called RGB is measured by a network that sees RGB."""

from __future__ import annotations

import sys

import pytest

from benchmarks import video


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("frames", "a.mp4", "--rgb-model", "realtime-x2"), "is for luma, not for RGB"),
        (("overlap", "--luma-model", "cascade-x2"), "cascade-x2 is not for luma"),
        (("overlap", "--rgb-model", "cascade-x4"), "differ in scale"),
    ],
)
def test_networks_that_would_measure_another_way_are_refused(
    words: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["video.py", *words])
    with pytest.raises(SystemExit, match=message):
        video.main()
