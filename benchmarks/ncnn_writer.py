"""Graphs as ncnn models, so that ncnn can run upfrost's own networks.

The format: https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure and the
layers' parameter numbers, docs/developer-guide/operators.md there.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from upfrost.network.graph import (
    INPUT,
    Add,
    Clamp,
    Concat,
    Conv2d,
    Graph,
    LeakyRelu,
    Node,
    PixelShuffle,
    Prelu,
    Relu,
    Resize,
    Tensor,
)

_INTERPOLATIONS = {"nearest": 1, "bilinear": 2, "bicubic": 3}


def write_ncnn(graph: Graph, param: Path) -> None:
    """Write `graph` to `param` and its weights, as float32, to the ``.bin`` beside it.

    A blob of ncnn has one reader: values that more nodes read go through a `Split`.
    Raises `ValueError` for a node that has no layer here.
    """
    readers = Counter(name for node in graph.nodes for name in node.inputs)
    waiting: dict[str, list[str]] = {}
    lines, blobs, weights = [], 0, b""

    def emit(
        kind: str, name: str, inputs: list[str], outputs: list[str], end: str = ""
    ) -> None:
        nonlocal blobs
        blobs += len(outputs)
        words = [kind, name, str(len(inputs)), str(len(outputs)), *inputs, *outputs]
        lines.append(" ".join([*words, end]).rstrip())
        for output in outputs:
            copies = [f"{output}_{i}" for i in range(readers[output])]
            waiting[output] = [output] if len(copies) <= 1 else copies
            if len(copies) > 1:
                emit("Split", f"{output}_split", [output], copies)

    emit("Input", INPUT, [], [INPUT])
    for node in graph.nodes:
        kind, parameters, tensors = _layer(node, graph)
        end = " ".join(f"{key}={value}" for key, value in parameters.items())
        inputs = [waiting[name].pop(0) for name in node.inputs]
        emit(kind, node.name, inputs, [node.name], end)
        weights += tensors
    text = ["7767517", f"{len(lines)} {blobs}", *lines, ""]
    param.write_text("\n".join(text))
    param.with_suffix(".bin").write_bytes(weights)


def _layer(node: Node, graph: Graph) -> tuple[str, dict[int, int | float], bytes]:
    """Kind, parameters and weights of the layer that does what `node` does."""
    match node:
        case Conv2d():
            weight = graph.tensors[node.weight]
            top, left, bottom, right = node.padding
            sizes = {0: weight.shape[0], 1: weight.shape[3], 11: weight.shape[2]}
            sizes |= {2: node.dilation[1], 12: node.dilation[0]}
            sizes |= {3: node.stride[1], 13: node.stride[0]}
            sizes |= {4: left, 14: top, 15: right, 16: bottom}
            sizes |= {5: int(node.bias is not None), 6: weight.size}
            # Four bytes that say how the weights are stored: 0 is float32.
            data = bytes(4) + _floats(weight)
            if node.bias is not None:
                data += _floats(graph.tensors[node.bias])
            if node.groups == 1:
                return "Convolution", {**sizes}, data
            return "ConvolutionDepthWise", {**sizes, 7: node.groups}, data
        case Relu():
            return "ReLU", {}, b""
        case LeakyRelu():
            return "ReLU", {0: node.slope}, b""
        case Prelu():
            slope = graph.tensors[node.slope]
            return "PReLU", {0: slope.size}, _floats(slope)
        case Clamp():
            return "Clip", {0: node.low, 1: node.high}, b""
        case Add():
            return "BinaryOp", {0: 0}, b""
        case Concat():
            return "Concat", {0: 0}, b""
        case PixelShuffle():
            return "PixelShuffle", {0: node.factor}, b""
        case Resize():
            factor = node.ratio[0] / node.ratio[1]
            mode = _INTERPOLATIONS[node.mode]
            return "Interp", {0: mode, 1: factor, 2: factor}, b""
    raise ValueError(f"node {node.name!r}: no ncnn layer for {node.op} here")


def _floats(tensor: Tensor) -> bytes:
    return tensor.astype("<f4").tobytes()
