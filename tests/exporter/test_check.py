"""The check between an exported graph and its source refuses what differs."""

from __future__ import annotations

import numpy as np
import pytest

from tests.graphs import every_operation, plain_network
from upfrost.network import reference
from upfrost.network.reference import Array
from upfrost_exporter.builder import ExportError
from upfrost_exporter.check import TOLERANCE, verify


@pytest.mark.parametrize("make", [plain_network, every_operation])
def test_a_graph_equals_itself(make: object) -> None:
    assert callable(make)
    graph = make(0)
    found: list[float] = []
    verify(graph, lambda picture: reference.run(graph, picture), report=found.append)
    assert found == [0]


def test_a_difference_above_the_tolerance_is_refused() -> None:
    graph = plain_network(0)

    def wrong(picture: Array) -> Array:
        result = reference.run(graph, picture)
        result[0, 0, 0] += 5 * TOLERANCE
        return result

    with pytest.raises(ExportError, match=r"differs from its source by .*seed 0"):
        verify(graph, wrong)


def test_another_shape_is_refused() -> None:
    graph = plain_network(0)
    with pytest.raises(ExportError, match=r"source gives an array of shape \(1, 2\)"):
        verify(graph, lambda _: np.zeros((1, 2), np.float32))


def test_results_that_are_not_numbers_are_refused() -> None:
    graph = plain_network(0)

    def broken(picture: Array) -> Array:
        return reference.run(graph, picture) * np.float32(np.nan)

    with pytest.raises(ExportError, match="differs from its source by nan"):
        verify(graph, broken)
