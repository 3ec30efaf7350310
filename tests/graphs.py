"""Example networks for tests: small, valid, and the same for the same seed."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt

from upfrost.network.builder import Builder as Builder
from upfrost.network.graph import (
    INPUT,
    Add,
    Clamp,
    Colour,
    Concat,
    Crop,
    GlobalMax,
    GlobalMean,
    Graph,
    GridSample,
    LeakyRelu,
    MaxPool2d,
    Multiply,
    Pad,
    PixelShuffle,
    Relu,
    ResizeTo,
    Unary,
)
from upfrost.network.modelfile import bundled_models, read_model


def plain_network(
    seed: int,
    channels: int = 8,
    layers: int = 2,
    scale: int = 2,
    dtype: npt.DTypeLike = np.float32,
    picture_channels: int = 3,
    colour: Colour | None = None,
) -> Graph:
    """3×3 convolutions with PReLU, pixel shuffle, and a bilinear skip of the input.

    `layers` convolutions of `channels` channels, and one more before the shuffle.
    """
    build = Builder(seed, dtype)
    value, count = INPUT, picture_channels
    for _ in range(layers):
        value = build.conv(value, count, channels)
        value, count = build.prelu(value, channels), channels
    value = build.conv(value, count, picture_channels * scale**2)
    value = build.add(PixelShuffle, value, factor=scale)
    skip = build.resize(INPUT, "bilinear", scale)
    value = build.add(Add, value, skip)
    return build.graph(value, scale, picture_channels, name="plain", colour=colour)


def luma_network(
    seed: int,
    channels: int = 8,
    layers: int = 2,
    scale: int = 2,
    dtype: npt.DTypeLike = np.float32,
) -> Graph:
    """A `plain_network` for luma."""
    return plain_network(seed, channels, layers, scale, dtype, 1, "luma")


def deep_network(layers: int = 170) -> Graph:
    """A network, ×4, whose receptive field makes its smallest tile large."""
    build = Builder(0)
    value = build.conv(INPUT, 3, 8)
    for _ in range(layers):
        value = build.conv(value, 8, 8)
    large = build.resize(build.conv(value, 8, 64), "nearest", 4)
    return build.graph(build.conv(build.conv(large, 64, 64), 64, 3), scale=4)


def every_operation(seed: int, dtype: npt.DTypeLike = np.float32) -> Graph:
    """One network, ×2, with every operation, resize mode and kind of convolution.

    Channel counts that are not multiples of four, groups, depthwise, stride,
    dilation, asymmetric padding and kernels, convolutions without a bias.
    """
    build = Builder(seed, dtype)
    first = build.conv(INPUT, 3, 10, kernel=(3, 5))
    first = build.add(LeakyRelu, first, slope=0.1)
    grouped = build.conv(first, 10, 10, groups=5, bias=False)
    grouped = build.prelu(grouped, 10)
    depthwise = build.conv(first, 10, 10, groups=10, dilation=(2, 3))
    depthwise = build.add(Relu, depthwise)
    total = build.add(Add, grouped, depthwise)
    half = build.conv(total, 10, 6, kernel=4, stride=(2, 2), padding=(1, 1, 1, 1))
    half = build.prelu(half, 1)
    back = build.resize(half, "nearest", 2)
    joined = build.add(Concat, total, back, INPUT)
    fused = build.conv(joined, 19, 12, kernel=1)
    shuffled = build.add(PixelShuffle, fused, factor=2)
    bicubic = build.resize(INPUT, "bicubic", 2)
    larger = build.resize(INPUT, "bilinear", 3)
    bilinear = build.resize(larger, "bilinear", Fraction(2, 3))
    skip = build.add(Add, bicubic, bilinear)
    result = build.add(Add, shuffled, skip)
    result = build.add(Clamp, result, low=0.0, high=1.0)
    return build.graph(
        result,
        scale=2,
        name="every-operation",
        metadata={"licence": "MIT", "quality": {"Set5": {"psnr_y": 30.5}}},
    )


def imported_operations(seed: int, dtype: npt.DTypeLike = np.float32) -> Graph:
    """One network, ×2, with the operations that only imported networks have."""
    build = Builder(seed, dtype)
    padded = build.add(Pad, INPUT, mode="reflect", padding=(3, 2, 1, 2))
    features = build.conv(padded, 3, 6, padding=(0, 0, 0, 0))
    features = build.add(Unary, features, function="silu")
    features = build.layer_norm(features, 6)
    whole = build.conv(build.add(GlobalMean, features), 6, 6, kernel=1)
    whole = build.add(Add, whole, build.add(GlobalMax, features))
    gate = build.add(Unary, whole, function="sigmoid")
    features = build.add(Multiply, features, gate)
    coarse = build.add(MaxPool2d, features, kernel=(7, 7), stride=(3, 3))
    finer = build.add(ResizeTo, build.conv(coarse, 6, 6), features, mode="bilinear")
    features = build.add(Add, features, build.layer_norm(finer, 6, "rms"))
    cropped = build.add(Crop, features, margins=(2, 0, 0, 2))
    pooled = build.add(
        MaxPool2d, cropped, kernel=(2, 3), stride=(2, 2), padding=(0, 1, 0, 0)
    )
    back = build.resize(pooled, "nearest", 2)
    joined = build.add(
        Concat, back, build.add(Pad, INPUT, mode="replicate", padding=(0, 0, 0, 0))
    )
    result = build.add(PixelShuffle, build.conv(joined, 9, 12), factor=2)
    moves = build.add(PixelShuffle, build.conv(joined, 9, 8), factor=2)
    moved = build.add(GridSample, INPUT, moves, factor=2, groups=1)
    result = build.add(Add, result, moved)
    return build.graph(result, scale=2, name="imported-operations")


def random_network(
    seed: int, dtype: npt.DTypeLike = np.float32, *, imported: bool = False
) -> Graph:
    """A random network of 3 to 12 random operations and what joins them up.

    With `imported`, also operations that only imported networks have. Strides,
    dilations, groups, padding, resize ratios, skips and the scale vary.
    Intermediate sizes are whole for pictures whose sides are multiples of the
    network's `alignment`.
    """
    build = Builder(seed, dtype)
    rng = build.rng
    values: dict[str, tuple[int, Fraction]] = {INPUT: (3, Fraction(1))}
    scale = int(rng.integers(1, 5))
    value = INPUT
    for _ in range(rng.integers(3, 13)):
        if rng.random() < 0.3:
            value = str(rng.choice(list(values)))
        value = _random_node(build, values, value, imported)
    channels, at = values[value]
    if at != scale:
        mode = str(rng.choice(["nearest", "bilinear", "bicubic"]))
        value = build.resize(value, mode, scale / at)
    if channels != 3 or value == INPUT:
        value = build.conv(value, channels, 3, kernel=1)
    return build.graph(value, scale, name=f"random-{seed}")


def _random_node(
    build: Builder,
    values: dict[str, tuple[int, Fraction]],
    source: str,
    imported: bool,
) -> str:
    """Add a random node on `source`; enter its channels and scale into `values`."""
    rng = build.rng
    channels, at = values[source]
    choices = ["conv", "conv", "conv", "activation", "add", "concat"]
    if at <= 2:
        choices.append("shuffle")
    if at >= 1:
        choices.append("stride")
    if at.denominator == 1 and at <= 3:
        choices.append("resize")
    if imported:
        choices += ["unary", "multiply", "pad", "pool"]
    kind = str(rng.choice(choices))
    if kind in ("conv", "stride"):
        # Even, so that the stride halves an even size exactly.
        groups = 2 if channels % 2 == 0 and rng.random() < 0.3 else 1
        out_channels = int(rng.integers(1, 5)) * 2
        if kind == "conv":
            kernel = (int(rng.integers(1, 6)), int(rng.integers(1, 6)))
            dilation = (int(rng.integers(1, 3)), int(rng.integers(1, 3)))
            name = build.conv(
                source,
                channels,
                out_channels,
                kernel,
                bool(rng.random() < 0.7),
                groups=groups,
                dilation=dilation,
            )
        else:
            at /= 2
            name = build.conv(
                source,
                channels,
                out_channels,
                groups=groups,
                stride=(2, 2),
                padding=(1, 1, 1, 1),
            )
        channels = out_channels
    elif kind == "activation":
        name = _random_activation(build, source, channels)
    elif kind == "shuffle":
        # Mixed first, as in real networks, so that all rows depend on all channels.
        mixed = build.conv(source, channels, 8, kernel=1)
        name = build.add(PixelShuffle, mixed, factor=2)
        channels, at = 2, at * 2
    elif kind == "resize":
        mode = str(rng.choice(["nearest", "bilinear", "bicubic"]))
        ratio = Fraction(str(rng.choice(["2", "3", "3/2", "1/2"])))
        name = build.resize(source, mode, ratio)
        at *= ratio
    elif kind == "unary":
        functions = ["abs", "elu", "gelu", "hardswish", "sigmoid", "silu", "tanh"]
        name = build.add(Unary, source, function=str(rng.choice(functions)))
    elif kind == "pad":
        top, left = (int(amount) for amount in rng.integers(0, 4, 2))
        mode = str(rng.choice(["reflect", "replicate"]))
        padded = build.add(Pad, source, mode=mode, padding=(top, left, 3, 2))
        if rng.random() < 0.5:
            name = build.add(Crop, padded, margins=(3, 2, top, left))
        else:
            kernel, channels_in, channels = (top + 4, left + 3), channels, 4
            name = build.conv(
                padded, channels_in, channels, kernel, padding=(0, 0, 0, 0)
            )
    elif kind == "pool":
        name = build.add(
            MaxPool2d, source, kernel=(3, 2), stride=(1, 1), padding=(1, 0, 1, 1)
        )
    else:
        same_scale = [known for known, (_, other) in values.items() if other == at]
        partner = str(rng.choice(same_scale))
        if kind != "concat" and values[partner][0] == channels:
            name = build.add(Add if kind == "add" else Multiply, source, partner)
        else:
            name = build.add(Concat, source, partner)
            channels += values[partner][0]
    values[name] = (channels, at)
    return name


def _random_activation(build: Builder, source: str, channels: int) -> str:
    kind = build.rng.integers(4)
    if kind == 0:
        return build.add(Relu, source)
    if kind == 1:
        return build.prelu(source, channels)
    if kind == 2:
        return build.add(LeakyRelu, source, slope=0.125)
    return build.add(Clamp, source, low=-2.0, high=2.0)


def one_of_each_structure() -> list[str]:
    """Names of bundled models that differ in more than the values of their weights.

    For what does not depend on those: which dispatches there are, and in which order.
    """
    found: dict[object, str] = {}
    for name, path in sorted(bundled_models().items()):
        graph = read_model(path)
        shapes = tuple((key, array.shape) for key, array in graph.tensors.items())
        found.setdefault((graph.nodes, graph.scale, graph.channels, shapes), name)
    return list(found.values())


def assert_same_graph(found: Graph, expected: Graph) -> None:
    """Fail unless both graphs are equal, their tensors bit for bit."""
    for attribute in (
        "name",
        "scale",
        "channels",
        "nodes",
        "output",
        "value_range",
        "metadata",
        "colour",
    ):
        assert getattr(found, attribute) == getattr(expected, attribute)
    assert set(found.tensors) == set(expected.tensors)
    for name, tensor in expected.tensors.items():
        assert found.tensors[name].dtype == tensor.dtype, name
        assert found.tensors[name].shape == tensor.shape, name
        assert found.tensors[name].tobytes() == tensor.tobytes(), name
