"""PQ's curve, and what goes through it and back."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.pq import light_of_pq, pq_of_light, ways


@pytest.mark.parametrize(
    # Of ITU-R BT.2408's table: percent of PQ for cd/m².
    ("light", "percent"),
    [(0, 0), (1, 15), (100, 50.8), (203, 58.1), (1000, 75.2), (10_000, 100)],
)
def test_pq_is_what_the_standard_says(light: float, percent: float) -> None:
    found = 100 * pq_of_light(np.array([[float(light)]]))
    np.testing.assert_allclose(found, percent, atol=0.05)


def test_every_way_comes_back() -> None:
    signal = np.linspace(0.02, 0.75, 64)[None]
    np.testing.assert_allclose(pq_of_light(light_of_pq(signal)), signal, atol=1e-9)
    for give, take in ways(peak=1000).values():
        np.testing.assert_allclose(take(give(signal)), signal, atol=1e-9)
