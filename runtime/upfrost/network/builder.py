"""Networks written by hand, with seeded weights: what kernels are checked with."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from upfrost.network.graph import (
    Colour,
    Conv2d,
    Graph,
    LayerNorm,
    Node,
    Prelu,
    Resize,
    Tensor,
)


class Builder:
    """Collects nodes and seeded weights; `graph` makes the network of them.

    Each method adds one node, named after its operation and place, and returns that
    name. Weights keep the variance of what goes through them, so that fp16 neither
    overflows nor fades.
    """

    def __init__(self, seed: int, dtype: npt.DTypeLike = np.float32) -> None:
        self.rng = np.random.default_rng(seed)
        self.dtype = np.dtype(dtype)
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}

    def graph(
        self,
        output: str,
        scale: int,
        channels: int = 3,
        name: str = "example",
        value_range: float = 1.0,
        metadata: dict[str, object] | None = None,
        colour: Colour | None = None,
    ) -> Graph:
        """The network whose result is the value `output`.

        Raises `GraphError` where the nodes do not fit each other or what is said of
        them.
        """
        return Graph(
            name=name,
            scale=scale,
            channels=channels,
            nodes=tuple(self.nodes),
            output=output,
            tensors=dict(self.tensors),
            value_range=value_range,
            metadata=metadata or {},
            colour=colour,
        )

    def conv(
        self,
        source: str,
        in_channels: int,
        out_channels: int,
        kernel: int | tuple[int, int] = 3,
        bias: bool = True,
        **attributes: Any,
    ) -> str:
        """A convolution, padded so that stride 1 keeps the size, unless told."""
        size = (kernel, kernel) if isinstance(kernel, int) else kernel
        groups = attributes.get("groups", 1)
        dilation = attributes.get("dilation", (1, 1))
        reach = [
            (extent - 1) * step for extent, step in zip(size, dilation, strict=True)
        ]
        before = [extent // 2 for extent in reach]
        after = [extent - first for extent, first in zip(reach, before, strict=True)]
        attributes.setdefault("padding", (*before, *after))
        name = self.next_name("conv2d")
        shape = (out_channels, in_channels // groups, *size)
        deviation = math.sqrt(1.5 / math.prod(shape[1:]))
        self.tensors[f"{name}.weight"] = self.noise(shape, deviation)
        if bias:
            self.tensors[f"{name}.bias"] = self.noise((out_channels,), 0.05)
        self.nodes.append(
            Conv2d(
                name=name,
                inputs=(source,),
                weight=f"{name}.weight",
                bias=f"{name}.bias" if bias else None,
                **attributes,
            )
        )
        return name

    def prelu(self, source: str, channels: int) -> str:
        """A slope for each channel, all near 0.25."""
        name = self.next_name("prelu")
        slopes = 0.25 + self.noise((channels,), 0.05)
        self.tensors[f"{name}.slope"] = slopes.astype(self.dtype)
        return self.add(Prelu, source, name=name, slope=f"{name}.slope")

    def add(
        self,
        operation: type[Node],
        *inputs: str,
        name: str | None = None,
        **attributes: Any,
    ) -> str:
        """Any operation that has no tensors."""
        name = name or self.next_name(operation.op)
        self.nodes.append(operation(name=name, inputs=inputs, **attributes))
        return name

    def layer_norm(self, source: str, channels: int, kind: str = "layer") -> str:
        """Weights near 1 and biases near 0; `kind` is "layer" or "rms"."""
        name = self.next_name("layer_norm")
        self.tensors[f"{name}.weight"] = 1 + self.noise((channels,), 0.2)
        self.tensors[f"{name}.bias"] = self.noise((channels,), 0.2)
        return self.add(
            LayerNorm,
            source,
            name=name,
            kind=kind,
            epsilon=1e-6,
            weight=f"{name}.weight",
            bias=f"{name}.bias",
        )

    def resize(self, source: str, mode: str, ratio: Fraction | int) -> str:
        """Interpolation by `mode`: "nearest", "bilinear" or "bicubic"."""
        exact = Fraction(ratio)
        pair = (exact.numerator, exact.denominator)
        return self.add(Resize, source, mode=mode, ratio=pair)

    def noise(self, shape: tuple[int, ...], deviation: float) -> Tensor:
        values: Tensor = (self.rng.standard_normal(shape) * deviation).astype(
            self.dtype
        )
        return values

    def next_name(self, operation: str) -> str:
        return f"{operation}_{len(self.nodes)}"
