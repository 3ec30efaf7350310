"""Lowered operations give what PyTorch's give, exactly but for float32's rounding."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from upfrost.network import reference
from upfrost.network.graph import INPUT, GraphError
from upfrost.network.reference import Array
from upfrost_exporter import lowering
from upfrost_exporter.builder import GraphBuilder

TOLERANCE = 1e-5
Number = TypeVar("Number", np.int32, np.float32)


def random(seed: int, *shape: int) -> Array:
    return np.random.default_rng((seed, *shape)).standard_normal(shape, np.float32)


def run(builder: GraphBuilder, output: str, picture: Array) -> Array:
    values = {INPUT: picture}
    for node in builder.nodes:
        inputs = [values[name] for name in node.inputs]
        values[node.name] = reference.apply(node, inputs, builder.tensors)
    return values[output]


def assert_matches(
    builder: GraphBuilder, output: str, picture: Array, expected: Tensor
) -> None:
    found, wanted = run(builder, output, picture), expected.numpy()
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= TOLERANCE * max(1, np.abs(wanted).max())


@pytest.mark.parametrize("seed", [0, 1], ids=lambda seed: f"seed{seed}")
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "extra", "dilation", "groups"),
    [
        (2, 2, 0, 0, 1, 1),
        (4, 2, 1, 0, 1, 1),
        (4, 2, 3, 0, 1, 1),
        (3, 1, 1, 0, 1, 2),
        (3, 1, 0, 0, 2, 1),
        (9, 2, 4, 1, 1, 1),
        (9, 3, 4, 2, 1, 1),
        (9, 4, 4, 3, 1, 2),
        (6, 2, 2, 0, 1, 6),
        (5, 3, 2, 2, 1, 1),
        (1, 2, 0, 1, 1, 1),
        (3, 2, 1, 1, 3, 1),
        (8, 4, 6, 0, 1, 3),
        (5, 3, 2, 0, 1, 1),
        (3, 2, 1, 0, 1, 1),
        (7, 4, 0, 2, 1, 2),
    ],
)
def test_transposed_convolution(
    kernel: int,
    stride: int,
    padding: int,
    extra: int,
    dilation: int,
    groups: int,
    seed: int,
) -> None:
    picture = random(seed, 6, 7, 9)
    weight = random(seed, 6, 12 // groups, kernel, kernel)
    bias = random(seed, 12)
    builder = GraphBuilder(6)
    output = lowering.transposed_convolution(
        builder,
        "up",
        INPUT,
        weight,
        bias,
        stride=(stride, stride),
        padding=(padding,) * 4,
        output_padding=(extra, extra),
        dilation=(dilation, dilation),
        groups=groups,
    )
    expected = functional.conv_transpose2d(
        torch.from_numpy(picture)[None],
        torch.from_numpy(weight),
        torch.from_numpy(bias),
        stride=stride,
        padding=padding,
        output_padding=extra,
        dilation=dilation,
        groups=groups,
    )[0]
    assert_matches(builder, output, picture, expected)


def test_axes_of_a_transposed_convolution_may_differ() -> None:
    picture, weight = random(0, 3, 5, 6), random(0, 3, 4, 4, 2)
    builder = GraphBuilder(3)
    output = lowering.transposed_convolution(
        builder, "up", INPUT, weight, None, stride=(2, 2), padding=(1, 0, 1, 0)
    )
    expected = functional.conv_transpose2d(
        torch.from_numpy(picture)[None],
        torch.from_numpy(weight),
        stride=2,
        padding=(1, 0),
    )[0]
    assert_matches(builder, output, picture, expected)


@pytest.mark.parametrize("stride", [(2, 1), (1, 3), (2, 3)])
def test_a_transposed_convolution_of_two_strides(stride: tuple[int, int]) -> None:
    picture, weight, bias = random(0, 4, 5, 6), random(1, 4, 3, 4, 5), random(2, 6)
    builder = GraphBuilder(4)
    output = lowering.transposed_convolution(
        builder,
        "up",
        INPUT,
        weight,
        bias,
        stride=stride,
        padding=(1, 2, 1, 2),
        groups=2,
    )
    expected = functional.conv_transpose2d(
        torch.from_numpy(picture)[None],
        torch.from_numpy(weight),
        torch.from_numpy(bias),
        stride=stride,
        padding=(1, 2),
        groups=2,
    )[0]
    assert_matches(builder, output, picture, expected)


@pytest.mark.parametrize("factors", [(1, 2), (2, 3), (4, 1), (3, 5)])
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_a_resize_by_two_factors(mode: str, factors: tuple[int, int]) -> None:
    picture = random(0, 3, 5, 6)
    builder = GraphBuilder(3)
    output = lowering.resize_by_axes(builder, "up", INPUT, mode, factors)
    given = torch.from_numpy(picture)[None]
    expected = functional.interpolate(given, scale_factor=factors, mode=mode)[0]
    assert_matches(builder, output, picture, expected)


@pytest.mark.parametrize(
    ("mode", "factors"), [("bilinear", (1.5, 1)), ("bicubic", (2, 1))]
)
def test_a_resize_by_other_factors_is_refused(
    mode: str, factors: tuple[float, float]
) -> None:
    with pytest.raises(GraphError, match="height and width are resized by"):
        lowering.resize_by_axes(GraphBuilder(3), "up", INPUT, mode, factors)


def test_softmax() -> None:
    picture = 20 * random(0, 5, 4, 6)
    builder = GraphBuilder(5)
    output = lowering.softmax(builder, "softmax", INPUT)
    expected = torch.softmax(torch.from_numpy(picture), 0)
    assert_matches(builder, output, picture, expected)


@pytest.mark.parametrize("size", [1e-5, 1.0, 1e5])
def test_a_choice_by_sign(size: float) -> None:
    # Beyond the ramp, as all numbers of that size are but some close to 0.
    signs = np.sign(random(0, 3, 4, 6)).astype(np.float32)
    picture = signs * np.float32(size) * (1 + np.abs(random(1, 3, 4, 6)))
    picture[0, 0] = 0
    builder = GraphBuilder(3)
    condition = lowering.is_above(builder, "above", INPUT)
    twice = lowering.scaled(builder, "twice", INPUT, 2.0)
    output = lowering.choose(builder, "choose", condition, twice, INPUT)
    expected = torch.from_numpy(np.where(picture > 0, 2 * picture, picture))
    assert_matches(builder, output, picture, expected)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_pixel_unshuffle(factor: int) -> None:
    picture = random(factor, 3, 6 * factor, 4 * factor)
    builder = GraphBuilder(3)
    output = lowering.pixel_unshuffle(builder, "un", INPUT, factor)
    expected = functional.pixel_unshuffle(torch.from_numpy(picture), factor)
    assert_matches(builder, output, picture, expected)


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("order", ["CRD", "DCR"])
def test_rearranging_finds_pixel_shuffle_and_its_inverse(
    factor: int, order: str
) -> None:
    """CRD: blocks are within a channel, as PyTorch's. DCR: channels are in blocks."""
    r, channels, height, width = factor, 2, 4, 6
    up = GraphBuilder(channels * r * r, height, width)
    split = (channels, r, r) if order == "CRD" else (r, r, channels)
    axes = (0, 3, 1, 4, 2) if order == "CRD" else (2, 3, 0, 4, 1)
    picture = random(factor, channels * r * r, height, width)

    def shuffle(numbers: npt.NDArray[Number]) -> npt.NDArray[Number]:
        blocks = numbers.reshape(*split, height, width).transpose(axes)
        return blocks.reshape(channels, height * r, width * r)

    output = lowering.rearrange(up, "up", INPUT, shuffle(lowering.places(up, INPUT)))
    assert [node.op for node in up.nodes[-1:]] == ["pixel_shuffle"]
    assert_matches(up, output, picture, torch.from_numpy(shuffle(picture)))

    down = GraphBuilder(channels, height * r, width * r)
    places = shuffle(lowering.places(up, INPUT)).argsort(axis=None)
    back = places.reshape(channels * r * r, height, width).astype(np.int32)
    output = lowering.rearrange(down, "down", INPUT, back)
    found = run(down, output, shuffle(picture))
    np.testing.assert_array_equal(found, picture)


@pytest.mark.parametrize(
    "shape", [(2, 6, 4), (8, 3, 2), (2, 4, 3), (1, 4, 12), (2, 4, 6)], ids=str
)
def test_rearranging_refuses_what_is_no_block(shape: tuple[int, int, int]) -> None:
    builder = GraphBuilder(2, 4, 6)
    moved = lowering.places(builder, INPUT).reshape(-1)[::-1]
    with pytest.raises(GraphError):
        lowering.rearrange(builder, "net", INPUT, np.resize(moved, shape))


def test_channels() -> None:
    picture = random(0, 5, 4, 6)
    given = torch.from_numpy(picture)
    builder = GraphBuilder(5)
    some = lowering.pick_channels(builder, "some", INPUT, [4, 1, 1])
    assert_matches(builder, some, picture, given[[4, 1, 1]])
    assert lowering.pick_channels(builder, "all", INPUT, range(5)) == INPUT
    mean = lowering.channel_mean(builder, "mean", INPUT)
    assert_matches(builder, mean, picture, given.mean(0, keepdim=True))


def test_zero_padding() -> None:
    picture = random(0, 3, 4, 6)
    builder = GraphBuilder(3)
    output = lowering.constant_pad(builder, "pad", INPUT, (1, 2, 3, 4))
    expected = functional.pad(torch.from_numpy(picture), (2, 4, 1, 3))
    assert_matches(builder, output, picture, expected)


def test_average_pooling() -> None:
    picture = random(0, 3, 9, 8)
    builder = GraphBuilder(3)
    output = lowering.average_pool(builder, "pool", INPUT, (3, 2), (2, 1), (1, 1, 1, 1))
    expected = functional.avg_pool2d(torch.from_numpy(picture), (3, 2), (2, 1), 1)
    assert_matches(builder, output, picture, expected)
