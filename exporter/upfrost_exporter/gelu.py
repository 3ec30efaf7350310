"""GELU in pieces, as ONNX below operation set 20 and many modules spell it.

Of x · 0.5 · (1 + erf(x / √2)) the factors come in any order, and an optimiser may have
put some of them elsewhere. So front ends take the error function as it is, and
`fold_gelu` finds the products that it is part of.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from upfrost.network.graph import Conv2d, Multiply, Node, Unary
from upfrost_exporter import lowering
from upfrost_exporter.builder import ExportError, GraphBuilder

# Between the operations that make up a GELU.
_MOST_STEPS = 8


@dataclass(frozen=True, kw_only=True)
class Erf(Node):
    """The error function of each number, which a finished graph does not have."""

    op = "erf"


class _Line(NamedTuple):
    """scale · x + shift of the value x that is called `name`."""

    name: str
    scale: float = 1.0
    shift: float = 0.0


def fold_gelu(builder: GraphBuilder, output: str) -> None:
    """Make each product with 1 + erf(x / √2) GELU, and drop what `output` needs not.

    Raises `ExportError` for an error function that is part of anything else.
    """
    nodes, builder.nodes = builder.nodes, []
    made = {node.name: node for node in nodes}
    for node in nodes:
        found = _gelu(builder, made, node)
        if found is None:
            builder.nodes.append(node)
            continue
        inner, factor = found
        name = node.name
        del builder.shapes[name]
        value = lowering.scaled(builder, f"{name}.inner", *inner)
        label = name if factor == 1 else f"{name}.gelu"
        result = builder.add(Unary, label, [value], function="gelu")
        lowering.scaled(builder, name, result, factor)
    needed, kept = {output}, []
    for node in reversed(builder.nodes):
        if node.name in needed:
            kept.append(node)
            needed.update(node.inputs)
    builder.nodes = kept[::-1]
    for node in builder.nodes:
        if isinstance(node, Erf):
            raise ExportError(
                f"erf at {node.name!r} is no part of x · (1 + erf(x / √2)): upfrost "
                "has it in GELU alone"
            )


def _gelu(
    builder: GraphBuilder, made: Mapping[str, Node], node: Node
) -> tuple[_Line, float] | None:
    """What a product is GELU of, and how many times; None for any other operation."""
    if not isinstance(node, Multiply):
        return None
    first, second = (_line(builder, made, name) for name in node.inputs)
    for gate, value in ((first, second), (second, first)):
        erf = made.get(gate.name)
        if not isinstance(erf, Erf) or not _is_near(gate.scale, gate.shift):
            continue
        given = _line(builder, made, erf.inputs[0])
        root = math.sqrt(2)
        inner = _Line(given.name, _rounded(root * given.scale), root * given.shift)
        if value.name != inner.name or not inner.scale:
            continue
        times = value.scale / inner.scale
        if _is_near(value.shift, times * inner.shift):
            return inner, _rounded(2 * times * gate.scale)
    return None


def _line(builder: GraphBuilder, made: Mapping[str, Node], name: str) -> _Line:
    """A value as one number of another's, through products and sums with constants."""
    line = _Line(name)
    for _ in range(_MOST_STEPS):
        node = made.get(line.name)
        step = _step(builder, node) if isinstance(node, Conv2d) else None
        if step is None:
            break
        scale = line.scale * step.scale
        line = _Line(step.name, scale, line.scale * step.shift + line.shift)
    return line


def _step(builder: GraphBuilder, node: Conv2d) -> _Line | None:
    """A product and sum with the same constants for all channels."""
    weight = builder.tensors[node.weight]
    bias = builder.tensors[node.bias] if node.bias else 0 * weight
    is_plain = weight.shape == (node.groups, 1, 1, 1) and node.stride == (1, 1)
    is_even = (weight == weight.flat[0]).all() and (bias == bias.flat[0]).all()
    if not is_plain or not is_even or any(node.padding):
        return None
    return _Line(node.inputs[0], float(weight.flat[0]), float(bias.flat[0]))


def _rounded(factor: float) -> float:
    """1 for what single precision's constants make of it."""
    return 1.0 if _is_near(factor, 1) else factor


def _is_near(first: float, second: float) -> bool:
    return math.isclose(first, second, rel_tol=1e-5, abs_tol=1e-6)
