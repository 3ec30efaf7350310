"""Functions that ONNX models bring along are put in where they are called."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import FunctionProto, ModelProto, NodeProto, TensorProto, helper

from tests.exporter.test_onnx_frontend import floats, model, node, random, saved
from upfrost_exporter import ExportError
from upfrost_exporter.onnx_frontend import read_onnx

OPSET = 17


def function(
    name: str,
    inputs: Sequence[str],
    nodes: Sequence[NodeProto],
    attributes: Sequence[str] = (),
    opset: int = OPSET,
) -> FunctionProto:
    """A function that gives the last operation's result."""
    sets = [helper.make_opsetid("", opset), helper.make_opsetid("nets", 1)]
    outputs = nodes[-1].output
    return helper.make_function(
        "nets", name, inputs, outputs, nodes, sets, list(attributes)
    )


def call(name: str, *inputs: str, to: str = "y", **attributes: Any) -> NodeProto:
    return helper.make_node(name, list(inputs), [to], domain="nets", **attributes)


def with_functions(made: ModelProto, *functions: FunctionProto) -> ModelProto:
    made.functions.extend(functions)
    made.opset_import.append(helper.make_opsetid("nets", 1))
    return made


def leaky() -> FunctionProto:
    """A function with an attribute of its own."""
    inner = node("LeakyRelu", "a", to="b")
    inner.attribute.append(
        onnx.AttributeProto(
            name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT
        )
    )
    return function("Leaky", ["a"], [inner], ["slope"])


def as_library() -> FunctionProto:
    """What asks for the rank of what it gets, as PyTorch's library of functions does:
    the maximum over rows and columns, but of a single number itself."""

    def branch(*nodes: NodeProto) -> onnx.GraphProto:
        result = helper.make_tensor_value_info("r", TensorProto.FLOAT, None)
        result.name = nodes[-1].output[0]
        return helper.make_graph(list(nodes), "branch", [], [result])

    return function(
        "Largest",
        ["a"],
        [
            node("Shape", "a", to="s"),
            node("Size", "s", to="rank"),
            node("Constant", to="zero", value_int=0),
            node("Equal", "rank", "zero", to="is_number"),
            node(
                "If",
                "is_number",
                to="b",
                then_branch=branch(node("Identity", "a", to="same")),
                else_branch=branch(
                    node("Identity", "a", to="c"),
                    node("ReduceMax", "c", to="largest", axes=[2, 3]),
                ),
            ),
        ],
    )


def test_modules_as_functions_of_functions(tmp_path: Path) -> None:
    block = function(
        "Block",
        ["a", "w"],
        [
            node("Conv", "a", "w", to="c", pads=[1, 1, 1, 1]),
            call("Leaky", "c", to="l", slope=0.3),
            call("Largest", "l", to="m"),
            node("Mul", "l", "m", to="o"),
        ],
    )
    made = with_functions(
        model(
            [
                call("Block", "x", "w", to="h"),
                call("Block", "h", "w", to="y"),
            ],
            {"w": 0.2 * random(3, 3, 3, 3)},
        ),
        leaky(),
        as_library(),
        block,
    )
    graph = read_onnx(saved(made, tmp_path))  # compares with ONNX Runtime
    assert [each.op for each in graph.nodes] == [
        "conv2d",
        "leaky_relu",
        "global_max",
        "multiply",
    ] * 2


def test_a_choice_by_what_is_seen_is_refused(tmp_path: Path) -> None:
    result = helper.make_tensor_value_info("r", TensorProto.FLOAT, None)
    branch = helper.make_graph([node("Relu", "x", to="r")], "branch", [], [result])
    made = model(
        [
            node("GlobalMaxPool", "x", to="m"),
            node("Greater", "m", "half", to="c"),
            node("If", "c", then_branch=branch, else_branch=branch),
        ],
        {"half": floats(0.5)},
    )
    with pytest.raises(ExportError, match=r"If .*chooses by what it sees"):
        read_onnx(saved(made, tmp_path))


def doubling(count: int) -> list[FunctionProto]:
    """Functions each of which calls the one before twice."""
    return [
        function("F0", ["a"], [node("Relu", "a", to="b")]),
        *(
            function(
                f"F{index}",
                ["a"],
                [
                    call(f"F{index - 1}", "a", to="c"),
                    call(f"F{index - 1}", "c", to="b"),
                ],
            )
            for index in range(1, count)
        ),
    ]


def weighty(count: int) -> list[FunctionProto]:
    """A function with a constant of half a megabyte, and one that calls it often."""
    constant = floats(*np.ones(1 << 17))
    value = onnx.numpy_helper.from_array(constant)
    calls = [call("Weighty", f"t{n}", to=f"t{n + 1}") for n in range(count)]
    return [
        function(
            "Weighty",
            ["a"],
            [node("Constant", to="c", value=value), node("Relu", "a", to="b")],
        ),
        function("F0", ["t0"], calls),
    ]


@pytest.mark.parametrize(
    ("functions", "called", "message"),
    [
        (doubling(60), "F59", r"with its functions has \d{18} operations: too many"),
        (weighty(200), "F0", r"with its functions has 10\d{7} bytes: too many"),
        (
            [
                function("F0", ["a"], [call("F1", "a", to="b")]),
                function("F1", ["a"], [call("F0", "a", to="b")]),
            ],
            "F0",
            r"recursive|calls itself",
        ),
        (
            [function("F0", ["a"], [node("Relu", "a", to="b")], opset=1)],
            "F0",
            "Opset import",
        ),
        ([], "F0", r"F0 \(operation 1 of 1\): it belongs to 'nets'"),
    ],
    ids=["doubling", "weighty", "recursive", "other-opset", "missing"],
)
def test_functions_that_cannot_be_put_in_are_refused(
    functions: list[FunctionProto], called: str, message: str, tmp_path: Path
) -> None:
    made = with_functions(model([call(called, "x")]), *functions)
    with pytest.raises(ExportError, match=message) as error:
        read_onnx(saved(made, tmp_path))
    assert "\n" not in str(error.value)
