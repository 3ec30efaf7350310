"""Small networks, one for each kernel, in which little but that kernel can go wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from upfrost.gpu.dispatches import Precision
from upfrost.gpu.families import ConvKernel, Family
from upfrost.network.builder import Builder
from upfrost.network.graph import (
    INPUT,
    Add,
    Concat,
    GlobalMean,
    Graph,
    GridSample,
    MaxPool2d,
    Pad,
    PixelShuffle,
    ResizeTo,
    Unary,
)

SEED = 15
# What no register tile divides, and even, for layers that halve.
HEIGHT, WIDTH = 14, 38
_CHANNELS = 8  # two slices


@dataclass(frozen=True)
class Probe:
    """A network whose value `probe` one kernel computes, with the kernels' table.

    A network for luma is looked at by its samples alone: of a frame, or of a picture.
    """

    name: str
    graph: Graph
    family: Family
    of: Literal["values", "frames", "photographs"] = "values"


def probes(family: Family, precision: Precision) -> Iterator[Probe]:
    """One for each kernel that a family's devices use, or `upfrost tune` may choose."""
    for kernel in family.conv3x3:
        if precision in kernel.precisions:
            only = replace(family, conv3x3=(kernel,))
            yield from _convolutions(only, kernel, 3)
    for kernel in family.conv1x1:
        yield from _convolutions(replace(family, conv1x1=(kernel,)), kernel, 1)
    for kernel in family.conv:
        yield from _convolutions(replace(family, conv=(kernel,)), kernel, 5)
    for name, make in _OTHERS.items():
        yield Probe(name, make(), family)
    for scale in (2, 3):
        yield Probe(f"chroma and luma, ×{scale}", _luma(scale), family, "frames")
    yield Probe("colours by luma", _luma(2), family, "photographs")


def _convolutions(family: Family, kernel: ConvKernel, side: int) -> Iterator[Probe]:
    """A layer of values, and one of the picture's bytes."""
    channels = max(kernel.least, _CHANNELS)
    values = _of_values(
        lambda build, value: (build.conv(value, channels, channels, side), channels),
        channels,
    )
    yield Probe(f"{side}×{side} by {kernel.name}", values, family)
    if kernel.source == "winograd":  # reads values alone
        return
    build = Builder(SEED)
    colours = 3 if kernel.rgb else 1
    build.conv(INPUT, colours, _CHANNELS, side)
    graph = _finish(build, _CHANNELS, colours)
    yield Probe(f"{side}×{side} of a picture by {kernel.name}", graph, family)


def _of_values(
    make: Callable[[Builder, str], tuple[str, int]], channels: int = _CHANNELS
) -> Graph:
    """Picture → `channels` channels → what `make` adds, the probe → three channels."""
    build = Builder(SEED)
    lifted = build.conv(INPUT, 3, channels, kernel=1)
    _, found = make(build, lifted)
    return _finish(build, found)


def _finish(build: Builder, channels: int, colours: int = 3, scale: int = 1) -> Graph:
    """The network whose last node is the probe, of so many channels."""
    probe = replace(build.nodes[-1], name="probe")
    build.nodes[-1] = probe
    # Small, so that the picture is no mere black and white.
    value = build.conv("probe", channels, colours, kernel=1)
    build.tensors[f"{value}.weight"] *= 0.2
    return build.graph(value, scale, colours, name="probe")


def _elementwise() -> Graph:
    # Of the picture itself, which `unpack` makes values of.
    build = Builder(SEED)
    build.add(Unary, INPUT, function="sigmoid")
    return _finish(build, 3)


def _deconv4x4() -> Graph:
    build = Builder(SEED)
    value = build.conv(INPUT, 3, _CHANNELS, kernel=1)
    value = build.conv(value, _CHANNELS, 4 * _CHANNELS, bias=False)
    weight = build.tensors[f"{value}.weight"]
    # Each phase of a transposed convolution of 4×4 has 2×2 of the taps.
    for phase in range(4):
        i, j = divmod(phase, 2)
        weight[phase::4, :, 2 * (1 - i), :] = 0
        weight[phase::4, :, :, 2 * (1 - j)] = 0
    build.add(PixelShuffle, value, factor=2)
    return _finish(build, _CHANNELS, scale=2)


def _pixel_shuffle() -> Graph:
    build = Builder(SEED)
    value = build.conv(INPUT, 3, 4 * _CHANNELS, kernel=1)
    value = build.add(PixelShuffle, value, factor=2)
    return _finish(build, _CHANNELS, scale=2)


def _resize() -> Graph:
    build = Builder(SEED)
    build.resize(build.conv(INPUT, 3, _CHANNELS, kernel=1), "bicubic", 2)
    return _finish(build, _CHANNELS, scale=2)


def _pack() -> Graph:
    """The shuffle, the enlarged picture and the samples in one, as networks end."""
    build = Builder(SEED)
    build.conv(INPUT, 3, 12, kernel=1)
    build.nodes[-1] = replace(build.nodes[-1], name="probe")
    build.tensors = {name: 0.1 * each for name, each in build.tensors.items()}
    value = build.add(PixelShuffle, "probe", factor=2)
    value = build.add(Add, value, build.resize(INPUT, "bilinear", 2))
    return build.graph(value, 2, name="probe")


def _gather() -> Graph:
    def make(build: Builder, value: str) -> tuple[str, int]:
        # Of five channels, behind which the next value begins within a slice.
        narrow = build.conv(value, _CHANNELS, 5, kernel=1)
        return build.add(Concat, narrow, value), 5 + _CHANNELS

    return _of_values(make)


def _pad() -> Graph:
    build = Builder(SEED)
    value = build.conv(INPUT, 3, _CHANNELS, kernel=1)
    value = build.add(Pad, value, mode="reflect", padding=(1, 2, 1, 2))
    build.nodes[-1] = replace(build.nodes[-1], name="probe")
    value = build.conv("probe", _CHANNELS, 3, kernel=(3, 5), padding=(0, 0, 0, 0))
    return build.graph(value, 1, name="probe")


def _max_pool() -> Graph:
    def make(build: Builder, value: str) -> tuple[str, int]:
        found = build.add(
            MaxPool2d, value, kernel=(3, 3), stride=(1, 1), padding=(1, 1, 1, 1)
        )
        return found, _CHANNELS

    return _of_values(make)


def _mean() -> Graph:
    return _of_values(lambda build, value: (build.add(GlobalMean, value), _CHANNELS))


def _layer_norm() -> Graph:
    return _of_values(
        lambda build, value: (build.layer_norm(value, _CHANNELS), _CHANNELS)
    )


def _resize_to() -> Graph:
    def make(build: Builder, value: str) -> tuple[str, int]:
        small = build.conv(
            value, _CHANNELS, _CHANNELS, 2, stride=(2, 2), padding=(0, 0, 0, 0)
        )
        return build.add(ResizeTo, small, value, mode="bilinear"), _CHANNELS

    return _of_values(make)


def _grid_sample() -> Graph:
    build = Builder(SEED)
    value = build.conv(INPUT, 3, _CHANNELS, kernel=1)
    # For each of two groups, as DySample has them.
    moves = build.add(PixelShuffle, build.conv(value, _CHANNELS, 16), factor=2)
    build.add(GridSample, value, moves, factor=2, groups=2)
    return _finish(build, _CHANNELS, scale=2)


def _luma(scale: int) -> Graph:
    """A network for luma whose last layer writes samples where the family has that."""
    build = Builder(SEED)
    value = build.conv(INPUT, 1, _CHANNELS)
    value = build.prelu(value, _CHANNELS)
    value = build.conv(value, _CHANNELS, scale**2)
    build.tensors[f"{value}.weight"] *= 0.2
    value = build.add(PixelShuffle, value, factor=scale)
    value = build.add(Add, value, build.resize(INPUT, "bilinear", scale))
    return build.graph(value, scale, 1, name="probe", colour="luma")


_OTHERS: dict[str, Callable[[], Graph]] = {
    "element by element": _elementwise,
    "4×4 transposed": _deconv4x4,
    "pixel shuffle": _pixel_shuffle,
    "resize": _resize,
    "resize to another's size": _resize_to,
    "grid sample": _grid_sample,
    "bytes of the result": _pack,
    "concatenation": _gather,
    "padding": _pad,
    "max pool": _max_pool,
    "mean": _mean,
    "layer norm": _layer_norm,
}
