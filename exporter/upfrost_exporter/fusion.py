"""A graph as few passes over the picture, as a video player's shaders compute it.

A pass computes one value: a convolution, or an earlier value as it is, and then, number
by number, what follows. After the last one comes the `Tail`: the pixel shuffle and what
is done to the large picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from upfrost.network.graph import (
    INPUT,
    Add,
    Clamp,
    Conv2d,
    Graph,
    LeakyRelu,
    Node,
    PixelShuffle,
    Prelu,
    Relu,
    Resize,
    infer_shapes,
)
from upfrost_exporter.builder import ExportError

Activation = Relu | Prelu | LeakyRelu | Clamp

_KNOWN = (
    "a shader holds 3×3 and 1×1 convolutions, relu, prelu, leaky_relu, clamp and add, "
    "then one pixel_shuffle and the enlarged input added to it"
)


@dataclass(frozen=True)
class Residual:
    """The addition of the value `value`."""

    value: str


Step = Activation | Residual


@dataclass(frozen=True)
class Pass:
    """`value`, (channels, picture height, picture width), of earlier values.

    `source` goes through `convolution`, if there is one, and then through `steps`.
    """

    value: str
    channels: int
    source: str
    convolution: Conv2d | None = None
    steps: tuple[Step, ...] = ()

    @property
    def sources(self) -> tuple[str, ...]:
        """The values that the pass reads, `source` first, each once."""
        residuals = [step.value for step in self.steps if isinstance(step, Residual)]
        return tuple(dict.fromkeys([self.source, *residuals]))


@dataclass(frozen=True)
class Tail:
    """The end: `value` shuffled, the input enlarged by `skip` added, then `steps`."""

    value: str
    skip: Literal["nearest", "bilinear"] | None
    steps: tuple[Activation, ...]


def fuse(graph: Graph) -> tuple[tuple[Pass, ...], Tail]:
    """The passes of `graph`, in their order, and what comes after them.

    Raises `ExportError`, which names the node, for any other form of graph.
    """
    tail = _tail(graph)
    used = _ancestors(graph, tail.value)
    shapes = infer_shapes(graph, 64, 64)
    consumers = Counter(
        name for node in graph.nodes if node.name in used for name in node.inputs
    )
    passes: list[Pass] = []
    # A value's place in `passes`; the input comes before all.
    places = {INPUT: -1}
    for node in graph.nodes:
        if node.name not in used:
            continue
        channels = shapes[node.name].channels
        if isinstance(node, Conv2d):
            _check_convolution(graph, node)
            made = Pass(node.name, channels, node.inputs[0], node)
        else:
            # An addition follows what is computed later, when the other is there.
            earlier, source = sorted((node.inputs * 2)[:2], key=places.__getitem__)
            step: Step
            if isinstance(node, Add):
                step = Residual(earlier)
            elif isinstance(node, Activation):
                step = node
            else:
                raise _refusal(node, "it has no form as a shader")
            if consumers[source] == 1 and source != INPUT:
                place = places[source]
                open_pass = passes[place]
                passes[place] = replace(
                    open_pass, value=node.name, steps=(*open_pass.steps, step)
                )
                places[node.name] = place
                continue
            made = Pass(node.name, channels, source, steps=(step,))
        places[node.name] = len(passes)
        passes.append(made)
    return tuple(passes), tail


def _tail(graph: Graph) -> Tail:
    nodes = {node.name: node for node in graph.nodes}
    if graph.scale == 1:
        return Tail(graph.output, None, ())
    steps: list[Activation] = []
    node = nodes[graph.output]
    while isinstance(node, Activation):
        steps.insert(0, node)
        node = _node_before(nodes, node, node.inputs[0])
    skip: Literal["nearest", "bilinear"] | None = None
    if isinstance(node, Add):
        found = [_node_before(nodes, node, name) for name in node.inputs]
        # The skip first.
        first, last = sorted(found, key=lambda each: not isinstance(each, Resize))
        if not isinstance(first, Resize):
            raise _refusal(node, "it adds two large pictures, neither the input")
        if first.inputs != (INPUT,) or first.mode == "bicubic":
            raise _refusal(first, "only the input is enlarged, nearest or bilinear")
        skip, node = first.mode, last
    if not isinstance(node, PixelShuffle) or node.factor != graph.scale:
        raise _refusal(node, f"where a pixel_shuffle by {graph.scale} should end it")
    value = node.inputs[0]
    if value == INPUT:
        raise _refusal(node, "it shuffles the picture itself")
    return Tail(value, skip, tuple(steps))


def _node_before(nodes: Mapping[str, Node], node: Node, name: str) -> Node:
    if name == INPUT:
        raise _refusal(node, "it takes the small picture for a large one")
    return nodes[name]


def _ancestors(graph: Graph, value: str) -> Collection[str]:
    """Names of the nodes that `value` depends on, its own included."""
    found = {value}
    for node in reversed(graph.nodes):
        if node.name in found:
            found.update(node.inputs)
    return found


def _check_convolution(graph: Graph, node: Conv2d) -> None:
    """Raise `ExportError` unless the convolution keeps the picture's size."""
    kernel = graph.tensors[node.weight].shape[2:]
    if kernel not in ((3, 3), (1, 1)):
        raise _refusal(node, f"its kernel is {kernel[0]}×{kernel[1]}")
    for what, found, wanted in (
        ("stride", node.stride, (1, 1)),
        ("dilation", node.dilation, (1, 1)),
        ("groups", (node.groups,), (1,)),
        ("padding", node.padding, (kernel[0] // 2,) * 4),
    ):
        if found != wanted:
            raise _refusal(node, f"its {what} is {', '.join(map(str, found))}")


def _refusal(node: Node, reason: str) -> ExportError:
    return ExportError(f"node {node.name!r} ({node.op}): {reason}; {_KNOWN}")
