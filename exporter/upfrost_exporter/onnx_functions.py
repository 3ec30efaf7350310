"""Functions that an ONNX model brings along, put in where they are called.

PyTorch's exporters write modules and composed operations as functions.
"""

from __future__ import annotations

from collections.abc import Iterator

from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto
from onnx.inliner import inline_local_functions

from upfrost.network.graph import MAX_NODES
from upfrost_exporter.builder import ExportError

MAX_OPERATIONS = 16 * MAX_NODES
_Key = tuple[str, str, str]  # domain, name, overload
# Of what functions become: a few that call each other double with each.
_MAX_BYTES = 1 << 26
# As modules in modules. The library calls itself as often.
_MAX_DEPTH = 100


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs that an operation chooses from, or repeats."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs


def every_graph(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph and those inside its operations."""
    pending = [graph]
    while pending:
        yield (current := pending.pop())
        for node in current.node:
            pending.extend(subgraphs(node))


def every_operation(graph: GraphProto) -> Iterator[NodeProto]:
    """The operations of a graph and of those inside them."""
    for each in every_graph(graph):
        yield from each.node


def reads(node: NodeProto) -> list[str]:
    """The names that an operation reads, also from inside its graphs."""
    inner = (each for graph in subgraphs(node) for each in every_operation(graph))
    return [name for each in (node, *inner) for name in each.input]


def inlined(model: ModelProto) -> ModelProto:
    """The model without functions of its own.

    Raises `ExportError` where that would be too large, and for functions that call
    themselves or are for another operation set than the model.
    """
    if not model.functions:
        return model
    functions = {_key(function): function for function in model.functions}
    _check_size(model, functions)
    result = inline_local_functions(model)
    for node in every_operation(result.graph):
        if (function := functions.get(_called(node))) is not None:
            asked = {entry.domain: entry.version for entry in function.opset_import}
            raise ExportError(
                f"function {_name(_called(node))} is for operation sets {asked}, the "
                "model for others: export it for one"
            )
    return result


def _check_size(model: ModelProto, functions: dict[_Key, FunctionProto]) -> None:
    sizes: dict[_Key, tuple[int, int]] = {}
    open_calls: set[_Key] = set()

    def size_of(key: _Key) -> tuple[int, int]:
        """Operations and bytes of a function with those that it calls."""
        if key in open_calls:
            raise ExportError(f"function {_name(key)} calls itself")
        if len(open_calls) == _MAX_DEPTH:
            raise ExportError(f"more than {_MAX_DEPTH} functions call each other")
        if key not in sizes:
            open_calls.add(key)
            body = GraphProto(node=functions[key].node)
            sizes[key] = total(body)
            open_calls.remove(key)
        return sizes[key]

    def total(graph: GraphProto) -> tuple[int, int]:
        count = size = 0
        for node in every_operation(graph):
            called = _called(node)
            more = size_of(called) if called in functions else (1, node.ByteSize())
            count, size = count + more[0], size + more[1]
        return count, size

    count, size = total(model.graph)
    own = model.graph.ByteSize()
    if count > MAX_OPERATIONS:
        raise ExportError(
            f"the model with its functions has {count} operations: too many"
        )
    if size > own + _MAX_BYTES:
        raise ExportError(f"the model with its functions has {size} bytes: too many")


def _key(function: FunctionProto) -> _Key:
    return function.domain, function.name, getattr(function, "overload", "")


def _called(node: NodeProto) -> _Key:
    return node.domain, node.op_type, getattr(node, "overload", "")


def _name(key: _Key) -> str:
    return repr(".".join(part for part in key if part)[:140])
