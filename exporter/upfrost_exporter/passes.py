"""Clean up a graph: small passes, each from a graph to an equal, simpler one."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from upfrost.network import reference
from upfrost.network.graph import (
    INPUT,
    MAX_EXTENT,
    Add,
    Concat,
    Conv2d,
    Graph,
    GridSample,
    LayerNorm,
    LeakyRelu,
    Multiply,
    Node,
    PixelShuffle,
    Resize,
    Tensor,
    Unary,
    alignment,
    infer_shapes,
    tensor_fields,
    tensor_names,
)
from upfrost_exporter.builder import ExportError, TensorTable, unique_name

_Numbers = npt.NDArray[np.float64]


def clean(graph: Graph) -> Graph:
    """All passes that leave float32 results as they are, but for rounding."""
    for simplify in (
        fuse_layer_norm,
        remove_dead_nodes,
        fold_affine,
        fold_into_norm,
        sample_fewer_channels,
        fold_pointwise,
        fold_padding,
        remove_identities,
    ):
        graph = simplify(graph)
    return graph


def remove_dead_nodes(graph: Graph) -> Graph:
    """Drop what the output does not depend on."""
    needed = {graph.output}
    for node in reversed(graph.nodes):
        if node.name in needed:
            needed.update(node.inputs)
    return _replace(graph, [node for node in graph.nodes if node.name in needed])


def remove_identities(graph: Graph) -> Graph:
    """Drop nodes that give their input as it is, such as a resize by 1."""
    renamed: dict[str, str] = {}
    kept: list[Node] = []
    for node in graph.nodes:
        node = _rename_inputs(node, renamed)
        # A graph may not end in its input, nor lose its last node.
        ends_in_input = node.name == graph.output and node.inputs[0] == INPUT
        if _is_identity(node, graph.tensors) and not ends_in_input:
            renamed[node.name] = node.inputs[0]
        else:
            kept.append(node)
    output = renamed.get(graph.output, graph.output)
    return _replace(graph, kept, output=output)


def fuse_layer_norm(graph: Graph) -> Graph:
    """Find layer normalisation over channels, however it was spelled.

    A product that is computed from one value pixel by pixel, with a root in between,
    and gives on random numbers what the one operation gives, is that operation.
    """
    nodes = {node.name: node for node in graph.nodes}
    size = 64 * alignment(graph)  # a size that every valid graph takes
    shapes = infer_shapes(graph, size, size)
    channels = {name: shape.channels for name, shape in shapes.items()}
    tensors = TensorTable(graph.tensors)
    found = [
        (isinstance(node, Multiply) and _as_layer_norm(node, nodes, channels, tensors))
        or node
        for node in graph.nodes
    ]
    return _replace(graph, found, tensors=tensors)


def _as_layer_norm(
    product: Multiply,
    nodes: Mapping[str, Node],
    channels: Mapping[str, int],
    tensors: TensorTable,
) -> LayerNorm | None:
    count = channels[product.name]
    sources = [
        (source, steps)
        for source in _ancestors(product, nodes, tensors)
        if channels[source] == count
        and (steps := _steps_from(source, product, nodes, tensors)) is not None
        and any(_is_root(step) for step in steps)
    ]
    if not sources:
        return None
    # Each pixel with another deviation, so that epsilon shows.
    random = np.random.default_rng(0)
    deviation = 10 ** random.uniform(-3.5, 1, 64)
    sample = deviation * (random.standard_normal((count, 1, 64)) + 0.5)
    ones, zeros = np.ones(count), np.zeros(count)
    given = {"ones": ones.astype(np.float32), "zeros": zeros.astype(np.float32)}
    kinds: tuple[Literal["layer", "rms"], ...] = ("layer", "rms")
    for kind, (source, steps) in itertools.product(kinds, sources):
        values = {source: sample.astype(np.float32)}
        with np.errstate(all="ignore"):
            for step in steps:
                inputs = [values[name] for name in step.inputs]
                values[step.name] = reference.apply(step, inputs, tensors)
        for epsilon in _shifts(steps, tensors):
            norm = LayerNorm(
                name=product.name,
                inputs=(source,),
                kind=kind,
                epsilon=epsilon,
                weight="ones",
                bias="zeros",
            )
            expected = reference.apply(norm, [values[source]], given)
            off = np.abs(values[product.name] - expected).max()
            if off <= _SAME_NORM * np.abs(expected).max():
                return dataclasses.replace(
                    norm,
                    weight=tensors.store(f"{product.name}.weight", ones),
                    bias=tensors.store(f"{product.name}.bias", zeros),
                )
    return None


# Of the largest number: means in float32, where deviations are a fraction of them.
_SAME_NORM = 1e-4
_MOST_STEPS = 24


def _ancestors(
    node: Node, nodes: Mapping[str, Node], tensors: Mapping[str, Tensor]
) -> Iterator[str]:
    """Values that a node is computed from pixel by pixel, the nearest first."""
    pending, seen = list(node.inputs), set[str]()
    while pending and len(seen) < _MOST_STEPS:
        name = pending.pop(0)
        if name in seen:
            continue
        seen.add(name)
        yield name
        if name in nodes and _is_by_pixel(nodes[name], tensors):
            pending.extend(nodes[name].inputs)


def _steps_from(
    source: str, end: Node, nodes: Mapping[str, Node], tensors: Mapping[str, Tensor]
) -> list[Node] | None:
    """What computes `end` from `source` alone, in order; None where more is needed."""
    steps: dict[str, Node] = {}
    pending = [end.name]
    while pending:
        name = pending.pop()
        if name == source or name in steps:
            continue
        node = nodes.get(name)
        is_fit = node is not None and _is_by_pixel(node, tensors)
        if node is None or not is_fit or len(steps) == _MOST_STEPS:
            return None
        steps[name] = node
        pending.extend(node.inputs)
    return [node for name, node in nodes.items() if name in steps]


def _is_by_pixel(node: Node, tensors: Mapping[str, Tensor]) -> bool:
    match node:
        case Conv2d():
            return _is_pointwise(node, tensors)
        case Unary():
            return node.function in ("reciprocal", "rsqrt", "sqrt")
    return isinstance(node, Add | Multiply)


def _is_root(node: Node) -> bool:
    return isinstance(node, Unary) and node.function in ("rsqrt", "sqrt")


def _shifts(steps: Sequence[Node], tensors: Mapping[str, Tensor]) -> list[float]:
    """What could be an epsilon: what is added to all channels alike, and 0."""
    biases = [
        np.unique(tensors[step.bias])
        for step in steps
        if isinstance(step, Conv2d) and step.bias is not None
    ]
    found = {float(bias[0]) for bias in biases if bias.size == 1 and bias[0] > 0}
    return [*sorted(found), 0.0]


def fold_into_norm(graph: Graph) -> Graph:
    """Merge scale and shift per channel into the layer normalisation before it."""
    tensors = TensorTable(graph.tensors)
    readers = Counter(name for node in graph.nodes for name in node.inputs)
    readers[graph.output] += 1
    renamed: dict[str, str] = {}
    kept: dict[str, Node] = {}
    for original in graph.nodes:
        node = _rename_inputs(original, renamed)
        before = kept.get(node.inputs[0])
        if (
            isinstance(node, Conv2d)
            and isinstance(before, LayerNorm)
            and readers[before.name] == 1
            and _is_affine(node, tensors)
            and len(tensors[node.weight]) == len(tensors[before.weight])
        ):
            scale, shift = _scale_and_shift(node, tensors)
            weight = scale * tensors[before.weight]
            bias = scale * tensors[before.bias] + shift
            kept[before.name] = dataclasses.replace(
                before,
                weight=tensors.store(f"{before.weight}.folded", weight),
                bias=tensors.store(f"{before.bias}.folded", bias),
            )
            renamed[original.name] = before.name
            readers[before.name] = readers[original.name]
        else:
            kept[node.name] = node
    output = renamed.get(graph.output, graph.output)
    return _replace(graph, list(kept.values()), tensors=tensors, output=output)


def fold_affine(graph: Graph) -> Graph:
    """Merge scale and shift per channel into the convolution before or after it.

    A front end writes batch normalisation, mean shifts and products with constants
    as depthwise 1×1 convolutions (`GraphBuilder.affine`). One whose input is a
    convolution that nothing else reads always merges. One that only one convolution
    reads merges unless it shifts and that convolution pads with zeros.
    """

    def merge(before: Conv2d, conv: Conv2d, tensors: TensorTable) -> Node | None:
        if _is_affine(conv, tensors):
            return _merge_after(before, conv, tensors)
        if _is_affine(before, tensors) and _takes_shift(before, conv):
            return _merge_before(before, conv, tensors)
        return None

    return _fold(graph, merge)


def sample_fewer_channels(graph: Graph) -> Graph:
    """Compute a 1×1 convolution behind a grid sample before it, where that pays.

    Sampling weighs pixels of each channel alike, so both orders give the same. DySample
    ends in one that leaves three channels of 64, `factor`² times as many pixels of
    which would have to be kept. Each group has sums of its own, added up behind it.
    """
    tensors = TensorTable(graph.tensors)
    readers = Counter(name for node in graph.nodes for name in node.inputs)
    readers[graph.output] += 1
    kept: dict[str, Node] = {}
    for node in graph.nodes:
        kept[node.name] = node
        sample = kept.get(node.inputs[0])
        if not (
            isinstance(node, Conv2d)
            and isinstance(sample, GridSample)
            and readers[sample.name] == 1
            and _is_pointwise(node, tensors)
            and node.groups == 1
        ):
            continue
        weight = tensors[node.weight].astype(np.float64)[:, :, 0, 0]
        groups, outputs = sample.groups, len(weight)
        taken = weight.shape[1] // groups
        wide = -(-outputs // 4) * 4  # so that a slice of four is of one group
        if wide >= taken:
            continue
        before = np.zeros((groups, wide, groups, taken))
        by_group = weight.reshape(outputs, groups, taken).swapaxes(0, 1)
        before[np.arange(groups), :outputs, np.arange(groups)] = by_group
        after = np.tile(np.eye(outputs, wide), groups)
        mixed = Conv2d(
            name=unique_name(f"{node.name}.before", kept),
            inputs=sample.inputs[:1],
            weight=tensors.store(
                f"{node.weight}.before", before.reshape(groups * wide, -1, 1, 1)
            ),
        )
        del kept[sample.name], kept[node.name]
        kept[mixed.name] = mixed
        kept[sample.name] = dataclasses.replace(
            sample, inputs=(mixed.name, *sample.inputs[1:])
        )
        kept[node.name] = dataclasses.replace(
            node, weight=tensors.store(f"{node.weight}.sum", after[:, :, None, None])
        )
    return _replace(graph, list(kept.values()), tensors=tensors)


def fold_pointwise(graph: Graph) -> Graph:
    """Merge a 1×1 convolution into the convolution before it, where that is cheaper.

    So do channels that a front end only picks or reorders (`lowering.pick_channels`).
    """

    def merge(before: Conv2d, conv: Conv2d, tensors: TensorTable) -> Node | None:
        first, second = tensors[before.weight], tensors[conv.weight]
        if not _is_pointwise(conv, tensors) or before.groups > 1 or conv.groups > 1:
            return None
        if len(second) * first[0].size > first.size + second.size:
            return None
        matrix = second[:, :, 0, 0].astype(np.float64)
        weight = np.tensordot(matrix, first.astype(np.float64), axes=1)
        bias = matrix @ _bias(before, tensors) + _bias(conv, tensors)
        return _with_weights(before, weight, bias, tensors)

    return _fold(graph, merge)


def fold_padding(graph: Graph) -> Graph:
    """Merge zeros around a value (`lowering.constant_pad`) into what follows it."""

    def merge(before: Conv2d, conv: Conv2d, tensors: TensorTable) -> Node | None:
        pairs = zip(before.padding, conv.padding, strict=True)
        top, left, bottom, right = map(sum, pairs)
        padding = (top, left, bottom, right)
        if not _is_zero_pad(before, tensors) or max(padding) > MAX_EXTENT:
            return None
        return dataclasses.replace(conv, inputs=before.inputs, padding=padding)

    return _fold(graph, merge)


_Merge = Callable[[Conv2d, Conv2d, TensorTable], Node | None]


def _fold(graph: Graph, merge: _Merge) -> Graph:
    """Replace pairs of convolutions by what `merge` makes of them, as often as it does.

    The second of a pair is the only one that reads the first.
    """
    tensors = TensorTable(graph.tensors)
    readers = Counter(name for node in graph.nodes for name in node.inputs)
    readers[graph.output] += 1
    renamed: dict[str, str] = {}
    kept: dict[str, Node] = {}
    for original in graph.nodes:
        node = _rename_inputs(original, renamed)
        # The merged convolution may follow another one, and so on.
        while (
            isinstance(node, Conv2d)
            and isinstance(before := kept.get(node.inputs[0]), Conv2d)
            and readers[before.name] == 1
            and (merged := merge(before, node, tensors)) is not None
        ):
            del kept[before.name]
            node = merged
            readers[node.name] = readers[original.name]
        renamed[original.name] = node.name
        kept[node.name] = node
    return _replace(
        graph,
        list(kept.values()),
        tensors=tensors,
        output=renamed[graph.output],
    )


def round_tensors(graph: Graph) -> Graph:
    """Round every tensor to fp16. Raises `ExportError` for numbers beyond 65504."""
    rounded: dict[str, Tensor] = {}
    for name, tensor in graph.tensors.items():
        with np.errstate(over="ignore"):
            half = tensor.astype(np.float16)
        if not np.isfinite(half).all():
            raise ExportError(
                f"tensor {name!r} holds {np.abs(tensor).max():.6g}, fp16 ends at "
                "65504: export with precision fp32"
            )
        rounded[name] = half
    return dataclasses.replace(graph, tensors=rounded)


def _merge_after(conv: Conv2d, affine: Conv2d, tensors: TensorTable) -> Conv2d:
    """affine(conv(x)) as one convolution."""
    scale, shift = _scale_and_shift(affine, tensors)
    weight = scale[:, None, None, None] * tensors[conv.weight]
    bias = scale * _bias(conv, tensors) + shift
    return _with_weights(conv, weight, bias, tensors)


def _merge_before(affine: Conv2d, conv: Conv2d, tensors: TensorTable) -> Conv2d:
    """conv(affine(x)) as one convolution."""
    scale, shift = _scale_and_shift(affine, tensors)
    weight = tensors[conv.weight].astype(np.float64)
    group_outputs = len(weight) // conv.groups
    per_group = (conv.groups, weight.shape[1])
    scale_of, shift_of = (
        numbers.reshape(per_group).repeat(group_outputs, axis=0)[:, :, None, None]
        for numbers in (scale, shift)
    )
    bias = _bias(conv, tensors) + (weight * shift_of).sum(axis=(1, 2, 3))
    merged = _with_weights(conv, weight * scale_of, bias, tensors)
    return dataclasses.replace(merged, inputs=affine.inputs)


def _with_weights(
    conv: Conv2d, weight: _Numbers, bias: _Numbers, tensors: TensorTable
) -> Conv2d:
    bias_name = conv.bias or f"{conv.weight.removesuffix('.weight')}.bias"
    return dataclasses.replace(
        conv,
        weight=tensors.store(f"{conv.weight}.folded", weight),
        bias=tensors.store(f"{bias_name}.folded", bias) if bias.any() else None,
    )


def _is_pointwise(conv: Conv2d, tensors: Mapping[str, Tensor]) -> bool:
    return (
        tensors[conv.weight].shape[2:] == (1, 1)
        and conv.stride == (1, 1)
        and not any(conv.padding)
    )


def _is_affine(conv: Conv2d, tensors: Mapping[str, Tensor]) -> bool:
    depthwise = tensors[conv.weight].shape[:2] == (conv.groups, 1)
    return depthwise and _is_pointwise(conv, tensors)


def _is_zero_pad(conv: Conv2d, tensors: Mapping[str, Tensor]) -> bool:
    return (
        tensors[conv.weight].shape == (conv.groups, 1, 1, 1)
        and conv.stride == (1, 1)
        and conv.bias is None
        and bool((tensors[conv.weight] == 1).all())
    )


def _takes_shift(affine: Conv2d, conv: Conv2d) -> bool:
    # Zeros around the picture are not shifted, so a shift cannot pass padding.
    return affine.bias is None or not any(conv.padding)


def _scale_and_shift(
    affine: Conv2d, tensors: Mapping[str, Tensor]
) -> tuple[_Numbers, _Numbers]:
    return tensors[affine.weight].astype(np.float64).ravel(), _bias(affine, tensors)


def _bias(conv: Conv2d, tensors: Mapping[str, Tensor]) -> _Numbers:
    if conv.bias is None:
        return np.zeros(len(tensors[conv.weight]))
    return tensors[conv.bias].astype(np.float64)


def _is_identity(node: Node, tensors: Mapping[str, Tensor]) -> bool:
    match node:
        case Resize(ratio=(1, 1)) | PixelShuffle(factor=1) | LeakyRelu(slope=1.0):
            return True
        case Concat():
            return len(node.inputs) == 1
        case Conv2d():
            return _is_zero_pad(node, tensors) and not any(node.padding)
    return False


def _rename_inputs(node: Node, renamed: Mapping[str, str]) -> Node:
    inputs = tuple(renamed.get(name, name) for name in node.inputs)
    return dataclasses.replace(node, inputs=inputs)


def _rename_tensors(node: Node, names: Mapping[str, str]) -> Node:
    attributes: dict[str, Any] = {
        field: names[name]
        for field in tensor_fields(node)
        if (name := getattr(node, field)) is not None
    }
    return dataclasses.replace(node, **attributes)


def _replace(
    graph: Graph,
    nodes: Sequence[Node],
    *,
    tensors: Mapping[str, Tensor] | None = None,
    output: str | None = None,
) -> Graph:
    """The graph with other nodes and only the tensors that these use, well named."""
    tensors = graph.tensors if tensors is None else tensors
    used = {name for node in nodes for name in tensor_names(node)}
    # What replaced a tensor takes its name when nothing else uses that any more.
    names = {name: name for name in tensors if name in used}
    taken = set(used)
    for name in names:
        plain = name.split(".folded")[0]
        if plain not in taken:
            names[name] = plain
            taken.add(plain)
    renamed = [_rename_tensors(node, names) for node in nodes]
    return dataclasses.replace(
        graph,
        nodes=tuple(renamed),
        tensors={new: tensors[old] for old, new in names.items()},
        output=graph.output if output is None else output,
    )
