"""The survey of Winograd's method is of shaders that compute what they should."""

from __future__ import annotations

import kp
import numpy as np
import pytest
from benchmarks.winograd import METHODS, Method, built, errors

from upfrost.gpu.device import choose_device
from upfrost.gpu.dispatches import Precision
from upfrost.gpu.families import MALI, VARIANTS

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


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_candidates_give_a_convolution(precision: Precision) -> None:
    """On the device at hand: 16 channels in and out, bias and rectifier."""
    method = METHODS[1]
    m, n, channels, height, width = method.m, method.m + 2, 16, 7, 21
    slices = channels // 4
    rng = np.random.default_rng(m)
    picture = rng.standard_normal((channels, height, width))
    kernel = rng.standard_normal((channels, channels, 3, 3)) / np.sqrt(9 * channels)
    bias, slope = rng.standard_normal((2, channels))

    # Blocks of whole workgroups, and values with room for all that these touch.
    columns, rows = 16, 4
    multiply = MALI.products
    places = multiply.tile.coverage[0]
    blocks = -(-columns * rows // places) * places
    stride, lines = m * columns + 4, m * rows + 4
    plane = stride * lines
    base = stride + 1
    given = np.zeros((slices, lines, stride, 4))
    given[:, :height, :width] = picture.reshape(slices, 4, height, width).transpose(
        0, 2, 3, 1
    )
    spread = method.weights @ kernel @ method.weights.T
    spread = spread.reshape(slices, 4, slices, 4, n * n).transpose(4, 0, 2, 3, 1)
    parameters = np.stack([bias.reshape(-1, 4), slope.reshape(-1, 4)], axis=1)

    half = {"FP16": 1} if precision == "fp16" else {}
    dtype = np.float16 if half else np.float32
    manager = kp.Manager(choose_device().index)

    def tensor(values: np.ndarray) -> kp.Tensor:
        words = values.astype(dtype).reshape(-1).view(np.uint32)
        return manager.tensor_t(words, kp.TensorTypes.host)

    front = np.zeros(4 * base)
    source = tensor(np.concatenate([front, given.reshape(-1), front, front]))
    transformed, products = (
        tensor(np.zeros(n * n * slices * blocks * 4)) for _ in range(2)
    )
    target = tensor(np.zeros(4 * (3 * base + slices * plane)))
    layout = [base, stride, plane, width, height]
    parts = slices * (2 if half else 4)
    transform = (("GROUP_X", 16), ("GROUP_Y", 4), *half.items())
    weights = tensor(spread)
    for spirv, tensors, grid, constants, push in (
        (
            built("winograd4_input", transform),
            [source, transformed],
            (1, 1, parts),
            [],
            [*layout, *layout, columns, blocks, slices],
        ),
        (
            VARIANTS[f"{multiply.name}-{precision}"].path.read_bytes(),
            [transformed, products, weights],
            (n * n * slices, blocks // places, 1),
            [slices, slices],
            [blocks, 0],
        ),
        (
            built("winograd4_output", transform),
            [products, target, tensor(parameters)],
            (1, 1, parts),
            [],
            [*layout, *layout, columns, blocks, slices],
        ),
    ):
        words = np.array(push, np.uint32)
        algorithm = manager.algorithm(
            tensors,
            spirv,
            list(grid),
            np.array(constants, np.uint32),
            words,
        )
        manager.sequence().eval(kp.OpAlgoDispatch(algorithm, words))
    elements = target.data().view(dtype).astype(float).reshape(-1, 4)[base:]
    found = elements[: slices * plane].reshape(slices, lines, stride, 4)
    found = found.transpose(0, 3, 1, 2).reshape(channels, lines, stride)

    padded = np.pad(picture, ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    expected = np.einsum("ihwrs,oirs->ohw", windows, kernel) + bias[:, None, None]
    expected = np.where(expected > 0, expected, slope[:, None, None] * expected)
    worst = np.abs(found[:, :height, :width] - expected).max()
    # Of numbers up to about 4; half precision by `errors` above, its extremes here.
    assert worst <= {"fp32": 1e-4, "fp16": 0.15}[precision]
    found[:, :height, :width] = 0
    assert not found.any(), "the margin is zero"
