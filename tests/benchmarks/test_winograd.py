"""The survey of Winograd's method is of transforms that give a convolution."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.winograd import METHODS, Method, errors

pytest.importorskip("pyshaderc", reason="the shader compiler is not installed")


@pytest.mark.parametrize("method", METHODS, ids=lambda method: f"F({method.m},3)")
def test_the_transforms_give_a_convolution(method: Method) -> None:
    rng = np.random.default_rng(0)
    tile, kernel = rng.standard_normal((method.m + 2,) * 2), rng.standard_normal((3, 3))
    product = (method.inputs @ tile @ method.inputs.T) * (
        method.weights @ kernel @ method.weights.T
    )
    windows = np.lib.stride_tricks.sliding_window_view(tile, (3, 3))
    expected = np.einsum("ijrs,rs->ij", windows, kernel)
    found = method.outputs @ product @ method.outputs.T
    assert np.allclose(found, expected, rtol=0, atol=1e-12)


def test_half_precision_costs_f43_several_times_the_error_of_a_direct_sum() -> None:
    row = errors(16)
    numbers = [row[name] for name in ("direct", "F(2,3)", "F(4,3)")]
    assert all(isinstance(number, float) for number in numbers)
    direct, small, large = map(float, numbers)  # type: ignore[arg-type]
    assert direct < small < 2 * direct
    assert 5 * direct < large < 20 * direct
