"""Run a graph in NumPy, slowly and plainly: the oracle of every kernel test.

Every value is float32; inside an operation sums are float64, so that a difference from
this oracle is the other side's rounding.
"""

# ruff: noqa: ARG001 - the operations share one signature, and few need all of it.

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import singledispatch
from typing import Literal

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from upfrost.network.graph import (
    INPUT,
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
    Tensors,
    Unary,
    infer_shapes,
)

Array = npt.NDArray[np.float32]
_Sums = npt.NDArray[np.float64]


def run(graph: Graph, picture: Array) -> Array:
    """The network's output: (channels, height · scale, width · scale), not clamped.

    `picture` is float32, (channels, height, width), from 0 to the graph's value range.
    Raises `GraphError` for another shape or type, or a picture too small.
    """
    return evaluate(graph, picture)[graph.output]


def evaluate(graph: Graph, picture: Array) -> dict[str, Array]:
    """Every value of the network by name, the picture itself as ``input``."""
    if picture.dtype != np.float32:
        raise GraphError(f"the picture must be float32, found {picture.dtype}")
    if picture.ndim != 3 or picture.shape[0] != graph.channels:
        raise GraphError(
            f"the picture must have shape ({graph.channels}, height, width), "
            f"found {picture.shape}"
        )
    if not picture.size:
        raise GraphError("the picture holds no pixel")
    infer_shapes(graph, *picture.shape[1:])
    values = {INPUT: picture}
    for node in graph.nodes:
        inputs = [values[name] for name in node.inputs]
        values[node.name] = apply(node, inputs, graph.tensors)
    return values


def upscale_bytes(
    graph: Graph, picture: npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint8]:
    """The whole path from bytes to bytes, (height, width, channels) in and out.

    The network's result is clamped to 0 … value range; halves round up.
    """
    if picture.dtype != np.uint8 or picture.ndim != 3:
        raise GraphError(
            "the picture must be uint8 of shape (height, width, channels), "
            f"found {picture.dtype} of shape {picture.shape}"
        )
    return to_bytes(graph, run(graph, from_bytes(graph, picture)))


def from_bytes(graph: Graph, picture: npt.NDArray[np.uint8]) -> Array:
    """The value ``input`` for a picture, uint8 (height, width, channels)."""
    planes = picture.transpose(2, 0, 1) * (graph.value_range / 255)
    return planes.astype(np.float32)


def to_bytes(graph: Graph, result: Array) -> npt.NDArray[np.uint8]:
    """The network's output as a picture, uint8 (height, width, channels)."""
    full_scale = np.clip(result.astype(np.float64) / graph.value_range, 0, 1) * 255
    return np.floor(full_scale + 0.5).astype(np.uint8).transpose(1, 2, 0)


def upscale_luma(
    graph: Graph, luma: npt.NDArray[np.integer], bits: int, low: int, high: int
) -> npt.NDArray[np.uint16]:
    """A plane of luma, samples of `bits` bits, through a network for it.

    The result is rounded to `low` … `high`, which hold instead of a last clamp to the
    value range; halves round up. See docs/format.md.
    """
    unit = graph.value_range / (255 << bits - 8)
    values = evaluate(graph, (luma[None] * unit).astype(np.float32))
    last = next((node for node in graph.nodes if node.name == graph.output), None)
    is_bound = isinstance(last, Clamp) and last.holds(graph.value_range)
    result = values[last.inputs[0] if last and is_bound else graph.output][0] / unit
    return _samples(result.astype(np.float64), low, high)


def upscale_rgb_by_luma(
    graph: Graph, picture: npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint8]:
    """A picture of RGB (height, width, 3) through a network of one channel.

    It computes the luma (BT.601; of limited range if it is a network for luma), as
    samples of 12 bits. What colours differ by from it is enlarged as chroma is.
    """
    limited = graph.colour == "luma"
    black, gain = (16, 219 / 255) if limited else (0, 1.0)
    samples = np.floor(16 * (black + gain * _luma(picture)) + 0.5).astype(np.uint16)
    bounds = (16, 4079) if limited else (0, 4095)
    luma = (upscale_luma(graph, samples, 12, *bounds) / 16 - black) / gain
    colours = np.stack(
        [
            _enlarged(picture[..., channel], graph.scale, (1, 1), (0, 0), (0, 0))
            for channel in range(3)
        ],
        axis=2,
    )
    rgb = colours + (luma - _luma(colours))[..., None]
    return _samples(rgb, 0, 255).astype(np.uint8)


def _luma(rgb: npt.NDArray[np.uint8] | _Sums) -> _Sums:
    weighted: _Sums = rgb @ np.array([0.299, 0.587, 0.114])
    return weighted


def upscale_chroma(
    plane: npt.NDArray[np.integer],
    scale: int,
    ratio: tuple[int, int],
    offset: tuple[float, float],
    result_offset: tuple[float, float],
    low: int,
    high: int,
) -> npt.NDArray[np.uint16]:
    """A plane of chroma, `scale` times as large, where it lies among enlarged luma.

    `ratio` is rows and columns of luma for each of chroma, in the result, too. `offset`
    is how far the first sample lies below and right of the first one of luma, in rows
    and columns of it, and `result_offset` how far it shall in the result.
    Catmull-Rom's cubic (Keys, a = -0.5), edges replicated.
    """
    values = _enlarged(plane, scale, ratio, offset, result_offset)
    return _samples(values, low, high)


def _enlarged(
    plane: npt.NDArray[np.integer],
    scale: int,
    ratio: tuple[int, int],
    offset: tuple[float, float],
    result_offset: tuple[float, float],
) -> _Sums:
    """The values of `upscale_chroma` before they are rounded."""
    result = plane.astype(np.float64)
    for axis in (0, 1):
        # Of the result's samples: on its luma, then on the frame's, then in the plane.
        places = np.arange(plane.shape[axis] * scale) * ratio[axis]
        places = places + result_offset[axis]
        places = (places + 0.5) / scale - 0.5
        places = (places - offset[axis]) / ratio[axis]
        # A place on a sample must not count as one just before it.
        before = np.floor(places + 1e-9).astype(int)
        moved = np.moveaxis(result, axis, 0)
        total = np.zeros((len(places), moved.shape[1]))
        for tap, weights in enumerate(_cubic(places - before, -0.5), -1):
            nearby = np.clip(before + tap, 0, len(moved) - 1)
            total += weights[:, None] * moved[nearby]
        result = np.moveaxis(total, 0, axis)
    return result


def _samples(values: _Sums, low: int, high: int) -> npt.NDArray[np.uint16]:
    return np.floor(np.clip(values, low, high) + 0.5).astype(np.uint16)


@singledispatch
def apply(node: Node, inputs: Sequence[Array], tensors: Tensors) -> Array:
    """One operation on float32 (channels, height, width) arrays."""
    raise node.fail("the reference does not know this operation")


@apply.register
def _(node: Conv2d, inputs: Sequence[Array], tensors: Tensors) -> Array:
    weight = tensors[node.weight].astype(np.float64)
    outputs, group_channels, rows, columns = weight.shape
    top, left, bottom, right = node.padding
    padded = np.pad(
        inputs[0].astype(np.float64), ((0, 0), (top, bottom), (left, right))
    )
    grouped = padded.reshape(node.groups, group_channels, *padded.shape[1:])
    by_group = weight.reshape(node.groups, -1, group_channels, rows, columns)
    height, width = (
        (extent - (taps - 1) * dilation - 1) // stride + 1
        for extent, taps, dilation, stride in zip(
            padded.shape[1:], (rows, columns), node.dilation, node.stride, strict=True
        )
    )
    total: _Sums = np.zeros((node.groups, outputs // node.groups, height * width))
    for row in range(rows):
        for column in range(columns):
            first_row, first_column = row * node.dilation[0], column * node.dilation[1]
            seen = grouped[
                :,
                :,
                first_row : first_row + (height - 1) * node.stride[0] + 1 : node.stride[
                    0
                ],
                first_column : first_column
                + (width - 1) * node.stride[1]
                + 1 : node.stride[1],
            ]
            total += by_group[..., row, column] @ seen.reshape(*seen.shape[:2], -1)
    result = total.reshape(outputs, height, width)
    if node.bias is not None:
        result = result + tensors[node.bias].astype(np.float64)[:, None, None]
    return result.astype(np.float32)


@apply.register
def _(node: Relu, inputs: Sequence[Array], tensors: Tensors) -> Array:
    return np.maximum(inputs[0], np.float32(0))


@apply.register
def _(node: Prelu, inputs: Sequence[Array], tensors: Tensors) -> Array:
    return _leak(inputs[0], tensors[node.slope].astype(np.float64)[:, None, None])


@apply.register
def _(node: LeakyRelu, inputs: Sequence[Array], tensors: Tensors) -> Array:
    return _leak(inputs[0], np.float64(node.slope))


@apply.register
def _(node: Clamp, inputs: Sequence[Array], tensors: Tensors) -> Array:
    return np.clip(inputs[0], np.float32(node.low), np.float32(node.high))


@apply.register
def _(node: Add, inputs: Sequence[Array], tensors: Tensors) -> Array:
    return inputs[0] + inputs[1]


@apply.register
def _(node: Concat, inputs: Sequence[Array], tensors: Tensors) -> Array:
    return np.concatenate(inputs)


@apply.register
def _(node: PixelShuffle, inputs: Sequence[Array], tensors: Tensors) -> Array:
    factor = node.factor
    channels, height, width = inputs[0].shape
    blocks = inputs[0].reshape(-1, factor, factor, height, width)
    return blocks.transpose(0, 3, 1, 4, 2).reshape(
        channels // factor**2, height * factor, width * factor
    )


@apply.register
def _(node: Resize, inputs: Sequence[Array], tensors: Tensors) -> Array:
    numerator, denominator = node.ratio
    _, rows, columns = inputs[0].shape
    return _resample(
        inputs[0],
        node.mode,
        (node.ratio, rows * numerator // denominator),
        (node.ratio, columns * numerator // denominator),
    )


@apply.register
def _(node: ResizeTo, inputs: Sequence[Array], tensors: Tensors) -> Array:
    _, rows, columns = inputs[0].shape
    _, height, width = inputs[1].shape
    return _resample(
        inputs[0], node.mode, ((height, rows), height), ((width, columns), width)
    )


@apply.register
def _(node: Unary, inputs: Sequence[Array], tensors: Tensors) -> Array:
    with np.errstate(all="ignore"):
        result = _FUNCTIONS[node.function](inputs[0].astype(np.float64))
        return result.astype(np.float32)


@apply.register
def _(node: Multiply, inputs: Sequence[Array], tensors: Tensors) -> Array:
    return inputs[0] * inputs[1]


@apply.register
def _(node: Pad, inputs: Sequence[Array], tensors: Tensors) -> Array:
    top, left, bottom, right = node.padding
    mode: Literal["reflect", "edge"] = "reflect" if node.mode == "reflect" else "edge"
    return np.pad(inputs[0], ((0, 0), (top, bottom), (left, right)), mode)


@apply.register
def _(node: Crop, inputs: Sequence[Array], tensors: Tensors) -> Array:
    top, left, bottom, right = node.margins
    _, height, width = inputs[0].shape
    return inputs[0][:, top : height - bottom, left : width - right]


@apply.register
def _(node: MaxPool2d, inputs: Sequence[Array], tensors: Tensors) -> Array:
    top, left, bottom, right = node.padding
    around = ((0, 0), (top, bottom), (left, right))
    padded = np.pad(inputs[0], around, constant_values=-np.inf)
    windows = sliding_window_view(padded, node.kernel, axis=(1, 2))
    result: Array = windows[:, :: node.stride[0], :: node.stride[1]].max(axis=(3, 4))
    return result


@apply.register
def _(node: GlobalMean, inputs: Sequence[Array], tensors: Tensors) -> Array:
    means = inputs[0].mean(axis=(1, 2), dtype=np.float64, keepdims=True)
    return np.broadcast_to(means, inputs[0].shape).astype(np.float32)


@apply.register
def _(node: GlobalMax, inputs: Sequence[Array], tensors: Tensors) -> Array:
    largest = inputs[0].max(axis=(1, 2), keepdims=True)
    return np.broadcast_to(largest, inputs[0].shape).astype(np.float32)


@apply.register
def _(node: GridSample, inputs: Sequence[Array], tensors: Tensors) -> Array:
    value, (columns, rows) = inputs[0], np.split(inputs[1].astype(np.float64), 2)
    _, height, width = value.shape
    centres = [
        (np.arange(extent) + 0.5) / node.factor - 0.5 for extent in rows.shape[1:]
    ]
    grouped = value.astype(np.float64).reshape(node.groups, -1, height, width)
    y = np.clip(centres[0][:, None] + rows, 0, height - 1)
    x = np.clip(centres[1] + columns, 0, width - 1)
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    group = np.arange(node.groups)[:, None, None]
    total = np.zeros((*x.shape, grouped.shape[1]))
    for down, of_row in enumerate(_linear(y - top)):
        for across, of_column in enumerate(_linear(x - left)):
            row = np.minimum(top + down, height - 1)
            column = np.minimum(left + across, width - 1)
            total += (of_row * of_column)[..., None] * grouped[group, :, row, column]
    result: Array = np.moveaxis(total, 3, 1).astype(np.float32)
    return result.reshape(len(value), *x.shape[1:])


@apply.register
def _(node: LayerNorm, inputs: Sequence[Array], tensors: Tensors) -> Array:
    value = inputs[0].astype(np.float64)
    if node.kind == "layer":
        value = value - value.mean(axis=0)
    normed = value / np.sqrt((value * value).mean(axis=0) + node.epsilon)
    weight, bias = (
        tensors[name].astype(np.float64)[:, None, None]
        for name in (node.weight, node.bias)
    )
    result: Array = (weight * normed + bias).astype(np.float32)
    return result


def _leak(value: Array, slope: _Sums | np.float64) -> Array:
    return np.where(value > 0, value, value * slope).astype(np.float32)


_Sampling = tuple[tuple[int, int], int]  # ratio, rows (or columns) of the result


def _resample(value: Array, mode: str, down: _Sampling, across: _Sampling) -> Array:
    tall = _resample_rows(value.astype(np.float64), mode, *down)
    wide = _resample_rows(tall.swapaxes(1, 2), mode, *across)
    result: Array = wide.swapaxes(1, 2).astype(np.float32)
    return result


def _resample_rows(
    value: _Sums, mode: str, ratio: tuple[int, int], count: int
) -> _Sums:
    """Resize the rows of `value`, (channels, rows, columns), to `count`."""
    numerator, denominator = ratio
    rows = value.shape[1]
    positions = np.arange(count)
    if mode == "nearest":
        return value[:, positions * denominator // numerator]
    # Twice the numerator's units: a point, the row before it, and the rest.
    points = (2 * positions + 1) * denominator - numerator
    sources = points // (2 * numerator)
    rest = points - 2 * numerator * sources
    weigh, first = (_linear, 0) if mode == "bilinear" else (_cubic, -1)
    total = np.zeros((value.shape[0], len(positions), value.shape[2]))
    for tap, weights in enumerate(weigh(rest / (2 * numerator)), first):
        nearby = np.clip(sources + tap, 0, rows - 1)
        total += weights[:, None] * value[:, nearby]
    return total


def _linear(fraction: _Sums) -> tuple[_Sums, ...]:
    return 1 - fraction, fraction


def _cubic(fraction: _Sums, a: float = -0.75) -> tuple[_Sums, ...]:
    """Keys' cubic convolution (1981, doi:10.1109/TASSP.1981.1163711)."""

    def near(x: _Sums) -> _Sums:
        return ((a + 2) * x - (a + 3)) * x * x + 1

    def far(x: _Sums) -> _Sums:
        return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a

    return far(fraction + 1), near(fraction), near(1 - fraction), far(2 - fraction)


def _erf(x: _Sums) -> _Sums:
    return np.asarray(np.frompyfunc(math.erf, 1, 1)(x), np.float64)


def _sigmoid(x: _Sums) -> _Sums:
    return 0.5 + 0.5 * np.tanh(0.5 * x)


def _softplus(x: _Sums) -> _Sums:
    return np.logaddexp(0, x)


def _hardsigmoid(x: _Sums) -> _Sums:
    result: _Sums = np.clip(x / 6 + 0.5, 0, 1)
    return result


def _gelu_tanh(x: _Sums) -> _Sums:
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)
    result: _Sums = 0.5 * x * (1 + np.tanh(inner))
    return result


_FUNCTIONS: Mapping[str, Callable[[_Sums], _Sums]] = {
    "abs": np.abs,
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "exp": np.exp,
    "gelu": lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2))),
    "gelu_tanh": _gelu_tanh,
    "hardsigmoid": _hardsigmoid,
    "hardswish": lambda x: x * _hardsigmoid(x),
    "mish": lambda x: x * np.tanh(_softplus(x)),
    "reciprocal": np.reciprocal,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sigmoid": _sigmoid,
    "silu": lambda x: x * _sigmoid(x),
    "softplus": _softplus,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
}
