"""The NumPy reference gives what PyTorch gives, operation by operation.

Tolerance: 1e-5 of the largest value. The reference sums in float64, so this is the
rounding of PyTorch's float32 sums over at most a few hundred products.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Literal, get_args, get_type_hints

import numpy as np
import pytest
import torch
from torch.nn import functional

from upfrost.network import reference
from upfrost.network.graph import (
    OPERATIONS,
    Add,
    Clamp,
    Concat,
    Conv2d,
    Crop,
    GlobalMax,
    GlobalMean,
    Graph,
    GraphError,
    GridSample,
    LayerNorm,
    LeakyRelu,
    MaxPool2d,
    Multiply,
    Node,
    Pad,
    PixelShuffle,
    Prelu,
    Relu,
    Resize,
    ResizeTo,
    Unary,
)

SIZES = [(1, 1), (1, 7), (5, 1), (9, 13), (16, 8)]
SEEDS = [0, 1]
Mode = Literal["nearest", "bilinear", "bicubic"]
Function = Literal[
    "abs",
    "elu",
    "exp",
    "gelu",
    "gelu_tanh",
    "hardsigmoid",
    "hardswish",
    "mish",
    "reciprocal",
    "rsqrt",
    "sigmoid",
    "silu",
    "softplus",
    "sqrt",
    "tanh",
]

sizes = pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
seeds = pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: f"seed{seed}")


def random(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).standard_normal(shape, np.float32)


def as_torch(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.float32))


def assert_matches(
    node: Node,
    expected: torch.Tensor,
    *inputs: np.ndarray,
    tensors: dict[str, np.ndarray] | None = None,
) -> None:
    result = reference.apply(node, inputs, tensors or {})
    wanted = expected.numpy()
    assert result.dtype == np.float32
    assert result.shape == wanted.shape
    assert np.abs(result - wanted).max() <= 1e-5 * max(1, np.abs(wanted).max())


def test_every_operation_has_an_implementation() -> None:
    known = set(reference.apply.registry)
    missing = [name for name, cls in OPERATIONS.items() if cls not in known]
    assert missing == []


def test_an_operation_without_implementation_is_refused() -> None:
    class Unknown(Node):
        op = "unknown"

    with pytest.raises(GraphError, match=r"'x' .unknown.: the reference does not know"):
        reference.apply(Unknown(name="x", inputs=()), [], {})


@seeds
@sizes
@pytest.mark.parametrize(
    ("channels", "outputs", "kernel", "padding", "groups"),
    [
        (3, 5, (3, 3), (1, 1, 1, 1), 1),
        (1, 1, (1, 1), (0, 0, 0, 0), 1),
        (6, 9, (3, 3), (1, 1, 1, 1), 3),
        (7, 7, (5, 5), (2, 2, 2, 2), 7),
        (4, 6, (3, 1), (1, 0, 1, 0), 2),
        (5, 2, (2, 4), (0, 1, 1, 2), 1),
        (64, 33, (3, 3), (1, 1, 1, 1), 1),
    ],
)
def test_conv2d(
    channels: int,
    outputs: int,
    kernel: tuple[int, int],
    padding: tuple[int, int, int, int],
    groups: int,
    size: tuple[int, int],
    seed: int,
) -> None:
    value = random(seed, channels, *size)
    tensors = {
        "w": random(seed, outputs, channels // groups, *kernel),
        "b": random(seed, outputs),
    }
    node = Conv2d(
        name="c",
        inputs=("input",),
        weight="w",
        bias="b",
        padding=padding,
        groups=groups,
    )
    top, left, bottom, right = padding
    expected = functional.conv2d(
        functional.pad(as_torch(value), (left, right, top, bottom)),
        as_torch(tensors["w"]),
        as_torch(tensors["b"]),
        groups=groups,
    )
    assert_matches(node, expected, value, tensors=tensors)


@seeds
@pytest.mark.parametrize("size", [(7, 9), (8, 16), (9, 11)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (3, 1)])
@pytest.mark.parametrize("dilation", [(1, 1), (2, 3)])
def test_conv2d_with_strides_and_dilation(
    stride: tuple[int, int], dilation: tuple[int, int], size: tuple[int, int], seed: int
) -> None:
    value = random(seed, 6, *size)
    tensors = {"w": random(seed, 4, 3, 3, 3)}
    node = Conv2d(
        name="c",
        inputs=("input",),
        weight="w",
        stride=stride,
        dilation=dilation,
        padding=(1, 1, 1, 1),
        groups=2,
    )
    expected = functional.conv2d(
        as_torch(value),
        as_torch(tensors["w"]),
        stride=stride,
        padding=1,
        dilation=dilation,
        groups=2,
    )
    assert_matches(node, expected, value, tensors=tensors)


def test_fp16_weights_count_as_the_numbers_they_are() -> None:
    value = random(0, 3, 5, 6)
    tensors = {"w": random(0, 2, 3, 3, 3).astype(np.float16)}
    node = Conv2d(name="c", inputs=("input",), weight="w", padding=(1, 1, 1, 1))
    expected = functional.conv2d(as_torch(value), as_torch(tensors["w"]), padding=1)
    assert_matches(node, expected, value, tensors=tensors)


@seeds
@sizes
@pytest.mark.parametrize("slopes", [1, 5])
def test_prelu(slopes: int, size: tuple[int, int], seed: int) -> None:
    value, slope = random(seed, 5, *size), random(seed, slopes)
    node = Prelu(name="p", inputs=("input",), slope="s")
    expected = functional.prelu(as_torch(value)[None], as_torch(slope))[0]
    assert_matches(node, expected, value, tensors={"s": slope})


@seeds
@sizes
def test_pointwise_operations(size: tuple[int, int], seed: int) -> None:
    value = random(seed, 5, *size)
    given = as_torch(value)
    inputs = ("input",)
    assert_matches(Relu(name="n", inputs=inputs), functional.relu(given), value)
    leaky = LeakyRelu(name="n", inputs=inputs, slope=0.2)
    assert_matches(leaky, functional.leaky_relu(given, 0.2), value)
    steep = LeakyRelu(name="n", inputs=inputs, slope=1.5)
    assert_matches(steep, functional.leaky_relu(given, 1.5), value)
    clamp = Clamp(name="n", inputs=inputs, low=-0.3, high=0.6)
    assert_matches(clamp, given.clamp(-0.3, 0.6), value)


@seeds
@sizes
def test_add_and_concat(size: tuple[int, int], seed: int) -> None:
    values = [random(seed + 10 * index, 3, *size) for index in range(3)]
    add = Add(name="n", inputs=("a", "b"))
    assert_matches(add, as_torch(values[0]) + as_torch(values[1]), *values[:2])
    concat = Concat(name="n", inputs=("a", "b", "c"))
    assert_matches(concat, torch.cat([as_torch(value) for value in values]), *values)


@seeds
@sizes
@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_pixel_shuffle(factor: int, size: tuple[int, int], seed: int) -> None:
    value = random(seed, 3 * factor**2, *size)
    node = PixelShuffle(name="n", inputs=("input",), factor=factor)
    assert_matches(node, functional.pixel_shuffle(as_torch(value), factor), value)


UP = [(1, 1), (2, 1), (3, 1), (4, 1), (3, 2), (4, 3)]
DOWN = [(1, 2), (1, 4), (2, 3)]


@seeds
@pytest.mark.parametrize(
    ("size", "ratio"),
    [
        *itertools.product(SIZES, UP),
        *itertools.product([(8, 16), (9, 13), (21, 5)], DOWN),
    ],
    ids=str,
)
@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_resize(
    mode: Mode, ratio: tuple[int, int], size: tuple[int, int], seed: int
) -> None:
    value = random(seed, 3, *size)
    node = Resize(name="n", inputs=("input",), mode=mode, ratio=ratio)
    expected = functional.interpolate(
        as_torch(value)[None], scale_factor=ratio[0] / ratio[1], mode=mode
    )[0]
    assert_matches(node, expected, value)


FUNCTIONS: dict[Function, Callable[[torch.Tensor], torch.Tensor]] = {
    "abs": torch.abs,
    "elu": functional.elu,
    "exp": torch.exp,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "hardsigmoid": functional.hardsigmoid,
    "hardswish": functional.hardswish,
    "mish": functional.mish,
    "reciprocal": torch.reciprocal,
    "rsqrt": torch.rsqrt,
    "sigmoid": torch.sigmoid,
    "silu": functional.silu,
    "softplus": functional.softplus,
    "sqrt": torch.sqrt,
    "tanh": torch.tanh,
}


@seeds
@pytest.mark.parametrize("function", FUNCTIONS)
def test_functions_of_each_number(function: Function, seed: int) -> None:
    value = 4 * random(seed, 5, 9, 13)
    if function in ("sqrt", "rsqrt", "reciprocal"):
        value = 0.1 + np.abs(value)
    node = Unary(name="n", inputs=("input",), function=function)
    assert_matches(node, FUNCTIONS[function](as_torch(value)), value)


def test_every_function_is_tested() -> None:
    assert set(FUNCTIONS) == set(get_args(get_type_hints(Unary)["function"]))


@pytest.mark.parametrize("function", sorted(set(FUNCTIONS) - {"exp"}))
def test_functions_bear_large_numbers(function: Function) -> None:
    value = np.array([[[-1e4, 1e4]]], np.float32)
    node = Unary(name="n", inputs=("input",), function=function)
    expected = FUNCTIONS[function](as_torch(value)).numpy()
    result = reference.apply(node, [value], {})
    np.testing.assert_allclose(result, expected, rtol=1e-5)


@seeds
@sizes
def test_multiply(size: tuple[int, int], seed: int) -> None:
    first, second = random(seed, 3, *size), random(seed + 10, 3, *size)
    node = Multiply(name="n", inputs=("a", "b"))
    assert_matches(node, as_torch(first) * as_torch(second), first, second)


@seeds
@sizes
@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_pad_and_crop(
    mode: Literal["reflect", "replicate"], size: tuple[int, int], seed: int
) -> None:
    value = random(seed, 3, *size)
    top, left, bottom, right = (
        (3, 0, 1, 2)
        if mode == "replicate"
        else (
            min(3, size[0] - 1),
            0,
            min(1, size[0] - 1),
            min(2, size[1] - 1),
        )
    )
    pad = Pad(
        name="n", inputs=("input",), mode=mode, padding=(top, left, bottom, right)
    )
    expected = functional.pad(
        as_torch(value)[None], (left, right, top, bottom), mode=mode
    )[0]
    assert_matches(pad, expected, value)
    crop = Crop(name="n", inputs=("input",), margins=(top, left, bottom, right))
    assert_matches(crop, as_torch(value), expected.numpy())


@seeds
@pytest.mark.parametrize("size", [(8, 16), (9, 13), (21, 5)])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [((2, 2), (2, 2), (0, 0)), ((3, 4), (1, 3), (1, 2)), ((4, 4), (4, 4), (0, 0))],
)
def test_max_pool2d(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    size: tuple[int, int],
    seed: int,
) -> None:
    value = random(seed, 3, *size)
    node = MaxPool2d(
        name="n",
        inputs=("input",),
        kernel=kernel,
        stride=stride,
        padding=(*padding, *padding),
    )
    expected = functional.max_pool2d(as_torch(value)[None], kernel, stride, padding)[0]
    assert_matches(node, expected, value)


@seeds
@sizes
def test_global_mean(size: tuple[int, int], seed: int) -> None:
    value = random(seed, 5, *size)
    expected = functional.adaptive_avg_pool2d(as_torch(value), 1).expand(5, *size)
    assert_matches(GlobalMean(name="n", inputs=("input",)), expected, value)


@seeds
@sizes
def test_global_max(size: tuple[int, int], seed: int) -> None:
    value = random(seed, 5, *size)
    expected = functional.adaptive_max_pool2d(as_torch(value), 1).expand(5, *size)
    assert_matches(GlobalMax(name="n", inputs=("input",)), expected, value)


@seeds
@sizes
@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_layer_norm(
    kind: Literal["layer", "rms"], size: tuple[int, int], seed: int
) -> None:
    value, weight, bias = random(seed, 5, *size), random(seed, 5), random(seed + 1, 5)
    node = LayerNorm(
        name="n",
        inputs=("input",),
        kind=kind,
        epsilon=1e-5,
        weight="w",
        bias="b",
    )
    last = as_torch(value).permute(1, 2, 0)
    if kind == "layer":
        normed = functional.layer_norm(
            last, (5,), as_torch(weight), as_torch(bias), 1e-5
        )
    else:
        normed = functional.rms_norm(last, (5,), as_torch(weight), 1e-5)
        normed = normed + as_torch(bias)
    tensors = {"w": weight, "b": bias}
    assert_matches(node, normed.permute(2, 0, 1), value, tensors=tensors)


@seeds
@pytest.mark.parametrize("sizes", [((4, 7), (9, 5)), ((3, 3), (23, 31))])
@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_resize_to(
    mode: Literal["nearest", "bilinear", "bicubic"],
    sizes: tuple[tuple[int, int], tuple[int, int]],
    seed: int,
) -> None:
    value, other = random(seed, 5, *sizes[0]), random(seed, 2, *sizes[1])
    expected = functional.interpolate(as_torch(value)[None], sizes[1], mode=mode)[0]
    node = ResizeTo(name="n", inputs=("a", "b"), mode=mode)
    assert_matches(node, expected, value, other)


@seeds
@pytest.mark.parametrize("size", [(1, 1), (4, 7), (9, 5)])
@pytest.mark.parametrize(("factor", "groups"), [(1, 1), (2, 3), (3, 2)])
def test_grid_sample(
    factor: int, groups: int, size: tuple[int, int], seed: int
) -> None:
    """As DySample has PyTorch do it, with positions far beyond the edges, too."""
    height, width = size
    value = random(seed, 2 * groups, *size)
    moves = 3 * random(seed + 1, 2 * groups, height * factor, width * factor)
    columns, rows = as_torch(moves).double().reshape(2, groups, *moves.shape[1:])
    y = (torch.arange(moves.shape[1]) + 0.5)[:, None] / factor + rows
    x = (torch.arange(moves.shape[2]) + 0.5) / factor + columns
    grid = torch.stack([2 * x / width - 1, 2 * y / height - 1], 3)
    expected = functional.grid_sample(
        as_torch(value).double().reshape(groups, 2, *size),
        grid,
        padding_mode="border",
        align_corners=False,
    )
    node = GridSample(name="n", inputs=("a", "b"), factor=factor, groups=groups)
    assert_matches(node, expected.reshape(-1, *moves.shape[1:]), value, moves)


def test_grid_sample_without_moves_is_a_bilinear_resize() -> None:
    value = random(0, 4, 5, 7)
    moves = np.zeros((2, 15, 21), np.float32)
    node = GridSample(name="n", inputs=("a", "b"), factor=3, groups=1)
    resize = Resize(name="n", inputs=("a",), mode="bilinear", ratio=(3, 1))
    expected = reference.apply(resize, [value], {})
    np.testing.assert_allclose(
        reference.apply(node, [value, moves], {}), expected, atol=1e-6
    )


def small_graph(
    *, channels: int = 3, value_range: float = 1.0, **tensors: float
) -> Graph:
    """Every channel times `gain` plus `offset`, twice as large."""
    gain = np.eye(channels, dtype=np.float32)[:, :, None, None]
    return Graph(
        name="small",
        scale=2,
        channels=channels,
        nodes=(
            Conv2d(name="mix", inputs=("input",), weight="gain", bias="offset"),
            Resize(name="large", inputs=("mix",), mode="nearest", ratio=(2, 1)),
        ),
        output="large",
        tensors={
            "gain": gain * np.float32(tensors.get("gain", 1)),
            "offset": np.full(channels, tensors.get("offset", 0), np.float32),
        },
        value_range=value_range,
    )


def test_a_network_gives_every_value_by_name() -> None:
    picture = random(0, 3, 4, 5)
    values = reference.evaluate(small_graph(gain=2), picture)
    assert sorted(values) == ["input", "large", "mix"]
    np.testing.assert_array_equal(values["mix"], 2 * picture)
    np.testing.assert_array_equal(
        reference.run(small_graph(gain=2), picture), values["large"]
    )


@pytest.mark.parametrize("value_range", [1.0, 255.0])
@pytest.mark.parametrize("channels", [1, 3])
def test_bytes_go_through_an_identity_unchanged(
    channels: int, value_range: float
) -> None:
    picture = np.arange(256 * channels).astype(np.uint8).reshape(16, 16, channels)
    graph = small_graph(channels=channels, value_range=value_range)
    result = reference.upscale_bytes(graph, picture)
    np.testing.assert_array_equal(result, picture.repeat(2, 0).repeat(2, 1))


def test_bytes_are_clamped_and_halves_round_up() -> None:
    picture = np.array([[[0, 1, 255]]], np.uint8)
    graph = small_graph(value_range=255.0, offset=0.5)
    assert reference.upscale_bytes(graph, picture)[0, 0].tolist() == [1, 2, 255]
    graph = small_graph(value_range=255.0, offset=-2)
    assert reference.upscale_bytes(graph, picture)[0, 0].tolist() == [0, 0, 253]


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (np.zeros((3, 4, 4), np.float64), "must be float32, found float64"),
        (np.zeros((4, 4, 3), np.float32), r"shape \(3, height, width\), found"),
        (np.zeros((4, 4), np.float32), "found \\(4, 4\\)"),
        (np.zeros((3, 0, 4), np.float32), "holds no pixel"),
    ],
)
def test_a_picture_that_does_not_fit_is_refused(
    picture: np.ndarray, reason: str
) -> None:
    with pytest.raises(GraphError, match=reason):
        reference.run(small_graph(), picture)


def test_bytes_of_another_type_are_refused() -> None:
    with pytest.raises(GraphError, match="must be uint8"):
        reference.upscale_bytes(small_graph(), np.zeros((4, 4, 3), np.float32))
