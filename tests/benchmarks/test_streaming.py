"""BD-rate and crossing points of curves whose answers are known."""

from __future__ import annotations

import pytest
from benchmarks.streaming import Sent, bd_rate, wins_below

FULL = [Sent(rate, vmaf) for rate, vmaf in ((100, 40), (200, 60), (400, 75), (800, 85))]


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.3])
def test_a_curve_at_another_rate_has_that_bd_rate(factor: float) -> None:
    other = [Sent(sent.rate * factor, sent.vmaf) for sent in FULL]
    assert bd_rate(FULL, other) == pytest.approx(100 * (factor - 1), abs=1e-6)


def test_curves_without_a_vmaf_in_common_have_none() -> None:
    other = [Sent(sent.rate, sent.vmaf / 10) for sent in FULL]
    assert bd_rate(FULL, other) is None


def test_the_crossing_is_where_the_small_stream_stops_to_win() -> None:
    half = [Sent(100, 50), Sent(200, 60), Sent(400, 65), Sent(800, 70)]
    found = wins_below(FULL, half)
    assert found == pytest.approx(200, rel=0.02)
    assert wins_below(FULL, [Sent(s.rate, s.vmaf - 1) for s in FULL]) is None
    always = [Sent(s.rate, s.vmaf + 1) for s in FULL]
    assert wins_below(FULL, always) == pytest.approx(800)
