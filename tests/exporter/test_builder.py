"""Names and tensors that front ends collect."""

from __future__ import annotations

import numpy as np
import pytest

from upfrost.network.graph import Relu, Tensor, check_name
from upfrost_exporter import builder
from upfrost_exporter.builder import (
    ExportError,
    GraphBuilder,
    TensorTable,
    unique_name,
)


@pytest.mark.parametrize(
    "label",
    ["body.0.weight", "", "../../etc/passwd", "a b", "räume", "-x", "..", "x" * 500],
)
def test_every_label_makes_a_legal_name(label: str) -> None:
    first = unique_name(label, set())
    second = unique_name(label, {first})
    check_name("tensor", first)
    check_name("tensor", second)
    assert first != second


def test_a_legal_label_is_the_name() -> None:
    assert unique_name("body.0.weight", {"body.0.bias"}) == "body.0.weight"


def test_equal_tensors_are_kept_once() -> None:
    build = GraphBuilder(3)
    weight = np.arange(6.0).reshape(2, 3)
    assert build.tensor("first", weight) == "first"
    assert build.tensor("second", weight.copy()) == "first"
    assert build.tensor("first", weight + 1) == "first_2"
    assert build.tensor("flat", weight.ravel()) == "flat"
    assert {tensor.dtype for tensor in build.tensors.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("number", [np.nan, np.inf, 1e39])
def test_numbers_that_float32_cannot_hold_are_refused(number: float) -> None:
    with pytest.raises(ExportError, match="'w' holds a number that is not finite"):
        TensorTable().store("w", np.array([number]))


def test_a_tensor_is_compared_with_none_but_an_equal_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So that a network of thousands of layers is read in seconds."""
    reads: list[int] = []

    def fingerprint(tensor: Tensor) -> tuple[object, ...]:
        reads.append(tensor.size)
        return (tensor.tobytes(),)

    monkeypatch.setattr(builder, "_fingerprint", fingerprint)
    table = TensorTable({"w": np.zeros(1, np.float32)})
    names = {table.store("w", np.array([number])) for number in range(50)}
    assert len(names) == 50
    assert len(reads) == 51


def test_values_never_share_a_name() -> None:
    build = GraphBuilder(3)
    assert build.add(Relu, "act", ["input"]) == "act"
    assert build.add(Relu, "act", ["act"]) == "act_2"
    assert build.add(Relu, "input", ["act_2"]) == "input_2"


def test_an_invalid_graph_is_an_export_error() -> None:
    build = GraphBuilder(3)
    output = build.add(Relu, "act", ["input"])
    with pytest.raises(ExportError, match=r"1 times as large .* the graph says 2"):
        build.graph(output, name="n", scale=2, value_range=1.0, metadata={})
    with pytest.raises(ExportError, match="returns its input unchanged"):
        build.graph("input", name="n", scale=1, value_range=1.0, metadata={})
